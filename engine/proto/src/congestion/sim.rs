//! The model on a simulated link: one queue, a rate, a delay, random loss from a seed; beside itself and beside CUBIC.
//!
//! The senders pace at 1.25 windows a round trip, and take packets for lost after three later ones, as QUIC does.

use super::{LinkModel, Temper, float, whole};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const PACKET: u64 = 1200;
const SECOND: u64 = 1_000_000;
/// A sender of which nothing was heard for so long takes everything for lost.
const SILENCE: u64 = SECOND;
/// Pacing catches up on no more than this.
const BURST: u64 = 2000;

/// A link, both ways.
#[derive(Clone, Copy)]
struct Link {
    mbit: f64,
    /// One way, in microseconds.
    delay: u64,
    loss: f64,
    /// What its queue holds, in microseconds of its rate.
    queue: u64,
    /// How long what has come waits for the senders' host, at most, in microseconds: until then it sees to nothing else.
    late: u64,
    seed: u64,
}

const LONG: Link = Link { mbit: 200.0, delay: 50_000, loss: 0.01, queue: 100_000, late: 0, seed: 1 };

/// What decides about the window.
enum Control {
    Model(Box<LinkModel>),
    Cubic(Cubic),
}

/// As much of CUBIC as it takes to compete with it.
struct Cubic {
    window: f64,
    before: f64,
    reduced_at: u64,
    threshold: f64,
    /// Losses before this packet are of one event.
    recovered_by: u64,
}

impl Cubic {
    fn new() -> Self {
        let window = 32.0 * float(PACKET);
        Self { window, before: 0.0, reduced_at: 0, threshold: f64::MAX, recovered_by: 0 }
    }

    fn acked(&mut self, now: u64, bytes: u64, lost: Option<u64>, next: u64) {
        let packet = float(PACKET);
        if lost.is_some_and(|lost| lost >= self.recovered_by) {
            self.before = self.window;
            self.window *= 0.7;
            (self.threshold, self.reduced_at, self.recovered_by) = (self.window, now, next);
        } else if self.window < self.threshold {
            self.window += float(bytes);
        } else {
            let plateau = (self.before * 0.3 / packet / 0.4).cbrt();
            let since = float(now - self.reduced_at) / 1e6;
            let aim = 0.4 * (since - plateau).powi(3) * packet + self.before;
            let linear = float(bytes) * packet / self.window * 0.1;
            self.window += (aim - self.window).min(float(bytes) * 0.5).max(linear);
        }
        self.window = self.window.max(2.0 * packet);
    }
}

struct Flow {
    control: Control,
    next: u64,
    /// Packets on their way: number and time of sending.
    out: VecDeque<(u64, u64)>,
    rtt: f64,
    may_send_at: u64,
    wakes: bool,
    largest: u64,
    /// Packets that arrived and are acknowledged with the next.
    unacknowledged: Vec<(u64, u64)>,
    measured: Measured,
}

#[derive(Clone, Copy, Default)]
struct Measured {
    sent: u64,
    delivered: u64,
    lost: u64,
    rtts: f64,
    count: f64,
}

impl Flow {
    fn window(&self) -> u64 {
        match &self.control {
            Control::Model(model) => model.window(),
            Control::Cubic(cubic) => whole(cubic.window),
        }
    }

    fn in_flight(&self) -> u64 {
        self.out.len() as u64 * PACKET
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Send(usize),
    Ack(usize, Vec<(u64, u64)>),
    Silence(usize, u64),
}

struct Simulation {
    link: Link,
    random: u64,
    /// When the link has sent all that waits.
    free_at: f64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    flows: Vec<Flow>,
    measures: bool,
    /// When the senders' host sees to what has come.
    looks_at: u64,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Of the link.
    share: f64,
    /// Of what was sent.
    lost: f64,
    /// Beside that of the empty link.
    rtt: f64,
}

/// Runs flows from their beginnings on, each with endless data; measures from `from` to `until`, in seconds.
fn run(link: Link, flows: Vec<(Control, u64)>, from: u64, until: u64) -> Vec<Outcome> {
    let mut simulation = Simulation {
        link,
        random: link.seed,
        free_at: 0.0,
        events: BinaryHeap::new(),
        count: 0,
        flows: Vec::new(),
        measures: false,
        looks_at: 0,
    };
    for (index, (control, begins)) in flows.into_iter().enumerate() {
        simulation.flows.push(Flow {
            control,
            next: 0,
            out: VecDeque::new(),
            rtt: 100_000.0,
            may_send_at: 0,
            wakes: true,
            largest: 0,
            unacknowledged: Vec::new(),
            measured: Measured::default(),
        });
        simulation.at(begins * SECOND, Event::Send(index));
    }
    while let Some(Reverse((now, _, event))) = simulation.events.pop() {
        if now > until * SECOND {
            break;
        }
        simulation.measures = now >= from * SECOND;
        match event {
            Event::Send(index) => simulation.send(now, index),
            Event::Ack(index, packets) => simulation.acknowledged(now, index, packets),
            Event::Silence(index, packet) => simulation.silence(now, index, packet),
        }
    }
    let carried = link.mbit * 1e6 / 8.0 * float(until - from);
    let outcome = |flow: &Flow| {
        let Measured { sent, delivered, lost, rtts, count } = flow.measured;
        let rtt = rtts / count.max(1.0) / float(2 * link.delay);
        Outcome { share: float(delivered) / carried, lost: float(lost) / float(sent.max(1)), rtt }
    };
    simulation.flows.iter().map(outcome).collect()
}

impl Simulation {
    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    /// SplitMix64, between 0 and 1.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        float((word ^ (word >> 31)) >> 11) / float(1 << 53)
    }

    fn send(&mut self, now: u64, index: usize) {
        self.flows[index].wakes = false;
        let bytes_a_micro = self.link.mbit / 8.0;
        loop {
            let (measures, flow) = (self.measures, &mut self.flows[index]);
            let window = flow.window();
            if flow.in_flight() + PACKET > window {
                return;
            }
            if flow.may_send_at > now {
                flow.wakes = true;
                let then = flow.may_send_at;
                return self.at(then, Event::Send(index));
            }
            let gap = float(PACKET) * flow.rtt / (1.25 * float(window));
            flow.may_send_at = whole((float(flow.may_send_at.max(now.saturating_sub(BURST))) + gap).ceil());
            let packet = flow.next;
            flow.next += 1;
            flow.out.push_back((packet, now));
            flow.measured.sent += if measures { PACKET } else { 0 };
            if let Control::Model(model) = &mut flow.control {
                model.handle_sent(now, PACKET);
            }
            if flow.out.len() == 1 {
                self.at(now + SILENCE, Event::Silence(index, packet));
            }
            let waits = (self.free_at - float(now)).max(0.0);
            if waits > float(self.link.queue) {
                continue;
            }
            self.free_at = self.free_at.max(float(now)) + float(PACKET) / bytes_a_micro;
            if self.random() < self.link.loss {
                continue;
            }
            let arrives = self.seen(whole(self.free_at) + 2 * self.link.delay);
            let flow = &mut self.flows[index];
            flow.unacknowledged.push((packet, now));
            if flow.unacknowledged.len() == 2 {
                let packets = std::mem::take(&mut flow.unacknowledged);
                self.at(arrives, Event::Ack(index, packets));
            }
        }
    }

    /// When the host sees what comes at this time.
    fn seen(&mut self, arrives: u64) -> u64 {
        if arrives > self.looks_at {
            self.looks_at = arrives + whole(self.random() * float(self.link.late));
        }
        self.looks_at.max(arrives)
    }

    fn acknowledged(&mut self, now: u64, index: usize, packets: Vec<(u64, u64)>) {
        let (measures, flow) = (self.measures, &mut self.flows[index]);
        let mut bytes = 0;
        for (packet, sent) in packets {
            let Ok(at) = flow.out.binary_search_by_key(&packet, |out| out.0) else { continue };
            flow.out.remove(at);
            bytes += PACKET;
            let rtt = float(now - sent);
            flow.rtt += (rtt - flow.rtt) / 8.0;
            flow.largest = flow.largest.max(packet);
            if measures {
                flow.measured.delivered += PACKET;
                flow.measured.rtts += rtt;
                flow.measured.count += 1.0;
            }
            if let Control::Model(model) = &mut flow.control {
                model.handle_ack(now, sent, PACKET);
            }
        }
        let mut lost = 0;
        let mut last = None;
        while flow.out.front().is_some_and(|out| out.0 + 3 <= flow.largest) {
            last = flow.out.pop_front().map(|out| out.0);
            lost += PACKET;
        }
        flow.measured.lost += if measures { lost } else { 0 };
        match &mut flow.control {
            Control::Model(model) => {
                model.handle_loss(lost);
                model.handle_acks_end(now, flow.out.len() as u64 * PACKET, false);
            }
            Control::Cubic(cubic) => cubic.acked(now, bytes, last, flow.next),
        }
        if !std::mem::replace(&mut flow.wakes, true) {
            self.at(now, Event::Send(index));
        }
    }

    fn silence(&mut self, now: u64, index: usize, packet: u64) {
        let flow = &mut self.flows[index];
        let Some(&(first, sent)) = flow.out.front() else { return };
        if first != packet {
            return self.at((sent + SILENCE).max(now + 1000), Event::Silence(index, first));
        }
        let lost = flow.in_flight();
        flow.out.clear();
        flow.unacknowledged.clear();
        if let Control::Model(model) = &mut flow.control {
            model.handle_loss(lost);
        }
        if !std::mem::replace(&mut flow.wakes, true) {
            self.at(now, Event::Send(index));
        }
    }
}

fn fair() -> Control {
    Control::Model(Box::new(LinkModel::new(Temper::Fair, PACKET)))
}

fn scavenger() -> Control {
    Control::Model(Box::new(LinkModel::new(Temper::Scavenger, PACKET)))
}

fn alone(link: Link, from: u64, until: u64) -> Outcome {
    let outcome = run(link, vec![(fair(), 0)], from, until)[0];
    println!("{outcome:?}");
    outcome
}

#[test]
fn a_long_lossy_link_is_full_and_its_queue_is_not() {
    for seed in 1..4 {
        let outcome = alone(Link { seed, ..LONG }, 0, 20);
        assert!(outcome.share > 0.92, "{outcome:?}");
        assert!(outcome.lost < 0.03 && outcome.rtt < 1.25, "{outcome:?}");
    }
}

#[test]
fn once_it_is_full_it_stays_full() {
    // 99 % is all that arrives.
    let outcome = alone(LONG, 5, 60);
    assert!(outcome.share > 0.975 && outcome.rtt < 1.1, "{outcome:?}");
}

#[test]
fn hosts_that_see_to_their_sockets_late_fill_it_all_the_same() {
    for (late, share) in [(5_000, 0.97), (10_000, 0.96), (20_000, 0.94)] {
        let outcome = alone(Link { late, ..LONG }, 5, 60);
        assert!(outcome.share > share && outcome.lost < 0.02 && outcome.rtt < 1.2, "{late}: {outcome:?}");
    }
    // On slow links, where that is many packets, no queue stands because of it.
    for (mbit, late) in [(5.0, 20_000), (20.0, 20_000), (20.0, 40_000), (50.0, 40_000)] {
        let outcome = alone(Link { mbit, late, ..LONG }, 5, 60);
        assert!(
            outcome.share > 0.92 && outcome.lost < 0.02 && outcome.rtt < 1.4,
            "{mbit} {late}: {outcome:?}"
        );
    }
    // That is made up for no further than so that the queue does not overflow.
    let outcome = alone(Link { late: 60_000, ..LONG }, 5, 60);
    assert!(outcome.share > 0.75 && outcome.lost < 0.02, "{outcome:?}");
}

#[test]
fn so_is_a_fast_one() {
    let outcome = alone(Link { mbit: 1000.0, loss: 0.005, ..LONG }, 0, 20);
    assert!(outcome.share > 0.90 && outcome.lost < 0.03 && outcome.rtt < 1.25, "{outcome:?}");
}

#[test]
fn a_short_queue_and_a_slow_link_are_no_trouble() {
    let short = alone(Link { queue: 10_000, ..LONG }, 5, 20);
    assert!(short.share > 0.85 && short.lost < 0.05, "{short:?}");
    let slow = alone(Link { mbit: 10.0, delay: 10_000, loss: 0.0, ..LONG }, 5, 20);
    assert!(slow.share > 0.95 && slow.rtt < 1.4, "{slow:?}");
}

#[test]
fn two_share_a_link() {
    for (loss, later) in [(0.0, 3), (0.01, 3), (0.0, 7), (0.01, 7)] {
        let outcomes = run(Link { loss, ..LONG }, vec![(fair(), 0), (fair(), later)], 15, 60);
        println!("{outcomes:?}");
        assert!(outcomes.iter().all(|outcome| outcome.share > 0.40 && outcome.rtt < 1.25), "{outcomes:?}");
        assert!(outcomes.iter().map(|outcome| outcome.share).sum::<f64>() > 0.92, "{outcomes:?}");
    }
}

#[test]
fn beside_cubic_neither_starves() {
    for (mbit, delay, queue) in [
        (200.0, 50_000, 100_000),
        (200.0, 50_000, 50_000),
        (200.0, 50_000, 200_000),
        (50.0, 10_000, 40_000),
        (1000.0, 20_000, 40_000),
    ] {
        let link = Link { mbit, delay, queue, loss: 0.0, ..LONG };
        for (begins, cubic_begins) in [(0, 1), (5, 0), (0, 4)] {
            let flows = vec![(fair(), begins), (Control::Cubic(Cubic::new()), cubic_begins)];
            let outcomes = run(link, flows, 15, 60);
            println!("{outcomes:?}");
            assert!(outcomes.iter().all(|outcome| outcome.share > 0.2), "{outcomes:?}");
        }
    }
}

#[test]
fn a_scavenger_leaves_the_link_to_others_and_takes_what_is_left() {
    let link = Link { loss: 0.0, ..LONG };
    for other in [fair(), Control::Cubic(Cubic::new())] {
        let outcomes = run(link, vec![(scavenger(), 0), (other, 1)], 15, 60);
        println!("{outcomes:?}");
        assert!(outcomes[0].share < 0.15 && outcomes[1].share > 0.85, "{outcomes:?}");
    }
    let outcomes = run(link, vec![(scavenger(), 0)], 5, 30);
    println!("{outcomes:?}");
    assert!(outcomes[0].share > 0.85, "{outcomes:?}");
}

#[test]
fn little_to_send_does_not_make_a_link_slow() {
    const ROUND_TRIP: u64 = 100_000;
    let mut model = LinkModel::new(Temper::Fair, PACKET);
    // A link that carries 20 packets a millisecond. What is sent comes a round trip later, in order.
    let mut out = VecDeque::new();
    let mut rate_before = 0.0;
    for millisecond in 0..20_000_u64 {
        let now = millisecond * 1000;
        let is_busy = millisecond < 5000;
        let mut acknowledged = 0;
        while acknowledged < 20 && out.front().is_some_and(|sent| sent + ROUND_TRIP <= now) {
            let sent = out.pop_front().unwrap();
            model.handle_ack(now, sent, PACKET);
            acknowledged += 1;
        }
        if acknowledged > 0 {
            // Its own delays are not told of: only what is in flight shows them.
            model.handle_acks_end(now, out.len() as u64 * PACKET, false);
        }
        let may = model.window().saturating_sub(out.len() as u64 * PACKET) / PACKET;
        let sends = if is_busy { may.min(25) } else { u64::from(millisecond % 50 == 0) };
        for _ in 0..sends {
            model.handle_sent(now, PACKET);
            out.push_back(now);
        }
        if is_busy {
            rate_before = model.rate();
        }
    }
    assert!(rate_before > 20e6, "{rate_before}");
    assert!(model.rate() > 0.95 * rate_before, "{} after {rate_before}", model.rate());
}

#[test]
fn nothing_that_a_peer_says_makes_a_window_of_none_or_of_everything() {
    let mut model = LinkModel::new(Temper::Fair, PACKET);
    // Acknowledgements of what was never sent, times that are equal, losses of more than there was.
    for step in 0..1000_u64 {
        let now = step / 3;
        model.handle_ack(now, now, u64::from(u32::MAX));
        model.handle_loss(u64::from(u32::MAX));
        model.handle_acks_end(now, u64::from(u32::MAX), step % 2 == 0);
        assert!(model.window() >= 4 * PACKET);
    }
}
