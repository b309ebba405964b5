//! Files that are not yet what they will be: `.sealift/staging` beneath the root, on the root's file system.
//!
//! Owns that directory and the names in it. A name is removed when its owner goes, unless it was renamed into place or
//! is kept for a later run. Names are never used twice, so that one that was remembered cannot come to mean another file.
//! Also owns the memory of failed syncs, so that none is believed to be repaired by a later one that succeeds.

use crate::direct::{Direct, WriteTarget};
use crate::error::FileError;
use crate::faults::{Op, guard};
use crate::limits::{REPLACE_TRIES_MAX, STAGED_NAME_BYTES_MAX};
use crate::nameless::{NamelessFile, NamelessFiles};
use crate::publish::{Durability, Expected};
use crate::root::{ParentDir, openat2};
use crate::stat::{self, FileStat};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the space of a staged file is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// All of it at once, so that a full disk is known before any data is sent.
    Preallocated,
    /// As it is written; the file keeps its holes.
    Sparse,
}

#[derive(Debug)]
pub(crate) struct Staging {
    dir: OwnedFd,
    /// Locked for as long as anything here may still write.
    _lock: OwnedFd,
    /// What makes the names of this run differ from those of all others.
    run: u64,
    counter: AtomicU64,
    nameless: NamelessFiles,
    /// Whether names were made since the directory was last synced.
    names_unsynced: AtomicBool,
    /// Held while the file system is synced, so that a failure is counted before the next sync can succeed.
    syncing: Mutex<()>,
    sync_failures: AtomicU64,
    held: Mutex<Held>,
}

/// The large files that somebody holds, and what is to outlive this run.
#[derive(Debug, Default)]
struct Held {
    /// Failed syncs when each was begun, by the address of its shared [`File`].
    begun: HashMap<usize, u64>,
    names: HashSet<String>,
    kept: HashSet<String>,
}

impl Staging {
    pub(crate) fn new(dir: OwnedFd, lock: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            dir,
            _lock: lock,
            // Its keys are drawn from the operating system's randomness.
            run: RandomState::new().hash_one(std::process::id()),
            counter: AtomicU64::new(0),
            nameless: NamelessFiles::new(),
            names_unsynced: AtomicBool::new(false),
            syncing: Mutex::new(()),
            sync_failures: AtomicU64::new(0),
            held: Mutex::default(),
        })
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that nothing has ever had, for whoever creates it.
    pub(crate) fn fresh_name(self: &Arc<Self>, label: impl std::fmt::Display) -> StagedName {
        StagedName {
            staging: Arc::clone(self),
            name: self.fresh_text(label),
            made: Made::Nothing,
            kept: false,
        }
    }

    fn fresh_text(&self, label: impl std::fmt::Display) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{label}.{:016x}.{number}", self.run)
    }

    /// Whether a name was made by this run.
    pub(crate) fn is_of_this_run(&self, name: &str) -> bool {
        name.split('.').nth(1).is_some_and(|run| run == format!("{:016x}", self.run))
    }

    /// Whether a name of this run may be in use still: all are, but for files that were kept and then let go.
    pub(crate) fn is_in_use(&self, name: &str) -> bool {
        let held = self.held();
        self.is_of_this_run(name) && (held.names.contains(name) || !held.kept.contains(name))
    }

    pub(crate) fn is_kept(&self, name: &str) -> bool {
        self.held().kept.contains(name)
    }

    /// Syncs the whole file system. The kernel tells a failed write once to each descriptor: `dir` was opened
    /// before anything was written, so it hears of all of them (from Linux 5.8).
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        guard(Op::SyncAll, || rustix::fs::syncfs(&self.dir)).map_err(|error| {
            self.count_failed_sync();
            error.into()
        })
    }

    /// From now on nothing that was begun before is believed to be on the disk.
    pub(crate) fn count_failed_sync(&self) {
        self.sync_failures.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn sync_failures(&self) -> u64 {
        self.sync_failures.load(Ordering::SeqCst)
    }

    /// Syncs what was written to `file`, and believes it only if no sync failed since the file was begun.
    pub(crate) fn sync_data(&self, file: &Arc<File>) -> io::Result<()> {
        guard(Op::Sync, || file.sync_data()).inspect_err(|_| self.count_failed_sync())?;
        self.believe(file)
    }

    /// Whether no sync failed since the file was begun. One that nobody holds was begun before everything.
    pub(crate) fn believe(&self, file: &Arc<File>) -> io::Result<()> {
        let begun = self.held().begun.get(&address(file)).copied().unwrap_or(0);
        if begun == self.sync_failures() { Ok(()) } else { Err(Errno::IO.into()) }
    }

    /// Makes the names of the files that were begun durable.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        // Who finds nothing to do has waited for whoever is doing it.
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.names_unsynced.swap(false, Ordering::SeqCst) {
            guard(Op::Sync, || rustix::fs::fsync(&self.dir)).inspect_err(|_| {
                self.names_unsynced.store(true, Ordering::SeqCst);
                self.count_failed_sync();
            })?;
        }
        Ok(())
    }
}

fn address(file: &Arc<File>) -> usize {
    Arc::as_ptr(file).addr()
}

/// A name in the staging directory. What it names is removed when this goes, unless it was renamed away or is kept.
#[derive(Debug)]
pub(crate) struct StagedName {
    staging: Arc<Staging>,
    name: String,
    made: Made,
    kept: bool,
}

/// What there is of a [`StagedName`].
#[derive(Debug)]
enum Made {
    /// Nothing yet, or nothing any more.
    Nothing,
    /// What has the name.
    Named,
    /// A file that is to have it if it cannot get its last name at once.
    Nameless(NamelessFile),
}

impl StagedName {
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    pub(crate) fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }

    /// From now on there is something to remove.
    pub(crate) fn created(&mut self) {
        self.made = Made::Named;
    }

    fn keep(&mut self, kept: bool) {
        self.kept = kept;
        let kept_names = &mut self.staging.held().kept;
        if kept {
            kept_names.insert(self.name.clone());
        } else {
            kept_names.remove(&self.name);
        }
    }

    /// Renames it to `name` in `parent`, over what is expected there: with [`Expected::Anything`] a file, link or empty
    /// directory.
    pub(crate) fn put_in_place(
        &mut self,
        path: &SafePath,
        parent: &ParentDir,
        name: &[u8],
        expected: &Expected,
    ) -> Result<(), FileError> {
        let changed = || FileError::Changed { path: path.clone() };
        for _ in 0..REPLACE_TRIES_MAX {
            if let Expected::Version(version) = expected
                && !is_version(parent, name, version)
                    .map_err(|error| FileError::from_io(path, error.into()))?
            {
                return Err(changed());
            }
            match guard(Op::Rename, || self.rename(parent, name, expected)) {
                Ok(()) => {
                    self.made = Made::Nothing;
                    if self.kept {
                        self.keep(false);
                    }
                    return Ok(());
                }
                Err(Errno::EXIST | Errno::ISDIR) if *expected != Expected::Anything => return Err(changed()),
                Err(Errno::ISDIR) => {
                    match guard(Op::Unlink, || rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)) {
                        // ENOTDIR, ENOENT: it was replaced meanwhile.
                        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
                            return Err(FileError::DirectoryInTheWay { path: path.clone() });
                        }
                        Err(error) => return Err(FileError::from_io(path, error.into())),
                    }
                }
                // The parent was removed after it was opened.
                Err(Errno::NOENT) => return Err(FileError::NoParent { path: path.clone() }),
                Err(error) => return Err(FileError::from_io_in(path, error.into(), self.staging.dir())),
            }
        }
        Err(changed())
    }

    fn rename(&mut self, parent: &ParentDir, name: &[u8], expected: &Expected) -> rustix::io::Result<()> {
        let staging = self.staging.dir();
        if let Made::Nameless(file) = &self.made {
            match (file.link(parent, name), expected) {
                (Err(Errno::EXIST), Expected::Anything | Expected::Version(_)) => {
                    // Only a rename replaces.
                    file.link(staging, self.name.as_bytes())?;
                    self.made = Made::Named;
                }
                (result, _) => return result,
            }
        }
        if *expected != Expected::Missing {
            return rustix::fs::renameat(staging, &self.name, parent, name);
        }
        match rustix::fs::renameat_with(staging, &self.name, parent, name, RenameFlags::NOREPLACE) {
            // A file system that cannot: the last look is directly before the rename.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => rustix::fs::renameat(staging, &self.name, parent, name),
                    Ok(_) => Err(Errno::EXIST),
                    Err(error) => Err(error),
                }
            }
            result => result,
        }
    }
}

/// Whether that version of a regular file is there.
fn is_version(parent: &ParentDir, name: &[u8], version: &FileStat) -> rustix::io::Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            Ok(stat::kind(&stat) == FileType::RegularFile && FileStat::from_stat(&stat).same_version(version))
        }
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for StagedName {
    fn drop(&mut self) {
        if matches!(self.made, Made::Named) && !self.kept {
            let unlink = || rustix::fs::unlinkat(self.staging.dir(), &self.name, AtFlags::empty());
            let _ = guard(Op::Unlink, unlink);
        }
    }
}

/// A file that is being written. Removed when dropped, unless it is published or kept.
#[derive(Debug)]
pub struct StagedFile {
    /// `None` once it is written and closed; then only a sync of the whole file system covers it.
    file: Option<Arc<File>>,
    /// Known once it is closed.
    inode: Option<u64>,
    name: StagedName,
    /// Failed syncs when it was begun.
    sync_failures: u64,
    /// Its place in [`Held::begun`], if it is listed there.
    address: Option<usize>,
    /// Its way past the page cache.
    direct: Option<Arc<Direct>>,
}

impl StagedFile {
    /// Creates the file, 0600, with its full length.
    pub(crate) fn create(
        staging: &Arc<Staging>,
        id: FileId,
        path: &SafePath,
        size_bytes: u64,
        allocation: Allocation,
    ) -> Result<Self, FileError> {
        let failed = |source| FileError::from_io_in(path, source, staging.dir());
        let sync_failures = staging.sync_failures();
        let mut name = staging.fresh_name(id);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat2(staging.dir(), name.as_str().as_bytes(), flags, Mode::RUSR | Mode::WUSR);
        let file = guard(Op::Create, create).map_err(failed)?;
        name.created();
        guard(Op::Allocate, || allocate(&file, size_bytes, allocation)).map_err(failed)?;
        let file = Some(Arc::new(File::from(file)));
        Ok(Self { file, inode: None, name, sync_failures, address: None, direct: None })
    }

    /// Creates an empty file, 0600, that is to be small. One that is not going to be synced has no name, if that can be.
    pub(crate) fn create_small(
        staging: &Arc<Staging>,
        id: FileId,
        path: &SafePath,
        durability: Durability,
    ) -> Result<Self, FileError> {
        if durability == Durability::Unsynced {
            let sync_failures = staging.sync_failures();
            let nameless = staging
                .nameless
                .create(staging.dir(), || staging.fresh_text("nameless"))
                .map_err(|source| FileError::from_io_in(path, source, staging.dir()))?;
            if let Some(nameless) = nameless {
                let file = Some(Arc::clone(nameless.file()));
                let mut name = staging.fresh_name(id);
                name.made = Made::Nameless(nameless);
                return Ok(Self { file, inode: None, name, sync_failures, address: None, direct: None });
            }
        }
        Self::create(staging, id, path, 0, Allocation::Sparse)
    }

    /// Takes up a file that an earlier run kept; `None` if it is not there, is another one or of another size, or
    /// somebody holds it already.
    pub(crate) fn adopt(
        staging: &Arc<Staging>,
        name: &str,
        size_bytes: u64,
        inode: u64,
    ) -> io::Result<Option<Self>> {
        if !is_staged_name(name) {
            return Ok(None);
        }
        let sync_failures = staging.sync_failures();
        let Some(file) = guard(Op::Open, || open_kept(staging.dir(), name, size_bytes, inode))? else {
            return Ok(None);
        };
        {
            let mut held = staging.held();
            if !held.names.insert(name.into()) {
                return Ok(None);
            }
            held.kept.insert(name.into());
        }
        let name =
            StagedName { staging: Arc::clone(staging), name: name.into(), made: Made::Named, kept: true };
        let mut staged = Self {
            file: Some(Arc::new(file)),
            inode: None,
            name,
            sync_failures,
            address: None,
            direct: None,
        };
        staged.list();
        Ok(Some(staged))
    }

    /// Lists it among those that can be synced before they are published.
    pub(crate) fn list(&mut self) {
        let Some(file) = &self.file else { return };
        self.address = Some(address(file));
        let mut held = self.name.staging.held();
        held.begun.insert(address(file), self.sync_failures);
        held.names.insert(self.name.name.clone());
        drop(held);
        self.name.staging.names_unsynced.store(true, Ordering::SeqCst);
    }

    /// The open file, for reading and writing.
    ///
    /// # Panics
    /// Never on a file from [`crate::Replica::create_staged`] or [`crate::Replica::adopt_staged`].
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        self.file.as_ref().expect("open until it is ready")
    }

    /// From now on it is written past the page cache, if the file system is one that does that well.
    pub fn open_direct(&mut self) {
        let (dir, name) = (self.name.staging.dir(), self.name.as_str().as_bytes());
        self.direct = Direct::open(self.file(), |flags| openat2(dir, name, flags, Mode::empty()));
    }

    /// What is needed to write to it.
    ///
    /// # Panics
    /// As [`Self::file`].
    #[must_use]
    pub fn write_target(&self) -> WriteTarget {
        WriteTarget::new(self, self.direct.clone())
    }

    /// Its name among the staged files, for [`crate::Replica::adopt_staged`] in a later run.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// From now on it outlives this value and this run: somebody has written down its name.
    pub fn keep(&mut self) {
        self.name.keep(true);
    }

    /// From now on it goes with this value again.
    pub fn unkeep(&mut self) {
        self.name.keep(false);
    }

    /// Removes it, even if it is kept.
    pub fn discard(mut self) {
        self.name.keep(false);
    }

    pub(crate) fn open_file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// A descriptor of its own for reading, also after [`Self::close`], and also if the file's mode forbids it.
    pub(crate) fn reopen(&self) -> io::Result<OwnedFd> {
        if let Made::Nameless(file) = &self.name.made {
            return Ok(file.file().try_clone()?.into());
        }
        let (dir, name) = (self.name.staging().dir(), self.name.as_str());
        let open = || {
            openat2(dir, name.as_bytes(), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mode =
                    Mode::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
                rustix::fs::chmodat(dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
                let opened = open();
                rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
                opened
            }
            opened => opened,
        }
    }

    /// Gives up the descriptor, so that a batch of thousands of small files needs few. A file without a name keeps its own.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.direct = None;
        if let Made::Nameless(_) = self.name.made {
            return Ok(());
        }
        if let Some(file) = self.file.take() {
            self.inode = Some(FileStat::of(&file)?.inode);
        }
        Ok(())
    }

    /// Whether the file system failed to take some data since this file was begun.
    pub(crate) fn saw_failed_sync(&self) -> bool {
        self.sync_failures != self.name.staging().sync_failures()
    }

    /// See [`StagedName::put_in_place`]; then the file as it is now.
    pub(crate) fn put_in_place(
        mut self,
        path: &SafePath,
        parent: &ParentDir,
        name: &[u8],
        expected: &Expected,
    ) -> Result<FileStat, FileError> {
        self.name.put_in_place(path, parent, name, expected)?;
        let failed = |error: io::Error| FileError::from_io(path, error);
        if let Some(file) = &self.file {
            return FileStat::of(file).map_err(failed);
        }
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if Some(stat.st_ino) == self.inode => Ok(FileStat::from_stat(&stat)),
            Ok(_) | Err(Errno::NOENT) => Err(FileError::Changed { path: path.clone() }),
            Err(error) => Err(failed(error.into())),
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut held = self.name.staging.held();
            held.begun.remove(&address);
            held.names.remove(&self.name.name);
        }
    }
}

/// Whether `name` can be a name that [`Staging::fresh_name`] made.
fn is_staged_name(name: &str) -> bool {
    name.len() <= STAGED_NAME_BYTES_MAX
        && name.split('.').count() == 3
        && name.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Opens a file that an earlier run kept, if it is the one.
fn open_kept(dir: BorrowedFd<'_>, name: &str, size_bytes: u64, inode: u64) -> io::Result<Option<File>> {
    let is_it = |fd: &OwnedFd| -> io::Result<bool> {
        let stat = rustix::fs::fstat(fd)?;
        let found = FileStat::from_stat(&stat);
        Ok(stat::kind(&stat) == FileType::RegularFile
            && (found.inode, found.size_bytes, found.links) == (inode, size_bytes, 1))
    };
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(dir, name.as_bytes(), flags, Mode::empty()) {
            Ok(fd) if is_it(&fd)? => Ok(Some(fd)),
            Ok(_) => Ok(None),
            Err(error) => match Errno::from_io_error(&error) {
                // Missing, a link, a directory, a FIFO or device.
                Some(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Ok(None),
                _ => Err(error),
            },
        }
    };
    // So that a FIFO or a terminal holds nothing up.
    let to_write = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY;
    match open(to_write) {
        // It may have been given its mode already: through its inode, since a name could be a link's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Some(fd) = open(OFlags::PATH)? else { return Ok(None) };
            rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RUSR | Mode::WUSR)?;
            open(to_write)
        }
        opened => opened,
    }
    .map(|opened| opened.map(File::from))
}

fn allocate(file: &OwnedFd, size_bytes: u64, allocation: Allocation) -> io::Result<()> {
    if size_bytes == 0 {
        return Ok(());
    }
    if allocation == Allocation::Preallocated {
        // Asked first, since some file systems fill the whole disk before they find that it is too small.
        let room = rustix::fs::fstatvfs(file)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < size_bytes {
            return Err(Errno::NOSPC.into());
        }
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // The file system cannot: a full disk then shows when data is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(rustix::fs::ftruncate(file, size_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{Durability, Ready};
    use crate::replica::{Replica, ReplicaId};
    use crate::stat::Timestamp;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    const SIZE: u64 = 100_000;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn open(dir: &Path) -> Replica {
        Replica::open(dir, ReplicaId([7; 16])).unwrap()
    }

    fn in_staging(dir: &Path, name: &str) -> PathBuf {
        dir.join(".sealift/staging").join(name)
    }

    /// A file with a kept beginning, as an interrupted receiver leaves it: its name and inode.
    fn interrupted(dir: &Path) -> (String, u64) {
        let replica = open(dir);
        let mut staged =
            replica.create_staged(FileId(3), &path("x"), SIZE, Allocation::Preallocated).unwrap();
        staged.file().write_all_at(b"beginning", 0).unwrap();
        assert!(replica.sync_staged(&[Arc::clone(staged.file())])[0].is_ok());
        staged.keep();
        let inode = FileStat::of(staged.file()).unwrap().inode;
        let name = staged.name().to_owned();
        drop(staged);
        replica.close().unwrap();
        (name, inode)
    }

    #[test]
    fn a_kept_file_is_taken_up_by_the_next_receiver_and_published() {
        let dir = tempfile::tempdir().unwrap();
        let (name, inode) = interrupted(dir.path());
        let replica = open(dir.path());
        replica.clear_staging(&HashSet::from([name.clone()])).unwrap();
        let adopt = || replica.adopt_staged(&name, &path("x"), SIZE, inode).unwrap();
        let staged = adopt().expect("it is there");
        assert!(adopt().is_none(), "nobody else can have it");
        assert_eq!(staged.name(), name);
        drop(staged);
        let staged = adopt().expect("it is still kept");
        staged.file().write_all_at(b"end", SIZE - 3).unwrap();
        let ready = Ready::new(staged, path("x"), 0o640, Timestamp { seconds: 5, nanos: 6 });
        let stat = replica.publish(vec![ready], Durability::Synced).remove(0).unwrap();
        assert_eq!(stat.inode, inode);
        let content = fs::read(dir.path().join("x")).unwrap();
        assert!(content.starts_with(b"beginning") && content.ends_with(b"end"));
        assert!(adopt().is_none());
        replica.close().unwrap();
        assert!(!dir.path().join(".sealift/staging").exists());
    }

    #[test]
    fn b11_what_an_index_says_of_staged_files_is_checked() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, vec![1; usize::try_from(SIZE).unwrap()]).unwrap();
        let before = fs::metadata(&victim).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (name, inode) = interrupted(dir.path());
        let replica = open(dir.path());
        let adopt = |name: &str, size, inode| replica.adopt_staged(name, &path("x"), size, inode).unwrap();
        let at = |name: &str| in_staging(dir.path(), name);
        assert!(adopt(&name, SIZE + 1, inode).is_none());
        assert!(adopt(&name, SIZE, inode + 1).is_none());
        assert!(adopt("3.00.9", SIZE, inode).is_none(), "missing");
        let up = format!("../../../{}/victim", outside.path().file_name().unwrap().display());
        let long = format!("3.{}.0", "0".repeat(STAGED_NAME_BYTES_MAX));
        for hostile in [
            "",
            ".",
            "..",
            "...",
            "/",
            "a.b",
            "a.b.",
            "a.b.c.d",
            "a.b.c/",
            "a.b.c\0",
            "a.b.\u{e9}",
            "../id",
            "../staging/3.00.0",
            victim.to_str().unwrap(),
            &up,
            &long,
        ] {
            assert!(!is_staged_name(hostile), "{hostile:?}");
            assert!(adopt(hostile, SIZE, before.ino()).is_none());
        }
        symlink(&victim, at("1.00.1")).unwrap();
        fs::create_dir(at("1.00.2")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("1.00.3"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::hard_link(&victim, at("1.00.4")).unwrap();
        for other in ["1.00.1", "1.00.2", "1.00.3", "1.00.4"] {
            for stat in [fs::metadata(&victim).unwrap(), fs::symlink_metadata(at(other)).unwrap()] {
                assert!(adopt(other, stat.len(), stat.ino()).is_none(), "{other}");
            }
        }
        fs::remove_file(at("1.00.4")).unwrap();
        let after = fs::metadata(&victim).unwrap();
        assert_eq!((after.mode(), after.mtime(), after.len()), (before.mode(), before.mtime(), before.len()));
        assert!(adopt(&name, SIZE, inode).is_some(), "after all this");
    }

    #[test]
    fn a_kept_file_that_has_its_mode_already_is_taken_up_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (name, inode) = interrupted(dir.path());
        let mode = fs::Permissions::from_mode(0o4040);
        fs::set_permissions(in_staging(dir.path(), &name), mode).unwrap();
        let staged = open(dir.path()).adopt_staged(&name, &path("x"), SIZE, inode).unwrap().unwrap();
        staged.file().write_all_at(b"more", 0).unwrap();
    }

    #[test]
    fn kept_files_stay_and_others_go() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path());
        let stage = || replica.create_staged(FileId(1), &path("x"), 10, Allocation::Sparse).unwrap();
        let exists = |name: &str| in_staging(dir.path(), name).exists();
        let (mut kept, mut unkept, mut discarded, plain) = (stage(), stage(), stage(), stage());
        let names = [&kept, &unkept, &discarded, &plain].map(|staged| staged.name().to_owned());
        for staged in [&mut kept, &mut unkept, &mut discarded] {
            staged.keep();
        }
        unkept.unkeep();
        discarded.discard();
        drop((kept, unkept, plain));
        assert_eq!(names.each_ref().map(|name| exists(name)), [true, false, false, false]);
        let held = stage();
        replica.close().unwrap();
        assert!(exists(&names[0]) && !exists(held.name()));
    }

    #[test]
    fn names_are_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let replica = open(dir.path());
            for _ in 0..2 {
                let staged =
                    replica.create_staged(FileId(u64::MAX), &path("x"), 0, Allocation::Sparse).unwrap();
                assert!(is_staged_name(staged.name()), "{}", staged.name());
                assert!(seen.insert(staged.name().to_owned()));
            }
        }
    }

    #[test]
    fn b2_a_checkpoint_is_not_believed_after_a_failed_sync() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path());
        let stage = || replica.create_staged(FileId(1), &path("x"), 10, Allocation::Sparse).unwrap();
        let file = |staged: &StagedFile| Arc::clone(staged.file());
        for many in [1, 100] {
            let before: Vec<_> = (0..many).map(|_| stage()).collect();
            let files: Vec<_> = before.iter().map(file).collect();
            assert!(replica.sync_staged(&files).iter().all(Result::is_ok));
            replica.staging().count_failed_sync();
            assert!(replica.sync_staged(&files).iter().all(Result::is_err));
            assert!(replica.sync_staged(&files).iter().all(Result::is_err), "nor ever after");
            let after: Vec<_> = (0..many).map(|_| stage()).collect();
            let files: Vec<_> = after.iter().map(file).collect();
            assert!(replica.sync_staged(&files).iter().all(Result::is_ok));
            drop(after);
            assert!(replica.sync_staged(&files).iter().all(Result::is_err), "files that nobody answers for");
        }
        // What was known before the failure is on the disk: from there it goes on.
        let mut staged = stage();
        staged.keep();
        let (name, inode) = (staged.name().to_owned(), FileStat::of(staged.file()).unwrap().inode);
        replica.staging().count_failed_sync();
        assert!(replica.sync_staged(&[file(&staged)])[0].is_err());
        drop(staged);
        let staged = replica.adopt_staged(&name, &path("x"), 10, inode).unwrap().unwrap();
        assert!(replica.sync_staged(&[file(&staged)])[0].is_ok());
    }
}
