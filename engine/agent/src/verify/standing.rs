//! Whose word a replica's manifest is, and whether it is the newest: decided by what this host remembers outside of the
//! replica, or by a ticket.
//!
//! The index knows how far the chain of each job was *heard*; a file beside it says which manifest was *put* into the
//! replica last. The two differ after a receive that did not end: then the manifest is older than what was heard, and
//! right all the same. One that is older than what was put there was brought back by somebody (hazard A12, at rest).

use crate::error::RunError;
use crate::report::{Event, Reporter};
use data_encoding::HEXLOWER;
use sealift_proto::keys::{JobId, VerifyKey};
use sealift_proto::manifest::{Mark, SegmentHash, SegmentSeq};
use sealift_store::JobRow;
use std::io;
use std::path::{Path, PathBuf};

/// Which manifest was put into a replica last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutLast {
    /// Its job.
    pub job: JobId,
    /// Its newest segment.
    pub mark: Mark,
}

impl PutLast {
    fn file(index: &Path) -> PathBuf {
        index.with_file_name("manifest")
    }

    /// Reads what was noted beside an index, if it was and can be read.
    pub fn read(index: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(Self::file(index)).ok()?;
        let mut words = text.split_ascii_whitespace();
        let job = JobId(unhex(words.next()?)?);
        let epoch = words.next()?.parse().ok()?;
        let sequence = SegmentSeq(words.next()?.parse().ok()?);
        let hash = SegmentHash(unhex(words.next()?)?);
        words.next().is_none().then_some(Self { job, mark: Mark { epoch, sequence, hash } })
    }

    /// Notes it beside an index. Durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, index: &Path) -> io::Result<()> {
        if Self::read(index) == Some(*self) {
            return Ok(());
        }
        let Mark { epoch, sequence, hash } = self.mark;
        let (job, hash) = (HEXLOWER.encode(&self.job.0), HEXLOWER.encode(&hash.0));
        crate::state::write_durably(
            &Self::file(index),
            format!("{job} {epoch} {sequence} {hash}\n").as_bytes(),
        )
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// What this host knows of a replica's jobs.
#[derive(Clone, Default)]
pub struct Standing {
    /// The jobs of its index; `None` if there is no index.
    pub jobs: Option<Vec<(JobId, JobRow)>>,
    /// The manifest that was put there last.
    pub put_last: Option<PutLast>,
    /// The job that the manifest must be of, by a ticket.
    pub ticket: Option<VerifyKey>,
}

/// Why a manifest's key is believed, and from where on.
pub struct Accepted {
    /// What the manifest must not be older than.
    pub before: Option<Mark>,
    /// What else is to be looked at when it was read.
    pub what: Claims,
}

/// What was heard of a manifest's job, and which one was put here last.
#[derive(Clone, Copy)]
pub struct Claims {
    heard: Option<Mark>,
    put_last: Option<PutLast>,
    job: JobId,
}

impl Standing {
    /// Whether a manifest with this key is to be believed.
    ///
    /// # Errors
    /// If it is another job's than it should be.
    pub fn accepted(&self, key: &VerifyKey) -> Result<Accepted, RunError> {
        let row = self.row(key);
        match (&self.ticket, &self.jobs) {
            (Some(ticket), _) if ticket != key => {
                return Err(RunError::Failed(
                    "the manifest here is not of the ticket's job: it is signed with another key. (Each send without \
                     --job makes a new one)"
                        .into(),
                ));
            }
            (None, Some(_)) if row.is_none() => {
                return Err(RunError::Failed(
                    "the manifest here is of a job that this host has never received from: somebody else put it there, or \
                     its key is damaged. A ticket of that job can vouch for it (--ticket)"
                        .into(),
                ));
            }
            _ => {}
        }
        let job = key.job_id();
        let heard = row.and_then(|row| row.mark);
        let of_job = self.put_last.filter(|last| last.job == job).map(|last| last.mark);
        // What was put here last is no older than what was put here last; without that note, than all that was heard.
        let before = of_job.or(if self.put_last.is_none() { heard } else { None });
        Ok(Accepted { before, what: Claims { heard, put_last: self.put_last, job } })
    }

    /// Whether anything but the manifest itself says that its key is right.
    pub fn vouches_for(&self, key: &VerifyKey) -> bool {
        self.ticket.as_ref() == Some(key) || self.row(key).is_some()
    }

    /// Tells if nothing does.
    pub fn warn(&self, key: &VerifyKey, reporter: &Reporter) {
        if !self.vouches_for(key) {
            let message = "nothing vouches for the manifest but itself: this host has no index of this replica, and no \
                --ticket was given. Damage is found; a replica that somebody made up as a whole is not"
                .to_owned();
            reporter.tell(&Event::Warning { message });
        }
    }

    /// What the index knows of the job with this key.
    pub fn row(&self, key: &VerifyKey) -> Option<&JobRow> {
        let job = key.job_id();
        let mut rows = self.jobs.iter().flatten();
        rows.find(|(id, row)| *id == job && row.verify_key == *key.as_bytes()).map(|(_, row)| row)
    }
}

impl Claims {
    /// Compares a manifest that was read to its end with what was heard and put here.
    ///
    /// # Errors
    /// If it is older than the one that was put here last.
    pub fn check(&self, newest: &Mark) -> Result<(), RunError> {
        match self.put_last {
            // A receive may have ended between putting its manifest here and noting that: then it was heard.
            Some(last) if last.job != self.job && self.heard != Some(*newest) => {
                Err(RunError::Failed(self.rolled_back()))
            }
            _ => Ok(()),
        }
    }

    /// What is said of a manifest that is older than it may be.
    pub fn rolled_back(&self) -> String {
        let newest = match (self.put_last, self.heard) {
            (Some(last), _) if last.job != self.job => "another job's manifest was put here last".to_owned(),
            (Some(PutLast { mark, .. }), _) => {
                format!("the one put here last was up to segment {}", mark.sequence)
            }
            (None, Some(mark)) => format!("segment {} was heard of before", mark.sequence),
            (None, None) => "a newer one was here".to_owned(),
        };
        format!(
            "rolled back: the manifest in .sealift is older than it was ({newest}). Somebody put an old state back; a \
             receive from the source makes it new again"
        )
    }

    /// Whether more was heard of the job than the manifest says.
    pub fn heard_since(&self, newest: &Mark) -> bool {
        let order = |mark: &Mark| (mark.epoch, mark.sequence);
        self.heard.as_ref().is_some_and(|heard| order(heard) > order(newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_proto::keys::RwSeed;

    fn mark(sequence: u64) -> Mark {
        Mark {
            epoch: 0,
            sequence: SegmentSeq(sequence),
            hash: SegmentHash([u8::try_from(sequence).unwrap(); 32]),
        }
    }

    fn key(seed: u8) -> VerifyKey {
        RwSeed::new(&[seed; 32]).verify_key()
    }

    fn row(seed: u8, heard: Option<Mark>) -> (JobId, JobRow) {
        (key(seed).job_id(), JobRow { number: seed.into(), verify_key: *key(seed).as_bytes(), mark: heard })
    }

    /// Whether a manifest of job 1 up to segment `newest` is believed.
    fn is_believed(standing: &Standing, newest: u64) -> bool {
        let Ok(Accepted { before, what }) = standing.accepted(&key(1)) else { return false };
        before.is_none_or(|before| before.sequence.0 <= newest) && what.check(&mark(newest)).is_ok()
    }

    #[test]
    fn a_key_must_be_known_or_on_the_ticket() {
        let known = Standing { jobs: Some(vec![row(1, None)]), ..Standing::default() };
        assert!(known.accepted(&key(1)).is_ok() && known.vouches_for(&key(1)));
        assert!(known.accepted(&key(2)).is_err());
        let by_ticket = Standing { ticket: Some(key(2)), ..known };
        assert!(by_ticket.accepted(&key(2)).is_ok() && by_ticket.vouches_for(&key(2)));
        assert!(by_ticket.accepted(&key(1)).is_err(), "the ticket is what the user said");
        let nobody = Standing::default();
        assert!(nobody.accepted(&key(1)).is_ok() && !nobody.vouches_for(&key(1)));
        let nobody = Standing { jobs: Some(Vec::new()), ..Standing::default() };
        assert!(nobody.accepted(&key(1)).is_err());
    }

    #[test]
    fn a_manifest_is_no_older_than_the_one_put_here_last() {
        let job = key(1).job_id();
        let standing = |heard: Option<u64>, put_last: Option<(JobId, u64)>| Standing {
            jobs: Some(vec![row(1, heard.map(mark)), row(2, Some(mark(9)))]),
            put_last: put_last.map(|(job, sequence)| PutLast { job, mark: mark(sequence) }),
            ticket: None,
        };
        assert!(is_believed(&standing(Some(5), Some((job, 5))), 5));
        assert!(!is_believed(&standing(Some(5), Some((job, 5))), 4));
        // A receive was interrupted.
        assert!(is_believed(&standing(Some(9), Some((job, 5))), 5));
        // One ended before it could note that.
        assert!(is_believed(&standing(Some(9), Some((job, 5))), 9));
        assert!(is_believed(&standing(Some(7), Some((key(2).job_id(), 9))), 7));
        // Another job's manifest was put here last, and this one back.
        assert!(!is_believed(&standing(Some(7), Some((key(2).job_id(), 9))), 6));
        // Without the note, what was heard is all there is.
        assert!(!is_believed(&standing(Some(9), None), 5));
        assert!(is_believed(&standing(None, None), 5));
    }

    #[test]
    fn what_was_put_last_is_read_back_or_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.redb");
        assert_eq!(PutLast::read(&index), None);
        let last = PutLast { job: JobId([7; 16]), mark: mark(300_000 % 251) };
        last.write(&index).unwrap();
        assert_eq!(PutLast::read(&index), Some(last));
        let file = PutLast::file(&index);
        let text = std::fs::read_to_string(&file).unwrap();
        for bad in ["", "x", &text[1..], &format!("{text} more")] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(PutLast::read(&index), None, "{bad}");
        }
    }
}
