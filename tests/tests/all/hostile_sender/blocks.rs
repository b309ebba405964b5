//! Blocks that are not what was signed (A14), and what is made of the files they were for.

use super::{honest, job, sender_of};
use sealift_proto::wire::CloseCode;
use sealift_tests::hostile::forge::{TIME, record, sha256};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, Forger, HostileSender, Job, Reply, Scene, Seen, Talk};
use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;

/// A sender of a set whose answers `reply` makes of the right ones.
fn tampering(
    job: &Job,
    segments: Vec<Vec<u8>>,
    set: DataSet,
    reply: impl Fn(u64, u32, &[u8]) -> Reply + Send + 'static,
) -> HostileSender {
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    let data = async move |talk: &mut Talk| {
        talk.serve_blocks(&set, |_, range, right| reply(range.file.0, range.first.0, right)).await
    };
    HostileSender::start(job, control, data)
}

fn altered(right: &[u8]) -> Reply {
    let mut wrong = right.to_vec();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    Reply::Blocks(wrong)
}

fn rejects(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Reject(_))).count()
}

#[test]
fn a14_a_file_whose_blocks_are_never_right_is_given_up_and_nothing_of_it_published() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    let bad = set.file("bad", "signed");
    let large = set.file("large", vec![5; (2 << 20) + 17]);
    set.file("good", "signed as well");
    set.file("good large", vec![6; 3 << 20]);
    let sender = tampering(&job, set.segments(&mut forger), set, move |file, first, right| {
        if file == bad || (file == large && first >= 32) {
            altered(right)
        } else {
            Reply::Blocks(right.into())
        }
    });
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(3);
    let seen = sender.finish();
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    scene.assert_dest_holds(&[b"good", b"good large"]);
    let mut problems = outcome.problems();
    problems.sort_unstable();
    assert_eq!(problems, ["bad", "large"]);
    assert_eq!(outcome.total("failed"), 2);
    assert_eq!(outcome.total("files"), 2);
    assert!(rejects(&seen) >= 4, "each wrong block is named before it is given up: {seen:?}");
    let finished = seen.iter().find_map(|seen| match seen {
        Seen::Finished(finished) => Some(*finished),
        _ => None,
    });
    assert_eq!(finished.expect("it says that it is done").failed, 2);
}

#[test]
fn a14_blocks_that_are_wrong_once_are_asked_for_again() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    for at in 0..5 {
        set.file(format!("f{at}"), format!("content {at}"));
    }
    set.file("large", vec![8; (5 << 20) + 1]);
    let wrong = Mutex::new(HashSet::new());
    let sender = tampering(&job, set.segments(&mut forger), set, move |file, first, right| {
        // A block is asked for again alone, a run of a large file is 32 of them.
        if wrong.lock().expect("one thread").insert((file, first / 32)) {
            altered(right)
        } else {
            Reply::Blocks(right.into())
        }
    });
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(0);
    assert_plain(&outcome);
    assert_eq!(fs::read(scene.dest().join("large")).expect("there"), vec![8; (5 << 20) + 1]);
    assert_eq!(fs::read(scene.dest().join("f3")).expect("there"), b"content 3");
    assert!(rejects(&sender.finish()) >= 5 + 6);
}

fn banned() -> (Scene, HostileSender, sealift_tests::process::Outcome) {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    for at in 0..40 {
        set.file(format!("f{at}"), format!("content {at}"));
    }
    let sender = tampering(&job, set.segments(&mut forger), set, |_, _, right| altered(right));
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(1);
    (scene, sender, outcome)
}

#[test]
fn a14_a_sender_with_too_many_wrong_blocks_is_banned() {
    let (scene, sender, outcome) = banned();
    assert_plain(&outcome);
    assert!(outcome.message().contains("too many blocks did not match what was signed"), "{outcome:#?}");
    scene.assert_outside_untouched();
    scene.assert_dest_holds(&[]);
    let seen = sender.finish();
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Finished(_))));
}

#[test]
fn a14_a_banned_sender_is_closed_with_the_code_for_it() {
    let (_scene, sender, _outcome) = banned();
    let codes: Vec<CloseCode> = sender
        .finish()
        .iter()
        .filter_map(|seen| match seen {
            Seen::Close(close) => Some(close.code),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [CloseCode::BadBlocks]);
}

#[test]
fn a14_right_blocks_under_a_wrong_root_are_not_published() {
    let (job, mut forger) = job();
    let content = vec![9; 40_000];
    let hashes = [sha256(&content[..32_768]), sha256(&content[32_768..])];
    let mut set = DataSet::default();
    // The content that answers are made of is that of the first file; the second has its blocks and another root.
    set.file("right", content.clone());
    set.file("wrong", content);
    let mut records = set.records();
    let at = records.iter().rposition(|record| record[0] == 6).expect("a seal");
    records[at] = record::sealed(1, [1; 32]);
    assert!(records.contains(&record::hashes(1, 0, &hashes)));
    let sender = honest(&job, vec![forger.segment(&records)], set);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(3);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[b"right"]);
    assert_eq!(outcome.problems(), ["wrong"]);
}

#[test]
fn a14_an_empty_file_under_a_wrong_root_is_not_published() {
    let (job, mut forger) = job();
    let records = [record::file(0, b"empty", 0o644, 0, 15), record::sealed(0, [1; 32]), record::end(1)];
    let sender = sender_of(&job, vec![forger.segment(&records)]);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(3);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[]);
}

/// A set with a file that is there in an older version, and a further name for it.
fn linked(forger: &mut Forger, withdraw: bool) -> (DataSet, Vec<Vec<u8>>) {
    let mut set = DataSet::default();
    set.file("file", "signed and new");
    set.entry(record::hardlink(set.next_id(), b"second", b"file"));
    let mut records = set.records();
    if withdraw {
        records.pop();
        records.extend([record::withdrawn(0, b"file", 2), record::end(1)]);
    }
    let segments = vec![forger.segment(&records)];
    (set, segments)
}

#[test]
fn a5_a_further_name_of_a_file_that_could_not_be_had_is_not_made_of_what_was_there() {
    for withdraw in [false, true] {
        let (job, mut forger) = job();
        let (set, segments) = linked(&mut forger, withdraw);
        let sender = tampering(&job, segments, set, |_, _, right| altered(right));
        let scene = Scene::new();
        fs::create_dir(scene.dest()).expect("there is room");
        fs::write(scene.dest().join("file"), "old, and never signed").expect("there is room");
        let outcome = scene.receive(sender.ticket()).finish().expect(3);
        assert_plain(&outcome);
        // The old version stands, as no other could be had; its further name must not pass for the new one's.
        scene.assert_dest_holds(&[b"file"]);
        assert_eq!(outcome.total("files"), 0, "{outcome:#?}");
    }
}

#[test]
fn a14_a_sender_that_refuses_blocks_loses_those_files_only() {
    use sealift_proto::wire::RangeProblem;
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    let problems = [
        RangeProblem::UnknownFile,
        RangeProblem::OutOfRange,
        RangeProblem::Unreadable,
        RangeProblem::Excessive,
    ];
    for at in 0..problems.len() {
        set.file(format!("f{at}"), format!("content {at}"));
    }
    let large = set.file("large", vec![1; 4 << 20]);
    set.file("good", vec![2; 2 << 20]);
    let sender = tampering(&job, set.segments(&mut forger), set, move |file, first, right| {
        match problems.get(usize::try_from(file).expect("few")) {
            Some(problem) => Reply::Error(*problem),
            None if file == large && first > 0 => Reply::Error(RangeProblem::Unreadable),
            None => Reply::Blocks(right.into()),
        }
    });
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(3);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[b"good"]);
    assert_eq!(outcome.total("failed"), 5);
}

#[test]
fn a9_a_file_larger_than_the_disk_fails_alone() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    set.file("small", "fits");
    // 8 TiB, of which the first block is named: enough to begin it.
    let id = set.entry(record::file(set.next_id(), b"huge", 0o644, 1 << 43, 24));
    set.record(record::hashes(id, 0, &[[1; 32]]));
    set.record(record::withdrawn(id, b"huge", 2));
    let id = set.entry(record::file(set.next_id(), b"huge too", 0o644, 1 << 43, 24));
    set.record(record::hashes(id, 0, &[[1; 32]]));
    let mut first = set.open_records().to_vec();
    first.insert(0, record::root(0o755, TIME));
    let first = forger.segment(&first);
    let last = forger.segment(&[record::withdrawn(id, b"huge too", 2), record::end(1)]);
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        talk.send_segment(&first).await?;
        // The second is begun, and fails, before it is taken back: its blocks cannot be had anyway.
        tokio::time::timeout(std::time::Duration::from_millis(500), talk.hear_out())
            .await
            .unwrap_or_default();
        talk.send_segment(&last).await?;
        talk.until_finished().await
    };
    let sender =
        HostileSender::start(&job, control, async move |talk: &mut Talk| talk.serve_honestly(&set).await);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).arg("--wait-for-space=0").finish().expect(3);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[b"small"]);
}
