//! What `sealift-bench` and the end-to-end tests share: an emulated network for real programs.
#![forbid(unsafe_code)]

pub mod emulated;
pub mod failure;
