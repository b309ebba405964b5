//! `sealift verify`, its repair, and `sealift index rebuild`: what rots in a replica at rest is found to the block, and only
//! that is fetched; what a host forgot is made anew (hazards A12, B11, B15).
#![allow(clippy::unwrap_used)]

mod bitrot;
mod entries;
mod index;
mod manifest;

use crate::home::Home;
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Home {
    /// `sealift verify` of the destination, to be started.
    fn verify(&self, args: &[&str]) -> Run {
        let run = Run::with(["verify", "--json"]).args(args).arg(&self.dst);
        run.state_dir(&self.state)
    }

    /// Verifies, and repairs from this sender.
    fn repair(&self, sender: &Sender, args: &[&str]) -> Outcome {
        self.verify(&["--repair", "--from", &sender.ticket]).args(args).finish()
    }

    /// `sealift index rebuild` of the destination.
    fn rebuild(&self) -> Outcome {
        let run = Run::with(["index", "rebuild", "--json"]).arg(&self.dst);
        run.state_dir(&self.state).finish()
    }

    /// Verifies what must be all right, and is told to be without a warning.
    fn assert_clean(&self) -> Outcome {
        let outcome = self.verify(&[]).finish().expect(0);
        assert_eq!(outcome.warnings(), "");
        assert_eq!((damage(&outcome).len(), verified(&outcome, "damaged")), (0, 0));
        outcome
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
