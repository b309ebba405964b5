//! Senders that go silent, or make no progress for ever (C1).

use super::job;
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::talk::{blocks_frame, raw_frame};
use sealift_tests::hostile::{DataSet, HostileSender, Scene, Talk};
use std::time::{Duration, Instant};

fn one_file() -> DataSet {
    let mut set = DataSet::default();
    set.file("f", vec![1; 2 << 20]);
    set
}

#[test]
fn c1_silence_in_the_middle_of_frames_is_given_up_after_the_dead_peer_timeout() {
    let (job, mut forger) = job();
    let set = one_file();
    let segment = forger.segment(set.open_records());
    let control = async move |talk: &mut Talk| {
        if talk.nth > 0 {
            return talk.stare().await;
        }
        talk.welcome().await?;
        talk.send_segment(&segment).await?;
        talk.say_raw(&raw_frame(7, 100_000, 0, &[0; 1000])).await?;
        talk.stare().await
    };
    let data = async move |talk: &mut Talk| {
        talk.welcome().await?;
        let (id, ranges) = talk.next_fetch().await?;
        let frame = blocks_frame(id, ranges[0], set.bytes_of(ranges[0]).unwrap_or_default());
        talk.say_raw(&frame[..frame.len() / 2]).await?;
        talk.stare().await
    };
    let sender = HostileSender::start(&job, control, data);
    let scene = Scene::new();
    let started = Instant::now();
    // A bound of the test's, not of the product's speed.
    let run = scene.receive_retrying(sender.ticket(), 5).patience(Duration::from_secs(70));
    let outcome = run.finish().expect(5);
    assert!(started.elapsed() >= Duration::from_secs(10), "a pause is not yet death");
    assert_plain(&outcome);
    scene.assert_dest_holds(&[]);
    scene.assert_outside_untouched();
}

#[test]
fn c1_data_connections_that_open_and_close_for_ever_are_given_up() {
    let (job, mut forger) = job();
    let set = one_file();
    let segments = set.segments(&mut forger);
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    let data = async |talk: &mut Talk| {
        talk.welcome().await?;
        // Long enough to be taken for a connection.
        tokio::time::timeout(Duration::from_millis(300), talk.hear_out()).await.unwrap_or_default();
        talk.hang_up().await
    };
    let sender = HostileSender::start(&job, control, data);
    let scene = Scene::new();
    let run = scene.receive_retrying(sender.ticket(), 5).patience(Duration::from_secs(40));
    let outcome = run.finish().expect(5);
    assert_plain(&outcome);
    scene.assert_dest_holds(&[]);
}
