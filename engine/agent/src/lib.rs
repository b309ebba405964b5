//! The agent: runs transfers from the command line, joining the disk side (`sealift-store`) and the wire side
//! (`sealift-net`) by the protocol's state machines (`sealift-proto`).
#![forbid(unsafe_code)]

pub mod cli;
pub mod discovery;
pub mod error;
pub mod managed;
pub mod operator;
mod orders;
pub mod pace;
pub mod preserve;
pub mod receive;
pub mod report;
pub mod restore;
pub mod seal;
pub mod send;
mod shards;
pub mod state;
pub mod swarm;
pub mod verify;
