//! Every bound of the protocol, in one place, related to each other at compile time.
//!
//! Nothing a peer claims is believed beyond these: a length, a count or a size over its limit is refused
//! before anything is allocated for it.

/// The smallest block, as a power of two: 32 KiB.
pub const BLOCK_LOG2_MIN: u8 = 15;
/// The largest block, as a power of two: 16 MiB.
pub const BLOCK_LOG2_MAX: u8 = 24;
/// Blocks in one file. With the largest block this allows files of 16 TiB.
pub const FILE_BLOCKS_MAX: u32 = 1 << 20;
/// The size of the largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = (FILE_BLOCKS_MAX as u64) << BLOCK_LOG2_MAX;
/// A file is given the smallest block with which it has at most this many; only one of the largest blocks has more.
pub const FILE_BLOCKS_AIM: u64 = 1 << 16;

/// Bytes in a path, as `PATH_MAX` has it.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes in one component of a path, as `NAME_MAX` has it.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Components in a path.
pub const PATH_DEPTH_MAX: usize = 256;
/// Bytes in the target of a symbolic link.
pub const LINK_TARGET_BYTES_MAX: usize = 4095;

/// Bytes in one manifest segment, header and signature included.
pub const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// A writer closes a segment once it holds this many bytes.
pub const SEGMENT_BYTES_AIM: usize = 256 << 10;
/// Entries in one manifest. Bounds the reader's table of paths: at most 20 bytes an entry from half a million on. (1,000,000
/// made a process larger by 22 MiB, 2,000,000 by 39 MiB, as the example `catalog_memory` measures it.)
pub const MANIFEST_ENTRIES_MAX: u64 = 32 << 20;
/// Files whose hash lists are still growing, at one time.
pub const MANIFEST_OPEN_FILES_MAX: usize = 64;
/// Hashes of files that are not sealed yet, together; bounds what a writer can make a reader keep.
pub const MANIFEST_OPEN_HASHES_MAX: usize = FILE_BLOCKS_MAX as usize;
/// Block hashes in one record.
pub const RECORD_HASHES_MAX: usize = 4096;
/// Holes in one record.
pub const RECORD_HOLES_MAX: usize = 4096;
/// Holes in one file; a file with more is carried with the later ones filled.
pub const FILE_HOLES_MAX: usize = 1 << 16;
/// Bytes in the name of a user, a group or an extended attribute.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of an entry's attributes, as they are in a record.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// Extended attributes of one entry.
pub const XATTRS_MAX: usize = 64;
/// Entries in one access control list.
pub const ACL_ENTRIES_MAX: usize = 128;
/// The last place in a chain.
pub const SEGMENT_SEQUENCE_MAX: u64 = (1 << 63) - 1;
/// Modification times, in seconds since 1970: years 1 to 9999.
pub const MTIME_SECONDS_MIN: i64 = -62_135_596_800;
/// See [`MTIME_SECONDS_MIN`].
pub const MTIME_SECONDS_MAX: i64 = 253_402_300_799;

/// Bytes in a frame's header.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes in a frame that carries a structured message.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of text in a close frame.
pub const CLOSE_REASON_BYTES_MAX: usize = 512;
/// Bytes before the payload in a frame of blocks, beside the frame's header.
pub const BLOCKS_PREFIX_BYTES: usize = 16;
/// Payload of one run of blocks, unless a single block is larger: the unit of disk and wire I/O.
pub const RUN_BYTES_MAX: usize = 1 << 20;
/// Payload of the largest frame of blocks: one block of the largest size.
pub const BLOCKS_PAYLOAD_BYTES_MAX: usize = 1 << BLOCK_LOG2_MAX;
/// Ranges in one fetch.
pub const FETCH_RANGES_MAX: usize = 512;
/// Fetches a receiver may have unanswered on one connection.
pub const FETCHES_OUTSTANDING_MAX: usize = 32;
/// Segments a receiver may ask for ahead.
pub const CREDIT_SEGMENTS_MAX: u32 = 64;

/// Connections of one session, the control connection not counted.
pub const DATA_CONNECTIONS_MAX: usize = 64;
/// Sessions one sender serves at a time.
pub const SESSIONS_MAX: usize = 256;
/// Handshakes in progress at one time; one more pushes out the oldest.
pub const HANDSHAKES_MAX: usize = 128;
/// A connection that is not authenticated by then is cut.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Between pings on a control connection.
pub const PING_INTERVAL_MS: u64 = 5_000;
/// Silence after which a peer is held to be dead.
pub const DEAD_PEER_TIMEOUT_MS: u64 = 20_000;

/// Wrong answers for one block before its file is given up.
pub const BLOCK_MISMATCHES_MAX: u32 = 3;
/// Runs with wrong blocks from one peer before it is banned.
pub const PEER_MISMATCHES_MAX: u32 = 16;
/// Bad requests on one connection answered at full speed; then each answer waits.
pub const STRIKES_FREE: u32 = 8;
/// Bad requests after which the connection is closed.
pub const STRIKES_MAX: u32 = 64;
/// How long a limited peer waits for each further error.
pub const STRIKE_DELAY_MS: u64 = 50;
/// A data connection may be sent the data set this many times over before further requests count as bad.
pub const SERVED_RATIO_MAX: u64 = 4;

/// Others that one frame of peers names.
pub const PEERS_TOLD_MAX: usize = 64;
/// Spans of files in one frame of what a receiver has.
pub const HAVE_SPANS_MAX: usize = 512;
/// Ranges of blocks in one frame of what a receiver has.
pub const HAVE_RANGES_MAX: usize = 512;
/// Bytes in a label of where a member stands.
pub const LABEL_BYTES_MAX: usize = 128;
/// Parts of such a label.
pub const LABEL_PARTS_MAX: usize = 8;
/// Peers that a receiver knows of at a time, connected or not; as many as one source serves.
pub const SWARM_PEERS_MAX: usize = SESSIONS_MAX;
/// Peers that gave something wrong and are remembered, banned ones among them, when they have left.
pub const SWARM_STRUCK_MAX: usize = 1024;
/// Stretches of files and of blocks remembered of what one peer has. What does not fit is not asked of it.
pub const HAVE_STRETCHES_MAX: usize = 16_384;
/// Runs that the picker looks at, beside those that it takes, before it asks for what it has found.
pub const PICK_LOOKS_MAX: usize = 64;
/// Entries of the picker's queues that are of no more use and are dropped in one call. Each was put there once.
pub const PICK_DROPS_MAX: usize = 4096;
/// Peers that one run is asked of at a time.
pub const RUN_ASKERS_MAX: usize = 3;
/// Fetches that repeat what is asked of a slower peer already, at a time, when nothing else is left to ask for.
pub const ENDGAME_FETCHES_MAX: usize = 4;
/// How long a receiver waits for what another is expected to bring, for each receiver that comes before it.
pub const SWARM_PATIENCE_MS: u64 = 2_000;
/// What is asked of one peer ahead, in milliseconds of its rate.
pub const SWARM_AHEAD_MS: u64 = 500;
/// How long a peer whose rate is not known may take for an answer before what it owes is asked elsewhere too.
pub const SWARM_ANSWER_MS: u64 = 10_000;

/// Entries of a timetable of limits of rate: several a day.
pub const TIMETABLE_ENTRIES_MAX: usize = 64;

/// Addresses in a ticket.
pub const TICKET_ADDRESSES_MAX: usize = 16;
/// Characters in a printed ticket.
pub const TICKET_CHARS_MAX: usize = 8192;

/// Addresses in an entry of discovery.
pub const ENTRY_ADDRESSES_MAX: usize = 8;
/// By how much the time in an entry may differ from ours: as far as an old one can be shown again.
pub const ENTRY_SKEW_MAX_S: u64 = 3600;
/// Entries in one answer of a tracker.
pub const TRACKER_ANSWER_ENTRIES_MAX: usize = 64;
/// The largest answer of a tracker to a heartbeat, as a multiple of the heartbeat.
pub const AMPLIFICATION_MAX: usize = 1;
/// Addresses that are remembered of all that discovery finds for one job.
pub const CANDIDATES_MAX: usize = 256;
/// Addresses that discovery gives one job to dial at once, and then within a minute.
pub const CANDIDATES_BURST: u32 = 16;
/// See [`CANDIDATES_BURST`].
pub const CANDIDATES_PER_MINUTE: u32 = 60;
/// An address that is heard of again is given again after this time, and not before.
pub const CANDIDATE_AGAIN_MS: u64 = 60_000;

const _: () = assert!(RUN_BYTES_MAX <= BLOCKS_PAYLOAD_BYTES_MAX);
const _: () = assert!(RUN_BYTES_MAX.is_multiple_of(1 << BLOCK_LOG2_MIN));
const _: () = assert!(SEGMENT_BYTES_AIM < SEGMENT_BYTES_MAX);
// A record of the largest kind still fits a segment that was just short of its aim.
const _: () = assert!(SEGMENT_BYTES_AIM + 32 * RECORD_HASHES_MAX + 1024 < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_AIM + 16 * RECORD_HOLES_MAX + 1024 < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_AIM + 2 * PATH_BYTES_MAX + 1024 < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_AIM + ATTRIBUTES_BYTES_MAX + 1024 < SEGMENT_BYTES_MAX);
// What is counted or measured in one byte, or two.
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(XATTRS_MAX <= u8::MAX as usize);
const _: () = assert!(ACL_ENTRIES_MAX <= u8::MAX as usize);
const _: () = assert!(ATTRIBUTES_BYTES_MAX - 9 <= u16::MAX as usize);
const _: () = assert!(TRACKER_ANSWER_ENTRIES_MAX <= u8::MAX as usize);
const _: () = assert!(ENTRY_ADDRESSES_MAX <= u8::MAX as usize);
const _: () = assert!(CANDIDATES_BURST as usize <= CANDIDATES_MAX);
const _: () = assert!(2 + 16 * FETCH_RANGES_MAX <= 16 << 10);
// With names, an address and a port, and what protobuf puts around them.
const _: () = assert!(48 * PEERS_TOLD_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(PING_INTERVAL_MS * 2 < DEAD_PEER_TIMEOUT_MS);
const _: () = assert!(FILE_BYTES_MAX < 1 << 63);
// Peers are counted in two bytes.
const _: () = assert!(SWARM_PEERS_MAX < u16::MAX as usize);
const _: () = assert!(SWARM_PATIENCE_MS < SWARM_ANSWER_MS && SWARM_ANSWER_MS < DEAD_PEER_TIMEOUT_MS);
