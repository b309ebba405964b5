//! Blocks that are not what was signed, over QUIC (A14).

use super::job;
use sealift_net::Transport;
use sealift_proto::wire::CloseCode;
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, HostileSender, Reply, Scene, Seen, Talk};

/// A sender of forty files, whose answers are wrong if they are of one of these; and a receiver that met it.
fn met(wrong: impl Fn(u64) -> bool + Send + 'static, code: i32) -> (Scene, Vec<Seen>) {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    for at in 0..40 {
        set.file(format!("f{at}"), format!("content {at}"));
    }
    let segments = set.segments(&mut forger);
    let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
    let data = async move |talk: &mut Talk| {
        talk.serve_blocks(&set, |_, range, right| match wrong(range.file.0) {
            true => Reply::Blocks(right.iter().map(|byte| !byte).collect()),
            false => Reply::Blocks(right.into()),
        })
        .await
    };
    let sender = HostileSender::start_over(Transport::Quic, &job, control, data);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).arg("--transport=quic").finish().expect(code);
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    let seen = sender.finish();
    (scene, seen)
}

#[test]
fn a14_what_is_never_right_is_given_up_and_the_rest_is_had_over_quic() {
    let (scene, seen) = met(|file| file == 7, 3);
    assert!(!scene.dest().join("f7").exists());
    for at in (0..40).filter(|at| *at != 7) {
        let content = std::fs::read(scene.dest().join(format!("f{at}"))).expect("it is there");
        assert_eq!(content, format!("content {at}").into_bytes());
    }
    assert!(seen.iter().any(|seen| matches!(seen, Seen::Reject(_))), "it is told: {seen:?}");
    let finished = seen.iter().find_map(|seen| match seen {
        Seen::Finished(finished) => Some(finished.failed),
        _ => None,
    });
    assert_eq!(finished, Some(1));
}

#[test]
fn a14_a_sender_with_too_many_wrong_blocks_is_banned_over_quic() {
    let (scene, seen) = met(|_| true, 1);
    scene.assert_dest_holds(&[]);
    let codes: Vec<_> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Close(close) => Some(close.code),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [CloseCode::BadBlocks]);
}
