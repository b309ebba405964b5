//! The state of a transfer: what the manifest says, how far each file is, and what is to be done next.
//!
//! Takes records and results, and leaves work in its queues for the coordinator to start. Does no network I/O; of the
//! disk it does only what is a single quick step and must keep the manifest's order: directories and symbolic links.

use super::checkpoint::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, Checkpoint, Checkpointed};
use super::data::{FetchJob, Fetched};
use super::delete::{Deletions, MaxDelete};
use super::entries::{DirectoryEntry, Done, FileEntry, Hold, Metadata, Special, Stage, metadata, time};
use super::failure::{Failure, Trouble};
use super::local::{Before, Context, Found, IfSame, Large, Look, Prepared, keep};
use super::memory::Draft;
use super::place::{Closing, Complete, Notes, Placed, make_way};
use super::{OnConflict, Owners, ReceiveOptions, Repair};
use crate::error::RunError;
use crate::preserve::{Aspect, Preserve};
use crate::report::{Event, Reporter};
use crate::shards::buffers;
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{self, BlockHash, HashAlgorithm, RootHash};
use sealift_proto::keys::VerifyKey;
use sealift_proto::limits::{MANIFEST_OPEN_FILES_MAX, MANIFEST_OPEN_HASHES_MAX};
use sealift_proto::manifest::{
    self, Catalog, ManifestError, Mark, Problem, Record, SegmentSeq, WithdrawReason,
};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::assembly::{Assembly, Wholeness};
use sealift_proto::transfer::pull::{ConnectionId, Loss, Outcome, Puller, Run, Verdict};
use sealift_proto::wire::{CloseCode, RangeProblem, Reject};
use sealift_store::{
    Attributed, EntryKind, EntryRow, EntryWhat, Expected, FileError, FileStat, Linked, MadeDirectory, Ready,
    StagedFile, link_target_hash,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::unix::fs::MetadataExt as _;
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
    /// What the index is to be told with the next batch.
    pub notes: Notes,
    /// Whether the disk is full: nothing is fetched or staged until there is room.
    pub full: Option<Full>,
    full_delay: Duration,
    /// Bytes of content that came over the wire.
    pub transferred_bytes: u64,
    verify_key: VerifyKey,
    catalog: Catalog,
    /// Records that were admitted and not taken up, since one of them could not be.
    records: VecDeque<Record>,
    /// The segment that the records are from.
    segment: u64,
    /// Attributes of the entry that begins next.
    attributes: Option<Attributed>,
    owners: Owners,
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
    /// How many may.
    staged_max: usize,
    /// Files that hold a staged file, and so a descriptor.
    staged: usize,
    /// Files that wait for word of the source.
    awaiting: usize,
    /// Files that are held.
    held: usize,
    /// Since when something waits for room, and when it is looked for next.
    full_since: Option<Instant>,
    next_space_try: Instant,
    last_segment: Instant,
    /// Hashes of files in work.
    held_hashes: usize,
    root: Option<Metadata>,
    known_bytes: u64,
    placed_bytes: u64,
    /// Bytes written to staged files since the index was last told of them, and since when.
    unsaved: (u64, Instant),
    /// Files that an earlier run put here and that were replaced.
    rewritten: u64,
    /// Whether the source said that something of it is missing.
    source_incomplete: bool,
    skipped_symlinks: u64,
    rules: Rules,
    context: Context,
    reporter: Arc<Reporter>,
}

/// Descriptors that are left for everything else.
const OTHER_DESCRIPTORS: usize = 64;
/// Files that may be staged even if there are hardly any descriptors.
const STAGED_MIN: usize = 8;

/// How many files may be staged with the descriptors that this process may have: some of them are open twice.
fn staged_max(connections: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    // What is being written has one a buffer.
    let others = OTHER_DESCRIPTORS + connections + buffers();
    (limit.saturating_sub(others) / 2).clamp(STAGED_MIN, STAGED_MAX)
}

/// What the disk holds of a staged file already.
fn allocated_bytes(staged: &StagedFile) -> u64 {
    /// What the system counts blocks of files in.
    const STAT_BLOCK_BYTES: u64 = 512;
    staged.file().metadata().map_or(0, |stat| stat.blocks() * STAT_BLOCK_BYTES)
}

/// What of the options concerns single entries.
struct Rules {
    preserve: Preserve,
    keep_special_modes: bool,
    on_conflict: OnConflict,
    max_rewrite: Option<u64>,
    delete: Option<MaxDelete>,
    ask: Option<fn(u64, u64) -> bool>,
    wait_for_space: Option<Duration>,
    repair: Option<Arc<Repair>>,
}

/// The disk is full.
#[derive(Clone, Copy, Debug)]
pub struct Full;

/// Between tries while the disk is full: doubled until something fits.
const FULL_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Room that must be there beside a file's own bytes.
const SPARE_BYTES: u64 = 1 << 20;
/// Before a file is tried again whose trouble may pass, and how often.
const PASSING_DELAY: Duration = Duration::from_secs(1);
const PASSING_MAX: u32 = 3;

impl Transfer {
    /// A transfer of which nothing is known.
    pub fn new(
        options: &ReceiveOptions,
        fetches_max: usize,
        context: Context,
        reporter: Arc<Reporter>,
    ) -> Self {
        let catalog = Catalog::new(options.ticket.verify_key.clone(), context.memory.accepted());
        Self {
            puller: Puller::new(fetches_max),
            notes: Notes::default(),
            full: None,
            full_delay: FULL_DELAY.0,
            records: VecDeque::new(),
            segment: 0,
            attributes: None,
            owners: options.owners.clone(),
            unsaved: (0, Instant::now()),
            rewritten: 0,
            source_incomplete: false,
            skipped_symlinks: 0,
            rules: Rules {
                preserve: options.preserve,
                keep_special_modes: options.keep_special_modes,
                on_conflict: options.on_conflict,
                max_rewrite: options.max_rewrite,
                delete: options.delete,
                ask: options.ask,
                wait_for_space: options.wait_for_space,
                repair: options.repair.clone(),
            },
            looks: Vec::new(),
            preparations: VecDeque::new(),
            complete: Vec::new(),
            complete_since: None,
            rejects: Vec::new(),
            jobs: 0,
            done: Done::default(),
            failed: 0,
            transferred_bytes: 0,
            verify_key: options.ticket.verify_key.clone(),
            catalog,
            files: HashMap::new(),
            directories: Vec::new(),
            hardlinks: BTreeMap::new(),
            lost: HashSet::new(),
            settling: HashSet::new(),
            staged_max: staged_max(options.connections),
            staged: 0,
            awaiting: 0,
            held: 0,
            full_since: None,
            next_space_try: Instant::now(),
            last_segment: Instant::now(),
            unplaced: HashSet::new(),
            claimed: HashSet::new(),
            held_hashes: 0,
            root: None,
            known_bytes: 0,
            placed_bytes: 0,
            context,
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
        self.records.is_empty()
            && self.files.len() - self.awaiting < FILES_PENDING_MAX
            && self.puller.waiting() < RUNS_WAITING_MAX
            && self.held_hashes < HASHES_HELD_MAX
    }

    /// Whether every entry of a manifest that has ended is in place or given up.
    pub fn is_complete(&self) -> bool {
        self.catalog.ended() && self.records.is_empty() && self.files.is_empty() && self.jobs == 0
    }

    /// Whether one more file may be staged: each holds a descriptor until it is in place.
    pub fn may_stage(&self) -> bool {
        self.staged + self.jobs < self.staged_max
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
        let mark = self.catalog.mark();
        let unheard = Catalog::new(self.verify_key(), None);
        let catalog = std::mem::replace(&mut self.catalog, unheard);
        let deletions = match self.rules.delete {
            Some(_) if self.source_incomplete => {
                let message =
                    "nothing is removed, since the source could not read all that it has".to_owned();
                self.reporter.tell(&Event::Warning { message });
                None
            }
            delete => delete.map(|max| Deletions { catalog, max, ask: self.rules.ask }),
        };
        Closing {
            hardlinks: std::mem::take(&mut self.hardlinks).into_values().collect(),
            links_names: self.rules.preserve.has(Aspect::Hardlinks),
            unplaced: std::mem::take(&mut self.unplaced),
            deletions,
            directories: std::mem::take(&mut self.directories),
            root: self.root.take(),
            segment: self.segment,
            is_repair: self.rules.repair.is_some(),
            notes: Notes { mark, ..std::mem::take(&mut self.notes) },
        }
    }

    /// How far the chain is accepted.
    pub fn mark(&self) -> Option<Mark> {
        self.catalog.mark().or(self.context.memory.accepted())
    }

    /// What the index is to be told now.
    pub fn take_notes(&mut self) -> Notes {
        Notes { mark: self.mark(), ..std::mem::take(&mut self.notes) }
    }

    /// Checks a segment and takes up its records.
    ///
    /// # Errors
    /// [`RunError::Hostile`] if it is refused; [`RunError::NewSnapshot`] if the sender began anew.
    pub fn segment(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let records = self.catalog.admit(bytes).map_err(|error| match error {
            ManifestError::NewSnapshot(_) => RunError::NewSnapshot,
            error => RunError::Hostile { code: CloseCode::BadManifest, what: error.to_string() },
        })?;
        self.last_segment = Instant::now();
        self.segment = self.catalog.next_sequence().0.saturating_sub(1);
        self.records.extend(records);
        self.take_records();
        Ok(())
    }

    fn take_records(&mut self) {
        while let Some(record) = self.records.pop_front() {
            if let Err(record) = self.record(record) {
                self.records.push_front(record);
                return;
            }
        }
    }

    /// Takes up a record; gives it back if there is no room for what it says.
    fn record(&mut self, record: Record) -> Result<(), Record> {
        match record {
            Record::Root(of_root) => {
                if self.rules.repair.is_none() {
                    let metadata = self.metadata(None, &of_root);
                    self.root = Some(self.directory_attributes(None, metadata));
                }
            }
            Record::Attributes { ref attributes, .. } => self.attributes = self.resolve(attributes),
            Record::Directory { ref path, metadata, .. } => {
                if self.rules.repair.is_some() {
                    return Ok(());
                }
                if !self.make_way(path) {
                    return Ok(());
                }
                match self.context.replica.make_directory(path) {
                    Ok(made) => {
                        if made == MadeDirectory::Created {
                            self.note(path, EntryWhat::Directory);
                        }
                        let metadata = self.metadata(Some(path), &metadata);
                        let mut metadata = self.directory_attributes(Some(path), metadata);
                        if let MadeDirectory::Existed { mode } = made {
                            metadata.mode.get_or_insert(mode);
                        }
                        self.directories.push(DirectoryEntry { path: path.clone(), metadata });
                    }
                    Err(error) => return self.not_made(record, &error),
                }
            }
            Record::Symlink { ref path, mtime, ref target, .. } => {
                let attributes = self.attributes.take();
                if self.rules.repair.is_some() {
                    return Ok(());
                }
                if !self.rules.preserve.has(Aspect::Links) {
                    self.skipped_symlinks += 1;
                    return Ok(());
                }
                if !self.make_way(path) {
                    return Ok(());
                }
                let mtime = self.rules.preserve.has(Aspect::Times).then(|| time(mtime));
                match self.context.replica.make_symlink(path, target, mtime) {
                    Ok(Linked::Created) => {
                        self.note(path, EntryWhat::Symlink { target_hash: link_target_hash(target) });
                    }
                    Ok(Linked::Unchanged) => {}
                    Err(error) => {
                        self.attributes = attributes;
                        return self.not_made(record, &error);
                    }
                }
                if let Some(attributes) = attributes
                    && let Err(error) =
                        attributes.update(&self.context.replica, path, EntryKind::Symlink, None, None)
                {
                    let message = format!("{error}; its owner was not set");
                    self.reporter.tell(&Event::Warning { message });
                }
            }
            Record::Hardlink { id, path, target } => {
                if self.rules.repair.is_none() {
                    self.hardlinks.insert(id, (path, target));
                }
            }
            Record::SmallFile { id, path, metadata, layout, hash } => {
                if self.announce(id, path, &metadata, layout, Some(RootHash(hash.0))) {
                    if layout.blocks() > 0 {
                        self.hashes(id, &[hash]);
                    }
                    self.sealed(id, RootHash(hash.0));
                }
            }
            Record::File { id, path, metadata, layout } => {
                self.announce(id, path, &metadata, layout, None);
            }
            Record::Holes { id, holes } => {
                if let Some(file) = self.files.get_mut(&id)
                    && self.rules.preserve.has(Aspect::Sparse)
                {
                    file.add_holes(&holes);
                }
            }
            Record::Hashes { id, hashes, .. } => self.hashes(id, &hashes),
            Record::Sealed { id, root } => self.sealed(id, root),
            Record::Withdrawn { id, path, reason } => self.withdrawn(id, &path, reason),
            Record::Problem { shown_path, problem } => {
                self.source_incomplete = true;
                if self.rules.repair.is_none() {
                    self.failed += 1;
                    self.reporter.problem(&shown_path, problem_text(problem));
                }
            }
            Record::End { .. } => self.tell_skipped(),
        }
        Ok(())
    }

    /// Sees to it that what stands at the place of a directory or link may go: what somebody edited here is set aside,
    /// if that is the rule. Whether it may.
    fn make_way(&mut self, path: &SafePath) -> bool {
        let (replica, memory) = (&self.context.replica, &self.context.memory);
        match make_way(replica, memory, self.rules.on_conflict, path) {
            Ok(None) => true,
            Ok(Some(message)) => {
                self.reporter.tell(&Event::Warning { message });
                true
            }
            Err(reason) => {
                self.lost(path, &reason);
                false
            }
        }
    }

    /// Sets a directory's owner and lists at once, so that they need not be kept; its mode and time come last.
    fn directory_attributes(&self, path: Option<&SafePath>, mut metadata: Metadata) -> Metadata {
        let Some(attributes) = metadata.attributes.take() else { return metadata };
        metadata.mode = metadata.mode.map(|mode| attributes.mode(mode));
        // Its owner writes to it until everything is in place.
        let for_now = metadata.mode.map(|mode| mode | 0o700);
        let (replica, kind) = (&self.context.replica, EntryKind::Directory);
        let set = match path {
            Some(path) => {
                attributes.update(replica, path, kind, None, for_now).map_err(|error| error.to_string())
            }
            None => {
                attributes.update_root(replica, for_now).map_err(|error| format!("the destination: {error}"))
            }
        };
        if let Err(error) = set {
            let message = format!("{error}; its owner and attributes were not set");
            self.reporter.tell(&Event::Warning { message });
        }
        metadata
    }

    /// A directory or link could not be made: tried again when there is room, and lost otherwise.
    fn not_made(&mut self, record: Record, error: &FileError) -> Result<(), Record> {
        let (Record::Directory { path, .. } | Record::Symlink { path, .. }) = &record else {
            unreachable!("only these are made at once");
        };
        let failure = Failure::from(error);
        if failure.trouble == Trouble::Full && self.may_wait_for_space() {
            let (path, reason) = (path.clone(), failure.reason);
            self.pause(&path, &reason);
            return Err(record);
        }
        let path = path.clone();
        self.lost(&path, &failure.reason);
        Ok(())
    }

    fn tell_skipped(&mut self) {
        let count = std::mem::take(&mut self.skipped_symlinks);
        if count > 0 {
            let message = format!("{count} symbolic links were left out (--preserve without links)");
            self.reporter.tell(&Event::Warning { message });
        }
    }

    fn note(&mut self, path: &SafePath, what: EntryWhat) {
        let row = EntryRow { what, job: self.context.memory.number(), segment: self.segment };
        self.notes.rows.push((path.clone(), row));
    }

    fn verify_key(&self) -> VerifyKey {
        self.verify_key.clone()
    }

    fn resolve(&self, attributes: &manifest::Attributes) -> Option<Attributed> {
        let Owners { mapper, tally } = &self.owners;
        let (resolved, dropped) = mapper.resolve(attributes);
        tally.add(dropped);
        mapper.kinds().any().then(|| Attributed::new(Arc::clone(mapper), Arc::clone(tally), resolved))
    }

    fn metadata(&mut self, path: Option<&SafePath>, of: &manifest::Metadata) -> Metadata {
        let (mut metadata, special) = metadata(of, self.rules.preserve, self.rules.keep_special_modes);
        metadata.attributes = self.attributes.take();
        metadata.mtime = metadata.mtime.map(|mtime| self.context.mtime_held(mtime));
        if let Special::Dropped = special {
            let path = path.map_or_else(|| "the destination".to_owned(), ToString::to_string);
            let message = format!(
                "{path}: set-user-id, set-group-id and sticky bits were dropped (--keep-special-modes keeps them)"
            );
            self.reporter.tell(&Event::Warning { message });
        }
        metadata
    }

    /// A file begins. Whether it is of any interest.
    fn announce(
        &mut self,
        id: FileId,
        path: SafePath,
        of: &manifest::Metadata,
        layout: Layout,
        root: Option<RootHash>,
    ) -> bool {
        let metadata = self.metadata(Some(&path), of);
        if let Some(repair) = &self.rules.repair
            && !repair.wants(&path, layout, root.as_ref())
        {
            return false;
        }
        self.known_bytes += layout.size_bytes();
        let mut file = FileEntry::new(path, metadata, self.segment, layout);
        file.must_copy = self.settling.contains(&file.path);
        self.files.insert(id, file);
        true
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
        if let Some(repair) = &self.rules.repair
            && !repair.wants(&file.path, file.assembly.layout(), Some(&root))
        {
            self.forget(id);
            return;
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
            metadata: file.metadata.clone(),
            root: file.root,
            hashes: file.is_whole().then(|| file.assembly.hashes().into()),
            segment: file.segment,
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
            root: file.root,
            holes: Arc::clone(&file.holes),
            metadata: file.metadata.clone(),
            segment: file.segment,
            same: if file.must_copy { IfSame::IsCopied } else { IfSame::Stays },
        }));
    }

    /// A file that is the same already and has several names: it stays for the first entry that claims it. Another
    /// entry that is no further name of that one gets a copy of its own.
    fn claim(&mut self, id: FileId, stat: &FileStat) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        if !self.claimed.insert((stat.device, stat.inode)) {
            file.must_copy = true;
            return self.prepare(id, Preparation::Compare);
        }
        let draft = Draft {
            algorithm: self.catalog.algorithm().expect("files follow the first segment"),
            layout: file.assembly.layout(),
            root: file.root.expect("what is the same is known whole"),
            segment: file.segment,
        };
        let known = self.context.memory.read().and_then(|reader| reader.entry(&file.path));
        let kept = known.map_err(Failure::from).and_then(|known| {
            let kept = keep(&self.context.replica, &file.path, &file.metadata, stat, known.as_ref(), draft);
            kept.map_err(|error| Failure::from(&error))
        });
        match kept {
            Ok(row) => self.stays(id, row),
            Err(failure) => self.trouble(id, failure),
        }
    }

    /// A file is as it should be.
    fn stays(&mut self, id: FileId, row: Option<EntryRow>) {
        if let (Some(row), Some(file)) = (row, self.files.get(&id)) {
            self.notes.rows.push((file.path.clone(), row));
        }
        self.in_place(id);
    }

    /// Takes what was found at the destination.
    pub fn looked(&mut self, found: Vec<(FileId, Found)>) {
        self.jobs -= 1;
        for (id, found) in found {
            let Some(file) = self.files.get_mut(&id) else { continue };
            match found {
                Found::Same(_) | Found::Linked(_) if file.must_copy => self.prepare(id, Preparation::Compare),
                Found::Same(row) => self.stays(id, row),
                Found::Linked(stat) => self.claim(id, &stat),
                Found::Failed(failure) => self.trouble(id, failure),
                Found::Nothing(before) if file.is_whole() && file.assembly.layout().blocks() > 0 => {
                    if !self.may_replace(id, before) {
                        continue;
                    }
                    let file = self.files.get_mut(&id).expect("just looked at");
                    file.stage = Stage::FetchingWhole;
                    let layout = file.assembly.layout();
                    for run in Run::cover(id, layout, BlockIndex(0), layout.blocks()) {
                        self.puller.want(run);
                    }
                }
                Found::Nothing(before) => {
                    file.before = before;
                    self.prepare(id, Preparation::Stage);
                }
                Found::Other if file.assembly.is_sealed() => self.prepare(id, Preparation::Compare),
                Found::Other => file.stage = Stage::AwaitingSeal,
            }
        }
    }

    /// Notes what is at a file's place. Whether it may be replaced.
    fn may_replace(&mut self, id: FileId, before: Before) -> bool {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let mut before = match &self.rules.repair {
            Some(repair) => repair.before(&file.path, before),
            None => before,
        };
        // Somebody made or edited it while its version came.
        before.edited |= file.disputed && matches!(before.expected, Expected::Version(_));
        file.before = before;
        if before.edited && self.rules.on_conflict == OnConflict::Keep {
            self.fail(id, EDITED);
            return false;
        }
        if before.rewrites && !std::mem::replace(&mut file.counted, true) {
            self.rewritten += 1;
        }
        true
    }

    /// Stops a job that rewrites more than it may.
    ///
    /// # Errors
    /// If it does.
    pub fn check_rewrites(&self) -> Result<(), RunError> {
        match self.rules.max_rewrite {
            Some(max) if self.rewritten > max => Err(RunError::Failed(format!(
                "more than {max} files that were here would be replaced by others, so the job was stopped. \
                 If the source is as it should be, use a higher --max-rewrite"
            ))),
            _ => Ok(()),
        }
    }

    /// Takes what became of a large file.
    pub fn prepared(&mut self, id: FileId, prepared: Prepared) {
        self.jobs -= 1;
        let Some(file) = self.files.get_mut(&id) else { return };
        match prepared {
            Prepared::Same(row) => self.stays(id, row),
            Prepared::Linked(stat) => self.claim(id, &stat),
            Prepared::Failed(failure) => self.trouble(id, failure),
            Prepared::Staged { staged, present, before, kept } => {
                file.stage = Stage::FetchingStaged(staged);
                file.holds_staged = true;
                file.kept = kept;
                self.staged += 1;
                let before = before.unwrap_or(file.before);
                if !self.may_replace(id, before) {
                    return;
                }
                self.mark_blocks(id, present.into_iter());
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

    fn mark_blocks(&mut self, id: FileId, blocks: impl Iterator<Item = BlockIndex>) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let bytes: u64 = blocks.map(|block| file.assembly.mark(block)).sum();
        file.placed_bytes += bytes;
        file.dirty |= bytes > 0;
        self.placed_bytes += bytes;
        if matches!(file.stage, Stage::FetchingStaged(_)) {
            if self.unsaved.0 == 0 {
                self.unsaved.1 = Instant::now();
            }
            self.unsaved.0 += bytes;
        }
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
                self.mark_blocks(
                    run.file,
                    blocks.filter(|block| wrong.iter().all(|wrong| wrong.first != *block)),
                );
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
                    let failure = errors.iter().find(|(of, _)| *of == id).map(|(_, failure)| failure.clone());
                    self.trouble(id, failure.unwrap_or_else(|| Failure::lasting("it could not be written")));
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
        self.mark_blocks(id, (0..blocks).map(BlockIndex));
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
                    let (mode, mtime) = file.metadata.of_new_file();
                    let attributes = file.metadata.attributes.clone();
                    let ready =
                        Ready::new(staged, file.path.clone(), mode, mtime).with_attributes(attributes);
                    self.publish(id, ready);
                }
            }
        }
    }

    fn publish(&mut self, id: FileId, ready: Ready) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Publishing;
        let draft = Draft {
            algorithm: self.catalog.algorithm().expect("files follow the first segment"),
            layout: file.assembly.layout(),
            root: file.root.expect("whole files are sealed"),
            segment: file.segment,
        };
        let (metadata, before, kept) = (file.metadata.clone(), file.before, file.kept);
        self.complete.push(Complete { id, ready, draft, metadata, before, kept });
        self.complete_since.get_or_insert_with(Instant::now);
    }

    /// Takes what became of files that were to be published.
    pub fn placed(&mut self, placed: Vec<Placed>) {
        self.jobs -= 1;
        for Placed { id, result } in placed {
            match result {
                Ok(()) => {
                    self.full_delay = FULL_DELAY.0;
                    self.in_place(id);
                }
                Err(failure) => self.trouble(id, failure),
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

    /// A file could not be written here: tried again if that may help.
    fn trouble(&mut self, id: FileId, failure: Failure) {
        if !self.files.contains_key(&id) {
            return;
        }
        if failure.lost_writes && !self.files.get(&id).is_some_and(|file| file.kept) {
            // Nothing that was written is believed any more; of a file that the index knows, what was synced before is.
            self.discard_staged(id);
        }
        let file = self.files.get_mut(&id).expect("just looked at");
        file.failures += 1;
        file.disputed |= failure.disputed;
        let waits = self.rules.wait_for_space != Some(Duration::ZERO);
        let delay = match failure.trouble {
            Trouble::Full if waits => Duration::ZERO,
            Trouble::Passing if file.failures <= PASSING_MAX => PASSING_DELAY * file.failures,
            _ => return self.fail(id, &failure.reason),
        };
        let path = file.path.clone();
        self.hold(id, Hold { until: Instant::now() + delay, trouble: failure.trouble });
        if failure.trouble == Trouble::Full {
            self.pause(&path, &failure.reason);
        } else {
            let reason = failure.reason.strip_prefix(&format!("{path}: ")).unwrap_or(&failure.reason);
            let message = format!("{path}: {reason}; it is tried again");
            self.reporter.tell(&Event::Warning { message });
        }
    }

    fn may_wait_for_space(&self) -> bool {
        self.rules.wait_for_space != Some(Duration::ZERO)
    }

    /// Takes a file out of work until it is tried again. What is staged of it is let go.
    fn hold(&mut self, id: FileId, hold: Hold) {
        let Some(mut file) = self.take_out(id) else { return };
        self.puller.cancel(id);
        file.staged_bytes = match &file.stage {
            Stage::FetchingStaged(staged) if file.kept => allocated_bytes(staged),
            _ => 0,
        };
        file.start_over();
        file.stage = Stage::Held(hold);
        self.held_hashes += file.assembly.hashes().len();
        self.held += 1;
        self.files.insert(id, file);
    }

    /// Nothing more is fetched or staged until there is room.
    fn pause(&mut self, path: &SafePath, reason: &str) {
        let now = Instant::now();
        self.full_since.get_or_insert(now);
        match self.full {
            Some(Full) => {}
            None => {
                self.full = Some(Full);
                self.next_space_try = now + self.full_delay;
                self.full_delay = (self.full_delay * 2).min(FULL_DELAY.1);
                let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
                self.reporter.tell(&Event::Paused { reason: format!("{path}: {reason}") });
            }
        }
    }

    /// Tries held files again whose time has come.
    pub fn release(&mut self) {
        let now = Instant::now();
        if let (Some(since), Some(max)) = (self.full_since, self.rules.wait_for_space)
            && now.duration_since(since) >= max
        {
            return self.give_up_space();
        }
        if self.full_since.is_some() && now >= self.next_space_try {
            self.try_space(now);
        }
        if self.held == 0 {
            return;
        }
        let due = |hold: &Hold| hold.trouble != Trouble::Full && hold.until <= now;
        let ids: Vec<FileId> = self
            .files
            .iter()
            .filter(|(id, file)| {
                matches!(&file.stage, Stage::Held(hold) if due(hold)) && !self.puller.is_cancelled(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.let_go(id);
        }
    }

    /// Goes on with what fits by now, the smallest first.
    fn try_space(&mut self, now: Instant) {
        let free = self.context.replica.free_bytes().unwrap_or(0);
        let full =
            |file: &FileEntry| matches!(&file.stage, Stage::Held(hold) if hold.trouble == Trouble::Full);
        let mut held: Vec<(u64, FileId)> = self
            .files
            .iter()
            .filter(|(id, file)| full(file) && !self.puller.is_cancelled(**id))
            .map(|(id, file)| (file.bytes_needed(), *id))
            .collect();
        held.sort();
        let held_count = held.len();
        let mut needed = SPARE_BYTES;
        let fitting: Vec<FileId> = held
            .into_iter()
            .take_while(|(bytes, _)| {
                needed = needed.saturating_add(*bytes);
                needed <= free
            })
            .map(|(_, id)| id)
            .collect();
        let rest = held_count - fitting.len();
        let retries_record = !self.records.is_empty() && free >= SPARE_BYTES;
        self.next_space_try = now + FULL_DELAY.0;
        if fitting.is_empty() && !retries_record {
            if held_count == 0 && self.records.is_empty() {
                // What did not fit was taken back meanwhile.
                self.resume();
            }
            return;
        }
        let was_full = self.full.take().is_some();
        for id in fitting {
            self.let_go(id);
        }
        self.take_records();
        if self.full.is_none() && was_full {
            self.reporter.tell(&Event::Resumed);
        }
        if self.full.is_none() && rest == 0 {
            self.full_since = None;
        }
    }

    /// Nothing waits for room any more.
    fn resume(&mut self) {
        self.full_since = None;
        if self.full.take().is_some() {
            self.reporter.tell(&Event::Resumed);
        }
    }

    /// Space was waited for long enough.
    fn give_up_space(&mut self) {
        self.full = None;
        self.full_since = None;
        self.rules.wait_for_space = Some(Duration::ZERO);
        let full =
            |file: &FileEntry| matches!(&file.stage, Stage::Held(hold) if hold.trouble == Trouble::Full);
        let ids: Vec<FileId> = self.files.iter().filter(|(_, file)| full(file)).map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, "there is no room for it on the disk");
        }
        self.take_records();
    }

    /// A held file is looked at as if it came now.
    fn let_go(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller found it");
        self.held -= 1;
        match file.assembly.is_sealed() {
            true if file.is_whole() => self.look(id),
            true => self.prepare(id, Preparation::Compare),
            false => file.stage = Stage::AwaitingSeal,
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
    fn take_out(&mut self, id: FileId) -> Option<FileEntry> {
        let file = self.files.remove(&id)?;
        self.placed_bytes -= file.placed_bytes;
        self.held_hashes -= file.assembly.hashes().len();
        self.staged -= usize::from(file.holds_staged);
        self.awaiting -= usize::from(matches!(file.stage, Stage::Awaiting(_)));
        self.held -= usize::from(matches!(file.stage, Stage::Held(_)));
        Some(file)
    }

    /// A file is of no more interest, and what is staged of it neither.
    fn forget(&mut self, id: FileId) -> Option<FileEntry> {
        self.discard_staged(id);
        self.take_out(id)
    }

    /// What is staged of a file is of no more use, to no later run either.
    fn discard_staged(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Stage::FetchingStaged(staged) = &mut file.stage {
            self.context.memory.give_up(staged.name());
            staged.unkeep();
        }
        if std::mem::take(&mut file.kept) {
            self.notes.unstaged.push(file.path.clone());
        }
    }

    /// Whether the index should be told of blocks that were written.
    pub fn checkpoint_due(&self) -> bool {
        let (bytes, since) = self.unsaved;
        bytes >= CHECKPOINT_BYTES || (bytes > 0 && since.elapsed() >= CHECKPOINT_INTERVAL)
    }

    /// Staged files with blocks that the index doesn't know.
    pub fn take_checkpoint(&mut self) -> Vec<Checkpoint> {
        self.unsaved = (0, Instant::now());
        let Some(algorithm) = self.catalog.algorithm() else { return Vec::new() };
        let dirty = self.files.iter_mut().filter(|(_, file)| file.dirty);
        let taken = dirty.filter_map(|(id, file)| {
            let Stage::FetchingStaged(staged) = &file.stage else { return None };
            file.dirty = false;
            Some(Checkpoint {
                id: *id,
                path: file.path.clone(),
                name: staged.name().to_owned(),
                file: Arc::clone(staged.file()),
                layout: file.assembly.layout(),
                algorithm,
                root: file.root,
                present: file.assembly.present().to_vec(),
            })
        });
        taken.collect()
    }

    /// Takes what became of a checkpoint.
    pub fn checkpointed(&mut self, saved: Vec<Checkpointed>) {
        self.jobs -= 1;
        for Checkpointed { id, path, result } in saved {
            match (result, self.files.get_mut(&id)) {
                (Ok(()), Some(FileEntry { stage: Stage::FetchingStaged(staged), kept, .. })) => {
                    staged.keep();
                    *kept = true;
                }
                // It is in place by now, or held, or given up: what was written down goes again.
                (Ok(()), _) => self.notes.unstaged.push(path),
                (Err(failure), _) => self.trouble(id, failure),
            }
        }
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
        // What the source could not read is not gone there.
        self.source_incomplete |= matches!(reason, WithdrawReason::Changed | WithdrawReason::Unreadable);
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

const EDITED: &str = "was edited here, and is kept as it is (--on-conflict)";
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
