//! Everything of a replica that is not a file's content: directories, symbolic links, hard links.
//!
//! Links are made in the staging directory and renamed into place, so that a reader sees the old or the new one.
//! Never resolves the target of a symbolic link: it is a string to be stored.

use crate::error::FileError;
use crate::limits::REPLACE_TRIES_MAX;
use crate::metadata;
use crate::replica::Replica;
use crate::root::ParentDir;
use crate::stat::{self, FileStat, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use sealift_proto::limits;
use sealift_proto::path::SafePath;
use std::io;

/// What became of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeDirectory {
    /// It is new, with mode 0700.
    Created,
    /// It was there.
    Existed {
        /// Its permission bits as found. The owner has been given all rights, whatever they were.
        mode: u32,
    },
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It is new, or replaced something else.
    Created,
    /// It was there already.
    Unchanged,
}

impl Replica {
    /// Makes sure of a directory that can be written to. A file or symbolic link in its place is removed; a
    /// directory that is there is kept with its contents.
    ///
    /// # Errors
    /// [`FileError::NoParent`] if the directory above is missing; what the file system says.
    pub fn make_directory(&self, path: &SafePath) -> Result<MadeDirectory, FileError> {
        let (parent, name) = self.parent(path)?;
        for _ in 0..REPLACE_TRIES_MAX {
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) => return Ok(MadeDirectory::Created),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(FileError::NoParent { path: path.clone() }),
                Err(error) => return Err(FileError::from_io(path, error.into())),
            }
            match metadata::make_usable(self, path) {
                Ok(mode) => return Ok(MadeDirectory::Existed { mode }),
                Err(error) if is_not_a_directory(&error) => {
                    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
                        // EISDIR: it has become a directory meanwhile.
                        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                        Err(error) => return Err(FileError::from_io(path, error.into())),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::from_io(path, error)),
            }
        }
        Err(FileError::Changed { path: path.clone() })
    }

    /// Makes a symbolic link, over whatever file, link or empty directory is there. One that is the same already is
    /// given the mtime only.
    ///
    /// # Errors
    /// [`FileError::NoParent`], [`FileError::DirectoryInTheWay`], what the file system says; `InvalidInput` for a
    /// target that is empty, too long or has a NUL byte.
    pub fn make_symlink(
        &self,
        path: &SafePath,
        target: &[u8],
        mtime: Timestamp,
    ) -> Result<Linked, FileError> {
        let failed = |error: Errno| FileError::from_io(path, error.into());
        if target.is_empty() || target.len() > limits::LINK_TARGET_BYTES_MAX || target.contains(&0) {
            return Err(failed(Errno::INVAL));
        }
        let (parent, name) = self.parent(path)?;
        let found = rustix::fs::readlinkat(&parent, name, Vec::new());
        if found.is_ok_and(|found| found.as_bytes() == target) {
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if stat::kind(&stat) == FileType::Symlink {
                if stat::mtime(&stat) != mtime {
                    let times = mtime.as_mtime();
                    rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(failed)?;
                }
                return Ok(Linked::Unchanged);
            }
        }
        let mut staged = self.staging().fresh_name("link");
        let staging = self.staging().dir();
        rustix::fs::symlinkat(target, staging, staged.as_str()).map_err(failed)?;
        staged.created();
        rustix::fs::utimensat(staging, staged.as_str(), &mtime.as_mtime(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?;
        staged.put_in_place(path, &parent, name)?;
        Ok(Linked::Created)
    }

    /// Makes `path` a further name of the regular file `target`, over whatever file, link or empty directory is
    /// there.
    ///
    /// # Errors
    /// [`FileError::Changed`] if `target` is missing or no regular file; otherwise as [`Replica::make_symlink`].
    pub fn make_hardlink(&self, path: &SafePath, target: &SafePath) -> Result<Linked, FileError> {
        let failed = |error: Errno| FileError::from_io(path, error.into());
        let changed = || FileError::Changed { path: target.clone() };
        let (target_parent, target_name) =
            self.root().parent_of(target).map_err(|error| FileError::from_parent(target, error))?;
        let wanted = regular_file(&target_parent, target_name).map_err(failed)?.ok_or_else(changed)?;
        let (parent, name) = self.parent(path)?;
        if regular_file(&parent, name).map_err(failed)?.is_some_and(|found| found.same_inode(&wanted)) {
            return Ok(Linked::Unchanged);
        }
        let mut staged = self.staging().fresh_name("hard");
        let staging = self.staging().dir();
        // Without AT_SYMLINK_FOLLOW a link that was swapped in is itself linked, which is then noticed.
        rustix::fs::linkat(&target_parent, target_name, staging, staged.as_str(), AtFlags::empty())
            .map_err(|error| if error == Errno::NOENT { changed() } else { failed(error) })?;
        staged.created();
        let linked =
            rustix::fs::statat(staging, staged.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if stat::kind(&linked) != FileType::RegularFile || !FileStat::from_stat(&linked).same_inode(&wanted) {
            return Err(changed());
        }
        staged.put_in_place(path, &parent, name)?;
        Ok(Linked::Created)
    }

    fn parent<'p>(&self, path: &'p SafePath) -> Result<(ParentDir, &'p [u8]), FileError> {
        self.root().parent_of(path).map_err(|error| FileError::from_parent(path, error))
    }
}

/// The regular file of that name; `None` if something else or nothing is there.
fn regular_file(parent: &ParentDir, name: &[u8]) -> rustix::io::Result<Option<FileStat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat::kind(&stat) == FileType::RegularFile).then(|| FileStat::from_stat(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_a_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || Errno::from_io_error(error) == Some(Errno::LOOP)
}
