//! Events: what agents tell, and what the daemon has to say to people.
//!
//! Owns the table `events`. An event is shown and streamed, and decides nothing. The newest are kept, as the settings say. Each agent
//! numbers its own, and what the daemon has is not taken twice.

#[cfg(test)]
mod tests;

use super::agents::{one_more, parsed, shortened};
use super::{DbError, Write, settings};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use sealift_api::agent;
use sealift_api::rest::{Event, Page, Severity};
use uuid::Uuid;

const COLUMNS: &str = "number, time_ms, severity, agent_id, job_id, run_id, message";

/// An event to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// How much it matters.
    pub severity: Severity,
    /// The agent that it is about.
    pub agent_id: Option<Uuid>,
    /// The job that it is about.
    pub job_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// In words.
    pub message: String,
}

impl NewEvent {
    /// An event about nothing in particular.
    #[must_use]
    pub fn new(severity: Severity, message: String) -> Self {
        Self { severity, agent_id: None, job_id: None, run_id: None, message }
    }
}

/// Keeps an event of the daemon's own, and tells its number.
///
/// # Errors
/// Of the database.
pub fn append(w: &mut Write<'_>, new: &NewEvent) -> Result<u64, DbError> {
    let number = insert(w, w.now_ms(), new)?;
    drop_oldest(w, number)?;
    Ok(number.unsigned_abs())
}

fn insert(w: &Write<'_>, time_ms: i64, new: &NewEvent) -> Result<i64, DbError> {
    let id = |id: Option<Uuid>| id.map(Uuid::into_bytes);
    let sql = "INSERT INTO events (time_ms, severity, agent_id, job_id, run_id, message, taken_ms) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    w.tx().prepare_cached(sql)?.execute(params![
        time_ms,
        new.severity.as_str(),
        id(new.agent_id),
        id(new.job_id),
        id(new.run_id),
        shortened(&new.message),
        w.now_ms()
    ])?;
    Ok(w.tx().last_insert_rowid())
}

fn drop_oldest(w: &Write<'_>, newest: i64) -> Result<(), DbError> {
    let kept = i64::from(settings::get(w.tx())?.events_kept);
    w.tx().prepare_cached("DELETE FROM events WHERE number <= ?1")?.execute([newest - kept])?;
    Ok(())
}

/// Drops what is too old, or too much, by the settings.
///
/// # Errors
/// Of the database.
pub fn forget(w: &Write<'_>) -> Result<(), DbError> {
    let newest = i64::try_from(newest(w.tx())?).unwrap_or(i64::MAX);
    drop_oldest(w, newest)?;
    let before_ms = w.now_ms() - i64::from(settings::get(w.tx())?.events_kept_seconds) * 1000;
    // In the order in which they came: what an agent's clock says keeps nothing, and drops nothing.
    let sql = "DELETE FROM events WHERE number < \
        coalesce((SELECT number FROM events WHERE taken_ms > ?1 ORDER BY number LIMIT 1), ?2)";
    w.tx().prepare_cached(sql)?.execute((before_ms, i64::MAX))?;
    Ok(())
}

/// Keeps what an agent tells, and answers up to which of the agent's numbers the daemon has everything that it will ever
/// take: what is not above what it had is a repetition; what is missing in between, the agent has lost.
///
/// # Errors
/// [`DbError::NotFound`] if there is no such agent.
pub fn keep(w: &mut Write<'_>, agent_id: Uuid, told: &[agent::Event]) -> Result<u64, DbError> {
    let kept: Option<i64> = w
        .tx()
        .prepare_cached("SELECT events_kept FROM agents WHERE id = ?1")?
        .query_row([agent_id.into_bytes()], |row| row.get(0))
        .optional()?;
    let before = kept.ok_or(DbError::NotFound("agent"))?;
    let mut in_order: Vec<_> =
        told.iter().filter_map(|event| Some((i64::try_from(event.number).ok()?, event))).collect();
    in_order.sort_by_key(|(number, _)| *number);
    let (mut kept, mut newest) = (before, 0);
    for (number, event) in in_order {
        if number <= kept {
            continue;
        }
        newest = insert(w, time_of(w, event), &from_agent(w.tx(), agent_id, event)?)?;
        kept = number;
    }
    if kept > before {
        let sql = "UPDATE agents SET events_kept = ?2 WHERE id = ?1";
        w.tx().prepare_cached(sql)?.execute(params![agent_id.into_bytes(), kept])?;
        drop_oldest(w, newest)?;
    }
    Ok(kept.unsigned_abs())
}

fn time_of(w: &Write<'_>, event: &agent::Event) -> i64 {
    i64::try_from(event.unix_millis).ok().filter(|time_ms| *time_ms > 0).unwrap_or(w.now_ms())
}

/// An agent tells of runs that it takes part in; whatever else it names is left out. The job is that of the run: an
/// agent may know it by another id (see [`crate::documents::assignment_id`]).
fn from_agent(db: &Connection, agent_id: Uuid, event: &agent::Event) -> Result<NewEvent, DbError> {
    let severity = match event.severity() {
        agent::event::Severity::Unspecified | agent::event::Severity::Info => Severity::Info,
        agent::event::Severity::Warning => Severity::Warning,
        agent::event::Severity::Error => Severity::Error,
        agent::event::Severity::Security => Severity::Security,
    };
    let sql = "SELECT id, job_id FROM runs WHERE id = ?1 AND EXISTS \
        (SELECT 1 FROM run_agents WHERE run_id = runs.id AND agent_id = ?2)";
    let run: Option<([u8; 16], [u8; 16])> = db
        .prepare_cached(sql)?
        .query_row(params![event.run_id, agent_id.into_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(NewEvent {
        severity,
        agent_id: Some(agent_id),
        job_id: run.map(|(_, job)| Uuid::from_bytes(job)),
        run_id: run.map(|(run, _)| Uuid::from_bytes(run)),
        message: event.message.clone(),
    })
}

/// Which events to list; `None`: whichever.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFilter {
    /// Those that matter so much.
    pub severity: Option<Severity>,
    /// Those of the agent.
    pub agent_id: Option<Uuid>,
    /// Those of the job.
    pub job_id: Option<Uuid>,
    /// Those of the run.
    pub run_id: Option<Uuid>,
}

/// The text of a query, and its values between the first and the last. Only what is asked for is in the text: so it is
/// answered from the index for it.
fn query(filter: &EventFilter, from: &str, order: &str) -> (String, Vec<Value>) {
    let mut sql = format!("SELECT {COLUMNS} FROM events WHERE {from}");
    let mut values = Vec::new();
    if let Some(severity) = filter.severity {
        // What is not for nothing has an index: most are `info`.
        let rare = if severity == Severity::Info { "" } else { " AND severity != 'info'" };
        sql.push_str(&format!(" AND severity = ?{rare}"));
        values.push(Value::from(severity.as_str().to_owned()));
    }
    for (column, id) in [("agent_id", filter.agent_id), ("job_id", filter.job_id), ("run_id", filter.run_id)]
    {
        if let Some(id) = id {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(Value::from(id.as_bytes().to_vec()));
        }
    }
    sql.push_str(&format!(" ORDER BY number {order} LIMIT ?"));
    (sql, values)
}

/// Events, the newest first, after the one named by the cursor.
///
/// # Errors
/// [`DbError::Invalid`] if the cursor is none.
pub fn list(
    db: &Connection,
    filter: &EventFilter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Event>, DbError> {
    let bad = |_| DbError::Invalid("'after' is not what an earlier page gave as 'next'".to_owned());
    let below: i64 = after.map_or(Ok(i64::MAX), |text| text.parse().map_err(bad))?;
    let (sql, mut values) = query(filter, "number < ?", "DESC");
    values.insert(0, below.into());
    values.push(one_more(limit).into());
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |event| event.number.to_string()))
}

/// What follows the events that somebody has.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The number of the oldest event that is kept; one above the newest if none is.
    pub oldest: u64,
    /// The number of the newest event, whether it is kept or not.
    pub newest: u64,
    /// Those of the filter, the oldest first.
    pub events: Vec<Event>,
}

/// Events above the number, the oldest first: for those who have all up to it.
///
/// # Errors
/// Of the database.
pub fn tail(db: &Connection, filter: &EventFilter, number: u64, limit: usize) -> Result<Tail, DbError> {
    let (sql, mut values) = query(filter, "number > ?", "ASC");
    values.insert(0, i64::try_from(number).unwrap_or(i64::MAX).into());
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), from_row)?;
    let newest = newest(db)?;
    let oldest: Option<i64> =
        db.prepare_cached("SELECT min(number) FROM events")?.query_row([], |row| row.get(0))?;
    Ok(Tail {
        oldest: oldest.map_or(newest.saturating_add(1), i64::unsigned_abs),
        newest,
        events: rows.collect::<Result<_, _>>()?,
    })
}

/// The number of the newest event, whether it is still kept or not, and 0 before the first.
///
/// # Errors
/// Of the database.
pub fn newest(db: &Connection) -> Result<u64, DbError> {
    let mut statement = db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?;
    let number: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(number.unwrap_or(0).unsigned_abs())
}

fn from_row(row: &Row<'_>) -> Result<Event, rusqlite::Error> {
    let id = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes));
    Ok(Event {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        time_ms: row.get(1)?,
        severity: parsed(row, 2, |text: String| Severity::from_word(&text))?,
        agent_id: id(3)?,
        job_id: id(4)?,
        run_id: id(5)?,
        message: row.get(6)?,
    })
}
