//! Round trips, cuts and mutations of every frame and message, and the documented vectors.

use super::*;
use crate::block::{BlockIndex, FileId};
use crate::limits;
use crate::manifest::SegmentSeq;
use crate::member::{Label, NodeId};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The vectors of docs/wire.md. If one changes, the protocol has changed.
#[test]
fn layouts_match_the_documented_vectors() {
    let range = BlocksPrefix { file: FileId(0x0102), first: BlockIndex(3), count: 4 };
    let header = FrameHeader::new(FrameKind::Blocks, 16 + 100, 0x0a0b);
    assert_eq!(hex(&header.encode()), "0900000074000000".to_owned() + "0b0a000000000000");
    assert_eq!(hex(&range.encode()), "0201000000000000".to_owned() + "03000000" + "04000000");
    let fetch = FetchRequest { ranges: vec![range] };
    assert_eq!(hex(&fetch.encode()), "0100".to_owned() + &hex(&range.encode()));
    let error = RangeError { range, problem: RangeProblem::Changed };
    assert_eq!(hex(&error.encode()), hex(&range.encode()) + "03000000");
    let control = Channel::Control { next_segment: SegmentSeq(5) };
    let hello = Hello { version_min: 1, version_max: 1, channel: control, member: None };
    assert_eq!(hex(&hello.encode()), "0801".to_owned() + "1001" + "1805");
    let member = Member { node: NodeId([0xdd; 16]), port: 3939, label: Label::parse("eu/dc1").unwrap() };
    let named = "2a10".to_owned() + &"dd".repeat(16) + "30e31e" + "3a0665752f646331";
    let hello = Hello { member: Some(member.clone()), ..hello };
    assert_eq!(hex(&hello.encode()), "080110011805".to_owned() + &named);
    let channel = Channel::Data { session: [0xee; 16] };
    let data = Hello { version_min: 1, version_max: 1, channel, member: None };
    assert_eq!(hex(&data.encode()), "08011001".to_owned() + "2210" + &"ee".repeat(16));
    let welcome = Welcome {
        version: 1,
        session: [0xee; 16],
        fetches_outstanding: 32,
        snapshot: SegmentSeq(3),
        member: None,
        partial: false,
    };
    let plain = "0801".to_owned() + "1210" + &"ee".repeat(16) + "18202003";
    assert_eq!(hex(&welcome.encode()), plain);
    let welcome = Welcome { member: Some(member), partial: true, ..welcome };
    assert_eq!(hex(&welcome.encode()), plain + &named + "4001");
    let span = FileSpan { first: FileId(7), count: 9 };
    let have = Have { files: vec![span], blocks: vec![range] };
    assert_eq!(
        hex(&have.encode()),
        "01000100".to_owned() + "070000000000000009000000" + &hex(&range.encode())
    );
    let address = "10.0.0.1:3939".parse().unwrap();
    let peer = Peer { node: NodeId([0xdd; 16]), address, label: Label::default() };
    let labelled = Peer { label: Label::parse("a/b").unwrap(), ..peer.clone() };
    let plain = "0a10".to_owned() + &"dd".repeat(16) + "12040a000001" + "18e31e";
    assert_eq!(hex(&Peers { peers: vec![peer] }.encode()), "0a1b".to_owned() + &plain);
    assert_eq!(hex(&Peers { peers: vec![labelled] }.encode()), "0a20".to_owned() + &plain + "2203612f62");
    let close = Close { code: CloseCode::Flood, reason: "no".into() };
    assert_eq!(hex(&close.encode()), "0803".to_owned() + "12026e6f");
    assert_eq!(hex(&Credit { segments: 8 }.encode()), "0808");
    assert_eq!(hex(&Reject { file: FileId(2), block: BlockIndex(3) }.encode()), "08021003");
    let finished = Finished { files: 1, bytes: 2, bytes_transferred: 3, failed: 4 };
    assert_eq!(hex(&finished.encode()), "0801100218032004");
}

#[test]
fn a15_refuses_unknown_kinds_reserved_bits_and_lengths_over_the_limit() {
    let header = |kind: u16, reserved: u16, len: u32| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&reserved.to_le_bytes());
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        FrameHeader::decode(&bytes)
    };
    assert_eq!(header(0, 0, 0), Err(FrameError::UnknownKind(0)));
    assert_eq!(header(15, 0, 0), Err(FrameError::UnknownKind(15)));
    assert_eq!(header(4, 1, 0), Err(FrameError::Reserved));
    assert_eq!(header(4, 0, 1), Err(FrameError::TooLong(FrameKind::Ping, 1)));
    assert_eq!(header(7, 0, u32::MAX), Err(FrameError::TooLong(FrameKind::Segment, u32::MAX)));
    assert!(header(7, 0, 1 << 20).is_ok());
}

#[test]
fn a10_credit_is_bounded() {
    assert!(Credit::decode(&Credit { segments: limits::CREDIT_SEGMENTS_MAX }.encode()).is_ok());
    assert!(Credit::decode(&Credit { segments: limits::CREDIT_SEGMENTS_MAX + 1 }.encode()).is_err());
}

#[test]
fn a20_a_close_reason_is_escaped_and_bounded() {
    let decoded = Close::decode(&Close { code: CloseCode::Busy, reason: "\x1b[2Jno\n".into() }.encode());
    assert_eq!(decoded.expect("valid").reason, "\\x1b[2Jno\\x0a");
    let long = Close { code: CloseCode::Busy, reason: "é".repeat(5000) };
    assert!(long.encode().len() < 600);
}

#[test]
fn an_empty_fetch_and_one_that_lies_about_its_count_are_refused() {
    assert!(FetchRequest::decode(&[0, 0]).is_err());
    assert!(FetchRequest::decode(&[2, 0, 1, 2, 3]).is_err());
    assert!(FetchRequest::decode(&[0xff, 0xff]).is_err());
    let mut body = vec![2, 0];
    body.extend([0; 16]);
    assert!(FetchRequest::decode(&body).is_err());
}

fn any_range() -> impl Strategy<Value = BlocksPrefix> {
    (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(file, first, count)| BlocksPrefix {
        file: FileId(file),
        first: BlockIndex(first),
        count,
    })
}

fn any_member() -> impl Strategy<Value = Option<Member>> {
    let member = (any::<[u8; 16]>(), any::<u16>(), "([a-z0-9._-]{1,9}(/[a-z0-9._-]{1,9}){0,3})?");
    prop::option::of(member.prop_map(|(node, port, label)| Member {
        node: NodeId(node),
        port,
        label: Label::parse(&label).expect("made of what a label may have"),
    }))
}

#[test]
fn spans_and_ranges_that_are_empty_or_past_the_last_number_are_refused() {
    let have =
        |files: Vec<FileSpan>, blocks: Vec<BlocksPrefix>| Have::decode(&Have { files, blocks }.encode());
    let span = |first, count| FileSpan { first: FileId(first), count };
    let range = |first, count| BlocksPrefix { file: FileId(1), first: BlockIndex(first), count };
    assert!(have(vec![span(1, 1)], vec![range(0, u32::MAX)]).is_ok());
    assert!(have(vec![span(1, 0)], vec![]).is_err());
    assert!(have(vec![span(u64::MAX, 1)], vec![]).is_err());
    assert!(have(vec![], vec![range(5, 0)]).is_err());
    assert!(have(vec![], vec![range(1, u32::MAX)]).is_err());
}

#[test]
fn a19_peers_are_bounded_and_addresses_that_nobody_has_are_left_out() {
    let labelled = |address: &str, label: &str| Peer {
        node: NodeId([1; 16]),
        address: address.parse().unwrap(),
        label: Label::parse(label).unwrap(),
    };
    let peer = |address: &str| labelled(address, "");
    let told = Peers {
        peers: [
            "10.0.0.1:1",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "10.0.0.1:0",
            "[::ffff:10.0.0.2]:2",
        ]
        .map(peer)
        .to_vec(),
    };
    let heard = Peers::decode(&told.encode()).unwrap();
    assert_eq!(heard.peers, ["10.0.0.1:1", "10.0.0.2:2"].map(peer));
    let many = |count| Peers { peers: vec![peer("[2001:db8::1]:65535"); count] };
    assert_eq!(Peers::decode(&many(1000).encode()).unwrap().peers.len(), limits::PEERS_TOLD_MAX);
    assert!(many(1000).encode().len() <= FrameKind::Peers.body_bytes_max());
    // Labels are told as far as there is room for them; all peers are.
    for bytes in [1, 12, limits::LABEL_BYTES_MAX] {
        let label = "x".repeat(bytes);
        let told = Peers { peers: vec![labelled("[2001:db8::1]:65535", &label); limits::PEERS_TOLD_MAX] };
        let body = told.encode();
        assert!(body.len() <= FrameKind::Peers.body_bytes_max(), "{}", body.len());
        let heard = Peers::decode(&body).unwrap().peers;
        assert_eq!(heard.len(), limits::PEERS_TOLD_MAX);
        assert_eq!(heard[0].label.as_str(), label);
        assert_eq!(heard.iter().all(|peer| peer.label.as_str() == label), bytes <= 12, "{bytes}");
    }
    let mut wrong = Peers { peers: vec![labelled("10.0.0.1:1", "a/b")] }.encode();
    *wrong.last_mut().unwrap() = b' ';
    assert!(Peers::decode(&wrong).is_err(), "no label");
    // By hand: one more than may be told.
    let one = many(1).encode();
    assert!(Peers::decode(&one.repeat(limits::PEERS_TOLD_MAX)).is_ok());
    assert!(Peers::decode(&one.repeat(limits::PEERS_TOLD_MAX + 1)).is_err());
}

proptest! {
    #[test]
    fn what_somebody_has_round_trips_and_cuts_are_refused(
        files in prop::collection::vec((0..u64::MAX / 2, 1..u32::MAX), 0..600),
        blocks in prop::collection::vec((any::<u64>(), 0..1_u32 << 20, 1..1_u32 << 20), 0..600),
        cut in any::<prop::sample::Index>(),
    ) {
        let files = files.into_iter().take(limits::HAVE_SPANS_MAX);
        let blocks = blocks.into_iter().take(limits::HAVE_RANGES_MAX);
        let have = Have {
            files: files.map(|(first, count)| FileSpan { first: FileId(first), count }).collect(),
            blocks: blocks
                .map(|(file, first, count)| BlocksPrefix { file: FileId(file), first: BlockIndex(first), count })
                .collect(),
        };
        let body = have.encode();
        prop_assert!(body.len() <= FrameKind::Have.body_bytes_max());
        prop_assert!(Have::decode(&body[..cut.index(body.len())]).is_err());
        prop_assert_eq!(Have::decode(&body), Ok(have));
    }

    #[test]
    fn arbitrary_headers_never_panic_and_valid_ones_round_trip(bytes in any::<[u8; 16]>(), kind in 0..16_u8) {
        let mut bytes = bytes;
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn fetches_round_trip_and_cuts_are_refused(
        ranges in proptest::collection::vec(any_range(), 1..600),
        cut in any::<prop::sample::Index>(),
    ) {
        let kept = ranges.len().min(limits::FETCH_RANGES_MAX);
        let fetch = FetchRequest { ranges: ranges[..kept].to_vec() };
        let body = fetch.encode();
        prop_assert!(body.len() <= FrameKind::Fetch.body_bytes_max());
        prop_assert!(FetchRequest::decode(&body[..cut.index(body.len())]).is_err());
        prop_assert_eq!(FetchRequest::decode(&body), Ok(fetch));
    }

    #[test]
    fn hello_round_trips(min in any::<u32>(), max in any::<u32>(), next in any::<u64>(), session in any::<[u8; 16]>(), control in any::<bool>(), member in any_member()) {
        let channel = if control { Channel::Control { next_segment: SegmentSeq(next) } } else { Channel::Data { session } };
        let hello = Hello { version_min: min.min(max), version_max: min.max(max), channel, member };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Hello::decode(&body);
        let _ = Welcome::decode(&body);
        let _ = Close::decode(&body);
        let _ = Credit::decode(&body);
        let _ = Reject::decode(&body);
        let _ = Finished::decode(&body);
        let _ = FetchRequest::decode(&body);
        let _ = Have::decode(&body);
        let _ = Peers::decode(&body);
        let _ = RangeError::decode(&body);
    }

    #[test]
    fn range_errors_round_trip(range in any_range(), code in 0..8_u32) {
        let mut body = range.encode().to_vec();
        body.extend(code.to_le_bytes());
        match RangeError::decode(&body) {
            Ok(error) => prop_assert_eq!(error.encode().to_vec(), body),
            Err(_) => prop_assert!(!(1..=6).contains(&code)),
        }
    }
}
