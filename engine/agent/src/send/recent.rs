//! Runs that were just read and hashed, kept for a moment for receivers that ask for them at once: a source that is
//! sent while it is scanned is read once, not twice.
//!
//! Owns no memory of its own: what is kept are the feeder's buffers. When these run out, the feeder takes the oldest
//! back, at once while nobody asks for anything, and else after [`PATIENCE`]: so a scan goes no faster than a receiver
//! that is about as fast, and is not held up by one that is slow.
//!
//! What is kept has been hashed: whatever becomes of the file, these are the bytes that the manifest names. A connection
//! looks all the same whether the file is still that version, as when it reads: receivers are to get the newest.

use super::feed::SCAN_BUFFERS;
use sealift_proto::block::{BlockIndex, FileId};
use sealift_proto::wire::BlocksPrefix;
use sealift_store::{BufferPool, PoolBuf};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the feeder waits for a buffer while receivers ask for runs, before it takes one back.
const PATIENCE: Duration = Duration::from_millis(5);
/// Receivers count as asking for so long after they last did: two ends and a network may share few cores.
const ASKING_FOR: Duration = Duration::from_millis(25);
/// Runs that connections may hold until they are sent; the feeder always has the other buffers, however slowly
/// receivers take theirs.
const AWAY_MAX: usize = SCAN_BUFFERS / 2;

/// The runs that are kept.
#[derive(Default)]
pub struct Recent {
    state: Mutex<State>,
    /// Something more is kept.
    more: Notify,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    kept: VecDeque<Kept>,
    /// Runs that were taken and not sent yet.
    away: usize,
    /// When a receiver last asked for a run, kept or not.
    asked: Option<Instant>,
}

struct Kept {
    range: BlocksPrefix,
    buf: PoolBuf,
}

/// Held for a run that was taken, until it is sent.
pub struct Away(Arc<Recent>);

impl Drop for Away {
    fn drop(&mut self) {
        self.0.lock().away -= 1;
    }
}

impl Recent {
    /// Keeps a run that was hashed, whose manifest is about to be signed.
    pub fn keep(&self, file: FileId, first: BlockIndex, count: u32, buf: PoolBuf) {
        self.lock().kept.push_back(Kept { range: BlocksPrefix { file, first, count }, buf });
        self.more.notify_one();
    }

    /// Takes a run if it is kept, and remembers that one was asked for. Its bytes are behind as much room as the feeder
    /// left in front.
    pub fn take(self: &Arc<Self>, range: BlocksPrefix) -> Option<(PoolBuf, Away)> {
        let mut state = self.lock();
        state.asked = Some(Instant::now());
        if state.away >= AWAY_MAX {
            return None;
        }
        let at = state.kept.iter().position(|kept| kept.range == range)?;
        let Kept { buf, .. } = state.kept.remove(at)?;
        state.away += 1;
        Some((buf, Away(Arc::clone(self))))
    }

    /// A buffer of the feeder's, which all are of: for its sake, what is kept is given up.
    pub async fn buffer(&self, pool: &BufferPool, bytes: usize) -> PoolBuf {
        loop {
            if let Some(buf) = pool.try_acquire(bytes) {
                return buf;
            }
            let asked = self.is_asked();
            if !asked && self.give_up_oldest() {
                continue;
            }
            tokio::select! {
                buf = pool.acquire(bytes) => return buf,
                () = tokio::time::sleep(PATIENCE), if asked => drop(self.give_up_oldest()),
                // All were being read or hashed, or are on their way to receivers.
                () = self.more.notified(), if !asked => {}
            }
        }
    }

    /// Gives up everything: nothing is being read any more.
    pub fn clear(&self) {
        self.lock().kept.clear();
    }

    fn is_asked(&self) -> bool {
        self.lock().asked.is_some_and(|asked| asked.elapsed() < ASKING_FOR)
    }

    fn give_up_oldest(&self) -> bool {
        self.lock().kept.pop_front().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_store::PoolConfig;

    const SLOTS: usize = AWAY_MAX + 4;

    fn pool() -> BufferPool {
        BufferPool::new(PoolConfig { slot_bytes: 4096, slots: SLOTS, large_slots: 0 }).unwrap()
    }

    fn run(number: u32) -> BlocksPrefix {
        BlocksPrefix { file: FileId(7), first: BlockIndex(number), count: 1 }
    }

    /// Keeps as many runs as there are buffers, each with its number in it.
    fn full(pool: &BufferPool) -> Arc<Recent> {
        let recent = Arc::new(Recent::default());
        for number in 0..u32::try_from(SLOTS).unwrap() {
            let mut buf = pool.try_acquire(1).unwrap();
            buf.put_slice(&number.to_le_bytes());
            recent.keep(FileId(7), BlockIndex(number), 1, buf);
        }
        recent
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_taken_once_and_only_as_it_was_kept() {
        let pool = pool();
        let recent = full(&pool);
        assert!(recent.take(BlocksPrefix { count: 2, ..run(1) }).is_none());
        assert!(recent.take(BlocksPrefix { file: FileId(8), ..run(1) }).is_none());
        let taken = recent.take(run(1)).unwrap();
        assert_eq!(taken.0.as_slice(), 1_u32.to_le_bytes());
        assert!(recent.take(run(1)).is_none());
        drop(taken);
        assert_eq!(pool.free_slots(), 1, "what was sent is the feeder's again");
        recent.clear();
        assert_eq!(pool.free_slots(), SLOTS);
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_asks_the_oldest_is_given_up_at_once() {
        let pool = pool();
        let recent = full(&pool);
        let begun = Instant::now();
        let _buf = recent.buffer(&pool, 1).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(recent.take(run(0)).is_none() && recent.take(run(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn while_receivers_ask_they_are_waited_for_and_not_for_long() {
        let pool = pool();
        let recent = full(&pool);
        let taken = recent.take(run(5)).unwrap();
        let begun = Instant::now();
        let buf = recent.buffer(&pool, 1).await;
        assert_eq!(begun.elapsed(), PATIENCE, "the oldest was given up after that");
        drop(buf);
        assert!(recent.take(run(0)).is_none());
        let _held = pool.try_acquire(1).unwrap();
        let begun = Instant::now();
        let (_buf, ()) = tokio::join!(recent.buffer(&pool, 1), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(taken);
        });
        assert_eq!(begun.elapsed(), Duration::from_millis(1), "what was sent came first");
        assert!(recent.take(run(1)).is_some(), "nothing was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_later_is_given_up_for_those_who_wait() {
        let pool = pool();
        let recent = Arc::new(Recent::default());
        let mut held: Vec<_> = std::iter::from_fn(|| pool.try_acquire(1)).collect();
        let (_buf, ()) = tokio::join!(recent.buffer(&pool, 1), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            recent.keep(FileId(7), BlockIndex(0), 1, held.pop().unwrap());
        });
        assert!(recent.take(run(0)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_that_take_and_do_not_read_leave_the_feeder_its_buffers() {
        let pool = pool();
        let recent = full(&pool);
        let taken: Vec<_> = (0..u32::MAX).map_while(|number| recent.take(run(number))).collect();
        assert_eq!(taken.len(), AWAY_MAX);
        for _ in AWAY_MAX..SLOTS {
            std::mem::forget(recent.buffer(&pool, 1).await);
        }
    }
}
