//! What can go wrong on disk, by whose fault it is, with the path escaped so that no name can forge a log line.
//!
//! Never: recovers. An error says what happened and to what; the caller decides.

use rustix::io::Errno;
use sealift_proto::path::{PathError, SafePath};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// Why `send` cannot offer what it was given.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No path at all.
    #[error("nothing to send: no path was given")]
    Nothing,
    /// A path cannot be opened.
    #[error("cannot open {path:?}: {source}")]
    Open {
        /// The path as the user gave it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path ends in `..` or is `/`, among several or as a file.
    #[error("{path:?} has no name of its own to be sent under")]
    NoName {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// The base name cannot be an entry.
    #[error("{path:?} cannot be sent: {source}")]
    BadName {
        /// The path as the user gave it.
        path: PathBuf,
        /// Why.
        source: PathError,
    },
    /// Two paths with one base name.
    #[error("{first:?} and {second:?} would both be sent as {name}")]
    Duplicate {
        /// The base name.
        name: SafePath,
        /// The first path.
        first: PathBuf,
        /// The second path.
        second: PathBuf,
    },
    /// A symbolic link to a file.
    #[error("{path:?} is a symbolic link to a file; name the file itself")]
    Symlink {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// A device, FIFO or socket.
    #[error("{path:?} is neither a file nor a directory")]
    Special {
        /// The path as the user gave it.
        path: PathBuf,
    },
}

/// Why a destination cannot be opened as a replica, or closed.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The destination cannot be created or opened.
    #[error("cannot open the destination {path:?}: {source}")]
    Destination {
        /// The path as the user gave it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another receiver works there.
    #[error("another sealift is receiving into {path:?}; wait for it, or choose another directory")]
    Locked {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// `.sealift/id` is not what Sealift wrote there.
    #[error(
        "{path:?} has a .sealift/id that is damaged: nobody can tell which replica it is. If it is the right directory, \
         remove that file; what is there is then compared anew"
    )]
    Marker {
        /// The path as the user gave it.
        path: PathBuf,
    },
    /// Our own directory beneath it cannot be set up, cleared or removed.
    #[error("cannot {action} in {path:?}: {source}")]
    Staging {
        /// The path as the user gave it.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Why one entry of a replica could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// ENOSPC.
    #[error("{path}: no space is left on the disk")]
    NoSpace {
        /// The entry.
        path: SafePath,
    },
    /// ENOSPC on a file system whose inodes are used up.
    #[error("{path}: no inode is left on the disk: it holds as many files as it can")]
    NoInodes {
        /// The entry.
        path: SafePath,
    },
    /// EDQUOT.
    #[error("{path}: the disk quota is used up")]
    OverQuota {
        /// The entry.
        path: SafePath,
    },
    /// EROFS.
    #[error("{path}: the file system is read-only")]
    ReadOnly {
        /// The entry.
        path: SafePath,
    },
    /// EACCES, EPERM.
    #[error("{path}: permission denied")]
    Denied {
        /// The entry.
        path: SafePath,
    },
    /// ENAMETOOLONG.
    #[error("{path}: the name is too long for this file system")]
    NameTooLong {
        /// The entry.
        path: SafePath,
    },
    /// EFBIG.
    #[error("{path}: the file is too large for this file system")]
    TooLarge {
        /// The entry.
        path: SafePath,
    },
    /// EXDEV: staging and target must share a file system.
    #[error("{path}: another file system is mounted there, so that it cannot be replaced in one step")]
    OtherFileSystem {
        /// The entry.
        path: SafePath,
    },
    /// A directory that is not empty stands where a file or link should go.
    #[error("{path}: a directory that is not empty is in the way")]
    DirectoryInTheWay {
        /// The entry.
        path: SafePath,
    },
    /// The directory above is missing, or is no directory.
    #[error("{path}: the directory above it is missing, or is not a directory")]
    NoParent {
        /// The entry.
        path: SafePath,
    },
    /// It is no longer what it was when it was looked at.
    #[error("{path}: was changed by someone else meanwhile")]
    Changed {
        /// The entry.
        path: SafePath,
    },
    /// There is something of the name it was to get.
    #[error("{path}: there is something of that name already")]
    Exists {
        /// The entry.
        path: SafePath,
    },
    /// The disk reported a failed write: what was written cannot be trusted, and must be written anew.
    #[error("{path}: the disk did not take the data: {source}")]
    NotSynced {
        /// The entry.
        path: SafePath,
        /// Why.
        source: io::Error,
    },
    /// Anything else.
    #[error("{path}: {source}")]
    Io {
        /// The entry.
        path: SafePath,
        /// Why.
        source: io::Error,
    },
}

impl FileError {
    /// The error for an operation on `path` that failed with `source`.
    #[must_use]
    pub fn from_io(path: &SafePath, source: io::Error) -> Self {
        let path = path.clone();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC) => Self::NoSpace { path },
            Some(Errno::DQUOT) => Self::OverQuota { path },
            Some(Errno::ROFS) => Self::ReadOnly { path },
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied { path },
            Some(Errno::NAMETOOLONG) => Self::NameTooLong { path },
            Some(Errno::FBIG) => Self::TooLarge { path },
            Some(Errno::XDEV) => Self::OtherFileSystem { path },
            _ => Self::Io { path, source },
        }
    }

    /// As [`FileError::from_io`], for something that was to be created on the file system of `dir`: tells inodes that
    /// are used up from space that is.
    pub(crate) fn from_io_in(path: &SafePath, source: io::Error, dir: BorrowedFd<'_>) -> Self {
        match Self::from_io(path, source) {
            // Where inodes are made as needed, there are none to be counted.
            Self::NoSpace { path }
                if rustix::fs::fstatvfs(dir).is_ok_and(|room| room.f_files > 0 && room.f_favail == 0) =>
            {
                Self::NoInodes { path }
            }
            error => error,
        }
    }

    /// Whether it passes once there is room again: the disk or the quota is full, or inodes are used up.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::NoInodes { .. } | Self::OverQuota { .. })
    }

    /// Whether the disk, or what lies before it, failed in a way that another try may not: EIO and the like, or
    /// something that ran short for a moment.
    #[must_use]
    pub fn is_io(&self) -> bool {
        match self {
            Self::NotSynced { .. } => true,
            Self::Io { source, .. } => match Errno::from_io_error(source) {
                Some(
                    Errno::IO
                    | Errno::NXIO
                    | Errno::REMOTEIO
                    | Errno::NODATA
                    | Errno::ILSEQ
                    | Errno::TIMEDOUT
                    | Errno::STALE
                    | Errno::AGAIN
                    | Errno::INTR
                    | Errno::NOMEM
                    | Errno::MFILE
                    | Errno::NFILE,
                ) => true,
                Some(_) => false,
                // The disk took or gave nothing more, and no reason.
                None => matches!(source.kind(), io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof),
            },
            _ => false,
        }
    }

    /// The entry it happened to.
    #[must_use]
    pub fn path(&self) -> &SafePath {
        match self {
            Self::NoSpace { path }
            | Self::NoInodes { path }
            | Self::Exists { path }
            | Self::OverQuota { path }
            | Self::ReadOnly { path }
            | Self::Denied { path }
            | Self::NameTooLong { path }
            | Self::TooLarge { path }
            | Self::OtherFileSystem { path }
            | Self::DirectoryInTheWay { path }
            | Self::NoParent { path }
            | Self::Changed { path }
            | Self::NotSynced { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// For the parent of `path` that could not be resolved.
    pub(crate) fn from_parent(path: &SafePath, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Self::NoParent { path: path.clone() },
            _ => Self::from_io(path, source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_each_fault_of_the_disk_has_its_own_message_and_names_the_path_escaped() {
        let path = SafePath::parse(b"a\x1b[2J").expect("safe");
        let text = |errno: Errno| FileError::from_io(&path, errno.into()).to_string();
        let faults = [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::ACCESS,
            Errno::NAMETOOLONG,
            Errno::FBIG,
            Errno::XDEV,
            Errno::IO,
        ];
        let texts: std::collections::BTreeSet<_> = faults.into_iter().map(text).collect();
        assert_eq!(texts.len(), faults.len());
        assert!(texts.iter().all(|text| text.starts_with("a\\x1b[2J: ")), "{texts:?}");
    }

    #[test]
    fn b4_what_passes_with_room_and_what_with_another_try_is_told_apart() {
        let path = SafePath::parse(b"a").expect("safe");
        let error = |errno: Errno| FileError::from_io(&path, errno.into());
        for (errno, no_space, io) in [
            (Errno::NOSPC, true, false),
            (Errno::DQUOT, true, false),
            (Errno::ROFS, false, false),
            (Errno::FBIG, false, false),
            (Errno::ACCESS, false, false),
            (Errno::IO, false, true),
            (Errno::MFILE, false, true),
            (Errno::INVAL, false, false),
        ] {
            assert_eq!((error(errno).is_no_space(), error(errno).is_io()), (no_space, io), "{errno}");
        }
        assert!(FileError::NoInodes { path: path.clone() }.is_no_space());
        assert!(FileError::NotSynced { path: path.clone(), source: Errno::IO.into() }.is_io());
        assert!(FileError::from_io(&path, io::ErrorKind::WriteZero.into()).is_io());
        assert!(!FileError::Changed { path }.is_io());
    }
}
