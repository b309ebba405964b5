//! The check of a replica: takes the manifest's records as they are read, has files hashed on all cores, and says of each
//! entry that stands whether it is right.
//!
//! Owns what is in work, which is bounded by the jobs at a time: of a large file its wrong blocks, of small ones a batch.
//! Never changes anything, and never decides what a finding means for the run: that is the [`Sink`]'s.

use super::finding::{Cause, Content, Finding, Wanted, Wrong};
use super::survey::{Part, Survey, read_again};
use super::work::{
    BATCH_FILES_MAX, BATCH_LOOKS_MAX, Done, Look, Looked, Opened, Opening, Owed, RunFound, SMALL_BYTES_MAX,
    Signed, SignedEntry, Small, cover, look, run, small,
};
use crate::error::RunError;
use crate::receive::entries::time;
use crate::shards::Shards;
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, RootHash, root};
use sealift_proto::manifest::{Catalog, Metadata, Mode, Record};
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp as Time;
use sealift_proto::transfer::pull::Run;
use sealift_store::{EntryRow, EntryWhat, Existing, FileStat, IoWorkers, LocalStat, ReplicaView, Timestamp};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// Jobs at a time for each core: enough for a disk that takes its time, and each has a buffer of 1 MiB.
const JOBS_PER_CORE: usize = 8;
/// Jobs at a time, at least and at most.
const JOBS: (usize, usize) = (16, 64);
/// Between two looks at the progress bar.
const TICK: Duration = Duration::from_millis(50);

/// Hears what is found.
pub trait Sink {
    /// An entry is as it should be.
    ///
    /// # Errors
    /// If the check is to end.
    fn right(&mut self, right: Right<'_>) -> Result<(), RunError>;

    /// An entry is not as it should be.
    ///
    /// # Errors
    /// If the check is to end.
    fn wrong(&mut self, finding: Finding) -> Result<(), RunError>;

    /// What the index says of an entry, if there is one and it is to be believed.
    fn known(&mut self, path: &SafePath) -> Option<EntryRow>;

    /// How far the check is; `bytes_known` are all.
    fn progress(&mut self, files: u64, bytes: u64, bytes_known: u64);
}

/// An entry that is as it should be.
pub struct Right<'r> {
    /// Where; none for the root.
    pub path: Option<&'r SafePath>,
    /// The segment that announced it.
    pub segment: u64,
    /// What it is.
    pub what: RightWhat<'r>,
}

/// What an entry is that is as it should be.
pub enum RightWhat<'r> {
    /// A file.
    File {
        /// Its size and blocks.
        layout: Layout,
        /// The hash of its content.
        root: RootHash,
        /// Its inode.
        stat: FileStat,
        /// Mode and time by the manifest.
        metadata: &'r Metadata,
        /// Whether it is not the manifest's version, but the one that was put here last.
        other_version: bool,
    },
    /// A further name.
    Hardlink {
        /// Its inode.
        stat: FileStat,
    },
    /// A directory.
    Directory {
        /// Its mode and time.
        found: (u32, Timestamp),
        /// Mode and time by the manifest.
        metadata: &'r Metadata,
    },
    /// A symbolic link.
    Symlink {
        /// Its time.
        found: Timestamp,
        /// Its time by the manifest.
        mtime: Timestamp,
        /// Where it points.
        target: &'r [u8],
    },
}

/// What a check needs.
pub struct Check {
    /// The replica.
    pub view: Arc<ReplicaView>,
    /// Where files are read.
    pub shards: Arc<Shards>,
    /// Where other entries are looked at.
    pub workers: IoWorkers,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Files, further names among them.
    pub files: u64,
    /// All entries.
    pub entries: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
}

impl Check {
    /// Checks all entries of a manifest, or of these alone. Returns what was checked, and what stands.
    ///
    /// # Errors
    /// If the manifest cannot be read again, a job is lost, or the sink ends it.
    pub async fn run(
        &self,
        survey: &Survey,
        only: Option<&HashSet<SafePath>>,
        sink: &mut dyn Sink,
    ) -> Result<(Checked, Catalog), RunError> {
        let parts = read_again(Arc::clone(&self.view), survey)
            .map_err(|error| RunError::Failed(format!("cannot start a thread: {error}")))?;
        let (done_in, done) = mpsc::unbounded_channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let running = Running {
            check: self,
            survey,
            only,
            sink,
            bytes_known: if only.is_none() { survey.bytes } else { 0 },
            jobs_max: (JOBS_PER_CORE * cores).clamp(JOBS.0, JOBS.1),
            jobs: 0,
            queue: VecDeque::new(),
            records: VecDeque::new(),
            segment: 0,
            told: HashMap::new(),
            files: HashMap::new(),
            next_number: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            looks: Vec::new(),
            checked: Checked::default(),
            done_in,
        };
        running.run(parts, done).await
    }
}

/// A job that waits to be started.
enum Job {
    Small(Vec<Small>),
    Run { number: u64, of: Arc<Opening>, run: Run, signed: Option<Box<[BlockHash]>> },
    Looks(Vec<Look>),
}

/// A file whose hashes are being told.
enum Told {
    Small(Signed, Vec<BlockHash>),
    /// In work already, with this number.
    Large(u64),
}

/// A file that is checked by the run.
struct InWork {
    file: Signed,
    of: Arc<Opening>,
    by: By,
    /// Its root by the manifest, once told.
    root: Option<RootHash>,
    /// Runs without an answer, and whether there are no more to come.
    runs: usize,
    all_told: bool,
    wrong: Vec<u32>,
    unreadable: Vec<u32>,
    error: Option<String>,
}

/// What a file is compared with.
enum By {
    /// The manifest's hashes.
    Manifest,
    /// The index's root, since it is another version; and the hashes so far. (For one of several hundred thousand
    /// blocks, some megabytes.)
    Index { row: Row, hashes: Vec<BlockHash>, target: Option<SafePath> },
}

/// What the index says of a file.
#[derive(Clone)]
struct Row {
    layout: Layout,
    algorithm: HashAlgorithm,
    root: RootHash,
    stat: LocalStat,
}

impl Row {
    fn of(row: Option<&EntryRow>) -> Option<Self> {
        match &row?.what {
            EntryWhat::File { layout, algorithm, root, stat, .. } => {
                Some(Self { layout: *layout, algorithm: *algorithm, root: *root, stat: *stat })
            }
            _ => None,
        }
    }
}

struct Running<'c> {
    check: &'c Check,
    survey: &'c Survey,
    only: Option<&'c HashSet<SafePath>>,
    sink: &'c mut dyn Sink,
    bytes_known: u64,
    jobs_max: usize,
    /// Jobs that were started and not heard of.
    jobs: usize,
    queue: VecDeque<Job>,
    records: VecDeque<Record>,
    /// The segment that the records are from.
    segment: u64,
    told: HashMap<FileId, Told>,
    files: HashMap<u64, InWork>,
    next_number: u64,
    batch: Vec<Small>,
    batch_bytes: u64,
    looks: Vec<Look>,
    checked: Checked,
    done_in: mpsc::UnboundedSender<Done>,
}

impl Running<'_> {
    async fn run(
        mut self,
        mut parts: mpsc::Receiver<Part>,
        mut done: mpsc::UnboundedReceiver<Done>,
    ) -> Result<(Checked, Catalog), RunError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut catalog = None;
        loop {
            self.start_jobs().await?;
            let may_take = self.jobs < self.jobs_max && self.queue.is_empty();
            if may_take && let Some(record) = self.records.pop_front() {
                self.record(record)?;
                continue;
            }
            if may_take && catalog.is_some() && self.flush() {
                continue;
            }
            if self.jobs == 0 && may_take && catalog.is_some() {
                break;
            }
            tokio::select! {
                Some(found) = done.recv() => self.done(found)?,
                part = parts.recv(), if may_take && catalog.is_none() => match part {
                    Some(Part::Segment { sequence, records }) => {
                        self.segment = sequence;
                        self.records.extend(records);
                    }
                    Some(Part::End(all)) => catalog = Some(*all),
                    Some(Part::Broken(error)) => return Err(error),
                    None => return Err(RunError::Failed("the thread that reads the manifest has ended".into())),
                },
                _ = ticks.tick() => {
                    self.sink.progress(self.checked.files, self.checked.bytes, self.bytes_known);
                }
            }
        }
        self.sink.progress(self.checked.files, self.checked.bytes, self.bytes_known);
        Ok((self.checked, catalog.expect("the loop ends with it")))
    }

    async fn start_jobs(&mut self) -> Result<(), RunError> {
        while self.jobs < self.jobs_max
            && let Some(job) = self.queue.pop_front()
        {
            self.jobs += 1;
            let (view, owed) = (Arc::clone(&self.check.view), Owed::new(&self.done_in));
            let started = match job {
                Job::Small(files) => {
                    let algorithm = self.survey.algorithm;
                    self.check.shards.spawn(move |io| small(io, view, algorithm, files, owed)).await
                }
                Job::Run { number, of, run: part, signed } => {
                    self.check.shards.spawn(move |io| run(io, number, of, part, signed, owed)).await
                }
                Job::Looks(looks) => {
                    let workers = self.check.workers.clone();
                    tokio::spawn(async move {
                        let job = move || {
                            let found = look(&view, &looks);
                            looks.into_iter().zip(found).collect()
                        };
                        let found = workers.run(job).await;
                        owed.give(Done::Looks(found));
                    });
                    Ok(())
                }
            };
            started.map_err(|error| RunError::Failed(error.to_string()))?;
        }
        Ok(())
    }

    fn done(&mut self, done: Done) -> Result<(), RunError> {
        self.jobs -= 1;
        match done {
            Done::Small(files) => files.into_iter().try_for_each(|(small, stat)| self.small(small, stat)),
            Done::Run(number, found) => self.run_done(number, found),
            Done::Looks(looks) => looks.into_iter().try_for_each(|(look, found)| self.looked(look, found)),
            Done::Lost => Err(RunError::Failed("a job of the check ended without an answer".into())),
        }
    }

    /// Whether an entry is to be checked at all.
    fn is_wanted(&self, id: FileId, path: &SafePath) -> bool {
        !self.survey.withdrawn.contains(&id) && self.only.is_none_or(|only| only.contains(path))
    }

    fn record(&mut self, record: Record) -> Result<(), RunError> {
        let segment = self.segment;
        match record {
            Record::Root(metadata) => {
                if self.only.is_none() {
                    self.look(Look { path: None, signed: SignedEntry::Directory(metadata), segment });
                }
            }
            Record::Directory { id, path, metadata } => {
                if self.is_wanted(id, &path) {
                    self.look(Look { path: Some(path), signed: SignedEntry::Directory(metadata), segment });
                }
            }
            Record::Symlink { id, path, mtime, target } => {
                if self.is_wanted(id, &path) {
                    self.look(Look {
                        path: Some(path),
                        signed: SignedEntry::Symlink { mtime, target },
                        segment,
                    });
                }
            }
            Record::Hardlink { id, path, target } => {
                if self.is_wanted(id, &path) {
                    self.look(Look { path: Some(path), signed: SignedEntry::Hardlink { target }, segment });
                }
            }
            Record::SmallFile { id, path, metadata, layout, hash } => {
                if self.announce(id, &path, layout) {
                    let hashes = if layout.blocks() > 0 { Box::from([hash]) } else { Box::default() };
                    let file = Signed { path, metadata, layout, segment };
                    self.batch(Small { file, hashes, root: RootHash(hash.0) });
                }
            }
            Record::File { id, path, metadata, layout } => {
                if self.announce(id, &path, layout) {
                    let file = Signed { path, metadata, layout, segment };
                    let told = if layout.size_bytes() <= SMALL_BYTES_MAX {
                        Told::Small(file, Vec::new())
                    } else {
                        Told::Large(self.begin(file, By::Manifest, None))
                    };
                    self.told.insert(id, told);
                }
            }
            Record::Hashes { id, first, hashes } => match self.told.get_mut(&id) {
                Some(Told::Small(_, told)) => told.extend(hashes),
                Some(Told::Large(number)) => {
                    let number = *number;
                    self.runs(number, first, &hashes);
                }
                None => {}
            },
            Record::Sealed { id, root } => match self.told.remove(&id) {
                Some(Told::Small(file, hashes)) => self.batch(Small { file, hashes: hashes.into(), root }),
                Some(Told::Large(number)) => {
                    let file = self.files.get_mut(&number).expect("in work until all was told");
                    file.root = Some(root);
                    file.all_told = true;
                    return self.end_if_done(number);
                }
                None => {}
            },
            Record::Holes { .. }
            | Record::Withdrawn { .. }
            | Record::Problem { .. }
            | Record::Attributes { .. }
            | Record::End { .. } => {}
        }
        Ok(())
    }

    fn announce(&mut self, id: FileId, path: &SafePath, layout: Layout) -> bool {
        let wanted = self.is_wanted(id, path);
        match self.only {
            Some(_) if wanted => self.bytes_known += layout.size_bytes(),
            None if !wanted => self.bytes_known -= layout.size_bytes(),
            _ => {}
        }
        wanted
    }

    fn batch(&mut self, small: Small) {
        let bytes = small.file.layout.size_bytes();
        if self.batch.len() == BATCH_FILES_MAX || self.batch_bytes + bytes > SMALL_BYTES_MAX {
            self.flush_batch();
        }
        self.batch_bytes += bytes;
        self.batch.push(small);
    }

    fn flush_batch(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.queue.push_back(Job::Small(batch));
        }
    }

    fn look(&mut self, look: Look) {
        self.looks.push(look);
        if self.looks.len() == BATCH_LOOKS_MAX {
            self.flush_looks();
        }
    }

    fn flush_looks(&mut self) {
        let looks = std::mem::take(&mut self.looks);
        if !looks.is_empty() {
            self.queue.push_back(Job::Looks(looks));
        }
    }

    /// Starts what waits for more to come. Whether there was anything.
    fn flush(&mut self) -> bool {
        self.flush_batch();
        self.flush_looks();
        !self.queue.is_empty()
    }

    /// Takes a file into work.
    fn begin(&mut self, file: Signed, by: By, root: Option<RootHash>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let (layout, algorithm) = match &by {
            By::Manifest => (file.layout, self.survey.algorithm),
            By::Index { row, .. } => (row.layout, row.algorithm),
        };
        let of = Arc::new(Opening::new(&self.check.view, file.path.clone(), layout, algorithm));
        let file = InWork {
            file,
            of,
            by,
            root,
            runs: 0,
            all_told: false,
            wrong: Vec::new(),
            unreadable: Vec::new(),
            error: None,
        };
        self.files.insert(number, file);
        number
    }

    /// Queues the runs of some blocks whose hashes were told.
    fn runs(&mut self, number: u64, first: BlockIndex, hashes: &[BlockHash]) {
        let Some(file) = self.files.get_mut(&number) else { return };
        let count = u32::try_from(hashes.len()).expect("within the layout");
        for run in cover(file.file.layout, first, count) {
            let at = (run.first.0 - first.0) as usize;
            let signed = Some(hashes[at..at + run.count as usize].into());
            file.runs += 1;
            self.queue.push_back(Job::Run { number, of: Arc::clone(&file.of), run, signed });
        }
    }

    /// A small file was compared. One that is not plainly right is looked at alone.
    fn small(&mut self, small: Small, stat: Option<FileStat>) -> Result<(), RunError> {
        let Small { file, hashes, root } = small;
        if let Some(stat) = stat {
            self.checked.bytes += file.layout.size_bytes();
            return self.file_right(&file, file.layout, root, stat, false);
        }
        let layout = file.layout;
        let number = self.begin(file, By::Manifest, Some(root));
        if layout.blocks() == 0 {
            self.empty_run(number);
        } else {
            self.runs(number, BlockIndex(0), &hashes);
        }
        self.files.get_mut(&number).expect("just begun").all_told = true;
        Ok(())
    }

    /// A run of no blocks, so that a file without any is opened too.
    fn empty_run(&mut self, number: u64) {
        let Some(file) = self.files.get_mut(&number) else { return };
        file.runs += 1;
        let run = Run { file: FileId(0), first: BlockIndex(0), count: 0, bytes: 0 };
        let signed = matches!(file.by, By::Manifest).then(Box::default);
        self.queue.push_back(Job::Run { number, of: Arc::clone(&file.of), run, signed });
    }

    fn run_done(&mut self, number: u64, found: RunFound) -> Result<(), RunError> {
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        file.runs -= 1;
        self.checked.bytes += found.bytes;
        file.wrong.extend(found.wrong);
        file.unreadable.extend(found.unreadable);
        file.error = found.error.or(file.error.take());
        if let (By::Index { hashes, .. }, Some((first, found))) = (&mut file.by, found.hashes) {
            let first = first.0 as usize;
            if let Some(place) = hashes.get_mut(first..first + found.len()) {
                place.copy_from_slice(&found);
            }
        }
        self.end_if_done(number)
    }

    fn end_if_done(&mut self, number: u64) -> Result<(), RunError> {
        if self.files.get(&number).is_some_and(|file| file.runs == 0 && file.all_told) {
            let file = self.files.remove(&number).expect("just looked at");
            return self.file_done(file);
        }
        Ok(())
    }

    fn file_done(&mut self, mut done: InWork) -> Result<(), RunError> {
        done.wrong.sort_unstable();
        done.unreadable.sort_unstable();
        let root = done.root;
        let opened = match Arc::try_unwrap(done.of) {
            Ok(of) => of.into_opened().unwrap_or_else(|| Opened::Other(Existing::Missing)),
            // A job that has answered is about to let go of it.
            Err(of) => match of.opened() {
                Some(Opened::File { file, stat }) => Opened::File { file: Arc::clone(file), stat: *stat },
                _ => of.open_now(),
            },
        };
        let stat = match opened {
            Opened::File { stat, .. } => stat,
            Opened::Other(existing) => {
                let wrong = Wrong::kind(&existing);
                return self.file_wrong(done.file, done.by, root, wrong);
            }
            Opened::Refused(error) => {
                let wrong = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => Wrong::Hidden(error),
                    _ => Wrong::Content(unreadable(&done.by, &done.file, &error)),
                };
                return self.file_wrong(done.file, done.by, root, wrong);
            }
        };
        match done.by {
            By::Manifest => {
                let root = root.expect("all was told");
                if done.wrong.is_empty() && stat.size_bytes == done.file.layout.size_bytes() {
                    return self.file_right(&done.file, done.file.layout, root, stat, false);
                }
                let known = self.sink.known(&done.file.path);
                let row = Row::of(known.as_ref());
                let wanted = (done.file.layout, self.survey.algorithm, root);
                if let Some(row) = &row
                    && (row.layout, row.algorithm, row.root) != wanted
                {
                    self.begin_by_index(done.file, row.clone(), Some(root), None);
                    return Ok(());
                }
                let content = Content {
                    cause: cause(known.as_ref(), &stat, &done.file),
                    bytes: bytes_of(done.file.layout, &done.wrong),
                    blocks: done.wrong,
                    unreadable: done.unreadable,
                    blocks_unknown: false,
                    seen: Some(LocalStat::from(&stat)),
                    error: done.error,
                };
                self.file_wrong(done.file, By::Manifest, Some(root), Wrong::Content(content))
            }
            By::Index { row, hashes, target } => {
                let is_right = done.unreadable.is_empty()
                    && stat.size_bytes == row.layout.size_bytes()
                    && self::root(row.algorithm, &hashes) == row.root;
                if is_right && target.is_some() {
                    self.checked.files += 1;
                    self.checked.entries += 1;
                    let right = Right {
                        path: Some(&done.file.path),
                        segment: done.file.segment,
                        what: RightWhat::Hardlink { stat },
                    };
                    return self.sink.right(right);
                }
                if is_right {
                    return self.file_right(&done.file, row.layout, row.root, stat, true);
                }
                let untouched = was(&row.stat) == was(&LocalStat::from(&stat));
                let content = Content {
                    cause: if untouched { Cause::Corrupt } else { Cause::Edited },
                    bytes: row.layout.size_bytes(),
                    blocks: Vec::new(),
                    unreadable: done.unreadable,
                    blocks_unknown: true,
                    seen: Some(LocalStat::from(&stat)),
                    error: done.error,
                };
                let by = By::Index { row, hashes: Vec::new(), target };
                self.file_wrong(done.file, by, root, Wrong::Content(content))
            }
        }
    }

    /// A file is not what the manifest has, and the index has another version of it: compared with that.
    fn begin_by_index(&mut self, file: Signed, row: Row, root: Option<RootHash>, target: Option<SafePath>) {
        let layout = row.layout;
        let hashes = vec![BlockHash([0; 32]); layout.blocks() as usize];
        let number = self.begin(file, By::Index { row, hashes, target }, root);
        if layout.blocks() == 0 {
            self.empty_run(number);
        }
        let file = self.files.get_mut(&number).expect("just begun");
        file.all_told = true;
        for run in cover(layout, BlockIndex(0), layout.blocks()) {
            file.runs += 1;
            self.queue.push_back(Job::Run { number, of: Arc::clone(&file.of), run, signed: None });
        }
    }

    fn file_right(
        &mut self,
        file: &Signed,
        layout: Layout,
        root: RootHash,
        stat: FileStat,
        other_version: bool,
    ) -> Result<(), RunError> {
        self.checked.files += 1;
        self.checked.entries += 1;
        let what = RightWhat::File { layout, root, stat, metadata: &file.metadata, other_version };
        self.sink.right(Right { path: Some(&file.path), segment: file.segment, what })
    }

    fn file_wrong(
        &mut self,
        file: Signed,
        by: By,
        root: Option<RootHash>,
        wrong: Wrong,
    ) -> Result<(), RunError> {
        self.checked.files += 1;
        self.checked.entries += 1;
        let wanted = match by {
            By::Index { target: Some(target), .. } => Wanted::Hardlink { target, copied: true },
            By::Index { row, .. } => Wanted::File { layout: row.layout, root: row.root },
            By::Manifest => Wanted::File { layout: file.layout, root: root.expect("all was told") },
        };
        self.sink.wrong(Finding { path: file.path, wanted, wrong })
    }

    fn looked(&mut self, look: Look, (found, first): Looked) -> Result<(), RunError> {
        let Look { path, signed, segment } = look;
        if let SignedEntry::Hardlink { target } = signed {
            return self.linked(path.expect("only the root has none"), target, segment, found, first);
        }
        self.checked.entries += u64::from(path.is_some());
        let wrong = match (found, &signed) {
            (Ok(Existing::Directory { mode, mtime }), SignedEntry::Directory(metadata)) => {
                let what = RightWhat::Directory { found: (mode, mtime), metadata };
                return self.sink.right(Right { path: path.as_ref(), segment, what });
            }
            (Ok(Existing::Symlink { target: found, mtime: at }), SignedEntry::Symlink { mtime, target })
                if found == *target =>
            {
                let what = RightWhat::Symlink { found: at, mtime: time(*mtime), target };
                return self.sink.right(Right { path: path.as_ref(), segment, what });
            }
            (Ok(Existing::Symlink { .. }), SignedEntry::Symlink { .. }) => Wrong::Target,
            (Ok(existing), _) => Wrong::kind(&existing),
            (Err(error), _) => Wrong::Hidden(error),
        };
        // The root was opened: it is a directory, and may at worst refuse to be looked at again.
        let Some(path) = path else { return Ok(()) };
        let wanted = match signed {
            SignedEntry::Directory(metadata) => Wanted::Directory(metadata),
            SignedEntry::Symlink { mtime, target } => Wanted::Symlink { mtime, target },
            SignedEntry::Hardlink { target } => Wanted::Hardlink { target, copied: false },
        };
        self.sink.wrong(Finding { path, wanted, wrong })
    }

    /// A further name of a file: it must be that very file, or a copy if it was put here as one.
    fn linked(
        &mut self,
        path: SafePath,
        target: SafePath,
        segment: u64,
        found: std::io::Result<Existing>,
        first: Option<Existing>,
    ) -> Result<(), RunError> {
        let wrong = match (found, first) {
            (Ok(Existing::File(stat)), Some(Existing::File(first))) if stat.same_inode(&first) => {
                self.checked.files += 1;
                self.checked.entries += 1;
                let what = RightWhat::Hardlink { stat };
                return self.sink.right(Right { path: Some(&path), segment, what });
            }
            (Ok(Existing::File(_)), _) => {
                if let Some(row) = Row::of(self.sink.known(&path).as_ref()) {
                    // Nobody asks for that of a further name.
                    let metadata = Metadata { mode: Mode::from_bits(0), mtime: Time::clamped(0, 0) };
                    let file = Signed { path, metadata, layout: row.layout, segment };
                    self.begin_by_index(file, row, None, Some(target));
                    return Ok(());
                }
                Wrong::Names
            }
            (Ok(existing), _) => Wrong::kind(&existing),
            (Err(error), _) => Wrong::Hidden(error),
        };
        self.checked.files += 1;
        self.checked.entries += 1;
        let copied = Row::of(self.sink.known(&path).as_ref()).is_some();
        self.sink.wrong(Finding { path, wanted: Wanted::Hardlink { target, copied }, wrong })
    }
}

/// A file of which nothing can be read.
fn unreadable(by: &By, file: &Signed, error: &std::io::Error) -> Content {
    let (layout, blocks_unknown) = match by {
        By::Manifest => (file.layout, false),
        By::Index { row, .. } => (row.layout, true),
    };
    let blocks: Vec<u32> = if blocks_unknown { Vec::new() } else { (0..layout.blocks()).collect() };
    Content {
        cause: Cause::Corrupt,
        unreadable: blocks.clone(),
        blocks,
        blocks_unknown,
        bytes: layout.size_bytes(),
        seen: None,
        error: Some(error.to_string()),
    }
}

fn bytes_of(layout: Layout, blocks: &[u32]) -> u64 {
    blocks.iter().filter_map(|block| layout.run_bytes(BlockIndex(*block), 1)).sum()
}

/// What an edit changes of an inode. Its ctime is no part of that: also links, renames and modes change it.
fn was(stat: &LocalStat) -> (u64, u64, Timestamp) {
    (stat.inode, stat.size_bytes, stat.mtime)
}

/// Whether somebody edited a file: by its inode as the index has it, or else by the manifest's size and time.
fn cause(known: Option<&EntryRow>, now: &FileStat, file: &Signed) -> Cause {
    let untouched = match known.map(|row| &row.what) {
        Some(EntryWhat::File { stat, .. } | EntryWhat::Hardlink { stat }) => {
            was(stat) == was(&LocalStat::from(now))
        }
        _ => (now.size_bytes, now.mtime) == (file.layout.size_bytes(), time(file.metadata.mtime)),
    };
    if untouched { Cause::Corrupt } else { Cause::Edited }
}
