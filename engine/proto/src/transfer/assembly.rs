//! A file on its way: what its hashes are, which blocks are in place, whether it is whole.

use crate::block::{BlockIndex, Layout};
use crate::digest::{BlockHash, HashAlgorithm, RootHash, root};

/// The receiver's view of one file.
#[derive(Debug)]
pub struct Assembly {
    layout: Layout,
    hashes: Vec<BlockHash>,
    sealed: Option<RootHash>,
    /// A bit for each block that was verified and written.
    present: Vec<u64>,
    missing: u32,
}

/// Whether all of a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// Blocks or hashes are missing.
    Partial,
    /// Every block is in place and the root over them is the signed one.
    Whole,
    /// Every block is in place and the root is not the signed one: the writer contradicts itself.
    WrongRoot,
}

impl Assembly {
    /// A file of which nothing is there.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let words = layout.blocks().div_ceil(64) as usize;
        Self { layout, hashes: Vec::new(), sealed: None, present: vec![0; words], missing: layout.blocks() }
    }

    /// The file's layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The next hashes, in order (a catalog has checked that they are).
    ///
    /// # Panics
    /// If there are more than blocks.
    pub fn add_hashes(&mut self, hashes: &[BlockHash]) {
        self.hashes.extend_from_slice(hashes);
        assert!(self.hashes.len() <= self.layout.blocks() as usize, "more hashes than blocks");
    }

    /// No more hashes come; this is the root over them.
    pub fn seal(&mut self, root: RootHash) {
        self.sealed = Some(root);
    }

    /// Whether the hashes are complete.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The hashes known so far.
    #[must_use]
    pub fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Notes that a block is verified and written. Returns its bytes, or 0 if that was known.
    ///
    /// # Panics
    /// If the block is not in the file.
    pub fn mark(&mut self, block: BlockIndex) -> u64 {
        let bytes = self.layout.run_bytes(block, 1).expect("a block of the file");
        let bit = 1 << (block.0 % 64);
        let word = &mut self.present[(block.0 / 64) as usize];
        if *word & bit != 0 {
            return 0;
        }
        *word |= bit;
        self.missing -= 1;
        bytes
    }

    /// A bit for each block, from the lowest of the first word on: whether it is in place.
    #[must_use]
    pub fn present(&self) -> &[u64] {
        &self.present
    }

    /// Whether a block is in place.
    #[must_use]
    pub fn has(&self, block: BlockIndex) -> bool {
        self.present.get((block.0 / 64) as usize).is_some_and(|word| word & (1 << (block.0 % 64)) != 0)
    }

    /// Whether the file is whole: recomputes the root when all blocks are there.
    #[must_use]
    pub fn wholeness(&self, algorithm: HashAlgorithm) -> Wholeness {
        match self.sealed {
            Some(sealed) if self.missing == 0 => {
                if root(algorithm, &self.hashes) == sealed {
                    Wholeness::Whole
                } else {
                    Wholeness::WrongRoot
                }
            }
            _ => Wholeness::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockSize;

    #[test]
    fn a_file_is_whole_when_sealed_and_every_block_is_there() {
        let layout = Layout::new(100_000, BlockSize::MIN).expect("small");
        let hashes = [1, 2, 3, 4].map(|i| BlockHash([i; 32]));
        let mut file = Assembly::new(layout);
        file.add_hashes(&hashes);
        let sizes: Vec<_> = (0..4).map(|i| file.mark(BlockIndex(i))).collect();
        assert_eq!(sizes, [32_768, 32_768, 32_768, 1_696]);
        assert_eq!(file.mark(BlockIndex(2)), 0, "counted once");
        assert_eq!(file.wholeness(HashAlgorithm::Sha256), Wholeness::Partial);
        file.seal(root(HashAlgorithm::Sha256, &hashes));
        assert_eq!(file.wholeness(HashAlgorithm::Sha256), Wholeness::Whole);
        file.seal(RootHash([0; 32]));
        assert_eq!(file.wholeness(HashAlgorithm::Sha256), Wholeness::WrongRoot);
    }
}
