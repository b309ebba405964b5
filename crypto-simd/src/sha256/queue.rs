//! The order in which a batch's messages are begun.
//!
//! In order of the batch, except that the last ones are begun longest first: then what is still running when lanes
//! go empty is short. Only the last ones, so that a batch of any size costs a fixed and small effort.

/// Messages at the end of a batch that one thread sorts.
pub(super) const ORDERED: usize = 128;

/// A batch shorter than this at its longest ends evenly enough.
const WORTH_ORDERING_BYTES: usize = 4096;

/// Messages in the order in which they are to be begun.
#[derive(Clone, Copy)]
pub(super) struct Queue<'a, 'm> {
    messages: &'a [&'m [u8]],
    /// The indices of the last messages, longest first.
    ordered: &'a [usize],
}

impl<'a, 'm> Queue<'a, 'm> {
    /// Orders as many of the last messages as `order` has room for.
    pub(super) fn new(messages: &'a [&'m [u8]], order: &'a mut [usize]) -> Self {
        let start = messages.len().saturating_sub(order.len());
        let last = &messages[start..];
        let descends = last.is_sorted_by(|a, b| a.len() >= b.len());
        if descends || last.iter().all(|message| message.len() < WORTH_ORDERING_BYTES) {
            return Self { messages, ordered: &[] };
        }
        let ordered = &mut order[..last.len()];
        for (i, index) in ordered.iter_mut().enumerate() {
            *index = start + i;
        }
        ordered.sort_unstable_by_key(|&index| std::cmp::Reverse(messages[index].len()));
        Self { messages, ordered }
    }

    /// The `i`th message to be begun, and its index in the batch.
    pub(super) fn get(&self, i: usize) -> Option<(usize, &'m [u8])> {
        let start = self.messages.len() - self.ordered.len();
        let index = if i < start { i } else { *self.ordered.get(i - start)? };
        Some((index, self.messages[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(lengths: &[usize], room: usize) -> Vec<usize> {
        let data = vec![0; lengths.iter().copied().max().unwrap_or(0)];
        let messages: Vec<&[u8]> = lengths.iter().map(|&length| &data[..length]).collect();
        let mut order = vec![0; room];
        let queue = Queue::new(&messages, &mut order);
        (0..).map_while(|i| queue.get(i)).map(|(index, _)| index).collect()
    }

    #[test]
    fn begins_the_last_messages_longest_first() {
        assert_eq!(begun(&[1, 9_000, 5, 5_000, 70_000], 3), [0, 1, 4, 3, 2]);
        assert_eq!(begun(&[1, 9_000, 5, 5_000, 70_000], 128), [4, 1, 3, 2, 0]);
    }

    #[test]
    fn leaves_equal_and_short_messages_as_they_are() {
        assert_eq!(begun(&[9_000; 5], 3), [0, 1, 2, 3, 4]);
        assert_eq!(begun(&[1, 2, 3, 4], 3), [0, 1, 2, 3]);
        assert!(begun(&[], 3).is_empty());
    }
}
