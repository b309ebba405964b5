//! Fetches that ask for what is not there, too much, too often or in no order (A13, A21).

use super::{FILES, Served, content, peer};
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::limits::{
    DATA_CONNECTIONS_MAX, FETCH_RANGES_MAX, RUN_BYTES_MAX, SESSIONS_MAX, STRIKES_MAX,
};
use sealift_proto::manifest::{Record, SegmentSeq};
use sealift_proto::wire::{
    BlocksPrefix, Channel, Close, CloseCode, Credit, Finished, FrameKind, RangeProblem, Reject, Welcome,
};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::talk::range;
use sealift_tests::hostile::{HostileReceiver, Talk};
use sealift_tests::process::Sender;
use std::collections::HashMap;

/// The files of a manifest: number, name and layout.
pub(super) fn files(records: &[Record]) -> HashMap<String, (u64, Layout)> {
    let file = |record: &Record| match record {
        Record::File { id, path, layout, .. } | Record::SmallFile { id, path, layout, .. } => {
            Some((path.to_string(), (id.0, *layout)))
        }
        _ => None,
    };
    records.iter().filter_map(file).collect()
}

/// A session with its whole manifest heard.
async fn session(served: &Served) -> (HostileReceiver, Talk, [u8; 16], HashMap<String, (u64, Layout)>) {
    let mut receiver = HostileReceiver::new(served.ticket());
    let (mut control, session) = receiver.control().await;
    let records = receiver.manifest(&mut control).await.expect("it is served");
    let files = files(&records);
    assert_eq!(files.len(), FILES.len());
    (receiver, control, session, files)
}

#[test]
fn a13_what_is_not_there_is_answered_with_errors() {
    let served = Served::new();
    peer(async {
        let (receiver, _control, session, files) = session(&served).await;
        let mut data = receiver.data(session).await;
        let (blocks, empty) = (files["c-blocks"].0, files["f-empty"].0);
        let cases = [
            (range(blocks, 4, 1), RangeProblem::OutOfRange),
            (range(blocks, 3, 2), RangeProblem::OutOfRange),
            (range(blocks, 0, 0), RangeProblem::OutOfRange),
            (range(blocks, u32::MAX, u32::MAX), RangeProblem::OutOfRange),
            (range(empty, 0, 1), RangeProblem::OutOfRange),
            (range(1_000_000, 0, 1), RangeProblem::UnknownFile),
            (range(u64::MAX, 0, 1), RangeProblem::UnknownFile),
        ];
        for (request, (asked, problem)) in (1..).zip(cases) {
            data.fetch(request, &[asked]).await.expect("it listens");
            let (id, told, answer) = data.answer().await.expect("it answers");
            assert_eq!((id, told, answer), (request, asked, Err(problem)));
        }
        // And still what is there.
        let asked = [range(blocks, 3, 2), range(blocks, 3, 1)];
        data.fetch(99, &asked).await.expect("it listens");
        assert_eq!(data.answer().await.expect("it answers").2, Err(RangeProblem::OutOfRange));
        let right = content("c-blocks", 100_000)[3 * 32_768..].to_vec();
        assert_eq!(data.answer().await.expect("it answers").2, Ok(right));
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a13_one_who_keeps_asking_for_what_is_not_there_is_limited_and_then_closed() {
    let served = Served::new();
    peer(async {
        let (receiver, _control, session, _) = session(&served).await;
        let mut data = receiver.data(session).await;
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
fn a13_a_million_duplicates_are_not_answered() {
    let served = Served::new();
    peer(async {
        let (receiver, _control, session, files) = session(&served).await;
        let mut data = receiver.data(session).await;
        let twice = [range(files["g-block"].0, 0, 1); 2];
        data.fetch(1, &twice).await.expect("it listens");
        assert_eq!(data.answer().await.expect("it answers").2, Ok(content("g-block", 32_768)));
        assert_eq!(data.answer().await.expect("it answers").2, Err(RangeProblem::Excessive));
        let many = [range(files["g-block"].0, 0, 1); FETCH_RANGES_MAX];
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
fn a13_fetches_that_are_malformed_or_too_large_are_closed() {
    let served = Served::new();
    peer(async {
        let (receiver, _control, session, files) = session(&served).await;
        let large = files["a-large"].0;
        let two_runs = [range(large, 0, 32), range(large, 32, 32)];
        let mut over = vec![2, 0];
        over.extend(two_runs.iter().flat_map(|range| range.encode()));
        let count_wrong = [&[3, 0][..], &over[2..]].concat();
        let none = vec![0, 0];
        let cut = over[..over.len() - 1].to_vec();
        for (case, body) in
            [("two runs", over), ("a wrong count", count_wrong), ("no range", none), ("cut off", cut)]
        {
            let mut data = receiver.data(session).await;
            data.say(FrameKind::Fetch, 1, &body).await.expect("it listens");
            let closed = data.hear_out().await.expect("it says why");
            assert_eq!(closed.code, CloseCode::Protocol, "{case}");
        }
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a13_connections_of_one_session_are_counted() {
    let served = Served::with(&["--connections", "16"]);
    peer(async {
        let (receiver, control, session, files) = session(&served).await;
        let (mut open, mut busy) = (Vec::new(), 0);
        for _ in 0..100 {
            let mut data = receiver.data_unheard(session).await;
            let (header, body) = data.hear().await.expect("it answers");
            match header.kind {
                FrameKind::Welcome => {
                    Welcome::decode(&body).expect("a welcome");
                    open.push(data);
                }
                _ => {
                    let close = Close::decode(&body).expect("a close");
                    assert_eq!(close.code, CloseCode::Busy);
                    busy += 1;
                }
            }
        }
        assert_eq!((open.len(), busy), (16, 84));
        // The ones that are open work on.
        for (request, data) in (0..).zip(&mut open) {
            data.fetch(request, &[range(files["d-one"].0, 0, 1)]).await.expect("it listens");
            assert_eq!(data.answer().await.expect("it answers").2, Ok(content("d-one", 1)));
        }
        // One that ends makes room for one.
        drop(open.pop());
        let room = async {
            loop {
                let mut data = receiver.data_unheard(session).await;
                if data.hear().await.expect("it answers").0.kind == FrameKind::Welcome {
                    break;
                }
            }
        };
        room.await;
        drop(control);
    });
    const { assert!(16 < DATA_CONNECTIONS_MAX) };
    let _ = served.assert_unharmed();
}

#[test]
fn a13_receivers_that_take_nothing_do_not_starve_others() {
    const BYTES: usize = 32 << 20;
    let dir = tempfile::tempdir().expect("there is room");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).expect("there is room");
    std::fs::write(source.join("large"), vec![1; BYTES]).expect("there is room");
    let sender = Sender::start([&source], &[]);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let ticket = sender.ticket.clone();
        let hoarding = scope.spawn(move || {
            peer(async {
                let mut receiver = HostileReceiver::new(&ticket);
                let (mut control, session) = receiver.control().await;
                let files = files(&receiver.manifest(&mut control).await.expect("it is served"));
                let mut hoard = Vec::new();
                for _ in 0..16 {
                    let mut data = receiver.data(session).await;
                    for request in 0..24 {
                        // Another run each time, so that none is a duplicate.
                        let run = range(files["large"].0, request * 32, 32);
                        data.fetch(u64::from(request), &[run]).await.expect("it listens");
                    }
                    hoard.push(data);
                }
                ready.send(()).expect("the test waits");
                let _ = released.await;
            });
        });
        is_ready.recv().expect("it hoards");
        let outcome = sender.receive(dir.path().join("dest"), &["--retry-for", "20"]).expect(0);
        assert_eq!(outcome.total("bytes"), BYTES as u64);
        drop(release);
        hoarding.join().expect("it hoarded");
    });
    let outcome = sender.stop().expect(0);
    assert_plain(&outcome);
}

#[test]
fn a13_credit_that_goes_too_far_is_closed() {
    let served = Served::new();
    let credit = |segments| Credit { segments }.encode();
    let mut too_much = credit(1);
    // Field 1, 65: one more than may be asked for at once.
    too_much[1] = 65;
    for (case, credits, code) in [
        ("too much at once", vec![too_much], CloseCode::Protocol),
        ("too much together", vec![credit(64), credit(64), credit(64)], CloseCode::Flood),
        ("malformed", vec![vec![0xff; 9]], CloseCode::Protocol),
    ] {
        peer(async {
            let receiver = HostileReceiver::new(served.ticket());
            let (mut control, _) = receiver.control().await;
            for credit in credits {
                // It may have been closed by then.
                let _ = control.say(FrameKind::Credit, 0, &credit).await;
            }
            assert_eq!(control.hear_out().await.expect("it says why").code, code, "{case}");
        });
    }
    let _ = served.assert_unharmed();
}

#[test]
fn a13_verdicts_about_nothing_and_finishing_twice_do_no_harm() {
    let served = Served::new();
    peer(async {
        let (_receiver, mut control, _, files) = session(&served).await;
        for file in [files["a-large"].0, 1_000_000, u64::MAX] {
            for block in [0, u32::MAX] {
                let reject = Reject { file: FileId(file), block: BlockIndex(block) };
                control.say(FrameKind::Reject, 0, &reject.encode()).await.expect("it listens");
            }
        }
        let finished =
            Finished { files: u64::MAX, bytes: u64::MAX, bytes_transferred: u64::MAX, failed: u64::MAX };
        let twice = control.say(FrameKind::Finished, 0, &finished.encode()).await;
        twice.expect("it listens");
        // It may have closed by then.
        let _ = control.say(FrameKind::Finished, 0, &finished.encode()).await;
        // The second may be heard before the first is answered: then it is what ends the session.
        let closed = control.hear_out().await.expect("it says goodbye").code;
        assert!(matches!(closed, CloseCode::Done | CloseCode::Protocol), "{closed:?}");
    });
    let outcome = served.assert_unharmed();
    assert!(outcome.named("connected").count() >= 2, "{outcome:#?}");
}

#[test]
fn a13_a_count_of_failures_that_overflows_does_not_make_a_sender_panic_or_claim_success() {
    let dir = tempfile::tempdir().expect("there is room");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).expect("there is room");
    std::fs::write(source.join("file"), "content").expect("there is room");
    drop(std::os::unix::net::UnixListener::bind(source.join("socket")).expect("a socket"));
    let sender = Sender::start([&source], &["--once"]);
    peer(async {
        let mut receiver = HostileReceiver::new(&sender.ticket);
        let (mut control, _) = receiver.control().await;
        receiver.manifest(&mut control).await.expect("it is served");
        let finished = Finished { files: 0, bytes: 0, bytes_transferred: 0, failed: u64::MAX };
        control.say(FrameKind::Finished, 0, &finished.encode()).await.expect("it listens");
        control.hear_out().await;
    });
    let outcome = sender.process.finish().expect(3);
    assert_plain(&outcome);
}

#[test]
fn a13_sessions_are_counted() {
    let served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        let greeting = sealift_proto::session::hello(Channel::Control { next_segment: SegmentSeq(0) });
        let (mut open, mut busy) = (Vec::<Talk>::new(), 0);
        for number in 0..SESSIONS_MAX + 20 {
            // Who says nothing for too long is dropped.
            if number % 32 == 0 {
                for control in &mut open {
                    control.say(FrameKind::Ping, 0, &[]).await.expect("it listens");
                }
            }
            let mut control = receiver.greet(&greeting).await;
            let (header, body) = control.hear().await.expect("it answers");
            if header.kind == FrameKind::Welcome {
                open.push(control);
            } else {
                assert_eq!(Close::decode(&body).expect("a close").code, CloseCode::Busy);
                busy += 1;
            }
        }
        assert_eq!((open.len(), busy), (SESSIONS_MAX, 20));
    });
    let _ = served.assert_unharmed();
}

#[test]
fn c1_a_receiver_that_goes_silent_is_given_up() {
    let mut served = Served::new();
    peer(async {
        let receiver = HostileReceiver::new(served.ticket());
        let (mut control, session) = receiver.control().await;
        let mut data = receiver.data(session).await;
        // Half a fetch, and not a word more, not even to pings.
        data.say_raw(&[8, 0, 0, 0, 18, 0]).await.expect("it listens");
        let (told, data_ended) = tokio::join!(control.stare(), data.stare());
        assert!(told.is_err() && data_ended.is_err(), "both are over");
    });
    let gone = served.sender.process.wait_for("disconnected");
    assert!(gone["reason"].as_str().is_some_and(|reason| reason.contains("silent")), "{gone}");
    let _ = served.assert_unharmed();
}

#[test]
fn a21_payload_is_exactly_the_files_bytes_in_whatever_order_it_is_asked_for() {
    let served = Served::new();
    peer(async {
        let (receiver, _control, session, files) = session(&served).await;
        // Every run of every file, and every single block: with short last ones, and small files after large ones.
        let mut wanted: Vec<(&str, BlocksPrefix)> = Vec::new();
        for (name, _) in FILES {
            let (id, layout) = files[name];
            let blocks = layout.blocks();
            for step in [1, layout.blocks_per_run(), 3] {
                for first in (0..blocks).step_by(step as usize) {
                    wanted.push((name, range(id, first, step.min(blocks - first))));
                }
            }
        }
        let contents: HashMap<&str, Vec<u8>> =
            FILES.iter().map(|&(name, len)| (name, content(name, len))).collect();
        let right = |name: &str, asked: &BlocksPrefix| {
            let layout = files[name].1;
            let start = usize::try_from(layout.offset(asked.first)).expect("small");
            let bytes = layout.run_bytes(asked.first, asked.count).expect("within");
            contents[name][start..start + usize::try_from(bytes).expect("small")].to_vec()
        };
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(receiver.data(session).await);
        }
        let mut state = 12_345_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        for request in 0..400 {
            let data = &mut connections[next(3)];
            // Alone, or several that fit a run together.
            let mut batch: Vec<&(&str, BlocksPrefix)> = Vec::new();
            let mut bytes = 0;
            for _ in 0..1 + next(12) {
                let one = &wanted[next(wanted.len())];
                bytes += right(one.0, &one.1).len();
                let again = batch.iter().any(|b| (b.1.file, b.1.first) == (one.1.file, one.1.first));
                if again || (!batch.is_empty() && bytes > RUN_BYTES_MAX) {
                    break;
                }
                batch.push(one);
            }
            let ranges: Vec<_> = batch.iter().map(|(_, range)| *range).collect();
            data.fetch(request, &ranges).await.expect("it listens");
            for (name, asked) in batch {
                let (id, told, answer) = data.answer().await.expect("it answers");
                assert_eq!((id, told), (request, *asked));
                assert!(answer.expect("it is there") == right(name, asked), "{name} {asked:?}");
            }
        }
    });
    let _ = served.assert_unharmed();
}
