//! The reader's side: checks segments and keeps what is needed to check the next.
//!
//! The order is signature, then chain, then every record's form, then its sense beside all before. No record
//! leaves before the whole segment has passed. An error ends the job: a catalog that refused once is not used again.
//! [`ManifestError::NewSnapshot`] is no such error: the writer starts over, and so does the reader, with a new catalog.

use super::paths::{Kind, PathTable, Standing};
use super::record::{Record, RecordError};
use super::segment::{self, SegmentError, SegmentHash, SegmentHeader, SegmentSeq};
use crate::block::{BlockIndex, FileId, Layout};
use crate::codec::Reader;
use crate::digest::{HashAlgorithm, empty_root};
use crate::keys::VerifyKey;
use crate::limits;
use crate::path::{SafePath, escape};
use std::collections::HashMap;

/// Why a segment is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is no segment of this job.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A record of it is malformed.
    #[error("segment {sequence} is malformed: {error}")]
    Record {
        /// The segment.
        sequence: SegmentSeq,
        /// What is wrong.
        error: RecordError,
    },
    /// An epoch, a writer or a hash other than the chain began with.
    #[error("segment {0} changes the chain's epoch, writer or hash")]
    ForeignChain(SegmentSeq),
    /// ROLLBACK: a segment seen before, or of an epoch that is over.
    #[error("rollback: segment {0} was sent before")]
    Rollback(SegmentSeq),
    /// FORK: another segment with a number seen before. The writer's key is in two hands, or its state was restored.
    #[error("fork: two different segments are numbered {0}")]
    Fork(SegmentSeq),
    /// A number was left out.
    #[error("segment {found} came where {expected} was due")]
    Gap {
        /// The next of the chain.
        expected: SegmentSeq,
        /// What came.
        found: SegmentSeq,
    },
    /// It does not name the segment before it, or nothing came before it and it begins no snapshot.
    #[error("segment {0} does not continue the chain")]
    BrokenChain(SegmentSeq),
    /// No offence: here the writer starts over, so the reader should with a new catalog, to which this segment is given
    /// again. What the one before it said no longer counts.
    #[error("segment {0} begins a new snapshot")]
    NewSnapshot(SegmentSeq),
    /// Records that make no sense together.
    #[error("segment {sequence}: {what}{}", shown(.path.as_ref()))]
    Nonsense {
        /// The segment.
        sequence: SegmentSeq,
        /// What is wrong.
        what: &'static str,
        /// The offender, where there is one.
        path: Option<SafePath>,
    },
}

fn shown(path: Option<&SafePath>) -> String {
    path.map(|path| format!(": {}", escape(path.as_bytes()))).unwrap_or_default()
}

/// Hashes of the newest segments that are kept to tell a fork from a rollback.
const REMEMBERED_SEGMENTS: usize = 1024;

/// The newest segment of a job that was accepted: what a reader must remember for as long as it knows the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The epoch of the keys that signed it.
    pub epoch: u32,
    /// Its place in the chain.
    pub sequence: SegmentSeq,
    /// Its hash.
    pub hash: SegmentHash,
}

impl Mark {
    fn order(&self) -> (u32, SegmentSeq) {
        (self.epoch, self.sequence)
    }
}

/// What a reader knows of one snapshot of a writer's chain.
pub struct Catalog {
    key: VerifyKey,
    accepted: Option<Mark>,
    chain: Option<Chain>,
    paths: PathTable,
    open: HashMap<FileId, OpenFile>,
    next_id: u64,
    pending: Option<Pending>,
    ended: bool,
}

/// Attributes whose entry must come next.
struct Pending {
    id: Option<FileId>,
    access_acl: bool,
    default_acl: bool,
}

struct Chain {
    algorithm: HashAlgorithm,
    epoch: u32,
    writer: u64,
    /// The first that was admitted.
    first: SegmentSeq,
    next: SegmentSeq,
    /// Hashes of the last [`REMEMBERED_SEGMENTS`], by their distance to the first, modulo their number.
    hashes: Vec<SegmentHash>,
}

struct OpenFile {
    layout: Layout,
    hashed: u32,
    holes: u32,
    hole_end: u64,
}

impl Catalog {
    /// A reader of one snapshot that accepts segments signed under `key`. `accepted` is the newest segment of the job
    /// that this reader accepted, ever: a [`Catalog::mark`] that was kept.
    #[must_use]
    pub fn new(key: VerifyKey, accepted: Option<Mark>) -> Self {
        Self {
            key,
            accepted,
            chain: None,
            paths: PathTable::new(),
            open: HashMap::new(),
            next_id: 0,
            pending: None,
            ended: false,
        }
    }

    /// The newest segment that was accepted: admitted here, or before if that one is newer.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        let admitted = self.chain.as_ref().and_then(Chain::newest);
        [self.accepted, admitted].into_iter().flatten().max_by_key(Mark::order)
    }

    /// The hash of the job's blocks; known from the first segment on.
    #[must_use]
    pub fn algorithm(&self) -> Option<HashAlgorithm> {
        self.chain.as_ref().map(|chain| chain.algorithm)
    }

    /// The segment that is due next: 0 before the first, though the snapshot may begin later.
    #[must_use]
    pub fn next_sequence(&self) -> SegmentSeq {
        self.chain.as_ref().map_or(SegmentSeq(0), |chain| chain.next)
    }

    /// Whether the last record of all was the end of the snapshot, and what was accepted before is not newer.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended && !self.behind()
    }

    /// Whether something newer was accepted before than what was admitted here. If it stays so, somebody shows an old
    /// state of the job.
    #[must_use]
    pub fn behind(&self) -> bool {
        let admitted = self.chain.as_ref().and_then(Chain::newest);
        self.accepted.as_ref().map(Mark::order) > admitted.as_ref().map(Mark::order)
    }

    /// Whether an entry stands at this path.
    #[must_use]
    pub fn stands(&self, path: &SafePath) -> bool {
        self.paths.get(path.as_bytes()).is_some()
    }

    /// How many entries stand.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.paths.len()
    }

    /// Checks a segment and, if all of it is right, yields its records.
    ///
    /// # Errors
    /// Says what is wrong; the job must stop. Or [`ManifestError::NewSnapshot`], and nothing has changed.
    pub fn admit(&mut self, bytes: &[u8]) -> Result<Vec<Record>, ManifestError> {
        let (header, body) = segment::open(bytes, &self.key)?;
        let hash = SegmentHash::of(bytes);
        self.check_chain(&header, hash)?;
        let sequence = header.sequence;
        let mut reader = Reader::new(body);
        // A record takes at least one byte, so the body bounds what is allocated, whatever the count claims.
        let mut records = Vec::with_capacity((header.records as usize).min(body.len() / 16));
        while !reader.is_empty() {
            let record =
                Record::decode(&mut reader).map_err(|error| ManifestError::Record { sequence, error })?;
            records.push(record);
        }
        let nonsense =
            |(what, path): Refusal<'_>| ManifestError::Nonsense { sequence, what, path: path.cloned() };
        if records.len() != header.records as usize {
            return Err(nonsense(("the number of records is not what the header says", None)));
        }
        for record in &records {
            self.check(record, header.algorithm).map_err(nonsense)?;
        }
        self.accept(&header, hash);
        Ok(records)
    }

    fn check_chain(&self, header: &SegmentHeader, hash: SegmentHash) -> Result<(), ManifestError> {
        match &self.chain {
            None => self.check_first(header)?,
            Some(chain) => chain.check_next(header, hash)?,
        }
        match self.accepted_at(header.epoch, header.sequence) {
            Some(accepted) if accepted != hash => Err(ManifestError::Fork(header.sequence)),
            _ => Ok(()),
        }
    }

    fn check_first(&self, header: &SegmentHeader) -> Result<(), ManifestError> {
        let sequence = header.sequence;
        if self.accepted.is_some_and(|mark| header.epoch < mark.epoch) {
            return Err(ManifestError::Rollback(sequence));
        }
        let Some(before) = sequence.0.checked_sub(1) else {
            return if header.snapshot && header.previous == SegmentHash::NONE {
                Ok(())
            } else {
                Err(ManifestError::BrokenChain(sequence))
            };
        };
        if !header.snapshot {
            return Err(ManifestError::Gap { expected: self.next_sequence(), found: sequence });
        }
        // A writer that lost its state knows a place that is free, and not what came before.
        match self.accepted_at(header.epoch, SegmentSeq(before)) {
            Some(accepted) if ![accepted, SegmentHash::NONE].contains(&header.previous) => {
                Err(ManifestError::BrokenChain(sequence))
            }
            _ => Ok(()),
        }
    }

    /// The hash of the segment that was accepted before, if it had this place.
    fn accepted_at(&self, epoch: u32, sequence: SegmentSeq) -> Option<SegmentHash> {
        self.accepted.filter(|mark| mark.order() == (epoch, sequence)).map(|mark| mark.hash)
    }

    fn accept(&mut self, header: &SegmentHeader, hash: SegmentHash) {
        let chain = self.chain.get_or_insert_with(|| Chain {
            algorithm: header.algorithm,
            epoch: header.epoch,
            writer: header.writer,
            first: header.sequence,
            next: header.sequence,
            hashes: Vec::new(),
        });
        let at = chain.place(header.sequence);
        if at == chain.hashes.len() {
            chain.hashes.push(hash);
        } else {
            chain.hashes[at] = hash;
        }
        chain.next = SegmentSeq(header.sequence.0 + 1);
    }

    fn check<'r>(&mut self, record: &'r Record, algorithm: HashAlgorithm) -> Result<(), Refusal<'r>> {
        self.ended = false;
        if let Some(pending) = self.pending.take() {
            pending.check(record)?;
        }
        match record {
            Record::Root(_) | Record::Problem { .. } => {}
            Record::Directory { id, path, .. } => self.begin(*id, path, Kind::Directory)?,
            Record::Symlink { id, path, .. } => self.begin(*id, path, Kind::Link)?,
            Record::SmallFile { id, path, layout, hash, .. } => {
                if layout.size_bytes() == 0 && hash.0 != empty_root(algorithm).0 {
                    return Err(("the hash of an empty file is not that of nothing", Some(path)));
                }
                self.begin(*id, path, Kind::File)?;
            }
            Record::Hardlink { id, path, target } => {
                if self.kind_at(target.as_bytes()) != Some(Kind::File) {
                    return Err(("a hard link to what is no file of this manifest", Some(path)));
                }
                self.begin(*id, path, Kind::File)?;
            }
            Record::File { id, path, layout, .. } => {
                let many = u64::from(layout.blocks()) > limits::FILE_BLOCKS_AIM;
                if many && layout.block_size().log2() < limits::BLOCK_LOG2_MAX {
                    return Err(("a file's blocks are too small for its size", Some(path)));
                }
                if self.open.len() >= limits::MANIFEST_OPEN_FILES_MAX {
                    return Err(("too many files are begun and not sealed", Some(path)));
                }
                self.begin(*id, path, Kind::File)?;
                let file = OpenFile { layout: *layout, hashed: 0, holes: 0, hole_end: 0 };
                self.open.insert(*id, file);
            }
            Record::Holes { id, holes } => {
                let file = self.open.get_mut(id).ok_or(("holes of a file that is not open", None))?;
                for hole in holes {
                    file.holes += 1;
                    if hole.offset < file.hole_end || hole.end() > file.layout.size_bytes() {
                        return Err(("holes overlap or leave the file", None));
                    }
                    file.hole_end = hole.end();
                }
                if file.holes as usize > limits::FILE_HOLES_MAX || file.hashed > 0 {
                    return Err(("too many holes, or holes after hashes", None));
                }
            }
            Record::Hashes { id, first, hashes } => {
                let file = self.open.get_mut(id).ok_or(("hashes of a file that is not open", None))?;
                let count = u32::try_from(hashes.len()).expect("within RECORD_HASHES_MAX");
                if *first != BlockIndex(file.hashed) || file.layout.run_bytes(*first, count).is_none() {
                    return Err(("hashes out of order or beyond the end of the file", None));
                }
                file.hashed += count;
                let waiting: usize = self.open.values().map(|file| file.hashed as usize).sum();
                if waiting > limits::MANIFEST_OPEN_HASHES_MAX {
                    return Err(("too many hashes of files that are not sealed", None));
                }
            }
            Record::Sealed { id, .. } => {
                let file = self.open.remove(id).ok_or(("a seal for a file that is not open", None))?;
                if file.hashed != file.layout.blocks() {
                    return Err(("a file is sealed before all its hashes were said", None));
                }
            }
            Record::Withdrawn { id, path, .. } => {
                if self.paths.get(path.as_bytes()) != Some(Standing { id: *id, kind: Kind::File }) {
                    return Err(("a file is withdrawn that does not stand", Some(path)));
                }
                self.paths.remove(path.as_bytes());
                self.open.remove(id);
            }
            Record::End { entries } => {
                if *entries != self.paths.len() || !self.open.is_empty() {
                    return Err(("the end does not agree with the entries before it", None));
                }
                self.ended = true;
            }
            Record::Attributes { id, attributes } => {
                self.pending = Some(Pending {
                    id: *id,
                    access_acl: attributes.access_acl().is_some(),
                    default_acl: attributes.default_acl().is_some(),
                });
            }
        }
        Ok(())
    }

    fn begin<'r>(&mut self, id: FileId, path: &'r SafePath, kind: Kind) -> Result<(), Refusal<'r>> {
        if id.0 != self.next_id {
            return Err(("entries are not numbered in order", Some(path)));
        }
        // The number bounds what stands, and what was ever announced.
        if id.0 >= limits::MANIFEST_ENTRIES_MAX {
            return Err(("the manifest has more entries than a job may have", Some(path)));
        }
        if path.parent_bytes().is_some_and(|parent| self.kind_at(parent) != Some(Kind::Directory)) {
            return Err(("an entry lies beneath what is no directory of this manifest", Some(path)));
        }
        if !self.paths.insert(path.as_bytes(), Standing { id, kind }) {
            return Err(("two entries have one path", Some(path)));
        }
        self.next_id += 1;
        Ok(())
    }

    fn kind_at(&self, path: &[u8]) -> Option<Kind> {
        self.paths.get(path).map(|standing| standing.kind)
    }
}

impl Pending {
    fn check<'r>(&self, next: &'r Record) -> Result<(), Refusal<'r>> {
        let (id, path) = match next {
            Record::Root(_) => (None, None),
            Record::Directory { id, path, .. }
            | Record::File { id, path, .. }
            | Record::SmallFile { id, path, .. }
            | Record::Symlink { id, path, .. } => (Some(*id), Some(path)),
            _ => return Err(("attributes come before what has none", None)),
        };
        if id != self.id {
            return Err(("attributes come before another entry than theirs", path));
        }
        if self.access_acl && matches!(next, Record::Symlink { .. }) {
            return Err(("a symbolic link with an access control list", path));
        }
        if self.default_acl && !matches!(next, Record::Root(_) | Record::Directory { .. }) {
            return Err(("a default access control list of what is no directory", path));
        }
        Ok(())
    }
}

impl Chain {
    fn check_next(&self, header: &SegmentHeader, hash: SegmentHash) -> Result<(), ManifestError> {
        let sequence = header.sequence;
        let begins_anew = header.snapshot
            && header.writer == self.writer
            && header.epoch >= self.epoch
            && sequence >= self.next;
        if begins_anew {
            return Err(ManifestError::NewSnapshot(sequence));
        }
        if (header.algorithm, header.epoch, header.writer) != (self.algorithm, self.epoch, self.writer) {
            return Err(ManifestError::ForeignChain(sequence));
        }
        if sequence < self.next {
            let same = self.remembered(sequence).is_none_or(|remembered| remembered == hash);
            return Err(if same { ManifestError::Rollback(sequence) } else { ManifestError::Fork(sequence) });
        }
        if sequence > self.next {
            return Err(ManifestError::Gap { expected: self.next, found: sequence });
        }
        if self.newest().is_none_or(|newest| newest.hash != header.previous) {
            return Err(ManifestError::BrokenChain(sequence));
        }
        Ok(())
    }

    fn place(&self, sequence: SegmentSeq) -> usize {
        usize::try_from((sequence.0 - self.first.0) % REMEMBERED_SEGMENTS as u64).expect("below 1024")
    }

    fn remembered(&self, sequence: SegmentSeq) -> Option<SegmentHash> {
        let admitted = (self.first..self.next).contains(&sequence);
        let recent = admitted && self.next.0 - sequence.0 <= REMEMBERED_SEGMENTS as u64;
        recent.then(|| self.hashes[self.place(sequence)])
    }

    fn newest(&self) -> Option<Mark> {
        let sequence = SegmentSeq(self.next.0.checked_sub(1)?);
        Some(Mark { epoch: self.epoch, sequence, hash: self.remembered(sequence)? })
    }
}

/// What is wrong with a record, and the path it concerns.
type Refusal<'r> = (&'static str, Option<&'r SafePath>);
