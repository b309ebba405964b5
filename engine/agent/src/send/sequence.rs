//! Puts what was found and hashed into an order: numbers entries, makes records of them, signs segments as they fill.
//!
//! Owns what is known of entries while the scan goes on: which file is open, which are tried again, which names are one
//! file, which were taken back.

use super::feed::{Begin, Feeder, HashedRun, Item, SmallFile, SmallResult, ended};
use super::find::Step;
use super::hashes::{Hashes, Known, KnownMore, Remember};
use super::log::Offered;
use super::offering::{OfferedFile, SpooledEntry, public_metadata};
use super::scan::{Scan, Totals, Wanted};
use crate::report::Event;
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::digest::{BlockHash, BlockInput, RootHash, hash_blocks, root};
use sealift_proto::limits::{MANIFEST_OPEN_HASHES_MAX, PATH_BYTES_MAX, RECORD_HASHES_MAX, RECORD_HOLES_MAX};
use sealift_proto::manifest::sealed::{self, SealedHead};
use sealift_proto::manifest::{
    Attributes, Fill, Hole, Metadata, Problem, Record, SegmentWriter, WithdrawReason,
};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::pull::Run;
use sealift_store::{FileStat, SmallFailure, Timestamp};
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A segment with anything in it waits no longer than this.
const SEGMENT_DELAY: Duration = Duration::from_millis(50);
/// No longer than this while a large file is read: receivers are to ask for its runs while these are kept
/// ([`super::recent`]).
const OPEN_SEGMENT_DELAY: Duration = Duration::from_millis(5);
/// A file that changed is tried this many times in all.
const ATTEMPTS_MAX: u32 = 3;
/// A file that was left alone for so long is tried as often again.
const ATTEMPTS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Before a file that changed is read again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long keeping what was hashed may take when the sender ends.
const KEEPING_TIME_MAX: Duration = Duration::from_secs(10);

/// Numbers entries and signs segments.
pub struct Sequencer {
    scan: Arc<Scan>,
    writer: SegmentWriter,
    /// What is hashed is written there for later runs.
    remember: Option<Remember>,
    /// What reads files, once there is one to be read.
    feeder: Option<Feeder>,
    next_id: u64,
    totals: Totals,
    /// A file whose runs are coming.
    open: Option<Open>,
    /// How often a file that changed was tried.
    attempts: HashMap<SafePath, (u32, Instant)>,
    /// Files to be read again.
    again: Vec<Wanted>,
    /// Further names of files, with the first names: they follow when it is known which of those stand.
    names: Vec<(SafePath, SafePath)>,
    /// Files with several names that stand, by the name under which they were announced, and the further names.
    linked: HashMap<SafePath, Vec<(FileId, SafePath)>>,
    withdrawn: HashSet<FileId>,
    ended: bool,
    oldest_unsigned: Option<Instant>,
}

struct Open {
    id: FileId,
    begin: Begin,
    hashes: Vec<BlockHash>,
    failure: Option<io::Error>,
}

/// Where a round's files go and come from, once one has to be read.
struct Fed {
    /// `None` when there are no more.
    wants: Option<mpsc::Sender<Vec<Wanted>>>,
    items: mpsc::Receiver<Item>,
}

impl Sequencer {
    /// Before the first entry.
    pub fn new(scan: Arc<Scan>, writer: SegmentWriter, hashes: Option<Hashes>) -> Self {
        Self {
            scan,
            writer,
            remember: hashes.map(Remember::new),
            feeder: None,
            next_id: 0,
            totals: Totals::default(),
            open: None,
            attempts: HashMap::new(),
            again: Vec::new(),
            names: Vec::new(),
            linked: HashMap::new(),
            withdrawn: HashSet::new(),
            ended: false,
            oldest_unsigned: None,
        }
    }

    /// Takes all that the finder finds.
    ///
    /// # Errors
    /// As [`super::scan::start`]'s failure.
    pub async fn find(&mut self, found: mpsc::Receiver<Vec<Step>>) -> io::Result<()> {
        self.begin_sealed()?;
        self.round(Some(found), Vec::new()).await?;
        self.further_names()
    }

    /// Reads files again that changed. False if there are none.
    ///
    /// # Errors
    /// As [`super::scan::start`]'s failure.
    pub async fn read_again(&mut self) -> io::Result<bool> {
        let wanted = std::mem::take(&mut self.again);
        if wanted.is_empty() {
            return Ok(false);
        }
        self.flush()?;
        tokio::time::sleep(RETRY_DELAY).await;
        self.round(None, wanted).await?;
        self.further_names()?;
        Ok(true)
    }

    /// Takes what is found and what is fed until neither has more.
    async fn round(
        &mut self,
        mut found: Option<mpsc::Receiver<Vec<Step>>>,
        mut wanted: Vec<Wanted>,
    ) -> io::Result<()> {
        let mut steps = Vec::new().into_iter().peekable();
        let mut fed: Option<Fed> = None;
        loop {
            while let Some(step) = steps.next_if(|step| self.has_room_for(step)) {
                match step {
                    Step::Wanted(file) => wanted.push(file),
                    step => self.step(step)?,
                }
            }
            self.write_due().await?;
            if !wanted.is_empty() && fed.is_none() {
                fed = Some(self.feed().await?);
            }
            let all_found = found.is_none() && steps.peek().is_none() && wanted.is_empty();
            let (mut wants, mut items) = (None, None);
            if let Some(fed) = &mut fed {
                if all_found {
                    fed.wants = None;
                }
                wants = fed.wants.as_ref().filter(|_| !wanted.is_empty());
                items = Some(&mut fed.items);
            } else if all_found {
                return Ok(());
            }
            // One list of wanted files at a time waits, so that neither side can hold up the other.
            let more = found.as_mut().filter(|_| steps.peek().is_none() && wanted.is_empty());
            let due = self.due();
            tokio::select! {
                chunk = receive(more), if more.is_some() => match chunk {
                    Some(chunk) => steps = chunk.into_iter().peekable(),
                    None => found = None,
                },
                permit = reserve(wants), if wants.is_some() => {
                    permit.map_err(|_| ended())?.send(std::mem::take(&mut wanted));
                }
                item = receive(items), if items.is_some() => match item {
                    Some(item) => self.item(item).await?,
                    None if all_found => return Ok(()),
                    None => return Err(ended()),
                },
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// Begins a round of reading.
    async fn feed(&mut self) -> io::Result<Fed> {
        let feeder = match self.feeder.take() {
            Some(feeder) => feeder,
            None => Feeder::start(self.scan.backend, Arc::clone(&self.scan))?,
        };
        let (wants, items) = self.feeder.insert(feeder).round().await?;
        Ok(Fed { wants: Some(wants), items })
    }

    /// When something is to be done even if nothing comes.
    fn due(&self) -> Option<Instant> {
        let segment = self.oldest_unsigned.map(|since| since + self.segment_delay());
        let hashes = self.remember.as_ref().and_then(Remember::due);
        segment.into_iter().chain(hashes).min()
    }

    fn segment_delay(&self) -> Duration {
        if self.open.is_some() { OPEN_SEGMENT_DELAY } else { SEGMENT_DELAY }
    }

    async fn write_due(&mut self) -> io::Result<()> {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        if self.oldest_unsigned.is_some_and(|since| since.elapsed() >= self.segment_delay()) {
            self.flush()?;
        }
        if let Some(remember) = &mut self.remember
            && remember.due().is_some_and(|due| due <= Instant::now())
        {
            remember.write().await;
        }
        Ok(())
    }

    /// Readers keep so many hashes of files that are not sealed, and no more.
    fn has_room_for(&self, step: &Step) -> bool {
        match (&self.open, step) {
            (Some(open), Step::Known { known, .. }) => {
                (open.begin.layout.blocks() + known.layout.blocks()) as usize <= MANIFEST_OPEN_HASHES_MAX
            }
            _ => true,
        }
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Root { metadata, attributes } => {
                if let Some(attributes) = attributes {
                    self.push_attributes(None, *attributes);
                }
                self.push(&Record::Root(metadata))
            }
            Step::Directory { path, metadata, attributes } => {
                let id = self.number(attributes);
                self.push(&Record::Directory { id, path, metadata })
            }
            Step::Symlink { path, mtime, target, attributes } => {
                let id = self.number(attributes);
                self.push(&Record::Symlink { id, path, mtime, target })
            }
            Step::Known { path, stat, known, attributes } => self.known(path, &stat, known, attributes),
            Step::Sealed(head) => self.sealed(&head).map(drop),
            Step::Wanted(wanted) => {
                // The round gives these to the feeder itself.
                self.again.push(wanted);
                Ok(())
            }
            Step::Name { path, first } => {
                self.names.push((path, first));
                Ok(())
            }
            Step::Problem { path, problem, reason } => self.problem(path, problem, &reason),
            Step::Gone(path) => {
                self.forget(path);
                Ok(())
            }
        }
    }

    /// A file that is as an earlier run hashed it.
    fn known(
        &mut self,
        path: SafePath,
        stat: &FileStat,
        Known { layout, root, more }: Known,
        attributes: Option<Box<Attributes>>,
    ) -> io::Result<()> {
        self.totals.reused_files += 1;
        let offered = Offered { path, layout, stat: *stat, reused: true, spooled: None };
        let id = self.number_file(&offered, attributes)?;
        self.stands(&offered.path, stat);
        let metadata = self.metadata(&offered.path, stat);
        let path = self.scan.source.name(&offered.path);
        self.whole_file(id, path, metadata, layout, root, more.map(|more| *more).unwrap_or_default())
    }

    /// The records of a file of which everything is known.
    fn whole_file(
        &mut self,
        id: FileId,
        path: SafePath,
        metadata: Metadata,
        layout: Layout,
        root: RootHash,
        KnownMore { hashes, holes }: KnownMore,
    ) -> io::Result<()> {
        if layout.size_bytes() <= BlockSize::MIN.bytes() {
            return self.push(&Record::SmallFile { id, path, metadata, layout, hash: BlockHash(root.0) });
        }
        self.push(&Record::File { id, path, metadata, layout })?;
        self.push_holes(id, &holes)?;
        // A file of one block has that block's hash as its root.
        let only = [BlockHash(root.0)];
        let hashes = if layout.blocks() == 1 { &only[..] } else { &hashes[..] };
        for (chunk, first) in hashes.chunks(RECORD_HASHES_MAX).zip((0..).step_by(RECORD_HASHES_MAX)) {
            self.push(&Record::Hashes { id, first: BlockIndex(first), hashes: chunk.to_vec() })?;
        }
        self.push(&Record::Sealed { id, root })
    }

    /// What stands before all else in a sealed tree.
    fn begin_sealed(&mut self) -> io::Result<()> {
        let Some(keys) = self.scan.source.keys_entry()? else { return Ok(()) };
        for path in sealed::directories() {
            let id = self.number(None);
            self.push(&Record::Directory { id, path, metadata: public_metadata(0o700) })?;
        }
        self.spooled(keys).map(drop)
    }

    /// An entry of a sealed tree that has no content.
    fn sealed(&mut self, head: &SealedHead) -> io::Result<(FileId, SafePath)> {
        let entry = self.scan.source.seal_entry(head)?;
        self.spooled(entry)
    }

    /// A file that is kept here, and not in the source.
    fn spooled(&mut self, entry: SpooledEntry) -> io::Result<(FileId, SafePath)> {
        let SpooledEntry { path, layout, bytes, place } = entry;
        let blocks: Vec<_> = BlockInput::run(layout, BlockIndex(0), &bytes).collect();
        let mut hashes = vec![BlockHash([0; 32]); blocks.len()];
        hash_blocks(self.scan.algorithm, &blocks, &mut hashes);
        let root = root(self.scan.algorithm, &hashes);
        let none = Timestamp { seconds: 0, nanos: 0 };
        let stat = FileStat {
            size_bytes: layout.size_bytes(),
            mtime: none,
            ctime: none,
            inode: 0,
            device: 0,
            mode: 0,
            links: 1,
        };
        let offered = Offered { path: path.clone(), layout, stat, reused: false, spooled: Some(place) };
        let id = self.number_file(&offered, None)?;
        let more = KnownMore { hashes, holes: Vec::new() };
        self.whole_file(id, path.clone(), public_metadata(0o600), layout, root, more)?;
        Ok((id, path))
    }

    async fn item(&mut self, item: Item) -> io::Result<()> {
        match item {
            Item::Small(results) => {
                let lost = |_| io::Error::other("a hashing task failed");
                for result in results.await.map_err(lost)? {
                    self.small(result)?;
                }
                Ok(())
            }
            Item::Begin(begin) => self.begin(begin),
            Item::Run { run, hashed } => {
                let hashed = hashed.await.unwrap_or_else(|_| Err(io::Error::other("a hashing task failed")));
                self.hashed(run, hashed)
            }
            Item::Finish { file } => self.finish(&file),
            Item::TooLarge { path } => {
                self.problem(path.as_bytes().to_vec(), Problem::TooLarge, "is larger than a file may be")
            }
            Item::Failed { path, error } => self.unreadable(&path, &error),
        }
    }

    fn small(&mut self, SmallResult { path, outcome }: SmallResult) -> io::Result<()> {
        let SmallFile { stat, hash, lasting, attributes } = match outcome {
            Ok(read) if read.stat.size_bytes > BlockSize::MIN.bytes() => {
                self.try_again(path, Some(read.stat));
                return Ok(());
            }
            Ok(read) => read,
            Err(SmallFailure::Io(error)) => return self.unreadable(&path, &error),
            // Another kind of thing by now, or grown: looked at afresh.
            Err(_) => return self.changed(path),
        };
        let layout = Layout::new(stat.size_bytes, BlockSize::MIN).expect("one block");
        let metadata = self.metadata(&path, &stat);
        let offered = Offered { path, layout, stat, reused: false, spooled: None };
        let id = self.number_file(&offered, attributes)?;
        let path = offered.path;
        self.totals.hashed_bytes += stat.size_bytes;
        self.stands(&path, &stat);
        if lasting && let Some(remember) = &mut self.remember {
            let root = RootHash(hash.0);
            remember.hashed(path.clone(), &stat, layout, root, Vec::new(), Vec::new());
        }
        let path = self.scan.source.name(&path);
        self.push(&Record::SmallFile { id, path, metadata, layout, hash })
    }

    /// A file's metadata, as it is told to everybody.
    fn metadata(&self, path: &SafePath, stat: &FileStat) -> Metadata {
        self.scan.source.metadata(|| self.scan.metadata(path.as_bytes(), stat.mode, stat.mtime))
    }

    fn begin(&mut self, mut begin: Begin) -> io::Result<()> {
        let Begin { layout, stat, .. } = begin;
        // The file may have shrunk since: what is signed must make sense all the same.
        begin.holes.retain(|hole| hole.end <= layout.size_bytes());
        let offered = Offered { path: begin.path.clone(), layout, stat, reused: false, spooled: None };
        let id = self.number_file(&offered, begin.attributes.take())?;
        let metadata = self.metadata(&begin.path, &stat);
        self.push(&Record::File { id, path: self.scan.source.name(&begin.path), metadata, layout })?;
        self.push_holes(id, &begin.holes)?;
        self.open = Some(Open { id, begin, hashes: Vec::new(), failure: None });
        Ok(())
    }

    fn push_holes(&mut self, id: FileId, holes: &[Range<u64>]) -> io::Result<()> {
        for holes in holes.chunks(RECORD_HOLES_MAX) {
            let hole = |hole: &Range<u64>| Hole { offset: hole.start, len: hole.end - hole.start };
            self.push(&Record::Holes { id, holes: holes.iter().map(hole).collect() })?;
        }
        Ok(())
    }

    fn hashed(&mut self, run: Run, hashed: io::Result<HashedRun>) -> io::Result<()> {
        let open = self.open.as_mut().expect("a run follows its file's beginning");
        if open.failure.is_some() {
            return Ok(());
        }
        match hashed {
            Err(error) => {
                open.failure = Some(error);
                Ok(())
            }
            Ok(HashedRun { hashes, buf }) => {
                open.hashes.extend_from_slice(&hashes);
                let id = open.id;
                if let Some(buf) = buf {
                    self.scan.recent.keep(id, run.first, run.count, buf);
                }
                self.totals.hashed_bytes += u64::from(run.bytes);
                self.push(&Record::Hashes { id, first: run.first, hashes })
            }
        }
    }

    fn finish(&mut self, file: &OfferedFile) -> io::Result<()> {
        let Open { id, begin, hashes, failure } = self.open.take().expect("an end follows a beginning");
        let Begin { path, stat, layout, holes, at_rest, lasting, .. } = begin;
        let same = file.stat().map(|now| at_rest && now.same_version(&stat));
        let failure = match (failure, same) {
            (None, Ok(true)) => {
                self.stands(&path, &stat);
                let root = root(self.scan.algorithm, &hashes);
                if lasting && let Some(remember) = &mut self.remember {
                    remember.hashed(path, &stat, layout, root, hashes, holes);
                }
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
                self.push_withdrawn(id, &path, WithdrawReason::Unreadable)
            }
            None if self.may_try_again(&path) => {
                self.push_withdrawn(id, &path, WithdrawReason::Superseded)?;
                self.again.push(Wanted { path, stat: None });
                Ok(())
            }
            None => {
                self.tell_problem(path.as_bytes(), CHANGED_REASON);
                self.push_withdrawn(id, &path, WithdrawReason::Changed)
            }
        }
    }

    fn push_withdrawn(&mut self, id: FileId, path: &SafePath, reason: WithdrawReason) -> io::Result<()> {
        self.push(&Record::Withdrawn { id, path: self.scan.source.name(path), reason })
    }

    /// Further names of files, now that it is known which of them stand.
    fn further_names(&mut self) -> io::Result<()> {
        for (path, first) in std::mem::take(&mut self.names) {
            if self.linked.contains_key(&first) {
                let id = self.further_name(&path, &first)?;
                self.linked.entry(first).or_default().push((id, path));
            } else if self.again.iter().any(|wanted| wanted.path == first) {
                self.names.push((path, first));
            } else {
                self.try_again(path, None);
            }
        }
        Ok(())
    }

    fn further_name(&mut self, path: &SafePath, first: &SafePath) -> io::Result<FileId> {
        let entry = |id| Record::Hardlink { id, path: path.clone(), target: first.clone() };
        if self.scan.source.seal().is_some() {
            let head = SealedHead { entry: entry(SealedHead::ID), attributes: None };
            return self.sealed(&head).map(|(id, _)| id);
        }
        let id = self.number(None);
        self.totals.files += 1;
        self.push(&entry(id))?;
        Ok(id)
    }

    /// A receiver's request found that a file is not what was hashed.
    ///
    /// # Errors
    /// As [`super::scan::start`]'s failure.
    pub fn withdraw_changed(&mut self, id: FileId) -> io::Result<()> {
        let Some(Offered { path, layout, .. }) = self.scan.files.get(id)? else { return Ok(()) };
        if self.withdrawn.contains(&id) {
            return Ok(());
        }
        self.uncount(id, layout.size_bytes());
        self.forget(path.clone());
        let names = self.linked.remove(&path).unwrap_or_default();
        let reason = match self.scan.source.open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => WithdrawReason::Vanished,
            _ if self.may_try_again(&path) => WithdrawReason::Superseded,
            _ => WithdrawReason::Changed,
        };
        self.push_withdrawn(id, &path, reason)?;
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
            self.read_again_by_name(path, &mut first_names);
        }
        // Which names are one file now is for the disk to say.
        for (id, path) in names {
            let bytes = self.scan.files.get(id)?.map_or(0, |offered| offered.layout.size_bytes());
            self.uncount(id, bytes);
            self.push_withdrawn(id, &path, WithdrawReason::Superseded)?;
            self.read_again_by_name(path, &mut first_names);
        }
        Ok(())
    }

    /// Reads a file again, unless it is a further name of one that is.
    fn read_again_by_name(&mut self, path: SafePath, first_names: &mut HashMap<(u64, u64), SafePath>) {
        if let Ok((_, stat)) = self.scan.source.open_file(&path) {
            if let Some(first) = first_names.get(&(stat.device, stat.inode)) {
                self.names.push((path, first.clone()));
                return;
            }
            first_names.insert((stat.device, stat.inode), path.clone());
        }
        self.try_again(path, None);
    }

    fn forget(&mut self, path: SafePath) {
        if let Some(remember) = &mut self.remember {
            remember.forget(path);
        }
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
        let mut shown_path = self.scan.source.shown(path);
        shown_path.truncate(PATH_BYTES_MAX);
        self.push(&Record::Problem { shown_path, problem })
    }

    fn tell_problem(&mut self, path: &[u8], reason: &str) {
        self.totals.problems += 1;
        self.scan.reporter.problem(path, reason);
    }

    /// The number of the next entry, which has no content of its own. Its record is to be pushed next.
    fn number(&mut self, attributes: Option<Box<Attributes>>) -> FileId {
        self.scan.files.push_other();
        self.next_number(attributes)
    }

    /// The number of the next entry, a file. Its record is to be pushed next.
    fn number_file(&mut self, offered: &Offered, attributes: Option<Box<Attributes>>) -> io::Result<FileId> {
        self.scan.files.push(offered)?;
        self.totals.files += 1;
        self.totals.bytes += offered.layout.size_bytes();
        Ok(self.next_number(attributes))
    }

    fn next_number(&mut self, attributes: Option<Box<Attributes>>) -> FileId {
        let id = FileId(self.next_id);
        self.next_id += 1;
        self.totals.entries += 1;
        if let Some(attributes) = attributes {
            self.push_attributes(Some(id), *attributes);
        }
        id
    }

    /// Attributes stand directly before their entry: whether the segment is full is asked after that. There is room for
    /// both.
    fn push_attributes(&mut self, id: Option<FileId>, attributes: Attributes) {
        let _ = self.writer.push(&Record::Attributes { id, attributes });
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
        let (sequence, hash) = self.writer.last().expect("just finished");
        self.scan.log.append(sequence, hash, &segment)?;
        // Receivers wait for word of files that they found changed, and a scan may take long.
        for id in self.scan.changed.try_take() {
            self.withdraw_changed(id)?;
        }
        Ok(())
    }

    /// Says that everything has been said.
    ///
    /// # Errors
    /// As [`super::scan::start`]'s failure.
    pub async fn end(&mut self) -> io::Result<()> {
        if !self.ended {
            self.push(&Record::End { entries: self.totals.entries })?;
            self.flush()?;
            self.scan.carried.tell(&self.scan.reporter);
            let Totals { entries, bytes, problems, hashed_bytes, reused_files, .. } = self.totals;
            self.scan.reporter.tell(&Event::Scanned { entries, bytes, problems, hashed_bytes, reused_files });
        }
        self.scan.scanned.send_replace(Some(self.totals));
        if let Some(remember) = &mut self.remember {
            // Whether it comes to the disk is not waited for.
            drop(remember.flush().await);
        }
        Ok(())
    }

    /// Whether everything has been said, and nothing after it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The sender ends: what was hashed is kept for the next.
    pub async fn keep_hashes(&mut self) {
        if let Some(remember) = &mut self.remember {
            let kept = async {
                // Without an answer it failed, and said so.
                let _ = remember.flush().await.await;
            };
            let _ = tokio::time::timeout(KEEPING_TIME_MAX, kept).await;
        }
    }
}

const CHANGED_REASON: &str = "kept changing while it was read";

fn unreadable_reason(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

async fn receive<T>(channel: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn reserve<T>(
    channel: Option<&mpsc::Sender<T>>,
) -> Result<mpsc::Permit<'_, T>, mpsc::error::SendError<()>> {
    match channel {
        Some(channel) => channel.reserve().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
