//! Starts jobs when they are due, and does what the daemon does by the clock.
//!
//! What is due follows from the database alone: from a job's schedule and its newest run. So a daemon that was away starts a
//! job that it missed, once.

use crate::channel::Hub;
use crate::db::events::{self, NewEvent};
use crate::db::{Actor, Db, DbError, audit, idempotency, jobs, runs};
use crate::spec::next_start_ms;
use sealift_api::rest::{Job, Severity};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Between looks.
const TICK: Duration = Duration::from_secs(1);
/// A job that could not be started is tried again after so long.
const RETRY_MS: i64 = 60_000;
/// Between signatures over the newest audit records.
const CHECKPOINT_TICKS: u64 = 3600;
/// Between records of how many were refused.
const REFUSALS_TICKS: u64 = 10;
/// Between looks for what is too old.
const FORGET_TICKS: u64 = 60;

/// Runs for ever.
pub async fn run(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut not_before = HashMap::new();
    for tick in 1_u64.. {
        ticks.tick().await;
        let db = hub.db.clone();
        let look = move || {
            let affected = start_due(&db, &mut not_before);
            if tick.is_multiple_of(CHECKPOINT_TICKS)
                && let Err(error) = audit::checkpoint(&db)
            {
                tracing::error!(%error, "the audit could not be signed");
            }
            if tick.is_multiple_of(REFUSALS_TICKS)
                && let Err(error) = db.record_refusals(false)
            {
                tracing::error!(%error, "refusals could not be recorded");
            }
            if tick.is_multiple_of(FORGET_TICKS)
                && let Err(error) = forget(&db)
            {
                tracing::error!(%error, "what is too old could not be removed");
            }
            (affected, not_before)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok((affected, remembered)) => {
                not_before = remembered;
                match affected {
                    Ok(affected) => hub.wake(affected),
                    Err(error) => tracing::error!(%error, "schedules could not be looked at"),
                }
            }
            Err(error) => {
                tracing::error!(%error, "schedules could not be looked at");
                not_before = HashMap::new();
            }
        }
    }
}

/// Removes what is kept for a while, when it is over.
fn forget(db: &Db) -> Result<(), DbError> {
    db.write(&Actor::system(), |write| {
        events::forget(write)?;
        idempotency::forget(write)
    })
}

/// Starts what is due. Returns the agents that have something new to do.
fn start_due(db: &Db, not_before: &mut HashMap<Uuid, i64>) -> Result<runs::Affected, DbError> {
    let now_ms = db.now_ms();
    let due: Vec<Job> = db.read(|file| {
        let mut due = Vec::new();
        for job in jobs::scheduled(file)? {
            if is_due(file, &job, now_ms)? && not_before.get(&job.id).is_none_or(|&at| at <= now_ms) {
                due.push(job);
            }
        }
        Ok(due)
    })?;
    not_before.retain(|_, at| *at > now_ms);
    let mut affected = runs::Affected::new();
    for job in due {
        let by = Actor::system();
        match db.write(&by, |write| runs::start(write, job.id)) {
            Ok((_, more)) => affected.extend(more),
            Err(error) => {
                not_before.insert(job.id, now_ms + RETRY_MS);
                let message = format!("the job {} is due and could not be started: {error}", job.name);
                let event = NewEvent { job_id: Some(job.id), ..NewEvent::new(Severity::Warning, message) };
                db.write(&by, |write| events::append(write, &event))?;
            }
        }
    }
    Ok(affected)
}

fn is_due(file: &rusqlite::Connection, job: &Job, now_ms: i64) -> Result<bool, DbError> {
    let Some(schedule) = &job.spec.schedule else { return Ok(false) };
    let newest = runs::newest(file, job.id)?;
    if newest.as_ref().is_some_and(|run| run.ended_ms.is_none()) {
        return Ok(false);
    }
    // A schedule that was changed holds from then on.
    let begun_ms = newest.as_ref().map_or(0, |run| run.created_ms);
    let after_ms = begun_ms.max(job.updated_ms);
    let next = next_start_ms(schedule, after_ms, newest.and_then(|run| run.ended_ms));
    // It was checked when it was taken; a zone may have gone from this host since.
    Ok(next.ok().flatten().is_some_and(|next| next <= now_ms))
}
