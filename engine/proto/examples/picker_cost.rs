//! What the picker costs: a million runs that wait, and one peer, or sixteen that have them all.
//!
//! `cargo run --release -p sealift-proto --example picker_cost`

use sealift_proto::block::{BlockIndex, FileId};
use sealift_proto::transfer::pull::{
    ConnectionId, Distance, HaveRange, NodeId, Outcome, PeerId, PeerInfo, PeerKind, Puller, Run, Shares,
};
use std::time::{Duration, Instant};

const RUNS: u32 = 1_000_000;

fn node(number: u32) -> NodeId {
    NodeId(u128::from(number).to_le_bytes())
}

fn micros(took: Duration, times: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(times)
}

/// The source, and so many replicas that have everything, except for what only the source has.
fn measure(replicas: u32, only_source: u32) {
    let mut puller = Puller::new(16, node(99), 7);
    for number in 0..=replicas {
        let kind = if number == 0 { PeerKind::Source } else { PeerKind::Replica };
        let info = PeerInfo { node: node(number), kind, distance: Distance::Zone, shares: Shares::ALL };
        puller.join(PeerId(number), info).expect("there is room");
        puller.connect(ConnectionId(number), PeerId(number), 0);
    }
    let started = Instant::now();
    for number in 0..RUNS {
        let (file, first) = (FileId((number / 1000).into()), BlockIndex(number % 1000));
        puller.want(Run { file, first, count: 1, bytes: 1 << 20 });
    }
    let wanted = started.elapsed();
    let started = Instant::now();
    for number in 1..=replicas {
        let count = u64::from((RUNS - only_source) / 1000);
        puller.have(PeerId(number), HaveRange::Files { first: FileId(0), count });
    }
    let told = started.elapsed();
    let (mut polls, mut polled) = (0, Duration::ZERO);
    let (mut answers, mut answered) = (0, Duration::ZERO);
    let mut now_ms = 0;
    while !puller.is_done() {
        let mut fetches = Vec::new();
        for number in 0..=replicas {
            let started = Instant::now();
            let fetch = puller.poll_fetch(ConnectionId(number), now_ms);
            (polls, polled) = (polls + 1, polled + started.elapsed());
            fetches.extend(fetch.map(|fetch| (number, fetch)));
        }
        now_ms += if fetches.is_empty() { 1000 } else { 1 };
        for (number, fetch) in fetches {
            let written = vec![Outcome::Written; fetch.runs.len()];
            let started = Instant::now();
            puller.handle_answer(ConnectionId(number), fetch.id, &written, now_ms).expect("asked");
            (answers, answered) = (answers + 1, answered + started.elapsed());
        }
    }
    let each_had = (RUNS - only_source) * replicas;
    println!(
        "{replicas:2} replicas: want {:.2} us, have {:.2} us for {each_had} runs of peers, poll {:.2} us ({polls}), answer {:.2} us",
        micros(wanted, RUNS),
        micros(told, each_had.max(1)),
        micros(polled, polls),
        micros(answered, answers),
    );
}

fn main() {
    measure(0, RUNS);
    measure(16, 0);
    measure(16, RUNS);
}
