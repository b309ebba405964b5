//! `sealift agent`: the words of managed agents, and where a token may come from.

use super::operator::{self, AgentsCommand};
use crate::error::{Finish, RunError};
use crate::managed::{self, JoinOptions, Pin};
use crate::report::Reporter;
use clap::{Args, Subcommand};
use sealift_proto::rate::{BothWays, Timetable};
use sealift_proto::ticket::Address;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Characters in an enrolment token.
const TOKEN_CHARS_MAX: usize = 512;
/// How a token begins.
const TOKEN_PREFIX: &str = "slenrol1";

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Makes this host an agent of a control daemon.
    ///
    /// Jobs may read and write nothing but what is within the directories that are named here, whatever the daemon says.
    #[command(
        after_help = "Example:\n  sealift agent join control.example --pin sha256:1f2e... --token @token.txt \\\n    \
        --allow-read /data --allow-write /data/copies\n\n\
        The daemon shows its fingerprint and makes tokens. The token may come from a file, from standard input (-) or \
        from SEALIFT_TOKEN, and never from the command line itself."
    )]
    Join(JoinArgs),
    /// Runs what the control daemon desires of this host, until it is stopped.
    ///
    /// While the daemon is away, runs go on, and what has happened is told later.
    #[command(
        after_help = "Examples:\n  sealift agent run\n  sealift agent run --bwlimit '08:00,10M:40M 18:00,off'"
    )]
    Run(RunArgs),
    /// Shows what this agent knows: who it is, what it may do, what is desired of it. No secrets.
    #[command(after_help = "Example:\n  sealift agent status --json")]
    Status(StatusArgs),
    #[command(flatten)]
    Agents(AgentsCommand),
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The control daemon
    #[arg(value_name = "HOST[:8444]")]
    daemon: String,
    /// SHA-256 of the certificate of the daemon's authority, as the daemon shows it
    #[arg(long, value_name = "FINGERPRINT")]
    pin: Pin,
    /// The enrolment token: @FILE, or - for standard input [default: SEALIFT_TOKEN]
    #[arg(long, value_name = "@FILE|-")]
    token: Option<OsString>,
    /// The name of the agent [default: that of the host]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A directory beneath which jobs may read; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_read: Vec<PathBuf>,
    /// A directory beneath which jobs may write; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_write: Vec<PathBuf>,
    /// Where other agents reach this host; the port is that of each source. May be repeated [default: its own addresses]
    #[arg(long, value_name = "HOST:PORT")]
    data_address: Vec<Address>,
    /// The ports on which sources listen, one each [default: any]
    #[arg(long, value_name = "A-B", value_parser = parse_ports)]
    data_ports: Option<(u16, u16)>,
    /// How long an operator's approval is waited for, in seconds [default: as long as it takes]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// How fast the blocks of all its runs together go, in each direction: RATE, UP:DOWN, or a timetable by this host's time
    /// of day, as with `sealift send`. Runs share it equally; what one may not use by its job's own limit the others get
    #[arg(long, value_name = "RATE|TIMETABLE")]
    bwlimit: Option<Timetable>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
pub(super) async fn run(
    command: AgentCommand,
    state_dir: Option<PathBuf>,
    reporter: &Reporter,
) -> Result<Finish, RunError> {
    match command {
        AgentCommand::Join(args) => managed::join(args.options(state_dir)?, reporter).await,
        AgentCommand::Run(args) => {
            let limits = args.bwlimit.unwrap_or_else(|| Timetable::always(BothWays::default()));
            managed::run(state_dir, limits, reporter).await
        }
        AgentCommand::Status(args) => managed::status(state_dir, args.json),
        AgentCommand::Agents(command) => operator::run_agents(command).await,
    }
}

impl JoinArgs {
    fn options(self, state_dir: Option<PathBuf>) -> Result<JoinOptions, RunError> {
        Ok(JoinOptions {
            daemon: self.daemon,
            pin: self.pin,
            token: read_token(self.token)?,
            name: self.name,
            state_dir,
            allow_read: self.allow_read,
            allow_write: self.allow_write,
            data_addresses: self.data_address.iter().map(ToString::to_string).collect(),
            data_ports: self.data_ports,
            wait: self.wait.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

fn read_token(argument: Option<OsString>) -> Result<Zeroizing<String>, RunError> {
    let text = match argument {
        Some(argument) => {
            let bytes = argument.as_encoded_bytes();
            if bytes != b"-" && !bytes.starts_with(b"@") {
                let what = "a token is a secret, and others can see command lines: give it as --token @FILE, with \
                    --token - on standard input, or in SEALIFT_TOKEN";
                return Err(RunError::Usage(what.into()));
            }
            read_secret(bytes.strip_prefix(b"@"))?
        }
        None => std::env::var("SEALIFT_TOKEN").map(Zeroizing::new).map_err(|_| {
            RunError::Usage("give the enrolment token with --token @FILE, --token - or SEALIFT_TOKEN".into())
        })?,
    };
    let token = text.trim();
    let right = token.len() <= TOKEN_CHARS_MAX
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && token.starts_with(TOKEN_PREFIX);
    match right {
        true => Ok(Zeroizing::new(token.to_owned())),
        false => {
            Err(RunError::Usage(format!("this is no enrolment token: one begins with '{TOKEN_PREFIX}'")))
        }
    }
}

/// The text of a file, or of standard input.
fn read_secret(file: Option<&[u8]>) -> Result<Zeroizing<String>, RunError> {
    let unreadable = |shown: &str, error: std::io::Error| {
        RunError::Usage(format!("cannot read the token from {shown}: {error}"))
    };
    // One that is longer is none.
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS_MAX * 2));
    let limit = TOKEN_CHARS_MAX as u64 + 64;
    match file {
        Some(path) => {
            let path = PathBuf::from(OsStr::from_bytes(path));
            let shown = path.display().to_string();
            let file = std::fs::File::open(&path).map_err(|error| unreadable(&shown, error))?;
            file.take(limit).read_to_string(&mut text).map_err(|error| unreadable(&shown, error))?;
        }
        None => {
            let stdin = std::io::stdin().lock();
            let read = stdin.take(limit).read_to_string(&mut text);
            read.map_err(|error| unreadable("standard input", error))?;
        }
    }
    Ok(text)
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || "two ports, the first not above the second: A-B".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_tokens_are_never_taken_from_the_command_line() {
        let error = read_token(Some("slenrol1secret".into())).unwrap_err();
        assert!(error.code() == 2 && !error.to_string().contains("slenrol1secret"), "{error}");
    }

    #[test]
    fn managed_tokens_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let mut argument = OsString::from("@");
        argument.push(&file);
        std::fs::write(&file, " slenrol1abc\n").unwrap();
        assert_eq!(*read_token(Some(argument.clone())).unwrap(), "slenrol1abc");
        std::fs::write(&file, "sealift1abc").unwrap();
        let error = read_token(Some(argument)).unwrap_err();
        assert!(error.code() == 2 && !error.to_string().contains("sealift1abc"), "{error}");
    }

    #[test]
    fn managed_port_ranges_are_ordered() {
        assert_eq!(parse_ports("4000-4010"), Ok((4000, 4010)));
        for text in ["", "1", "2-1", "0-1", "1-", "1-70000", "-1"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
    }
}
