//! `sealift receive`: fetches what a ticket offers and makes the destination the same.
//!
//! The manifest comes in on the control connection and is checked segment by segment ([`control`]). Each entry is
//! looked for at the destination ([`local`]); what is missing is asked of the data connections ([`data`]), verified,
//! staged, and published by the batch ([`place`]). The [`coordinator`] joins them and keeps the connections; the [`transfer`] owns all other state, and no payload.

mod control;
mod coordinator;
mod data;
mod entries;
mod local;
mod place;
mod transfer;

use crate::error::{Finish, RunError};
use crate::report::Reporter;
use crate::shards::Shards;
use clap::ValueEnum;
use coordinator::Coordinator;
use data::{Down, Fetched};
use local::{Found, Prepared};
use place::Placed;
use sealift_net::Dialer;
use sealift_proto::block::FileId;
use sealift_proto::ticket::Ticket;
use sealift_proto::transfer::pull::ConnectionId;
use sealift_store::{Backend, Durability, IoWorkers, Replica};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is verified before a file is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Every block, as it comes in, and the file's root over them.
    Stream,
    /// And every file again, read back from the disk after a sync.
    Readback,
}

/// What to receive, and how.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// Where from, and the keys.
    pub ticket: Ticket,
    /// Where to.
    pub dest: PathBuf,
    /// Whether it is on the disk when it is called done.
    pub durability: Durability,
    /// What is verified.
    pub verify: Verify,
    /// Data connections.
    pub connections: usize,
    /// Whether set-user-id, set-group-id and sticky bits are kept.
    pub keep_special_modes: bool,
    /// How long an unreachable sender is tried again.
    pub retry_for: Duration,
}

/// What the coordinator is told.
pub enum Event {
    /// The control connection of one dialling, by its number.
    Control(u64, control::Heard),
    /// A data connection is ready.
    DataUp(ConnectionId),
    /// A data connection has ended.
    DataDown(ConnectionId, Down),
    /// A fetch is answered.
    Fetched(Fetched),
    /// Files were looked for.
    Looked(Vec<(FileId, Found)>),
    /// A large file was prepared.
    Prepared(FileId, Prepared),
    /// Files were published.
    Placed(Vec<Placed>),
}

/// Events that may wait for the coordinator.
const EVENTS_MAX: usize = 1024;

/// How often it is looked whether the last job has ended, and for how long at most.
const SETTLE_TICK: Duration = Duration::from_millis(5);
/// See [`SETTLE_TICK`].
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Receives everything, or says why not.
///
/// # Errors
/// See [`RunError`].
pub async fn receive(options: ReceiveOptions, reporter: Arc<Reporter>) -> Result<Finish, RunError> {
    let backend = Backend::choose().map_err(|error| RunError::Usage(error.to_string()))?;
    let cannot_start = |error: std::io::Error| RunError::Failed(format!("cannot start threads: {error}"));
    let workers = IoWorkers::global().map_err(cannot_start)?;
    let replica = Replica::open(&options.dest).map_err(|error| RunError::Failed(error.to_string()))?;
    let replica = Arc::new(replica);
    let shards = Shards::start("sealift-receive", backend.backend).map_err(cannot_start)?;
    shards.describe(&backend, &reporter).await.map_err(cannot_start)?;
    let dialer = Dialer::new(options.ticket.ro_secret.clone());

    let mut coordinator = Coordinator::new(options, dialer, Arc::clone(&replica), workers, shards, reporter);
    let ended = tokio::select! {
        ended = coordinator.run() => ended,
        () = crate::send::interruption() => Err(RunError::Interrupted),
    };
    coordinator.shut_down().await;
    // Jobs that a worker has begun cannot be called back, and may yet create files in staging.
    let settled = async {
        while Arc::strong_count(&replica) > 1 {
            tokio::time::sleep(SETTLE_TICK).await;
        }
    };
    let _ = tokio::time::timeout(SETTLE_MAX, settled).await;
    if let Err(error) = replica.close()
        && ended.is_ok()
    {
        return Err(RunError::Failed(error.to_string()));
    }
    ended
}
