//! Putting finished files in their places: metadata, sync, rename, sync of the directories; a batch at a time.
//!
//! The order is the promise (hazard B9): a file is renamed only once its content is known to be on the disk, so that
//! after a power cut its name leads to the old file or to the new one, whole. Never believes a sync that follows a
//! failed one (hazard B2): the kernel reports a lost write once and then forgets it. Files that failed are dropped
//! from staging and must be written anew.

use crate::error::FileError;
use crate::limits::{SYNC_EACH_DIRECTORIES_MAX, SYNC_EACH_FILES_MAX};
use crate::metadata;
use crate::replica::Replica;
use crate::root::ParentDir;
use crate::staging::StagedFile;
use crate::stat::Timestamp;
use rustix::io::Errno;
use sealift_proto::path::SafePath;
use std::collections::BTreeMap;
use std::io;

/// Whether a batch is on the disk when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Contents, names and directories are synced.
    Synced,
    /// Left to the kernel. A power cut may leave files empty or torn.
    Unsynced,
}

/// A file whose content is complete and verified, on its way to its place.
#[derive(Debug)]
pub struct Ready {
    staged: StagedFile,
    path: SafePath,
    /// `None` once applied.
    metadata: Option<(u32, Timestamp)>,
}

impl Ready {
    /// A staged file, where it belongs, and the permission bits and mtime it is to have there.
    #[must_use]
    pub fn new(staged: StagedFile, path: SafePath, mode: u32, mtime: Timestamp) -> Self {
        Self { staged, path, metadata: Some((mode, mtime)) }
    }

    /// A staged file that has its metadata already.
    pub(crate) fn complete(staged: StagedFile, path: SafePath) -> Self {
        Self { staged, path, metadata: None }
    }

    /// Where it belongs.
    #[must_use]
    pub fn path(&self) -> &SafePath {
        &self.path
    }

    fn apply_metadata(&mut self) -> Result<(), FileError> {
        if let (Some((mode, mtime)), Some(file)) = (self.metadata, self.staged.open_file()) {
            metadata::apply(file, mode, mtime).map_err(|error| FileError::from_io(&self.path, error))?;
        }
        self.metadata = None;
        Ok(())
    }
}

/// The directories that a batch renamed files into, with the files' places in the batch.
enum Touched {
    Few(BTreeMap<Option<SafePath>, (ParentDir, Vec<usize>)>),
    Many,
}

impl Touched {
    fn add(&mut self, path: &SafePath, parent: ParentDir, index: usize) {
        if let Self::Few(directories) = self {
            directories.entry(path.parent()).or_insert_with(|| (parent, Vec::new())).1.push(index);
            if directories.len() > SYNC_EACH_DIRECTORIES_MAX {
                *self = Self::Many;
            }
        }
    }
}

impl Replica {
    /// Publishes a batch, blocking. Each file is renamed over the file, link or empty directory at its path. Result
    /// `i` is that of `batch[i]`; a file that fails leaves the others alone, and its staged content is removed. Give
    /// the files ordered by path, so that each directory is looked up once.
    ///
    /// # Errors
    /// For each file: [`FileError::NotSynced`], [`FileError::DirectoryInTheWay`], [`FileError::NoParent`], or what
    /// the file system says. `NotSynced` may also mean that the file is in its place and its directory's sync failed:
    /// it is then not to be called done either.
    #[must_use]
    pub fn publish(&self, batch: Vec<Ready>, durability: Durability) -> Vec<Result<(), FileError>> {
        let mut results: Vec<Result<(), FileError>> = Vec::with_capacity(batch.len());
        let mut batch = batch;
        for ready in &mut batch {
            results.push(ready.apply_metadata());
        }
        if durability == Durability::Synced {
            self.sync_contents(&batch, &mut results);
        }
        let (staged, paths): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|ready| (ready.staged, ready.path)).unzip();
        let mut parents = self.root().parents();
        let mut touched = Touched::Few(BTreeMap::new());
        for (index, (staged, path)) in staged.into_iter().zip(&paths).enumerate() {
            if results[index].is_err() {
                continue;
            }
            results[index] = parents.of(path).map_err(|error| FileError::from_parent(path, error)).and_then(
                |(parent, name)| {
                    staged.into_name().put_in_place(path, &parent, name)?;
                    touched.add(path, parent, index);
                    Ok(())
                },
            );
            if matches!(results[index], Err(FileError::NoParent { .. })) {
                // The directory may have been replaced: do not fail its other files for that.
                parents.forget();
            }
        }
        if durability == Durability::Synced {
            self.sync_directories(touched, &paths, &mut results);
        }
        results
    }

    /// Syncs the contents of those files of the batch that have not failed.
    fn sync_contents(&self, batch: &[Ready], results: &mut [Result<(), FileError>]) {
        let some_closed = batch.iter().any(|ready| ready.staged.open_file().is_none());
        let whole = some_closed || batch.len() > SYNC_EACH_FILES_MAX;
        let synced = if whole { self.staging().sync_file_system() } else { Ok(()) };
        for (ready, result) in batch.iter().zip(results) {
            if result.is_err() {
                continue;
            }
            // After a sync of the file system this costs little, and tells the errors of this very file.
            let own = ready.staged.open_file().map_or(Ok(()), |file| file.sync_all());
            let failed = match (&synced, own) {
                (Err(error), _) => Some(again(error)),
                (Ok(()), Err(error)) => Some(error),
                // Another batch's sync was told of a failed write that may have been this one's.
                (Ok(()), Ok(())) if whole && ready.staged.saw_failed_sync() => Some(Errno::IO.into()),
                (Ok(()), Ok(())) => None,
            };
            if let Some(source) = failed {
                *result = Err(not_synced(&ready.path, source));
            }
        }
    }

    fn sync_directories(&self, touched: Touched, paths: &[SafePath], results: &mut [Result<(), FileError>]) {
        let mut fail = |index: usize, error: &io::Error| {
            if results[index].is_ok() {
                results[index] = Err(not_synced(&paths[index], again(error)));
            }
        };
        match touched {
            Touched::Few(directories) => {
                for (parent, files) in directories.into_values() {
                    if let Err(error) = rustix::fs::fsync(&parent) {
                        files.into_iter().for_each(|index| fail(index, &error.into()));
                    }
                }
            }
            Touched::Many => {
                if let Err(error) = self.staging().sync_file_system() {
                    (0..paths.len()).for_each(|index| fail(index, &error));
                }
            }
        }
    }
}

/// As [`FileError::from_io`] where the disk is full or the like, and otherwise a lost write.
fn not_synced(path: &SafePath, source: io::Error) -> FileError {
    match FileError::from_io(path, source) {
        FileError::Io { path, source } => FileError::NotSynced { path, source },
        error => error,
    }
}

/// The same error for one more file.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
