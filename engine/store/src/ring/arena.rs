//! The memory that bulk buffers live in: one anonymous mapping, page-aligned, cut into slots of one size.
//!
//! Owns the mapping. Never knows who uses which slot: that is the pool's business.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::io;
use std::ptr::NonNull;

/// Slots are whole pages.
const PAGE_BYTES: usize = 4096;
/// Mappings at least this large ask for huge pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    len_bytes: usize,
    /// Distance between slots; a multiple of the page size.
    slot_bytes: usize,
    slots: usize,
}

// SAFETY: an `Arena` is an address range that it alone unmaps, on drop. It gives out raw pointers only; whoever
// turns one into a reference answers for exclusivity (see `pool`). Nothing in it is bound to a thread.
unsafe impl Send for Arena {}
// SAFETY: as above: `&Arena` allows reading immutable fields only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves `slots` slots of at least `slot_bytes` bytes. The memory reads as zeros; pages are taken when they
    /// are first touched.
    pub(crate) fn map(slots: usize, slot_bytes: usize) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the buffer pool is too large");
        let slot_bytes = slot_bytes.max(1).checked_next_multiple_of(PAGE_BYTES).ok_or_else(too_large)?;
        let len_bytes = slot_bytes.checked_mul(slots.max(1)).ok_or_else(too_large)?;
        if isize::try_from(len_bytes).is_err() {
            return Err(too_large());
        }
        // SAFETY: a new private mapping at an address of the kernel's choice affects no existing memory.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        if len_bytes >= HUGE_PAGE_BYTES {
            // SAFETY: the range is the mapping just made; this advice changes neither its content nor its access.
            // It is advice: a kernel without huge pages may refuse.
            let _ = unsafe { madvise(base.as_ptr().cast(), len_bytes, Advice::LinuxHugepage) };
        }
        Ok(Self { base, len_bytes, slot_bytes, slots })
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes in each slot.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Where a slot begins. Valid for `slot_bytes` bytes, all initialized, for as long as the arena lives.
    pub(crate) fn slot(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.slots, "a slot of this arena");
        // SAFETY: index < slots, so the offset stays within the mapping of slots * slot_bytes bytes, which is at
        // most isize::MAX as checked when it was made.
        unsafe { self.base.add(index * self.slot_bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping made in `map`. Whoever uses a slot holds the arena by `Arc`, so
        // no reference into it is left, and no operation of the kernel's (see `uring`).
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len_bytes) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
