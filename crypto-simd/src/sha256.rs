//! SHA-256 (FIPS 180-4) of many messages, and of the 64-byte pairs of a Merkle tree.

use crate::Digest;
use sha2::{Digest as _, Sha256};

/// Hashes `messages[i]` into `digests[i]`. Messages may have any lengths.
///
/// # Panics
/// If the two slices differ in length.
pub fn hash_many(messages: &[&[u8]], digests: &mut [Digest]) {
    assert_eq!(messages.len(), digests.len(), "one digest for each message");
    for (message, digest) in messages.iter().zip(digests) {
        *digest = hash(message);
    }
}

/// Hashes one message.
#[must_use]
pub fn hash(message: &[u8]) -> Digest {
    Sha256::digest(message).into()
}

/// Hashes pairs of digests, each pair prefixed by one 64-byte block that separates its domain.
///
/// The prefix fills exactly one compression, so its state is computed once, here.
#[derive(Clone)]
pub struct PairHasher {
    prefixed: Sha256,
}

impl PairHasher {
    /// A hasher whose every pair is hashed as `SHA-256(prefix ‖ left ‖ right)`.
    #[must_use]
    pub fn new(prefix: &[u8; 64]) -> Self {
        Self { prefixed: Sha256::new_with_prefix(prefix) }
    }

    /// The parent of two nodes.
    #[must_use]
    pub fn hash(&self, left: &Digest, right: &Digest) -> Digest {
        let mut hasher = self.prefixed.clone();
        hasher.update(left);
        hasher.update(right);
        hasher.finalize().into()
    }
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

    #[test]
    fn a_pair_is_the_hash_of_its_concatenation() {
        let prefix = [7; 64];
        let (left, right) = ([1; 32], [2; 32]);
        let whole = [&prefix[..], &left, &right].concat();
        assert_eq!(PairHasher::new(&prefix).hash(&left, &right), hash(&whole));
    }
}
