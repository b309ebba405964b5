//! What agents say, on its way into the database: of many at a time, in one transaction.
//!
//! A transaction costs a sync of the disk, whatever is in it, and a thousand agents say how far they are twice a second.
//! So there are two ways in:
//!
//! - *Progress*, which nobody waits for: of each agent the newest is held in memory, and every [`PROGRESS_EVERY`] all of
//!   it is written together. It is not acknowledged, and said again by whoever reconnects.
//! - *The rest*: another state, a result, an event, an acknowledgement. It is written at once, with whatever else came
//!   while the transaction before was on its way; who brought it goes on when it is on the disk. Progress that its agent
//!   said before goes with it, so that nothing is overtaken.
//!
//! Each item is a part of its transaction: one that fails is undone alone. There is no task to be kept alive: who brings
//! the first begins the writing, and the last ends it. What waits is bounded by its bytes ([`PENDING_BYTES_MAX`]).

use crate::channel::Hub;
use crate::db::{Actor, Db, DbError, Write, agents, runs};
use sealift_api::agent::{JobStatus, Report};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

/// How long progress may wait for that of others.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Items in one transaction, behind which others wait.
const BATCH_MAX: usize = 512;
/// All that waits. Agents that would bring more are not read from until there is room.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Jobs of an agent whose progress waits: those of one report.
const PROGRESS_JOBS_MAX: usize = super::JOBS_MAX;
/// What an item costs beside its own bytes.
const ITEM_BYTES: usize = 512;

/// Run in the transaction; what it gives back is run after that, with what came of it.
type Work = Box<dyn FnOnce(&mut Write<'_>, &Actor) -> After + Send>;
type After = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What somebody waits for.
struct Firm {
    agent: Uuid,
    by: Actor,
    work: Work,
    _room: OwnedSemaphorePermit,
}

/// What nobody waits for, of one agent.
struct Progress {
    by: Actor,
    jobs: Vec<JobStatus>,
    _room: Vec<OwnedSemaphorePermit>,
}

/// See the module.
pub(crate) struct Intake {
    pending: Mutex<Pending>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Pending {
    firm: std::collections::VecDeque<Firm>,
    progress: HashMap<Uuid, Progress>,
    /// Progress has waited long enough.
    is_due: bool,
    /// Somebody counts the time until it is.
    is_timed: bool,
    /// Somebody writes.
    is_writing: bool,
}

/// What goes into one transaction.
struct Batch {
    firm: Vec<Firm>,
    progress: Vec<(Uuid, Progress)>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::default(), room: Arc::new(Semaphore::new(PENDING_BYTES_MAX)) }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes =
            u32::try_from(bytes.saturating_add(ITEM_BYTES).min(PENDING_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        permit.expect("the semaphore is never closed")
    }
}

/// Writes something of an agent's, together with what others bring; done when it is on the disk. `bytes`: about how much
/// memory it holds.
pub(super) async fn write<T: Send + 'static>(
    hub: &Arc<Hub>,
    agent: Uuid,
    by: Actor,
    bytes: usize,
    work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    let room = hub.intake.room(bytes).await;
    let (tell, told) = oneshot::channel();
    let work: Work = Box::new(move |write, by| {
        let done = write.part(by, work);
        Box::new(move |committed| {
            let failed = |error: String| Err(DbError::Io(std::io::Error::other(error)));
            let _ = tell.send(committed.map_or_else(failed, |()| done));
        })
    });
    hub.intake.pending().firm.push_back(Firm { agent, by, work, _room: room });
    begin_writing(hub);
    told.await.unwrap_or_else(|_| Err(DbError::Damaged("a transaction was given up".into())))
}

/// Takes progress, to be written soon.
pub(super) async fn progress(hub: &Arc<Hub>, agent: Uuid, by: Actor, jobs: Vec<JobStatus>) {
    let bytes = jobs.iter().map(prost::Message::encoded_len).sum();
    let room = hub.intake.room(bytes).await;
    let times = {
        let mut pending = hub.intake.pending();
        match pending.progress.entry(agent) {
            Entry::Vacant(entry) => drop(entry.insert(Progress { by, jobs, _room: vec![room] })),
            Entry::Occupied(mut entry) => entry.get_mut().merge(by, jobs, room),
        }
        !std::mem::replace(&mut pending.is_timed, true)
    };
    if times {
        let hub = Arc::clone(hub);
        tokio::spawn(async move {
            tokio::time::sleep(PROGRESS_EVERY).await;
            hub.intake.pending().is_due = true;
            begin_writing(&hub);
        });
    }
}

impl Progress {
    /// The newer replaces the older of the same part. What it no longer names is kept as it was said, as long as there
    /// is place for it: it is said again, or is over.
    fn merge(&mut self, by: Actor, newer: Vec<JobStatus>, room: OwnedSemaphorePermit) {
        self.by = by;
        let is_same = |a: &JobStatus, b: &JobStatus| a.job_id == b.job_id && a.run_id == b.run_id;
        self.jobs.retain(|old| !newer.iter().any(|new| is_same(old, new)));
        // With nothing left of the older, its room is free.
        if self.jobs.is_empty() {
            self._room.clear();
        }
        self.jobs.extend(newer);
        let over = self.jobs.len().saturating_sub(PROGRESS_JOBS_MAX);
        self.jobs.drain(..over);
        self._room.push(room);
    }
}

/// Writes whatever waits, and ends: for the end of the daemon.
pub(crate) fn finish(hub: &Arc<Hub>) {
    {
        let mut pending = hub.intake.pending();
        pending.is_due = true;
        if std::mem::replace(&mut pending.is_writing, true) {
            return;
        }
    }
    write_all(hub);
}

/// Sees to it that somebody writes.
fn begin_writing(hub: &Arc<Hub>) {
    if std::mem::replace(&mut hub.intake.pending().is_writing, true) {
        return;
    }
    let hub = Arc::clone(hub);
    tokio::task::spawn_blocking(move || write_all(&hub));
}

/// Others write on after a panic: those of the same transaction are told by what was dropped, and whoever came meanwhile has
/// nothing to do with it.
struct Writing<'h>(&'h Arc<Hub>);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.intake.pending().is_writing = false;
            begin_writing(self.0);
        } else {
            *self.0.intake.pending() = Pending::default();
        }
    }
}

fn write_all(hub: &Arc<Hub>) {
    let _writing = Writing(hub);
    while let Some(batch) = hub.intake.next_batch() {
        let concerned = write_batch(&hub.db, batch);
        hub.wake(concerned);
    }
}

impl Intake {
    /// `None`: nobody writes any more.
    fn next_batch(&self) -> Option<Batch> {
        let mut pending = self.pending();
        let count = pending.firm.len().min(BATCH_MAX);
        let firm: Vec<_> = pending.firm.drain(..count).collect();
        let mut progress = Vec::new();
        for item in &firm {
            progress.extend(pending.progress.remove_entry(&item.agent));
        }
        if pending.is_due {
            let more = BATCH_MAX.saturating_sub(progress.len() + firm.len()).max(1);
            let agents: Vec<_> = pending.progress.keys().take(more).copied().collect();
            for agent in agents {
                progress.extend(pending.progress.remove_entry(&agent));
            }
            if pending.progress.is_empty() {
                (pending.is_due, pending.is_timed) = (false, false);
            }
        }
        let is_empty = firm.is_empty() && progress.is_empty();
        pending.is_writing = !is_empty;
        (!is_empty).then_some(Batch { firm, progress })
    }
}

/// Writes one, and tells whom it concerns.
fn write_batch(db: &Db, batch: Batch) -> runs::Affected {
    let mut concerned = runs::Affected::new();
    let mut after = Vec::with_capacity(batch.firm.len());
    let committed = db.write(&Actor::system(), |write| {
        for (agent, Progress { by, jobs, _room }) in batch.progress {
            let taken = write.part(&by, |write| {
                agents::seen(write, agent)?;
                runs::report(write, agent, &jobs)
            });
            match taken {
                Ok(mut others) => concerned.append(&mut others),
                Err(error) => tracing::error!(by = by.who, %error, "progress could not be kept"),
            }
        }
        for Firm { agent: _, by, work, _room } in batch.firm {
            after.push(work(write, &by));
        }
        Ok(())
    });
    if let Err(error) = &committed {
        tracing::error!(%error, "what agents said could not be kept");
        concerned.clear();
    }
    let outcome = committed.map_err(|error| error.to_string());
    for tell in after {
        tell(outcome.clone());
    }
    concerned
}

/// What an agent said last of each of its parts, as far as anybody is in a hurry about it.
#[derive(Default)]
pub(super) struct Known(HashMap<u64, u64>);

impl Known {
    /// Whether there is nothing in it but how far things are. A hash that errs makes something wait that need not have.
    pub(super) fn is_progress(&self, report: &Report) -> bool {
        let known = |status| self.0.get(&part_of(status)) == Some(&shape_of(status));
        report.events.is_empty() && report.jobs.iter().all(known)
    }

    /// It is on the disk.
    pub(super) fn learn(&mut self, shapes: Vec<(u64, u64)>) {
        if self.0.len() > PROGRESS_JOBS_MAX {
            self.0.clear();
        }
        self.0.extend(shapes);
    }

    pub(super) fn shapes(jobs: &[JobStatus]) -> Vec<(u64, u64)> {
        jobs.iter().map(|status| (part_of(status), shape_of(status))).collect()
    }
}

fn part_of(status: &JobStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&status.job_id, &status.run_id).hash(&mut hasher);
    hasher.finish()
}

fn shape_of(status: &JobStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    (status.state, &status.message, &status.addresses).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
