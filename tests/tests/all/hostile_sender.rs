//! A real receiver, as a process, against senders that hold the job's keys and lie (hazards A1–A12, A14, A15, A20, C1).

mod blocks;
mod frames;
mod links;
mod manifest;
mod memory;
mod names;
mod peers;
mod quic;
mod silence;

use sealift_proto::digest::HashAlgorithm;
use sealift_proto::wire::CloseCode;
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, Forger, HostileSender, Job, Scene, Seen, Talk};
use sealift_tests::process::Outcome;
use std::fs;

/// A job and the beginning of its chain.
fn job() -> (Job, Forger) {
    let job = Job::random();
    (job, Forger::new(&job, HashAlgorithm::Sha256))
}

/// A sender of these segments, whose data connections never answer.
fn sender_of(job: &Job, segments: Vec<Vec<u8>>) -> HostileSender {
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    HostileSender::start(job, control, async |talk: &mut Talk| {
        talk.welcome().await?;
        talk.stare().await
    })
}

/// A sender of a data set that is served as it should be.
fn honest(job: &Job, segments: Vec<Vec<u8>>, set: DataSet) -> HostileSender {
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    HostileSender::start(job, control, async move |talk: &mut Talk| talk.serve_honestly(&set).await)
}

/// Lets a receiver meet these segments, and checks that it refuses them and touches nothing.
fn refused(case: &str, job: &Job, segments: Vec<Vec<u8>>) -> Outcome {
    refused_with(case, job, segments, &[])
}

/// The same, where the segments before the bad one left `left` at the destination.
fn refused_with(case: &str, job: &Job, segments: Vec<Vec<u8>>, left: &[&[u8]]) -> Outcome {
    let scene = Scene::new();
    fs::create_dir(scene.dest()).expect("there is room");
    fs::write(scene.dest().join("mine"), "stays").expect("there is room");
    let sender = sender_of(job, segments);
    let outcome = scene.receive(sender.ticket()).finish();
    let seen = sender.finish();
    assert_plain(&outcome);
    let message = outcome.message();
    assert_eq!(outcome.code, Some(1), "{case}: {outcome:#?}");
    assert!(message.contains("the sender cannot be trusted"), "{case}: {message}");
    let code = seen.iter().find_map(|seen| match seen {
        Seen::Close(close) => Some(close.code),
        _ => None,
    });
    assert_eq!(code, Some(CloseCode::BadManifest), "{case}: the sender is told why: {seen:?}");
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Finished(_))), "{case}: {seen:?}");
    scene.assert_outside_untouched();
    let mut holds: Vec<&[u8]> = vec![b"mine"];
    holds.extend(left);
    scene.assert_dest_holds(&holds);
    assert_eq!(fs::read(scene.dest().join("mine")).expect("there"), b"stays", "{case}");
    outcome
}
