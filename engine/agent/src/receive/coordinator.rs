//! Joins the parts of a receiver: one loop that takes events, lets the [`Transfer`] decide, and starts what follows.
//!
//! Owns the control link and the data connections, their loss and their coming back. Payload never comes here.

use super::arrivals::Arrivals;
use super::control::{self, Heard, OUTBOX_MAX, Outgoing};
use super::data::{self, Down, FetchJob, is_busy};
use super::failure::{Failure, Trouble};
use super::local::{self, Context, Prepared};
use super::place::{self, Publisher};
use super::transfer::{Preparation, Transfer};
use super::{EVENTS_MAX, Event, ReceiveOptions, checkpoint};
use crate::error::{Finish, RunError};
use crate::report::{Event as Told, Reporter};
use crate::shards::Shards;
use sealift_net::{Backoff, DialErrorKind, Dialer};
use sealift_proto::limits::{CREDIT_SEGMENTS_MAX, DEAD_PEER_TIMEOUT_MS, FETCHES_OUTSTANDING_MAX};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::transfer::pull::ConnectionId;
use sealift_proto::wire::{Close, CloseCode, Credit, Finished, FrameKind};
use sealift_store::{Durability, IoWorkers};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Segments asked for ahead.
const CREDIT_AIM: u32 = 8;
/// Fetches unanswered on one connection.
const FETCHES_PER_CONNECTION: usize = 16;
/// Files that are looked for in one job, and jobs at a time.
const LOOKS_PER_JOB: usize = 256;
/// Jobs on the workers and shards at a time, publishing not counted.
const JOBS_MAX: usize = 16;
/// A batch of synced files is published when it is this large or old, or nothing else is left to do: a sync costs
/// the same for one as for many.
const SYNCED_BATCH: (usize, Duration) = (2048, Duration::from_millis(500));
/// The same for files that are not synced; the index is, all the same.
const UNSYNCED_BATCH: (usize, Duration) = (2048, Duration::from_millis(100));
/// Entries that the index is told of without anything being published.
const NOTES_MAX: usize = 4096;
const TICK: Duration = Duration::from_millis(50);
/// How long the sender is waited for when all is done.
const FAREWELL: Duration = Duration::from_secs(5);

/// See the module.
pub struct Coordinator {
    options: ReceiveOptions,
    dialer: Dialer,
    context: Context,
    publisher: Arc<Publisher>,
    workers: IoWorkers,
    shards: Arc<Shards>,
    reporter: Arc<Reporter>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    started: Instant,
    link: Link,
    slots: Vec<Slot>,
    /// Between tries to open a data connection, while none comes up.
    data_backoff: Backoff,
    connections: HashMap<ConnectionId, DataConnection>,
    next_connection: u32,
    transfer: Transfer,
    arrivals: Option<Arrivals>,
    /// Whether it was told that the manifest waits for room.
    manifest_waits: bool,
    publishing: bool,
    saving: bool,
    /// Jobs on the workers.
    workers_jobs: JoinSet<()>,
}

/// What goes on when the sender begins anew.
#[derive(Clone, Copy)]
pub struct SoFar {
    /// When the run began.
    pub started: Instant,
    /// Bytes of content that came over the wire.
    pub transferred_bytes: u64,
}

/// The control connection.
struct Link {
    number: u64,
    outbox: Option<mpsc::Sender<Outgoing>>,
    open: Option<(SocketAddr, [u8; 16])>,
    redial_at: Option<Instant>,
    backoff: Backoff,
    /// The snapshot with which the first session began.
    snapshot: Option<SegmentSeq>,
    /// Segments that were asked for and have not come.
    credit: u32,
    /// Since when the link is open, and whether any of the manifest came over it.
    open_since: Instant,
    has_given: bool,
    /// Since when nothing comes.
    down_since: Option<Instant>,
    last_failure: String,
}

impl Link {
    /// The control connection is over.
    fn shut(&mut self) {
        self.outbox = None;
        self.open = None;
        self.credit = 0;
    }
}

/// A place for a data connection.
enum Slot {
    /// Taken.
    Taken(ConnectionId),
    /// To be taken again then.
    Free(Instant),
    /// The sender gives no more.
    Refused,
}

struct DataConnection {
    jobs: mpsc::Sender<FetchJob>,
    heard_ms: Arc<AtomicU64>,
    owed_since_ms: Arc<AtomicU64>,
    /// Since when it is ready for fetches.
    up_ms: Option<u64>,
}

impl DataConnection {
    /// Whether any answer has come over it.
    fn has_given(&self) -> bool {
        self.up_ms.is_some_and(|up| self.heard_ms.load(Ordering::Relaxed) > up)
    }
}

impl Coordinator {
    /// A receiver that has not dialled yet.
    ///
    /// # Errors
    /// If the manifest cannot be kept.
    pub fn new(
        options: ReceiveOptions,
        context: Context,
        workers: IoWorkers,
        shards: Arc<Shards>,
        reporter: Arc<Reporter>,
        so_far: SoFar,
    ) -> Result<Self, RunError> {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let mut transfer =
            Transfer::new(&options, FETCHES_PER_CONNECTION, context.clone(), Arc::clone(&reporter));
        transfer.transferred_bytes = so_far.transferred_bytes;
        let key = options.ticket.verify_key.clone();
        let arrivals = Arrivals::new(&context.replica, key, context.memory.accepted())
            .map_err(|error| RunError::Failed(format!("cannot keep the manifest: {error}")))?;
        let publisher = Publisher {
            replica: Arc::clone(&context.replica),
            memory: Arc::clone(&context.memory),
            durability: options.durability,
            verify: options.verify,
            on_conflict: options.on_conflict,
        };
        let dialer = Dialer::new(options.ticket.ro_secret.clone());
        let now = Instant::now();
        Ok(Self {
            options,
            dialer,
            context,
            publisher: Arc::new(publisher),
            workers,
            shards,
            reporter,
            events,
            events_in,
            started: so_far.started,
            link: Link {
                number: 0,
                outbox: None,
                open: None,
                redial_at: Some(now),
                backoff: Backoff::new(),
                snapshot: None,
                credit: 0,
                open_since: now,
                has_given: false,
                down_since: Some(now),
                last_failure: "no address of the ticket was tried".into(),
            },
            slots: Vec::new(),
            data_backoff: Backoff::new(),
            connections: HashMap::new(),
            next_connection: 0,
            transfer,
            arrivals: Some(arrivals),
            manifest_waits: false,
            publishing: false,
            saving: false,
            workers_jobs: JoinSet::new(),
        })
    }

    /// Receives everything.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(&mut self) -> Result<Finish, RunError> {
        let received = self.receive().await;
        if let Err(error) = &received {
            let code = match error {
                RunError::Hostile { code, .. } => *code,
                _ => CloseCode::Internal,
            };
            self.farewell(FrameKind::Close, Close { code, reason: error.to_string() }.encode()).await;
            received?;
        }
        self.finish().await
    }

    /// Ends everything that still writes to staging, and waits until it has. What was fetched is written down first, so
    /// that the next run goes on from there.
    pub async fn shut_down(self) -> SoFar {
        let so_far = SoFar { started: self.started, transferred_bytes: self.transfer.transferred_bytes };
        let Self {
            mut workers_jobs, events, connections, link, mut transfer, context, options, workers, ..
        } = self;
        drop((events, connections, link));
        while workers_jobs.join_next().await.is_some() {}
        let (files, mark) = (transfer.take_checkpoint(), transfer.mark());
        if !files.is_empty() {
            let Context { replica, memory, .. } = context;
            let save = move || checkpoint::save(&replica, &memory, options.durability, files, mark);
            if let Ok(saved) = workers.run(save).await {
                transfer.jobs += 1;
                transfer.checkpointed(saved);
            }
        }
        drop(transfer);
        so_far
    }

    async fn receive(&mut self) -> Result<(), RunError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.transfer.is_complete() || self.waiting_segments() > 0 {
            tokio::select! {
                Some(event) = self.events.recv() => {
                    self.handle(event)?;
                    while let Ok(event) = self.events.try_recv() {
                        self.handle(event)?;
                    }
                }
                _ = ticks.tick() => self.tick()?,
            }
            self.advance().await?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Control(number, heard) if number == self.link.number => self.heard(heard)?,
            Event::Control(..) => {}
            Event::DataUp(id) => {
                let now = self.now_ms();
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.up_ms = Some(now);
                    connection.heard_ms.store(now, Ordering::Relaxed);
                    self.transfer.puller.connect(id, now);
                }
            }
            Event::DataDown(id, down) => self.data_down(id, down)?,
            Event::Fetched(fetched) => {
                let now = self.now_ms();
                self.data_backoff.reset();
                self.transfer.fetched(fetched, now)?;
            }
            Event::Looked(found) => self.transfer.looked(found.map_err(fatal)?),
            Event::Prepared(id, prepared) => {
                if let Prepared::Failed(Failure { trouble: Trouble::Index, reason, .. }) = prepared {
                    return Err(RunError::Failed(reason));
                }
                self.transfer.prepared(id, prepared);
            }
            Event::Placed(placed) => {
                self.publishing = false;
                let (placed, set_aside) = placed.map_err(fatal)?;
                for message in set_aside {
                    self.reporter.tell(&Told::Warning { message });
                }
                self.transfer.placed(placed);
            }
            Event::Saved(saved) => {
                self.saving = false;
                self.transfer.checkpointed(saved.map_err(fatal)?);
            }
        }
        self.transfer.check_rewrites()
    }

    fn arrivals(&mut self) -> &mut Arrivals {
        self.arrivals.as_mut().expect("there until the end")
    }

    fn waiting_segments(&self) -> usize {
        self.arrivals.as_ref().map_or(0, Arrivals::waiting)
    }

    fn heard(&mut self, heard: Heard) -> Result<(), RunError> {
        match heard {
            Heard::Open { address, welcome } => {
                if *self.link.snapshot.get_or_insert(welcome.snapshot) != welcome.snapshot {
                    // By our numbers it would give other files.
                    return Err(RunError::NewSnapshot);
                }
                self.link.open = Some((address, welcome.session));
                self.transfer.puller.bound_fetches(welcome.fetches_outstanding as usize);
                let now = Instant::now();
                self.link.open_since = now;
                self.link.has_given = false;
                self.slots = (0..self.options.connections).map(|_| Slot::Free(now)).collect();
                self.reporter.tell(&Told::Connected { peer: address.to_string() });
            }
            Heard::Segment(bytes) => {
                if self.link.credit == 0 {
                    let what = "more of the manifest came than was asked for".to_owned();
                    return Err(RunError::Hostile { code: CloseCode::Flood, what });
                }
                self.link.credit -= 1;
                self.arrivals().push(&bytes)?;
                self.link.has_given = true;
                self.link.backoff.reset();
                self.take_segments()?;
            }
            Heard::Closed(Close { code, reason }) => {
                self.link.outbox = None;
                return self.closed(code, &reason);
            }
            Heard::Lost(reason) => self.link_lost(reason),
            Heard::Broken(code, what) => {
                self.link.shut();
                return Err(RunError::Hostile { code, what });
            }
            Heard::Rejected => {
                self.link.shut();
                return Err(RunError::NotAuthorized(
                    "not authorized: the sender does not take this key".into(),
                ));
            }
            Heard::Failed(error) => match error.kind() {
                DialErrorKind::Unreachable => self.link_lost(error.to_string()),
                // Of several addresses one may belong to somebody else, while the right one is down.
                _ if error.may_pass() => self.link_lost(error.to_string()),
                _ => return Err(error.into()),
            },
        }
        Ok(())
    }

    fn closed(&mut self, code: CloseCode, reason: &str) -> Result<(), RunError> {
        match code {
            CloseCode::Busy | CloseCode::UnknownSession => {
                self.link_lost(format!("the sender is busy: {reason}"));
                Ok(())
            }
            CloseCode::ShuttingDown => {
                self.link.shut();
                Err(RunError::Unreachable("the sender was stopped before everything was here".into()))
            }
            CloseCode::Version => {
                self.link.shut();
                Err(RunError::Failed(format!("the sender speaks another version of the protocol: {reason}")))
            }
            _ => {
                self.link.shut();
                Err(RunError::Failed(format!("the sender closed the session ({code:?}): {reason}")))
            }
        }
    }

    /// The session is over; it is dialled again later.
    fn link_lost(&mut self, reason: String) {
        if self.link.open.is_some() {
            let message = format!("the connection was lost ({reason}); trying again");
            self.reporter.tell(&Told::Warning { message });
        }
        self.link.shut();
        self.link.redial_at = Some(Instant::now() + self.link.backoff.next_delay(random()));
        self.link.last_failure = reason;
        self.slots.clear();
        for id in std::mem::take(&mut self.connections).into_keys() {
            self.transfer.puller.disconnect(id);
        }
    }

    fn data_down(&mut self, id: ConnectionId, down: Down) -> Result<(), RunError> {
        if self.connections.remove(&id).is_none() {
            return Ok(());
        }
        self.transfer.puller.disconnect(id);
        let refused = is_busy(&down);
        match down {
            Down::Broken(what) => return Err(RunError::Hostile { code: CloseCode::Protocol, what }),
            Down::Closed(Close { code, reason }) => self.link.last_failure = format!("{code:?}: {reason}"),
            Down::Failed(reason) => return Err(RunError::Failed(format!("a task failed: {reason}"))),
            Down::Lost(reason) => self.link.last_failure = reason,
        }
        let others = !self.connections.is_empty();
        for slot in &mut self.slots {
            if matches!(slot, Slot::Taken(of) if *of == id) {
                *slot = if refused && others {
                    Slot::Refused
                } else {
                    Slot::Free(Instant::now() + self.data_backoff.next_delay(random()))
                };
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), RunError> {
        self.reporter.tell(&self.transfer.progress());
        self.transfer.give_up_waiting();
        self.transfer.release();
        if self.link.open.is_some() {
            self.arrivals().check()?;
        }
        self.keep_manifest()?;
        while let Some(ended) = self.workers_jobs.try_join_next() {
            ended.map_err(|error| RunError::Failed(format!("a job failed: {error}")))?;
        }
        let now = Instant::now();
        if self.link.redial_at.is_some_and(|at| at <= now) {
            self.dial();
        }
        for (id, connection) in &self.connections {
            // While the sender owes nothing, or we do not read, it is not silent.
            let owed_since = connection.owed_since_ms.load(Ordering::Relaxed);
            self.transfer.puller.handle_heard(*id, owed_since.min(self.now_ms()));
        }
        for id in self.transfer.puller.silent(self.now_ms()) {
            self.data_down(id, Down::Lost("the connection is silent".into()))?;
        }
        self.check_contact(now)
    }

    /// Tries to keep what of the manifest found no room on the disk.
    fn keep_manifest(&mut self) -> Result<(), RunError> {
        let Some(since) = self.arrivals().full_since() else { return Ok(()) };
        if self.arrivals().make_room()? {
            if std::mem::take(&mut self.manifest_waits) {
                self.reporter.tell(&Told::Resumed);
            }
        } else if self.options.wait_for_space.is_some_and(|max| since.elapsed() >= max) {
            return Err(RunError::Failed(
                "cannot keep the manifest: there is no room for it on the disk".into(),
            ));
        } else if !std::mem::replace(&mut self.manifest_waits, true) {
            self.reporter.tell(&Told::Paused { reason: "there is no room for the manifest".into() });
        }
        Ok(())
    }

    /// Gives up once nothing has come for too long: no answers while some are owed, and no manifest either.
    fn check_contact(&mut self, now: Instant) -> Result<(), RunError> {
        let dead = Duration::from_millis(DEAD_PEER_TIMEOUT_MS);
        let is_open = self.link.open.is_some();
        let in_contact = is_open
            && if self.transfer.space.full || self.manifest_waits {
                // We ask for nothing.
                true
            } else if self.transfer.puller.is_idle() {
                self.link.has_given || now.duration_since(self.link.open_since) >= dead
            } else {
                self.connections.values().any(DataConnection::has_given)
            };
        if in_contact {
            self.link.down_since = None;
            return Ok(());
        }
        let since = *self.link.down_since.get_or_insert(now);
        // A dial in progress, and a connection that is not yet known to be dead, are waited for.
        let dialling = !is_open && self.link.redial_at.is_none();
        let patience = self.options.retry_for + if is_open { dead } else { Duration::ZERO };
        if !dialling && now.duration_since(since) >= patience {
            let message = format!("gave up on the sender: {}", self.link.last_failure);
            return Err(RunError::Unreachable(message));
        }
        Ok(())
    }

    fn dial(&mut self) {
        self.link.redial_at = None;
        self.link.number += 1;
        let (outbox, frames) = mpsc::channel(OUTBOX_MAX);
        self.link.outbox = Some(outbox);
        let taken_up = self.transfer.next_segment();
        let next_segment =
            self.arrivals.as_ref().map_or(taken_up, |arrivals| arrivals.next_after_loss(taken_up));
        tokio::spawn(control::run(
            self.link.number,
            self.dialer.clone(),
            self.options.ticket.addresses.clone(),
            next_segment,
            frames,
            self.events_in.clone(),
        ));
    }

    /// Starts whatever can be started.
    async fn advance(&mut self) -> Result<(), RunError> {
        self.take_segments()?;
        if self.link.open.is_some() {
            self.grant_credit();
            for reject in std::mem::take(&mut self.transfer.rejects) {
                // One that is not told costs the sender nothing but a look at its file.
                let _ = self.say(FrameKind::Reject, reject.encode());
            }
            self.open_connections().await?;
        }
        self.start_looks();
        self.start_preparations().await?;
        self.start_publishing();
        self.start_saving();
        self.send_fetches();
        Ok(())
    }

    fn take_segments(&mut self) -> Result<(), RunError> {
        while self.transfer.wants_segments()
            && let Some(segment) = self.arrivals().pop()?
        {
            self.transfer.segment(&segment)?;
        }
        Ok(())
    }

    fn grant_credit(&mut self) {
        const { assert!(CREDIT_AIM <= CREDIT_SEGMENTS_MAX) };
        // What is held back lies on the disk, and is taken up only when what follows has come.
        let waiting = match &self.arrivals {
            Some(arrivals) if arrivals.full_since().is_some() => return,
            Some(arrivals) if !arrivals.is_behind() => u32::try_from(arrivals.waiting()).unwrap_or(u32::MAX),
            _ => 0,
        };
        // In halves, so that credit is not granted segment by segment.
        if self.link.credit.saturating_add(waiting) <= CREDIT_AIM / 2 && self.transfer.wants_segments() {
            let segments = CREDIT_AIM - self.link.credit - waiting;
            if self.say(FrameKind::Credit, Credit { segments }.encode()) {
                self.link.credit += segments;
            }
        }
    }

    /// Puts a frame into the control connection's outbox. One that is full belongs to a sender that takes nothing,
    /// which the connection itself finds out. Whether there was room.
    fn say(&self, kind: FrameKind, body: Vec<u8>) -> bool {
        self.link.outbox.as_ref().is_some_and(|outbox| outbox.try_send((kind, body)).is_ok())
    }

    async fn open_connections(&mut self) -> Result<(), RunError> {
        let (Some((address, session)), Some(algorithm)) = (self.link.open, self.transfer.algorithm()) else {
            return Ok(());
        };
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if !matches!(self.slots[index], Slot::Free(at) if at <= now) {
                continue;
            }
            let id = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let (jobs, received) = mpsc::channel(FETCHES_OUTSTANDING_MAX);
            let heard_ms = Arc::new(AtomicU64::new(self.now_ms()));
            let owed_since_ms = Arc::new(AtomicU64::new(data::NOTHING_OWED));
            let task = data::Task {
                id,
                address,
                session,
                dialer: self.dialer.clone(),
                algorithm,
                replica: Arc::clone(&self.context.replica),
                events: self.events_in.clone(),
                heard_ms: Arc::clone(&heard_ms),
                owed_since_ms: Arc::clone(&owed_since_ms),
                started: self.started,
            };
            self.shards.spawn(move |io| data::run(io, task, received)).await.map_err(no_shard)?;
            self.connections.insert(id, DataConnection { jobs, heard_ms, owed_since_ms, up_ms: None });
            self.slots[index] = Slot::Taken(id);
        }
        Ok(())
    }

    fn start_looks(&mut self) {
        let Some(algorithm) = self.transfer.algorithm() else { return };
        while self.transfer.jobs < JOBS_MAX && !self.transfer.looks.is_empty() {
            let count = self.transfer.looks.len().min(LOOKS_PER_JOB);
            let looks: Vec<_> = self.transfer.looks.drain(..count).collect();
            self.transfer.jobs += 1;
            let (context, events) = (self.context.clone(), self.events_in.clone());
            let workers = self.workers.clone();
            self.workers_jobs.spawn(async move {
                let job = move || {
                    let found = local::look(&context, algorithm, &looks)?;
                    Ok(looks.iter().map(|look| look.id).zip(found).collect())
                };
                let _ = events.send(Event::Looked(workers.run(job).await)).await;
            });
        }
    }

    async fn start_preparations(&mut self) -> Result<(), RunError> {
        let Some(algorithm) = self.transfer.algorithm() else { return Ok(()) };
        while self.transfer.jobs < JOBS_MAX
            && !self.transfer.space.full
            && self.transfer.may_stage()
            && let Some(preparation) = self.transfer.preparations.pop_front()
        {
            self.transfer.jobs += 1;
            let (context, events) = (self.context.clone(), self.events_in.clone());
            match preparation {
                Preparation::Stage(large) => {
                    let workers = self.workers.clone();
                    self.workers_jobs.spawn(async move {
                        let id = large.id;
                        let staged = workers.run(move || local::stage(&context.replica, &large)).await;
                        let prepared = match staged {
                            Ok(staged) => {
                                Prepared::Staged { staged, present: Vec::new(), before: None, kept: false }
                            }
                            Err(error) => Prepared::Failed(Failure::from(&error)),
                        };
                        let _ = events.send(Event::Prepared(id, prepared)).await;
                    });
                }
                Preparation::Compare(large) => {
                    let prepare = move |io| async move {
                        let id = large.id;
                        // In a task of its own, so that a panic is an answer too.
                        let task = tokio::task::spawn_local(local::prepare(io, algorithm, context, large));
                        let prepared = task
                            .await
                            .unwrap_or_else(|error| Prepared::Failed(Failure::lasting(error.to_string())));
                        let _ = events.send(Event::Prepared(id, prepared)).await;
                    };
                    self.shards.spawn(prepare).await.map_err(no_shard)?;
                }
            }
        }
        Ok(())
    }

    fn start_publishing(&mut self) {
        let (files, age) = match self.options.durability {
            Durability::Synced => SYNCED_BATCH,
            Durability::Unsynced => UNSYNCED_BATCH,
        };
        let waiting = self.transfer.complete.len();
        let old = self.transfer.complete_since.is_some_and(|since| since.elapsed() >= age);
        let ripe = waiting > 0 && (waiting >= files || old || self.transfer.only_publishing());
        if self.publishing || !(ripe || self.transfer.notes.rows.len() >= NOTES_MAX) {
            return;
        }
        let batch = std::mem::take(&mut self.transfer.complete);
        let notes = self.transfer.take_notes();
        self.transfer.complete_since = None;
        self.publishing = true;
        self.transfer.jobs += 1;
        let (publisher, events, workers) =
            (Arc::clone(&self.publisher), self.events_in.clone(), self.workers.clone());
        self.workers_jobs.spawn(async move {
            let job = move || publisher.publish(batch, notes);
            let _ = events.send(Event::Placed(workers.run(job).await)).await;
        });
    }

    /// Tells the index what is here of unfinished files.
    fn start_saving(&mut self) {
        if self.saving || !self.transfer.checkpoint_due() {
            return;
        }
        let (files, mark) = (self.transfer.take_checkpoint(), self.transfer.mark());
        if files.is_empty() {
            return;
        }
        self.saving = true;
        self.transfer.jobs += 1;
        let (context, events, workers) = (self.context.clone(), self.events_in.clone(), self.workers.clone());
        let durability = self.options.durability;
        self.workers_jobs.spawn(async move {
            let job = move || checkpoint::save(&context.replica, &context.memory, durability, files, mark);
            let _ = events.send(Event::Saved(workers.run(job).await)).await;
        });
    }

    fn send_fetches(&mut self) {
        if self.transfer.space.full {
            return;
        }
        // In turn, so that no connection takes what the others could.
        let mut open: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| c.up_ms.is_some()).map(|(id, _)| *id).collect();
        while !open.is_empty() {
            open.retain(|&id| match self.transfer.next_fetch(id) {
                // The mailbox holds as many as may be unanswered; a closed one is about to be told.
                Some(job) => self.connections[&id].jobs.try_send(job).is_ok(),
                None => false,
            });
        }
    }

    /// Puts the last things in place, tells the sender, and tells the user.
    async fn finish(&mut self) -> Result<Finish, RunError> {
        let closing = self.transfer.closing();
        let (publisher, mark) = (Arc::clone(&self.publisher), closing.notes.mark);
        // What is repaired is a part: the manifest stays that of the whole.
        let arrivals = self.arrivals.take().filter(|_| self.options.repair.is_none());
        let finish = move || {
            let closed = place::close(&publisher, closing)?;
            if let Some(arrivals) = arrivals {
                arrivals.commit().map_err(|error| format!("the manifest cannot be kept: {error}"))?;
                if let Some(mark) = mark {
                    let noted = publisher.memory.manifest_is_put(mark);
                    noted.map_err(|error| {
                        format!("the manifest's place in its chain cannot be kept: {error}")
                    })?;
                }
            }
            Ok(closed)
        };
        let closed = self.workers.run(finish).await.map_err(RunError::Failed)?;
        for message in closed.warnings {
            self.reporter.tell(&Told::Warning { message });
        }
        for (path, reason) in closed.failures {
            self.transfer.lost(&path, &reason);
        }
        let finished = Finished {
            files: self.transfer.done.files + closed.links,
            bytes: self.transfer.done.bytes,
            bytes_transferred: self.transfer.transferred_bytes,
            failed: self.transfer.failed,
        };
        self.farewell(FrameKind::Finished, finished.encode()).await;
        for message in self.options.owners.tally.take() {
            self.reporter.tell(&Told::Warning { message });
        }
        let withheld = closed.withheld.is_some();
        if let Some(message) = closed.withheld {
            self.reporter.tell(&Told::Warning { message });
        }
        self.reporter.tell(&Told::Done {
            files: finished.files,
            bytes: finished.bytes,
            bytes_transferred: finished.bytes_transferred,
            seconds: self.started.elapsed().as_secs_f64(),
            failed: finished.failed,
            deleted: closed.deleted,
        });
        Ok(if finished.failed == 0 && !withheld { Finish::Complete } else { Finish::Partial })
    }

    /// Says one last thing and waits until the sender has closed, or a while. Everything is in place by now (or
    /// lost): nothing depends on it.
    async fn farewell(&mut self, kind: FrameKind, body: Vec<u8>) {
        let heard = async {
            while self.link.open.is_none() && kind == FrameKind::Finished {
                // The sender must not wait for a receiver that is done: it is told even after a break.
                if let Some(at) = self.link.redial_at.take() {
                    tokio::time::sleep_until(at.into()).await;
                    self.dial();
                }
                match self.events.recv().await {
                    Some(Event::Control(number, heard)) if number == self.link.number => {
                        if self.heard(heard).is_err() {
                            return;
                        }
                    }
                    Some(_) => {}
                    None => return,
                }
            }
            if self.link.open.is_none() {
                return;
            }
            let _ = self.say(kind, body);
            if kind == FrameKind::Close {
                self.link.outbox = None;
            }
            while let Some(event) = self.events.recv().await {
                if let Event::Control(number, Heard::Closed(_) | Heard::Lost(_) | Heard::Broken(..)) = event
                    && number == self.link.number
                {
                    return;
                }
            }
        };
        let _ = timeout(FAREWELL, heard).await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn fatal(failure: Failure) -> RunError {
    RunError::Failed(failure.reason)
}

fn no_shard(error: std::io::Error) -> RunError {
    RunError::Failed(error.to_string())
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter, and nothing worse.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
