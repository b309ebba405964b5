//! One open entry, and the system calls on it, whether it was opened or only looked up (O_PATH).
//!
//! Never resolves a name of the tree: an O_PATH descriptor is reached by its number, through `/proc`.

use crate::limits::{XATTR_GUESS_BYTES, XATTR_VALUE_BYTES_MAX};
use crate::stat::PERMISSION_BITS;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) struct Handle<'f> {
    fd: BorrowedFd<'f>,
    /// For a descriptor that only `/proc` can do anything through.
    proc_name: Option<String>,
}

type Result<T> = rustix::io::Result<T>;

impl<'f> Handle<'f> {
    pub(super) fn of(fd: BorrowedFd<'f>) -> Result<Self> {
        let only_path = rustix::fs::fcntl_getfl(fd)?.contains(OFlags::PATH);
        Ok(Self { fd, proc_name: only_path.then(|| format!("/proc/self/fd/{}", fd.as_raw_fd())) })
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(self.fd)
    }

    /// The names of its extended attributes; none where the file system has none.
    pub(super) fn xattr_names(&self) -> Result<Vec<Box<[u8]>>> {
        let list = read_growing(|buffer| match &self.proc_name {
            None => rustix::fs::flistxattr(self.fd, buffer),
            Some(name) => rustix::fs::listxattr(name, buffer),
        });
        match list {
            Ok(list) => {
                Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(Box::from).collect())
            }
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The value of an extended attribute; `None` where there is none.
    pub(super) fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = read_growing(|buffer| match &self.proc_name {
            None => rustix::fs::fgetxattr(self.fd, name, buffer),
            Some(path) => rustix::fs::getxattr(path, name, buffer),
        });
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match &self.proc_name {
            None => rustix::fs::fsetxattr(self.fd, name, value, XattrFlags::empty()),
            Some(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let removed = match &self.proc_name {
            None => rustix::fs::fremovexattr(self.fd, name),
            Some(path) => rustix::fs::removexattr(path, name),
        };
        match removed {
            Err(Errno::NODATA) => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode & PERMISSION_BITS);
        match &self.proc_name {
            None => rustix::fs::fchmod(self.fd, mode),
            Some(path) => rustix::fs::chmod(path, mode),
        }
    }

    /// Of the entry itself, a symbolic link included.
    pub(super) fn set_owner(&self, user: Option<u32>, group: Option<u32>) -> Result<()> {
        rustix::fs::chownat(
            self.fd,
            "",
            user.map(Uid::from_raw),
            group.map(Gid::from_raw),
            AtFlags::EMPTY_PATH,
        )
    }
}

/// What mostly is small, in one call; otherwise with the room that the kernel never goes beyond.
fn read_growing(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0; XATTR_GUESS_BYTES];
    match read(&mut small) {
        Ok(bytes) => Ok(small[..bytes].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; XATTR_VALUE_BYTES_MAX];
            let bytes = read(&mut large)?;
            large.truncate(bytes);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}
