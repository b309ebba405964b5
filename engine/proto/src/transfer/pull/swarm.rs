//! A transfer from several peers: who is asked for what, and that nothing is lost.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

const SOURCE: PeerId = PeerId(0);

fn info(number: u8, kind: PeerKind, distance: Distance) -> PeerInfo {
    PeerInfo { node: NodeId([number; 16]), kind, distance, shares: Shares::ALL }
}

fn replica(number: u8) -> PeerInfo {
    info(number, PeerKind::Replica, Distance::Zone)
}

fn run(file: u64) -> Run {
    Run { file: FileId(file), first: BlockIndex(0), count: 1, bytes: 1 << 20 }
}

fn all(runs: u64) -> HaveRange {
    HaveRange::Files { first: FileId(0), count: runs }
}

/// Connection and peer of the same number.
fn meet(puller: &mut Puller, number: u8, info: PeerInfo) {
    puller.join(PeerId(number.into()), info).expect("there is room");
    puller.connect(ConnectionId(number.into()), PeerId(number.into()), 0);
}

/// A receiver of so many runs, with a source and so many replicas of its zone.
fn swarm(runs: u64, replicas: u8) -> Puller {
    let mut puller = Puller::new(16, NodeId([99; 16]), 1);
    meet(&mut puller, 0, info(0, PeerKind::Source, Distance::Zone));
    for number in 1..=replicas {
        meet(&mut puller, number, replica(number));
    }
    (0..runs).for_each(|file| puller.want(run(file)));
    puller
}

fn connection(number: u8) -> ConnectionId {
    ConnectionId(number.into())
}

/// Everything that a connection gives now, answered at once.
fn drain(puller: &mut Puller, number: u8, now_ms: u64) -> Vec<Run> {
    let mut got = Vec::new();
    while let Some(fetch) = puller.poll_fetch(connection(number), now_ms) {
        let written = vec![Outcome::Written; fetch.runs.len()];
        puller.handle_answer(connection(number), fetch.id, &written, now_ms).expect("asked");
        got.extend(fetch.runs);
    }
    got
}

#[test]
fn the_source_is_asked_for_our_part_and_for_others_when_they_do_not_bring_it() {
    let mut puller = swarm(800, 7);
    // Whoever looks at many runs at a time has to ask more than once.
    let mut now_ms = 0;
    let mut ours = Vec::new();
    while puller.wake_at(now_ms) == Some(now_ms + 1) || now_ms == 0 {
        ours.extend(drain(&mut puller, 0, now_ms));
        now_ms += 1;
    }
    assert!((60..140).contains(&ours.len()), "{} of 800 by 8", ours.len());
    assert!(ours.is_sorted_by_key(|run| run.file), "in order");
    let wake = puller.wake_at(now_ms).expect("others' turns end");
    assert!(drain(&mut puller, 0, wake - 1).is_empty());
    let second = drain(&mut puller, 0, wake);
    assert!((60..140).contains(&second.len()), "{} as second of 8", second.len());
    assert!(second.is_sorted_by_key(|run| std::cmp::Reverse(run.file)), "from the other end");
    let mut left = 800 - ours.len() - second.len();
    while let Some(wake) = puller.wake_at(now_ms) {
        left -= drain(&mut puller, 0, wake).len();
        now_ms = wake;
    }
    assert_eq!(left, 0, "whatever nobody brings");
    assert!(puller.is_idle());
}

#[test]
fn what_is_near_is_not_asked_of_the_source_or_across_an_expensive_link() {
    let mut puller = swarm(200, 1);
    meet(&mut puller, 9, info(9, PeerKind::Replica, Distance::Far));
    puller.have(PeerId(1), all(200));
    puller.have(PeerId(9), all(200));
    assert!(drain(&mut puller, 0, 0).is_empty());
    for wait in 0..10 {
        assert!(drain(&mut puller, 9, wait).is_empty());
    }
    assert_eq!(drain(&mut puller, 1, 10).len(), 200);
}

#[test]
fn what_only_another_zone_has_is_asked_for_by_one_of_ours() {
    let mut asked = 0;
    for me in 1..=4 {
        let mut puller = Puller::new(16, NodeId([me; 16]), 1);
        for other in (1..=4).filter(|other| *other != me) {
            meet(&mut puller, other, replica(other));
        }
        meet(&mut puller, 9, info(9, PeerKind::Replica, Distance::Far));
        (0..400).for_each(|file| puller.want(run(file)));
        puller.have(PeerId(9), all(400));
        asked += (0..100).map(|now| drain(&mut puller, 9, now).len()).sum::<usize>();
    }
    assert_eq!(asked, 400, "once for the zone");
}

#[test]
fn the_rarest_comes_first() {
    let mut puller = swarm(100, 4);
    puller.have(PeerId(1), all(100));
    puller.have(PeerId(2), all(90));
    puller.have(PeerId(3), all(50));
    puller.have(PeerId(4), all(50));
    let order: Vec<u64> = drain(&mut puller, 1, 0).iter().map(|run| run.file.0).collect();
    assert!(order[..10].iter().all(|file| *file >= 90), "{order:?}");
    assert!(order[10..50].iter().all(|file| (50..90).contains(file)), "{order:?}");
    assert!(!order.is_sorted() && !order[50..].is_sorted(), "otherwise at random");
}

#[test]
fn a_liar_is_banned_and_what_it_gave_asked_of_others() {
    let mut puller = swarm(100, 2);
    puller.have(PeerId(1), all(100));
    puller.have(PeerId(2), all(100));
    let mut banned = false;
    let mut now_ms = 0;
    while !banned {
        let fetch = puller.poll_fetch(connection(1), now_ms).expect("it says that it has them");
        let wrong: Vec<_> = fetch.runs.iter().map(|run| Outcome::Mismatch(vec![*run])).collect();
        for verdict in puller.handle_answer(connection(1), fetch.id, &wrong, now_ms).expect("asked") {
            match verdict {
                Verdict::Retry(PeerId(1), ..) => {}
                Verdict::Ban(PeerId(1)) => banned = true,
                other => panic!("{other:?}: what one replica gives makes nobody give up"),
            }
        }
        now_ms += 1;
    }
    assert_eq!(now_ms, u64::from(limits::PEER_MISMATCHES_MAX));
    assert_eq!(puller.join(PeerId(7), replica(1)), Err(JoinError::Banned), "by any name");
    assert_eq!(puller.poll_fetch(connection(1), now_ms), None);
    assert_eq!(drain(&mut puller, 2, now_ms).len(), 100);
    assert!(puller.is_done());
}

#[test]
fn what_a_replica_refuses_is_asked_elsewhere_and_only_all_sources_give_a_file_up() {
    let mut puller = swarm(1, 1);
    meet(&mut puller, 8, info(8, PeerKind::Source, Distance::Zone));
    puller.have(PeerId(1), all(1));
    let refused = [Outcome::Refused(RangeProblem::Changed)];
    let fetch = puller.poll_fetch(connection(1), 0).expect("it says that it has it");
    assert_eq!(puller.handle_answer(connection(1), fetch.id, &refused, 0), Ok(vec![]));
    assert_eq!(puller.poll_fetch(connection(1), 0), None, "it has not got it");
    let mut now_ms = 0;
    for (number, last) in [(0, false), (8, true)] {
        let fetch = loop {
            match puller.poll_fetch(connection(number), now_ms) {
                Some(fetch) => break fetch,
                None => now_ms = puller.wake_at(now_ms).expect("it is our turn some time"),
            }
        };
        let verdicts = puller.handle_answer(connection(number), fetch.id, &refused, now_ms).expect("asked");
        let gives_up = [Verdict::GiveUp(FileId(0), Loss::Refused(RangeProblem::Changed))];
        assert_eq!(verdicts, if last { &gives_up[..] } else { &[] });
        assert_eq!(puller.poll_fetch(connection(number), now_ms + 100_000), None, "it was asked");
    }
    assert!(puller.is_idle());
}

#[test]
fn overdue_runs_are_asked_of_others_and_the_second_answer_changes_nothing() {
    // The third run is had by nobody around, so that this is not the end.
    let mut puller = swarm(3, 2);
    puller.have(PeerId(1), all(2));
    let slow = puller.poll_fetch(connection(1), 0).expect("it has it");
    puller.have(PeerId(2), all(2));
    let overdue = puller.wake_at(0).expect("an answer may be late");
    assert_eq!(drain(&mut puller, 2, overdue - 1).len(), 1);
    assert_eq!(drain(&mut puller, 2, overdue), slow.runs);
    assert!(puller.is_cancelled(slow.runs[0].file));
    let late = puller.handle_answer(connection(1), slow.id, &[Outcome::Written], overdue);
    assert_eq!(late, Ok(vec![Verdict::Late(slow.runs[0])]));
    assert!(!puller.is_cancelled(slow.runs[0].file));
}

#[test]
fn at_the_end_a_faster_peer_repeats_a_few_fetches() {
    let mut puller = swarm(64, 2);
    puller.have(PeerId(1), all(64));
    puller.have(PeerId(2), all(64));
    // One gives 1 MiB a second, the other a hundred times that.
    let first = puller.poll_fetch(connection(1), 0).expect("it has it");
    puller.handle_answer(connection(1), first.id, &[Outcome::Written], 1000).expect("asked");
    let owed: Vec<Fetch> = std::iter::from_fn(|| puller.poll_fetch(connection(1), 1000)).collect();
    let first = puller.poll_fetch(connection(2), 1000).expect("it has it");
    puller.handle_answer(connection(2), first.id, &[Outcome::Written], 1010).expect("asked");
    let rest = drain(&mut puller, 2, 1010);
    assert_eq!(rest.len(), 62, "all, and what the slow one owes: {owed:?}");
}

#[test]
fn what_came_right_at_last_is_not_asked_for_again() {
    let mut puller = swarm(0, 2);
    let run = Run { count: 4, bytes: 4 << 15, ..run(0) };
    puller.want(run);
    puller.have(PeerId(1), all(1));
    let one = puller.poll_fetch(connection(1), 0).expect("it has it");
    puller.have(PeerId(2), all(1));
    let overdue = puller.wake_at(0).expect("an answer may be late");
    let other = puller.poll_fetch(connection(2), overdue).expect("it has it");
    let wrong = vec![Run { first: BlockIndex(2), count: 1, bytes: 1 << 15, ..run }];
    let retry = puller.handle_answer(connection(2), other.id, &[Outcome::Mismatch(wrong)], overdue);
    assert_eq!(retry, Ok(vec![Verdict::Retry(PeerId(2), FileId(0), BlockIndex(2))]));
    assert!(!puller.is_done());
    assert_eq!(puller.handle_answer(connection(1), one.id, &[Outcome::Written], overdue), Ok(vec![]));
    assert!(puller.is_idle());
}

/// Everything that is asked for, and what may be.
struct World {
    puller: Puller,
    owed: Vec<(u8, Fetch)>,
    had: Vec<BTreeSet<u64>>,
    missing: BTreeSet<u64>,
    now_ms: u64,
}

impl World {
    fn new(runs: u64, seed: u64) -> Self {
        let mut puller = Puller::new(4, NodeId([99; 16]), seed);
        for number in 0..6 {
            meet(&mut puller, number, Self::info(number));
        }
        (0..runs).for_each(|file| puller.want(run(file)));
        Self {
            puller,
            owed: Vec::new(),
            had: vec![BTreeSet::new(); 6],
            missing: (0..runs).collect(),
            now_ms: 0,
        }
    }

    fn info(number: u8) -> PeerInfo {
        let distance = if number % 3 == 2 { Distance::Far } else { Distance::Zone };
        info(number, if number == 0 { PeerKind::Source } else { PeerKind::Replica }, distance)
    }

    fn poll(&mut self, number: u8) {
        let Some(fetch) = self.puller.poll_fetch(connection(number), self.now_ms) else { return };
        for run in &fetch.runs {
            let is_owed = |(by, owed): &(u8, Fetch)| *by == number && owed.runs.contains(run);
            assert!(!self.owed.iter().any(is_owed), "asked twice of the same peer");
            assert!(self.missing.contains(&run.file.0), "asked for what is there");
            assert!(number == 0 || self.had[usize::from(number)].contains(&run.file.0), "it has not got it");
            let askers = self.owed.iter().filter(|(_, owed)| owed.runs.contains(run)).count();
            assert!(askers < limits::RUN_ASKERS_MAX);
        }
        self.owed.push((number, fetch));
    }

    fn answer(&mut self, at: usize, how: u8) {
        let (number, fetch) = self.owed.remove(at);
        let outcome = |run: &Run| match how {
            1 if number != 0 => Outcome::Mismatch(vec![*run]),
            2 if number != 0 => Outcome::Refused(RangeProblem::Unreadable),
            _ => Outcome::Written,
        };
        let outcomes: Vec<_> = fetch.runs.iter().map(outcome).collect();
        let verdicts =
            self.puller.handle_answer(connection(number), fetch.id, &outcomes, self.now_ms).expect("asked");
        let late: HashSet<Run> = verdicts
            .iter()
            .filter_map(|v| if let Verdict::Late(run) = v { Some(*run) } else { None })
            .collect();
        for (run, outcome) in fetch.runs.iter().zip(&outcomes) {
            match outcome {
                Outcome::Written => {
                    assert_ne!(self.missing.remove(&run.file.0), late.contains(run), "counted once")
                }
                _ => drop(self.had[usize::from(number)].remove(&run.file.0)),
            }
        }
        assert!(!verdicts.iter().any(|verdict| matches!(verdict, Verdict::GiveUp(..))));
        if verdicts.contains(&Verdict::Ban(PeerId(number.into()))) {
            self.owed.retain(|(by, _)| *by != number);
        }
    }

    fn step(&mut self, what: u8, pick: u8) {
        let number = pick % 6;
        let peer = PeerId(number.into());
        match what {
            0 => {
                self.puller.disconnect(connection(number));
                self.owed.retain(|(by, _)| *by != number);
                self.puller.connect(connection(number), peer, self.now_ms);
            }
            1 => {
                self.puller.leave(peer);
                self.owed.retain(|(by, _)| *by != number);
                self.had[usize::from(number)].clear();
                if self.puller.join(peer, Self::info(number)).is_ok() {
                    self.puller.connect(connection(number), peer, self.now_ms);
                }
            }
            2..=3 => {
                let (first, count) = (u64::from(pick / 6), u64::from(what) * 8);
                if number != 0 {
                    self.had[usize::from(number)].extend(first..first + count);
                    self.puller.have(peer, HaveRange::Files { first: FileId(first), count });
                }
            }
            4 => self.now_ms += u64::from(pick) * 20,
            5..=8 => self.poll(number),
            _ if self.owed.is_empty() => {}
            _ => self.answer(usize::from(pick) % self.owed.len(), what - 9),
        }
    }

    /// Goes on with honest peers of these numbers until nothing is wanted.
    fn finish(&mut self, peers: &[u8]) {
        let mut rounds = 0;
        while !self.puller.is_idle() {
            for &number in peers {
                self.poll(number);
            }
            if self.owed.is_empty() {
                self.now_ms = self.puller.wake_at(self.now_ms).expect("something is to be waited for");
            } else {
                self.answer(0, 0);
            }
            rounds += 1;
            assert!(rounds < 100_000, "it ends");
        }
        assert!(self.missing.is_empty(), "nothing is lost: {:?}", self.missing);
    }
}

proptest! {
    /// Whatever peers do, every run is had while a source lives, is counted once, and asked only of those who have it.
    #[test]
    fn nothing_is_lost_while_a_source_lives(
        runs in 1..50_u64,
        seed in any::<u64>(),
        steps in proptest::collection::vec((0..12_u8, any::<u8>()), 0..300),
    ) {
        let mut world = World::new(runs, seed);
        for (what, pick) in steps {
            world.step(what, pick);
        }
        world.finish(&[0, 1, 2, 3, 4, 5]);
    }

    /// Nor when the source leaves after one copy is among the others.
    #[test]
    fn nothing_is_lost_when_the_source_leaves_a_copy_behind(
        runs in 1..50_u64,
        seed in any::<u64>(),
        steps in proptest::collection::vec((4..10_u8, any::<u8>()), 0..200),
        holder in proptest::collection::vec(1..6_u8, 50),
    ) {
        let mut world = World::new(runs, seed);
        for (what, pick) in steps {
            world.step(what, pick);
        }
        world.puller.leave(SOURCE);
        world.owed.retain(|(by, _)| *by != 0);
        for file in 0..runs {
            let number = holder[usize::try_from(file).expect("small")];
            world.had[usize::from(number)].insert(file);
            world.puller.have(PeerId(number.into()), HaveRange::Files { first: FileId(file), count: 1 });
        }
        world.finish(&[1, 2, 3, 4, 5]);
    }
}
