//! What a manifest must carry and what it must refuse (hazards A1, A3, A5, A8–A12, C4).

mod attributes;
mod chain;
mod generated;
mod records;
mod segments;

use super::*;
use crate::block::{BlockIndex, BlockSize, FileId, Layout};
use crate::digest::{BlockHash, HashAlgorithm, root};
use crate::keys::RwSeed;
use crate::path::SafePath;
use crate::time::Timestamp;

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

/// Rewrites a field of a signed segment and signs again, as a hostile holder of the key would.
fn resigned(segment: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut message = b"sealift v1 manifest segment\0\0\0\0\0".to_vec();
    message.extend_from_slice(&segment[..segment.len() - 64]);
    message[32 + at..32 + at + bytes.len()].copy_from_slice(bytes);
    let signature = seed(7).sign(&message);
    [&message[32..], &signature].concat()
}
