//! The reader's side: checks segments and keeps what is needed to check the next.
//!
//! The order is signature, then chain, then every record's form, then its sense beside all before. No record
//! leaves before the whole segment has passed. An error ends the job: a catalog that refused once is not used again.

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
    /// ROLLBACK: a segment seen before.
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
    /// It does not name the segment before it.
    #[error("segment {0} does not continue the chain")]
    BrokenChain(SegmentSeq),
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

/// What a reader knows of one writer's chain.
pub struct Catalog {
    key: VerifyKey,
    chain: Option<Chain>,
    /// Every path that stands, by the first half of its BLAKE3 hash (a collision is only refused, and costs 2⁶⁴ work).
    paths: HashMap<u128, Slot>,
    open: HashMap<FileId, OpenFile>,
    next_id: u64,
    ended: bool,
}

struct Chain {
    algorithm: HashAlgorithm,
    epoch: u32,
    writer: u64,
    next: SegmentSeq,
    /// Hashes of the last [`REMEMBERED_SEGMENTS`], by sequence modulo their number.
    hashes: Vec<SegmentHash>,
}

#[derive(Clone, Copy)]
struct Slot {
    id: FileId,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

struct OpenFile {
    layout: Layout,
    hashed: u32,
    holes: u32,
    hole_end: u64,
}

impl Catalog {
    /// A reader that accepts segments signed under `key`.
    #[must_use]
    pub fn new(key: VerifyKey) -> Self {
        Self { key, chain: None, paths: HashMap::new(), open: HashMap::new(), next_id: 0, ended: false }
    }

    /// The hash of the job's blocks; known from the first segment on.
    #[must_use]
    pub fn algorithm(&self) -> Option<HashAlgorithm> {
        self.chain.as_ref().map(|chain| chain.algorithm)
    }

    /// The segment that is due next.
    #[must_use]
    pub fn next_sequence(&self) -> SegmentSeq {
        self.chain.as_ref().map_or(SegmentSeq(0), |chain| chain.next)
    }

    /// Whether the last record of all was the end of the snapshot.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Checks a segment and, if all of it is right, yields its records.
    ///
    /// # Errors
    /// Says what is wrong; the job must stop.
    pub fn admit(&mut self, bytes: &[u8]) -> Result<Vec<Record>, ManifestError> {
        let (header, body) = segment::open(bytes, &self.key)?;
        self.check_chain(&header, bytes)?;
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
        self.accept(&header, SegmentHash::of(bytes));
        Ok(records)
    }

    fn check_chain(&self, header: &SegmentHeader, bytes: &[u8]) -> Result<(), ManifestError> {
        let sequence = header.sequence;
        let Some(chain) = &self.chain else {
            return if sequence != SegmentSeq(0) {
                Err(ManifestError::Gap { expected: SegmentSeq(0), found: sequence })
            } else if header.previous != SegmentHash::NONE {
                Err(ManifestError::BrokenChain(sequence))
            } else {
                Ok(())
            };
        };
        if (header.algorithm, header.epoch, header.writer) != (chain.algorithm, chain.epoch, chain.writer) {
            return Err(ManifestError::ForeignChain(sequence));
        }
        if sequence < chain.next {
            let same = chain.remembered(sequence).is_none_or(|hash| hash == SegmentHash::of(bytes));
            return Err(if same { ManifestError::Rollback(sequence) } else { ManifestError::Fork(sequence) });
        }
        if sequence > chain.next {
            return Err(ManifestError::Gap { expected: chain.next, found: sequence });
        }
        if chain.remembered(SegmentSeq(sequence.0 - 1)) != Some(header.previous) {
            return Err(ManifestError::BrokenChain(sequence));
        }
        Ok(())
    }

    fn accept(&mut self, header: &SegmentHeader, hash: SegmentHash) {
        let chain = self.chain.get_or_insert_with(|| Chain {
            algorithm: header.algorithm,
            epoch: header.epoch,
            writer: header.writer,
            next: SegmentSeq(0),
            hashes: Vec::new(),
        });
        let at = Chain::place(header.sequence);
        if at == chain.hashes.len() {
            chain.hashes.push(hash);
        } else {
            chain.hashes[at] = hash;
        }
        chain.next = SegmentSeq(header.sequence.0 + 1);
    }

    fn check<'r>(&mut self, record: &'r Record, algorithm: HashAlgorithm) -> Result<(), Refusal<'r>> {
        self.ended = false;
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
                if self.paths.get(&path_key(target)).is_none_or(|slot| slot.kind != Kind::File) {
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
                let key = path_key(path);
                if self.paths.get(&key).is_none_or(|slot| slot.id != *id || slot.kind != Kind::File) {
                    return Err(("a file is withdrawn that does not stand", Some(path)));
                }
                self.paths.remove(&key);
                self.open.remove(id);
            }
            Record::End { entries } => {
                if *entries != self.paths.len() as u64 || !self.open.is_empty() {
                    return Err(("the end does not agree with the entries before it", None));
                }
                self.ended = true;
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
        if let Some(parent) = path.parent()
            && self.paths.get(&path_key(&parent)).is_none_or(|slot| slot.kind != Kind::Directory)
        {
            return Err(("an entry lies beneath what is no directory of this manifest", Some(path)));
        }
        if self.paths.contains_key(&path_key(path)) {
            return Err(("two entries have one path", Some(path)));
        }
        self.paths.insert(path_key(path), Slot { id, kind });
        self.next_id += 1;
        Ok(())
    }
}

impl Chain {
    fn place(sequence: SegmentSeq) -> usize {
        usize::try_from(sequence.0 % REMEMBERED_SEGMENTS as u64).expect("below 1024")
    }

    fn remembered(&self, sequence: SegmentSeq) -> Option<SegmentHash> {
        let recent = sequence < self.next && self.next.0 - sequence.0 <= REMEMBERED_SEGMENTS as u64;
        recent.then(|| self.hashes[Self::place(sequence)])
    }
}

/// What is wrong with a record, and the path it concerns.
type Refusal<'r> = (&'static str, Option<&'r SafePath>);

fn path_key(path: &SafePath) -> u128 {
    let hash = crypto_simd::blake3::hash(path.as_bytes());
    u128::from_le_bytes(*hash.first_chunk().expect("32 bytes"))
}
