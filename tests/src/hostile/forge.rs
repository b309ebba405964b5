//! Records and segments by hand: every field can be wrong, and the signature is right all the same (or not).
//!
//! The layouts are those of `docs/manifest.md`, written down a second time so that a change of either shows.

use super::Job;
use ed25519_dalek::{Signer as _, SigningKey};
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};

/// What stands before a segment's bytes when they are signed.
pub const SIGNING_CONTEXT: &[u8; 32] = b"sealift v1 manifest segment\0\0\0\0\0";

/// Makes a job's chain of segments, or what looks like it.
#[derive(Clone)]
pub struct Forger {
    key: SigningKey,
    job: [u8; 16],
    algorithm: HashAlgorithm,
    next: u64,
    previous: [u8; 32],
}

/// A segment before it is signed; every field as it will be on the wire.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Format version; 2 is known.
    pub version: u16,
    /// 1: SHA-256, 2: BLAKE3.
    pub algorithm: u8,
    /// 1: the segment begins a snapshot.
    pub flags: u8,
    /// The job.
    pub job: [u8; 16],
    /// The epoch of the keys; a chain has one.
    pub epoch: u32,
    /// How many records are said to follow.
    pub records: u32,
    /// Whose chain.
    pub writer: u64,
    /// The place in it.
    pub sequence: u64,
    /// The hash of the segment before.
    pub previous: [u8; 32],
    /// The length that is claimed for the body.
    pub body_bytes: u32,
    /// The records.
    pub body: Vec<u8>,
}

impl Draft {
    /// The bytes that are signed.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.body.len());
        out.extend_from_slice(b"SLSG");
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[self.algorithm, self.flags]);
        out.extend_from_slice(&self.job);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.writer.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&1_700_000_000_000_i64.to_le_bytes());
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.body);
        out
    }

    /// The segment, signed by whatever `sign` is.
    #[must_use]
    pub fn signed_by(&self, sign: impl Fn(&[u8]) -> [u8; 64]) -> Vec<u8> {
        let mut segment = self.unsigned();
        let message = [&SIGNING_CONTEXT[..], &segment].concat();
        segment.extend_from_slice(&sign(&message));
        segment
    }
}

impl Forger {
    /// The beginning of a job's chain.
    #[must_use]
    pub fn new(job: &Job, algorithm: HashAlgorithm) -> Self {
        Self {
            key: SigningKey::from_bytes(job.seed()),
            job: job.verify_key().job_id().0,
            algorithm,
            next: 0,
            previous: [0; 32],
        }
    }

    /// The next segment of the chain, as it should be; nothing wrong with it yet.
    ///
    /// # Panics
    /// If there are more than 4 GiB of records.
    #[must_use]
    pub fn draft<R: AsRef<[u8]>>(&self, records: &[R]) -> Draft {
        let body: Vec<u8> = records.iter().flat_map(|record| record.as_ref().iter().copied()).collect();
        Draft {
            version: 2,
            algorithm: self.algorithm.code(),
            flags: u8::from(self.next == 0),
            job: self.job,
            epoch: 1,
            records: u32::try_from(records.len()).expect("few"),
            writer: 0,
            sequence: self.next,
            previous: self.previous,
            body_bytes: u32::try_from(body.len()).expect("short"),
            body,
        }
    }

    /// Signs a draft with the job's own key. The chain does not go on from it.
    #[must_use]
    pub fn sign(&self, draft: &Draft) -> Vec<u8> {
        draft.signed_by(|message| self.key.sign(message).to_bytes())
    }

    /// Makes the next segment go on from these bytes.
    pub fn follow(&mut self, segment: &[u8]) {
        self.previous = sha256(segment);
        self.next += 1;
    }

    /// The next segment of the chain, signed; the chain goes on from it.
    #[must_use]
    pub fn segment<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Vec<u8> {
        let segment = self.sign(&self.draft(records));
        self.follow(&segment);
        segment
    }

    /// Records spread over as many segments as they need, of about `bytes` each.
    #[must_use]
    pub fn segments<R: AsRef<[u8]>>(&mut self, records: &[R], bytes: usize) -> Vec<Vec<u8>> {
        let (mut segments, mut first, mut size) = (Vec::new(), 0, 0);
        for (at, record) in records.iter().enumerate() {
            size += record.as_ref().len();
            if size >= bytes {
                segments.push(self.segment(&records[first..=at]));
                (first, size) = (at + 1, 0);
            }
        }
        if first < records.len() || segments.is_empty() {
            segments.push(self.segment(&records[first..]));
        }
        segments
    }
}

/// SHA-256, by the one implementation that the tests trust already.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    hash_of(HashAlgorithm::Sha256, bytes)
}

/// The hash of a file of one block.
#[must_use]
pub fn hash_of(algorithm: HashAlgorithm, bytes: &[u8]) -> [u8; 32] {
    let mut hash = [BlockHash([0; 32])];
    hash_blocks(algorithm, &[BlockInput { data: bytes, offset: 0, only: true }], &mut hash);
    hash[0].0
}

/// A time that is in range: seconds, nanoseconds.
pub const TIME: (i64, u32) = (1_600_000_000, 5);

/// Records, field by field.
pub mod record {
    use super::TIME;

    fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        // Longer ones are cut off by the length field, as they would be by any writer.
        #[allow(clippy::cast_possible_truncation)]
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }

    fn entry(kind: u8, id: u64, path: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&id.to_le_bytes());
        bytes(&mut out, path);
        out
    }

    fn time(out: &mut Vec<u8>, (seconds, nanos): (i64, u32)) {
        out.extend_from_slice(&seconds.to_le_bytes());
        out.extend_from_slice(&nanos.to_le_bytes());
    }

    /// The root's own metadata.
    #[must_use]
    pub fn root(mode: u16, mtime: (i64, u32)) -> Vec<u8> {
        let mut out = vec![1];
        out.extend_from_slice(&mode.to_le_bytes());
        time(&mut out, mtime);
        out
    }

    /// A directory.
    #[must_use]
    pub fn directory(id: u64, path: &[u8], mode: u16, mtime: (i64, u32)) -> Vec<u8> {
        let mut out = entry(2, id, path);
        out.extend_from_slice(&mode.to_le_bytes());
        time(&mut out, mtime);
        out
    }

    /// A file whose hashes follow.
    #[must_use]
    pub fn file(id: u64, path: &[u8], mode: u16, size: u64, block_log2: u8) -> Vec<u8> {
        let mut out = entry(3, id, path);
        out.extend_from_slice(&mode.to_le_bytes());
        time(&mut out, TIME);
        out.extend_from_slice(&size.to_le_bytes());
        out.push(block_log2);
        out
    }

    /// Holes of a file: offset and length.
    #[must_use]
    pub fn holes(id: u64, holes: &[(u64, u64)]) -> Vec<u8> {
        let mut out = vec![4];
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&u32::try_from(holes.len()).expect("few").to_le_bytes());
        for (offset, len) in holes {
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        }
        out
    }

    /// Hashes of a file's next blocks, with a count that need not be theirs.
    #[must_use]
    pub fn hashes_counted(id: u64, first: u32, count: u32, hashes: &[[u8; 32]]) -> Vec<u8> {
        let mut out = vec![5];
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(hashes.as_flattened());
        out
    }

    /// Hashes of a file's next blocks.
    #[must_use]
    pub fn hashes(id: u64, first: u32, hashes: &[[u8; 32]]) -> Vec<u8> {
        hashes_counted(id, first, u32::try_from(hashes.len()).expect("few"), hashes)
    }

    /// The end of a file's hashes.
    #[must_use]
    pub fn sealed(id: u64, root: [u8; 32]) -> Vec<u8> {
        let mut out = vec![6];
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&root);
        out
    }

    /// A file of one block.
    #[must_use]
    pub fn small_file(
        id: u64,
        path: &[u8],
        (mode, mtime): (u16, (i64, u32)),
        size: u32,
        hash: [u8; 32],
    ) -> Vec<u8> {
        let mut out = entry(7, id, path);
        out.extend_from_slice(&mode.to_le_bytes());
        time(&mut out, mtime);
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&hash);
        out
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(id: u64, path: &[u8], target: &[u8]) -> Vec<u8> {
        let mut out = entry(8, id, path);
        time(&mut out, TIME);
        bytes(&mut out, target);
        out
    }

    /// A further name of a file.
    #[must_use]
    pub fn hardlink(id: u64, path: &[u8], target: &[u8]) -> Vec<u8> {
        let mut out = entry(9, id, path);
        bytes(&mut out, target);
        out
    }

    /// A file taken back; reason 3 is that it vanished.
    #[must_use]
    pub fn withdrawn(id: u64, path: &[u8], reason: u8) -> Vec<u8> {
        let mut out = entry(10, id, path);
        out.push(reason);
        out
    }

    /// Something that could not be offered; problem 1 is that it could not be read.
    #[must_use]
    pub fn problem(shown: &[u8], problem: u8) -> Vec<u8> {
        let mut out = vec![11];
        bytes(&mut out, shown);
        out.push(problem);
        out
    }

    /// The end of everything.
    #[must_use]
    pub fn end(entries: u64) -> Vec<u8> {
        let mut out = vec![12];
        out.extend_from_slice(&entries.to_le_bytes());
        out
    }

    /// A record of a kind that nobody knows, shaped like an entry.
    #[must_use]
    pub fn unknown(kind: u8, id: u64, path: &[u8]) -> Vec<u8> {
        let mut out = entry(kind, id, path);
        out.extend_from_slice(&[0; 14]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_proto::manifest::Catalog;

    #[test]
    fn what_is_forged_without_a_fault_is_accepted() {
        let job = Job::random();
        let mut forger = Forger::new(&job, HashAlgorithm::Sha256);
        let mut catalog = Catalog::new(job.verify_key(), None);
        let first = forger.segment(&[
            record::root(0o755, TIME),
            record::directory(0, b"d", 0o755, TIME),
            record::small_file(1, b"d/f", (0o644, TIME), 3, sha256(b"abc")),
            record::file(2, b"d/g", 0o644, 40_000, 15),
            record::hashes(2, 0, &[[1; 32], [2; 32]]),
        ]);
        let second = forger.segment(&[
            record::sealed(2, [3; 32]),
            record::symlink(3, b"s", b"/etc"),
            record::hardlink(4, b"h", b"d/f"),
            record::problem(b"x", 1),
            record::withdrawn(2, b"d/g", 3),
            record::file(5, b"d/g", 0o644, 40_000, 15),
            record::holes(5, &[(0, 32_768)]),
            record::hashes(5, 0, &[[1; 32], [2; 32]]),
            record::sealed(5, [3; 32]),
            record::end(5),
        ]);
        assert_eq!(catalog.admit(&first).expect("right").len(), 5);
        assert_eq!(catalog.admit(&second).expect("right").len(), 10);
        assert!(catalog.ended());
    }
}
