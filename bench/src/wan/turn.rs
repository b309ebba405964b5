//! One turn: a link that nobody has used, one copy or several at once, and what the link and echoes saw of it.

use super::contestant::Contestant;
use super::options::WanArgs;
use crate::data::DataSet;
use crate::failure::{Failure, OrFailure as _, Outcome};
use crate::results::{Direction, Round, Wan};
use crate::tools::{Host, Hosts, Job, Ran};
use crate::tree::{Compared, Tree};
use sealift_bench::emulated::{Bulk, Echoes, End, Path, Probe, Tally};
use std::path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The flow of echoes; those of copies begin with 0.
const ECHOES: usize = 14;
/// The flow of what sends beside them.
const BESIDE: usize = 13;
/// Between echoes.
const EVERY: Duration = Duration::from_millis(20);

/// One turn of one contestant.
pub struct Turn<'a> {
    /// What was asked for.
    pub args: &'a WanArgs,
    /// Whose turn it is.
    pub contestant: &'a Contestant,
    /// What is copied.
    pub data: &'a DataSet,
    /// A directory of its own.
    pub run: &'a path::Path,
    /// From 1.
    pub round: u32,
}

/// How the copies went.
struct Copied {
    /// From the start of the first to the end of the last.
    seconds: f64,
    ran: Vec<Ran>,
    /// What there was from sender to receiver when the first copy was done.
    first_done: Tally,
    cut_off: bool,
}

impl Turn<'_> {
    /// Takes it: what it came to, and what was typed.
    pub fn run(self) -> Outcome<(Round, Vec<String>)> {
        let path = self.path()?;
        let beside = self.args.beside.as_deref().map(|control| Bulk::start(&path, BESIDE, control));
        let beside = beside.transpose()?;
        let probe = Probe::start(&path, ECHOES, EVERY)?;
        let copied = self.copies(&path)?;
        let tallies = path.tallies();
        let overrun = path.host(End::Near).datagrams_overrun()? + path.host(End::Far).datagrams_overrun()?;
        let echoes = probe.finish();
        drop(beside);
        path.check()?;
        for ran in copied.ran.iter().filter(|_| !copied.cut_off) {
            let compared = Compared { modes: self.contestant.tool.keeps_modes() };
            if let Some(difference) = self.data.tree.difference(&Tree::read(&ran.copy)?, compared) {
                return Err(Failure(format!("the copy is wrong: {difference}")));
            }
        }
        let mut wan = self.saw(&copied, &tallies, &echoes);
        wan.late_milliseconds_p99 = millis(path.late().permille(990));
        wan.datagrams_overrun = overrun;
        let ends = copied.ran.iter().flat_map(|ran| ran.ends.clone()).collect::<Vec<_>>();
        let cpu = ends.iter().map(|end| end.user_seconds + end.system_seconds).sum();
        let round = Round {
            round: self.round,
            seconds: self.bytes() * 8.0 / 1e6 / wan.megabits_per_second,
            cpu_seconds: (!copied.cut_off).then_some(cpu),
            ends,
            wan: Some(wan),
            swarm: None,
        };
        Ok((round, copied.ran.into_iter().flat_map(|ran| ran.commands).collect()))
    }

    fn path(&self) -> Outcome<Path> {
        // All contestants of a round meet the same.
        let seed = self.args.seed.wrapping_mul(1000).wrapping_add(self.round.into());
        let path = Path::new(self.args.link(), self.args.link(), seed)?;
        for end in [End::Near, End::Far] {
            path.host(end).set_congestion(&self.contestant.congestion)?;
            for (name, value) in self.args.sysctl.iter().filter_map(|one| one.split_once('=')) {
                path.host(end).sysctl(name, value)?;
            }
        }
        Ok(path)
    }

    fn copies(&self, path: &Path) -> Outcome<Copied> {
        let limit = Duration::from_secs(self.args.limit_seconds);
        let first_done = Mutex::new(None);
        let began = Instant::now();
        let copy = |flow: usize| {
            let host = |end| Host {
                namespace: Some(path.host(end).name().to_owned()),
                address: path.address(end, flow).into(),
            };
            let hosts = Hosts { sender: host(End::Near), receiver: host(End::Far) };
            let dir = self.run.join(flow.to_string());
            let (dest, scratch) = (dir.join("copy"), dir.join("scratch"));
            std::fs::create_dir_all(&scratch)
                .or_failure(|| format!("cannot create {}", scratch.display()))?;
            let ran = self.contestant.tool.run(&Job {
                source: &self.data.path,
                dest: &dest,
                scratch: &scratch,
                durable: self.args.fsync,
                repeated: false,
                limit,
                hosts: &hosts,
            });
            let mut first_done = first_done.lock().map_err(|_| Failure("a thread panicked".into()))?;
            first_done.get_or_insert_with(|| path.tallies()[0].clone());
            ran
        };
        let ran: Vec<Outcome<Ran>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.args.flows).map(|flow| scope.spawn(move || copy(flow))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|ran| ran.unwrap_or_else(|_| Err(Failure("a thread panicked".into())))).collect()
        });
        let took = began.elapsed();
        let first_done = first_done.into_inner().ok().flatten().unwrap_or_else(|| path.tallies()[0].clone());
        let cut_off = took >= limit && ran.iter().any(Result::is_err);
        if cut_off {
            let passed = path.tallies()[0].of(0..self.args.flows).passed().payload_bytes;
            // Without any rate, there is nothing to be said of it.
            if passed == 0 {
                return Err(Failure("nothing had arrived when its time was over".into()));
            }
            // It was not the link that it waited for.
            if passed as f64 > self.bytes()
                && let Some(Err(failure)) = ran.into_iter().find(Result::is_err)
            {
                return Err(Failure(format!("all had arrived, and it did not end: {failure}")));
            }
            return Ok(Copied { seconds: limit.as_secs_f64(), ran: Vec::new(), first_done, cut_off });
        }
        let ran = ran.into_iter().collect::<Outcome<Vec<_>>>()?;
        let seconds = ran.iter().map(|one| one.seconds).fold(0.0, f64::max);
        Ok(Copied { seconds, ran, first_done, cut_off })
    }

    /// Bytes of all copies.
    fn bytes(&self) -> f64 {
        self.data.tree.bytes() as f64 * self.args.flows as f64
    }

    fn saw(&self, copied: &Copied, tallies: &[Tally; 2], echoes: &Echoes) -> Wan {
        let flows = 0..self.args.flows;
        let passed = tallies[0].of(flows.clone()).passed().payload_bytes as f64;
        let carried = if copied.cut_off { passed } else { self.bytes() };
        let rate = carried * 8.0 / copied.seconds;
        let early: Vec<f64> =
            flows.clone().map(|flow| copied.first_done.flow(flow).passed().payload_bytes as f64).collect();
        let of_early = |bytes: &f64| bytes / early.iter().sum::<f64>().max(1.0);
        let mean = echoes.mean().unwrap_or_default();
        let queueing = &tallies[0].queueing;
        Wan {
            share: rate / self.args.rate as f64,
            megabits_per_second: rate / 1e6,
            waste: (!copied.cut_off).then(|| passed / carried - 1.0),
            round_trip_inflation: mean.as_secs_f64() / self.args.empty_round_trip().as_secs_f64().max(1e-6),
            round_trip_milliseconds: millis(mean),
            round_trip_milliseconds_p95: millis(echoes.percentile(95).unwrap_or_default()),
            queueing_milliseconds: [500, 950, 990].map(|permille| millis(queueing.permille(permille))),
            there: direction(&tallies[0], flows.clone()),
            back: direction(&tallies[1], flows.clone()),
            shares: if flows.len() > 1 { early.iter().map(of_early).collect() } else { Vec::new() },
            beside_megabits_per_second: self
                .args
                .beside
                .is_some()
                .then(|| tallies[0].flow(BESIDE).passed().payload_bytes as f64 * 8.0 / 1e6 / copied.seconds),
            cut_off: copied.cut_off,
            ..Wan::default()
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn direction(tally: &Tally, flows: std::ops::Range<usize>) -> Direction {
    let fates = tally.of(flows);
    Direction {
        packets: fates.offered.packets,
        bytes: fates.offered.bytes,
        payload_bytes: fates.offered.payload_bytes,
        lost_packets: fates.lost.packets,
        overflowed_packets: fates.overflowed.packets,
        lost_payload_bytes: fates.lost.payload_bytes + fates.overflowed.payload_bytes,
    }
}
