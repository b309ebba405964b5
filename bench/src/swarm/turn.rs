//! One transfer from a source to a number of receivers, on hosts that nobody has used.

use super::SwarmArgs;
use crate::data::DataSet;
use crate::failure::{Failure, OrFailure as _, Outcome};
use crate::measure::{Finished, Program};
use crate::results::{Round, Swarm};
use crate::tools::Host;
use crate::tree::{Compared, Tree};
use sealift_bench::emulated::Lan;
use sealift_bench::emulated::lan::LanSpec;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One turn.
pub struct Turn<'a> {
    /// What was asked for.
    pub args: &'a SwarmArgs,
    /// Sealift.
    pub program: &'a Path,
    /// What is copied.
    pub data: &'a DataSet,
    /// A directory of its own.
    pub run: &'a Path,
    /// How many receivers there are.
    pub receivers: usize,
    /// From 1.
    pub round: u32,
}

impl Turn<'_> {
    /// Takes it: what it came to, and what was typed.
    pub fn run(self) -> Outcome<(Round, Vec<String>)> {
        let lan = Lan::new(LanSpec {
            hosts: self.receivers + 1,
            rate: self.args.rate,
            zones: self.args.zones,
            between: self.args.between,
            queue: self.args.queue,
        })?;
        let finished = self.transfer(&lan)?;
        // Before anything else is sent: the source has ended.
        let source = lan.host_counters(0)?.sent_bytes;
        let between = lan.between()?.sent_bytes;
        for number in 1..=self.receivers {
            let copy = Tree::read(&self.dir(number).join("copy"))?;
            if let Some(difference) = self.data.tree.difference(&copy, Compared { modes: true }) {
                return Err(Failure(format!("copy {number} is wrong: {difference}")));
            }
        }
        let bytes = self.data.tree.bytes() as f64;
        let (sender, receivers) = (&finished[0], &finished[1..]);
        let ended = receivers.iter().map(|one| one.ended_nanoseconds).max().unwrap_or(0);
        let ends: Vec<_> = finished.iter().map(|one| one.end.clone()).collect();
        let round = Round {
            round: self.round,
            seconds: ended.saturating_sub(sender.began_nanoseconds) as f64 / 1e9,
            cpu_seconds: Some(ends.iter().map(|end| end.user_seconds + end.system_seconds).sum()),
            ends,
            wan: None,
            swarm: Some(Swarm {
                receivers: self.receivers,
                source_bytes: source,
                source_share: source as f64 / bytes,
                between_bytes: between,
                between_share: between as f64 / bytes,
            }),
        };
        // Those of receivers differ in their directories alone.
        Ok((round, finished.iter().take(2).map(|one| one.command.clone()).collect()))
    }

    /// The sender, then the receivers.
    fn transfer(&self, lan: &Lan) -> Outcome<Vec<Finished>> {
        let limit = Duration::from_secs(self.args.limit_seconds);
        let host = |number: usize| Host {
            namespace: Some(lan.hosts()[number].name().to_owned()),
            address: lan.address(number).into(),
        };
        let ticket = self.dir(0).join("ticket");
        let program = |end: &'static str, number: usize| -> Outcome<Program> {
            let state = self.dir(number).join("state");
            std::fs::create_dir_all(&state).or_failure(|| format!("cannot create {}", state.display()))?;
            Ok(Program::new(end, self.program).at(&host(number)).env("SEALIFT_STATE_DIR", state))
        };
        let sender = program("sender", 0)?
            .args(["send", "--json"])
            .args(self.label(0))
            .arg("--bind")
            .arg(format!("{}:0", lan.address(0)))
            .arg("--ticket-file")
            .arg(&ticket)
            .args(&self.args.send_args)
            .arg(&self.data.path)
            .listened()
            .ready(&self.dir(0), limit)?;
        let mut at_ticket = std::ffi::OsString::from("@");
        at_ticket.push(&ticket);
        let mut ready = Vec::new();
        for number in 1..=self.receivers {
            let receiver = program("receiver", number)?.args(["receive", "--json", "--fsync=no"]);
            let receiver = receiver.args(self.label(number));
            let receiver =
                receiver.args(&self.args.receive_args).arg(&at_ticket).arg(self.dir(number).join("copy"));
            ready.push(receiver.ready(&self.dir(number), limit)?);
        }
        let mut sender = sender.go()?;
        sender.wait_for_line("gave a ticket", |line| line.contains(r#""event":"ticket""#).then_some(()))?;
        let running = ready.into_iter().map(|receiver| receiver.go()).collect::<Outcome<Vec<_>>>()?;
        let receivers = running.into_iter().map(|receiver| receiver.finish()).collect::<Outcome<Vec<_>>>()?;
        // It serves until it is told to end.
        let mut finished = vec![sender.stop()?];
        finished.extend(receivers);
        Ok(finished)
    }

    /// Tells a host where it is, if that matters.
    fn label(&self, number: usize) -> Vec<String> {
        match self.args.zones > 1 && !self.args.no_labels {
            true => vec!["--label".into(), format!("zone{}", number % self.args.zones)],
            false => Vec::new(),
        }
    }

    /// Where a host keeps everything: 0 is the source.
    fn dir(&self, number: usize) -> PathBuf {
        self.run.join(number.to_string())
    }
}
