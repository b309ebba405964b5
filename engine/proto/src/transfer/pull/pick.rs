//! What to ask of a connection next.
//!
//! Looks at a bounded number of runs: each queue has what its peer may be asked for, in about the right order.

use super::peer::{Asked, Peer, Why};
use super::table::{Slot, Table};
use super::{ConnectionId, Fetch, FetchId, PeerId, Puller};
use crate::limits;

/// An answer is overdue after so many times what it takes at the peer's rate.
const LATE: u64 = 4;

/// Runs that become a fetch.
#[derive(Default)]
pub(super) struct Batch {
    slots: Vec<Slot>,
    bytes: u64,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= limits::FETCH_RANGES_MAX || self.bytes >= limits::RUN_BYTES_MAX as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a run to ask a peer for it, if it still fits one fetch.
    pub(super) fn take(&mut self, slot: Slot, peer: PeerId, table: &mut Table) -> bool {
        let bytes = self.bytes + u64::from(table.at(slot).run.bytes);
        let fits = bytes <= limits::RUN_BYTES_MAX as u64 && self.slots.len() < limits::FETCH_RANGES_MAX;
        if !self.slots.is_empty() && !fits {
            return false;
        }
        self.slots.push(slot);
        self.bytes = bytes;
        table.ask(slot, peer);
        true
    }
}

impl Puller {
    /// The next fetch for a connection, while it has room and there is something to ask of its peer now.
    pub fn poll_fetch(&mut self, connection: ConnectionId, now_ms: u64) -> Option<Fetch> {
        self.expire(now_ms);
        let open = self.peers.connections.get(&connection)?;
        let (id, unanswered) = (open.peer, open.fetches.len());
        let peer = self.peers.peers.get(&id)?;
        let is_alone = self.peers.is_alone();
        let at_will = is_alone && !self.expects_others;
        let has_room = unanswered < self.fetches_max.min(peer.fetches_max) && (at_will || peer.has_room());
        if !has_room {
            return None;
        }
        let mut batch = Batch::default();
        let mut why = Why::Next;
        if is_alone {
            self.pick_in_order(id, &mut batch);
        } else if peer.is_dear() {
            why = self.pick_dear(id, &mut batch, now_ms);
        } else {
            self.pick_near(id, &mut batch);
        }
        if batch.is_empty() && !is_alone {
            why = Why::Endgame;
            self.pick_endgame(id, &mut batch, now_ms);
        }
        (!batch.is_empty()).then(|| self.fetch(connection, id, batch, why, now_ms))
    }

    /// When to poll again though nothing has happened: somebody else's turn ends, or an answer is overdue. After `now_ms`.
    #[must_use]
    pub fn wake_at(&self, now_ms: u64) -> Option<u64> {
        let gates = self.peers.peers.values().filter(|peer| peer.is_dear() && !peer.is_source());
        let gates = gates.filter_map(|peer| peer.gate.wake_ms()).chain(self.sources.wake_ms());
        let overdue = self.peers.deadlines.first().map(|(due_ms, ..)| *due_ms);
        gates.chain(overdue).chain(self.unlooked_ms).filter(|at| *at > now_ms).min()
    }

    fn fetch(&mut self, connection: ConnectionId, of: PeerId, batch: Batch, why: Why, now_ms: u64) -> Fetch {
        let id = FetchId(self.next_fetch);
        self.next_fetch += 1;
        let runs = batch.slots.iter().map(|slot| self.table.at(*slot).run).collect();
        let is_alone = self.peers.is_alone();
        let peer = self.peers.peers.get_mut(&of).expect("just looked at");
        peer.fetches += 1;
        peer.owed_bytes += batch.bytes;
        let takes = peer.pace.millis_of(peer.owed_bytes);
        let allowed =
            takes.map_or(limits::SWARM_ANSWER_MS, |takes| (LATE * takes).max(limits::SWARM_PATIENCE_MS));
        let due_ms = now_ms.saturating_add(allowed);
        match why {
            Why::Next => {}
            Why::TakenOver if peer.is_source() => self.sources.takes_over(),
            Why::TakenOver => peer.gate.takes_over(),
            Why::Endgame => self.endgame += 1,
        }
        if !is_alone {
            self.peers.deadlines.insert((due_ms, connection, id));
        }
        let asked = Asked { slots: batch.slots, bytes: batch.bytes, asked_ms: now_ms, due_ms, why };
        let open = self.peers.connections.get_mut(&connection).expect("just looked at");
        open.fetches.insert(id, asked);
        Fetch { id, runs }
    }

    /// What is overdue is asked of others too, and its peer for less.
    fn expire(&mut self, now_ms: u64) {
        while let Some(&(due_ms, connection, fetch)) = self.peers.deadlines.first()
            && due_ms <= now_ms
        {
            self.peers.deadlines.pop_first();
            let Some(open) = self.peers.connections.get(&connection) else { continue };
            let Some(asked) = open.fetches.get(&fetch) else { continue };
            let slots = asked.slots.clone();
            if let Some(peer) = self.peers.peers.get_mut(&open.peer) {
                peer.pace.overdue();
            }
            for slot in slots {
                if self.table.wait_again(slot) {
                    self.offer(slot, true);
                }
            }
        }
    }

    /// From one source alone: from the front of the queue.
    fn pick_in_order(&mut self, of: PeerId, batch: &mut Batch) {
        let mut drops = limits::PICK_DROPS_MAX;
        while let Some(&slot) = self.fresh.front()
            && !batch.is_full()
            && drops > 0
        {
            if !self.table.get(slot).is_some_and(|wanted| wanted.may_ask(of)) {
                drops -= 1;
            } else if !batch.take(slot, of, &mut self.table) {
                break;
            }
            self.fresh.pop_front();
        }
    }

    /// From a replica around us: what it has, the rarest first.
    fn pick_near(&mut self, of: PeerId, batch: &mut Batch) {
        let Some(Peer { info, haves, offers, .. }) = self.peers.peers.get_mut(&of) else { return };
        let distance = info.distance.index();
        let mut drops = limits::PICK_DROPS_MAX;
        while !batch.is_full() {
            let usable =
                |slot| self.table.get(slot).filter(|wanted| wanted.may_ask(of) && haves.has(&wanted.run));
            let Some(slot) = offers.pop(distance, &mut self.random, &mut drops, usable) else { break };
            if !batch.take(slot, of, &mut self.table) {
                offers.push(slot, self.table.at(slot), distance);
                break;
            }
        }
    }

    /// When all that is wanted is on its way: what a slower peer owes. First answer wins.
    fn pick_endgame(&mut self, of: PeerId, batch: &mut Batch, now_ms: u64) {
        if self.table.waiting() > 0 || self.endgame >= limits::ENDGAME_FETCHES_MAX {
            return;
        }
        let Some(peer) = self.peers.peers.get(&of) else { return };
        let mut looks = limits::PICK_LOOKS_MAX;
        for open in self.peers.connections.values().filter(|open| open.peer != of) {
            let Some(slower) = self.peers.peers.get(&open.peer) else { continue };
            let mut before = 0;
            for asked in open.fetches.values() {
                before += asked.bytes;
                let left = left_ms(slower, asked, before, now_ms);
                let ours = peer.pace.millis_of(peer.owed_bytes + asked.bytes);
                let waited = now_ms.saturating_sub(asked.asked_ms) >= limits::SWARM_PATIENCE_MS;
                if looks == 0 || ours.is_none_or(|ours| left <= 2 * ours) || (peer.is_dear() && !waited) {
                    break;
                }
                for &slot in asked.slots.iter().take(looks) {
                    looks -= 1;
                    let wanted = self.table.at(slot);
                    let has = peer.is_source() || peer.haves.has(&wanted.run);
                    let may = !wanted.is_settled() && wanted.may_repeat(of) && has;
                    if may && !batch.take(slot, of, &mut self.table) {
                        return;
                    }
                }
                if !batch.is_empty() {
                    return;
                }
            }
        }
    }
}

/// How long a peer will take for a fetch, of which it owes `bytes` with all that was asked for before it.
fn left_ms(peer: &Peer, asked: &Asked, bytes: u64, now_ms: u64) -> u64 {
    let waited = now_ms.saturating_sub(asked.asked_ms.max(peer.pace.answered_ms()));
    let takes = peer.pace.millis_of(bytes).unwrap_or(limits::SWARM_ANSWER_MS);
    // Of what should have come, nobody knows when it will.
    if waited > takes { waited } else { takes - waited }
}
