//! A receiver's connections to other receivers: one to hear what each has, and one for content. The manifest comes from
//! the sender alone, or from one of them in its place ([`super::link`]).

use super::link::{DataConnection, Slot};
use super::{Coordinator, no_shard};
use crate::error::RunError;
use crate::receive::control::{self, Heard, OUTBOX_MAX, Outgoing};
use crate::receive::data::{self, Down};
use crate::receive::transfer::SOURCE;
use crate::report::Event as Told;
use crate::swarm::{Peers, Share, Swarm};
use sealift_net::Carrier;
use sealift_proto::limits::FETCHES_OUTSTANDING_MAX;
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::member::{Label, NodeId};
use sealift_proto::session::hello;
use sealift_proto::ticket::Address;
use sealift_proto::transfer::pull::{ConnectionId, Distance, HaveRange, PeerId, PeerInfo, PeerKind, Shares};
use sealift_proto::wire::{Channel, CloseCode, FrameKind, Have, Hello, Peer, Reject, Welcome};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// After this, it is tried again to open a connection for content.
const DATA_RETRY: Duration = Duration::from_secs(1);
/// After this, the other addresses of the ticket are dialled.
const TICKET_PAUSE: Duration = Duration::from_secs(3);

/// The others of the swarm.
pub(super) struct Others {
    pub(super) peers: Peers,
    /// By the numbers of their dials.
    links: HashMap<u64, Link>,
}

struct Link {
    address: SocketAddr,
    outbox: mpsc::Sender<Outgoing>,
    /// The session and what it goes over, once it is open,
    open: Option<([u8; 16], Carrier)>,
    /// and the place for its connection for content.
    slot: Slot,
}

/// A peer by the number of the dial by which it was found; the sender's own is [`SOURCE`].
fn peer_id(number: u64) -> PeerId {
    PeerId(u32::try_from(number).unwrap_or(u32::MAX))
}

/// What a peer is to us, by what it says of itself.
pub(super) fn info(welcome: &Welcome, ours: Option<&Swarm>) -> PeerInfo {
    let kind = if welcome.partial { PeerKind::Replica } else { PeerKind::Source };
    let nowhere = Label::default();
    let label = welcome.member.as_ref().map_or(&nowhere, |member| &member.label);
    let our_label = ours.map_or(&nowhere, |swarm| &swarm.member.label);
    let distance = Distance::between(our_label.as_str(), label.as_str());
    let node = welcome.member.as_ref().map_or(NodeId([0; 16]), |member| member.node);
    // Whoever serves others is connected to the source as we are, and to everybody it hears of.
    let shares = if welcome.partial { Shares::ALL } else { Shares::NONE };
    PeerInfo { node, kind, distance, shares }
}

impl Others {
    pub(super) fn new(me: NodeId, now: Instant) -> Self {
        Self { peers: Peers::new(me, now), links: HashMap::new() }
    }

    /// Whether any of them is talked to.
    pub(super) fn any_open(&self) -> bool {
        self.links.values().any(|link| link.open.is_some())
    }
}

impl Coordinator {
    /// Learns of others who serve.
    pub(super) fn learn(&mut self, told: Vec<Peer>) {
        let now = Instant::now();
        let ours = self.swarm.as_ref().map(|swarm| swarm.member.label.clone()).unwrap_or_default();
        if let Some(others) = &mut self.others {
            for Peer { node, address, label } in told {
                let distance = Distance::between(ours.as_str(), label.as_str());
                others.peers.learn(address, Some(node), distance, now);
            }
        }
    }

    /// A ticket may name several members: those beside the one that gives the manifest are peers. Mostly they are other
    /// addresses of the same, which is found out by dialling: not for a transfer that is over soon.
    pub(super) fn learn_ticket(&mut self, lead: SocketAddr) {
        let at = Instant::now() + TICKET_PAUSE;
        if let Some(others) = &mut self.others {
            for address in &self.options.ticket.addresses {
                if let Address::Socket(address) = address
                    && *address != lead
                {
                    others.peers.learn(*address, None, Distance::Zone, at);
                }
            }
        }
    }

    /// Takes what a peer has into account.
    pub(super) fn has(&mut self, peer: PeerId, have: Have) {
        self.transfer.has_peers = true;
        for span in have.files {
            let range = HaveRange::Files { first: span.first, count: span.count.into() };
            self.transfer.puller.have(peer, range);
        }
        for range in have.blocks {
            let range = HaveRange::Blocks { file: range.file, first: range.first, count: range.count };
            self.transfer.puller.have(peer, range);
        }
    }

    /// Dials whoever is due.
    pub(super) fn dial_others(&mut self, now: Instant) {
        let Some(swarm) = &self.swarm else { return };
        if let (Some(others), Some(share)) = (&mut self.others, &self.share) {
            for address in share.take_found() {
                others.peers.learn(address, None, Distance::Zone, now);
            }
        }
        // Until the snapshot is known, nobody can be told whether theirs is the same.
        if self.link.snapshot.is_none() {
            return;
        }
        while let Some(address) = self.others.as_mut().and_then(|others| others.peers.next_to_dial(now)) {
            self.dials += 1;
            let (outbox, frames) = mpsc::channel(OUTBOX_MAX);
            let channel = Channel::Control { next_segment: SegmentSeq(0) };
            let greeting = Hello { member: Some(swarm.member.clone()), ..hello(channel) };
            tokio::spawn(control::run(
                self.dials,
                self.dialer.clone(),
                vec![Address::Socket(address)],
                greeting,
                frames,
                self.events_in.clone(),
            ));
            let link = Link { address, outbox, open: None, slot: Slot::Free(now) };
            self.others.as_mut().expect("just asked").links.insert(self.dials, link);
        }
    }

    /// Something came from another receiver. Nothing that it does ends the transfer.
    pub(super) fn peer_heard(&mut self, number: u64, heard: Heard) {
        if !self.others.as_ref().is_some_and(|others| others.links.contains_key(&number)) {
            return;
        }
        match heard {
            Heard::Open { welcome, carrier, .. } => self.peer_open(number, &welcome, carrier),
            Heard::Have(have) => self.has(peer_id(number), have),
            Heard::Peers(peers) => self.learn(peers),
            Heard::Closed(_) | Heard::Lost(_) | Heard::Failed(_) => self.peer_lost(number, false),
            // No segment was asked for.
            Heard::Segment(_) | Heard::Rejected | Heard::Broken(..) => self.peer_lost(number, true),
        }
    }

    fn peer_open(&mut self, number: u64, welcome: &Welcome, carrier: Carrier) {
        let info = info(welcome, self.swarm.as_deref());
        let Some(others) = &mut self.others else { return };
        let Some(link) = others.links.get_mut(&number) else { return };
        let is_member = welcome.member.is_some();
        let is_lead = is_member && self.link.node == Some(info.node);
        if !is_member || is_lead || !others.peers.answered(link.address, info.node) {
            return self.peer_lost(number, true);
        }
        if Some(welcome.snapshot) != self.link.snapshot {
            return self.peer_lost(number, false);
        }
        let peer = peer_id(number);
        if self.transfer.puller.join(peer, info).is_err() {
            return self.peer_lost(number, true);
        }
        self.transfer.puller.bound_fetches(peer, welcome.fetches_outstanding as usize);
        link.open = Some((welcome.session, carrier));
        self.transfer.has_peers = true;
    }

    /// A peer is talked to no more; it is tried again later, or not at all.
    pub(super) fn peer_lost(&mut self, number: u64, is_shunned: bool) {
        let Some(others) = &mut self.others else { return };
        let Some(link) = others.links.remove(&number) else { return };
        if is_shunned {
            others.peers.shun(link.address);
        } else {
            others.peers.lost(link.address, link.open.is_some(), Instant::now());
        }
        self.transfer.puller.leave(peer_id(number));
        self.connections.retain(|_, connection| connection.of != number);
    }

    /// Whoever gives the manifest is not talked to a second time.
    pub(super) fn not_twice(&mut self, node: NodeId) {
        let Some(others) = &mut self.others else { return };
        if let Some(swarm) = &self.swarm
            && node == swarm.member.node
        {
            return;
        }
        let twice = others
            .links
            .keys()
            .find(|number| self.transfer.puller.node_of(peer_id(**number)).is_some_and(|of| of == node));
        if let Some(&number) = twice {
            self.peer_lost(number, false);
        }
    }

    /// Peers that gave too much that was wrong.
    ///
    /// # Errors
    /// If one of them is the source.
    pub(super) fn ban(&mut self) -> Result<(), RunError> {
        for peer in std::mem::take(&mut self.transfer.banned) {
            if peer != SOURCE {
                self.peer_lost(peer.0.into(), true);
            } else if self.link.partial {
                self.link_lost("too many blocks did not match what was signed".to_owned());
            } else {
                let what = "too many blocks did not match what was signed".to_owned();
                return Err(RunError::Hostile { code: CloseCode::BadBlocks, what });
            }
        }
        Ok(())
    }

    /// Tells whoever gave a block that it did not match. What is not told costs them nothing but a look at a file.
    pub(super) fn reject(&mut self) {
        for (peer, reject) in std::mem::take(&mut self.transfer.rejects) {
            if peer == SOURCE {
                let _ = self.say(FrameKind::Reject, Reject::encode(reject));
            } else if let Some(link) =
                self.others.as_ref().and_then(|others| others.links.get(&peer.0.into()))
            {
                let _ = link.outbox.try_send((FrameKind::Reject, Reject::encode(reject)));
            }
        }
    }

    /// Tells what was had from others, and what they had from here.
    pub(super) fn tell_shared(&self) {
        let served = self.share.as_ref().map_or(0, Share::served_bytes);
        if self.from_others > 0 || served > 0 {
            let from = self.from_others;
            let message =
                format!("{from} bytes came from other receivers, and {served} were served to others.");
            self.reporter.tell(&Told::Note { message });
        }
    }

    /// Opens connections for content to those who have none.
    pub(super) async fn connect_to_others(&mut self, now: Instant) -> Result<(), RunError> {
        let Some(others) = &self.others else { return Ok(()) };
        let is_due = |link: &Link| matches!(link.slot, Slot::Free(at) if at <= now);
        let due: Vec<_> = others
            .links
            .iter()
            .filter(|(_, link)| is_due(link))
            .filter_map(|(number, link)| {
                link.open.map(|(session, carrier)| (*number, link.address, session, carrier))
            })
            .collect();
        for (number, address, session, carrier) in due {
            if let Some(id) = self.open_data(number, address, session, carrier).await?
                && let Some(link) = self.others.as_mut().and_then(|others| others.links.get_mut(&number))
            {
                link.slot = Slot::Taken(id);
            }
        }
        Ok(())
    }

    /// Opens a connection for content, of the sender's (0) or of a peer's; `None` before the hash is known.
    pub(super) async fn open_data(
        &mut self,
        of: u64,
        address: SocketAddr,
        session: [u8; 16],
        carrier: Carrier,
    ) -> Result<Option<ConnectionId>, RunError> {
        let Some(algorithm) = self.transfer.algorithm() else { return Ok(None) };
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let (jobs, received) = mpsc::channel(FETCHES_OUTSTANDING_MAX);
        let heard_ms = Arc::new(AtomicU64::new(self.now_ms()));
        let owed_since_ms = Arc::new(AtomicU64::new(data::NOTHING_OWED));
        let task = data::Task {
            id,
            address,
            carrier,
            // What serves the lead better is found out by comparing.
            or_near: of != 0,
            session,
            dialer: self.dialer.clone(),
            limiter: Arc::clone(&self.options.pace.down),
            algorithm,
            replica: Arc::clone(&self.context.replica),
            durability: self.options.durability,
            events: self.events_in.clone(),
            heard_ms: Arc::clone(&heard_ms),
            owed_since_ms: Arc::clone(&owed_since_ms),
            started: self.started,
        };
        self.shards.spawn(move |io| data::run(io, task, received)).await.map_err(no_shard)?;
        let connection =
            DataConnection { of, jobs, heard_ms, owed_since_ms, up_ms: None, carrier, leaves: None };
        self.connections.insert(id, connection);
        Ok(Some(id))
    }

    /// The connections for content to whoever gives the manifest.
    pub(super) fn lead_connections(&self) -> impl Iterator<Item = &DataConnection> {
        self.connections.values().filter(|connection| connection.of == 0)
    }

    /// The peer of a connection for content.
    pub(super) fn peer_of(&self, id: ConnectionId) -> Option<PeerId> {
        self.connections.get(&id).map(|connection| peer_id(connection.of))
    }

    /// A connection for content to another receiver has ended.
    ///
    /// # Errors
    /// If a task of ours failed.
    pub(super) fn peer_data_down(&mut self, number: u64, down: Down) -> Result<(), RunError> {
        match down {
            Down::Failed(reason) => return Err(RunError::Failed(format!("a task failed: {reason}"))),
            Down::Broken(_) => self.peer_lost(number, true),
            Down::Closed(_) | Down::Lost(_) => {
                if let Some(link) = self.others.as_mut().and_then(|others| others.links.get_mut(&number)) {
                    link.slot = Slot::Free(Instant::now() + DATA_RETRY);
                }
            }
        }
        Ok(())
    }
}
