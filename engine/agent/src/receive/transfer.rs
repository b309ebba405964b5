//! The state of a transfer: what the manifest says, how far each file is, and what is to be done next.
//!
//! Takes records and results, and leaves work in its queues for the coordinator to start. Does no network I/O; of the
//! disk it does only what is a single quick step and must keep the manifest's order: directories and symbolic links.

mod content;
mod records;
mod shelving;
mod trouble;

use super::checkpoint::{CHECKPOINT, Checkpoint, Checkpointed, SHARED_CHECKPOINT};
use super::delete::{Deletions, MaxDelete};
use super::entries::{DirectoryEntry, Done, FileEntry, Metadata, Stage};
use super::local::{Context, Large, Look};
use super::place::{Closing, Complete, Notes};
use super::{OnConflict, Owners, ReceiveOptions, Repair};
use crate::error::RunError;
use crate::preserve::{Aspect, Preserve};
use crate::report::{Event, Reporter};
use crate::shards::buffers;
use crate::swarm::ReplicaShelf;
use sealift_proto::block::FileId;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::VerifyKey;
use sealift_proto::limits::{MANIFEST_OPEN_FILES_MAX, MANIFEST_OPEN_HASHES_MAX};
use sealift_proto::manifest::sealed;
use sealift_proto::manifest::{Catalog, ManifestError, Mark, Record, SegmentSeq};
use sealift_proto::member::NodeId;
use sealift_proto::path::SafePath;
use sealift_proto::transfer::pull::{PeerId, Puller};
use sealift_proto::wire::{CloseCode, Reject};
use sealift_store::Attributed;
use shelving::Shelving;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use trouble::{RecordRetry, Space};

/// Whoever gives the manifest, among the peers of a transfer: the source, unless that is gone.
pub const SOURCE: PeerId = PeerId(0);

/// Files that may be in work before no more of the manifest is asked for.
const FILES_PENDING_MAX: usize = 4096;
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
    /// Blocks to be named to whoever gave them as wrong.
    pub rejects: Vec<(PeerId, Reject)>,
    /// Peers that gave too much that was wrong.
    pub banned: Vec<PeerId>,
    /// Jobs that were started and not heard of.
    pub jobs: usize,
    /// What is in place.
    pub done: Done,
    /// Entries that cannot be had.
    pub failed: u64,
    /// What the index is to be told with the next batch.
    pub notes: Notes,
    /// Whether there is room on the disk.
    pub space: Space,
    /// Bytes of content that came over the wire.
    pub transferred_bytes: u64,
    verify_key: VerifyKey,
    catalog: Catalog,
    /// Records that were admitted and not taken up, since one of them could not be.
    records: VecDeque<Record>,
    record_retry: Option<RecordRetry>,
    /// The segment that the records are from.
    segment: u64,
    /// Attributes of the entry that begins next.
    attributes: Option<Attributed>,
    owners: Owners,
    files: HashMap<FileId, Box<FileEntry>>,
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
    /// Whether others wait for what is here.
    pub has_peers: bool,
    /// If others are served.
    shelving: Option<Shelving>,
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

/// What of the options concerns single entries.
struct Rules {
    preserve: Preserve,
    keep_special_modes: bool,
    page_cache: bool,
    on_conflict: OnConflict,
    max_rewrite: Option<u64>,
    delete: Option<MaxDelete>,
    ask: Option<fn(u64, u64) -> bool>,
    repair: Option<Arc<Repair>>,
    /// Whether nothing is taken that is not of a sealed tree.
    sealed: bool,
}

impl Transfer {
    /// A transfer of which nothing is known, by a member of that name; a seed for what is left to chance.
    pub fn new(
        options: &ReceiveOptions,
        fetches_max: usize,
        (me, seed): (NodeId, u64),
        context: Context,
        reporter: Arc<Reporter>,
    ) -> Self {
        let catalog = Catalog::new(options.ticket.verify_key.clone(), context.memory.accepted());
        let puller = Puller::new(fetches_max, me, seed);
        Self {
            puller,
            notes: Notes::default(),
            space: Space::new(options.wait_for_space),
            record_retry: None,
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
                page_cache: options.page_cache,
                on_conflict: options.on_conflict,
                max_rewrite: options.max_rewrite,
                delete: options.delete,
                ask: options.ask,
                repair: options.repair.clone(),
                sealed: options.ticket.is_keepers(),
            },
            looks: Vec::new(),
            preparations: VecDeque::new(),
            complete: Vec::new(),
            complete_since: None,
            rejects: Vec::new(),
            banned: Vec::new(),
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
            last_segment: Instant::now(),
            unplaced: HashSet::new(),
            claimed: HashSet::new(),
            held_hashes: 0,
            root: None,
            known_bytes: 0,
            placed_bytes: 0,
            has_peers: false,
            shelving: None,
            context,
            reporter,
        }
    }

    /// From now on, what is here is put on this shelf.
    pub fn offer(&mut self, shelf: Arc<ReplicaShelf>) {
        self.shelving = Some(Shelving::new(shelf));
    }

    /// Nothing is put on a shelf any more.
    pub fn offer_nothing(&mut self) {
        self.shelving = None;
    }

    /// Puts on the shelf what the index knows by now.
    ///
    /// # Errors
    /// If that cannot be kept.
    pub fn shelve(&mut self) -> std::io::Result<()> {
        let known_bytes = self.known_bytes;
        self.shelving.as_mut().map_or(Ok(()), |shelving| shelving.put(known_bytes))
    }

    /// Puts everything on the shelf: the index knows all of it.
    ///
    /// # Errors
    /// If that cannot be kept.
    pub fn shelve_all(&mut self) -> std::io::Result<()> {
        if let Some(shelving) = &mut self.shelving {
            shelving.all_noted();
        }
        self.shelve()
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
        if let Some(shelving) = &mut self.shelving {
            shelving.noting();
        }
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
        if self.rules.sealed
            && let Some(record) = records.iter().find(|record| !sealed::admits(record))
        {
            let what = match record {
                Record::Directory { path, .. }
                | Record::File { path, .. }
                | Record::SmallFile { path, .. } => path.to_string(),
                _ => "an entry".to_owned(),
            };
            let what = format!("the job is sealed, and {what} is not of a sealed tree");
            return Err(RunError::Hostile { code: CloseCode::BadManifest, what });
        }
        self.last_segment = Instant::now();
        self.segment = self.catalog.next_sequence().0.saturating_sub(1);
        self.records.extend(records);
        self.take_records();
        Ok(())
    }

    fn verify_key(&self) -> VerifyKey {
        self.verify_key.clone()
    }

    /// Takes a file out of work. If runs of it may be wanted still, the caller cancels them: that looks at all runs.
    fn take_out(&mut self, id: FileId) -> Option<Box<FileEntry>> {
        let file = self.files.remove(&id)?;
        self.placed_bytes -= file.placed_bytes;
        self.held_hashes -= file.assembly.hashes().len();
        self.staged -= usize::from(file.holds_staged);
        self.awaiting -= usize::from(matches!(file.stage, Stage::Awaiting(_)));
        self.held -= usize::from(matches!(file.stage, Stage::Held(_)));
        Some(file)
    }

    /// A file is of no more interest, and what is staged of it neither.
    fn forget(&mut self, id: FileId) -> Option<Box<FileEntry>> {
        self.discard_staged(id);
        self.take_out(id)
    }

    /// What is staged of a file is of no more use, to no later run either.
    fn discard_staged(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Stage::FetchingStaged(staged) = &mut file.stage {
            self.context.memory.give_up(staged.name());
            staged.unkeep();
            if let Some(shelving) = &self.shelving {
                shelving.shelf().withdraw(id);
            }
        }
        if std::mem::take(&mut file.kept) {
            self.notes.unstaged.push(file.path.clone());
        }
    }

    /// Whether the index should be told of blocks that were written.
    pub fn checkpoint_due(&self) -> bool {
        let (bytes, since) = self.unsaved;
        let (bytes_max, interval) = if self.has_peers { SHARED_CHECKPOINT } else { CHECKPOINT };
        bytes >= bytes_max || (bytes > 0 && since.elapsed() >= interval)
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
        for Checkpointed { id, path, layout, present, result } in saved {
            match (result, self.files.get_mut(&id).map(Box::as_mut)) {
                (Ok(()), Some(FileEntry { stage: Stage::FetchingStaged(staged), kept, .. })) => {
                    staged.keep();
                    *kept = true;
                    if let Some(shelving) = &self.shelving {
                        shelving.shelf().add_blocks(id, layout, staged.file(), &present);
                    }
                }
                // It is in place by now, or held, or given up: what was written down goes again.
                (Ok(()), _) => self.notes.unstaged.push(path),
                (Err(failure), _) => self.trouble(id, failure),
            }
        }
    }
}
