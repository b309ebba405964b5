//! The pool of bulk buffers of one shard: a fixed number of slots, allocated at start. Backpressure is the pool
//! running dry.
//!
//! Two classes behind one type: standard slots, and a few large ones for blocks that no standard slot holds.
//! Owns the free lists. A slot is either in its free list or owned by exactly one [`PoolBuf`]; that is what makes
//! handing out slices of it sound.
//!
//! Never shows old content: of a buffer only what was filled since it was acquired can be read (hazard A21).

use super::arena::Arena;
use crate::limits::{LARGE_SLOT_BYTES, LARGE_SLOTS, STANDARD_SLOT_BYTES};
use crossbeam::queue::ArrayQueue;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The shape of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Bytes in a standard slot, rounded up to whole pages.
    pub slot_bytes: usize,
    /// The number of standard slots.
    pub slots: usize,
    /// The number of large slots, of [`LARGE_SLOT_BYTES`] each; their memory is taken when first used.
    pub large_slots: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { slot_bytes: STANDARD_SLOT_BYTES, slots: 32, large_slots: LARGE_SLOTS }
    }
}

/// Slots of one size.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) arena: Arena,
    free: ArrayQueue<usize>,
    /// As many permits as the free list has slots, or fewer for a moment: a permit is taken before a slot is, and
    /// given back after.
    available: Semaphore,
}

impl Class {
    fn new(slots: usize, slot_bytes: usize) -> io::Result<Arc<Self>> {
        let arena = Arena::map(slots, slot_bytes)?;
        let free = ArrayQueue::new(slots.max(1));
        for index in 0..slots {
            assert!(free.push(index).is_ok(), "as long as the arena");
        }
        Ok(Arc::new(Self { arena, free, available: Semaphore::new(slots) }))
    }

    /// For whoever holds a permit that was just taken.
    fn take(self: &Arc<Self>) -> PoolBuf {
        let index = self.free.pop().expect("a permit stands for a free slot");
        PoolBuf { class: Arc::clone(self), index, filled: 0, offered: 0 }
    }
}

/// A shard's buffers. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct BufferPool {
    standard: Arc<Class>,
    large: Arc<Class>,
}

impl BufferPool {
    /// Allocates the pool.
    ///
    /// # Errors
    /// If the address space for it cannot be had.
    pub fn new(config: PoolConfig) -> io::Result<Self> {
        Ok(Self {
            standard: Class::new(config.slots, config.slot_bytes)?,
            large: Class::new(config.large_slots, LARGE_SLOT_BYTES)?,
        })
    }

    /// An empty buffer with room for at least `bytes`, as soon as there is one. Those who wait are served in order.
    /// A small request never takes a large slot.
    ///
    /// # Panics
    /// If the pool has no slots of that size at all (over [`LARGE_SLOT_BYTES`], or none configured).
    pub async fn acquire(&self, bytes: usize) -> PoolBuf {
        let class = self.class(bytes).expect("no slot of this pool is that large");
        class.available.acquire().await.expect("never closed").forget();
        class.take()
    }

    /// An empty buffer with room for at least `bytes`, if one is free now (and nobody waits for it).
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<PoolBuf> {
        let class = self.class(bytes)?;
        class.available.try_acquire().ok()?.forget();
        Some(class.take())
    }

    /// Bytes in a standard slot.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.standard.arena.slot_bytes()
    }

    /// The number of standard slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.standard.arena.slots()
    }

    /// Standard slots that are free now.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.standard.available.available_permits()
    }

    fn class(&self, bytes: usize) -> Option<&Arc<Class>> {
        [&self.standard, &self.large]
            .into_iter()
            .find(|class| bytes <= class.arena.slot_bytes() && class.arena.slots() > 0)
    }

    /// The standard slots, for registering with the kernel.
    pub(super) fn standard(&self) -> &Arc<Class> {
        &self.standard
    }
}

/// An exclusive handle to one slot. Begins empty; only what was filled can be read. Returns the slot when dropped,
/// on whatever thread.
#[derive(Debug)]
pub struct PoolBuf {
    class: Arc<Class>,
    index: usize,
    /// Bytes at the start of the slot that were written since it was acquired or cleared.
    filled: usize,
    /// Bytes after those that the last `spare_mut` gave out.
    offered: usize,
}

impl PoolBuf {
    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.class.arena.slot_bytes()
    }

    /// Bytes filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Bytes it can hold beside those filled.
    #[must_use]
    pub fn spare_bytes(&self) -> usize {
        self.capacity() - self.filled
    }

    /// What is filled.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the slot is valid and initialized for `capacity() >= filled` bytes while `class` (which owns the
        // arena) lives, and belongs to `self` alone. The kernel does not touch it: operations hold the `PoolBuf`
        // by value in a task of their own until they are complete (see `uring`), so no `&self` exists meanwhile.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.filled) }
    }

    /// What is filled, to be changed in place.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.filled) }
    }

    /// The next `bytes` bytes after those filled, to be written before [`PoolBuf::advance`] makes them readable.
    /// What is in them meanwhile is left over from earlier use: write, do not read.
    ///
    /// # Panics
    /// If there are fewer than `bytes` to spare.
    #[must_use]
    pub fn spare_mut(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.spare_bytes(), "the buffer has room for it");
        self.offered = bytes;
        // SAFETY: as in `as_mut_slice`; filled + bytes <= capacity, as asserted; all bytes of a slot are
        // initialized (the mapping began as zeros).
        unsafe { std::slice::from_raw_parts_mut(self.ptr().add(self.filled), bytes) }
    }

    /// Declares that the first `bytes` bytes of the last [`PoolBuf::spare_mut`] were written.
    ///
    /// # Panics
    /// If that did not give out as many.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.offered, "only what was given out can have been written");
        self.filled += bytes;
        self.offered -= bytes;
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.spare_mut(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Appends zeros.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn put_zeros(&mut self, bytes: usize) {
        self.spare_mut(bytes).fill(0);
        self.advance(bytes);
    }

    /// Forgets all but the first `bytes` bytes. Does nothing if fewer are filled.
    pub fn truncate(&mut self, bytes: usize) {
        self.filled = self.filled.min(bytes);
        self.offered = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Declares that the kernel wrote `bytes` bytes after those filled.
    pub(super) fn advance_by_kernel(&mut self, bytes: usize) {
        assert!(bytes <= self.spare_bytes(), "the kernel was given no more");
        self.filled += bytes;
        self.offered = 0;
    }

    pub(super) fn class(&self) -> &Arc<Class> {
        &self.class
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn ptr(&self) -> *mut u8 {
        self.class.arena.slot(self.index).as_ptr()
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        // The slot first, then the permit: who gets the permit finds a slot.
        assert!(self.class.free.push(self.index).is_ok(), "a slot is free once at most");
        self.class.available.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn pool(slots: usize) -> BufferPool {
        BufferPool::new(PoolConfig { slot_bytes: 8192, slots, large_slots: 1 }).unwrap()
    }

    #[test]
    fn a21_reused_buffers_never_show_old_bytes() {
        let pool = pool(1);
        let mut buf = pool.try_acquire(1).unwrap();
        let capacity = buf.capacity();
        buf.spare_mut(capacity).fill(0xC5);
        buf.advance(capacity);
        drop(buf);
        let mut buf = pool.try_acquire(1).unwrap();
        assert!(buf.as_slice().is_empty() && buf.as_mut_slice().is_empty());
        buf.spare_mut(100)[..10].fill(1);
        buf.advance(10);
        assert_eq!(buf.as_slice(), [1; 10]);
        buf.put_zeros(50);
        assert!(!buf.as_slice().contains(&0xC5));
        buf.clear();
        assert!(buf.as_slice().is_empty());
        buf.put_slice(b"new");
        assert_eq!(buf.as_mut_slice(), b"new");
        buf.truncate(100);
        assert_eq!(buf.as_slice(), b"new");
    }

    #[test]
    #[should_panic(expected = "only what was given out")]
    fn a21_nothing_can_be_declared_written_that_was_not_given_out() {
        let pool = pool(1);
        let mut buf = pool.try_acquire(1).unwrap();
        let _ = buf.spare_mut(10);
        buf.advance(6);
        buf.advance(5);
    }

    #[test]
    #[should_panic(expected = "only what was given out")]
    fn a21_clearing_takes_back_what_was_given_out() {
        let pool = pool(1);
        let mut buf = pool.try_acquire(1).unwrap();
        let _ = buf.spare_mut(10);
        buf.clear();
        buf.advance(1);
    }

    #[test]
    fn classes_are_chosen_by_size() {
        let pool = pool(1);
        let small = pool.try_acquire(8192).unwrap();
        assert_eq!(small.capacity(), 8192);
        assert!(pool.try_acquire(8192).is_none(), "a small request does not take a large slot");
        let large = pool.try_acquire(8193).unwrap();
        assert!(large.capacity() >= 16 << 20);
        assert!(pool.try_acquire(usize::MAX).is_none());
    }

    #[test]
    fn a_dry_pool_serves_those_who_wait_in_order() {
        let pool = pool(1);
        let held = pool.try_acquire(1).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = pin!(pool.acquire(1));
        let mut second = pin!(pool.acquire(1));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(pool.try_acquire(1).is_none(), "nobody jumps the queue");
        assert!(second.as_mut().poll(&mut cx).is_pending());
        let Poll::Ready(held) = first.as_mut().poll(&mut cx) else { panic!("the first is served") };
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn slots_come_back_from_any_thread_and_never_overlap() {
        let pool = pool(4);
        std::thread::scope(|scope| {
            for id in 0..8_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    let mut done = 0;
                    while done < 200 {
                        let Some(mut buf) = pool.try_acquire(8192) else {
                            std::thread::yield_now();
                            continue;
                        };
                        buf.spare_mut(8192).fill(id);
                        buf.advance(8192);
                        assert!(buf.as_slice().iter().all(|&b| b == id));
                        done += 1;
                    }
                });
            }
        });
        assert_eq!(pool.free_slots(), 4);
    }

    proptest! {
        #[test]
        fn a_buffer_holds_exactly_what_was_put_in(parts in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..600), 0_usize..3), 0..30)) {
            let pool = pool(1);
            let mut buf = pool.try_acquire(1).unwrap();
            let mut expected = Vec::new();
            for (bytes, how) in parts {
                if bytes.len() > buf.spare_bytes() {
                    continue;
                }
                match how {
                    0 => { buf.put_slice(&bytes); expected.extend(&bytes); }
                    1 => { buf.put_zeros(bytes.len()); expected.resize(expected.len() + bytes.len(), 0); }
                    _ => { buf.truncate(bytes.len()); expected.truncate(bytes.len()); }
                }
                prop_assert_eq!(buf.as_slice(), &expected[..]);
            }
        }
    }
}
