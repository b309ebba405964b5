//! The bounds of the disk side, in one place. The protocol's own are in [`sealift_proto::limits`].

use sealift_proto::limits as proto;

/// Jobs waiting for the I/O workers, in the whole process; one more makes its task wait.
pub const IO_QUEUE_JOBS_MAX: usize = 1024;
/// The fewest I/O workers.
pub(crate) const IO_WORKERS_MIN: usize = 4;
/// The most I/O workers.
pub(crate) const IO_WORKERS_MAX: usize = 32;

/// Bytes in a standard slot unless the caller says otherwise: a run of blocks, and room for a frame around it.
pub const STANDARD_SLOT_BYTES: usize = proto::RUN_BYTES_MAX + SLOT_ROOM_BYTES;
/// Bytes in a large slot: one block of the largest size, and room for a frame around it.
pub const LARGE_SLOT_BYTES: usize = proto::BLOCKS_PAYLOAD_BYTES_MAX + SLOT_ROOM_BYTES;
/// Large slots in one pool. Their memory is reserved, and taken only once they are used.
pub const LARGE_SLOTS: usize = 2;
/// What a slot holds beside payload.
const SLOT_ROOM_BYTES: usize = 64 << 10;

/// The largest file that [`crate::read_small`] reads.
pub const READ_SMALL_BYTES_MAX: u64 = proto::RUN_BYTES_MAX as u64;

/// Entries of the completion queue, at least; and at least [`RING_COMPLETIONS_PER_SLOT`] for each buffer.
pub(crate) const RING_COMPLETIONS_MIN: u32 = 256;
/// Entries of the completion queue, at most (the kernel's own limit is 65536).
pub(crate) const RING_COMPLETIONS_MAX: u32 = 32_768;
/// What one buffer can have in the completion queue at a time: its operation, the empty one that follows it, and as
/// much again that was completed and not yet looked at.
pub(crate) const RING_COMPLETIONS_PER_SLOT: usize = 4;
/// Times an operation is submitted again that the kernel put off (EAGAIN) or that was interrupted.
pub(crate) const RING_TRIES_MAX: u32 = 1024;
/// Tries of an `openat2` that the kernel answers with EAGAIN because something was renamed meanwhile.
pub(crate) const RESOLVE_TRIES_MAX: u32 = 64;
/// Rounds of removing what is in the way and trying again, before another writer is given the last word.
pub(crate) const REPLACE_TRIES_MAX: u32 = 16;
/// Files a batch syncs one by one; a larger one syncs the file system once.
pub(crate) const SYNC_EACH_FILES_MAX: usize = 16;
/// Directories a batch syncs one by one; a larger one syncs the file system once.
pub(crate) const SYNC_EACH_DIRECTORIES_MAX: usize = 64;
/// Small files that wait for their place without a name, each with a descriptor.
pub(crate) const NAMELESS_FILES_MAX: usize = 4096;
/// The longest name of a staged file.
pub(crate) const STAGED_NAME_BYTES_MAX: usize = 64;
/// Segments in one manifest file; the place of each is held in memory while it is written.
pub const MANIFEST_FILE_SEGMENTS_MAX: usize = 4 << 20;
/// Bytes read from a directory at a time.
pub(crate) const DIRECTORY_READ_BYTES: usize = 32 << 10;

/// Users and groups whose names or numbers are remembered; beyond that they are forgotten and asked for again.
pub(crate) const ACCOUNTS_CACHED_MAX: usize = 65_536;
/// Users and groups that are not known here and are asked for all the same: a peer can make up any number.
pub(crate) const ACCOUNTS_UNKNOWN_MAX: usize = 4096;
/// Seconds until the system is asked again about an account when it could not say.
pub(crate) const ACCOUNT_RETRY_SECONDS: u64 = 60;
/// Bytes in the value of an extended attribute, or in the list of their names: the kernel's own limits.
pub(crate) const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes in most of them, read without asking for the size first.
pub(crate) const XATTR_GUESS_BYTES: usize = 1024;

/// Files of at least so many bytes are found again by their content: below, looking costs as much as fetching.
pub const REUSE_BYTES_MIN: u64 = 64 << 10;
/// Memory for the pages of one index or cache of hashes; half of it at most holds what is not written yet.
pub(crate) const INDEX_CACHE_BYTES: usize = 8 << 20;
/// Kinds of attributes that could not be set which are told apart.
pub(crate) const DROPPED_KINDS_MAX: usize = 256;
/// Rows of an index that are taken at a time when all are gone through.
pub(crate) const INDEX_ROWS_AT_ONCE: usize = 256;
/// Block hashes in one row of a cache of hashes: with key and checksum they fill 32 KiB.
pub(crate) const HASHES_PER_ROW: usize = 1000;
/// Rows that a cache of hashes takes before it makes them durable unasked.
pub(crate) const CACHE_UNFLUSHED_ROWS_MAX: u64 = 64 << 10;

const _: () = assert!(
    SLOT_ROOM_BYTES >= proto::FRAME_HEADER_BYTES + proto::BLOCKS_PREFIX_BYTES,
    "a frame around a run fits its slot"
);
const _: () = assert!(IO_WORKERS_MIN <= IO_WORKERS_MAX && RING_COMPLETIONS_MIN <= RING_COMPLETIONS_MAX);
