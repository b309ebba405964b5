//! `sealift receive`: fetches what a ticket offers and makes the destination the same.
//!
//! The manifest comes in on the control connection and is checked segment by segment ([`control`]). Each entry is
//! looked for at the destination ([`local`]); what is missing is asked of the data connections ([`data`]), verified,
//! staged, and published by the batch ([`place`]). The [`coordinator`] joins them and keeps the connections; the [`transfer`] owns all other state, and no payload.

mod arrivals;
mod checkpoint;
mod control;
mod coordinator;
mod data;
mod delete;
pub(crate) mod entries;
mod failure;
mod gate;
mod local;
pub(crate) mod memory;
pub(crate) mod place;
mod transfer;

use crate::discovery::DiscoveryOptions;
use crate::error::{Finish, RunError};
use crate::pace::Pace;
use crate::preserve::{Aspect, Preserve};
use crate::report::{Event as Told, Reporter};
use crate::shards::Shards;
use crate::state::StateDir;
use crate::swarm::{Swarm, SwarmOptions};
use checkpoint::Checkpointed;
use clap::ValueEnum;
use coordinator::{Coordinator, SoFar};
use data::{Down, Fetched};
pub use delete::MaxDelete;
use failure::Failure;
use local::{Before, Context, Found, Prepared};
use place::Placed;
use sealift_net::Transport;
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::RootHash;
use sealift_proto::manifest::Attributes;
use sealift_proto::path::SafePath;
use sealift_proto::ticket::Ticket;
use sealift_proto::transfer::pull::ConnectionId;
use sealift_store::{
    AttributeMapper, Attributed, Backend, Capabilities, DroppedTally, Durability, Expected, IndexError,
    IoWorkers, LocalStat, MapperOptions, Wanted,
};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::SignalKind;

/// What is verified before a file is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Every block, as it comes in, and the file's root over them.
    Stream,
    /// And every file again, read back from the disk after a sync.
    Readback,
}

/// What becomes of a file that was edited here since it was put here, when the source has another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnConflict {
    /// It is kept under another name beside the new one.
    Rename,
    /// It is replaced.
    Overwrite,
    /// It stays, and counts as missing.
    Keep,
}

/// Files to be repaired, and nothing else to be touched.
#[derive(Debug, Default)]
pub struct Repair {
    /// The content that each is to have.
    files: HashMap<SafePath, Damaged>,
    /// Those of which the source has another version.
    others: Mutex<HashSet<SafePath>>,
}

/// A file to be repaired.
#[derive(Clone, Copy, Debug)]
pub struct Damaged {
    /// The size that it is to have.
    pub bytes: u64,
    /// The hash of the content that it is to have.
    pub root: RootHash,
    /// Its inode if nobody edited it: as it is, it is replaced without a copy.
    pub untouched: Option<LocalStat>,
}

impl Repair {
    /// Of these files.
    #[must_use]
    pub fn new(files: HashMap<SafePath, Damaged>) -> Self {
        Self { files, others: Mutex::default() }
    }

    /// Files of which the source has another version than they are to have.
    #[must_use]
    pub fn others(&self) -> HashSet<SafePath> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a file of the manifest is one of them, as far as is known of it.
    fn wants(&self, path: &SafePath, layout: Layout, root: Option<&RootHash>) -> bool {
        let Some(wanted) = self.files.get(path) else { return false };
        let is_it = wanted.bytes == layout.size_bytes() && root.is_none_or(|root| *root == wanted.root);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if is_it {
            others.remove(path);
        } else {
            others.insert(path.clone());
        }
        is_it
    }

    /// What it means to replace one of them: the check knows who edited it, unless somebody did so since.
    fn before(&self, path: &SafePath, before: Before) -> Before {
        let untouched = self.files.get(path).and_then(|wanted| wanted.untouched);
        match before.expected {
            Expected::Version(now) => {
                Before { edited: !untouched.is_some_and(|seen| seen.matches(&now)), ..before }
            }
            _ => before,
        }
    }
}

/// Sets owners, extended attributes and access control lists, and counts what could not be set.
#[derive(Clone, Debug)]
pub struct Owners {
    mapper: Arc<AttributeMapper>,
    tally: Arc<DroppedTally>,
}

impl Owners {
    /// By these options.
    ///
    /// # Errors
    /// An owner is mapped to an account that does not exist here.
    pub fn new(options: MapperOptions) -> Result<Self, RunError> {
        let mapper = AttributeMapper::new(options).map_err(|error| RunError::Usage(error.to_string()))?;
        Ok(Self { mapper: Arc::new(mapper), tally: Arc::default() })
    }

    /// What an entry is to have of what the manifest says of it, if anything at all.
    pub(crate) fn attributed(&self, attributes: &Attributes) -> Option<Attributed> {
        let (resolved, dropped) = self.mapper.resolve(attributes);
        self.tally.add(dropped);
        let any = self.mapper.kinds().any();
        any.then(|| Attributed::new(Arc::clone(&self.mapper), Arc::clone(&self.tally), resolved))
    }

    /// What could not be set, in words.
    pub(crate) fn told(&self) -> Vec<String> {
        self.tally.take()
    }
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
    /// How fast blocks are received, over all connections, and how fast others are served.
    pub pace: Pace,
    /// What the session goes over.
    pub transport: Transport,
    /// Data connections.
    pub connections: usize,
    /// QUIC connections that these share, where they go over QUIC.
    pub quic_connections: NonZeroUsize,
    /// Whether and how others are served.
    pub swarm: SwarmOptions,
    /// Whether set-user-id, set-group-id and sticky bits are kept.
    pub keep_special_modes: bool,
    /// How long an unreachable sender is tried again.
    pub retry_for: Duration,
    /// Where this host remembers what was received.
    pub state: StateDir,
    /// Whether the destination may be another than was there before.
    pub new_replica: bool,
    /// What is kept of the source's metadata.
    pub preserve: Preserve,
    /// How owners, attributes and lists are set.
    pub owners: Owners,
    /// What becomes of files that were edited here.
    pub on_conflict: OnConflict,
    /// Whether files are written through the page cache even where the file system can do without.
    pub page_cache: bool,
    /// Whether what is gone at the source is removed, and how much of it unasked.
    pub delete: Option<MaxDelete>,
    /// Asks a person whether so many of so many entries may be removed.
    pub ask: Option<fn(u64, u64) -> bool>,
    /// How many files that were put here before may be replaced.
    pub max_rewrite: Option<u64>,
    /// How long a full disk is waited for; `None`: as long as it takes.
    pub wait_for_space: Option<Duration>,
    /// Only these files are looked at.
    pub repair: Option<Arc<Repair>>,
    /// By what the sender is looked for when the ticket's addresses don't answer.
    pub discovery: DiscoveryOptions,
}

/// What the coordinator is told.
pub enum Event {
    /// The control connection of one dialling, by its number.
    Control(u64, control::Heard),
    /// A data connection is ready; and how long the other host's first answer took, if that says something.
    DataUp(ConnectionId, Option<Duration>),
    /// A data connection has ended.
    DataDown(ConnectionId, Down),
    /// A fetch is answered.
    Fetched(Fetched),
    /// Files were looked for.
    Looked(Result<Vec<(FileId, Found)>, Failure>),
    /// A large file was prepared.
    Prepared(FileId, Prepared),
    /// Files were published, and what was set aside for them.
    Placed(Result<(Vec<Placed>, Vec<String>), Failure>),
    /// The index was told of unfinished files.
    Saved(Result<Vec<Checkpointed>, Failure>),
}

/// Events that may wait for the coordinator.
const EVENTS_MAX: usize = 1024;

/// How often a sender may begin anew in one run, and how long it is waited then: a peer that only replays what others
/// signed must not keep a receiver busy for ever.
const RESTARTS_MAX: u32 = 32;
/// See [`RESTARTS_MAX`]; times their number.
const RESTART_DELAY: Duration = Duration::from_millis(50);

/// The signal for a file that exceeds what this process may write.
const SIGXFSZ: i32 = 25;

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
    let mut context = remember(&options, &reporter).await?;
    let shards = Arc::new(Shards::start("sealift-receive", backend.backend).map_err(cannot_start)?);
    shards.describe(&backend, &reporter).await.map_err(cannot_start)?;

    let swarm = match options.swarm.share.then(|| Swarm::listen(options.swarm.clone(), options.transport)) {
        Some(Ok(swarm)) => Some(Arc::new(swarm)),
        // Where nobody asked for a port, none is needed to receive.
        Some(Err(error)) if options.swarm.bind.is_none() => {
            let message = format!("other receivers are not served: {error}");
            reporter.tell(&Told::Warning { message });
            None
        }
        Some(Err(error)) => return Err(error),
        None => None,
    };

    // A file that may not grow any further is an error of that file (EFBIG), and not the end.
    let _too_large = tokio::signal::unix::signal(SignalKind::from_raw(SIGXFSZ));
    let mut interrupted = std::pin::pin!(crate::send::interruption());
    let mut so_far = SoFar { started: Instant::now(), transferred_bytes: 0 };
    let mut restarts = 0;
    let mut index_was_lost = false;
    let ended = loop {
        let (workers, shards) = (workers.clone(), Arc::clone(&shards));
        let coordinator = Coordinator::new(
            options.clone(),
            context.clone(),
            workers,
            shards,
            Arc::clone(&reporter),
            swarm.clone(),
            so_far,
        );
        let mut coordinator = coordinator?;
        let ended = tokio::select! {
            ended = coordinator.run() => ended,
            () = &mut interrupted => Err(RunError::Interrupted),
        };
        so_far = coordinator.shut_down().await;
        match ended {
            Err(RunError::NewSnapshot) if restarts < RESTARTS_MAX => {
                restarts += 1;
                tokio::time::sleep(RESTART_DELAY * restarts).await;
                let message = "The sender was started anew: everything is looked at again.".into();
                reporter.tell(&Told::Note { message });
            }
            Err(RunError::NewSnapshot) => {
                break Err(RunError::Failed("the sender begins anew again and again".into()));
            }
            Err(_) if !index_was_lost && context.memory.is_damaged() => {
                index_was_lost = true;
                context = begin_index_anew(context, &options, &reporter).await?;
            }
            ended => break ended,
        }
    };
    drop(shards);
    for message in options.owners.told() {
        reporter.tell(&Told::Warning { message });
    }
    // Jobs that a worker has begun cannot be called back, and may yet create files in staging.
    let settled = async {
        while Arc::strong_count(&context.replica) > 1 {
            tokio::time::sleep(SETTLE_TICK).await;
        }
    };
    let _ = tokio::time::timeout(SETTLE_MAX, settled).await;
    if let Err(error) = context.replica.close()
        && ended.is_ok()
    {
        return Err(RunError::Failed(error.to_string()));
    }
    ended
}

/// Goes on without an index that turned out to be damaged: it is made anew from what is there (hazard B11).
async fn begin_index_anew(
    context: Context,
    options: &ReceiveOptions,
    reporter: &Reporter,
) -> Result<Context, RunError> {
    let closed = async {
        while Arc::strong_count(&context.memory) > 1 {
            tokio::time::sleep(SETTLE_TICK).await;
        }
    };
    let _ = tokio::time::timeout(SETTLE_MAX, closed).await;
    let Context { replica, memory, capabilities } = context;
    drop(memory);
    let key = &options.ticket.verify_key;
    let memory = memory::open_index(&options.state, &options.dest, &replica, key, reporter).await?;
    Ok(Context { replica, memory: Arc::new(memory), capabilities })
}

/// Opens the destination with what is remembered of it, and sees to what earlier runs left.
async fn remember(options: &ReceiveOptions, reporter: &Reporter) -> Result<Context, RunError> {
    let key = &options.ticket.verify_key;
    let (replica, memory) =
        memory::open(&options.state, &options.dest, key, options.new_replica, reporter).await?;
    let failed = |error: IndexError| RunError::Failed(error.to_string());
    let staged = memory.staged_names().map_err(failed)?;
    let cleared = replica.clear_staging(&staged);
    cleared.map_err(|error| RunError::Failed(format!("cannot clear what was staged: {error}")))?;
    if memory.in_doubt() {
        let message =
            "The last run did not sync, and the machine was started anew since: everything is hashed.";
        reporter.tell(&Told::Note { message: message.into() });
    }
    if options.durability == Durability::Unsynced {
        let noted = memory.begin_unsynced();
        noted.map_err(|error| RunError::Failed(format!("cannot note that nothing is synced: {error}")))?;
    }
    let capabilities = Capabilities::probe(&replica);
    let kept = |aspect| options.preserve.has(aspect);
    let wanted = Wanted {
        modes: kept(Aspect::Mode),
        times: kept(Aspect::Times),
        symlinks: kept(Aspect::Links),
        hard_links: kept(Aspect::Hardlinks),
        sparse: kept(Aspect::Sparse),
        owner: kept(Aspect::Owner),
        xattrs: kept(Aspect::Xattrs),
        acls: kept(Aspect::Acls),
    };
    for sentence in capabilities.cannot_hold(&wanted) {
        reporter.tell(&Told::Warning { message: format!("{}: {sentence}", options.dest.display()) });
    }
    Ok(Context { replica, memory: Arc::new(memory), capabilities: Arc::new(capabilities) })
}
