//! A receiver's side: whatever frames a sender answers with, only the run that is due is taken, and whatever becomes of
//! answers and connections, no run is lost.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::limits::{FETCH_RANGES_MAX, RUN_BYTES_MAX};
use sealift_proto::member::NodeId;
use sealift_proto::transfer::pull::{
    ConnectionId, Distance, DueAnswers, Fetch, Loss, Outcome, PeerId, PeerInfo, PeerKind, Puller, Run, Shares, Verdict,
};
use sealift_proto::wire::{BlocksPrefix, RangeProblem};
use std::collections::{BTreeMap, HashSet};

#[derive(Arbitrary, Debug)]
struct Input {
    files: Vec<(u32, u8)>,
    fetches_max: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Connect(u8),
    Disconnect(u8),
    Poll(u8),
    /// The frame that is due, or one that isn't.
    Frame {
        connection: u8,
        how: How,
    },
    Cancel(u8),
    Time(u16),
}

#[derive(Arbitrary, Debug)]
enum How {
    Written,
    Mismatch,
    Refused,
    NotWritten,
    Forged { request: u64, file: u64, first: u32, count: u32 },
}

struct Connection {
    due: DueAnswers,
    fetches: Vec<(Fetch, Vec<Outcome>)>,
}

const SOURCE: PeerId = PeerId(0);

fuzz_target!(|input: Input| {
    let mut puller = Puller::new(input.fetches_max.into(), NodeId([1; 16]), 0);
    let (kind, distance) = (PeerKind::Source, Distance::Zone);
    let source = PeerInfo { node: NodeId([0; 16]), kind, distance, shares: Shares::NONE };
    puller.join(SOURCE, source).expect("the first");
    let mut missing = HashSet::new();
    for (index, (size, log2)) in input.files.iter().take(64).enumerate() {
        let block_size = BlockSize::from_log2(15 + log2 % 10).expect("in range");
        let layout = Layout::new(u64::from(size >> (log2 % 16)) >> 4, block_size).expect("small");
        let file = FileId(index as u64);
        for run in Run::cover(file, layout, BlockIndex(0), layout.blocks()) {
            assert_eq!(layout.run_bytes(run.first, run.count), Some(run.bytes.into()));
            puller.want(run);
            missing.insert((file, run.first));
        }
    }
    let mut connections: BTreeMap<ConnectionId, Connection> = BTreeMap::new();
    let mut now_ms = 0;
    for step in input.steps {
        match step {
            Step::Connect(id) => {
                let id = ConnectionId(u32::from(id % 4));
                if !connections.contains_key(&id) {
                    puller.connect(id, SOURCE, now_ms);
                    connections.insert(id, Connection { due: DueAnswers::default(), fetches: Vec::new() });
                }
            }
            Step::Disconnect(id) => {
                let id = ConnectionId(u32::from(id % 4));
                puller.disconnect(id);
                connections.remove(&id);
            }
            Step::Poll(id) => {
                let id = ConnectionId(u32::from(id % 4));
                let Some(fetch) = puller.poll_fetch(id, now_ms) else { continue };
                let connection = connections.get_mut(&id).expect("only what is connected is asked");
                let bytes: usize = fetch.runs.iter().map(|run| run.bytes as usize).sum();
                assert!((1..=FETCH_RANGES_MAX).contains(&fetch.runs.len()));
                assert!(fetch.runs.len() == 1 || bytes <= RUN_BYTES_MAX, "the answers fit one buffer");
                connection.due.push(fetch.clone());
                connection.fetches.push((fetch, Vec::new()));
            }
            Step::Frame { connection: id, how } => {
                let id = ConnectionId(u32::from(id % 4));
                let Some(connection) = connections.get_mut(&id) else { continue };
                if let How::Forged { request, file, first, count } = how {
                    let range = BlocksPrefix { file: FileId(file), first: BlockIndex(first), count };
                    let wanted = connection
                        .fetches
                        .first()
                        .map(|(fetch, done)| (fetch.id.0, fetch.runs[done.len()].range()));
                    if wanted != Some((request, range)) {
                        assert!(connection.due.accept(request, range).is_err(), "nothing unasked is taken");
                        // The transfer ends here in the program; the state is as before.
                    }
                    continue;
                }
                let Some((fetch, done)) = connection.fetches.first_mut() else { continue };
                let run = fetch.runs[done.len()];
                let due = connection.due.accept(fetch.id.0, run.range()).expect("this is due");
                assert_eq!((due.run, due.index), (run, done.len()));
                done.push(match how {
                    How::Mismatch => Outcome::Mismatch(vec![run]),
                    How::Refused => Outcome::Refused(RangeProblem::Changed),
                    How::NotWritten => Outcome::NotWritten,
                    How::Written | How::Forged { .. } => Outcome::Written,
                });
                assert_eq!(due.last, done.len() == fetch.runs.len());
                if !due.last {
                    continue;
                }
                let (fetch, done) = connection.fetches.remove(0);
                let verdicts = puller.handle_answer(id, fetch.id, &done, now_ms).expect("asked");
                for (run, outcome) in fetch.runs.iter().zip(&done) {
                    if *outcome == Outcome::Written {
                        missing.remove(&(run.file, run.first));
                    }
                }
                for verdict in verdicts {
                    match verdict {
                        Verdict::GiveUp(file, Loss::Corrupt | Loss::Refused(_) | Loss::NotWritten) => {
                            // As the program does.
                            puller.cancel(file);
                            missing.retain(|(of, _)| *of != file);
                        }
                        Verdict::Retry(..) | Verdict::Late(_) => {}
                        Verdict::Ban(_) => return,
                    }
                }
            }
            Step::Cancel(file) => {
                let file = FileId(file.into());
                puller.cancel(file);
                missing.retain(|(of, _)| *of != file);
            }
            Step::Time(ms) => {
                now_ms += u64::from(ms);
                for id in puller.silent(now_ms) {
                    puller.disconnect(id);
                    connections.remove(&id);
                }
            }
        }
    }
    // What an honest connection then gives is all that was missing.
    for id in connections.into_keys() {
        puller.disconnect(id);
    }
    let last = ConnectionId(9);
    puller.connect(last, SOURCE, now_ms);
    while let Some(fetch) = puller.poll_fetch(last, now_ms) {
        let outcomes = vec![Outcome::Written; fetch.runs.len()];
        puller.handle_answer(last, fetch.id, &outcomes, now_ms).expect("asked");
        for run in fetch.runs {
            missing.remove(&(run.file, run.first));
        }
    }
    assert!(puller.is_idle());
    assert!(missing.is_empty(), "nothing is lost");
});
