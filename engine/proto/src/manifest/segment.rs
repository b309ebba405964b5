//! Segments: signed links of the chain, and the writer that makes them.

use super::record::Record;
use crate::codec::{Put as _, Reader};
use crate::digest::HashAlgorithm;
use crate::keys::{JobId, RwSeed, SIGNATURE_BYTES, Signature, VerifyKey};
use crate::limits;
use sha2::{Digest as _, Sha256};

/// What stands before a segment's bytes when they are signed, so that no signature made for another purpose fits.
const SIGNING_CONTEXT: &[u8; 32] = b"sealift v1 manifest segment\0\0\0\0\0";
const MAGIC: &[u8; 4] = b"SLSG";
const FORMAT_VERSION: u16 = 2;
/// A flag: the segment begins a snapshot.
const SNAPSHOT: u8 = 1;
/// Bytes in a segment's header.
pub(super) const HEADER_BYTES: usize = 96;

/// A segment's place in its writer's chain, from 0 to [`limits::SEGMENT_SEQUENCE_MAX`]. A chain goes on over restarts
/// of its writer, and never uses a place twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSeq(pub u64);

impl std::fmt::Display for SegmentSeq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 over a whole segment, signature included; the next segment names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHash(pub [u8; 32]);

impl SegmentHash {
    /// What the first segment of a chain names as its predecessor.
    pub const NONE: Self = Self([0; 32]);

    pub(super) fn of(segment: &[u8]) -> Self {
        Self(Sha256::digest(segment).into())
    }
}

/// The fixed part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The hash of the job's blocks.
    pub algorithm: HashAlgorithm,
    /// The job.
    pub job: JobId,
    /// The epoch of the job's keys.
    pub epoch: u32,
    /// Whose chain; 0 is a job's only writer.
    pub writer: u64,
    /// The place in the chain.
    pub sequence: SegmentSeq,
    /// Whether it begins a snapshot: restates everything, so that the chain before it is not needed.
    pub snapshot: bool,
    /// When it was signed: milliseconds since 1970, as the writer's clock had it. Informative.
    pub time_ms: i64,
    /// The hash of the segment before.
    pub previous: SegmentHash,
    pub(super) records: u32,
    body_bytes: u32,
}

/// Why bytes are no segment of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not the layout of a segment.
    #[error("not a segment: {0}")]
    Malformed(&'static str),
    /// A format this version does not know.
    #[error("segment format {0} is not known to this program")]
    Version(u16),
    /// Signed for another job.
    #[error("the segment belongs to another job")]
    WrongJob,
    /// Not signed with the job's read-write key, or altered.
    #[error("the segment's signature is wrong")]
    BadSignature,
}

impl SegmentHeader {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put(MAGIC);
        out.put_u16(FORMAT_VERSION);
        out.put_u8(self.algorithm.code());
        out.put_u8(if self.snapshot { SNAPSHOT } else { 0 });
        out.put(&self.job.0);
        out.put_u32(self.epoch);
        out.put_u32(self.records);
        out.put_u64(self.writer);
        out.put_u64(self.sequence.0);
        out.put_i64(self.time_ms);
        out.put(&self.previous.0);
        out.put_u32(self.body_bytes);
        out.put_u32(0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let short = SegmentError::Malformed("it is too short");
        let mut reader = Reader::new(bytes);
        if reader.array().ok_or(short)? != *MAGIC {
            return Err(SegmentError::Malformed("it has no segment's magic number"));
        }
        let version = reader.u16().ok_or(short)?;
        if version != FORMAT_VERSION {
            return Err(SegmentError::Version(version));
        }
        let algorithm = HashAlgorithm::from_code(reader.u8().ok_or(short)?)
            .ok_or(SegmentError::Malformed("its hash is unknown"))?;
        let flags = reader.u8().ok_or(short)?;
        let job = JobId(reader.array().ok_or(short)?);
        let epoch = reader.u32().ok_or(short)?;
        let records = reader.u32().ok_or(short)?;
        let writer = reader.u64().ok_or(short)?;
        let sequence = SegmentSeq(reader.u64().ok_or(short)?);
        let time_ms = reader.i64().ok_or(short)?;
        let previous = SegmentHash(reader.array().ok_or(short)?);
        let body_bytes = reader.u32().ok_or(short)?;
        if flags & !SNAPSHOT != 0 || reader.u32().ok_or(short)? != 0 {
            return Err(SegmentError::Malformed("a reserved field is used"));
        }
        if sequence.0 > limits::SEGMENT_SEQUENCE_MAX {
            return Err(SegmentError::Malformed("its sequence number is out of range"));
        }
        let snapshot = flags & SNAPSHOT != 0;
        Ok(Self { algorithm, job, epoch, writer, sequence, snapshot, time_ms, previous, records, body_bytes })
    }
}

/// Checks layout, job and signature; yields the header and the bytes of the records.
pub(super) fn open<'a>(bytes: &'a [u8], key: &VerifyKey) -> Result<(SegmentHeader, &'a [u8]), SegmentError> {
    if bytes.len() > limits::SEGMENT_BYTES_MAX {
        return Err(SegmentError::Malformed("it is too long"));
    }
    let (signed, signature) =
        bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(SegmentError::Malformed("it is too short"))?;
    let header = SegmentHeader::decode(signed)?;
    let body = &signed[HEADER_BYTES..];
    if body.len() != header.body_bytes as usize {
        return Err(SegmentError::Malformed("its length is not what its header says"));
    }
    if header.job != key.job_id() {
        return Err(SegmentError::WrongJob);
    }
    let message = [&SIGNING_CONTEXT[..], signed].concat();
    if !key.verifies(&message, signature) {
        return Err(SegmentError::BadSignature);
    }
    Ok((header, body))
}

/// Checks a segment's layout, job and signature, and nothing of its records or its place in a chain.
///
/// # Errors
/// It is no segment of the job.
pub fn inspect(bytes: &[u8], key: &VerifyKey) -> Result<(SegmentHeader, SegmentHash), SegmentError> {
    let (header, _) = open(bytes, key)?;
    Ok((header, SegmentHash::of(bytes)))
}

/// Signs a writer's records into a chain of segments. The first that it signs begins a snapshot.
pub struct SegmentWriter {
    seed: RwSeed,
    algorithm: HashAlgorithm,
    job: JobId,
    epoch: u32,
    next: SegmentSeq,
    previous: SegmentHash,
    last: Option<(SegmentSeq, SegmentHash)>,
    records: u32,
    body: Vec<u8>,
}

impl SegmentWriter {
    /// A chain's beginning.
    #[must_use]
    pub fn new(seed: RwSeed, algorithm: HashAlgorithm) -> Self {
        Self::resume(seed, algorithm, SegmentSeq(0), SegmentHash::NONE)
    }

    /// Goes on with a chain: `next` is above every place that was ever used, `previous` the hash of the segment before
    /// it, or [`SegmentHash::NONE`] if that was lost or never made.
    #[must_use]
    pub fn resume(seed: RwSeed, algorithm: HashAlgorithm, next: SegmentSeq, previous: SegmentHash) -> Self {
        let job = seed.verify_key().job_id();
        Self {
            seed,
            algorithm,
            job,
            epoch: 1,
            next,
            previous,
            last: None,
            records: 0,
            body: Vec::with_capacity(limits::SEGMENT_BYTES_AIM),
        }
    }

    /// Adds a record to the segment being made. When this returns [`Fill::Full`], finish it.
    pub fn push(&mut self, record: &Record) -> Fill {
        record.encode(&mut self.body);
        self.records += 1;
        if self.body.len() >= limits::SEGMENT_BYTES_AIM { Fill::Full } else { Fill::Room }
    }

    /// The newest segment that was finished.
    #[must_use]
    pub fn last(&self) -> Option<(SegmentSeq, SegmentHash)> {
        self.last
    }

    /// Whether no record waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Signs what was pushed and begins the next segment.
    pub fn finish(&mut self, time_ms: i64) -> Vec<u8> {
        let header = SegmentHeader {
            algorithm: self.algorithm,
            job: self.job,
            epoch: self.epoch,
            writer: 0,
            sequence: self.next,
            snapshot: self.last.is_none(),
            time_ms,
            previous: self.previous,
            records: self.records,
            body_bytes: u32::try_from(self.body.len()).expect("within SEGMENT_BYTES_MAX"),
        };
        let mut message =
            Vec::with_capacity(SIGNING_CONTEXT.len() + HEADER_BYTES + self.body.len() + SIGNATURE_BYTES);
        message.put(SIGNING_CONTEXT);
        header.encode(&mut message);
        message.put(&self.body);
        let signature: Signature = self.seed.sign(&message);
        message.put(&signature);
        let segment = message.split_off(SIGNING_CONTEXT.len());
        debug_assert!(segment.len() <= limits::SEGMENT_BYTES_MAX);

        self.previous = SegmentHash::of(&segment);
        self.last = Some((self.next, self.previous));
        // At the end of all places readers refuse what is signed, so none is used twice.
        self.next.0 = self.next.0.saturating_add(1);
        self.records = 0;
        self.body.clear();
        segment
    }
}

/// Whether a segment has room for more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// More fits.
    Room,
    /// Finish it now.
    Full,
}
