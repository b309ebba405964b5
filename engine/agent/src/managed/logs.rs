//! The agent's log: records of what it does, what its children say and what they refuse, on the disk until the daemon has
//! them, brought to it on a port of its own.
//!
//! ```text
//! agent, runs ── put ──▶ queue ──▶ writer (a thread) ──▶ spool (segments) ──▶ upload ──▶ daemon
//! ```
//!
//! Events (`managed::spool`) are for operators and few; each is durable before it is sent. Log records are many, and are
//! written a batch at a time: of the last fifth of a second a crash may take some. `tracing` is not used: what the agent
//! has to say is told by its own few methods, children speak JSON, and no library's lines belong here.

mod children;
pub(super) mod record;
pub(super) mod spool;
mod upload;
mod writer;

pub(super) use children::ChildLog;
pub(super) use record::{Details, entry};
pub(super) use sealift_api::logs::record::Severity;
pub(super) use spool::LogKek;
pub(super) use upload::Upload;
pub(super) use writer::{Logs, Start};
