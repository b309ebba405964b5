//! What became of packets, counted.

use super::packet::{FLOWS, Packet};
use std::time::Duration;

/// A number of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub packets: u64,
    /// Their bytes, from the IP headers on.
    pub bytes: u64,
    /// Their bytes behind the headers of IP and of TCP or UDP.
    pub payload_bytes: u64,
}

impl Count {
    fn add(&mut self, packet: Packet) {
        self.packets += 1;
        self.bytes += packet.bytes;
        self.payload_bytes += packet.payload_bytes;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            payload_bytes: self.payload_bytes + other.payload_bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            packets: self.packets - other.packets,
            bytes: self.bytes - other.bytes,
            payload_bytes: self.payload_bytes - other.payload_bytes,
        }
    }
}

/// What became of the packets of a flow, or of some together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Packets that came.
    pub offered: Count,
    /// Of these, those lost at random.
    pub lost: Count,
    /// Of these, those for which the queue had no room.
    pub overflowed: Count,
}

impl Fates {
    /// Packets that arrive, or have.
    #[must_use]
    pub fn passed(&self) -> Count {
        self.offered.minus(self.lost).minus(self.overflowed)
    }
}

/// What became of everything that came to one direction of a link.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    flows: [Fates; FLOWS],
    /// How long packets waited in the queue that were let into it, until their own sending began.
    pub queueing: Delays,
}

/// What may become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at this time, in nanoseconds.
    Arrives(u64),
    /// It is lost at random.
    Lost,
    /// The queue has no room for it.
    Overflows,
}

impl Tally {
    /// Counts a packet.
    pub fn add(&mut self, packet: Packet, fate: Fate) {
        let flow = &mut self.flows[packet.flow.min(FLOWS - 1)];
        flow.offered.add(packet);
        match fate {
            Fate::Arrives(_) => {}
            Fate::Lost => flow.lost.add(packet),
            Fate::Overflows => flow.overflowed.add(packet),
        }
    }

    /// Of one flow; of nothing if there is no such flow.
    #[must_use]
    pub fn flow(&self, flow: usize) -> Fates {
        self.flows.get(flow).copied().unwrap_or_default()
    }

    /// Of flows together.
    #[must_use]
    pub fn of(&self, flows: impl IntoIterator<Item = usize>) -> Fates {
        flows.into_iter().map(|flow| self.flow(flow)).fold(Fates::default(), |sum, flow| Fates {
            offered: sum.offered.plus(flow.offered),
            lost: sum.lost.plus(flow.lost),
            overflowed: sum.overflowed.plus(flow.overflowed),
        })
    }

    /// Of all flows.
    #[must_use]
    pub fn all(&self) -> Fates {
        self.of(0..FLOWS)
    }
}

/// How long things took: how often in each tenth of a millisecond, up to a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    counts: Vec<u64>,
    total: u64,
    longest: u64,
}

/// The width of a step, in nanoseconds.
const STEP: u64 = 100_000;
/// Longer ones count as this many steps.
const STEPS_MAX: usize = 600_000;

impl Delays {
    /// Adds one, of so many nanoseconds.
    pub fn add(&mut self, nanoseconds: u64) {
        let step = usize::try_from(nanoseconds / STEP).unwrap_or(STEPS_MAX).min(STEPS_MAX);
        if step >= self.counts.len() {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.total += 1;
        self.longest = self.longest.max(nanoseconds);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// What so many of a thousand did not exceed, to a tenth of a millisecond; zero if there were none.
    #[must_use]
    pub fn permille(&self, permille: u64) -> Duration {
        let wanted = (self.total * permille.min(1000)).div_ceil(1000);
        let mut seen = 0;
        for (step, count) in (1..).zip(&self.counts) {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos((step * STEP).min(self.longest));
            }
        }
        self.longest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_counted_apart_and_together() {
        let mut tally = Tally::default();
        let packet = |flow| Packet { flow, bytes: 100, payload_bytes: 60 };
        tally.add(packet(1), Fate::Arrives(5));
        tally.add(packet(1), Fate::Lost);
        tally.add(packet(2), Fate::Overflows);
        tally.add(packet(99), Fate::Arrives(5));
        assert_eq!(tally.flow(1).passed(), Count { packets: 1, bytes: 100, payload_bytes: 60 });
        assert_eq!(tally.flow(2).overflowed.packets, 1);
        assert_eq!(tally.flow(FLOWS - 1).passed().packets, 1);
        assert_eq!(tally.flow(99), Fates::default());
        assert_eq!(tally.of([1, 2]).offered.packets, 3);
        assert_eq!((tally.all().offered.packets, tally.all().passed().bytes), (4, 200));
    }

    #[test]
    fn delays_have_percentiles() {
        let mut delays = Delays::default();
        assert_eq!(delays.permille(500), Duration::ZERO);
        for millis in 1..=100 {
            delays.add(millis * 1_000_000 - 1);
        }
        assert_eq!(delays.permille(500), Duration::from_millis(50));
        assert_eq!(delays.permille(950), Duration::from_millis(95));
        assert_eq!(delays.permille(1000), delays.longest());
        assert_eq!(delays.count(), 100);
        delays.add(u64::MAX);
        assert_eq!(delays.longest(), Duration::from_nanos(u64::MAX));
        assert_eq!(delays.permille(0), Duration::from_millis(1));
    }
}
