//! What may come in on a connection: the answers that are due, in the order in which they were asked for.

use super::{Fetch, FetchId, Run, Unasked};
use crate::wire::BlocksPrefix;
use std::collections::VecDeque;

/// The answers due on one connection, checked frame by frame as they come in: they must come in the order asked.
#[derive(Debug, Default)]
pub struct DueAnswers {
    fetches: VecDeque<Fetch>,
    /// Runs of the oldest fetch that were answered.
    answered: usize,
}

/// A run that is answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The fetch it belongs to.
    pub fetch: FetchId,
    /// The run.
    pub run: Run,
    /// Its place in the fetch.
    pub index: usize,
    /// Whether the fetch is answered with it.
    pub last: bool,
}

impl DueAnswers {
    /// A fetch is about to be sent.
    pub fn push(&mut self, fetch: Fetch) {
        self.fetches.push_back(fetch);
    }

    /// Whether every fetch is answered, or is with the run accepted last.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    /// The oldest unanswered run, if the frame is its answer.
    ///
    /// # Errors
    /// If it is not.
    pub fn accept(&mut self, request: u64, range: BlocksPrefix) -> Result<Due, Unasked> {
        let fetch = self.fetches.front().ok_or(Unasked)?;
        let run = fetch.runs[self.answered];
        if fetch.id.0 != request || run.range() != range {
            return Err(Unasked);
        }
        let due =
            Due { fetch: fetch.id, run, index: self.answered, last: self.answered + 1 == fetch.runs.len() };
        self.answered += 1;
        if due.last {
            self.fetches.pop_front();
            self.answered = 0;
        }
        Ok(due)
    }
}
