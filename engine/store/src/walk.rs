//! Lists what a source offers: parents before children, names sorted by bytes within a directory.
//!
//! Owns one open descriptor and one list of names for each level it is in, so that its memory is bounded by depth
//! times the size of a directory, whatever the size of the tree. Blocks: run it on its own thread. Never follows a
//! symbolic link, never reads content; what cannot be listed becomes a [`Found::Problem`] and the walk goes on.

use crate::limits::DIRECTORY_READ_BYTES;
use crate::root::{DIRECTORY, Root, openat2};
use crate::source::{NamedWhat, Offer, Source};
use crate::stat::{self, FileStat, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use sealift_proto::path::{PathError, RESERVED_NAME, SafePath};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One entry, or the reason why there is none. Times are as the file system has them; modes are permission bits.
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
        /// Its inode.
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
    names: Names,
}

/// The names in a directory, in one piece of memory.
#[derive(Debug, Default)]
struct Names {
    /// Each with a NUL after it, as the kernel takes them.
    bytes: Vec<u8>,
    /// Where each begins and ends.
    places: Vec<(usize, usize)>,
    /// How many were taken.
    taken: usize,
}

impl Names {
    fn push(&mut self, name: &CStr) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.places.push((start, self.bytes.len()));
    }

    fn sort(&mut self) {
        let Self { bytes, places, .. } = self;
        // The NUL at the end comes before every byte of a longer name.
        places.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
    }

    fn next(&mut self) -> Option<&CStr> {
        let (start, end) = *self.places.get(self.taken)?;
        self.taken += 1;
        Some(CStr::from_bytes_with_nul(&self.bytes[start..end]).expect("as it was pushed"))
    }
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
        let (mode, mtime) = (stat.st_mode & PERMISSION_BITS, stat::mtime(&stat));
        self.pending.push_back(match path.clone() {
            None => Found::Root { mode, mtime },
            Some(path) => Found::Directory { path, mode, mtime },
        });
        let mut names = Names::default();
        if let Err(error) = self.list(dir.as_fd(), &mut names) {
            self.problem(path.as_ref(), ProblemKind::Unreadable(error));
        }
        names.sort();
        self.levels.push(Level { dir, path, top, names });
    }

    fn list(&mut self, dir: BorrowedFd<'_>, names: &mut Names) -> io::Result<()> {
        let mut entries = RawDir::new(dir, &mut self.buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => match entry.file_name() {
                    name if matches!(name.to_bytes(), b"." | b"..") => {}
                    name => names.push(name),
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

    /// Looks at the next name of the deepest level. False if it has none left.
    fn visit_next(&mut self) -> bool {
        let Some(Level { dir, path: above, top, names }) = self.levels.last_mut() else { return false };
        let Some(name) = names.next() else { return false };
        let looked = rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = looked.as_ref().is_ok_and(|stat| stat::kind(stat) == FileType::Directory);
        if *top && name.to_bytes() == RESERVED_NAME && is_directory {
            return true;
        }
        let path = match SafePath::join(above.as_ref(), name.to_bytes()) {
            Ok(path) => path,
            Err(error) => {
                let mut path = above.as_ref().map_or_else(Vec::new, |path| path.as_bytes().to_vec());
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name.to_bytes());
                self.pending.push_back(Found::Problem { path, kind: ProblemKind::BadName(error) });
                return true;
            }
        };
        let stat = match looked {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return true,
            Err(error) => {
                self.problem(Some(&path), ProblemKind::Unreadable(error.into()));
                return true;
            }
        };
        match stat::kind(&stat) {
            FileType::RegularFile => {
                self.pending.push_back(Found::File { path, stat: FileStat::from_stat(&stat) });
            }
            FileType::Directory => match openat2(dir.as_fd(), name.to_bytes(), DIRECTORY, Mode::empty()) {
                Ok(dir) => self.enter(dir, Some(path), false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(Some(&path), ProblemKind::Unreadable(error)),
            },
            FileType::Symlink => match rustix::fs::readlinkat(&*dir, name, Vec::new()) {
                Ok(target) => self.pending.push_back(Found::Symlink {
                    path,
                    target: target.into_bytes(),
                    mtime: stat::mtime(&stat),
                }),
                Err(Errno::NOENT) => {}
                Err(error) => self.problem(Some(&path), ProblemKind::Unreadable(error.into())),
            },
            _ => self.problem(Some(&path), ProblemKind::Special),
        }
        true
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
                    NamedWhat::FileIn(above) => {
                        self.visit_named_file(above, &named.name);
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

    fn visit_named_file(&mut self, above: &Root, name: &SafePath) {
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
            if !self.visit_next() && self.levels.pop().is_none() && !self.next_top() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_proto::path::escape;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    /// One line for each entry, in order.
    fn lines(paths: &[PathBuf]) -> Vec<String> {
        let source = Source::open(paths).unwrap();
        Walk::new(&source)
            .map(|found| match found {
                Found::Root { .. } => "root".into(),
                Found::Directory { path, .. } => format!("dir {path}"),
                Found::File { path, stat } => format!("file {path} {}", stat.size_bytes),
                Found::Symlink { path, target, .. } => format!("link {path} -> {}", escape(&target)),
                Found::Problem { path, kind } => {
                    let kind = match kind {
                        ProblemKind::Special => "special".into(),
                        ProblemKind::Unreadable(error) => format!("{:?}", error.kind()),
                        ProblemKind::BadName(error) => format!("{error:?}"),
                    };
                    format!("problem {} {kind}", escape(&path))
                }
            })
            .collect()
    }

    fn touch(dir: &Path, name: &[u8]) {
        fs::write(dir.join(OsStr::from_bytes(name)), "x").unwrap();
    }

    #[test]
    fn parents_come_first_and_names_are_sorted_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/empty")).unwrap();
        for name in ["b/z", "b/a", "b-", "B", "b0"] {
            touch(dir.path(), name.as_bytes());
        }
        assert_eq!(
            lines(&[dir.path().into()]),
            [
                "root",
                "file B 1",
                "dir b",
                "file b/a 1",
                "dir b/empty",
                "file b/z 1",
                "file b- 1",
                "file b0 1"
            ]
        );
    }

    #[test]
    fn a2_a6_odd_names_and_kinds_are_carried_or_told() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), b"caf\xe9");
        touch(dir.path(), b"new\nline");
        let long = [b'n'; 255];
        touch(dir.path(), &long);
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        symlink(".", dir.path().join("loop")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let long = format!("file {} 1", "n".repeat(255));
        assert_eq!(
            lines(&[dir.path().into()]),
            [
                "root",
                "file caf\\xe9 1",
                "link dangling -> /nowhere",
                "problem fifo special",
                "link loop -> .",
                "file new\\x0aline 1",
                long.as_str()
            ]
        );
    }

    #[test]
    fn a8_our_own_directory_is_left_out_and_any_other_of_its_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".sealift/staging")).unwrap();
        fs::create_dir_all(dir.path().join("sub/.sealift")).unwrap();
        assert_eq!(lines(&[dir.path().into()]), ["root", "dir sub", "problem sub/.sealift Reserved"]);
        let other = tempfile::tempdir().unwrap();
        touch(other.path(), b".sealift");
        assert_eq!(lines(&[other.path().into()]), ["root", "problem .sealift Reserved"]);
        let named = [dir.path().join("sub"), dir.path().into()];
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        assert!(lines(&named).contains(&format!("problem {name}/sub/.sealift Reserved")));
        assert!(!lines(&named).iter().any(|line| line.contains("staging")));
    }

    #[test]
    fn a1_depth_is_walked_to_the_limit_and_told_beyond() {
        for (depth, told) in [(200, 0), (256, 0), (257, 1), (300, 1)] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("d/".repeat(depth))).unwrap();
            let lines = lines(&[dir.path().into()]);
            assert_eq!(lines.iter().filter(|line| line.starts_with("dir ")).count(), depth.min(256));
            assert_eq!(lines.iter().filter(|line| line.ends_with(" TooDeep")).count(), told);
        }
    }

    #[test]
    fn named_paths_come_under_their_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        touch(dir.path(), b"tree/x");
        touch(dir.path(), b"file");
        assert_eq!(
            lines(&[dir.path().join("tree"), dir.path().join("file")]),
            ["file file 1", "dir tree", "file tree/x 1"]
        );
        assert_eq!(lines(&[dir.path().join("file")]), ["file file 1"]);
    }

    #[test]
    fn what_cannot_be_opened_is_told_and_the_walk_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("closed")).unwrap();
        touch(dir.path(), b"open");
        fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
        let lines = lines(&[dir.path().into()]);
        // Root opens everything.
        let closed = if fs::read_dir(dir.path().join("closed")).is_ok() {
            "dir closed"
        } else {
            "problem closed PermissionDenied"
        };
        assert_eq!(lines, ["root", closed, "file open 1"]);
        fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn what_vanishes_meanwhile_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            touch(dir.path(), name.as_bytes());
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        let source = Source::open(&[dir.path().into()]).unwrap();
        let mut walk = Walk::new(&source);
        assert!(matches!(walk.next(), Some(Found::Root { .. })));
        fs::remove_file(dir.path().join("b")).unwrap();
        fs::remove_dir(dir.path().join("d")).unwrap();
        assert_eq!(walk.count(), 2);
    }
}
