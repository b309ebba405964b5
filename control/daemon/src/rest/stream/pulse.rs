//! The number of the newest event, for all who wait for another one: the database is asked once, however many wait.
//!
//! It is asked, not told, since commands on this host make events too. Nobody asks while nobody waits.

use crate::db::{Db, events};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Between looks.
const TICK: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Pulse {
    newest: watch::Sender<u64>,
    beats: Mutex<bool>,
}

impl Pulse {
    /// Changes when there is a newer event.
    pub(super) fn feel(self: &Arc<Self>, db: &Db) -> watch::Receiver<u64> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest.subscribe();
        if !*beats {
            *beats = true;
            tokio::spawn(Arc::clone(self).beat(db.clone()));
        }
        newest
    }

    async fn beat(self: Arc<Self>, db: Db) {
        loop {
            let read = db.clone();
            match tokio::task::spawn_blocking(move || read.read(events::newest)).await {
                Ok(Ok(newest)) => {
                    self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
                }
                Ok(Err(error)) => tracing::error!(%error, "events cannot be read"),
                Err(error) => tracing::error!(%error, "events cannot be read"),
            }
            tokio::time::sleep(TICK).await;
            let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
            if self.newest.receiver_count() == 0 {
                *beats = false;
                return;
            }
        }
    }
}
