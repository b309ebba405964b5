//! Which numbers of a job's chain of segments may have been used: reserved ahead, durably, so that none is ever used
//! twice, whatever ends the process.
//!
//! The file says less than happened and never more: a number is in the reserved range on the disk before a segment of
//! that number leaves this process. One that is killed leaves numbers that nobody used; the next run begins after them.

use super::{hex, unhex, write_durably};
use crypto_simd::blake3;
use sealift_proto::keys::JobId;
use sealift_proto::limits::SEGMENT_SEQUENCE_MAX;
use sealift_proto::manifest::{SegmentHash, SegmentSeq};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Numbers reserved at a time: at most so many are skipped when a sender is killed, and one write of the file is paid
/// for each so many. A chain has 2⁴³ such ranges.
const RESERVED_AHEAD: u64 = 1 << 20;
/// The first line of the file.
const TITLE: &str = "sealift chain 1";
/// The epoch of every job's keys.
const EPOCH: u32 = 1;

/// What is kept of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) job: JobId,
    /// Numbers below this may have been used.
    pub(super) reserved: u64,
    /// The newest segment that is known.
    pub(super) last: Option<(SegmentSeq, SegmentHash)>,
}

/// Why a chain cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChainError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is damaged")]
    Damaged,
    #[error("was written by a newer version of this program")]
    Newer,
}

impl Kept {
    pub(super) fn new(job: JobId) -> Self {
        Self { job, reserved: 0, last: None }
    }

    /// Reads a chain's file; `None` if there is none.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, ChainError> {
        match std::fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
            Ok(bytes) => Self::parse(&bytes).map(Some),
        }
    }

    /// Writes a chain's file anew.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        write_durably(file, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let last = match self.last {
            Some((sequence, hash)) => format!("{sequence} {}", hex(&hash.0)),
            None => "none".into(),
        };
        let said = format!(
            "{TITLE}\njob {}\nepoch {EPOCH}\nreserved {}\nlast {last}\n",
            hex(&self.job.0),
            self.reserved
        );
        let check = hex(&blake3::hash(said.as_bytes())[..8]);
        format!("{said}check {check}\n")
    }

    fn parse(bytes: &[u8]) -> Result<Self, ChainError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ChainError::Damaged)?;
        let kept = Self::fields(text);
        // Exactly as it would be written, check included.
        if let Some(kept) = kept.filter(|kept| kept.text() == text) {
            return Ok(kept);
        }
        let title = text.lines().next().unwrap_or_default();
        let newer =
            title != TITLE && title.strip_prefix("sealift chain ").is_some_and(|v| v.parse::<u32>().is_ok());
        Err(if newer { ChainError::Newer } else { ChainError::Damaged })
    }

    fn fields(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let job = JobId(unhex(field("job")?)?);
        let _ = field("epoch")?;
        let reserved = field("reserved")?.parse().ok()?;
        let last = match field("last")? {
            "none" => None,
            last => {
                let (sequence, hash) = last.split_once(' ')?;
                Some((SegmentSeq(sequence.parse().ok()?), SegmentHash(unhex(hash)?)))
            }
        };
        Some(Self { job, reserved, last })
    }
}

/// The chain of a job that this process works for.
#[derive(Debug)]
pub struct Chain {
    file: PathBuf,
    begins_at: (SegmentSeq, SegmentHash),
    use_of: Mutex<Use>,
    /// Held, not looked at.
    _lock: File,
}

#[derive(Debug)]
struct Use {
    kept: Kept,
    /// The newest segment of this run.
    newest: Option<(SegmentSeq, SegmentHash)>,
    closed: bool,
}

impl Chain {
    pub(super) fn new(file: PathBuf, kept: Kept, lock: File) -> Self {
        let previous = match kept.last {
            Some((sequence, hash)) if sequence.0.checked_add(1) == Some(kept.reserved) => hash,
            // One was killed: which of the reserved numbers it used, nobody knows.
            _ => SegmentHash::NONE,
        };
        Self {
            file,
            begins_at: (SegmentSeq(kept.reserved), previous),
            use_of: Mutex::new(Use { kept, newest: None, closed: false }),
            _lock: lock,
        }
    }

    /// The number of this run's first segment, and the hash of the segment before if that is known.
    #[must_use]
    pub fn begins_at(&self) -> (SegmentSeq, SegmentHash) {
        self.begins_at
    }

    /// Uses a number: called in order, for every segment, before it is shown to anybody. When this returns, no later
    /// run uses the number again.
    ///
    /// # Errors
    /// If that cannot be made sure, or the chain was closed. Then the segment must not be shown.
    pub fn take(&self, sequence: SegmentSeq, hash: SegmentHash) -> io::Result<()> {
        let mut using = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        if using.closed {
            return Err(io::Error::other("the chain was closed"));
        }
        if sequence.0 >= using.kept.reserved {
            let used_up = || io::Error::other("all numbers of the chain are used up");
            let reserved = sequence.0.checked_add(RESERVED_AHEAD);
            let reserved = reserved.filter(|&end| end <= SEGMENT_SEQUENCE_MAX).ok_or_else(used_up)?;
            let kept = Kept { reserved, last: using.newest.or(using.kept.last), ..using.kept };
            kept.write(&self.file)?;
            using.kept = kept;
        }
        using.newest = Some((sequence, hash));
        Ok(())
    }

    /// The end of this run: the next one goes on with the very next number. Nothing can be taken from now on.
    ///
    /// # Errors
    /// If it cannot be written. The next run then begins after all numbers that were reserved.
    pub fn close(&self) -> io::Result<()> {
        let mut using = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        using.closed = true;
        let Some((sequence, hash)) = using.newest else { return Ok(()) };
        let kept = Kept { reserved: sequence.0 + 1, last: Some((sequence, hash)), ..using.kept };
        kept.write(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::steps;
    use super::*;

    const JOB: JobId = JobId([9; 16]);

    fn hash(sequence: u64) -> SegmentHash {
        SegmentHash(blake3::hash(&sequence.to_le_bytes()))
    }

    fn open(dir: &Path) -> Chain {
        let file = dir.join("chain");
        let kept = Kept::read(&file).unwrap().unwrap_or(Kept::new(JOB));
        Chain::new(file, kept, tempfile::tempfile().unwrap())
    }

    /// Takes the next numbers and yields those that were used.
    fn take(chain: &Chain, from: u64, count: u64) -> Vec<u64> {
        (from..from + count).take_while(|&n| chain.take(SegmentSeq(n), hash(n)).is_ok()).collect()
    }

    #[test]
    fn a_clean_end_goes_on_with_the_next_number_and_names_the_last_segment() {
        let dir = tempfile::tempdir().unwrap();
        let chain = open(dir.path());
        assert_eq!(chain.begins_at(), (SegmentSeq(0), SegmentHash::NONE));
        assert_eq!(take(&chain, 0, 3), [0, 1, 2]);
        chain.close().unwrap();
        assert!(chain.take(SegmentSeq(3), hash(3)).is_err(), "it was closed");
        let chain = open(dir.path());
        assert_eq!(chain.begins_at(), (SegmentSeq(3), hash(2)));
        chain.close().unwrap();
        assert_eq!(open(dir.path()).begins_at(), (SegmentSeq(3), hash(2)), "nothing was used");
    }

    #[test]
    fn b10_after_a_kill_the_next_run_begins_after_all_that_was_reserved() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(&open(dir.path()), 0, 1), [0]);
        let chain = open(dir.path());
        assert_eq!(chain.begins_at(), (SegmentSeq(RESERVED_AHEAD), SegmentHash::NONE));
        chain.take(SegmentSeq(RESERVED_AHEAD), hash(7)).unwrap();
        chain.close().unwrap();
        assert_eq!(open(dir.path()).begins_at(), (SegmentSeq(RESERVED_AHEAD + 1), hash(7)));
    }

    #[test]
    fn b10_killed_between_any_two_steps_no_number_is_used_twice() {
        // A run: takes numbers over the edge of a reserved range, then ends. It is killed after `step` steps of
        // writing, on the way to which each file is what those steps made of it.
        for steps_to_live in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let mut used = Vec::new();
            for run in 0..3 {
                let chain = open(dir.path());
                let begin = chain.begins_at().0.0;
                let dying = steps::die_after(if run == 1 { steps_to_live } else { usize::MAX });
                for edge in [begin, begin + RESERVED_AHEAD - 2] {
                    used.extend(take(&chain, edge, 4));
                }
                let _ = chain.close();
                drop(dying);
            }
            let mut once = used.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once, used, "in order and each once, killed after {steps_to_live} steps");
        }
    }

    #[test]
    fn a_number_that_cannot_be_reserved_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let chain = open(dir.path());
        let dying = steps::die_after(0);
        assert!(chain.take(SegmentSeq(0), hash(0)).is_err());
        drop(dying);
        assert!(chain.take(SegmentSeq(0), hash(0)).is_ok(), "later it can");
        let kept = Kept { reserved: SEGMENT_SEQUENCE_MAX - 5, ..Kept::new(JOB) };
        let chain = Chain::new(dir.path().join("full"), kept, tempfile::tempfile().unwrap());
        assert!(chain.take(SegmentSeq(kept.reserved), hash(0)).is_err(), "the end of all numbers");
    }

    #[test]
    fn the_file_is_read_back_and_any_change_to_it_is_found() {
        for kept in [
            Kept::new(JOB),
            Kept { reserved: u64::MAX, last: Some((SegmentSeq(5), hash(5))), ..Kept::new(JOB) },
        ] {
            let text = kept.text();
            assert_eq!(Kept::parse(text.as_bytes()).unwrap(), kept);
            for at in 0..text.len() {
                assert!(Kept::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1;
                assert!(Kept::parse(&flipped).is_err(), "flipped at {at}");
            }
            let newer = text.replace("sealift chain 1", "sealift chain 2");
            assert!(matches!(Kept::parse(newer.as_bytes()), Err(ChainError::Newer)));
            assert!(matches!(Kept::parse(b""), Err(ChainError::Damaged)));
        }
    }
}
