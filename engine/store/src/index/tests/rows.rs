//! The bytes of rows and keys, of any content and from any bytes.

use super::super::rows::{CachedHead, key_path, path_key, seal};
use super::*;
use proptest::prelude::*;

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
        let value = seal(b"key", bytes);
        let _ = EntryRow::decode(b"key", &value);
        let _ = PartialRow::decode(b"key", &value);
        let _ = JobRow::decode(b"key", &value);
        let _ = CachedHead::decode(b"key", &value);
    }
}
