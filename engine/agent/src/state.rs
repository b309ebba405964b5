//! The state directory: what a host keeps between runs. Keys and chains of jobs, hashes of sources, indexes of replicas.
//!
//! Owns the layout, the modes (0700 and 0600), and that a file here is replaced whole and durably or not at all. Never
//! shows what is secret.
//!
//! ```text
//! jobs/NAME/seed               the job's read-write seed, 32 bytes
//! jobs/NAME/chain              which numbers of its chain may have been used, and the last segment
//! jobs/NAME/data-key           what a sealed job's content is sealed under, 32 bytes
//! jobs/NAME/envelope           the same, wrapped to those who may read
//! jobs/NAME/lock               locked (flock) while a sender works for the job
//! sources/HEX/hashes.redb      hashes of a source's files, by the source's paths and the hash
//! replicas/HEX/index.redb      what is in a replica, by the replica's identity
//! replicas/paths/HEX           the identity of the replica that was last at a path
//! ```

mod chain;
mod job;

use crate::error::RunError;
use crypto_simd::blake3;
use data_encoding::HEXLOWER;
use sealift_proto::digest::HashAlgorithm;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use steps::step;

pub use chain::Chain;
pub(crate) use job::new_seed;
pub use job::{Job, JobName, JobNameError};

/// The bytes that name a replica: [`sealift_store::Replica`]'s identity.
pub type ReplicaIdBytes = [u8; 16];

/// Where this host keeps what must survive a run. Nothing is made before it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The directory that was named on the command line; else that of `SEALIFT_STATE_DIR`; else the usual place for
    /// this user's state. Only chosen here, and neither looked at nor made.
    ///
    /// # Errors
    /// A usage error if no place is known.
    pub fn open(explicit: Option<PathBuf>) -> Result<Self, RunError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::choose(explicit, variable, rustix::process::geteuid().is_root())
    }

    fn choose(
        explicit: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString>,
        is_root: bool,
    ) -> Result<Self, RunError> {
        // The specification of base directories has it that a path which is not absolute counts for nothing.
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let path = explicit
            .or_else(|| variable("SEALIFT_STATE_DIR").map(PathBuf::from))
            .or_else(|| absolute("XDG_STATE_HOME").map(|state| state.join("sealift")))
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state/sealift")))
            .or_else(|| is_root.then(|| "/var/lib/sealift".into()))
            .ok_or_else(|| {
                let what = "there is no place to keep state in, since HOME is not set: name a directory with \
                    --state-dir DIR or in SEALIFT_STATE_DIR";
                RunError::Usage(what.into())
            })?;
        Ok(Self { path })
    }

    /// Whether a directory of the user's holds this one. What is not there, or nowhere, holds nothing.
    #[must_use]
    pub fn is_within(&self, paths: &[PathBuf]) -> bool {
        let Ok(here) = canonical(&self.path) else { return false };
        paths.iter().any(|path| canonical(path).is_ok_and(|path| here.starts_with(path)))
    }

    /// The directory itself, which need not exist.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a job up: its keys, made now if there are none, and its chain. Until the value is dropped no other
    /// process can.
    ///
    /// # Errors
    /// If another sender has it, or what is kept of it is missing or damaged.
    pub fn job(&self, name: &JobName) -> Result<Job, RunError> {
        let dir = self.path.join("jobs").join(name.as_str());
        make_directory(&dir).map_err(|error| self.unusable(&error))?;
        Job::open(&dir, name)
    }

    /// A file of a job that was taken up.
    pub(crate) fn job_file(&self, name: &JobName, file: &str) -> PathBuf {
        self.path.join("jobs").join(name.as_str()).join(file)
    }

    /// Puts the seed of a job in place that was made elsewhere. The same one may be put again.
    ///
    /// # Errors
    /// If a sender works for the job, it has another seed, or it cannot be kept.
    pub(crate) fn put_job_seed(&self, name: &JobName, seed: &[u8; 32]) -> Result<(), RunError> {
        let dir = self.path.join("jobs").join(name.as_str());
        make_directory(&dir).map_err(|error| self.unusable(&error))?;
        Job::put_seed(&dir, name, seed)
    }

    /// Where the hashes of a source's files are kept: for each set of paths, each hash and each way of sealing one file, whose
    /// directory is made here. The paths are the user's own; links on the way to them are followed.
    ///
    /// # Errors
    /// If a path leads nowhere, or the directory cannot be made.
    pub fn source_hashes(
        &self,
        paths: &[PathBuf],
        algorithm: HashAlgorithm,
        variant: &[u8],
    ) -> io::Result<PathBuf> {
        let mut canonical = paths.iter().map(|path| canonical(path)).collect::<io::Result<Vec<_>>>()?;
        canonical.sort();
        canonical.dedup();
        let mut named = vec![algorithm.code()];
        for path in canonical {
            // No path has a NUL byte, so that no two sets are written alike.
            named.extend_from_slice(path.as_os_str().as_bytes());
            named.push(0);
        }
        named.extend_from_slice(variant);
        let dir = self.path.join("sources").join(hex(&blake3::hash(&named)[..16]));
        make_directory(&dir)?;
        Ok(dir.join("hashes.redb"))
    }

    /// Where the index of a replica is kept. Its directory is made here.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn replica_index(&self, id: &ReplicaIdBytes) -> io::Result<PathBuf> {
        let dir = self.path.join("replicas").join(hex(id));
        make_directory(&dir)?;
        Ok(dir.join("index.redb"))
    }

    /// The replica that was last at this path, which need not be there now; `None` if none ever was.
    ///
    /// # Errors
    /// If what was kept cannot be read, or is no identity.
    pub fn replica_at(&self, path: &Path) -> io::Result<Option<ReplicaIdBytes>> {
        let text = match std::fs::read(self.replica_path_file(path)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let id = std::str::from_utf8(&text).ok().and_then(|text| unhex(text.trim_end()));
        id.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a replica's identity"))
    }

    /// Remembers which replica is at a path. Durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remember_replica(&self, path: &Path, id: &ReplicaIdBytes) -> io::Result<()> {
        let file = self.replica_path_file(path)?;
        make_directory(file.parent().expect("a file is in a directory"))?;
        write_durably(&file, format!("{}\n", hex(id)).as_bytes())
    }

    fn replica_path_file(&self, path: &Path) -> io::Result<PathBuf> {
        let named = hex(&blake3::hash(canonical(path)?.as_os_str().as_bytes()));
        Ok(self.path.join("replicas/paths").join(named))
    }

    fn unusable(&self, error: &io::Error) -> RunError {
        RunError::Failed(format!(
            "cannot keep state in {}: {error} (another place can be named with --state-dir)",
            self.path.display()
        ))
    }
}

/// The path with its links and dots resolved. What does not exist yet keeps its name beneath what does.
// The paths are those that the user typed, not a peer's.
#[allow(clippy::disallowed_methods)]
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(error), Some(above), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            Ok(canonical(above)?.join(name))
        }
        (resolved, ..) => resolved,
    }
}

/// Makes a directory and those above it that are missing, each for its owner alone and durably.
pub(crate) fn make_directory(dir: &Path) -> io::Result<()> {
    let create = || DirBuilder::new().mode(0o700).create(dir);
    let made = match (create(), dir.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(above)?;
            create()
        }
        (made, _) => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => {
            made?;
            sync_above(dir)
        }
    }
}

/// Replaces a file whole: whatever happens, it has the old content or the new, and when this returns the new. No other
/// process may write the same file at the same time.
pub fn write_durably(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut staged = file.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    // What a killed process left, or one whose disk was full.
    step()?;
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    step()?;
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    step()?;
    out.write_all(content)?;
    step()?;
    out.sync_all()?;
    step()?;
    std::fs::rename(&staged, file)?;
    step()?;
    sync_above(file)
}

/// Makes a file that is not there yet, for its owner alone. What could not be written whole is removed.
pub fn create_durably(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let written = out.write_all(content).and_then(|()| out.sync_all()).and_then(|()| sync_above(file));
    if written.is_err() {
        let _ = std::fs::remove_file(file);
    }
    written
}

/// Makes a new or renamed name durable.
fn sync_above(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Lower-case digits, two a byte, and nothing else.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Steps of writing, at each of which a test can have this process die.
mod steps {
    #[cfg(not(test))]
    #[allow(clippy::unnecessary_wraps)]
    pub(super) fn step() -> std::io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) use dying::{die_after, step};

    #[cfg(test)]
    mod dying {
        use std::cell::Cell;
        use std::io;

        thread_local! {
            static STEPS_TO_LIVE: Cell<usize> = const { Cell::new(usize::MAX) };
        }

        /// From now on this thread's process counts as dead after so many steps, until the value is dropped.
        pub(in super::super) fn die_after(steps: usize) -> Dying {
            STEPS_TO_LIVE.set(steps);
            Dying
        }

        pub(in super::super) struct Dying;

        impl Drop for Dying {
            fn drop(&mut self) {
                STEPS_TO_LIVE.set(usize::MAX);
            }
        }

        pub(in super::super) fn step() -> io::Result<()> {
            let left = STEPS_TO_LIVE.get().checked_sub(1).ok_or_else(|| io::Error::other("dead"))?;
            STEPS_TO_LIVE.set(left);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn choose(explicit: Option<&str>, variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        StateDir::choose(explicit.map(PathBuf::from), variable, is_root).ok().map(|state| state.path)
    }

    #[test]
    fn the_place_is_the_nearest_that_was_named() {
        let all = [("SEALIFT_STATE_DIR", "s"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(choose(Some("d"), &all, true), Some("d".into()));
        assert_eq!(choose(None, &all, true), Some("s".into()));
        assert_eq!(choose(None, &all[1..], true), Some("/x/sealift".into()));
        assert_eq!(choose(None, &all[2..], true), Some("/h/.local/state/sealift".into()));
        assert_eq!(choose(None, &[("XDG_STATE_HOME", "relative")], true), Some("/var/lib/sealift".into()));
        assert_eq!(choose(None, &[], false), None);
        let error = StateDir::choose(None, |_| None, false).unwrap_err();
        assert!(error.code() == 2 && error.to_string().contains("--state-dir"), "{error}");
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir { path: dir.path().join("a/state") };
        state.remember_replica(dir.path(), &[7; 16]).unwrap();
        for (path, mode) in [("a", 0o700), ("a/state/replicas", 0o700), ("a/state/replicas/paths", 0o700)] {
            let found = std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{path}");
        }
        let files: Vec<_> = std::fs::read_dir(state.path.join("replicas/paths")).unwrap().collect();
        assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
        let mode = files[0].as_ref().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn b14_a_path_remembers_its_replica_even_while_nothing_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir { path: dir.path().join("state") };
        let dest = dir.path().join("dest");
        assert_eq!(state.replica_at(&dest).unwrap(), None);
        state.remember_replica(&dest, &[7; 16]).unwrap();
        state.remember_replica(&dest, &[8; 16]).unwrap();
        std::fs::create_dir(&dest).unwrap();
        assert_eq!(state.replica_at(&dest).unwrap(), Some([8; 16]));
        std::os::unix::fs::symlink("dest", dir.path().join("link")).unwrap();
        assert_eq!(state.replica_at(&dir.path().join("link/../dest/.")).unwrap(), Some([8; 16]));
        assert_eq!(state.replica_at(dir.path()).unwrap(), None);
        let file = state.replica_path_file(&dest).unwrap();
        std::fs::write(file, "no identity").unwrap();
        assert_eq!(state.replica_at(&dest).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn hashes_are_kept_for_each_set_of_paths_and_each_hash() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir { path: dir.path().join("state") };
        let of = |names: &[&str], algorithm| {
            let paths: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
            state.source_hashes(&paths, algorithm, &[]).unwrap()
        };
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let first = of(&["a", "b"], HashAlgorithm::Sha256);
        assert!(first.parent().unwrap().is_dir() && !first.exists());
        assert_eq!(first, of(&["b/", "./a"], HashAlgorithm::Sha256));
        assert_ne!(first, of(&["a", "b"], HashAlgorithm::Blake3));
        assert_ne!(first, of(&["a"], HashAlgorithm::Sha256));
    }

    #[test]
    fn what_a_killed_writer_left_does_not_hinder_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write_durably(&file, b"old").unwrap();
        std::fs::write(dir.path().join("file.new"), "ne").unwrap();
        write_durably(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(!dir.path().join("file.new").exists());
    }

    #[test]
    fn hexadecimal_is_read_back_and_nothing_else() {
        assert_eq!(unhex::<3>(&hex(&[0, 171, 255])), Some([0, 171, 255]));
        for text in ["", "00abf", "00abfff", "00ABFF", "+0abff", "00 bff"] {
            assert_eq!(unhex::<3>(text), None, "{text}");
        }
    }
}
