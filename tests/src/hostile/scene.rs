//! Where a victim works: a destination, and beside it a directory in which nothing may change.

use crate::process::{Outcome, Run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary directory with a destination and a sentinel beside it.
pub struct Scene {
    dir: TempDir,
    before: Snapshot,
}

/// What a receiver keeps in a destination beside what it was sent.
const STAYS: [&[u8]; 4] = [b".sealift", b".sealift/id", b".sealift/lock", b".sealift/manifest"];

/// Every entry beneath a directory: what it is, its mode and mtime, and its content.
type Snapshot = BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)>;

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// A new scene; the destination does not exist yet.
    ///
    /// # Panics
    /// If there is no room for it.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("inner")).expect("there is room");
        fs::write(outside.join("secret"), "what nobody may touch").expect("there is room");
        fs::write(outside.join("inner/deep"), "nor this").expect("there is room");
        let mut scene = Self { dir, before: Snapshot::new() };
        scene.before = scene.around();
        scene
    }

    /// Where the victim writes.
    #[must_use]
    pub fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    /// Where it must not.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// A receiver into the destination.
    #[must_use]
    pub fn receive(&self, ticket: &str) -> Run {
        // Enough for the first dial on a host with much else to do.
        self.receive_retrying(ticket, 20)
    }

    /// A receiver into the destination that tries an unreachable sender again for so long.
    #[must_use]
    pub fn receive_retrying(&self, ticket: &str, seconds: u32) -> Run {
        Run::receive(ticket, self.dest()).args(["--retry-for", &seconds.to_string()])
    }

    /// Checks that nothing beside the destination has changed.
    ///
    /// # Panics
    /// If something has.
    pub fn assert_outside_untouched(&self) {
        assert_eq!(self.around(), self.before, "something outside of the destination has changed");
    }

    /// Checks that the destination holds nothing but these paths; our own directory is not among them.
    ///
    /// # Panics
    /// If it holds something else.
    pub fn assert_dest_holds(&self, paths: &[&[u8]]) {
        let mut expected: Vec<Vec<u8>> = paths.iter().map(|path| path.to_vec()).collect();
        expected.sort();
        assert_eq!(shown(&self.dest_paths()), shown(&expected), "the destination holds something else");
    }

    /// Everything in the destination, sorted; not followed. Of our own directory only what is not to stay.
    #[must_use]
    pub fn dest_paths(&self) -> Vec<Vec<u8>> {
        let mut found = Snapshot::new();
        let dest = self.dest();
        if dest.exists() {
            record(&dest, &dest, &mut found);
        }
        found.into_keys().filter(|path| !STAYS.contains(&path.as_slice())).collect()
    }

    fn around(&self) -> Snapshot {
        let mut found = Snapshot::new();
        let dest = self.dest();
        for entry in fs::read_dir(self.dir.path()).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if path != dest {
                note(self.dir.path(), &path, &mut found);
            }
        }
        found
    }
}

fn shown(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| path.escape_ascii().to_string()).collect()
}

fn record(base: &Path, dir: &Path, found: &mut Snapshot) {
    for entry in fs::read_dir(dir).expect("it is there") {
        note(base, &entry.expect("it can be read").path(), found);
    }
}

fn note(base: &Path, path: &Path, found: &mut Snapshot) {
    let stat = fs::symlink_metadata(path).expect("it is there");
    let content = if stat.is_symlink() {
        fs::read_link(path).expect("a link").into_os_string().into_vec()
    } else if stat.is_file() {
        fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    let name = path.strip_prefix(base).expect("beneath").as_os_str().as_bytes().to_vec();
    found.insert(name, (stat.mode(), stat.mtime(), stat.mtime_nsec(), content));
    if stat.is_dir() {
        record(base, path, found);
    }
}

/// Checks what every victim's words must be: no panic, and nothing that drives a terminal or turns text round.
///
/// # Panics
/// If they are not.
pub fn assert_plain(outcome: &Outcome) {
    for (name, text) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        assert!(!text.contains("panicked"), "it panicked: {text}");
        let marks = ['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}'];
        let bad = text.chars().find(|&c| (c.is_control() && c != '\n') || marks.contains(&c));
        assert!(bad.is_none(), "{name} has a raw {bad:?}: {text:?}");
    }
}
