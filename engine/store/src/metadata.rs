//! Modes and modification times, set through descriptors.
//!
//! Never decides which bits of a mode are allowed (that is the caller's policy), and never follows a name to set
//! anything.

use crate::error::FileError;
use crate::faults::{Op, guard};
use crate::replica::Replica;
use crate::root::DIRECTORY;
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Sets mode and mtime of an open file. The mode first: it is the mtime that shows whether all was done.
pub(crate) fn apply(fd: impl AsFd, mode: u32, mtime: Timestamp) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode & PERMISSION_BITS);
    guard(Op::Chmod, || rustix::fs::fchmod(&fd, mode))?;
    Ok(guard(Op::Utimens, || rustix::fs::futimens(&fd, &mtime.as_mtime()))?)
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
        Ok(guard(Op::Chmod, || match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Path(fd) => rustix::fs::chmod(Self::proc_name(fd), mode),
        })?)
    }

    fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        let times = mtime.as_mtime();
        Ok(guard(Op::Utimens, || match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Path(fd) => rustix::fs::utimensat(CWD, Self::proc_name(fd), &times, AtFlags::empty()),
        })?)
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
    rights(replica, Some(path)).map(|(_, mode)| mode)
}

fn rights(replica: &Replica, path: Option<&SafePath>) -> io::Result<(Handle, u32)> {
    let directory = Handle::open(replica, path, DIRECTORY)?;
    let stat = directory.stat()?;
    if stat::kind(&stat) != FileType::Directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let mode = stat.st_mode & PERMISSION_BITS;
    if mode & 0o700 != 0o700 {
        directory.set_mode(mode | 0o700)?;
    }
    Ok((directory, mode))
}

/// Rights to the directory above an entry, taken for as long as it takes to change it.
pub(crate) struct Usable;

impl Usable {
    /// Does something in the directory above `path`; if the directory's mode forbids it and is ours to change, once
    /// more with all rights, after which the directory gets its mode back.
    pub(crate) fn retry<T>(
        replica: &Replica,
        path: &SafePath,
        mut f: impl FnMut() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match f() {
            Err(Errno::ACCESS) => {}
            result => return result,
        }
        let above = path.parent();
        let (directory, mode) = rights(replica, above.as_ref()).map_err(|_| Errno::ACCESS)?;
        let result = f();
        if mode & 0o700 != 0o700 {
            // The mode that is wanted is set again at the end of a run.
            let _ = directory.set_mode(mode);
        }
        result
    }
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
        let failed = |source: io::Error| match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => changed(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Existing;
    use crate::replica::ReplicaId;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const TIME: Timestamp = Timestamp { seconds: -5, nanos: 999_999_999 };

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn stat(replica: &Replica, name: &str) -> FileStat {
        match replica.existing(&path(name)).unwrap() {
            Existing::File(stat) => stat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_differs_is_set() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let before = stat(&replica, "f");
        replica.update_metadata(&path("f"), &before, 0o100_604, TIME).unwrap();
        let after = stat(&replica, "f");
        assert_eq!((after.mode, after.mtime), (0o604, TIME));
        replica.update_metadata(&path("f"), &after, 0o604, TIME).unwrap();
        assert!(stat(&replica, "f").same_version(&after), "not even the ctime moved");
    }

    #[test]
    fn a_file_without_permissions_can_be_updated_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o0)).unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        replica.update_metadata(&path("f"), &stat(&replica, "f"), 0o640, TIME).unwrap();
        assert_eq!(stat(&replica, "f").mode, 0o640);
        // What the owner of the process may do, root or not, the path through /proc does.
        let fd = replica.root().open_beneath(&path("f"), OFlags::PATH).unwrap();
        let handle = Handle::Path(fd);
        handle.set_mode(0o600).unwrap();
        handle.set_mtime(Timestamp { seconds: 9, nanos: 9 }).unwrap();
        let after = stat(&replica, "f");
        assert_eq!((after.mode, after.mtime), (0o600, Timestamp { seconds: 9, nanos: 9 }));
    }

    #[test]
    fn b13_another_file_in_its_place_is_left_alone() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let mode = outside.as_file().metadata().unwrap().mode();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let before = stat(&replica, "f");
        for replaced_by in ["file", "link", "nothing"] {
            fs::remove_file(dir.path().join("f")).ok();
            match replaced_by {
                // Its inode must be another: keep the old number in use.
                "file" => {
                    fs::write(dir.path().join("other"), "").unwrap();
                    fs::write(dir.path().join("f"), "").unwrap();
                }
                "link" => symlink(outside.path(), dir.path().join("f")).unwrap(),
                _ => {}
            }
            let expected = FileStat { inode: before.inode.wrapping_add(1 << 40), ..before };
            let error = replica.update_metadata(&path("f"), &expected, 0o777, TIME).unwrap_err();
            assert!(matches!(error, FileError::Changed { .. }), "{replaced_by}: {error}");
        }
        assert_eq!(outside.as_file().metadata().unwrap().mode(), mode);
    }

    #[test]
    fn directories_and_the_root_get_theirs() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        replica.set_directory_metadata(Some(&path("d")), 0o1710, TIME).unwrap();
        assert!(replica.set_directory_metadata(Some(&path("f")), 0o700, TIME).is_err());
        replica.close().unwrap();
        replica.set_directory_metadata(None, 0o750, TIME).unwrap();
        for (name, mode) in [("d", 0o1710), ("", 0o750)] {
            let stat = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!(stat.mode() & 0o7777, mode);
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (TIME.seconds, TIME.nanos.into()));
        }
    }
}
