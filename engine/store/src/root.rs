//! The one way from a path to a descriptor: everything is resolved by `openat2` beneath an open directory, with no
//! symbolic link followed anywhere on the way (hazard A4).
//!
//! Owns the directory's descriptor. Never resolves a string that is not a [`SafePath`], and never goes up.
//!
//! What a race can and cannot do. A descriptor got here refers to a directory that lay beneath the root when it was
//! opened, and goes on referring to that very directory, whatever its name becomes. Whoever swaps the *name* for a
//! symbolic link thus redirects nothing. Whoever *moves* the directory itself out of the root takes with it what is
//! created in it afterwards, as they could have done just as well a moment later; they gain nothing, since that
//! needs write access to both places. [`Parents`] therefore keeps a descriptor only as long as one batch lasts.

use crate::limits;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// How directories are opened: readable, so that they can be listed and synced.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory that everything else is resolved beneath. Share it by `Arc` or by reference.
#[derive(Debug)]
pub struct Root {
    dir: Arc<OwnedFd>,
}

/// An open directory beneath a root (or the root itself). Cheap to clone.
#[derive(Clone, Debug)]
pub struct ParentDir(Arc<OwnedFd>);

impl AsFd for ParentDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens a directory that the user named; symbolic links on the way there are the user's own and are followed.
    ///
    /// # Errors
    /// Those of `open`; `Unsupported` if the kernel has no `openat2` (before Linux 5.6).
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::from_dir(rustix::fs::open(directory, flags, Mode::empty())?)
    }

    /// The root that is an already open directory.
    pub(crate) fn from_dir(dir: OwnedFd) -> io::Result<Self> {
        let root = Self { dir: Arc::new(dir) };
        openat2(root.dir(), b".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(root)
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory itself, as a parent.
    #[must_use]
    pub fn as_parent(&self) -> ParentDir {
        ParentDir(Arc::clone(&self.dir))
    }

    /// Opens what `path` names beneath the root.
    pub(crate) fn open_beneath(&self, path: &SafePath, flags: OFlags) -> io::Result<OwnedFd> {
        openat2(self.dir(), path.as_bytes(), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// The open directory above `path`, and the name of `path` within it.
    ///
    /// # Errors
    /// Those of `openat2`: `NotFound`, `NotADirectory`, or ELOOP if a component is a symbolic link.
    pub fn parent_of<'p>(&self, path: &'p SafePath) -> io::Result<(ParentDir, &'p [u8])> {
        let dir = match path.parent() {
            None => self.as_parent(),
            Some(parent) => ParentDir(Arc::new(self.open_beneath(&parent, DIRECTORY)?)),
        };
        Ok((dir, path.name()))
    }

    /// Parents for one batch of paths.
    #[must_use]
    pub fn parents(&self) -> Parents<'_> {
        Parents { root: self, last: None }
    }
}

/// Resolves the parents of many paths, keeping the one used last: thousands of files in few directories, given in
/// order, cost one resolution for each directory. Lives no longer than a batch; see the module on what that allows.
#[derive(Debug)]
pub struct Parents<'r> {
    root: &'r Root,
    last: Option<(SafePath, ParentDir)>,
}

impl Parents<'_> {
    /// As [`Root::parent_of`].
    ///
    /// # Errors
    /// As [`Root::parent_of`].
    pub fn of<'p>(&mut self, path: &'p SafePath) -> io::Result<(ParentDir, &'p [u8])> {
        let name = path.name();
        let bytes = path.as_bytes();
        if bytes.len() == name.len() {
            return Ok((self.root.as_parent(), name));
        }
        let above = &bytes[..bytes.len() - name.len() - 1];
        if let Some((last, dir)) = &self.last
            && last.as_bytes() == above
        {
            return Ok((dir.clone(), name));
        }
        let (dir, name) = self.root.parent_of(path)?;
        self.last = path.parent().map(|parent| (parent, dir.clone()));
        Ok((dir, name))
    }

    /// Forgets the directory used last: the next path is resolved anew.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// `openat2` beneath `dir`, no links followed.
pub(crate) fn openat2(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, mode, BENEATH) {
            Err(Errno::AGAIN | Errno::INTR) if tries < limits::RESOLVE_TRIES_MAX => tries += 1,
            Err(Errno::NOSYS) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the kernel lacks openat2; Sealift needs Linux 5.6 or newer",
                ));
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    #[test]
    fn a4_no_component_may_be_a_link() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        fs::create_dir(inside.path().join("real")).unwrap();
        fs::write(inside.path().join("real/file"), "y").unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("real", inside.path().join("in")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        assert!(root.parent_of(&path("real/file")).is_ok());
        for bad in ["out/secret", "in/file"] {
            let error = root.parent_of(&path(bad)).unwrap_err();
            // With O_DIRECTORY|O_NOFOLLOW a link as last component is ENOTDIR or ELOOP by kernel version.
            assert!(matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NOTDIR)), "{error}");
            let error = root.open_beneath(&path(bad), OFlags::RDONLY).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));
        }
        let error = root.open_beneath(&path("out"), OFlags::RDONLY).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));
    }

    #[test]
    fn a_batch_resolves_a_directory_once_and_sees_a_new_one_when_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut parents = root.parents();
        let (first, name) = parents.of(&path("a/b/one")).map(|(dir, name)| (dir, name.to_vec())).unwrap();
        assert_eq!(name, b"one");
        let (second, _) = parents.of(&path("a/b/two")).unwrap();
        assert!(Arc::ptr_eq(&first.0, &second.0));
        let (top, name) = parents.of(&path("top")).map(|(dir, name)| (dir, name.to_vec())).unwrap();
        assert_eq!(name, b"top");
        assert!(Arc::ptr_eq(&top.0, &root.dir));
        fs::rename(dir.path().join("a"), dir.path().join("gone")).unwrap();
        assert!(parents.of(&path("a/b/three")).is_ok());
        parents.forget();
        assert!(parents.of(&path("a/b/three")).is_err());
    }
}
