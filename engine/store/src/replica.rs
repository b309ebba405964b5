//! The receiving side: a directory that is being made equal to what a sender offers.
//!
//! Owns the root's descriptor, our own directory `.sealift` in it, and the lock that keeps a second receiver out.
//! Everything is resolved beneath the root (see `root`); the other modules add what is written there: `staging` and
//! `publish` files, `small` batches of small ones, `links` directories and links, `metadata` modes and times.
//!
//! Never verifies content: what is handed in is taken for verified.

use crate::error::{FileError, ReplicaError};
use crate::limits::{DIRECTORY_READ_BYTES, REPLACE_TRIES_MAX};
use crate::root::{DIRECTORY, ParentDir, Parents, Root, openat2};
use crate::source::not_regular;
use crate::staging::{Allocation, StagedFile, Staging};
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir};
use rustix::io::Errno;
use sealift_proto::block::FileId;
use sealift_proto::path::{RESERVED_NAME, SafePath};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const STAGING: &str = "staging";
const LOCK: &str = "lock";

/// An open destination, locked for this process. Share it by `Arc`; its methods block and may be called from any
/// thread.
#[derive(Debug)]
pub struct Replica {
    root: Root,
    /// `.sealift`.
    own: OwnedFd,
    staging: Arc<Staging>,
    /// Locked until it is closed.
    _lock: OwnedFd,
    /// For messages only.
    shown: PathBuf,
    closed: AtomicBool,
}

/// What is at a path of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing; or something above it is missing or no directory.
    Missing,
    /// A regular file. [`Replica::open_existing`] opens it.
    File(FileStat),
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
        /// Last modification.
        mtime: Timestamp,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Last modification.
        mtime: Timestamp,
    },
    /// A device, FIFO or socket.
    Other,
}

impl Replica {
    /// Opens `dest`, creating it and what is above it if missing; sets up `.sealift` in it, locks it, and removes
    /// what an earlier receiver left in staging.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`] if another receiver holds it; otherwise what the file system says.
    pub fn open(dest: &Path) -> Result<Self, ReplicaError> {
        let destination = |source| ReplicaError::Destination { path: dest.into(), source };
        let staging_failed =
            |action| move |source| ReplicaError::Staging { path: dest.into(), action, source };
        std::fs::create_dir_all(dest).map_err(destination)?;
        let root = Root::open(dest).map_err(destination)?;
        let (own, lock) = Self::lock(&root, dest)?;
        let staging = make_own_directory(own.as_fd(), STAGING.as_bytes())
            .map_err(staging_failed("make .sealift/staging"))?;
        clear(staging.as_fd()).map_err(staging_failed("clear .sealift/staging"))?;
        Ok(Self {
            root,
            own,
            staging: Staging::new(staging),
            _lock: lock,
            shown: dest.into(),
            closed: AtomicBool::new(false),
        })
    }

    /// Makes and locks `.sealift`. Whoever held the lock before may have removed it as we opened it: then again.
    fn lock(root: &Root, dest: &Path) -> Result<(OwnedFd, OwnedFd), ReplicaError> {
        let failed = |action| move |source| ReplicaError::Staging { path: dest.into(), action, source };
        for _ in 0..REPLACE_TRIES_MAX {
            let own = match make_own_directory(root.dir(), RESERVED_NAME) {
                Ok(own) => own,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("make .sealift")(error)),
            };
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = match openat2(own.as_fd(), LOCK.as_bytes(), flags, Mode::RUSR | Mode::WUSR) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("make .sealift/lock")(error)),
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(ReplicaError::Locked { path: dest.into() }),
                Err(error) => return Err(failed("lock .sealift/lock")(error.into())),
            }
            let in_place = is_named(root.dir(), RESERVED_NAME, own.as_fd())
                .and_then(|own_is| Ok(own_is && is_named(own.as_fd(), LOCK.as_bytes(), lock.as_fd())?))
                .map_err(failed("check .sealift/lock"))?;
            if in_place {
                return Ok((own, lock));
            }
        }
        Err(ReplicaError::Locked { path: dest.into() })
    }

    /// Removes staging and lock, and `.sealift` if nothing else is in it. Staged files that are still held are
    /// removed too. The root's own metadata is to be set after this, since it changes the root's mtime.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(&self) -> Result<(), ReplicaError> {
        let failed = |action| {
            move |source: io::Error| ReplicaError::Staging { path: self.shown.clone(), action, source }
        };
        // A second time it might be another receiver's.
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        clear(self.staging.dir()).map_err(failed("clear .sealift/staging"))?;
        remove(self.own.as_fd(), STAGING.as_bytes(), AtFlags::REMOVEDIR)
            .map_err(failed("remove .sealift/staging"))?;
        // The last of the two, and while the lock is held: see `lock`.
        remove(self.own.as_fd(), LOCK.as_bytes(), AtFlags::empty())
            .map_err(failed("remove .sealift/lock"))?;
        match remove(self.root.dir(), RESERVED_NAME, AtFlags::REMOVEDIR) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(failed("remove .sealift")(error))
            }
            _ => Ok(()),
        }
    }

    /// The directory that everything is beneath.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }

    /// Begins a file that will be `path`, with all of its `size_bytes`.
    ///
    /// # Errors
    /// What the file system says; with [`Allocation::Preallocated`] a full disk shows here.
    pub fn create_staged(
        &self,
        id: FileId,
        path: &SafePath,
        size_bytes: u64,
        allocation: Allocation,
    ) -> Result<StagedFile, FileError> {
        StagedFile::create(&self.staging, id, path, size_bytes, allocation)
    }

    /// What is at `path` now.
    ///
    /// # Errors
    /// What the file system says, other than that it is not there.
    pub fn existing(&self, path: &SafePath) -> io::Result<Existing> {
        look(&mut self.root.parents(), path)
    }

    /// What is at each of `paths`, which are best given in order: each directory is then looked up once.
    #[must_use]
    pub fn existing_batch(&self, paths: &[SafePath]) -> Vec<io::Result<Existing>> {
        let mut parents = self.root.parents();
        paths.iter().map(|path| look(&mut parents, path)).collect()
    }

    /// Opens a regular file of the replica for reading.
    ///
    /// # Errors
    /// Those of `openat2`; `InvalidInput` if it is not a regular file.
    pub fn open_existing(&self, path: &SafePath) -> io::Result<(File, FileStat)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.root.open_beneath(path, flags)?;
        let stat = rustix::fs::fstat(&fd)?;
        if stat::kind(&stat) != FileType::RegularFile {
            return Err(not_regular());
        }
        Ok((File::from(fd), FileStat::from_stat(&stat)))
    }

    /// Bytes free on the root's file system for this user.
    ///
    /// # Errors
    /// Those of `fstatvfs`.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.root.dir())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Syncs the root's whole file system: directories, links and metadata included.
    ///
    /// # Errors
    /// If a write failed since the last call; files being staged then fail when they are published.
    pub fn sync(&self) -> io::Result<()> {
        self.staging.sync_file_system()
    }
}

fn look(parents: &mut Parents<'_>, path: &SafePath) -> io::Result<Existing> {
    let (parent, name) = match parents.of(path) {
        Ok(found) => found,
        Err(error) if is_absent(&error) => return Ok(Existing::Missing),
        Err(error) => return Err(error),
    };
    look_in(&parent, name).or_else(|error| if is_absent(&error) { Ok(Existing::Missing) } else { Err(error) })
}

fn look_in(parent: &ParentDir, name: &[u8]) -> io::Result<Existing> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match stat::kind(&stat) {
        FileType::RegularFile => Existing::File(FileStat::from_stat(&stat)),
        FileType::Directory => {
            Existing::Directory { mode: stat.st_mode & PERMISSION_BITS, mtime: stat::mtime(&stat) }
        }
        FileType::Symlink => Existing::Symlink {
            target: rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes(),
            mtime: stat::mtime(&stat),
        },
        _ => Existing::Other,
    })
}

/// Whether something on the way is missing, or is a link or file where a directory should be.
fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Opens a directory of ours, 0700, making it if it is missing.
fn make_own_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = openat2(parent, name, DIRECTORY, Mode::empty())?;
    rustix::fs::fchmod(&dir, Mode::RWXU)?;
    Ok(dir)
}

/// Whether `name` in `parent` is what `fd` has open.
fn is_named(parent: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>) -> io::Result<bool> {
    let open = FileStat::from_stat(&rustix::fs::fstat(fd)?);
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileStat::from_stat(&stat).same_inode(&open)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes every file in a directory of ours.
fn clear(dir: BorrowedFd<'_>) -> io::Result<()> {
    // Opened anew, to be read from its beginning.
    let dir = match openat2(dir, b".", DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        // It was removed: nothing is in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![MaybeUninit::uninit(); DIRECTORY_READ_BYTES];
    let mut entries = RawDir::new(&dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => names.push(entry.file_name().to_owned()),
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    for name in names {
        remove(dir.as_fd(), name.to_bytes(), AtFlags::empty())?;
    }
    Ok(())
}

/// Removes a name, which may be gone already.
fn remove(parent: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    #[test]
    fn a_second_receiver_is_kept_out_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Replica::open(dir.path()).unwrap();
        let error = Replica::open(dir.path()).unwrap_err();
        assert!(matches!(error, ReplicaError::Locked { .. }));
        assert!(error.to_string().contains("another sealift"), "{error}");
        drop(first);
        Replica::open(dir.path()).unwrap().close().unwrap();
    }

    #[test]
    fn b10_what_a_killed_receiver_left_is_cleared_and_a_finished_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new/dest");
        fs::create_dir_all(dest.join(".sealift/staging")).unwrap();
        fs::write(dest.join(".sealift/staging/7.0"), "torn").unwrap();
        fs::write(dest.join(".sealift/lock"), "").unwrap();
        let replica = Replica::open(&dest).unwrap();
        assert_eq!(fs::metadata(dest.join(".sealift")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(dest.join(".sealift/staging")).unwrap().count(), 0);
        let held = replica.create_staged(FileId(1), &path("x"), 10, Allocation::Sparse).unwrap();
        replica.close().unwrap();
        drop(held);
        assert_eq!(fs::read_dir(&dest).unwrap().count(), 0);
        replica.close().unwrap();
        drop(replica);
        let replica = Replica::open(&dest).unwrap();
        fs::write(dest.join(".sealift/index"), "kept").unwrap();
        replica.close().unwrap();
        assert!(dest.join(".sealift/index").exists());
    }

    #[test]
    fn our_directory_is_not_followed_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join(".sealift")).unwrap();
        assert!(matches!(Replica::open(dir.path()), Err(ReplicaError::Staging { .. })));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn receivers_that_come_and_go_at_once_never_share() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 50 {
                        match Replica::open(dir.path()) {
                            Ok(replica) => {
                                use std::sync::atomic::Ordering::SeqCst;
                                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                                inside.fetch_sub(1, SeqCst);
                                replica.close().unwrap();
                                done += 1;
                            }
                            Err(ReplicaError::Locked { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn tells_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "hello").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        let fifo = dir.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let replica = Replica::open(dir.path()).unwrap();
        let paths = ["d", "d/f", "d/f/x", "l", "l/f", "none", "none/x", "p"].map(path);
        let found: Vec<_> = replica.existing_batch(&paths).into_iter().map(|found| found.unwrap()).collect();
        assert!(matches!(found[0], Existing::Directory { .. }));
        let Existing::File(stat) = &found[1] else { panic!("{:?}", found[1]) };
        assert!(matches!(&found[3], Existing::Symlink { target, .. } if target == b"d"));
        assert_eq!(found[7], Existing::Other);
        for index in [2, 4, 5, 6] {
            assert_eq!(found[index], Existing::Missing, "{}", paths[index]);
        }
        let (_, opened) = replica.open_existing(&paths[1]).unwrap();
        assert!(opened.same_version(stat));
        assert!(replica.open_existing(&paths[7]).is_err());
        assert!(replica.open_existing(&path("l/f")).is_err());
        assert!(replica.free_bytes().unwrap() > 0);
        replica.sync().unwrap();
    }
}
