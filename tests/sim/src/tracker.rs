//! Who meets whom: the rules of a tracker, which knows hosts and nothing of what they have.
//!
//! Receivers meet at random within their zone. A bounded number of those near the source meet it, and a bounded number
//! of each zone meets those of other zones; they know one another and are connected, so that they
//! can share that work.

use crate::events::HostId;
use crate::host::{Host, Role};
use crate::random::Random;
use crate::scenario::Scenario;

/// Hosts of another zone that a gateway meets.
const FAR_NEIGHBOURS: u32 = 2;

pub struct Tracker {
    random: Random,
    /// Receivers and liars, by zone.
    zones: Vec<Vec<HostId>>,
    /// Those whom the source serves.
    pub served: Vec<HostId>,
    /// Those connected to other zones, by zone.
    pub gateways: Vec<Vec<HostId>>,
    neighbours: u32,
    source_slots: usize,
    gateways_max: usize,
    pub is_cut: bool,
}

impl Tracker {
    pub fn new(scenario: &Scenario, hosts: &[Host], seed: u64) -> Self {
        let mut zones = vec![Vec::new(); scenario.zones as usize];
        for (id, host) in hosts.iter().enumerate().skip(1) {
            zones[host.zone as usize].push(HostId::try_from(id).expect("few hosts"));
        }
        Self {
            random: Random::new(seed),
            gateways: vec![Vec::new(); zones.len()],
            zones,
            served: Vec::new(),
            neighbours: scenario.neighbours,
            source_slots: scenario.source_slots as usize,
            gateways_max: scenario.gateways as usize,
            is_cut: false,
        }
    }

    pub fn may_meet(&self, hosts: &[Host], one: HostId, other: HostId) -> bool {
        let (one_host, other_host) = (&hosts[one as usize], &hosts[other as usize]);
        let apart = self.is_cut && one_host.half != other_host.half;
        one != other && one_host.lives && other_host.lives && !apart && !one_host.knows(other)
    }

    /// Somebody new of its zone for a receiver.
    pub fn neighbour(&mut self, hosts: &[Host], of: HostId) -> Option<HostId> {
        let zone = hosts[of as usize].zone as usize;
        for _ in 0..8 {
            let other = self.random.pick(&self.zones[zone])?;
            let has_room = hosts[other as usize].believed().count() < 2 * self.neighbours as usize;
            if has_room && self.may_meet(hosts, of, other) {
                return Some(other);
            }
        }
        None
    }

    /// A receiver that is not served yet, while the source has room: one near it, or anybody.
    pub fn next_served(&mut self, hosts: &[Host]) -> Option<HostId> {
        self.served.retain(|id| hosts[*id as usize].lives && hosts[0].knows(*id));
        if self.served.len() >= self.source_slots || !hosts[0].lives {
            return None;
        }
        let zones = self.zones.iter().filter(|zone| !zone.is_empty());
        let nearest: Vec<HostId> = zones.take(1).flatten().copied().collect();
        let free: Vec<HostId> = nearest
            .into_iter()
            .filter(|id| self.may_meet(hosts, 0, *id) && needs_something(&hosts[*id as usize]))
            .collect();
        let chosen = self.random.pick(&free)?;
        self.served.push(chosen);
        Some(chosen)
    }

    /// Fills the gateways of all zones. Whom each new one meets.
    pub fn gateways(&mut self, hosts: &[Host]) -> Vec<(HostId, HostId)> {
        if self.zones.len() < 2 {
            return Vec::new();
        }
        let mut meetings = Vec::new();
        let mut new = Vec::new();
        for zone in 0..self.zones.len() {
            let gateways = &mut self.gateways[zone];
            gateways.retain(|id| hosts[*id as usize].lives);
            let mut free: Vec<HostId> = self.zones[zone].clone();
            free.retain(|id| hosts[*id as usize].lives && !gateways.contains(id));
            self.random.shuffle(&mut free);
            let room = self.gateways_max.saturating_sub(gateways.len());
            new.extend(free.iter().take(room).map(|id| (zone, *id)));
            gateways.extend(free.into_iter().take(room));
        }
        for (zone, id) in new {
            for other in (0..self.zones.len()).filter(|other| *other != zone) {
                let mut there = self.gateways[other].clone();
                self.random.shuffle(&mut there);
                there.retain(|other| self.may_meet(hosts, id, *other) && !meetings.contains(&(*other, id)));
                meetings.extend(there.into_iter().take(FAR_NEIGHBOURS as usize).map(|other| (id, other)));
            }
        }
        meetings
    }

    /// After the halves are one again: somebody of the other half.
    pub fn of_other_half(&mut self, hosts: &[Host], of: HostId) -> Option<HostId> {
        let host = &hosts[of as usize];
        for _ in 0..8 {
            let other = self.random.pick(&self.zones[host.zone as usize])?;
            if hosts[other as usize].half != host.half && self.may_meet(hosts, of, other) {
                return Some(other);
            }
        }
        None
    }
}

fn needs_something(host: &Host) -> bool {
    match &host.role {
        Role::Receiver(receiver) => receiver.missing > 0,
        Role::Liar => true,
        Role::Source => false,
    }
}
