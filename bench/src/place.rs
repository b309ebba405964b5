//! The work directory: data sets that are kept, and copies that are not.

use crate::failure::{Failure, OrFailure as _, Outcome, failure};
use crate::units::show_bytes;
use rustix::fs::{FlockOperation, flock, statvfs, syncfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// An open work directory, which no other run uses meanwhile.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    handle: File,
}

impl Place {
    /// Opens it, and removes copies that an interrupted run has left.
    pub fn open(dir: Option<&Path>) -> Outcome<Self> {
        let dir = dir.map_or_else(|| std::env::temp_dir().join("sealift-bench"), Path::to_owned);
        let dir = std::path::absolute(&dir).or_failure(|| format!("cannot use {}", dir.display()))?;
        let cannot = || format!("cannot use {}", dir.display());
        if dir.as_os_str().as_encoded_bytes().iter().any(|byte| b"'\"\\\n ".contains(byte)) {
            // rsync and ssh split command lines by rules of their own.
            return failure(format!("{}: it has spaces or quotes in its name", cannot()));
        }
        fs::create_dir_all(&dir).or_failure(cannot)?;
        let handle = File::open(&dir).or_failure(cannot)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Failure(format!("{}: another run uses it", cannot())))?;
        let place = Self { dir, handle };
        place.clear_runs()?;
        fs::create_dir_all(place.data()).or_failure(|| format!("cannot use {}", place.dir.display()))?;
        Ok(place)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where data sets are.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A directory for one run, without anything in it.
    pub fn new_run(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.dir.join("runs").join(name);
        fs::create_dir_all(&path).or_failure(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Removes all runs.
    pub fn clear_runs(&self) -> Outcome<()> {
        remove(&self.dir.join("runs"))
    }

    /// Waits until all is written back, so that no run pays for what was before it.
    pub fn settle(&self) -> Outcome<()> {
        syncfs(&self.handle).or_failure(|| format!("cannot sync {}", self.dir.display()))
    }

    /// That there is room for so many bytes.
    pub fn check_room(&self, bytes: u64, hint: &str) -> Outcome<()> {
        let system = statvfs(&self.dir).or_failure(|| format!("cannot ask about {}", self.dir.display()))?;
        let free = system.f_bavail * system.f_frsize;
        if bytes <= free {
            return Ok(());
        }
        let (needed, free) = (show_bytes(bytes as f64), show_bytes(free as f64));
        failure(format!("{needed} are needed in {} and {free} are free; {hint}", self.dir.display()))
    }
}

/// Removes a directory with all that is in it, if it is there.
pub fn remove(path: &Path) -> Outcome<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            failure(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_for_one_run_at_a_time_and_clears_what_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(Some(dir.path())).unwrap();
        assert!(Place::open(Some(dir.path())).unwrap_err().0.contains("another run"));
        let run = place.new_run("1").unwrap();
        place.settle().unwrap();
        assert!(place.check_room(u64::MAX, "take less").unwrap_err().0.ends_with("take less"));
        drop(place);
        Place::open(Some(dir.path())).unwrap();
        assert!(!run.exists());
    }
}
