//! Emulated networks for tests: hosts with a long link between them, or many at a switch.
//!
//! They are those of `sealift-bench` ([`emulated`]). Root is needed, and `ip` and `tc`; what is missing is told as
//! [`Unavailable`], so that a test can say that it was skipped, and why. A process is run on a host by starting it
//! [`inside`](emulated::Namespace::inside) its namespace.

pub use sealift_bench::emulated;

use crate::blockdev::Unavailable;
use emulated::lan::LanSpec;
use emulated::{Lan, LinkSpec, Path};
use sealift_bench::failure::Outcome;

/// Two hosts with a link between them that is the same both ways.
///
/// # Errors
/// If something that it takes is missing.
pub fn path(link: LinkSpec, seed: u64) -> Result<Path, Unavailable> {
    available(Path::new(link, link, seed))
}

/// Many hosts.
///
/// # Errors
/// If something that it takes is missing.
pub fn lan(spec: LanSpec) -> Result<Lan, Unavailable> {
    available(Lan::new(spec))
}

fn available<T>(made: Outcome<T>) -> Result<T, Unavailable> {
    made.map_err(|failure| Unavailable(failure.0))
}
