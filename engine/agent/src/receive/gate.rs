//! Who may still write to a staged file: a run that was asked of two peers may come when the file is whole already, and
//! must not touch it while it is published, or after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Lets writers in until it is closed.
#[derive(Clone, Debug, Default)]
pub struct WriteGate(Arc<AtomicU32>);

/// Set when it is closed; the other bits count who is writing.
const CLOSED: u32 = 1 << 31;

/// While it lives, somebody writes.
pub struct Writing<'g>(&'g WriteGate);

impl WriteGate {
    /// Begins to write; `None` if nothing is to be written any more.
    pub fn enter(&self) -> Option<Writing<'_>> {
        let writing = Writing(self);
        (self.0.fetch_add(1, Ordering::AcqRel) & CLOSED == 0).then_some(writing)
    }

    /// Lets nobody in from now on. Whether nobody is writing either.
    pub fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED == 0
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_enters_after_it_was_closed_and_those_inside_are_waited_for() {
        let gate = WriteGate::default();
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        drop(one);
        assert!(!gate.close());
        assert!(gate.enter().is_none());
        assert!(!gate.close(), "the second still writes");
        drop(two);
        assert!(gate.close());
        assert!(gate.enter().is_none());
    }
}
