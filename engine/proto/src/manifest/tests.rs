//! What a manifest must carry and what it must refuse (hazards A1, A3, A5, A8–A12).

use super::*;
use crate::block::{BlockIndex, BlockSize, FileId, Layout};
use crate::digest::{BlockHash, HashAlgorithm, RootHash, empty_root, root};
use crate::keys::RwSeed;
use crate::path::SafePath;
use crate::time::Timestamp;
use proptest::prelude::*;

fn seed(byte: u8) -> RwSeed {
    RwSeed::new(&[byte; 32])
}

fn catalog() -> Catalog {
    Catalog::new(seed(7).verify_key(), None)
}

fn writer() -> SegmentWriter {
    SegmentWriter::new(seed(7), HashAlgorithm::Sha256)
}

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).expect("safe")
}

fn metadata() -> Metadata {
    let mtime = Timestamp::new(1_700_000_000, 123_456_789).expect("in range");
    Metadata { mode: Mode::from_bits(0o644), mtime }
}

fn directory(id: u64, at: &str) -> Record {
    Record::Directory { id: FileId(id), path: path(at), metadata: metadata() }
}

fn small(id: u64, at: &str) -> Record {
    let layout = Layout::new(5, BlockSize::MIN).expect("small");
    Record::SmallFile {
        id: FileId(id),
        path: path(at),
        metadata: metadata(),
        layout,
        hash: BlockHash([9; 32]),
    }
}

fn big(id: u64, at: &str, size: u64) -> Record {
    let layout = Layout::new(size, BlockSize::MIN).expect("in range");
    Record::File { id: FileId(id), path: path(at), metadata: metadata(), layout }
}

fn symlink(id: u64, at: &str) -> Record {
    let mtime = metadata().mtime;
    Record::Symlink { id: FileId(id), path: path(at), mtime, target: b"/etc".to_vec() }
}

fn sealed(writer: &mut SegmentWriter, records: &[Record]) -> Vec<u8> {
    for record in records {
        writer.push(record);
    }
    writer.finish(1_700_000_000_000)
}

fn refused(records: &[Record]) -> String {
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer(), records)).expect_err("must be refused").to_string()
}

/// The attributes of the documented segment's directory.
fn attributes() -> Attributes {
    let account = |name: &str| AccountName::parse(name.as_bytes()).expect("a name");
    let xattr = |name: &str, value: &[u8]| Xattr {
        name: XattrName::parse(name.as_bytes()).expect("a name"),
        value: value.to_vec(),
    };
    let acl = |entries: Vec<(AclWho, u8)>| {
        let entry = |(who, permissions)| AclEntry::new(who, permissions).expect("in range");
        Acl::new(entries.into_iter().map(entry).collect()).expect("complete")
    };
    let (bob, wheel) = (AclWho::User(account("bob")), AclWho::NamedGroup(account("wheel")));
    let access = acl(vec![
        (AclWho::Owner, 7),
        (bob, 5),
        (AclWho::Group, 5),
        (wheel, 7),
        (AclWho::Mask, 7),
        (AclWho::Other, 0),
    ]);
    let default = acl(vec![(AclWho::Owner, 7), (AclWho::Group, 5), (AclWho::Other, 0)]);
    let owner = Owner { user: Some(account("alice")), group: None };
    let xattrs = vec![xattr("user.a", &[1, 2]), xattr("user.b", &[])];
    Attributes::new(owner, xattrs, Some(access), Some(default)).expect("within the limits")
}

/// The attributes of the documented segment's root.
fn owned() -> Attributes {
    let account = |name: &str| AccountName::parse(name.as_bytes()).ok();
    let owner = Owner { user: account("alice"), group: account("staff") };
    Attributes::new(owner, vec![], None, None).expect("within the limits")
}

/// Records of every kind.
fn everything() -> Vec<Record> {
    let hashes: Vec<_> = (0..4).map(|i| BlockHash([i; 32])).collect();
    vec![
        Record::Attributes { id: None, attributes: owned() },
        Record::Root(metadata()),
        Record::Attributes { id: Some(FileId(0)), attributes: attributes() },
        directory(0, "d"),
        big(1, "d/big", 100_000),
        Record::Holes { id: FileId(1), holes: vec![Hole { offset: 4096, len: 8192 }] },
        Record::Hashes { id: FileId(1), first: BlockIndex(0), hashes: hashes[..3].to_vec() },
        Record::Hashes { id: FileId(1), first: BlockIndex(3), hashes: hashes[3..].to_vec() },
        Record::Sealed { id: FileId(1), root: root(HashAlgorithm::Sha256, &hashes) },
        small(2, "d/small"),
        symlink(3, "link"),
        Record::Hardlink { id: FileId(4), path: path("d/again"), target: path("d/big") },
        Record::Withdrawn { id: FileId(2), path: path("d/small"), reason: WithdrawReason::Changed },
        Record::Problem { shown_path: b"d/fifo".to_vec(), problem: Problem::Special },
        Record::End { entries: 4 },
    ]
}

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
    let golden = include_str!("../../vectors/segment.hex");
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

/// Rewrites a field of a signed segment and signs again, as a hostile holder of the key would.
fn resigned(segment: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut message = b"sealift v1 manifest segment\0\0\0\0\0".to_vec();
    message.extend_from_slice(&segment[..segment.len() - 64]);
    message[32 + at..32 + at + bytes.len()].copy_from_slice(bytes);
    let signature = seed(7).sign(&message);
    [&message[32..], &signature].concat()
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
fn a11_refuses_signatures_that_are_wrong_truncated_or_of_another_key() {
    let segment = sealed(&mut writer(), &[small(0, "a")]);
    let refuse = |bytes: &[u8]| match catalog().admit(bytes).expect_err("refused") {
        ManifestError::Segment(error) => error,
        other => panic!("{other}"),
    };
    for at in [100, segment.len() - 1, segment.len() - 40] {
        let mut altered = segment.clone();
        altered[at] ^= 1;
        assert_eq!(refuse(&altered), SegmentError::BadSignature);
    }
    assert!(matches!(refuse(&segment[..segment.len() - 1]), SegmentError::Malformed(_)));
    assert!(matches!(refuse(&segment[..10]), SegmentError::Malformed(_)));
    let other = sealed(&mut SegmentWriter::new(seed(8), HashAlgorithm::Sha256), &[small(0, "a")]);
    assert_eq!(refuse(&other), SegmentError::WrongJob);

    // The read-only secret, and the session key made from it, sign nothing that a reader takes.
    let ro = seed(7).ro_secret();
    let mut message = b"sealift v1 manifest segment\0\0\0\0\0".to_vec();
    message.extend_from_slice(&segment[..segment.len() - 64]);
    for signature in [RwSeed::new(ro.as_bytes()).sign(&message), ro.session_key().sign(&message)] {
        assert_eq!(refuse(&[&message[32..], &signature].concat()), SegmentError::BadSignature);
    }
    // Another job's name under this job's signature, and this job's name under another job's signature.
    assert_eq!(refuse(&resigned(&segment, 8, &seed(8).verify_key().job_id().0)), SegmentError::WrongJob);
}

#[test]
fn a11_refuses_another_epoch_within_a_chain() {
    let mut writer = writer();
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[small(0, "a")])).expect("valid");
    let second = sealed(&mut writer, &[small(1, "b")]);
    let error = catalog.admit(&resigned(&second, 24, &2_u32.to_le_bytes())).expect_err("refused");
    assert_eq!(error, ManifestError::ForeignChain(SegmentSeq(1)));
}

#[test]
fn a12_tells_rollback_fork_and_gap() {
    let mut writer = writer();
    let mut catalog = catalog();
    let first = sealed(&mut writer, &[small(0, "a")]);
    let second = sealed(&mut writer, &[small(1, "b")]);
    let third = sealed(&mut writer, &[small(2, "c")]);
    catalog.admit(&first).expect("valid");
    assert_eq!(
        catalog.admit(&third),
        Err(ManifestError::Gap { expected: SegmentSeq(1), found: SegmentSeq(2) })
    );
    catalog.admit(&second).expect("valid");
    assert_eq!(catalog.admit(&first), Err(ManifestError::Rollback(SegmentSeq(0))));
    assert_eq!(catalog.admit(&second), Err(ManifestError::Rollback(SegmentSeq(1))));
    let other = resigned(&second, 48, &1_i64.to_le_bytes());
    assert_eq!(catalog.admit(&other), Err(ManifestError::Fork(SegmentSeq(1))));
    let unchained = resigned(&third, 56, &[1; 32]);
    assert_eq!(catalog.admit(&unchained), Err(ManifestError::BrokenChain(SegmentSeq(2))));
    catalog.admit(&third).expect("the genuine one still fits");
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

fn any_record() -> impl Strategy<Value = Record> {
    let path = "[a-z]{1,8}(/[a-z]{1,8}){0,3}".prop_map(|text| path(&text));
    let metadata = (0..0o10000_u32, -1_000_000_000_000_i64..200_000_000_000, 0..1_000_000_000_u32).prop_map(
        |(mode, seconds, nanos)| Metadata {
            mode: Mode::from_bits(mode),
            mtime: Timestamp::clamped(seconds, nanos),
        },
    );
    let id = any::<u64>().prop_map(FileId);
    let hash = any::<[u8; 32]>().prop_map(BlockHash);
    prop_oneof![
        metadata.clone().prop_map(Record::Root),
        (id.clone(), path.clone(), metadata.clone()).prop_map(|(id, path, metadata)| Record::Directory {
            id,
            path,
            metadata
        }),
        (id.clone(), path.clone(), metadata.clone(), 0..1_u64 << 36).prop_map(
            |(id, path, metadata, size)| {
                let layout = Layout::new(size, BlockSize::for_file(size)).expect("in range");
                Record::File { id, path, metadata, layout }
            }
        ),
        (id.clone(), proptest::collection::vec((0..1_u64 << 40, 1..1_u64 << 40), 1..8)).prop_map(
            |(id, holes)| {
                let holes = holes.into_iter().map(|(offset, len)| Hole { offset, len }).collect();
                Record::Holes { id, holes }
            }
        ),
        (id.clone(), any::<u32>(), proptest::collection::vec(hash.clone(), 1..40))
            .prop_map(|(id, first, hashes)| Record::Hashes { id, first: BlockIndex(first), hashes }),
        (id.clone(), any::<[u8; 32]>()).prop_map(|(id, root)| Record::Sealed { id, root: RootHash(root) }),
        (id.clone(), path.clone(), metadata, 0..=32_768_u64, hash).prop_map(
            |(id, path, metadata, size, hash)| {
                let layout = Layout::new(size, BlockSize::MIN).expect("one block");
                Record::SmallFile { id, path, metadata, layout, hash }
            }
        ),
        (id.clone(), path.clone(), "[^\0]{1,40}").prop_map(|(id, path, target)| Record::Symlink {
            id,
            path,
            mtime: Timestamp::clamped(0, 0),
            target: target.into_bytes()
        }),
        (id.clone(), path.clone(), path.clone()).prop_map(|(id, path, target)| Record::Hardlink {
            id,
            path,
            target
        }),
        (id, path).prop_map(|(id, path)| Record::Withdrawn { id, path, reason: WithdrawReason::Vanished }),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|shown_path| Record::Problem { shown_path, problem: Problem::Changed }),
        any::<u64>().prop_map(|entries| Record::End { entries }),
    ]
}

proptest! {
    #[test]
    fn records_round_trip_and_every_cut_is_an_error(record in any_record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut reader = crate::codec::Reader::new(&bytes);
        prop_assert_eq!(Record::decode(&mut reader), Ok(record));
        prop_assert!(reader.is_empty());
        let cut = cut.index(bytes.len());
        prop_assert!(Record::decode(&mut crate::codec::Reader::new(&bytes[..cut])).is_err());
    }

    #[test]
    fn mutated_records_never_panic(record in any_record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Record::decode(&mut crate::codec::Reader::new(&bytes));
    }

    #[test]
    fn arbitrary_records_in_signed_segments_never_panic(records in proptest::collection::vec(any_record(), 0..20)) {
        let mut writer = writer();
        let _ = catalog().admit(&sealed(&mut writer, &records));
    }

    #[test]
    fn an_altered_segment_is_never_admitted(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut segment = sealed(&mut writer(), &everything());
        let at = at.index(segment.len());
        segment[at] ^= 1 << bit;
        prop_assert!(catalog().admit(&segment).is_err());
    }
}
