//! One limit of rate for several who cannot take turns, as processes can't: what each may have.

use super::{RATE_MIN, Rate};

/// Parts of a limit, in the order of those who share it, each of whom may have a limit of its own.
///
/// Nobody gets more than its own limit; what it leaves goes to the others in equal parts. All together get no more than
/// the limit, unless that is less than [`RATE_MIN`] for each: then each gets that.
#[must_use]
pub fn share(limit: Option<Rate>, own: &[Option<Rate>]) -> Vec<Option<Rate>> {
    let Some(limit) = limit else { return own.to_vec() };
    let mut parts = own.to_vec();
    // Who wants least is served first: what it leaves is there for all who want more.
    let mut order: Vec<usize> = (0..own.len()).collect();
    order.sort_by_key(|&at| own.get(at).copied().flatten().map_or(u64::MAX, Rate::bytes_per_second));
    let (mut left, mut others) = (limit.bytes_per_second(), own.len() as u64);
    for at in order {
        let equal = left / others.max(1);
        let Some(part) = parts.get_mut(at) else { continue };
        let bytes = part.map_or(equal, |own| own.bytes_per_second().min(equal));
        left = left.saturating_sub(bytes);
        others = others.saturating_sub(1);
        *part = Rate::new(bytes.max(RATE_MIN)).ok();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(bytes: u64) -> Option<Rate> {
        Some(Rate::new(bytes).unwrap())
    }

    #[test]
    fn what_one_leaves_the_others_get() {
        assert_eq!(share(None, &[None, rate(9000)]), [None, rate(9000)]);
        assert_eq!(share(rate(90_000), &[None]), [rate(90_000)]);
        assert_eq!(
            share(rate(90_000), &[None, rate(10_000), None]),
            [rate(40_000), rate(10_000), rate(40_000)]
        );
        assert_eq!(share(rate(9000), &[None, None]), [rate(RATE_MIN), rate(RATE_MIN)]);
        assert_eq!(share(rate(9000), &[]), []);
    }

    proptest! {
        #[test]
        fn nothing_is_left_over_nor_given_twice(
            limit in RATE_MIN * 64..1 << 40,
            own in proptest::collection::vec(proptest::option::of(RATE_MIN..1 << 40), 1..64),
        ) {
            let own: Vec<_> = own.into_iter().map(|own| own.map(|own| Rate::new(own).unwrap())).collect();
            let parts: Vec<_> = share(rate(limit), &own).into_iter().map(|part| part.unwrap().bytes_per_second()).collect();
            let sum: u64 = parts.iter().sum();
            prop_assert!(sum <= limit, "{sum} of {limit}");
            let most = parts.iter().copied().max().unwrap();
            let wanted = own.iter().map(|own| own.map_or(limit, Rate::bytes_per_second)).fold(0, u64::saturating_add);
            prop_assert!(sum + 64 >= limit.min(wanted), "{sum} of {limit}, {wanted} wanted");
            for (part, own) in parts.iter().zip(&own) {
                // Whoever has less than another has all that it wants.
                let all = own.is_some_and(|own| own.bytes_per_second() == *part);
                prop_assert!(all || part + 64 >= most, "{part} of {most}");
                prop_assert!(own.is_none_or(|own| *part <= own.bytes_per_second()));
            }
        }
    }
}
