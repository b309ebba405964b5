//! Sealift's disk side.
//!
//! Owns: the only way from a [`sealift_proto::path::SafePath`] to a descriptor (`root`), walking and reading what is
//! offered (`source`, `walk`, `extents`, `small`), staging and publishing what arrives (`replica`, `staging`, `direct`,
//! `publish`, `metadata`, `links`, `remove`, `manifest_file`), what is remembered of it (`index`), bulk buffers and block
//! I/O on io_uring or threads (`ring`, `shard`, `workers`), and running block hashes on all cores (`hashing`). Also what
//! entries have beside content, mode and times (`attributes`), and what of all this a destination can hold (`probe`).
//!
//! Never: takes a peer's string as a path, decides what may be written (the caller verifies first), talks to a
//! network, or lets a type of rustix or tokio-uring cross its face. Unsafe code lives in `ring` alone.
#![deny(unsafe_code)]

mod attributes;
mod direct;
mod error;
mod extents;
mod faults;
mod hashing;
mod index;
mod limits;
mod links;
mod manifest_file;
mod metadata;
mod nameless;
mod probe;
mod publish;
mod remove;
mod replica;
#[allow(unsafe_code)]
mod ring;
mod root;
mod shard;
mod small;
mod source;
mod sparse;
mod staging;
mod stat;
mod view;
mod walk;
mod workers;

pub use attributes::{
    AccountKind, Applied, AttributeKinds, AttributeMapper, AttributeReader, Attributed, Dropped,
    DroppedTally, DroppedWhat, DroppedWhy, EntryKind, MapperOptions, NotCarried, NotCarriedWhy, OwnerMap,
    OwnerMapError, Resolved, XattrFilter, XattrFilterError,
};
pub use direct::WriteTarget;
pub use error::{FileError, ReplicaError, SourceError};
pub use extents::{HOLE_BYTES_MIN, holes};
pub use faults::fault_point;
pub use hashing::{Piece, hash_pieces, hash_run};
pub use index::{
    CacheReader, CachedFile, EntryRow, EntryWhat, HashCache, IndexBatch, IndexError, IndexFound, IndexReader,
    JobRow, LocalStat, PartialRow, ReplicaIndex,
};
pub use limits::{
    IO_QUEUE_JOBS_MAX, LARGE_SLOT_BYTES, LARGE_SLOTS, MANIFEST_FILE_SEGMENTS_MAX, READ_SMALL_BYTES_MAX,
    REUSE_BYTES_MIN, STANDARD_SLOT_BYTES,
};
pub use links::{Linked, MadeDirectory, link_target_hash};
pub use manifest_file::{ManifestReader, ManifestSpool};
pub use probe::{Capabilities, MtimeRange, NameRules, Wanted};
pub use publish::{Durability, Expected, Ready};
pub use remove::{Removal, RemoveExpected};
pub use replica::{Existing, Replica, ReplicaId};
pub use ring::pool::{BufferPool, PoolBuf, PoolConfig};
pub use root::{ParentDir, Parents, Root};
pub use shard::{Backend, BackendError, BlockIo, Choice, ShardFile, spawn_shard};
pub use small::{SmallFailure, SmallRead, SmallReadOk, SmallWrite, read_small};
pub use source::Source;
pub use sparse::ranges_to_write;
pub use staging::{Allocation, StagedFile};
pub use stat::{FileStat, PERMISSION_BITS, Timestamp};
pub use view::ReplicaView;
pub use walk::{Found, ProblemKind, Walk};
pub use workers::IoWorkers;
