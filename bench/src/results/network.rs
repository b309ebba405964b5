//! What is known of a transfer over an emulated network, beside its time.

use crate::stats::Spread;
use serde::{Deserialize, Serialize};

/// One turn over an emulated link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wan {
    /// Bits of the data set, all copies of it together, over the time and the link's rate.
    pub share: f64,
    /// 10⁶ bits of the data set a second, all copies together.
    pub megabits_per_second: f64,
    /// Payload of TCP or UDP that was sent and neither lost nor needed, over what was needed: what there is of framing,
    /// records and protocol, and what was sent again though it had arrived. None of what was cut off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waste: Option<f64>,
    /// The mean round trip of echoes meanwhile, over that of the empty link.
    pub round_trip_inflation: f64,
    /// The mean round trip of echoes meanwhile.
    pub round_trip_milliseconds: f64,
    /// What 95 of 100 echoes took at most.
    pub round_trip_milliseconds_p95: f64,
    /// How long packets waited for the link, from sender to receiver: what 50, 95 and 99 of 100 did not exceed.
    pub queueing_milliseconds: [f64; 3],
    /// What went from sender to receiver.
    pub there: Direction,
    /// What went back.
    pub back: Direction,
    /// What each copy had of what all had, until the first was done. Empty if there was one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub shares: Vec<f64>,
    /// 10⁶ bits of payload a second of the connection beside it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub beside_megabits_per_second: Option<f64>,
    /// Whether it was stopped because it took too long: its seconds are those that it would have taken at its rate, and its
    /// copy was not checked.
    pub cut_off: bool,
    /// How late packets left the emulation: what 99 of 100 did not exceed.
    pub late_milliseconds_p99: f64,
    /// Datagrams for which sockets of the two hosts had no room.
    pub datagrams_overrun: u64,
}

/// What went in one direction, without echoes and what went beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Packets that were sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their bytes behind the headers of IP and of TCP or UDP.
    pub payload_bytes: u64,
    /// Packets lost at random.
    pub lost_packets: u64,
    /// Packets for which the queue had no room.
    pub overflowed_packets: u64,
    /// Payload of both.
    pub lost_payload_bytes: u64,
}

/// One turn of one sender and receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Swarm {
    /// How many receivers there were.
    pub receivers: usize,
    /// Bytes that left the source's interface.
    pub source_bytes: u64,
    /// The same over the data set.
    pub source_share: f64,
    /// Bytes from the source's zone to others.
    pub between_bytes: u64,
    /// The same over the data set.
    pub between_share: f64,
}

/// What rounds over an emulated network came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkSummary {
    /// [`Wan::share`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<Spread>,
    /// [`Wan::megabits_per_second`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub megabits_per_second: Option<Spread>,
    /// [`Wan::waste`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waste: Option<Spread>,
    /// [`Wan::round_trip_inflation`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub round_trip_inflation: Option<Spread>,
    /// The least of [`Wan::shares`], times the number of copies: 1 where all had the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub least_share: Option<Spread>,
    /// [`Wan::beside_megabits_per_second`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub beside_megabits_per_second: Option<Spread>,
    /// Whether rounds were cut off.
    pub cut_off: bool,
    /// [`Wan::late_milliseconds_p99`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late_milliseconds_p99: Option<Spread>,
    /// [`Swarm::source_share`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_share: Option<Spread>,
    /// [`Swarm::between_share`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub between_share: Option<Spread>,
}

impl NetworkSummary {
    /// Of rounds; `None` if none was over an emulated network.
    pub fn of(wan: &[&Wan], swarm: &[&Swarm]) -> Option<Self> {
        if wan.is_empty() && swarm.is_empty() {
            return None;
        }
        let spread = |value: fn(&Wan) -> Option<f64>| {
            Spread::of(&wan.iter().filter_map(|round| value(round)).collect::<Vec<_>>())
        };
        let of_swarm = |value: fn(&Swarm) -> f64| {
            Spread::of(&swarm.iter().map(|round| value(round)).collect::<Vec<_>>())
        };
        Some(Self {
            share: spread(|round| Some(round.share)),
            megabits_per_second: spread(|round| Some(round.megabits_per_second)),
            waste: spread(|round| round.waste),
            round_trip_inflation: spread(|round| Some(round.round_trip_inflation)),
            least_share: spread(|round| {
                let least = round.shares.iter().copied().min_by(f64::total_cmp)?;
                Some(least * round.shares.len() as f64)
            }),
            beside_megabits_per_second: spread(|round| round.beside_megabits_per_second),
            cut_off: wan.iter().any(|round| round.cut_off),
            late_milliseconds_p99: spread(|round| Some(round.late_milliseconds_p99)),
            source_share: of_swarm(|round| round.source_share),
            between_share: of_swarm(|round| round.between_share),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_come_to_medians() {
        assert_eq!(NetworkSummary::of(&[], &[]), None);
        let round = |share, shares: &[f64]| Wan { share, shares: shares.to_vec(), ..Wan::default() };
        let rounds = [round(0.5, &[0.5, 0.5]), round(0.9, &[0.2, 0.8]), round(0.7, &[0.75, 0.25])];
        let rounds: Vec<&Wan> = rounds.iter().collect();
        let summary = NetworkSummary::of(&rounds, &[]).unwrap();
        assert_eq!(summary.share.unwrap().median, 0.7);
        assert_eq!(summary.least_share.unwrap().median, 0.5);
        assert_eq!(
            (summary.beside_megabits_per_second, summary.source_share, summary.cut_off),
            (None, None, false)
        );
        let swarm = Swarm { source_share: 8.0, ..Swarm::default() };
        let summary = NetworkSummary::of(&[], &[&swarm]).unwrap();
        assert_eq!((summary.share, summary.source_share.unwrap().max), (None, 8.0));
    }
}
