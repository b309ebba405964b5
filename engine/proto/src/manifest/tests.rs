//! What a manifest must carry and what it must refuse (hazards A1, A3, A5, A8–A12, C4).

use super::*;
use crate::block::{BlockIndex, BlockSize, FileId, Layout};
use crate::digest::{BlockHash, HashAlgorithm, RootHash, empty_root, root};
use crate::keys::RwSeed;
use crate::path::SafePath;
use crate::time::Timestamp;
use proptest::prelude::*;
use sha2::Digest as _;

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

/// A writer that goes on with a chain at `next`, after the segment that `previous` is the hash of.
fn resumed(next: u64, previous: SegmentHash) -> SegmentWriter {
    SegmentWriter::resume(seed(7), HashAlgorithm::Sha256, SegmentSeq(next), previous)
}

/// The three segments of a snapshot that begins at 4: two directories, then the end.
fn snapshot_at_4() -> [Vec<u8>; 3] {
    let mut writer = resumed(4, SegmentHash([1; 32]));
    [directory(0, "a"), directory(1, "b"), Record::End { entries: 2 }].map(|it| sealed(&mut writer, &[it]))
}

fn mark_of(segment: &[u8]) -> Mark {
    let (header, hash) = inspect(segment, &seed(7).verify_key()).expect("genuine");
    Mark { epoch: header.epoch, sequence: header.sequence, hash }
}

fn knowing(mark: Mark) -> Catalog {
    Catalog::new(seed(7).verify_key(), Some(mark))
}

#[test]
fn a_writer_goes_on_where_its_chain_was_and_begins_a_snapshot_there() {
    let key = seed(7).verify_key();
    let mut writer = writer();
    assert_eq!(writer.last(), None);
    let first = sealed(&mut writer, &[small(0, "a")]);
    let second = sealed(&mut writer, &[Record::End { entries: 1 }]);
    let (sequence, hash) = writer.last().expect("two were made");
    assert_eq!((sequence, hash), (SegmentSeq(1), mark_of(&second).hash));
    let mut resumed = resumed(sequence.0 + 1, hash);
    assert_eq!(resumed.last(), None);
    let third = sealed(&mut resumed, &[small(0, "a")]);
    let headers = [&first, &second, &third].map(|it| inspect(it, &key).expect("genuine").0);
    assert_eq!(headers.map(|header| header.snapshot), [true, false, true]);
    assert_eq!(headers.map(|header| header.sequence.0), [0, 1, 2]);
    assert_eq!(headers[2].previous, hash);
}

#[test]
fn inspect_checks_signature_and_job_and_no_records() {
    let nonsense = sealed(&mut writer(), &[Record::End { entries: 9 }]);
    let (header, hash) = inspect(&nonsense, &seed(7).verify_key()).expect("signed");
    assert_eq!((header.sequence, header.epoch, header.writer), (SegmentSeq(0), 1, 0));
    assert_eq!(hash.0, <[u8; 32]>::from(sha2::Sha256::digest(&nonsense)));
    assert_eq!(inspect(&nonsense, &seed(8).verify_key()), Err(SegmentError::WrongJob));
    let altered = resigned(&nonsense, 96, &[0]);
    assert!(inspect(&altered, &seed(7).verify_key()).is_ok());
    let mut altered = altered;
    altered[96] ^= 1;
    assert_eq!(inspect(&altered, &seed(7).verify_key()), Err(SegmentError::BadSignature));
}

#[test]
fn a_reader_starts_with_any_snapshot_and_with_nothing_else() {
    let [first, second, third] = snapshot_at_4();
    let mut catalog = catalog();
    assert_eq!(catalog.mark(), None);
    let gap = ManifestError::Gap { expected: SegmentSeq(0), found: SegmentSeq(5) };
    assert_eq!(catalog.admit(&second), Err(gap));
    catalog.admit(&first).expect("a snapshot");
    assert_eq!((catalog.next_sequence(), catalog.mark()), (SegmentSeq(5), Some(mark_of(&first))));
    catalog.admit(&second).expect("the next");
    catalog.admit(&third).expect("the end");
    assert!(catalog.ended() && !catalog.behind());
    assert_eq!(catalog.mark(), Some(mark_of(&third)));
    assert_eq!(catalog.admit(&first), Err(ManifestError::Rollback(SegmentSeq(4))));
    assert_eq!(catalog.admit(&resigned(&first, 48, &[1])), Err(ManifestError::Fork(SegmentSeq(4))));
    let older = sealed(&mut writer(), &[small(0, "a")]);
    assert_eq!(catalog.admit(&older), Err(ManifestError::Rollback(SegmentSeq(0))));

    let unflagged = resigned(&older, 7, &[0]);
    assert_eq!(self::catalog().admit(&unflagged), Err(ManifestError::BrokenChain(SegmentSeq(0))));
    let with_past = sealed(&mut resumed(0, SegmentHash([1; 32])), &[small(0, "a")]);
    assert_eq!(self::catalog().admit(&with_past), Err(ManifestError::BrokenChain(SegmentSeq(0))));
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
fn a_new_snapshot_is_told_apart_from_every_offence() {
    let [first, second, third] = snapshot_at_4();
    let mut catalog = catalog();
    catalog.admit(&first).expect("a snapshot");
    catalog.admit(&second).expect("the next");
    for next in [6, 7, 100] {
        let anew =
            sealed(&mut resumed(next, SegmentHash::NONE), &[directory(0, "c"), Record::End { entries: 1 }]);
        let refusal = catalog.admit(&anew);
        assert_eq!(refusal, Err(ManifestError::NewSnapshot(SegmentSeq(next))));
        // Of a newer epoch, and with another hash, too.
        for (at, byte) in [(24, 2), (6, 2)] {
            assert_eq!(catalog.admit(&resigned(&anew, at, &[byte])), refusal);
        }
        // Of an older epoch or another writer, never; and not without a right signature.
        for (at, byte) in [(24, 0), (32, 1)] {
            let foreign = ManifestError::ForeignChain(SegmentSeq(next));
            assert_eq!(catalog.admit(&resigned(&anew, at, &[byte])), Err(foreign));
        }
        let mut altered = anew.clone();
        altered[100] ^= 1;
        assert_eq!(catalog.admit(&altered), Err(SegmentError::BadSignature.into()));
        let mut over = knowing(catalog.mark().expect("two were admitted"));
        over.admit(&anew).expect("it stands on its own");
        assert!(over.ended() && !over.stands(&path("a")));
    }
    let anew = |next| sealed(&mut resumed(next, SegmentHash::NONE), &[directory(0, "c")]);
    assert_eq!(catalog.admit(&anew(5)), Err(ManifestError::Fork(SegmentSeq(5))));
    assert_eq!(catalog.admit(&anew(3)), Err(ManifestError::Rollback(SegmentSeq(3))));
    catalog.admit(&third).expect("nothing has changed");
    assert!(catalog.ended());
}

#[test]
fn a12_an_end_older_than_what_was_accepted_ends_nothing() {
    let mut writer = resumed(4, SegmentHash([1; 32]));
    let first = sealed(&mut writer, &[small(0, "a"), Record::End { entries: 1 }]);
    let withdrawn = Record::Withdrawn { id: FileId(0), path: path("a"), reason: WithdrawReason::Superseded };
    let second = sealed(&mut writer, &[withdrawn, small(1, "a"), Record::End { entries: 1 }]);
    let third = sealed(&mut writer, &[Record::End { entries: 1 }]);
    let mark = mark_of(&second);
    let mut catalog = knowing(mark);
    assert!(!catalog.ended() && catalog.behind());
    catalog.admit(&first).expect("the same snapshot again");
    assert!(!catalog.ended() && catalog.behind());
    assert_eq!(catalog.mark(), Some(mark), "a mark never goes back");
    catalog.admit(&second).expect("the accepted one");
    assert!(catalog.ended() && !catalog.behind());
    catalog.admit(&third).expect("a newer one");
    assert_eq!(catalog.mark(), Some(mark_of(&third)));
    // A snapshot that begins beyond the mark is newer at once.
    let mut catalog = knowing(mark);
    catalog.admit(&sealed(&mut resumed(9, SegmentHash::NONE), &[Record::End { entries: 0 }])).expect("newer");
    assert!(catalog.ended());
}

#[test]
fn a12_another_segment_where_one_was_accepted_is_a_fork_in_a_later_run_too() {
    let [first, second, third] = snapshot_at_4();
    for (accepted, forked) in [(&first, &first), (&second, &second), (&third, &third)] {
        let mark = mark_of(accepted);
        let mut catalog = knowing(mark);
        for segment in [&first, &second, &third] {
            let other = resigned(segment, 48, &[1]);
            if segment == forked {
                assert_eq!(catalog.admit(&other), Err(ManifestError::Fork(mark.sequence)));
            }
            catalog.admit(segment).expect("the accepted history");
        }
        assert!(catalog.ended());
    }
    // A snapshot right after the mark names what was accepted, or nothing.
    let mark = mark_of(&third);
    let after = |previous| sealed(&mut resumed(7, previous), &[Record::End { entries: 0 }]);
    knowing(mark).admit(&after(mark.hash)).expect("the same history");
    knowing(mark).admit(&after(SegmentHash::NONE)).expect("a writer that lost its state");
    let broken = Err(ManifestError::BrokenChain(SegmentSeq(7)));
    assert_eq!(knowing(mark).admit(&after(SegmentHash([1; 32]))), broken);
}

#[test]
fn a12_an_epoch_that_is_over_is_a_rollback_and_a_newer_one_is_beyond_every_place() {
    let [first, second, _] = snapshot_at_4();
    let of_epoch = |segment: &[u8], epoch: u32| resigned(segment, 24, &epoch.to_le_bytes());
    let mark = mark_of(&of_epoch(&second, 5));
    assert_eq!(mark.epoch, 5);
    let newer = of_epoch(&sealed(&mut resumed(9, SegmentHash::NONE), &[Record::End { entries: 0 }]), 4);
    assert_eq!(knowing(mark).admit(&newer), Err(ManifestError::Rollback(SegmentSeq(9))));
    let end = of_epoch(&sealed(&mut writer(), &[Record::End { entries: 0 }]), 6);
    let mut catalog = knowing(mark);
    catalog.admit(&end).expect("a newer epoch");
    assert!(catalog.ended());
    assert_eq!(catalog.mark(), Some(mark_of(&end)));
    // Places are compared within one epoch only.
    let mut catalog = knowing(Mark { epoch: 1, ..mark_of(&first) });
    catalog.admit(&of_epoch(&resigned(&first, 48, &[1]), 2)).expect("of another epoch");
}

/// The writer's state is an old copy: it numbers segments that it had numbered before.
#[test]
fn c4_a_writer_restored_from_an_old_copy_of_its_state_is_found_out() {
    let begin = |writer: &mut SegmentWriter| sealed(writer, &[small(0, "a")]);
    let go_on = |writer: &mut SegmentWriter| sealed(writer, &[small(1, "b"), Record::End { entries: 2 }]);
    let mut writer = resumed(10, SegmentHash::NONE);
    let accepted = [begin(&mut writer), go_on(&mut writer)];
    let mut catalog = catalog();
    for segment in &accepted {
        catalog.admit(segment).expect("valid");
    }
    let mark = catalog.mark().expect("accepted");
    // Restored to where it used fewer places than were accepted: there is no end to what it says …
    let mut restored = resumed(8, SegmentHash::NONE);
    let mut catalog = knowing(mark);
    catalog.admit(&begin(&mut restored)).expect("nothing is wrong yet");
    catalog.admit(&go_on(&mut restored)).expect("nor now");
    assert!(!catalog.ended() && catalog.behind());
    // … until it comes to a place that was used.
    let say = |writer: &mut SegmentWriter| sealed(writer, &[Record::End { entries: 2 }]);
    catalog.admit(&say(&mut restored)).expect("the place before");
    assert_eq!(catalog.admit(&say(&mut restored)), Err(ManifestError::Fork(SegmentSeq(11))));
    // Restored to the very place: at once.
    let fork = Err(ManifestError::Fork(SegmentSeq(11)));
    assert_eq!(knowing(mark).admit(&begin(&mut resumed(11, SegmentHash::NONE))), fork);
    // And beside a reader that runs.
    let mut running = self::catalog();
    accepted.iter().for_each(|segment| drop(running.admit(segment).expect("valid")));
    assert_eq!(running.admit(&begin(&mut resumed(11, SegmentHash::NONE))), fork);
    assert_eq!(
        running.admit(&begin(&mut resumed(8, SegmentHash::NONE))),
        Err(ManifestError::Rollback(SegmentSeq(8)))
    );
}

#[test]
fn a12_tells_forks_for_as_long_as_it_remembers() {
    let mut writer = resumed(5, SegmentHash::NONE);
    let mut catalog = catalog();
    let segments: Vec<_> = (0..1100).map(|_| sealed(&mut writer, &[Record::End { entries: 0 }])).collect();
    for segment in &segments {
        catalog.admit(segment).expect("valid");
    }
    for (at, segment) in segments.iter().enumerate().step_by(25) {
        let sequence = SegmentSeq(5 + at as u64);
        assert_eq!(catalog.admit(segment), Err(ManifestError::Rollback(sequence)));
        let other = catalog.admit(&resigned(segment, 48, &[1])).expect_err("refused");
        let told = if at >= 76 { ManifestError::Fork(sequence) } else { ManifestError::Rollback(sequence) };
        assert_eq!(other, told, "{at}");
    }
}

#[test]
fn a9_refuses_places_beyond_the_last_and_flags_it_does_not_know() {
    let last = crate::limits::SEGMENT_SEQUENCE_MAX;
    let malformed = |segment: &[u8]| match catalog().admit(segment) {
        Err(ManifestError::Segment(SegmentError::Malformed(what))) => what,
        other => panic!("{other:?}"),
    };
    let mut writer = resumed(last, SegmentHash::NONE);
    let mut catalog = catalog();
    catalog.admit(&sealed(&mut writer, &[small(0, "a")])).expect("the last place");
    assert_eq!(catalog.mark().map(|mark| mark.sequence), Some(SegmentSeq(last)));
    let beyond = sealed(&mut writer, &[Record::End { entries: 1 }]);
    assert!(malformed(&beyond).contains("sequence number"));
    let mut writer = resumed(u64::MAX, SegmentHash::NONE);
    for _ in 0..2 {
        assert!(malformed(&sealed(&mut writer, &[small(0, "a")])).contains("sequence number"));
    }
    let segment = sealed(&mut self::writer(), &[small(0, "a")]);
    for flags in [2, 3, 0x80, 0xff] {
        assert_eq!(malformed(&resigned(&segment, 7, &[flags])), "a reserved field is used");
    }
    assert_eq!(malformed(&resigned(&segment, 92, &[1])), "a reserved field is used");
}

#[test]
fn other_formats_are_refused_as_such() {
    let segment = sealed(&mut writer(), &[small(0, "a")]);
    for version in [0, 1, 3, u16::MAX] {
        let refusal = catalog().admit(&resigned(&segment, 4, &version.to_le_bytes()));
        assert_eq!(refusal, Err(SegmentError::Version(version).into()));
    }
}

#[test]
fn attributes_belong_to_the_very_next_entry() {
    let of = |id: Option<u64>, attributes: Attributes| Record::Attributes { id: id.map(FileId), attributes };
    let hardlink = Record::Hardlink { id: FileId(1), path: path("l"), target: path("f") };
    let problem = Record::Problem { shown_path: vec![], problem: Problem::Special };
    let before = "before what has none";
    let other = "before another entry than theirs";
    for (records, why) in [
        (vec![small(0, "f"), of(Some(1), owned()), hardlink], before),
        (vec![of(Some(0), owned()), of(Some(0), owned()), small(0, "f")], before),
        (vec![of(Some(0), owned()), problem, small(0, "f")], before),
        (vec![of(None, owned()), Record::End { entries: 0 }], before),
        (vec![of(Some(1), owned()), small(0, "f")], other),
        (vec![small(0, "f"), of(Some(0), owned()), small(1, "g")], other),
        (vec![of(None, owned()), small(0, "f")], other),
        (vec![of(Some(0), owned()), Record::Root(metadata())], other),
        (vec![of(Some(0), attributes()), small(0, "f")], "of what is no directory"),
        (vec![of(Some(0), attributes()), big(0, "f", 40_000)], "of what is no directory"),
        (vec![of(Some(0), attributes()), symlink(0, "f")], "a symbolic link with"),
    ] {
        assert!(refused(&records).contains(why), "{}", refused(&records));
    }
    let mut writer = writer();
    let mut catalog = catalog();
    for records in [
        // Segments may end in between.
        vec![of(None, attributes())],
        vec![Record::Root(metadata()), of(Some(0), owned())],
        vec![small(0, "a"), of(Some(1), owned()), big(1, "b", 40_000)],
        vec![of(Some(2), owned()), symlink(2, "c"), of(Some(3), attributes()), directory(3, "d")],
    ] {
        assert_eq!(catalog.admit(&sealed(&mut writer, &records)), Ok(records));
    }
}

#[test]
fn attributes_that_cannot_be_are_not_made() {
    let name_of = |len: usize| vec![b'x'; len];
    for bad in [&b""[..], &name_of(256), b"a:b", b"a/b", b"a\0", b"a\n", b"a\x7f", b"\x1b[2J"] {
        assert_eq!(AccountName::parse(bad), Err(AttributesError::AccountName), "{bad:?}");
    }
    for right in [&b"a"[..], &name_of(255), b"DOMAIN\\some one", b"caf\xe9", "né".as_bytes()] {
        assert_eq!(AccountName::parse(right).expect("allowed").as_bytes(), right);
    }
    for bad in [&b""[..], &name_of(256), b"user.\0"] {
        assert_eq!(XattrName::parse(bad), Err(AttributesError::XattrName), "{bad:?}");
    }
    assert_eq!(XattrName::parse(b"user.\n/:").expect("allowed").to_string(), "user.\\x0a/:");

    let user =
        |number: usize| AclWho::User(AccountName::parse(number.to_string().as_bytes()).expect("a name"));
    let acl =
        |who: Vec<AclWho>| Acl::new(who.into_iter().map(|who| AclEntry::new(who, 7).expect("7")).collect());
    let base = || vec![AclWho::Other, AclWho::Group, AclWho::Owner];
    assert_eq!(AclEntry::new(AclWho::Owner, 8), Err(AttributesError::Permissions));
    let ordered = acl(base()).expect("complete");
    let who: Vec<_> = ordered.entries().iter().map(AclEntry::who).collect();
    assert_eq!(who, [&AclWho::Owner, &AclWho::Group, &AclWho::Other]);
    for missing in 0..3 {
        let mut entries = base();
        entries.remove(missing);
        assert_eq!(acl(entries), Err(AttributesError::AclIncomplete));
    }
    let with = |more: Vec<AclWho>| acl([base(), more].concat());
    assert_eq!(with(vec![AclWho::Other]), Err(AttributesError::AclOrder));
    assert_eq!(with(vec![AclWho::Mask, user(1), user(2), user(1)]), Err(AttributesError::AclOrder));
    assert_eq!(with(vec![user(1)]), Err(AttributesError::AclIncomplete));
    let many = |count| with((0..count).map(user).chain([AclWho::Mask]).collect());
    assert_eq!(many(124).expect("complete").entries().len(), 128);
    assert_eq!(many(125), Err(AttributesError::TooManyAclEntries));

    let xattr = |number: usize, bytes: usize| Xattr {
        name: XattrName::parse(format!("user.{number}").as_bytes()).expect("a name"),
        value: vec![7; bytes],
    };
    let with = |xattrs: Vec<Xattr>| Attributes::new(Owner::default(), xattrs, None, None);
    assert!(with(vec![]).expect("nothing").is_empty());
    assert!(with((0..64).map(|number| xattr(number, 9)).collect()).is_ok());
    assert_eq!(with((0..65).map(|number| xattr(number, 9)).collect()), Err(AttributesError::TooManyXattrs));
    assert_eq!(with(vec![xattr(1, 2), xattr(2, 2), xattr(1, 3)]), Err(AttributesError::XattrOrder));
    // Owner 2, number of attributes 1, a name of 6 and its length 1, the value's length 2, two lists 2.
    let largest = crate::limits::ATTRIBUTES_BYTES_MAX - 14;
    assert_eq!(with(vec![xattr(1, largest + 1)]), Err(AttributesError::TooLarge));
    let attributes = with(vec![xattr(1, largest)]).expect("just");
    let records = [Record::Attributes { id: Some(FileId(0)), attributes }, small(0, "f")];
    assert_eq!(catalog().admit(&sealed(&mut writer(), &records)).expect("carried"), records);
}

#[test]
fn attributes_that_cannot_be_are_not_read() {
    use AttributesError as E;
    let decode = |body: &[u8]| {
        let mut reader = crate::codec::Reader::new(body);
        Record::decode(&mut reader).expect_err("refused")
    };
    // Kind 13, the root, no owner.
    let xattrs = |count: u8, list: &[u8]| [&[13, 0, 0, 0, count], list, &[0, 0]].concat();
    let acl = |count: u8, list: &[u8]| [&[13, 0, 0, 0, 0, count], list, &[0]].concat();
    let cases: Vec<(Vec<u8>, RecordError)> = vec![
        (vec![13, 2, 0, 0, 0, 0, 0], RecordError::Range("whose attributes follow")),
        (vec![13, 0, 1, b':', 0, 0, 0, 0], E::AccountName.into()),
        (vec![13, 0, 0, 1, b'\n', 0, 0, 0], E::AccountName.into()),
        (xattrs(65, &b"\x01a\0\0".repeat(65)), E::TooManyXattrs.into()),
        (xattrs(1, b"\0\0\0"), E::XattrName.into()),
        (xattrs(2, b"\x01b\0\0\x01a\0\0"), E::XattrOrder.into()),
        (xattrs(2, b"\x01a\0\0\x01a\0\0"), E::XattrOrder.into()),
        (xattrs(1, b"\x01a\xff\xffx"), RecordError::Truncated),
        (xattrs(2, &[&b"\x01a\xff\xff"[..], &[0; 65_535], b"\x01b\0\0"].concat()), E::TooLarge.into()),
        (acl(129, &[1, 7].repeat(129)), E::TooManyAclEntries.into()),
        (acl(3, &[3, 7, 1, 7, 6, 7]), E::AclOrder.into()),
        (acl(3, &[1, 7, 1, 7, 6, 7]), E::AclOrder.into()),
        (acl(2, &[1, 7, 6, 7]), E::AclIncomplete.into()),
        (acl(4, &[1, 7, 2, 1, b'u', 7, 3, 7, 6, 7]), E::AclIncomplete.into()),
        (acl(3, &[1, 8, 3, 7, 6, 7]), E::Permissions.into()),
        (acl(4, &[1, 7, 2, 0, 7, 3, 7, 6, 7]), E::AccountName.into()),
        (acl(1, &[0, 7]), RecordError::Range("whom an access control list is about")),
        (acl(1, &[7, 7]), RecordError::Range("whom an access control list is about")),
    ];
    for (body, error) in cases {
        assert_eq!(decode(&body), error, "{:?}", &body[..body.len().min(40)]);
    }
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
        (proptest::option::of(any::<u64>().prop_map(FileId)), any_attributes())
            .prop_map(|(id, attributes)| Record::Attributes { id, attributes }),
    ]
}

fn any_account() -> impl Strategy<Value = AccountName> {
    proptest::collection::vec(any::<u8>(), 1..12)
        .prop_filter_map("not a name", |bytes| AccountName::parse(&bytes).ok())
}

fn any_acl() -> impl Strategy<Value = Acl> {
    let named = proptest::collection::vec((any::<bool>(), any_account(), 0..8_u8), 0..6);
    (named, proptest::array::uniform4(0..8_u8)).prop_filter_map("somebody twice", |(named, [a, b, c, d])| {
        let base = [(AclWho::Owner, a), (AclWho::Group, b), (AclWho::Mask, c), (AclWho::Other, d)];
        let named = named.into_iter().map(|(user, name, permissions)| {
            (if user { AclWho::User(name) } else { AclWho::NamedGroup(name) }, permissions)
        });
        let entry = |(who, permissions)| AclEntry::new(who, permissions).expect("0 to 7");
        Acl::new(base.into_iter().chain(named).map(entry).collect()).ok()
    })
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    use proptest::collection::vec;
    use proptest::option::of;
    let xattr = (vec(1..=255_u8, 1..20), vec(any::<u8>(), 0..300))
        .prop_map(|(name, value)| Xattr { name: XattrName::parse(&name).expect("no NUL"), value });
    (of(any_account()), of(any_account()), vec(xattr, 0..6), of(any_acl()), of(any_acl())).prop_filter_map(
        "one name twice",
        |(user, group, xattrs, access, default)| {
            Attributes::new(Owner { user, group }, xattrs, access, default).ok()
        },
    )
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
