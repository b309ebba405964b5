//! Medians, spreads, and ratios within rounds.

use serde::{Deserialize, Serialize};

/// What a number of values came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many values there were.
    pub count: usize,
    /// The value in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// A quarter of the values is below.
    pub lower_quartile: f64,
    /// A quarter of the values is above.
    pub upper_quartile: f64,
    /// From quartile to quartile.
    pub interquartile_range: f64,
}

impl Spread {
    /// Of these values; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let lower_quartile = quantile(&sorted, 1);
        let upper_quartile = quantile(&sorted, 3);
        Some(Self {
            count: sorted.len(),
            median: quantile(&sorted, 2),
            min: first,
            max: last,
            lower_quartile,
            upper_quartile,
            interquartile_range: upper_quartile - lower_quartile,
        })
    }

    /// The same of `scale / value`: from seconds to a rate.
    #[must_use]
    pub fn inverse(self, scale: f64) -> Self {
        Self {
            count: self.count,
            median: scale / self.median,
            min: scale / self.max,
            max: scale / self.min,
            lower_quartile: scale / self.upper_quartile,
            upper_quartile: scale / self.lower_quartile,
            interquartile_range: scale / self.lower_quartile - scale / self.upper_quartile,
        }
    }
}

/// The value below which `quarters` quarters lie, linear between neighbours.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let position = (sorted.len() - 1) * quarters;
    let (at, rest) = (position / 4, position % 4);
    match sorted.get(at + 1) {
        Some(next) => sorted[at] + (next - sorted[at]) * rest as f64 / 4.0,
        None => sorted[at],
    }
}

/// `beside / this`, round by round: above 1 where this took less. Rounds that only one of the two has don't count.
#[must_use]
pub fn paired_ratios(this: &[(u32, f64)], beside: &[(u32, f64)]) -> Vec<f64> {
    this.iter()
        .filter_map(|(round, value)| {
            let (_, other) = beside.iter().find(|(other, _)| other == round)?;
            Some(other / value).filter(|ratio| ratio.is_finite())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_the_books() {
        let spread = Spread::of(&[7.0, 1.0, 3.0, 5.0, 9.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (5.0, 1.0, 9.0));
        assert_eq!(
            (spread.lower_quartile, spread.upper_quartile, spread.interquartile_range),
            (3.0, 7.0, 4.0)
        );
        let even = Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.lower_quartile, even.upper_quartile), (2.5, 1.75, 3.25));
        let one = Spread::of(&[2.0]).unwrap();
        assert_eq!((one.median, one.min, one.max, one.interquartile_range), (2.0, 2.0, 2.0, 0.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_rate_turns_the_spread_around() {
        let rate = Spread::of(&[1.0, 2.0, 4.0]).unwrap().inverse(8.0);
        assert_eq!((rate.median, rate.min, rate.max), (4.0, 2.0, 8.0));
        assert!(rate.lower_quartile < rate.upper_quartile);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let this = [(1, 1.0), (2, 2.0), (3, 4.0)];
        let beside = [(3, 8.0), (1, 3.0), (4, 100.0)];
        assert_eq!(paired_ratios(&this, &beside), [3.0, 2.0]);
        assert_eq!(paired_ratios(&[(1, 0.0)], &[(1, 1.0)]), [0.0; 0]);
        assert!(paired_ratios(&[], &beside).is_empty());
    }
}
