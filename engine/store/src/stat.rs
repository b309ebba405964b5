//! What is known of a file from its inode: enough to tell one version of it from another.

use rustix::fs::{FileType, Stat, Timespec, UTIME_OMIT};
use sealift_proto::limits;
use std::fs::File;
use std::io;

/// The bits of a mode that a replica carries: permissions, setuid, setgid and sticky.
pub const PERMISSION_BITS: u32 = 0o7777;

/// A point in time as the file system keeps it: seconds since 1970, and nanoseconds (below 10⁹) after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after the second, below 10⁹.
    pub nanos: u32,
}

impl Timestamp {
    /// The nearest time that a manifest can carry.
    #[must_use]
    pub fn clamped(self) -> Self {
        if self.seconds < limits::MTIME_SECONDS_MIN {
            Self { seconds: limits::MTIME_SECONDS_MIN, nanos: 0 }
        } else if self.seconds > limits::MTIME_SECONDS_MAX {
            Self { seconds: limits::MTIME_SECONDS_MAX, nanos: 0 }
        } else {
            Self { seconds: self.seconds, nanos: self.nanos.min(999_999_999) }
        }
    }

    /// For setting an mtime: access time left alone.
    pub(crate) fn as_mtime(self) -> rustix::fs::Timestamps {
        rustix::fs::Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: self.seconds, tv_nsec: self.nanos.min(999_999_999).into() },
        }
    }
}

/// A regular file's inode at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Its length.
    pub size_bytes: u64,
    /// When its content last changed, as told by whoever set it.
    pub mtime: Timestamp,
    /// When its inode last changed, as the kernel saw it.
    pub ctime: Timestamp,
    /// Its inode number, unique on its device.
    pub inode: u64,
    /// The device it is on.
    pub device: u64,
    /// Its permission bits ([`PERMISSION_BITS`]).
    pub mode: u32,
    /// The number of its names.
    pub links: u64,
}

impl FileStat {
    /// The state of an open file, of whatever kind.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    /// Whether `other` shows the same version of the same file: nothing was written between the two.
    #[must_use]
    pub fn same_version(&self, other: &Self) -> bool {
        self.same_inode(other)
            && self.size_bytes == other.size_bytes
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }

    /// Whether both are names of one inode.
    #[must_use]
    pub fn same_inode(&self, other: &Self) -> bool {
        self.inode == other.inode && self.device == other.device
    }

    // The count of links has another width on other processors.
    #[allow(clippy::useless_conversion)]
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        Self {
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: mtime(stat),
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            device: stat.st_dev,
            mode: stat.st_mode & PERMISSION_BITS,
            links: stat.st_nlink.into(),
        }
    }
}

pub(crate) fn mtime(stat: &Stat) -> Timestamp {
    timestamp(stat.st_mtime, stat.st_mtime_nsec)
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn timestamp(seconds: i64, nanos: impl TryInto<u32>) -> Timestamp {
    Timestamp { seconds, nanos: nanos.try_into().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a9_times_out_of_range_are_clamped() {
        let at = |seconds| Timestamp { seconds, nanos: 5 }.clamped();
        assert_eq!(at(0), Timestamp { seconds: 0, nanos: 5 });
        assert_eq!(at(i64::MAX), Timestamp { seconds: limits::MTIME_SECONDS_MAX, nanos: 0 });
        assert_eq!(at(i64::MIN), Timestamp { seconds: limits::MTIME_SECONDS_MIN, nanos: 0 });
    }

    #[test]
    fn another_size_time_or_inode_is_another_version() {
        let time = Timestamp { seconds: 7, nanos: 0 };
        let stat =
            FileStat { size_bytes: 1, mtime: time, ctime: time, inode: 1, device: 1, mode: 0o644, links: 1 };
        let later = Timestamp { seconds: 7, nanos: 1 };
        assert!(stat.same_version(&FileStat { mode: 0o600, links: 2, ..stat }));
        for other in [
            FileStat { size_bytes: 2, ..stat },
            FileStat { mtime: later, ..stat },
            FileStat { ctime: later, ..stat },
            FileStat { inode: 2, ..stat },
            FileStat { device: 2, ..stat },
        ] {
            assert!(!stat.same_version(&other));
        }
    }
}
