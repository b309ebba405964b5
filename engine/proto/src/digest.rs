//! Block hashes and file roots.
//!
//! - SHA-256: a block's hash is its plain SHA-256. The root is a Merkle tree (RFC 6962's shape: the left side holds
//!   the largest power of two of leaves below the whole) over those, interior nodes being
//!   `SHA-256(prefix ‖ left ‖ right)` with a 64-byte prefix of their own domain.
//! - BLAKE3: a block is a subtree of the file's ordinary BLAKE3 hash, which is the root (what `b3sum` prints).
//!
//! For both, a file of one block has that block's hash as its root, and an empty file the hash of nothing.

use crate::block::{BlockIndex, Layout};
use crypto_simd::sha256::PairHasher;

/// The hash a job uses for its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// FIPS 180-4, the default.
    Sha256,
    /// BLAKE3.
    Blake3,
}

impl HashAlgorithm {
    /// The number that stands for it in a segment.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Blake3 => 2,
        }
    }

    /// The algorithm behind a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Sha256),
            2 => Some(Self::Blake3),
            _ => None,
        }
    }
}

/// The hash of one block.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl std::fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}…", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// The hash of a whole file, from its blocks' hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RootHash(pub [u8; 32]);

/// One block to be hashed: its bytes and its place.
#[derive(Clone, Copy, Debug)]
pub struct BlockInput<'a> {
    /// The block's bytes.
    pub data: &'a [u8],
    /// Where it begins in its file.
    pub offset: u64,
    /// Whether it is its file's only block.
    pub only: bool,
}

impl<'a> BlockInput<'a> {
    /// The blocks of a run of one file, in order. `data` must be exactly the run's bytes.
    pub fn run(layout: Layout, first: BlockIndex, data: &'a [u8]) -> impl Iterator<Item = Self> {
        let block_bytes = usize::try_from(layout.block_size().bytes()).expect("at most 16 MiB");
        let only = layout.blocks() == 1;
        let start = layout.offset(first);
        data.chunks(block_bytes).enumerate().map(move |(i, data)| Self {
            data,
            offset: start + (i * block_bytes) as u64,
            only,
        })
    }
}

/// Hashes `blocks[i]` into `hashes[i]`.
///
/// # Panics
/// If the slices differ in length.
pub fn hash_blocks(algorithm: HashAlgorithm, blocks: &[BlockInput<'_>], hashes: &mut [BlockHash]) {
    assert_eq!(blocks.len(), hashes.len(), "one hash for each block");
    match algorithm {
        HashAlgorithm::Sha256 => {
            let messages: Vec<&[u8]> = blocks.iter().map(|block| block.data).collect();
            let mut digests = vec![[0; 32]; blocks.len()];
            crypto_simd::sha256::hash_many(&messages, &mut digests);
            for (hash, digest) in hashes.iter_mut().zip(digests) {
                *hash = BlockHash(digest);
            }
        }
        HashAlgorithm::Blake3 => {
            for (block, hash) in blocks.iter().zip(hashes) {
                *hash = BlockHash(if block.only {
                    crypto_simd::blake3::hash(block.data)
                } else {
                    crypto_simd::blake3::subtree(block.data, block.offset)
                });
            }
        }
    }
}

/// The hash that stands for the content of an empty file.
#[must_use]
pub fn empty_root(algorithm: HashAlgorithm) -> RootHash {
    RootHash(match algorithm {
        HashAlgorithm::Sha256 => crypto_simd::sha256::hash(b""),
        HashAlgorithm::Blake3 => crypto_simd::blake3::hash(b""),
    })
}

/// The root over all of a file's block hashes.
#[must_use]
pub fn root(algorithm: HashAlgorithm, blocks: &[BlockHash]) -> RootHash {
    match (blocks, algorithm) {
        ([], _) => empty_root(algorithm),
        ([only], _) => RootHash(only.0),
        (_, HashAlgorithm::Sha256) => merkle_root(blocks),
        (_, HashAlgorithm::Blake3) => {
            let values: Vec<_> = blocks.iter().map(|hash| hash.0).collect();
            RootHash(crypto_simd::blake3::merge(&values).expect("two or more blocks"))
        }
    }
}

/// The domain of interior nodes: this text, padded with zeros to one block of SHA-256.
const INTERIOR_DOMAIN: &[u8] = b"sealift v1 merkle interior node";

fn merkle_root(leaves: &[BlockHash]) -> RootHash {
    let mut prefix = [0; 64];
    prefix[..INTERIOR_DOMAIN.len()].copy_from_slice(INTERIOR_DOMAIN);
    let hasher = PairHasher::new(&prefix);
    let mut level: Vec<_> = leaves.iter().map(|hash| hash.0).collect();
    // Pairing level by level and carrying an odd node up gives RFC 6962's shape.
    while level.len() > 1 {
        let (pairs, odd) = level.as_chunks::<2>();
        let mut above = vec![[0; 32]; pairs.len()];
        hasher.hash_many(pairs, &mut above);
        above.extend_from_slice(odd);
        level = above;
    }
    RootHash(level[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockSize;

    fn hashes(algorithm: HashAlgorithm, data: &[u8]) -> Vec<BlockHash> {
        let layout = Layout::new(data.len() as u64, BlockSize::MIN).expect("small");
        let blocks: Vec<_> = BlockInput::run(layout, BlockIndex(0), data).collect();
        let mut hashes = vec![BlockHash([0; 32]); blocks.len()];
        hash_blocks(algorithm, &blocks, &mut hashes);
        hashes
    }

    #[test]
    fn blake3_root_is_the_ordinary_hash() {
        for len in [0, 1, 1024, 32_768, 32_769, 100_000, 400_000] {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let root = root(HashAlgorithm::Blake3, &hashes(HashAlgorithm::Blake3, &data));
            assert_eq!(root.0, *blake3::hash(&data).as_bytes(), "{len} bytes");
        }
    }

    #[test]
    fn sha256_root_follows_rfc_6962_with_its_own_interior_domain() {
        fn tree(prefix: &[u8; 64], leaves: &[BlockHash]) -> [u8; 32] {
            if let [only] = leaves {
                return only.0;
            }
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let whole = [&prefix[..], &tree(prefix, left), &tree(prefix, right)].concat();
            crypto_simd::sha256::hash(&whole)
        }
        let mut prefix = [0; 64];
        prefix[..31].copy_from_slice(b"sealift v1 merkle interior node");
        for count in 1..=40_u8 {
            let leaves: Vec<_> = (0..count).map(|i| BlockHash([i; 32])).collect();
            assert_eq!(root(HashAlgorithm::Sha256, &leaves).0, tree(&prefix, &leaves), "{count} leaves");
        }
    }
}
