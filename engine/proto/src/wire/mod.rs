//! The wire codec: frames with a fixed header, and the messages in them. Layouts: `docs/wire.md`.

mod frame;
mod message;
mod swarm;

pub use frame::{BlocksPrefix, FrameError, FrameHeader, FrameKind, RangeError, RangeProblem};
pub use message::{
    Channel, Close, CloseCode, Credit, FetchRequest, Finished, Hello, MessageError, Reject, Welcome,
};
pub use swarm::{FileSpan, Have, Member, Peer, Peers};

/// The versions of the protocol this build speaks, lowest and highest.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

#[cfg(test)]
mod tests;
