//! Where runs that wait are found by whoever may be asked for them, and what replicas say they have.

use super::table::{Slot, Wanted};
use super::{HaveRange, PeerId, Puller};
use crate::block::FileId;
use crate::limits;

/// The blocks that a run can have.
const RUN_BLOCKS_MAX: u32 = 1 << (limits::RUN_BYTES_MAX.ilog2() - limits::BLOCK_LOG2_MIN as u32);

/// What is left in queues of what is settled, before they are made anew.
const STALE_MAX: usize = 4096;

impl Puller {
    pub(super) fn count_copies(&mut self, slot: Slot) {
        let Some(wanted) = self.table.get_mut(slot) else { return };
        for peer in self.peers.peers.values() {
            wanted.copies[peer.info.distance.index()] += u16::from(peer.haves.has(&wanted.run));
        }
    }

    /// Puts a run that waits where it is found by whoever may be asked for it.
    pub(super) fn offer(&mut self, slot: Slot, first: bool) {
        let Some(wanted) = self.table.get(slot) else { return };
        let enough = 2 * self.table.unsettled() + STALE_MAX;
        for peer in self.peers.peers.values_mut().filter(|peer| peer.haves.has(&wanted.run)) {
            let distance = peer.info.distance.index();
            peer.offers.push(slot, wanted, distance);
            if peer.offers.len() + peer.gate.len() > enough {
                peer.offers.clear();
                peer.gate.clear();
                let all = self.table.all().map(|slot| (slot, self.table.at(slot)));
                for (slot, wanted) in all.filter(|(_, wanted)| wanted.waits && peer.haves.has(&wanted.run)) {
                    peer.offers.push(slot, wanted, distance);
                }
            }
        }
        if first {
            self.fresh.push_front(slot);
        } else {
            self.fresh.push_back(slot);
        }
        if self.fresh.len() + self.sources.len() > enough {
            self.fresh.clear();
            self.sources.clear();
            self.fresh.extend(self.table.all().filter(|slot| self.table.at(*slot).waits));
        }
    }

    /// A run that nobody owes any more is to be asked for again, of whoever may.
    pub(super) fn again(&mut self, slot: Slot, first: bool) {
        let lost = |wanted: &Wanted| !wanted.is_settled() && (wanted.waits || wanted.askers.count() == 0);
        if self.table.get(slot).is_some_and(lost) {
            self.table.wait_again(slot);
            self.offer(slot, first);
        }
    }

    /// A replica has something.
    pub fn have(&mut self, peer: PeerId, range: HaveRange) {
        let Some(peer) = self.peers.peers.get_mut(&peer) else { return };
        if peer.is_source() || peer.haves.covers(range) {
            return;
        }
        // Runs that begin before what is new, or end behind it, may be had only now.
        let lacks = |slot: &Slot| !peer.haves.has(&self.table.at(*slot).run);
        let lacked: Vec<Slot> = match range {
            HaveRange::Files { first, count } => {
                self.table.of_files(first, FileId(first.0.saturating_add(count))).filter(lacks).collect()
            }
            HaveRange::Blocks { file, first, count } => {
                let from = first.0.saturating_sub(RUN_BLOCKS_MAX);
                let to = first.0.saturating_add(count).saturating_add(RUN_BLOCKS_MAX);
                self.table.of_blocks(file, from, to).filter(lacks).collect()
            }
        };
        peer.haves.add(range);
        let distance = peer.info.distance.index();
        for slot in lacked {
            let Some(wanted) = self.table.get_mut(slot) else { continue };
            if peer.haves.has(&wanted.run) {
                wanted.copies[distance] += 1;
                if wanted.waits {
                    peer.offers.push(slot, wanted, distance);
                }
            }
        }
    }
}
