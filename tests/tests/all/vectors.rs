//! The golden vectors of `docs/manifest.md`, `docs/wire.md`, `docs/discovery.md` and `docs/envelope.md`: what the pages print, what the code makes, and what a script
//! that shares no code with it computes from the pages alone are one and the same.

use super::arch::workspace;
use sealift_envelope::{BlockSealer, DataKey, Envelope, KekVersion, OwnerId, PrivateKek, Stream};
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, root};
use sealift_proto::discovery::lan::Datagram;
use sealift_proto::discovery::tracker::{Answer, Beat, Heartbeat, Request, Token, Verdict, heard};
use sealift_proto::discovery::{DiscoveryKey, Entry, Offers, Place};
use sealift_proto::keys::{RoSecret, RwSeed};
use sealift_proto::manifest::{
    AccountName, Acl, AclEntry, AclWho, Attributes, Catalog, Hole, Metadata, Mode, Owner, Problem, Record,
    SegmentSeq, SegmentWriter, WithdrawReason, Xattr, XattrName,
};
use sealift_proto::member::{Label, NodeId};
use sealift_proto::path::SafePath;
use sealift_proto::ticket::Ticket;
use sealift_proto::time::Timestamp;
use sealift_proto::wire::{
    BlocksPrefix, Channel, Close, CloseCode, Credit, FetchRequest, FileSpan, Finished, FrameHeader,
    FrameKind, Have, Hello, Member, Peer, Peers, RangeError, RangeProblem, Reject, Welcome,
};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// What the code keeps to itself. Its own tests know them, and everything below is derived from them.
const PRIVATE: [&str; 8] = [
    "session-key-seed",
    "job-tag-key",
    "discovery-key",
    "discovery-entry-key-lan-day-20000",
    "discovery-entry-key-tracker-day-20000",
    "discovery-entry",
    // Random where the code makes them; they are opened below.
    "sealed-stream",
    "envelope",
];

type Vectors = BTreeMap<String, String>;

#[test]
fn the_pages_print_what_the_code_makes() {
    let (documented, made) = (documented(), made());
    for (name, value) in &made {
        assert_eq!(documented.get(name), Some(value), "{name} as the code makes it");
    }
    let unknown: Vec<_> = documented
        .keys()
        .filter(|name| !made.contains_key(*name) && !PRIVATE.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} are documented and not checked");
    for name in PRIVATE {
        assert!(documented.contains_key(name), "{name}");
    }
}

#[test]
fn the_kept_segment_is_the_documented_one_and_a_reader_takes_it() {
    let kept = fs::read_to_string(workspace().join("engine/proto/vectors/segment.hex")).expect("the vector");
    let kept: String = kept.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(documented()["segment"], kept);
    let bytes = unhex(&kept);
    let mut catalog = Catalog::new(seed().verify_key(), None);
    assert_eq!(catalog.admit(&bytes).expect("a valid segment"), everything());
    assert!(catalog.ended());
}

#[test]
fn a_script_that_shares_no_code_computes_the_same_from_the_pages() {
    let script = workspace().join("docs/vectors.py");
    let output = match Command::new("python3").arg("-B").arg(script).output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: python3 is not here ({error})"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let computed = parse(String::from_utf8(output.stdout).expect("text").lines());
    assert_eq!(computed, documented());
}

fn documented() -> Vectors {
    let mut vectors = Vectors::new();
    for page in ["docs/manifest.md", "docs/wire.md", "docs/discovery.md", "docs/envelope.md"] {
        let page = fs::read_to_string(workspace().join(page)).expect("a page");
        let mut inside = false;
        let lines = page.lines().filter(|line| {
            if line.starts_with("```") {
                inside = *line == "```vectors";
                return false;
            }
            inside
        });
        vectors.extend(parse(lines));
    }
    vectors
}

/// A name, and then its value on indented lines.
fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Vectors {
    let mut vectors = Vectors::new();
    let mut name = String::new();
    for line in lines {
        match line.strip_prefix("  ") {
            Some(value) => vectors.get_mut(&name).expect("a name comes first").push_str(value),
            None => {
                name = line.to_owned();
                let before = vectors.insert(name.clone(), String::new());
                assert!(before.is_none(), "{name} stands there twice");
            }
        }
    }
    vectors
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn seed() -> RwSeed {
    RwSeed::new(&[7; 32])
}

/// All vectors, as the code makes them.
fn made() -> Vectors {
    let mut vectors = Vectors::new();
    keys(&mut vectors);
    frames(&mut vectors);
    discovery(&mut vectors);
    envelopes(&mut vectors);
    let hashes: Vec<_> = (0..4).map(|i| BlockHash([i; 32])).collect();
    vectors.insert("merkle-root-of-four".into(), hex(&root(HashAlgorithm::Sha256, &hashes).0));
    let mut writer = SegmentWriter::new(seed(), HashAlgorithm::Sha256);
    for record in everything() {
        writer.push(&record);
    }
    vectors.insert("segment".into(), hex(&writer.finish(1_700_000_000_000)));
    writer.push(&Record::End { entries: 4 });
    vectors.insert("segment-after-it".into(), hex(&writer.finish(1_700_000_000_000)));
    vectors
}

const DATA_KEY: [u8; 32] = [7; 32];

fn kek() -> PrivateKek {
    let file = workspace().join("control/envelope/tests/keys/a.pem");
    PrivateKek::from_pem(&fs::read_to_string(file).expect("a key for tests"), None).expect("it is one")
}

fn envelopes(vectors: &mut Vectors) {
    let key = DataKey::from_bytes(&DATA_KEY);
    let mut block = [&[0; 40][..], b"content", &[0; 16]].concat();
    BlockSealer::new(&key, b"context").seal(b"label", &mut block);
    for (name, value) in [
        ("data-key-commitment", hex(&key.commitment().0)),
        ("data-key-derived", hex(key.derive(&[b"log", b"1"]).as_bytes())),
        ("sealed-block", hex(&block)),
        ("kek-fingerprint", kek().public().fingerprint().to_string()),
    ] {
        vectors.insert(name.to_owned(), value);
    }
}

#[test]
fn the_documented_stream_and_envelope_open() {
    let documented = documented();
    let bytes = |name: &str| unhex(&documented[name]);
    let stream = Stream::new(64).expect("a length of segments");
    let key = DataKey::from_bytes(&DATA_KEY);
    let opened = stream.open_all(&key, b"place", &bytes("sealed-stream")).expect("the documented stream");
    assert_eq!(&opened[..], b"content that is long enough for three segments, by the rule of their lengths");
    let envelope = Envelope::decode(&bytes("envelope")).expect("the documented envelope");
    assert_eq!(hex(&envelope.encode()), documented["envelope"]);
    assert_eq!(envelope.keks()[0].version, KekVersion(5));
    let opened = envelope.open_for(OwnerId([1; 16]), &kek()).expect("it is wrapped to the key");
    assert_eq!(opened.as_bytes(), &DATA_KEY);
}

fn keys(vectors: &mut Vectors) {
    let (ro, verify) = (seed().ro_secret(), seed().verify_key());
    let public = ro.session_key().public();
    let ticket = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        Ticket { ro_secret: ro.clone(), verify_key: verify.clone(), addresses }.encode().to_string()
    };
    for (name, value) in [
        ("seed", hex(&[7; 32])),
        ("read-only-secret", hex(ro.as_bytes())),
        ("keepers-secret", hex(RoSecret::of_keepers(&verify).as_bytes())),
        ("session-key-public", hex(&public)),
        ("session-key-spki", "302a300506032b6570032100".to_owned() + &hex(&public)),
        ("job-tag-day-20000", hex(&ro.tag(20_000).0)),
        ("verify-key", hex(verify.as_bytes())),
        ("job-id", hex(&verify.job_id().0)),
        ("ticket", ticket(&["10.0.0.1:3939", "[2001:db8::1]:3939", "host.example:3939"])),
        ("ticket-without-addresses", ticket(&[])),
    ] {
        vectors.insert(name.into(), value);
    }
}

fn frames(vectors: &mut Vectors) {
    let mut put = |name: &str, kind, request, body: &[u8]| {
        let header = FrameHeader::new(kind, body.len(), request).encode();
        vectors.insert(name.into(), hex(&[&header[..], body].concat()));
    };
    let session = [0xee; 16];
    let hello = |channel| Hello { version_min: 1, version_max: 1, channel, member: None };
    let label = Label::parse("eu/dc1").expect("a label");
    let member = Some(Member { node: NodeId([0xdd; 16]), port: 3939, label });
    let range = BlocksPrefix { file: FileId(0x0102), first: BlockIndex(3), count: 4 };
    let range_error = RangeError { range, problem: RangeProblem::Changed };
    let finished = Finished { files: 1, bytes: 2, bytes_transferred: 3, failed: 4 };
    let close = |code, reason: &str| Close { code, reason: reason.into() }.encode();
    use FrameKind as K;
    let control = Channel::Control { next_segment: SegmentSeq(5) };
    put("hello-control", K::Hello, 0, &hello(control).encode());
    put("hello-data", K::Hello, 0, &hello(Channel::Data { session }).encode());
    put("hello-member", K::Hello, 0, &Hello { member: member.clone(), ..hello(control) }.encode());
    let snapshot = SegmentSeq(3);
    let welcome =
        Welcome { version: 1, session, fetches_outstanding: 32, snapshot, member: None, partial: false };
    put("welcome", K::Welcome, 0, &welcome.encode());
    put("welcome-partial", K::Welcome, 0, &Welcome { member, partial: true, ..welcome }.encode());
    let span = FileSpan { first: FileId(7), count: 9 };
    put("have", K::Have, 0, &Have { files: vec![span], blocks: vec![range] }.encode());
    let address = "10.0.0.1:3939".parse().expect("an address");
    let peer = Peer { node: NodeId([0xdd; 16]), address, label: Label::default() };
    let labelled = Peer { label: Label::parse("eu/dc1").expect("a label"), ..peer.clone() };
    put("peers", K::Peers, 0, &Peers { peers: vec![peer] }.encode());
    put("peers-labelled", K::Peers, 0, &Peers { peers: vec![labelled] }.encode());
    put("close-flood", K::Close, 0, &close(CloseCode::Flood, "no"));
    put("close-done", K::Close, 0, &close(CloseCode::Done, ""));
    put("ping", K::Ping, 9, &[]);
    put("pong", K::Pong, 9, &[]);
    put("credit", K::Credit, 0, &Credit { segments: 8 }.encode());
    put("fetch", K::Fetch, 0x0a0b, &FetchRequest { ranges: vec![range] }.encode());
    put("range-error-changed", K::RangeError, 0x0a0b, &range_error.encode());
    put("reject", K::Reject, 0, &Reject { file: FileId(2), block: BlockIndex(3) }.encode());
    put("finished", K::Finished, 0, &finished.encode());
    let header = FrameHeader::new(K::Blocks, 16 + 100, 0x0a0b).encode();
    vectors.insert("blocks-header-and-prefix".into(), hex(&[&header[..], &range.encode()].concat()));
}

fn discovery(vectors: &mut Vectors) {
    const DAY: u64 = 20_000;
    let key = DiscoveryKey::of(&seed().ro_secret());
    let ips = ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
    let entry = Entry::listening(NodeId([1; 16]), DAY * 86_400 + 43_200, 3939, Offers::TCP, &ips);
    let [lan, tracker] = [Place::Lan, Place::Tracker].map(|place| key.day(place, DAY));
    let datagram = Datagram { tag: lan.tag(), entry: lan.seal(&entry, [9; 12]) };
    let sealed = tracker.seal(&entry, [9; 12]);
    let token = Token::new([2; 16], &[3; 32]);
    let request = Request { tag: tracker.tag(), token: Some(token.clone()), wanted: 64, entry: Some(sealed) };
    let asks = Request { token: None, entry: None, ..request.clone() };
    let answer = Answer {
        verdict: Verdict::Done,
        heartbeat_s: 60,
        again_s: 1200,
        seen: [192, 0, 2, 1].into(),
        token: Some(token.clone()),
        entries: vec![sealed],
    };
    for (name, value) in [
        ("discovery-tag-lan-day-20000", hex(&lan.tag().0)),
        ("discovery-tag-tracker-day-20000", hex(&tracker.tag().0)),
        ("lan-datagram", hex(&datagram.encode())),
        ("tracker-request", hex(&request.encode())),
        ("tracker-request-that-only-asks", hex(&asks.encode())),
        ("tracker-answer", hex(&answer.encode())),
        ("tracker-answer-too-often", hex(&Answer::too_often(30).encode())),
        ("heartbeat-alive", hex(&Heartbeat::new(Beat::Alive, &token, 7).encode())),
        ("heartbeat-leave", hex(&Heartbeat::new(Beat::Leave, &token, u64::MAX).encode())),
        ("heartbeat-answer", hex(&heard(&token, 7))),
    ] {
        vectors.insert(name.into(), value);
    }
}

/// The attributes of the segment's directory.
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

/// The attributes of the segment's root.
fn owned() -> Attributes {
    let account = |name: &str| AccountName::parse(name.as_bytes()).ok();
    let owner = Owner { user: account("alice"), group: account("staff") };
    Attributes::new(owner, vec![], None, None).expect("within the limits")
}

/// Records of every kind, as docs/manifest.md lists them.
fn everything() -> Vec<Record> {
    let path = |text: &str| SafePath::parse(text.as_bytes()).expect("safe");
    let mtime = Timestamp::new(1_700_000_000, 123_456_789).expect("in range");
    let metadata = Metadata { mode: Mode::from_bits(0o644), mtime };
    let layout = |size| Layout::new(size, BlockSize::MIN).expect("in range");
    let hashes: Vec<_> = (0..4).map(|i| BlockHash([i; 32])).collect();
    let id = FileId;
    vec![
        Record::Attributes { id: None, attributes: owned() },
        Record::Root(metadata),
        Record::Attributes { id: Some(id(0)), attributes: attributes() },
        Record::Directory { id: id(0), path: path("d"), metadata },
        Record::File { id: id(1), path: path("d/big"), metadata, layout: layout(100_000) },
        Record::Holes { id: id(1), holes: vec![Hole { offset: 4096, len: 8192 }] },
        Record::Hashes { id: id(1), first: BlockIndex(0), hashes: hashes[..3].to_vec() },
        Record::Hashes { id: id(1), first: BlockIndex(3), hashes: hashes[3..].to_vec() },
        Record::Sealed { id: id(1), root: root(HashAlgorithm::Sha256, &hashes) },
        Record::SmallFile {
            id: id(2),
            path: path("d/small"),
            metadata,
            layout: layout(5),
            hash: BlockHash([9; 32]),
        },
        Record::Symlink { id: id(3), path: path("link"), mtime, target: b"/etc".to_vec() },
        Record::Hardlink { id: id(4), path: path("d/again"), target: path("d/big") },
        Record::Withdrawn { id: id(2), path: path("d/small"), reason: WithdrawReason::Changed },
        Record::Problem { shown_path: b"d/fifo".to_vec(), problem: Problem::Special },
        Record::End { entries: 4 },
    ]
}
