//! sendme: from the start of its sender, which first hashes all, to the end of its receiver. No relay is used.

use super::{Job, Ran, Tool, sync};
use crate::failure::{OrFailure as _, Outcome};
use crate::machine::version_of;
use crate::measure::Program;
use std::path::PathBuf;

/// `sendme send` and `sendme receive`.
pub struct Sendme(pub PathBuf);

impl Tool for Sendme {
    fn name(&self) -> String {
        "sendme".into()
    }

    fn version(&self) -> Option<String> {
        version_of(&self.0, &["--version"])
    }

    fn keeps_modes(&self) -> bool {
        false
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let cannot = || format!("cannot create {}", job.dest.display());
        std::fs::create_dir_all(job.dest).or_failure(cannot)?;
        // Both keep their data in the directory that they are started in.
        let end = |name, verb: &str| {
            Program::new(name, &self.0).args([verb, "--no-progress", "--relay", "disabled"])
        };
        let receiver = end("receiver", "receive").dir(job.dest).ready(job.scratch, job.limit)?;
        let mut sender = end("sender", "send")
            .args(["--ticket-type", "addresses"])
            .arg(job.source)
            .dir(job.scratch)
            .listened()
            .ready(job.scratch, job.limit)?
            .go()?;
        let ticket = sender.wait_for_line("gave a ticket", |line| {
            line.split_whitespace()
                .find(|word| word.starts_with("blob") && word.len() > 40)
                .map(str::to_owned)
        })?;
        let received = receiver.go_with(&[ticket])?.finish()?;
        let synced = sync(job, job.dest)?;
        // It serves until it is told to end: after the transfer.
        let mut sender = sender.stop()?;
        sender.ended_nanoseconds = received.ended_nanoseconds;
        let timed = [sender, received].into_iter().chain(synced).collect();
        let mut ran = Ran::of(job, timed, Vec::new());
        if let Some(name) = job.source.file_name() {
            ran.copy = job.dest.join(name);
        }
        Ok(ran)
    }
}
