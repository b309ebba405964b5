//! How long to wait before something is tried again: doubling from 1 s to 60 s, each drawn from its upper half, so that
//! those who lost the same daemon or source do not return to it in step.

use std::time::Duration;

/// The ceiling of the first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The ceiling that no pause exceeds.
const CAP: Duration = Duration::from_secs(60);

/// The pause after so many failures before this one.
pub(crate) fn delay(failures: u32) -> Duration {
    let mut random = [0; 8];
    // Without randomness pauses are as long as they can be.
    let drawn = getrandom::fill(&mut random).map_or(u64::MAX, |()| u64::from_le_bytes(random));
    of(failures, drawn)
}

fn of(failures: u32, random: u64) -> Duration {
    let ceiling = FIRST.saturating_mul(1 << failures.min(16)).min(CAP);
    let half = ceiling / 2;
    let nanos = (u128::from(random) * half.as_nanos()) >> 64;
    half + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_are_drawn_from_the_upper_half() {
        let shortest: Vec<_> = (0..8).map(|failures| of(failures, 0).as_millis()).collect();
        assert_eq!(shortest, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert!(of(u32::MAX, u64::MAX) <= CAP && of(0, u64::MAX) <= FIRST);
        assert!((FIRST / 2..=FIRST).contains(&delay(0)));
    }
}
