//! The sender's judgement of fetches: what to answer, what to refuse, when to stop (hazard A13).

use crate::block::{FileId, Layout};
use crate::limits;
use crate::wire::{BlocksPrefix, CloseCode, FetchRequest, RangeError, RangeProblem};
use std::collections::{HashSet, VecDeque};

/// The answer to one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Read and send it.
    Serve {
        /// The range.
        range: BlocksPrefix,
        /// Its payload.
        bytes: u32,
    },
    /// Say why not.
    Refuse(RangeError),
}

/// A fetch judged: its answers, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// One for each range.
    pub answers: Vec<Answer>,
    /// How long to wait before answering.
    pub delay_ms: u64,
}

/// The state of one data connection, on the sender's side.
#[derive(Debug, Default)]
pub struct Server {
    unanswered: VecDeque<Vec<BlocksPrefix>>,
    /// Every range in `unanswered`, to find duplicates.
    pending: HashSet<(FileId, u32)>,
    strikes: u32,
    served_bytes: u64,
}

/// What every peer may ask for beyond a multiple of the data set: retries over a bad link, small data sets.
const SERVED_SLACK_BYTES: u64 = 256 << 20;

impl Server {
    /// A connection on which nothing was asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a fetch. `found` has, for each range, the layout of its file if that may be served, or why not; `total_bytes` is
    /// the size of the data set. That something is not here (yet) is no fault of who asks.
    ///
    /// # Panics
    /// If `found` is not of the fetch's ranges.
    ///
    /// # Errors
    /// With the code to close the connection with, if the peer asks for too much or makes no sense too often.
    pub fn handle_fetch(
        &mut self,
        fetch: &FetchRequest,
        found: &[Result<Layout, RangeProblem>],
        total_bytes: u64,
    ) -> Result<Judged, CloseCode> {
        if self.unanswered.len() >= limits::FETCHES_OUTSTANDING_MAX {
            return Err(CloseCode::Flood);
        }
        let allowed_bytes =
            total_bytes.saturating_mul(limits::SERVED_RATIO_MAX).saturating_add(SERVED_SLACK_BYTES);
        let mut answers = Vec::with_capacity(fetch.ranges.len());
        let mut fetch_bytes = 0;
        assert_eq!(fetch.ranges.len(), found.len(), "one for each range");
        for (&range, found) in fetch.ranges.iter().zip(found) {
            let judged = match found {
                Err(problem) => Err(*problem),
                Ok(layout) => match layout.run_bytes(range.first, range.count) {
                    None => Err(RangeProblem::OutOfRange),
                    Some(bytes) => Ok((bytes, u64::from(range.count) <= u64::from(layout.blocks_per_run()))),
                },
            };
            let judged = judged.and_then(|(bytes, is_run)| {
                let fresh = self.pending.insert((range.file, range.first.0));
                if !is_run {
                    return Err(RangeProblem::OutOfRange);
                }
                if !fresh || self.served_bytes + bytes > allowed_bytes {
                    return Err(RangeProblem::Excessive);
                }
                self.served_bytes += bytes;
                fetch_bytes += bytes;
                Ok(bytes)
            });
            answers.push(match judged {
                Ok(bytes) => {
                    Answer::Serve { range, bytes: u32::try_from(bytes).expect("a run is at most 16 MiB") }
                }
                Err(problem) => {
                    self.strikes += u32::from(problem != RangeProblem::NotHere);
                    Answer::Refuse(RangeError { range, problem })
                }
            });
        }
        // Several ranges are a batch of at most one run; a single range may be one large block.
        if fetch.ranges.len() > 1 && fetch_bytes > limits::RUN_BYTES_MAX as u64 {
            return Err(CloseCode::Protocol);
        }
        if self.strikes > limits::STRIKES_MAX {
            return Err(CloseCode::Flood);
        }
        self.unanswered.push_back(fetch.ranges.clone());
        let delay_ms = if self.strikes > limits::STRIKES_FREE && answers.iter().any(is_refusal) {
            limits::STRIKE_DELAY_MS
        } else {
            0
        };
        Ok(Judged { answers, delay_ms })
    }

    /// Notes that the oldest fetch is answered.
    pub fn handle_answered(&mut self) {
        for range in self.unanswered.pop_front().into_iter().flatten() {
            self.pending.remove(&(range.file, range.first.0));
        }
    }
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Refuse(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockIndex, BlockSize};

    fn range(file: u64, first: u32, count: u32) -> BlocksPrefix {
        BlocksPrefix { file: FileId(file), first: BlockIndex(first), count }
    }

    fn fetch(ranges: &[BlocksPrefix]) -> FetchRequest {
        FetchRequest { ranges: ranges.to_vec() }
    }

    /// Judges a fetch by a server that has whole files.
    fn judge(
        server: &mut Server,
        fetch: &FetchRequest,
        layout: fn(FileId) -> Option<Layout>,
        total_bytes: u64,
    ) -> Result<Judged, CloseCode> {
        let found = fetch.ranges.iter().map(|range| layout(range.file).ok_or(RangeProblem::UnknownFile));
        server.handle_fetch(fetch, &found.collect::<Vec<_>>(), total_bytes)
    }

    fn layout(file: FileId) -> Option<Layout> {
        (file.0 < 10).then(|| Layout::new(100_000, BlockSize::MIN).expect("small"))
    }

    #[test]
    fn a13_requests_past_the_end_or_for_unknown_files_are_answered_with_errors_then_closed() {
        let mut server = Server::new();
        let three = fetch(&[range(0, 0, 4), range(1, 3, 2), range(77, 0, 1)]);
        let judged = judge(&mut server, &three, layout, 1 << 20).expect("answered");
        assert_eq!(judged.answers[0], Answer::Serve { range: range(0, 0, 4), bytes: 100_000 });
        let refusal = |range, problem| Answer::Refuse(RangeError { range, problem });
        assert_eq!(judged.answers[1], refusal(range(1, 3, 2), RangeProblem::OutOfRange));
        assert_eq!(judged.answers[2], refusal(range(77, 0, 1), RangeProblem::UnknownFile));
        assert_eq!(judged.delay_ms, 0);
        server.handle_answered();

        let mut delayed = false;
        let closed = (0..1_000).find_map(|i| {
            let judged = judge(&mut server, &fetch(&[range(100 + i, 0, 1)]), layout, 1 << 20);
            server.handle_answered();
            match judged {
                Ok(judged) => {
                    delayed |= judged.delay_ms > 0;
                    None
                }
                Err(code) => Some(code),
            }
        });
        assert_eq!(closed, Some(CloseCode::Flood));
        assert!(delayed, "limited before closed");
    }

    #[test]
    fn a13_duplicates_are_refused_and_then_closed() {
        let mut server = Server::new();
        let twice = fetch(&[range(0, 0, 4), range(0, 0, 4)]);
        let judged = judge(&mut server, &twice, layout, 1 << 20).expect("answered");
        assert!(matches!(
            judged.answers[1],
            Answer::Refuse(RangeError { problem: RangeProblem::Excessive, .. })
        ));
        let again = fetch(&[range(0, 0, 4)]);
        judge(&mut server, &again, layout, 1 << 20).expect("answered");
        assert_eq!(server.strikes, 2);
        server.handle_answered();
        server.handle_answered();
        let judged = judge(&mut server, &again, layout, 1 << 20).expect("answered");
        assert!(
            matches!(judged.answers[0], Answer::Serve { .. }),
            "asking again after the answer is a retry"
        );

        let mut asked = 0_u64;
        let code = loop {
            match judge(&mut server, &again, layout, 0) {
                Ok(_) => server.handle_answered(),
                Err(code) => break code,
            }
            asked += 1;
            assert!(asked < 1_000_000, "a million duplicates must not be served");
        };
        assert_eq!(code, CloseCode::Flood);
    }

    #[test]
    fn a13_unanswered_fetches_are_bounded() {
        let mut server = Server::new();
        for i in 0..u32::try_from(limits::FETCHES_OUTSTANDING_MAX).expect("small") {
            let one = fetch(&[range(u64::from(i / 4), i % 4, 1)]);
            judge(&mut server, &one, layout, 1 << 30).expect("answered");
        }
        assert_eq!(judge(&mut server, &fetch(&[range(9, 0, 1)]), layout, 1 << 30), Err(CloseCode::Flood));
    }

    #[test]
    fn what_is_not_here_is_no_fault_of_who_asks() {
        let mut server = Server::new();
        for i in 0..1000 {
            let one = fetch(&[range(i, 0, 1)]);
            let judged = server.handle_fetch(&one, &[Err(RangeProblem::NotHere)], 0).expect("answered");
            assert_eq!(judged.delay_ms, 0);
            server.handle_answered();
        }
        assert_eq!(server.strikes, 0);
    }

    #[test]
    fn a_batch_may_not_be_larger_than_a_run() {
        let big = |_| Layout::new(10 << 20, BlockSize::MIN);
        let ok = fetch(&[range(0, 0, 32)]);
        let too_much = fetch(&[range(0, 0, 32), range(0, 32, 1)]);
        assert!(judge(&mut Server::new(), &ok, big, 1 << 30).is_ok());
        assert_eq!(judge(&mut Server::new(), &too_much, big, 1 << 30), Err(CloseCode::Protocol));
    }
}
