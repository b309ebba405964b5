//! The wire as peers and strangers meet it: sessions, refusals, slowness, and the race of addresses.

#![allow(
    clippy::unwrap_used,
    reason = "the support modules are tests too; clippy.toml covers test functions only"
)]

mod hostile;
mod quic;
mod race;
mod refusals;
mod sessions;
mod stranger;
mod support;
