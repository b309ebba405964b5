//! Hazard B10: `kill -9`, again and again, of a receiver, of its sender, of both. Whatever is in place is whole at all
//! times, in the end all of it is, and no kill costs more than what was in flight and what was not synced yet.
//!
//! `SEALIFT_TEST_KILLS` says how many.
#![allow(clippy::unwrap_used)]

use crate::relay::{Fate, Piece, Relay, limited, pause};
use crate::replicate::Place;
use rustix::process::Signal;
use sealift_tests::process::{Outcome, Process, Run, Sender, ticket_via};
use sealift_tests::settings;
use sealift_tests::tree::{self, Random, SpecialModes, assert_same, assert_tidy, same_content};
use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// So much goes through the relay in a second, so that most kills land in a transfer.
const BYTES_PER_SECOND: u64 = 40 << 20;
/// What may be between the relay and the disk: the fetches that four connections may have unanswered, 16 of 1 MiB each.
/// (The receiver's buffers are fewer, those of its sockets are beside them.)
const IN_FLIGHT: u64 = 64 << 20;
/// `CHECKPOINT_INTERVAL` of the receiver: what was written to unfinished files is synced, and then remembered, that
/// often, and what is finished is published sooner.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// A kill comes within this time after the one before, each moment as likely as any other.
const LIFE_MAX: Duration = Duration::from_millis(2_200);
/// Nobody lives so long here, if all goes well.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a receiver has is known when it tells the same so often in a row, a quarter of a second apart.
const SAME_FOR: u32 = 12;

fn kills(otherwise: u64) -> u64 {
    settings::number("SEALIFT_TEST_KILLS", otherwise)
}

/// Small files, some of several megabytes, links of both kinds.
fn make(root: &Path) {
    tree::mixed(&root.join("mixed"), 250, 130);
    tree::small_files(&root.join("small"), 600, 131);
    for (number, mib) in (0..).zip([10, 13, 60, 21, 30]) {
        // In the order of names they come among the small ones.
        let name = ["a", "k", "n", "t", "z"][usize::try_from(number).unwrap()];
        tree::large_file(&root.join(name), mib * MIB + number, 132 + number);
        symlink(name, root.join(format!("link to {name}"))).unwrap();
    }
    fs::hard_link(root.join("n"), root.join("mixed/twin of a large one")).unwrap();
    fs::hard_link(root.join("small/0/000001"), root.join("twin")).unwrap();
}

/// A tree, a sender that can be killed and comes back with the same ticket and address, and a relay before it that
/// counts.
struct Scene {
    place: Place,
    relay: Relay,
    passed: Arc<AtomicU64>,
    /// Connections from this one on are data connections, which are frozen.
    frozen_from: Arc<AtomicUsize>,
    sender: Option<Sender>,
    /// Where the sender listens.
    address: SocketAddr,
    ticket: String,
    /// Of all files, each counted once.
    bytes: u64,
    destinations: usize,
    /// Files in place that were found whole: by path, and what tells them from others.
    whole: HashSet<(PathBuf, u64, i64, i64)>,
    engine: usize,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        make(&place.src);
        let sender = Self::start_sender(&place, None);
        let passed = Arc::new(AtomicU64::new(0));
        let frozen_from = Arc::new(AtomicUsize::new(usize::MAX));
        let mut limit = limited(BYTES_PER_SECOND);
        let plan = {
            let (passed, frozen_from) = (Arc::clone(&passed), Arc::clone(&frozen_from));
            move |piece: Piece| {
                if piece.down && piece.connection >= frozen_from.load(Ordering::Relaxed) {
                    return Fate::Freeze;
                }
                passed.store(piece.total_down, Ordering::Relaxed);
                limit(piece)
            }
        };
        let relay = Relay::start(sender.address(), plan);
        let (address, ticket) = (sender.address(), sender.ticket_via(relay.address()));
        Self {
            place,
            relay,
            passed,
            frozen_from,
            sender: Some(sender),
            address,
            ticket,
            bytes: 0,
            destinations: 0,
            whole: HashSet::new(),
            engine: 0,
        }
    }

    fn start_sender(place: &Place, address: Option<SocketAddr>) -> Sender {
        let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into()).to_string();
        let run = Run::with(["send", "--json", "--job", "killed", "--bind", &address]);
        let run = run.arg(&place.src).state_dir(place.dir.path().join("state of the sender"));
        Sender::of(run.patience(Duration::from_secs(3600)))
    }

    /// The next destination, and one that is counted from.
    fn next_destination(&mut self) {
        if self.place.dst.exists() {
            fs::remove_dir_all(&self.place.dst).unwrap();
        }
        self.destinations += 1;
        self.place.dst = self.place.dir.path().join(format!("dst {}", self.destinations));
        self.whole.clear();
    }

    fn receiver(&mut self) -> Process {
        self.engine += 1;
        let state = self.place.dir.path().join("state of the receiver");
        let run = Run::receive(&self.ticket, &self.place.dst).io(["uring", "threads"][self.engine % 2]);
        run.state_dir(state).patience(PATIENCE).start()
    }

    fn kill_sender(&mut self) {
        self.sender.take().unwrap().process.kill();
    }

    fn restart_sender(&mut self) {
        let sender = Self::start_sender(&self.place, Some(self.address));
        assert_eq!(ticket_via(&sender.ticket, self.relay.address()), self.ticket, "the ticket stays");
        self.sender = Some(sender);
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Checks that every file in place is one of the source, and whole.
    fn check_whole(&mut self) {
        if !self.place.dst.exists() {
            return;
        }
        for (path, entry) in tree::entries(&self.place.dst) {
            let (is, should) = (self.place.dst.join(&path), self.place.src.join(&path));
            let Ok(source) = should.symlink_metadata() else { panic!("a stray: {path:?}") };
            assert_eq!(entry.file_type(), source.file_type(), "{path:?}");
            if entry.is_symlink() {
                assert_eq!(fs::read_link(is).unwrap(), fs::read_link(should).unwrap(), "{path:?}");
            } else if entry.is_file() {
                let known = (path, entry.ino(), entry.ctime(), entry.ctime_nsec());
                if !self.whole.contains(&known) {
                    assert!(same_content(&should, &is), "half a file: {:?}", known.0);
                    self.whole.insert(known);
                }
            }
        }
    }

    fn check_finished(&mut self, outcome: Outcome) {
        let outcome = outcome.expect(0);
        assert_eq!(outcome.total("failed"), 0);
        assert_same(&self.place.src, &self.place.dst, SpecialModes::Dropped);
        assert_tidy(&self.place.dst);
    }

    /// What goes through the relay for all of it, and for a run that finds all of it.
    fn measure(&mut self) -> (u64, u64) {
        self.next_destination();
        let begin = self.passed();
        let outcome = self.receiver().finish();
        self.bytes = outcome.total("bytes");
        self.check_finished(outcome);
        let whole = self.passed() - begin;
        let outcome = self.receiver().finish();
        assert_eq!(outcome.total("bytes_transferred"), 0);
        self.check_finished(outcome);
        (whole, self.passed() - begin - whole)
    }

    /// How many bytes of the set the next receiver would not fetch again: as one says that gets no content. `None` if it
    /// needed none.
    fn bytes_here(&mut self) -> Option<u64> {
        // The first connection of a receiver is the control connection.
        self.frozen_from.store(self.relay.connections() + 1, Ordering::Relaxed);
        let mut receiver = self.receiver();
        let (mut here, mut same) = (0, 0);
        while same < SAME_FOR {
            let Some(event) = receiver.next_event() else {
                let outcome = receiver.finish();
                self.check_finished(outcome);
                self.frozen_from.store(usize::MAX, Ordering::Relaxed);
                return None;
            };
            if event["event"] == "progress" {
                let is_known = event["bytes_known"].as_u64() >= Some(self.bytes);
                let bytes = event["bytes"].as_u64().unwrap();
                same = if is_known && bytes == here { same + 1 } else { 0 };
                here = bytes;
            }
        }
        receiver.kill();
        self.frozen_from.store(usize::MAX, Ordering::Relaxed);
        Some(here)
    }
}

#[test]
fn b10_kills_of_both_ends_at_any_moment_converge_and_cost_no_more_than_was_in_flight() {
    let kills = kills(25);
    let mut scene = Scene::new();
    let (whole, overhead) = scene.measure();
    let bound = IN_FLIGHT + BYTES_PER_SECOND * SYNC_INTERVAL.as_secs() + overhead;
    let mut random = Random::new(135);
    let (mut done, mut of_receiver, mut of_sender, mut rounds) = (0, 0, 0, 0);
    let (mut sent, mut again_sum, mut again_max) = (0, 0, 0);
    while done < kills {
        scene.next_destination();
        let (begin, before) = (scene.passed(), done);
        let mut receiver = scene.receiver();
        let outcome = loop {
            if done == kills {
                break receiver.finish();
            }
            pause(Duration::from_micros(random.below(u64::try_from(LIFE_MAX.as_micros()).unwrap())));
            let (kills_receiver, kills_sender) = [(true, false), (true, false), (false, true), (true, true)]
                [usize::try_from(random.below(4)).unwrap()];
            if kills_sender {
                scene.kill_sender();
                of_sender += 1;
                done += 1;
            }
            if kills_receiver {
                receiver.signal(Signal::KILL);
                let outcome = receiver.finish();
                if outcome.signal.is_none() {
                    if kills_sender {
                        scene.restart_sender();
                    }
                    break outcome;
                }
                of_receiver += 1;
                done += 1;
                scene.check_whole();
                if kills_sender {
                    scene.restart_sender();
                }
                receiver = scene.receiver();
            } else {
                scene.check_whole();
                scene.restart_sender();
            }
        };
        scene.check_finished(outcome);
        rounds += 1;
        let (passed, of_round) = (scene.passed() - begin, done - before);
        let again = passed.saturating_sub(whole);
        println!("round {rounds}: {of_round} kills, {passed} bytes passed, {again} of them again");
        assert!(again <= of_round * bound, "{again} bytes again by {of_round} kills, each may cost {bound}");
        sent += passed;
        again_sum += again;
        again_max = again_max.max(again.checked_div(of_round).unwrap_or(0));
    }
    println!(
        "{done} kills ({of_receiver} of receivers, {of_sender} of senders) in {rounds} rounds; a round takes {whole} bytes, \
         all took {sent}; again by a kill: {} on average, {again_max} in the worst round, {bound} allowed",
        again_sum / done
    );
}

#[test]
fn b10_a_single_kill_costs_no_more_than_was_in_flight_and_one_sync_interval() {
    let kills = kills(25).div_ceil(5);
    let mut scene = Scene::new();
    let (_, overhead) = scene.measure();
    let bound = IN_FLIGHT + BYTES_PER_SECOND * SYNC_INTERVAL.as_secs() + overhead;
    let mut random = Random::new(136);
    let mut costs = Vec::new();
    scene.next_destination();
    let mut here = 0;
    while (costs.len() as u64) < kills {
        let begin = scene.passed();
        let receiver = scene.receiver();
        pause(Duration::from_millis(300 + random.below(2_000)));
        receiver.signal(Signal::KILL);
        let outcome = receiver.finish();
        let passed = scene.passed() - begin;
        if outcome.signal.is_none() {
            scene.check_finished(outcome);
            scene.next_destination();
            here = 0;
            continue;
        }
        scene.check_whole();
        let Some(now) = scene.bytes_here() else {
            scene.next_destination();
            here = 0;
            continue;
        };
        assert!(now >= here, "{here} bytes were here, and {now} are after one more run");
        let cost = passed.saturating_sub(now - here);
        println!("{passed} bytes passed, {} more are here: {cost} again", now - here);
        assert!(cost <= bound, "{cost} bytes by one kill, {bound} allowed");
        costs.push(cost);
        here = now;
    }
    let (sum, max) = (costs.iter().sum::<u64>(), costs.iter().max().unwrap());
    println!("{kills} kills, again by a kill: {} on average, {max} at most, {bound} allowed", sum / kills);
}
