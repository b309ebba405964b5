//! The index and the cache of hashes on real files, and on disks that fail, forget and lie.

mod cache;
mod damage;
mod disk;
mod memory;
mod replica;
mod rows;

use super::file::Store;
use super::*;
use crate::stat::Timestamp;
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm};
use sealift_proto::manifest::{Mark, SegmentHash, SegmentSeq};
use std::collections::BTreeMap;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).unwrap()
}

fn time(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp { seconds, nanos }
}

fn stat(inode: u64, size_bytes: u64) -> LocalStat {
    LocalStat { inode, size_bytes, mtime: time(1_700_000_000, 5), ctime: time(1_750_000_000, 7), mode: 0o644 }
}

fn root(seed: u64) -> RootHash {
    RootHash(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

fn file(size_bytes: u64, seed: u64) -> EntryRow {
    let what = EntryWhat::File {
        layout: Layout::new(size_bytes, BlockSize::MIN).unwrap(),
        algorithm: HashAlgorithm::Sha256,
        root: root(seed),
        mode: 0o644,
        mtime: time(1_700_000_000, 5),
        stat: stat(seed, size_bytes),
    };
    EntryRow { what, job: 1, segment: seed }
}

fn placed(rows: &[(&str, EntryRow)]) -> IndexBatch {
    let placed = rows.iter().map(|(name, row)| (path(name), row.clone())).collect();
    IndexBatch { placed, ..IndexBatch::default() }
}

fn partial_row(blocks: u64, seed: u64) -> PartialRow {
    let layout = Layout::new(blocks << 15, BlockSize::MIN).unwrap();
    let words = layout.blocks().div_ceil(64) as usize;
    PartialRow {
        staged: format!("{seed:032x}"),
        inode: seed,
        layout,
        algorithm: HashAlgorithm::Blake3,
        root: seed.is_multiple_of(2).then(|| root(seed)),
        present: (0..words as u64).map(|word| word ^ seed).collect(),
    }
}

fn job_row(number: u32, sequence: u64) -> JobRow {
    let hash = SegmentHash(root(sequence).0);
    JobRow {
        number,
        verify_key: [7; 32],
        mark: Some(Mark { epoch: 1, sequence: SegmentSeq(sequence), hash }),
    }
}

fn cached(size_bytes: u64, seed: u64) -> CachedFile {
    let blocks = size_bytes.div_ceil(1 << 15);
    let hashes = if blocks < 2 { 0 } else { blocks };
    CachedFile {
        stat: stat(seed, size_bytes),
        block_size: BlockSize::MIN,
        root: root(seed),
        hashes: (0..hashes).map(|block| BlockHash(root(seed ^ block).0)).collect(),
        holes: if blocks > 2 { vec![0..4096, 8192..size_bytes] } else { Vec::new() },
    }
}

/// Everything in an index, by the names of the tables.
type Content = (BTreeMap<SafePath, EntryRow>, BTreeMap<SafePath, PartialRow>, BTreeMap<[u8; 16], JobRow>);

fn content(index: &ReplicaIndex) -> Result<Content, IndexError> {
    let reader = index.read()?;
    let mut entries = BTreeMap::new();
    reader.for_each_entry(None, &mut |path, row| {
        entries.insert(path, row);
        ControlFlow::Continue(())
    })?;
    assert_eq!(reader.len()?, entries.len() as u64);
    for (path, row) in &entries {
        if let EntryWhat::File { layout, root, .. } = &row.what {
            let listed = layout.size_bytes() >= REUSE_BYTES_MIN;
            let found = reader.same_content(layout.size_bytes(), root)?;
            assert_eq!(found.is_some(), listed, "{path}");
            if let Some(found) = found {
                let EntryWhat::File { root: other, .. } = &entries[&found].what else { panic!("{found}") };
                assert_eq!(other, root);
                assert!(reader.has_size(layout.size_bytes())?);
            }
        }
    }
    let partials = reader.partials()?.into_iter().collect();
    let jobs = reader.jobs()?.into_iter().map(|(id, row)| (id.0, row)).collect();
    Ok((entries, partials, jobs))
}

fn open(file: &Path) -> (ReplicaIndex, IndexFound) {
    ReplicaIndex::open(file).unwrap()
}
