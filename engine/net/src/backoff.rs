//! How long to wait before trying a peer again: doubling, capped, jittered.
//!
//! Pure: randomness is passed in and the caller does the waiting.

use std::time::Duration;

/// Successive delays before reconnecting: 100 ms, doubling to 5 s, each drawn from its upper half.
#[derive(Clone, Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    /// The ceiling of the first delay.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The ceiling no delay exceeds.
    pub const CAP: Duration = Duration::from_secs(5);

    /// Begins with [`Self::FIRST`].
    #[must_use]
    pub const fn new() -> Self {
        Self { ceiling: Self::FIRST }
    }

    /// The next delay: from half of the current ceiling up to the whole of it, by `random` (uniform over all `u64`),
    /// so that peers that lost the same host don't return to it in step.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(Self::CAP);
        let half = ceiling / 2;
        // The high half of a 64×64-bit product scales without a division's bias.
        let span = (u128::from(random) * half.as_nanos()) >> 64;
        half + Duration::from_nanos(u64::try_from(span).expect("below the cap of 5 s"))
    }

    /// Starts over, after a success.
    pub const fn reset(&mut self) {
        self.ceiling = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..8).map(|_| backoff.next_delay(0).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 2500, 2500]);
    }

    #[test]
    fn jitter_stays_within_half_and_whole() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let delay = Backoff::new().next_delay(random);
            assert!((Backoff::FIRST / 2..=Backoff::FIRST).contains(&delay), "{delay:?}");
        }
        assert!(Backoff::new().next_delay(u64::MAX) > Backoff::new().next_delay(0));
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::new();
        backoff.next_delay(7);
        backoff.reset();
        assert_eq!(backoff.next_delay(7), Backoff::new().next_delay(7));
    }
}
