//! The `sealift-control` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sealift_control::cli::main()
}
