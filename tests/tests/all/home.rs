//! What a sender and a receiver that run again and again have in a test: a source, a destination, and what both
//! remember.
#![allow(clippy::unwrap_used)]

use crate::replicate::Place;
use sealift_tests::process::{Outcome, Process, Run, Sender};
use sealift_tests::tree::{self, SpecialModes};
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A place with a state directory of its own, for both ends.
pub(crate) struct Home {
    place: Place,
    pub(crate) state: PathBuf,
}

impl Deref for Home {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let state = place.dir.path().join("state");
        Self { place, state }
    }

    /// Where something of this name is in the source.
    pub(crate) fn src(&self, name: &str) -> PathBuf {
        self.src.join(name)
    }

    /// Where something of this name is in the destination.
    pub(crate) fn dst(&self, name: &str) -> PathBuf {
        self.dst.join(name)
    }

    /// A sender of the source, under a job that is its own.
    pub(crate) fn send(&self) -> Sender {
        self.send_with(&[])
    }

    /// A sender of the source under a job that stays the same.
    pub(crate) fn send_job(&self, job: &str) -> Sender {
        self.send_with(&["--job", job])
    }

    /// A sender of the source, with these arguments.
    pub(crate) fn send_with(&self, args: &[&str]) -> Sender {
        Sender::of(self.sending(args))
    }

    /// What such a sender is started by.
    pub(crate) fn sending(&self, args: &[&str]) -> Run {
        Run::send([&self.src]).args(args).state_dir(&self.state)
    }

    /// A receiver into the destination, to be started.
    pub(crate) fn receive(&self, ticket: &str, args: &[&str]) -> Run {
        self.receive_into(ticket, &self.dst, args)
    }

    /// A receiver into another destination, to be started.
    pub(crate) fn receive_into(&self, ticket: &str, dest: &Path, args: &[&str]) -> Run {
        Run::receive(ticket, dest).args(args).state_dir(&self.state)
    }

    /// One run from start to end, by a sender of its own job.
    pub(crate) fn replicate(&self, args: &[&str]) -> Outcome {
        let sender = self.send();
        self.receive(&sender.ticket, args).finish()
    }

    /// One run from start to end, by a sender of the job `j`.
    pub(crate) fn sync(&self, args: &[&str]) -> Outcome {
        let sender = self.send_job("j");
        self.receive(&sender.ticket, args).finish()
    }

    /// Checks that the destination is the source, and has nothing staged.
    pub(crate) fn assert_same(&self) {
        tree::assert_same(&self.src, &self.dst, SpecialModes::Dropped);
        tree::assert_tidy(&self.dst);
    }

    /// The index and what is beside it, of the only replica that this host knows.
    pub(crate) fn replica_state(&self) -> PathBuf {
        let inside = fs::read_dir(self.state.join("replicas")).unwrap();
        let dirs: Vec<_> =
            inside.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("paths")).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        dirs[0].clone()
    }

    /// The index of the only replica that this host knows.
    pub(crate) fn index(&self) -> PathBuf {
        self.replica_state().join("index.redb")
    }
}

/// Lets a process go on for so many of its signs of life, of which there are four a second.
pub(crate) fn let_live(process: &mut Process, signs: usize) {
    for _ in 0..signs {
        let _ = process.wait_for("progress");
    }
}
