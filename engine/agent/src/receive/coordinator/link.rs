//! The connections of a receiver to its sender: one for the manifest and what is said about it, others for content.
//!
//! Owns dialling, what a session begins and ends with, credit, and the judgement whether the sender is still there.

use super::Coordinator;
use super::carriers::LEAVE;
use super::swarm::{Others, info};
use crate::error::RunError;
use crate::receive::Event;
use crate::receive::control::{self, Heard, OUTBOX_MAX, Outgoing};
use crate::receive::data::{Down, FetchJob, NOTHING_OWED, is_busy};
use crate::receive::local::Context;
use crate::receive::transfer::SOURCE;
use crate::report::Event as Told;
use crate::swarm::{ReplicaShelf, Share};
use sealift_net::{Backoff, Carrier, DialError, DialErrorKind};
use sealift_proto::limits::{CREDIT_SEGMENTS_MAX, DEAD_PEER_TIMEOUT_MS, TICKET_ADDRESSES_MAX};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::member::NodeId;
use sealift_proto::session::hello;
use sealift_proto::ticket::Address;
use sealift_proto::transfer::pull::ConnectionId;
use sealift_proto::wire::{Channel, Close, CloseCode, Credit, FrameKind, Hello};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Segments asked for ahead.
const CREDIT_AIM: u32 = 8;
/// How long a dial may take before the sender is looked for elsewhere, too.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How long the sender is looked for where its addresses are somebody else's: who has no key is told soon.
const LOOK_ELSEWHERE: Duration = Duration::from_secs(6);
/// How long the sender is waited for when all is done.
const FAREWELL: Duration = Duration::from_secs(5);

/// The control connection.
pub(super) struct Link {
    pub(super) number: u64,
    outbox: Option<mpsc::Sender<Outgoing>>,
    pub(super) open: Option<(SocketAddr, [u8; 16])>,
    pub(super) redial_at: Option<Instant>,
    dialled_at: Instant,
    backoff: Backoff,
    /// The snapshot with which the first session began.
    pub(super) snapshot: Option<SegmentSeq>,
    /// Who is at the other end, and whether that is a receiver in the place of the source.
    pub(super) node: Option<NodeId>,
    pub(super) partial: bool,
    /// Whether others than the source were dialled, too.
    asks_others: bool,
    /// Dials in a row that came to nothing.
    failures: u32,
    /// Segments that were asked for and have not come.
    credit: u32,
    /// Since when the link is open, and whether any of the manifest came over it.
    open_since: Instant,
    has_given: bool,
    /// Since when nothing comes.
    down_since: Option<Instant>,
    last_failure: String,
    /// Since when somebody else answers at the ticket's addresses.
    strangers_since: Option<Instant>,
}

impl Link {
    /// To be dialled at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            number: 0,
            outbox: None,
            open: None,
            redial_at: Some(now),
            dialled_at: now,
            backoff: Backoff::new(),
            snapshot: None,
            node: None,
            partial: false,
            asks_others: false,
            failures: 0,
            credit: 0,
            open_since: now,
            has_given: false,
            down_since: Some(now),
            last_failure: "no address of the ticket was tried".into(),
            strangers_since: None,
        }
    }

    /// The control connection is over.
    fn shut(&mut self) {
        self.outbox = None;
        self.open = None;
        self.node = None;
        self.credit = 0;
    }
}

/// A place for a data connection.
pub(super) enum Slot {
    /// Taken.
    Taken(ConnectionId),
    /// To be taken again then.
    Free(Instant),
    /// The sender gives no more.
    Refused,
}

pub(super) struct DataConnection {
    /// 0 if it is the sender's; otherwise the number of the dial by which the peer was found.
    pub(super) of: u64,
    pub(super) jobs: mpsc::Sender<FetchJob>,
    pub(super) heard_ms: Arc<AtomicU64>,
    pub(super) owed_since_ms: Arc<AtomicU64>,
    /// Since when it is ready for fetches.
    pub(super) up_ms: Option<u64>,
    /// What it goes over.
    pub(super) carrier: Carrier,
    /// Since when it is to go: it gets no more fetches.
    pub(super) leaves: Option<Instant>,
}

impl DataConnection {
    /// Whether any answer has come over it.
    fn has_given(&self) -> bool {
        self.up_ms.is_some_and(|up| self.heard_ms.load(Ordering::Relaxed) > up)
    }
}
impl Coordinator {
    pub(super) fn heard(&mut self, heard: Heard) -> Result<(), RunError> {
        match heard {
            Heard::Open { address, carrier, answered_in, welcome } => {
                if *self.link.snapshot.get_or_insert(welcome.snapshot) != welcome.snapshot {
                    // By our numbers it would give other files.
                    return Err(RunError::NewSnapshot);
                }
                self.share(welcome.snapshot)?;
                self.not_twice(info(&welcome, None).node);
                self.transfer.puller.leave(SOURCE);
                if self.transfer.puller.join(SOURCE, info(&welcome, self.swarm.as_deref())).is_err() {
                    self.link_lost("it gave too much that was wrong before".into());
                    return Ok(());
                }
                self.link.open = Some((address, welcome.session));
                self.carriers.opened(carrier, answered_in);
                self.link.node = welcome.member.as_ref().map(|member| member.node);
                self.link.partial = welcome.partial;
                self.link.failures = 0;
                self.link.strangers_since = None;
                self.learn_ticket(address);
                self.finder.proved(address);
                self.transfer.puller.bound_fetches(SOURCE, welcome.fetches_outstanding as usize);
                let now = Instant::now();
                self.link.open_since = now;
                self.link.has_given = false;
                self.slots = (0..self.options.connections).map(|_| Slot::Free(now)).collect();
                self.reporter.tell(&Told::Connected { peer: address.to_string(), transport: carrier.name() });
                self.tell_carrier();
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
            Heard::Have(have) if self.link.partial => self.has(SOURCE, have),
            // A source has everything.
            Heard::Have(_) => {}
            Heard::Peers(peers) => self.learn(peers),
            Heard::Closed(Close { code, reason }) => {
                self.link.outbox = None;
                return self.closed(code, &reason);
            }
            Heard::Lost(reason) => self.link_lost(reason),
            Heard::Broken(_, what) if self.leads_in_place() => self.leader_lost(what),
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
                _ if error.may_pass() || self.finder.had_found() => self.link_lost(error.to_string()),
                _ if self.may_be_elsewhere(&error)? => self.link_lost(error.to_string()),
                _ => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// Whether whoever leads is, or may be, another receiver in the place of the source: what that does wrong ends nothing.
    fn leads_in_place(&self) -> bool {
        if self.link.open.is_some() { self.link.partial } else { self.link.asks_others }
    }

    /// Such a receiver is not asked again.
    fn leader_lost(&mut self, reason: String) {
        if let (Some((address, _)), Some(others)) = (self.link.open, &mut self.others) {
            others.peers.shun(address);
        }
        self.link_lost(reason);
    }

    /// Whether to go on after somebody else answered at all of the ticket's addresses: the sender may have another by now,
    /// and whoever has its address is none of ours. For a while, and where anybody can be asked.
    fn may_be_elsewhere(&mut self, error: &DialError) -> Result<bool, RunError> {
        if !self.finder.can_look() {
            return Ok(false);
        }
        self.finder.look()?;
        let now = Instant::now();
        if self.link.strangers_since.is_none() {
            let message = format!("{error}; looking for the sender elsewhere");
            self.reporter.tell(&Told::Warning { message });
        }
        let since = *self.link.strangers_since.get_or_insert(now);
        Ok(now.duration_since(since) < LOOK_ELSEWHERE.min(self.options.retry_for))
    }

    /// Begins to serve others, if that is wanted and has not begun.
    fn share(&mut self, snapshot: SegmentSeq) -> Result<(), RunError> {
        let Some(swarm) = self.swarm.as_ref().filter(|_| self.share.is_none()) else { return Ok(()) };
        let Context { replica, memory, .. } = &self.context;
        let shelf = ReplicaShelf::new(Arc::clone(replica), Arc::clone(memory))
            .map_err(|error| RunError::Failed(format!("cannot serve others: {error}")))?;
        let shelf = Arc::new(shelf);
        self.transfer.offer(Arc::clone(&shelf));
        let (ro, limiter) = (self.options.ticket.ro_secret.clone(), Arc::clone(&self.options.pace.up));
        self.share = Some(Share::start(
            swarm,
            &self.options.discovery,
            ro,
            limiter,
            &self.shards,
            &self.reporter,
            (shelf, snapshot),
        )?);
        Ok(())
    }

    pub(super) fn closed(&mut self, code: CloseCode, reason: &str) -> Result<(), RunError> {
        match code {
            CloseCode::Busy | CloseCode::UnknownSession => {
                self.link_lost(format!("the sender is busy: {reason}"));
                Ok(())
            }
            CloseCode::ShuttingDown
                if self.leads_in_place() || self.others.as_ref().is_some_and(Others::any_open) =>
            {
                self.link_lost("the sender was stopped".to_owned());
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
    pub(super) fn link_lost(&mut self, reason: String) {
        if self.link.open.is_some() {
            let message = format!("the connection was lost ({reason}); trying again");
            self.reporter.tell(&Told::Warning { message });
        }
        self.link.shut();
        self.link.redial_at = Some(Instant::now() + self.link.backoff.next_delay(random()));
        self.link.last_failure = reason;
        self.link.failures += 1;
        self.slots.clear();
        self.transfer.puller.leave(SOURCE);
        self.connections.retain(|_, connection| connection.of != 0);
    }

    pub(super) fn data_down(&mut self, id: ConnectionId, down: Down) -> Result<(), RunError> {
        let Some(connection) = self.connections.remove(&id) else { return Ok(()) };
        self.transfer.puller.disconnect(id);
        if connection.of != 0 {
            return self.peer_data_down(connection.of, down);
        }
        let refused = is_busy(&down);
        if connection.up_ms.is_none() && matches!(down, Down::Lost(_)) {
            let up = |over: Carrier| {
                let up = self.lead_connections().filter(|other| other.up_ms.is_some());
                up.filter(|other| other.carrier == over).count()
            };
            let (tcp, quic) = (up(Carrier::Tcp), up(Carrier::Quic));
            let (same, others) = match connection.carrier {
                Carrier::Tcp => (tcp, quic),
                Carrier::Quic => (quic, tcp),
            };
            // Where others are up over it, it is not what failed.
            if same == 0 {
                self.carriers.failed(connection.carrier, others);
            }
            self.tell_carrier();
        }
        match down {
            Down::Broken(what) if self.leads_in_place() => {
                self.leader_lost(what);
                return Ok(());
            }
            Down::Broken(what) => return Err(RunError::Hostile { code: CloseCode::Protocol, what }),
            Down::Closed(Close { code, reason }) => self.link.last_failure = format!("{code:?}: {reason}"),
            Down::Failed(reason) => return Err(RunError::Failed(format!("a task failed: {reason}"))),
            Down::Lost(reason) => self.link.last_failure = reason,
        }
        let others = self.connections.values().any(|connection| connection.of == 0);
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

    /// Gives up once nothing has come for too long: no answers while some are owed, and no manifest either.
    pub(super) fn check_contact(&mut self, now: Instant) -> Result<(), RunError> {
        let dead = Duration::from_millis(DEAD_PEER_TIMEOUT_MS);
        let is_open = self.link.open.is_some();
        let any_open = is_open || self.others.as_ref().is_some_and(Others::any_open);
        let in_contact = if self.transfer.space.full || self.manifest_waits {
            // We ask for nothing.
            any_open
        } else if self.transfer.puller.is_idle() {
            is_open && (self.link.has_given || now.duration_since(self.link.open_since) >= dead)
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

    /// A dial that takes long begins anew once another address is found, while there is time for it.
    pub(super) fn look_elsewhere(&mut self, now: Instant) -> Result<(), RunError> {
        let dialling = self.link.open.is_none() && self.link.redial_at.is_none();
        let long = now.saturating_duration_since(self.link.dialled_at) >= LOOK_AFTER;
        let in_time =
            self.link.down_since.is_none_or(|since| now.duration_since(since) < self.options.retry_for);
        if dialling && long && in_time && self.finder.look()? {
            self.dial()?;
        }
        Ok(())
    }

    pub(super) fn dial(&mut self) -> Result<(), RunError> {
        self.link.redial_at = None;
        self.link.dialled_at = Instant::now();
        self.dials += 1;
        let again = self.link.number > 0;
        self.link.number = self.dials;
        let (outbox, frames) = mpsc::channel(OUTBOX_MAX);
        self.link.outbox = Some(outbox);
        let taken_up = self.transfer.next_segment();
        let next_segment =
            self.arrivals.as_ref().map_or(taken_up, |arrivals| arrivals.next_after_loss(taken_up));
        let member = self.swarm.as_ref().map(|swarm| swarm.member.clone());
        self.link.asks_others = false;
        let mut addresses = self.finder.addresses(&self.options.ticket.addresses, again)?;
        if self.link.failures > 1
            && let Some(others) = &self.others
        {
            // The source is gone: another receiver may have the manifest.
            addresses.extend(others.peers.linked().into_iter().map(Address::Socket));
            self.link.asks_others = true;
            addresses.truncate(TICKET_ADDRESSES_MAX);
        }
        let greeting = Hello { member, ..hello(Channel::Control { next_segment }) };
        tokio::spawn(control::run(
            self.link.number,
            self.dialer.clone(),
            addresses,
            greeting,
            frames,
            self.events_in.clone(),
        ));
        Ok(())
    }

    pub(super) fn grant_credit(&mut self) {
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
    pub(super) fn say(&self, kind: FrameKind, body: Vec<u8>) -> bool {
        self.link.outbox.as_ref().is_some_and(|outbox| outbox.try_send((kind, body)).is_ok())
    }

    pub(super) async fn open_connections(&mut self) -> Result<(), RunError> {
        let Some((address, session)) = self.link.open else { return Ok(()) };
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if !matches!(self.slots[index], Slot::Free(at) if at <= now) {
                continue;
            }
            let over = |carrier| self.lead_connections().filter(|other| other.carrier == carrier).count();
            let carrier = self.carriers.next(over(Carrier::Tcp), over(Carrier::Quic));
            let Some(id) = self.open_data(0, address, session, carrier).await? else { return Ok(()) };
            self.slots[index] = Slot::Taken(id);
        }
        Ok(())
    }

    /// Content came over a connection: perhaps it is known now which transport serves better.
    pub(super) fn came_over(&mut self, id: ConnectionId, bytes: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.of != 0 {
            self.from_others += bytes;
            return;
        }
        let carrier = connection.carrier;
        let up = |carrier| {
            self.lead_connections().filter(|other| other.carrier == carrier && other.up_ms.is_some()).count()
        };
        let up = (up(Carrier::Tcp), up(Carrier::Quic));
        self.carriers.came(carrier, bytes, self.started.elapsed(), up);
        self.tell_carrier();
    }

    /// Says what content comes over, once that is known.
    pub(super) fn tell_carrier(&mut self) {
        if let Some(carrier) = self.carriers.news() {
            self.reporter.tell(&Told::Content { transport: carrier.name() });
        }
    }

    /// Has those connections go that are over the worse transport, as soon as they have answered what they were asked, or
    /// after a while.
    pub(super) fn move_connections(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for (id, connection) in &mut self.connections {
            if !self.carriers.leaves(connection.carrier) {
                // The other one did not work out.
                connection.leaves = None;
            } else if connection.of == 0 {
                let since = *connection.leaves.get_or_insert(now);
                // What has come and is not written yet is waited for: to ask for it once more would take longer.
                let owes = connection.owed_since_ms.load(Ordering::Relaxed) != NOTHING_OWED;
                let is_late = owes && now.duration_since(since) >= LEAVE;
                if is_late || !self.transfer.puller.is_asked(*id) {
                    gone.push(*id);
                }
            }
        }
        for id in gone {
            self.connections.remove(&id);
            self.transfer.puller.disconnect(id);
            for slot in &mut self.slots {
                if matches!(slot, Slot::Taken(of) if *of == id) {
                    *slot = Slot::Free(now);
                }
            }
        }
    }

    /// Says one last thing and waits until the sender has closed, or a while. Everything is in place by now (or
    /// lost): nothing depends on it.
    pub(super) async fn farewell(&mut self, kind: FrameKind, body: Vec<u8>) {
        let heard = async {
            while self.link.open.is_none() && kind == FrameKind::Finished {
                // The sender must not wait for a receiver that is done: it is told even after a break.
                if let Some(at) = self.link.redial_at.take() {
                    tokio::time::sleep_until(at.into()).await;
                    if self.dial().is_err() {
                        return;
                    }
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
}

pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter, and nothing worse.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
