//! Frames that break the protocol, on control and on data connections (A15), and connections that break off.

use super::{honest, job};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::wire::{BlocksPrefix, CloseCode, FrameKind, Welcome};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::sender::Seen;
use sealift_tests::hostile::talk::{SESSION, blocks_frame, range, raw_frame};
use sealift_tests::hostile::{DataSet, HostileSender, Job, Reply, Said, Scene, Talk};
use sealift_tests::process::Outcome;
use std::time::Duration;

fn small_set() -> DataSet {
    let mut set = DataSet::default();
    set.file("a", "first");
    set.file("b", "second");
    set.file("large", vec![4; (1 << 20) + 40_000]);
    set
}

/// Says these bytes after its welcome, or in place of one.
async fn say_on(talk: &mut Talk, welcome: bool, bytes: &[u8]) -> Said<()> {
    if welcome {
        talk.welcome().await?;
    }
    talk.say_raw(bytes).await?;
    talk.hear_out().await;
    Ok(())
}

fn garbage() -> Vec<u8> {
    (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn reserved_used() -> Vec<u8> {
    let mut frame = raw_frame(7, 0, 0, &[]);
    frame[2] = 1;
    frame
}

/// What may come on no control connection of a receiver: the name, the bytes, and what is said of it.
fn broken_control_frames() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let where_none = "where none may come";
    vec![
        ("an unknown kind", raw_frame(15, 0, 0, &[]), "unknown frame kind 15"),
        ("kind 0", raw_frame(0, 0, 0, &[]), "unknown frame kind 0"),
        ("the last kind", raw_frame(0xffff, 0, 0, &[]), "unknown frame kind 65535"),
        ("a reserved field", reserved_used(), "a reserved field"),
        ("blocks", blocks_frame(1, range(0, 0, 1), b"first"), where_none),
        ("a fetch", raw_frame(8, 0, 0, &[]), where_none),
        ("credit", raw_frame(6, 0, 0, &[]), where_none),
        ("a hello", raw_frame(1, 0, 0, &[]), where_none),
        ("a second welcome", raw_frame(2, 0, 0, &[]), where_none),
        ("a finish", raw_frame(12, 0, 0, &[]), where_none),
        ("a range's error", raw_frame(10, 20, 0, &[0; 20]), where_none),
        ("a ping with a body", raw_frame(4, 1, 0, &[0]), "too long"),
        ("a long close", raw_frame(3, 4097, 0, &[0; 100]), "too long"),
        ("a malformed close", raw_frame(3, 3, 0, &[0xff; 3]), "malformed"),
        ("garbage", garbage(), "frame"),
    ]
}

fn closed_with(seen: &[Seen]) -> Option<CloseCode> {
    seen.iter().find_map(|seen| match seen {
        Seen::Close(close) => Some(close.code),
        _ => None,
    })
}

/// Checks the cases on a few threads: their processes mostly wait.
fn some_at_once<C: Send>(cases: Vec<C>, check: impl Fn(C) + Sync) {
    let cases = std::sync::Mutex::new(cases);
    let work = || {
        loop {
            let case = cases.lock().expect("nothing panics in here").pop();
            let Some(case) = case else { return };
            check(case);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
}

fn meets_on_control(bytes: Vec<u8>, welcome: bool) -> (Outcome, Vec<Seen>) {
    let (job, _) = job();
    let control = async move |talk: &mut Talk| say_on(talk, welcome, &bytes).await;
    let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish();
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    scene.assert_dest_holds(&[]);
    (outcome, sender.finish())
}

#[test]
fn a15_frames_that_may_not_come_on_a_control_connection_end_it() {
    some_at_once(broken_control_frames(), |(case, bytes, why)| {
        let (outcome, _) = meets_on_control(bytes, true);
        let message = outcome.message();
        assert_eq!(outcome.code, Some(1), "{case}: {outcome:#?}");
        assert!(message.contains("the sender cannot be trusted"), "{case}: {message}");
        assert!(message.contains(why), "{case}: {message}");
    });
}

#[test]
fn a15_a_sender_that_breaks_the_protocol_is_closed_with_the_code_for_it() {
    for (case, bytes, _) in [&broken_control_frames()[0], &broken_control_frames()[4]] {
        let (_, seen) = meets_on_control(bytes.clone(), true);
        assert_eq!(closed_with(&seen), Some(CloseCode::Protocol), "{case}: {seen:?}");
    }
}

#[test]
fn a15_a_greeting_that_is_none_ends_the_session() {
    let welcome = |version, fetches_outstanding| {
        let body = Welcome {
            version,
            session: SESSION,
            fetches_outstanding,
            snapshot: SegmentSeq(0),
            member: None,
            partial: false,
        }
        .encode();
        raw_frame(2, u32::try_from(body.len()).expect("short"), 0, &body)
    };
    let mut short_session = welcome(1, 1);
    let at = short_session.iter().position(|&byte| byte == 16).expect("the session's length");
    short_session[at] = 15;
    for (case, bytes, why) in [
        ("a version that was not offered", welcome(2, 1), "a version was chosen that was not offered"),
        ("version 0", welcome(0, 1), "a version was chosen that was not offered"),
        ("the last version", welcome(u32::MAX, 1), "a version was chosen that was not offered"),
        ("no fetches", welcome(1, 0), "malformed"),
        ("a short session", short_session, "malformed"),
        ("a segment first", raw_frame(7, 0, 0, &[]), "where none may come"),
        ("a ping first", raw_frame(4, 0, 0, &[]), "where none may come"),
        ("garbage", garbage(), "frame"),
    ] {
        let (outcome, _) = meets_on_control(bytes, false);
        let message = outcome.message();
        assert_eq!(outcome.code, Some(1), "{case}: {outcome:#?}");
        assert!(message.contains(why), "{case}: {message}");
    }
}

#[test]
fn a15_a_sender_that_chooses_a_version_that_was_not_offered_is_closed_with_the_code_for_it() {
    let body = Welcome {
        version: 99,
        session: SESSION,
        fetches_outstanding: 1,
        snapshot: SegmentSeq(0),
        member: None,
        partial: false,
    }
    .encode();
    let (_, seen) =
        meets_on_control(raw_frame(2, u32::try_from(body.len()).expect("short"), 0, &body), false);
    assert_eq!(closed_with(&seen), Some(CloseCode::Version), "{seen:?}");
}

#[test]
fn a15_no_common_version_is_said_as_such() {
    let (job, _) = job();
    let control = async |talk: &mut Talk| {
        talk.close(CloseCode::Version, "only version 99 is spoken here").await?;
        talk.hang_up().await
    };
    let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
    let outcome = Scene::new().receive(sender.ticket()).finish().expect(1);
    assert!(outcome.message().contains("another version of the protocol"), "{outcome:#?}");
}

fn meets_on_data(
    job: &Job,
    forger: &mut sealift_tests::hostile::Forger,
    data: impl AsyncFn(&mut Talk) -> Said<()> + Send + 'static,
) -> (Outcome, Scene) {
    let segments = small_set().segments(forger);
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    let sender = HostileSender::start(job, control, data);
    let scene = Scene::new();
    let run = scene.receive(sender.ticket()).args(["--connections", "1"]);
    let outcome = run.finish();
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    (outcome, scene)
}

/// Makes the answer to a request for a range, of the right content.
type Forge = fn(u64, BlocksPrefix, &[u8]) -> Vec<u8>;

#[test]
fn a15_frames_that_may_not_come_on_a_data_connection_end_the_transfer() {
    let cases: [(&str, Forge, &str); 15] = [
        ("too short", |id, range, right| blocks_frame(id, range, &right[1..]), "the wrong length"),
        ("too long", |id, range, right| blocks_frame(id, range, &[right, b"x"].concat()), "the wrong length"),
        ("no payload", |id, range, _| blocks_frame(id, range, b""), "the wrong length"),
        ("another request", |id, range, right| blocks_frame(id + 1, range, right), "what was not asked"),
        (
            "another file",
            |id, asked, right| blocks_frame(id, range(asked.file.0 + 100, 0, 1), right),
            "what was not asked",
        ),
        (
            "more blocks",
            |id, asked, right| blocks_frame(id, range(asked.file.0, asked.first.0, asked.count + 1), right),
            "what was not asked",
        ),
        (
            "another block",
            |id, asked, right| blocks_frame(id, range(asked.file.0, asked.first.0 + 1, asked.count), right),
            "what was not asked",
        ),
        ("less than a prefix", |id, _, _| raw_frame(9, 8, id, &[0; 8]), "a frame of blocks without any"),
        ("17 MiB", |id, _, _| raw_frame(9, 17 << 20, id, &[0; 16]), "too long"),
        ("an unknown kind", |id, _, _| raw_frame(99, 0, id, &[]), "unknown frame kind 99"),
        ("a segment", |id, _, _| raw_frame(7, 0, id, &[]), "where none may come"),
        ("a ping", |id, _, _| raw_frame(4, 0, id, &[]), "where none may come"),
        ("a short error", |id, _, _| raw_frame(10, 16, id, &[0; 16]), "malformed"),
        (
            "an unknown error",
            |id, asked, _| raw_frame(10, 20, id, &[&asked.encode()[..], &[9, 0, 0, 0]].concat()),
            "malformed",
        ),
        ("garbage", |_, _, _| garbage(), "frame"),
    ];
    for (case, forge, why) in cases {
        let (job, mut forger) = job();
        let set = small_set();
        let data = async move |talk: &mut Talk| {
            talk.serve_blocks(&set, |id, range, right| Reply::Raw(forge(id, range, right))).await
        };
        let (outcome, scene) = meets_on_data(&job, &mut forger, data);
        let message = outcome.message();
        assert_eq!(outcome.code, Some(1), "{case}: {outcome:#?}");
        assert!(message.contains("the sender cannot be trusted"), "{case}: {message}");
        assert!(message.contains(why), "{case}: {message}");
        scene.assert_dest_holds(&[]);
    }
}

#[test]
fn a15_answers_out_of_order_twice_or_unasked_end_the_transfer() {
    for case in ["unasked", "out of order", "twice"] {
        let (job, mut forger) = job();
        let set = small_set();
        let data = async move |talk: &mut Talk| {
            talk.welcome().await?;
            if case == "unasked" {
                talk.say_raw(&blocks_frame(1, range(0, 0, 1), b"first")).await?;
            }
            loop {
                let (id, mut ranges) = talk.next_fetch().await?;
                if case == "out of order" {
                    ranges.reverse();
                }
                for range in ranges {
                    let frame = blocks_frame(id, range, set.bytes_of(range).unwrap_or_default());
                    talk.say_raw(&frame).await?;
                    if case == "twice" {
                        talk.say_raw(&frame).await?;
                    }
                }
            }
        };
        let (outcome, _scene) = meets_on_data(&job, &mut forger, data);
        assert_eq!(outcome.code, Some(1), "{case}: {outcome:#?}");
        assert!(outcome.message().contains("what was not asked"), "{case}: {}", outcome.message());
    }
}

#[test]
fn a15_a_data_connection_greeted_in_another_version_ends_the_transfer() {
    let (job, mut forger) = job();
    let (outcome, scene) = meets_on_data(&job, &mut forger, async |talk: &mut Talk| {
        talk.welcome_in(99).await?;
        talk.stare().await
    });
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.message().contains("a version that was not offered"), "{outcome:#?}");
    scene.assert_dest_holds(&[]);
}

#[test]
fn c1_frames_that_break_off_are_fetched_again_over_new_connections() {
    let (job, mut forger) = job();
    let set = small_set();
    let segments = set.segments(&mut forger);
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        if talk.nth == 0 {
            while talk.credit() == 0 {
                talk.hear().await?;
            }
            let half = &segments[0][..segments[0].len() / 2];
            let whole = u32::try_from(segments[0].len()).expect("short");
            return talk.say_raw(&raw_frame(7, whole, 0, half)).await;
        }
        talk.send_segments(&segments).await?;
        talk.until_finished().await
    };
    let serving = set.clone();
    let data = async move |talk: &mut Talk| {
        match talk.nth {
            // Half an answer.
            0 => {
                talk.welcome().await?;
                let (id, ranges) = talk.next_fetch().await?;
                let frame = blocks_frame(id, ranges[0], serving.bytes_of(ranges[0]).unwrap_or_default());
                talk.say_raw(&frame[..frame.len() - 2]).await
            }
            // Half a header.
            1 => {
                talk.welcome().await?;
                talk.next_fetch().await?;
                talk.say_raw(&[9, 0, 0]).await
            }
            // An end in order, and a session that is not known.
            2 => talk.hang_up().await,
            3 => {
                talk.close(CloseCode::UnknownSession, "").await?;
                talk.hang_up().await
            }
            _ => talk.serve_honestly(&serving).await,
        }
    };
    let sender = HostileSender::start(&job, control, data);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).patience(Duration::from_secs(60)).finish().expect(0);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[b"a", b"b", b"large"]);
    let seen = sender.finish();
    assert!(seen.iter().filter(|seen| matches!(seen, Seen::DataEnded)).count() >= 5, "{seen:?}");
}

#[test]
fn a15_pings_pongs_and_orders_that_are_allowed_do_no_harm() {
    let (job, mut forger) = job();
    let set = small_set();
    let segments = set.segments(&mut forger);
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        for id in 0..500 {
            talk.say(FrameKind::Ping, id, &[]).await?;
            talk.say(FrameKind::Pong, id, &[]).await?;
        }
        talk.send_segments(&segments).await?;
        talk.until_finished().await
    };
    let serving = set.clone();
    let sender =
        HostileSender::start(&job, control, async move |talk: &mut Talk| talk.serve_honestly(&serving).await);
    let outcome = Scene::new().receive(sender.ticket()).finish().expect(0);
    assert_eq!(outcome.total("files"), 3);
    let (job, mut forger) = super::job();
    let sender = honest(&job, set.segments(&mut forger), set);
    let _ = Scene::new().receive(sender.ticket()).finish().expect(0);
}
