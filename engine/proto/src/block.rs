//! How a file is cut: sizes, indices, and the numbers that name files.

use crate::limits;
use std::fmt;

/// Names an entry of a manifest: its place in the order of entries, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a block within its file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockIndex(pub u32);

/// A block size: a power of two from 32 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSize(u8);

impl BlockSize {
    /// The smallest block size.
    pub const MIN: Self = Self(limits::BLOCK_LOG2_MIN);

    /// The size `2^log2` bytes, if it is in range.
    #[must_use]
    pub fn from_log2(log2: u8) -> Option<Self> {
        (limits::BLOCK_LOG2_MIN..=limits::BLOCK_LOG2_MAX).contains(&log2).then_some(Self(log2))
    }

    /// The size for a file of `file_bytes`: the smallest with which it has at most
    /// [`limits::FILE_BLOCKS_AIM`] blocks, or the largest.
    #[must_use]
    pub fn for_file(file_bytes: u64) -> Self {
        let mut log2 = limits::BLOCK_LOG2_MIN;
        while log2 < limits::BLOCK_LOG2_MAX && file_bytes >> log2 > limits::FILE_BLOCKS_AIM {
            log2 += 1;
        }
        Self(log2)
    }

    /// The exponent.
    #[must_use]
    pub fn log2(self) -> u8 {
        self.0
    }

    /// Bytes in a block.
    #[must_use]
    pub fn bytes(self) -> u64 {
        1 << self.0
    }
}

/// A file's size together with its block size; the number of blocks fits [`limits::FILE_BLOCKS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size_bytes: u64,
    block_size: BlockSize,
}

impl Layout {
    /// The layout of a file, or `None` if it would have too many blocks.
    #[must_use]
    pub fn new(size_bytes: u64, block_size: BlockSize) -> Option<Self> {
        (size_bytes.div_ceil(block_size.bytes()) <= u64::from(limits::FILE_BLOCKS_MAX))
            .then_some(Self { size_bytes, block_size })
    }

    /// The size of the file.
    #[must_use]
    pub fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// The size of its blocks, the last excepted.
    #[must_use]
    pub fn block_size(self) -> BlockSize {
        self.block_size
    }

    /// The number of blocks; an empty file has none.
    #[must_use]
    pub fn blocks(self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(self.block_size.bytes()))
            .expect("checked when the layout was made")
    }

    /// Where a block begins, in bytes.
    #[must_use]
    pub fn offset(self, block: BlockIndex) -> u64 {
        u64::from(block.0) << self.block_size.log2()
    }

    /// The bytes of `count` blocks from `first`, or `None` if they are not all within the file.
    #[must_use]
    pub fn run_bytes(self, first: BlockIndex, count: u32) -> Option<u64> {
        let end = first.0.checked_add(count)?;
        (count > 0 && end <= self.blocks()).then(|| {
            let end_bytes = self.offset(BlockIndex(end)).min(self.size_bytes);
            end_bytes - self.offset(first)
        })
    }

    /// The number of blocks in a run of the usual size: as many as fit [`limits::RUN_BYTES_MAX`], and at least one.
    #[must_use]
    pub fn blocks_per_run(self) -> u32 {
        let blocks = limits::RUN_BYTES_MAX as u64 >> self.block_size.log2();
        u32::try_from(blocks.max(1)).expect("at most 32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_size_grows_with_the_file() {
        let log2 = |size| BlockSize::for_file(size).log2();
        assert_eq!(log2(0), 15);
        assert_eq!(log2(2 << 30), 15);
        assert_eq!(log2(4 << 30), 16);
        assert_eq!(log2(1 << 40), 24);
        assert_eq!(log2(u64::MAX), 24);
    }

    #[test]
    fn runs_end_with_the_file() {
        let layout = Layout::new(100_000, BlockSize::MIN).expect("small");
        assert_eq!(layout.blocks(), 4);
        assert_eq!(layout.run_bytes(BlockIndex(0), 4), Some(100_000));
        assert_eq!(layout.run_bytes(BlockIndex(3), 1), Some(100_000 - 3 * 32_768));
        assert_eq!(layout.run_bytes(BlockIndex(3), 2), None);
        assert_eq!(layout.run_bytes(BlockIndex(u32::MAX), 2), None);
        assert_eq!(layout.run_bytes(BlockIndex(0), 0), None);
        assert!(Layout::new(1 << 60, BlockSize::MIN).is_none());
    }
}
