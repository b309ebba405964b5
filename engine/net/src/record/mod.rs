//! The record layer of an established session (RFC 8446, section 5): bytes to records and back, each through the cipher
//! once and through no other copy.
//!
//! rustls does the handshake and derives keys ([`NextKeys`]); what comes after is sealed and opened here. Has no socket:
//! [`Outgoing`] and [`Incoming`] work on buffers, which `connection` joins to one. Never decides who the peer is.

mod alert;
mod format;
mod incoming;
mod key;
mod messages;
mod opener;
mod outgoing;
mod received;
mod sealer;
#[cfg(test)]
mod tests;

pub(crate) use alert::{Violation, error_of};
pub(crate) use format::record_bytes;
pub(crate) use incoming::{Incoming, Progress};
pub(crate) use key::{NextKeys, TrafficKey};
pub(crate) use opener::Opener;
pub(crate) use outgoing::Outgoing;
pub(crate) use received::Received;
pub(crate) use sealer::Sealer;
