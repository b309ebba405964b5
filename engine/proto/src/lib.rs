//! Sealift's protocol as pure logic.
//!
//! Owns: keys and tickets, the signed manifest, the hash tree, the wire codec, and the state machines of
//! sessions and transfers. Never does I/O, never reads a clock, never draws randomness: time and random
//! bytes are parameters. Every decoder here takes hostile bytes and yields a valid value or an error.
#![forbid(unsafe_code)]

pub mod block;
mod codec;
pub mod congestion;
pub mod digest;
pub mod discovery;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod member;
pub mod path;
pub mod rate;
pub mod session;
pub mod ticket;
pub mod time;
pub mod transfer;
pub mod wire;
