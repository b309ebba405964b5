//! One direction of a link, as a model: given when packets come, says when each comes out, or why it never does.
//!
//! Pure: the clock is its caller's, and chance comes from a seed. A packet waits until what came before it has been sent
//! at the link's rate; if it had to wait for longer than the queue holds, it is dropped. What was sent may be lost, having
//! taken its time of the link, as on a radio. The rest arrives after the delay. Jitter is a part of the delay that wanders,
//! which by itself never changes the order; what is reordered comes some milliseconds late, and others overtake it.

use super::packet::Packet;
use super::tally::{Fate, Tally};
use std::time::Duration;

/// How far a reordered packet falls back: between these, in nanoseconds.
const FALLS_BACK: [u64; 2] = [1_000_000, 10_000_000];
/// The delay wanders no faster than from one end of its range to the other in this time.
const WANDERS: Duration = Duration::from_millis(10);

/// What one direction of a link is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// Bits a second, of whole IP packets. At least 1.
    pub rate: u64,
    /// From one end to the other.
    pub delay: Duration,
    /// The delay is longer by up to this.
    pub jitter: Duration,
    /// What share of the packets is lost at random, from 0 to 1.
    pub loss: f64,
    /// What share of the packets is overtaken by others, from 0 to 1.
    pub reorder: f64,
    /// How long a packet may wait to be sent.
    pub queue: Duration,
}

impl Default for LinkSpec {
    /// 1 Gb/s with a queue of 100 ms, and nothing that goes wrong.
    fn default() -> Self {
        Self {
            rate: 1_000_000_000,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            queue: Duration::from_millis(100),
        }
    }
}

/// One direction of a link. Times are nanoseconds since any moment; they never go back.
#[derive(Clone, Debug)]
pub struct Link {
    spec: LinkSpec,
    random: Random,
    seed: u64,
    /// When all that waits has been sent.
    free_at: u64,
    /// When the last packet arrives that kept its place.
    last_at: u64,
    tally: Tally,
}

impl Link {
    /// One on which nothing is under way. The same seed makes the same of the same packets.
    #[must_use]
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        Self {
            spec,
            random: Random(seed),
            seed: Random(!seed).next(),
            free_at: 0,
            last_at: 0,
            tally: Tally::default(),
        }
    }

    /// What becomes of a packet that comes now.
    pub fn offer(&mut self, now: u64, packet: Packet) -> Fate {
        let fate = self.fate(now, packet.bytes);
        self.tally.add(packet, fate);
        fate
    }

    /// What became of all.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn fate(&mut self, now: u64, bytes: u64) -> Fate {
        // Always as many draws, so that what becomes of one packet does not change the luck of the next.
        let (loss, reorder, back) = (self.random.share(), self.random.share(), self.random.next());
        let waits = self.free_at.saturating_sub(now);
        if waits > nanoseconds(self.spec.queue) {
            return Fate::Overflows;
        }
        self.tally.queueing.add(waits);
        // Rounded up: never faster than it says.
        let takes = (u128::from(bytes) * 8_000_000_000).div_ceil(u128::from(self.spec.rate.max(1)));
        self.free_at = self.free_at.max(now) + u64::try_from(takes).unwrap_or(u64::MAX >> 1);
        if loss < self.spec.loss {
            return Fate::Lost;
        }
        let at = self.free_at + nanoseconds(self.spec.delay) + self.wander();
        if reorder < self.spec.reorder {
            return Fate::Arrives(at + FALLS_BACK[0] + back % (FALLS_BACK[1] - FALLS_BACK[0]));
        }
        // Rounding alone could bring it before the one that was sent before it.
        self.last_at = self.last_at.max(at);
        Fate::Arrives(self.last_at)
    }

    /// What jitter adds at the moment at which the link is free: from point to point on straight lines, which fall so
    /// slowly that nothing overtakes.
    fn wander(&self) -> u64 {
        let jitter = nanoseconds(self.spec.jitter);
        if jitter == 0 {
            return 0;
        }
        let stretch = jitter.max(nanoseconds(WANDERS));
        let (point, within) = (self.free_at / stretch, self.free_at % stretch);
        let at = |point: u64| Random(self.seed ^ point).next() % (jitter + 1);
        let (from, to) = (u128::from(at(point)), u128::from(at(point + 1)));
        let (within, stretch) = (u128::from(within), u128::from(stretch));
        u64::try_from((from * (stretch - within) + to * within) / stretch).unwrap_or(jitter)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 2).min(u64::MAX >> 2)
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 to less than 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
