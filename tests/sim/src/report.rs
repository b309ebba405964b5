//! What came of a scenario.

use std::fmt;

/// Times are in virtual seconds.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's seed, which plays it again.
    pub seed: u64,
    /// When the receivers were done, in order.
    pub done_s: Vec<f64>,
    /// Receivers that live and are honest, and are not done.
    pub unfinished: u32,
    /// Bytes of the data set.
    pub bytes: u64,
    /// What the transfer from one host to one takes.
    pub alone_s: f64,
    /// Bytes that the source sent.
    pub source_bytes: u64,
    /// Bytes that were sent within zones, the source's included.
    pub near_bytes: u64,
    /// Bytes between each two zones, in one direction: from, to, bytes.
    pub far_bytes: Vec<(u32, u32, u64)>,
    /// Bytes that came twice.
    pub late_bytes: u64,
    /// Bytes that were wrong.
    pub wrong_bytes: u64,
    /// Liars that were banned, by each receiver that did.
    pub bans: u64,
    /// Events that were played.
    pub events: u64,
}

impl Report {
    /// When so many percent of the receivers were done, or nothing if they never were.
    #[must_use]
    pub fn percentile_s(&self, percent: u32) -> Option<f64> {
        let all = self.done_s.len() + self.unfinished as usize;
        let at = (all * percent as usize).div_ceil(100).max(1) - 1;
        self.done_s.get(at).copied()
    }

    /// Copies of the data set that left the source.
    #[must_use]
    pub fn source_copies(&self) -> f64 {
        self.copies(self.source_bytes)
    }

    /// Copies of the data set that went from one zone to another, the most of all such links.
    #[must_use]
    pub fn far_copies(&self) -> f64 {
        self.far_bytes.iter().map(|(.., bytes)| self.copies(*bytes)).fold(0.0, f64::max)
    }

    fn copies(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed        {}", self.seed)?;
        writeln!(f, "done        {} receivers, {} not", self.done_s.len(), self.unfinished)?;
        writeln!(f, "alone       {:.1} s from one host to one", self.alone_s)?;
        write!(f, "done after ")?;
        for percent in [1, 50, 90, 99, 100] {
            match self.percentile_s(percent) {
                Some(seconds) => write!(f, " p{percent} {seconds:.1} s")?,
                None => write!(f, " p{percent} never")?,
            }
        }
        writeln!(f)?;
        writeln!(f, "source      sent {:.2} copies", self.source_copies())?;
        writeln!(f, "near        {:.2} copies within zones", self.copies(self.near_bytes))?;
        for (from, to, bytes) in &self.far_bytes {
            writeln!(f, "far         {:.2} copies from zone {from} to zone {to}", self.copies(*bytes))?;
        }
        let (late, wrong) = (self.copies(self.late_bytes), self.copies(self.wrong_bytes));
        writeln!(f, "for nothing {late:.2} copies came twice, {wrong:.2} were wrong; {} bans", self.bans)?;
        writeln!(f, "events      {}", self.events)
    }
}
