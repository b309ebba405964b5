//! Puts verified files in their places, by the batch: read-back if it is asked for, sync, rename. And, at the very
//! end, what needs everything else to be in place: further names of files, and the metadata of directories.

use super::local::read_back;
use super::{Verify, entries::DirectoryEntry};
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::{HashAlgorithm, RootHash, root};
use sealift_proto::path::SafePath;
use sealift_store::{Durability, Ready, Replica, Timestamp};
use std::collections::HashSet;
use std::sync::Arc;

/// A file that is complete, verified and staged.
pub struct Complete {
    /// Its number.
    pub id: FileId,
    /// The file.
    pub ready: Ready,
    /// Its layout.
    pub layout: Layout,
    /// The signed root.
    pub root: RootHash,
}

/// A file that was published, or why not.
pub struct Placed {
    /// Its number.
    pub id: FileId,
    /// How it went.
    pub result: Result<(), String>,
}

/// Publishes a batch. Blocks.
pub fn publish(
    replica: &Replica,
    algorithm: HashAlgorithm,
    durability: Durability,
    verify: Verify,
    mut batch: Vec<Complete>,
) -> Vec<Placed> {
    // In the order of paths each directory is looked up once.
    batch.sort_by(|a, b| a.ready.path().cmp(b.ready.path()));
    let mut placed = Vec::with_capacity(batch.len());
    let mut ids = Vec::with_capacity(batch.len());
    let mut ready = Vec::with_capacity(batch.len());
    for complete in batch {
        let right = match verify {
            Verify::Stream => Ok(()),
            Verify::Readback => check_on_disk(algorithm, &complete),
        };
        match right {
            Ok(()) => {
                ids.push(complete.id);
                ready.push(complete.ready);
            }
            Err(reason) => placed.push(Placed { id: complete.id, result: Err(reason) }),
        }
    }
    let results = replica.publish(ready, durability);
    placed.extend(
        ids.into_iter()
            .zip(results)
            .map(|(id, result)| Placed { id, result: result.map_err(|error| error.to_string()) }),
    );
    placed
}

fn check_on_disk(algorithm: HashAlgorithm, complete: &Complete) -> Result<(), String> {
    let hashes = complete
        .ready
        .open_from_disk()
        .and_then(|file| read_back(&file, algorithm, complete.layout))
        .map_err(|error| format!("cannot be read back: {error}"))?;
    if root(algorithm, &hashes) == complete.root {
        Ok(())
    } else {
        Err("what was read back from the disk is not what was written".into())
    }
}

/// What is done last.
pub struct Closing {
    /// Further names: the path, and the file's first name.
    pub hardlinks: Vec<(SafePath, SafePath)>,
    /// Entries that could not be had, and of which nothing may be made.
    pub unplaced: HashSet<SafePath>,
    /// Directories, parents first.
    pub directories: Vec<DirectoryEntry>,
    /// The root's own metadata.
    pub root: Option<(u32, Timestamp)>,
}

/// How the last things went.
#[derive(Default)]
pub struct Closed {
    /// Further names that were made or there.
    pub links: u64,
    /// What failed, with why.
    pub failures: Vec<(SafePath, String)>,
}

/// Finishes the tree. Blocks.
pub fn close(replica: &Arc<Replica>, durability: Durability, closing: Closing) -> Result<Closed, String> {
    let mut closed = Closed::default();
    let mut unplaced = closing.unplaced;
    for (path, target) in closing.hardlinks {
        let made = if unplaced.contains(&target) {
            Err("the file that it is a further name of could not be had".to_owned())
        } else {
            replica.make_hardlink(&path, &target).map_err(|error| error.to_string())
        };
        match made {
            Ok(_) => closed.links += 1,
            Err(reason) => {
                unplaced.insert(path.clone());
                closed.failures.push((path, reason));
            }
        }
    }
    // Children first: setting them changes nothing above, but a parent may become read-only.
    for DirectoryEntry { path, mode, mtime } in closing.directories.iter().rev() {
        if let Err(error) = replica.set_directory_metadata(Some(path), *mode, *mtime) {
            closed.failures.push((path.clone(), error.to_string()));
        }
    }
    replica.close().map_err(|error| error.to_string())?;
    if let Some((mode, mtime)) = closing.root {
        let set = replica.set_directory_metadata(None, mode, mtime);
        set.map_err(|error| format!("cannot set the mode and time of the destination itself: {error}"))?;
    }
    if durability == Durability::Synced {
        replica.sync().map_err(|error| format!("the disk did not take the data: {error}"))?;
    }
    Ok(closed)
}
