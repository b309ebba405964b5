//! SHA-256 (FIPS 180-4) of many messages at once, and of the 64-byte pairs of a Merkle tree.
//!
//! Independent messages share the CPU's vectors: sixteen at a time with AVX-512, eight with AVX2, two interleaved
//! through the SHA extensions. The order of work, from the outside in: a [`Backend`] is chosen once; `lanes` keeps
//! its lanes full, whatever the lengths, from a `queue`; `rounds` is the algorithm, written once; `arch` are the instruction sets.

mod arch;
mod backend;
mod lanes;
mod pairs;
mod parallel;
mod queue;
mod rounds;

pub use backend::{BACKEND_VARIABLE, Backend};
pub use pairs::PairHasher;

use crate::Digest;

/// Hashes `messages[i]` into `digests[i]`.
///
/// The messages may be any number and have any lengths. Nothing is allocated.
///
/// # Panics
/// If the two slices differ in length.
pub fn hash_many(messages: &[&[u8]], digests: &mut [Digest]) {
    Backend::active().hash_many(messages, digests);
}

/// Hashes `messages[i]` into `digests[i]` on all threads of rayon's current pool.
///
/// Every lane of every thread takes its next message from one queue, so that no core idles while another still has
/// messages to begin, and of the last messages the longest are begun first. A batch too small to share is hashed by
/// the calling thread.
///
/// # Panics
/// If the two slices differ in length.
pub fn par_hash_many(messages: &[&[u8]], digests: &mut [Digest]) {
    Backend::active().par_hash_many(messages, digests);
}

/// Hashes one message.
#[must_use]
pub fn hash(message: &[u8]) -> Digest {
    Backend::active().hash(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_fips_180_example() {
        let mut digests = [[0; 32]; 2];
        hash_many(&[b"abc", b""], &mut digests);
        assert_eq!(digests[0][..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(digests[1][..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
