//! Congestion control by a model of the link: its rate, its shortest round trip, and whether others fill its queue.
//!
//! In the manner of BBRv3, for a transport that takes a window and paces by itself at little more than a window a round
//! trip. What is in flight is kept at about what the link itself holds, so that a lossy link is full and its queue is
//! not. Loss alone does not slow it: only loss beyond what the link loses anyhow, found while more is asked for. Pure: time
//! is a parameter, in microseconds of any monotonic clock.

#[cfg(test)]
mod sim;

use std::collections::VecDeque;

/// Rounds without growth after which the rate of the link is found.
const FULL_ROUNDS: u32 = 3;
/// Of the window: who has less than this in flight has less to send than there might be.
const FILLED: f64 = 0.75;
/// Growth that counts.
const GROWTH: f64 = 1.25;
/// In flight, of what the link holds as far as is known: while its rate is looked for.
const STARTUP_GAIN: f64 = 2.5;
/// After that, until what queued has drained.
const DRAIN_GAIN: f64 = 0.75;
/// While it is just kept full, by [`PACKETS_SPARE`].
const CRUISE_GAIN: f64 = 1.0;
/// While it is asked for more, from time to time.
const UP_GAIN: f64 = 1.25;
/// After that.
const DOWN_GAIN: f64 = 0.9;
/// While others keep the queue filled: whoever keeps to the link's own room gets nothing beside them.
const COMPETE_GAIN: f64 = 2.5;
/// A queue takes longer than this part of the shortest round trip, even in the shortest of a round. Who comes to a link that others
/// fill knows no shorter one than theirs, and sees but how that grows and shrinks.
const QUEUE_PART: f64 = 0.14;
/// A queue that is there so often when ours should have drained is filled by others.
const COMPETE_CYCLES: u32 = 2;
/// Of a scavenger: its own packets must not be what it takes for others'.
const SCAVENGER_GAIN: f64 = 0.96;
/// The least that a scavenger takes of what it could, so that it sees when others are gone.
const SHARE_MIN: f64 = 0.02;
/// Rounds between two times that more is asked for.
const CRUISE_ROUNDS: u32 = 10;
/// Loss in a round, beyond what the link loses anyhow, that says that more was asked for than there is.
const EXCESS_LOSS: f64 = 0.02;
/// Loss is judged by no fewer packets than these.
const JUDGED_PACKETS: u64 = 100;
/// In flight while the shortest round trip is looked for.
const PROBE_GAIN: f64 = 0.5;
/// Rounds for which it is: one until what queued has drained, and those that count.
const PROBE_ROUNDS: u32 = 2;
/// How long the shortest round trip is believed, in microseconds, if none comes near it. Who shares a queue sees it empty at
/// the same time as the others, and so looks for it again at the same time.
const MIN_RTT_WINDOW: u64 = 5_000_000;
/// How near, as a part of it.
const MIN_RTT_PART: u64 = 50;
/// How long it is believed if it cannot be looked for.
const MIN_RTT_WINDOW_MAX: u64 = 20_000_000;
/// Rounds for which a rate is believed.
const RATE_ROUNDS: u64 = 7;
/// Sendings that are remembered.
const SNAPSHOTS_MAX: usize = 1 << 16;
/// Packets in flight at least, and before anything is known.
const PACKETS_MIN: u64 = 4;
const PACKETS_INITIAL: u64 = 32;
/// Packets beyond what the gain says, at least: acknowledgements come for several at a time. And at most: as many for each who
/// shares a link, however much it has of it, so that all come to the same share.
const PACKETS_SPARE: std::ops::RangeInclusive<u64> = 3..=64;
/// Of what the link holds, this part is spare: a slow link's queue is not to become long.
const SPARE_PART: u64 = 8;
/// But what it carries in this time is, in microseconds: machines see to their sockets no more often, and a link that is shorter
/// than that would be empty meanwhile.
const SPARE_MICROS: f64 = 2000.0;
/// Rounds over which it is found how late hosts see to what arrives. That is in flight beside what the link holds, or the link were
/// empty meanwhile.
const LATE_ROUNDS: f64 = 4.0;
/// But no more than this part of the shortest round trip.
const LATE_PART: f64 = 0.15;

/// How it behaves beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Takes its share.
    Fair,
    /// Takes what others leave.
    Scavenger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Startup,
    Drain,
    Cruise { rounds: u32 },
    Up { rounds: u32 },
    Down,
    Probe { rounds: u32, rtt: Option<u64> },
}

/// How it stood when something was sent: what has been delivered between then and its acknowledgement is a rate.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    sent: u64,
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
    /// Whether there was less to send than there might have been.
    limited: bool,
}

/// What is known of a link.
#[derive(Clone, Debug)]
pub struct LinkModel {
    temper: Temper,
    packet_bytes: u64,
    phase: Phase,
    /// By the time of sending.
    snapshots: VecDeque<Snapshot>,
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
    in_flight: u64,
    round: u64,
    /// What is to be delivered until the round is over.
    round_ends: u64,
    /// When so much is delivered, nothing is on its way that was sent while there was little to send.
    limited_until: u64,
    /// Rounds that say something of the rate: those in which there was enough to send.
    full_round: u64,
    /// The best rate of each of the last of these, in bytes a second.
    rates: VecDeque<(u64, f64)>,
    min_rtt: Option<u64>,
    min_rtt_at: u64,
    /// The shortest round trip of this round.
    round_rtt: Option<u64>,
    /// The rate when it last grew, and the rounds since then.
    full_rate: f64,
    full_rounds: u32,
    round_delivered: u64,
    round_lost: u64,
    /// What the batch of acknowledgements that is coming in has acknowledged.
    batch_bytes: u64,
    /// What the link loses anyhow.
    base_loss: f64,
    /// Bytes in flight at which loss began when more was asked for.
    ceiling: f64,
    /// How often in a row there was a queue when ours should have drained.
    queued_cycles: u32,
    /// Whether others fill the queue.
    competes: bool,
    /// What a scavenger takes of what it could.
    share: f64,
    /// The time of this round between acknowledgements, and the sum of the squares of these times, in microseconds.
    gaps: (f64, f64),
    /// How far apart hosts see to what arrives, in microseconds.
    lateness: f64,
    /// The newest packet of the batch of acknowledgements that is coming in.
    newest: Option<Snapshot>,
    /// Bytes that may be in flight: asked for with each packet.
    window: u64,
}

impl LinkModel {
    /// A link of which nothing is known, and the size of a full packet.
    #[must_use]
    pub fn new(temper: Temper, packet_bytes: u64) -> Self {
        Self {
            temper,
            packet_bytes,
            phase: Phase::Startup,
            snapshots: VecDeque::new(),
            delivered: 0,
            delivered_at: 0,
            first_sent: 0,
            in_flight: 0,
            round: 0,
            round_ends: 0,
            limited_until: 0,
            full_round: 0,
            rates: VecDeque::new(),
            min_rtt: None,
            min_rtt_at: 0,
            round_rtt: None,
            full_rate: 0.0,
            full_rounds: 0,
            round_delivered: 0,
            round_lost: 0,
            batch_bytes: 0,
            base_loss: 0.0,
            ceiling: f64::INFINITY,
            queued_cycles: 0,
            competes: false,
            share: 1.0,
            gaps: (0.0, 0.0),
            lateness: 0.0,
            newest: None,
            window: PACKETS_INITIAL * packet_bytes,
        }
    }

    /// Full packets have another size from now on.
    pub fn set_packet_bytes(&mut self, packet_bytes: u64) {
        self.packet_bytes = packet_bytes;
        self.window = self.fitting();
    }

    /// A packet was sent. Times never go back.
    pub fn handle_sent(&mut self, now: u64, bytes: u64) {
        if self.in_flight == 0 {
            // Nothing was on its way: the time before this says nothing.
            (self.delivered_at, self.first_sent) = (now, now);
        }
        self.in_flight += bytes;
        if self.snapshots.back().is_none_or(|last| last.sent != now) {
            if self.snapshots.len() == SNAPSHOTS_MAX {
                self.snapshots.pop_front();
            }
            let (delivered, delivered_at, first_sent) = (self.delivered, self.delivered_at, self.first_sent);
            let limited = delivered < self.limited_until;
            self.snapshots.push_back(Snapshot { sent: now, delivered, delivered_at, first_sent, limited });
        }
    }

    /// A packet that was sent at `sent` is acknowledged.
    pub fn handle_ack(&mut self, now: u64, sent: u64, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.delivered += bytes;
        self.round_delivered += bytes;
        self.batch_bytes += bytes;
        let gap = float(now.saturating_sub(self.delivered_at));
        self.gaps = (self.gaps.0 + gap, self.gaps.1 + gap * gap);
        self.delivered_at = now;
        let rtt = now.saturating_sub(sent).max(1);
        self.round_rtt = Some(self.round_rtt.map_or(rtt, |least| least.min(rtt)));
        match self.min_rtt {
            Some(least) if rtt > least && now <= self.min_rtt_at + MIN_RTT_WINDOW_MAX => {
                if rtt <= least + least / MIN_RTT_PART {
                    self.min_rtt_at = now;
                }
            }
            _ => (self.min_rtt, self.min_rtt_at) = (Some(rtt), now),
        }
        if let Phase::Probe { rtt: shortest, .. } = &mut self.phase {
            *shortest = Some(shortest.map_or(rtt, |least| least.min(rtt)));
        }
        let after = self.snapshots.partition_point(|snapshot| snapshot.sent <= sent);
        if let Some(snapshot) = after.checked_sub(1).map(|at| self.snapshots[at])
            && self.newest.is_none_or(|newest| snapshot.sent >= newest.sent)
        {
            self.newest = Some(snapshot);
            self.first_sent = sent;
        }
    }

    /// Packets are lost.
    pub fn handle_loss(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.round_lost += bytes;
    }

    /// A batch of acknowledgements is complete, and so many bytes are still in flight. `app_limited`: there was less to send
    /// than might have been.
    pub fn handle_acks_end(&mut self, now: u64, in_flight: u64, app_limited: bool) {
        self.in_flight = in_flight;
        self.learn(now, in_flight, app_limited);
        self.window = self.fitting();
    }

    fn learn(&mut self, now: u64, in_flight: u64, app_limited: bool) {
        // Nor does a sender fill the link that is late itself, or that is kept from sending by the receiver.
        let before = float(in_flight + std::mem::take(&mut self.batch_bytes));
        if app_limited || before < FILLED * float(self.fitting()) {
            self.limited_until = self.delivered.saturating_add(in_flight);
        }
        let Some(newest) = self.newest.take() else { return };
        let rtt = self.min_rtt.unwrap_or(1);
        // Older ones may still come, out of order.
        let past = self.snapshots.partition_point(|snapshot| snapshot.sent + 3 * rtt.max(1000) < newest.sent);
        self.snapshots.drain(..past);
        // Whichever took longer: neither a burst of packets nor one of acknowledgements is a faster link.
        let took = (now.saturating_sub(newest.delivered_at))
            .max(newest.sent.saturating_sub(newest.first_sent))
            .max(1);
        let rate = float(self.delivered - newest.delivered) * 1e6 / float(took);
        // What little there was to send is no slow link; but if it went faster than was thought, so does the link.
        if took >= rtt / 2 && (!newest.limited || rate > self.rate()) {
            match self.rates.back_mut() {
                Some((round, best)) if *round == self.full_round => *best = best.max(rate),
                _ => self.rates.push_back((self.full_round, rate)),
            }
        }
        if newest.delivered >= self.round_ends {
            self.round_ends = self.delivered;
            self.end_round(now, newest.limited);
        }
    }

    fn end_round(&mut self, now: u64, app_limited: bool) {
        self.round += 1;
        self.full_round += u64::from(!app_limited);
        while self.rates.len() > 1 && self.rates[0].0 + RATE_ROUNDS < self.full_round {
            self.rates.pop_front();
        }
        let (time, squares) = std::mem::take(&mut self.gaps);
        if !app_limited && time > 0.0 {
            // The gap in which something arrives, on the average.
            let most = LATE_PART * float(self.min_rtt.unwrap_or(0));
            self.lateness += ((squares / time).min(most) - self.lateness) / LATE_ROUNDS;
        }
        let total = self.round_delivered + self.round_lost;
        let loss = float(self.round_lost) / float(total.max(1));
        let judged = total >= JUDGED_PACKETS * self.packet_bytes;
        let excessive = judged && loss > self.base_loss + EXCESS_LOSS;
        (self.round_delivered, self.round_lost) = (0, 0);
        // In microseconds, how much longer than the shortest all round trips of this round took.
        let waited = match (self.round_rtt.take(), self.min_rtt) {
            (Some(rtt), Some(least)) => rtt - least.min(rtt),
            _ => 0,
        };
        let least = float(self.min_rtt.unwrap_or(0));
        let queues = float(waited) > QUEUE_PART * least + 2.0 * SPARE_MICROS + self.lateness;
        if self.temper == Temper::Scavenger && !matches!(self.phase, Phase::Startup | Phase::Drain) {
            let yields = float(waited) > 0.04 * least + 1000.0;
            self.share =
                if yields { (self.share * 0.75).max(SHARE_MIN) } else { (self.share * 1.1 + 0.01).min(1.0) };
        }
        self.phase = match self.phase {
            Phase::Startup => self.startup(app_limited, excessive),
            Phase::Probe { rounds, rtt } if rounds < PROBE_ROUNDS => {
                Phase::Probe { rounds: rounds + 1, rtt: if rounds == 0 { None } else { rtt } }
            }
            Phase::Probe { rtt, .. } => {
                (self.min_rtt, self.min_rtt_at) = (rtt.or(self.min_rtt), now);
                Phase::Cruise { rounds: 0 }
            }
            Phase::Cruise { .. } if now > self.min_rtt_at + MIN_RTT_WINDOW => {
                Phase::Probe { rounds: 0, rtt: None }
            }
            // What is spare of a slow link is more than what a gain takes away.
            Phase::Drain | Phase::Down if self.in_flight <= whole(self.link_bytes()).max(self.fitting()) => {
                // What is left of a queue is not ours; but others of our kind need some time until they see that, too.
                self.queued_cycles = if queues { self.queued_cycles + 1 } else { 0 };
                self.competes = self.queued_cycles >= COMPETE_CYCLES;
                Phase::Cruise { rounds: 0 }
            }
            phase @ (Phase::Drain | Phase::Down) => phase,
            Phase::Cruise { rounds } => {
                if judged {
                    self.base_loss += (loss.min(0.1) - self.base_loss) / 8.0;
                }
                if excessive {
                    self.ceiling = (float(self.fitting()) * DOWN_GAIN).max(self.link_bytes() * 0.5);
                }
                if rounds < CRUISE_ROUNDS {
                    Phase::Cruise { rounds: rounds + 1 }
                } else {
                    Phase::Up { rounds: 0 }
                }
            }
            Phase::Up { rounds } => {
                let rate = self.rate();
                let grew = rate > self.full_rate * 1.05;
                self.full_rate = rate;
                self.ceiling = if excessive { self.link_bytes() } else { self.ceiling * UP_GAIN };
                let goes_on = rounds == 0 || (grew && !excessive && !queues);
                if goes_on { Phase::Up { rounds: rounds + 1 } } else { Phase::Down }
            }
        };
    }

    fn startup(&mut self, app_limited: bool, excessive: bool) -> Phase {
        let rate = self.rate();
        if rate >= self.full_rate * GROWTH {
            (self.full_rate, self.full_rounds) = (rate, 0);
        } else if !app_limited {
            self.full_rounds += 1;
        }
        let found = self.full_rounds >= FULL_ROUNDS || (excessive && self.round > 4);
        if found { Phase::Drain } else { Phase::Startup }
    }

    /// Bytes a second that the link carries, as far as is known.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    /// Bytes that the link itself holds, as far as is known.
    fn link_bytes(&self) -> f64 {
        self.rate() * float(self.min_rtt.unwrap_or(0)) / 1e6
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// What may be in flight, by what is known now.
    fn fitting(&self) -> u64 {
        if self.min_rtt.is_none() || self.rates.is_empty() {
            return PACKETS_INITIAL * self.packet_bytes;
        }
        let gain = match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Drain => DRAIN_GAIN,
            Phase::Down => DOWN_GAIN,
            Phase::Probe { .. } => PROBE_GAIN,
            Phase::Cruise { .. } => self.standing_gain(),
            Phase::Up { .. } => UP_GAIN * self.standing_gain(),
        };
        let bytes = whole((self.link_bytes() * gain).min(self.ceiling));
        let spare = PACKETS_SPARE.start() + whole(self.link_bytes()) / SPARE_PART / self.packet_bytes.max(1);
        let spare = (spare.min(*PACKETS_SPARE.end()) * self.packet_bytes)
            .max(whole(self.rate() * SPARE_MICROS / 1e6));
        let spare = spare.saturating_add(whole(self.rate() * self.lateness / 1e6));
        // Until there was enough to send for once, what is known of the rate is too little.
        let least = if self.phase == Phase::Startup { PACKETS_INITIAL } else { PACKETS_MIN };
        bytes.saturating_add(spare).max(least * self.packet_bytes)
    }

    fn standing_gain(&self) -> f64 {
        match (self.temper, self.competes) {
            (Temper::Scavenger, _) => SCAVENGER_GAIN * self.share,
            (Temper::Fair, true) => COMPETE_GAIN,
            (Temper::Fair, false) => CRUISE_GAIN,
        }
    }
}

/// Bytes and microseconds of a connection's life are far from where this would round.
#[allow(clippy::cast_precision_loss)]
fn float(number: u64) -> f64 {
    number as f64
}

/// Saturates, and takes what is no number for 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}
