//! What a destination and its host remember from run to run, and what they do with it: resuming, unchanged files, edits,
//! deletions, renames, full disks, missing disks, and chains that go back (hazards A12, B4–B6, B11, B13, B14, C9).
#![allow(clippy::unwrap_used)]

mod chain;
mod conflict;
mod delete;
mod descriptors;
mod marker;
mod memory;
mod preserve;
// The same relay as in `faults`, of which not all is used here.
#[path = "faults/relay.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
pub(crate) mod relay;
mod rename;
mod resume;
mod space;
mod state;

use crate::replicate::Place;
use sealift_tests::process::{Outcome, Process, Run, Sender};
use sealift_tests::tree::{self, SpecialModes};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A place with a state directory of its own, for both ends.
pub(crate) struct Home {
    place: Place,
    state: PathBuf,
}

impl Deref for Home {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Home {
    fn new() -> Self {
        let place = Place::new();
        let state = place.dir.path().join("state");
        Self { place, state }
    }

    fn src(&self, name: &str) -> PathBuf {
        self.src.join(name)
    }

    fn dst(&self, name: &str) -> PathBuf {
        self.dst.join(name)
    }

    /// A sender of the source, under a job that is its own.
    fn send(&self) -> Sender {
        self.start_sender(&[])
    }

    /// A sender of the source under a job that stays the same.
    fn send_job(&self, job: &str) -> Sender {
        self.start_sender(&["--job", job])
    }

    fn start_sender(&self, args: &[&str]) -> Sender {
        Sender::of(Run::send([&self.src]).args(args).env("SEALIFT_STATE_DIR", &self.state))
    }

    fn receive(&self, ticket: &str, args: &[&str]) -> Run {
        self.receive_into(ticket, &self.dst, args)
    }

    fn receive_into(&self, ticket: &str, dest: &Path, args: &[&str]) -> Run {
        Run::receive(ticket, dest).args(args).env("SEALIFT_STATE_DIR", &self.state)
    }

    /// One run from start to end, by a sender of its own job.
    fn replicate(&self, args: &[&str]) -> Outcome {
        let sender = self.send();
        self.receive(&sender.ticket, args).finish()
    }

    /// One run from start to end, by a sender of the job `j`.
    fn sync(&self, args: &[&str]) -> Outcome {
        let sender = self.send_job("j");
        self.receive(&sender.ticket, args).finish()
    }

    /// Checks that the destination is the source, and has nothing staged.
    fn assert_same(&self) {
        tree::assert_same(&self.src, &self.dst, SpecialModes::Dropped);
        tree::assert_tidy(&self.dst);
    }

    /// The names in the destination that are what was set aside of `name`.
    fn conflicts(&self, name: &str) -> Vec<PathBuf> {
        let path = self.dst(name);
        let prefix = format!("{}.sealift-conflict-", path.file_name().unwrap().to_str().unwrap());
        let inside = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut found: Vec<_> = inside
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().is_some_and(|name| name.starts_with(&prefix)))
            .collect();
        found.sort();
        found
    }

    /// The index and what is beside it, of the only replica that this host knows.
    fn replica_state(&self) -> PathBuf {
        let inside = fs::read_dir(self.state.join("replicas")).unwrap();
        let dirs: Vec<_> =
            inside.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("paths")).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs[0].clone()
    }
}

/// All warnings.
fn warnings(outcome: &Outcome) -> String {
    let messages = outcome.named("warning").filter_map(|event| event["message"].as_str());
    messages.collect::<Vec<_>>().join("\n")
}

/// The reason why this path is missing.
fn problem_of<'o>(outcome: &'o Outcome, path: &str) -> &'o str {
    let mut problems = outcome.named("problem").filter(|event| event["path"] == path);
    problems.next().unwrap_or_else(|| panic!("{path} is no problem: {outcome:#?}"))["reason"]
        .as_str()
        .unwrap()
}

/// Inode and ctime: whether anything was done to a file at all.
fn version(path: &Path) -> (u64, i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ino(), stat.ctime(), stat.ctime_nsec())
}

/// Lets a process go on for so many of its signs of life, of which there are four a second.
pub(crate) fn let_live(process: &mut Process, signs: usize) {
    for _ in 0..signs {
        let _ = process.wait_for("progress");
    }
}

/// Runs a receiver to its last word, and returns what it had read by then, of files and of connections.
fn bytes_read(run: Run) -> (u64, Outcome) {
    // What io_uring reads is not counted.
    let mut receiver = run.io("threads").start();
    let _ = receiver.wait_until("the end", |event| event["event"] == "done" || event["event"] == "error");
    // It may have ended: until it is waited for, the kernel still tells.
    let told = fs::read_to_string(format!("/proc/{}/io", receiver.id())).unwrap();
    let bytes = told.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap();
    (bytes, receiver.finish())
}

/// Flips a bit of a file in place.
fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}
