//! Reads and writes of pooled buffers on one shard's io_uring.
//!
//! Every operation runs in a local task of its own, which owns the [`PoolBuf`] until the kernel has finished. So
//! dropping the future that waits for it abandons the result and nothing else: the slot returns to the pool when the
//! kernel is done with it. tokio-uring 0.5 alone does not give that: an operation on a registered buffer holds
//! tokio-uring's handle to it, not ours; and when its runtime is dropped it releases the buffers of abandoned
//! operations *before* it waits for them. [`RingIo::drained`] therefore has to be awaited before the runtime goes:
//! it refuses new operations and waits for those in flight.
//!
//! Never touches bytes that are filled when it reads, and writes only bytes that are.

use super::arena::Arena;
use super::pool::{BufferPool, Class, PoolBuf};
use crate::faults::{Op, Turn};
use crate::limits::{RING_COMPLETIONS_MAX, RING_COMPLETIONS_MIN, RING_COMPLETIONS_PER_SLOT, RING_TRIES_MAX};
use rustix::fs::OFlags;
use std::cell::Cell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_uring::buf::fixed::FixedBufRegistry;
use tokio_uring::buf::{BoundedBuf, IoBuf, IoBufMut};

/// Whether this process may use io_uring.
pub(crate) fn probe() -> io::Result<()> {
    let ring = tokio_uring::uring_builder().build(2)?;
    // A filter may allow the ring to be made and forbid its use.
    ring.submit().map(|_| ())
}

/// A runtime with a ring for a pool of `slots` buffers.
///
/// tokio-uring 0.5 submits what is queued when its thread parks, or when the queue is full. A busy shard does not
/// park, and its disk would stand still until its pool ran dry. So the queue has a single entry, and each operation
/// is followed by an empty one that pushes it out (see [`submitted`]): a system call more for each run of blocks. The
/// completion queue is as long as the pool needs.
pub(crate) fn runtime(slots: usize) -> io::Result<tokio_uring::Runtime> {
    let completions = u32::try_from(slots.saturating_mul(RING_COMPLETIONS_PER_SLOT).next_power_of_two())
        .unwrap_or(RING_COMPLETIONS_MAX)
        .clamp(RING_COMPLETIONS_MIN, RING_COMPLETIONS_MAX);
    let mut plain = tokio_uring::uring_builder();
    plain.setup_cqsize(completions);
    let mut tuned = plain.clone();
    // Both from Linux 5.19 / 6.0: completions without interrupting this thread; one submitting thread.
    tuned.setup_coop_taskrun().setup_single_issuer();
    let mut builder = tokio_uring::builder();
    builder.entries(1);
    match tokio_uring::Runtime::new(builder.uring_builder(&tuned)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            tokio_uring::Runtime::new(builder.uring_builder(&plain))
        }
        result => result,
    }
}

/// Waits for an operation, and sees to it that the kernel hears of it at once: see [`runtime`].
async fn submitted<F: Future>(operation: F) -> F::Output {
    let mut operation = pin!(operation);
    let mut queued = false;
    poll_fn(|cx| {
        // The first poll queues it; it cannot be complete before the runtime looks at the completion queue.
        let polled = operation.as_mut().poll(cx);
        if !queued {
            queued = true;
            // Likewise. What becomes of the empty operation is of no interest, so that it is dropped at once.
            let _ = pin!(tokio_uring::no_op()).poll(cx);
        }
        polled
    })
    .await
}

/// The slots as tokio-uring sees them while they are registered: addresses that it passes to the kernel.
struct RegisteredSlot {
    class: Arc<Class>,
    index: usize,
}

impl RegisteredSlot {
    fn arena(&self) -> &Arena {
        &self.class.arena
    }
}

// SAFETY: the pointer stays valid while `self` lives, since `class` owns the mapping and slots do not move. All
// `bytes_total` bytes are initialized, since the mapping began as zeros. That nobody else uses the slot during an
// operation is ensured by `RingIo::run`, which holds its `PoolBuf`.
unsafe impl IoBuf for RegisteredSlot {
    fn stable_ptr(&self) -> *const u8 {
        self.arena().slot(self.index).as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.arena().slot_bytes()
    }

    fn bytes_total(&self) -> usize {
        self.arena().slot_bytes()
    }
}

// SAFETY: as above; the slot is writable memory, and was made from a mutable mapping, not from a reference.
unsafe impl IoBufMut for RegisteredSlot {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.arena().slot(self.index).as_ptr()
    }

    unsafe fn set_init(&mut self, _bytes: usize) {
        // Always initialized as a whole.
    }
}

/// A buffer on its way through an operation that does not use registration.
struct LooseBuf(PoolBuf);

// SAFETY: the pointer stays valid while the `PoolBuf` lives, wherever it is moved to; all bytes of a slot are
// initialized; and the `PoolBuf` inside makes the slot exclusive.
unsafe impl IoBuf for LooseBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.0.ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.capacity()
    }

    fn bytes_total(&self) -> usize {
        self.0.capacity()
    }
}

// SAFETY: as above. What counts as filled is left alone here: `RingIo` advances it by what was really read.
unsafe impl IoBufMut for LooseBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.ptr()
    }

    unsafe fn set_init(&mut self, _bytes: usize) {
        // Always initialized as a whole.
    }
}

/// Operations that are not complete.
#[derive(Default)]
struct InFlight {
    operations: Cell<usize>,
    closing: Cell<bool>,
    finished: Notify,
}

/// Counts one operation for as long as its task lives.
struct Flight(Rc<InFlight>);

impl Flight {
    fn begin(all: &Rc<InFlight>) -> Self {
        all.operations.set(all.operations.get() + 1);
        Self(Rc::clone(all))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.operations.set(self.0.operations.get() - 1);
        self.0.finished.notify_one();
    }
}

/// The slots that the kernel knows by number.
struct Registered {
    registry: FixedBufRegistry<RegisteredSlot>,
    class: Arc<Class>,
}

/// Block I/O on the ring of the runtime this is used in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RingIo {
    registered: Option<Rc<Registered>>,
    in_flight: Rc<InFlight>,
}

/// A file that the ring can use; closes its descriptor (a duplicate) when dropped after the last operation on it.
pub(crate) type RingFile = Rc<tokio_uring::fs::File>;

/// What an operation does with its buffer.
enum Direction {
    /// Append `len` bytes.
    Read { len: usize },
    /// Write these of the filled bytes.
    Write { range: Range<usize> },
}

impl RingIo {
    /// For use in a runtime made by [`runtime`]: registers the standard slots of `pool`, and tells how that went.
    pub(crate) fn start(pool: &BufferPool) -> (Self, String) {
        let class = Arc::clone(pool.standard());
        let slots = (0..class.arena.slots()).map(|index| RegisteredSlot { class: Arc::clone(&class), index });
        let registry = FixedBufRegistry::new(slots);
        let (registered, text) = match registry.register() {
            Ok(()) => {
                let text = format!("io_uring, {} registered buffers", class.arena.slots());
                (Some(Rc::new(Registered { registry, class })), text)
            }
            Err(error) => {
                (None, format!("io_uring, buffers not registered ({error}; see the limit on locked memory)"))
            }
        };
        (Self { registered, in_flight: Rc::default() }, text)
    }

    pub(crate) fn attach(file: &File) -> io::Result<RingFile> {
        // With O_NONBLOCK (see `Source::open_file`) the ring would answer EAGAIN instead of waiting for the disk, on
        // file systems that cannot read without blocking.
        let flags = rustix::fs::fcntl_getfl(file)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?;
        }
        // tokio-uring closes what it is given: let it have a descriptor of its own.
        Ok(Rc::new(tokio_uring::fs::File::from_std(file.try_clone()?)))
    }

    /// Refuses operations from now on, and waits for those in flight.
    pub(crate) async fn drained(&self) {
        self.in_flight.closing.set(true);
        while self.in_flight.operations.get() > 0 {
            self.in_flight.finished.notified().await;
        }
    }

    /// Appends exactly `len` bytes from `offset` to the buffer; on an error its filled part is as before.
    pub(crate) async fn read_exact_at(
        &self,
        file: &RingFile,
        offset: u64,
        len: usize,
        buf: PoolBuf,
    ) -> (io::Result<()>, PoolBuf) {
        self.run(file, offset, Direction::Read { len }, buf).await
    }

    /// Writes the bytes of `range`, all of them filled, at `offset`.
    pub(crate) async fn write_all_at(
        &self,
        file: &RingFile,
        offset: u64,
        buf: PoolBuf,
        range: Range<usize>,
    ) -> (io::Result<()>, PoolBuf) {
        self.run(file, offset, Direction::Write { range }, buf).await
    }

    async fn run(
        &self,
        file: &RingFile,
        offset: u64,
        direction: Direction,
        buf: PoolBuf,
    ) -> (io::Result<()>, PoolBuf) {
        if self.in_flight.closing.get() {
            return (Err(io::Error::other("the shard is ending")), buf);
        }
        let this = self.clone();
        let file = Rc::clone(file);
        let flight = Flight::begin(&self.in_flight);
        let task = tokio_uring::spawn(async move {
            let (result, buf) = match direction {
                Direction::Read { len } => {
                    let start = buf.len();
                    let (result, mut buf) = this.transfer(&file, offset, start..start + len, buf, true).await;
                    if result.is_ok() {
                        buf.advance_by_kernel(len);
                    }
                    (result, buf)
                }
                Direction::Write { range } => this.transfer(&file, offset, range, buf, false).await,
            };
            drop(flight);
            (result, buf)
        });
        match task.await {
            Ok(result) => result,
            // Nobody aborts these tasks, so this is a panic.
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    /// Moves all bytes of `range` of the slot, completing what the kernel does in parts.
    async fn transfer(
        &self,
        file: &tokio_uring::fs::File,
        mut offset: u64,
        mut range: Range<usize>,
        mut buf: PoolBuf,
        read: bool,
    ) -> (io::Result<()>, PoolBuf) {
        let mut tries = 0;
        while !range.is_empty() {
            let result;
            (result, buf) = self.turn(file, offset, range.clone(), buf, read).await;
            match result {
                Ok(0) if read => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(moved) => {
                    tries = 0;
                    range.start += moved;
                    offset += moved as u64;
                }
                Err(error) if is_passing(&error) && tries < RING_TRIES_MAX => {
                    tries += 1;
                    // A regular file has nothing to wait for; give the others their turn.
                    tokio::task::yield_now().await;
                }
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// [`Self::once`], unless a test is against it.
    async fn turn(
        &self,
        file: &tokio_uring::fs::File,
        offset: u64,
        range: Range<usize>,
        buf: PoolBuf,
        read: bool,
    ) -> (io::Result<usize>, PoolBuf) {
        let op = if read { Op::Read } else { Op::Write };
        let turn = Turn::of(op, offset..offset + range.len() as u64);
        if let Some(pause) = turn.pause() {
            tokio::time::sleep(pause).await;
        }
        if let Err(error) = turn.begin() {
            return (Err(error.into()), buf);
        }
        let (offset, part) = turn.aim(offset, range);
        let (moved, buf) = self.once(file, offset, part, buf, read).await;
        let moved = turn.end().map_err(Into::into).and(moved);
        (moved.map(|moved| turn.claim(moved)), buf)
    }

    async fn once(
        &self,
        file: &tokio_uring::fs::File,
        offset: u64,
        range: Range<usize>,
        buf: PoolBuf,
        read: bool,
    ) -> (io::Result<usize>, PoolBuf) {
        let fixed = self
            .registered
            .as_ref()
            .filter(|registered| Arc::ptr_eq(&registered.class, buf.class()))
            // None beyond what the kernel registers at most (UIO_MAXIOV).
            .and_then(|registered| registered.registry.check_out(buf.index()));
        match fixed {
            // `buf` waits here, in the task, while the kernel works on its slot.
            Some(fixed) if read => (submitted(file.read_fixed_at(fixed.slice(range), offset)).await.0, buf),
            Some(fixed) => (submitted(file.write_fixed_at(fixed.slice(range), offset)).await.0, buf),
            None if read => {
                let (result, slice) = submitted(file.read_at(LooseBuf(buf).slice(range), offset)).await;
                (result, slice.into_inner().0)
            }
            None => {
                let (result, slice) =
                    submitted(file.write_at(LooseBuf(buf).slice(range), offset).submit()).await;
                (result, slice.into_inner().0)
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::pool::PoolConfig;
    use std::os::unix::fs::FileExt;

    #[test]
    fn b7_without_registration_the_ring_still_works_and_says_so() {
        let Ok(()) = probe() else { return eprintln!("io_uring is not tested here") };
        let pool = BufferPool::new(PoolConfig { slot_bytes: 8192, slots: 2, large_slots: 0 }).unwrap();
        runtime(2).unwrap().block_on(async {
            let (first, text) = RingIo::start(&pool);
            assert!(text.contains("2 registered"), "{text}");
            // The kernel takes one registration a ring, so this one is refused.
            let (ring, text) = RingIo::start(&pool);
            assert!(ring.registered.is_none() && text.contains("not registered"), "{text}");
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(b"0123456789", 0).unwrap();
            rustix::fs::fcntl_setfl(&file, OFlags::NONBLOCK).unwrap();
            let std_file = file;
            let file = RingIo::attach(&std_file).unwrap();
            assert!(!rustix::fs::fcntl_getfl(&std_file).unwrap().contains(OFlags::NONBLOCK));
            let buf = pool.acquire(1).await;
            let (result, buf) = ring.read_exact_at(&file, 2, 5, buf).await;
            result.unwrap();
            assert_eq!(buf.as_slice(), b"23456");
            let (result, buf) = ring.write_all_at(&file, 8, buf, 0..5).await;
            result.unwrap();
            let mut buf = buf;
            buf.clear();
            let (result, buf) = first.read_exact_at(&file, 8, 5, buf).await;
            result.unwrap();
            assert_eq!(buf.as_slice(), b"23456");
            ring.drained().await;
            let (result, _buf) = ring.read_exact_at(&file, 0, 1, buf).await;
            assert!(result.unwrap_err().to_string().contains("ending"));
        });
    }
}
