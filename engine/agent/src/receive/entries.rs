//! What a receiver knows of the entries it is working on, and what it keeps of those that are done.

use super::data::{Place, Sink};
use super::failure::Trouble;
use super::gate::WriteGate;
use super::local::Before;
use crate::preserve::{Aspect, Preserve};
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::RootHash;
use sealift_proto::limits::RUN_BYTES_MAX;
use sealift_proto::manifest::{self, Hole, Mode};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::assembly::Assembly;
use sealift_proto::transfer::pull::Run;
use sealift_store::{Attributed, EntryKind, FileError, FileStat, Replica, StagedFile, Timestamp};
use std::ops::Range;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What is wanted of an entry beside its content; what is `None` is left as it is, or as the system makes it.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// Owner, extended attributes, access control lists.
    pub attributes: Option<Attributed>,
}

/// The mode of a new file, before the user's mask, if the source's is not kept.
const NEW_FILE_MODE: u32 = 0o666;

impl Metadata {
    /// Sets what differs of a file that stays. Returns whether anything did. Blocks.
    ///
    /// # Errors
    /// [`FileError::Changed`] if another file is there by now.
    pub fn update(&self, replica: &Replica, path: &SafePath, stat: &FileStat) -> Result<bool, FileError> {
        let mtime = self.mtime.unwrap_or(stat.mtime);
        let mut mode = self.mode.unwrap_or(stat.mode);
        let mut changed = false;
        if let Some(attributes) = &self.attributes {
            let applied = attributes.update(replica, path, EntryKind::File, Some(stat), self.mode)?;
            (mode, changed) = (applied.mode, applied.changed);
        }
        if changed || (stat.mode, stat.mtime) != (mode, mtime) {
            replica.update_metadata(path, stat, mode, mtime)?;
            changed = true;
        }
        Ok(changed)
    }

    /// The mode, without the bits that its owner here must not have.
    fn allowed_mode(&self) -> Option<u32> {
        self.mode.map(|mode| self.attributes.as_ref().map_or(mode, |attributes| attributes.mode(mode)))
    }

    /// Mode and time of a directory.
    pub fn of_new_directory(&self) -> (u32, Timestamp) {
        let mode = self.allowed_mode().unwrap_or_else(|| NEW_DIRECTORY_MODE & !umask());
        (mode, self.mtime.unwrap_or_else(now))
    }

    /// Mode and time of a new file.
    pub fn of_new_file(&self) -> (u32, Timestamp) {
        let mode = self.allowed_mode().unwrap_or_else(|| NEW_FILE_MODE & !umask());
        (mode, self.mtime.unwrap_or_else(now))
    }
}

/// The mode of a new directory, before the user's mask, if the source's is not kept.
const NEW_DIRECTORY_MODE: u32 = 0o777;

/// The bits that this process takes from the modes of what it makes. The kernel tells it without its being set; nothing
/// here sets it.
fn umask() -> u32 {
    static UMASK: LazyLock<u32> = LazyLock::new(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
    });
    *UMASK
}

/// The time by this host's clock.
pub fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: since_1970.subsec_nanos() }
}

/// A directory whose metadata is set at the end.
pub struct DirectoryEntry {
    /// Where.
    pub path: SafePath,
    /// What else is wanted of it.
    pub metadata: Metadata,
}

/// A file that is not in place yet.
pub struct FileEntry {
    /// Where it belongs.
    pub path: SafePath,
    /// What else is wanted of it.
    pub metadata: Metadata,
    /// The segment that announced it.
    pub segment: u64,
    /// Its hashes, and which blocks are in place.
    pub assembly: Assembly,
    /// The signed root, once known.
    pub root: Option<RootHash>,
    /// Its holes, ascending.
    pub holes: Arc<[Range<u64>]>,
    /// How far it is.
    pub stage: Stage,
    /// Blocks, from the first, that were asked for or needed no asking.
    pub asked: u32,
    /// Bytes of the blocks in place.
    pub placed_bytes: u64,
    /// Whether the file at its place must not be kept even if it is the same: it is another entry's too, or about to
    /// be replaced.
    pub must_copy: bool,
    /// Whether it counts as staged.
    pub holds_staged: bool,
    /// What is at its place, and must be when it is published.
    pub before: Before,
    /// Whether the index knows its staged file.
    pub kept: bool,
    /// Whether blocks were written since the index was last told.
    pub dirty: bool,
    /// How often it failed in a way that may pass.
    pub failures: u32,
    /// While it is held: bytes that the disk has of it.
    pub staged_bytes: u64,
    /// Whether another was found at its place when it was to be published.
    pub disputed: bool,
    /// Whether it counts as a rewrite.
    pub counted: bool,
    /// Closed once what is staged of it is whole.
    pub gate: WriteGate,
}

/// How far a file is.
pub enum Stage {
    /// What it is made of is not known yet.
    Announced,
    /// Another file is at its place: it is compared once all hashes are known.
    AwaitingSeal,
    /// It is looked for at the destination, or prepared there.
    Local,
    /// It is on its way, to be staged and written in one go.
    FetchingWhole,
    /// It is on its way, staged.
    FetchingStaged(StagedFile),
    /// It is being published.
    Publishing,
    /// The source found it changed, and the manifest will say what became of it.
    Awaiting(Instant),
    /// It could not be written here, and is tried again.
    Held(Hold),
}

/// Until when a file is held.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Not before this.
    pub until: Instant,
    /// What the trouble was.
    pub trouble: Trouble,
}

impl FileEntry {
    /// A file of which only its announcement is known.
    pub fn new(path: SafePath, metadata: Metadata, segment: u64, layout: Layout) -> Self {
        Self {
            path,
            metadata,
            segment,
            assembly: Assembly::new(layout),
            root: None,
            holes: Arc::from([]),
            stage: Stage::Announced,
            asked: 0,
            placed_bytes: 0,
            must_copy: false,
            holds_staged: false,
            before: Before::NOTHING,
            kept: false,
            dirty: false,
            failures: 0,
            staged_bytes: 0,
            disputed: false,
            counted: false,
            gate: WriteGate::default(),
        }
    }

    /// Bytes that the disk must have for it yet: not for its holes, nor for what is staged.
    pub fn bytes_needed(&self) -> u64 {
        let holes: u64 = self.holes.iter().map(|hole| hole.end - hole.start).sum();
        self.assembly.layout().size_bytes().saturating_sub(holes + self.staged_bytes)
    }

    /// Forgets what was fetched of it; its hashes stay.
    pub fn start_over(&mut self) {
        let mut assembly = Assembly::new(self.assembly.layout());
        assembly.add_hashes(self.assembly.hashes());
        if let Some(root) = self.root {
            assembly.seal(root);
        }
        self.assembly = assembly;
        self.asked = 0;
        self.placed_bytes = 0;
        self.holds_staged = false;
        self.dirty = false;
        self.gate = WriteGate::default();
    }

    /// Whether it is written in one go.
    pub fn is_whole(&self) -> bool {
        self.assembly.layout().size_bytes() <= RUN_BYTES_MAX as u64 && self.holes.is_empty()
    }

    /// Adds holes.
    pub fn add_holes(&mut self, holes: &[Hole]) {
        let more = holes.iter().map(|hole| hole.offset..hole.end());
        self.holes = self.holes.iter().cloned().chain(more).collect();
    }

    /// How a run of this file is verified and where it goes; `None` if it is not being fetched.
    pub fn place(&self, run: &Run) -> Option<Place> {
        let sink = match &self.stage {
            Stage::FetchingWhole => Sink::Whole { path: self.path.clone(), metadata: self.metadata.clone() },
            Stage::FetchingStaged(staged) => Sink::Staged {
                target: staged.write_target(),
                holes: Arc::clone(&self.holes),
                gate: self.gate.clone(),
            },
            _ => return None,
        };
        let first = run.first.0 as usize;
        let hashes = self.assembly.hashes().get(first..first + run.count as usize)?;
        Some(Place { layout: self.assembly.layout(), hashes: hashes.into(), sink })
    }
}

/// What came of the special bits of an entry's mode.
pub enum Special {
    /// There were none, or they are kept.
    Kept,
    /// They were dropped.
    Dropped,
}

/// What is to be kept of an entry's metadata.
pub fn metadata(of: &manifest::Metadata, preserve: Preserve, keep_special: bool) -> (Metadata, Special) {
    let (mode, special) = match of.mode.without_special() {
        Some(plain) if !keep_special && preserve.has(Aspect::Mode) => (plain, Special::Dropped),
        _ => (of.mode, Special::Kept),
    };
    let kept = Metadata {
        mode: preserve.has(Aspect::Mode).then(|| Mode::bits(mode)),
        mtime: preserve.has(Aspect::Times).then(|| time(of.mtime)),
        attributes: None,
    };
    (kept, special)
}

/// A manifest's time as the store sets it.
pub fn time(time: sealift_proto::time::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds(), nanos: time.nanos() }
}

/// Sizes of the files that are in place, by number: what the totals are made of, also when one is taken back.
#[derive(Default)]
pub struct Done {
    /// By number; `u64::MAX` for what is no file in place.
    sizes: Vec<u64>,
    /// Files in place.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

const NOT_IN_PLACE: u64 = u64::MAX;

impl Done {
    /// A file is in place.
    pub fn add(&mut self, id: FileId, bytes: u64) {
        // Entries are numbered in order, so the table grows with the manifest and no further.
        let index = usize::try_from(id.0).expect("bounded by MANIFEST_ENTRIES_MAX");
        if self.sizes.len() <= index {
            self.sizes.resize(index + 1, NOT_IN_PLACE);
        }
        if std::mem::replace(&mut self.sizes[index], bytes) == NOT_IN_PLACE {
            self.files += 1;
            self.bytes += bytes;
        }
    }

    /// A file is taken back. Its bytes, if it was in place.
    pub fn remove(&mut self, id: FileId) -> Option<u64> {
        let slot = usize::try_from(id.0).ok().and_then(|index| self.sizes.get_mut(index))?;
        let bytes = std::mem::replace(slot, NOT_IN_PLACE);
        if bytes == NOT_IN_PLACE {
            return None;
        }
        self.files -= 1;
        self.bytes -= bytes;
        Some(bytes)
    }
}
