//! The loop: events in the order of their times, and what each of them does.

use crate::events::{Event, Events, HostId, LinkId};
use crate::host::{Host, Role, Upload, micros};
use crate::random::Random;
use crate::receiver::{Receiver, Shape};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tracker::Tracker;
use sealift_proto::transfer::pull::{ConnectionId, Fetch, NodeId};

const SECOND: u64 = 1_000_000;
/// A receiver looks what has become due at least so often, as the agent's ticks do.
const TICK: u64 = SECOND;
/// Receivers begin within so long of one another.
const START_SPREAD: u64 = SECOND;

pub struct World<'s> {
    pub(crate) scenario: &'s Scenario,
    pub(crate) shape: Shape,
    pub(crate) now: u64,
    pub(crate) events: Events,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) tracker: Tracker,
    /// Until when the link from one zone to another is busy, and what it carried.
    zone_free: Vec<u64>,
    zone_bytes: Vec<u64>,
    near_bytes: u64,
    late_bytes: u64,
    wrong_bytes: u64,
    bans: u64,
    /// Runs that some receiver has, and how many none has.
    held: Vec<bool>,
    unheld: usize,
    /// Receivers that are to be done, and are not.
    unfinished: u32,
}

/// Bytes a microsecond.
fn rate(mbit: f64, loss: f64) -> f64 {
    mbit / 8.0 * (1.0 - loss / 100.0)
}

impl<'s> World<'s> {
    pub fn new(scenario: &'s Scenario) -> Self {
        let mut random = Random::new(scenario.seed);
        let shape = Shape { runs: scenario.runs, file_runs: scenario.file_runs.max(1) };
        let full = rate(scenario.rate_mbit, scenario.loss);
        let mut hosts = vec![Host::new(Role::Source, 0, false, full)];
        let count = |percent: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let count = (f64::from(scenario.receivers) * percent / 100.0).round() as u32;
            count
        };
        let (liars, slow) = (count(scenario.liars), count(scenario.liars) + count(scenario.slow));
        for number in 0..scenario.receivers {
            let role = if number < liars {
                Role::Liar
            } else {
                let mut node = [0; 16];
                node[..8].copy_from_slice(&random.next().to_le_bytes());
                node[8..].copy_from_slice(&random.next().to_le_bytes());
                Role::Receiver(Box::new(Receiver::new(NodeId(node), random.next(), shape)))
            };
            let rate = if (liars..slow).contains(&number) { full / 10.0 } else { full };
            let zone = u32::try_from(random.below(scenario.zones.into())).expect("a zone");
            hosts.push(Host::new(role, zone, random.below(2) == 0, rate));
        }
        let tracker = Tracker::new(scenario, &hosts, random.next());
        let zones = (scenario.zones * scenario.zones) as usize;
        let mut world = Self {
            scenario,
            shape,
            now: 0,
            events: Events::default(),
            random,
            hosts,
            tracker,
            zone_free: vec![0; zones],
            zone_bytes: vec![0; zones],
            near_bytes: 0,
            late_bytes: 0,
            wrong_bytes: 0,
            bans: 0,
            held: vec![false; shape.runs as usize],
            unheld: shape.runs as usize,
            unfinished: scenario.receivers - liars,
        };
        world.begin(slow, count(scenario.crashes));
        world
    }

    /// Who meets whom at first, and what will befall them. Receivers from `first` on may crash.
    fn begin(&mut self, first: u32, crashes: u32) {
        for id in 1..=self.scenario.receivers {
            for _ in 0..self.scenario.neighbours.div_ceil(2) {
                self.meet_somebody(id);
            }
            let at = self.random.below(START_SPREAD);
            self.events.push(at, Event::Wake(id));
        }
        self.fill_slots();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let alone = (self.scenario.alone_s() * 1e6) as u64;
        let mut mortal: Vec<HostId> = (first + 1..=self.scenario.receivers).collect();
        self.random.shuffle(&mut mortal);
        for id in mortal.into_iter().take(crashes as usize) {
            let at = self.random.below(alone.max(1));
            self.events.push(at, Event::Crash(id));
            self.host(id).is_doomed = true;
            self.unfinished -= 1;
        }
        if self.scenario.partition {
            self.events.push(alone / 5, Event::Cut);
            self.events.push(alone * 2 / 5, Event::Heal);
        }
    }

    pub fn play(mut self) -> Report {
        while self.unfinished > 0
            && let Some((at, event)) = self.events.pop()
            && at <= self.scenario.limit_s * SECOND
        {
            self.now = at;
            self.handle(event);
        }
        let finished = |host: &Host| match &host.role {
            Role::Receiver(receiver) if !host.is_doomed => receiver.done_at,
            _ => None,
        };
        let mut done_s: Vec<f64> =
            self.hosts.iter().filter_map(finished).map(|at| at as f64 / SECOND as f64).collect();
        done_s.sort_by(f64::total_cmp);
        let zones = self.scenario.zones;
        let pairs = (0..zones).flat_map(|from| (0..zones).map(move |to| (from, to)));
        let far_bytes = pairs.zip(&self.zone_bytes).filter(|((from, to), _)| from != to);
        Report {
            seed: self.scenario.seed,
            done_s,
            unfinished: self.unfinished,
            bytes: self.scenario.bytes(),
            alone_s: self.scenario.alone_s(),
            source_bytes: self.hosts[0].sent_bytes,
            near_bytes: self.near_bytes,
            far_bytes: far_bytes.map(|((from, to), bytes)| (from, to, *bytes)).collect(),
            late_bytes: self.late_bytes,
            wrong_bytes: self.wrong_bytes,
            bans: self.bans,
            events: self.events.count(),
        }
    }

    pub(crate) fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id as usize]
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(id) => {
                let now = self.now;
                if let Some(receiver) = self.host(id).receiver()
                    && receiver.wake_at <= now
                {
                    receiver.wake_at = u64::MAX;
                }
                self.poll_all(id);
            }
            Event::Request(id, link, fetch) => self.request(id, link, fetch),
            Event::Uplink(id) => self.uplink(id),
            Event::Downlink(id, link, bytes, fetch) => self.downlink(id, link, bytes, fetch, self.now),
            Event::Answer(id, link, fetch) => self.answer(id, link, &fetch),
            Event::Have(id, link, ranges) => self.have(id, link, &ranges),
            Event::Announce(id) => self.announce(id),
            Event::Crash(id) => self.crash(id),
            Event::Lost(id, link) => self.lost(id, link),
            Event::Cut => self.cut(),
            Event::Heal => self.heal(),
        }
    }

    /// One way between two hosts.
    pub(crate) fn delay(&self, one: HostId, other: HostId) -> u64 {
        let same = self.hosts[one as usize].zone == self.hosts[other as usize].zone;
        1000 * if same { self.scenario.delay_ms } else { self.scenario.zone_delay_ms }
    }

    /// Asks a peer for whatever is to be asked of it now.
    pub(crate) fn poll(&mut self, id: HostId, link: LinkId) {
        let now = self.now;
        let host = &mut self.hosts[id as usize];
        if !host.lives || !host.links[link as usize].believed {
            return;
        }
        let (other, back, carries) = {
            let link = &host.links[link as usize];
            (link.other, link.back, link.carries)
        };
        let Some(receiver) = host.receiver() else { return };
        let mut fetches: Vec<Fetch> = Vec::new();
        while let Some(fetch) = receiver.puller.poll_fetch(ConnectionId(link), now / 1000) {
            fetches.push(fetch);
        }
        if carries {
            let at = now + self.delay(id, other);
            for fetch in fetches {
                self.events.push(at, Event::Request(other, back, Box::new(fetch)));
            }
        }
    }

    pub(crate) fn poll_all(&mut self, id: HostId) {
        let links: Vec<LinkId> = self.hosts[id as usize].believed().collect();
        for link in links {
            self.poll(id, link);
        }
        let now = self.now;
        let host = &mut self.hosts[id as usize];
        let lives = host.lives;
        let Some(receiver) = host.receiver() else { return };
        if lives && receiver.missing > 0 {
            let due = receiver.puller.wake_at(now / 1000).map_or(u64::MAX, |ms| ms * 1000);
            let at = due.clamp(now + 1, now + TICK);
            if at < receiver.wake_at {
                receiver.wake_at = at;
                self.events.push(at, Event::Wake(id));
            }
        }
    }

    fn request(&mut self, id: HostId, link: LinkId, fetch: Box<Fetch>) {
        let now = self.now;
        let host = self.host(id);
        if !host.lives || !host.link(link).carries {
            return;
        }
        let left = fetch.runs.iter().map(|run| u64::from(run.bytes)).sum();
        let uploads = &mut host.link(link).uploads;
        uploads.push_back(Upload { fetch, left });
        if uploads.len() == 1 {
            host.active.push_back(link);
        }
        if !host.is_sending {
            host.is_sending = true;
            self.events.push(now, Event::Uplink(id));
        }
    }

    /// Sends a piece: up the host's own link, through that between zones, down the other's.
    fn uplink(&mut self, id: HostId) {
        let host = &mut self.hosts[id as usize];
        let piece = if host.lives { host.next_piece() } else { None };
        let Some((link, bytes, fetch)) = piece else {
            host.is_sending = false;
            return;
        };
        host.sent_bytes += bytes;
        let (other, back) = (host.links[link as usize].other, host.links[link as usize].back);
        let sent = self.now + micros(bytes, host.rate);
        self.events.push(sent, Event::Uplink(id));
        let (from, to) = (self.hosts[id as usize].zone, self.hosts[other as usize].zone);
        let delay = self.delay(id, other);
        if from == to {
            self.near_bytes += bytes;
            self.downlink(other, back, bytes, fetch, sent + delay);
        } else {
            let pair = (from * self.scenario.zones + to) as usize;
            let zone = rate(self.scenario.zone_mbit, self.scenario.loss);
            let through = sent.max(self.zone_free[pair]) + micros(bytes, zone);
            self.zone_free[pair] = through;
            self.zone_bytes[pair] += bytes;
            self.events.push(through + delay, Event::Downlink(other, back, bytes, fetch));
        }
    }

    /// A piece reaches a host's own link, which takes them one by one.
    fn downlink(&mut self, id: HostId, link: LinkId, bytes: u64, fetch: Option<Box<Fetch>>, at: u64) {
        let host = self.host(id);
        host.down_free = at.max(host.down_free) + micros(bytes, host.rate);
        let at = host.down_free;
        if let Some(fetch) = fetch {
            self.events.push(at, Event::Answer(id, link, fetch));
        }
    }

    fn answer(&mut self, id: HostId, link: LinkId, fetch: &Fetch) {
        let now = self.now;
        let (lives, carries) = (self.hosts[id as usize].lives, self.host(id).link(link).carries);
        if !lives || !carries {
            return;
        }
        let other = self.host(id).link(link).other;
        let is_lie = matches!(self.hosts[other as usize].role, Role::Liar);
        let Some(receiver) = self.host(id).receiver() else { return };
        let was_done = receiver.done_at.is_some();
        let taken = receiver.take(link, fetch, is_lie, now);
        let is_done = receiver.done_at.is_some();
        self.late_bytes += taken.late_bytes;
        self.wrong_bytes += taken.wrong_bytes;
        if taken.tell {
            self.events.push(now + 1000 * self.scenario.announce_ms, Event::Announce(id));
        }
        if is_done && !was_done && !self.hosts[id as usize].is_doomed {
            self.unfinished -= 1;
        }
        self.unheld -=
            taken.new.iter().filter(|run| !std::mem::replace(&mut self.held[**run as usize], true)).count();
        if self.unheld == 0 && self.scenario.source_leaves && self.hosts[0].lives {
            self.crash(0);
        }
        if taken.is_banned {
            self.bans += 1;
            self.close(id, link);
        } else if taken.retries {
            self.poll_all(id);
        } else {
            self.poll(id, link);
        }
    }
}
