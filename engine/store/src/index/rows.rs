//! What is kept, and its bytes: keys, and values of varints with a checksum over both (`docs/index.md`).
//!
//! Never: returns a row that was not written so. Whatever does not decode is damage.

use super::codec::{Reader, put_bytes, put_signed, put_varint};
use crate::limits::STAGED_NAME_BYTES_MAX;
use crate::stat::{FileStat, Timestamp};
use sealift_proto::block::{BlockSize, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm, RootHash};
use sealift_proto::keys::{JobId, KEY_BYTES};
use sealift_proto::limits::{BLOCK_LOG2_MAX, FILE_HOLES_MAX};
use sealift_proto::manifest::{Mark, SegmentHash, SegmentSeq};
use sealift_proto::path::SafePath;
use std::ops::Range;

/// What is known of an entry that was put in place, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// What it is.
    pub what: EntryWhat,
    /// The number of the job that put it there ([`JobRow::number`]).
    pub job: u32,
    /// The sequence number of the segment that said so.
    pub segment: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryWhat {
    /// A regular file with content of its own.
    File {
        /// Its size and the size of its blocks.
        layout: Layout,
        /// The hash of its blocks and its root.
        algorithm: HashAlgorithm,
        /// The hash of its content.
        root: RootHash,
        /// Permission bits, as asked for.
        mode: u32,
        /// Last modification, as asked for.
        mtime: Timestamp,
        /// The inode as it was after publishing.
        stat: LocalStat,
    },
    /// A further name of a file that is another entry.
    Hardlink {
        /// The inode as it was after publishing.
        stat: LocalStat,
    },
    /// A symbolic link.
    Symlink {
        /// A hash of its target, chosen by the caller.
        target_hash: u64,
    },
    /// A directory.
    Directory,
}

/// A regular file's inode as it was seen once. The device is left out: it may be numbered anew at each boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalStat {
    /// Inode number.
    pub inode: u64,
    /// Length.
    pub size_bytes: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Permission bits.
    pub mode: u32,
}

impl From<&FileStat> for LocalStat {
    fn from(stat: &FileStat) -> Self {
        let FileStat { size_bytes, mtime, ctime, inode, mode, .. } = *stat;
        Self { inode, size_bytes, mtime, ctime, mode }
    }
}

impl LocalStat {
    /// Whether `stat` shows the same version of the same file: nothing was written to it since, nor its mode changed.
    #[must_use]
    pub fn matches(&self, stat: &FileStat) -> bool {
        *self == Self::from(stat)
    }
}

/// A file of which some blocks are in staging, synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialRow {
    /// Its name in staging.
    pub staged: String,
    /// Its inode there.
    pub inode: u64,
    /// The size it will have, and that of its blocks.
    pub layout: Layout,
    /// The hash of its blocks.
    pub algorithm: HashAlgorithm,
    /// The hash of its content, if it was known.
    pub root: Option<RootHash>,
    /// A bit for each block that is there, from the lowest of the first word on: exactly as many words as the blocks
    /// need. A row with another number of words cannot be written.
    pub present: Vec<u64>,
}

/// A job that has written to the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Stands for the job in [`EntryRow::job`].
    pub number: u32,
    /// What its manifests are checked with.
    pub verify_key: [u8; KEY_BYTES],
    /// The newest of its segments that was accepted.
    pub mark: Option<Mark>,
}

/// What the hashes of a source file were, and of which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// The version that was hashed.
    pub stat: LocalStat,
    /// The size of its blocks; with the size it makes a [`Layout`].
    pub block_size: BlockSize,
    /// The hash of its content.
    pub root: RootHash,
    /// The hash of each block. Empty for a file of one block, whose root is its hash, and for an empty file. A row with
    /// any other number cannot be written.
    pub hashes: Vec<BlockHash>,
    /// Its holes, in order, apart from each other.
    pub holes: Vec<Range<u64>>,
}

/// Bytes of the checksum at the end of each value.
const CHECK_BYTES: usize = 4;
/// A key and value of up to so many bytes are put together to be hashed.
const SMALL_ROW_BYTES: usize = 256;

const FILE: u8 = 0;
const HARDLINK: u8 = 1;
const SYMLINK: u8 = 2;
const DIRECTORY: u8 = 3;
const KIND_BITS: u8 = 0b11;
/// The inode has the size, time or mode that was asked for, which are not said again.
const SAME_SIZE: u8 = 1 << 2;
const SAME_MTIME: u8 = 1 << 3;
const SAME_MODE: u8 = 1 << 4;

/// The key of a path. With 0 for each slash the order of keys is that of a walk: what is beneath a directory comes
/// directly after it, and names are sorted by bytes.
pub(super) fn path_key(path: &SafePath) -> Vec<u8> {
    path.as_bytes().iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
}

pub(super) fn key_path(key: &[u8]) -> Option<SafePath> {
    let bytes: Vec<u8> = key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect();
    // A slash in a key would be read as another path's.
    if key.contains(&b'/') { None } else { SafePath::parse(&bytes).ok() }
}

/// The first bytes of the keys of all files with this content.
pub(super) fn content_prefix(size_bytes: u64, root: &RootHash) -> Vec<u8> {
    [&size_bytes.to_be_bytes()[..], &root.0].concat()
}

/// The path in a key of a file with content.
pub(super) fn content_path(key: &[u8]) -> Option<SafePath> {
    key_path(key.get(8 + 32..)?)
}

/// Ends a value with its checksum.
pub(super) fn seal(key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let check = check(key, &body);
    body.extend_from_slice(&check);
    body
}

/// A value without its checksum, if that is right.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (body, found) = value.split_last_chunk::<CHECK_BYTES>()?;
    (*found == check(key, body)).then_some(body)
}

fn check(key: &[u8], body: &[u8]) -> [u8; CHECK_BYTES] {
    // The length keeps a byte from passing from the key to the value.
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes();
    let parts = [&len, key, body];
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut buffer = [0; SMALL_ROW_BYTES];
    let digest = match buffer.get_mut(..bytes) {
        // Setting up a hasher takes as long as hashing a small row.
        Some(whole) => {
            let mut rest = &mut *whole;
            for part in parts {
                let (now, later) = rest.split_at_mut(part.len());
                now.copy_from_slice(part);
                rest = later;
            }
            blake3::hash(whole)
        }
        None => blake3::Hasher::new().update(&len).update(key).update(body).finalize(),
    };
    let digest = *digest.as_bytes();
    [digest[0], digest[1], digest[2], digest[3]]
}

impl EntryRow {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        match &self.what {
            EntryWhat::File { layout, algorithm, root, mode, mtime, stat } => {
                let mut tag = FILE;
                tag |= if stat.size_bytes == layout.size_bytes() { SAME_SIZE } else { 0 };
                tag |= if stat.mtime == *mtime { SAME_MTIME } else { 0 };
                tag |= if stat.mode == *mode { SAME_MODE } else { 0 };
                self.begin(&mut out, tag);
                put_layout(&mut out, *layout);
                out.push(algorithm.code());
                out.extend_from_slice(&root.0);
                put_varint(&mut out, (*mode).into());
                put_time(&mut out, *mtime);
                put_stat(&mut out, tag, stat);
            }
            EntryWhat::Hardlink { stat } => {
                self.begin(&mut out, HARDLINK);
                put_stat(&mut out, HARDLINK, stat);
            }
            EntryWhat::Symlink { target_hash } => {
                self.begin(&mut out, SYMLINK);
                out.extend_from_slice(&target_hash.to_le_bytes());
            }
            EntryWhat::Directory => self.begin(&mut out, DIRECTORY),
        }
        seal(key, out)
    }

    fn begin(&self, out: &mut Vec<u8>, tag: u8) {
        out.push(tag);
        put_varint(out, self.job.into());
        put_varint(out, self.segment);
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut input = Reader::new(unseal(key, value)?);
        let tag = input.u8()?;
        let job = input.varint_u32()?;
        let segment = input.varint()?;
        let what = match tag & KIND_BITS {
            FILE => {
                let layout = read_layout(&mut input)?;
                let algorithm = HashAlgorithm::from_code(input.u8()?)?;
                let root = RootHash(input.array()?);
                let mode = input.varint_u32()?;
                let mtime = read_time(&mut input)?;
                let stat = read_stat(&mut input, tag, layout.size_bytes(), mtime, mode)?;
                EntryWhat::File { layout, algorithm, root, mode, mtime, stat }
            }
            HARDLINK => EntryWhat::Hardlink { stat: read_whole_stat(&mut input)? },
            SYMLINK => EntryWhat::Symlink { target_hash: u64::from_le_bytes(input.array()?) },
            _ => EntryWhat::Directory,
        };
        input.is_empty().then_some(Self { what, job, segment })
    }
}

impl PartialRow {
    /// Whether it can be written: its parts belong together.
    pub(super) fn is_sound(&self) -> bool {
        self.present.len() == words_of(self.layout) && self.staged.len() <= STAGED_NAME_BYTES_MAX
    }

    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + 8 * self.present.len());
        put_bytes(&mut out, self.staged.as_bytes());
        put_varint(&mut out, self.inode);
        put_layout(&mut out, self.layout);
        out.push(self.algorithm.code());
        out.push(self.root.is_some().into());
        if let Some(root) = &self.root {
            out.extend_from_slice(&root.0);
        }
        out.extend(self.present.iter().flat_map(|word| word.to_le_bytes()));
        seal(key, out)
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut input = Reader::new(unseal(key, value)?);
        let staged = String::from_utf8(input.bytes(STAGED_NAME_BYTES_MAX)?.to_owned()).ok()?;
        let inode = input.varint()?;
        let layout = read_layout(&mut input)?;
        let algorithm = HashAlgorithm::from_code(input.u8()?)?;
        let root = if input.flag()? { Some(RootHash(input.array()?)) } else { None };
        let words = input.take(8 * words_of(layout))?;
        let present = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        input.is_empty().then_some(Self { staged, inode, layout, algorithm, root, present })
    }
}

fn words_of(layout: Layout) -> usize {
    layout.blocks().div_ceil(u64::BITS) as usize
}

impl JobRow {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        put_varint(&mut out, self.number.into());
        out.extend_from_slice(&self.verify_key);
        out.push(self.mark.is_some().into());
        if let Some(Mark { epoch, sequence, hash }) = self.mark {
            put_varint(&mut out, epoch.into());
            put_varint(&mut out, sequence.0);
            out.extend_from_slice(&hash.0);
        }
        seal(key, out)
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut input = Reader::new(unseal(key, value)?);
        let number = input.varint_u32()?;
        let verify_key = input.array()?;
        let mark = if input.flag()? {
            let epoch = input.varint_u32()?;
            let sequence = SegmentSeq(input.varint()?);
            Some(Mark { epoch, sequence, hash: SegmentHash(input.array()?) })
        } else {
            None
        };
        input.is_empty().then_some(Self { number, verify_key, mark })
    }
}

pub(super) fn job_of_key(key: &[u8]) -> Option<JobId> {
    Some(JobId(key.try_into().ok()?))
}

/// A cached file but for its block hashes, which are in rows of their own.
pub(super) struct CachedHead {
    pub(super) file: CachedFile,
    /// The number of its block hashes.
    pub(super) hashes: usize,
}

impl CachedFile {
    /// The file's size and block size, if it can have both.
    #[must_use]
    pub fn layout(&self) -> Option<Layout> {
        Layout::new(self.stat.size_bytes, self.block_size)
    }

    /// Whether it can be written: its parts belong together.
    pub(super) fn is_sound(&self) -> bool {
        let ordered = self.holes.iter().scan(0, |end, hole| {
            let sound = *end <= hole.start && hole.start < hole.end;
            *end = hole.end;
            Some(sound)
        });
        self.layout().is_some_and(|layout| self.hashes.len() == hashes_of(layout))
            && self.holes.len() <= FILE_HOLES_MAX
            && ordered.into_iter().all(|sound| sound)
    }

    pub(super) fn encode_head(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + 8 * self.holes.len());
        put_stat(&mut out, 0, &self.stat);
        out.push(self.block_size.log2());
        out.extend_from_slice(&self.root.0);
        put_varint(&mut out, self.holes.len() as u64);
        let mut end = 0;
        for hole in &self.holes {
            put_varint(&mut out, hole.start - end);
            put_varint(&mut out, hole.end - hole.start);
            end = hole.end;
        }
        seal(key, out)
    }
}

impl CachedHead {
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut input = Reader::new(unseal(key, value)?);
        let stat = read_whole_stat(&mut input)?;
        let block_size = BlockSize::from_log2(input.u8()?)?;
        let root = RootHash(input.array()?);
        let count = usize::try_from(input.varint()?).ok().filter(|&count| count <= FILE_HOLES_MAX)?;
        let mut end = 0_u64;
        let mut holes = Vec::with_capacity(count);
        for _ in 0..count {
            let start = end.checked_add(input.varint()?)?;
            end = start.checked_add(input.varint()?)?;
            holes.push(start..end);
        }
        let hashes = hashes_of(Layout::new(stat.size_bytes, block_size)?);
        let file = CachedFile { stat, block_size, root, hashes: Vec::new(), holes };
        input.is_empty().then_some(Self { file, hashes })
    }
}

fn hashes_of(layout: Layout) -> usize {
    match layout.blocks() {
        0 | 1 => 0,
        blocks => blocks as usize,
    }
}

pub(super) fn encode_hashes(key: &[u8], hashes: &[BlockHash]) -> Vec<u8> {
    seal(key, hashes.iter().flat_map(|hash| hash.0).collect())
}

/// Appends the hashes of a value, which must be `count`.
pub(super) fn decode_hashes(
    key: &[u8],
    value: &[u8],
    count: usize,
    hashes: &mut Vec<BlockHash>,
) -> Option<()> {
    let (chunks, rest) = unseal(key, value)?.as_chunks::<32>();
    hashes.extend(chunks.iter().map(|hash| BlockHash(*hash)));
    (chunks.len() == count && rest.is_empty()).then_some(())
}

fn put_layout(out: &mut Vec<u8>, layout: Layout) {
    put_varint(out, layout.size_bytes());
    out.push(layout.block_size().log2());
}

fn read_layout(input: &mut Reader<'_>) -> Option<Layout> {
    let size_bytes = input.varint()?;
    let log2 = input.u8()?;
    const { assert!(BLOCK_LOG2_MAX < u8::MAX) };
    Layout::new(size_bytes, BlockSize::from_log2(log2)?)
}

/// What is the same as asked for, by the tag, is left out.
fn put_stat(out: &mut Vec<u8>, tag: u8, stat: &LocalStat) {
    put_varint(out, stat.inode);
    put_time(out, stat.ctime);
    if tag & SAME_SIZE == 0 {
        put_varint(out, stat.size_bytes);
    }
    if tag & SAME_MTIME == 0 {
        put_time(out, stat.mtime);
    }
    if tag & SAME_MODE == 0 {
        put_varint(out, stat.mode.into());
    }
}

fn read_stat(
    input: &mut Reader<'_>,
    tag: u8,
    size_bytes: u64,
    mtime: Timestamp,
    mode: u32,
) -> Option<LocalStat> {
    let inode = input.varint()?;
    let ctime = read_time(input)?;
    let size_bytes = if tag & SAME_SIZE == 0 { input.varint()? } else { size_bytes };
    let mtime = if tag & SAME_MTIME == 0 { read_time(input)? } else { mtime };
    let mode = if tag & SAME_MODE == 0 { input.varint_u32()? } else { mode };
    Some(LocalStat { inode, size_bytes, mtime, ctime, mode })
}

fn read_whole_stat(input: &mut Reader<'_>) -> Option<LocalStat> {
    read_stat(input, 0, 0, Timestamp { seconds: 0, nanos: 0 }, 0)
}

/// Seconds, then nanoseconds in four bytes: they seldom fit fewer.
fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    put_signed(out, time.seconds);
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

fn read_time(input: &mut Reader<'_>) -> Option<Timestamp> {
    let seconds = input.signed()?;
    Some(Timestamp { seconds, nanos: u32::from_le_bytes(input.array()?) })
}
