//! A stream of bytes read as a peer's frames: headers, every message body, and the order of frames on either side.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_proto::limits::{CLOSE_REASON_BYTES_MAX, CREDIT_SEGMENTS_MAX, FRAME_HEADER_BYTES};
use sealift_proto::session::{Purpose, Role, Session, check_welcome, choose_version};
use sealift_proto::wire::{
    BlocksPrefix, Close, Credit, FetchRequest, Finished, FrameHeader, FrameKind, Have, Hello, Peers, RangeError,
    Reject, Welcome,
};

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut stream)) = input.split_first() else { return };
    let role = if first & 1 == 0 { Role::Sender } else { Role::Receiver };
    let purpose = if first & 2 == 0 { Purpose::Control } else { Purpose::Data };
    let mut session = Session::new(role, purpose);
    while let Some((header, rest)) = stream.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(frame) = FrameHeader::decode(header) else { break };
        assert_eq!(&frame.encode(), header);
        assert!(frame.body_bytes as usize <= frame.kind.body_bytes_max());
        let Some((body, rest)) = rest.split_at_checked(frame.body_bytes as usize) else {
            // What was not sent is read as far as it goes: a decoder must bear a body that is cut.
            decode(frame.kind, rest);
            break;
        };
        decode(frame.kind, body);
        if session.admit(frame.kind).is_err() {
            break;
        }
        stream = rest;
    }
    // And every decoder on the same bytes, so that none depends on luck with the header.
    for kind in KINDS {
        decode(kind, stream);
    }
});

const KINDS: [FrameKind; 11] = [
    FrameKind::Hello,
    FrameKind::Welcome,
    FrameKind::Close,
    FrameKind::Credit,
    FrameKind::Fetch,
    FrameKind::Blocks,
    FrameKind::RangeError,
    FrameKind::Reject,
    FrameKind::Finished,
    FrameKind::Have,
    FrameKind::Peers,
];

/// Reads a body; what is taken must come back the same from its own bytes.
fn decode(kind: FrameKind, body: &[u8]) {
    match kind {
        FrameKind::Hello => {
            if let Ok(hello) = Hello::decode(body) {
                assert_eq!(Hello::decode(&hello.encode()), Ok(hello.clone()));
                let _ = choose_version(&hello).map(|version| {
                    assert!((hello.version_min..=hello.version_max).contains(&version));
                });
            }
        }
        FrameKind::Welcome => {
            if let Ok(welcome) = Welcome::decode(body) {
                assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome.clone()));
                let _ = check_welcome(&welcome);
            }
        }
        FrameKind::Close => {
            if let Ok(close) = Close::decode(body) {
                assert!(!close.reason.chars().any(char::is_control));
                let encoded = close.encode();
                assert!(encoded.len() <= CLOSE_REASON_BYTES_MAX + 16);
                assert!(Close::decode(&encoded).is_ok());
            }
        }
        FrameKind::Credit => {
            if let Ok(credit) = Credit::decode(body) {
                assert!(credit.segments <= CREDIT_SEGMENTS_MAX);
                assert_eq!(Credit::decode(&credit.encode()), Ok(credit));
            }
        }
        FrameKind::Fetch => {
            if let Ok(fetch) = FetchRequest::decode(body) {
                assert_eq!(fetch.encode(), body);
            }
        }
        FrameKind::Blocks => {
            if let Some(prefix) = body.first_chunk::<16>() {
                assert_eq!(&BlocksPrefix::decode(prefix).encode(), prefix);
            }
        }
        FrameKind::RangeError => {
            if let Ok(error) = RangeError::decode(body) {
                assert_eq!(error.encode(), body);
            }
        }
        FrameKind::Reject => {
            if let Ok(reject) = Reject::decode(body) {
                assert_eq!(Reject::decode(&reject.encode()), Ok(reject));
            }
        }
        FrameKind::Finished => {
            if let Ok(finished) = Finished::decode(body) {
                assert_eq!(Finished::decode(&finished.encode()), Ok(finished));
            }
        }
        FrameKind::Have => {
            if let Ok(have) = Have::decode(body) {
                assert_eq!(have.encode(), body);
            }
        }
        FrameKind::Peers => {
            if let Ok(peers) = Peers::decode(body) {
                assert_eq!(Peers::decode(&peers.encode()), Ok(peers));
            }
        }
        FrameKind::Ping | FrameKind::Pong | FrameKind::Segment => {}
    }
}
