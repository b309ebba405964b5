//! Power cuts: what a file system finds on its disk when the power went at any moment of a run.
//!
//! A [`LoggedDisk`] is a mounted file system beneath which every write and every flush is logged, in the order in which
//! they came. After the run the [`Recording`] makes any number of disks from that log ([`Cut`]): each has everything that
//! was written before the last flush, and of what was written since, a part, as a disk with a cache may have it. Each is
//! mounted, by which the file system recovers as it would after a reboot, and handed to a check.
//!
//! ```text
//!  program under test ─▶ ext4 or XFS ─▶ loop ─▶ FUSE ─▶ qemu-storage-daemon: blklogwrites ─▶ disk, log
//!
//!  log:  W W W F W W W W F W W ...      W a write, F a flush
//!              └──────┬──────┘
//!        a cut here keeps W W W, and of the four W since F: none, all, some, some of them torn
//! ```
//!
//! Writes are torn at multiples of 4096 bytes ([`TEAR_BYTES`]): a disk writes its physical sectors as wholes, and file
//! systems rely on that for their superblocks.
//!
//! What this cannot show: disks that lie about flushes, or that damage what they were not writing.

mod cut;
mod device;
mod image;
mod log;
mod recording;

pub use cut::{Cut, Share, Survivors, TEAR_BYTES};
pub use device::LoggedDisk;
pub use log::{Entry, LogError, Position, What, WriteLog};
pub use recording::{Checked, PoweredOn, Recording, Violation};
