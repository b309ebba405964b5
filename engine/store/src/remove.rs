//! Taking entries away, and out of the way.
//!
//! What is removed is looked at directly before, and only if it is what the caller saw. Directories go only when they
//! are empty. Never follows a link, and never removes what it cannot name beneath the root.

use crate::error::FileError;
use crate::links::link_target_hash;
use crate::metadata::Usable;
use crate::replica::Replica;
use crate::root::ParentDir;
use crate::stat::{self, FileStat};
use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;
use sealift_proto::path::SafePath;

/// What has to be there for it to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveExpected {
    /// A regular file with this inode, size and mtime.
    File(FileStat),
    /// A symbolic link.
    Symlink {
        /// The [`link_target_hash`] of where it points.
        target_hash: u64,
    },
    /// A directory. It must be empty.
    Directory,
}

/// What became of something that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It was not there; or something above it is missing, or no directory.
    Absent,
    /// Something else is there, and stays.
    Differs,
    /// It is a directory that is not empty, and stays.
    NotEmpty,
}

impl Replica {
    /// Removes an entry if it is what is expected.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_entry(&self, path: &SafePath, expected: &RemoveExpected) -> Result<Removal, FileError> {
        let failed = |error: Errno| FileError::from_io(path, error.into());
        let (parent, name) = match self.root().parent_of(path) {
            Ok(found) => found,
            Err(error) => match FileError::from_parent(path, error) {
                FileError::NoParent { .. } => return Ok(Removal::Absent),
                error => return Err(error),
            },
        };
        match is_expected(&parent, name, expected) {
            Ok(true) => {}
            Ok(false) => return Ok(Removal::Differs),
            Err(Errno::NOENT) => return Ok(Removal::Absent),
            Err(error) => return Err(failed(error)),
        }
        let flags = match expected {
            RemoveExpected::Directory => AtFlags::REMOVEDIR,
            RemoveExpected::File(_) | RemoveExpected::Symlink { .. } => AtFlags::empty(),
        };
        let removed = Usable::retry(self, path, || rustix::fs::unlinkat(&parent, name, flags));
        match removed {
            Ok(()) => Ok(Removal::Removed),
            Err(Errno::NOENT) => Ok(Removal::Absent),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removal::NotEmpty),
            // It has become something else meanwhile.
            Err(Errno::ISDIR | Errno::NOTDIR) => Ok(Removal::Differs),
            Err(error) => Err(failed(error)),
        }
    }

    /// Gives an entry, whatever it is, another name in its directory, where there must be nothing of that name.
    ///
    /// # Errors
    /// [`FileError::Exists`] if there is something of the new name; [`FileError::NoParent`]; `NotFound` if there is
    /// nothing of the old name; `InvalidInput` if `new_name` cannot be a name; what the file system says.
    pub fn set_aside(&self, path: &SafePath, new_name: &[u8]) -> Result<SafePath, FileError> {
        let failed = |error: Errno| FileError::from_io(path, error.into());
        if new_name.contains(&b'/') {
            return Err(failed(Errno::INVAL));
        }
        let aside = SafePath::join(path.parent().as_ref(), new_name).map_err(|_| failed(Errno::INVAL))?;
        let (parent, name) =
            self.root().parent_of(path).map_err(|error| FileError::from_parent(path, error))?;
        match Usable::retry(self, path, || rename_to_new(&parent, name, new_name)) {
            Ok(()) => Ok(aside),
            Err(Errno::EXIST) => Err(FileError::Exists { path: aside }),
            Err(error) => Err(failed(error)),
        }
    }
}

fn is_expected(parent: &ParentDir, name: &[u8], expected: &RemoveExpected) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match (stat::kind(&stat), expected) {
        (FileType::RegularFile, RemoveExpected::File(expected)) => {
            let found = FileStat::from_stat(&stat);
            (found.inode, found.size_bytes, found.mtime)
                == (expected.inode, expected.size_bytes, expected.mtime)
        }
        (FileType::Symlink, RemoveExpected::Symlink { target_hash }) => {
            match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(target) => link_target_hash(target.as_bytes()) == *target_hash,
                Err(Errno::INVAL) => false,
                Err(error) => return Err(error),
            }
        }
        (FileType::Directory, RemoveExpected::Directory) => true,
        _ => false,
    })
}

/// Renames within a directory, never over something.
fn rename_to_new(parent: &ParentDir, name: &[u8], new_name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(parent, name, parent, new_name, RenameFlags::NOREPLACE) {
        // A file system that cannot. A second name is never made over something either; a directory cannot have one,
        // and replaces at worst an empty one.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::linkat(parent, name, parent, new_name, AtFlags::empty()) {
                Ok(()) => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
                Err(Errno::PERM | Errno::ISDIR | Errno::OPNOTSUPP) => {
                    match rustix::fs::statat(parent, new_name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => rustix::fs::renameat(parent, name, parent, new_name),
                        Ok(_) => Err(Errno::EXIST),
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        }
        result => result,
    }
}
