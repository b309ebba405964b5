//! The index and the cache of hashes on real files, and on disks that fail, forget and lie.

use super::blocks::{Backend, BlockFile, Disk, Purpose};
use super::file::{Store, bad_row};
use super::rows::{CachedHead, key_path, path_key};
use super::*;
use crate::limits::HASHES_PER_ROW;
use crate::stat::{FileStat, Timestamp};
use proptest::prelude::*;
use redb::StorageBackend as _;
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm};
use sealift_proto::manifest::{Mark, SegmentHash, SegmentSeq};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

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

fn any_time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanos)| time(seconds, nanos))
}

fn any_stat() -> impl Strategy<Value = LocalStat> {
    (any::<u64>(), any::<u64>(), any_time(), any_time(), any::<u32>()).prop_map(
        |(inode, size_bytes, mtime, ctime, mode)| LocalStat { inode, size_bytes, mtime, ctime, mode },
    )
}

fn any_layout() -> impl Strategy<Value = Layout> {
    (0..1_u64 << 35, 15..=24_u8)
        .prop_map(|(size, log2)| Layout::new(size, BlockSize::from_log2(log2).unwrap()).unwrap())
}

fn any_algorithm() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![Just(HashAlgorithm::Sha256), Just(HashAlgorithm::Blake3)]
}

fn any_what() -> impl Strategy<Value = EntryWhat> {
    let file = (any_layout(), any_algorithm(), any::<[u8; 32]>(), any::<u32>(), any_time(), any_stat());
    let file = (file, any::<[bool; 3]>()).prop_map(|(parts, same)| {
        let (layout, algorithm, root, mode, mtime, mut stat) = parts;
        stat.size_bytes = if same[0] { layout.size_bytes() } else { stat.size_bytes };
        stat.mtime = if same[1] { mtime } else { stat.mtime };
        stat.mode = if same[2] { mode } else { stat.mode };
        EntryWhat::File { layout, algorithm, root: RootHash(root), mode, mtime, stat }
    });
    prop_oneof![
        file,
        any_stat().prop_map(|stat| EntryWhat::Hardlink { stat }),
        any::<u64>().prop_map(|target_hash| EntryWhat::Symlink { target_hash }),
        Just(EntryWhat::Directory),
    ]
}

fn any_path() -> impl Strategy<Value = SafePath> {
    let byte = prop_oneof![Just(b'/'), Just(b'a'), Just(b'!'), Just(1), any::<u8>()];
    proptest::collection::vec(byte, 1..40)
        .prop_filter_map("a safe path", |bytes| SafePath::parse(&bytes).ok())
}

/// Cutting a value short or changing a byte of it, or of its key, must show.
fn only_whole<T: PartialEq + std::fmt::Debug>(
    key: &[u8],
    value: &[u8],
    at: usize,
    decode: impl Fn(&[u8], &[u8]) -> Option<T>,
) {
    let mut other = value.to_vec();
    other[at % value.len()] ^= 1 << (at % 8);
    assert_eq!(decode(key, &other), None);
    assert_eq!(decode(key, &value[..at % value.len()]), None);
    assert_eq!(decode(&[key, b"x"].concat(), value), None);
}

proptest! {
    #[test]
    fn index_rows_come_back(
        what in any_what(), job in any::<u32>(), segment in any::<u64>(), path in any_path(), at in any::<usize>()
    ) {
        let row = EntryRow { what, job, segment };
        let key = path_key(&path);
        let value = row.encode(&key);
        prop_assert_eq!(key_path(&key), Some(path));
        prop_assert_eq!(EntryRow::decode(&key, &value), Some(row));
        only_whole(&key, &value, at, EntryRow::decode);
    }

    #[test]
    fn index_rows_of_partial_files_and_jobs_come_back(
        blocks in 0..200_u64, seed in any::<u64>(), number in any::<u32>(), marked in any::<bool>(), at in any::<usize>()
    ) {
        let row = partial_row(blocks, seed);
        prop_assert!(row.is_sound());
        let value = row.encode(b"key");
        prop_assert_eq!(PartialRow::decode(b"key", &value), Some(row));
        only_whole(b"key", &value, at, PartialRow::decode);
        let mut row = job_row(number, seed);
        row.mark = row.mark.filter(|_| marked);
        let value = row.encode(&[3; 16]);
        prop_assert_eq!(JobRow::decode(&[3; 16], &value), Some(row));
        only_whole(&[3; 16], &value, at, JobRow::decode);
    }

    #[test]
    fn index_rows_of_cached_files_come_back(
        stat in any_stat(), layout in any_layout(), root in any::<[u8; 32]>(), seed in any::<u64>(), at in any::<usize>()
    ) {
        let stat = LocalStat { size_bytes: layout.size_bytes(), ..stat };
        let mut random = Random(seed);
        let mut end = 0;
        let holes = (0..random.below(5)).map(|_| {
            let start = end + random.below(1 << 40);
            end = start + 1 + random.below(1 << 20);
            start..end
        }).collect();
        let file = CachedFile {
            stat, block_size: layout.block_size(), root: RootHash(root), hashes: Vec::new(), holes,
        };
        let value = file.encode_head(b"key");
        let decode = |key: &[u8], value: &[u8]| CachedHead::decode(key, value).map(|head| head.file);
        prop_assert_eq!(decode(b"key", &value), Some(file));
        only_whole(b"key", &value, at, decode);
    }

    #[test]
    fn index_keys_are_in_the_order_of_a_walk(mut paths in proptest::collection::vec(any_path(), 2..20)) {
        let mut by_walk = paths.clone();
        // Component by component, as `Walk` goes: names by bytes, what is beneath a directory directly after it.
        by_walk.sort_by(|a, b| {
            a.as_bytes().split(|&byte| byte == b'/').cmp(b.as_bytes().split(|&byte| byte == b'/'))
        });
        paths.sort_by_key(path_key);
        prop_assert_eq!(paths, by_walk);
    }

    #[test]
    fn index_values_from_any_bytes_are_refused_or_decoded(
        bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        // With a checksum that is right, so that what follows is reached.
        let value = rows::seal(b"key", bytes);
        let _ = EntryRow::decode(b"key", &value);
        let _ = PartialRow::decode(b"key", &value);
        let _ = JobRow::decode(b"key", &value);
        let _ = CachedHead::decode(b"key", &value);
    }
}

#[test]
fn index_remembers_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, found) = open(&at);
    assert_eq!(found, IndexFound::Created);
    assert!(index.read().unwrap().is_empty().unwrap());
    let id = JobId([1; 16]);
    let batch = IndexBatch {
        partial: vec![(path("p"), partial_row(3, 4)), (path("q/r"), partial_row(100, 5))],
        job: Some((id, job_row(1, 9))),
        ..placed(&[("a", file(10, 1)), ("a/b", file(10, 2)), ("a!", file(0, 3)), ("a/c", file(70_000, 4))])
    };
    index.write(&batch).unwrap();
    let before = index.read().unwrap();
    let row = EntryRow { what: EntryWhat::Symlink { target_hash: 5 }, job: 2, segment: 8 };
    index
        .write(&IndexBatch {
            removed: vec![path("a/c"), path("a/b"), path("none")],
            partial_gone: vec![path("p"), path("none")],
            ..placed(&[("a/b", row.clone()), ("a/b", file(1, 1)), ("a/b", row.clone())])
        })
        .unwrap();
    index.write(&IndexBatch::default()).unwrap();
    // A reader stays with its moment.
    assert_eq!(before.entry(&path("a/b")).unwrap(), Some(file(10, 2)));
    assert_eq!(before.same_content(70_000, &root(4)).unwrap(), Some(path("a/c")));
    drop(before);
    drop(index);
    let (index, found) = open(&at);
    assert_eq!(found, IndexFound::Sound);
    let reader = index.read().unwrap();
    assert_eq!(reader.entry(&path("a/b")).unwrap(), Some(row));
    assert_eq!(reader.entry(&path("a/c")).unwrap(), None);
    assert_eq!(reader.partial(&path("p")).unwrap(), None);
    assert_eq!(reader.partial(&path("q/r")).unwrap(), Some(partial_row(100, 5)));
    assert_eq!(reader.partials().unwrap(), [(path("q/r"), partial_row(100, 5))]);
    assert_eq!(reader.job(&id).unwrap(), Some(job_row(1, 9)));
    assert_eq!(reader.job(&JobId([2; 16])).unwrap(), None);
    assert_eq!(reader.jobs().unwrap(), [(id, job_row(1, 9))]);
    let after = |after: Option<&str>| {
        let mut seen = Vec::new();
        let mut show = |path: SafePath, _| {
            seen.push(path.to_string());
            if path.as_bytes() == b"a/b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reader.for_each_entry(after.map(path).as_ref(), &mut show).unwrap();
        seen
    };
    assert_eq!(after(None), ["a", "a/b"]);
    assert_eq!(after(Some("a/a")), ["a/b"]);
    assert_eq!(after(Some("a/b")), ["a!"]);
    assert_eq!(reader.len().unwrap(), 3);
}

#[test]
fn index_goes_through_more_rows_than_it_takes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let names: Vec<_> = (0..2 * INDEX_ROWS_AT_ONCE + 1).map(|i| format!("d{:02}/{i}", i % 7)).collect();
    let rows: Vec<_> = names.iter().map(|name| (name.as_str(), file(1, 1))).collect();
    index.write(&placed(&rows)).unwrap();
    assert_eq!(content(&index).unwrap().0.len(), names.len());
}

#[test]
fn index_finds_large_files_by_content_for_as_long_as_any_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let size = REUSE_BYTES_MIN;
    let found = || index.read().unwrap().same_content(size, &root(1)).unwrap().map(|path| path.to_string());
    index
        .write(&placed(&[("small", file(size - 1, 1)), ("y", file(size, 1)), ("x", file(size, 1))]))
        .unwrap();
    assert_eq!(found().as_deref(), Some("x"));
    assert!(!index.read().unwrap().has_size(size - 1).unwrap());
    assert!(index.read().unwrap().has_size(size).unwrap());
    index.write(&placed(&[("x", file(size, 2))])).unwrap();
    assert_eq!(found().as_deref(), Some("y"));
    index.write(&IndexBatch { removed: vec![path("y")], ..IndexBatch::default() }).unwrap();
    assert_eq!(found(), None);
    assert!(index.read().unwrap().has_size(size).unwrap());
    index.write(&IndexBatch { removed: vec![path("x")], ..IndexBatch::default() }).unwrap();
    assert!(!index.read().unwrap().has_size(size).unwrap());
}

#[test]
fn index_knows_a_file_by_its_inode_wherever_its_device_is_mounted() {
    let time = time(7, 1);
    let found =
        FileStat { size_bytes: 1, mtime: time, ctime: time, inode: 1, device: 1, mode: 0o644, links: 1 };
    let known = LocalStat::from(&found);
    assert!(known.matches(&FileStat { device: 2, links: 2, ..found }));
    for other in [
        FileStat { inode: 2, ..found },
        FileStat { size_bytes: 2, ..found },
        FileStat { mode: 0o600, ..found },
        FileStat { mtime: Timestamp { nanos: 2, ..time }, ..found },
        FileStat { ctime: Timestamp { nanos: 2, ..time }, ..found },
    ] {
        assert!(!known.matches(&other), "{other:?}");
    }
}

#[test]
fn index_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ReplicaIndex>();
    shared::<IndexReader>();
    shared::<HashCache>();
    shared::<CacheReader>();
}

#[test]
fn index_in_use_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, _) = open(&at);
    let Err(error) = ReplicaIndex::open(&at) else { panic!("opened twice") };
    assert!(matches!(error, IndexError::Locked { .. }), "{error}");
    // A reader keeps it open.
    let reader = index.read().unwrap();
    drop(index);
    assert!(matches!(ReplicaIndex::open(&at), Err(IndexError::Locked { .. })));
    drop(reader);
    assert_eq!(open(&at).1, IndexFound::Sound);
}

#[test]
fn index_is_read_by_many_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let names: Vec<_> = (0..400).map(|i| format!("d/{i:03}")).collect();
    let rows = |version: u64| -> Vec<_> {
        names.iter().map(|name| (name.as_str(), file(REUSE_BYTES_MIN, version))).collect()
    };
    index.write(&placed(&rows(0))).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let reader = index.read().unwrap();
                    let of = |name: &String| reader.entry(&path(name)).unwrap().unwrap().segment;
                    let version = of(&names[0]);
                    assert!(names.iter().all(|name| of(name) == version), "a mixture of two batches");
                    assert!(reader.same_content(REUSE_BYTES_MIN, &root(version)).unwrap().is_some());
                }
            });
        }
        for version in 1..30 {
            index.write(&placed(&rows(version))).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn index_opened_by_many_at_once_is_had_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let at = &at;
            scope.spawn(move || {
                let mut done = 0;
                while done < 10 {
                    match ReplicaIndex::open(at) {
                        Ok((index, found)) => {
                            assert_ne!(found, IndexFound::Damaged);
                            let name = format!("{thread}/{done}");
                            index.write(&placed(&[(name.as_str(), file(1, thread))])).unwrap();
                            done += 1;
                        }
                        Err(IndexError::Locked { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(content(&open(&at).0).unwrap().0.len(), 40);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn c8_a_newer_index_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    // As a later version has it: only the first sixteen bytes are known.
    let purpose = Purpose { version: SCHEMA_VERSION + 1, ..PLAN.purpose };
    drop(Store::open(&at, Plan { purpose, ..PLAN }).unwrap());
    let mut bytes = std::fs::read(&at).unwrap();
    bytes[16..].fill(0xa5);
    std::fs::write(&at, &bytes).unwrap();
    let modified = std::fs::metadata(&at).unwrap().modified().unwrap();
    for error in [
        ReplicaIndex::open(&at).err().expect("refused"),
        HashCache::open(&at, HashAlgorithm::Sha256).err().expect("refused"),
    ] {
        assert!(matches!(error, IndexError::Newer { version: 2, .. }), "{error}");
        assert!(error.to_string().contains("newer sealift"), "{error}");
    }
    assert_eq!(std::fs::read(&at).unwrap(), bytes);
    assert_eq!(std::fs::metadata(&at).unwrap().modified().unwrap(), modified);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn b11_what_is_no_index_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let aside = dir.path().join("index.redb.damaged");
    let (index, _) = open(&at);
    index.write(&placed(&[("a", file(1, 1))])).unwrap();
    drop(index);
    let whole = std::fs::read(&at).unwrap();
    let mut random = Random(1);
    let garbage: Vec<u8> = (0..100_000).map(|_| random.next().to_le_bytes()[0]).collect();
    let mut others: Vec<Vec<u8>> =
        vec![Vec::new(), b"x".to_vec(), vec![0; 4096], vec![0; whole.len()], garbage, b"redb".repeat(9999)];
    others.extend((0..whole.len()).step_by(1021).map(|len| whole[..len].to_vec()));
    // A cache of hashes in its place.
    let cache = dir.path().join("hashes.redb");
    drop(HashCache::open(&cache, HashAlgorithm::Sha256).unwrap());
    others.push(std::fs::read(&cache).unwrap());
    for bytes in others {
        std::fs::write(&at, &bytes).unwrap();
        let (index, found) = open(&at);
        assert_eq!(found, IndexFound::Damaged, "{} bytes", bytes.len());
        assert_eq!(std::fs::read(&aside).unwrap(), bytes);
        assert!(index.read().unwrap().is_empty().unwrap());
        index.write(&placed(&[("a", file(1, 1))])).unwrap();
        drop(index);
        assert_eq!(open(&at).1, IndexFound::Sound);
    }
    std::fs::remove_file(&at).unwrap();
    assert_eq!(open(&at).1, IndexFound::Created);
}

#[test]
fn b11_an_unfinished_new_index_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    std::fs::write(dir.path().join("index.redb.new"), "torn").unwrap();
    assert_eq!(open(&at).1, IndexFound::Created);
    assert_eq!(open(&at).1, IndexFound::Sound);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn b11_damage_found_while_reading_is_known_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, _) = open(&at);
    let names: Vec<_> = (0..3000).map(|i| format!("directory/{i:05}")).collect();
    let rows: Vec<_> = (1..).zip(&names).map(|(i, name)| (name.as_str(), file(1, i))).collect();
    index.write(&placed(&rows)).unwrap();
    drop(index);
    let mut bytes = std::fs::read(&at).unwrap();
    let needle = b"directory\x0001500";
    let place = bytes.windows(needle.len()).rposition(|window| window == needle).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&at, &bytes).unwrap();
    // With redb's assertions on, it reads every page as it opens.
    let (index, found) = open(&at);
    if found == IndexFound::Sound {
        let damaged = |result: Result<_, IndexError>| matches!(result, Err(IndexError::Damaged { .. }));
        let reader = index.read().unwrap();
        assert!(damaged(reader.entry(&path("directory/01500"))));
        // From then on nothing is believed, on this handle and on others.
        assert!(damaged(reader.entry(&path("directory/00001"))));
        assert!(damaged(index.write(&placed(&[("x", file(1, 1))])).map(|()| None)));
        assert!(index.read().is_err());
        drop((reader, index));
        assert_eq!(open(&at).1, IndexFound::Damaged);
    } else {
        assert_eq!(found, IndexFound::Damaged);
        drop(index);
    }
    assert_eq!(open(&at).1, IndexFound::Sound);
}

#[test]
fn b11_a_panic_of_the_database_is_damage_and_ends_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, _) = open(&at);
    let reader = index.read().unwrap();
    let result = index.store.write::<()>(true, |transaction| {
        transaction.open_table(ENTRIES)?.insert(&b"k"[..], &b"torn"[..])?;
        panic!("as redb does over a damaged page");
    });
    assert!(matches!(result, Err(IndexError::Damaged { .. })));
    assert!(matches!(reader.len(), Err(IndexError::Damaged { .. })));
    assert!(matches!(index.read(), Err(IndexError::Damaged { .. })));
    drop((reader, index));
    assert_eq!(open(&at).1, IndexFound::Damaged);
}

#[test]
fn b11_a_row_that_is_not_what_was_written_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, _) = open(&at);
    index.write(&placed(&[("a", file(1, 1)), ("b", file(1, 1))])).unwrap();
    // The row of one path under another's: only its checksum tells.
    let moved = index.store.write(true, |transaction| {
        let mut entries = transaction.open_table(ENTRIES)?;
        let row = entries.get(&b"a"[..])?.ok_or_else(bad_row)?.value().to_vec();
        entries.insert(&b"b"[..], &*row)?;
        Ok(())
    });
    moved.unwrap();
    assert!(matches!(index.read().unwrap().entry(&path("b")), Err(IndexError::Damaged { .. })));
    drop(index);
    assert_eq!(open(&at).1, IndexFound::Damaged);
}

const SECTOR: usize = 512;

/// A disk in memory: what it holds, what it would hold after a power cut, and how it fails.
#[derive(Default)]
struct MemoryDisk(Mutex<Memory>);

#[derive(Clone, Default)]
struct Memory {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync: lengths, and for each sector what was written to it.
    lens: Vec<usize>,
    sectors: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Operations until this error comes, and whether it stays.
    fails: Option<(u64, i32, bool)>,
    syncs: u64,
    operations: u64,
}

impl MemoryDisk {
    fn holding(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Memory { synced: bytes.clone(), now: bytes, ..Memory::default() })))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    /// One of the states that a power cut now may leave: of each sector any of the versions since the last sync.
    fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let memory = self.memory();
        let lens = &memory.lens;
        let len = match random.index(lens.len() + 1) {
            0 => memory.synced.len(),
            nth => lens[nth - 1],
        };
        let mut bytes = memory.synced.clone();
        // A whole batch of writes in one state is as likely as a mixture.
        let whole = random.below(3);
        for (&sector, versions) in &memory.sectors {
            let version = match whole {
                0 => versions.len(),
                _ => random.index(versions.len() + 1),
            };
            if version > 0 {
                let start = sector * SECTOR;
                bytes.resize(bytes.len().max(start + SECTOR), 0);
                bytes[start..start + SECTOR].copy_from_slice(&versions[version - 1]);
            }
        }
        bytes.resize(len, 0);
        bytes
    }
}

impl Memory {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fails {
            Some((0, errno, stays)) => {
                let error = io::Error::from_raw_os_error(*errno);
                if !*stays {
                    self.fails = None;
                }
                Err(error)
            }
            Some((left, ..)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let start = usize::try_from(offset).unwrap();
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(memory.now.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        assert!(start.is_multiple_of(SECTOR) && data.len().is_multiple_of(SECTOR));
        if memory.now.len() < end {
            memory.now.resize(end, 0);
            memory.lens.push(end);
        }
        memory.now[start..end].copy_from_slice(data);
        for (sector, data) in (start / SECTOR..).zip(data.chunks(SECTOR)) {
            memory.sectors.entry(sector).or_default().push(data.to_vec());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let len = usize::try_from(len).unwrap();
        memory.now.resize(len, 0);
        memory.lens.push(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.memory().now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        memory.synced = memory.now.clone();
        memory.lens.clear();
        memory.sectors.clear();
        memory.syncs += 1;
        Ok(())
    }
}

fn shown() -> PathBuf {
    "index.redb".into()
}

/// An empty index on a disk in memory.
fn new_in_memory() -> (ReplicaIndex, Arc<MemoryDisk>) {
    let disk = MemoryDisk::holding(Vec::new());
    let store = Store::fill(&shown(), PLAN, disk.clone()).unwrap();
    (ReplicaIndex { store }, disk)
}

/// What is on a disk; `None` if it is said to be damaged.
fn open_in_memory(disk: Arc<MemoryDisk>) -> Option<ReplicaIndex> {
    Some(ReplicaIndex { store: Store::start(&shown(), PLAN, disk).unwrap().ok()? })
}

/// The `number`-th batch of a history: new rows, changed and removed ones, of all kinds and sizes.
fn batch_of_history(number: u64, rows: u64) -> IndexBatch {
    let mut random = Random(number);
    let mut batch = IndexBatch::default();
    for _ in 0..rows {
        let id = random.below(rows * 4);
        let name = path(&format!("some/directory/{:02}/file-{id:05}", id % 17));
        let row = match random.below(8) {
            0 => {
                batch.removed.push(name);
                continue;
            }
            1 => EntryRow { what: EntryWhat::Directory, job: 1, segment: number },
            2 => EntryRow { what: EntryWhat::Symlink { target_hash: id }, job: 1, segment: number },
            3 => EntryRow { what: EntryWhat::Hardlink { stat: stat(id, id) }, job: 1, segment: number },
            4 => file(REUSE_BYTES_MIN + id % 3, id % 7),
            _ => file(id, number),
        };
        batch.placed.push((name, row));
    }
    for id in 0..3 {
        let name = path(&format!("partial-{}", random.below(5)));
        if random.below(3) == 0 {
            batch.partial_gone.push(name);
        } else {
            let magnitude = random.below(18);
            batch.partial.push((name, partial_row(1 + random.below(1 << magnitude), id)));
        }
    }
    batch.job = Some((JobId([random.next().to_le_bytes()[0] % 3; 16]), job_row(1, number)));
    batch
}

fn apply(content: &mut Content, batch: &IndexBatch) {
    for path in &batch.removed {
        content.0.remove(path);
    }
    content.0.extend(batch.placed.iter().cloned());
    for path in &batch.partial_gone {
        content.1.remove(path);
    }
    content.1.extend(batch.partial.iter().cloned());
    content.2.extend(batch.job.iter().map(|(id, row)| (id.0, row.clone())));
}

/// Looks at all of an index, and writes to it: each either works, and is right, or says damaged.
fn right_or_damaged(disk: Arc<MemoryDisk>, expected: &Content) -> bool {
    let Some(index) = open_in_memory(disk) else { return false };
    match content(&index) {
        Ok(found) => assert!(found == *expected, "wrong rows"),
        Err(IndexError::Damaged { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    let batch = batch_of_history(999, 5);
    match index.write(&batch) {
        Ok(()) => {}
        Err(IndexError::Damaged { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    let mut expected = expected.clone();
    apply(&mut expected, &batch);
    match content(&index) {
        Ok(found) => assert!(found == expected, "wrong rows after writing"),
        Err(IndexError::Damaged { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    true
}

/// A file of some thousand rows, as it is after it was closed, and as a killed process leaves it.
fn history() -> ([Vec<u8>; 2], Content) {
    let (index, disk) = new_in_memory();
    let mut expected = Content::default();
    for number in 1..=4 {
        let batch = batch_of_history(number, 1200);
        index.write(&batch).unwrap();
        apply(&mut expected, &batch);
    }
    let killed = disk.memory().now.clone();
    drop(index);
    let closed = disk.memory().now.clone();
    ([closed, killed], expected)
}

#[test]
fn b11_flipped_bits_are_found_or_do_no_harm() {
    let (files, expected) = history();
    let mut random = Random(7);
    let (mut right, mut damaged) = (0, 0);
    let mut check = |bytes: Vec<u8>| {
        let kept = right_or_damaged(MemoryDisk::holding(bytes), &expected);
        *if kept { &mut right } else { &mut damaged } += 1;
        kept
    };
    for whole in files {
        assert!(check(whole.clone()), "it is whole");
        // Every bit of the head, of which none is without use but the zeros.
        for bit in 0..SECTOR * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!check(bytes), "bit {bit} of the head");
        }
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.index(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            check(bytes);
        }
        for _ in 0..100 {
            let mut bytes = whole.clone();
            let block = random.index(bytes.len() / 4096) * 4096;
            let other = random.index(bytes.len() / 4096) * 4096;
            match random.below(3) {
                0 => bytes[block..block + 4096].fill(0),
                1 => bytes[block..block + SECTOR].fill(0xff),
                // A block at another's place.
                _ => bytes.copy_within(other..other + 4096, block),
            }
            check(bytes);
        }
        for _ in 0..50 {
            let mut bytes = whole.clone();
            bytes.truncate(random.index(bytes.len()));
            check(bytes);
        }
    }
    println!("{right} without consequence, {damaged} found");
    assert!(right > 0 && damaged > right, "{right} right, {damaged} damaged");
}

/// What is on the disk after `batches`, by all that were acknowledged and perhaps one more.
fn one_of(index: &ReplicaIndex, acknowledged: &Content, in_progress: &Content) {
    let found = content(index).unwrap();
    assert!(
        found == *acknowledged || found == *in_progress,
        "neither what was acknowledged nor one batch more"
    );
}

#[test]
fn b9_a_power_cut_at_any_moment_leaves_the_last_acknowledged_batch_or_the_next() {
    let mut images = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let (index, disk) = new_in_memory();
        let (mut acknowledged, mut in_progress) = (Content::default(), Content::default());
        // Large batches make the file grow, and removing them makes it shrink.
        let rows = [1, 20, 300, 1500][random.index(4)];
        disk.memory().fails = Some((random.below(60 + rows), 5, true));
        let mut index = Some(index);
        for number in 1.. {
            let mut batch = batch_of_history(number * 1000 + seed, rows);
            if random.below(8) == 0 {
                batch.removed = in_progress.0.keys().cloned().collect();
                batch.placed.clear();
            }
            apply(&mut in_progress, &batch);
            if index.as_ref().expect("there").write(&batch).is_err() {
                break;
            }
            acknowledged = in_progress.clone();
            if random.below(6) == 0 {
                // A restart in between.
                drop(index.take());
                if matches!(disk.memory().fails, Some((0, ..))) {
                    break;
                }
                match Store::start(&shown(), PLAN, disk.clone()) {
                    Ok(store) => index = Some(ReplicaIndex { store: store.expect("sound") }),
                    Err(_) => break,
                }
            }
        }
        drop(index);
        for _ in 0..8 {
            let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
            let index = open_in_memory(image.clone()).expect("not damaged");
            one_of(&index, &acknowledged, &in_progress);
            // It can be gone on with from there, and cut off again.
            let mut after = content(&index).unwrap();
            let batch = batch_of_history(seed, 50);
            index.write(&batch).unwrap();
            apply(&mut after, &batch);
            drop(index);
            let index = open_in_memory(MemoryDisk::holding(image.after_power_cut(&mut random)));
            one_of(&index.expect("not damaged"), &after, &after);
            images += 2;
        }
    }
    println!("{images} images");
}

#[test]
fn b9_a_head_says_no_length_that_a_power_cut_could_take_back() {
    let mut random = Random(1);
    for _ in 0..50 {
        let disk = MemoryDisk::holding(Vec::new());
        let blocks = Arc::new(BlockFile::create(disk.clone(), PLAN.purpose));
        let backend = Backend(blocks);
        backend.set_len(4 * 4096).unwrap();
        backend.sync_data().unwrap();
        backend.write(0, &[1; 320]).unwrap();
        backend.sync_data().unwrap();
        for _ in 0..4 {
            backend.set_len((1 + random.below(2000)) * 4096).unwrap();
            if random.below(2) == 0 {
                backend.write(0, &[2; 320]).unwrap();
            }
            if random.below(3) == 0 {
                backend.sync_data().unwrap();
            }
        }
        if random.below(2) == 0 {
            backend.close().unwrap();
        }
        let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
        BlockFile::open(image, PLAN.purpose).expect("not damaged");
    }
}

#[test]
fn b1_each_failing_operation_is_reported_and_leaves_what_was_acknowledged() {
    const EIO: i32 = 5;
    let mut seen = 0;
    for nth in 0.. {
        let (index, disk) = new_in_memory();
        let mut acknowledged = Content::default();
        let batch = batch_of_history(1, 100);
        index.write(&batch).unwrap();
        apply(&mut acknowledged, &batch);
        disk.memory().fails = Some((nth, EIO, false));
        let batch = batch_of_history(2, 100);
        let mut in_progress = acknowledged.clone();
        apply(&mut in_progress, &batch);
        let result = index.write(&batch);
        if disk.memory().fails.is_some() {
            assert!(result.is_ok());
            break;
        }
        seen += 1;
        let error = result.expect_err("it failed");
        assert!(
            matches!(&error, IndexError::Io { source, .. } if source.raw_os_error() == Some(EIO)),
            "{error}"
        );
        // Nothing is believed from then on, although the disk works again.
        for _ in 0..2 {
            assert!(matches!(index.read(), Err(IndexError::Io { .. })));
            assert!(matches!(index.write(&batch), Err(IndexError::Io { .. })));
        }
        drop(index);
        one_of(&open_in_memory(disk).expect("not damaged"), &acknowledged, &in_progress);
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn b4_a_full_disk_is_said_and_gone_on_from_when_there_is_room() {
    const ENOSPC: i32 = 28;
    for nth in 0..200 {
        let (index, disk) = new_in_memory();
        let mut expected = Content::default();
        let batch = batch_of_history(1, 2000);
        disk.memory().fails = Some((nth, ENOSPC, true));
        let mut failures = 0;
        while let Err(error) = index.write(&batch) {
            assert!(matches!(error, IndexError::Full { .. }), "{error}");
            failures += 1;
            assert!(failures < 4, "there is room");
            if failures == 2 {
                disk.memory().fails = None;
            }
        }
        disk.memory().fails = None;
        apply(&mut expected, &batch);
        assert!(content(&index).unwrap() == expected);
        drop(index);
        one_of(&open_in_memory(disk).expect("not damaged"), &expected, &expected);
        if failures == 0 {
            return;
        }
    }
}

#[test]
fn b2_what_a_failed_sync_lost_is_not_taken_for_written() {
    let mut failed_syncs = 0;
    for nth in 0.. {
        // The disk goes on to read back what it has lost, and no sync ever tells again.
        let (index, disk) = new_in_memory();
        let first = placed(&[("a", file(1, 1))]);
        index.write(&first).unwrap();
        let syncs = disk.memory().syncs;
        disk.memory().fails = Some((nth, 28, false));
        let second = batch_of_history(1, 100);
        let failed = index.write(&second).is_err();
        if !failed && disk.memory().fails.is_some() {
            break;
        }
        let mut memory = disk.memory();
        failed_syncs += u64::from(failed && memory.syncs > syncs);
        memory.lens.clear();
        memory.sectors.clear();
        drop(memory);
        // Gone on with in the same process, then cut off: all of it is there.
        let third = placed(&[("c", file(3, 3))]);
        let mut expected = content(&index).unwrap();
        index.write(&third).unwrap();
        apply(&mut expected, &third);
        let image = MemoryDisk::holding(disk.memory().synced.clone());
        one_of(&open_in_memory(image).expect("not damaged"), &expected, &expected);
    }
    assert!(failed_syncs > 0);
}

#[test]
fn index_cache_remembers_hashes_of_small_and_large_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("hashes.redb");
    let cache = HashCache::open(&at, HashAlgorithm::Sha256).unwrap();
    assert_eq!(cache.found(), IndexFound::Created);
    let large = (3 * HASHES_PER_ROW as u64 + 5) << 15;
    let files = [
        (path("a/empty"), cached(0, 1)),
        (path("a/one"), cached(10, 2)),
        (path("a/two"), cached(40_000, 3)),
        (path("large"), cached(large, 4)),
        (path("b"), cached(1000 << 15, 5)),
    ];
    cache.write(&files).unwrap();
    let get = |cache: &HashCache, name: &str| cache.read().unwrap().get(&path(name)).unwrap();
    for (path, file) in &files {
        assert_eq!(get(&cache, &path.to_string()).as_ref(), Some(file));
    }
    // It shrank, and grew again by less: no row of the larger one is left.
    let lists = |cache: &HashCache| {
        let reader = cache.read().unwrap();
        reader.run(|(_, lists)| Ok(lists.len()?)).unwrap()
    };
    assert_eq!(lists(&cache), 4 + 1 + 1);
    cache.write(&[(path("large"), cached(1100 << 15, 6))]).unwrap();
    assert_eq!(lists(&cache), 2 + 1 + 1);
    assert_eq!(get(&cache, "large"), Some(cached(1100 << 15, 6)));
    cache.remove(&[path("b"), path("none")]).unwrap();
    assert_eq!(get(&cache, "b"), None);
    let mut asked = Vec::new();
    let forgotten = cache.retain(&mut |path| {
        asked.push(path.to_string());
        path.as_bytes() != b"large"
    });
    assert_eq!((forgotten.unwrap(), lists(&cache)), (1, 1));
    assert_eq!(asked, ["a/empty", "a/one", "a/two", "large"]);
    cache.flush().unwrap();
    drop(cache);
    let cache = HashCache::open(&at, HashAlgorithm::Sha256).unwrap();
    assert_eq!(cache.found(), IndexFound::Sound);
    assert_eq!(get(&cache, "a/two"), Some(cached(40_000, 3)));
    drop(cache);
    // Another algorithm's hashes are of no use, and neither is what is damaged.
    let cache = HashCache::open(&at, HashAlgorithm::Blake3).unwrap();
    assert_eq!((cache.found(), get(&cache, "a/two")), (IndexFound::Created, None));
    drop(cache);
    std::fs::write(&at, "garbage").unwrap();
    assert_eq!(HashCache::open(&at, HashAlgorithm::Blake3).unwrap().found(), IndexFound::Damaged);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn b9_a_cache_keeps_what_was_flushed_over_a_power_cut() {
    let purpose = Purpose { version: SCHEMA_VERSION, kind: HASHES_KIND, algorithm: 1 };
    let plan = cache::plan(HashAlgorithm::Sha256);
    assert_eq!(plan.purpose, purpose);
    for seed in 0..60 {
        let mut random = Random(seed);
        let disk = MemoryDisk::holding(Vec::new());
        let cache = HashCache::on(Store::fill(&shown(), plan, disk.clone()).unwrap());
        let mut now: BTreeMap<SafePath, CachedFile> = BTreeMap::new();
        let (mut flushed, mut flushing) = (now.clone(), now.clone());
        disk.memory().fails = Some((random.below(400), 5, true));
        for _ in 0..40 {
            let rows: Vec<_> = (0..random.below(300))
                .map(|_| {
                    let id = random.below(500);
                    (path(&format!("directory/{id}")), cached(random.below(1 << 22), id))
                })
                .collect();
            if cache.write(&rows).is_err() {
                break;
            }
            now.extend(rows);
            if random.below(4) == 0 {
                flushing = now.clone();
                if cache.flush().is_err() {
                    break;
                }
                flushed = now.clone();
            }
        }
        // Nothing of it is flushed by closing: the power is gone.
        disk.memory().fails = Some((0, 5, true));
        drop(cache);
        let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
        let store = Store::start(&shown(), plan, image).unwrap().expect("not damaged");
        let cache = HashCache::on(store);
        let reader = cache.read().unwrap();
        let mut found = BTreeMap::new();
        for id in 0..500 {
            let path = path(&format!("directory/{id}"));
            found.extend(reader.get(&path).unwrap().map(|file| (path, file)));
        }
        assert!(found == flushed || found == flushing);
    }
}

#[test]
fn b11_flipped_bits_of_a_cache_are_found_or_do_no_harm() {
    let plan = cache::plan(HashAlgorithm::Sha256);
    let disk = MemoryDisk::holding(Vec::new());
    let cache = HashCache::on(Store::fill(&shown(), plan, disk.clone()).unwrap());
    let files: Vec<_> =
        (0..500).map(|id| (path(&format!("d/{id:03}")), cached(id * id * id % (1 << 24), id))).collect();
    cache.write(&files).unwrap();
    drop(cache);
    let whole = disk.memory().now.clone();
    let mut random = Random(3);
    let mut damaged = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        let at = random.index(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        let Ok(store) = Store::start(&shown(), plan, MemoryDisk::holding(bytes)).unwrap() else {
            damaged += 1;
            continue;
        };
        let cache = HashCache::on(store);
        for (path, file) in &files {
            match cache.read().and_then(|reader| reader.get(path)) {
                Ok(found) => assert_eq!(found.as_ref(), Some(file)),
                Err(IndexError::Damaged { .. }) => {
                    damaged += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(damaged > 100, "{damaged}");
}
