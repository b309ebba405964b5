//! Disks of a test's own, with real file systems on them: small ones that fill up, ones whose writes, reads or flushes
//! fail when told to, and ones that end in the middle.
//!
//! Everything is made by tools that anyone has; root is needed. What is missing is told as [`Unavailable`], so that a
//! test can say that it was skipped, and why. Every value here undoes what it did when it is dropped.
//!
//! | wanted | by | type |
//! | --- | --- | --- |
//! | ENOSPC, no inodes left | a file system in a file of that size | [`SmallDisk`], [`SmallDisk::fill`] |
//! | EIO for everything from now on, as of a disk that is gone | the ioctl behind `xfs_io -x -c shutdown` | [`SmallDisk::shut_down`] |
//! | EIO on write, on read or on fsync, and then no more | `qemu-storage-daemon`: `blkdebug` | [`FaultyDisk`] |
//! | what was on the disk at any moment | `qemu-storage-daemon`: `blklogwrites` | [`LoggedDisk`](crate::powercut::LoggedDisk) |
//!
//! # What was found to work
//!
//! Tried with Linux 6.18 and QEMU 10.0.2, without device-mapper, NBD and ublk in the kernel. So a block device whose
//! other side is a process can only be a loop device on a file that this process shows by FUSE. QEMU's daemon does that.
//!
//! - The loop device must not use direct I/O. With it, requests overlap, QEMU's FUSE export takes up the next one while
//!   a write waits, into the same buffer, and the write stores what the next request brought: within a second, files of
//!   an ext4 on it had foreign bytes. (Later versions of QEMU copy the buffer first.) A loop device without direct I/O
//!   has one request under way at a time; FUSE, which caches no writes here, passes each on before it is called done, and a
//!   flush as a flush. What could still overlap is reading ahead, so that is turned off ([`Export`]). The power-cut
//!   harness compares what the kernel wrote with what was logged at the end of each run, in case this fails elsewhere.
//! - `blkdebug` has its rules from the start. What switches them on and off is a node above it, which is told to reopen
//!   with another one beneath it. That flushes, so that a rule against flushes can't be switched off: it is given a number
//!   of times instead, and is used up.
//! - An ext4 with a journal turns read-only for good at the first failed flush of its journal. That `fsync` fails and then
//!   succeeds, with the data lost (hazard B2), is had by failing writes of data, or on an ext4 without a journal.
//! - `nbdkit` with its error filter would do as well, behind QEMU's NBD client, but has no failing flush and is one more
//!   tool. `dm-flakey`, `dm-error` and `dm-log-writes` need a kernel with device-mapper.

mod export;
mod faulty;
mod mount;
mod small;
mod tool;

pub use export::Export;
pub use faulty::{Fault, FaultyDisk};
pub use mount::{Caching, FileSystem, LoopDevice, Mount};
pub use small::{Ballast, SmallDisk};
pub use tool::{Scratch, Unavailable, or_skip, run};
