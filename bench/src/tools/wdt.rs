//! WDT: a receiver that prints where it is, and a sender that is told so.

use super::{Job, Ran, Tool};
use crate::failure::{OrFailure as _, Outcome};
use crate::machine::version_of;
use crate::measure::Program;
use std::path::PathBuf;

/// WDT, by default with AES-128-GCM.
pub struct Wdt {
    /// The program.
    pub wdt: PathBuf,
    /// Whether what it sends is encrypted.
    pub encrypted: bool,
    /// More arguments for both ends.
    pub args: Vec<String>,
}

impl Wdt {
    fn end(&self, name: &'static str, job: &Job<'_>) -> Program {
        Program::new(name, &self.wdt)
            .arg(format!("-encryption_type={}", if self.encrypted { "aes128gcm" } else { "none" }))
            .arg(format!("-fsync={}", job.durable))
            .args(&self.args)
    }
}

impl Tool for Wdt {
    fn name(&self) -> String {
        if self.encrypted { "wdt".into() } else { "wdt-plain".into() }
    }

    fn version(&self) -> Option<String> {
        version_of(&self.wdt, &["-version"])
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        std::fs::create_dir_all(job.dest).or_failure(|| format!("cannot create {}", job.dest.display()))?;
        let sender =
            self.end("sender", job).arg("-directory").arg(job.source).ready(job.scratch, job.limit)?;
        let mut receiver = self
            .end("receiver", job)
            .args(["-hostname", "127.0.0.1", "-directory"])
            .arg(job.dest)
            .listened()
            .ready(job.scratch, job.limit)?
            .go()?;
        let url = receiver.wait_for_line("told where it is", |line| {
            let at = line.find("wdt://")?;
            line[at..].split_whitespace().next().map(str::to_owned)
        })?;
        // Started before the clock, as rsync's daemon is: only its end counts.
        let sender = sender.go_with(&[format!("-connection_url={url}")])?.finish()?;
        let mut receiver = receiver.finish()?;
        receiver.began_nanoseconds = sender.began_nanoseconds;
        Ok(Ran::of(job, vec![sender, receiver], Vec::new()))
    }
}
