//! Operators at the command line: logging in, and every command over a real daemon and agents.

mod commands;
mod keks;
mod login;
pub(super) mod sealed_logs;

use sealift_tests::control::{Agent, Daemon, PASSWORD};
use sealift_tests::process::{Outcome, Run};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Somebody with a home of their own.
pub(super) struct Operator {
    home: TempDir,
}

impl Operator {
    fn new() -> Self {
        Self { home: TempDir::new().expect("a directory") }
    }

    /// Logs in as the administrator.
    pub(super) fn logged_in(daemon: &Daemon) -> Self {
        let operator = Self::new();
        let done = operator.log_in(daemon, &[]).finish().expect(0);
        operator.shows_no_secret(&done);
        operator
    }

    fn log_in(&self, daemon: &Daemon, more: &[&str]) -> Run {
        let web = daemon.web.to_string();
        let words = ["login", &web, "--user", "admin", "--pin", &daemon.pin, "--password-stdin"];
        self.run(&words).args(more).stdin(PASSWORD)
    }

    /// A command, which finds nothing of whoever runs the tests.
    pub(super) fn run(&self, words: &[&str]) -> Run {
        let run = Run::with(words).env("XDG_CONFIG_HOME", self.home.path());
        ["SEALIFT_API_TOKEN", "SEALIFT_CONTROL", "SEALIFT_CONTROL_PIN"]
            .iter()
            .fold(run, |run, name| run.env(name, ""))
    }

    /// Runs a command that succeeds, and gives what it shows.
    pub(super) fn does(&self, words: &[&str]) -> String {
        let done = self.run(words).finish().expect(0);
        self.shows_no_secret(&done);
        done.stdout
    }

    /// The same with `--json`: an object for each line.
    pub(super) fn json(&self, words: &[&str]) -> Vec<Value> {
        let text = self.does(&[words, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Runs a command that ends with another code, and gives what it says.
    pub(super) fn fails(&self, words: &[&str], code: i32) -> String {
        let done = self.run(words).finish().expect(code);
        self.shows_no_secret(&done);
        done.stderr
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("sealift/login.json")
    }

    fn kept(&self) -> Option<Value> {
        let text = std::fs::read(self.file()).ok()?;
        Some(serde_json::from_slice(&text).expect("JSON"))
    }

    /// The token of the login.
    fn token(&self) -> String {
        self.kept().expect("logged in")["token"].as_str().expect("a token").to_owned()
    }

    /// Neither the password nor the token of the login was shown.
    fn shows_no_secret(&self, done: &Outcome) {
        let token = self.kept().map(|kept| kept["token"].as_str().expect("a token").to_owned());
        for text in [&done.stdout, &done.stderr] {
            assert!(!text.contains(PASSWORD), "{done:#?}");
            assert!(token.as_ref().is_none_or(|token| !text.contains(token.as_str())), "{done:#?}");
        }
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Agents that run, enrolled by a token that an operator has made.
pub(super) fn agents<const N: usize>(daemon: &Daemon, operator: &Operator, names: [&str; N]) -> [Agent; N] {
    let file = operator.home.path().join("many.token");
    let shown = file.to_str().expect("text");
    let uses = N.to_string();
    operator.does(&[
        "token",
        "create",
        "--name",
        "many",
        "--uses",
        &uses,
        "--approve",
        "--group",
        "dc2",
        "--write",
        shown,
    ]);
    names.map(|name| {
        let mut agent = Agent::join(daemon, name, &file);
        agent.start();
        agent
    })
}
