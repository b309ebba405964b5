//! The `sealift-control` binary.
#![forbid(unsafe_code)]

fn main() {}
