//! What becomes of entries that opened: each address is given to be dialled once, and not too many in a while.

use super::{Entry, NodeId, Offers, Place};
use crate::limits::{CANDIDATE_AGAIN_MS, CANDIDATES_BURST, CANDIDATES_MAX, CANDIDATES_PER_MINUTE};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// A member of a job that can be dialled. That it said so is certain; that it is there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub address: SocketAddr,
    /// By what.
    pub offers: Offers,
    /// Who.
    pub node: NodeId,
    /// Where it was found.
    pub place: Place,
}

/// One dial's share of a minute.
const DIAL_MS: u64 = 60_000 / CANDIDATES_PER_MINUTE as u64;

/// The addresses that are known of a job's members, and those that are to be given.
#[derive(Debug)]
pub struct Candidates {
    own: NodeId,
    /// When each was heard of last, and given last.
    known: BTreeMap<SocketAddr, Known>,
    waiting: VecDeque<Candidate>,
    /// Until when all dials that were given are paid for.
    paid_until_ms: u64,
}

#[derive(Debug)]
struct Known {
    heard_ms: u64,
    /// `None` while it waits.
    given_ms: Option<u64>,
}

impl Candidates {
    /// None yet, for a member that is this one itself.
    #[must_use]
    pub const fn new(own: NodeId) -> Self {
        Self { own, known: BTreeMap::new(), waiting: VecDeque::new(), paid_until_ms: 0 }
    }

    /// Takes up what an entry says. Loopback addresses count only from where loopback is: `nearby`. Whether the member
    /// is another one than this.
    pub fn hear(&mut self, entry: &Entry, place: Place, nearby: bool, now_ms: u64) -> bool {
        if entry.node == self.own {
            return false;
        }
        for address in entry.addresses().filter(|address| nearby || !address.ip().is_loopback()) {
            let again = match self.known.get_mut(&address) {
                Some(known) => {
                    known.heard_ms = now_ms;
                    known.given_ms.is_some_and(|given| now_ms.saturating_sub(given) >= CANDIDATE_AGAIN_MS)
                }
                None => {
                    self.make_room();
                    true
                }
            };
            if again {
                self.known.insert(address, Known { heard_ms: now_ms, given_ms: None });
                let (offers, node) = (entry.offers(), entry.node);
                self.waiting.push_back(Candidate { address, offers, node, place });
            }
        }
        true
    }

    /// The one of which nothing was heard for longest gives way.
    fn make_room(&mut self) {
        while self.known.len() >= CANDIDATES_MAX {
            let oldest =
                self.known.iter().min_by_key(|(_, known)| known.heard_ms).map(|(address, _)| *address);
            let Some(oldest) = oldest else { return };
            self.known.remove(&oldest);
            self.waiting.retain(|candidate| candidate.address != oldest);
        }
    }

    /// The next one to dial, if there is one and it is time.
    pub fn give(&mut self, now_ms: u64) -> Option<Candidate> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let candidate = self.waiting.pop_front()?;
        if let Some(known) = self.known.get_mut(&candidate.address) {
            known.given_ms = Some(now_ms);
        }
        self.paid_until_ms = self.paid_until_ms.max(now_ms) + DIAL_MS;
        Some(candidate)
    }

    /// When there is one to give: `None` without any.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        const BURST_MS: u64 = (CANDIDATES_BURST as u64 - 1) * DIAL_MS;
        (!self.waiting.is_empty()).then(|| self.paid_until_ms.saturating_sub(BURST_MS))
    }
}
