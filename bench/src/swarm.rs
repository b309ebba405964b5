//! One source and many receivers, each on a host of its own with a link of its own: what the source has to send, and how
//! much longer many take than one.
//!
//! `turn` is one transfer to a number of receivers.

mod turn;

use crate::data::{self, Shape, Spec};
use crate::failure::{Failure, Outcome};
use crate::machine::version_of;
use crate::output::{self, OutputArgs};
use crate::place::{Place, remove};
use crate::results::{Contestant, Race, Report};
use crate::tools::sealift;
use crate::units::{parse_rate, parse_time, several, show_rate, show_seconds};
use clap::Args;
use sealift_bench::emulated::lan::ZONES_MAX;
use std::path::PathBuf;
use std::time::Duration;
use turn::Turn;

/// Receivers, at most.
const RECEIVERS_MAX: u64 = 64;

/// The command line of `swarm`.
#[derive(Clone, Debug, Args)]
pub struct SwarmArgs {
    /// Receivers at once; one alone takes turns with them
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=RECEIVERS_MAX))]
    pub receivers: usize,
    /// Bits a second of each host's link, in each direction: 200M, 1G
    #[arg(long, value_name = "RATE", default_value = "200M", value_parser = parse_rate)]
    pub rate: u64,
    /// Zones that hosts are in, in turn; the source is in the first, a receiver that is alone in the second
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=ZONES_MAX as u64))]
    pub zones: usize,
    /// Bits a second of the link between the first zone and each other, in each direction
    #[arg(long, value_name = "RATE", default_value = "50M", value_parser = parse_rate)]
    pub between: u64,
    /// Do not tell senders and receivers which zone they are in
    #[arg(long)]
    pub no_labels: bool,
    /// How long something may wait for a link
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_time)]
    pub queue: Duration,
    /// What is copied: large:SIZE, small:COUNT, small:COUNT:SIZE or mixed:SIZE
    #[arg(long, value_name = "DATA", default_value = "large:256MiB")]
    pub data: Shape,
    /// What the data are made from: the same seed makes the same bytes
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// More arguments of `sealift send`; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub send_args: Vec<String>,
    /// More arguments of `sealift receive`; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub receive_args: Vec<String>,
    /// The sealift program [default: the one beside this program, else the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub sealift: Option<PathBuf>,
    /// Where data sets and copies are [default: $TMPDIR/sealift-bench]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long one program may take, in seconds, until it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub limit_seconds: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Runs the command. Whether every result counts.
pub fn run(args: &SwarmArgs) -> Outcome<bool> {
    let place = Place::open(args.dir.as_deref())?;
    let program = sealift::find(args.sealift.as_deref()).map_err(Failure)?;
    let mut report = Report::begin("swarm", Some(place.dir()));
    let version = version_of(&program, &["--version"]);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let spec = Spec { shape: args.data, seed: args.seed, compressible: false };
    eprintln!("Data set {spec}: making or checking it ...");
    let data = data::prepare(spec, &place.data())?;
    let copies = args.receivers as u64;
    place.check_room((data.tree.bytes() + 4096 * data.tree.files()) * copies, "choose another --dir")?;
    let mut crowds = vec![1, args.receivers];
    crowds.dedup();
    let name = |receivers: usize| several(receivers as u64, "receiver");
    let mut race = Race {
        title: title(args, &spec),
        bytes: data.tree.bytes(),
        files: if data.tree.files() > 1 { data.tree.files() } else { 0 },
        contestants: crowds
            .iter()
            .map(|&receivers| Contestant { version: version.clone(), ..Contestant::new(name(receivers)) })
            .collect(),
        ..Race::default()
    };
    eprintln!("{}", race.title);
    for round in 1..=args.rounds {
        for (at, &receivers) in crowds.iter().enumerate() {
            let run = place.new_run(&format!("{receivers}-{round}"))?;
            place.settle()?;
            let done = Turn { args, program: &program, data: &data, run: &run, receivers, round }.run();
            let shown = format!("round {round}/{}  {}", args.rounds, name(receivers));
            match done {
                Ok((done, commands)) => {
                    let source = done.swarm.map_or(0.0, |swarm| swarm.source_share);
                    let seconds = show_seconds(done.seconds);
                    eprintln!("  {shown:<26} {seconds:>10}  {source:.2} × left the source");
                    race.contestants[at].rounds.push(done);
                    race.contestants[at].commands = commands;
                }
                Err(failure) => {
                    eprintln!("  {shown:<26} failed: {failure}");
                    report.problems.push(format!("{}, {shown}: {failure}", race.title));
                }
            }
            remove(&run)?;
        }
    }
    race.finish();
    print!("{}", output::race_as_text(&race));
    report.races.push(race);
    args.output.write(&report)?;
    place.clear_runs()?;
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

fn title(args: &SwarmArgs, spec: &Spec) -> String {
    let zones = match args.zones {
        1 => String::new(),
        zones => {
            let unknown = if args.no_labels { " that nobody knows of" } else { "" };
            format!(", {zones} zones{unknown} joined by {}", show_rate(args.between))
        }
    };
    format!("{spec} to hosts with {} each{zones}", show_rate(args.rate))
}
