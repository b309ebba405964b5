//! The receiver's choice of what to ask of which connection, and what to do with the answers.
//!
//! Runs wait in one queue. A connection with room gets a fetch of up to one run's bytes: many small files or one run
//! of a large one. What a lost connection left unanswered goes back to the front of the queue; blocks that did not
//! match are asked for again, a few times. Time is a parameter, in milliseconds of any monotonic clock.

use crate::block::{BlockIndex, FileId, Layout};
use crate::limits;
use crate::wire::{BlocksPrefix, RangeProblem};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Names a data connection of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

/// Names a fetch: the request number of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// Adjacent blocks of one file, of at most one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Whose.
    pub file: FileId,
    /// The first block.
    pub first: BlockIndex,
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: u32,
}

impl Run {
    /// The runs that cover `count` blocks of a file from `first`.
    ///
    /// # Panics
    /// If those are not within the layout.
    pub fn cover(file: FileId, layout: Layout, first: BlockIndex, count: u32) -> impl Iterator<Item = Self> {
        let step = layout.blocks_per_run();
        let end = first.0 + count;
        (first.0..end).step_by(step as usize).map(move |at| {
            let count = step.min(end - at);
            let bytes = layout.run_bytes(BlockIndex(at), count).expect("within the layout");
            Self { file, first: BlockIndex(at), count, bytes: u32::try_from(bytes).expect("at most 16 MiB") }
        })
    }

    /// The run as it is named on the wire.
    #[must_use]
    pub fn range(self) -> BlocksPrefix {
        BlocksPrefix { file: self.file, first: self.first, count: self.count }
    }
}

/// What to ask of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Its number.
    pub id: FetchId,
    /// The runs, in the order of the answers.
    pub runs: Vec<Run>,
}

/// How the answer to one run turned out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Verified and written.
    Written,
    /// Some blocks, each named as a run of its own, did not match; the others were written.
    Mismatch(Vec<Run>),
    /// The sender cannot give it.
    Refused(RangeProblem),
    /// It could not be written here.
    NotWritten,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file cannot be had from this peer.
    GiveUp(FileId, Loss),
    /// A block is asked for again.
    Retry(FileId, BlockIndex),
    /// The peer sent too much that is wrong.
    Ban,
}

/// Why a file cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A block of it never matched.
    Corrupt,
    /// The sender refuses it.
    Refused(RangeProblem),
    /// It cannot be written here.
    NotWritten,
}

/// The answer is to nothing that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer answered what was not asked")]
pub struct Unasked;

/// The receiver's side of a transfer.
#[derive(Debug)]
pub struct Puller {
    queue: VecDeque<Run>,
    connections: BTreeMap<ConnectionId, InFlight>,
    cancelled: HashSet<FileId>,
    mismatches: HashMap<(FileId, BlockIndex), u32>,
    wrong_runs: u32,
    next_fetch: u64,
    fetches_max: usize,
}

#[derive(Debug, Default)]
struct InFlight {
    fetches: BTreeMap<FetchId, Vec<Run>>,
    heard_ms: u64,
}

impl Puller {
    /// A transfer that has asked for nothing, with a bound on the fetches unanswered on a connection.
    #[must_use]
    pub fn new(fetches_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            connections: BTreeMap::new(),
            cancelled: HashSet::new(),
            mismatches: HashMap::new(),
            wrong_runs: 0,
            next_fetch: 1,
            fetches_max: fetches_max.clamp(1, limits::FETCHES_OUTSTANDING_MAX),
        }
    }

    /// The peer's own bound on the fetches unanswered on a connection, where it is lower than ours.
    pub fn bound_fetches(&mut self, fetches_max: usize) {
        self.fetches_max = self.fetches_max.min(fetches_max.max(1));
    }

    /// Adds a run to what is wanted.
    pub fn want(&mut self, run: Run) {
        self.queue.push_back(run);
    }

    /// Forgets a file: what waits is dropped, what is on its way is ignored when it comes.
    pub fn cancel(&mut self, file: FileId) {
        self.queue.retain(|run| run.file != file);
        if self.in_flight().any(|run| run.file == file) {
            self.cancelled.insert(file);
        }
        self.mismatches.retain(|(of, _), _| *of != file);
    }

    /// Whether answers for a file that was forgotten are still on their way. Until they have come it cannot be wanted
    /// again.
    #[must_use]
    pub fn is_cancelled(&self, file: FileId) -> bool {
        self.cancelled.contains(&file)
    }

    /// A connection is ready for fetches.
    pub fn connect(&mut self, connection: ConnectionId, now_ms: u64) {
        self.connections.insert(connection, InFlight { fetches: BTreeMap::new(), heard_ms: now_ms });
    }

    /// A connection is gone: what it owed is asked of others.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        let Some(lost) = self.connections.remove(&connection) else { return };
        for run in lost.fetches.into_values().rev().flat_map(|runs| runs.into_iter().rev()) {
            if !self.cancelled.contains(&run.file) {
                self.queue.push_front(run);
            }
        }
        self.forget_cancelled();
    }

    /// Whether nothing is wanted or on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.connections.values().all(|c| c.fetches.is_empty())
    }

    /// Runs that wait to be asked for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next fetch for a connection, while it has room and something is wanted.
    pub fn poll_fetch(&mut self, connection: ConnectionId) -> Option<Fetch> {
        let in_flight = self.connections.get_mut(&connection)?;
        if in_flight.fetches.len() >= self.fetches_max {
            return None;
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut bytes = 0;
        while let Some(run) = self.queue.front() {
            let fits = bytes + u64::from(run.bytes) <= limits::RUN_BYTES_MAX as u64;
            if !runs.is_empty() && (!fits || runs.len() == limits::FETCH_RANGES_MAX) {
                break;
            }
            bytes += u64::from(run.bytes);
            runs.push(*run);
            self.queue.pop_front();
        }
        if runs.is_empty() {
            return None;
        }
        let id = FetchId(self.next_fetch);
        self.next_fetch += 1;
        in_flight.fetches.insert(id, runs.clone());
        Some(Fetch { id, runs })
    }

    /// Something came in on a connection: it lives.
    pub fn handle_heard(&mut self, connection: ConnectionId, now_ms: u64) {
        if let Some(in_flight) = self.connections.get_mut(&connection) {
            in_flight.heard_ms = in_flight.heard_ms.max(now_ms);
        }
    }

    /// The answer to a fetch: one outcome for each of its runs, in order.
    ///
    /// # Errors
    /// If the fetch is not unanswered on that connection, or the number of outcomes is not that of its runs.
    pub fn handle_answer(
        &mut self,
        connection: ConnectionId,
        fetch: FetchId,
        outcomes: &[Outcome],
        now_ms: u64,
    ) -> Result<Vec<Verdict>, Unasked> {
        let in_flight = self.connections.get_mut(&connection).ok_or(Unasked)?;
        in_flight.heard_ms = now_ms;
        let runs = in_flight.fetches.remove(&fetch).ok_or(Unasked)?;
        if runs.len() != outcomes.len() {
            return Err(Unasked);
        }
        let mut verdicts = Vec::new();
        for (run, outcome) in runs.iter().zip(outcomes) {
            if !self.cancelled.contains(&run.file) {
                self.judge(*run, outcome, &mut verdicts);
            }
        }
        self.forget_cancelled();
        if self.wrong_runs >= limits::PEER_MISMATCHES_MAX {
            verdicts.push(Verdict::Ban);
        }
        Ok(verdicts)
    }

    fn judge(&mut self, run: Run, outcome: &Outcome, verdicts: &mut Vec<Verdict>) {
        match outcome {
            Outcome::Written => {}
            Outcome::Refused(problem) => verdicts.push(Verdict::GiveUp(run.file, Loss::Refused(*problem))),
            Outcome::NotWritten => verdicts.push(Verdict::GiveUp(run.file, Loss::NotWritten)),
            Outcome::Mismatch(blocks) => {
                self.wrong_runs += 1;
                for &block in blocks {
                    let times = self.mismatches.entry((run.file, block.first)).or_default();
                    *times += 1;
                    if *times >= limits::BLOCK_MISMATCHES_MAX {
                        verdicts.push(Verdict::GiveUp(run.file, Loss::Corrupt));
                        break;
                    }
                    verdicts.push(Verdict::Retry(run.file, block.first));
                    self.queue.push_back(block);
                }
            }
        }
    }

    /// Connections that owe an answer and have been silent for too long; the caller disconnects them.
    #[must_use]
    pub fn silent(&self, now_ms: u64) -> Vec<ConnectionId> {
        let silent = |c: &InFlight| {
            !c.fetches.is_empty() && now_ms.saturating_sub(c.heard_ms) >= limits::DEAD_PEER_TIMEOUT_MS
        };
        self.connections.iter().filter(|(_, c)| silent(c)).map(|(id, _)| *id).collect()
    }

    fn in_flight(&self) -> impl Iterator<Item = &Run> {
        self.connections.values().flat_map(|c| c.fetches.values().flatten())
    }

    fn forget_cancelled(&mut self) {
        if !self.cancelled.is_empty() {
            let mut cancelled = std::mem::take(&mut self.cancelled);
            cancelled.retain(|file| self.in_flight().any(|run| run.file == *file));
            self.cancelled = cancelled;
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockSize;
    use proptest::prelude::*;

    const C1: ConnectionId = ConnectionId(1);
    const C2: ConnectionId = ConnectionId(2);

    fn small(file: u64, bytes: u32) -> Run {
        Run { file: FileId(file), first: BlockIndex(0), count: 1, bytes }
    }

    #[test]
    fn many_small_files_share_a_fetch() {
        let mut puller = Puller::new(4);
        puller.connect(C1, 0);
        for file in 0..1000 {
            puller.want(small(file, 100));
        }
        let sizes: Vec<_> = std::iter::from_fn(|| puller.poll_fetch(C1)).map(|f| f.runs.len()).collect();
        assert_eq!(sizes, [limits::FETCH_RANGES_MAX, 1000 - limits::FETCH_RANGES_MAX]);
    }

    #[test]
    fn a_large_file_is_cut_into_runs_of_one_mebibyte() {
        let layout = Layout::new((5 << 20) + 1, BlockSize::MIN).expect("small");
        let runs: Vec<_> = Run::cover(FileId(1), layout, BlockIndex(0), layout.blocks()).collect();
        assert_eq!(runs.len(), 6);
        assert_eq!(runs.iter().map(|run| u64::from(run.bytes)).sum::<u64>(), layout.size_bytes());
        assert_eq!(runs[5], Run { file: FileId(1), first: BlockIndex(160), count: 1, bytes: 1 });
    }

    #[test]
    fn c1_ranges_of_a_dead_connection_are_asked_of_another() {
        let mut puller = Puller::new(4);
        puller.connect(C1, 0);
        puller.connect(C2, 0);
        puller.want(small(1, 1 << 20));
        puller.want(small(2, 1 << 20));
        let first = puller.poll_fetch(C1).expect("wanted");
        let second = puller.poll_fetch(C2).expect("wanted");
        assert_eq!(puller.silent(limits::DEAD_PEER_TIMEOUT_MS - 1), []);
        puller.handle_heard(C2, 1);
        assert_eq!(puller.silent(limits::DEAD_PEER_TIMEOUT_MS), [C1]);
        puller.disconnect(C1);
        let again = puller.poll_fetch(C2).expect("reassigned");
        assert_eq!(again.runs, first.runs);
        for id in [second.id, again.id] {
            assert_eq!(puller.handle_answer(C2, id, &[Outcome::Written], 2), Ok(vec![]));
        }
        assert!(puller.is_idle());
        assert_eq!(puller.handle_answer(C1, first.id, &[Outcome::Written], 3), Err(Unasked));
    }

    #[test]
    fn a14_a_wrong_block_is_asked_for_again_then_its_file_given_up() {
        let mut puller = Puller::new(4);
        puller.connect(C1, 0);
        puller.want(small(1, 100));
        let wrong = [Outcome::Mismatch(vec![small(1, 100)])];
        for _ in 1..limits::BLOCK_MISMATCHES_MAX {
            let fetch = puller.poll_fetch(C1).expect("asked again");
            let verdicts = puller.handle_answer(C1, fetch.id, &wrong, 0).expect("asked");
            assert_eq!(verdicts, [Verdict::Retry(FileId(1), BlockIndex(0))]);
        }
        let fetch = puller.poll_fetch(C1).expect("asked again");
        let verdicts = puller.handle_answer(C1, fetch.id, &wrong, 0).expect("asked");
        assert_eq!(verdicts, [Verdict::GiveUp(FileId(1), Loss::Corrupt)]);
    }

    #[test]
    fn a14_a_peer_with_many_wrong_blocks_is_banned() {
        let mut puller = Puller::new(4);
        puller.connect(C1, 0);
        for file in 0..u64::from(limits::PEER_MISMATCHES_MAX) {
            puller.want(small(file, 100));
        }
        let fetch = puller.poll_fetch(C1).expect("wanted");
        let outcomes: Vec<_> = fetch.runs.iter().map(|run| Outcome::Mismatch(vec![*run])).collect();
        let verdicts = puller.handle_answer(C1, fetch.id, &outcomes, 0).expect("asked");
        assert_eq!(verdicts.last(), Some(&Verdict::Ban));
    }

    #[test]
    fn answers_out_of_order_or_unasked_are_refused() {
        let mut due = DueAnswers::default();
        due.push(Fetch { id: FetchId(7), runs: vec![small(1, 10), small(2, 10)] });
        assert_eq!(due.accept(7, small(2, 10).range()), Err(Unasked));
        assert_eq!(due.accept(8, small(1, 10).range()), Err(Unasked));
        assert!(!due.accept(7, small(1, 10).range()).expect("first").last);
        assert!(due.accept(7, small(2, 10).range()).expect("second").last);
        assert_eq!(due.accept(7, small(1, 10).range()), Err(Unasked));
    }

    proptest! {
        /// Whatever connections do, every run is in the end written or its file given up, and none is lost.
        #[test]
        fn nothing_is_lost_under_random_faults(
            files in 1..60_u64,
            faults in proptest::collection::vec((0..6_u8, any::<u8>()), 0..400),
        ) {
            let mut puller = Puller::new(3);
            let mut owed: Vec<(ConnectionId, Fetch)> = Vec::new();
            let mut missing: HashSet<FileId> = (0..files).map(FileId).collect();
            for file in 0..files {
                puller.want(small(file, 1 << (10 + file % 11)));
            }
            let answer = |puller: &mut Puller, owed: &mut Vec<_>, missing: &mut HashSet<_>, at: usize, wrong: bool| {
                let (connection, fetch): (ConnectionId, Fetch) = owed.swap_remove(at);
                let outcome = |run: &Run| if wrong { Outcome::Mismatch(vec![*run]) } else { Outcome::Written };
                let outcomes: Vec<_> = fetch.runs.iter().map(outcome).collect();
                let verdicts = puller.handle_answer(connection, fetch.id, &outcomes, 0).expect("asked");
                if !wrong {
                    for run in &fetch.runs {
                        assert!(missing.remove(&run.file), "written twice");
                    }
                }
                for verdict in verdicts {
                    if let Verdict::GiveUp(file, _) = verdict {
                        missing.remove(&file);
                    }
                }
            };
            for (what, pick) in faults {
                let connection = ConnectionId(u32::from(pick) % 4);
                match what {
                    0 => {
                        puller.disconnect(connection);
                        owed.retain(|(of, _)| *of != connection);
                        puller.connect(connection, 0);
                    }
                    1..=3 => owed.extend(puller.poll_fetch(connection).map(|fetch| (connection, fetch))),
                    _ if owed.is_empty() => {}
                    _ => {
                        let at = usize::from(pick) % owed.len();
                        answer(&mut puller, &mut owed, &mut missing, at, what == 4 && pick % 8 == 0);
                    }
                }
            }
            puller.connect(ConnectionId(9), 0);
            while !puller.is_idle() {
                owed.extend(puller.poll_fetch(ConnectionId(9)).map(|fetch| (ConnectionId(9), fetch)));
                answer(&mut puller, &mut owed, &mut missing, 0, false);
            }
            prop_assert!(missing.is_empty());
        }
    }
}
