//! Records: what they carry, and which do not make sense after those before them (hazards A3, A4, A5, A9, A10).

use super::*;
use crate::digest::{RootHash, empty_root};

#[test]
fn a_manifest_of_every_record_comes_out_as_it_went_in() {
    let mut writer = writer();
    let mut catalog = catalog();
    let records = everything();
    let (front, back) = records.split_at(7);
    assert_eq!(catalog.admit(&sealed(&mut writer, front)).expect("valid"), front);
    assert!(!catalog.ended());
    assert_eq!(catalog.admit(&sealed(&mut writer, back)).expect("valid"), back);
    assert!(catalog.ended());
    assert_eq!(catalog.next_sequence(), SegmentSeq(2));
}

/// The vector of docs/manifest.md. If this changes, the format has changed.
#[test]
fn layout_matches_the_documented_vector() {
    let segment = sealed(&mut writer(), &everything());
    let golden = include_str!("../../../vectors/segment.hex");
    let golden: String = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(data_encoding::HEXLOWER.encode(&segment), golden);
}

#[test]
fn a3_refuses_two_entries_for_one_path_and_a_file_that_is_a_parent() {
    assert!(refused(&[small(0, "a"), small(1, "a")]).contains("two entries have one path"));
    assert!(refused(&[small(0, "a"), small(1, "a/b")]).contains("no directory"));
    assert!(refused(&[directory(0, "a"), small(1, "a")]).contains("two entries"));
    assert!(refused(&[small(0, "a/b")]).contains("no directory"));
}

#[test]
fn a4_refuses_an_entry_beneath_a_symlink() {
    assert!(refused(&[symlink(0, "a"), small(1, "a/passwd")]).contains("no directory"));
}

#[test]
fn a5_refuses_a_hardlink_to_what_is_no_file_of_the_manifest() {
    let link = |target: &str| Record::Hardlink { id: FileId(1), path: path("l"), target: path(target) };
    assert!(refused(&[small(0, "a"), link("b")]).contains("hard link"));
    assert!(refused(&[directory(0, "a"), link("a")]).contains("hard link"));
    assert!(refused(&[symlink(0, "a"), link("a")]).contains("hard link"));
}

#[test]
fn a9_refuses_sizes_holes_and_hash_ranges_that_do_not_add_up() {
    let hashes = |first, count| Record::Hashes {
        id: FileId(0),
        first: BlockIndex(first),
        hashes: vec![BlockHash([0; 32]); count],
    };
    let holes = |holes: &[(u64, u64)]| Record::Holes {
        id: FileId(0),
        holes: holes.iter().map(|&(offset, len)| Hole { offset, len }).collect(),
    };
    let seal = Record::Sealed { id: FileId(0), root: RootHash([0; 32]) };
    let file = || big(0, "f", 100_000);
    assert!(refused(&[file(), hashes(0, 5)]).contains("beyond the end"));
    assert!(refused(&[file(), hashes(1, 1)]).contains("out of order"));
    assert!(refused(&[file(), hashes(0, 3), seal.clone()]).contains("before all its hashes"));
    assert!(refused(&[seal]).contains("not open"));
    assert!(refused(&[file(), holes(&[(0, 100_001)])]).contains("leave the file"));
    assert!(refused(&[file(), holes(&[(0, 10), (9, 10)])]).contains("overlap"));
    assert!(refused(&[file(), holes(&[(u64::MAX, 2)])]).contains("out of range"));
    assert!(refused(&[file(), holes(&[(0, 0)])]).contains("out of range"));
    assert!(refused(&[file(), Record::End { entries: 1 }]).contains("does not agree"));
    assert!(refused(&[small(0, "a"), Record::End { entries: 2 }]).contains("does not agree"));
}

#[test]
fn a9_refuses_sizes_of_2_to_the_63_and_times_out_of_range() {
    // Body: kind 1, id 8, path length 2, "f", mode 2, mtime seconds 8, nanos 4, size 8, log2 1.
    let segment = sealed(&mut writer(), &[big(0, "f", 100_000)]);
    let body = 96;
    let refuse = |at: usize, bytes: &[u8]| {
        let error = catalog().admit(&resigned(&segment, body + at, bytes)).expect_err("refused");
        error.to_string()
    };
    assert!(refuse(26, &(1_u64 << 63).to_le_bytes()).contains("file size"));
    assert!(refuse(26, &u64::MAX.to_le_bytes()).contains("file size"));
    assert!(refuse(34, &[14]).contains("block size"));
    assert!(refuse(34, &[25]).contains("block size"));
    assert!(refuse(14, &i64::MAX.to_le_bytes()).contains("modification time"));
    assert!(refuse(14, &i64::MIN.to_le_bytes()).contains("modification time"));
    assert!(refuse(22, &1_000_000_000_u32.to_le_bytes()).contains("modification time"));
    assert!(refuse(12, &[0xff, 0xff]).contains("mode"));
    assert!(refuse(11, b"/").contains("absolute"));
    assert!(refuse(11, b".").contains("'..'"));
    assert!(refuse(9, &0_u16.to_le_bytes()).contains("empty"));
    assert!(refuse(0, &[99]).contains("unknown record kind 99"));
}

#[test]
fn a10_counts_that_claim_more_than_is_there_allocate_nothing() {
    let segment = sealed(&mut writer(), &[small(0, "a")]);
    let claims = resigned(&segment, 28, &u32::MAX.to_le_bytes());
    assert!(catalog().admit(&claims).expect_err("refused").to_string().contains("number of records"));
    let body_len = resigned(&segment, 88, &u32::MAX.to_le_bytes());
    assert!(catalog().admit(&body_len).expect_err("refused").to_string().contains("length"));
    let too_long = vec![0; crate::limits::SEGMENT_BYTES_MAX + 1];
    assert!(catalog().admit(&too_long).expect_err("refused").to_string().contains("too long"));
    let hashes = Record::Hashes { id: FileId(0), first: BlockIndex(0), hashes: vec![BlockHash([0; 32])] };
    let segment = sealed(&mut writer(), &[hashes]);
    let error = catalog().admit(&resigned(&segment, 96 + 13, &u32::MAX.to_le_bytes())).expect_err("refused");
    assert!(error.to_string().contains("number of hashes"));
}

#[test]
fn a10_open_files_are_bounded() {
    let many: Vec<_> = (0..=crate::limits::MANIFEST_OPEN_FILES_MAX as u64)
        .map(|i| big(i, &format!("f{i}"), 40_000))
        .collect();
    assert!(refused(&many).contains("too many files"));
}

#[test]
fn a10_refuses_more_hashes_of_open_files_than_are_kept() {
    let layout =
        |log2| BlockSize::from_log2(log2).and_then(|size| Layout::new(1 << 43, size)).expect("in range");
    let file = |id, log2| {
        let path = path(&format!("f{id}"));
        Record::File { id: FileId(id), path, metadata: metadata(), layout: layout(log2) }
    };
    assert!(refused(&[file(0, 23)]).contains("too small for its size"));
    let mut writer = writer();
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[file(0, 24), file(1, 24), file(2, 24)])).expect("valid");
    let hashes = vec![BlockHash([0; 32]); crate::limits::RECORD_HASHES_MAX];
    let batch_blocks = u32::try_from(hashes.len()).expect("small");
    let batches = (crate::limits::FILE_BLOCKS_MAX / 3).div_ceil(batch_blocks) + 1;
    let refusal =
        (0..3_u64).flat_map(|id| (0..batches).map(move |batch| (id, batch))).find_map(|(id, batch)| {
            let first = BlockIndex(batch * batch_blocks);
            let record = Record::Hashes { id: FileId(id), first, hashes: hashes.clone() };
            catalog.admit(&sealed(&mut writer, &[record])).err()
        });
    assert!(refusal.expect("bounded").to_string().contains("too many hashes"));
}

#[test]
fn paths_stand_until_they_are_withdrawn() {
    let mut writer = writer();
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[directory(0, "d"), small(1, "d/f")])).expect("valid");
    assert_eq!(catalog.entries(), 2);
    assert!(catalog.stands(&path("d")) && catalog.stands(&path("d/f")) && !catalog.stands(&path("f")));
    let withdrawn = Record::Withdrawn { id: FileId(1), path: path("d/f"), reason: WithdrawReason::Vanished };
    catalog.admit(&sealed(&mut writer, &[withdrawn])).expect("valid");
    assert_eq!(catalog.entries(), 1);
    assert!(!catalog.stands(&path("d/f")));
}

#[test]
fn a_withdrawn_file_may_come_again() {
    let mut writer = writer();
    let mut catalog = catalog();
    let withdrawn = Record::Withdrawn { id: FileId(0), path: path("a"), reason: WithdrawReason::Superseded };
    catalog.admit(&sealed(&mut writer, &[small(0, "a"), Record::End { entries: 1 }])).expect("valid");
    catalog
        .admit(&sealed(&mut writer, &[withdrawn.clone(), small(1, "a"), Record::End { entries: 1 }]))
        .expect("valid");
    assert!(catalog.ended());
    assert!(catalog.admit(&sealed(&mut writer, &[withdrawn])).is_err(), "it no longer stands");
}

#[test]
fn an_empty_file_has_the_hash_of_nothing() {
    let layout = Layout::new(0, BlockSize::MIN).expect("small");
    let empty =
        |hash| Record::SmallFile { id: FileId(0), path: path("e"), metadata: metadata(), layout, hash };
    let right = BlockHash(empty_root(HashAlgorithm::Sha256).0);
    catalog().admit(&sealed(&mut writer(), &[empty(right)])).expect("valid");
    assert!(refused(&[empty(BlockHash([0; 32]))]).contains("empty file"));
}
