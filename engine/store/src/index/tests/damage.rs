//! Files that are no index, or of a later version, or damaged (hazards B11, C8).

use super::memory::{MemoryDisk, SECTOR, apply, batch_of_history, new_in_memory, open_in_memory};
use super::*;
use std::sync::Arc;

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
