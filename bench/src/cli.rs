//! The command line: its words and exit codes.

use crate::aead::{self, AeadArgs};
use crate::disk::{self, DiskArgs};
use crate::failure::Outcome;
use crate::hash::{self, HashArgs};
use crate::report::{self, ReportArgs};
use crate::swarm::{self, SwarmArgs};
use crate::transfer::{self, TransferArgs};
use crate::wan::{self, WanArgs};
use crate::wire::{self, WireArgs};
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
    /// SHA-256 by every way this CPU has, beside other implementations, and BLAKE3.
    Hash(HashArgs),
    /// AES-GCM: sealing and opening, in place and from buffer to buffer.
    Aead(AeadArgs),
    /// Writing and reading a large file, and making small ones. Removes what it made.
    Disk(DiskArgs),
    /// TCP, plain and with TLS 1.3, over some connections.
    Wire(WireArgs),
    /// Whole transfers over an emulated long link, each copy checked. Needs root and iproute2.
    Wan(Box<WanArgs>),
    /// One source and many receivers on emulated hosts, each copy checked. Needs root and iproute2.
    Swarm(Box<SwarmArgs>),
    /// A page with tables and plots, of results that were kept as JSON.
    Report(ReportArgs),
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
        Command::Hash(args) => hash::run(&args),
        Command::Aead(args) => aead::run(&args),
        Command::Disk(args) => disk::run(&args),
        Command::Wire(args) => wire::run(&args),
        Command::Wan(args) => wan::run(&args),
        Command::Swarm(args) => swarm::run(&args),
        Command::Report(args) => report::run(&args),
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
