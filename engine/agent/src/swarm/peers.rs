//! Who else serves the job, as far as that is known, and whom to try next. Bounded in number and in pace, whatever is
//! claimed: an address that somebody names costs a dial now and then.

use sealift_proto::limits::SWARM_PEERS_MAX;
use sealift_proto::member::NodeId;
use sealift_proto::transfer::pull::Distance;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Peers that are talked to at a time.
pub const LINKS_MAX: usize = 16;
/// Between two dials.
const DIAL_INTERVAL: Duration = Duration::from_millis(50);
/// An address is tried again after this, doubled with each failure,
const RETRY_MIN: Duration = Duration::from_secs(1);
/// up to this,
const RETRY_MAX: Duration = Duration::from_secs(60);
/// and no more after so many failures in a row.
const FAILURES_MAX: u32 = 8;
/// Of so many dials one goes to whoever is farthest, the others to the nearest: what is here came from afar once.
const FAR_EVERY: u32 = 4;

/// See the module.
pub struct Peers {
    me: NodeId,
    known: HashMap<SocketAddr, Known>,
    next_dial: Instant,
    dials: u32,
}

struct Known {
    /// Who is said to be there.
    node: Option<NodeId>,
    /// By what others say of it.
    distance: Distance,
    state: State,
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled, not before then.
    Idle(Instant),
    /// Being dialled, or talked to.
    Linked,
    /// Not to be dialled: it is this very run, somebody who is talked to under another address, or was banned.
    Shunned,
}

impl Peers {
    /// Nobody is known.
    #[must_use]
    pub fn new(me: NodeId, now: Instant) -> Self {
        Self { me, known: HashMap::new(), next_dial: now, dials: 0 }
    }

    /// Somebody may be at this address, to be dialled from `at` on. What is known of it already stays.
    pub fn learn(&mut self, address: SocketAddr, node: Option<NodeId>, distance: Distance, at: Instant) {
        if node == Some(self.me) {
            return;
        }
        let is_linked = node.is_some()
            && self.known.iter().any(|(other, known)| {
                *other != address && known.node == node && known.state == State::Linked
            });
        if let Some(known) = self.known.get_mut(&address) {
            if node.is_some() && known.node != node {
                // Somebody else is there now.
                *known = Known { node, distance, state: known.state, failures: 0 };
                if matches!(known.state, State::Shunned) {
                    known.state = State::Idle(at);
                }
            }
            return;
        }
        if self.known.len() < SWARM_PEERS_MAX || self.make_room() {
            let state = if is_linked { State::Shunned } else { State::Idle(at) };
            self.known.insert(address, Known { node, distance, state, failures: 0 });
        }
    }

    /// Forgets somebody who was tried in vain.
    fn make_room(&mut self) -> bool {
        let worst = self.known.iter().filter(|(_, known)| !matches!(known.state, State::Linked));
        let worst = worst.max_by_key(|(_, known)| known.failures).filter(|(_, known)| known.failures > 0);
        let Some(address) = worst.map(|(address, _)| *address) else { return false };
        self.known.remove(&address).is_some()
    }

    /// Whom to dial now, if anybody; counts as dialled.
    pub fn next_to_dial(&mut self, now: Instant) -> Option<SocketAddr> {
        let linked = self.known.values().filter(|known| known.state == State::Linked).count();
        if now < self.next_dial || linked >= LINKS_MAX {
            return None;
        }
        let due =
            self.known.iter_mut().filter(|(_, known)| matches!(known.state, State::Idle(at) if at <= now));
        let far = self.dials % FAR_EVERY == FAR_EVERY - 1;
        let (address, known) = due.min_by_key(|(_, known)| {
            let distance = if far { Err(Reverse(known.distance)) } else { Ok(known.distance) };
            (known.failures, distance)
        })?;
        self.dials = self.dials.wrapping_add(1);
        known.state = State::Linked;
        self.next_dial = now + DIAL_INTERVAL;
        Some(*address)
    }

    /// Who answered at an address. Whether that is somebody new: not this run, nor somebody who is talked to already.
    pub fn answered(&mut self, address: SocketAddr, node: NodeId) -> bool {
        let is_other = node != self.me
            && !self.known.iter().any(|(at, known)| {
                *at != address && known.node == Some(node) && known.state == State::Linked
            });
        if let Some(known) = self.known.get_mut(&address) {
            *known = Known {
                node: Some(node),
                distance: known.distance,
                state: if is_other { State::Linked } else { State::Shunned },
                failures: 0,
            };
        }
        is_other
    }

    /// Talking to somebody has ended, or did not come about.
    pub fn lost(&mut self, address: SocketAddr, was_open: bool, now: Instant) {
        let Some(known) = self.known.get_mut(&address) else { return };
        known.failures = if was_open { 1 } else { known.failures + 1 };
        known.state = match known.failures {
            FAILURES_MAX.. => State::Shunned,
            failures => State::Idle(now + (RETRY_MIN * (1 << failures.min(8))).min(RETRY_MAX)),
        };
    }

    /// Somebody is not talked to again.
    pub fn shun(&mut self, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.state = State::Shunned;
        }
    }

    /// Addresses of those who answered before: somebody there may have the manifest.
    #[must_use]
    pub fn linked(&self) -> Vec<SocketAddr> {
        let linked =
            self.known.iter().filter(|(_, known)| known.state == State::Linked && known.node.is_some());
        linked.map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 3939))
    }

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    #[test]
    fn nobody_is_dialled_twice_nor_faster_than_the_pace_nor_oneself() {
        let now = Instant::now();
        let mut peers = Peers::new(node(0), now);
        peers.learn(address(9), Some(node(0)), Distance::Zone, now);
        assert_eq!(peers.next_to_dial(now), None, "that is this run");
        for host in 1..=3 {
            peers.learn(address(host), Some(node(host)), Distance::Zone, now);
            peers.learn(address(host), Some(node(host)), Distance::Zone, now);
        }
        let mut dialled = Vec::new();
        for tick in 0..10 {
            dialled.extend(peers.next_to_dial(now + DIAL_INTERVAL * tick));
        }
        dialled.sort();
        assert_eq!(dialled, [address(1), address(2), address(3)]);
    }

    #[test]
    fn a19_however_many_are_named_few_are_remembered_and_fewer_dialled() {
        let now = Instant::now();
        let mut peers = Peers::new(node(0), now);
        for i in 0..10_000_u32 {
            let [.., high, low] = i.to_be_bytes();
            peers.learn(SocketAddr::from(([10, 1, high, low], 1)), None, Distance::Zone, now);
        }
        assert_eq!(peers.known.len(), SWARM_PEERS_MAX);
        let dials = (0..1000).filter_map(|tick| peers.next_to_dial(now + DIAL_INTERVAL * tick)).count();
        assert_eq!(dials, LINKS_MAX);
    }

    #[test]
    fn who_cannot_be_reached_is_tried_ever_more_rarely_and_then_no_more() {
        let now = Instant::now();
        let mut peers = Peers::new(node(0), now);
        peers.learn(address(1), None, Distance::Zone, now);
        let (mut at, mut dials) = (now, 0);
        while at < now + Duration::from_secs(24 * 3600) {
            if let Some(address) = peers.next_to_dial(at) {
                dials += 1;
                peers.lost(address, false, at);
            }
            at += Duration::from_secs(1);
        }
        assert_eq!(dials, FAILURES_MAX);
    }

    #[test]
    fn those_who_are_near_come_first_and_each_fourth_is_from_afar() {
        let now = Instant::now();
        let mut peers = Peers::new(node(0), now);
        for host in 1..=8 {
            let distance = if host <= 3 { Distance::Far } else { Distance::Zone };
            peers.learn(address(host), Some(node(host)), distance, now);
        }
        let far = |at: &SocketAddr| (1..=3).any(|host| *at == address(host));
        let dialled: Vec<_> =
            (0..8).filter_map(|tick| peers.next_to_dial(now + DIAL_INTERVAL * tick)).collect();
        let order: Vec<_> = dialled.iter().map(far).collect();
        assert_eq!(order, [false, false, false, true, false, false, true, true]);
    }

    #[test]
    fn one_under_two_addresses_is_talked_to_once() {
        let now = Instant::now();
        let mut peers = Peers::new(node(0), now);
        peers.learn(address(1), None, Distance::Zone, now);
        peers.learn(address(2), None, Distance::Zone, now);
        let first = peers.next_to_dial(now).unwrap();
        let second = peers.next_to_dial(now + DIAL_INTERVAL).unwrap();
        assert!(peers.answered(first, node(1)));
        assert!(!peers.answered(second, node(1)));
        assert!(!peers.answered(second, node(0)), "nor oneself");
        assert_eq!(peers.linked(), [first]);
        peers.lost(first, true, now);
        assert_eq!(peers.linked(), []);
        assert_eq!(peers.next_to_dial(now + RETRY_MAX), Some(first), "it is tried again");
    }
}
