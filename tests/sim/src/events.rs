//! What happens when.

use sealift_proto::transfer::pull::{Fetch, HaveRange};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;

/// A host: its place in the table. The source is 0.
pub type HostId = u32;
/// A connection of a host: its place among all that it ever had.
pub type LinkId = u32;

pub enum Event {
    /// A receiver begins, or looks what has become due.
    Wake(HostId),
    /// A fetch comes in at whoever is asked.
    Request(HostId, LinkId, Box<Fetch>),
    /// A host may send the next piece.
    Uplink(HostId),
    /// A piece has come through the link between two zones: its bytes, and the fetch that is answered with it.
    Downlink(HostId, LinkId, u64, Option<Box<Fetch>>),
    /// The answer to a fetch is whole at whoever asked.
    Answer(HostId, LinkId, Box<Fetch>),
    /// Something is announced to a host.
    Have(HostId, LinkId, Rc<[HaveRange]>),
    /// A receiver has synced and indexed, and tells.
    Announce(HostId),
    Crash(HostId),
    /// A host finds out that a connection is dead.
    Lost(HostId, LinkId),
    /// The network falls into halves, or is one again.
    Cut,
    Heal,
}

struct Entry {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Events in the order of their times, in microseconds; those of one time in the order in which they were put there.
#[derive(Default)]
pub struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Events {
    pub fn push(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at, sequence: self.sequence, event }));
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.sequence
    }
}
