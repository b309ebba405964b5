//! Plays a scenario from the command line and prints what came of it.
#![forbid(unsafe_code)]

use clap::Parser;
use sealift_sim::Scenario;
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates one source and many receivers with Sealift's picker, in virtual time.
///
/// Example: `sealift-sim --receivers 1000 --runs 1000 --seed 7`
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    scenario: Scenario,
}

fn main() -> ExitCode {
    let Cli { scenario } = Cli::parse();
    let started = Instant::now();
    let report = sealift_sim::run(&scenario);
    print!("{report}");
    println!("took        {:.1} s of real time{}", started.elapsed().as_secs_f64(), memory());
    if report.unfinished == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The most memory that this process had.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or(String::new(), |peak| format!(", at most {} of memory", peak.trim()))
}
