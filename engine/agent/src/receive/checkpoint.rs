//! Tells the index from time to time which blocks of unfinished files are here, so that no run fetches them again.
//!
//! The order is the promise: blocks are synced, and then the index says so. Many files share one sync and one write.

use super::failure::Failure;
use super::memory::Memory;
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::{HashAlgorithm, RootHash};
use sealift_proto::manifest::Mark;
use sealift_proto::path::SafePath;
use sealift_store::{Durability, FileStat, IndexBatch, PartialRow, Replica};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// The index is told once so many bytes were written to staged files, or once the first of them is so old.
pub const CHECKPOINT: (u64, Duration) = (256 << 20, Duration::from_secs(1));
/// The same while others wait for them.
pub const SHARED_CHECKPOINT: (u64, Duration) = (32 << 20, Duration::from_millis(200));

/// A staged file as it is at one moment.
pub struct Checkpoint {
    /// Its number.
    pub id: FileId,
    /// Where it belongs.
    pub path: SafePath,
    /// Its name in staging.
    pub name: String,
    /// The file.
    pub file: Arc<File>,
    /// Size and blocks.
    pub layout: Layout,
    /// The hash of its blocks.
    pub algorithm: HashAlgorithm,
    /// Its root, if it is known already.
    pub root: Option<RootHash>,
    /// A bit for each block that is written.
    pub present: Vec<u64>,
}

/// What became of one.
pub struct Checkpointed {
    /// Its number.
    pub id: FileId,
    /// Where it belongs.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// A bit for each block that is written.
    pub present: Vec<u64>,
    /// Whether the index knows it now.
    pub result: Result<(), Failure>,
}

/// Syncs the files and then tells the index. Blocks.
///
/// # Errors
/// If the index cannot be written.
pub fn save(
    replica: &Replica,
    memory: &Memory,
    durability: Durability,
    files: Vec<Checkpoint>,
    mark: Option<Mark>,
) -> Result<Vec<Checkpointed>, Failure> {
    let synced = match durability {
        Durability::Synced => {
            let handles: Vec<_> = files.iter().map(|file| Arc::clone(&file.file)).collect();
            replica.sync_staged(&handles)
        }
        Durability::Unsynced => files.iter().map(|_| Ok(())).collect(),
    };
    let mut batch = IndexBatch::default();
    let mut saved = Vec::with_capacity(files.len());
    for (file, synced) in files.into_iter().zip(synced) {
        let Checkpoint { id, path, name, file, layout, algorithm, root, present } = file;
        let written = present.clone();
        let stat = synced.and_then(|()| FileStat::of(&file));
        let result = match stat {
            Ok(stat) => {
                let row = PartialRow { staged: name, inode: stat.inode, layout, algorithm, root, present };
                batch.partial.push((path.clone(), row));
                Ok(())
            }
            Err(error) => Err(Failure { lost_writes: true, ..Failure::of(&path, error) }),
        };
        saved.push(Checkpointed { id, path, layout, present: written, result });
    }
    sealift_store::fault_point("checkpoint").map_err(Failure::nameless)?;
    memory.write(batch, mark)?;
    Ok(saved)
}
