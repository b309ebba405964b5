//! Runs: a job, carried out once.
//!
//! Owns the tables `runs` and `run_agents`. Of a job one run goes on at a time. Who takes part is told when it starts
//! and stays so. What agents report is taken by the rules in `state`; when all destinations have ended the run has, and
//! nobody has anything more to do for it.

mod observed;
mod state;
#[cfg(test)]
mod tests;

pub use observed::report;
pub use state::{derived, observed};

use super::agents::{before_id, one_more, parsed};
use super::jobs::{self, Member, Members, Who, nothing_plain_where_none_may_be, resolve};
use super::{DbError, Write, keks, new_id};
use observed::{Row as AgentRow, rows_of};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealift_api::rest::limits::PARTS_OF_AGENT_MAX;
use sealift_api::rest::{Job, JobKind, Page, Run, RunAgent, RunAgentState, RunDetail, RunRole, RunState};
use serde_json::json;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Agents of whom something else may be desired now: see [`crate::documents::refresh`].
pub type Affected = BTreeSet<Uuid>;

/// Runs of one job that are kept.
pub const RUNS_OF_JOB_MAX: u32 = 1000;

const SELECT: &str = "SELECT runs.id, job_id, name, state, started_by, runs.version, runs.created_ms, ended_ms \
    FROM runs JOIN jobs ON jobs.id = job_id";

fn from_row(row: &Row<'_>) -> Result<Run, rusqlite::Error> {
    Ok(Run {
        id: Uuid::from_bytes(row.get(0)?),
        job_id: Uuid::from_bytes(row.get(1)?),
        job_name: row.get(2)?,
        state: parsed(row, 3, |text: String| RunState::from_word(&text))?,
        started_by: row.get(4)?,
        version: row.get(5)?,
        created_ms: row.get(6)?,
        ended_ms: row.get(7)?,
    })
}

/// A run.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get(db: &Connection, id: Uuid) -> Result<Run, DbError> {
    let sql = format!("{SELECT} WHERE runs.id = ?1");
    let found = db.prepare_cached(&sql)?.query_row([id.into_bytes()], from_row);
    found.optional()?.ok_or(DbError::NotFound("run"))
}

/// The run of a job that goes on, if one does.
///
/// # Errors
/// Of the database.
pub fn current(db: &Connection, job: Uuid) -> Result<Option<Run>, DbError> {
    let sql = format!("{SELECT} WHERE job_id = ?1 AND state IN ('running', 'paused')");
    Ok(db.prepare_cached(&sql)?.query_row([job.into_bytes()], from_row).optional()?)
}

/// The newest run of a job, if it has had any.
///
/// # Errors
/// Of the database.
pub fn newest(db: &Connection, job: Uuid) -> Result<Option<Run>, DbError> {
    let sql = format!("{SELECT} WHERE job_id = ?1 ORDER BY runs.id DESC LIMIT 1");
    Ok(db.prepare_cached(&sql)?.query_row([job.into_bytes()], from_row).optional()?)
}

/// Runs, of one job or all, the newest first, after the one named by the cursor.
///
/// # Errors
/// [`DbError::Invalid`] if the cursor is none.
pub fn list(
    db: &Connection,
    job: Option<Uuid>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Run>, DbError> {
    let below = before_id(after)?.into_bytes();
    let whose = if job.is_some() { "job_id = ?3" } else { "?3 IS NULL" };
    let sql = format!("{SELECT} WHERE runs.id < ?1 AND {whose} ORDER BY runs.id DESC LIMIT ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![below, one_more(limit), job.map(Uuid::into_bytes)], from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |run| run.id.to_string()))
}

/// Something that is another whenever a run is: cheap to ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    version: i64,
    newest_ms: i64,
    sums: [f64; 6],
}

/// The mark of a run as it is now.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn mark(db: &Connection, id: Uuid) -> Result<Mark, DbError> {
    // Sums beside the time: two changes may be of one millisecond. `total`, as agents may say numbers of any size.
    let sql = "SELECT version, max(updated_ms), total(updated_ms), total(bytes), total(bytes_known), \
        total(bytes_transferred), total(files), total(failed) + total(deleted) FROM runs \
        JOIN run_agents ON run_id = id WHERE id = ?1 GROUP BY id";
    let found = db.prepare_cached(sql)?.query_row([id.into_bytes()], |row| {
        let sums = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
        Ok(Mark { version: row.get(0)?, newest_ms: row.get(1)?, sums })
    });
    found.optional()?.ok_or(DbError::NotFound("run"))
}

/// A run and all who take part in it.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn detail(db: &Connection, id: Uuid) -> Result<RunDetail, DbError> {
    let run = get(db, id)?;
    let sql = "SELECT r.agent_id, a.name, r.source_id, s.name, role, path, r.state, files, bytes, bytes_known, \
        bytes_transferred, failed, deleted, message, addresses, updated_ms FROM run_agents r \
        JOIN agents a ON a.id = r.agent_id JOIN agents s ON s.id = r.source_id WHERE run_id = ?1 \
        ORDER BY role DESC, a.name, s.name";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([id.into_bytes()], |row| {
        let count = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        Ok(RunAgent {
            agent_id: Uuid::from_bytes(row.get(0)?),
            agent: parsed(row, 1, |text: String| text.try_into().ok())?,
            source_id: Uuid::from_bytes(row.get(2)?),
            source: parsed(row, 3, |text: String| text.try_into().ok())?,
            role: parsed(row, 4, |text: String| RunRole::from_word(&text))?,
            path: parsed(row, 5, |bytes: Vec<u8>| String::from_utf8(bytes).ok())?,
            state: parsed(row, 6, |text: String| RunAgentState::from_word(&text))?,
            files: count(7)?,
            bytes: count(8)?,
            bytes_known: count(9)?,
            bytes_transferred: count(10)?,
            failed: count(11)?,
            deleted: count(12)?,
            message: row.get(13)?,
            addresses: parsed(row, 14, |text: String| serde_json::from_str(&text).ok())?,
            updated_ms: row.get(15)?,
        })
    })?;
    Ok(RunDetail { run, agents: rows.collect::<Result<_, _>>()? })
}

/// Starts a run: tells who takes part, and makes keys for sources that have none yet.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if a run of the job goes on, an agent that the job names is not
/// approved, or nobody is left on a side; [`DbError::Invalid`] if the job names what is not there any more.
pub fn start(w: &mut Write<'_>, job: Uuid) -> Result<(Run, Affected), DbError> {
    let job = jobs::get(w.tx(), job)?;
    if current(w.tx(), job.id)?.is_some() {
        return Err(DbError::Conflict(format!("a run of the job {} goes on already", job.name)));
    }
    let members = resolve(w.tx(), &job.spec, Who::Approved)?;
    nothing_plain_where_none_may_be(w.tx(), &job.spec, &members)?;
    jobs::ensure(w, &job, &members.sources)?;
    forget_oldest(w, job.id)?;
    let id = new_id();
    w.tx().execute(
        "INSERT INTO runs (id, job_id, state, started_by, created_ms) VALUES (?1, ?2, 'running', ?3, ?4)",
        params![id.into_bytes(), job.id.into_bytes(), w.by().who, w.now_ms()],
    )?;
    keks::run_started(w, &job, id)?;
    let affected = take_part(w, id, &job, &members)?;
    nobody_has_too_many_parts(w.tx())?;
    let after = json!({
        "job": { "id": job.id, "name": job.name }, "epoch": job.epoch,
        "sources": members.sources.len(), "destinations": members.destinations.len(),
    });
    w.audit("run.start", &subject(id), None, Some(after))?;
    Ok((get(w.tx(), id)?, affected))
}

fn take_part(w: &mut Write<'_>, run: Uuid, job: &Job, members: &Members) -> Result<Affected, DbError> {
    let mut affected = Affected::new();
    for source in &members.sources {
        insert(w, run, source, source, RunRole::Source, &source.path)?;
        affected.insert(source.id);
        for destination in &members.destinations {
            let path = match job.spec.kind {
                JobKind::Distribution => destination.path.clone(),
                // A name is one part of a path, and neither '.' nor '..'.
                JobKind::Consolidation => {
                    format!("{}/{}", destination.path.trim_end_matches('/'), source.name)
                }
            };
            insert(w, run, destination, source, RunRole::Destination, &path)?;
            affected.insert(destination.id);
        }
    }
    Ok(affected)
}

fn insert(
    w: &Write<'_>,
    run: Uuid,
    agent: &Member,
    source: &Member,
    role: RunRole,
    path: &str,
) -> Result<(), DbError> {
    let sql = "INSERT INTO run_agents (run_id, agent_id, source_id, role, path, state, updated_ms) \
        VALUES (?1, ?2, ?3, ?4, ?5, 'waiting', ?6)";
    let (run, agent, source) = (run.into_bytes(), agent.id.into_bytes(), source.id.into_bytes());
    w.tx().prepare_cached(sql)?.execute(params![
        run,
        agent,
        source,
        role.as_str(),
        path.as_bytes(),
        w.now_ms()
    ])?;
    Ok(())
}

fn nobody_has_too_many_parts(db: &Connection) -> Result<(), DbError> {
    let sql = "SELECT name FROM runs CROSS JOIN run_agents r ON r.run_id = runs.id JOIN agents ON agents.id = r.agent_id \
        WHERE runs.state IN ('running', 'paused') GROUP BY r.agent_id HAVING count(*) > ?1 LIMIT 1";
    let most = i64::try_from(PARTS_OF_AGENT_MAX).unwrap_or(i64::MAX);
    let name: Option<String> = db.prepare_cached(sql)?.query_row([most], |row| row.get(0)).optional()?;
    name.map_or(Ok(()), |name| {
        Err(DbError::Conflict(format!(
            "the agent {name} would have more than {PARTS_OF_AGENT_MAX} parts in runs that go on"
        )))
    })
}

fn forget_oldest(w: &Write<'_>, job: Uuid) -> Result<(), DbError> {
    let sql = "DELETE FROM runs WHERE job_id = ?1 AND id <= (SELECT id FROM runs WHERE job_id = ?1 \
        ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    w.tx().execute(sql, params![job.into_bytes(), RUNS_OF_JOB_MAX - 1])?;
    Ok(())
}

/// Pauses a run.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it does not run.
pub fn pause(w: &mut Write<'_>, id: Uuid) -> Result<(Run, Affected), DbError> {
    change(w, id, &[RunState::Running], RunState::Paused, "run.pause")
}

/// Lets a paused run go on.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is not paused.
pub fn resume(w: &mut Write<'_>, id: Uuid) -> Result<(Run, Affected), DbError> {
    change(w, id, &[RunState::Paused], RunState::Running, "run.resume")
}

/// Ends a run. What has not ended in it was stopped.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it has ended.
pub fn stop(w: &mut Write<'_>, id: Uuid) -> Result<(Run, Affected), DbError> {
    let (_, affected) = change(w, id, &[RunState::Running, RunState::Paused], RunState::Stopped, "run.stop")?;
    w.tx().execute("UPDATE runs SET ended_ms = ?2 WHERE id = ?1", params![id.into_bytes(), w.now_ms()])?;
    for row in rows_of(w.tx(), id)?.iter().filter(|row| !row.state.is_over()) {
        set_state(w, id, row, RunAgentState::Stopped, "")?;
    }
    Ok((get(w.tx(), id)?, affected))
}

fn change(
    w: &mut Write<'_>,
    id: Uuid,
    from: &[RunState],
    to: RunState,
    action: &str,
) -> Result<(Run, Affected), DbError> {
    let before = get(w.tx(), id)?;
    if !from.contains(&before.state) {
        return Err(DbError::Conflict(format!("the run is {}", before.state)));
    }
    let sql = "UPDATE runs SET state = ?2, version = version + 1 WHERE id = ?1";
    w.tx().execute(sql, params![id.into_bytes(), to.as_str()])?;
    let of = |state: RunState| Some(json!({ "state": state }));
    w.audit(action, &subject(id), of(before.state), of(to))?;
    let affected = rows_of(w.tx(), id)?.iter().map(|row| row.agent).collect();
    Ok((get(w.tx(), id)?, affected))
}

fn set_state(
    w: &Write<'_>,
    run: Uuid,
    row: &AgentRow,
    state: RunAgentState,
    message: &str,
) -> Result<(), DbError> {
    let sql = "UPDATE run_agents SET state = ?5, message = CASE WHEN ?6 = '' THEN message ELSE ?6 END, \
        updated_ms = ?7 WHERE run_id = ?1 AND agent_id = ?2 AND source_id = ?3 AND role = ?4";
    w.tx().prepare_cached(sql)?.execute(params![
        run.into_bytes(),
        row.agent.into_bytes(),
        row.source.into_bytes(),
        row.role.as_str(),
        state.as_str(),
        message,
        w.now_ms()
    ])?;
    Ok(())
}

/// Refuses that an agent takes ciphertext alone while a run places plaintext there.
///
/// # Errors
/// [`DbError::Conflict`]: which.
pub(super) fn nothing_plain_under_way(db: &Connection) -> Result<(), DbError> {
    let sql = "SELECT agent_id, jobs.name FROM runs JOIN run_agents r ON r.run_id = runs.id JOIN jobs ON jobs.id = job_id \
        WHERE runs.state IN ('running', 'paused') AND role = 'destination' \
        AND r.state IN ('waiting', 'running', 'paused') \
        AND coalesce(json_array_length(jobs.spec, '$.seal_to'), 0) = 0";
    let sealing = super::agents::that_take_ciphertext_alone(db)?;
    if sealing.is_empty() {
        return Ok(());
    }
    let mut statement = db.prepare_cached(sql)?;
    let rows =
        statement.query_map([], |row| Ok((Uuid::from_bytes(row.get(0)?), row.get::<_, String>(1)?)))?;
    for row in rows {
        let (agent, job) = row?;
        if sealing.contains(&agent) {
            let what = format!("a run of the job {job} places plaintext there: stop it first");
            return Err(DbError::Conflict(what));
        }
    }
    Ok(())
}

/// What a revoked agent had to do in runs that go on has failed.
pub(super) fn agent_was_revoked(w: &mut Write<'_>, agent: Uuid) -> Result<Affected, DbError> {
    let sql = "SELECT id FROM runs WHERE state IN ('running', 'paused') AND EXISTS \
        (SELECT 1 FROM run_agents WHERE run_id = runs.id AND agent_id = ?1) ORDER BY id";
    let mut statement = w.tx().prepare(sql)?;
    let ids = statement.query_map([agent.into_bytes()], |row| Ok(Uuid::from_bytes(row.get(0)?)))?;
    let runs: Vec<_> = ids.collect::<Result<_, _>>()?;
    drop(statement);
    let mut affected = Affected::new();
    for run in runs {
        for row in rows_of(w.tx(), run)?.iter().filter(|row| row.agent == agent && !row.state.is_over()) {
            set_state(w, run, row, RunAgentState::Failed, "the agent was revoked")?;
            affected.insert(row.source);
        }
        affected.append(&mut observed::settle(w, run)?);
    }
    Ok(affected)
}

/// As the audit log names a run.
fn subject(id: Uuid) -> String {
    format!("run:{id}")
}
