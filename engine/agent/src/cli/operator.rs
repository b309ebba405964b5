//! The words of operators: `sealift login`, `job`, `kek`, `run`, `token`, `audit`, `events`, `logs`, `user`, and `agent list` and its like.

mod agents;
mod jobs;
mod keks;
mod records;
mod runs;
mod schedule;
mod tokens;
mod users;

pub(super) use agents::AgentsCommand;

use crate::error::{Finish, RunError};
use crate::managed::Pin;
use crate::operator::login::{self, LoginOptions};
use crate::operator::{Form, Listing, PasswordFrom, Trust};
use clap::{Args, Subcommand};
use sealift_api::rest::limits::API_TOKEN_SECONDS_MAX;
use sealift_api::rest::{Name, Role};
use std::path::PathBuf;

/// Records, events and runs that are shown if nothing else was asked for.
const NEWEST: usize = 50;

#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Logs in to a control daemon, so that the commands below can ask it.
    ///
    /// The daemon is believed by the authority that --pin or --ca names, and by nothing else. What is kept is a token that
    /// expires, in a file for you alone; the password is kept nowhere.
    #[command(after_help = "Examples:\n  sealift login control.example --user ann --pin sha256:1f2e...\n  \
        sealift login control.example:8443 --user ann --ca ca.pem --password-stdin < password\n\n\
        `sealift-control authority` shows the fingerprint and the certificate.\n\
        Scripts may set SEALIFT_API_TOKEN, SEALIFT_CONTROL (HOST[:8443]) and SEALIFT_CONTROL_PIN instead; what is not set \
        is taken from the login.")]
    Login(LoginArgs),
    /// Logs out: the token of the login ceases to hold, and is forgotten.
    Logout(LogoutArgs),
    /// Jobs: what is replicated from where to where.
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// KEKs: keys that what jobs seal can be read by.
    #[command(subcommand)]
    Kek(keks::KekCommand),
    /// Runs: jobs that are carried out.
    #[command(subcommand)]
    Run(runs::RunCommand),
    /// Tokens, by which hosts join and programs use the API.
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// The audit: who has done what.
    #[command(subcommand)]
    Audit(records::AuditCommand),
    /// What has happened, the oldest first.
    #[command(after_help = "Example:\n  sealift events --follow --severity error")]
    Events(records::EventsArgs),
    /// What agents have logged, the oldest first.
    #[command(after_help = "Example:\n  sealift logs --agent web-1 --severity warning 'no space'")]
    Logs(records::LogsArgs),
    /// Users of the API.
    #[command(subcommand)]
    User(users::UserCommand),
}

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The control daemon
    #[arg(value_name = "HOST[:8443]")]
    daemon: String,
    /// Who logs in
    #[arg(long, value_name = "NAME")]
    user: Name,
    /// SHA-256 of the certificate of the daemon's authority, as the daemon shows it
    #[arg(long, value_name = "FINGERPRINT", required_unless_present = "ca", conflicts_with = "ca")]
    pin: Option<Pin>,
    /// The certificate of the daemon's authority
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// What the login allows at most: viewer, operator or administrator [default: all that the user may do]
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// How long it holds
    #[arg(long, value_name = "SECONDS", default_value_t = 7 * 24 * 3600,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(API_TOKEN_SECONDS_MAX)))]
    expires_in: u32,
}

#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// Only forget the token, which holds until it expires: for a daemon that is gone
    #[arg(long)]
    forget: bool,
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FormArgs {
    /// Show the API's objects as JSON, one a line
    #[arg(long)]
    json: bool,
}

impl From<FormArgs> for Form {
    fn from(args: FormArgs) -> Self {
        if args.json { Self::Json } else { Self::People }
    }
}

/// How a list is shown, all of it unless something else is said.
#[derive(Clone, Copy, Debug, Args)]
struct ListArgs {
    /// Show no more than so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    form: FormArgs,
}

impl ListArgs {
    fn all(self) -> Listing {
        Listing { form: self.form.into(), limit: self.limit.map(count) }
    }

    /// Of a list that grows without end.
    fn newest(self) -> Listing {
        Listing { form: self.form.into(), limit: Some(self.limit.map_or(NEWEST, count)) }
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where a password comes from.
#[derive(Clone, Copy, Debug, Args)]
struct PasswordArgs {
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

impl From<PasswordArgs> for PasswordFrom {
    fn from(args: PasswordArgs) -> Self {
        if args.password_stdin { Self::Stdin } else { Self::Terminal }
    }
}

/// Runs a command.
pub(super) async fn run(command: OperatorCommand) -> Result<Finish, RunError> {
    match command {
        OperatorCommand::Login(args) => login::login(args.options()?).await,
        OperatorCommand::Logout(args) => login::logout(args.forget).await,
        OperatorCommand::Job(command) => jobs::run(command).await,
        OperatorCommand::Kek(command) => keks::run(command).await,
        OperatorCommand::Run(command) => runs::run(command).await,
        OperatorCommand::Token(command) => tokens::run(command).await,
        OperatorCommand::Audit(command) => records::audit(command).await,
        OperatorCommand::Events(args) => records::events(args).await,
        OperatorCommand::Logs(args) => records::logs(args).await,
        OperatorCommand::User(command) => users::run(command).await,
    }
}

/// Runs one of `sealift agent`.
pub(super) async fn run_agents(command: AgentsCommand) -> Result<Finish, RunError> {
    agents::run(command).await
}

impl LoginArgs {
    fn options(self) -> Result<LoginOptions, RunError> {
        let trust = match (self.pin, self.ca) {
            (Some(pin), _) => Trust::Pin(pin),
            (None, Some(file)) => Trust::read(&file)?,
            (None, None) => return Err(RunError::Usage("give --pin or --ca".into())),
        };
        Ok(LoginOptions {
            daemon: self.daemon,
            trust,
            user: self.user,
            password: PasswordArgs { password_stdin: self.password_stdin }.into(),
            role: self.role,
            expires_in_seconds: self.expires_in,
        })
    }
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "administrator, operator or viewer".into())
}
