//! What can be asked of `wan`.

use crate::data::{Shape, Spec};
use crate::failure::{Outcome, failure};
use crate::output::OutputArgs;
use crate::units::{parse_rate, parse_share, parse_time, show_rate};
use clap::{Args, ValueEnum};
use sealift_bench::emulated::LinkSpec;
use std::path::PathBuf;
use std::time::Duration;

/// Copies at once, at most.
const FLOWS_MAX: u64 = 8;

/// The command line of `wan`.
#[derive(Clone, Debug, Args)]
pub struct WanArgs {
    /// A link and data sets by name, instead of --rate, --rtt, --loss and --data: p9 is 200M, 100ms and 1% with large:256MiB; p9b
    /// is 1G, 100ms and 0.5% with large:1GiB; p9b-small is p9's link with small:100000:10000B
    #[arg(long, value_enum, conflicts_with_all = ["rate", "rtt", "loss", "data"])]
    pub preset: Option<Preset>,
    /// Bits a second of the link, in each direction: 200M, 1G
    #[arg(long, value_name = "RATE", default_value = "200M", value_parser = parse_rate)]
    pub rate: u64,
    /// The round trip of the empty link: 100ms, 1s
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_time)]
    pub rtt: Duration,
    /// What share of the packets is lost at random, in each direction
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = parse_share)]
    pub loss: f64,
    /// How long a packet may wait for the link; those that would have to wait for longer are dropped
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_time)]
    pub queue: Duration,
    /// By how much the delay grows and shrinks, in each direction
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = parse_time)]
    pub jitter: Duration,
    /// What share of the packets comes 1 to 10 ms late, overtaken by others
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = parse_share)]
    pub reorder: f64,
    /// What is copied: large:SIZE, small:COUNT, small:COUNT:SIZE or mixed:SIZE; may be repeated
    #[arg(long, value_name = "DATA", default_values = ["large:256MiB"])]
    pub data: Vec<Shape>,
    /// What data and losses are made from: the same seed makes the same
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Who takes turns: sealift-tcp-CONTROL and rsync-CONTROL, where CONTROL is a congestion control of the kernel, and
    /// sealift-quic
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(default_values = ["sealift-quic", "sealift-tcp-bbr", "sealift-tcp-cubic", "rsync-bbr", "rsync-cubic"])]
    pub tools: Vec<String>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Copies at once, each by a sender and a receiver of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=FLOWS_MAX))]
    pub flows: usize,
    /// Meanwhile, a TCP connection with this congestion control sends as fast as it may, as in --beside cubic
    #[arg(long, value_name = "CONTROL")]
    pub beside: Option<String>,
    /// Sets a variable of the network on both hosts, as in net.ipv4.tcp_wmem='4096 16384 33554432'; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Copies must be on the disk when a tool is done
    #[arg(long)]
    pub fsync: bool,
    /// Sealift's data connections [default: the program's own]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// The sealift program [default: the one beside this program, else the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub sealift: Option<PathBuf>,
    /// Where data sets and copies are [default: $TMPDIR/sealift-bench]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long one turn may take, in seconds. What takes longer is cut off, and counted by how fast it was until then
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_seconds: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Links and data sets that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// A long link that loses.
    P9,
    /// A fast one.
    P9b,
    /// Many small files over the first.
    P9bSmall,
}

impl WanArgs {
    /// The same, as its preset has it.
    #[must_use]
    pub fn settled(mut self) -> Self {
        let Some(preset) = self.preset.take() else { return self };
        let (rate, loss, shape) = match preset {
            Preset::P9 => (200_000_000, 0.01, Shape::Large(256 << 20)),
            Preset::P9b => (1_000_000_000, 0.005, Shape::Large(1 << 30)),
            Preset::P9bSmall => {
                (200_000_000, 0.01, Shape::Small { files: 100_000, bytes_each: Some(10_000) })
            }
        };
        Self { rate, rtt: Duration::from_millis(100), loss, data: vec![shape], ..self }
    }

    /// That it makes sense, as far as the command line's own rules do not say it.
    pub fn check(&self) -> Outcome<()> {
        match self.sysctl.iter().find(|one| !one.contains('=')) {
            Some(one) => failure(format!("--sysctl {one}: write NAME=VALUE")),
            None => Ok(()),
        }
    }

    /// Either direction of the link.
    pub fn link(&self) -> LinkSpec {
        LinkSpec {
            rate: self.rate,
            delay: self.rtt / 2,
            jitter: self.jitter,
            loss: self.loss,
            reorder: self.reorder,
            queue: self.queue,
        }
    }

    /// The mean round trip of the empty link.
    pub fn empty_round_trip(&self) -> Duration {
        // Half of the jitter, each way.
        self.rtt + self.jitter
    }

    /// Data sets.
    pub fn specs(&self) -> impl Iterator<Item = Spec> + '_ {
        self.data.iter().map(|shape| Spec { shape: *shape, seed: self.seed, compressible: false })
    }

    /// The link in words.
    pub fn title(&self) -> String {
        let millis = |time: Duration| format!("{} ms", time.as_micros() as f64 / 1000.0);
        let mut title = format!(
            "{}, round trip {}, {} % lost, queue {}",
            show_rate(self.rate),
            millis(self.rtt),
            // Without the digits that a division left.
            (self.loss * 1e6).round() / 1e4,
            millis(self.queue)
        );
        if !self.jitter.is_zero() {
            title += &format!(", jitter {}", millis(self.jitter));
        }
        if self.reorder > 0.0 {
            title += &format!(", {} % reordered", (self.reorder * 1e6).round() / 1e4);
        }
        if self.flows > 1 {
            title += &format!(", {} copies at once", self.flows);
        }
        if let Some(control) = &self.beside {
            title += &format!(", beside TCP with {control}");
        }
        title
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WanArgs,
    }

    fn args(line: &[&str]) -> Result<WanArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("wan").chain(line.iter().copied())).map(|line| line.args)
    }

    #[test]
    fn defaults_are_a_long_link_with_losses() {
        let args = args(&[]).unwrap();
        args.check().unwrap();
        assert_eq!(args.title(), "200 Mb/s, round trip 100 ms, 1 % lost, queue 100 ms");
        let link = args.link();
        assert_eq!((link.rate, link.delay, link.loss), (200_000_000, Duration::from_millis(50), 0.01));
        assert_eq!(args.tools.len(), 5);
        assert_eq!(args.specs().count(), 1);
    }

    #[test]
    fn presets_are_links_with_data() {
        let of = |name: &str| args(&["--preset", name]).unwrap().settled();
        let shown = |args: &WanArgs| (args.title(), args.specs().next().unwrap().to_string());
        let long = "200 Mb/s, round trip 100 ms, 1 % lost, queue 100 ms".to_owned();
        let fast = "1 Gb/s, round trip 100 ms, 0.5 % lost, queue 100 ms".to_owned();
        assert_eq!(shown(&of("p9")), (long.clone(), "large:256MiB".into()));
        assert_eq!(shown(&of("p9b")), (fast, "large:1GiB".into()));
        assert_eq!(shown(&of("p9b-small")), (long, "small:100000:10000B".into()));
        assert!(args(&["--preset=p9b", "--rate=2G"]).is_err());
    }

    #[test]
    fn what_is_unusual_is_in_the_title() {
        let args = args(&[
            "--rate=1G",
            "--loss=0.5%",
            "--jitter=2.5ms",
            "--reorder=3%",
            "--flows=2",
            "--beside=cubic",
        ]);
        assert_eq!(
            args.unwrap().title(),
            "1 Gb/s, round trip 100 ms, 0.5 % lost, queue 100 ms, jitter 2.5 ms, 3 % reordered, 2 copies at once, \
             beside TCP with cubic"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [&["--loss=2"][..], &["--rate=0"], &["--rtt=100"], &["--flows=0"], &["--rounds=0"]] {
            assert!(args(line).is_err(), "{line:?}");
        }
        assert!(args(&["--sysctl=net.core.rmem_max"]).unwrap().check().is_err());
    }
}
