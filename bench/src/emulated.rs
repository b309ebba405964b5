//! Networks for real programs on one machine: hosts are network namespaces, links are emulated.
//!
//! [`Path`] joins two hosts by a relay, which does to packets what a long link does (rate, delay, jitter, loss, reordering,
//! a queue that overflows), from a seed; [`link`] is its pure core. [`Lan`] joins many hosts by bridges, with the kernel's
//! token bucket on every link. Both need root, and `ip` and `tc` of iproute2; what they make is gone when they are dropped,
//! and what a run left that was killed is removed by the next.

pub mod bulk;
pub mod lan;
pub mod link;
pub mod namespace;
pub mod packet;
pub mod path;
pub mod probe;
mod relay;
pub mod tally;

pub use bulk::Bulk;
pub use lan::Lan;
pub use link::LinkSpec;
pub use namespace::Namespace;
pub use path::{End, Path};
pub use probe::{Echoes, Probe};
pub use tally::{Count, Delays, Tally};
