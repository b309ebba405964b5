//! Records: what a segment says, one thing each, and their layout.

use super::attributes::{Attributes, AttributesError};
use crate::block::{BlockIndex, BlockSize, FileId, Layout};
use crate::codec::{Put as _, Reader};
use crate::digest::{BlockHash, RootHash};
use crate::limits;
use crate::path::{PathError, SafePath, escape};
use crate::time::Timestamp;

/// The permission bits of a mode: the low twelve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u16);

impl Mode {
    /// The bits that pass on privilege: set-user-id, set-group-id and sticky.
    pub const SPECIAL: u16 = 0o7000;

    /// The low twelve bits of a mode.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self((bits & 0o7777) as u16)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// The mode without its special bits, if it has any.
    #[must_use]
    pub fn without_special(self) -> Option<Self> {
        (self.0 & Self::SPECIAL != 0).then_some(Self(self.0 & !Self::SPECIAL))
    }
}

/// What is kept of an entry beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions.
    pub mode: Mode,
    /// Time of the last modification.
    pub mtime: Timestamp,
}

/// A range of a file that holds nothing and reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub len: u64,
}

impl Hole {
    /// Where it ends.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// Why a file that was announced is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawReason {
    /// It changed while it was read, and is announced anew.
    Superseded,
    /// It kept changing.
    Changed,
    /// It is gone.
    Vanished,
    /// It could not be read.
    Unreadable,
}

/// Why something in the source is not in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It could not be read.
    Unreadable,
    /// It kept changing while it was read.
    Changed,
    /// A device, FIFO or socket.
    Special,
    /// Its name or path cannot be carried.
    BadName,
    /// It is larger than a file may be.
    TooLarge,
}

/// One statement of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The metadata of the root directory itself.
    Root(Metadata),
    /// A directory; comes before everything in it.
    Directory {
        /// The entry's number.
        id: FileId,
        /// Where.
        path: SafePath,
        /// Its metadata.
        metadata: Metadata,
    },
    /// A file; its hashes and its seal follow.
    File {
        /// The entry's number.
        id: FileId,
        /// Where.
        path: SafePath,
        /// Its metadata.
        metadata: Metadata,
        /// Size and block size.
        layout: Layout,
    },
    /// Holes of a file that is not sealed, ascending.
    Holes {
        /// Whose.
        id: FileId,
        /// Where.
        holes: Vec<Hole>,
    },
    /// Hashes of the next blocks of a file that is not sealed.
    Hashes {
        /// Whose.
        id: FileId,
        /// The first block of the range.
        first: BlockIndex,
        /// One for each block.
        hashes: Vec<BlockHash>,
    },
    /// All hashes of a file are said.
    Sealed {
        /// Whose.
        id: FileId,
        /// The root over them.
        root: RootHash,
    },
    /// A file of at most one block of the smallest size, with everything about it.
    SmallFile {
        /// The entry's number.
        id: FileId,
        /// Where.
        path: SafePath,
        /// Its metadata.
        metadata: Metadata,
        /// Size, with blocks of the smallest size.
        layout: Layout,
        /// Its only block's hash, which is its root; for an empty file, the hash of nothing.
        hash: BlockHash,
    },
    /// A symbolic link.
    Symlink {
        /// The entry's number.
        id: FileId,
        /// Where.
        path: SafePath,
        /// Time of the link itself.
        mtime: Timestamp,
        /// Where it points: 1 to 4095 bytes, never resolved by Sealift.
        target: Vec<u8>,
    },
    /// Another name of a file.
    Hardlink {
        /// The entry's number.
        id: FileId,
        /// Where.
        path: SafePath,
        /// The file's first name, which came before.
        target: SafePath,
    },
    /// An announced file is taken back.
    Withdrawn {
        /// Which.
        id: FileId,
        /// Its path.
        path: SafePath,
        /// Why.
        reason: WithdrawReason,
    },
    /// Something is in the source and not in the manifest. The bytes are to be shown, never to be used as a path.
    Problem {
        /// What, as bytes to be escaped and shown.
        shown_path: Vec<u8>,
        /// Why.
        problem: Problem,
    },
    /// Everything has been said, until the source changes.
    End {
        /// The number of entries that stand.
        entries: u64,
    },
    /// What else is kept of the entry that the very next record begins (any but a hard link); or of the root, where
    /// the next record is [`Record::Root`].
    Attributes {
        /// The entry's number; `None` for the root.
        id: Option<FileId>,
        /// What is kept.
        attributes: Attributes,
    },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within a record.
    #[error("a record is cut off")]
    Truncated,
    /// A kind this version does not know.
    #[error("unknown record kind {0}")]
    UnknownKind(u8),
    /// A path that is not safe.
    #[error("unsafe path '{shown}': {error}")]
    Path {
        /// What is wrong with it.
        error: PathError,
        /// The path, escaped and cut to a length for people.
        shown: String,
    },
    /// A value out of its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// Attributes that cannot be.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
}

/// Bytes of a refused path that are shown.
const SHOWN_BYTES_MAX: usize = 256;

mod kind {
    pub(super) const ROOT: u8 = 1;
    pub(super) const DIRECTORY: u8 = 2;
    pub(super) const FILE: u8 = 3;
    pub(super) const HOLES: u8 = 4;
    pub(super) const HASHES: u8 = 5;
    pub(super) const SEALED: u8 = 6;
    pub(super) const SMALL_FILE: u8 = 7;
    pub(super) const SYMLINK: u8 = 8;
    pub(super) const HARDLINK: u8 = 9;
    pub(super) const WITHDRAWN: u8 = 10;
    pub(super) const PROBLEM: u8 = 11;
    pub(super) const END: u8 = 12;
    pub(super) const ATTRIBUTES: u8 = 13;
}

impl Record {
    /// The number of the entry that this record begins.
    #[must_use]
    pub fn begins(&self) -> Option<FileId> {
        match self {
            Self::Directory { id, .. }
            | Self::File { id, .. }
            | Self::SmallFile { id, .. }
            | Self::Symlink { id, .. }
            | Self::Hardlink { id, .. } => Some(*id),
            _ => None,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Root(metadata) => {
                out.put_u8(kind::ROOT);
                put_metadata(out, metadata);
            }
            Self::Directory { id, path, metadata } => {
                put_entry(out, kind::DIRECTORY, *id, path);
                put_metadata(out, metadata);
            }
            Self::File { id, path, metadata, layout } => {
                put_entry(out, kind::FILE, *id, path);
                put_metadata(out, metadata);
                out.put_u64(layout.size_bytes());
                out.put_u8(layout.block_size().log2());
            }
            Self::Holes { id, holes } => {
                out.put_u8(kind::HOLES);
                out.put_u64(id.0);
                put_count(out, holes.len());
                for hole in holes {
                    out.put_u64(hole.offset);
                    out.put_u64(hole.len);
                }
            }
            Self::Hashes { id, first, hashes } => {
                out.put_u8(kind::HASHES);
                out.put_u64(id.0);
                out.put_u32(first.0);
                put_count(out, hashes.len());
                for hash in hashes {
                    out.put(&hash.0);
                }
            }
            Self::Sealed { id, root } => {
                out.put_u8(kind::SEALED);
                out.put_u64(id.0);
                out.put(&root.0);
            }
            Self::SmallFile { id, path, metadata, layout, hash } => {
                put_entry(out, kind::SMALL_FILE, *id, path);
                put_metadata(out, metadata);
                put_count(out, usize::try_from(layout.size_bytes()).expect("at most 32 KiB"));
                out.put(&hash.0);
            }
            Self::Symlink { id, path, mtime, target } => {
                put_entry(out, kind::SYMLINK, *id, path);
                put_mtime(out, *mtime);
                put_bytes(out, target);
            }
            Self::Hardlink { id, path, target } => {
                put_entry(out, kind::HARDLINK, *id, path);
                put_bytes(out, target.as_bytes());
            }
            Self::Withdrawn { id, path, reason } => {
                put_entry(out, kind::WITHDRAWN, *id, path);
                out.put_u8(match reason {
                    WithdrawReason::Superseded => 1,
                    WithdrawReason::Changed => 2,
                    WithdrawReason::Vanished => 3,
                    WithdrawReason::Unreadable => 4,
                });
            }
            Self::Problem { shown_path, problem } => {
                out.put_u8(kind::PROBLEM);
                put_bytes(out, shown_path);
                out.put_u8(match problem {
                    Problem::Unreadable => 1,
                    Problem::Changed => 2,
                    Problem::Special => 3,
                    Problem::BadName => 4,
                    Problem::TooLarge => 5,
                });
            }
            Self::End { entries } => {
                out.put_u8(kind::END);
                out.put_u64(*entries);
            }
            Self::Attributes { id, attributes } => {
                out.put_u8(kind::ATTRIBUTES);
                out.put_u8(u8::from(id.is_some()));
                if let Some(id) = id {
                    out.put_u64(id.0);
                }
                attributes.encode(out);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let kind = reader.u8().ok_or(RecordError::Truncated)?;
        Ok(match kind {
            kind::ROOT => Self::Root(metadata(reader)?),
            kind::DIRECTORY => {
                let (id, path) = entry(reader)?;
                Self::Directory { id, path, metadata: metadata(reader)? }
            }
            kind::FILE => {
                let (id, path) = entry(reader)?;
                let metadata = metadata(reader)?;
                let size_bytes = reader.u64().ok_or(RecordError::Truncated)?;
                let log2 = reader.u8().ok_or(RecordError::Truncated)?;
                let block_size = BlockSize::from_log2(log2).ok_or(RecordError::Range("a block size"))?;
                let layout = Layout::new(size_bytes, block_size).ok_or(RecordError::Range("a file size"))?;
                Self::File { id, path, metadata, layout }
            }
            kind::HOLES => {
                let id = id(reader)?;
                let count = count(reader, limits::RECORD_HOLES_MAX, "a number of holes")?;
                let holes = (0..count).map(|_| hole(reader)).collect::<Result<_, _>>()?;
                Self::Holes { id, holes }
            }
            kind::HASHES => {
                let id = id(reader)?;
                let first = BlockIndex(reader.u32().ok_or(RecordError::Truncated)?);
                let count = count(reader, limits::RECORD_HASHES_MAX, "a number of hashes")?;
                let bytes = reader.take(count * 32).ok_or(RecordError::Truncated)?;
                let (chunks, _) = bytes.as_chunks::<32>();
                Self::Hashes { id, first, hashes: chunks.iter().copied().map(BlockHash).collect() }
            }
            kind::SEALED => Self::Sealed {
                id: id(reader)?,
                root: RootHash(reader.array().ok_or(RecordError::Truncated)?),
            },
            kind::SMALL_FILE => {
                let (id, path) = entry(reader)?;
                let metadata = metadata(reader)?;
                let size_bytes = reader.u32().ok_or(RecordError::Truncated)?;
                if u64::from(size_bytes) > BlockSize::MIN.bytes() {
                    return Err(RecordError::Range("a small file's size"));
                }
                let layout = Layout::new(u64::from(size_bytes), BlockSize::MIN).expect("one block");
                let hash = BlockHash(reader.array().ok_or(RecordError::Truncated)?);
                Self::SmallFile { id, path, metadata, layout, hash }
            }
            kind::SYMLINK => {
                let (id, path) = entry(reader)?;
                let mtime = mtime(reader)?;
                let target = bytes(reader, limits::LINK_TARGET_BYTES_MAX, "a link target's length")?;
                if target.is_empty() || target.contains(&0) {
                    return Err(RecordError::Range("a link target"));
                }
                Self::Symlink { id, path, mtime, target: target.to_vec() }
            }
            kind::HARDLINK => {
                let (id, path) = entry(reader)?;
                Self::Hardlink { id, path, target: safe_path(reader)? }
            }
            kind::WITHDRAWN => {
                let (id, path) = entry(reader)?;
                let reason = match reader.u8().ok_or(RecordError::Truncated)? {
                    1 => WithdrawReason::Superseded,
                    2 => WithdrawReason::Changed,
                    3 => WithdrawReason::Vanished,
                    4 => WithdrawReason::Unreadable,
                    _ => return Err(RecordError::Range("a reason")),
                };
                Self::Withdrawn { id, path, reason }
            }
            kind::PROBLEM => {
                let shown_path = bytes(reader, limits::PATH_BYTES_MAX, "a path's length")?.to_vec();
                let problem = match reader.u8().ok_or(RecordError::Truncated)? {
                    1 => Problem::Unreadable,
                    2 => Problem::Changed,
                    3 => Problem::Special,
                    4 => Problem::BadName,
                    5 => Problem::TooLarge,
                    _ => return Err(RecordError::Range("a problem")),
                };
                Self::Problem { shown_path, problem }
            }
            kind::END => Self::End { entries: reader.u64().ok_or(RecordError::Truncated)? },
            kind::ATTRIBUTES => {
                let id = match reader.u8().ok_or(RecordError::Truncated)? {
                    0 => None,
                    1 => Some(id(reader)?),
                    _ => return Err(RecordError::Range("whose attributes follow")),
                };
                Self::Attributes { id, attributes: Attributes::decode(reader)? }
            }
            unknown => return Err(RecordError::UnknownKind(unknown)),
        })
    }
}

fn put_entry(out: &mut Vec<u8>, kind: u8, id: FileId, path: &SafePath) {
    out.put_u8(kind);
    out.put_u64(id.0);
    put_bytes(out, path.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("paths and targets are at most 4096 bytes"));
    out.put(bytes);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32(u32::try_from(count).expect("counts are within the limits"));
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    out.put_u16(metadata.mode.0);
    put_mtime(out, metadata.mtime);
}

fn put_mtime(out: &mut Vec<u8>, mtime: Timestamp) {
    out.put_i64(mtime.seconds());
    out.put_u32(mtime.nanos());
}

fn id(reader: &mut Reader<'_>) -> Result<FileId, RecordError> {
    reader.u64().map(FileId).ok_or(RecordError::Truncated)
}

fn entry(reader: &mut Reader<'_>) -> Result<(FileId, SafePath), RecordError> {
    Ok((id(reader)?, safe_path(reader)?))
}

fn safe_path(reader: &mut Reader<'_>) -> Result<SafePath, RecordError> {
    let len = usize::from(reader.u16().ok_or(RecordError::Truncated)?);
    let bytes = reader.take(len).ok_or(RecordError::Truncated)?;
    SafePath::parse(bytes).map_err(|error| {
        let shown = escape(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]);
        RecordError::Path { error, shown }
    })
}

fn bytes<'a>(reader: &mut Reader<'a>, max: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
    let len = usize::from(reader.u16().ok_or(RecordError::Truncated)?);
    if len > max {
        return Err(RecordError::Range(what));
    }
    reader.take(len).ok_or(RecordError::Truncated)
}

fn count(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<usize, RecordError> {
    let count = reader.u32().ok_or(RecordError::Truncated)? as usize;
    if count == 0 || count > max {
        return Err(RecordError::Range(what));
    }
    Ok(count)
}

fn metadata(reader: &mut Reader<'_>) -> Result<Metadata, RecordError> {
    let mode = reader.u16().ok_or(RecordError::Truncated)?;
    if mode > 0o7777 {
        return Err(RecordError::Range("a mode"));
    }
    Ok(Metadata { mode: Mode(mode), mtime: mtime(reader)? })
}

fn mtime(reader: &mut Reader<'_>) -> Result<Timestamp, RecordError> {
    let seconds = reader.i64().ok_or(RecordError::Truncated)?;
    let nanos = reader.u32().ok_or(RecordError::Truncated)?;
    Timestamp::new(seconds, nanos).ok_or(RecordError::Range("a modification time"))
}

fn hole(reader: &mut Reader<'_>) -> Result<Hole, RecordError> {
    let offset = reader.u64().ok_or(RecordError::Truncated)?;
    let len = reader.u64().ok_or(RecordError::Truncated)?;
    match offset.checked_add(len) {
        Some(end) if len > 0 && end <= limits::FILE_BYTES_MAX => Ok(Hole { offset, len }),
        _ => Err(RecordError::Range("a hole")),
    }
}
