//! The receiving side: a directory that is being made equal to what a sender offers.
//!
//! Owns the root's descriptor, our own directory `.sealift` in it with the replica's identity, and the lock that keeps a
//! second receiver out. Everything is resolved beneath the root (see `root`); the other modules add what is done there:
//! `staging` and `publish` files, `small` batches of small ones, `links` directories and links, `metadata` modes and
//! times, `remove` what is to go, `manifest_file` the manifest that all of it is by.
//!
//! Never verifies content: what is handed in is taken for verified.

use crate::error::{FileError, ReplicaError};
use crate::faults::{self, Op, guard};
use crate::limits::DIRECTORY_READ_BYTES;
use crate::manifest_file;
use crate::root::{DIRECTORY, ParentDir, Parents, Root, openat2};
use crate::source::not_regular;
use crate::staging::{Allocation, StagedFile, Staging};
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir};
use rustix::io::Errno;
use sealift_proto::block::FileId;
use sealift_proto::path::{RESERVED_NAME, SafePath};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STAGING: &str = "staging";
pub(crate) const LOCK: &str = "lock";
const MARKER: &str = "id";
/// The marker before it is whole.
const MARKER_NEW: &str = "id.new";

/// An open destination, locked for this process. Share it by `Arc`; its methods block and may be called from any
/// thread. The lock is held until this and all staged files are gone.
#[derive(Debug)]
pub struct Replica {
    root: Root,
    /// `.sealift`.
    own: OwnedFd,
    id: ReplicaId,
    staging: Arc<Staging>,
    /// For messages only.
    shown: PathBuf,
}

/// Which replica a directory is. Drawn at random when it is first received into, and kept in it: a directory that
/// has another, or none, is not the one (hazard B14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// Hexadecimal digits and a newline.
    const TEXT_BYTES: usize = 33;

    /// What [`ReplicaId`]'s `Display` wrote; `None` for anything else.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 16];
        if digits.len() != 2 * id.len() {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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
    /// The identity of the replica that `dest` is, if it is one. Only looks.
    ///
    /// # Errors
    /// What the file system says, other than that `dest` or the identity is missing; `InvalidData` if it is damaged.
    pub fn marker(dest: &Path) -> io::Result<Option<ReplicaId>> {
        Ok(match Self::own_directory(dest)? {
            Some(own) => read_marker(own.as_fd())?,
            None => None,
        })
    }

    /// `.sealift` of `dest` as it is, if it is there.
    pub(crate) fn own_directory(dest: &Path) -> io::Result<Option<OwnedFd>> {
        let absent = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        };
        match Root::open(dest) {
            Ok(root) => {
                openat2(root.dir(), RESERVED_NAME, DIRECTORY, Mode::empty()).map(Some).or_else(absent)
            }
            Err(error) => absent(error),
        }
    }

    /// Opens `dest`, creating it and what is above it if missing; sets up `.sealift` in it and locks it. Its identity
    /// is the one that is there, or else `fresh`, and is on the disk when this returns. Whether a directory without one
    /// may become a replica is for the caller to know: see [`Replica::marker`]. What an earlier receiver left in staging
    /// stays until [`Replica::clear_staging`].
    ///
    /// # Errors
    /// [`ReplicaError::Locked`] if another receiver holds it; [`ReplicaError::Marker`] if its identity is damaged;
    /// otherwise what the file system says.
    pub fn open(dest: &Path, fresh: ReplicaId) -> Result<Self, ReplicaError> {
        let destination = |source| ReplicaError::Destination { path: dest.into(), source };
        let failed = |action| move |source| ReplicaError::Staging { path: dest.into(), action, source };
        make_destination(dest).map_err(destination)?;
        let root = Root::open(dest).map_err(destination)?;
        let own = make_own_directory(root.dir(), RESERVED_NAME).map_err(failed("make .sealift"))?;
        let lock = open_own(own.as_fd(), LOCK, OFlags::RDWR | OFlags::CREATE)
            .map_err(failed("make .sealift/lock"))?;
        // The file stays for good, so that all lock the same one; the lock goes with the last descriptor.
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ReplicaError::Locked { path: dest.into() }),
            Err(error) => return Err(failed("lock .sealift/lock")(error.into())),
        }
        let id = match read_marker(own.as_fd()) {
            Ok(Some(id)) => id,
            Ok(None) => {
                write_marker(own.as_fd(), fresh).map_err(failed("write .sealift/id"))?;
                fresh
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ReplicaError::Marker { path: dest.into() });
            }
            Err(error) => return Err(failed("read .sealift/id")(error)),
        };
        let staging =
            make_own_directory(own.as_fd(), STAGING.as_bytes()).map_err(failed("make .sealift/staging"))?;
        manifest_file::clear_unfinished(own.as_fd()).map_err(failed("clear .sealift/manifest.new"))?;
        // Whoever made the names may have been killed before this.
        sync_directory(own.as_fd())
            .and_then(|()| sync_directory(root.dir()))
            .map_err(failed("sync .sealift"))?;
        Ok(Self { root, own, id, staging: Staging::new(staging, lock.into()), shown: dest.into() })
    }

    /// Which replica it is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// `.sealift`.
    pub(crate) fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// Removes what is left in staging, other than the names in `keep`, by earlier receivers and by this one: what it
    /// kept ([`StagedFile::keep`]) and let go. What it still stages is left alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear_staging(&self, keep: &HashSet<String>) -> io::Result<()> {
        clear(self.staging.dir(), |name| keep.contains(name) || self.staging.is_in_use(name))
    }

    /// Removes what this receiver staged and did not publish or keep, even if it is still held, and the staging
    /// directory if nothing else is in it. Identity, manifest and lock stay.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(&self) -> Result<(), ReplicaError> {
        let failed = |action| {
            move |source: io::Error| ReplicaError::Staging { path: self.shown.clone(), action, source }
        };
        let stays = |name: &str| !self.staging.is_of_this_run(name) || self.staging.is_kept(name);
        clear(self.staging.dir(), stays).map_err(failed("clear .sealift/staging"))?;
        match remove(self.own.as_fd(), STAGING.as_bytes(), AtFlags::REMOVEDIR) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(failed("remove .sealift/staging")(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the root an ordinary directory: `.sealift` is removed with all that is in it. Nothing can be staged after that.
    ///
    /// # Errors
    /// What the file system says.
    pub fn dissolve(&self) -> io::Result<()> {
        clear(self.staging.dir(), |_| false)?;
        remove(self.own.as_fd(), STAGING.as_bytes(), AtFlags::REMOVEDIR)?;
        clear(self.own.as_fd(), |_| false)?;
        remove(self.root.dir(), RESERVED_NAME, AtFlags::REMOVEDIR)?;
        sync_directory(self.root.dir())
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
        let mut staged = StagedFile::create(&self.staging, id, path, size_bytes, allocation)?;
        staged.list();
        Ok(staged)
    }

    /// Takes up a staged file that an earlier run kept ([`StagedFile::keep`]), to be written on. It is kept from the
    /// beginning. `None` if there is no such file, if it has another inode, size or a further name, or is taken up
    /// already: then what was written down about it is worth nothing. `path` is where it will belong.
    ///
    /// # Errors
    /// What the file system says, other than that it is not there.
    pub fn adopt_staged(
        &self,
        name: &str,
        _path: &SafePath,
        size_bytes: u64,
        inode: u64,
    ) -> io::Result<Option<StagedFile>> {
        StagedFile::adopt(&self.staging, name, size_bytes, inode)
    }

    /// Lets a staged file share the blocks of `from`, where the file system can do that (reflink): it then has the
    /// content of `from`, and its own length. `Ok(false)`, with the staged file as before, where it cannot.
    ///
    /// # Errors
    /// What the file system says, other than that it cannot; the content of the staged file is then unknown.
    pub fn clone_from(&self, staged: &StagedFile, from: &File) -> io::Result<bool> {
        let file = staged.file();
        let size_bytes = FileStat::of(file)?.size_bytes;
        match guard(Op::Clone, || rustix::fs::ioctl_ficlone(file, from)) {
            Ok(()) => {
                rustix::fs::ftruncate(file, size_bytes)?;
                Ok(true)
            }
            Err(
                Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::XDEV
                | Errno::PERM
                | Errno::TXTBSY,
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
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
        let fd = guard(Op::Open, || self.root.open_beneath(path, flags))?;
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

pub(crate) fn look(parents: &mut Parents<'_>, path: &SafePath) -> io::Result<Existing> {
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

/// Makes the destination and what is above it, durably.
fn make_destination(dest: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dest.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    guard(Op::Mkdir, || std::fs::create_dir_all(dest))?;
    for made in missing {
        let above = match made.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        match File::open(above) {
            Ok(above) => sync_directory(above.as_fd())?,
            // We may create there and not read: then all of the file system, by the descriptor that can be had.
            Err(_) => guard(Op::SyncAll, || Ok(rustix::fs::syncfs(File::open(dest)?)?))
                .map_err(|error: io::Error| error)?,
        }
    }
    Ok(())
}

pub(crate) fn sync_directory(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(guard(Op::Sync, || rustix::fs::fsync(dir))?)
}

/// Opens a directory of ours, 0700, making it if it is missing.
fn make_own_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match guard(Op::Mkdir, || rustix::fs::mkdirat(parent, name, Mode::RWXU)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = openat2(parent, name, DIRECTORY, Mode::empty())?;
    rustix::fs::fchmod(&dir, Mode::RWXU)?;
    Ok(dir)
}

/// Opens a file of ours in `.sealift`; a new one has 0600.
pub(crate) fn open_own(own: BorrowedFd<'_>, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (op, mode) = if flags.contains(OFlags::CREATE) {
        (Op::Create, Mode::RUSR | Mode::WUSR)
    } else {
        (Op::Open, Mode::empty())
    };
    let fd = guard(op, || openat2(own, name.as_bytes(), flags, mode))?;
    if stat::kind(&rustix::fs::fstat(&fd)?) != FileType::RegularFile {
        return Err(not_regular());
    }
    Ok(File::from(fd))
}

pub(crate) fn read_marker(own: BorrowedFd<'_>) -> io::Result<Option<ReplicaId>> {
    let file = match open_own(own, MARKER, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::with_capacity(ReplicaId::TEXT_BYTES + 1);
    file.take(ReplicaId::TEXT_BYTES as u64 + 1).read_to_end(&mut text)?;
    let id = text.strip_suffix(b"\n").and_then(ReplicaId::parse);
    id.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, ".sealift/id is damaged"))
}

/// Writes the marker as a whole. The name is durable once the directory is synced.
fn write_marker(own: BorrowedFd<'_>, id: ReplicaId) -> io::Result<()> {
    let file = open_own(own, MARKER_NEW, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
    faults::write_all_at(&file, format!("{id}\n").as_bytes(), 0)?;
    guard(Op::Sync, || file.sync_all())?;
    Ok(guard(Op::Rename, || rustix::fs::renameat(own, MARKER_NEW, own, MARKER))?)
}

/// Whether `name` in `parent` is what `fd` has open.
pub(crate) fn is_named(parent: BorrowedFd<'_>, name: &[u8], fd: BorrowedFd<'_>) -> io::Result<bool> {
    let open = FileStat::from_stat(&rustix::fs::fstat(fd)?);
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileStat::from_stat(&stat).same_inode(&open)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes every file in a directory of ours, other than those that stay.
fn clear(dir: BorrowedFd<'_>, stays: impl Fn(&str) -> bool) -> io::Result<()> {
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
            Ok(entry) if entry.file_name().to_str().is_ok_and(&stays) => {}
            Ok(entry) => names.push(entry.file_name().to_owned()),
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    for name in names {
        match remove(dir.as_fd(), name.to_bytes(), AtFlags::empty()) {
            // We make no directories there. Whoever did may have filled it, and keeps it then.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                match remove(dir.as_fd(), name.to_bytes(), AtFlags::REMOVEDIR) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    removed => removed?,
                }
            }
            removed => removed?,
        }
    }
    Ok(())
}

/// Removes a name, which may be gone already.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<()> {
    match guard(Op::Unlink, || rustix::fs::unlinkat(parent, name, flags)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    const ID: ReplicaId = ReplicaId([7; 16]);

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    #[test]
    fn a_second_receiver_is_kept_out_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Replica::open(dir.path(), ID).unwrap();
        let error = Replica::open(dir.path(), ID).unwrap_err();
        assert!(matches!(error, ReplicaError::Locked { .. }));
        assert!(error.to_string().contains("another sealift"), "{error}");
        drop(first);
        Replica::open(dir.path(), ID).unwrap().close().unwrap();
    }

    #[test]
    fn b10_what_a_killed_receiver_left_is_cleared_and_a_finished_one_leaves_what_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new/dest");
        fs::create_dir_all(dest.join(".sealift/staging")).unwrap();
        for name in ["7.00.0", "8.00.1"] {
            fs::write(dest.join(".sealift/staging").join(name), "torn").unwrap();
        }
        fs::write(dest.join(".sealift/manifest.new"), "torn").unwrap();
        let names = |dir: &str| -> BTreeSet<String> {
            let names = fs::read_dir(dest.join(dir)).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let replica = Replica::open(&dest, ID).unwrap();
        assert_eq!(fs::metadata(dest.join(".sealift")).unwrap().mode() & 0o7777, 0o700);
        let held = replica.create_staged(FileId(1), &path("x"), 10, Allocation::Sparse).unwrap();
        replica.clear_staging(&HashSet::from(["8.00.1".into()])).unwrap();
        assert_eq!(names(".sealift/staging"), set(&["8.00.1", held.name()]));
        replica.close().unwrap();
        assert_eq!(names(".sealift/staging"), set(&["8.00.1"]), "what others left is for them to clear");
        drop(held);
        replica.clear_staging(&HashSet::new()).unwrap();
        replica.close().unwrap();
        assert_eq!(names(""), set(&[".sealift"]));
        assert_eq!(names(".sealift"), set(&["id", "lock"]));
        replica.close().unwrap();
        replica.clear_staging(&HashSet::new()).unwrap();
    }

    #[test]
    fn b14_a_replica_is_known_by_its_marker_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new/dest");
        assert_eq!(Replica::marker(&dest).unwrap(), None);
        fs::create_dir_all(&dest).unwrap();
        assert_eq!(Replica::marker(&dest).unwrap(), None, "as of a mount point on which nothing is mounted");
        assert_eq!(fs::read_dir(&dest).unwrap().count(), 0, "only looked at");
        let replica = Replica::open(&dest, ID).unwrap();
        assert_eq!(replica.id(), ID);
        assert_eq!(Replica::marker(&dest).unwrap(), Some(ID), "for that nobody needs the lock");
        replica.close().unwrap();
        drop(replica);
        let text = fs::read(dest.join(".sealift/id")).unwrap();
        assert_eq!(text, format!("{}\n", "07".repeat(16)).as_bytes());
        assert_eq!(Replica::open(&dest, ReplicaId([8; 16])).unwrap().id(), ID, "the first one stays");
    }

    #[test]
    fn b14_a_damaged_marker_is_neither_believed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(Replica::open(dir.path(), ID).unwrap());
        let marker = dir.path().join(".sealift/id");
        let good = fs::read_to_string(&marker).unwrap();
        let with_capital = format!("{}A7\n", &good[..30]);
        for bad in ["", "\n", &good[..32], &format!("{good}\n"), &good.repeat(1 << 15), &with_capital] {
            fs::write(&marker, bad).unwrap();
            assert_eq!(Replica::marker(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
            let error = Replica::open(dir.path(), ID).unwrap_err();
            assert!(matches!(error, ReplicaError::Marker { .. }), "{error}");
            assert_eq!(fs::read_to_string(&marker).unwrap(), bad);
        }
        fs::remove_file(&marker).unwrap();
        fs::write(dir.path().join("other"), &good).unwrap();
        symlink("../other", &marker).unwrap();
        assert!(Replica::marker(dir.path()).is_err());
        assert!(Replica::open(dir.path(), ID).is_err());
        fs::remove_file(&marker).unwrap();
        fs::create_dir(&marker).unwrap();
        assert!(Replica::marker(dir.path()).is_err());
    }

    #[test]
    fn a_receiver_that_still_holds_a_staged_file_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ID).unwrap();
        let held = replica.create_staged(FileId(1), &path("x"), 10, Allocation::Sparse).unwrap();
        drop(replica);
        assert!(matches!(Replica::open(dir.path(), ID), Err(ReplicaError::Locked { .. })));
        drop(held);
        Replica::open(dir.path(), ID).unwrap();
    }

    #[test]
    fn blocks_are_shared_where_the_file_system_can() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ID).unwrap();
        fs::write(dir.path().join("old"), [7; 8192]).unwrap();
        let (old, _) = replica.open_existing(&path("old")).unwrap();
        let staged = replica.create_staged(FileId(1), &path("new"), 8192, Allocation::Sparse).unwrap();
        let shared = Replica::clone_from(&replica, &staged, &old).unwrap();
        eprintln!("reflink: {shared}");
        let mut content = vec![1; 8192];
        faults::read_exact_at(staged.file(), &mut content, 0).unwrap();
        assert!(content.iter().all(|&byte| byte == if shared { 7 } else { 0 }));
        assert_eq!(FileStat::of(staged.file()).unwrap().size_bytes, 8192);
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(reader));
        assert!(!Replica::clone_from(&replica, &staged, &pipe).unwrap_or(false));
    }

    #[test]
    fn our_directory_is_not_followed_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join(".sealift")).unwrap();
        assert!(matches!(Replica::open(dir.path(), ID), Err(ReplicaError::Staging { .. })));
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
                        match Replica::open(dir.path(), ID) {
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
        assert_eq!(fs::read_dir(dir.path().join(".sealift")).unwrap().count(), 2);
    }

    #[test]
    fn tells_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "hello").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        let fifo = dir.path().join("p");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let replica = Replica::open(dir.path(), ID).unwrap();
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
