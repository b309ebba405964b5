//! Honest data sets: entries with their records, and the bytes to answer fetches with.

use super::forge::{Forger, TIME, record};
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks, root};
use sealift_proto::limits::RECORD_HASHES_MAX;
use sealift_proto::wire::BlocksPrefix;
use std::collections::HashMap;

/// Entries, their records in order, and the contents of the files.
#[derive(Clone, Debug)]
pub struct DataSet {
    algorithm: HashAlgorithm,
    records: Vec<Vec<u8>>,
    contents: HashMap<u64, (Layout, Vec<u8>)>,
    next: u64,
}

impl Default for DataSet {
    fn default() -> Self {
        Self::new(HashAlgorithm::Sha256)
    }
}

impl DataSet {
    /// An empty one.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, records: Vec::new(), contents: HashMap::new(), next: 0 }
    }

    /// The number of the next entry.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Adds a record that begins an entry, made with [`Self::next_id`].
    pub fn entry(&mut self, record: Vec<u8>) -> u64 {
        self.records.push(record);
        self.next += 1;
        self.next - 1
    }

    /// Adds a record that begins none.
    pub fn record(&mut self, record: Vec<u8>) {
        self.records.push(record);
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> u64 {
        self.entry(record::directory(self.next, path.as_ref(), 0o755, TIME))
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> u64 {
        self.entry(record::symlink(self.next, path.as_ref(), target.as_ref()))
    }

    /// Adds a file with ordinary permissions.
    pub fn file(&mut self, path: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) -> u64 {
        self.file_with_mode(path, 0o644, content)
    }

    /// Adds a file: as a small one if it may be.
    ///
    /// # Panics
    /// If it is larger than a file may be.
    pub fn file_with_mode(&mut self, path: impl AsRef<[u8]>, mode: u16, content: impl Into<Vec<u8>>) -> u64 {
        let content = content.into();
        let layout = Layout::new(content.len() as u64, BlockSize::MIN).expect("small enough for a test");
        let blocks: Vec<_> = BlockInput::run(layout, sealift_proto::block::BlockIndex(0), &content).collect();
        let mut hashes = vec![BlockHash([0; 32]); blocks.len()];
        hash_blocks(self.algorithm, &blocks, &mut hashes);
        let whole = root(self.algorithm, &hashes).0;
        let id = self.next;
        if layout.blocks() <= 1 {
            let size = u32::try_from(content.len()).expect("one block");
            self.entry(record::small_file(id, path.as_ref(), (mode, TIME), size, whole));
        } else {
            self.entry(record::file(id, path.as_ref(), mode, content.len() as u64, BlockSize::MIN.log2()));
            let hashes: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
            let mut first = 0;
            for some in hashes.chunks(RECORD_HASHES_MAX) {
                self.record(record::hashes(id, first, some));
                first += u32::try_from(some.len()).expect("at most RECORD_HASHES_MAX");
            }
            self.record(record::sealed(id, whole));
        }
        self.contents.insert(id, (layout, content));
        id
    }

    /// The records, and the end after them.
    #[must_use]
    pub fn records(&self) -> Vec<Vec<u8>> {
        let mut records = self.records.clone();
        records.push(record::end(self.next));
        records
    }

    /// The records without an end: the manifest goes on.
    #[must_use]
    pub fn open_records(&self) -> &[Vec<u8>] {
        &self.records
    }

    /// All of it in signed segments.
    #[must_use]
    pub fn segments(&self, forger: &mut Forger) -> Vec<Vec<u8>> {
        forger.segments(&self.records(), 128 << 10)
    }

    /// The bytes of a range, if it has them.
    #[must_use]
    pub fn bytes_of(&self, range: BlocksPrefix) -> Option<&[u8]> {
        let (layout, content) = self.contents.get(&range.file.0)?;
        let bytes = usize::try_from(layout.run_bytes(range.first, range.count)?).ok()?;
        let start = usize::try_from(layout.offset(range.first)).ok()?;
        content.get(start..start + bytes)
    }
}
