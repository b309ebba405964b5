//! How much there is of everything, for those who watch.

use super::{DbError, events};
use rusqlite::Connection;
use sealift_api::rest::{AgentState, RunState};

/// How much there is.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Agents, by state.
    pub agents: Vec<(AgentState, i64)>,
    /// Runs that are kept, by state.
    pub runs: Vec<(RunState, i64)>,
    /// At the destinations of runs that go on: what, and how many bytes of it.
    pub bytes: [(&'static str, f64); 3],
    /// Jobs.
    pub jobs: i64,
    /// Records in the audit.
    pub audit: i64,
    /// The number of the newest event.
    pub newest_event: u64,
    /// Of the database.
    pub bytes_of_file: i64,
}

/// Counts everything.
///
/// # Errors
/// Of the database.
pub fn tally(db: &Connection) -> Result<Tally, DbError> {
    let count = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let of = |sql: &str, word: &str| db.prepare_cached(sql)?.query_row([word], |row| row.get::<_, i64>(0));
    let agents = AgentState::ALL
        .iter()
        .map(|state| Ok((*state, of("SELECT count(*) FROM agents WHERE state = ?1", state.as_str())?)));
    let runs = RunState::ALL
        .iter()
        .map(|state| Ok((*state, of("SELECT count(*) FROM runs WHERE state = ?1", state.as_str())?)));
    // `total`, as agents may say numbers of any size.
    let sql = "SELECT total(bytes), total(bytes_known), total(bytes_transferred) FROM runs JOIN run_agents \
        ON run_id = id WHERE runs.state IN ('running', 'paused') AND role = 'destination'";
    let bytes = db.prepare_cached(sql)?.query_row([], |row| {
        Ok([("arrived", row.get(0)?), ("known", row.get(1)?), ("transferred", row.get(2)?)])
    })?;
    Ok(Tally {
        agents: agents.collect::<Result<_, rusqlite::Error>>()?,
        runs: runs.collect::<Result<_, rusqlite::Error>>()?,
        bytes,
        jobs: count("SELECT count(*) FROM jobs WHERE deleted_ms IS NULL")?,
        audit: count("SELECT coalesce(max(number), 0) FROM audit")?,
        newest_event: events::newest(db)?,
        bytes_of_file: count("PRAGMA page_count")? * count("PRAGMA page_size")?,
    })
}
