//! What shards and workers do for a check: small files by the batch, large ones by the run, everything else by a look.
//!
//! Owns no state: what is found goes back to the check. Of each file as much is in memory as one run has.

use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, RootHash};
use sealift_proto::limits::{FETCH_RANGES_MAX, RUN_BYTES_MAX};
use sealift_proto::manifest::Metadata;
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp;
use sealift_proto::transfer::pull::Run;
use sealift_store::{
    BlockIo, Existing, FileStat, Piece, ReplicaView, ShardFile, SmallRead, hash_pieces, hash_run, read_small,
};
use std::fs::File;
use std::io;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;

/// Files of at most so many bytes share a buffer with others.
pub const SMALL_BYTES_MAX: u64 = RUN_BYTES_MAX as u64;
/// Files in one batch.
pub const BATCH_FILES_MAX: usize = FETCH_RANGES_MAX;
/// Other entries in one batch.
pub const BATCH_LOOKS_MAX: usize = 1024;

/// A file as the manifest has it.
pub struct Signed {
    /// Where.
    pub path: SafePath,
    /// Mode and time.
    pub metadata: Metadata,
    /// Size and blocks.
    pub layout: Layout,
    /// The segment that announced it.
    pub segment: u64,
}

/// A file that shares a buffer with others.
pub struct Small {
    /// The file.
    pub file: Signed,
    /// The hashes of all its blocks.
    pub hashes: Box<[BlockHash]>,
    /// The hash over them.
    pub root: RootHash,
}

/// An entry without content of its own.
pub struct Look {
    /// Where; none for the root.
    pub path: Option<SafePath>,
    /// What should be there.
    pub signed: SignedEntry,
    /// The segment that announced it.
    pub segment: u64,
}

/// What such an entry should be.
pub enum SignedEntry {
    /// A directory.
    Directory(Metadata),
    /// A symbolic link.
    Symlink {
        /// Time of the link itself.
        mtime: Timestamp,
        /// Where it points.
        target: Vec<u8>,
    },
    /// A further name of a file.
    Hardlink {
        /// The file's first name.
        target: SafePath,
    },
}

/// What was found of such an entry: what is there, and of a further name what is at the first.
pub type Looked = (io::Result<Existing>, Option<Existing>);

/// What a job found.
pub enum Done {
    /// Small files: those that are right, with their inodes. Of the others more is to be found out.
    Small(Vec<(Small, Option<FileStat>)>),
    /// A run of the file with this number.
    Run(u64, RunFound),
    /// Other entries.
    Looks(Vec<(Look, Looked)>),
    /// A job ended without an answer.
    Lost,
}

/// What was found of a run.
#[derive(Default)]
pub struct RunFound {
    /// Blocks that are not what they should be, ascending; those that cannot be read among them.
    pub wrong: Vec<u32>,
    /// Blocks that cannot be read, ascending.
    pub unreadable: Vec<u32>,
    /// What reading failed of.
    pub error: Option<String>,
    /// The hashes, where they were asked for and all of it could be read.
    pub hashes: Option<(BlockIndex, Vec<BlockHash>)>,
    /// Bytes that were hashed.
    pub bytes: u64,
}

/// An answer that is owed: should the job come to an end without one, that is told.
pub struct Owed(Option<UnboundedSender<Done>>);

impl Owed {
    /// One answer.
    pub fn new(to: &UnboundedSender<Done>) -> Self {
        Self(Some(to.clone()))
    }

    /// Gives it.
    pub fn give(mut self, done: Done) {
        if let Some(to) = self.0.take() {
            let _ = to.send(done);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(to) = self.0.take() {
            let _ = to.send(Done::Lost);
        }
    }
}

/// A file that is checked run by run, on any shards.
pub struct Opening {
    /// Where.
    pub path: SafePath,
    /// Size and blocks, as they should be.
    pub layout: Layout,
    /// The hash of its blocks.
    pub algorithm: HashAlgorithm,
    view: Arc<ReplicaView>,
    opened: OnceCell<Opened>,
}

/// What came of opening it.
pub enum Opened {
    /// It can be read.
    File {
        /// The file.
        file: Arc<File>,
        /// Its inode.
        stat: FileStat,
    },
    /// Something else is there, or nothing.
    Other(Existing),
    /// It cannot be opened.
    Refused(io::Error),
}

impl Opening {
    /// A file that is opened by the first run that needs it.
    pub fn new(view: &Arc<ReplicaView>, path: SafePath, layout: Layout, algorithm: HashAlgorithm) -> Self {
        Self { path, layout, algorithm, view: Arc::clone(view), opened: OnceCell::new() }
    }

    /// What came of it, once any run has ended.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    /// As [`Opening::opened`], with the right to close it.
    pub fn into_opened(self) -> Option<Opened> {
        self.opened.into_inner()
    }

    /// Opens it, the first time. Blocks.
    pub fn open_now(&self) -> Opened {
        let error = match self.view.source().open_file(&self.path) {
            Ok((file, stat)) => return Opened::File { file: Arc::new(file), stat },
            Err(error) => error,
        };
        match self.view.existing(&self.path) {
            Ok(Existing::File(_)) => Opened::Refused(error),
            Ok(existing) => Opened::Other(existing),
            Err(error) => Opened::Refused(error),
        }
    }

    async fn open(self: &Arc<Self>, io: &BlockIo) -> &Opened {
        let this = Arc::clone(self);
        self.opened.get_or_init(|| io.blocking(move || this.open_now())).await
    }

    /// How many of its blocks a file of so many bytes can have. The last one of a shorter file is another.
    pub fn blocks_within(&self, size_bytes: u64) -> u32 {
        if size_bytes >= self.layout.size_bytes() {
            return self.layout.blocks();
        }
        u32::try_from(size_bytes / self.layout.block_size().bytes()).expect("fewer than the layout's blocks")
    }
}

/// Reads small files into one buffer and compares them.
pub async fn small(
    io: BlockIo,
    view: Arc<ReplicaView>,
    algorithm: HashAlgorithm,
    files: Vec<Small>,
    owed: Owed,
) {
    let buf = io.pool().acquire(RUN_BYTES_MAX).await;
    let read = move || {
        let mut buf = buf;
        let wanted: Vec<SmallRead> =
            files.iter().map(|small| SmallRead { path: small.file.path.clone(), expected: None }).collect();
        let read = read_small(view.source(), &wanted, 0, &mut buf);
        (files, read, buf)
    };
    let (files, read, buf) = io.blocking(read).await;
    let mut pieces = Vec::new();
    for (small, read) in files.iter().zip(&read) {
        let Some(read) =
            read.as_ref().ok().filter(|read| read.stat.size_bytes == small.file.layout.size_bytes())
        else {
            continue;
        };
        let block_bytes = usize::try_from(small.file.layout.block_size().bytes()).expect("at most 16 MiB");
        for (block, start) in (0_u32..).zip(read.content.clone().step_by(block_bytes)) {
            pieces.push(Piece {
                range: start..(start + block_bytes).min(read.content.end),
                offset: small.file.layout.offset(BlockIndex(block)),
                only: small.file.layout.blocks() == 1,
            });
        }
    }
    let (hashes, buf) = hash_pieces(algorithm, pieces, buf).await;
    drop(buf);
    let mut hashes = &*hashes;
    let found = files.into_iter().zip(read).map(|(small, read)| {
        let stat =
            read.ok().map(|read| read.stat).filter(|stat| stat.size_bytes == small.file.layout.size_bytes());
        let right = stat.filter(|_| {
            let (own, rest) = hashes.split_at(small.file.layout.blocks() as usize);
            hashes = rest;
            *own == *small.hashes
        });
        (small, right)
    });
    owed.give(Done::Small(found.collect()));
}

/// Reads a run and compares it with these hashes; without any, hashes it.
pub async fn run(
    io: BlockIo,
    number: u64,
    of: Arc<Opening>,
    run: Run,
    signed: Option<Box<[BlockHash]>>,
    owed: Owed,
) {
    let found = check_run(&io, &of, run, signed.as_deref()).await;
    // The file is to be closed by whoever takes the last answer.
    drop(of);
    owed.give(Done::Run(number, found));
}

async fn check_run(io: &BlockIo, of: &Arc<Opening>, run: Run, signed: Option<&[BlockHash]>) -> RunFound {
    let Opened::File { file, stat } = of.open(io).await else { return RunFound::default() };
    let mut found = RunFound::default();
    let end = run.first.0 + run.count;
    let within = of.blocks_within(stat.size_bytes).clamp(run.first.0, end);
    let attached = io.attach(Arc::clone(file));
    let hashes = match attached {
        Ok(file) => hashes_of(io, of, &file, run.first, within - run.first.0, &mut found).await,
        Err(error) => {
            found.error = Some(error.to_string());
            vec![None; (within - run.first.0) as usize]
        }
    };
    match signed {
        Some(signed) => {
            let differs = |(hash, signed): (&Option<BlockHash>, &BlockHash)| hash.as_ref() != Some(signed);
            let compared = hashes.iter().zip(signed).map(differs);
            found.wrong = (run.first.0..)
                .zip(compared)
                .filter(|(_, differs)| *differs)
                .map(|(block, _)| block)
                .collect();
            found.wrong.extend(within..end);
        }
        None => {
            found.hashes = hashes.into_iter().collect::<Option<Vec<_>>>().map(|hashes| (run.first, hashes))
        }
    }
    found
}

/// The hashes of some blocks; `None` for those that cannot be read.
async fn hashes_of(
    io: &BlockIo,
    of: &Opening,
    file: &ShardFile,
    first: BlockIndex,
    count: u32,
    found: &mut RunFound,
) -> Vec<Option<BlockHash>> {
    match read_and_hash(io, of, file, first, count).await {
        Ok((hashes, bytes)) => {
            found.bytes += bytes;
            return hashes.into_iter().map(Some).collect();
        }
        Err(error) if count == 1 => {
            found.unreadable.push(first.0);
            found.error = Some(error.to_string());
            return vec![None];
        }
        Err(_) => {}
    }
    // Which of them it is.
    let mut hashes = Vec::with_capacity(count as usize);
    for block in first.0..first.0 + count {
        match read_and_hash(io, of, file, BlockIndex(block), 1).await {
            Ok((hash, bytes)) => {
                found.bytes += bytes;
                hashes.extend(hash.into_iter().map(Some));
            }
            Err(error) => {
                found.unreadable.push(block);
                found.error = Some(error.to_string());
                hashes.push(None);
            }
        }
    }
    hashes
}

async fn read_and_hash(
    io: &BlockIo,
    of: &Opening,
    file: &ShardFile,
    first: BlockIndex,
    count: u32,
) -> io::Result<(Vec<BlockHash>, u64)> {
    let Some(bytes) = of.layout.run_bytes(first, count) else { return Ok((Vec::new(), 0)) };
    let len = usize::try_from(bytes).expect("at most a block or 1 MiB");
    let buf = io.pool().acquire(len).await;
    let (read, buf) = io.read_exact_at(file, of.layout.offset(first), len, buf).await;
    read?;
    let (hashes, _) = hash_run(of.algorithm, of.layout, first, buf, 0..len).await;
    Ok((hashes, bytes))
}

/// Looks at entries without content. Blocks.
pub fn look(view: &ReplicaView, looks: &[Look]) -> Vec<Looked> {
    let root = || {
        let (mode, mtime) = view.root_metadata()?;
        Ok(Existing::Directory { mode, mtime })
    };
    let paths: Vec<SafePath> = looks.iter().filter_map(|look| look.path.clone()).collect();
    let mut existing = view.existing_batch(&paths).into_iter();
    looks
        .iter()
        .map(|look| {
            let found = match &look.path {
                Some(_) => existing.next().expect("one for each path"),
                None => root(),
            };
            let first = match &look.signed {
                SignedEntry::Hardlink { target } => view.existing(target).ok(),
                _ => None,
            };
            (found, first)
        })
        .collect()
}

/// The runs that a file is read in: also where nobody wants blocks of it.
pub fn cover(layout: Layout, first: BlockIndex, count: u32) -> impl Iterator<Item = Run> {
    Run::cover(FileId(0), layout, first, count)
}
