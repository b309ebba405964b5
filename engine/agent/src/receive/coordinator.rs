//! Joins the parts of a receiver: one loop that takes events, lets the [`Transfer`] decide, and starts what follows:
//! [`jobs`] on the workers and shards, and fetches over the connections of [`link`]. Payload never comes here.

mod carriers;
mod jobs;
mod link;
mod swarm;

use self::carriers::Carriers;
use self::link::{DataConnection, Link, Slot};
use self::swarm::Others;
use super::arrivals::Arrivals;
use super::data::Down;
use super::failure::{Failure, Trouble};
use super::local::{Context, Prepared};
use super::place::{self, Publisher};
use super::transfer::Transfer;
use super::{EVENTS_MAX, Event, ReceiveOptions, checkpoint};
use crate::discovery::Finder;
use crate::error::{Finish, RunError};
use crate::report::{Event as Told, Reporter};
use crate::shards::Shards;
use crate::swarm::{Share, Swarm};
use sealift_net::{Backoff, Dialer};
use sealift_proto::member::NodeId;
use sealift_proto::transfer::pull::ConnectionId;
use sealift_proto::wire::{Close, CloseCode, Finished, FrameKind};
use sealift_store::IoWorkers;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Fetches unanswered on one connection.
const FETCHES_PER_CONNECTION: usize = 16;
const TICK: Duration = Duration::from_millis(50);
/// How often it is looked whether anybody is served still.
const STAY_TICK: Duration = Duration::from_millis(250);

/// See the module.
pub struct Coordinator {
    options: ReceiveOptions,
    dialer: Dialer,
    finder: Finder,
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
    carriers: Carriers,
    /// Between tries to open a data connection, while none comes up.
    data_backoff: Backoff,
    connections: HashMap<ConnectionId, DataConnection>,
    next_connection: u32,
    transfer: Transfer,
    arrivals: Option<Arrivals>,
    /// If this receiver takes part in a swarm,
    swarm: Option<Arc<Swarm>>,
    /// hears what others have,
    others: Option<Others>,
    /// Bytes of content that came from them.
    from_others: u64,
    /// Dials of control connections, numbered from 1.
    dials: u64,
    /// and serves others, from the first session with the sender on.
    share: Option<Share>,
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
        swarm: Option<Arc<Swarm>>,
        so_far: SoFar,
    ) -> Result<Self, RunError> {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let me = swarm.as_ref().map_or(NodeId([0; 16]), |swarm| swarm.member.node);
        let mut transfer = Transfer::new(
            &options,
            FETCHES_PER_CONNECTION,
            (me, link::random()),
            context.clone(),
            Arc::clone(&reporter),
        );
        transfer.transferred_bytes = so_far.transferred_bytes;
        if swarm.is_some() {
            transfer.puller.expect_others();
        }
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
        let dialer = Dialer::new(options.ticket.ro_secret.clone())
            .with_transport(options.transport)
            .with_quic_connections(options.quic_connections)
            .with_limit(options.pace.down_most);
        let carriers = Carriers::new(options.transport);
        let ro = options.ticket.ro_secret.clone();
        let finder = Finder::new(options.discovery.clone(), ro, Arc::clone(&reporter));
        let now = Instant::now();
        Ok(Self {
            options,
            dialer,
            finder,
            context,
            publisher: Arc::new(publisher),
            workers,
            shards,
            reporter,
            events,
            events_in,
            started: so_far.started,
            link: Link::new(now),
            slots: Vec::new(),
            carriers,
            data_backoff: Backoff::new(),
            connections: HashMap::new(),
            next_connection: 0,
            transfer,
            arrivals: Some(arrivals),
            others: swarm.as_ref().map(|swarm| Others::new(swarm.member.node, now)),
            swarm,
            from_others: 0,
            dials: 0,
            share: None,
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
        let finish = self.finish().await?;
        self.stay().await;
        Ok(finish)
    }

    /// Goes on serving others for as long as that was asked for.
    async fn stay(&mut self) {
        let Some((share, swarm)) = self.share.as_mut().zip(self.swarm.as_ref()) else { return };
        if swarm.options.stay.is_zero() {
            return;
        }
        let message = "Everything is here; other receivers are served.".into();
        self.reporter.tell(&Told::Note { message });
        let mut ticks = interval(STAY_TICK);
        while share.idle_for() < swarm.options.stay {
            ticks.tick().await;
        }
    }

    /// Ends everything that still writes to staging, and waits until it has. What was fetched is written down first, so
    /// that the next run goes on from there.
    pub async fn shut_down(self) -> SoFar {
        let so_far = SoFar { started: self.started, transferred_bytes: self.transfer.transferred_bytes };
        let Self {
            mut workers_jobs,
            events,
            connections,
            link,
            mut transfer,
            context,
            options,
            workers,
            share,
            ..
        } = self;
        drop((events, connections, link));
        if let Some(share) = share {
            share.end().await;
        }
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
            Event::Control(number, heard) => self.peer_heard(number, heard),
            Event::DataUp(id, answered_in) => {
                let now = self.now_ms();
                if let Some(answered_in) = answered_in
                    && self.connections.get(&id).is_some_and(|connection| connection.of == 0)
                {
                    self.carriers.answered(answered_in);
                    self.tell_carrier();
                }
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.up_ms = Some(now);
                    connection.heard_ms.store(now, Ordering::Relaxed);
                }
                if let Some(peer) = self.peer_of(id) {
                    self.transfer.puller.connect(id, peer, now);
                }
            }
            Event::DataDown(id, down) => self.data_down(id, down)?,
            Event::Fetched(fetched) => {
                let now = self.now_ms();
                self.data_backoff.reset();
                self.came_over(fetched.connection, fetched.payload_bytes);
                self.transfer.fetched(fetched, now);
                self.ban()?;
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
            self.dial()?;
        }
        self.dial_others(now);
        self.look_elsewhere(now)?;
        for (id, connection) in &self.connections {
            // While the sender owes nothing, or we do not read, it is not silent.
            let owed_since = connection.owed_since_ms.load(Ordering::Relaxed);
            self.transfer.puller.handle_heard(*id, owed_since.min(self.now_ms()));
        }
        for id in self.transfer.puller.silent(self.now_ms()) {
            self.data_down(id, Down::Lost("the connection is silent".into()))?;
        }
        self.move_connections(now);
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

    /// Starts whatever can be started.
    async fn advance(&mut self) -> Result<(), RunError> {
        self.take_segments()?;
        if self.link.open.is_some() {
            self.grant_credit();
            self.open_connections().await?;
        }
        self.reject();
        self.connect_to_others(Instant::now()).await?;
        self.start_looks();
        self.start_preparations().await?;
        self.start_publishing();
        self.start_saving();
        self.send_fetches();
        if let Err(error) = self.transfer.shelve() {
            self.stop_sharing(&error);
        }
        Ok(())
    }

    /// Others are not served any more: what is told of them has no room. The transfer goes on.
    fn stop_sharing(&mut self, error: &std::io::Error) {
        let message = format!("other receivers are not served any more: {error}");
        self.reporter.tell(&Told::Warning { message });
        self.transfer.offer_nothing();
        self.share = None;
    }

    fn take_segments(&mut self) -> Result<(), RunError> {
        while self.transfer.wants_segments()
            && let Some(segment) = self.arrivals().pop()?
        {
            self.transfer.segment(&segment)?;
            if let Some(share) = &mut self.share
                && let Err(error) = share.add_segment(&segment)
            {
                self.stop_sharing(&error);
            }
        }
        Ok(())
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
        for message in self.options.owners.told() {
            self.reporter.tell(&Told::Warning { message });
        }
        if let Err(error) = self.transfer.shelve_all() {
            self.stop_sharing(&error);
        }
        self.tell_shared();
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
