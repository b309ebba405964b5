//! What befalls hosts and the network, how the others find out, and what they tell one another.

use crate::events::{Event, HostId, LinkId};
use crate::host::Role;
use crate::world::World;
use sealift_proto::limits::DEAD_PEER_TIMEOUT_MS;
use sealift_proto::transfer::pull::{HaveRange, PeerId};
use std::rc::Rc;

impl World<'_> {
    pub(crate) fn have(&mut self, id: HostId, link: LinkId, ranges: &[HaveRange]) {
        let host = self.host(id);
        if !host.lives || !host.link(link).carries {
            return;
        }
        let Some(receiver) = host.receiver() else { return };
        for range in ranges {
            receiver.puller.have(PeerId(link), *range);
        }
        self.poll(id, link);
    }

    /// A receiver tells the others what it has synced and indexed.
    pub(crate) fn announce(&mut self, id: HostId) {
        let host = self.host(id);
        if !host.lives {
            return;
        }
        let Some(receiver) = host.receiver() else { return };
        let ranges: Rc<[HaveRange]> = receiver.tell().into();
        let links: Vec<LinkId> = self.hosts[id as usize].believed().collect();
        for link in links {
            let (other, back) = {
                let link = self.host(id).link(link);
                (link.other, link.back)
            };
            let cares = match &self.hosts[other as usize].role {
                Role::Receiver(receiver) => receiver.missing > 0,
                Role::Source | Role::Liar => false,
            };
            if cares {
                let at = self.now + self.delay(id, other);
                self.events.push(at, Event::Have(other, back, Rc::clone(&ranges)));
            }
        }
    }

    /// Nothing passes on a connection any more.
    fn mute(&mut self, id: HostId, link: LinkId) -> (HostId, LinkId) {
        let link = self.host(id).link(link);
        link.carries = false;
        let (other, back) = (link.other, link.back);
        self.host(other).link(back).carries = false;
        (other, back)
    }

    /// One end closes a connection; the other hears of it.
    pub(crate) fn close(&mut self, id: HostId, link: LinkId) {
        let (other, back) = self.mute(id, link);
        let at = self.now + self.delay(id, other);
        self.events.push(at, Event::Lost(other, back));
        self.lost(id, link);
    }

    /// Somebody is gone without a word; the others find out by its silence.
    pub(crate) fn crash(&mut self, id: HostId) {
        self.host(id).lives = false;
        let links: Vec<LinkId> = self.hosts[id as usize].believed().collect();
        for link in links {
            let (other, back) = self.mute(id, link);
            self.find_out(other, back);
        }
    }

    fn find_out(&mut self, id: HostId, link: LinkId) {
        let at = self.now + self.random.below(1000 * DEAD_PEER_TIMEOUT_MS);
        self.events.push(at, Event::Lost(id, link));
    }

    pub(crate) fn lost(&mut self, id: HostId, link: LinkId) {
        if !std::mem::replace(&mut self.host(id).link(link).believed, false) || !self.host(id).lives {
            return;
        }
        let other = self.host(id).link(link).other;
        let is_far = self.hosts[id as usize].zone != self.hosts[other as usize].zone;
        if let Some(receiver) = self.host(id).receiver() {
            receiver.puller.leave(PeerId(link));
        }
        if id == 0 || other == 0 || is_far {
            self.fill_slots();
        } else {
            self.meet_somebody(id);
        }
        self.poll_all(id);
    }

    /// The network falls into halves.
    pub(crate) fn cut(&mut self) {
        self.tracker.is_cut = true;
        for id in 0..=self.scenario.receivers {
            let links: Vec<LinkId> = self.hosts[id as usize].believed().collect();
            for link in links {
                let other = self.host(id).link(link).other;
                if self.hosts[id as usize].half != self.hosts[other as usize].half {
                    self.mute(id, link);
                    self.find_out(id, link);
                }
            }
        }
    }

    /// The halves are one again: the tracker tells each receiver of somebody in the other.
    pub(crate) fn heal(&mut self) {
        self.tracker.is_cut = false;
        for id in 1..=self.scenario.receivers {
            if let Some(other) = self.tracker.of_other_half(&self.hosts, id) {
                self.meet(id, other);
            }
        }
        self.fill_slots();
    }
}
