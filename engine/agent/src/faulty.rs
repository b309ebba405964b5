//! The `sealift` program again, with a disk that fails where `SEALIFT_FAULTS` says so. For tests alone.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sealift::cli::main()
}
