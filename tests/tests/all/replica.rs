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
mod rename;
mod resume;
mod space;
mod state;

use crate::home::Home;
use sealift_tests::process::{Outcome, Run};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

impl Home {
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
