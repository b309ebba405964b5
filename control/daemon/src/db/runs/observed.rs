//! What agents report of runs, taken into them.

use super::state::{derived, observed, source_at_end};
use super::{Affected, get, set_state, subject};
use crate::db::agents::{parsed, shortened};
use crate::db::events::{self, NewEvent};
use crate::db::{DbError, Write, keks};
use crate::documents::assignment_id;
use rusqlite::{Connection, OptionalExtension as _, params};
use sealift_api::agent::JobStatus;
use sealift_api::rest::limits::ADDRESSES_MAX;
use sealift_api::rest::{JobKind, RunAgentState, RunRole, RunState, Severity};
use sealift_proto::ticket::Address;
use serde_json::json;
use uuid::Uuid;

/// An agent's part in a run.
pub(super) struct Row {
    pub(super) agent: Uuid,
    pub(super) source: Uuid,
    pub(super) role: RunRole,
    pub(super) state: RunAgentState,
    message: String,
    addresses: Vec<String>,
}

const SELECT: &str =
    "SELECT agent_id, source_id, role, state, message, addresses FROM run_agents WHERE run_id = ?1";

/// Asked for with every report.
const RUN_OF: &str =
    "SELECT runs.state, jobs.id, jobs.kind FROM runs JOIN jobs ON jobs.id = job_id WHERE runs.id = ?1";

/// Done with every report: no column of it is in an index.
const PROGRESS: &str = "UPDATE run_agents SET files = ?5, bytes = ?6, bytes_known = ?7, bytes_transferred = ?8, \
    failed = ?9, deleted = ?10, updated_ms = ?11 \
    WHERE run_id = ?1 AND agent_id = ?2 AND source_id = ?3 AND role = ?4";

fn from_row(row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    Ok(Row {
        agent: Uuid::from_bytes(row.get(0)?),
        source: Uuid::from_bytes(row.get(1)?),
        role: parsed(row, 2, |text: String| RunRole::from_word(&text))?,
        state: parsed(row, 3, |text: String| RunAgentState::from_word(&text))?,
        message: row.get(4)?,
        addresses: parsed(row, 5, |text: String| serde_json::from_str(&text).ok())?,
    })
}

/// All who take part in a run.
pub(super) fn rows_of(db: &Connection, run: Uuid) -> Result<Vec<Row>, DbError> {
    let mut statement = db.prepare_cached(SELECT)?;
    let rows = statement.query_map([run.into_bytes()], from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Takes what an agent observes of its runs. What is not its own, or not known, is passed over.
///
/// # Errors
/// Of the database.
pub fn report(w: &mut Write<'_>, agent: Uuid, said: &[JobStatus]) -> Result<Affected, DbError> {
    let mut affected = Affected::new();
    for status in said {
        let Ok(run) = Uuid::from_slice(&status.run_id) else { continue };
        let Some((row, run_state)) = row_of(w.tx(), run, agent, &status.job_id)? else { continue };
        if run_state.is_over() || row.state.is_over() {
            continue;
        }
        let state = observed(run_state, row.state, status.state());
        let mut addresses = match row.role {
            RunRole::Source => addresses_of(status),
            RunRole::Destination => Vec::new(),
        };
        // A source that begins again listens nowhere for a moment: its destinations wait for it, and need not be stopped.
        if addresses.is_empty() {
            addresses.clone_from(&row.addresses);
        }
        keep(w, run, &row, state, status, &addresses)?;
        if addresses != row.addresses {
            affected.extend(destinations_of(w.tx(), run, row.source)?);
        }
        if state.is_over() {
            affected.extend([row.agent, row.source]);
            // A thousand destinations end one by one: all are looked at for a source, and for the last of them.
            if row.role == RunRole::Source || !has_more_to_do(w.tx(), run)? {
                affected.append(&mut settle(w, run)?);
            }
        }
    }
    Ok(affected)
}

/// The part that a status is about, and how its run stands.
fn row_of(
    db: &Connection,
    run: Uuid,
    agent: Uuid,
    assignment: &[u8],
) -> Result<Option<(Row, RunState)>, DbError> {
    let found = db.prepare_cached(RUN_OF)?.query_row([run.into_bytes()], |row| {
        let state = parsed(row, 0, |text: String| RunState::from_word(&text))?;
        let kind = parsed(row, 2, |text: String| JobKind::from_word(&text))?;
        Ok((state, Uuid::from_bytes(row.get(1)?), kind))
    });
    let Some((run_state, job, kind)) = found.optional()? else { return Ok(None) };
    let mut statement = db.prepare_cached(&format!("{SELECT} AND agent_id = ?2"))?;
    for row in statement.query_map(params![run.into_bytes(), agent.into_bytes()], from_row)? {
        let row = row?;
        if assignment_id(kind, job, row.source).as_bytes() == assignment {
            return Ok(Some((row, run_state)));
        }
    }
    Ok(None)
}

/// Where a source says that it is reached: what can be an address, and not too many.
fn addresses_of(status: &JobStatus) -> Vec<String> {
    let is_address = |text: &&String| text.parse::<Address>().is_ok();
    status.addresses.iter().filter(is_address).take(ADDRESSES_MAX).cloned().collect()
}

fn keep(
    w: &Write<'_>,
    run: Uuid,
    row: &Row,
    state: RunAgentState,
    status: &JobStatus,
    addresses: &[String],
) -> Result<(), DbError> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    w.tx().prepare_cached(PROGRESS)?.execute(params![
        run.into_bytes(),
        row.agent.into_bytes(),
        row.source.into_bytes(),
        row.role.as_str(),
        count(status.files),
        count(status.bytes),
        count(status.bytes_known),
        count(status.bytes_transferred),
        count(status.failed),
        count(status.deleted),
        w.now_ms()
    ])?;
    let message = shortened(&status.message);
    // Seldom anything else is new; what it would cost is an index.
    if state == row.state && message == row.message && addresses == row.addresses {
        return Ok(());
    }
    let sql = "UPDATE run_agents SET state = ?5, message = ?6, addresses = ?7 \
        WHERE run_id = ?1 AND agent_id = ?2 AND source_id = ?3 AND role = ?4";
    w.tx().prepare_cached(sql)?.execute(params![
        run.into_bytes(),
        row.agent.into_bytes(),
        row.source.into_bytes(),
        row.role.as_str(),
        state.as_str(),
        message,
        json!(addresses).to_string(),
    ])?;
    Ok(())
}

/// Whether any destination of a run has not ended.
fn has_more_to_do(db: &Connection, run: Uuid) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM run_agents WHERE run_id = ?1 AND role = 'destination' \
        AND state IN ('waiting', 'running', 'paused'))";
    Ok(db.prepare_cached(sql)?.query_row([run.into_bytes()], |row| row.get(0))?)
}

fn destinations_of(db: &Connection, run: Uuid, source: Uuid) -> Result<Affected, DbError> {
    let is_its = |row: &Row| row.role == RunRole::Destination && row.source == source;
    Ok(rows_of(db, run)?.into_iter().filter(is_its).map(|row| row.agent).collect())
}

/// Draws the conclusions from how the agents of a run stand: without its source a destination fails, and without
/// destinations that have anything to do the run is over.
pub(super) fn settle(w: &mut Write<'_>, run: Uuid) -> Result<Affected, DbError> {
    let mut affected = Affected::new();
    let mut rows = rows_of(w.tx(), run)?;
    let gone: Vec<(Uuid, String)> = rows
        .iter()
        .filter(|row| row.role == RunRole::Source)
        .filter(|row| matches!(row.state, RunAgentState::Failed | RunAgentState::Stopped))
        .map(|row| (row.source, format!("the source {}: {}", row.state, row.message)))
        .collect();
    for row in rows.iter_mut().filter(|row| row.role == RunRole::Destination && !row.state.is_over()) {
        let Some((_, why)) = gone.iter().find(|(source, _)| *source == row.source) else { continue };
        set_state(w, run, row, RunAgentState::Failed, &shortened(why))?;
        row.state = RunAgentState::Failed;
        affected.extend([row.agent, row.source]);
    }
    let before = get(w.tx(), run)?;
    let state = derived(before.state, rows.iter().map(|row| (row.role, row.state)));
    if state == before.state {
        return Ok(affected);
    }
    for row in rows.iter().filter(|row| !row.state.is_over()) {
        set_state(w, run, row, source_at_end(state), "")?;
    }
    affected.extend(rows.iter().map(|row| row.agent));
    w.tx().execute(
        "UPDATE runs SET state = ?2, ended_ms = ?3, version = version + 1 WHERE id = ?1",
        params![run.into_bytes(), state.as_str(), w.now_ms()],
    )?;
    if state == RunState::Done {
        keks::run_done(w, before.job_id, run)?;
    }
    let of = |state: RunState| Some(json!({ "state": state }));
    w.audit("run.end", &subject(run), of(before.state), of(state))?;
    let severity = match state {
        RunState::Partial => Severity::Warning,
        RunState::Failed => Severity::Error,
        RunState::Running | RunState::Paused | RunState::Done | RunState::Stopped => Severity::Info,
    };
    let message = format!("the run of the job {} is {state}", before.job_name);
    let event =
        NewEvent { job_id: Some(before.job_id), run_id: Some(run), ..NewEvent::new(severity, message) };
    events::append(w, &event)?;
    Ok(affected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::agents::world::World;

    /// What is asked for with every report finds its row by a key, however many there are.
    #[test]
    fn no_report_reads_a_table() {
        let world = World::new();
        let of_agent = format!("{SELECT} AND agent_id = ?2");
        for sql in [RUN_OF, PROGRESS, &of_agent, crate::db::agents::SEEN] {
            let plan: Vec<String> = world.read(|db| {
                let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let values = vec![0; statement.parameter_count()];
                let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?;
                Ok(rows.collect::<Result<_, _>>()?)
            });
            assert!(!plan.is_empty(), "{sql}");
            for step in plan {
                let by_key = step.contains("PRIMARY KEY") || step.contains("(agent_id=? AND run_id=?)");
                assert!(step.starts_with("SEARCH") && by_key, "{sql}: {step}");
            }
        }
    }
}
