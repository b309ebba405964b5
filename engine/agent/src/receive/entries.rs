//! What a receiver knows of the entries it is working on, and what it keeps of those that are done.

use super::data::{Place, Sink};
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::RootHash;
use sealift_proto::limits::RUN_BYTES_MAX;
use sealift_proto::manifest::{Hole, Metadata, Mode};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::assembly::Assembly;
use sealift_proto::transfer::pull::Run;
use sealift_store::{StagedFile, Timestamp};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// A directory whose metadata is set at the end.
pub struct DirectoryEntry {
    /// Where.
    pub path: SafePath,
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time.
    pub mtime: Timestamp,
}

/// A file that is not in place yet.
pub struct FileEntry {
    /// Where it belongs.
    pub path: SafePath,
    /// Its permission bits, as they will be set.
    pub mode: u32,
    /// Its modification time.
    pub mtime: Timestamp,
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
}

impl FileEntry {
    /// A file of which only its announcement is known.
    pub fn new(path: SafePath, (mode, mtime): (u32, Timestamp), layout: Layout) -> Self {
        Self {
            path,
            mode,
            mtime,
            assembly: Assembly::new(layout),
            root: None,
            holes: Arc::from([]),
            stage: Stage::Announced,
            asked: 0,
            placed_bytes: 0,
            must_copy: false,
            holds_staged: false,
        }
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
            Stage::FetchingWhole => {
                Sink::Whole { path: self.path.clone(), mode: self.mode, mtime: self.mtime }
            }
            Stage::FetchingStaged(staged) => {
                Sink::Staged { file: Arc::clone(staged.file()), holes: Arc::clone(&self.holes) }
            }
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

/// The mode and time to be set for an entry.
pub fn metadata(metadata: &Metadata, keep_special: bool) -> ((u32, Timestamp), Special) {
    let (mode, special) = match metadata.mode.without_special() {
        Some(plain) if !keep_special => (plain, Special::Dropped),
        _ => (metadata.mode, Special::Kept),
    };
    ((Mode::bits(mode), time(metadata.mtime)), special)
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
