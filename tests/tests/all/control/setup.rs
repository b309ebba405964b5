//! The daemon as its administrator has it: made, configured, backed up, restored, recovered, put under another key.

mod keys;
mod words;

use sealift_tests::process::{Outcome, Run, control_program};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PASSPHRASE: &str = "a long enough phrase";

/// A data directory that nobody serves, and what belongs to it.
struct Place {
    dir: TempDir,
}

impl Place {
    /// With a daemon in it, whose recovery key is in a file.
    fn made(more: &[&str], stdin: &str) -> Self {
        let place = Self { dir: TempDir::new().expect("a directory") };
        let recovery = place.file("recovery.key");
        let made =
            place.run("init").arg("--recovery-key-file").arg(&recovery).args(more).stdin(stdin).finish();
        assert_eq!(made.code, Some(0), "{made:?}");
        place
    }

    fn data(&self) -> PathBuf {
        self.file("data")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        format!("@{}", self.file(name).display())
    }

    /// A file that its owner alone can read.
    fn secret(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), format!("{text}\n")).expect("written");
        std::fs::set_permissions(self.file(name), std::fs::Permissions::from_mode(0o600)).expect("changed");
        self.at(name)
    }

    fn run(&self, words: &str) -> Run {
        on(&self.data(), words)
    }

    /// Runs a command that does what it is to do.
    fn done(&self, words: &str) -> Outcome {
        ok(self.run(words))
    }
}

/// A command on a data directory. The value of its last option may follow.
fn on(data: &Path, words: &str) -> Run {
    let mut words: Vec<_> = words.split(' ').collect();
    let last = words.pop_if(|word| word.starts_with("--"));
    Run::with(words).program(control_program()).arg("--data-dir").arg(data).args(last)
}

fn ok(run: Run) -> Outcome {
    let outcome = run.finish();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome
}

/// Runs a command that is refused, with these words.
fn refused(run: Run, code: i32, words: &str) -> Outcome {
    let outcome = run.finish();
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words}: {outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap_or_else(|error| panic!("{}: {error}", file.display())).permissions().mode() & 0o777
}

/// Nobody but the owner can look at anything of it.
fn assert_private(dir: &Path) {
    assert_eq!(mode(dir), 0o700);
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        // What the administrator writes has no secret.
        if path.extension().is_some_and(|extension| extension == "toml") {
            continue;
        }
        assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
    }
}

/// What a process was started with, for all to see: its arguments and, for its owner, its environment.
fn shows(pid: u32) -> String {
    let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).expect("it runs");
    String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat()).into_owned()
}
