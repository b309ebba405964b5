//! Modification times as they are carried.

use crate::limits;

/// A point in time: seconds since 1970-01-01 UTC, within years 1 to 9999, and nanoseconds below 10⁹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// A time, or `None` if it is out of range.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        let in_range = (limits::MTIME_SECONDS_MIN..=limits::MTIME_SECONDS_MAX).contains(&seconds);
        (in_range && nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// The nearest time in range.
    #[must_use]
    pub fn clamped(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds: seconds.clamp(limits::MTIME_SECONDS_MIN, limits::MTIME_SECONDS_MAX),
            nanos: nanos.min(999_999_999),
        }
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds on top.
    #[must_use]
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}
