//! Faults on demand.

use std::io;

/// A step that a test may let fail.
///
/// # Errors
/// Never, without the feature `faults`.
pub fn fault_point(_name: &'static str) -> io::Result<()> {
    Ok(())
}
