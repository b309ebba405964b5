//! The `sealift-bench` binary: measures Sealift beside other tools (`transfer`), over emulated networks (`wan`,
//! `swarm`), and what its stages cost (`hash`, `aead`, `disk`, `wire`).
//!
//! Owns how figures are taken: contestants take turns in the same run, every figure is the median over rounds, a
//! ratio is taken within a round. Never is a part of Sealift: nothing depends on it.
#![forbid(unsafe_code)]

mod aead;
mod cli;
mod data;
mod disk;
mod hash;
mod html;
mod machine;
mod measure;
mod output;
mod place;
mod report;
mod results;
mod stats;
mod swarm;
mod tools;
mod transfer;
mod tree;
mod turns;
mod units;
mod wan;
mod wire;

use sealift_bench::failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else takes memory: see `measure::child`.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "measure") {
        return measure::child::main(&args.collect::<Vec<_>>());
    }
    cli::main()
}
