//! Lists what a source offers: parents before children, names sorted by bytes within a directory.
//!
//! Owns one open descriptor and one list of names for each level it is in, so that its memory is bounded by depth
//! times the size of a directory, whatever the size of the tree. Blocks: run it on its own thread. Never follows a
//! symbolic link, never reads content; what cannot be listed becomes a [`Found::Problem`] and the walk goes on.

use crate::limits::DIRECTORY_READ_BYTES;
use crate::root::{DIRECTORY, openat2};
use crate::source::{NamedWhat, Offer, Source};
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use sealift_proto::path::{PathError, RESERVED_NAME, SafePath};
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One entry, or the reason why there is none. Times are within what a manifest carries; modes are permission bits.
#[derive(Debug)]
pub enum Found {
    /// The offered directory itself; only when the source is a single directory, and then first.
    Root {
        /// Permission bits.
        mode: u32,
        /// Last modification.
        mtime: Timestamp,
    },
    /// A directory; its contents follow.
    Directory {
        /// Where.
        path: SafePath,
        /// Permission bits.
        mode: u32,
        /// Last modification.
        mtime: Timestamp,
    },
    /// A regular file.
    File {
        /// Where.
        path: SafePath,
        /// Its inode; the mtime is within what a manifest carries only after [`Timestamp::clamped`].
        stat: FileStat,
    },
    /// A symbolic link, not followed.
    Symlink {
        /// Where.
        path: SafePath,
        /// Where it points, as it is written in the link.
        target: Vec<u8>,
        /// Last modification.
        mtime: Timestamp,
    },
    /// Something that cannot be carried.
    Problem {
        /// Where, as raw bytes since they need not be a safe path. Show them by [`sealift_proto::path::escape`].
        /// Empty for the offered directory itself.
        path: Vec<u8>,
        /// Why.
        kind: ProblemKind,
    },
}

/// Why something in the tree is not carried.
#[derive(Debug, thiserror::Error)]
pub enum ProblemKind {
    /// A device, FIFO or socket.
    #[error("is a device, FIFO or socket")]
    Special,
    /// It cannot be opened or looked at; for a directory, (the rest of) its contents are missing.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// Its path is none that a manifest can carry: too deep, too long, or a reserved name.
    #[error("{0}")]
    BadName(PathError),
}

/// The walk: an iterator over everything offered.
#[derive(Debug)]
pub struct Walk<'s> {
    source: &'s Source,
    levels: Vec<Level>,
    pending: VecDeque<Found>,
    /// For several named paths: the next one.
    next_named: usize,
    buffer: Vec<MaybeUninit<u8>>,
}

#[derive(Debug)]
struct Level {
    dir: OwnedFd,
    path: Option<SafePath>,
    /// Whether this is a directory that the user named, where our own directory is left out.
    top: bool,
    names: std::vec::IntoIter<Box<[u8]>>,
}

impl<'s> Walk<'s> {
    /// Begins a walk. Nothing is read before the first call of `next`.
    #[must_use]
    pub fn new(source: &'s Source) -> Self {
        let buffer = vec![MaybeUninit::uninit(); DIRECTORY_READ_BYTES];
        Self { source, levels: Vec::new(), pending: VecDeque::new(), next_named: 0, buffer }
    }

    /// Goes down into an open directory, announcing it first.
    fn enter(&mut self, dir: OwnedFd, path: Option<SafePath>, top: bool) {
        let stat = match rustix::fs::fstat(&dir) {
            Ok(stat) => stat,
            Err(error) => return self.problem(path.as_ref(), ProblemKind::Unreadable(error.into())),
        };
        let (mode, mtime) = (stat.st_mode & PERMISSION_BITS, stat::mtime(&stat).clamped());
        self.pending.push_back(match path.clone() {
            None => Found::Root { mode, mtime },
            Some(path) => Found::Directory { path, mode, mtime },
        });
        let mut names = Vec::new();
        if let Err(error) = self.list(dir.as_fd(), &mut names) {
            self.problem(path.as_ref(), ProblemKind::Unreadable(error));
        }
        names.sort_unstable();
        self.levels.push(Level { dir, path, top, names: names.into_iter() });
    }

    fn list(&mut self, dir: BorrowedFd<'_>, names: &mut Vec<Box<[u8]>>) -> io::Result<()> {
        let mut entries = RawDir::new(dir, &mut self.buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => names.push(name.into()),
                },
                Err(Errno::INTR) => {}
                // The directory was removed meanwhile.
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn problem(&mut self, path: Option<&SafePath>, kind: ProblemKind) {
        let path = path.map_or_else(Vec::new, |path| path.as_bytes().to_vec());
        self.pending.push_back(Found::Problem { path, kind });
    }

    /// Looks at one name of the deepest level.
    fn visit(&mut self, name: &[u8]) {
        let Some(level) = self.levels.last() else { return };
        let dir = level.dir.as_fd();
        let looked = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = looked.as_ref().is_ok_and(|stat| stat::kind(stat) == FileType::Directory);
        if level.top && name == RESERVED_NAME && is_directory {
            return;
        }
        let path = match SafePath::join(level.path.as_ref(), name) {
            Ok(path) => path,
            Err(error) => {
                let mut path = level.path.as_ref().map_or_else(Vec::new, |path| path.as_bytes().to_vec());
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                self.pending.push_back(Found::Problem { path, kind: ProblemKind::BadName(error) });
                return;
            }
        };
        let stat = match looked {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(error) => return self.problem(Some(&path), ProblemKind::Unreadable(error.into())),
        };
        match stat::kind(&stat) {
            FileType::RegularFile => {
                self.pending.push_back(Found::File { path, stat: FileStat::from_stat(&stat) });
            }
            FileType::Directory => match openat2(dir, name, DIRECTORY, Mode::empty()) {
                Ok(dir) => self.enter(dir, Some(path), false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(Some(&path), ProblemKind::Unreadable(error)),
            },
            FileType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => self.pending.push_back(Found::Symlink {
                    path,
                    target: target.into_bytes(),
                    mtime: stat::mtime(&stat).clamped(),
                }),
                Err(Errno::NOENT) => {}
                Err(error) => self.problem(Some(&path), ProblemKind::Unreadable(error.into())),
            },
            _ => self.problem(Some(&path), ProblemKind::Special),
        }
    }

    /// Begins the next path that the user named. False when there is none left.
    fn next_top(&mut self) -> bool {
        let index = self.next_named;
        self.next_named += 1;
        let source = self.source;
        let (root, name) = match &source.offer {
            Offer::Tree(root) if index == 0 => (root, None),
            Offer::Tree(_) => return false,
            Offer::Named(named) => match named.get(index) {
                None => return false,
                Some(named) => match &named.what {
                    NamedWhat::Tree(root) => (root, Some(&named.name)),
                    NamedWhat::FileIn(_) => {
                        self.visit_named_file(&named.name);
                        return true;
                    }
                },
            },
        };
        // Opened anew: reading a directory moves its descriptor's offset, which would be shared.
        match openat2(root.dir(), b".", DIRECTORY, Mode::empty()) {
            Ok(dir) => self.enter(dir, name.cloned(), true),
            Err(error) => self.problem(name, ProblemKind::Unreadable(error)),
        }
        true
    }

    fn visit_named_file(&mut self, name: &SafePath) {
        let Offer::Named(named) = &self.source.offer else { return };
        let Some(NamedWhat::FileIn(above)) =
            named.iter().find(|item| item.name == *name).map(|item| &item.what)
        else {
            return;
        };
        let opened = above.open_beneath(name, OFlags::PATH).and_then(|fd| Ok(rustix::fs::fstat(fd)?));
        match opened {
            Ok(stat) if stat::kind(&stat) == FileType::RegularFile => {
                self.pending.push_back(Found::File { path: name.clone(), stat: FileStat::from_stat(&stat) })
            }
            Ok(_) => self.problem(Some(name), ProblemKind::Special),
            // The user named it: that it has gone is worth telling.
            Err(error) => self.problem(Some(name), ProblemKind::Unreadable(error)),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(found) = self.pending.pop_front() {
                return Some(found);
            }
            match self.levels.last_mut().map(|level| level.names.next()) {
                Some(Some(name)) => self.visit(&name),
                Some(None) => {
                    self.levels.pop();
                }
                None if self.next_top() => {}
                None => return None,
            }
        }
    }
}
