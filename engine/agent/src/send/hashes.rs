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
use crate::seal::SourceSeal;
use crate::state::StateDir;
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, RootHash};
use sealift_proto::manifest::sealed::plain_bytes;
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
    /// Whether they are of sealed files.
    sealed: bool,
}

/// A file whose hashes are known.
pub struct Known {
    /// Size and blocks.
    pub layout: Layout,
    /// The hash of its content.
    pub root: RootHash,
    /// What few files have.
    pub more: Option<Box<KnownMore>>,
}

/// What is known of files that have several blocks, or holes.
#[derive(Default)]
pub struct KnownMore {
    /// The hash of each block, if there are several.
    pub hashes: Vec<BlockHash>,
    /// Where it holds nothing.
    pub holes: Vec<Range<u64>>,
}

impl Hashes {
    /// Opens what is kept of these paths. `None`, told, if that cannot be used.
    pub fn open(
        state: Result<&StateDir, &RunError>,
        paths: &[PathBuf],
        algorithm: HashAlgorithm,
        rehash: bool,
        seal: Option<&SourceSeal>,
        reporter: &Arc<Reporter>,
    ) -> Option<Self> {
        let without = |why: &dyn std::fmt::Display| {
            let message = format!("Hashes are not kept for the next run: {why}.");
            reporter.tell(&Event::Note { message });
        };
        let state = state.map_err(|error| without(error)).ok()?;
        // Other keys make other bytes of the same files.
        let variant = seal.map(SourceSeal::variant).unwrap_or_default();
        let file = state.source_hashes(paths, algorithm, &variant).map_err(|error| without(&error)).ok()?;
        let cache = HashCache::open(&file, algorithm).map_err(|error| without(&error)).ok()?;
        if let IndexFound::Damaged = cache.found() {
            let message = "What was kept of earlier runs was damaged: everything is hashed again.".into();
            reporter.tell(&Event::Note { message });
        }
        Some(Self { cache: Arc::new(cache), reporter: Arc::clone(reporter), rehash, sealed: seal.is_some() })
    }

    fn failed(&self, error: &IndexError) {
        let message = format!("The hashes of earlier runs cannot be used any further: {error}.");
        self.reporter.tell(&Event::Note { message });
    }
}

/// Looks files up in the order of the walk, and finds what of the rows has no file any more.
pub struct Lookup {
    hashes: Hashes,
    /// The next rows, in the order of the walk, without hashes of blocks.
    rows: std::iter::Peekable<std::vec::IntoIter<(SafePath, CachedFile)>>,
    /// The last row that was taken; `None` before the first.
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
        loop {
            let row = self.next_row()?;
            match walk_order(&row.0, path) {
                Ordering::Less => self.pass(),
                Ordering::Equal => break,
                Ordering::Greater => return None,
            }
        }
        let (_, mut file) = self.rows.next().expect("just looked at");
        if self.hashes.rehash || !file.stat.matches(stat) {
            return None;
        }
        if Layout::new(file.stat.size_bytes, file.block_size)?.blocks() > 1 {
            let whole = self.hashes.cache.read().and_then(|reader| reader.get(path));
            file = whole.map_err(|error| self.hashes.failed(&error)).ok().flatten()?;
        }
        known(file, self.hashes.sealed)
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
        if self.rows.peek().is_none() && !self.ended {
            let read = self.hashes.cache.read().and_then(|reader| reader.after(self.last.as_ref()));
            let rows = read.unwrap_or_else(|error| {
                self.hashes.failed(&error);
                Vec::new()
            });
            self.ended = rows.is_empty();
            self.last = rows.last().map(|(path, _)| path.clone());
            self.rows = rows.into_iter().peekable();
        }
        self.rows.peek()
    }
}

/// What a row says, if this version of the program would cut and list the file in the same way.
fn known(CachedFile { stat, block_size, root, hashes, holes }: CachedFile, sealed: bool) -> Option<Known> {
    let layout = Layout::new(stat.size_bytes, block_size)?;
    let listed = if layout.blocks() > 1 { layout.blocks() as usize } else { 0 };
    let cut = match sealed {
        false => block_size == BlockSize::for_file(stat.size_bytes),
        true => plain_bytes(layout).is_some(),
    };
    let sound = cut && hashes.len() == listed && holes.last().is_none_or(|hole| hole.end <= stat.size_bytes);
    let more = (!hashes.is_empty() || !holes.is_empty()).then(|| Box::new(KnownMore { hashes, holes }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use sealift_store::{Found, Source, Timestamp, Walk};
    use std::path::Path;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).unwrap()
    }

    fn open(dir: &Path, rehash: bool) -> Hashes {
        let state = StateDir::open(Some(dir.join("state"))).unwrap();
        let reporter = Arc::new(Reporter::new(Style::Json));
        Hashes::open(Ok(&state), &[dir.into()], HashAlgorithm::Blake3, rehash, None, &reporter).unwrap()
    }

    /// The files of a tree, in the order of the walk.
    fn files(tree: &Path) -> Vec<(SafePath, FileStat)> {
        let source = Source::open(&[tree.into()]).unwrap();
        let files = Walk::new(&source).filter_map(|found| match found {
            Found::File { path, stat } => Some((path, stat)),
            _ => None,
        });
        files.collect()
    }

    /// Each with a root of its own.
    fn row(number: u8, stat: &FileStat) -> CachedFile {
        CachedFile {
            stat: LocalStat::from(stat),
            block_size: BlockSize::MIN,
            root: RootHash([number; 32]),
            hashes: vec![BlockHash([number; 32]); usize::from(stat.size_bytes > 32_768) * 2],
            holes: Vec::new(),
        }
    }

    fn look(lookup: &mut Lookup, files: &[(SafePath, FileStat)]) -> Vec<Option<u8>> {
        files.iter().map(|(path, stat)| lookup.look(path, stat).map(|known| known.root.0[0])).collect()
    }

    #[test]
    fn what_is_unchanged_is_known_and_what_is_gone_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        // Names around the slash, which comes before every other byte in a walk.
        let names = ["a", "a b/c", "b/x", "b-", "b!", "b/y/z", "c", "b0"];
        for name in names {
            let file = tree.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, name).unwrap();
        }
        std::fs::write(tree.join("large"), vec![1; 40_000]).unwrap();
        let before = files(&tree);
        assert!(before.is_sorted_by(|(a, _), (b, _)| walk_order(a, b).is_lt()), "{before:?}");
        let hashes = open(dir.path(), false);
        let rows: Vec<_> = (0..).zip(&before).map(|(n, (path, stat))| (path.clone(), row(n, stat))).collect();
        hashes.cache.write(&rows).unwrap();

        let mut lookup = Lookup::new(hashes.clone());
        let all: Vec<_> = (0..).take(before.len()).map(Some).collect();
        assert_eq!(look(&mut lookup, &before), all);
        assert!(lookup.finish().is_empty());

        // One is touched, one is new, two are gone.
        std::fs::write(tree.join("b!"), "B!").unwrap();
        std::fs::write(tree.join("b/new"), "").unwrap();
        std::fs::remove_file(tree.join("a")).unwrap();
        std::fs::remove_dir_all(tree.join("b/y")).unwrap();
        let mut lookup = Lookup::new(hashes.clone());
        let mut unknown = files(&tree);
        unknown.retain(|(path, stat)| lookup.look(path, stat).is_none());
        assert_eq!(
            unknown.into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
            [path("b/new"), path("b!")]
        );
        assert_eq!(lookup.finish(), [path("a"), path("b/y/z")]);

        // All hashed again: nothing is known, and nothing is gone.
        drop(hashes);
        let mut lookup = Lookup::new(open(dir.path(), true));
        assert_eq!(look(&mut lookup, &before), vec![None; before.len()]);
        assert!(lookup.finish().is_empty());
    }

    #[test]
    fn b3_what_could_not_be_looked_at_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let hashes = open(dir.path(), false);
        let zero = Timestamp { seconds: 0, nanos: 0 };
        let stat =
            FileStat { size_bytes: 1, mtime: zero, ctime: zero, inode: 1, device: 1, mode: 0, links: 1 };
        let names = ["a", "closed/b", "closed/sub/c", "closed-", "z"];
        let rows: Vec<_> = names.iter().map(|name| (path(name), row(1, &stat))).collect();
        hashes.cache.write(&rows).unwrap();
        let unreadable = ProblemKind::Unreadable(std::io::ErrorKind::PermissionDenied.into());
        let mut lookup = Lookup::new(hashes.clone());
        lookup.problem(b"closed", &unreadable);
        lookup.problem(b"closed/sub", &unreadable);
        assert!(lookup.look(&path("z"), &stat).is_some());
        assert_eq!(lookup.finish(), [path("a"), path("closed-")]);
        let mut lookup = Lookup::new(hashes);
        lookup.problem(b"", &unreadable);
        assert!(lookup.finish().is_empty());
    }

    #[test]
    fn b12_only_versions_whose_times_say_that_they_last_are_remembered() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_000_000 + millis);
        let zero = Timestamp { seconds: 0, nanos: 0 };
        let changed = |millis: u64| FileStat {
            size_bytes: 1,
            mtime: zero,
            ctime: Timestamp {
                seconds: 1000 + i64::try_from(millis / 1000).unwrap(),
                nanos: u32::try_from(millis % 1000).unwrap() * 1_000_000,
            },
            inode: 1,
            device: 1,
            mode: 0,
            links: 1,
        };
        assert!(may_be_remembered(&changed(500), at(600)));
        assert!(!may_be_remembered(&changed(500), at(599)));
        assert!(!may_be_remembered(&changed(60_500), at(600)), "a time in the future");
        assert!(!may_be_remembered(&changed(1000), at(3999)), "no fractions of a second");
        assert!(may_be_remembered(&changed(1000), at(4000)));
    }

    #[tokio::test]
    async fn what_is_hashed_and_forgotten_is_written_in_the_order_it_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let hashes = open(dir.path(), false);
        let zero = Timestamp { seconds: 0, nanos: 0 };
        let stat =
            FileStat { size_bytes: 1, mtime: zero, ctime: zero, inode: 1, device: 1, mode: 0, links: 1 };
        let layout = Layout::new(1, BlockSize::MIN).unwrap();
        let mut remember = Remember::new(hashes.clone());
        assert_eq!(remember.due(), None);
        let hashed = |remember: &mut Remember, name: &str| {
            remember.hashed(path(name), &stat, layout, RootHash([1; 32]), Vec::new(), Vec::new());
        };
        hashed(&mut remember, "a");
        hashed(&mut remember, "b");
        remember.forget(path("a"));
        assert!(remember.due().is_some());
        remember.write().await;
        remember.forget(path("b"));
        hashed(&mut remember, "b");
        remember.forget(path("c"));
        remember.flush().await.await.unwrap();
        let rows = hashes.cache.read().unwrap().after(None).unwrap();
        assert_eq!(rows.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["b"]);
    }
}
