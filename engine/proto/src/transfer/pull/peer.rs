//! The peers of a transfer: who they are, how far away, how fast, and what they owe.

use super::gate::Gate;
use super::have::Haves;
use super::random::mix;
use super::rarity::Rarity;
use super::table::Slot;
use super::{ConnectionId, FetchId};
use crate::limits;
use crate::member::NodeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names a peer of one transfer. The caller gives them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// A number that stands for a node where runs are handed out. Who forges a node's name gains nothing but that others wait
/// a little for what they then ask for themselves.
pub(super) fn key_of(node: NodeId) -> u64 {
    let (low, high) = node.0.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("half of 16 bytes"));
    mix(number(low)).wrapping_add(mix(number(high)).rotate_left(32))
}

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Has everything; what it refuses cannot be had.
    Source,
    /// A receiver like us, with what it has told us of.
    Replica,
}

/// How far away a peer is, by what it costs to carry something from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// In the same rack.
    Rack,
    /// In the same zone, or nothing is known of where it is.
    Zone,
    /// In another zone, behind a link that is to be spared.
    Far,
}

impl Distance {
    /// The distance between two hosts by their labels, `zone/rack` each: the more of their parts are the same, from
    /// the first, the nearer they are. Who has no label is taken for somebody of the same zone.
    #[must_use]
    pub fn between(one: &str, other: &str) -> Self {
        if one.is_empty() || other.is_empty() {
            return Self::Zone;
        }
        let same = one.split('/').zip(other.split('/')).take_while(|(one, other)| one == other).count();
        match same {
            0 => Self::Far,
            1 => Self::Zone,
            _ => Self::Rack,
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Rack => 0,
            Self::Zone => 1,
            Self::Far => 2,
        }
    }
}

/// What of the dear work a replica takes its part of. Those who share something count one another, so they should know of
/// all of them, connected or not; who cannot do it must not be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// It is connected to sources.
    pub source: bool,
    /// It is connected to other zones.
    pub far: bool,
}

impl Shares {
    /// Everything: where all are connected to all.
    pub const ALL: Self = Self { source: true, far: true };
    /// Nothing: it has things from those around it alone.
    pub const NONE: Self = Self { source: false, far: false };
}

/// Who a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name in the swarm.
    pub node: NodeId,
    /// What it is.
    pub kind: PeerKind,
    /// How far away it is.
    pub distance: Distance,
    /// What it shares with us.
    pub shares: Shares,
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It has sent too much that was wrong.
    #[error("the peer is banned")]
    Banned,
    /// There are [`limits::SWARM_PEERS_MAX`] already, or it is there.
    #[error("no more peers are let in")]
    Full,
}

/// How fast a peer answers.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that came and milliseconds that they took, older ones counting less.
    bytes: u64,
    millis: u64,
    answered_ms: u64,
    /// How often it has answered.
    answers: usize,
    /// The shortest time from a question to the end of its answer.
    least_millis: Option<u64>,
    /// Whether its latest answer is overdue.
    late: bool,
}

/// Answers of which the older half counts half as much as the newer: a path's rate grows while it is found, and what is asked
/// for must not be what it grows to.
const YOUNG_ANSWERS: usize = 16;
/// Fetches to have unanswered at a time, at least: a long path must have something to carry until the first are answered.
const WINDOW_MIN: usize = 4;
/// Shortest times that are asked for ahead, beyond [`limits::SWARM_AHEAD_MS`]: over a long path that loses, some of what has
/// been sent waits a few round trips for what was lost before it.
const LEAST_TIMES: u64 = 4;

impl Pace {
    /// A fetch was answered that was asked for at `asked_ms`.
    pub(super) fn answered(&mut self, bytes: u64, asked_ms: u64, now_ms: u64) {
        // What was asked for ahead began when the answer before it was whole.
        let took = now_ms.saturating_sub(asked_ms.max(self.answered_ms));
        let waited = now_ms.saturating_sub(asked_ms);
        self.least_millis = Some(self.least_millis.map_or(waited, |least| least.min(waited)));
        let (kept, of) = if self.answers < YOUNG_ANSWERS { (1, 2) } else { (7, 8) };
        self.bytes = self.bytes / of * kept + bytes;
        self.millis = self.millis * kept / of + took;
        self.answered_ms = now_ms;
        self.answers = self.answers.saturating_add(1);
        self.late = false;
    }

    /// An answer did not come in time.
    pub(super) fn overdue(&mut self) {
        self.bytes /= 2;
        self.late = true;
    }

    /// How long so many bytes take, in milliseconds, if that is known.
    pub(super) fn millis_of(&self, bytes: u64) -> Option<u64> {
        (self.bytes > 0).then(|| bytes.saturating_mul(self.millis) / self.bytes)
    }

    /// When the latest answer came.
    pub(super) fn answered_ms(&self) -> u64 {
        self.answered_ms
    }

    /// Fetches to have unanswered at a time.
    fn window(&self) -> usize {
        if self.late {
            return 1;
        }
        let ahead_ms = limits::SWARM_AHEAD_MS + LEAST_TIMES * self.least_millis.unwrap_or(0);
        let ahead = self.bytes.saturating_mul(ahead_ms) / self.millis.max(1);
        let fetches = usize::try_from(ahead / limits::RUN_BYTES_MAX as u64).unwrap_or(usize::MAX);
        // The first answers may come out of a burst that a limit of rate allows, and say little.
        fetches.saturating_add(1).clamp(WINDOW_MIN, self.answers.saturating_mul(3).saturating_add(WINDOW_MIN))
    }
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) info: PeerInfo,
    pub(super) key: u64,
    pub(super) haves: Haves,
    /// What it has and could be asked for.
    pub(super) offers: Rarity,
    /// What it has and others are to ask for first.
    pub(super) gate: Gate,
    pub(super) pace: Pace,
    /// Runs with wrong blocks that it sent.
    pub(super) struck: u32,
    /// Fetches that it owes, and their bytes.
    pub(super) fetches: usize,
    pub(super) owed_bytes: u64,
    /// Its own bound on the fetches unanswered on a connection.
    pub(super) fetches_max: usize,
}

impl Peer {
    pub(super) fn new(info: PeerInfo, struck: u32) -> Self {
        Self {
            info,
            key: key_of(info.node),
            haves: Haves::new(),
            offers: Rarity::default(),
            gate: Gate::default(),
            pace: Pace::default(),
            struck,
            fetches: 0,
            owed_bytes: 0,
            fetches_max: limits::FETCHES_OUTSTANDING_MAX,
        }
    }

    pub(super) fn is_source(&self) -> bool {
        self.info.kind == PeerKind::Source
    }

    /// Whether it is asked only for what is ours to bring to those around us.
    pub(super) fn is_dear(&self) -> bool {
        self.is_source() || self.info.distance == Distance::Far
    }

    pub(super) fn has_room(&self) -> bool {
        self.fetches < self.pace.window()
    }
}

/// What was asked for in one fetch.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) slots: Vec<Slot>,
    pub(super) bytes: u64,
    pub(super) asked_ms: u64,
    /// When it is overdue.
    pub(super) due_ms: u64,
    pub(super) why: Why,
}

/// Why a fetch was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was next.
    Next,
    /// It was for others to bring, and they did not.
    TakenOver,
    /// A slower peer owes it too.
    Endgame,
}

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: PeerId,
    pub(super) fetches: BTreeMap<FetchId, Asked>,
    pub(super) heard_ms: u64,
}

/// All peers and connections.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// When fetches are overdue. Empty while there is nobody else to ask.
    pub(super) deadlines: BTreeSet<(u64, ConnectionId, FetchId)>,
    /// What nodes that have left sent that was wrong.
    struck: HashMap<NodeId, u32>,
}

impl Peers {
    pub(super) fn join(&mut self, peer: PeerId, info: PeerInfo) -> Result<(), JoinError> {
        let struck = self.struck.get(&info.node).copied().filter(|_| info.kind == PeerKind::Replica);
        if struck.is_some_and(|struck| struck >= limits::PEER_MISMATCHES_MAX) {
            return Err(JoinError::Banned);
        }
        if self.peers.len() >= limits::SWARM_PEERS_MAX || self.peers.contains_key(&peer) {
            return Err(JoinError::Full);
        }
        self.peers.insert(peer, Peer::new(info, struck.unwrap_or(0)));
        Ok(())
    }

    /// Takes a peer out, whose connections are gone.
    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Peer> {
        let gone = self.peers.remove(&peer)?;
        let remembered = self.struck.contains_key(&gone.info.node);
        let room = remembered || self.struck.len() < limits::SWARM_STRUCK_MAX;
        if gone.struck > 0 && room && !gone.is_source() {
            self.struck.insert(gone.info.node, gone.struck);
        }
        Some(gone)
    }

    /// Whether there is nobody but one source.
    pub(super) fn is_alone(&self) -> bool {
        self.peers.len() == 1 && self.peers.values().all(Peer::is_source)
    }

    pub(super) fn connections_of(&self, peer: PeerId) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, c)| c.peer == peer).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_how_far() {
        for (one, other, distance) in [
            ("a/1", "a/1", Distance::Rack),
            ("a/1", "a/2", Distance::Zone),
            ("a", "a", Distance::Zone),
            ("a/1", "b/1", Distance::Far),
            ("", "b/1", Distance::Zone),
            ("", "", Distance::Zone),
        ] {
            assert_eq!(Distance::between(one, other), distance, "{one:?} {other:?}");
            assert_eq!(Distance::between(other, one), distance, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_fast_peer_is_asked_for_more_ahead_and_a_late_one_for_little() {
        let mut pace = Pace::default();
        assert_eq!((pace.window(), pace.millis_of(1)), (WINDOW_MIN, None));
        for answer in 1..8 {
            pace.answered(1 << 20, 10 * (answer - 1), 10 * answer);
        }
        assert_eq!(pace.window(), 25, "a few beyond what it has answered");
        for answer in 8..100 {
            pace.answered(1 << 20, 10 * (answer - 1), 10 * answer);
        }
        assert!((54..=62).contains(&pace.window()), "{}", pace.window());
        assert!(matches!(pace.millis_of(10 << 20), Some(90..=110)));
        pace.overdue();
        assert_eq!(pace.window(), 1);
        for answer in 1..20 {
            pace.answered(1 << 20, 0, 1000 + 2000 * answer);
        }
        assert_eq!(pace.window(), WINDOW_MIN);
    }

    #[test]
    fn over_a_long_path_more_is_asked_for_ahead() {
        let window = |waited: u64| {
            let mut pace = Pace::default();
            for answer in 1..100_u64 {
                pace.answered(1 << 20, 1000 + 40 * answer - waited, 1000 + 40 * answer);
            }
            pace.window()
        };
        // At 25 MiB/s: half a second's worth, and four times what an answer takes.
        assert!((16..=18).contains(&window(40)), "{}", window(40));
        assert!((32..=36).contains(&window(200)), "{}", window(200));
    }
}
