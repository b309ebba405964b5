//! The command line of `sealift-control`.
//!
//! Owns where things are in the data directory, and how the master key is had. Commands beside `serve` work on the
//! database itself, on the daemon's own host, while it serves or not; they are in the audit log as `cli:USER`.

use crate::ca::Authority;
use crate::db::audit::{self, Outside};
use crate::db::{Actor, Db, DbError, MasterKey, agents, backup, users};
use crate::serve::{Listening, ServeOptions, serve};
use clap::{Args, Parser, Subcommand};
use sealift_api::rest::{Name, NewEnrolmentToken, NewUser, Role};
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

const DATABASE: &str = "control.db";
/// Made beside the database, for those who have it open.
const DATABASE_LOCK: &str = "control.db.lock";
/// What agents have logged.
const LOGS: &str = "logs.db";
const MASTER_KEY: &str = "master.key";
const RECOVERY: &str = "recovery.sealed";

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
    Init(Init),
    /// Serve agents on 8444 and their logs on 8445, and the API on 8443
    Serve(Serve),
    /// Show the authority's certificate (PEM): what browsers and `curl --cacert` have to trust, and agents pin
    Authority {
        #[command(flatten)]
        place: Place,
    },
    /// Tokens by which agents enrol
    #[command(subcommand)]
    Token(Token),
    /// Agents
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Users
    #[command(subcommand)]
    User(UserCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Copy the database, while the daemon serves or not
    Backup(Backup),
    /// Put a backup in the place of the database, while the daemon does not serve
    Restore(Backup),
}

#[derive(Debug, Args)]
struct Place {
    /// Where the daemon keeps everything
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The master key's credential, as systemd gives it, instead of a file in the data directory
    #[arg(long, value_name = "NAME")]
    master_credential: Option<String>,
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    place: Place,
    /// The first administrator's name
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: Name,
    /// Take the first administrator's password from standard input, instead of making one and showing it
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Where the API is
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:8443")]
    web: SocketAddr,
    /// Where agents dial
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:8444")]
    agents: SocketAddr,
    /// Where agents bring their logs; they are told the port, and dial the host that they know
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:8445")]
    logs: SocketAddr,
    /// A name or address by which people reach this host; may be repeated
    #[arg(long = "name", value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
    names: Vec<String>,
    /// Write the addresses to this file once every port is open
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Make one, and show it
    Create {
        #[command(flatten)]
        place: Place,
        /// What it is for
        #[arg(long, value_name = "NAME")]
        name: Name,
        /// Agents that bring it are let in at once, instead of waiting for an operator
        #[arg(long)]
        approve: bool,
        /// The group that they join
        #[arg(long, value_name = "NAME")]
        group: Option<Name>,
        /// How many agents may use it
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// How long it holds
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        expires_in: u32,
    },
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// List them
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Let one in that waits
    Approve(OneAgent),
    /// Shut one out for good
    Revoke(OneAgent),
    /// Let one in again that is quarantined
    Release(OneAgent),
}

#[derive(Debug, Args)]
struct OneAgent {
    #[command(flatten)]
    place: Place,
    /// Its name
    agent: Name,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add one; the password comes from standard input
    Add {
        #[command(flatten)]
        place: Place,
        /// The name
        user: Name,
        /// administrator, operator or viewer
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Let one try to log in again who failed too often
    Unlock {
        #[command(flatten)]
        place: Place,
        /// The name
        user: Name,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Prove that no record was changed or taken away
    Verify {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Backup {
    #[command(flatten)]
    place: Place,
    /// The backup
    file: PathBuf,
}

type Done = Result<ExitCode, Box<dyn std::error::Error>>;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sealift-control: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Done {
    match command {
        Command::Init(options) => init(&options),
        Command::Serve(options) => serving(options),
        Command::Authority { place } => {
            let authority = Authority::load(&place.open()?)?;
            say(&format!("SHA-256 {}\n{}", authority.fingerprint(), authority.pem().trim_end()))
        }
        Command::Token(Token::Create { place, name, approve, group, uses, expires_in }) => {
            let new = NewEnrolmentToken { name, approve, group, uses, expires_in_seconds: expires_in };
            let db = place.open()?;
            let made = db.write(&me(), |write| agents::create_token(write, &new))?;
            say(&made.secret)
        }
        Command::Agent(command) => agent(command),
        Command::User(UserCommand::Add { place, user, role }) => {
            let password = from_stdin()?;
            let new = NewUser { name: user, role, password: password.to_string() };
            users::create(&place.open()?, &me(), &new)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::User(UserCommand::Unlock { place, user }) => {
            users::unlock(&place.open()?, &me(), &user)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit(AuditCommand::Verify { place }) => {
            let report = audit::verify(&place.open()?)?;
            match &report.bad {
                None => {
                    say(&format!("whole: {} records, of which {} are signed", report.records, report.signed))
                }
                Some(bad) => {
                    Err(format!("the audit log is not whole: record {}: {}", bad.number, bad.what).into())
                }
            }
        }
        Command::Backup(Backup { place, file }) => {
            backup::backup(&place.open()?, &me(), &file)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Restore(Backup { place, file }) => {
            let restored =
                backup::restore(&file, &place.database(), &place.master()?, &Outside::default(), &me())?;
            // What agents were given after the backup is not known any more: the next hello of each is believed.
            drop(restored);
            let db = place.open()?;
            db.write(&me(), agents::forget_incarnations)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Place {
    fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE)
    }

    fn master(&self) -> Result<MasterKey, DbError> {
        match &self.master_credential {
            Some(name) => MasterKey::read_credential(name),
            None => MasterKey::read_file(&self.data_dir.join(MASTER_KEY)),
        }
    }

    fn open(&self) -> Result<Db, Box<dyn std::error::Error>> {
        if !self.database().exists() {
            let shown = self.data_dir.display();
            return Err(format!("{shown} has no daemon: make one with `sealift-control init`").into());
        }
        Db::open(&self.database(), self.master()?).map_err(|error| match error {
            DbError::Damaged(_) | DbError::TooNew { .. } => {
                format!("{error}. Nothing was changed. `sealift-control restore` puts a backup in its place")
                    .into()
            }
            error => error.into(),
        })
    }
}

fn init(options: &Init) -> Done {
    let place = &options.place;
    let shown = place.data_dir.display();
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&place.data_dir)
        .map_err(|error| format!("{shown}: {error}"))?;
    let files = [DATABASE, DATABASE_LOCK, MASTER_KEY, RECOVERY].map(|name| place.data_dir.join(name));
    if files.iter().any(|file| file.exists()) {
        return Err(format!("{shown} has a daemon already, or something of one").into());
    }
    make(options).inspect_err(|_| {
        // Half a daemon would be of no use, and in the way of a whole one. None of these was there before.
        for file in &files {
            let _ = std::fs::remove_file(file);
        }
    })
}

/// Makes everything, and shows at the end what is shown once.
fn make(options: &Init) -> Done {
    let place = &options.place;
    let password = if options.password_stdin { from_stdin()? } else { new_password()? };
    let master = if let Some(name) = &place.master_credential {
        MasterKey::read_credential(name)?
    } else {
        let master = MasterKey::generate()?;
        master.create_file(&place.data_dir.join(MASTER_KEY))?;
        master
    };
    let recovery = master.create_recovery(&place.data_dir.join(RECOVERY))?;
    let db = Db::create(&place.database(), master)?;
    let authority = Authority::create(&db, &me())?;
    let admin =
        NewUser { name: options.admin.clone(), role: Role::Administrator, password: password.to_string() };
    users::create(&db, &me(), &admin)?;
    let mut out = io::stdout().lock();
    writeln!(out, "The daemon's authority, for agents to pin:  {}", authority.fingerprint())?;
    if !options.password_stdin {
        writeln!(out, "The password of {}, shown this once:  {}", options.admin, *password)?;
    }
    writeln!(out, "The recovery key, shown this once; keep it apart from this host:  {recovery}")?;
    Ok(ExitCode::SUCCESS)
}

fn serving(options: Serve) -> Done {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SEALIFT_LOG").unwrap_or_else(|_| "info".into()),
        )
        .init();
    let db = options.place.open()?;
    let Serve { place, web, agents, logs, names, ready_file } = options;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let logs_file = place.data_dir.join(LOGS);
    let options = ServeOptions { web, agents, logs, logs_file, names };
    let ready = move |listening: Listening| {
        let Some(file) = ready_file else { return };
        let text = format!("web {}\nagents {}\nlogs {}\n", listening.web, listening.agents, listening.logs);
        if let Err(error) = put_file(&file, &text) {
            tracing::error!(%error, "the addresses could not be written to {}", file.display());
        }
    };
    runtime.block_on(serve(db, options, ready))?;
    Ok(ExitCode::SUCCESS)
}

/// A file that is there whole or not at all: others wait for it.
fn put_file(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

fn agent(command: AgentCommand) -> Done {
    let (OneAgent { place, agent: name }, change): (_, fn(&mut crate::db::Write<'_>, uuid::Uuid) -> _) =
        match command {
            AgentCommand::List { place } => return list_agents(&place),
            AgentCommand::Approve(one) => (one, |write, id| agents::approve(write, id).map(drop)),
            AgentCommand::Revoke(one) => (one, |write, id| agents::revoke(write, id).map(drop)),
            AgentCommand::Release(one) => (one, |write, id| agents::release(write, id).map(drop)),
        };
    place.open()?.write(&me(), |write| {
        let id = agents::by_name(write.tx(), &name)?.id;
        change(write, id)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list_agents(place: &Place) -> Done {
    let db = place.open()?;
    let mut after = None;
    loop {
        let page = db.read(|db| agents::list(db, &agents::AgentFilter::default(), after.as_deref(), 200))?;
        for agent in page.items {
            say(&format!("{:<30} {:<12} {}", agent.name, agent.state, agent.id))?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn say(text: &str) -> Done {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// Who runs this.
fn me() -> Actor {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    Actor::cli(&name.unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw())))
}

fn from_stdin() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Twenty letters and digits: 100 bits.
fn new_password() -> Result<Zeroizing<String>, io::Error> {
    let mut bytes = Zeroizing::new([0; 13]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(bytes.as_ref()).to_lowercase());
    text.truncate(20);
    Ok(text)
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "administrator, operator or viewer".into())
}
