//! A receiver: the real picker, and as much of an agent as it takes to run it.

use crate::events::LinkId;
use sealift_proto::block::{BlockIndex, FileId};
use sealift_proto::transfer::pull::{ConnectionId, Fetch, HaveRange, NodeId, Outcome, Puller, Run, Verdict};

/// Fetches unanswered on a connection, as the agent has it.
const FETCHES_MAX: usize = 16;

/// How the data set is cut into files.
#[derive(Clone, Copy)]
pub struct Shape {
    pub runs: u32,
    pub file_runs: u32,
}

impl Shape {
    pub fn run(self, number: u32) -> Run {
        let (file, first) = (number / self.file_runs, number % self.file_runs);
        Run { file: FileId(file.into()), first: BlockIndex(first), count: 1, bytes: 1 << 20 }
    }

    fn number(self, run: &Run) -> usize {
        let file = usize::try_from(run.file.0).expect("few files");
        file * self.file_runs as usize + run.first.0 as usize
    }

    /// Runs of a file.
    fn of_file(self, file: u32) -> u32 {
        self.file_runs.min(self.runs - file * self.file_runs)
    }

    /// Everything.
    pub fn all(self) -> HaveRange {
        HaveRange::Files { first: FileId(0), count: self.runs.div_ceil(self.file_runs).into() }
    }

    /// What is to be announced once all of `told` is known and the `new` ones are too: whole files where there are.
    fn ranges(self, told: &[bool], new: &[u32]) -> Vec<HaveRange> {
        let mut ranges: Vec<HaveRange> = Vec::new();
        for &number in new {
            let file = number / self.file_runs;
            let begin = (file * self.file_runs) as usize;
            let is_whole = told[begin..begin + self.of_file(file) as usize].iter().all(|told| *told);
            let next = number % self.file_runs;
            match ranges.last_mut() {
                Some(HaveRange::Files { first, count }) if first.0 + *count > file.into() => {}
                Some(HaveRange::Files { first, count }) if is_whole && first.0 + *count == file.into() => {
                    *count += 1;
                }
                _ if is_whole => ranges.push(HaveRange::Files { first: FileId(file.into()), count: 1 }),
                Some(HaveRange::Blocks { file: of, first, count })
                    if of.0 == file.into() && first.0 + *count == next =>
                {
                    *count += 1;
                }
                _ => ranges.push(HaveRange::Blocks {
                    file: FileId(file.into()),
                    first: BlockIndex(next),
                    count: 1,
                }),
            }
        }
        ranges
    }
}

pub struct Receiver {
    pub puller: Puller,
    pub node: NodeId,
    /// Names under which others are known that share something dear.
    pub sharers: Vec<u32>,
    /// What is there.
    have: Vec<bool>,
    pub missing: u32,
    /// What others were told of.
    told: Vec<bool>,
    /// What they are to be told of next.
    untold: Vec<u32>,
    /// When it is to look again.
    pub wake_at: u64,
    pub done_at: Option<u64>,
    shape: Shape,
}

/// What came of an answer.
#[derive(Default)]
pub struct Taken {
    /// Bytes that were there already, and that were wrong.
    pub late_bytes: u64,
    pub wrong_bytes: u64,
    /// Whether something is to be asked for again.
    pub retries: bool,
    pub is_banned: bool,
    /// What is there now.
    pub new: Vec<u32>,
    /// Whether others are to be told, and were not going to be.
    pub tell: bool,
}

impl Receiver {
    pub fn new(node: NodeId, seed: u64, shape: Shape) -> Self {
        let mut puller = Puller::new(FETCHES_MAX, node, seed);
        (0..shape.runs).for_each(|number| puller.want(shape.run(number)));
        let none = vec![false; shape.runs as usize];
        Self {
            puller,
            node,
            sharers: Vec::new(),
            have: none.clone(),
            missing: shape.runs,
            told: none,
            untold: Vec::new(),
            wake_at: u64::MAX,
            done_at: None,
            shape,
        }
    }

    /// Takes an answer.
    pub fn take(&mut self, link: LinkId, fetch: &Fetch, is_lie: bool, now: u64) -> Taken {
        let outcome = |run: &Run| if is_lie { Outcome::Mismatch(vec![*run]) } else { Outcome::Written };
        let outcomes: Vec<Outcome> = fetch.runs.iter().map(outcome).collect();
        let connection = ConnectionId(link);
        let verdicts = self.puller.handle_answer(connection, fetch.id, &outcomes, now / 1000);
        let mut taken = Taken::default();
        let bytes = fetch.runs.iter().map(|run| u64::from(run.bytes)).sum();
        // Of a connection that was given up.
        let Ok(verdicts) = verdicts else {
            taken.late_bytes = bytes;
            return taken;
        };
        for verdict in &verdicts {
            match verdict {
                Verdict::Late(run) if !is_lie => taken.late_bytes += u64::from(run.bytes),
                Verdict::Late(_) => {}
                Verdict::Retry(..) => taken.retries = true,
                Verdict::Ban(_) => taken.is_banned = true,
                Verdict::GiveUp(..) => {
                    panic!("the source lacks nothing, and is the only one whose word counts")
                }
            }
        }
        if is_lie {
            taken.wrong_bytes = bytes;
            return taken;
        }
        for run in fetch.runs.iter().filter(|run| !verdicts.contains(&Verdict::Late(**run))) {
            let number = self.shape.number(run);
            assert!(!std::mem::replace(&mut self.have[number], true), "{run:?} counted twice");
            self.missing -= 1;
            taken.tell |= self.untold.is_empty();
            let number = u32::try_from(number).expect("few runs");
            self.untold.push(number);
            taken.new.push(number);
        }
        if self.missing == 0 && self.done_at.is_none() {
            self.done_at = Some(now);
        }
        taken
    }

    /// What others are to be told of now.
    pub fn tell(&mut self) -> Vec<HaveRange> {
        let mut new = std::mem::take(&mut self.untold);
        new.sort_unstable();
        for &number in &new {
            self.told[number as usize] = true;
        }
        self.shape.ranges(&self.told, &new)
    }

    /// What somebody new is told of.
    pub fn told(&self) -> Vec<HaveRange> {
        let told = (0..self.shape.runs).filter(|number| self.told[*number as usize]);
        self.shape.ranges(&self.told, &told.collect::<Vec<_>>())
    }
}
