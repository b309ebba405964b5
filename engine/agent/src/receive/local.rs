//! What the destination holds already: files that are the same, and blocks of files that differ.
//!
//! Small files are looked at by the batch, on a worker. A large one goes through a shard: its old blocks are hashed and
//! compared; if all are right it stays, otherwise those that are right are read again, verified again and written to
//! staging, so that only the others are fetched. A size or a time is never taken for content.

use super::entries::Metadata;
use super::failure::Failure;
use super::memory::{Draft, Memory, NO_JOB};
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::{self, BlockHash, BlockInput, HashAlgorithm, RootHash, hash_blocks};
use sealift_proto::limits::RUN_BYTES_MAX;
use sealift_proto::path::SafePath;
use sealift_proto::transfer::pull::Run;
use sealift_store::{
    Allocation, BlockIo, Capabilities, EntryRow, Existing, Expected, FileError, FileStat, IndexError,
    IndexReader, PartialRow, REUSE_BYTES_MIN, Replica, ShardFile, StagedFile, Timestamp, hash_run,
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

/// The destination, and what is remembered of it.
#[derive(Clone)]
pub struct Context {
    /// The destination.
    pub replica: Arc<Replica>,
    /// What is remembered of it.
    pub memory: Arc<Memory>,
    /// What its file system holds.
    pub capabilities: Arc<Capabilities>,
}

impl Context {
    /// What a file has of a time that is set.
    pub fn mtime_held(&self, mtime: Timestamp) -> Timestamp {
        self.capabilities.mtimes.as_ref().map_or(mtime, |range| range.held(mtime))
    }
}

/// A file to be looked for.
pub struct Look {
    /// Its number.
    pub id: FileId,
    /// Where.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// What else is wanted of it.
    pub metadata: Metadata,
    /// Its root, if it is known already.
    pub root: Option<RootHash>,
    /// All of its hashes if it is to be compared at once; none if only its presence matters now.
    pub hashes: Option<Box<[BlockHash]>>,
    /// The segment that announced it.
    pub segment: u64,
}

/// What was found.
pub enum Found {
    /// The same content; it has the right metadata now. What the index is to say of it, if that is new.
    Same(Option<EntryRow>),
    /// The same content, in a file that has further names: whether it may stay depends on who else claims it.
    Linked(FileStat),
    /// Nothing that helps.
    Nothing(Before),
    /// Something that may share blocks, or what an earlier run had of it.
    Other,
    /// It is the same, and its metadata cannot be set; or it cannot be looked at.
    Failed(Failure),
}

/// What stands at a file's place before it is published.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// What must still be there when it is replaced.
    pub expected: Expected,
    /// Whether somebody edited here what an earlier run had put there.
    pub edited: bool,
    /// Whether an earlier run put something else there.
    pub rewrites: bool,
}

impl Before {
    /// Nothing that anyone would miss.
    pub const NOTHING: Self = Self { expected: Expected::Anything, edited: false, rewrites: false };
}

/// Looks for files, blocking. Result `i` is that of `looks[i]`.
///
/// # Errors
/// If the index cannot be read.
pub fn look(context: &Context, algorithm: HashAlgorithm, looks: &[Look]) -> Result<Vec<Found>, IndexError> {
    let paths: Vec<SafePath> = looks.iter().map(|look| look.path.clone()).collect();
    let mut buffer = Vec::new();
    let existing = context.replica.existing_batch(&paths);
    let reader = context.memory.read()?;
    let mut found = Vec::with_capacity(looks.len());
    for (look, existing) in looks.iter().zip(existing) {
        found.push(match existing {
            Ok(Existing::File(stat)) => {
                let known = reader.entry(&look.path)?;
                Looker { context, algorithm, look, stat: &stat, known: known.as_ref() }.look(&mut buffer)
            }
            Ok(existing) => {
                let expected = match existing {
                    Existing::Missing => Expected::Missing,
                    _ => Expected::Anything,
                };
                if helps(&reader, look)? {
                    Found::Other
                } else {
                    Found::Nothing(Before { expected, ..Before::NOTHING })
                }
            }
            Err(error) => Found::Failed(Failure::of(&look.path, error)),
        });
    }
    Ok(found)
}

/// Whether the index knows of something that saves fetching a file that is not at its place.
fn helps(reader: &IndexReader, look: &Look) -> Result<bool, IndexError> {
    let bytes = look.layout.size_bytes();
    if bytes < REUSE_BYTES_MIN {
        return Ok(false);
    }
    let elsewhere = match &look.root {
        Some(root) => reader.same_content(bytes, root)?.is_some(),
        None => reader.has_size(bytes)?,
    };
    Ok(elsewhere || reader.partial(&look.path)?.is_some())
}

/// A file at the place of one that is looked for.
struct Looker<'l> {
    context: &'l Context,
    algorithm: HashAlgorithm,
    look: &'l Look,
    stat: &'l FileStat,
    known: Option<&'l EntryRow>,
}

impl Looker<'_> {
    fn look(&self, buffer: &mut Vec<u8>) -> Found {
        let Self { context, algorithm, look, stat, known } = *self;
        let vouched = |root| context.memory.vouches(known, stat, algorithm, look.layout, &root);
        if look.root.is_some_and(vouched) {
            return self.same();
        }
        let Some(hashes) = &look.hashes else { return Found::Other };
        let one_block = look.layout.size_bytes() <= BlockSize::MIN.bytes();
        if !one_block && stat.size_bytes != look.layout.size_bytes() {
            return Found::Other;
        }
        match self.hash(buffer) {
            Ok(Some(found)) if stat.size_bytes == look.layout.size_bytes() && found == **hashes => {
                self.same()
            }
            // What shares blocks is compared block by block. What cannot be read is replaced.
            _ if !one_block => Found::Other,
            found => {
                let root = found.ok().flatten().map(|hashes| digest::root(algorithm, &hashes));
                Found::Nothing(context.memory.before(known, stat, algorithm, root))
            }
        }
    }

    /// It has the right content: it is given its metadata.
    fn same(&self) -> Found {
        let Self { context, algorithm, look, stat, known } = *self;
        if stat.links > 1 {
            return Found::Linked(*stat);
        }
        let root = look.root.expect("what is the same is known whole");
        let draft = Draft { algorithm, layout: look.layout, root, segment: look.segment };
        match keep(&context.replica, &look.path, &look.metadata, stat, known, draft) {
            Ok(row) => Found::Same(row),
            Err(FileError::Changed { .. }) if look.layout.size_bytes() <= BlockSize::MIN.bytes() => {
                Found::Nothing(Before { expected: Expected::Missing, ..Before::NOTHING })
            }
            Err(FileError::Changed { .. }) => Found::Other,
            Err(error) => Found::Failed(Failure::from(&error)),
        }
    }

    /// The hashes of a small file as it is; `None` if it is no longer that version, or no longer small.
    fn hash(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<BlockHash>>> {
        let bytes = self.stat.size_bytes;
        let Some(layout) =
            Layout::new(bytes, BlockSize::for_file(bytes)).filter(|_| bytes <= RUN_BYTES_MAX as u64)
        else {
            return Ok(None);
        };
        let (file, opened) = self.context.replica.open_existing(&self.look.path)?;
        if !opened.same_version(self.stat) {
            return Ok(None);
        }
        buffer.resize(usize::try_from(bytes).expect("at most 1 MiB"), 0);
        file.read_exact_at(buffer, 0)?;
        let blocks: Vec<_> = BlockInput::run(layout, BlockIndex(0), buffer).collect();
        let mut found = vec![BlockHash([0; 32]); blocks.len()];
        hash_blocks(self.algorithm, &blocks, &mut found);
        Ok(Some(found))
    }
}

/// Gives a file that stays its metadata. Returns what the index is to say of it, if that is new. Blocks.
///
/// # Errors
/// [`FileError::Changed`] if another is there by now.
pub fn keep(
    replica: &Replica,
    path: &SafePath,
    metadata: &Metadata,
    stat: &FileStat,
    known: Option<&EntryRow>,
    draft: Draft,
) -> Result<Option<EntryRow>, FileError> {
    let set = metadata.update(replica, path, stat)?;
    let now = if set {
        match replica.existing(path) {
            Ok(Existing::File(now)) if now.same_inode(stat) => now,
            Ok(_) => return Err(FileError::Changed { path: path.clone() }),
            Err(error) => return Err(FileError::from_io(path, error)),
        }
    } else {
        *stat
    };
    let job = known.map_or(NO_JOB, |known| known.job);
    let row = draft.row(job, metadata, &now);
    // The segment alone is no news.
    let news = known.is_none_or(|known| known.what != row.what);
    Ok(news.then_some(row))
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
    /// Its root, if it is known already.
    pub root: Option<RootHash>,
    /// Its holes.
    pub holes: Arc<[Range<u64>]>,
    /// What else is wanted of it.
    pub metadata: Metadata,
    /// What may become of a file that is the same already.
    pub same: IfSame,
    /// The segment that announced it.
    pub segment: u64,
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
    /// As [`Found::Same`].
    Same(Option<EntryRow>),
    /// As [`Found::Linked`].
    Linked(FileStat),
    /// It is staged; these blocks are in place, the others are to be fetched.
    Staged {
        /// Where it grows.
        staged: StagedFile,
        /// Blocks that are verified and written, or lie in holes.
        present: Vec<BlockIndex>,
        /// What is at its place, if that was looked at again.
        before: Option<Before>,
        /// Whether the index knows of the staged file.
        kept: bool,
    },
    /// It cannot be staged.
    Failed(Failure),
}

/// Begins a file's staging, with nothing in it. Blocks.
///
/// # Errors
/// What the file system says.
pub fn stage(replica: &Replica, large: &Large) -> Result<StagedFile, FileError> {
    let allocation = if large.holes.is_empty() { Allocation::Preallocated } else { Allocation::Sparse };
    replica.create_staged(large.id, &large.path, large.layout.size_bytes(), allocation)
}

/// What there is that may help with a large file.
struct Survey {
    /// The file at its place.
    old: Option<(File, FileStat)>,
    missing: bool,
    known: Option<EntryRow>,
    /// What an earlier run had fetched of it.
    partial: Option<(StagedFile, PartialRow)>,
    /// A file of another name with the same content.
    elsewhere: Option<File>,
}

fn survey(context: &Context, algorithm: HashAlgorithm, large: &Large) -> Result<Survey, IndexError> {
    let reader = context.memory.read()?;
    let (replica, memory) = (&context.replica, &context.memory);
    let old = replica.open_existing(&large.path);
    let missing = old.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let known = reader.entry(&large.path)?;
    let bytes = large.layout.size_bytes();
    let partial = reader.partial(&large.path)?.filter(|row| {
        row.layout == large.layout && row.algorithm == algorithm && memory.takes_up(&row.staged)
    });
    let partial = partial.and_then(|row| {
        // What cannot be taken up is fetched.
        let staged = replica.adopt_staged(&row.staged, &large.path, bytes, row.inode).ok().flatten()?;
        Some((staged, row))
    });
    let mut elsewhere = None;
    if let (Err(_), Some(root)) = (&old, &large.root)
        && bytes >= REUSE_BYTES_MIN
        && let Some(path) = reader.same_content(bytes, root)?
        && let Ok((file, stat)) = replica.open_existing(&path)
        && stat.size_bytes == bytes
    {
        elsewhere = Some(file);
    }
    Ok(Survey { old: old.ok(), missing, known, partial, elsewhere })
}

/// Compares a large file with what is at its place, and stages it with the blocks that are right.
pub async fn prepare(io: BlockIo, algorithm: HashAlgorithm, context: Context, large: Large) -> Prepared {
    match try_prepare(io, algorithm, context, Arc::new(large)).await {
        Ok(prepared) => prepared,
        Err(failure) => Prepared::Failed(failure),
    }
}

async fn try_prepare(
    io: BlockIo,
    algorithm: HashAlgorithm,
    context: Context,
    large: Arc<Large>,
) -> Result<Prepared, Failure> {
    let (of, with) = (Arc::clone(&large), context.clone());
    let Survey { old, missing, known, partial, elsewhere } =
        io.blocking(move || survey(&with, algorithm, &of)).await?;
    let old = old.and_then(|(file, stat)| Some((io.attach(Arc::new(file)).ok()?, stat)));
    let vouched = old.as_ref().zip(large.root).is_some_and(|((_, stat), root)| {
        context.memory.vouches(known.as_ref(), stat, algorithm, large.layout, &root)
    });
    let (mut right, mut old_root) = match &old {
        Some(_) if vouched && large.same == IfSame::Stays => (vec![true; large.hashes.len()], large.root),
        Some((file, stat)) => matching_blocks(&io, algorithm, &large, file, stat.size_bytes).await,
        None => (vec![false; large.layout.blocks() as usize], None),
    };
    let mut before =
        Before { expected: if missing { Expected::Missing } else { Expected::Anything }, ..Before::NOTHING };
    if let Some((file, stat)) = &old {
        let all_right = right.iter().all(|&right| right) && stat.size_bytes == large.layout.size_bytes();
        if all_right && large.same == IfSame::Stays {
            if stat.links > 1 {
                return Ok(Prepared::Linked(*stat));
            }
            let (with, of, stat, known) = (context.clone(), Arc::clone(&large), *stat, known.clone());
            let draft = Draft {
                algorithm,
                layout: large.layout,
                root: large.root.expect("compared once it is sealed"),
                segment: large.segment,
            };
            let kept = move || keep(&with.replica, &of.path, &of.metadata, &stat, known.as_ref(), draft);
            match io.blocking(kept).await {
                Ok(row) => return Ok(Prepared::Same(row)),
                // Replaced meanwhile: what was compared is gone.
                Err(FileError::Changed { .. }) => right.fill(false),
                Err(error) => return Err(Failure::from(&error)),
            }
        } else if all_right {
            old_root = large.root;
        } else if context.memory.must_hash(known.as_ref(), stat) && old_root.is_none() {
            let (file, stat) = (Arc::clone(file.file()), *stat);
            old_root = io.blocking(move || root_of(&file, algorithm, stat.size_bytes)).await.ok().flatten();
        }
        before = context.memory.before(known.as_ref(), stat, algorithm, old_root);
        before.rewrites &= !all_right;
    }
    let (staged, mut present, kept) = match partial {
        Some((staged, row)) => {
            let present = resumed_blocks(&io, algorithm, &context, &large, &staged, &row).await;
            (staged, present, true)
        }
        None => {
            let (of, replica) = (Arc::clone(&large), Arc::clone(&context.replica));
            let staged =
                io.blocking(move || stage(&replica, &of)).await.map_err(|error| Failure::from(&error))?;
            (staged, Vec::new(), false)
        }
    };
    let of = Arc::clone(&large);
    present.extend(io.blocking(move || blocks_in_holes(algorithm, &of)).await);
    let mut source = old.map(|(file, _)| file);
    if let Some(file) = elsewhere {
        let file = Arc::new(file);
        if present.is_empty() {
            let cloned = Replica::clone_from(&context.replica, &staged, &file).unwrap_or(false);
            if cloned {
                present = staged_blocks(&io, algorithm, &large, &staged).await;
                return Ok(Prepared::Staged { staged, present, before: Some(before), kept });
            }
        }
        source = io.attach(file).ok();
        right.fill(true);
    }
    if let Some(file) = &source {
        for &block in &present {
            right[block.0 as usize] = false;
        }
        let target = io.attach(Arc::clone(staged.file())).map_err(|error| Failure::of(&large.path, error))?;
        present.extend(copy_blocks(&io, algorithm, &large, file, &target, &right).await);
    }
    Ok(Prepared::Staged { staged, present, before: Some(before), kept })
}

/// Which blocks of a staged file are right, by their hashes.
async fn staged_blocks(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Arc<Large>,
    staged: &StagedFile,
) -> Vec<BlockIndex> {
    let Ok(file) = io.attach(Arc::clone(staged.file())) else { return Vec::new() };
    let (right, _) = matching_blocks(io, algorithm, large, &file, large.layout.size_bytes()).await;
    let indexes = (0_u32..).zip(right);
    indexes.filter(|(_, right)| *right).map(|(index, _)| BlockIndex(index)).collect()
}

/// Which blocks of a staged file of an earlier run are right. Those that the index says were written and synced are
/// believed if they were written for this very root; otherwise they are hashed.
async fn resumed_blocks(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    context: &Context,
    large: &Arc<Large>,
    staged: &StagedFile,
    row: &PartialRow,
) -> Vec<BlockIndex> {
    let said: Vec<BlockIndex> =
        (0..large.layout.blocks()).map(BlockIndex).filter(|&b| is_said(row, b)).collect();
    if row.root.is_some() && row.root == large.root && !context.memory.in_doubt() {
        return said;
    }
    // Of what is not said to be synced, memory may show what the disk has lost: that is fetched again.
    let right = staged_blocks(io, algorithm, large, staged).await;
    right.into_iter().filter(|&block| is_said(row, block)).collect()
}

fn is_said(row: &PartialRow, block: BlockIndex) -> bool {
    row.present.get((block.0 / 64) as usize).is_some_and(|word| word & (1 << (block.0 % 64)) != 0)
}

/// The root of a file as it is, with blocks of the size that its own size has. Blocks.
fn root_of(file: &File, algorithm: HashAlgorithm, size_bytes: u64) -> io::Result<Option<RootHash>> {
    let Some(layout) = Layout::new(size_bytes, BlockSize::for_file(size_bytes)) else { return Ok(None) };
    Ok(Some(digest::root(algorithm, &read_back(file, algorithm, layout)?)))
}

/// Which blocks of a file are right; and the root over all it has, if it has as many bytes as are wanted.
async fn matching_blocks(
    io: &BlockIo,
    algorithm: HashAlgorithm,
    large: &Arc<Large>,
    old: &ShardFile,
    old_bytes: u64,
) -> (Vec<bool>, Option<RootHash>) {
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
    let mut hashes = Vec::with_capacity(whole_blocks as usize);
    let mut all = old_bytes == layout.size_bytes();
    for task in tasks {
        if let Ok(Ok(found)) = task.await {
            for (i, hash) in found.iter().enumerate() {
                right[hashes.len() + i] = *hash == large.hashes[hashes.len() + i];
            }
            hashes.extend(found);
        } else {
            // Unreadable: the rest is fetched.
            all = false;
            break;
        }
    }
    (right, all.then(|| digest::root(algorithm, &hashes)))
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
