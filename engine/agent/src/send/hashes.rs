//! What earlier runs hashed: looked up beside the walk, so that unchanged files are not read again, and written as files
//! are hashed.
//!
//! A file counts as unchanged if its size, mtime, ctime, inode and mode are those of the version that was hashed. Could
//! a later write leave all of them as they are? The kernel sets the ctime at every write, to a clock that may tick only
//! every 10 ms; so a write directly after the hashing could be given the ctime of one directly before it. Therefore only
//! versions are remembered that were at rest when they were read: whose ctime was at least [`AT_REST_AFTER`] past, many
//! ticks. A write that comes while such a file is read, or later, has a later ctime. Where ctimes have no fraction of a
//! second (old file systems), they are given as much more time.
//!
//! Never fatal: whatever goes wrong here is told once, and files are hashed as if nothing had been known.

use super::scan::AT_REST_AFTER;
use crate::error::RunError;
use crate::report::{Event, Reporter};
use crate::state::StateDir;
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, RootHash};
use sealift_proto::path::SafePath;
use sealift_store::{CachedFile, FileStat, HashCache, IndexError, IndexFound, LocalStat, ProblemKind};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Files and block hashes that are written at a time.
const BATCH_FILES_MAX: usize = 4096;
const BATCH_HASHES_MAX: usize = 256 << 10;
/// What was hashed waits no longer than this before it is written.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// Batches that wait for the writer.
const BATCHES_MAX: usize = 2;
/// What was written is made durable so often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a version whose ctime has no fraction of a second must have been left alone: file systems that keep none
/// round to a second, or to two.
const AT_REST_AFTER_COARSE: Duration = Duration::from_secs(3);

/// The hashes of a source, opened.
#[derive(Clone)]
pub struct Hashes {
    cache: Arc<HashCache>,
    reporter: Arc<Reporter>,
    /// Whether files are hashed again all the same.
    rehash: bool,
}

/// A file whose hashes are known.
pub struct Known {
    /// Size and blocks.
    pub layout: Layout,
    /// The hash of its content.
    pub root: RootHash,
    /// Of each block, if there are several; and holes. Few files have either.
    pub more: Option<Box<(Vec<BlockHash>, Vec<Range<u64>>)>>,
}

impl Hashes {
    /// Opens what is kept of these paths. `None`, told, if that cannot be used.
    pub fn open(
        state: Result<&StateDir, &RunError>,
        paths: &[PathBuf],
        algorithm: HashAlgorithm,
        rehash: bool,
        reporter: &Arc<Reporter>,
    ) -> Option<Self> {
        let without = |why: &dyn std::fmt::Display| {
            let message = format!("Hashes are not kept for the next run: {why}.");
            reporter.tell(&Event::Note { message });
        };
        let state = state.map_err(|error| without(error)).ok()?;
        let file = state.source_hashes(paths, algorithm).map_err(|error| without(&error)).ok()?;
        let cache = HashCache::open(&file, algorithm).map_err(|error| without(&error)).ok()?;
        if let IndexFound::Damaged = cache.found() {
            let message = "What was kept of earlier runs was damaged: everything is hashed again.".into();
            reporter.tell(&Event::Note { message });
        }
        Some(Self { cache: Arc::new(cache), reporter: Arc::clone(reporter), rehash })
    }

    fn failed(&self, error: &IndexError) {
        let message = format!("The hashes of earlier runs cannot be used any further: {error}.");
        self.reporter.tell(&Event::Note { message });
    }
}

/// Looks files up in the order of the walk, and finds what of the rows has no file any more.
pub struct Lookup {
    hashes: Hashes,
    /// The next rows, in the order of the walk.
    rows: std::iter::Peekable<std::vec::IntoIter<(SafePath, CachedFile)>>,
    /// The last row that was taken; `None` before the first.
    #[allow(dead_code)]
    last: Option<SafePath>,
    ended: bool,
    /// Rows without a file.
    gone: Vec<SafePath>,
    /// What could not be looked into: what is beneath may be there all the same.
    blind: Option<SafePath>,
}

impl Lookup {
    /// Before the first file of a walk.
    pub fn new(hashes: Hashes) -> Self {
        let rows = Vec::new().into_iter().peekable();
        Self { hashes, rows, last: None, ended: false, gone: Vec::new(), blind: None }
    }

    /// What is known of a file, if it is the version that was hashed. Asked once for each file, in the walk's order.
    pub fn look(&mut self, path: &SafePath, stat: &FileStat) -> Option<Known> {
        let file = self.hashes.cache.read().and_then(|reader| reader.get(path));
        let file = file.map_err(|error| self.hashes.failed(&error)).ok().flatten()?;
        if self.hashes.rehash || !file.stat.matches(stat) {
            return None;
        }
        known(file)
    }

    /// The walk could not look at a path, or not beneath it.
    pub fn problem(&mut self, path: &[u8], kind: &ProblemKind) {
        if matches!(kind, ProblemKind::Unreadable(_))
            && !self.blind.as_ref().is_some_and(|blind| is_beneath(path, blind.as_bytes()))
        {
            self.blind = SafePath::parse(path).ok();
            // The offered directory itself: no row says anything.
            self.ended |= self.blind.is_none();
        }
    }

    /// The walk came to its end. Yields the rows without a file.
    pub fn finish(mut self) -> Vec<SafePath> {
        while self.next_row().is_some() {
            self.pass();
        }
        self.gone
    }

    /// Passes a row that has no file.
    fn pass(&mut self) {
        let Some((path, _)) = self.rows.next() else { return };
        if !self.blind.as_ref().is_some_and(|blind| is_beneath(path.as_bytes(), blind.as_bytes())) {
            self.gone.push(path);
        }
    }

    fn next_row(&mut self) -> Option<&(SafePath, CachedFile)> {
        self.rows.peek()
    }
}

/// What a row says, if this version of the program would cut and list the file in the same way.
fn known(CachedFile { stat, block_size, root, hashes, holes }: CachedFile) -> Option<Known> {
    let layout = Layout::new(stat.size_bytes, block_size)?;
    let listed = if layout.blocks() > 1 { layout.blocks() as usize } else { 0 };
    let sound = block_size == BlockSize::for_file(stat.size_bytes)
        && hashes.len() == listed
        && holes.last().is_none_or(|hole| hole.end <= stat.size_bytes);
    let more = (!hashes.is_empty() || !holes.is_empty()).then(|| Box::new((hashes, holes)));
    sound.then_some(Known { layout, root, more })
}

/// The order in which a walk comes to paths: as bytes, with a slash before everything else.
fn walk_order(a: &SafePath, b: &SafePath) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    match common {
        Some(at) => rank(a[at]).cmp(&rank(b[at])),
        None => a.len().cmp(&b.len()),
    }
}

/// Whether a path is another or lies beneath it.
fn is_beneath(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether a version that was read from `when` on may be remembered: see the top of this file.
pub fn may_be_remembered(stat: &FileStat, when: SystemTime) -> bool {
    let when = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(u64::try_from(stat.ctime.seconds).unwrap_or(0), stat.ctime.nanos);
    let rest = if stat.ctime.nanos == 0 { AT_REST_AFTER_COARSE } else { AT_REST_AFTER };
    // Not one with a ctime in the future: the clock has been set back, and may come by that time again.
    when >= changed + rest
}

/// What is hashed, on its way into the cache.
pub struct Remember {
    hashes: Hashes,
    /// `None`: to be forgotten.
    batch: HashMap<SafePath, Option<CachedFile>>,
    batch_hashes: usize,
    oldest: Option<Instant>,
    writer: Option<mpsc::Sender<Work>>,
}

enum Work {
    Batch(HashMap<SafePath, Option<CachedFile>>),
    /// All before is made durable, and that is told.
    Flush(oneshot::Sender<()>),
}

impl Remember {
    /// Nothing was hashed yet.
    pub fn new(hashes: Hashes) -> Self {
        Self { hashes, batch: HashMap::new(), batch_hashes: 0, oldest: None, writer: None }
    }

    /// A file was read and hashed, and is sealed.
    pub fn hashed(
        &mut self,
        path: SafePath,
        stat: &FileStat,
        layout: Layout,
        root: RootHash,
        hashes: Vec<BlockHash>,
        holes: Vec<Range<u64>>,
    ) {
        let hashes = if layout.blocks() > 1 { hashes } else { Vec::new() };
        let file =
            CachedFile { stat: LocalStat::from(stat), block_size: layout.block_size(), root, hashes, holes };
        self.batch_hashes += file.hashes.len() + file.holes.len();
        self.add(path, Some(file));
    }

    /// What is kept of a file is not so.
    pub fn forget(&mut self, path: SafePath) {
        self.add(path, None);
    }

    fn add(&mut self, path: SafePath, file: Option<CachedFile>) {
        self.oldest.get_or_insert_with(Instant::now);
        self.batch.insert(path, file);
    }

    /// When what has come together is to be written: now, or at a time.
    pub fn due(&self) -> Option<Instant> {
        let full = self.batch.len() >= BATCH_FILES_MAX || self.batch_hashes >= BATCH_HASHES_MAX;
        self.oldest.map(|oldest| if full { oldest } else { oldest + BATCH_DELAY })
    }

    /// Hands what has come together to the writer. Waits while that is behind.
    pub async fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // It has failed and said so, or the process is out of threads.
        let place = self.writer().clone().reserve_owned().await;
        // Nothing is taken before there is a place for it: whoever waits may be stopped meanwhile.
        let batch = std::mem::take(&mut self.batch);
        self.batch_hashes = 0;
        self.oldest = None;
        if let Ok(place) = place {
            place.send(Work::Batch(batch));
        }
    }

    /// Writes everything and makes it durable. Does not wait for that.
    pub async fn flush(&mut self) -> oneshot::Receiver<()> {
        self.write().await;
        let (flushed, told) = oneshot::channel();
        // Without a writer nothing was written.
        if let Some(writer) = &self.writer {
            let _ = writer.send(Work::Flush(flushed)).await;
        }
        told
    }

    fn writer(&mut self) -> &mpsc::Sender<Work> {
        let hashes = &self.hashes;
        self.writer.get_or_insert_with(|| {
            let (writer, works) = mpsc::channel(BATCHES_MAX);
            let hashes = hashes.clone();
            // Without the thread nothing is written, which harms nobody.
            let _ = std::thread::Builder::new()
                .name("sealift-hashes".into())
                .spawn(move || write_all(&hashes, works));
            writer
        })
    }
}

fn write_all(hashes: &Hashes, mut works: mpsc::Receiver<Work>) {
    let mut flushed_at = Instant::now();
    while let Some(work) = works.blocking_recv() {
        let (done, told) = match work {
            Work::Batch(batch) => (write(&hashes.cache, batch), None),
            Work::Flush(told) => (Ok(()), Some(told)),
        };
        let flush = told.is_some() || flushed_at.elapsed() >= FLUSH_INTERVAL;
        let done = done.and_then(|()| if flush { hashes.cache.flush() } else { Ok(()) });
        if flush {
            flushed_at = Instant::now();
        }
        if let Err(error) = done {
            return hashes.failed(&error);
        }
        if let Some(told) = told {
            let _ = told.send(());
        }
    }
}

fn write(cache: &HashCache, batch: HashMap<SafePath, Option<CachedFile>>) -> Result<(), IndexError> {
    let mut files = Vec::with_capacity(batch.len());
    let mut gone = Vec::new();
    for (path, file) in batch {
        match file {
            Some(file) => files.push((path, file)),
            None => gone.push(path),
        }
    }
    files.sort_unstable_by(|(a, _), (b, _)| walk_order(a, b));
    gone.sort_unstable_by(walk_order);
    cache.remove(&gone)?;
    cache.write(&files)
}
