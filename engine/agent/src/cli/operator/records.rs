//! `sealift audit`, `sealift events` and `sealift logs`.

use super::ListArgs;
use super::schedule::time;
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::records::{self, AuditFilter, EventFilter, LogFilter};
use crate::operator::sealed_logs::Key;
use crate::seal::Passphrase;
use clap::{Args, Subcommand};
use sealift_api::rest::Severity;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Shows records, the newest first. --json shows also what was before and after.
    #[command(after_help = "Examples:\n  sealift audit list --action login --limit 20\n  \
        sealift audit list --actor user:ann --since 2026-11-01T00:00:00Z --json\n\n\
        `sealift-control audit verify` proves that no record was changed.")]
    List(AuditArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    /// Those whose action begins so
    #[arg(long, value_name = "WORDS")]
    action: Option<String>,
    /// Those of this actor, such as user:NAME, agent:NAME or system
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Those about this
    #[arg(long, value_name = "WHAT")]
    subject: Option<String>,
    /// Not before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Go on, and show what happens from now on
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    list: ListArgs,
}

/// What events and logs are about.
#[derive(Debug, Args)]
struct Which {
    /// Those that matter so much: info, warning, error or security
    #[arg(long, value_parser = severity)]
    severity: Option<Severity>,
    /// Those of this agent, by name or id
    #[arg(long)]
    agent: Option<String>,
    /// Those of this job, by name or id
    #[arg(long)]
    job: Option<String>,
    /// Those of this run, by id, or of the newest of a job
    #[arg(long)]
    run: Option<String>,
}

impl From<Which> for EventFilter {
    fn from(which: Which) -> Self {
        Self { severity: which.severity, agent: which.agent, job: which.job, run: which.run }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// Those with this text in them
    text: Option<String>,
    /// Not before this time, by the agent's clock
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    #[command(flatten)]
    which: Which,
    /// Those that the daemon cannot read, opened with this private half of a KEK, which stays on this machine
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take the key's passphrase from the first line of a file [default: ask for it]
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
    /// Take it from standard input
    #[arg(long, requires = "key", conflicts_with = "passphrase_file")]
    passphrase_stdin: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs a command.
pub(super) async fn audit(command: AuditCommand) -> Result<Finish, RunError> {
    let AuditCommand::List(args) = command;
    let filter = AuditFilter {
        action: args.action,
        actor: args.actor,
        subject: args.subject,
        from_ms: args.since,
        until_ms: args.until,
    };
    records::audit(&mut Api::logged_in()?, filter, args.list.newest()).await
}

/// Runs the command.
pub(super) async fn events(args: EventsArgs) -> Result<Finish, RunError> {
    let listing = args.list.newest();
    records::events(&mut Api::logged_in()?, args.which.into(), listing, args.follow).await
}

/// Runs the command.
pub(super) async fn logs(args: LogsArgs) -> Result<Finish, RunError> {
    let filter =
        LogFilter { events: args.which.into(), text: args.text, from_ms: args.since, until_ms: args.until };
    let passphrase = Passphrase::of(args.passphrase_file, args.passphrase_stdin);
    let key = args.key.map(|file| Key { file, passphrase });
    records::logs(&mut Api::logged_in()?, filter, key, args.list.newest()).await
}

fn severity(word: &str) -> Result<Severity, String> {
    Severity::from_word(word).ok_or_else(|| "info, warning, error or security".into())
}
