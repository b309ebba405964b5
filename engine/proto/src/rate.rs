//! Limits of rate: a token bucket, and rates as people write them.
//!
//! Owns how much may pass by when. Time is a parameter: microseconds of any monotonic clock. In rooms of their own: limits of
//! both directions by the time of day (`timetable`), and one limit that several share (`share`).

mod share;
mod timetable;

pub use share::share;
pub use timetable::{BothWays, Entry, MinuteOfDay, MinuteOfWeek, Timetable, TimetableError, Weekday};

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// The least that a limit can be, in bytes a second: at less, peers would take a slow transfer for a dead one.
pub const RATE_MIN: u64 = 8 << 10;
/// What may pass at once after a while in which less than the limit did, in microseconds of the limit.
const BURST_MICROS: u64 = 100_000;
/// What is asked for at a time, in microseconds of the limit: so often a limited transfer shows that it lives.
const PART_MICROS: u64 = 50_000;
/// Bytes that are asked for at a time, at least and at most: less would be all overhead.
const PART_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=256 << 10;

const MICROS: u128 = 1_000_000;

/// Bytes a second, not less than [`RATE_MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

/// A text or number that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number of bytes a second, with K, M, G or T for powers of 1024, and not less than 8K")]
pub struct RateError;

impl Rate {
    /// A rate of so many bytes a second.
    ///
    /// # Errors
    /// If that is less than [`RATE_MIN`].
    pub fn new(bytes_per_second: u64) -> Result<Self, RateError> {
        match NonZeroU64::new(bytes_per_second) {
            Some(bytes) if bytes.get() >= RATE_MIN => Ok(Self(bytes)),
            _ => Err(RateError),
        }
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// How many bytes to ask for at a time.
    #[must_use]
    pub fn part_bytes(self) -> u64 {
        self.bytes_in(PART_MICROS).clamp(*PART_BYTES.start(), *PART_BYTES.end())
    }

    fn bytes_in(self, micros: u64) -> u64 {
        let bytes = u128::from(self.0.get()) * u128::from(micros) / MICROS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long so many bytes take.
    fn micros_of(self, bytes: u64) -> u64 {
        let micros = (u128::from(bytes) * MICROS).div_ceil(u128::from(self.0.get()));
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let power = match &text[digits.len()..] {
            "" => 0,
            "K" | "k" => 1,
            "M" | "m" => 2,
            "G" | "g" => 3,
            "T" | "t" => 4,
            _ => return Err(RateError),
        };
        let number: u64 = digits.parse().map_err(|_| RateError)?;
        number.checked_mul(1024_u64.pow(power)).ok_or(RateError).and_then(Self::new)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0.get(), "");
        for next in ["K", "M", "G", "T"] {
            if !number.is_multiple_of(1024) {
                break;
            }
            (number, unit) = (number / 1024, next);
        }
        write!(f, "{number}{unit}")
    }
}

/// Lets bytes pass at a rate, or without one.
///
/// What passed is written down as a time until which nothing more may: a debt. Over any stretch of time no more passes
/// than the rate allows for it, and what one burst and one part are beside.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Option<Rate>,
    /// When what has passed is paid for.
    paid_at: u64,
}

impl TokenBucket {
    /// Nothing has passed yet.
    #[must_use]
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, paid_at: 0 }
    }

    /// The limit.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Another limit from now on. What is owed is owed in bytes.
    pub fn set_rate(&mut self, rate: Option<Rate>, now: u64) {
        let owed = self.rate.map_or(0, |rate| rate.bytes_in(self.paid_at.saturating_sub(now)));
        self.rate = rate;
        self.paid_at = now.saturating_add(rate.map_or(0, |rate| rate.micros_of(owed)));
    }

    /// How long to wait before more may pass, in microseconds.
    #[must_use]
    pub fn delay(&self, now: u64) -> u64 {
        self.rate.map_or(0, |_| self.paid_at.saturating_sub(now.saturating_add(BURST_MICROS)))
    }

    /// So many bytes pass now.
    pub fn pass(&mut self, bytes: u64, now: u64) {
        if let Some(rate) = self.rate {
            self.paid_at = self.paid_at.max(now).saturating_add(rate.micros_of(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_as_they_are_shown() {
        for (text, bytes) in [("8K", 8192), ("10M", 10 << 20), ("123456", 123_456), ("2T", 2 << 40)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bytes_per_second(), rate.to_string()), (bytes, text.into()));
        }
        for wrong in ["", "K", "7K", "0", "-1", "1.5M", "10MB", "10 M", "99999999T", "1e9"] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError), "{wrong}");
        }
    }

    #[test]
    fn a_change_of_the_limit_holds_at_once_and_forgets_nothing() {
        let slow = Rate::new(10_000).unwrap();
        let mut bucket = TokenBucket::new(Some(slow));
        bucket.pass(10_000, 0);
        assert_eq!(bucket.delay(0), 1_000_000 - BURST_MICROS);
        bucket.set_rate(Some(Rate::new(100_000).unwrap()), 0);
        assert_eq!(bucket.delay(0), 0, "a tenth of a second is owed");
        bucket.set_rate(Some(slow), 0);
        assert_eq!(bucket.delay(0), 1_000_000 - BURST_MICROS);
        bucket.set_rate(None, 0);
        bucket.pass(u64::MAX, 0);
        assert_eq!(bucket.delay(0), 0);
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_limit_and_not_much_less(
            rate in RATE_MIN..1 << 36,
            idle in 0_u64..5_000_000,
            parts in 1_usize..400,
        ) {
            let rate = Rate::new(rate).unwrap();
            let mut bucket = TokenBucket::new(Some(rate));
            let part = rate.part_bytes();
            let begun = idle;
            let (mut now, mut passed) = (begun, 0);
            for _ in 0..parts {
                now += bucket.delay(now);
                prop_assert_eq!(bucket.delay(now), 0);
                bucket.pass(part, now);
                passed += part;
            }
            let allowed = rate.bytes_in(now - begun + BURST_MICROS) + part + parts as u64;
            prop_assert!(passed <= allowed, "{} > {}", passed, allowed);
            // A sender that always has something to send reaches the limit.
            prop_assert!(passed + part >= rate.bytes_in(now - begun), "{}", passed);
        }
    }
}
