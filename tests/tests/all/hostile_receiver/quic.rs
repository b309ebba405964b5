//! Requests that ask for what is not there, and strangers at the door, over QUIC (A13, A16).

use super::requests::files;
use super::{FILES, Served, assert_complete, content, peer};
use sealift_net::Carrier;
use sealift_proto::limits::{FETCH_RANGES_MAX, HANDSHAKE_TIMEOUT_MS, STRIKES_MAX};
use sealift_proto::wire::{CloseCode, RangeProblem};
use sealift_tests::hostile::talk::range;
use sealift_tests::hostile::{HostileReceiver, Talk};
use sealift_tests::process::Receive;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// A data connection of a session whose manifest was heard, with its control connection, and the number of a file.
async fn data(served: &Served, file: &str) -> (HostileReceiver, Talk, Talk, u64) {
    let mut receiver = HostileReceiver::over(served.ticket(), Carrier::Quic);
    let (mut control, session) = receiver.control().await;
    let records = receiver.manifest(&mut control).await.expect("it is served");
    let data = receiver.data(session).await;
    (receiver, control, data, files(&records)[file].0)
}

#[test]
fn a13_what_is_not_there_is_answered_with_errors_over_quic() {
    let served = Served::new();
    peer(async {
        let (_receiver, _control, mut data, blocks) = data(&served, "c-blocks").await;
        let cases = [
            (range(blocks, 4, 1), RangeProblem::OutOfRange),
            (range(blocks, u32::MAX, u32::MAX), RangeProblem::OutOfRange),
            (range(u64::MAX, 0, 1), RangeProblem::UnknownFile),
        ];
        for (request, (asked, problem)) in (1..).zip(cases) {
            data.fetch(request, &[asked]).await.expect("it listens");
            assert_eq!(data.answer().await.expect("it answers"), (request, asked, Err(problem)));
        }
        data.fetch(99, &[range(blocks, 3, 1)]).await.expect("it listens");
        let right = content("c-blocks", 100_000)[3 * 32_768..].to_vec();
        assert_eq!(data.answer().await.expect("it answers").2, Ok(right));
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a13_one_who_keeps_asking_for_what_is_not_there_is_limited_and_then_closed_over_quic() {
    let served = Served::new();
    peer(async {
        let (_receiver, _control, mut data, _) = data(&served, "d-one").await;
        let mut answered = 0;
        loop {
            let sent = data.fetch(u64::from(answered), &[range(1000 + u64::from(answered), 0, 1)]).await;
            if sent.is_err() || data.answer().await.is_err() {
                break;
            }
            answered += 1;
            assert!(answered <= STRIKES_MAX, "it is closed");
        }
        assert_eq!(answered, STRIKES_MAX);
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a13_a_million_duplicates_are_not_answered_over_quic() {
    let served = Served::new();
    peer(async {
        let (_receiver, _control, mut data, block) = data(&served, "g-block").await;
        data.fetch(1, &[range(block, 0, 1); 2]).await.expect("it listens");
        assert_eq!(data.answer().await.expect("it answers").2, Ok(content("g-block", 32_768)));
        assert_eq!(data.answer().await.expect("it answers").2, Err(RangeProblem::Excessive));
        let many = [range(block, 0, 1); FETCH_RANGES_MAX];
        for request in 2..4 {
            // It may have been closed by then.
            let _ = data.fetch(request, &many).await;
        }
        let closed = data.hear_out().await.expect("it says why");
        assert_eq!(closed.code, CloseCode::Flood);
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a16_one_who_shows_the_key_and_says_nothing_more_is_cut_at_the_deadline_over_quic() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::over(served.ticket(), Carrier::Quic);
        let started = Instant::now();
        let mut silent = receiver.dial_silently().await.expect("the key is right");
        // The stream shows by the beginning of a frame, which never ends.
        silent.say_raw(&[1]).await.expect("it listens");
        let limit = Duration::from_millis(HANDSHAKE_TIMEOUT_MS) + Duration::from_secs(8);
        let cut = tokio::time::timeout(limit, silent.hear_out()).await;
        assert!(cut.is_ok(), "it is cut");
        assert!(started.elapsed() >= Duration::from_millis(HANDSHAKE_TIMEOUT_MS / 2), "not at once");
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a16_a_crowd_of_idle_connections_harms_neither_a_running_session_nor_a_new_one_over_quic() {
    let served = Served::new();
    let address = served.sender.address();
    peer(async {
        let mut receiver = HostileReceiver::over(served.ticket(), Carrier::Quic);
        let (mut control, _) = receiver.control().await;
        // What has the key and says nothing, each over a connection of its own,
        let mut idle = Vec::new();
        for _ in 0..150 {
            let other = HostileReceiver::over(served.ticket(), Carrier::Quic);
            // When there are too many, the oldest are cut, and the newest may be.
            if let Ok(talk) = other.dial_silently().await {
                idle.push((other, talk));
            }
        }
        assert!(idle.len() >= 100, "{}", idle.len());
        // and what has none: first packets of connections that come to nothing, and what is no packet.
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let mut packet = [0_u8; 1200];
        for number in 0..5000_u32 {
            packet[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
            packet[6..10].copy_from_slice(&number.to_le_bytes());
            let bytes = if number % 2 == 0 { &packet[..] } else { &packet[6..40] };
            stranger.send_to(bytes, address).expect("it is sent");
        }
        receiver.manifest(&mut control).await.expect("a running session goes on");
        let ticket = served.ticket().to_owned();
        let honest = std::thread::spawn(move || {
            let dest = tempfile::tempdir().expect("there is room");
            let args = ["--transport=quic", "--retry-for=20"];
            let outcome = Receive::run(&ticket, dest.path(), &args).expect(0);
            assert_eq!(outcome.total("files"), FILES.len() as u64);
            assert_complete(dest.path());
        });
        honest.join().expect("an honest receiver is served");
    });
    let _ = served.assert_unharmed();
}
