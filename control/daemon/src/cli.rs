//! The command line of `sealift-control`.
//!
//! Owns the words. Commands beside `serve` work on the database itself, on the daemon's own host, while it serves or not
//! (where that is not so, they say so); they are in the audit log as `cli:USER`.
//!
//! - `place`: which daemon it is about, and how its master key is had; `secret`: what people type, or keep in files
//! - `init`, `keys`, `backup`, `serve`, `config`: the daemon's life
//! - `agents`, `users`, `audit`: what is in it
//! - `tracker`: one without a daemon

mod agents;
mod audit;
mod backup;
mod config;
mod init;
mod keys;
mod place;
mod secret;
mod serve;
mod tracker;
mod users;

use crate::ca::Authority;
use crate::config::ConfigError;
use crate::db::DbError;
use clap::{Parser, Subcommand};
use place::Place;
use sealift_api::rest::Page;
use serde::Serialize;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit code of a command or a configuration that makes no sense.
const WRONG: u8 = 2;

/// The control daemon of Sealift: who may replicate what.
#[derive(Debug, Parser)]
#[command(name = "sealift-control", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new daemon: its authority, its keys, its database, its first administrator
    Init(init::Init),
    /// Serve agents on 8444 and their logs on 8445, the API on 8443, and a tracker on 3000
    Serve(Box<serve::Serve>),
    /// Serve a tracker alone, by which members of jobs find each other; without a daemon
    Tracker(tracker::TrackerOptions),
    /// Show the authority's certificate (PEM): what browsers and `curl --cacert` have to trust, and agents pin
    Authority {
        #[command(flatten)]
        place: Place,
    },
    /// The configuration
    #[command(subcommand)]
    Config(Box<config::ConfigCommand>),
    /// Tokens by which agents enrol
    #[command(subcommand)]
    Token(agents::Token),
    /// Agents
    #[command(subcommand)]
    Agent(agents::AgentCommand),
    /// Users
    #[command(subcommand)]
    User(users::UserCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The master key, under which the database's secrets are sealed
    #[command(subcommand)]
    Master(keys::Master),
    /// Make the master key anew that was lost, or whose passphrase is forgotten. The daemon is stopped meanwhile
    Recover(keys::Recover),
    /// Copy the database, while the daemon serves or not
    Backup(backup::Backup),
    /// Put a backup in the place of the database, while the daemon does not serve
    Restore(backup::Restore),
}

type Done = Result<ExitCode, Box<dyn std::error::Error>>;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("sealift-control: {line}");
            }
            if error.is::<ConfigError>() { ExitCode::from(WRONG) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Done {
    match command {
        Command::Init(options) => init::init(&options),
        Command::Serve(options) => serve::serving(*options),
        Command::Tracker(options) => tracker::tracker(options),
        Command::Authority { place } => {
            let authority = Authority::load(&place.open()?)?;
            say(&format!("SHA-256 {}\n{}", authority.fingerprint(), authority.pem().trim_end()))
        }
        Command::Config(command) => config::config(*command),
        Command::Token(command) => agents::token(command),
        Command::Agent(command) => agents::agent(command),
        Command::User(command) => users::user(command),
        Command::Audit(command) => audit::audit(command),
        Command::Master(command) => keys::master(command),
        Command::Recover(options) => keys::recover(&options),
        Command::Backup(options) => backup::backup(&options),
        Command::Restore(options) => backup::restore(&options),
    }
}

fn say(text: &str) -> Done {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Says a whole list, a page at a time: as lines for people, or as JSON.
fn pages<T: Serialize>(
    json: bool,
    page: impl Fn(Option<&str>) -> Result<Page<T>, DbError>,
    line: impl Fn(&T) -> String,
) -> Done {
    let mut after: Option<String> = None;
    loop {
        let found = page(after.as_deref())?;
        for item in &found.items {
            say(&if json { serde_json::to_string(item)? } else { line(item) })?;
        }
        after = found.next;
        if after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// A time for people, in UTC.
fn time(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    at.unwrap_or_else(|_| ms.to_string())
}
