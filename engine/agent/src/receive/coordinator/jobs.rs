//! What a receiver has done on its workers and shards, as there is room for it: each job ends with an event.

use super::link::DataConnection;
use super::{Coordinator, no_shard};
use crate::error::RunError;
use crate::receive::failure::Failure;
use crate::receive::local::{self, Prepared};
use crate::receive::transfer::Preparation;
use crate::receive::{Event, checkpoint};
use sealift_proto::transfer::pull::ConnectionId;
use sealift_store::Durability;
use std::sync::Arc;
use std::time::Duration;

/// Files that are looked for in one job.
const LOOKS_PER_JOB: usize = 256;
/// Jobs on the workers and shards at a time, publishing not counted.
const JOBS_MAX: usize = 16;
/// A batch of synced files is published when it is this large or old, or nothing else is left to do: a sync costs
/// the same for one as for many.
const SYNCED_BATCH: (usize, Duration) = (2048, Duration::from_millis(500));
/// The same for files that are not synced; the index is, all the same.
const UNSYNCED_BATCH: (usize, Duration) = (1024, Duration::from_millis(100));
/// Entries that the index is told of without anything being published.
const NOTES_MAX: usize = 4096;

impl Coordinator {
    pub(super) fn start_looks(&mut self) {
        let Some(algorithm) = self.transfer.algorithm() else { return };
        while self.transfer.jobs < JOBS_MAX && !self.transfer.looks.is_empty() {
            let count = self.transfer.looks.len().min(LOOKS_PER_JOB);
            let looks: Vec<_> = self.transfer.looks.drain(..count).collect();
            self.transfer.jobs += 1;
            let (context, events) = (self.context.clone(), self.events_in.clone());
            let workers = self.workers.clone();
            self.workers_jobs.spawn(async move {
                let job = move || {
                    let found = local::look(&context, algorithm, &looks)?;
                    Ok(looks.iter().map(|look| look.id).zip(found).collect())
                };
                let _ = events.send(Event::Looked(workers.run(job).await)).await;
            });
        }
    }

    pub(super) async fn start_preparations(&mut self) -> Result<(), RunError> {
        let Some(algorithm) = self.transfer.algorithm() else { return Ok(()) };
        while self.transfer.jobs < JOBS_MAX
            && !self.transfer.space.full
            && self.transfer.may_stage()
            && let Some(preparation) = self.transfer.preparations.pop_front()
        {
            self.transfer.jobs += 1;
            let (context, events) = (self.context.clone(), self.events_in.clone());
            match preparation {
                Preparation::Stage(large) => {
                    let workers = self.workers.clone();
                    self.workers_jobs.spawn(async move {
                        let id = large.id;
                        let staged = workers.run(move || local::stage(&context.replica, &large)).await;
                        let prepared = match staged {
                            Ok(staged) => {
                                Prepared::Staged { staged, present: Vec::new(), before: None, kept: false }
                            }
                            Err(error) => Prepared::Failed(Failure::from(&error)),
                        };
                        let _ = events.send(Event::Prepared(id, prepared)).await;
                    });
                }
                Preparation::Compare(large) => {
                    let prepare = move |io| async move {
                        let id = large.id;
                        // In a task of its own, so that a panic is an answer too.
                        let task = tokio::task::spawn_local(local::prepare(io, algorithm, context, large));
                        let prepared = task
                            .await
                            .unwrap_or_else(|error| Prepared::Failed(Failure::lasting(error.to_string())));
                        let _ = events.send(Event::Prepared(id, prepared)).await;
                    };
                    self.shards.spawn(prepare).await.map_err(no_shard)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn start_publishing(&mut self) {
        let (files, age) = match self.options.durability {
            Durability::Synced => SYNCED_BATCH,
            Durability::Unsynced => UNSYNCED_BATCH,
        };
        let waiting = self.transfer.complete.len();
        let old = self.transfer.complete_since.is_some_and(|since| since.elapsed() >= age);
        let ripe = waiting > 0 && (waiting >= files || old || self.transfer.only_publishing());
        if self.publishing || !(ripe || self.transfer.notes.rows.len() >= NOTES_MAX) {
            return;
        }
        let batch = std::mem::take(&mut self.transfer.complete);
        let notes = self.transfer.take_notes();
        self.transfer.complete_since = None;
        self.publishing = true;
        self.transfer.jobs += 1;
        let (publisher, events, workers) =
            (Arc::clone(&self.publisher), self.events_in.clone(), self.workers.clone());
        self.workers_jobs.spawn(async move {
            let job = move || publisher.publish(batch, notes);
            let _ = events.send(Event::Placed(workers.run(job).await)).await;
        });
    }

    /// Tells the index what is here of unfinished files.
    pub(super) fn start_saving(&mut self) {
        if self.saving || !self.transfer.checkpoint_due() {
            return;
        }
        let (files, mark) = (self.transfer.take_checkpoint(), self.transfer.mark());
        if files.is_empty() {
            return;
        }
        self.saving = true;
        self.transfer.jobs += 1;
        let (context, events, workers) = (self.context.clone(), self.events_in.clone(), self.workers.clone());
        let durability = self.options.durability;
        self.workers_jobs.spawn(async move {
            let job = move || checkpoint::save(&context.replica, &context.memory, durability, files, mark);
            let _ = events.send(Event::Saved(workers.run(job).await)).await;
        });
    }

    pub(super) fn send_fetches(&mut self) {
        let now_ms = self.now_ms();
        if self.transfer.space.full {
            return;
        }
        // In turn, so that no connection takes what the others could.
        let stays = |c: &DataConnection| c.up_ms.is_some() && c.leaves.is_none();
        let mut open: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| stays(c)).map(|(id, _)| *id).collect();
        while !open.is_empty() {
            open.retain(|&id| match self.transfer.next_fetch(id, now_ms) {
                // The mailbox holds as many as may be unanswered; a closed one is about to be told.
                Some(job) => self.connections[&id].jobs.try_send(job).is_ok(),
                None => false,
            });
        }
    }
}
