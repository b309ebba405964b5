//! A job of this host: its name, its keys, and who works for it.

use super::chain::{Chain, Kept};
use super::write_durably;
use crate::error::RunError;
use sealift_proto::keys::{KEY_BYTES, RwSeed};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Characters in a job's name.
const JOB_NAME_CHARS_MAX: usize = 64;

/// What a user calls a job: a name that is a file's name everywhere, and no option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

/// The text is no job's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a job's name is 1 to {JOB_NAME_CHARS_MAX} of the characters A-Z a-z 0-9 . _ - and begins with neither . nor -"
)]
pub struct JobNameError;

impl FromStr for JobName {
    type Err = JobNameError;

    fn from_str(text: &str) -> Result<Self, JobNameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let right = (1..=JOB_NAME_CHARS_MAX).contains(&text.len())
            && text.bytes().all(fits)
            && !text.starts_with(['.', '-']);
        right.then(|| Self(text.to_owned())).ok_or(JobNameError)
    }
}

impl JobName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for JobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A job that this process works for, and no other.
#[derive(Debug)]
pub struct Job {
    /// Its keys.
    pub seed: RwSeed,
    /// Its chain. Holds the job's lock.
    pub chain: Chain,
}

impl Job {
    /// Takes a job up in its directory, which exists.
    pub(super) fn open(dir: &Path, name: &JobName) -> Result<Self, RunError> {
        let failed = |what: &str| failed(dir, name, what);
        let lock = lock(dir, name)?;
        let seed_file = dir.join("seed");
        let chain_file = dir.join("chain");
        let seed =
            read_seed(&seed_file).map_err(|error| failed(&format!("its seed cannot be read: {error}")))?;
        let kept = Kept::read(&chain_file).map_err(|error| failed(&format!("its chain {error}")))?;
        let (seed, kept) = match (seed, kept) {
            (Some(seed), Some(kept)) if kept.job == seed.verify_key().job_id() => (seed, kept),
            (Some(_), Some(_)) => return Err(failed("its seed and its chain do not belong together")),
            // Numbers that were used might be used again, and receivers would take that for a forgery.
            (Some(_), None) => return Err(failed("its chain is missing: restore it, or begin another job")),
            (None, Some(kept)) if kept.reserved > 0 => {
                return Err(failed("its seed is missing: restore it, or begin another job"));
            }
            // New, or stopped before its ticket was told. The chain comes first: a seed without one has lost it.
            (None, _) => {
                let (bytes, seed) = new_seed().map_err(|error| failed(&error.to_string()))?;
                let kept = Kept::new(seed.verify_key().job_id());
                kept.write(&chain_file)
                    .and_then(|()| write_durably(&seed_file, bytes.as_ref()))
                    .map_err(|error| failed(&format!("its keys cannot be kept: {error}")))?;
                (seed, kept)
            }
        };
        Ok(Self { seed, chain: Chain::new(chain_file, kept, lock) })
    }

    /// Keeps a given seed in the job's directory, which exists, beside a chain of its own.
    pub(super) fn put_seed(dir: &Path, name: &JobName, bytes: &[u8; KEY_BYTES]) -> Result<(), RunError> {
        let failed = |what: &str| failed(dir, name, what);
        let _lock = lock(dir, name)?;
        let job = RwSeed::new(bytes).verify_key().job_id();
        let (seed_file, chain_file) = (dir.join("seed"), dir.join("chain"));
        let seed =
            read_seed(&seed_file).map_err(|error| failed(&format!("its seed cannot be read: {error}")))?;
        let kept = Kept::read(&chain_file).map_err(|error| failed(&format!("its chain {error}")))?;
        if seed.as_ref().is_some_and(|seed| seed.verify_key().job_id() != job)
            || kept.as_ref().is_some_and(|kept| kept.job != job)
        {
            return Err(failed("it has other keys already"));
        }
        if seed.is_some() {
            return Ok(());
        }
        // The chain comes first: a seed without one has lost it.
        let chain = match kept {
            Some(_) => Ok(()),
            None => Kept::new(job).write(&chain_file),
        };
        chain
            .and_then(|()| write_durably(&seed_file, bytes))
            .map_err(|error| failed(&format!("its keys cannot be kept: {error}")))
    }
}

fn failed(dir: &Path, name: &JobName, what: &str) -> RunError {
    RunError::Failed(format!("job {name} in {}: {what}", dir.display()))
}

/// The lock that a sender holds while it works for the job.
fn lock(dir: &Path, name: &JobName) -> Result<File, RunError> {
    take_lock(&dir.join("lock")).map_err(|error| match error {
        TryLockError::WouldBlock => RunError::Failed(format!(
            "another sender works for job {name}: stop that one, or give this one another --job"
        )),
        TryLockError::Error(error) => failed(dir, name, &format!("its lock cannot be taken: {error}")),
    })
}

/// A seed from the system's randomness, and its bytes.
pub(crate) fn new_seed() -> io::Result<(Zeroizing<[u8; KEY_BYTES]>, RwSeed)> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    let seed = RwSeed::new(&bytes);
    Ok((bytes, seed))
}

fn read_seed(file: &Path) -> io::Result<Option<RwSeed>> {
    let mut file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    if file.metadata()?.len() != KEY_BYTES as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes long"));
    }
    file.read_exact(bytes.as_mut())?;
    Ok(Some(RwSeed::new(&bytes)))
}

fn take_lock(file: &Path) -> Result<File, TryLockError> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
    let lock = lock.map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::super::{StateDir, steps};
    use super::*;
    use sealift_proto::manifest::{SegmentHash, SegmentSeq};
    use std::os::unix::fs::PermissionsExt as _;

    fn name(text: &str) -> JobName {
        text.parse().unwrap()
    }

    fn state(dir: &tempfile::TempDir) -> StateDir {
        StateDir::open(Some(dir.path().join("state"))).unwrap()
    }

    fn verify_key(job: &Job) -> [u8; 32] {
        *job.seed.verify_key().as_bytes()
    }

    #[test]
    fn names_are_plain() {
        let long = "x".repeat(64);
        for good in ["a", "A.b_c-9", "0", "_", &long] {
            assert_eq!(good.parse::<JobName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "x".repeat(65);
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "ä", "a\0", &too_long] {
            assert_eq!(bad.parse::<JobName>(), Err(JobNameError), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_made_once_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let first = state(&dir).job(&name("a")).unwrap();
        let key = verify_key(&first);
        drop(first);
        assert_eq!(verify_key(&state(&dir).job(&name("a")).unwrap()), key);
        assert_ne!(verify_key(&state(&dir).job(&name("b")).unwrap()), key);
        for file in ["seed", "chain", "lock"] {
            let path = dir.path().join("state/jobs/a").join(file);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{file}");
        }
        assert_eq!(std::fs::read(dir.path().join("state/jobs/a/seed")).unwrap().len(), 32);
    }

    #[test]
    fn a_given_seed_is_put_in_place_once_and_replaces_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let expected = *RwSeed::new(&[7; 32]).verify_key().as_bytes();
        for _ in 0..2 {
            state(&dir).put_job_seed(&name("a"), &[7; 32]).unwrap();
            assert_eq!(verify_key(&state(&dir).job(&name("a")).unwrap()), expected);
        }
        // Lost, and given again: the chain is gone on with.
        state(&dir).job(&name("a")).unwrap().chain.take(SegmentSeq(0), SegmentHash::NONE).unwrap();
        std::fs::remove_file(dir.path().join("state/jobs/a/seed")).unwrap();
        state(&dir).put_job_seed(&name("a"), &[7; 32]).unwrap();
        assert_eq!(verify_key(&state(&dir).job(&name("a")).unwrap()), expected);
        let error = state(&dir).put_job_seed(&name("a"), &[8; 32]).unwrap_err();
        assert!(error.to_string().contains("other keys"), "{error}");
    }

    #[test]
    fn one_sender_works_for_a_job() {
        let dir = tempfile::tempdir().unwrap();
        let first = state(&dir).job(&name("a")).unwrap();
        let error = state(&dir).job(&name("a")).unwrap_err();
        assert!(error.to_string().contains("another sender works for job a"), "{error}");
        let _other = state(&dir).job(&name("b")).unwrap();
        drop(first);
        state(&dir).job(&name("a")).unwrap();
    }

    #[test]
    fn b10_killed_while_keys_are_made_the_next_run_has_some() {
        for steps_to_live in 0..12 {
            let dir = tempfile::tempdir().unwrap();
            let dying = steps::die_after(steps_to_live);
            let made = state(&dir).job(&name("a"));
            drop(dying);
            let told = made.ok().map(|job| verify_key(&job));
            let key = verify_key(&state(&dir).job(&name("a")).unwrap());
            assert!(told.is_none_or(|told| told == key), "the keys of a ticket that may have been told");
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_told_and_not_made_anew() {
        let broken = |break_it: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let job = state(&dir).job(&name("a")).unwrap();
            job.chain.take(SegmentSeq(0), SegmentHash::NONE).unwrap();
            drop(job);
            break_it(&dir.path().join("state/jobs/a"));
            state(&dir).job(&name("a")).unwrap_err().to_string()
        };
        let remove = |name: &'static str| move |dir: &Path| std::fs::remove_file(dir.join(name)).unwrap();
        let write = |name: &'static str, with: &'static [u8]| {
            move |dir: &Path| std::fs::write(dir.join(name), with).unwrap()
        };
        assert!(broken(&remove("chain")).contains("its chain is missing"));
        assert!(broken(&remove("seed")).contains("its seed is missing"));
        assert!(broken(&write("chain", b"x")).contains("its chain is damaged"));
        assert!(broken(&write("seed", b"short")).contains("its seed cannot be read"));
        assert!(broken(&write("seed", &[7; 32])).contains("do not belong together"));
    }
}
