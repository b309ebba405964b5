//! Records beyond the signature: a hostile holder of the read-write seed. Bytes become the bodies of correctly signed and
//! chained segments; as they are, or as records that make sense one by one, so that the catalog's own rules are reached.
#![no_main]

use arbitrary::Arbitrary;
use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use sealift_proto::keys::RwSeed;
use sealift_proto::limits::{ACL_ENTRIES_MAX, FILE_BLOCKS_MAX, XATTRS_MAX};
use sealift_proto::manifest::{Catalog, ManifestError, Mark, Record, SegmentHash, SegmentSeq};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Where the chain begins for this reader.
    start: u8,
    /// A place beyond it up to which something was accepted before, with a hash that nothing has.
    accepted: Option<u8>,
    segments: Vec<Segment>,
}

#[derive(Arbitrary, Debug)]
enum Segment {
    /// A body of any bytes, with any count.
    Raw { records: u8, body: Vec<u8> },
    /// Records that are well formed, or nearly.
    Formed(Vec<Formed>),
    /// The same, and they begin a new snapshot, so many places further on.
    Anew(u8, Vec<Formed>),
}

#[derive(Arbitrary, Debug)]
enum Formed {
    Root { mode: u16, seconds: i32, nanos: u32 },
    Directory { id: Id, path: Path, mode: u16 },
    File { id: Id, path: Path, size: u64, log2: u8 },
    Holes { id: Id, holes: Vec<(u32, u32)> },
    Hashes { id: Id, first: u8, count: u8 },
    Sealed { id: Id },
    Small { id: Id, path: Path, size: u16 },
    Symlink { id: Id, path: Path, target: Vec<u8> },
    Hardlink { id: Id, path: Path, target: Path },
    Withdrawn { id: Id, path: Path, reason: u8 },
    Problem { shown: Vec<u8>, problem: u8 },
    End { entries: u8 },
    Attributes { of: Option<Id>, user: Vec<u8>, xattrs: Vec<(Vec<u8>, u16)>, acls: [Vec<(u8, u8)>; 2] },
}

/// Mostly the number that is due, so that a chain of entries can come about.
#[derive(Arbitrary, Debug)]
enum Id {
    Due,
    Before(u8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Path {
    Short { depth: u8, name: u8 },
    Any(Vec<u8>),
}

impl Path {
    fn bytes(&self) -> Vec<u8> {
        match self {
            // Few names, so that paths meet: a, a/b, a/b/a, …
            Self::Short { depth, name } => {
                let part = |i: u8| b'a' + (name >> (i % 8) & 1);
                let parts: Vec<_> = (0..=depth % 4).map(|i| vec![part(i)]).collect();
                parts.join(&b'/')
            }
            Self::Any(bytes) => bytes.clone(),
        }
    }
}

struct Body {
    bytes: Vec<u8>,
    records: u32,
    next_id: u64,
}

impl Body {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn id(&mut self, kind: u8, id: &Id) {
        let number = match id {
            Id::Due => self.next_id,
            Id::Before(back) => self.next_id.wrapping_sub(u64::from(*back % 8)),
            Id::Any(any) => *any,
        };
        self.put(&[kind]);
        self.put(&number.to_le_bytes());
    }

    fn entry(&mut self, kind: u8, id: &Id, path: &Path) {
        self.id(kind, id);
        self.blob(&path.bytes());
        if matches!((id, kind), (Id::Due, 2 | 3 | 7 | 8 | 9)) {
            self.next_id += 1;
        }
    }

    fn blob(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(5000)];
        self.put(&(bytes.len() as u16).to_le_bytes());
        self.put(bytes);
    }

    /// What is measured in one byte.
    fn short(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(255)];
        self.put(&[bytes.len() as u8]);
        self.put(bytes);
    }

    fn metadata(&mut self, mode: u16, seconds: i64, nanos: u32) {
        self.put(&mode.to_le_bytes());
        self.mtime(seconds, nanos);
    }

    fn mtime(&mut self, seconds: i64, nanos: u32) {
        self.put(&seconds.to_le_bytes());
        self.put(&nanos.to_le_bytes());
    }

    fn record(&mut self, record: &Formed) {
        self.records += 1;
        match record {
            Formed::Root { mode, seconds, nanos } => {
                self.put(&[1]);
                self.metadata(*mode, i64::from(*seconds), *nanos);
            }
            Formed::Directory { id, path, mode } => {
                self.entry(2, id, path);
                self.metadata(mode & 0o7777, 0, 0);
            }
            Formed::File { id, path, size, log2 } => {
                self.entry(3, id, path);
                self.metadata(0o644, 0, 0);
                self.put(&(size >> (log2 % 64)).to_le_bytes());
                self.put(&[15 + log2 % 11]);
            }
            Formed::Holes { id, holes } => {
                self.id(4, id);
                self.put(&(holes.len() as u32).to_le_bytes());
                for (offset, len) in holes {
                    self.put(&u64::from(*offset).to_le_bytes());
                    self.put(&u64::from(*len).to_le_bytes());
                }
            }
            Formed::Hashes { id, first, count } => {
                self.id(5, id);
                self.put(&u32::from(*first).to_le_bytes());
                self.put(&u32::from(*count).to_le_bytes());
                self.put(&[7; 32].repeat(usize::from(*count)));
            }
            Formed::Sealed { id } => {
                self.id(6, id);
                self.put(&[7; 32]);
            }
            Formed::Small { id, path, size } => {
                self.entry(7, id, path);
                self.metadata(0o644, 0, 0);
                self.put(&u32::from(*size).to_le_bytes());
                self.put(&[7; 32]);
            }
            Formed::Symlink { id, path, target } => {
                self.entry(8, id, path);
                self.mtime(0, 0);
                self.blob(target);
            }
            Formed::Hardlink { id, path, target } => {
                self.entry(9, id, path);
                self.blob(&target.bytes());
            }
            Formed::Withdrawn { id, path, reason } => {
                self.entry(10, id, path);
                self.put(&[reason % 6]);
            }
            Formed::Problem { shown, problem } => {
                self.put(&[11]);
                self.blob(shown);
                self.put(&[problem % 7]);
            }
            Formed::End { entries } => {
                self.put(&[12]);
                self.put(&u64::from(*entries).to_le_bytes());
            }
            Formed::Attributes { of, user, xattrs, acls } => {
                match of {
                    None => self.put(&[13, 0]),
                    Some(of) => {
                        let before = self.bytes.len();
                        self.id(1, of);
                        self.bytes.insert(before, 13);
                    }
                }
                self.short(user);
                self.short(b"");
                self.put(&[xattrs.len() as u8]);
                for (name, bytes) in xattrs {
                    self.short(name);
                    self.put(&bytes.to_le_bytes());
                    self.put(&vec![7; usize::from(*bytes)]);
                }
                for acl in acls {
                    self.put(&[acl.len() as u8]);
                    for (who, name) in acl {
                        self.put(&[1 + who % 6]);
                        if matches!(who % 6, 1 | 3) {
                            self.short(&[*name]);
                        }
                        self.put(&[name % 9]);
                    }
                }
            }
        }
    }
}

/// A segment as docs/manifest.md has it.
fn signed(
    key: &SigningKey,
    job: [u8; 16],
    (sequence, snapshot): (u64, bool),
    previous: [u8; 32],
    body: &Body,
) -> Vec<u8> {
    let mut message = b"sealift v1 manifest segment\0\0\0\0\0".to_vec();
    message.extend_from_slice(b"SLSG\x02\x00\x01");
    message.push(u8::from(snapshot));
    message.extend_from_slice(&job);
    message.extend_from_slice(&1_u32.to_le_bytes());
    message.extend_from_slice(&body.records.to_le_bytes());
    message.extend_from_slice(&0_u64.to_le_bytes());
    message.extend_from_slice(&sequence.to_le_bytes());
    message.extend_from_slice(&0_i64.to_le_bytes());
    message.extend_from_slice(&previous);
    message.extend_from_slice(&(body.bytes.len() as u32).to_le_bytes());
    message.extend_from_slice(&0_u32.to_le_bytes());
    message.extend_from_slice(&body.bytes);
    let signature = key.sign(&message).to_bytes();
    message.extend_from_slice(&signature);
    message.split_off(32)
}

fuzz_target!(|input: Input| {
    let verify = RwSeed::new(&[7; 32]).verify_key();
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut sequence = u64::from(input.start);
    let accepted = input.accepted.map(|beyond| Mark {
        epoch: 1,
        sequence: SegmentSeq(sequence + u64::from(beyond)),
        hash: SegmentHash([0xaa; 32]),
    });
    let mut catalog = Catalog::new(verify.clone(), accepted);
    let (mut begun, mut previous, mut next_id, mut end) = (0, [0; 32], 0, false);
    for (nth, segment) in input.segments.iter().enumerate() {
        if let Segment::Anew(further, _) = segment {
            sequence += u64::from(*further);
            next_id = 0;
        }
        let anew = matches!(segment, Segment::Anew(..));
        let mut body = Body { bytes: Vec::new(), records: 0, next_id };
        match segment {
            Segment::Raw { records, body: raw } => {
                body.put(raw);
                body.records += u32::from(*records);
            }
            Segment::Formed(formed) | Segment::Anew(_, formed) => {
                formed.iter().for_each(|record| body.record(record));
            }
        }
        let place = (sequence, anew || nth == 0);
        let segment = signed(&key, verify.job_id().0, place, previous, &body);
        let mut admitted = catalog.admit(&segment);
        if anew && nth > 0 && !matches!(admitted, Err(ManifestError::Segment(_))) {
            assert_eq!(admitted, Err(ManifestError::NewSnapshot(SegmentSeq(sequence))));
            catalog = Catalog::new(verify.clone(), catalog.mark());
            (begun, end) = (0, false);
            admitted = catalog.admit(&segment);
        }
        match admitted {
            Ok(records) => {
                assert!(accepted.is_none_or(|mark| mark.sequence.0 != sequence), "that place was taken");
                if let Some(last) = records.last() {
                    end = matches!(last, Record::End { .. });
                }
                let newest = accepted.is_none_or(|mark| mark.sequence.0 < sequence);
                assert_eq!(catalog.ended(), end && newest);
                assert_eq!(records.len(), body.records as usize);
                for record in &records {
                    if let Some(id) = record.begins() {
                        assert_eq!(id.0, begun, "entries are numbered in order");
                        begun += 1;
                    }
                    sound(record);
                }
                assert!(matches!(catalog.admit(&segment), Err(ManifestError::Rollback(_))));
                sequence += 1;
            }
            Err(ManifestError::Segment(error)) => {
                assert!(segment.len() > 1 << 20, "{error}: layout and signature are right");
                return;
            }
            Err(error) => {
                assert!(!error.to_string().chars().any(char::is_control), "an error forges no line");
                return;
            }
        }
        // The SHA-256 of a block is the plain one.
        let mut hash = [BlockHash([0; 32])];
        hash_blocks(
            HashAlgorithm::Sha256,
            &[BlockInput { data: &segment, offset: 0, only: true }],
            &mut hash,
        );
        (previous, next_id) = (hash[0].0, begun);
    }
});

/// What must hold of every record that comes out.
fn sound(record: &Record) {
    match record {
        Record::Directory { path, .. } | Record::Symlink { path, .. } | Record::SmallFile { path, .. } => {
            let parts = path.as_bytes().split(|&byte| byte == b'/');
            assert!(parts.clone().all(|part| !matches!(part, b"" | b"." | b".." | b".sealift")));
            assert!(path.depth() <= 256 && !path.as_bytes().contains(&0));
        }
        Record::File { layout, .. } => assert!(layout.blocks() <= FILE_BLOCKS_MAX),
        Record::Attributes { attributes, .. } => {
            let names: Vec<_> = attributes.xattrs().iter().map(|xattr| xattr.name.as_bytes()).collect();
            assert!(names.len() <= XATTRS_MAX && names.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(attributes.xattrs().iter().map(|xattr| xattr.value.len()).sum::<usize>() < 64 << 10);
            for acl in attributes.access_acl().into_iter().chain(attributes.default_acl()) {
                let entries = acl.entries();
                assert!((3..=ACL_ENTRIES_MAX).contains(&entries.len()));
                assert!(entries.iter().all(|entry| entry.permissions() <= 7));
                assert!(entries.windows(2).all(|pair| pair[0].who() < pair[1].who()));
            }
        }
        Record::Holes { holes, .. } => assert!(holes.windows(2).all(|pair| pair[0].end() <= pair[1].offset)),
        _ => {}
    }
}
