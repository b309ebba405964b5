//! Everything of a replica that is not a file's content: directories, symbolic links, hard links.
//!
//! Links are made in the staging directory and renamed into place, so that a reader sees the old or the new one.
//! Never resolves the target of a symbolic link: it is a string to be stored.

use crate::error::FileError;
use crate::faults::{Op, guard};
use crate::limits::REPLACE_TRIES_MAX;
use crate::metadata;
use crate::publish::Expected;
use crate::replica::Replica;
use crate::root::ParentDir;
use crate::stat::{self, FileStat, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use sealift_proto::limits;
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

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
            match guard(Op::Mkdir, || rustix::fs::mkdirat(&parent, name, Mode::RWXU)) {
                Ok(()) => return Ok(MadeDirectory::Created),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(FileError::NoParent { path: path.clone() }),
                Err(error) => return Err(FileError::from_io_in(path, error.into(), parent.as_fd())),
            }
            match metadata::make_usable(self, path) {
                Ok(mode) => return Ok(MadeDirectory::Existed { mode }),
                Err(error) if is_not_a_directory(&error) => {
                    match guard(Op::Unlink, || rustix::fs::unlinkat(&parent, name, AtFlags::empty())) {
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
    /// given the mtime only; without one it is left, and a new one gets the time of now.
    ///
    /// # Errors
    /// [`FileError::NoParent`], [`FileError::DirectoryInTheWay`], what the file system says; `InvalidInput` for a
    /// target that is empty, too long or has a NUL byte.
    pub fn make_symlink(
        &self,
        path: &SafePath,
        target: &[u8],
        mtime: Option<Timestamp>,
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
                if let Some(mtime) = mtime
                    && stat::mtime(&stat) != mtime
                {
                    set_link_mtime(parent.as_fd(), name, mtime).map_err(failed)?;
                }
                return Ok(Linked::Unchanged);
            }
        }
        let mut staged = self.staging().fresh_name("link");
        let staging = self.staging().dir();
        guard(Op::Symlink, || rustix::fs::symlinkat(target, staging, staged.as_str()))
            .map_err(|error| FileError::from_io_in(path, error.into(), staging))?;
        staged.created();
        if let Some(mtime) = mtime {
            set_link_mtime(staging, staged.as_str().as_bytes(), mtime).map_err(failed)?;
        }
        staged.put_in_place(path, &parent, name, &Expected::Anything)?;
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
        let link =
            || rustix::fs::linkat(&target_parent, target_name, staging, staged.as_str(), AtFlags::empty());
        guard(Op::Link, link)
            .map_err(|error| if error == Errno::NOENT { changed() } else { failed(error) })?;
        staged.created();
        let linked =
            rustix::fs::statat(staging, staged.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if stat::kind(&linked) != FileType::RegularFile || !FileStat::from_stat(&linked).same_inode(&wanted) {
            return Err(changed());
        }
        staged.put_in_place(path, &parent, name, &Expected::Anything)?;
        // Between two names of one inode (someone else was quicker) a rename does nothing: then ours is to be removed.
        staged.created();
        Ok(Linked::Created)
    }

    fn parent<'p>(&self, path: &'p SafePath) -> Result<(ParentDir, &'p [u8]), FileError> {
        self.root().parent_of(path).map_err(|error| FileError::from_parent(path, error))
    }
}

fn set_link_mtime(dir: BorrowedFd<'_>, name: &[u8], mtime: Timestamp) -> rustix::io::Result<()> {
    let times = mtime.as_mtime();
    guard(Op::Utimens, || rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
}

/// What is remembered of where a symbolic link points: the first eight bytes of the target's BLAKE3 hash.
#[must_use]
pub fn link_target_hash(target: &[u8]) -> u64 {
    let mut hash = [BlockHash([0; 32])];
    hash_blocks(HashAlgorithm::Blake3, &[BlockInput { data: target, offset: 0, only: true }], &mut hash);
    u64::from_le_bytes(hash[0].0[..8].try_into().expect("eight bytes"))
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

#[cfg(test)]
mod race_test;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplicaId;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 5 };

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    #[test]
    fn directories_are_made_kept_or_put_where_something_else_was() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        fs::write(dir.path().join("kept/file"), "").unwrap();
        fs::set_permissions(dir.path().join("kept"), fs::Permissions::from_mode(0o055)).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let make = |name| replica.make_directory(&path(name));
        assert_eq!(make("kept").unwrap(), MadeDirectory::Existed { mode: 0o055 });
        assert_eq!(fs::metadata(dir.path().join("kept")).unwrap().mode() & 0o7777, 0o755);
        assert!(dir.path().join("kept/file").exists());
        for name in ["new", "new/sub", "file", "link", "link/sub"] {
            assert_eq!(make(name).unwrap(), MadeDirectory::Created, "{name}");
            assert!(fs::symlink_metadata(dir.path().join(name)).unwrap().is_dir());
        }
        assert!(matches!(make("none/sub"), Err(FileError::NoParent { .. })));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn symbolic_links_are_made_replaced_or_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        fs::create_dir_all(dir.path().join("full/of")).unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let make = |name, target: &[u8]| replica.make_symlink(&path(name), target, Some(TIME));
        for name in ["new", "file"] {
            assert_eq!(make(name, b"../../etc/passwd").unwrap(), Linked::Created);
            let stat = fs::symlink_metadata(dir.path().join(name)).unwrap();
            assert!(stat.is_symlink());
            assert_eq!((stat.mtime(), stat.mtime_nsec()), (TIME.seconds, TIME.nanos.into()));
            let inode = stat.ino();
            assert_eq!(make(name, b"../../etc/passwd").unwrap(), Linked::Unchanged);
            assert_eq!(fs::symlink_metadata(dir.path().join(name)).unwrap().ino(), inode);
        }
        assert_eq!(make("new", b"elsewhere").unwrap(), Linked::Created);
        assert_eq!(fs::read_link(dir.path().join("new")).unwrap().as_os_str(), "elsewhere");
        assert!(matches!(make("full", b"x"), Err(FileError::DirectoryInTheWay { .. })));
        for bad in [&b""[..], b"a\0b", &[b'x'; 4096]] {
            assert!(make("bad", bad).is_err());
        }
        assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
    }

    #[test]
    fn a5_hard_links_join_regular_files_of_the_root_and_nothing_else() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "content").unwrap();
        fs::write(dir.path().join("b"), "other").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let link = |name, target| replica.make_hardlink(&path(name), &path(target));
        assert_eq!(link("new", "a").unwrap(), Linked::Created);
        assert_eq!(link("b", "a").unwrap(), Linked::Created);
        assert_eq!(link("b", "a").unwrap(), Linked::Unchanged);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().nlink(), 3);
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "content");
        for bad in ["out", "missing", "missing/x", ".", "out/x"] {
            if let Ok(target) = SafePath::parse(bad.as_bytes()) {
                assert!(replica.make_hardlink(&path("c"), &target).is_err(), "{bad}");
            }
        }
        assert!(!dir.path().join("c").exists());
        assert_eq!(outside.as_file().metadata().unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
    }

    #[test]
    fn renaming_over_another_name_of_the_same_file_leaves_nothing_staged() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "content").unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        // As if the link had been made by someone else after it was looked for.
        let mut staged = replica.staging().fresh_name("hard");
        let (parent, name) = replica.root().parent_of(&path("a")).map(|(d, n)| (d, n.to_vec())).unwrap();
        rustix::fs::linkat(&parent, &name, replica.staging().dir(), staged.as_str(), AtFlags::empty())
            .unwrap();
        staged.created();
        staged.put_in_place(&path("a"), &parent, &name, &Expected::Anything).unwrap();
        staged.created();
        drop(staged);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
    }
}
