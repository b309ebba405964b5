//! A tracker without a daemon.

use super::Done;
use super::serve::put_file;
use crate::ca::Authority;
use crate::tracker::{Tracker, TrackerTimes};
use clap::Args;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// The authority of the tracker, with its key.
const AUTHORITY: &str = "tracker.pem";

#[derive(Debug, Args)]
pub(super) struct TrackerOptions {
    /// Where it keeps its key, which is made at the first start
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where it is, TCP and UDP
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:3000")]
    listen: SocketAddr,
    /// Write the address and the pin to this file once the ports are open
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or directives of modules
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

pub(super) fn tracker(options: TrackerOptions) -> Done {
    let TrackerOptions { dir, listen, ready_file, log_level } = options;
    let filter = EnvFilter::try_new(&log_level)?;
    tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir);
    made.map_err(|error| format!("{}: {error}", dir.display()))?;
    let authority = Authority::in_file(&dir.join(AUTHORITY))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tracker = Tracker::bind(&authority, listen, TrackerTimes::default()).await?;
        let local = tracker.local_addr();
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "The tracker is at {local}. Members name it: --tracker HOST:{}#{}",
            local.port(),
            authority.fingerprint()
        )?;
        drop(out);
        if let Some(file) = ready_file {
            put_file(&file, &format!("tracker {local}\npin {}\n", authority.fingerprint()))?;
        }
        let (end, ending) = watch::channel(false);
        tokio::select! {
            () = tracker.run(ending) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        end.send_replace(true);
        Ok(ExitCode::SUCCESS)
    })
}
