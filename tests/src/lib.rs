//! What the end-to-end tests stand on: the program as processes, trees to send, peers that lie, disks that fail,
//! and networks that lose.
#![forbid(unsafe_code)]

pub mod blockdev;
pub mod clock;
pub mod control;
pub mod fleet;
pub mod hostile;
pub mod net;
pub mod ports;
pub mod powercut;
pub mod process;
pub mod settings;
pub mod tree;
