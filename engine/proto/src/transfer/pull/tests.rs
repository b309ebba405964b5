//! A transfer from one source: what is asked for, and what follows from answers.

use super::*;
use crate::block::BlockSize;
use proptest::prelude::*;
use std::collections::HashSet;

const C1: ConnectionId = ConnectionId(1);
const C2: ConnectionId = ConnectionId(2);
const SOURCE: PeerId = PeerId(0);

/// A transfer with one source.
fn alone(fetches_max: usize) -> Puller {
    let mut puller = Puller::new(fetches_max, NodeId([1; 16]), 7);
    let (kind, distance) = (PeerKind::Source, Distance::Zone);
    let info = PeerInfo { node: NodeId([0; 16]), kind, distance, shares: Shares::NONE };
    puller.join(SOURCE, info).expect("the first");
    puller
}

fn small(file: u64, bytes: u32) -> Run {
    Run { file: FileId(file), first: BlockIndex(0), count: 1, bytes }
}

#[test]
fn many_small_files_share_a_fetch() {
    let mut puller = alone(4);
    puller.connect(C1, SOURCE, 0);
    for file in 0..1000 {
        puller.want(small(file, 100));
    }
    let sizes: Vec<_> = std::iter::from_fn(|| puller.poll_fetch(C1, 0)).map(|f| f.runs.len()).collect();
    assert_eq!(sizes, [limits::FETCH_RANGES_MAX, 1000 - limits::FETCH_RANGES_MAX]);
}

#[test]
fn a_large_file_is_cut_into_runs_of_one_mebibyte() {
    let layout = Layout::new((5 << 20) + 1, BlockSize::MIN).expect("small");
    let runs: Vec<_> = Run::cover(FileId(1), layout, BlockIndex(0), layout.blocks()).collect();
    assert_eq!(runs.len(), 6);
    assert_eq!(runs.iter().map(|run| u64::from(run.bytes)).sum::<u64>(), layout.size_bytes());
    assert_eq!(runs[5], Run { file: FileId(1), first: BlockIndex(160), count: 1, bytes: 1 });
}

#[test]
fn c1_ranges_of_a_dead_connection_are_asked_of_another() {
    let mut puller = alone(4);
    puller.connect(C1, SOURCE, 0);
    puller.connect(C2, SOURCE, 0);
    puller.want(small(1, 1 << 20));
    puller.want(small(2, 1 << 20));
    let first = puller.poll_fetch(C1, 0).expect("wanted");
    let second = puller.poll_fetch(C2, 0).expect("wanted");
    assert_eq!(puller.silent(limits::DEAD_PEER_TIMEOUT_MS - 1), []);
    puller.handle_heard(C2, 1);
    assert_eq!(puller.silent(limits::DEAD_PEER_TIMEOUT_MS), [C1]);
    assert!(puller.is_asked(C1));
    puller.disconnect(C1);
    assert!(!puller.is_asked(C1));
    let again = puller.poll_fetch(C2, 0).expect("reassigned");
    assert_eq!(again.runs, first.runs);
    for id in [second.id, again.id] {
        assert_eq!(puller.handle_answer(C2, id, &[Outcome::Written], 2), Ok(vec![]));
    }
    assert!(puller.is_idle() && !puller.is_asked(C2));
    assert_eq!(puller.handle_answer(C1, first.id, &[Outcome::Written], 3), Err(Unasked));
}

#[test]
fn a14_a_wrong_block_is_asked_for_again_then_its_file_given_up() {
    let mut puller = alone(4);
    puller.connect(C1, SOURCE, 0);
    puller.want(small(1, 100));
    let wrong = [Outcome::Mismatch(vec![small(1, 100)])];
    for _ in 1..limits::BLOCK_MISMATCHES_MAX {
        let fetch = puller.poll_fetch(C1, 0).expect("asked again");
        let verdicts = puller.handle_answer(C1, fetch.id, &wrong, 0).expect("asked");
        assert_eq!(verdicts, [Verdict::Retry(SOURCE, FileId(1), BlockIndex(0))]);
    }
    let fetch = puller.poll_fetch(C1, 0).expect("asked again");
    let verdicts = puller.handle_answer(C1, fetch.id, &wrong, 0).expect("asked");
    assert_eq!(verdicts, [Verdict::GiveUp(FileId(1), Loss::Corrupt)]);
}

#[test]
fn a14_a_peer_with_many_wrong_blocks_is_banned() {
    let mut puller = alone(4);
    puller.connect(C1, SOURCE, 0);
    for file in 0..u64::from(limits::PEER_MISMATCHES_MAX) {
        puller.want(small(file, 100));
    }
    let fetch = puller.poll_fetch(C1, 0).expect("wanted");
    let outcomes: Vec<_> = fetch.runs.iter().map(|run| Outcome::Mismatch(vec![*run])).collect();
    let verdicts = puller.handle_answer(C1, fetch.id, &outcomes, 0).expect("asked");
    assert_eq!(verdicts.last(), Some(&Verdict::Ban(SOURCE)));
}

#[test]
fn answers_out_of_order_or_unasked_are_refused() {
    let mut due = DueAnswers::default();
    due.push(Fetch { id: FetchId(7), runs: vec![small(1, 10), small(2, 10)] });
    assert_eq!(due.accept(7, small(2, 10).range()), Err(Unasked));
    assert_eq!(due.accept(8, small(1, 10).range()), Err(Unasked));
    assert!(!due.accept(7, small(1, 10).range()).expect("first").last);
    assert!(due.accept(7, small(2, 10).range()).expect("second").last);
    assert_eq!(due.accept(7, small(1, 10).range()), Err(Unasked));
}

proptest! {
    /// Whatever connections do, every run is in the end written or its file given up, and none is lost.
    #[test]
    fn nothing_is_lost_under_random_faults(
        files in 1..60_u64,
        faults in proptest::collection::vec((0..6_u8, any::<u8>()), 0..400),
    ) {
        let mut puller = alone(3);
        let mut owed: Vec<(ConnectionId, Fetch)> = Vec::new();
        let mut missing: HashSet<FileId> = (0..files).map(FileId).collect();
        for file in 0..files {
            puller.want(small(file, 1 << (10 + file % 11)));
        }
        let answer = |puller: &mut Puller, owed: &mut Vec<_>, missing: &mut HashSet<_>, at: usize, wrong: bool| {
            let (connection, fetch): (ConnectionId, Fetch) = owed.swap_remove(at);
            let outcome = |run: &Run| if wrong { Outcome::Mismatch(vec![*run]) } else { Outcome::Written };
            let outcomes: Vec<_> = fetch.runs.iter().map(outcome).collect();
            let verdicts = puller.handle_answer(connection, fetch.id, &outcomes, 0).expect("asked");
            if !wrong {
                for run in &fetch.runs {
                    assert!(missing.remove(&run.file), "written twice");
                }
            }
            for verdict in verdicts {
                if let Verdict::GiveUp(file, _) = verdict {
                    missing.remove(&file);
                }
            }
        };
        for (what, pick) in faults {
            let connection = ConnectionId(u32::from(pick) % 4);
            match what {
                0 => {
                    puller.disconnect(connection);
                    owed.retain(|(of, _)| *of != connection);
                    puller.connect(connection, SOURCE, 0);
                }
                1..=3 => owed.extend(puller.poll_fetch(connection, 0).map(|fetch| (connection, fetch))),
                _ if owed.is_empty() => {}
                _ => {
                    let at = usize::from(pick) % owed.len();
                    answer(&mut puller, &mut owed, &mut missing, at, what == 4 && pick % 8 == 0);
                }
            }
        }
        puller.connect(ConnectionId(9), SOURCE, 0);
        while !puller.is_idle() {
            owed.extend(puller.poll_fetch(ConnectionId(9), 0).map(|fetch| (ConnectionId(9), fetch)));
            answer(&mut puller, &mut owed, &mut missing, 0, false);
        }
        prop_assert!(missing.is_empty());
    }
}
