//! Hazards B1 and B2, by a real disk that takes no more writes in the middle of a run.

use super::scene::ENGINES;
use crate::relay::{Fate, Piece, Relay};
use crate::replicate::Place;
use sealift_tests::blockdev::{Fault, FaultyDisk, FileSystem, or_skip};
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, assert_tidy};
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// Runs after the disk is well again until one must end well.
const RUNS_MAX: u32 = 4;

/// A tree, its sender, and a destination on a disk that can be told to lose what is written.
struct Scene {
    place: Place,
    disk: FaultyDisk,
    dst: PathBuf,
    sender: Sender,
}

impl Scene {
    /// `None`, and it is said why, if there is no such disk here.
    fn new(kind: FileSystem, seed: u64) -> Option<Self> {
        let disk = or_skip(FaultyDisk::new(kind, 96 * MIB))?;
        let place = Place::new();
        tree::mixed(&place.src, 150, seed);
        for number in 0..4 {
            tree::large_file(&place.src.join(format!("large {number}")), 3 * MIB + number, seed + number);
        }
        let state = place.dir.path().join("state of the sender");
        let sender = Sender::of(Run::send([&place.src]).state_dir(state));
        let dst = disk.path().join("dst");
        Some(Self { place, disk, dst, sender })
    }

    fn receive(&self, ticket: &str) -> Run {
        Run::receive(ticket, &self.dst).state_dir(self.place.dir.path().join("state"))
    }

    /// Runs again until one ends well: an error that nobody was told of yet is told to the next who asks.
    fn converge(&self, engine: &str) {
        for _ in 0..RUNS_MAX {
            let outcome = self.receive(&self.sender.ticket).io(engine).finish();
            println!("again: exit {:?}: {:?}", outcome.code, messages(&outcome));
            if outcome.code == Some(0) {
                return;
            }
        }
        panic!("the disk works, and nobody believes it");
    }

    /// Checks what is on the disk itself.
    fn check(&mut self) {
        self.disk.mount_again().unwrap();
        assert_same(&self.place.src, &self.dst, SpecialModes::Dropped);
        assert_tidy(&self.dst);
    }
}

fn messages(outcome: &Outcome) -> Vec<String> {
    let told = outcome.events.iter().filter(|event| event["event"] != "progress");
    told.filter_map(|event| event["message"].as_str().or(event["reason"].as_str()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn b1_b2_a_disk_that_fails_in_the_middle_ends_the_run_and_the_next_makes_all_of_it() {
    let cases = [(FileSystem::Ext4, 1), (FileSystem::Xfs, 3), (FileSystem::Ext4, 6)];
    for ((kind, mib), engine) in cases.into_iter().zip(ENGINES.into_iter().cycle()) {
        let Some(mut scene) = Scene::new(kind, 140 + mib) else { return };
        let some = move |piece: Piece| match piece.total_down > mib * MIB {
            true => Fate::FreezeAll,
            false => Fate::Pass,
        };
        let relay = Relay::start(scene.sender.address(), some);
        let receiver = scene.receive(&scene.sender.ticket_via(relay.address())).io(engine).start();
        let _ = relay.next_fate();
        scene.disk.fail(Fault::Writes);
        relay.thaw();
        let first = receiver.finish();
        println!(
            "{kind:?}: exit {:?}, {} problems, {:?}",
            first.code,
            first.problems().len(),
            messages(&first).last()
        );
        assert!(!first.stderr.contains("panicked"), "{first:#?}");
        assert!([Some(1), Some(3)].contains(&first.code), "{first:#?}");
        scene.disk.heal();
        scene.disk.mount_again().unwrap();
        scene.converge(engine);
        scene.check();
    }
}
