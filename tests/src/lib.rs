//! What the end-to-end tests stand on: the program as processes, trees to send, and peers that lie.
#![forbid(unsafe_code)]

pub mod hostile;
pub mod process;
pub mod tree;
