//! Files that have no name until they are put in their place (`O_TMPFILE`): the kernel then makes many at a time in one
//! directory, where names would be made one after the other, and nothing is left of one that is not finished.
//!
//! For small files that are not synced first. A file without a name is not safe from a power cut, whatever was synced;
//! and its descriptor is held, so there is a bound on how many there are.

use crate::faults::{Op, guard};
use crate::limits::NAMELESS_FILES_MAX;
use crate::root::openat2;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What part of this process's descriptors they may take.
const DESCRIPTORS_PART: u64 = 4;

/// Who makes them in one directory.
#[derive(Debug)]
pub(crate) struct NamelessFiles {
    open: Arc<AtomicUsize>,
    most: usize,
    /// How they get a name; `None` inside if the file system or the kernel has no such files.
    way: OnceLock<Option<Way>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By their descriptor: from Linux 6.10, and before with the rights of root.
    Descriptor,
    Proc,
}

/// A file that has no name yet, and is gone with this.
#[derive(Debug)]
pub(crate) struct NamelessFile {
    file: Arc<File>,
    way: Way,
    _place: Place,
}

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NamelessFiles {
    pub(crate) fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(descriptors / DESCRIPTORS_PART).unwrap_or(usize::MAX);
        Self { open: Arc::default(), most: most.min(NAMELESS_FILES_MAX), way: OnceLock::new() }
    }

    /// A new file, 0600, of the file system of `dir`; `None` if there are too many already or cannot be any. A name in `dir`
    /// that nothing has is needed once, to try it.
    pub(crate) fn create(
        &self,
        dir: BorrowedFd<'_>,
        fresh_name: impl FnOnce() -> String,
    ) -> io::Result<Option<NamelessFile>> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.open));
        if before >= self.most {
            return Ok(None);
        }
        let way = match self.way.get() {
            Some(way) => *way,
            None => *self.way.get_or_init(|| find_way(dir, &fresh_name())),
        };
        let Some(way) = way else { return Ok(None) };
        let file = guard(Op::Create, || open(dir))?;
        Ok(Some(NamelessFile { file: Arc::new(file), way, _place: place }))
    }
}

impl NamelessFile {
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Gives it a name, if nothing has that name.
    pub(crate) fn link(&self, dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
        guard(Op::Link, || link(&self.file, self.way, dir.as_fd(), name))
    }
}

fn open(dir: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    openat2(dir, b".", flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn link(file: &File, way: Way, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match way {
        Way::Descriptor => rustix::fs::linkat(file, c"", dir, name, AtFlags::EMPTY_PATH),
        Way::Proc => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
        }
    }
}

/// Tries which way there is.
fn find_way(dir: BorrowedFd<'_>, name: &str) -> Option<Way> {
    let file = open(dir).ok()?;
    let mut ways = [Way::Descriptor, Way::Proc].into_iter();
    let way = ways.find(|way| link(&file, *way, dir, name.as_bytes()).is_ok())?;
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
    Some(way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    fn open_dir(path: &std::path::Path) -> std::os::fd::OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_file_has_no_name_until_it_gets_one_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path());
        let files = NamelessFiles::new();
        let create = || files.create(fd.as_fd(), || "tried".into()).unwrap();
        let Some(file) = create() else { return eprintln!("skipped: this file system has no such files") };
        assert_eq!(file.file().metadata().unwrap().mode() & 0o7777, 0o600);
        file.file().write_all_at(b"content", 0).unwrap();
        file.file().set_permissions(fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nor is what was tried left");
        fs::write(dir.path().join("taken"), "another").unwrap();
        assert_eq!(file.link(&fd, b"taken"), Err(Errno::EXIST));
        file.link(&fd, b"name").unwrap();
        drop(file);
        assert_eq!(fs::read(dir.path().join("name")).unwrap(), b"content");
        assert_eq!(fs::read(dir.path().join("taken")).unwrap(), b"another");
        drop(create());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn each_way_that_the_kernel_has_gives_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path());
        let Ok(file) = open(fd.as_fd()) else { return eprintln!("skipped: no such files") };
        link(&file, Way::Proc, fd.as_fd(), b"proc").unwrap();
        assert!(dir.path().join("proc").exists());
        let found = find_way(fd.as_fd(), "tried").unwrap();
        link(&open(fd.as_fd()).unwrap(), found, fd.as_fd(), b"found").unwrap();
    }

    #[test]
    fn there_are_no_more_than_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path());
        let files = NamelessFiles { most: 2, ..NamelessFiles::new() };
        let create = || files.create(fd.as_fd(), || "tried".into()).unwrap();
        let Some(first) = create() else { return eprintln!("skipped: no such files") };
        let second = create();
        assert!(second.is_some() && create().is_none() && create().is_none());
        drop(first);
        assert!(create().is_some());
    }

    #[test]
    fn a_file_system_without_them_is_found_out_once() {
        // Nothing can be made in /proc.
        let fd = open_dir(std::path::Path::new("/proc"));
        let files = NamelessFiles::new();
        for _ in 0..2 {
            assert!(files.create(fd.as_fd(), || "tried".into()).unwrap().is_none());
        }
        assert_eq!(files.way.get(), Some(&None));
    }
}
