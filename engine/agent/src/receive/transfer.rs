//! The state of a transfer: what the manifest says, how far each file is, and what is to be done next.
//!
//! Takes records and results, and leaves work in its queues for the coordinator to start. Does no network I/O; of the
//! disk it does only what is a single quick step and must keep the manifest's order: directories and symbolic links.

use super::ReceiveOptions;
use super::data::{FetchJob, Fetched};
use super::entries::{DirectoryEntry, Done, FileEntry, Special, Stage, metadata, time};
use super::local::{Found, IfSame, Large, Look, Prepared};
use super::place::{Closing, Complete, Placed};
use crate::error::RunError;
use crate::report::{Event, Reporter};
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{self, BlockHash, HashAlgorithm, RootHash};
use sealift_proto::limits::{MANIFEST_OPEN_FILES_MAX, MANIFEST_OPEN_HASHES_MAX};
use sealift_proto::manifest::{Catalog, Metadata, Problem, Record, SegmentSeq, WithdrawReason};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::assembly::{Assembly, Wholeness};
use sealift_proto::transfer::pull::{ConnectionId, Loss, Outcome, Puller, Run, Verdict};
use sealift_proto::wire::{CloseCode, RangeProblem, Reject};
use sealift_store::{FileStat, Ready, Replica, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file that the source found changed is given up when the manifest says nothing more of it for so long.
const AWAITING_MAX: Duration = Duration::from_secs(60);
/// Files that may be in work before no more of the manifest is asked for.
const FILES_PENDING_MAX: usize = 8192;
/// Files that may be staged at a time, those being prepared included. More than a manifest may leave unsealed, so that
/// some of them always go on by themselves.
const STAGED_MAX: usize = 256;
const _: () = assert!(STAGED_MAX > 2 * MANIFEST_OPEN_FILES_MAX);
/// Runs that may wait before no more of the manifest is asked for.
const RUNS_WAITING_MAX: usize = 8192;

/// Hashes that may be held before no more of the manifest is asked for. Those of files that are not sealed are bounded
/// by the manifest's own limit, so that what is held beyond that belongs to files that go on by themselves.
const HASHES_HELD_MAX: usize = 2 * MANIFEST_OPEN_HASHES_MAX;

/// How a large file is to be prepared.
pub enum Preparation {
    /// Nothing at its place helps: only staged.
    Stage(Large),
    /// Compared with what is there, holes filled in, and staged.
    Compare(Large),
}

/// The transfer.
pub struct Transfer {
    /// Which runs to ask of whom.
    pub puller: Puller,
    /// Files to be looked for.
    pub looks: Vec<Look>,
    /// Large files to be prepared.
    pub preparations: VecDeque<Preparation>,
    /// Files to be published, and since when the oldest of them waits.
    pub complete: Vec<Complete>,
    /// Since when the oldest of `complete` waits.
    pub complete_since: Option<Instant>,
    /// Blocks to be named to the sender as wrong.
    pub rejects: Vec<Reject>,
    /// Jobs that were started and not heard of.
    pub jobs: usize,
    /// What is in place.
    pub done: Done,
    /// Entries that cannot be had.
    pub failed: u64,
    /// Bytes of content that came over the wire.
    pub transferred_bytes: u64,
    catalog: Catalog,
    files: HashMap<FileId, FileEntry>,
    directories: Vec<DirectoryEntry>,
    /// Further names by number: the path, and the file's first name.
    hardlinks: BTreeMap<FileId, (SafePath, SafePath)>,
    /// Paths whose entry could not be had, so that no further name is made of what was there before.
    unplaced: HashSet<SafePath>,
    /// Files with several names that an entry has claimed: a second entry must not share them.
    claimed: HashSet<(u64, u64)>,
    /// Paths that count as failed.
    lost: HashSet<SafePath>,
    /// Paths of which an older version may yet be renamed into place: what is there now must not be kept as it is.
    settling: HashSet<SafePath>,
    /// Files that hold a staged file, and so a descriptor.
    staged: usize,
    /// Files that wait for word of the source.
    awaiting: usize,
    last_segment: Instant,
    /// Hashes of files in work.
    held_hashes: usize,
    root: Option<(u32, Timestamp)>,
    known_bytes: u64,
    placed_bytes: u64,
    keep_special_modes: bool,
    replica: Arc<Replica>,
    reporter: Arc<Reporter>,
}

impl Transfer {
    /// A transfer of which nothing is known.
    pub fn new(
        options: &ReceiveOptions,
        fetches_max: usize,
        replica: Arc<Replica>,
        reporter: Arc<Reporter>,
    ) -> Self {
        Self {
            puller: Puller::new(fetches_max),
            looks: Vec::new(),
            preparations: VecDeque::new(),
            complete: Vec::new(),
            complete_since: None,
            rejects: Vec::new(),
            jobs: 0,
            done: Done::default(),
            failed: 0,
            transferred_bytes: 0,
            catalog: Catalog::new(options.ticket.verify_key.clone(), None),
            files: HashMap::new(),
            directories: Vec::new(),
            hardlinks: BTreeMap::new(),
            lost: HashSet::new(),
            settling: HashSet::new(),
            staged: 0,
            awaiting: 0,
            last_segment: Instant::now(),
            unplaced: HashSet::new(),
            claimed: HashSet::new(),
            held_hashes: 0,
            root: None,
            known_bytes: 0,
            placed_bytes: 0,
            keep_special_modes: options.keep_special_modes,
            replica,
            reporter,
        }
    }

    /// The hash of the blocks, known from the first segment on.
    pub fn algorithm(&self) -> Option<HashAlgorithm> {
        self.catalog.algorithm()
    }

    /// The segment that is due next.
    pub fn next_segment(&self) -> SegmentSeq {
        self.catalog.next_sequence()
    }

    /// Whether more of the manifest can be taken up now.
    pub fn wants_segments(&self) -> bool {
        // Those that wait for word are freed by the manifest alone.
        self.files.len() - self.awaiting < FILES_PENDING_MAX
            && self.puller.waiting() < RUNS_WAITING_MAX
            && self.held_hashes < HASHES_HELD_MAX
    }

    /// Whether every entry of a manifest that has ended is in place or given up.
    pub fn is_complete(&self) -> bool {
        self.catalog.ended() && self.files.is_empty() && self.jobs == 0
    }

    /// Whether one more file may be staged: each holds a descriptor until it is in place.
    pub fn may_stage(&self) -> bool {
        self.staged + self.jobs < STAGED_MAX
    }

    /// Whether nothing but publishing is left of what is known.
    pub fn only_publishing(&self) -> bool {
        self.files.values().all(|file| matches!(file.stage, Stage::Publishing))
    }

    /// How far it is.
    pub fn progress(&self) -> Event<'static> {
        Event::Progress {
            files: self.done.files,
            bytes: self.done.bytes + self.placed_bytes,
            bytes_known: self.known_bytes,
            bytes_transferred: self.transferred_bytes,
        }
    }

    /// What is left to do when it is complete.
    pub fn closing(&mut self) -> Closing {
        Closing {
            hardlinks: std::mem::take(&mut self.hardlinks).into_values().collect(),
            unplaced: std::mem::take(&mut self.unplaced),
            directories: std::mem::take(&mut self.directories),
            root: self.root,
        }
    }

    /// Checks a segment and takes up its records.
    ///
    /// # Errors
    /// [`RunError::Hostile`] if it is refused.
    pub fn segment(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let records = self
            .catalog
            .admit(bytes)
            .map_err(|error| RunError::Hostile { code: CloseCode::BadManifest, what: error.to_string() })?;
        self.last_segment = Instant::now();
        for record in records {
            self.record(record);
        }
        Ok(())
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Root(of_root) => self.root = Some(self.metadata(None, &of_root)),
            Record::Directory { path, metadata, .. } => {
                let (mode, mtime) = self.metadata(Some(&path), &metadata);
                match self.replica.make_directory(&path) {
                    Ok(_) => self.directories.push(DirectoryEntry { path, mode, mtime }),
                    Err(error) => self.lost(&path, &error.to_string()),
                }
            }
            Record::Symlink { path, mtime, target, .. } => {
                if let Err(error) = self.replica.make_symlink(&path, &target, time(mtime)) {
                    self.lost(&path, &error.to_string());
                }
            }
            Record::Hardlink { id, path, target } => {
                self.hardlinks.insert(id, (path, target));
            }
            Record::SmallFile { id, path, metadata, layout, hash } => {
                self.announce(id, path, &metadata, layout);
                if layout.blocks() > 0 {
                    self.hashes(id, &[hash]);
                }
                self.sealed(id, RootHash(hash.0));
            }
            Record::File { id, path, metadata, layout } => self.announce(id, path, &metadata, layout),
            Record::Holes { id, holes } => {
                if let Some(file) = self.files.get_mut(&id) {
                    file.add_holes(&holes);
                }
            }
            Record::Hashes { id, hashes, .. } => self.hashes(id, &hashes),
            Record::Sealed { id, root } => self.sealed(id, root),
            Record::Withdrawn { id, path, reason } => self.withdrawn(id, &path, reason),
            Record::Problem { shown_path, problem } => {
                self.failed += 1;
                self.reporter.problem(&shown_path, problem_text(problem));
            }
            Record::End { .. } | Record::Attributes { .. } => {}
        }
    }

    fn metadata(&self, path: Option<&SafePath>, of: &Metadata) -> (u32, Timestamp) {
        let (metadata, special) = metadata(of, self.keep_special_modes);
        if let Special::Dropped = special {
            let path = path.map_or_else(|| "the destination".to_owned(), ToString::to_string);
            let message = format!(
                "{path}: set-user-id, set-group-id and sticky bits were dropped (--keep-special-modes keeps them)"
            );
            self.reporter.tell(&Event::Warning { message });
        }
        metadata
    }

    fn announce(&mut self, id: FileId, path: SafePath, of: &Metadata, layout: Layout) {
        let metadata = self.metadata(Some(&path), of);
        self.known_bytes += layout.size_bytes();
        let mut file = FileEntry::new(path, metadata, layout);
        file.must_copy = self.settling.contains(&file.path);
        self.files.insert(id, file);
    }

    fn hashes(&mut self, id: FileId, hashes: &[BlockHash]) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.assembly.add_hashes(hashes);
        self.held_hashes += hashes.len();
        match file.stage {
            // The first blocks can be fetched while the source still hashes the last ones.
            Stage::Announced if !file.is_whole() && file.holes.is_empty() => self.look(id),
            Stage::FetchingStaged(_) => self.ask(id),
            _ => {}
        }
    }

    fn sealed(&mut self, id: FileId, root: RootHash) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if digest::root(self.catalog.algorithm().expect("a segment was admitted"), file.assembly.hashes())
            != root
        {
            return self.fail(id, WRONG_ROOT);
        }
        file.assembly.seal(root);
        file.root = Some(root);
        match file.stage {
            Stage::Announced if file.is_whole() => self.look(id),
            Stage::Announced | Stage::AwaitingSeal => self.prepare(id, Preparation::Compare),
            Stage::FetchingStaged(_) => self.check_whole(id),
            _ => {}
        }
    }

    fn look(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Local;
        self.looks.push(Look {
            id,
            path: file.path.clone(),
            layout: file.assembly.layout(),
            metadata: (file.mode, file.mtime),
            hashes: file.is_whole().then(|| file.assembly.hashes().into()),
        });
    }

    fn prepare(&mut self, id: FileId, how: fn(Large) -> Preparation) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Local;
        self.preparations.push_back(how(Large {
            id,
            path: file.path.clone(),
            layout: file.assembly.layout(),
            hashes: file.assembly.hashes().into(),
            holes: Arc::clone(&file.holes),
            metadata: (file.mode, file.mtime),
            same: if file.must_copy { IfSame::IsCopied } else { IfSame::Stays },
        }));
    }

    /// A file that is the same already and has several names: it stays for the first entry that claims it. Another
    /// entry that is no further name of that one gets a copy of its own.
    fn claim(&mut self, id: FileId, stat: &FileStat) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        if self.claimed.insert((stat.device, stat.inode)) {
            let updated = self.replica.update_metadata(&file.path, stat, file.mode, file.mtime);
            match updated {
                Ok(()) => self.in_place(id),
                Err(error) => self.fail(id, &error.to_string()),
            }
        } else {
            file.must_copy = true;
            self.prepare(id, Preparation::Compare);
        }
    }

    /// Takes what was found at the destination.
    pub fn looked(&mut self, found: Vec<(FileId, Found)>) {
        self.jobs -= 1;
        for (id, found) in found {
            let Some(file) = self.files.get_mut(&id) else { continue };
            match found {
                Found::Same | Found::Linked(_) if file.must_copy => self.prepare(id, Preparation::Compare),
                Found::Same => self.in_place(id),
                Found::Linked(stat) => self.claim(id, &stat),
                Found::Failed(error) => self.fail(id, &error.to_string()),
                Found::Nothing if file.is_whole() && file.assembly.layout().blocks() > 0 => {
                    file.stage = Stage::FetchingWhole;
                    let layout = file.assembly.layout();
                    for run in Run::cover(id, layout, BlockIndex(0), layout.blocks()) {
                        self.puller.want(run);
                    }
                }
                Found::Nothing => self.prepare(id, Preparation::Stage),
                Found::Other if file.assembly.is_sealed() => self.prepare(id, Preparation::Compare),
                Found::Other => file.stage = Stage::AwaitingSeal,
            }
        }
    }

    /// Takes what became of a large file.
    pub fn prepared(&mut self, id: FileId, prepared: Prepared) {
        self.jobs -= 1;
        let Some(file) = self.files.get_mut(&id) else { return };
        match prepared {
            Prepared::Same => self.in_place(id),
            Prepared::Linked(stat) => self.claim(id, &stat),
            Prepared::Failed(reason) => self.fail(id, &reason),
            Prepared::Staged { staged, present } => {
                file.stage = Stage::FetchingStaged(staged);
                file.holds_staged = true;
                self.staged += 1;
                self.mark(id, present.into_iter());
                self.ask(id);
                self.check_whole(id);
            }
        }
    }

    /// Asks for the blocks of a staged file whose hashes are known and that are not in place.
    fn ask(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let layout = file.assembly.layout();
        let known = u32::try_from(file.assembly.hashes().len()).expect("at most the layout's blocks");
        let mut at = file.asked;
        while at < known {
            let present = file.assembly.has(BlockIndex(at));
            let same = (at..known).take_while(|&block| file.assembly.has(BlockIndex(block)) == present);
            let count = u32::try_from(same.count()).expect("at most the layout's blocks");
            if !present {
                for run in Run::cover(id, layout, BlockIndex(at), count) {
                    self.puller.want(run);
                }
            }
            at += count;
        }
        file.asked = known;
    }

    fn mark(&mut self, id: FileId, blocks: impl Iterator<Item = BlockIndex>) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let bytes: u64 = blocks.map(|block| file.assembly.mark(block)).sum();
        file.placed_bytes += bytes;
        self.placed_bytes += bytes;
    }

    /// A fetch with all that is needed to verify and place what it brings.
    pub fn next_fetch(&mut self, connection: ConnectionId) -> Option<FetchJob> {
        let fetch = self.puller.poll_fetch(connection)?;
        let place = |run: &Run| self.files.get(&run.file).and_then(|file| file.place(run));
        let places =
            fetch.runs.iter().map(|run| place(run).expect("runs of lost files are cancelled")).collect();
        Some(FetchJob { fetch, places })
    }

    /// Takes the answer to a fetch.
    ///
    /// # Errors
    /// [`RunError::Hostile`] if the sender has sent too much that is wrong.
    pub fn fetched(&mut self, fetched: Fetched, now_ms: u64) -> Result<(), RunError> {
        self.transferred_bytes += fetched.payload_bytes;
        let Fetched { connection, fetch, runs, outcomes, ready, errors, .. } = fetched;
        // Of a connection that is given up, the runs are asked of another: this answer is not counted.
        let Ok(verdicts) = self.puller.handle_answer(connection, fetch, &outcomes, now_ms) else {
            return Ok(());
        };
        for (run, outcome) in runs.iter().zip(&outcomes) {
            let staged =
                self.files.get(&run.file).is_some_and(|f| matches!(f.stage, Stage::FetchingStaged(_)));
            let wrong = match outcome {
                Outcome::Written => &[][..],
                Outcome::Mismatch(wrong) => wrong,
                Outcome::Refused(_) | Outcome::NotWritten => continue,
            };
            if staged {
                let blocks = (run.first.0..run.first.0 + run.count).map(BlockIndex);
                self.mark(run.file, blocks.filter(|block| wrong.iter().all(|wrong| wrong.first != *block)));
                self.check_whole(run.file);
            }
        }
        for (id, ready) in ready {
            self.whole(id, ready);
        }
        for verdict in verdicts {
            match verdict {
                Verdict::Retry(file, block) => self.rejects.push(Reject { file, block }),
                Verdict::GiveUp(id, Loss::Refused(RangeProblem::Changed)) => self.await_word(id),
                Verdict::GiveUp(id, Loss::Refused(problem)) => {
                    self.fail(id, &format!("the sender cannot give it: {}", refusal_text(problem)));
                }
                Verdict::GiveUp(id, Loss::Corrupt) => {
                    self.fail(id, "what the sender gives is not what was signed");
                }
                Verdict::GiveUp(id, Loss::NotWritten) => {
                    let error = errors.iter().find(|(of, _)| *of == id);
                    self.fail(id, error.map_or("it could not be written", |(_, error)| error));
                }
                Verdict::Ban => {
                    let what = "too many blocks did not match what was signed".to_owned();
                    return Err(RunError::Hostile { code: CloseCode::BadBlocks, what });
                }
            }
        }
        Ok(())
    }

    /// A file that was staged whole.
    fn whole(&mut self, id: FileId, ready: Ready) {
        let Some(file) = self.files.get(&id) else { return };
        let blocks = file.assembly.layout().blocks();
        self.mark(id, (0..blocks).map(BlockIndex));
        let file = self.files.get_mut(&id).expect("just looked at");
        match file.assembly.wholeness(self.catalog.algorithm().expect("files follow the first segment")) {
            Wholeness::Whole => self.publish(id, ready),
            Wholeness::WrongRoot | Wholeness::Partial => self.fail(id, WRONG_ROOT),
        }
    }

    /// Publishes a staged file if all of it is there.
    fn check_whole(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        match file.assembly.wholeness(self.catalog.algorithm().expect("files follow the first segment")) {
            Wholeness::Partial => {}
            Wholeness::WrongRoot => self.fail(id, WRONG_ROOT),
            Wholeness::Whole => {
                if let Stage::FetchingStaged(staged) = std::mem::replace(&mut file.stage, Stage::Publishing) {
                    let ready = Ready::new(staged, file.path.clone(), file.mode, file.mtime);
                    self.publish(id, ready);
                }
            }
        }
    }

    fn publish(&mut self, id: FileId, ready: Ready) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Publishing;
        let root = file.root.expect("whole files are sealed");
        self.complete.push(Complete { id, ready, layout: file.assembly.layout(), root });
        self.complete_since.get_or_insert_with(Instant::now);
    }

    /// Takes what became of files that were to be published.
    pub fn placed(&mut self, placed: Vec<Placed>) {
        self.jobs -= 1;
        for Placed { id, result } in placed {
            match result {
                Ok(()) => self.in_place(id),
                Err(reason) => self.fail(id, &reason),
            }
        }
    }

    fn in_place(&mut self, id: FileId) {
        // It may have been withdrawn while it was published: then it stands until its next version.
        if let Some(file) = self.forget(id) {
            self.unplaced.remove(&file.path);
            self.failed -= u64::from(self.lost.remove(&file.path));
            self.done.add(id, file.assembly.layout().size_bytes());
        }
    }

    fn fail(&mut self, id: FileId, reason: &str) {
        if let Some(file) = self.forget(id) {
            self.puller.cancel(id);
            self.known_bytes -= file.assembly.layout().size_bytes();
            self.lost(&file.path, reason);
        }
    }

    /// An entry cannot be had.
    pub fn lost(&mut self, path: &SafePath, reason: &str) {
        self.failed += u64::from(self.lost.insert(path.clone()));
        self.unplaced.insert(path.clone());
        // The store's errors begin with the path, which stands for itself here.
        let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
        self.reporter.problem(path.as_bytes(), reason);
    }

    /// Takes a file out of work. If runs of it may be wanted still, the caller cancels them: that looks at all runs.
    fn forget(&mut self, id: FileId) -> Option<FileEntry> {
        let file = self.files.remove(&id)?;
        self.placed_bytes -= file.placed_bytes;
        self.held_hashes -= file.assembly.hashes().len();
        self.staged -= usize::from(file.holds_staged);
        self.awaiting -= usize::from(matches!(file.stage, Stage::Awaiting(_)));
        Some(file)
    }

    fn await_word(&mut self, id: FileId) {
        // Nothing of it is of use any more but its name.
        if let Some(mut file) = self.forget(id) {
            self.puller.cancel(id);
            file.assembly = Assembly::new(file.assembly.layout());
            file.placed_bytes = 0;
            file.holds_staged = false;
            file.stage = Stage::Awaiting(Instant::now());
            self.awaiting += 1;
            self.files.insert(id, file);
        }
    }

    fn withdrawn(&mut self, id: FileId, path: &SafePath, reason: WithdrawReason) {
        let pending = self.forget(id).map(|file| {
            self.puller.cancel(id);
            if matches!(file.stage, Stage::Publishing) {
                self.settling.insert(file.path.clone());
            }
            file.assembly.layout().size_bytes()
        });
        // One that is in place stands as it was: whole, and older than the source. It counts no more.
        let bytes = pending.or_else(|| self.done.remove(id));
        self.known_bytes -= bytes.unwrap_or(0);
        self.hardlinks.remove(&id);
        self.unplaced.insert(path.clone());
        match reason {
            WithdrawReason::Superseded => {}
            WithdrawReason::Vanished => {
                let message = format!("{path}: was removed at the source meanwhile");
                self.reporter.tell(&Event::Warning { message });
            }
            WithdrawReason::Changed => self.lost(path, problem_text(Problem::Changed)),
            WithdrawReason::Unreadable => self.lost(path, problem_text(Problem::Unreadable)),
        }
    }

    /// Gives up files of which the sender promised word and gave none.
    pub fn give_up_waiting(&mut self) {
        // While the manifest goes on, or has no end, word may yet come.
        if !self.catalog.ended() || self.last_segment.elapsed() <= AWAITING_MAX {
            return;
        }
        let overdue =
            |file: &FileEntry| matches!(file.stage, Stage::Awaiting(since) if since.elapsed() > AWAITING_MAX);
        let ids: Vec<FileId> =
            self.files.iter().filter(|(_, file)| overdue(file)).map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, "it changed at the source, which then said no more of it");
        }
    }
}

const WRONG_ROOT: &str = "its blocks do not add up to the root that was signed";

fn problem_text(problem: Problem) -> &'static str {
    match problem {
        Problem::Unreadable => "the source cannot read it",
        Problem::Changed => "it kept changing at the source while it was read",
        Problem::Special => "it is a device, FIFO or socket",
        Problem::BadName => "its name or path cannot be carried",
        Problem::TooLarge => "it is larger than a file may be",
    }
}

fn refusal_text(problem: RangeProblem) -> &'static str {
    match problem {
        RangeProblem::UnknownFile => "it does not know the file",
        RangeProblem::OutOfRange => "the range is not within the file",
        RangeProblem::Changed => "the file has changed",
        RangeProblem::Unreadable => "it cannot read the file",
        RangeProblem::Excessive => "it was asked for too often",
    }
}
