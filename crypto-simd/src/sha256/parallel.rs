//! A batch on many threads: each runs lanes of its own, all of which are fed from one queue.

use super::Backend;
use super::lanes::{Feed, Lane};
use super::queue::{self, Queue};
use super::rounds::INITIAL;
use crate::Digest;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes for which another thread is worth waking.
const BYTES_PER_THREAD: usize = 128 << 10;

/// Bytes of messages, about, that a thread takes from the queue at a time.
const BYTES_TAKEN: usize = 4096;

/// Messages, at most, that a thread takes from the queue at a time.
const MESSAGES_TAKEN: usize = 64;

impl Backend {
    /// [`par_hash_many`](super::par_hash_many) by this backend.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn par_hash_many(self, messages: &[&[u8]], digests: &mut [Digest]) {
        assert_eq!(messages.len(), digests.len(), "one digest for each message");
        let bytes: usize = messages.iter().map(|message| message.len()).sum();
        let threads = rayon::current_num_threads().min(bytes / BYTES_PER_THREAD).min(messages.len());
        if threads < 2 {
            return self.hash_many(messages, digests);
        }
        let mut order = vec![0; queue::ORDERED * threads];
        let queue = Queue::new(messages, &mut order);
        let taken_at_once = (BYTES_TAKEN * messages.len() / bytes).clamp(1, MESSAGES_TAKEN);
        let next = AtomicUsize::new(0);
        let digests = Mutex::new(digests);
        let work = || {
            let mut feed = Shared { queue, next: &next, taken_at_once, mine: 0..0 };
            let mut done = Vec::new();
            self.hash_from(&mut feed, messages.len(), &mut |index, digest| done.push((index, digest)));
            let mut digests = digests.lock().unwrap_or_else(PoisonError::into_inner);
            for (index, digest) in done {
                digests[index] = digest;
            }
        };
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

/// Messages that several threads take from.
struct Shared<'a, 'm> {
    queue: Queue<'a, 'm>,
    /// The first message of the queue that nobody has taken.
    next: &'a AtomicUsize,
    taken_at_once: usize,
    /// Those that this thread took and did not begin.
    mine: std::ops::Range<usize>,
}

impl<'m> Feed<'m> for Shared<'_, 'm> {
    fn next(&mut self, lane: &mut Lane<'m>) -> Option<[u32; 8]> {
        let i = self.mine.next().or_else(|| {
            // Nothing else is published with the number, so no ordering is needed.
            let first = self.next.fetch_add(self.taken_at_once, Ordering::Relaxed);
            self.mine = first..first + self.taken_at_once;
            self.mine.next()
        })?;
        let (index, message) = self.queue.get(i)?;
        lane.start(message, index);
        Some(INITIAL)
    }
}
