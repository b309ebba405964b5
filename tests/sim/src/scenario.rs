//! What is simulated.

use clap::Args;

/// A swarm, its links and what befalls it.
#[derive(Args, Clone, Debug)]
pub struct Scenario {
    /// Decides everything that is left to chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Receivers, liars and those that crash included
    #[arg(long, default_value_t = 1000)]
    pub receivers: u32,
    /// The data set, in runs of 1 MiB
    #[arg(long, default_value_t = 1000)]
    pub runs: u32,
    /// Runs in one file
    #[arg(long, default_value_t = 8)]
    pub file_runs: u32,
    /// Connections of a receiver to others, on average
    #[arg(long, default_value_t = 12)]
    pub neighbours: u32,
    /// Receivers that the source serves at a time
    #[arg(long, default_value_t = 16)]
    pub source_slots: u32,
    /// Zones; the source is in the first
    #[arg(long, default_value_t = 1)]
    pub zones: u32,
    /// Receivers of each zone that are connected to other zones
    #[arg(long, default_value_t = 8)]
    pub gateways: u32,
    /// The rate of a host, up and down, in Mbit/s
    #[arg(long, default_value_t = 200.0)]
    pub rate_mbit: f64,
    /// The rate of the link between two zones, each way, in Mbit/s
    #[arg(long, default_value_t = 200.0)]
    pub zone_mbit: f64,
    /// One way within a zone, in milliseconds
    #[arg(long, default_value_t = 1)]
    pub delay_ms: u64,
    /// One way between zones, in milliseconds
    #[arg(long, default_value_t = 20)]
    pub zone_delay_ms: u64,
    /// Percent of the packets that are lost and sent again: so much of each rate is gone
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
    /// From a run's arrival to when others are told of it, at most, in milliseconds: the sync and the index
    #[arg(long, default_value_t = 1000)]
    pub announce_ms: u64,
    /// Percent of the receivers that crash, at any time of the transfer
    #[arg(long, default_value_t = 0.0)]
    pub crashes: f64,
    /// Percent of the receivers that say they have everything, and give what is wrong
    #[arg(long, default_value_t = 0.0)]
    pub liars: f64,
    /// Percent of the receivers with a tenth of the rate
    #[arg(long, default_value_t = 0.0)]
    pub slow: f64,
    /// Cuts the swarm in halves for a fifth of the time that the transfer would take from one host to one
    #[arg(long)]
    pub partition: bool,
    /// The source leaves once every run is at some receiver
    #[arg(long)]
    pub source_leaves: bool,
    /// Virtual seconds after which it is over, whatever is missing
    #[arg(long, default_value_t = 36_000)]
    pub limit_s: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            receivers: 1000,
            runs: 1000,
            file_runs: 8,
            neighbours: 12,
            source_slots: 16,
            zones: 1,
            gateways: 8,
            rate_mbit: 200.0,
            zone_mbit: 200.0,
            delay_ms: 1,
            zone_delay_ms: 20,
            loss: 0.0,
            announce_ms: 1000,
            crashes: 0.0,
            liars: 0.0,
            slow: 0.0,
            partition: false,
            source_leaves: false,
            limit_s: 36_000,
        }
    }
}

impl Scenario {
    /// Bytes of the data set.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.runs) << 20
    }

    /// What it would take from the source to one receiver with nobody else there, in seconds.
    #[must_use]
    pub fn alone_s(&self) -> f64 {
        let seconds = self.bytes() as f64 * 8.0 / (self.rate_mbit * 1e6);
        seconds / (1.0 - self.loss / 100.0)
    }
}
