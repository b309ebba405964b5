//! Which agents are connected, and how they are reached.

use crate::ca::Authority;
use crate::db::Db;
use sealift_api::agent::goodbye::Reason;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// See the module.
pub struct Hub {
    /// What is known.
    pub db: Db,
    /// Who signs.
    pub authority: Arc<Authority>,
    live: Mutex<HashMap<Uuid, Live>>,
    next: AtomicU64,
}

/// A connected agent.
struct Live {
    connection: u64,
    news: Arc<Notify>,
    goodbye: watch::Sender<Option<Reason>>,
}

/// An agent's place among the connected; it is free again when this is dropped.
pub(super) struct Place {
    hub: Arc<Hub>,
    agent: Uuid,
    connection: u64,
    /// Something of what concerns the agent may have changed.
    pub(super) news: Arc<Notify>,
    /// It is to be sent away.
    pub(super) goodbye: watch::Receiver<Option<Reason>>,
}

impl Hub {
    /// With nobody connected.
    #[must_use]
    pub fn new(db: Db, authority: Arc<Authority>) -> Arc<Self> {
        Arc::new(Self { db, authority, live: Mutex::default(), next: AtomicU64::new(1) })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Uuid, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an agent is connected.
    #[must_use]
    pub fn is_connected(&self, agent: Uuid) -> bool {
        self.live().contains_key(&agent)
    }

    /// How many are.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.live().len()
    }

    /// What is desired of these may have changed, or whether they may speak.
    pub fn wake(&self, agents: impl IntoIterator<Item = Uuid>) {
        let live = self.live();
        for agent in agents {
            if let Some(live) = live.get(&agent) {
                live.news.notify_one();
            }
        }
    }

    /// The same for all of them.
    pub fn wake_all(&self) {
        for live in self.live().values() {
            live.news.notify_one();
        }
    }

    /// Sends every agent away: they come again.
    pub fn shut_down(&self) {
        for live in self.live().values() {
            live.goodbye.send_replace(Some(Reason::ShuttingDown));
        }
    }

    /// Takes a place for an agent. One that it has already is ended.
    pub(super) fn enter(self: &Arc<Self>, agent: Uuid) -> Place {
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let news = Arc::new(Notify::new());
        let (goodbye, told) = watch::channel(None);
        let before = self.live().insert(agent, Live { connection, news: Arc::clone(&news), goodbye });
        if let Some(before) = before {
            before.goodbye.send_replace(Some(Reason::Replaced));
        }
        Place { hub: Arc::clone(self), agent, connection, news, goodbye: told }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut live = self.hub.live();
        if live.get(&self.agent).is_some_and(|live| live.connection == self.connection) {
            live.remove(&self.agent);
        }
    }
}
