//! What a sender may make a receiver remember (A10).

use super::job;
use sealift_proto::limits::{FILE_BLOCKS_MAX, FILE_BYTES_MAX, MANIFEST_OPEN_FILES_MAX, RECORD_HASHES_MAX};
use sealift_tests::hostile::forge::{TIME, record, sha256};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::sender::Seen;
use sealift_tests::hostile::{DataSet, HostileSender, Job, Scene, Talk};
use std::time::Duration;

/// What a receiver may have resident, in bytes.
const RESIDENT_MAX: u64 = 256 << 20;

/// A sender of these segments that answers no fetch, and marks when the receiver takes no more of the manifest.
fn flood(job: &Job, segments: Vec<Vec<u8>>) -> HostileSender {
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        for segment in &segments {
            let sent = tokio::time::timeout(Duration::from_secs(4), talk.send_segment(segment)).await;
            match sent {
                Ok(sent) => sent?,
                Err(_) => break,
            }
        }
        talk.log_mark("no more is taken");
        talk.until_finished().await
    };
    HostileSender::start(job, control, async |talk: &mut Talk| {
        talk.welcome().await?;
        loop {
            talk.hear().await?;
        }
    })
}

/// The most that a receiver of these segments has resident by the time it takes no more of them.
fn resident_with(segments: Vec<Vec<u8>>, job: &Job) -> u64 {
    let scene = Scene::new();
    let sender = flood(job, segments);
    let mut victim = scene.receive(sender.ticket()).start();
    sender.wait_for("its fill", |seen| matches!(seen, Seen::Mark("no more is taken") | Seen::ControlEnded));
    let resident = victim.peak_resident_bytes();
    victim.kill();
    scene.assert_outside_untouched();
    let seen = sender.finish();
    let marked = seen.iter().any(|seen| matches!(seen, Seen::Mark(_)));
    assert!(marked, "it took them: {:?}", seen.last());
    resident
}

fn assert_bounded(resident: u64) {
    assert!(resident > 1 << 20, "it was measured");
    assert!(resident < RESIDENT_MAX, "{} MiB are resident", resident >> 20);
}

#[test]
fn a10_two_hundred_thousand_files_that_never_come_are_not_all_remembered() {
    let (job, mut forger) = job();
    let hash = sha256(b"abc");
    let records: Vec<_> = (0..200_000)
        .map(|i| record::small_file(i, format!("f{i}").as_bytes(), (0o644, TIME), 3, hash))
        .collect();
    assert_bounded(resident_with(forger.segments(&records, 1_000_000), &job));
}

#[test]
fn a10_files_of_the_largest_size_that_are_only_announced_cost_little() {
    let (job, mut forger) = job();
    let records: Vec<_> = (0..MANIFEST_OPEN_FILES_MAX as u64)
        .map(|i| record::file(i, format!("f{i}").as_bytes(), 0o644, FILE_BYTES_MAX, 24))
        .collect();
    let segments = vec![forger.segment(&records), forger.segment(&[record::problem(b"x", 1)])];
    assert_bounded(resident_with(segments, &job));
}

#[test]
fn a10_hashes_of_files_that_are_not_asked_for_yet_are_bounded() {
    let (job, mut forger) = job();
    // A file with holes is looked at only when it is sealed; until then all its hashes wait. One is as many as the
    // files that are not sealed may have together (`a10_refuses_more_hashes_of_open_files_than_are_kept` in the protocol).
    let begun = [record::file(0, b"f", 0o644, FILE_BYTES_MAX, 24), record::holes(0, &[(0, 1)])];
    let mut segments = vec![forger.segment(&begun)];
    let hashes = vec![[3; 32]; RECORD_HASHES_MAX];
    for first in (0..FILE_BLOCKS_MAX).step_by(7 * RECORD_HASHES_MAX) {
        let records: Vec<_> = (first..FILE_BLOCKS_MAX)
            .step_by(RECORD_HASHES_MAX)
            .take(7)
            .map(|at| record::hashes(0, at, &hashes))
            .collect();
        segments.push(forger.segment(&records));
    }
    assert_bounded(resident_with(segments, &job));
}

#[test]
fn a10_a_manifest_that_breaks_off_is_waited_for_and_then_given_up() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    for at in 0..100 {
        set.file(format!("f{at}"), "same");
    }
    let segment = forger.segment(set.open_records());
    let scene = Scene::new();
    let dest = scene.dest();
    let published = move || {
        let names = std::fs::read_dir(&dest).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b"f")).count()
    };
    let control = async move |talk: &mut Talk| {
        if talk.nth > 0 {
            return Ok(());
        }
        talk.welcome().await?;
        talk.send_segment(&segment).await?;
        // Not an end of the manifest: 100 files of millions.
        while talk.credit() < 7 {
            talk.hear().await?;
        }
        // Not before these 100 are there.
        let all = async {
            while published() < 100 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            _ = talk.hear_out() => {}
            () = all => {}
        }
        Ok(())
    };
    let serving = set.clone();
    let sender =
        HostileSender::start(&job, control, async move |talk: &mut Talk| talk.serve_honestly(&serving).await);
    let run = scene.receive_retrying(sender.ticket(), 5);
    let outcome = run.finish().expect(5);
    assert_plain(&outcome);
    assert_eq!(scene.dest_paths().len(), 100, "what was whole stays");
}
