//! Sealift itself: a sender and a receiver, from the start of the sender to the end of both.

use super::{Job, Ran, Tool};
use crate::failure::{OrFailure as _, Outcome, failure};
use crate::machine::version_of;
use crate::measure::Program;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    /// Whether the job is sealed, to an RSA key of 3072 bits that `openssl` makes.
    pub sealed: bool,
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
        let sealed = self.options.sealed.then(|| "sealed".to_owned());
        let parts =
            [self.options.hash.map(Into::into), self.options.cipher.map(Into::into), connections, sealed];
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
        let keys = self.options.sealed.then(|| Keys::make(job.scratch)).transpose()?;
        if let Some(keys) = &keys {
            sender = sender.arg("--seal-to").arg(&keys.public);
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
        let mut ran = Ran::of(job, vec![sender, receiver], Vec::new());
        if let Some(keys) = &keys {
            // What is checked is what the key makes of it. That takes its own time, which is not the transfer's.
            ran.copy = job.scratch.join("restored");
            if ran.copy.exists() {
                std::fs::remove_dir_all(&ran.copy)
                    .or_failure(|| format!("cannot remove {}", ran.copy.display()))?;
            }
            let restore = Program::new("restore", &self.program)
                .args(["restore", "--json"])
                .arg(job.dest)
                .arg(&ran.copy)
                .arg("--key")
                .arg(&keys.private)
                .env("SEALIFT_STATE_DIR", state("receiver"));
            restore.ready(job.scratch, job.limit)?.go()?.finish()?;
        }
        Ok(ran)
    }
}

/// A pair of keys.
struct Keys {
    private: PathBuf,
    public: PathBuf,
}

impl Keys {
    /// Those of a contestant, made once.
    fn make(dir: &Path) -> Outcome<Self> {
        let keys = Self { private: dir.join("private.pem"), public: dir.join("public.pem") };
        if !keys.public.exists() {
            let run = |command: &mut Command| {
                let done = command.output().or_failure(|| "openssl cannot be run".to_owned())?;
                if done.status.success() { Ok(()) } else { failure("openssl makes no key") }
            };
            let (make, bits) = (["genpkey", "-algorithm", "RSA", "-pkeyopt"], "rsa_keygen_bits:3072");
            run(Command::new("openssl").args(make).args([bits, "-out"]).arg(&keys.private))?;
            let export = ["pkey", "-pubout", "-in"];
            run(Command::new("openssl").args(export).arg(&keys.private).arg("-out").arg(&keys.public))?;
        }
        Ok(keys)
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
