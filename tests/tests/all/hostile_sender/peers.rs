//! Peers of a swarm that lie: what they give is had elsewhere, and they are not asked again (A14, A19).

use super::job;
use sealift_proto::block::FileId;
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::member::{Label, NodeId};
use sealift_proto::wire::{CloseCode, FileSpan, FrameKind, Have, Member, Peer, Peers, Welcome};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, HostileSender, Reply, SESSION, Scene, Seen, Talk};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The welcome of a member.
fn welcome(node: u8, partial: bool) -> Vec<u8> {
    let member = Member { node: NodeId([node; 16]), port: 1, label: Label::default() };
    let (session, snapshot) = (SESSION, SegmentSeq(0));
    Welcome { version: 1, session, fetches_outstanding: 32, snapshot, member: Some(member), partial }.encode()
}

/// It is told what was wrong with a block. It may not hear that any more, for it is turned away then.
fn is_found_out(seen: &Seen) -> bool {
    matches!(seen, Seen::Reject(_) | Seen::DataEnded)
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

    // Names the liar, and gives no content before that was found out.
    let (named, told) = (liar.address(), liar.log.clone());
    let control = async move |talk: &mut Talk| {
        talk.say(FrameKind::Welcome, 0, &welcome(1, false)).await?;
        let peer = Peer { node: NodeId([2; 16]), address: named, label: Label::default() };
        // And addresses at which nobody is: each is a dial, and nothing else.
        let nobody = (1..20).map(|host| Peer {
            node: NodeId([100 + host; 16]),
            address: SocketAddr::from(([127, 0, 0, host], 1)),
            label: Label::default(),
        });
        let peers = nobody.chain([peer]).collect();
        talk.say(FrameKind::Peers, 0, &Peers { peers }.encode()).await?;
        talk.send_segments(&segments).await?;
        talk.until_finished().await
    };
    let source = HostileSender::start(&job, control, async move |talk: &mut Talk| {
        let told = told.clone();
        let found_out = tokio::task::spawn_blocking(move || told.wait_for("the liar's end", is_found_out));
        found_out.await.expect("it comes");
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
    assert!((1..=40).contains(&fetches(&seen)), "it is asked, and not again and again: {seen:?}");
    drop(source.finish());
}

/// How a receiver that serves in the place of the source may end it.
#[derive(Clone, Copy, Debug)]
enum LastWord {
    /// What no member may say.
    Nonsense,
    /// It is stopped.
    Stops,
    /// On a data connection, what no member may say.
    NonsenseInData,
}

#[test]
fn a14_whoever_serves_in_the_place_of_the_source_cannot_end_the_transfer() {
    for last_word in [LastWord::Nonsense, LastWord::Stops, LastWord::NonsenseInData] {
        let (job, mut forger) = job();
        let mut set = DataSet::default();
        set.file("file", vec![7; 200_000]);
        let segments = set.segments(&mut forger);
        let files = set.next_id();
        let set = Arc::new(set);
        // The first session is that of another receiver, those after it are the source's.
        let sessions = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sessions);
        let control = async move |talk: &mut Talk| {
            let is_member = counted.fetch_add(1, Ordering::Relaxed) == 0;
            talk.say(FrameKind::Welcome, 0, &welcome(if is_member { 2 } else { 1 }, is_member)).await?;
            if is_member {
                let all = FileSpan { first: FileId(0), count: u32::try_from(files).expect("few") };
                talk.say(FrameKind::Have, 0, &Have { files: vec![all], blocks: vec![] }.encode()).await?;
                match last_word {
                    LastWord::Nonsense => talk.say(FrameKind::Fetch, 0, b"nonsense").await?,
                    LastWord::Stops => talk.close(CloseCode::ShuttingDown, "").await?,
                    LastWord::NonsenseInData => {}
                }
            }
            talk.send_segments(&segments).await?;
            talk.until_finished().await
        };
        let data = async move |talk: &mut Talk| {
            if sessions.load(Ordering::Relaxed) == 1 {
                talk.say(FrameKind::Welcome, 0, &welcome(2, true)).await?;
                talk.say(FrameKind::Fetch, 0, b"nonsense").await?;
            }
            talk.serve_honestly(&set).await
        };
        let source = HostileSender::start(&job, control, data);
        let scene = Scene::new();
        let outcome = scene.receive(source.ticket()).finish().expect(0);
        assert_plain(&outcome);
        assert_eq!(
            fs::read(scene.dest().join("file")).expect("it is there"),
            vec![7; 200_000],
            "{last_word:?}"
        );
        drop(source.finish());
    }
}
