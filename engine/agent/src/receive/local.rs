//! What the destination holds already: files that are the same, and blocks of files that differ.
//!
//! Small files are looked at by the batch, on a worker. A large one goes through a shard: its old blocks are hashed and
//! compared; if all are right it stays, otherwise those that are right are read again, verified again and written to
//! staging, so that only the others are fetched. A size or a time is never taken for content.

use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::pull::Run;
use sealift_store::{
    Allocation, BlockIo, Existing, FileError, FileStat, Replica, ShardFile, StagedFile, Timestamp, hash_run,
    ranges_to_write,
};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Zeros that are hashed for one file, in bytes: what lies in holes beyond that is fetched. (With SHA-256 one block
/// stands for all.)
const ZEROS_HASHED_MAX: u64 = 16 << 30;
/// Runs of one file that are compared or copied at a time.
const RUNS_AHEAD: usize = 4;

/// A file to be looked for.
pub struct Look {
    /// Its number.
    pub id: FileId,
    /// Where.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// Its mode and mtime.
    pub metadata: (u32, Timestamp),
    /// All of its hashes if it is to be compared at once; none if only its presence matters now.
    pub hashes: Option<Box<[BlockHash]>>,
}

/// What was found.
pub enum Found {
    /// The same content; it has the right metadata now.
    Same,
    /// The same content, in a file that has further names: whether it may stay depends on who else claims it.
    Linked(FileStat),
    /// Nothing that helps.
    Nothing,
    /// A regular file, which may share blocks.
    Other,
    /// It is the same, and its metadata cannot be set; or it cannot be looked at.
    Failed(FileError),
}

/// Looks for files, blocking. Result `i` is that of `looks[i]`.
pub fn look(replica: &Replica, algorithm: HashAlgorithm, looks: &[Look]) -> Vec<Found> {
    let paths: Vec<SafePath> = looks.iter().map(|look| look.path.clone()).collect();
    let mut buffer = Vec::new();
    let existing = replica.existing_batch(&paths);
    looks
        .iter()
        .zip(existing)
        .map(|(look, existing)| match existing {
            Ok(Existing::File(stat)) => look_into(replica, algorithm, look, &stat, &mut buffer),
            Ok(_) => Found::Nothing,
            Err(error) => Found::Failed(FileError::from_io(&look.path, error)),
        })
        .collect()
}

fn look_into(
    replica: &Replica,
    algorithm: HashAlgorithm,
    look: &Look,
    stat: &FileStat,
    buffer: &mut Vec<u8>,
) -> Found {
    let Some(hashes) = &look.hashes else { return Found::Other };
    let one_block = look.layout.size_bytes() <= BlockSize::MIN.bytes();
    let different = if one_block { Found::Nothing } else { Found::Other };
    if stat.size_bytes != look.layout.size_bytes() {
        return different;
    }
    match same_content(replica, algorithm, look, stat, hashes, buffer) {
        Ok(true) if stat.links > 1 => Found::Linked(*stat),
        Ok(true) => {
            let (mode, mtime) = look.metadata;
            match replica.update_metadata(&look.path, stat, mode, mtime) {
                Ok(()) => Found::Same,
                Err(FileError::Changed { .. }) => different,
                Err(error) => Found::Failed(error),
            }
        }
        // What cannot be read is replaced.
        Ok(false) | Err(_) => different,
    }
}

fn same_content(
    replica: &Replica,
    algorithm: HashAlgorithm,
    look: &Look,
    stat: &FileStat,
    hashes: &[BlockHash],
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    let (file, opened) = replica.open_existing(&look.path)?;
    if !opened.same_version(stat) {
        return Ok(false);
    }
    // At most one run: larger files do not come here.
    buffer.resize(usize::try_from(look.layout.size_bytes()).expect("at most 1 MiB"), 0);
    file.read_exact_at(buffer, 0)?;
    let blocks: Vec<_> = BlockInput::run(look.layout, BlockIndex(0), buffer).collect();
    let mut found = vec![BlockHash([0; 32]); blocks.len()];
    hash_blocks(algorithm, &blocks, &mut found);
    // An empty file has no blocks: its size says it all.
    Ok(look.layout.blocks() == 0 || found == hashes)
}

/// A file that may be here in part.
pub struct Large {
    /// Its number.
    pub id: FileId,
    /// Where.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// All of its hashes.
    pub hashes: Arc<[BlockHash]>,
    /// Its holes.
    pub holes: Arc<[Range<u64>]>,
    /// Its mode and mtime.
    pub metadata: (u32, Timestamp),
    /// What may become of a file that is the same already.
    pub same: IfSame,
}

/// What may become of a file that is the same already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfSame {
    /// It stays.
    Stays,
    /// It is another entry's too, and is copied.
    IsCopied,
}

/// What became of a large file.
pub enum Prepared {
    /// The same content; it has the right metadata now.
    Same,
    /// As [`Found::Linked`].
    Linked(FileStat),
    /// It is staged; these blocks are in place, the others are to be fetched.
    Staged {
        /// Where it grows.
        staged: StagedFile,
        /// Blocks that are verified and written, or lie in holes.
        present: Vec<BlockIndex>,
    },
    /// It cannot be staged.
    Failed(String),
}

/// Begins a file's staging, with nothing in it. Blocks.
///
/// # Errors
/// What the file system says.
pub fn stage(replica: &Replica, large: &Large) -> Result<StagedFile, FileError> {
    let allocation = if large.holes.is_empty() { Allocation::Preallocated } else { Allocation::Sparse };
    replica.create_staged(large.id, &large.path, large.layout.size_bytes(), allocation)
}

/// Compares a large file with what is at its place, and stages it with the blocks that are right.
pub async fn prepare(io: BlockIo, algorithm: HashAlgorithm, replica: Arc<Replica>, large: Large) -> Prepared {
    let large = Arc::new(large);
    let at = large.path.clone();
    let on_worker = Arc::clone(&replica);
    let old = io.blocking(move || on_worker.open_existing(&at)).await.ok();
    let old = old.and_then(|(file, stat)| Some((io.attach(Arc::new(file)).ok()?, stat)));
    let mut right = match &old {
        Some((file, stat)) => matching_blocks(&io, algorithm, &large, file, stat.size_bytes).await,
        None => vec![false; large.layout.blocks() as usize],
    };
    if let Some((_, stat)) = &old
        && right.iter().all(|&right| right)
        && stat.size_bytes == large.layout.size_bytes()
        && large.same == IfSame::Stays
    {
        if stat.links > 1 {
            return Prepared::Linked(*stat);
        }
        let (on_worker, of, stat) = (Arc::clone(&replica), Arc::clone(&large), *stat);
        let (mode, mtime) = large.metadata;
        let update = move || on_worker.update_metadata(&of.path, &stat, mode, mtime);
        match io.blocking(update).await {
            Ok(()) => return Prepared::Same,
            // Replaced meanwhile: what was compared is gone.
            Err(FileError::Changed { .. }) => right.fill(false),
            Err(error) => return Prepared::Failed(error.to_string()),
        }
    }
    let of = Arc::clone(&large);
    let staged = match io.blocking(move || stage(&replica, &of)).await {
        Ok(staged) => staged,
        Err(error) => return Prepared::Failed(error.to_string()),
    };
    let of = Arc::clone(&large);
    let mut present = io.blocking(move || blocks_in_holes(algorithm, &of)).await;
    if let Some((file, _)) = &old {
        for &block in &present {
            right[block.0 as usize] = false;
        }
        match io.attach(Arc::clone(staged.file())) {
            Ok(target) => present.extend(copy_blocks(&io, algorithm, &large, file, &target, &right).await),
            Err(error) => return Prepared::Failed(error.to_string()),
        }
    }
    Prepared::Staged { staged, present }
}

/// Which blocks of the old file are right.
async fn matching_blocks(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Arc<Large>,
    old: &ShardFile,
    old_bytes: u64,
) -> Vec<bool> {
    let layout = large.layout;
    let whole_blocks = if old_bytes >= layout.size_bytes() {
        layout.blocks()
    } else {
        // The last block of a shorter file is not a block of this one.
        u32::try_from(old_bytes / layout.block_size().bytes()).expect("fewer than the layout's blocks")
    };
    let mut right = vec![false; layout.blocks() as usize];
    let mut tasks = Vec::new();
    let ahead = Arc::new(Semaphore::new(RUNS_AHEAD));
    for run in Run::cover(large.id, layout, BlockIndex(0), whole_blocks) {
        let permit = Arc::clone(&ahead).acquire_owned().await;
        let (io, old, large) = (io.clone(), old.clone(), Arc::clone(large));
        tasks.push(tokio::task::spawn_local(async move {
            let found = read_and_hash(&io, algorithm, &large, &old, run).await;
            drop(permit);
            found.map(|(found, _)| found)
        }));
    }
    let mut at = 0;
    for task in tasks {
        if let Ok(Ok(found)) = task.await {
            for (i, hash) in found.iter().enumerate() {
                right[at + i] = *hash == large.hashes[at + i];
            }
            at += found.len();
        } else {
            // Unreadable: the rest is fetched.
            break;
        }
    }
    right
}

async fn read_and_hash(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Large,
    old: &ShardFile,
    run: Run,
) -> io::Result<(Vec<BlockHash>, sealift_store::PoolBuf)> {
    let bytes = run.bytes as usize;
    let buf = io.pool().acquire(bytes).await;
    let (read, buf) = io.read_exact_at(old, large.layout.offset(run.first), bytes, buf).await;
    read?;
    Ok(hash_run(algorithm, large.layout, run.first, buf, 0..bytes).await)
}

/// Copies the blocks that are right, verifying each again as it is now. Returns those that are in place.
async fn copy_blocks(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Arc<Large>,
    old: &ShardFile,
    target: &ShardFile,
    right: &[bool],
) -> Vec<BlockIndex> {
    let ahead = Arc::new(Semaphore::new(RUNS_AHEAD));
    let mut tasks = Vec::new();
    let mut at = 0;
    while at < right.len() {
        let same = right[at..].iter().take_while(|&&r| r == right[at]).count();
        if right[at] {
            let first = BlockIndex(u32::try_from(at).expect("a block index"));
            let count = u32::try_from(same).expect("a number of blocks");
            for run in Run::cover(large.id, large.layout, first, count) {
                let permit = Arc::clone(&ahead).acquire_owned().await;
                let (io, old, target, large) = (io.clone(), old.clone(), target.clone(), Arc::clone(large));
                tasks.push(tokio::task::spawn_local(async move {
                    let copied = copy_run(&io, algorithm, &large, &old, &target, run).await;
                    drop(permit);
                    copied.unwrap_or_default()
                }));
            }
        }
        at += same;
    }
    let mut present = Vec::new();
    for task in tasks {
        present.extend(task.await.unwrap_or_default());
    }
    present
}

async fn copy_run(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Large,
    old: &ShardFile,
    target: &ShardFile,
    run: Run,
) -> io::Result<Vec<BlockIndex>> {
    let (found, mut buf) = read_and_hash(io, algorithm, large, old, run).await?;
    let first = run.first.0 as usize;
    if found != large.hashes[first..first + found.len()] {
        // Changed since it was compared: fetched instead.
        return Ok(Vec::new());
    }
    let offset = large.layout.offset(run.first);
    for part in ranges_to_write(offset, buf.as_slice(), &large.holes) {
        let (written, returned) = io.write_all_at(target, offset + part.start as u64, buf, part).await;
        written?;
        buf = returned;
    }
    Ok((run.first.0..run.first.0 + run.count).map(BlockIndex).collect())
}

/// Blocks that lie within a hole and whose hash is that of zeros: the staged file has them already. Blocks for as
/// long as hashing the holes takes.
fn blocks_in_holes(algorithm: HashAlgorithm, large: &Large) -> Vec<BlockIndex> {
    let layout = large.layout;
    let zeros = vec![0; usize::try_from(layout.block_size().bytes()).expect("at most 16 MiB")];
    let hash = |block: BlockIndex, bytes: u64| {
        let only = layout.blocks() == 1;
        let data = &zeros[..usize::try_from(bytes).expect("at most a block")];
        let mut hash = [BlockHash([0; 32])];
        hash_blocks(algorithm, &[BlockInput { data, offset: layout.offset(block), only }], &mut hash);
        hash[0]
    };
    // SHA-256 of a whole block of zeros is always the same.
    let mut whole = None;
    let mut hashed_bytes = 0;
    let mut present = Vec::new();
    for hole in large.holes.iter() {
        let first = hole.start.div_ceil(layout.block_size().bytes());
        for index in first..u64::from(layout.blocks()) {
            let block = BlockIndex(u32::try_from(index).expect("within the layout"));
            let bytes = layout.run_bytes(block, 1).expect("within the layout");
            if layout.offset(block) + bytes > hole.end {
                break;
            }
            let expected = if algorithm == HashAlgorithm::Sha256 && bytes == layout.block_size().bytes() {
                *whole.get_or_insert_with(|| hash(block, bytes))
            } else if hashed_bytes + bytes <= ZEROS_HASHED_MAX {
                hashed_bytes += bytes;
                hash(block, bytes)
            } else {
                // Fetched, like any other.
                return present;
            };
            if expected == large.hashes[block.0 as usize] {
                present.push(block);
            }
        }
    }
    present
}

/// Reads a staged file back from the disk and computes its root. Blocks.
///
/// # Errors
/// What the file system says.
pub fn read_back(file: &File, algorithm: HashAlgorithm, layout: Layout) -> io::Result<Vec<BlockHash>> {
    let mut hashes = Vec::with_capacity(layout.blocks() as usize);
    let mut buffer = Vec::new();
    for run in Run::cover(FileId(0), layout, BlockIndex(0), layout.blocks()) {
        buffer.resize(run.bytes as usize, 0);
        file.read_exact_at(&mut buffer, layout.offset(run.first))?;
        let blocks: Vec<_> = BlockInput::run(layout, run.first, &buffer).collect();
        let mut found = vec![BlockHash([0; 32]); blocks.len()];
        hash_blocks(algorithm, &blocks, &mut found);
        hashes.extend(found);
    }
    Ok(hashes)
}
