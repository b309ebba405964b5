//! Messages that end where readable memory ends, and that begin where it begins: a kernel that reads a byte too
//! many or too early dies of it.

#![cfg(all(unix, not(miri)))]

use crypto_simd::sha256::{Backend, PairHasher};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use sha2::Digest as _;

/// Readable memory between two pages that must not be touched.
struct Guarded {
    base: *mut u8,
    page: usize,
    length: usize,
}

impl Guarded {
    fn new(length: usize) -> Self {
        let page = rustix::param::page_size();
        assert!(length.is_multiple_of(page));
        // SAFETY: a new mapping at an address of the kernel's choice, all of it inaccessible, then the middle not.
        let base = unsafe {
            let flags = MapFlags::PRIVATE;
            let base = mmap_anonymous(std::ptr::null_mut(), length + 2 * page, ProtFlags::empty(), flags)
                .expect("a mapping");
            mprotect(base.byte_add(page), length, MprotectFlags::READ | MprotectFlags::WRITE)
                .expect("mapped");
            base.cast::<u8>()
        };
        let mut this = Self { base, page, length };
        for (i, byte) in this.bytes_mut().iter_mut().enumerate() {
            *byte = ((i * 31) >> 3).to_le_bytes()[0];
        }
        this
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes are mapped, initialised by the kernel, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.add(self.page), self.length) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(self.page), self.length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, and no borrow of it outlives `self`.
        unsafe { munmap(self.base.cast(), self.length + 2 * self.page) }.expect("mapped");
    }
}

#[test]
fn never_reads_outside_a_message() {
    let page = rustix::param::page_size();
    let pages: Vec<Guarded> = (0..20).map(|_| Guarded::new(page)).collect();
    let lengths = (0..=260).chain([1_023, 1_024, 1_025, page - 64, page - 1, page]);
    for length in lengths {
        for at_end in [true, false] {
            let messages: Vec<&[u8]> = pages
                .iter()
                .enumerate()
                .map(|(i, page)| {
                    // Every third lane has a length of its own, so that lanes end at different times.
                    let length = if i % 3 == 2 { length / 2 } else { length };
                    let bytes = page.bytes();
                    if at_end { &bytes[bytes.len() - length..] } else { &bytes[..length] }
                })
                .collect();
            let expected: Vec<[u8; 32]> =
                messages.iter().map(|message| sha2::Sha256::digest(message).into()).collect();
            for backend in Backend::supported() {
                for count in [1, 2, 3, 7, 8, 15, 16, 20] {
                    let mut digests = vec![[0; 32]; count];
                    backend.hash_many(&messages[..count], &mut digests);
                    assert_eq!(digests, expected[..count], "{backend:?}, {length} bytes");
                }
                assert_eq!(backend.hash(messages[0]), expected[0], "{backend:?}, {length} bytes");
            }
        }
    }
}

#[test]
fn never_reads_outside_pairs() {
    let page = Guarded::new(rustix::param::page_size());
    let (nodes, _) = page.bytes().as_chunks::<32>();
    let (all, _) = nodes.as_chunks::<2>();
    for backend in Backend::supported() {
        let hasher = PairHasher::with_backend(&[3; 64], backend);
        for count in 0..=all.len() {
            let pairs = &all[all.len() - count..];
            let mut parents = vec![[0; 32]; count];
            hasher.hash_many(pairs, &mut parents);
            for (pair, parent) in pairs.iter().zip(&parents) {
                assert_eq!(hasher.hash(&pair[0], &pair[1]), *parent, "{backend:?}");
            }
        }
    }
}
