//! Bounds what strangers can hold: how many handshakes are in progress, and for how long.
//!
//! A slow handshake cannot keep an honest one out: when the gate is full, the oldest gives way. Counts connections and
//! nothing else: not bytes, not addresses.

use sealift_proto::limits::HANDSHAKES_MAX;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Admits handshakes, the same number for all shards together. Clones share one count.
#[derive(Clone)]
pub struct HandshakeGate(Arc<Mutex<Admitted>>);

struct Admitted {
    max: NonZeroUsize,
    next_ticket: u64,
    /// By age: the first is the oldest. Sending evicts.
    in_progress: BTreeMap<u64, oneshot::Sender<()>>,
}

impl HandshakeGate {
    /// A gate for [`HANDSHAKES_MAX`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_max(NonZeroUsize::new(HANDSHAKES_MAX).expect("the limit is not zero"))
    }

    /// A gate for another number.
    #[must_use]
    pub fn with_max(max: NonZeroUsize) -> Self {
        Self(Arc::new(Mutex::new(Admitted { max, next_ticket: 0, in_progress: BTreeMap::new() })))
    }

    /// Handshakes now in progress.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.lock().in_progress.len()
    }

    /// Admits one more, and evicts the oldest if they are too many.
    pub(crate) fn enter(&self) -> GateSlot {
        let (evict, evicted) = oneshot::channel();
        let mut admitted = self.lock();
        let ticket = admitted.next_ticket;
        admitted.next_ticket += 1;
        admitted.in_progress.insert(ticket, evict);
        if admitted.in_progress.len() > admitted.max.get()
            && let Some((_, oldest)) = admitted.in_progress.pop_first()
        {
            // A slot that is being dropped no longer listens.
            let _ = oldest.send(());
        }
        GateSlot { gate: self.clone(), ticket, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, Admitted> {
        self.0.lock().expect("nothing panics while it holds the gate")
    }
}

impl Default for HandshakeGate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HandshakeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeGate").field("in_progress", &self.in_progress()).finish()
    }
}

/// A place in the gate, free again when dropped.
pub(crate) struct GateSlot {
    gate: HandshakeGate,
    ticket: u64,
    evicted: oneshot::Receiver<()>,
}

impl Drop for GateSlot {
    fn drop(&mut self) {
        self.gate.lock().in_progress.remove(&self.ticket);
    }
}

/// Why an unauthenticated connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    /// Its absolute deadline passed.
    #[error("not authenticated in time")]
    TimedOut,
    /// It was the oldest when one more came.
    #[error("gave way to newer handshakes")]
    Evicted,
}

/// The deadline of a connection that has not proved itself yet, with its place in the gate.
///
/// The acceptor runs the handshake under it and hands it on with the connection, so that the same deadline covers the
/// peer's first message. Drop it once that has arrived.
pub struct AuthDeadline {
    slot: GateSlot,
    deadline: Instant,
}

impl AuthDeadline {
    pub(crate) const fn new(slot: GateSlot, deadline: Instant) -> Self {
        Self { slot, deadline }
    }

    /// Runs a step of authentication: to its end, or until the deadline or an eviction drops it.
    ///
    /// # Errors
    /// [`Overdue`], and then the connection must be dropped.
    pub async fn run<F: Future>(&mut self, step: F) -> Result<F::Output, Overdue> {
        let step = pin!(timeout_at(self.deadline, step));
        tokio::select! {
            biased;
            done = step => done.map_err(|_| Overdue::TimedOut),
            _ = wait(&mut self.slot.evicted) => Err(Overdue::Evicted),
        }
    }
}

/// Waits for an eviction; also answers (at once) when asked again after one.
async fn wait(evicted: &mut oneshot::Receiver<()>) {
    if !evicted.is_terminated() {
        let _ = evicted.await;
    }
}

impl fmt::Debug for AuthDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthDeadline").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::time::Duration;

    fn gate_of_two() -> HandshakeGate {
        HandshakeGate::with_max(NonZeroUsize::new(2).unwrap())
    }

    fn hour(slot: GateSlot) -> AuthDeadline {
        AuthDeadline::new(slot, Instant::now() + Duration::from_hours(1))
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_gives_way() {
        let gate = gate_of_two();
        let (mut first, mut second) = (hour(gate.enter()), hour(gate.enter()));
        let _third = gate.enter();
        assert_eq!(first.run(pending::<()>()).await, Err(Overdue::Evicted));
        assert_eq!(first.run(pending::<()>()).await, Err(Overdue::Evicted), "and stays out");
        assert_eq!(second.run(ready(7)).await, Ok(7));
        assert_eq!(gate.in_progress(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_is_absolute() {
        let gate = gate_of_two();
        let mut auth = hour(gate.enter());
        let step = tokio::time::sleep(Duration::from_secs(1800));
        assert_eq!(auth.run(step).await, Ok(()));
        let step = tokio::time::sleep(Duration::from_secs(1801));
        assert_eq!(auth.run(step).await, Err(Overdue::TimedOut));
    }

    #[test]
    fn slots_are_given_back() {
        let gate = gate_of_two();
        for _ in 0..10 {
            drop(gate.enter());
        }
        let slots: Vec<_> = (0..10).map(|_| gate.enter()).collect();
        assert_eq!(gate.in_progress(), 2);
        drop(slots);
        assert_eq!(gate.in_progress(), 0);
    }
}
