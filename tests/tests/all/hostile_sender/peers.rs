//! Peers of a swarm that lie: what they give is had elsewhere, and they are not asked again (A14, A19).

use super::job;
use sealift_proto::block::FileId;
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::member::{Label, NodeId};
use sealift_proto::wire::{FileSpan, FrameKind, Have, Member, Peer, Peers, Welcome};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, HostileSender, Reply, SESSION, Scene, Seen, Talk};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

/// The welcome of a member.
fn welcome(node: u8, partial: bool) -> Vec<u8> {
    let member = Member { node: NodeId([node; 16]), port: 1, label: Label::default() };
    let (session, snapshot) = (SESSION, SegmentSeq(0));
    Welcome { version: 1, session, fetches_outstanding: 32, snapshot, member: Some(member), partial }.encode()
}

fn fetches(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen, Seen::Fetch(..))).count()
}

#[test]
fn a14_a_peer_that_lies_is_asked_no_more_and_all_comes_from_the_source() {
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    for at in 0..40_u8 {
        set.file(format!("f{at}"), vec![at; 200_000]);
    }
    let segments = set.segments(&mut forger);
    let set = Arc::new(set);

    // Says that it has everything, and gives nothing that is right.
    let files = set.next_id();
    let control = async move |talk: &mut Talk| {
        talk.say(FrameKind::Welcome, 0, &welcome(2, true)).await?;
        let all = FileSpan { first: FileId(0), count: u32::try_from(files).expect("few") };
        talk.say(FrameKind::Have, 0, &Have { files: vec![all], blocks: vec![] }.encode()).await?;
        talk.until_finished().await
    };
    let lies = Arc::clone(&set);
    let liar = HostileSender::start(&job, control, async move |talk: &mut Talk| {
        let wrong = |right: &[u8]| right.iter().map(|byte| !byte).collect();
        talk.serve_blocks(&lies, |_, _, right| Reply::Blocks(wrong(right))).await
    });

    // Names the liar, and gives no content before that was asked for some.
    let (named, asked) = (liar.address(), liar.log.clone());
    let control = async move |talk: &mut Talk| {
        talk.say(FrameKind::Welcome, 0, &welcome(1, false)).await?;
        let peer = Peer { node: NodeId([2; 16]), address: named };
        // And addresses at which nobody is: each is a dial, and nothing else.
        let nobody = (1..20).map(|host| Peer {
            node: NodeId([100 + host; 16]),
            address: SocketAddr::from(([127, 0, 0, host], 1)),
        });
        let peers = nobody.chain([peer]).collect();
        talk.say(FrameKind::Peers, 0, &Peers { peers }.encode()).await?;
        talk.send_segments(&segments).await?;
        talk.until_finished().await
    };
    let source = HostileSender::start(&job, control, async move |talk: &mut Talk| {
        while fetches(&asked.so_far()) == 0 {
            tokio::task::yield_now().await;
        }
        talk.serve_honestly(&set).await
    });

    let scene = Scene::new();
    let outcome = scene.receive(source.ticket()).finish().expect(0);
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    assert_eq!(outcome.total("files"), 40);
    for at in 0..40_u8 {
        let file = fs::read(scene.dest().join(format!("f{at}"))).expect("it is there");
        assert!(file == vec![at; 200_000], "{at}");
    }
    let seen = liar.finish();
    assert!(seen.iter().any(|seen| matches!(seen, Seen::Reject(_))), "it is told: {seen:?}");
    assert!(fetches(&seen) <= 40, "it is not asked again and again: {seen:?}");
    drop(source.finish());
}
