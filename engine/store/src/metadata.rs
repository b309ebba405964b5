//! Modes and modification times, set through descriptors.
//!
//! Never decides which bits of a mode are allowed (that is the caller's policy), and never follows a name to set
//! anything.

use crate::error::FileError;
use crate::replica::Replica;
use crate::root::DIRECTORY;
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Sets mode and mtime of an open file. The mode first: it is the mtime that shows whether all was done.
pub(crate) fn apply(fd: impl AsFd, mode: u32, mtime: Timestamp) -> io::Result<()> {
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & PERMISSION_BITS))?;
    Ok(rustix::fs::futimens(&fd, &mtime.as_mtime())?)
}

/// What mode and mtime are set through: a descriptor, opened in whichever way the permissions allow.
enum Handle {
    Open(OwnedFd),
    /// Opened with O_PATH, which no permission forbids, and through which only `/proc` can change anything.
    Path(OwnedFd),
}

impl Handle {
    fn open(replica: &Replica, path: Option<&SafePath>, flags: OFlags) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Open(replica.root().dir().try_clone_to_owned()?));
        };
        match replica.root().open_beneath(path, flags) {
            Ok(fd) => Ok(Self::Open(fd)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(Self::Path(replica.root().open_beneath(path, OFlags::PATH)?))
            }
            Err(error) => Err(error),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Path(fd) => fd.as_fd(),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.fd())?)
    }

    /// A name for the inode itself, made of a number: no link or rename can redirect it.
    fn proc_name(fd: &OwnedFd) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & PERMISSION_BITS);
        Ok(match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Path(fd) => rustix::fs::chmod(Self::proc_name(fd), mode),
        }?)
    }

    fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        let times = mtime.as_mtime();
        Ok(match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Path(fd) => rustix::fs::utimensat(CWD, Self::proc_name(fd), &times, AtFlags::empty()),
        }?)
    }

    /// Sets what differs.
    fn update(&self, now: &Stat, mode: u32, mtime: Timestamp) -> io::Result<()> {
        if now.st_mode & PERMISSION_BITS != mode & PERMISSION_BITS {
            self.set_mode(mode)?;
        }
        if stat::mtime(now) != mtime {
            self.set_mtime(mtime)?;
        }
        Ok(())
    }
}

/// Gives the owner all rights to a directory for the time being; returns the mode it had.
pub(crate) fn make_usable(replica: &Replica, path: &SafePath) -> io::Result<u32> {
    let directory = Handle::open(replica, Some(path), DIRECTORY)?;
    let stat = directory.stat()?;
    if stat::kind(&stat) != FileType::Directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mode = stat.st_mode & PERMISSION_BITS;
    if mode & 0o700 != 0o700 {
        directory.set_mode(mode | 0o700)?;
    }
    Ok(mode)
}

impl Replica {
    /// Sets what differs of a directory's mode and mtime; `None` is the root, whose error names the I/O alone. To be
    /// done when nothing is created in the directory any more: for the root, after [`Replica::close`].
    ///
    /// # Errors
    /// If there is no such directory, or it may not be changed.
    pub fn set_directory_metadata(
        &self,
        path: Option<&SafePath>,
        mode: u32,
        mtime: Timestamp,
    ) -> io::Result<()> {
        let directory = Handle::open(self, path, DIRECTORY)?;
        let stat = directory.stat()?;
        if stat::kind(&stat) != FileType::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        directory.update(&stat, mode, mtime)
    }

    /// Sets what differs of an unchanged file's mode and mtime. `expected` is the file as it was looked at.
    ///
    /// # Errors
    /// [`FileError::Changed`] if another file, or something else, is there by now.
    pub fn update_metadata(
        &self,
        path: &SafePath,
        expected: &FileStat,
        mode: u32,
        mtime: Timestamp,
    ) -> Result<(), FileError> {
        let changed = || FileError::Changed { path: path.clone() };
        let failed = |source: io::Error| match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => changed(),
            _ => FileError::from_io(path, source),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = Handle::open(self, Some(path), flags).map_err(failed)?;
        let stat = file.stat().map_err(failed)?;
        if stat::kind(&stat) != FileType::RegularFile || !FileStat::from_stat(&stat).same_inode(expected) {
            return Err(changed());
        }
        file.update(&stat, mode, mtime).map_err(failed)
    }
}
