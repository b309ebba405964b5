//! Putting finished files in their places: metadata, sync, rename, sync of the directories; a batch at a time.
//!
//! The order is the promise (hazard B9): a file is renamed only once its content is known to be on the disk, so that
//! after a power cut its name leads to the old file or to the new one, whole. Never believes a sync that follows a
//! failed one (hazard B2): the kernel reports a lost write once and then forgets it. Files that failed are dropped
//! from staging and must be written anew.

use crate::attributes::Attributed;
use crate::error::FileError;
use crate::faults::{Op, guard};
use crate::limits::{SYNC_EACH_DIRECTORIES_MAX, SYNC_EACH_FILES_MAX};
use crate::metadata;
use crate::replica::Replica;
use crate::root::ParentDir;
use crate::staging::StagedFile;
use crate::stat::{FileStat, Timestamp};
use rustix::io::Errno;
use sealift_proto::path::SafePath;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Whether a batch is on the disk when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Contents, names and directories are synced.
    Synced,
    /// Left to the kernel. A power cut may leave files empty or torn.
    Unsynced,
}

/// What has to be at a file's place for it to be put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there, be it nothing.
    Anything,
    /// Nothing.
    Missing,
    /// A regular file, in this version of it.
    Version(FileStat),
}

/// A file whose content is complete and verified, on its way to its place.
#[derive(Debug)]
pub struct Ready {
    staged: StagedFile,
    path: SafePath,
    /// `None` once applied.
    metadata: Option<(u32, Timestamp)>,
    /// With it.
    attributes: Option<Attributed>,
    expected: Expected,
}

impl Ready {
    /// A staged file, where it belongs, and the permission bits and mtime it is to have there.
    #[must_use]
    pub fn new(staged: StagedFile, path: SafePath, mode: u32, mtime: Timestamp) -> Self {
        Self { staged, path, metadata: Some((mode, mtime)), attributes: None, expected: Expected::Anything }
    }

    /// A staged file that has its metadata already.
    pub(crate) fn complete(staged: StagedFile, path: SafePath) -> Self {
        Self { staged, path, metadata: None, attributes: None, expected: Expected::Anything }
    }

    /// With owner, extended attributes and access control lists.
    #[must_use]
    pub fn with_attributes(mut self, attributes: Option<Attributed>) -> Self {
        self.attributes = attributes;
        self
    }

    /// Replaces only what is expected: looked at directly before the rename. Without this, [`Expected::Anything`].
    #[must_use]
    pub fn expect(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// Removes the staged file, even if it is kept.
    pub fn discard(self) {
        self.staged.discard();
    }

    /// Where it belongs.
    #[must_use]
    pub fn path(&self) -> &SafePath {
        &self.path
    }

    /// Opens the staged content for reading, as the disk has it: it is synced, and what the page cache holds of it is
    /// dropped first, as far as the kernel will.
    ///
    /// # Errors
    /// If it cannot be opened, or the disk did not take it.
    pub fn open_from_disk(&self) -> io::Result<File> {
        let file = File::from(self.staged.reopen()?);
        guard(Op::Sync, || file.sync_data())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(file)
    }

    fn apply_metadata(&mut self) -> Result<(), FileError> {
        if let (Some((mode, mtime)), Some(file)) = (self.metadata, self.staged.open_file()) {
            let applied = match &self.attributes {
                Some(attributes) => attributes.apply(file, mode),
                None => Ok(mode),
            };
            applied
                .and_then(|mode| metadata::apply(file, mode, mtime))
                .map_err(|error| FileError::from_io(&self.path, error))?;
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
    /// Publishes a batch, blocking. Each file is renamed over the file, link or empty directory at its path, if that
    /// is what [`Ready::expect`] asked for. Result `i` is that of `batch[i]`: the file as it is at its place. One that
    /// fails leaves the others alone, and its staged content is removed unless it is kept ([`StagedFile::keep`]) and
    /// the disk has it. Give the files ordered by path, so that each directory is looked up once.
    ///
    /// # Errors
    /// For each file: [`FileError::NotSynced`], [`FileError::DirectoryInTheWay`], [`FileError::NoParent`],
    /// [`FileError::Changed`] if something else than expected is there, or what the file system says. `NotSynced` may
    /// also mean that the file is in its place and its directory's sync failed: it is then not to be called done
    /// either.
    #[must_use]
    pub fn publish(&self, batch: Vec<Ready>, durability: Durability) -> Vec<Result<FileStat, FileError>> {
        let mut batch = batch;
        let mut prepared: Vec<Result<(), FileError>> = Vec::with_capacity(batch.len());
        for ready in &mut batch {
            prepared.push(ready.apply_metadata());
        }
        if durability == Durability::Synced {
            self.sync_contents(&batch, &mut prepared);
        }
        let mut parents = self.root().parents();
        let mut touched = Touched::Few(BTreeMap::new());
        let mut paths = Vec::with_capacity(batch.len());
        let mut results = Vec::with_capacity(batch.len());
        for (index, (ready, prepared)) in batch.into_iter().zip(prepared).enumerate() {
            let Ready { staged, path, expected, .. } = ready;
            let result = match prepared {
                Ok(()) => parents.of(&path).map_err(|error| FileError::from_parent(&path, error)).and_then(
                    |(parent, name)| {
                        let stat = staged.put_in_place(&path, &parent, name, &expected)?;
                        touched.add(&path, parent, index);
                        Ok(stat)
                    },
                ),
                Err(error) => {
                    if matches!(error, FileError::NotSynced { .. }) {
                        staged.discard();
                    }
                    Err(error)
                }
            };
            if matches!(result, Err(FileError::NoParent { .. })) {
                // The directory may have been replaced: do not fail its other files for that.
                parents.forget();
            }
            results.push(result);
            paths.push(path);
        }
        if durability == Durability::Synced {
            self.sync_directories(touched, &paths, &mut results);
        }
        results
    }

    /// Makes what was written to files that are being staged durable, blocking: so that it can be written down that it
    /// is there. One by one, or with one sync of the file system if they are many. Result `i` is that of `files[i]`,
    /// each the [`StagedFile::file`] of a file from [`Replica::create_staged`] or [`Replica::adopt_staged`].
    ///
    /// # Errors
    /// For each file: if the disk did not take it; and if any sync failed since the file was begun, whatever later ones
    /// say. Such a file is to be dropped; if it was kept, it may be adopted again, with what is known of it from before.
    #[must_use]
    pub fn sync_staged(&self, files: &[Arc<File>]) -> Vec<io::Result<()>> {
        let staging = self.staging();
        let whole = files.len() > SYNC_EACH_FILES_MAX;
        let common = if whole { staging.sync_file_system() } else { staging.sync_names() };
        if let Err(error) = common {
            return files.iter().map(|_| Err(again(&error))).collect();
        }
        let mut results: Vec<_> = files
            .iter()
            .map(|file| if whole { staging.believe(file) } else { staging.sync_data(file) })
            .collect();
        // One that failed after others had been synced speaks of those too.
        for (file, result) in files.iter().zip(&mut results) {
            if result.is_ok() {
                *result = staging.believe(file);
            }
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
            let own = ready.staged.open_file().map_or(Ok(()), |file| guard(Op::Sync, || file.sync_all()));
            let failed = match (&synced, own) {
                (Err(error), _) => Some(again(error)),
                (Ok(()), Err(error)) => Some(error),
                // Another sync was told of a failed write that may have been this one's.
                (Ok(()), Ok(())) if ready.staged.saw_failed_sync() => Some(Errno::IO.into()),
                (Ok(()), Ok(())) => None,
            };
            if let Some(source) = failed {
                *result = Err(not_synced(&ready.path, source));
            }
        }
    }

    fn sync_directories(
        &self,
        touched: Touched,
        paths: &[SafePath],
        results: &mut [Result<FileStat, FileError>],
    ) {
        let mut fail = |index: usize, error: &io::Error| {
            if results[index].is_ok() {
                results[index] = Err(not_synced(&paths[index], again(error)));
            }
        };
        match touched {
            Touched::Few(directories) => {
                for (parent, files) in directories.into_values() {
                    if let Err(error) = guard(Op::Sync, || rustix::fs::fsync(&parent)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplicaId;
    use crate::staging::Allocation;
    use sealift_proto::block::FileId;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};
    use std::path::Path;

    const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 };

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn ready(replica: &Replica, name: &str, content: &str) -> Ready {
        let size = content.len() as u64;
        let staged = replica.create_staged(FileId(1), &path(name), size, Allocation::Preallocated).unwrap();
        staged.file().write_all_at(content.as_bytes(), 0).unwrap();
        Ready::new(staged, path(name), 0o4751, TIME)
    }

    fn staged_names(dir: &Path) -> usize {
        fs::read_dir(dir.join(".sealift/staging")).unwrap().count()
    }

    #[test]
    fn publishing_replaces_files_links_and_empty_directories() {
        for durability in [Durability::Synced, Durability::Unsynced] {
            let outside = tempfile::tempdir().unwrap();
            fs::write(outside.path().join("kept"), "outside").unwrap();
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("old"), "old content").unwrap();
            symlink(outside.path().join("kept"), dir.path().join("link")).unwrap();
            fs::create_dir(dir.path().join("empty")).unwrap();
            let mut reader = fs::File::open(dir.path().join("old")).unwrap();
            let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
            let names = ["empty", "link", "new", "old"];
            let batch = names.map(|name| ready(&replica, name, name)).into();
            let results = replica.publish(batch, durability);
            for (name, result) in names.into_iter().zip(results) {
                let stat = fs::symlink_metadata(dir.path().join(name)).unwrap();
                let told = result.unwrap();
                assert_eq!(
                    (told.inode, told.size_bytes, told.mode, told.mtime, told.ctime, told.links),
                    (
                        stat.ino(),
                        stat.len(),
                        0o4751,
                        TIME,
                        Timestamp { seconds: stat.ctime(), nanos: stat.ctime_nsec().try_into().unwrap() },
                        1
                    )
                );
                assert!(stat.is_file());
                assert_eq!(stat.mode() & 0o7777, 0o4751);
                assert_eq!((stat.mtime(), stat.mtime_nsec()), (TIME.seconds, TIME.nanos.into()));
                assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), name);
            }
            assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "outside");
            let mut old = String::new();
            std::io::Read::read_to_string(&mut reader, &mut old).unwrap();
            assert_eq!(old, "old content", "who had the old file open still reads it");
            assert_eq!(staged_names(dir.path()), 0);
        }
    }

    #[test]
    fn a_file_that_fails_leaves_the_others_and_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("full/of")).unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let names = ["full", "good", "missing/x", "plain/x", "z"];
        let batch = names.map(|name| ready(&replica, name, name)).into();
        let results = replica.publish(batch, Durability::Synced);
        assert!(matches!(results[0], Err(FileError::DirectoryInTheWay { .. })));
        assert!(results[1].is_ok() && results[4].is_ok());
        assert!(matches!(results[2], Err(FileError::NoParent { .. })));
        assert!(matches!(results[3], Err(FileError::NoParent { .. })), "{:?}", results[3]);
        assert!(dir.path().join("full/of").is_dir());
        assert_eq!(staged_names(dir.path()), 0);
    }

    #[test]
    fn a_batch_over_many_directories_is_published_and_synced() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let mut batch = Vec::new();
        for i in 0..SYNC_EACH_DIRECTORIES_MAX + 2 {
            replica.make_directory(&path(&format!("d{i}"))).unwrap();
            batch.push(ready(&replica, &format!("d{i}/f"), "x"));
        }
        for result in replica.publish(batch, Durability::Synced) {
            result.unwrap();
        }
        assert!((0..SYNC_EACH_DIRECTORIES_MAX + 2).all(|i| dir.path().join(format!("d{i}/f")).is_file()));
    }

    #[test]
    fn b13_only_what_is_expected_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let stat = |name: &str| FileStat::of(&fs::File::open(dir.path().join(name)).unwrap()).unwrap();
        let content = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for name in ["same", "edited", "replaced", "there"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("there", dir.path().join("link")).unwrap();
        let [same, edited, replaced] = ["same", "edited", "replaced"].map(stat);
        let edit = fs::OpenOptions::new().write(true).open(dir.path().join("edited")).unwrap();
        edit.write_all_at(b"edi", 0).unwrap();
        edit.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        fs::rename(dir.path().join("replaced"), dir.path().join("moved")).unwrap();
        fs::write(dir.path().join("replaced"), "local").unwrap();
        let cases = [
            ("dir", Expected::Missing, "", false),
            ("dir", Expected::Version(same), "", false),
            ("edited", Expected::Version(edited), "edi", false),
            ("gone", Expected::Version(same), "", false),
            ("link", Expected::Missing, "old", false),
            ("link", Expected::Version(same), "old", false),
            ("new", Expected::Missing, "new", true),
            ("replaced", Expected::Version(replaced), "local", false),
            ("there", Expected::Missing, "old", false),
            ("same", Expected::Version(same), "new", true),
        ];
        let batch = cases.map(|(name, expected, ..)| ready(&replica, name, "new").expect(expected)).into();
        let results = replica.publish(batch, Durability::Synced);
        for ((name, expected, text, is_ok), result) in cases.into_iter().zip(results) {
            assert_eq!(result.is_ok(), is_ok, "{name} {expected:?}");
            assert!(is_ok || matches!(result, Err(FileError::Changed { .. })), "{name}: {result:?}");
            if !text.is_empty() {
                assert_eq!(content(name), text, "{name} {expected:?}");
            }
        }
        assert!(dir.path().join("dir").is_dir() && !dir.path().join("gone").exists());
        assert_eq!(staged_names(dir.path()), 0);
    }

    #[test]
    fn a_kept_file_that_cannot_be_placed_stays_unless_the_disk_did_not_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let kept = |name| {
            let mut ready = ready(&replica, name, "x");
            ready.staged.keep();
            ready
        };
        let results = replica.publish(vec![kept("missing/x")], Durability::Synced);
        assert!(matches!(results[0], Err(FileError::NoParent { .. })));
        assert_eq!(staged_names(dir.path()), 1);
        let keep = std::fs::read_dir(dir.path().join(".sealift/staging")).unwrap();
        let keep = keep.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        replica.clear_staging(&keep).unwrap();
        assert_eq!(staged_names(dir.path()), 1);
        let ready = kept("y");
        replica.staging().count_failed_sync();
        let results = replica.publish(vec![ready], Durability::Synced);
        assert!(matches!(results[0], Err(FileError::NotSynced { .. })));
        assert_eq!(staged_names(dir.path()), 1);
    }

    #[test]
    fn b2_after_a_failed_sync_what_was_begun_before_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let many = |prefix: &str| -> Vec<_> {
            (0..=SYNC_EACH_FILES_MAX).map(|i| ready(&replica, &format!("{prefix}{i}"), "x")).collect()
        };
        let before = many("before");
        replica.staging().count_failed_sync();
        let after = many("after");
        for result in replica.publish(before, Durability::Synced) {
            assert!(matches!(result, Err(FileError::NotSynced { .. })));
        }
        assert!(!dir.path().join("before0").exists());
        assert!(replica.publish(after, Durability::Synced).iter().all(Result::is_ok));
        assert_eq!(staged_names(dir.path()), 0);
    }

    #[test]
    fn a_staged_file_goes_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let ready = ready(&replica, "x", "content");
        assert_eq!(staged_names(dir.path()), 1);
        drop(ready);
        assert_eq!(staged_names(dir.path()), 0);
    }

    #[test]
    fn b4_a_disk_that_is_too_small_is_known_before_any_data() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let size = replica.free_bytes().unwrap() + (1 << 40);
        let error = replica.create_staged(FileId(1), &path("x"), size, Allocation::Preallocated).unwrap_err();
        assert!(matches!(error, FileError::NoSpace { .. }), "{error}");
        assert_eq!(staged_names(dir.path()), 0);
    }

    #[test]
    fn space_is_taken_or_left_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let blocks = |allocation| {
            let staged = replica.create_staged(FileId(1), &path("x"), 1 << 20, allocation).unwrap();
            let stat = staged.file().metadata().unwrap();
            assert_eq!(stat.len(), 1 << 20);
            assert_eq!(stat.mode() & 0o7777, 0o600);
            stat.blocks()
        };
        assert!(blocks(Allocation::Sparse) < blocks(Allocation::Preallocated));
    }
}
