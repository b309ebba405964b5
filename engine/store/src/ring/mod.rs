//! Bulk buffers, and block I/O on io_uring with them.
//!
//! The only place in this crate with unsafe code. It rests on three things, each argued where it is used:
//! - `arena`: one anonymous mapping, cut into slots that do not overlap, unmapped only when nobody holds it;
//! - `pool`: a slot belongs to exactly one [`pool::PoolBuf`] or to the free list;
//! - `uring`: while the kernel may touch a slot, its `PoolBuf` is held by the task that waits for the kernel.

pub(crate) mod arena;
pub(crate) mod pool;
pub(crate) mod uring;
