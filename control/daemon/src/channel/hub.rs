//! Which agents are connected, and how they are reached.

use super::intake::{self, Intake};
use crate::ca::Authority;
use crate::db::Db;
use sealift_api::agent::goodbye::Reason;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// See the module.
pub struct Hub {
    /// What is known.
    pub db: Db,
    /// Who signs.
    pub authority: Arc<Authority>,
    /// Where agents are to bring their logs; told them with each document.
    pub(crate) logs_port: AtomicU16,
    /// Where the tracker is, or 0; told them too.
    pub(crate) tracker_port: AtomicU16,
    /// What agents say, on its way into the database.
    pub(super) intake: Intake,
    live: Mutex<HashMap<(Uuid, Line), Live>>,
    next: AtomicU64,
}

/// What an agent is connected for: of each it has one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// Its channel.
    Channel,
    /// The upload of its logs.
    Logs,
}

/// A connected agent.
struct Live {
    connection: u64,
    news: Arc<Notify>,
    goodbye: watch::Sender<Option<Reason>>,
}

/// An agent's place among the connected; it is free again when this is dropped.
pub(crate) struct Place {
    hub: Arc<Hub>,
    key: (Uuid, Line),
    connection: u64,
    /// Something of what concerns the agent may have changed.
    pub(crate) news: Arc<Notify>,
    /// It is to be sent away.
    pub(crate) goodbye: watch::Receiver<Option<Reason>>,
}

impl Hub {
    /// With nobody connected.
    #[must_use]
    pub fn new(db: Db, authority: Arc<Authority>) -> Arc<Self> {
        let [logs_port, tracker_port] = [0, 0].map(AtomicU16::new);
        let (live, next) = (Mutex::default(), AtomicU64::new(1));
        Arc::new(Self { db, authority, logs_port, tracker_port, intake: Intake::new(), live, next })
    }

    fn live(&self) -> MutexGuard<'_, HashMap<(Uuid, Line), Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an agent is connected.
    #[must_use]
    pub fn is_connected(&self, agent: Uuid) -> bool {
        self.live().contains_key(&(agent, Line::Channel))
    }

    /// How many are.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.live().keys().filter(|(_, line)| *line == Line::Channel).count()
    }

    /// What is desired of these may have changed, or whether they may speak.
    pub fn wake(&self, agents: impl IntoIterator<Item = Uuid>) {
        let live = self.live();
        for agent in agents {
            for line in [Line::Channel, Line::Logs] {
                if let Some(live) = live.get(&(agent, line)) {
                    live.news.notify_one();
                }
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

    /// Writes what agents have said and is not on the disk yet. Blocks.
    pub fn finish(self: &Arc<Self>) {
        intake::finish(self);
    }

    /// Takes a place for an agent. One of the kind that it has already is ended.
    pub(crate) fn enter(self: &Arc<Self>, agent: Uuid, line: Line) -> Place {
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let news = Arc::new(Notify::new());
        let (goodbye, told) = watch::channel(None);
        let key = (agent, line);
        let before = self.live().insert(key, Live { connection, news: Arc::clone(&news), goodbye });
        if let Some(before) = before {
            before.goodbye.send_replace(Some(Reason::Replaced));
        }
        Place { hub: Arc::clone(self), key, connection, news, goodbye: told }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut live = self.hub.live();
        if live.get(&self.key).is_some_and(|live| live.connection == self.connection) {
            live.remove(&self.key);
        }
    }
}
