//! Greetings and frames that break the protocol (A15), and connections that break off.

use super::{Served, peer};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::session::hello;
use sealift_proto::wire::{Channel, CloseCode, FrameKind, Hello};
use sealift_tests::hostile::talk::raw_frame;
use sealift_tests::hostile::{HostileReceiver, Talk};

const CONTROL: Channel = Channel::Control { next_segment: SegmentSeq(0) };

async fn closed_with(mut talk: Talk, case: &str, code: CloseCode) {
    let close = talk.hear_out().await.unwrap_or_else(|| panic!("{case}: it does not say why it closes"));
    assert_eq!(close.code, code, "{case}: {}", close.reason);
}

#[test]
fn a15_versions_from_the_future_are_closed_with_their_own_code() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        for channel in [CONTROL, Channel::Data { session: [1; 16] }] {
            for (version_min, version_max) in [(99, 99), (2, u32::MAX), (0, 0)] {
                let talk = receiver.greet(&Hello { version_min, version_max, channel, member: None }).await;
                closed_with(talk, "no common version", CloseCode::Version).await;
            }
        }
        // One that speaks ours too is welcome.
        let mut talk =
            receiver.greet(&Hello { version_min: 1, version_max: 99, channel: CONTROL, member: None }).await;
        talk.hear_until(FrameKind::Welcome).await.expect("welcomed");
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a15_greetings_that_are_none_are_closed() {
    let served = Served::new();
    let unordered = Hello { version_min: 2, version_max: 1, channel: CONTROL, member: None }.encode();
    let frame = |body: &[u8]| raw_frame(1, u32::try_from(body.len()).expect("short"), 0, body);
    let cases = [
        ("an unknown kind", raw_frame(99, 0, 0, &[])),
        ("garbage", vec![0xa5; 64]),
        ("a fetch first", raw_frame(8, 0, 0, &[])),
        ("credit first", raw_frame(6, 0, 0, &[])),
        ("a ping first", raw_frame(4, 0, 0, &[])),
        ("a welcome", raw_frame(2, 0, 0, &[])),
        ("an empty hello", frame(&[])),
        ("a malformed hello", frame(&[0xff; 20])),
        ("versions the wrong way round", frame(&unordered)),
        ("a short session", frame(&[8, 1, 16, 1, 34, 2, 7, 7])),
        ("control and data at once", frame(&[8, 1, 16, 1, 24, 0, 34, 1, 7])),
        ("a hello of 4 GiB", raw_frame(1, u32::MAX, 0, &[0; 16])),
    ];
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        for (case, bytes) in cases {
            let mut talk = receiver.dial_silently().await.expect("the key is right");
            talk.say_raw(&bytes).await.expect("it listens");
            closed_with(talk, case, CloseCode::Protocol).await;
        }
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a15_frames_that_may_not_come_are_closed_with_the_code_for_it() {
    let served = Served::new();
    let hello_frame = {
        let body = hello(CONTROL).encode();
        raw_frame(1, u32::try_from(body.len()).expect("short"), 0, &body)
    };
    let mut reserved = raw_frame(4, 0, 0, &[]);
    reserved[3] = 1;
    let everywhere = [
        ("an unknown kind", raw_frame(15, 0, 0, &[])),
        ("a reserved field", reserved),
        ("a second hello", hello_frame),
        ("a welcome", raw_frame(2, 0, 0, &[])),
        ("a segment", raw_frame(7, 4, 0, b"SLSG")),
        ("blocks", raw_frame(9, 16, 0, &[0; 16])),
        ("a range's error", raw_frame(10, 20, 0, &[0; 20])),
        ("garbage", vec![0x5a; 64]),
        ("4 GiB", raw_frame(8, u32::MAX, 0, &[0; 16])),
    ];
    let on_control = [
        ("a fetch on the control connection", raw_frame(8, 18, 1, &[1; 18])),
        ("a malformed reject", raw_frame(11, 4, 0, &[0xff; 4])),
        ("a malformed finish", raw_frame(12, 4, 0, &[0xff; 4])),
        ("a ping with a body", raw_frame(4, 1, 0, &[1])),
    ];
    let on_data = [
        ("credit on a data connection", raw_frame(6, 2, 0, &[8, 1])),
        ("a ping on a data connection", raw_frame(4, 0, 0, &[])),
        ("a finish on a data connection", raw_frame(12, 0, 0, &[])),
        ("a malformed fetch", raw_frame(8, 1, 0, &[1])),
    ];
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        for (case, bytes) in everywhere.iter().chain(&on_control) {
            let (mut control, _) = receiver.control().await;
            control.say_raw(bytes).await.expect("it listens");
            closed_with(control, case, CloseCode::Protocol).await;
        }
        let (_control, session) = receiver.control().await;
        for (case, bytes) in everywhere.iter().chain(&on_data) {
            let mut data = receiver.data(session).await;
            data.say_raw(bytes).await.expect("it listens");
            closed_with(data, case, CloseCode::Protocol).await;
        }
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a15_a_session_that_is_not_known_has_no_data_connections() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        for session in [[0; 16], [0xff; 16]] {
            let data = receiver.data_unheard(session).await;
            closed_with(data, "made up", CloseCode::UnknownSession).await;
        }
        let (mut control, session) = receiver.control().await;
        control.close(CloseCode::Done, "").await.expect("it listens");
        control.hear_out().await;
        // Its end is noticed at once, or a moment later.
        loop {
            let mut data = receiver.data_unheard(session).await;
            match data.hear().await {
                Ok((header, _)) if header.kind == FrameKind::Welcome => {}
                Ok((_, body)) => {
                    let close = sealift_proto::wire::Close::decode(&body).expect("a close");
                    assert_eq!(close.code, CloseCode::UnknownSession, "a session that is over");
                    break;
                }
                Err(error) => panic!("it says why: {error}"),
            }
        }
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a15_data_connections_end_with_their_session() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        let (control, session) = receiver.control().await;
        let mut data = receiver.data(session).await;
        drop(control);
        assert!(data.hear().await.is_err(), "it is over");
    });
    let _ = served.assert_unharmed();
}

#[test]
fn c1_frames_that_break_off_leave_the_sender_unharmed() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        let fetch = raw_frame(8, 18, 1, &[1, 0, 0, 0]);
        for _ in 0..20 {
            // Half a hello.
            let mut talk = receiver.dial_silently().await.expect("the key is right");
            talk.say_raw(&raw_frame(1, 100, 0, &[8, 1])).await.expect("it listens");
            drop(talk);
            // Half a header, and half a fetch.
            let (mut control, session) = receiver.control().await;
            let mut data = receiver.data(session).await;
            data.say_raw(&fetch).await.expect("it listens");
            let mut other = receiver.data(session).await;
            other.say_raw(&fetch[..5]).await.expect("it listens");
            other.hang_up().await.expect("it listens");
            control.say_raw(&fetch[..5]).await.expect("it listens");
        }
    });
    let _ = served.assert_unharmed();
}
