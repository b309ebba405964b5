//! Scans a source into its manifest: walk → read → hash → records → signed segments, all at once and in order.
//!
//! A walker thread finds entries. The feeder reads files into pooled buffers and sends them to be hashed, many at a
//! time; small files share a buffer. The sequencer takes the results in the order of the walk, numbers the entries and
//! signs segments as they fill. A file that changes while it is read is taken back and tried again, later; so is one
//! that a receiver's request finds changed. A file is sealed only if its inode is the same after the last read as
//! before the first, and was left alone for a moment before that (hazard B12). A single write that takes longer than
//! that moment does not show in the inode: such a mixture cannot be told from a version.

use super::changed::ChangedFiles;
use super::log::{ManifestLog, Offered, OfferedFiles};
use crate::report::{Event, Reporter};
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, root};
use sealift_proto::limits::{FETCH_RANGES_MAX, RECORD_HOLES_MAX, RUN_BYTES_MAX};
use sealift_proto::manifest::{Fill, Hole, Metadata, Mode, Problem, Record, SegmentWriter, WithdrawReason};
use sealift_proto::path::{SafePath, escape};
use sealift_proto::time::Timestamp;
use sealift_proto::transfer::pull::Run;
use sealift_store::{
    BlockIo, FileStat, Found, Piece, ProblemKind, SmallFailure, SmallRead, Source, Walk, hash_pieces,
    hash_run, holes, read_small,
};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Entries the walker may be ahead of the feeder.
const FOUND_AHEAD_MAX: usize = 1024;
/// Items the feeder may be ahead of the sequencer; their buffers are bounded by the pool.
const ITEMS_AHEAD_MAX: usize = 64;
/// A segment with anything in it waits no longer than this.
const SEGMENT_DELAY: Duration = Duration::from_millis(50);
/// A file that changed is tried this many times in all.
const ATTEMPTS_MAX: u32 = 3;
/// A file that was left alone for so long is tried as often again.
const ATTEMPTS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Before a file that changed is read again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A write sets a file's times when it begins, not when it ends: only a file that was left alone for so long shows by
/// its times whether it is written to from now on.
const AT_REST_AFTER: Duration = Duration::from_millis(100);
/// How often a file is waited for to come to rest before it counts as changing.
const REST_WAITS_MAX: u32 = 3;

/// What the scan shares with the rest of a sender.
pub struct Scan {
    /// What is offered.
    pub source: Arc<Source>,
    /// Where segments go.
    pub log: Arc<ManifestLog>,
    /// Where files are listed for serving.
    pub files: Arc<OfferedFiles>,
    /// The hash of the blocks.
    pub algorithm: HashAlgorithm,
    /// Who is told.
    pub reporter: Arc<Reporter>,
    /// Files that requests found changed.
    pub changed: Arc<ChangedFiles>,
    /// Told whenever the manifest has an end.
    pub scanned: watch::Sender<Option<Totals>>,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that stand.
    pub entries: u64,
    /// Files among them.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What could not be offered.
    pub problems: u64,
}

/// A file to be read: found by the walk or to be tried again.
struct Wanted {
    path: SafePath,
    stat: Option<FileStat>,
}

/// What the feeder hands to the sequencer, in order.
enum Item {
    Root(Metadata),
    Directory { path: SafePath, metadata: Metadata },
    Symlink { path: SafePath, mtime: Timestamp, target: Vec<u8> },
    Problem { path: Vec<u8>, problem: Problem, reason: String },
    Small(oneshot::Receiver<Vec<SmallResult>>),
    Begin { path: SafePath, stat: FileStat, layout: Layout, holes: Vec<Range<u64>>, at_rest: bool },
    Run { run: Run, hashes: oneshot::Receiver<io::Result<Vec<BlockHash>>> },
    Finish { file: Arc<File> },
    Failed { path: SafePath, error: io::Error },
}

/// A file that shared a buffer with others.
struct SmallResult {
    path: SafePath,
    outcome: Result<(FileStat, BlockHash), SmallFailure>,
}

/// Runs the scan to its end, then waits for files that turn out to have changed. Ends only by an error.
///
/// # Errors
/// If the spool cannot be written, or a thread cannot be started.
pub async fn run(io: BlockIo, scan: Scan, writer: SegmentWriter) -> io::Result<Infallible> {
    let scan = Arc::new(scan);
    let mut sequencer = Sequencer::new(Arc::clone(&scan), writer);
    let (found, walked) = mpsc::channel(FOUND_AHEAD_MAX);
    let source = Arc::clone(&scan.source);
    std::thread::Builder::new().name("sealift-walk".into()).spawn(move || {
        for entry in Walk::new(&source) {
            if found.blocking_send(entry).is_err() {
                return;
            }
        }
    })?;
    let feeder = Feeder { io, scan: Arc::clone(&scan) };

    let (items, received) = mpsc::channel(ITEMS_AHEAD_MAX);
    let (again, sequenced) = tokio::join!(feeder.feed_walk(walked, items), sequencer.take(received));
    sequenced?;
    // Names of files that already have one, which could not be matched before their first name was done.
    sequencer.further_names(again)?;
    loop {
        let wanted = std::mem::take(&mut sequencer.again);
        if wanted.is_empty() {
            sequencer.end()?;
            // Not so if files were found changed in this very moment.
            if sequencer.ended {
                for id in scan.changed.take().await {
                    sequencer.withdraw_changed(id)?;
                }
            }
            continue;
        }
        sequencer.flush()?;
        tokio::time::sleep(RETRY_DELAY).await;
        let (items, received) = mpsc::channel(ITEMS_AHEAD_MAX);
        let ((), sequenced) = tokio::join!(feeder.feed_files(wanted, items), sequencer.take(received));
        sequenced?;
        let names = std::mem::take(&mut sequencer.names_again);
        sequencer.further_names(names)?;
    }
}

/// Reads and hashes ahead of the sequencer.
struct Feeder {
    io: BlockIo,
    scan: Arc<Scan>,
}

/// Small files that will share a buffer.
#[derive(Default)]
struct Batch {
    wanted: Vec<SmallRead>,
    bytes: u64,
}

type Items = mpsc::Sender<Item>;

impl Feeder {
    /// Feeds everything the walk finds. Returns further names of files that were found before: they come last.
    async fn feed_walk(&self, mut walked: mpsc::Receiver<Found>, items: Items) -> Vec<(SafePath, SafePath)> {
        let mut first_names: HashMap<(u64, u64), SafePath> = HashMap::new();
        let mut hardlinks = Vec::new();
        let mut batch = Batch::default();
        while let Some(found) = walked.recv().await {
            let item = match found {
                Found::Root { mode, mtime } => Item::Root(self.scan.metadata(b".", mode, mtime)),
                Found::Directory { path, mode, mtime } => {
                    let metadata = self.scan.metadata(path.as_bytes(), mode, mtime);
                    Item::Directory { path, metadata }
                }
                Found::Symlink { path, target, mtime } => {
                    let mtime = self.scan.time(path.as_bytes(), mtime);
                    Item::Symlink { path, mtime, target }
                }
                Found::Problem { path, kind } => {
                    let problem = match kind {
                        ProblemKind::Special => Problem::Special,
                        ProblemKind::Unreadable(_) => Problem::Unreadable,
                        ProblemKind::BadName(_) => Problem::BadName,
                    };
                    Item::Problem { path, problem, reason: kind.to_string() }
                }
                Found::File { path, stat } => {
                    if stat.links > 1 {
                        match first_names.entry((stat.device, stat.inode)) {
                            std::collections::hash_map::Entry::Occupied(first) => {
                                hardlinks.push((path, first.get().clone()));
                                continue;
                            }
                            std::collections::hash_map::Entry::Vacant(vacant) => {
                                vacant.insert(path.clone());
                            }
                        }
                    }
                    self.feed_file(Wanted { path, stat: Some(stat) }, &mut batch, &items).await;
                    continue;
                }
            };
            if items.send(item).await.is_err() {
                break;
            }
        }
        self.feed_batch(&mut batch, &items).await;
        hardlinks
    }

    /// Feeds files that are to be read again.
    async fn feed_files(&self, wanted: Vec<Wanted>, items: Items) {
        let mut batch = Batch::default();
        for wanted in wanted {
            self.feed_file(wanted, &mut batch, &items).await;
        }
        self.feed_batch(&mut batch, &items).await;
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
        let buf = self.io.pool().acquire(RUN_BYTES_MAX).await;
        let io = self.io.clone();
        let source = Arc::clone(&self.scan.source);
        let algorithm = self.scan.algorithm;
        tokio::task::spawn_local(async move {
            let read = move || {
                let mut buf = buf;
                let results = read_small(&source, &wanted, 0, &mut buf);
                (wanted, results, buf)
            };
            let begun = SystemTime::now();
            let (wanted, results, buf) = io.blocking(read).await;
            let piece = |range: &Range<usize>| Piece { range: range.clone(), offset: 0, only: true };
            let pieces = results.iter().flatten().map(|read| piece(&read.content)).collect();
            let (hashes, _) = hash_pieces(algorithm, pieces, buf).await;
            let mut hashes = hashes.into_iter();
            let files = wanted.into_iter().zip(results).map(|(wanted, result)| SmallResult {
                path: wanted.path,
                outcome: result.and_then(|read| {
                    let hash = hashes.next().expect("one for each file read");
                    if is_at_rest(&read.stat, begun) {
                        Ok((read.stat, hash))
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
        let source = Arc::clone(&self.scan.source);
        let at = path.clone();
        let opened = self.io.blocking(move || {
            let (file, stat) = source.open_file(&at)?;
            Ok::<_, io::Error>((Arc::new(file), stat))
        });
        let opened =
            opened.await.and_then(|(file, stat)| Ok((self.io.attach(Arc::clone(&file))?, file, stat)));
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
            stat = FileStat::of(&file).unwrap_or(stat);
        }
        let at_rest = is_at_rest(&stat, SystemTime::now());
        let of = Arc::clone(&file);
        // Holes are a saving, not a fact that must be carried: a file system that can't say has none.
        let holes = self.io.blocking(move || holes(&of, stat.size_bytes)).await.unwrap_or_default();
        let Some(layout) = Layout::new(stat.size_bytes, BlockSize::for_file(stat.size_bytes)) else {
            let reason = "is larger than a file may be".to_owned();
            let path = path.as_bytes().to_vec();
            let _ = items.send(Item::Problem { path, problem: Problem::TooLarge, reason }).await;
            return;
        };
        let _ = items.send(Item::Begin { path, stat, layout, holes, at_rest }).await;
        for run in Run::cover(FileId(0), layout, BlockIndex(0), layout.blocks()) {
            let (done, hashes) = oneshot::channel();
            let bytes = run.bytes as usize;
            // Taken here, in order: whoever waits for the oldest run waits for something that has its buffer.
            let buf = self.io.pool().acquire(bytes).await;
            let (io, on_shard, algorithm) = (self.io.clone(), on_shard.clone(), self.scan.algorithm);
            tokio::task::spawn_local(async move {
                let (read, buf) = io.read_exact_at(&on_shard, layout.offset(run.first), bytes, buf).await;
                let hashed = match read {
                    Ok(()) => Ok(hash_run(algorithm, layout, run.first, buf, 0..bytes).await.0),
                    Err(error) => Err(error),
                };
                let _ = done.send(hashed);
            });
            if items.send(Item::Run { run, hashes }).await.is_err() {
                return;
            }
        }
        let _ = items.send(Item::Finish { file }).await;
    }
}

/// Numbers entries and signs segments.
struct Sequencer {
    scan: Arc<Scan>,
    writer: SegmentWriter,
    next_id: u64,
    totals: Totals,
    /// A file whose runs are coming.
    open: Option<Open>,
    /// How often a file that changed was tried.
    attempts: HashMap<SafePath, (u32, Instant)>,
    /// Files to be read again.
    again: Vec<Wanted>,
    /// Further names of files that are read again, with the first names: they follow when those stand.
    names_again: Vec<(SafePath, SafePath)>,
    /// Files with several names that stand, by the name under which they were announced, and the further names.
    linked: HashMap<SafePath, Vec<(FileId, SafePath)>>,
    withdrawn: HashSet<FileId>,
    ended: bool,
    oldest_unsigned: Option<Instant>,
}

struct Open {
    id: FileId,
    path: SafePath,
    stat: FileStat,
    at_rest: bool,
    hashes: Vec<BlockHash>,
    failure: Option<io::Error>,
}

impl Sequencer {
    fn new(scan: Arc<Scan>, writer: SegmentWriter) -> Self {
        Self {
            scan,
            writer,
            next_id: 0,
            totals: Totals::default(),
            open: None,
            attempts: HashMap::new(),
            again: Vec::new(),
            names_again: Vec::new(),
            linked: HashMap::new(),
            withdrawn: HashSet::new(),
            ended: false,
            oldest_unsigned: None,
        }
    }

    /// Takes items until there are no more.
    async fn take(&mut self, mut items: mpsc::Receiver<Item>) -> io::Result<()> {
        loop {
            let next = match self.oldest_unsigned {
                None => items.recv().await,
                Some(since) => match tokio::time::timeout_at(since + SEGMENT_DELAY, items.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.flush()?;
                        continue;
                    }
                },
            };
            match next {
                Some(item) => self.item(item).await?,
                None => return Ok(()),
            }
        }
    }

    async fn item(&mut self, item: Item) -> io::Result<()> {
        match item {
            Item::Root(metadata) => self.push(&Record::Root(metadata)),
            Item::Directory { path, metadata } => {
                let id = self.number(None)?;
                self.push(&Record::Directory { id, path, metadata })
            }
            Item::Symlink { path, mtime, target } => {
                let id = self.number(None)?;
                self.push(&Record::Symlink { id, path, mtime, target })
            }
            Item::Problem { path, problem, reason } => self.problem(path, problem, &reason),
            Item::Failed { path, error } => self.unreadable(&path, &error),
            Item::Small(results) => {
                let lost = |_| io::Error::other("a hashing task failed");
                for result in results.await.map_err(lost)? {
                    self.small(result)?;
                }
                Ok(())
            }
            Item::Begin { path, stat, layout, holes, at_rest } => {
                self.begin(path, stat, layout, &holes, at_rest)
            }
            Item::Run { run, hashes } => {
                let hashes = hashes.await.unwrap_or_else(|_| Err(io::Error::other("a hashing task failed")));
                self.hashed(run, hashes)
            }
            Item::Finish { file } => self.finish(&file),
        }
    }

    fn small(&mut self, SmallResult { path, outcome }: SmallResult) -> io::Result<()> {
        let (stat, hash) = match outcome {
            Ok((stat, _)) if stat.size_bytes > BlockSize::MIN.bytes() => {
                self.try_again(path, Some(stat));
                return Ok(());
            }
            Ok(read) => read,
            Err(SmallFailure::Io(error)) => return self.unreadable(&path, &error),
            // Another kind of thing by now, or grown: looked at afresh.
            Err(_) => return self.changed(path),
        };
        let layout = Layout::new(stat.size_bytes, BlockSize::MIN).expect("one block");
        let metadata = self.scan.metadata(path.as_bytes(), stat.mode, stat.mtime);
        let id = self.number(Some(&Offered { path: path.clone(), layout, stat }))?;
        self.stands(&path, &stat);
        self.push(&Record::SmallFile { id, path, metadata, layout, hash })
    }

    fn begin(
        &mut self,
        path: SafePath,
        stat: FileStat,
        layout: Layout,
        holes: &[Range<u64>],
        at_rest: bool,
    ) -> io::Result<()> {
        let id = self.number(Some(&Offered { path: path.clone(), layout, stat }))?;
        let metadata = self.scan.metadata(path.as_bytes(), stat.mode, stat.mtime);
        self.push(&Record::File { id, path: path.clone(), metadata, layout })?;
        // The file may have shrunk since: what is signed must make sense all the same.
        let within: Vec<_> = holes.iter().filter(|hole| hole.end <= layout.size_bytes()).collect();
        for holes in within.chunks(RECORD_HOLES_MAX) {
            let hole = |hole: &&Range<u64>| Hole { offset: hole.start, len: hole.end - hole.start };
            self.push(&Record::Holes { id, holes: holes.iter().map(hole).collect() })?;
        }
        self.open = Some(Open { id, path, stat, at_rest, hashes: Vec::new(), failure: None });
        Ok(())
    }

    fn hashed(&mut self, run: Run, hashes: io::Result<Vec<BlockHash>>) -> io::Result<()> {
        let open = self.open.as_mut().expect("a run follows its file's beginning");
        if open.failure.is_some() {
            return Ok(());
        }
        match hashes {
            Err(error) => {
                open.failure = Some(error);
                Ok(())
            }
            Ok(hashes) => {
                open.hashes.extend_from_slice(&hashes);
                let id = open.id;
                self.push(&Record::Hashes { id, first: run.first, hashes })
            }
        }
    }

    fn finish(&mut self, file: &File) -> io::Result<()> {
        let Open { id, path, stat, at_rest, hashes, failure } =
            self.open.take().expect("an end follows a beginning");
        let same = FileStat::of(file).map(|now| at_rest && now.same_version(&stat));
        let failure = match (failure, same) {
            (None, Ok(true)) => {
                self.stands(&path, &stat);
                let root = root(self.scan.algorithm, &hashes);
                return self.push(&Record::Sealed { id, root });
            }
            (None | Some(_), Ok(false)) => None,
            (Some(error), Ok(true)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            (Some(error), _) | (None, Err(error)) => Some(error),
        };
        self.uncount(id, stat.size_bytes);
        match failure {
            Some(error) => {
                self.tell_problem(path.as_bytes(), &unreadable_reason(&error));
                self.push(&Record::Withdrawn { id, path, reason: WithdrawReason::Unreadable })
            }
            None if self.may_try_again(&path) => {
                let reason = WithdrawReason::Superseded;
                self.push(&Record::Withdrawn { id, path: path.clone(), reason })?;
                self.again.push(Wanted { path, stat: None });
                Ok(())
            }
            None => {
                self.tell_problem(path.as_bytes(), CHANGED_REASON);
                self.push(&Record::Withdrawn { id, path, reason: WithdrawReason::Changed })
            }
        }
    }

    /// Further names of files, now that it is known which of them stand.
    fn further_names(&mut self, names: Vec<(SafePath, SafePath)>) -> io::Result<()> {
        for (path, first) in names {
            if self.linked.contains_key(&first) {
                let id = self.number(None)?;
                self.totals.files += 1;
                self.push(&Record::Hardlink { id, path: path.clone(), target: first.clone() })?;
                self.linked.entry(first).or_default().push((id, path));
            } else if self.again.iter().any(|wanted| wanted.path == first) {
                self.names_again.push((path, first));
            } else {
                self.try_again(path, None);
            }
        }
        Ok(())
    }

    /// A receiver's request found that a file is not what was hashed.
    fn withdraw_changed(&mut self, id: FileId) -> io::Result<()> {
        let Some(Offered { path, layout, .. }) = self.scan.files.get(id)? else { return Ok(()) };
        if self.withdrawn.contains(&id) {
            return Ok(());
        }
        self.uncount(id, layout.size_bytes());
        let names = self.linked.remove(&path).unwrap_or_default();
        let reason = match self.scan.source.open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => WithdrawReason::Vanished,
            _ if self.may_try_again(&path) => WithdrawReason::Superseded,
            _ => WithdrawReason::Changed,
        };
        self.push(&Record::Withdrawn { id, path: path.clone(), reason })?;
        match reason {
            WithdrawReason::Vanished => {
                let message = format!("{path}: was removed before it was sent");
                self.scan.reporter.tell(&Event::Warning { message });
            }
            WithdrawReason::Changed => self.tell_problem(path.as_bytes(), CHANGED_REASON),
            _ => {}
        }
        let mut first_names = HashMap::new();
        if reason == WithdrawReason::Superseded {
            self.read_again(path, &mut first_names);
        }
        // Which names are one file now is for the disk to say.
        for (id, path) in names {
            self.uncount(id, 0);
            let reason = WithdrawReason::Superseded;
            self.push(&Record::Withdrawn { id, path: path.clone(), reason })?;
            self.read_again(path, &mut first_names);
        }
        Ok(())
    }

    /// Reads a file again, unless it is a further name of one that is.
    fn read_again(&mut self, path: SafePath, first_names: &mut HashMap<(u64, u64), SafePath>) {
        if let Ok((_, stat)) = self.scan.source.open_file(&path) {
            if let Some(first) = first_names.get(&(stat.device, stat.inode)) {
                self.names_again.push((path, first.clone()));
                return;
            }
            first_names.insert((stat.device, stat.inode), path.clone());
        }
        self.try_again(path, None);
    }

    fn changed(&mut self, path: SafePath) -> io::Result<()> {
        if self.may_try_again(&path) {
            self.again.push(Wanted { path, stat: None });
            Ok(())
        } else {
            self.problem(path.as_bytes().to_vec(), Problem::Changed, CHANGED_REASON)
        }
    }

    fn unreadable(&mut self, path: &SafePath, error: &io::Error) -> io::Result<()> {
        match error.kind() {
            // Removed between the walk and now: as if the walk had come later.
            io::ErrorKind::NotFound => Ok(()),
            _ => self.problem(path.as_bytes().to_vec(), Problem::Unreadable, &unreadable_reason(error)),
        }
    }

    fn try_again(&mut self, path: SafePath, stat: Option<FileStat>) {
        self.again.push(Wanted { path, stat });
    }

    fn may_try_again(&mut self, path: &SafePath) -> bool {
        let now = Instant::now();
        let (attempts, last) = self.attempts.entry(path.clone()).or_insert((1, now));
        // What changes once in a while is not what keeps changing.
        if last.elapsed() >= ATTEMPTS_FORGOTTEN_AFTER {
            *attempts = 1;
        }
        *last = now;
        *attempts += 1;
        *attempts <= ATTEMPTS_MAX
    }

    /// A file is complete in the manifest.
    fn stands(&mut self, path: &SafePath, stat: &FileStat) {
        if stat.links > 1 {
            self.linked.insert(path.clone(), Vec::new());
        }
    }

    fn problem(&mut self, path: Vec<u8>, problem: Problem, reason: &str) -> io::Result<()> {
        self.tell_problem(&path, reason);
        let mut shown_path = path;
        shown_path.truncate(sealift_proto::limits::PATH_BYTES_MAX);
        self.push(&Record::Problem { shown_path, problem })
    }

    fn tell_problem(&mut self, path: &[u8], reason: &str) {
        self.totals.problems += 1;
        self.scan.reporter.problem(path, reason);
    }

    /// The next entry's number.
    fn number(&mut self, file: Option<&Offered>) -> io::Result<FileId> {
        self.scan.files.push(file)?;
        let id = FileId(self.next_id);
        self.next_id += 1;
        self.totals.entries += 1;
        if let Some(file) = file {
            self.totals.files += 1;
            self.totals.bytes += file.layout.size_bytes();
        }
        Ok(id)
    }

    /// A file that was numbered is taken back.
    fn uncount(&mut self, id: FileId, bytes: u64) {
        self.withdrawn.insert(id);
        self.totals.entries -= 1;
        self.totals.files -= 1;
        self.totals.bytes -= bytes;
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        self.ended = matches!(record, Record::End { .. });
        match self.writer.push(record) {
            Fill::Full => self.flush(),
            Fill::Room => {
                self.oldest_unsigned.get_or_insert_with(Instant::now);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.oldest_unsigned = None;
        if self.writer.is_empty() {
            return Ok(());
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let segment = self.writer.finish(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX));
        self.scan.log.append(&segment)?;
        // Receivers wait for word of files that they found changed, and a scan may take long.
        for id in self.scan.changed.try_take() {
            self.withdraw_changed(id)?;
        }
        Ok(())
    }

    /// Says that everything has been said.
    fn end(&mut self) -> io::Result<()> {
        if !self.ended {
            self.push(&Record::End { entries: self.totals.entries })?;
            self.flush()?;
            let Totals { entries, bytes, problems, .. } = self.totals;
            self.scan.reporter.tell(&Event::Scanned { entries, bytes, problems });
        }
        self.scan.scanned.send_replace(Some(self.totals));
        Ok(())
    }
}

/// Whether a file's times say by `when` that nobody is writing to it. Times in the future say nothing.
fn is_at_rest(stat: &FileStat, when: SystemTime) -> bool {
    let when = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(u64::try_from(stat.ctime.seconds).unwrap_or(0), stat.ctime.nanos);
    changed > when + Duration::from_secs(1) || when >= changed + AT_REST_AFTER
}

const CHANGED_REASON: &str = "kept changing while it was read";

fn unreadable_reason(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

impl Scan {
    fn metadata(&self, path: &[u8], mode: u32, mtime: sealift_store::Timestamp) -> Metadata {
        Metadata { mode: Mode::from_bits(mode), mtime: self.time(path, mtime) }
    }

    /// A time as it is carried. One that cannot be is brought into range, and that is told.
    fn time(&self, path: &[u8], time: sealift_store::Timestamp) -> Timestamp {
        Timestamp::new(time.seconds, time.nanos).unwrap_or_else(|| {
            let message =
                format!("{}: its time is outside the years 1 to 9999 and was changed", escape(path));
            self.reporter.tell(&Event::Warning { message });
            Timestamp::clamped(time.seconds, time.nanos)
        })
    }
}
