//! Reads files and has them hashed, ahead of the sequencer: small ones share a buffer, large ones go in runs.
//!
//! Runs on a shard of its own, which is started when the first file has to be read: a scan that finds nothing new needs
//! no buffers.

use super::hashes::may_be_remembered;
use super::offering::OfferedFile;
use super::scan::{AT_REST_AFTER, Scan, Wanted, is_at_rest};
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::BlockHash;
use sealift_proto::limits::{BLOCKS_PREFIX_BYTES, FETCH_RANGES_MAX, FRAME_HEADER_BYTES, RUN_BYTES_MAX};
use sealift_proto::manifest::Attributes;
use sealift_proto::path::SafePath;
use sealift_proto::transfer::pull::Run;
use sealift_store::{
    Backend, BlockIo, EntryKind, FileStat, Piece, PoolBuf, PoolConfig, SmallFailure, SmallRead, hash_pieces,
    hash_run, holes, spawn_shard,
};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot};

/// Buffers of the shard.
pub const SCAN_BUFFERS: usize = 32;
/// Room before a run, for the frame in which it may be sent.
pub const HEAD_BYTES: usize = FRAME_HEADER_BYTES + BLOCKS_PREFIX_BYTES;
/// Lists of files that wait to be read.
const WANTED_AHEAD_MAX: usize = 4;
/// Items the feeder may be ahead of the sequencer; their buffers are bounded by the pool.
const ITEMS_AHEAD_MAX: usize = 64;
/// How often a file is waited for to come to rest before it counts as changing.
const REST_WAITS_MAX: u32 = 3;

/// What the feeder hands to the sequencer, in order.
pub enum Item {
    /// Files that shared a buffer.
    Small(oneshot::Receiver<Vec<SmallResult>>),
    /// A file whose runs follow.
    Begin(Begin),
    /// Some of its blocks.
    Run { run: Run, hashed: oneshot::Receiver<io::Result<HashedRun>> },
    /// All of its blocks were read.
    Finish { file: OfferedFile },
    /// It is larger than a file may be.
    TooLarge { path: SafePath },
    /// It cannot be opened.
    Failed { path: SafePath, error: io::Error },
}

/// A run that was read and hashed.
pub struct HashedRun {
    pub hashes: Vec<BlockHash>,
    /// The run, behind [`HEAD_BYTES`]; not of blocks so large that few buffers hold one.
    pub buf: Option<PoolBuf>,
}

/// A file that is read by itself.
pub struct Begin {
    pub path: SafePath,
    pub stat: FileStat,
    pub layout: Layout,
    pub holes: Vec<Range<u64>>,
    /// Whether nobody was writing to it.
    pub at_rest: bool,
    /// Whether a later run may go by this version's times.
    pub lasting: bool,
    pub attributes: Option<Box<Attributes>>,
}

/// A file that shared a buffer with others.
pub struct SmallResult {
    pub path: SafePath,
    pub outcome: Result<SmallFile, SmallFailure>,
}

/// A small file that was read.
pub struct SmallFile {
    pub stat: FileStat,
    pub hash: BlockHash,
    /// Whether a later run may go by this version's times.
    pub lasting: bool,
    pub attributes: Option<Box<Attributes>>,
}

/// Where the feeder is reached.
pub struct Feeder {
    rounds: mpsc::Sender<Round>,
}

/// Files to be read, until the list's end, and where they go.
struct Round {
    wanted: mpsc::Receiver<Vec<Wanted>>,
    items: Items,
}

type Items = mpsc::Sender<Item>;

impl Feeder {
    /// Starts the shard. It ends when this is dropped.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start(backend: Backend, scan: Arc<Scan>) -> io::Result<Self> {
        let (rounds, mut begun) = mpsc::channel::<Round>(1);
        let config = PoolConfig { slots: SCAN_BUFFERS, ..PoolConfig::default() };
        spawn_shard("sealift-read", backend, config, move |io| async move {
            let reading = Reading { io, scan };
            while let Some(Round { mut wanted, items }) = begun.recv().await {
                reading.feed(&mut wanted, &items).await;
            }
        })?;
        Ok(Self { rounds })
    }

    /// Begins a round: files in, items out. It ends when the sender is dropped and all items are taken.
    ///
    /// # Errors
    /// If the shard has ended, which it does only when its ring or pool could not be made or it panicked.
    pub async fn round(&self) -> io::Result<(mpsc::Sender<Vec<Wanted>>, mpsc::Receiver<Item>)> {
        let (wants, wanted) = mpsc::channel(WANTED_AHEAD_MAX);
        let (items, fed) = mpsc::channel(ITEMS_AHEAD_MAX);
        self.rounds.send(Round { wanted, items }).await.map_err(|_| ended())?;
        Ok((wants, fed))
    }
}

/// The shard is gone.
pub fn ended() -> io::Error {
    io::Error::other("the thread that reads files has ended; is there memory for its buffers?")
}

struct Reading {
    io: BlockIo,
    scan: Arc<Scan>,
}

/// Small files that will share a buffer.
#[derive(Default)]
struct Batch {
    wanted: Vec<SmallRead>,
    bytes: u64,
}

impl Reading {
    async fn feed(&self, wanted: &mut mpsc::Receiver<Vec<Wanted>>, items: &Items) {
        let mut batch = Batch::default();
        loop {
            // What has come together is read when nothing else waits: few files among many known ones need not be
            // kept until the end of the walk.
            let list = match wanted.try_recv() {
                Ok(list) => Some(list),
                Err(_) => {
                    self.feed_batch(&mut batch, items).await;
                    wanted.recv().await
                }
            };
            let Some(list) = list else { return };
            for wanted in list {
                self.feed_file(wanted, &mut batch, items).await;
            }
        }
    }

    async fn feed_file(&self, wanted: Wanted, batch: &mut Batch, items: &Items) {
        match wanted.stat {
            Some(stat) if stat.size_bytes <= BlockSize::MIN.bytes() => {
                let full = batch.wanted.len() == FETCH_RANGES_MAX
                    || batch.bytes + stat.size_bytes > RUN_BYTES_MAX as u64;
                if full {
                    self.feed_batch(batch, items).await;
                }
                batch.bytes += stat.size_bytes;
                batch.wanted.push(SmallRead { path: wanted.path, expected: None });
            }
            _ => self.feed_large(wanted.path, items).await,
        }
    }

    async fn feed_batch(&self, batch: &mut Batch, items: &Items) {
        let Batch { wanted, .. } = std::mem::take(batch);
        if wanted.is_empty() {
            return;
        }
        let (done, result) = oneshot::channel();
        let buf = self.scan.recent.buffer(self.io.pool(), RUN_BYTES_MAX).await;
        let (io, scan) = (self.io.clone(), Arc::clone(&self.scan));
        tokio::task::spawn_local(async move {
            let algorithm = scan.algorithm;
            let read = move || {
                let mut buf = buf;
                let results = scan.source.read_small(&wanted, &mut buf);
                let read = wanted.into_iter().zip(results).map(|(wanted, result)| {
                    let with_attributes = result.and_then(|read| {
                        let attributes = attributes_of(&scan, &wanted.path, &read.stat)?;
                        Ok((read, attributes))
                    });
                    (wanted.path, with_attributes)
                });
                (read.collect::<Vec<_>>(), buf)
            };
            let begun = SystemTime::now();
            let (read, buf) = io.blocking(read).await;
            let piece = |range: &Range<usize>| Piece { range: range.clone(), offset: 0, only: true };
            let contents = read.iter().filter_map(|(_, result)| result.as_ref().ok());
            let pieces = contents.map(|(read, _)| piece(&read.content)).collect();
            let (hashes, _) = hash_pieces(algorithm, pieces, buf).await;
            let mut hashes = hashes.into_iter();
            let files = read.into_iter().map(|(path, result)| SmallResult {
                path,
                outcome: result.and_then(|(read, attributes)| {
                    let hash = hashes.next().expect("one for each file read");
                    let lasting = may_be_remembered(&read.stat, begun);
                    if is_at_rest(&read.stat, begun) {
                        Ok(SmallFile { stat: read.stat, hash, lasting, attributes })
                    } else {
                        Err(SmallFailure::Changed)
                    }
                }),
            });
            // The sequencer may have failed and gone.
            let _ = done.send(files.collect());
        });
        let _ = items.send(Item::Small(result)).await;
    }

    /// Feeds a file of its own: its beginning, its runs, its end. What is small by now goes the same way.
    async fn feed_large(&self, path: SafePath, items: &Items) {
        let scan = Arc::clone(&self.scan);
        let at = path.clone();
        let opened = self.io.blocking(move || scan.source.open_file(&at));
        let opened =
            opened.await.and_then(|(file, stat)| Ok((self.io.attach(Arc::clone(file.file()))?, file, stat)));
        let (on_shard, file, mut stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = items.send(Item::Failed { path, error }).await;
                return;
            }
        };
        for _ in 0..REST_WAITS_MAX {
            if is_at_rest(&stat, SystemTime::now()) {
                break;
            }
            tokio::time::sleep(AT_REST_AFTER).await;
            stat = file.stat().unwrap_or(stat);
        }
        let now = SystemTime::now();
        let (at_rest, lasting) = (is_at_rest(&stat, now), may_be_remembered(&stat, now));
        let of = file.clone();
        let scan = Arc::clone(&self.scan);
        let at = path.clone();
        // Holes are a saving, not a fact that must be carried: a file system that can't say has none.
        let beside = move || {
            let holes = of.plain().map(|file| holes(file, stat.size_bytes).unwrap_or_default());
            (holes.unwrap_or_default(), attributes_of(&scan, &at, &stat))
        };
        let (holes, attributes) = self.io.blocking(beside).await;
        // If they are not of this version, that is found out again at the file's end.
        let attributes = attributes.unwrap_or_default();
        let Some(layout) = file.layout(&stat) else {
            let _ = items.send(Item::TooLarge { path }).await;
            return;
        };
        let begin = Begin { path, stat, layout, holes, at_rest, lasting, attributes };
        let _ = items.send(Item::Begin(begin)).await;
        for run in Run::cover(FileId(0), layout, BlockIndex(0), layout.blocks()) {
            let (done, hashed) = oneshot::channel();
            let bytes = run.bytes as usize;
            let pool = self.io.pool();
            let standard = HEAD_BYTES + bytes <= pool.slot_bytes();
            // Taken here, in order: whoever waits for the oldest run waits for something that has its buffer.
            let mut buf = match standard {
                true => self.scan.recent.buffer(pool, HEAD_BYTES + bytes).await,
                false => pool.acquire(HEAD_BYTES + bytes).await,
            };
            buf.put_zeros(HEAD_BYTES);
            let (io, on_shard, algorithm) = (self.io.clone(), on_shard.clone(), self.scan.algorithm);
            let sealed = file.plain().is_none().then(|| file.clone());
            tokio::task::spawn_local(async move {
                let (read, buf) = match sealed {
                    None => io.read_exact_at(&on_shard, layout.offset(run.first), bytes, buf).await,
                    Some(file) => read_sealed(&io, file, layout, run.first, bytes, buf).await,
                };
                let hashed = match read {
                    Ok(()) => {
                        let place = HEAD_BYTES..HEAD_BYTES + bytes;
                        let (hashes, buf) = hash_run(algorithm, layout, run.first, buf, place).await;
                        Ok(HashedRun { hashes, buf: standard.then_some(buf) })
                    }
                    Err(error) => Err(error),
                };
                let _ = done.send(hashed);
            });
            if items.send(Item::Run { run, hashed }).await.is_err() {
                return;
            }
        }
        let _ = items.send(Item::Finish { file }).await;
    }
}

/// Fills a buffer with a run of a file's sealed form.
pub async fn read_sealed(
    io: &BlockIo,
    file: OfferedFile,
    layout: Layout,
    first: BlockIndex,
    bytes: usize,
    mut buf: PoolBuf,
) -> (io::Result<()>, PoolBuf) {
    io.blocking(move || {
        let read = file.read_sealed(layout, first, buf.spare_mut(bytes));
        if read.is_ok() {
            buf.advance(bytes);
        }
        (read, buf)
    })
    .await
}

/// What is carried of a file beside its content, of exactly the version that was read. Blocks.
fn attributes_of(
    scan: &Scan,
    path: &SafePath,
    version: &FileStat,
) -> Result<Option<Box<Attributes>>, SmallFailure> {
    // Those of sealed files are in their heads.
    if !scan.carried.any() || scan.source.seal().is_some() {
        return Ok(None);
    }
    let attributes = scan.carried.read(scan.source.source(), Some(path), EntryKind::File, &scan.reporter);
    // Whoever sets attributes moves the ctime.
    let (_, now) = scan.source.open_file(path)?;
    if now.same_version(version) { Ok(attributes) } else { Err(SmallFailure::Changed) }
}
