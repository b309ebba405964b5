//! Records out: the newest first, along one index.

use super::{LogStore, blob};
use crate::db::DbError;
use crate::db::agents::parsed;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use sealift_api::rest::{LogRecord, Page, Severity};
use uuid::Uuid;

/// Records that one question looks at: about a tenth of a second.
pub(super) const LOOKED_AT_MAX: usize = 100_000;

const COLUMNS: &str =
    "number, time_ms, received_ms, severity, agent_id, job_id, run_id, target, message, fields";

/// Which records; `None`: whichever.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// Those of the agent.
    pub agent_id: Option<Uuid>,
    /// Those of the job.
    pub job_id: Option<Uuid>,
    /// Those of the run.
    pub run_id: Option<Uuid>,
    /// Those that matter so much.
    pub severity: Option<Severity>,
    /// Of this time or later.
    pub from_ms: Option<i64>,
    /// Of before this time.
    pub until_ms: Option<i64>,
    /// Those with this text, in whatever case, in message, target or fields.
    pub text: Option<String>,
}

/// Where a record is in the order of the list.
type Place = (i64, i64);

impl LogStore {
    /// Records, the newest first, after the one named by the cursor. A page may have fewer than asked for, or none, and
    /// yet a next one: then so many were looked at that it is the caller's turn to say whether to go on.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the cursor is none.
    pub fn list(
        &self,
        filter: &LogFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<LogRecord>, DbError> {
        self.list_within(filter, after, limit, LOOKED_AT_MAX)
    }

    pub(super) fn list_within(
        &self,
        filter: &LogFilter,
        after: Option<&str>,
        limit: usize,
        looked_at_max: usize,
    ) -> Result<Page<LogRecord>, DbError> {
        let after = after.map(place).transpose()?;
        self.read(|db| list(db, filter, after, limit, looked_at_max))
    }
}

fn place(cursor: &str) -> Result<Place, DbError> {
    let parts = cursor.split_once('.');
    parts
        .and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)))
        .ok_or_else(|| DbError::Invalid("'after' is not what an earlier page gave as 'next'".into()))
}

fn list(
    db: &Connection,
    filter: &LogFilter,
    after: Option<Place>,
    limit: usize,
    looked_at_max: usize,
) -> Result<Page<LogRecord>, DbError> {
    // Before the cursor, and before the time: whichever is less.
    let below = [after, filter.until_ms.map(|until| (until, 0))].into_iter().flatten().min();
    let (time, number) = below.unwrap_or((i64::MAX, i64::MAX));
    let mut values: Vec<Value> = vec![filter.from_ms.unwrap_or(i64::MIN).into(), time.into(), number.into()];
    let id = |id: Uuid| Value::Blob(blob(id).to_vec());
    // One condition with an index; the others are judged record by record, and counted.
    let indexed = match filter {
        LogFilter { run_id: Some(run), .. } => Some(("run_id = ?4", id(*run))),
        LogFilter { job_id: Some(job), .. } => Some(("job_id = ?4", id(*job))),
        LogFilter { severity: Some(severity), .. } if *severity != Severity::Info => {
            Some(("severity > 1 AND severity = ?4", code(*severity).into()))
        }
        LogFilter { agent_id: Some(agent), .. } => Some(("agent_id = ?4", id(*agent))),
        _ => None,
    };
    let condition = match indexed {
        Some((condition, value)) => {
            values.push(value);
            condition
        }
        None => "1",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM logs WHERE {condition} AND time_ms >= ?1 AND time_ms <= ?2 \
            AND (time_ms, number) < (?2, ?3) ORDER BY time_ms DESC, number DESC"
    );
    let text = filter.text.as_deref().map(str::to_lowercase);
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut items, mut looked_at) = (Vec::new(), 0);
    let mut last = None;
    while let Some(row) = rows.next()? {
        if items.len() == limit || looked_at == looked_at_max {
            return Ok(Page { items, next: last });
        }
        looked_at += 1;
        last = Some(format!("{}.{}", row.get::<_, i64>(1)?, row.get::<_, i64>(0)?));
        let record = from_row(row)?;
        if fits(&record, filter, text.as_deref()) {
            items.push(record);
        }
    }
    Ok(Page { items, next: None })
}

fn fits(record: &LogRecord, filter: &LogFilter, text: Option<&str>) -> bool {
    let is = |wanted: Option<Uuid>, has: Option<Uuid>| wanted.is_none_or(|wanted| has == Some(wanted));
    let has = |text: &str| {
        let within = |part: &str| part.to_lowercase().contains(text);
        within(&record.message)
            || within(&record.target)
            || record.fields.iter().any(|field| within(&field.name) || within(&field.value))
    };
    is(filter.agent_id, Some(record.agent_id))
        && is(filter.job_id, record.job_id)
        && is(filter.run_id, record.run_id)
        && filter.severity.is_none_or(|severity| record.severity == severity)
        && text.is_none_or(has)
}

fn from_row(row: &Row<'_>) -> Result<LogRecord, rusqlite::Error> {
    let id = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes));
    Ok(LogRecord {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        time_ms: row.get(1)?,
        received_ms: row.get(2)?,
        severity: parsed(row, 3, severity)?,
        agent_id: Uuid::from_bytes(row.get(4)?),
        job_id: id(5)?,
        run_id: id(6)?,
        target: row.get(7)?,
        message: row.get(8)?,
        fields: parsed(row, 9, |text: String| serde_json::from_str(&text).ok())?,
    })
}

pub(super) fn code(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Error => 3,
        Severity::Security => 4,
    }
}

fn severity(code: i64) -> Option<Severity> {
    Severity::ALL.iter().copied().find(|severity| self::code(*severity) == code)
}
