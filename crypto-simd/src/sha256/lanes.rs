//! Keeping lanes full with messages of any lengths.
//!
//! Owns the bookkeeping between messages and kernels: which bytes each lane reads next, padding, and taking the
//! digest out. A lane first reads its message's whole blocks where they lie, then one or two blocks of padding from
//! a buffer of its own, and then takes the next message. Nothing is allocated, and no byte outside the messages
//! and those buffers is read.

use super::arch::{Kernel, State};
use super::queue::Queue;
use super::rounds::INITIAL;
use crate::Digest;

/// Bytes in a block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// One message on its way, apart from its state.
#[derive(Clone, Copy)]
pub(super) struct Lane<'m> {
    /// The whole blocks of the message that are still to be read.
    body: &'m [u8],
    /// The last blocks: the rest of the message and the padding, at the end of this buffer.
    tail: [u8; 2 * BLOCK_BYTES],
    /// Blocks of `tail` still to be read. A lane with none is idle.
    tail_blocks: usize,
    /// Where the digest goes.
    index: usize,
}

impl<'m> Lane<'m> {
    const IDLE: Self = Self { body: &[], tail: [0; 2 * BLOCK_BYTES], tail_blocks: 0, index: 0 };

    fn is_idle(&self) -> bool {
        self.tail_blocks == 0
    }

    /// Takes a new message.
    pub(super) fn start(&mut self, message: &'m [u8], index: usize) {
        let (body, rest) = message.split_at(message.len() / BLOCK_BYTES * BLOCK_BYTES);
        self.body = body;
        self.index = index;
        // One byte 0x80 and the length in bits must follow the message.
        self.tail_blocks = if rest.len() + 9 <= BLOCK_BYTES { 1 } else { 2 };
        let start = (2 - self.tail_blocks) * BLOCK_BYTES;
        let tail = &mut self.tail[start..];
        tail.fill(0);
        tail[..rest.len()].copy_from_slice(rest);
        tail[rest.len()] = 0x80;
        let (_, length) = tail.split_last_chunk_mut().expect("a block or two");
        *length = (8 * message.len() as u64).to_be_bytes();
    }

    /// Where the next blocks are, and how many lie there one after the other. None for an idle lane.
    fn next(&self) -> (*const u8, usize) {
        if self.body.is_empty() {
            let start = (2 - self.tail_blocks) * BLOCK_BYTES;
            (self.tail[start..].as_ptr(), self.tail_blocks)
        } else {
            (self.body.as_ptr(), self.body.len() / BLOCK_BYTES)
        }
    }

    /// Notes that `blocks` of those that [`next`](Self::next) told of have been read.
    fn advance(&mut self, blocks: usize) {
        if self.body.is_empty() {
            self.tail_blocks -= blocks;
        } else {
            self.body = &self.body[blocks * BLOCK_BYTES..];
        }
    }
}

/// Where lanes get their work.
pub(super) trait Feed<'m> {
    /// Puts the next message into `lane` and returns its state; `None` when there are no more.
    fn next(&mut self, lane: &mut Lane<'m>) -> Option<[u32; 8]>;
}

/// Messages to be hashed by one thread.
pub(super) struct Messages<'a, 'm> {
    queue: Queue<'a, 'm>,
    next: usize,
}

impl<'a, 'm> Messages<'a, 'm> {
    pub(super) fn new(queue: Queue<'a, 'm>) -> Self {
        Self { queue, next: 0 }
    }
}

impl<'m> Feed<'m> for Messages<'_, 'm> {
    fn next(&mut self, lane: &mut Lane<'m>) -> Option<[u32; 8]> {
        let (index, message) = self.queue.get(self.next)?;
        self.next += 1;
        lane.start(message, index);
        Some(INITIAL)
    }
}

/// The lanes of a kernel, which are also the messages that a kernel leaves to the next one.
pub(super) struct Lanes<'m, const N: usize> {
    state: State<N>,
    lanes: [Lane<'m>; N],
}

impl<'m, const N: usize> Lanes<'m, N> {
    /// Hashes everything from `feed` and tells `done` of each message's place and digest, except that when it has no more and fewer than `fewest` lanes are busy, those
    /// are left as they are.
    pub(super) fn run(
        kernel: Kernel<N>,
        feed: &mut impl Feed<'m>,
        fewest: usize,
        done: &mut impl FnMut(usize, Digest),
    ) -> Self {
        let mut this = Self { state: State::splat(&INITIAL), lanes: [Lane::IDLE; N] };
        let mut busy = 0;
        for i in 0..N {
            busy += usize::from(this.refill(i, feed));
        }
        while busy >= fewest {
            let mut blocks = [std::ptr::null(); N];
            let mut count = usize::MAX;
            let mut any = std::ptr::null();
            for (pointer, lane) in blocks.iter_mut().zip(&this.lanes) {
                if !lane.is_idle() {
                    let (next, length) = lane.next();
                    (*pointer, any, count) = (next, next, count.min(length));
                }
            }
            // Idle lanes hash what some busy lane hashes, to no end.
            for pointer in &mut blocks {
                if pointer.is_null() {
                    *pointer = any;
                }
            }
            // SAFETY: `fewest` is at least one, so `any` and with it every pointer is one that `Lane::next` gave
            // with a length of `count` blocks or more, in memory that `this.lanes` borrows or owns.
            unsafe { kernel.compress(&mut this.state, &blocks, count) };
            for i in 0..N {
                if this.lanes[i].is_idle() {
                    continue;
                }
                this.lanes[i].advance(count);
                if this.lanes[i].is_idle() {
                    done(this.lanes[i].index, to_digest(&this.state.lane(i)));
                    if !this.refill(i, feed) {
                        busy -= 1;
                    }
                }
            }
        }
        this
    }

    fn refill(&mut self, lane: usize, feed: &mut impl Feed<'m>) -> bool {
        let state = feed.next(&mut self.lanes[lane]);
        if let Some(state) = &state {
            self.state.set_lane(lane, state);
        }
        state.is_some()
    }
}

impl<'m, const N: usize> Feed<'m> for Lanes<'m, N> {
    fn next(&mut self, lane: &mut Lane<'m>) -> Option<[u32; 8]> {
        // The longest first, so that the last to be left alone has the least to go.
        let busy = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_idle());
        let (i, _) = busy.max_by_key(|(_, lane)| lane.body.len())?;
        *lane = std::mem::replace(&mut self.lanes[i], Lane::IDLE);
        Some(self.state.lane(i))
    }
}

/// Hashes one message.
pub(super) fn hash_one(kernel: Kernel<1>, message: &[u8]) -> Digest {
    let mut lane = Lane::IDLE;
    lane.start(message, 0);
    let mut state = State::splat(&INITIAL);
    while !lane.is_idle() {
        let (pointer, count) = lane.next();
        // SAFETY: `count` blocks lie there, in `message` or in `lane`.
        unsafe { kernel.compress(&mut state, &[pointer], count) };
        lane.advance(count);
    }
    to_digest(&state.lane(0))
}

pub(super) fn to_digest(state: &[u32; 8]) -> Digest {
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}
