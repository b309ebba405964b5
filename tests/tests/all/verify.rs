//! `sealift verify`, its repair, and `sealift index rebuild`: what rots in a replica at rest is found to the block, and only
//! that is fetched; what a host forgot is made anew (hazards A12, B11, B15).
#![allow(clippy::unwrap_used)]

mod bitrot;
mod entries;
mod index;
mod manifest;

use crate::replicate::Place;
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree::{self, SpecialModes};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A place with a state directory of its own, for both ends.
struct Home {
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

    /// A sender of the job `j`.
    fn send(&self) -> Sender {
        Sender::of(Run::send([&self.src]).args(["--job", "j"]).env("SEALIFT_STATE_DIR", &self.state))
    }

    fn receive(&self, sender: &Sender, args: &[&str]) -> Run {
        Run::receive(&sender.ticket, &self.dst).args(args).env("SEALIFT_STATE_DIR", &self.state)
    }

    /// One run of both ends.
    fn sync(&self, args: &[&str]) -> Outcome {
        let sender = self.send();
        self.receive(&sender, args).finish()
    }

    fn verify(&self, args: &[&str]) -> Run {
        let run = Run::with(["verify", "--json"]).args(args).arg(&self.dst);
        run.env("SEALIFT_STATE_DIR", &self.state)
    }

    /// Verifies, and repairs from this sender.
    fn repair(&self, sender: &Sender, args: &[&str]) -> Outcome {
        self.verify(&["--repair", "--from", &sender.ticket]).args(args).finish()
    }

    fn rebuild(&self) -> Outcome {
        let run = Run::with(["index", "rebuild", "--json"]).arg(&self.dst);
        run.env("SEALIFT_STATE_DIR", &self.state).finish()
    }

    /// Verifies what must be all right, and is told to be without a warning.
    fn assert_clean(&self) -> Outcome {
        let outcome = self.verify(&[]).finish().expect(0);
        assert_eq!(warnings(&outcome), "");
        assert_eq!((damage(&outcome).len(), verified(&outcome, "damaged")), (0, 0));
        outcome
    }

    fn assert_same(&self) {
        tree::assert_same(&self.src, &self.dst, SpecialModes::Dropped);
        tree::assert_tidy(&self.dst);
    }

    /// The directory of the only index that there is.
    fn index_dir(&self) -> PathBuf {
        let inside = fs::read_dir(self.state.join("replicas")).unwrap();
        let mut dirs = inside.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("paths"));
        let dir = dirs.next().unwrap();
        assert_eq!(dirs.next(), None);
        dir
    }

    fn index(&self) -> PathBuf {
        self.index_dir().join("index.redb")
    }
}

/// What is told of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Damage {
    what: String,
    blocks: Vec<u64>,
    bytes: u64,
}

/// All that is told to be damaged, by path; no path twice.
fn damage(outcome: &Outcome) -> BTreeMap<String, Damage> {
    let mut found = BTreeMap::new();
    for event in outcome.named("damaged") {
        let blocks =
            event["blocks"].as_array().unwrap().iter().map(|block| block.as_u64().unwrap()).collect();
        let what = event["what"].as_str().unwrap().to_owned();
        let damage = Damage { what, blocks, bytes: event["bytes"].as_u64().unwrap() };
        assert!(event["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{event}");
        let before = found.insert(event["path"].as_str().unwrap().to_owned(), damage);
        assert!(before.is_none(), "told twice: {event}");
    }
    found
}

/// What is told to be damaged, path and word.
fn words(outcome: &Outcome) -> BTreeSet<(String, String)> {
    damage(outcome).into_iter().map(|(path, damage)| (path, damage.what)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

/// A number of the only event of this name.
fn number(outcome: &Outcome, event: &str, name: &str) -> u64 {
    let found: Vec<&Value> = outcome.named(event).collect();
    assert_eq!(found.len(), 1, "{outcome:#?}");
    found[0][name].as_u64().unwrap()
}

fn verified(outcome: &Outcome, name: &str) -> u64 {
    number(outcome, "verified", name)
}

fn warnings(outcome: &Outcome) -> String {
    let messages: Vec<&str> =
        outcome.named("warning").map(|event| event["message"].as_str().unwrap()).collect();
    messages.join("\n")
}

/// Flips a bit of a file, and puts its time back if that is wanted.
fn flip(path: &Path, bit: u64, restore_time: bool) {
    let before = fs::symlink_metadata(path).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
    drop(file);
    if restore_time {
        tree::set_mtime(path, before.mtime(), before.mtime_nsec());
    }
}

/// A tree with files of one block and of many, sparse ones, hard links, and all else that a manifest can hold.
fn fill(root: &Path) {
    tree::mixed(&root.join("mixed"), 60, 11);
    for (name, bytes) in [
        ("one byte", 1),
        ("one block", 32 * KIB),
        ("two blocks", 32 * KIB + 1),
        ("many blocks", MIB),
        ("large", 5 * MIB + 77),
        ("larger", 9 * MIB),
    ] {
        tree::file(&root.join(name), []);
        tree::large_file(&root.join(name), bytes, bytes);
    }
    for (name, bytes) in [("sparse", 3 * MIB), ("sparse too", 700 * KIB)] {
        let file = fs::File::create(root.join(name)).unwrap();
        file.set_len(bytes).unwrap();
        file.write_all_at(&tree::Random::new(bytes).bytes(100 * KIB), 300 * KIB).unwrap();
    }
    tree::file(&root.join("links/a/small"), tree::Random::new(3).bytes(5000));
    tree::file(&root.join("links/b/large"), []);
    tree::large_file(&root.join("links/b/large"), 2 * MIB + 5, 4);
    for (first, more) in
        [("links/a/small", "links/c small"), ("links/b/large", "links/a/large"), ("links/b/large", "links/z")]
    {
        fs::hard_link(root.join(first), root.join(more)).unwrap();
    }
    tree::file(&root.join("empty"), "");
    fs::create_dir(root.join("empty dir")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
    tree::set_mode(&root.join("links/a"), 0o755);
    tree::set_mtime(&root.join("empty dir"), 1_000_000_000, 5);
}
