//! Receivers that serve each other: each offers what it has verified, synced and entered into its index, and asks those
//! who are near before it asks the source.
//!
//! [`shelf`] is what a receiver can serve; [`share`] serves it; [`peers`] says whom to try next. What to ask of whom is decided by `sealift_proto::transfer`.

mod peers;
mod share;
mod shelf;

pub use peers::Peers;
pub use share::{Share, Swarm, SwarmOptions, new_node};
pub use shelf::{Held, ReplicaShelf};
