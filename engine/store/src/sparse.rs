//! Which parts of a verified block have to be written into a file that has holes. Pure.
//!
//! A hole is a claim of the sender's manifest, the block's bytes are verified: where the two disagree the bytes win.

use std::ops::Range;

/// The parts of `data`, which belongs at `offset` of its file, that are to be written: all of it except what lies in
/// one of the `holes` and is nothing but zeros. Ranges are relative to `data`, in order, neither empty nor adjacent.
///
/// `holes` must be sorted and disjoint.
#[must_use]
pub fn ranges_to_write(offset: u64, data: &[u8], holes: &[Range<u64>]) -> Vec<Range<usize>> {
    let end = offset.saturating_add(data.len() as u64);
    let relative = |at: u64| usize::try_from(at.clamp(offset, end) - offset).unwrap_or(data.len());
    let mut ranges = Vec::new();
    let mut written = 0;
    let first = holes.partition_point(|hole| hole.end <= offset);
    for hole in holes[first..].iter().take_while(|hole| hole.start < end) {
        let (from, to) = (relative(hole.start).max(written), relative(hole.end));
        if from < to && data[from..to].iter().all(|&byte| byte == 0) {
            if written < from {
                ranges.push(written..from);
            }
            written = to;
        }
    }
    if written < data.len() {
        ranges.push(written..data.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn zeros_in_holes_are_skipped_and_all_else_is_written() {
        let zeros = [0; 100];
        assert_eq!(ranges_to_write(0, &zeros, &[]), [0..100]);
        assert!(ranges_to_write(0, &zeros, std::slice::from_ref(&(0..1000))).is_empty());
        assert_eq!(ranges_to_write(50, &zeros, &[0..60, 70..80, 149..200]), [10..20, 30..99]);
        assert_eq!(ranges_to_write(50, &zeros, &[0..50, 150..200]), [0..100]);
        assert!(ranges_to_write(0, &[], std::slice::from_ref(&(0..10))).is_empty());
        let mut data = zeros;
        data[15] = 1;
        assert_eq!(ranges_to_write(0, &data, &[10..20, 30..40]), [0..30, 40..100]);
    }

    proptest! {
        #[test]
        fn what_is_not_written_is_zero_and_claimed_as_a_hole(
            offset in 0_u64..200,
            data in proptest::collection::vec(prop_oneof![9 => Just(0_u8), 1 => any::<u8>()], 0..300),
            cuts in proptest::collection::btree_set(0_u64..600, 0..12),
        ) {
            let cuts: Vec<_> = cuts.into_iter().collect();
            let holes: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let ranges = ranges_to_write(offset, &data, &holes);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            for (i, &byte) in data.iter().enumerate() {
                if !ranges.iter().any(|range| range.contains(&i)) {
                    prop_assert_eq!(byte, 0);
                    prop_assert!(holes.iter().any(|hole| hole.contains(&(offset + i as u64))));
                }
            }
        }
    }
}
