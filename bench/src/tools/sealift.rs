//! Sealift itself: a sender and a receiver, from the start of the sender to the end of both.

use super::{Job, Ran, Tool};
use crate::failure::Outcome;
use crate::machine::version_of;
use crate::measure::Program;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How Sealift is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealiftOptions {
    /// `--hash`, unless it is left to the program.
    pub hash: Option<&'static str>,
    /// `--cipher`, unless it is left to the program.
    pub cipher: Option<&'static str>,
    /// `--connections` of the receiver, unless it is left to the program.
    pub connections: Option<u32>,
    /// `--transport`, unless it is left to the program.
    pub transport: Option<&'static str>,
}

/// The program with one set of options.
pub struct Sealift {
    program: PathBuf,
    options: SealiftOptions,
}

/// The program that was named, or the one beside this one, or one on PATH.
pub fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(named) = named {
        let named = std::path::absolute(named).map_err(|error| error.to_string())?;
        return if named.is_file() { Ok(named) } else { Err(format!("there is no {}", named.display())) };
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("sealift")));
    match beside.filter(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => super::on_path("sealift").map_err(|_| {
            "it is neither beside this program nor on PATH; name it with --sealift, or build it: \
             cargo build --release -p sealift"
                .into()
        }),
    }
}

impl Sealift {
    /// With these options.
    pub fn new(program: PathBuf, options: SealiftOptions) -> Self {
        Self { program, options }
    }
}

impl Tool for Sealift {
    fn name(&self) -> String {
        let connections = self.options.connections.map(|count| format!("{count}-connections"));
        let parts = [self.options.hash.map(Into::into), self.options.cipher.map(Into::into), connections];
        let name = std::iter::once("sealift".to_owned()).chain(parts.into_iter().flatten());
        name.collect::<Vec<_>>().join("+")
    }

    fn version(&self) -> Option<String> {
        version_of(&self.program, &["--version"])
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let ticket = job.scratch.join("ticket");
        // Each end has a state of its own, as if it were a host of its own: new unless runs are repeated.
        let state = |end: &str| job.scratch.join(format!("state-{end}"));
        let mut sender = Program::new("sender", &self.program)
            .args(["send", "--json", "--once", "--bind"])
            .arg(SocketAddr::new(job.hosts.sender.address, 0).to_string())
            .arg("--ticket-file")
            .arg(&ticket)
            .at(&job.hosts.sender)
            .env("SEALIFT_STATE_DIR", state("sender"));
        if job.repeated {
            sender = sender.args(["--job", "bench"]);
        }
        if let Some(hash) = self.options.hash {
            sender = sender.args(["--hash", hash]);
        }
        if let Some(cipher) = self.options.cipher {
            sender = sender.args(["--cipher", cipher]);
        }
        let mut at_ticket = std::ffi::OsString::from("@");
        at_ticket.push(&ticket);
        let mut receiver = Program::new("receiver", &self.program)
            .args(["receive", "--json"])
            .arg(format!("--fsync={}", if job.durable { "yes" } else { "no" }))
            .at(&job.hosts.receiver)
            .env("SEALIFT_STATE_DIR", state("receiver"));
        if let Some(connections) = self.options.connections {
            receiver = receiver.arg(format!("--connections={connections}"));
        }
        if let Some(transport) = self.options.transport {
            receiver = receiver.args(["--transport", transport]);
        }
        let receiver = receiver.arg(at_ticket).arg(job.dest).ready(job.scratch, job.limit)?;
        let mut sender = sender.arg(job.source).listened().ready(job.scratch, job.limit)?.go()?;
        sender.wait_for_line("gave a ticket", |line| line.contains(r#""event":"ticket""#).then_some(()))?;
        let receiver = receiver.go()?.finish()?;
        let sender = sender.finish()?;
        Ok(Ran::of(job, vec![sender, receiver], Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_variants_apart() {
        let name = |options| Sealift::new(PathBuf::new(), options).name();
        assert_eq!(name(SealiftOptions::default()), "sealift");
        let options =
            SealiftOptions { hash: Some("blake3"), connections: Some(8), ..SealiftOptions::default() };
        assert_eq!(name(options), "sealift+blake3+8-connections");
    }
}
