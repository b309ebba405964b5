//! Whole transfers: Sealift and other tools in turn, each into a fresh destination, each copy checked.
//!
//! `options` is what is asked for, `course` is one race of it.

mod course;
mod options;

pub use options::TransferArgs;

use crate::failure::{Outcome, failure};
use crate::machine::version_of;
use crate::place::Place;
use crate::results::{Missing, Report};
use crate::tools::{self, Setup, Tool};
use crate::{data, output};
use course::Course;
use options::Plan;
use std::time::Duration;

/// Runs the command. Whether every result counts.
pub fn run(args: &TransferArgs) -> Outcome<bool> {
    let plan = args.plan()?;
    let place = Place::open(args.dir.as_deref())?;
    let (tools, missing) = find_tools(args, &plan, &place)?;
    // So that every tool makes files of the same modes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut report = Report::begin("transfer", Some(place.dir()));
    report.missing = missing;
    for tool in &tools {
        report.machine.tools.extend(tool.version().map(|version| (tool.name(), version)));
    }
    report.machine.tools.extend(version_of("ssh".as_ref(), &["-V"]).map(|version| ("ssh".into(), version)));
    for missing in &report.missing {
        eprintln!("missing: {} ({})", missing.tool, missing.reason);
    }
    for stage in &plan.stages {
        eprintln!("Data set {}: making or checking it ...", stage.spec);
        let data = data::prepare(stage.spec, &place.data())?;
        for &durable in &plan.durability {
            let course = Course {
                data: &data,
                place: &place,
                tools: &tools,
                durable,
                rounds: args.rounds,
                repeated: args.second_run,
                cache: args.cache,
                delete: args.delete,
                limit: Duration::from_secs(args.limit_seconds),
                point: stage.point.clone(),
            };
            let (race, problems) = course.run()?;
            print!("{}", output::race_as_text(&race));
            report.races.push(race);
            report.problems.extend(problems);
            // Kept as it grows: an interrupted series is not lost.
            args.output.write(&report)?;
        }
        if args.delete == options::Delete::Set {
            place.clear_runs()?;
        }
    }
    eprintln!("Deleting the copies ...");
    place.clear_runs()?;
    args.output.write(&report)?;
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

type Found = (Vec<Box<dyn Tool>>, Vec<Missing>);

fn find_tools(args: &TransferArgs, plan: &Plan, place: &Place) -> Outcome<Found> {
    let keys = place.dir().join("keys");
    let setup = Setup {
        dir: &keys,
        sealift: args.sealift.as_deref(),
        sealift_options: plan.sealift.clone(),
        wdt_args: args.wdt_args.clone(),
    };
    let (mut found, mut missing, mut ssh) = (Vec::new(), Vec::new(), None);
    for name in &plan.tools {
        match tools::find(name, &setup, &mut ssh) {
            Ok(tools) => found.extend(tools),
            // Without what this is all about, nothing is worth its time.
            Err(reason) if name == "sealift" => return failure(format!("sealift: {reason}")),
            Err(reason) => missing.push(Missing { tool: name.clone(), reason }),
        }
    }
    if args.second_run {
        found.retain(|tool| tool.can_repeat());
    }
    match found.is_empty() {
        true => failure("none of the tools is here"),
        false => Ok((found, missing)),
    }
}
