//! Files that are not yet what they will be: `.sealift/staging` beneath the root, on the root's file system.
//!
//! Owns that directory and the names in it; a name is removed when its owner goes, unless it was renamed into place.
//! Also owns the memory of failed syncs, so that none is believed to be repaired by a later one that succeeds.

use crate::error::FileError;
use crate::limits::REPLACE_TRIES_MAX;
use crate::root::{ParentDir, openat2};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    counter: AtomicU64,
    /// Held while the file system is synced, so that a failure is counted before the next sync can succeed.
    syncing: Mutex<()>,
    sync_failures: AtomicU64,
}

impl Staging {
    pub(crate) fn new(dir: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            dir,
            counter: AtomicU64::new(0),
            syncing: Mutex::new(()),
            sync_failures: AtomicU64::new(0),
        })
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A name that nothing has, for whoever creates it.
    pub(crate) fn fresh_name(self: &Arc<Self>, label: impl std::fmt::Display) -> StagedName {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        StagedName { staging: Arc::clone(self), name: format!("{label}.{number}"), exists: false }
    }

    /// Syncs the whole file system. The kernel tells a failed write once to each descriptor: `dir` was opened
    /// before anything was written, so it hears of all of them (from Linux 5.8).
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::syncfs(&self.dir).map_err(|error| {
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
}

/// A name in the staging directory. What it names is removed when this goes, unless it was renamed away.
#[derive(Debug)]
pub(crate) struct StagedName {
    staging: Arc<Staging>,
    name: String,
    exists: bool,
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
        self.exists = true;
    }

    /// Renames it to `name` in `parent`, over a file, link or empty directory that is there.
    pub(crate) fn put_in_place(
        &mut self,
        path: &SafePath,
        parent: &ParentDir,
        name: &[u8],
    ) -> Result<(), FileError> {
        for _ in 0..REPLACE_TRIES_MAX {
            match rustix::fs::renameat(self.staging.dir(), &self.name, parent, name) {
                Ok(()) => {
                    self.exists = false;
                    return Ok(());
                }
                Err(Errno::ISDIR) => match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    // ENOTDIR, ENOENT: it was replaced meanwhile.
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
                        return Err(FileError::DirectoryInTheWay { path: path.clone() });
                    }
                    Err(error) => return Err(FileError::from_io(path, error.into())),
                },
                // The parent was removed after it was opened.
                Err(Errno::NOENT) => return Err(FileError::NoParent { path: path.clone() }),
                Err(error) => return Err(FileError::from_io(path, error.into())),
            }
        }
        Err(FileError::Changed { path: path.clone() })
    }
}

impl Drop for StagedName {
    fn drop(&mut self) {
        if self.exists {
            let _ = rustix::fs::unlinkat(self.staging.dir(), &self.name, AtFlags::empty());
        }
    }
}

/// A file that is being written. Removed when dropped, unless it is published.
#[derive(Debug)]
pub struct StagedFile {
    /// `None` once it is written and closed; then only a sync of the whole file system covers it.
    file: Option<Arc<File>>,
    name: StagedName,
    /// Failed syncs of the file system when it was begun.
    sync_failures: u64,
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
        let failed = |source| FileError::from_io(path, source);
        let sync_failures = staging.sync_failures();
        let mut name = staging.fresh_name(id);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(staging.dir(), name.as_str().as_bytes(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed)?;
        name.created();
        allocate(&file, size_bytes, allocation).map_err(failed)?;
        Ok(Self { file: Some(Arc::new(File::from(file))), name, sync_failures })
    }

    /// The open file, for reading and writing.
    ///
    /// # Panics
    /// Never on a file from [`crate::Replica::create_staged`].
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        self.file.as_ref().expect("open until it is ready")
    }

    pub(crate) fn open_file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    /// A descriptor of its own for reading, also after [`Self::close`], and also if the file's mode forbids it.
    pub(crate) fn reopen(&self) -> io::Result<OwnedFd> {
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

    /// Gives up the descriptor, so that a batch of thousands of small files needs few.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Whether the file system failed to take some data since this file was begun.
    pub(crate) fn saw_failed_sync(&self) -> bool {
        self.sync_failures != self.name.staging().sync_failures()
    }

    /// See [`StagedName::put_in_place`].
    pub(crate) fn put_in_place(
        mut self,
        path: &SafePath,
        parent: &ParentDir,
        name: &[u8],
    ) -> Result<(), FileError> {
        self.name.put_in_place(path, parent, name)
    }
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
