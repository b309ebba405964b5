//! BLAKE3 of a file cut into power-of-two blocks, so that the blocks' values merge to the file's ordinary hash.
//!
//! A block of a longer file is hashed as a subtree at its offset and yields a chaining value; the only block
//! of a file yields the root hash itself. See section 2.4 and 5.1 of the BLAKE3 paper.

use crate::Digest;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The ordinary BLAKE3 hash of a whole input.
#[must_use]
pub fn hash(input: &[u8]) -> Digest {
    *blake3::hash(input).as_bytes()
}

/// The chaining value of the subtree that begins at `offset` of a longer input.
///
/// # Panics
/// If `input` is empty, or is no subtree at that offset (`offset` must be a multiple of the block size,
/// a power of two of at least 1 KiB, and `input` no longer than a block).
#[must_use]
pub fn subtree(input: &[u8], offset: u64) -> Digest {
    blake3::Hasher::new().set_input_offset(offset).update(input).finalize_non_root()
}

/// Merges the chaining values of two or more blocks, in order, to the hash of the whole file.
/// `None` for fewer than two blocks: one block is hashed by [`hash`].
#[must_use]
pub fn merge(blocks: &[Digest]) -> Option<Digest> {
    if blocks.len() < 2 {
        return None;
    }
    let (left, right) = blocks.split_at(left_len(blocks.len()));
    let hash = merge_subtrees_root(&chain(left), &chain(right), Mode::Hash);
    Some(*hash.as_bytes())
}

fn chain(blocks: &[Digest]) -> Digest {
    if let [only] = blocks {
        return *only;
    }
    let (left, right) = blocks.split_at(left_len(blocks.len()));
    merge_subtrees_non_root(&chain(left), &chain(right), Mode::Hash)
}

/// The largest power of two below `count`.
fn left_len(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "only code of others, and slow")]
    fn blocks_merge_to_the_ordinary_hash() {
        let data: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
        for block in [1024, 2048, 4096, 8192] {
            let blocks: Vec<Digest> =
                data.chunks(block).enumerate().map(|(i, chunk)| subtree(chunk, (i * block) as u64)).collect();
            assert_eq!(merge(&blocks), Some(hash(&data)), "block size {block}");
        }
    }
}
