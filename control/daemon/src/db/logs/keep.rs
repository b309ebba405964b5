//! Records in: each agent's numbers, and what is on the disk of them.

use super::{LogStore, blob};
use crate::db::{DbError, lock};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sealift_api::rest::{LogField, Severity};
use std::collections::HashMap;
use uuid::Uuid;

/// Spools of one agent whose numbers are remembered: it has one at a time, and a new one when its disk was lost.
const SPOOLS_MAX: i64 = 8;
/// Numbers are below this, so that none overflows.
const NUMBER_MAX: u64 = 1 << 62;

/// A record to be kept, within all limits.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// By the agent's clock; `None`: now.
    pub time_ms: Option<i64>,
    /// How much it matters.
    pub severity: Severity,
    /// The job that it is about.
    pub job_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// Who speaks.
    pub target: String,
    /// In words.
    pub message: String,
    /// Details.
    pub fields: Vec<LogField>,
}

impl LogStore {
    /// Up to which number the daemon has what is in this spool.
    ///
    /// # Errors
    /// Of the database.
    pub fn kept(&self, agent: Uuid, spool: [u8; 16]) -> Result<u64, DbError> {
        self.read(|db| Ok(kept(db, agent, spool)?.unwrap_or(0).unsigned_abs()))
    }

    /// Keeps records, of which the first has this number, and tells up to which the daemon has them by now. What it had
    /// before is not taken again. On the disk when this returns.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the number makes no sense.
    pub fn take(
        &self,
        agent: Uuid,
        spool: [u8; 16],
        first: u64,
        records: &[NewRecord],
    ) -> Result<u64, DbError> {
        let now = (self.clock)();
        let mut writer = lock(&self.shared.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (known, after) = known(&tx, agent, spool, first, records.len())?;
        let new = records.iter().zip(first..).filter(|(_, number)| *number > known);
        for (record, _) in new {
            insert(&tx, agent, now, record)?;
        }
        number_kept(&tx, agent, spool, after, now)?;
        tx.commit()?;
        Ok(after)
    }
}

/// Up to which number the daemon had what is in a spool, and up to which it has it with these records.
pub(super) fn known(
    tx: &Connection,
    agent: Uuid,
    spool: [u8; 16],
    first: u64,
    count: usize,
) -> Result<(u64, u64), DbError> {
    let end = first.checked_add(count as u64).filter(|&end| 0 < first && end < NUMBER_MAX);
    let end = end.ok_or_else(|| DbError::Invalid("a record has a number that is none".into()))?;
    let known = kept(tx, agent, spool)?.unwrap_or(0).unsigned_abs();
    Ok((known, known.max(end - 1)))
}

/// Remembers up to which number the daemon has what is in a spool.
pub(super) fn number_kept(
    tx: &Connection,
    agent: Uuid,
    spool: [u8; 16],
    after: u64,
    now: i64,
) -> Result<(), DbError> {
    let before = kept(tx, agent, spool)?;
    let sql = "INSERT INTO spools (agent_id, spool, kept, used_ms) VALUES (?1, ?2, ?3, ?4) \
        ON CONFLICT DO UPDATE SET kept = ?3, used_ms = ?4";
    let number = i64::try_from(after).unwrap_or(i64::MAX);
    tx.prepare_cached(sql)?.execute(params![blob(agent), spool, number, now])?;
    if before.is_none() {
        let sql = "DELETE FROM spools WHERE agent_id = ?1 AND spool NOT IN \
            (SELECT spool FROM spools WHERE agent_id = ?1 ORDER BY spool = ?2 DESC, used_ms DESC LIMIT ?3)";
        tx.prepare_cached(sql)?.execute(params![blob(agent), spool, SPOOLS_MAX])?;
    }
    Ok(())
}

fn kept(db: &Connection, agent: Uuid, spool: [u8; 16]) -> Result<Option<i64>, DbError> {
    let sql = "SELECT kept FROM spools WHERE agent_id = ?1 AND spool = ?2";
    Ok(db.prepare_cached(sql)?.query_row(params![blob(agent), spool], |row| row.get(0)).optional()?)
}

fn insert(db: &Connection, agent: Uuid, now: i64, record: &NewRecord) -> Result<(), DbError> {
    let fields =
        serde_json::to_string(&record.fields).map_err(|error| DbError::Invalid(error.to_string()))?;
    let sql = "INSERT INTO logs (time_ms, received_ms, severity, agent_id, job_id, run_id, target, message, fields) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    db.prepare_cached(sql)?.execute(params![
        record.time_ms.unwrap_or(now),
        now,
        super::list::code(record.severity),
        blob(agent),
        record.job_id.map(blob),
        record.run_id.map(blob),
        record.target,
        record.message,
        fields,
    ])?;
    Ok(())
}

/// Of these runs, those that the agent takes part in, with their jobs, from the control database.
///
/// # Errors
/// Of the database.
pub fn runs_of<'r>(
    control: &Connection,
    agent: Uuid,
    runs: impl Iterator<Item = &'r [u8]>,
) -> Result<HashMap<[u8; 16], Uuid>, DbError> {
    let sql = "SELECT job_id FROM runs WHERE id = ?1 AND EXISTS \
        (SELECT 1 FROM run_agents WHERE run_id = runs.id AND agent_id = ?2)";
    let mut statement = control.prepare_cached(sql)?;
    let mut jobs = HashMap::new();
    let mut asked = std::collections::HashSet::new();
    for run in runs.filter_map(|run| <[u8; 16]>::try_from(run).ok()) {
        if asked.insert(run) {
            let job: Option<[u8; 16]> =
                statement.query_row(params![run, blob(agent)], |row| row.get(0)).optional()?;
            jobs.extend(job.map(|job| (run, Uuid::from_bytes(job))));
        }
    }
    Ok(jobs)
}
