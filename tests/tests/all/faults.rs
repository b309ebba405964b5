//! What the disk and the network may do (hazards B3, B4, B7, B12, C1, C2), to real processes.
#![allow(clippy::unwrap_used)]

mod changes;
mod datagrams;
mod disk;
mod killed;
mod network;
