//! A replica that is only looked at: nothing is made, no lock is kept, and a file system mounted read-only will do.
//!
//! Owns the root's descriptor and that of `.sealift`. Never changes anything beneath them.

use crate::manifest_file::ManifestReader;
use crate::replica::{Existing, LOCK, Replica, ReplicaId, look, open_own, read_marker};
use crate::root::Root;
use crate::source::{Offer, Source};
use crate::stat::{self, PERMISSION_BITS, Timestamp};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// See the module. Share it by `Arc`; its methods block and may be called from any thread.
#[derive(Debug)]
pub struct ReplicaView {
    root: Root,
    /// The same directory, as something to be read from.
    source: Source,
    /// `.sealift`.
    own: OwnedFd,
    id: ReplicaId,
}

impl ReplicaView {
    /// Opens the replica `dest`; `None` if there is none.
    ///
    /// # Errors
    /// What the file system says, other than that `dest` or its identity is missing; `InvalidData` if that is damaged.
    pub fn open(dest: &Path) -> io::Result<Option<Self>> {
        let Some(own) = Replica::own_directory(dest)? else { return Ok(None) };
        let Some(id) = read_marker(own.as_fd())? else { return Ok(None) };
        let root = Root::open(dest)?;
        let source = Source { offer: Offer::Tree(Root::from_dir(root.dir().try_clone_to_owned()?)?) };
        Ok(Some(Self { root, source, own, id }))
    }

    /// Which replica it is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Whether a receiver has it locked at this moment.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_busy(&self) -> io::Result<bool> {
        let lock = match open_own(self.own.as_fd(), LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            lock => lock?,
        };
        // Given up again at once.
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest that was committed last, if there is one.
    ///
    /// # Errors
    /// As [`ManifestReader::open`].
    pub fn manifest(&self) -> io::Result<Option<ManifestReader>> {
        ManifestReader::beneath(self.own.as_fd())
    }

    /// The replica as something that files are read from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
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

    /// Permission bits and time of the root itself.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn root_metadata(&self) -> io::Result<(u32, Timestamp)> {
        let stat = rustix::fs::fstat(self.root.dir())?;
        Ok((stat.st_mode & PERMISSION_BITS, stat::mtime(&stat)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_replica_is_looked_at_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ReplicaView::open(&dir.path().join("none")).unwrap().is_none());
        assert!(ReplicaView::open(dir.path()).unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o751)).unwrap();
        let view = ReplicaView::open(dir.path()).unwrap().unwrap();
        assert_eq!(view.id(), ReplicaId([7; 16]));
        assert!(view.is_busy().unwrap());
        drop(replica);
        assert!(!view.is_busy().unwrap());
        let again = Replica::open(dir.path(), ReplicaId([8; 16]));
        assert!(again.is_ok(), "looking locks nothing");
        assert!(view.manifest().unwrap().is_none());
        let paths = ["file", "link", "none"].map(|text| SafePath::parse(text.as_bytes()).unwrap());
        let found: Vec<_> = view.existing_batch(&paths).into_iter().map(Result::unwrap).collect();
        assert!(matches!(found[0], Existing::File(_)));
        assert!(matches!(&found[1], Existing::Symlink { target, .. } if target == b"file"));
        assert_eq!(found[2], Existing::Missing);
        assert_eq!(view.existing(&paths[0]).unwrap(), found[0]);
        assert_eq!(view.source().open_file(&paths[0]).unwrap().1.size_bytes, 7);
        assert_eq!(view.root_metadata().unwrap().0, 0o751);
        fs::remove_file(dir.path().join(".sealift/lock")).unwrap();
        assert!(!view.is_busy().unwrap());
        fs::write(dir.path().join(".sealift/id"), "damaged").unwrap();
        assert_eq!(ReplicaView::open(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
