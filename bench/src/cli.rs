//! The command line: its words and exit codes.

use crate::failure::Outcome;
use crate::transfer::{self, TransferArgs};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXIT_CODES: &str = "Exit codes: 0 measured, 1 something failed or a copy was wrong, 2 the command makes no sense.\n\
    Measure on a machine that does nothing else, with programs built with --release.";

/// Measures Sealift beside other tools, and what its stages cost.
#[derive(Debug, Parser)]
#[command(name = "sealift-bench", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whole transfers by Sealift and other tools, in turn, each copy checked.
    Transfer(Box<TransferArgs>),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // clap prints usage errors and exits with 2, help with 0.
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("sealift-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<bool> {
    match command {
        Command::Transfer(args) => transfer::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
