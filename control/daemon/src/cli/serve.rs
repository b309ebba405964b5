//! The daemon's process: what it is told, its log, and the audit's checkpoints on their way out of the host.

use super::Done;
use super::place::Place;
use crate::config::{Config, LogFormat, Names, TrackerAt};
use crate::db::{Db, DbError, audit};
use crate::serve::{Listening, ServeOptions, serve};
use clap::Args;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// What agents have logged.
const LOGS: &str = "logs.db";
/// Chooses what is logged, as in the other program.
const LEVEL_VARIABLE: &str = "SEALIFT_LOG";

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    settings: Settings,
    /// Write the addresses to this file once every port is open
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What the file has too: here it wins.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Where the API is [default: [::]:8443]
    #[arg(long, value_name = "IP:PORT")]
    web: Option<SocketAddr>,
    /// Where agents dial [default: [::]:8444]
    #[arg(long, value_name = "IP:PORT")]
    agents: Option<SocketAddr>,
    /// Where agents bring their logs; they are told the port, and dial the host that they know [default: [::]:8445]
    #[arg(long, value_name = "IP:PORT")]
    logs: Option<SocketAddr>,
    /// Where the tracker is, by which members of jobs find each other, TCP and UDP [default: [::]:3000]
    #[arg(long, value_name = "IP:PORT|off")]
    tracker: Option<TrackerAt>,
    /// A name or address by which people reach this host; may be repeated [default: localhost, 127.0.0.1]
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// What is logged: error, warn, info, debug, trace, or directives of modules [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How lines of the log look [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Write each checkpoint of the audit to the end of this file, which is best kept on another host
    #[arg(long, value_name = "FILE")]
    checkpoint_file: Option<PathBuf>,
    /// Write each checkpoint of the audit to the log
    #[arg(long)]
    checkpoint_log: bool,
    /// How often there is one, if anything was recorded meanwhile [default: 300]
    #[arg(long, value_name = "SECONDS")]
    checkpoint_every: Option<u32>,
}

impl Settings {
    pub(super) fn apply(&self, config: &mut Config) {
        fn put<T: Clone>(said: &Option<T>, to: &mut T) {
            if let Some(said) = said {
                *to = said.clone();
            }
        }
        put(&self.web, &mut config.listen.web);
        put(&self.agents, &mut config.listen.agents);
        put(&self.logs, &mut config.listen.logs);
        put(&self.tracker, &mut config.listen.tracker);
        if !self.names.is_empty() {
            config.names = Names(self.names.clone());
        }
        put(&std::env::var(LEVEL_VARIABLE).ok(), &mut config.log.level);
        put(&self.log_level, &mut config.log.level);
        put(&self.log_format, &mut config.log.format);
        if self.checkpoint_file.is_some() {
            // The command line is about where it is typed, and the file is not.
            let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
            config.audit.checkpoint_file = self.checkpoint_file.as_ref().map(absolute);
        }
        config.audit.checkpoint_log |= self.checkpoint_log;
        put(&self.checkpoint_every, &mut config.audit.checkpoint_every_seconds);
    }
}

pub(super) fn serving(options: Serve) -> Done {
    let Serve { place, settings, ready_file } = options;
    let mut found = place.find()?;
    settings.apply(&mut found.config);
    let config = found.config.clone().sound()?;
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(EnvFilter::try_new(&config.log.level)?);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let db = found.open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let logs_file = config.data_dir.join(LOGS);
    let options = ServeOptions {
        web: config.listen.web,
        agents: config.listen.agents,
        logs: config.listen.logs,
        logs_file,
        tracker: config.listen.tracker.0,
        names: config.names.0,
    };
    let ready = move |listening: Listening| {
        let Some(file) = ready_file else { return };
        let Listening { web, agents, logs, tracker } = listening;
        let mut text = format!("web {web}\nagents {agents}\nlogs {logs}\n");
        if let Some(tracker) = tracker {
            text.push_str(&format!("tracker {tracker}\n"));
        }
        if let Err(error) = put_file(&file, &text) {
            tracing::error!(%error, "the addresses could not be written to {}", file.display());
        }
    };
    let outlet = Arc::new(Outlet {
        file: config.audit.checkpoint_file,
        log: config.audit.checkpoint_log,
        last: Mutex::new(0),
    });
    let every = Duration::from_secs(config.audit.checkpoint_every_seconds.into());
    if outlet.is_open() {
        // At once, so that a file that cannot be written is found when somebody looks.
        outlet.put(&db).map_err(|error| format!("the audit's checkpoints cannot be kept: {error}"))?;
    }
    runtime.block_on(async {
        let letting_out = tokio::spawn(let_out(db.clone(), Arc::clone(&outlet), every));
        let served = serve(db.clone(), options, ready).await;
        letting_out.abort();
        served
    })?;
    if outlet.is_open() {
        outlet.put(&db)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where checkpoints go.
struct Outlet {
    file: Option<PathBuf>,
    log: bool,
    /// The record of the one that went last.
    last: Mutex<i64>,
}

impl Outlet {
    fn is_open(&self) -> bool {
        self.file.is_some() || self.log
    }

    /// Signs what was recorded since the last one, and lets it out.
    fn put(&self, db: &Db) -> Result<(), DbError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let checkpoint = audit::checkpoint(db)?;
        if checkpoint.number <= *last {
            return Ok(());
        }
        if let Some(file) = &self.file {
            append(file, &format!("{checkpoint}\n"))
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        }
        if self.log {
            tracing::info!(%checkpoint, "the audit is signed");
        }
        *last = checkpoint.number;
        Ok(())
    }
}

async fn let_out(db: Db, outlet: Arc<Outlet>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    // The first is at once, and was done.
    ticks.tick().await;
    while outlet.is_open() {
        ticks.tick().await;
        let (db, outlet) = (db.clone(), Arc::clone(&outlet));
        match tokio::task::spawn_blocking(move || outlet.put(&db)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "a checkpoint of the audit could not be kept"),
        }
    }
}

fn append(file: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// A file that is there whole or not at all: others wait for it.
pub(super) fn put_file(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}
