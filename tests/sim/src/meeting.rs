//! How hosts come to know one another.

use crate::events::{Event, HostId, LinkId};
use crate::host::{Link, Role};
use crate::world::World;
use sealift_proto::transfer::pull::{ConnectionId, Distance, NodeId, PeerId, PeerInfo, PeerKind, Shares};
use std::collections::VecDeque;

/// Names of those that are known and not connected, beside those of connections.
const KNOWN: u32 = 1 << 24;

impl World<'_> {
    fn link(&mut self, one: HostId, other: HostId) -> LinkId {
        let back = LinkId::try_from(self.hosts[other as usize].links.len()).expect("few connections");
        let links = &mut self.host(one).links;
        links.push(Link { other, back, carries: true, believed: true, uploads: VecDeque::new() });
        LinkId::try_from(links.len() - 1).expect("few connections")
    }

    /// Two hosts connect, and tell each other what they have.
    pub(crate) fn meet(&mut self, one: HostId, other: HostId) {
        let there = self.link(one, other);
        let back = LinkId::try_from(self.hosts[other as usize].links.len()).expect("few connections");
        self.host(other).links.push(Link {
            other: one,
            back: there,
            carries: true,
            believed: true,
            uploads: VecDeque::new(),
        });
        for (of, link, who) in [(one, there, other), (other, back, one)] {
            self.join(of, link, who);
            let ranges = match &self.hosts[of as usize].role {
                Role::Source => continue,
                Role::Liar => vec![self.shape.all()],
                Role::Receiver(receiver) => receiver.told(),
            };
            let their = if of == one { back } else { there };
            let at = self.now + self.delay(one, other);
            if !ranges.is_empty() {
                self.events.push(at, Event::Have(who, their, ranges.into()));
            }
        }
    }

    fn info(&self, of: HostId, who: HostId, shares: Shares) -> PeerInfo {
        let label = |id: HostId| format!("z{}", self.hosts[id as usize].zone);
        let (kind, node) = match &self.hosts[who as usize].role {
            Role::Source => (PeerKind::Source, NodeId([0; 16])),
            Role::Receiver(receiver) => (PeerKind::Replica, receiver.node),
            Role::Liar => (PeerKind::Replica, NodeId(u128::from(who).to_le_bytes())),
        };
        PeerInfo { node, kind, distance: Distance::between(&label(of), &label(who)), shares }
    }

    fn join(&mut self, of: HostId, link: LinkId, who: HostId) {
        let info = self.info(of, who, Shares::NONE);
        let now_ms = self.now / 1000;
        let Some(receiver) = self.host(of).receiver() else { return };
        // Whom it has banned it does not serve either.
        if receiver.puller.join(PeerId(link), info).is_ok() {
            receiver.puller.connect(ConnectionId(link), PeerId(link), now_ms);
        }
    }

    pub(crate) fn meet_somebody(&mut self, id: HostId) {
        if let Some(other) = self.tracker.neighbour(&self.hosts, id) {
            self.meet(id, other);
        }
    }

    /// Lets the source and the zones have as many connections as they may, and tells those concerned of one another.
    pub(crate) fn fill_slots(&mut self) {
        let mut changed = self.tracker.served.clone();
        while let Some(id) = self.tracker.next_served(&self.hosts) {
            self.meet(0, id);
            changed.push(id);
        }
        changed.extend(self.tracker.gateways.iter().flatten());
        for (one, other) in self.tracker.gateways(&self.hosts) {
            self.meet(one, other);
        }
        changed.extend(self.tracker.gateways.iter().flatten());
        changed.sort_unstable();
        changed.dedup();
        for &id in &changed {
            self.share(id);
        }
        if self.now > 0 {
            changed.into_iter().for_each(|id| self.poll_all(id));
        }
    }

    /// Tells a receiver who shares with it what is dear, and connects it to them.
    fn share(&mut self, id: HostId) {
        let gateways = &self.tracker.gateways[self.hosts[id as usize].zone as usize];
        let served = &self.tracker.served;
        let (is_served, is_gateway) = (served.contains(&id), gateways.contains(&id));
        let mut others: Vec<HostId> = Vec::new();
        others.extend(served.iter().filter(|_| is_served));
        others.extend(gateways.iter().filter(|_| is_gateway));
        others.retain(|other| *other != id);
        others.sort_unstable();
        others.dedup();
        let infos: Vec<(u32, PeerInfo)> = others
            .iter()
            .map(|&other| {
                let source = is_served && served.contains(&other);
                let far = is_gateway && gateways.contains(&other);
                (KNOWN + other, self.info(id, other, Shares { source, far }))
            })
            .collect();
        for other in others {
            if self.tracker.may_meet(&self.hosts, id, other) {
                self.meet(id, other);
            }
        }
        let Some(receiver) = self.host(id).receiver() else { return };
        for known in std::mem::take(&mut receiver.sharers) {
            receiver.puller.leave(PeerId(known));
        }
        for (known, info) in infos {
            if receiver.puller.join(PeerId(known), info).is_ok() {
                receiver.sharers.push(known);
            }
        }
    }
}
