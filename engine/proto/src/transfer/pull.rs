//! The receiver's choice of what to ask of which peer, and what to do with the answers.
//!
//! With one source alone, runs wait in one queue, and a connection with room gets a fetch of up to one run's bytes from
//! its front: many small files or one run of a large one. With more peers each is asked for what it has, the rarest first;
//! a source, or a peer behind an expensive link, for what it is our turn to bring ([`gate`]). What a lost connection left
//! unanswered, or a slow peer owes for too long, is asked of others; blocks that did not match are asked for again,
//! elsewhere if there is such. docs/swarm.md has the whole of it, and what comes of it.
//!
//! Pure: time is a parameter, in milliseconds of any monotonic clock, and chance is a seed.

mod answer;
mod dear;
mod due;
mod gate;
mod have;
mod offer;
mod peer;
mod pick;
mod random;
mod rarity;
mod table;

#[cfg(test)]
mod swarm;
#[cfg(test)]
mod tests;

pub use crate::member::NodeId;
pub use due::{Due, DueAnswers};
pub use have::HaveRange;
pub use peer::{Distance, JoinError, PeerId, PeerInfo, PeerKind, Shares};

use crate::block::{BlockIndex, FileId, Layout};
use crate::limits;

use crate::wire::{BlocksPrefix, RangeProblem};
use gate::{Gate, Group};
use peer::{Asked, Connection, Peers, Why};
use random::Random;
use std::collections::{BTreeMap, HashMap, VecDeque};
use table::{Slot, Table};

/// Names a data connection of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// Names a fetch: the request number of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// Adjacent blocks of one file, of at most one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Whose.
    pub file: FileId,
    /// The first block.
    pub first: BlockIndex,
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: u32,
}

impl Run {
    /// The runs that cover `count` blocks of a file from `first`.
    ///
    /// # Panics
    /// If those are not within the layout.
    pub fn cover(file: FileId, layout: Layout, first: BlockIndex, count: u32) -> impl Iterator<Item = Self> {
        let step = layout.blocks_per_run();
        let end = first.0 + count;
        (first.0..end).step_by(step as usize).map(move |at| {
            let count = step.min(end - at);
            let bytes = layout.run_bytes(BlockIndex(at), count).expect("within the layout");
            Self { file, first: BlockIndex(at), count, bytes: u32::try_from(bytes).expect("at most 16 MiB") }
        })
    }

    /// The run as it is named on the wire.
    #[must_use]
    pub fn range(self) -> BlocksPrefix {
        BlocksPrefix { file: self.file, first: self.first, count: self.count }
    }
}

/// What to ask of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Its number.
    pub id: FetchId,
    /// The runs, in the order of the answers.
    pub runs: Vec<Run>,
}

/// How the answer to one run turned out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Verified and written.
    Written,
    /// Some blocks, each named as a run of its own, did not match; the others were written.
    Mismatch(Vec<Run>),
    /// The sender cannot give it.
    Refused(RangeProblem),
    /// It could not be written here.
    NotWritten,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file cannot be had.
    GiveUp(FileId, Loss),
    /// A block that this peer gave is asked for again.
    Retry(PeerId, FileId, BlockIndex),
    /// This run came from another peer before, or its file was cancelled: what came now changes nothing.
    Late(Run),
    /// The peer sent too much that is wrong. A replica has left with this; what to do without a source is the caller's
    /// to say.
    Ban(PeerId),
}

/// Why a file cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A block of it never matched, as sources gave it.
    Corrupt,
    /// All sources refuse it; this is what the last of them said.
    Refused(RangeProblem),
    /// It cannot be written here.
    NotWritten,
}

/// The answer is to nothing that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer answered what was not asked")]
pub struct Unasked;

/// The receiver's side of a transfer.
#[derive(Debug)]
pub struct Puller {
    table: Table,
    peers: Peers,
    /// What sources may be asked for, in order.
    fresh: VecDeque<Slot>,
    /// What others are to ask sources for first.
    sources: Gate,
    /// Who shares with us what sources are to be asked for, and what other zones.
    of_sources: Group,
    of_far: Group,
    /// Replicas in other zones.
    far: usize,
    /// Sources that refused a run, of runs that are not given up.
    refused: HashMap<(FileId, BlockIndex), Vec<PeerId>>,
    /// How often sources gave a block that did not match.
    mismatches: HashMap<(FileId, BlockIndex), u32>,
    /// Fetches unanswered that repeat others.
    endgame: usize,
    /// When a poll has looked at as much as it may and found nothing.
    unlooked_ms: Option<u64>,
    random: Random,
    next_fetch: u64,
    fetches_max: usize,
    /// Whether others may join later: then a source is not asked for more than a second ahead, even while it is alone.
    expects_others: bool,
}

impl Puller {
    /// A transfer that knows of no peer, with a bound on the fetches unanswered on a connection, its own name in the
    /// swarm, and a seed for what is left to chance.
    #[must_use]
    pub fn new(fetches_max: usize, me: NodeId, seed: u64) -> Self {
        Self {
            table: Table::default(),
            peers: Peers::default(),
            fresh: VecDeque::new(),
            sources: Gate::in_order(),
            of_sources: Group::new(me),
            of_far: Group::new(me),
            far: 0,
            refused: HashMap::new(),
            mismatches: HashMap::new(),
            endgame: 0,
            unlooked_ms: None,
            random: Random::new(seed),
            next_fetch: 1,
            fetches_max: fetches_max.clamp(1, limits::FETCHES_OUTSTANDING_MAX),
            expects_others: false,
        }
    }

    /// Others may join later. What is asked of a source before they do, they cannot bring.
    pub fn expect_others(&mut self) {
        self.expects_others = true;
    }

    /// A peer is known: it counts among those that share the work from now on, connected or not.
    ///
    /// # Errors
    /// If it is banned, or there are too many, or one of that name is there.
    pub fn join(&mut self, peer: PeerId, info: PeerInfo) -> Result<(), JoinError> {
        self.peers.join(peer, info)?;
        self.regroup();
        Ok(())
    }

    /// A peer is gone, with its connections and all that it had.
    pub fn leave(&mut self, peer: PeerId) {
        for connection in self.peers.connections_of(peer) {
            self.disconnect(connection);
        }
        let Some(gone) = self.peers.remove(peer) else { return };
        if gone.is_source() {
            // What every source that is left has refused is asked for once more, and then given up.
            self.refused.clear();
        } else {
            let had: Vec<Slot> =
                self.table.all().filter(|slot| gone.haves.has(&self.table.at(*slot).run)).collect();
            for slot in had {
                self.lose_copy(slot, gone.info.distance);
            }
        }
        self.regroup();
        self.turn_over();
    }

    /// What others were to bring may be ours to bring now that one of them is gone.
    fn turn_over(&mut self) {
        for slot in self.sources.release().rev() {
            self.fresh.push_front(slot);
        }
        for peer in self.peers.peers.values_mut() {
            for slot in peer.gate.release() {
                if let Some(wanted) = self.table.get(slot) {
                    peer.offers.push(slot, wanted, peer.info.distance.index());
                }
            }
        }
    }

    /// Who a peer is, if it has joined.
    #[must_use]
    pub fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        self.peers.peers.get(&peer).map(|peer| peer.info.node)
    }

    fn regroup(&mut self) {
        let replicas = self.peers.peers.values().filter(|peer| !peer.is_source());
        self.far = replicas.clone().filter(|peer| peer.is_dear()).count();
        let near = replicas.filter(|peer| !peer.is_dear());
        self.of_sources.set(near.clone().filter(|peer| peer.info.shares.source).map(|peer| peer.key));
        self.of_far.set(near.filter(|peer| peer.info.shares.far).map(|peer| peer.key));
    }

    /// What a peer shares with us has changed.
    pub fn set_shares(&mut self, peer: PeerId, shares: Shares) {
        if let Some(peer) = self.peers.peers.get_mut(&peer) {
            peer.info.shares = shares;
            self.regroup();
            self.turn_over();
        }
    }

    fn lose_copy(&mut self, slot: Slot, distance: Distance) {
        if let Some(wanted) = self.table.get_mut(slot) {
            let copies = &mut wanted.copies[distance.index()];
            *copies = copies.saturating_sub(1);
        }
    }

    /// A peer's own bound on the fetches unanswered on a connection, where it is lower than ours.
    pub fn bound_fetches(&mut self, peer: PeerId, fetches_max: usize) {
        if let Some(peer) = self.peers.peers.get_mut(&peer) {
            peer.fetches_max = fetches_max.max(1);
        }
    }

    /// Adds a run to what is wanted, unless it is.
    pub fn want(&mut self, run: Run) {
        if let Some(slot) = self.table.want(run) {
            self.count_copies(slot);
            self.offer(slot, false);
        }
    }

    /// Forgets a file: what waits is dropped, what is on its way is ignored when it comes.
    pub fn cancel(&mut self, file: FileId) {
        let slots: Vec<Slot> = self.table.of_file(file).collect();
        for slot in slots {
            self.table.settle(slot);
        }
        self.mismatches.retain(|(of, _), _| *of != file);
        self.refused.retain(|(of, _), _| *of != file);
    }

    /// Whether answers for a file that no longer count are still on their way. Until they have come a file that was
    /// cancelled cannot be wanted again.
    #[must_use]
    pub fn is_cancelled(&self, file: FileId) -> bool {
        self.table.has_strays(file)
    }

    /// A connection to a peer is ready for fetches. Nothing comes of it if the peer has not joined.
    pub fn connect(&mut self, connection: ConnectionId, peer: PeerId, now_ms: u64) {
        self.disconnect(connection);
        if self.peers.peers.contains_key(&peer) {
            let fetches = BTreeMap::new();
            self.peers.connections.insert(connection, Connection { peer, fetches, heard_ms: now_ms });
        }
    }

    /// A connection is gone: what it owed is asked of others.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        let Some(lost) = self.peers.connections.remove(&connection) else { return };
        for (fetch, asked) in lost.fetches.into_iter().rev() {
            self.returned(connection, fetch, lost.peer, &asked, false);
            for &slot in asked.slots.iter().rev() {
                self.table.answered(slot, lost.peer);
                self.again(slot, true);
            }
        }
    }

    /// A fetch is unanswered no longer.
    fn returned(
        &mut self,
        connection: ConnectionId,
        fetch: FetchId,
        of: PeerId,
        asked: &Asked,
        was_needed: bool,
    ) {
        self.peers.deadlines.remove(&(asked.due_ms, connection, fetch));
        let Some(peer) = self.peers.peers.get_mut(&of) else { return };
        peer.fetches -= 1;
        peer.owed_bytes -= asked.bytes;
        match asked.why {
            Why::Next => {}
            Why::TakenOver => {
                if let Some(gate) = self.gate_of(of) {
                    gate.took_over(was_needed);
                }
            }
            Why::Endgame => self.endgame -= 1,
        }
    }

    /// What keeps others' turns, of a peer that is dear.
    fn gate_of(&mut self, peer: PeerId) -> Option<&mut Gate> {
        let peer = self.peers.peers.get_mut(&peer).filter(|peer| peer.is_dear())?;
        Some(if peer.is_source() { &mut self.sources } else { &mut peer.gate })
    }

    /// Whether nothing is wanted or on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_done() && self.peers.connections.values().all(|c| c.fetches.is_empty())
    }

    /// Whether nothing is wanted. Repeated answers may still be on their way.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.table.unsettled() == 0
    }

    /// Runs that wait to be asked for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.table.waiting()
    }

    /// Whether a connection was asked for something that is not answered yet.
    #[must_use]
    pub fn is_asked(&self, connection: ConnectionId) -> bool {
        self.peers.connections.get(&connection).is_some_and(|c| !c.fetches.is_empty())
    }

    /// Something came in on a connection: it lives.
    pub fn handle_heard(&mut self, connection: ConnectionId, now_ms: u64) {
        if let Some(connection) = self.peers.connections.get_mut(&connection) {
            connection.heard_ms = connection.heard_ms.max(now_ms);
        }
    }

    /// Connections that owe an answer and have been silent for too long; the caller disconnects them.
    #[must_use]
    pub fn silent(&self, now_ms: u64) -> Vec<ConnectionId> {
        let silent = |c: &Connection| {
            !c.fetches.is_empty() && now_ms.saturating_sub(c.heard_ms) >= limits::DEAD_PEER_TIMEOUT_MS
        };
        self.peers.connections.iter().filter(|(_, c)| silent(c)).map(|(id, _)| *id).collect()
    }
}
