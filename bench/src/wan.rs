//! Whole transfers over an emulated long link: Sealift and rsync in turn, between two network namespaces.
//!
//! `options` is what is asked for, `contestant` is who takes part, `turn` is one of its turns on a link of its own.

mod contestant;
mod options;
mod turn;

pub use options::WanArgs;

use crate::data::{self, DataSet};
use crate::failure::{Outcome, failure};
use crate::output;
use crate::place::{Place, remove};
use crate::results::{Missing, Race, Report, Round};
use crate::units::show_seconds;
use contestant::Contestant;
use turn::Turn;

/// Runs the command. Whether every result counts.
pub fn run(args: &WanArgs) -> Outcome<bool> {
    let args = &args.clone().settled();
    args.check()?;
    let place = Place::open(args.dir.as_deref())?;
    let mut report = Report::begin("wan", Some(place.dir()));
    let mut contestants = Vec::new();
    for name in &args.tools {
        match Contestant::find(name, args.sealift.as_deref(), args.connections) {
            Ok(found) => contestants.push(found),
            Err(reason) => report.missing.push(Missing { tool: name.clone(), reason }),
        }
    }
    for missing in &report.missing {
        eprintln!("missing: {} ({})", missing.tool, missing.reason);
    }
    if contestants.is_empty() {
        return failure("none of the tools is here");
    }
    // So that every tool makes files of the same modes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for spec in args.specs() {
        eprintln!("Data set {spec}: making or checking it ...");
        let data = data::prepare(spec, &place.data())?;
        let (race, problems) = race(args, &contestants, &data, &place)?;
        print!("{}", output::race_as_text(&race));
        report.races.push(race);
        report.problems.extend(problems);
        // Kept as it grows: an interrupted series is not lost.
        args.output.write(&report)?;
    }
    place.clear_runs()?;
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

/// All contestants with one data set, round after round, in an order that moves on by one each round. There is no warm-up:
/// the link is slower than the machine.
fn race(
    args: &WanArgs,
    contestants: &[Contestant],
    data: &DataSet,
    place: &Place,
) -> Outcome<(Race, Vec<String>)> {
    let mut race = Race {
        title: format!("{} over {}", data.spec, args.title()),
        bytes: data.tree.bytes() * args.flows as u64,
        files: if data.tree.files() > 1 { data.tree.files() * args.flows as u64 } else { 0 },
        contestants: contestants.iter().map(Contestant::result).collect(),
        ..Race::default()
    };
    place.check_room(
        (data.tree.bytes() + 4096 * data.tree.files()) * args.flows as u64,
        "choose another --dir",
    )?;
    eprintln!("{}", race.title);
    let mut problems = Vec::new();
    for round in 1..=args.rounds {
        for turn in 0..contestants.len() {
            let at = (turn + round as usize) % contestants.len();
            let contestant = &contestants[at];
            let run = place.new_run(&format!("{}-{round}", contestant.name))?;
            place.settle()?;
            let done = Turn { args, contestant, data, run: &run, round }.run();
            let shown = format!("round {round}/{}", args.rounds);
            match done {
                Ok((done, commands)) => {
                    eprintln!("  {shown:<12} {:<18} {}", contestant.name, line(&done));
                    race.contestants[at].rounds.push(done);
                    race.contestants[at].commands = commands;
                }
                Err(failure) => {
                    eprintln!("  {shown:<12} {:<18} failed: {failure}", contestant.name);
                    problems.push(format!("{}, {shown}, {}: {failure}", race.title, contestant.name));
                }
            }
            remove(&run)?;
        }
    }
    race.finish();
    Ok((race, problems))
}

fn line(round: &Round) -> String {
    let Some(wan) = &round.wan else { return show_seconds(round.seconds) };
    let cut_off = if wan.cut_off { ", cut off" } else { "" };
    let percent = |share: &f64| format!("{:.0} %", 100.0 * share);
    let mut others = match wan.shares[..] {
        [] => String::new(),
        _ => format!(", copies had {}", wan.shares.iter().map(percent).collect::<Vec<_>>().join(" and ")),
    };
    if let Some(beside) = wan.beside_megabits_per_second {
        others += &format!(", beside {beside:.1} Mb/s");
    }
    format!(
        "{:>10}  {:>7.1} Mb/s  round trip {:.2} ×{others}{cut_off}",
        show_seconds(round.seconds),
        wan.megabits_per_second,
        wan.round_trip_inflation
    )
}
