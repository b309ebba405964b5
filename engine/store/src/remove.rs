//! Taking entries away, and out of the way.
//!
//! What is removed is looked at directly before, and only if it is what the caller saw. Directories go only when they
//! are empty. Never follows a link, and never removes what it cannot name beneath the root.

use crate::error::FileError;
use crate::faults::{Op, guard};
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
        let removed =
            Usable::retry(self, path, || guard(Op::Unlink, || rustix::fs::unlinkat(&parent, name, flags)));
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
        let rename = || guard(Op::Rename, || rename_to_new(&parent, name, new_name));
        match Usable::retry(self, path, rename) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplicaId;
    use crate::stat::Timestamp;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn open(dir: &Path) -> Replica {
        Replica::open(dir, ReplicaId([7; 16])).unwrap()
    }

    fn stat(dir: &Path, name: &str) -> FileStat {
        FileStat::of(&fs::File::open(dir.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn only_what_is_expected_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let dir = &base.path().join("dest");
        fs::create_dir_all(dir.join("full/of")).unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        for name in ["f", "g", "full/f"] {
            fs::write(dir.join(name), name).unwrap();
        }
        symlink("anywhere", dir.join("link")).unwrap();
        symlink(base.path(), dir.join("out")).unwrap();
        fs::write(base.path().join("f"), "outside").unwrap();
        let replica = open(dir);
        let file = RemoveExpected::File;
        let link = |target: &[u8]| RemoveExpected::Symlink { target_hash: link_target_hash(target) };
        let directory = RemoveExpected::Directory;
        let [f, g] = ["f", "g"].map(|name| stat(dir, name));
        let outside = stat(base.path(), "f");
        let later = Timestamp { seconds: f.mtime.seconds + 1, nanos: 0 };
        use Removal::{Absent, Differs, NotEmpty, Removed};
        for (name, expected, removal) in [
            ("f", file(g), Differs),
            ("f", file(FileStat { size_bytes: 9, ..f }), Differs),
            ("f", file(FileStat { mtime: later, ..f }), Differs),
            ("f", link(b"f"), Differs),
            ("f", directory, Differs),
            ("f", file(FileStat { device: 0, mode: 0, links: 9, ctime: later, ..f }), Removed),
            ("f", file(f), Absent),
            ("f/x", file(f), Absent),
            ("none/x", directory, Absent),
            ("out/f", file(outside), Absent),
            ("out", file(outside), Differs),
            ("out", directory, Differs),
            ("link", link(b"elsewhere"), Differs),
            ("link", link(b"anywhere"), Removed),
            ("link", link(b"anywhere"), Absent),
            ("empty", file(f), Differs),
            ("empty", directory, Removed),
            ("full", directory, NotEmpty),
        ] {
            assert_eq!(replica.remove_entry(&path(name), &expected).unwrap(), removal, "{name} {expected:?}");
        }
        assert!(dir.join("full/of").is_dir() && dir.join("g").exists() && base.path().join("f").exists());
    }

    #[test]
    fn entries_are_set_aside_and_never_over_something() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        for name in ["d/f", "d/taken"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        symlink("f", dir.path().join("d/l")).unwrap();
        let replica = open(dir.path());
        let aside = |name, new: &[u8]| replica.set_aside(&path(name), new);
        let taken = aside("d/f", b"taken").unwrap_err();
        assert!(matches!(&taken, FileError::Exists { path: at } if *at == path("d/taken")), "{taken}");
        assert!(matches!(aside("d/sub", b"taken"), Err(FileError::Exists { .. })));
        for bad in [&b""[..], b".", b"..", b"a/b", b"/a", b"a/", b".sealift", b"a\0b", &[b'x'; 256]] {
            assert!(matches!(aside("d/f", bad), Err(FileError::Io { .. })), "{bad:?}");
        }
        assert!(aside("d/none", b"new").is_err());
        assert!(matches!(aside("none/f", b"new"), Err(FileError::NoParent { .. })));
        for (name, new) in [("d/f", "f2"), ("d/l", "l2"), ("d/sub", "sub2"), ("d", "d2")] {
            let expected = path(&format!("{}{new}", if name == "d" { "" } else { "d/" }));
            assert_eq!(aside(name, new.as_bytes()).unwrap(), expected);
        }
        assert_eq!(fs::read_to_string(dir.path().join("d2/f2")).unwrap(), "d/f");
        assert_eq!(fs::read_to_string(dir.path().join("d2/taken")).unwrap(), "d/taken");
        assert!(dir.path().join("d2/sub2").is_dir());
        assert_eq!(fs::read_link(dir.path().join("d2/l2")).unwrap().as_os_str(), "f");
    }

    #[test]
    fn what_is_in_a_directory_without_rights_is_removed_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["d/f", "d/g"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let replica = open(dir.path());
        let f = stat(dir.path(), "d/f");
        let forbid = || fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o500)).unwrap();
        forbid();
        assert_eq!(replica.remove_entry(&path("d/f"), &RemoveExpected::File(f)).unwrap(), Removal::Removed);
        replica.set_aside(&path("d/g"), b"h").unwrap();
        assert_eq!(fs::metadata(dir.path().join("d")).unwrap().mode() & 0o7777, 0o500);
        fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(dir.path().join("d/h").exists());
    }

    #[test]
    fn a_directory_that_forbids_it_gets_its_mode_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o500)).unwrap();
        let replica = open(dir.path());
        let mode = || fs::metadata(dir.path().join("d")).unwrap().mode() & 0o7777;
        // Root may do anything: the refusal is made up.
        let mut modes = Vec::new();
        let mut first = true;
        let result = Usable::retry(&replica, &path("d/x"), || {
            modes.push(mode());
            if std::mem::take(&mut first) { Err(Errno::ACCESS) } else { Ok(5) }
        });
        assert_eq!(result, Ok(5));
        assert_eq!((modes, mode()), (vec![0o500, 0o700], 0o500));
        let denied = Usable::retry(&replica, &path("d/x"), || Err::<(), _>(Errno::ACCESS));
        assert_eq!((denied, mode()), (Err(Errno::ACCESS), 0o500));
    }
}
