//! The audit: who did what, from where, before and after. A chain, so that no record can be changed unnoticed.
//!
//! Owns the tables `audit` and `audit_checkpoints`, and the bytes that are hashed and signed:
//!
//! ```text
//! hash of a record   SHA-256 of: domain, hash of the record before (32 bytes; zeroes before the first), number (8, big
//!                    endian), time (8), then each other column in the order of the table: a byte 0 if it is NULL; else a
//!                    byte 1, its length (8), its bytes
//! checkpoint         Ed25519 over: domain, number (8), hash of that record (32)
//! ```
//!
//! The chain shows that a record was changed if a later hash is known; a checkpoint shows it also if all later hashes were
//! made anew, which needs no secret. There is one every [`CHECKPOINT_EVERY`] records, and whenever it is asked for. That the
//! newest records were cut off shows only by a checkpoint that was kept elsewhere.

mod checkpoint;
#[cfg(test)]
mod tests;
mod verify;

pub use checkpoint::{Checkpoint, checkpoint, public_key};
pub(super) use verify::verify_connection;
pub use verify::{Bad, Outside, Report, verify, verify_against};

use super::{Actor, Db, DbError};
use ed25519_dalek::SigningKey;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A signed checkpoint covers at most so many records more than the one before.
pub const CHECKPOINT_EVERY: i64 = 256;
/// How many records one page holds at most.
pub const PAGE_MAX: u32 = 1000;

const RECORD_DOMAIN: &[u8] = b"sealift-control audit record 1";

/// The hash of a record, or of all up to it.
pub type Hash = [u8; 32];

/// What is to be recorded.
pub(super) struct Entry<'a> {
    pub(super) by: &'a Actor,
    pub(super) action: &'a str,
    pub(super) subject: &'a str,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Something that was done, or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// From 1, without gaps.
    pub number: i64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// Who: see [`Actor::who`].
    pub actor: String,
    /// From which IP address; empty if from the daemon's own host.
    pub address: String,
    /// In which request.
    pub request_id: Uuid,
    /// What: `job.create`, `login.refused` and so on.
    pub action: String,
    /// To what: `user:NAME`, `job:NAME` and so on.
    pub subject: String,
    /// What it was.
    pub before: Option<Value>,
    /// What it became, or why it was refused.
    pub after: Option<Value>,
    /// The record's own hash.
    pub hash: Hash,
}

/// Which records are asked for: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Their action begins so: `login.`, or is this.
    pub action_prefix: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// To this subject.
    pub subject: Option<String>,
    /// At this time or later, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Earlier than this time, in milliseconds since 1970.
    pub until_ms: Option<i64>,
}

/// The newest records, newest first: those with a number below `before`, at most `limit` and [`PAGE_MAX`]. The next page
/// begins before the last one's number.
///
/// # Errors
/// If the database cannot be read.
pub fn page(db: &Db, filter: &Filter, before: Option<i64>, limit: u32) -> Result<Vec<Record>, DbError> {
    let limit = limit.min(PAGE_MAX);
    let before = before.unwrap_or(i64::MAX);
    let mut sql = String::from(
        "SELECT number, time_ms, actor, address, request_id, action, subject, before, after, hash FROM audit \
         WHERE number < ?",
    );
    let mut values: Vec<&dyn ToSql> = vec![&before];
    if let Some(prefix) = &filter.action_prefix {
        sql.push_str(" AND substr(action, 1, length(?)) = ?");
        values.extend([prefix as &dyn ToSql, prefix]);
    }
    if let Some(actor) = &filter.actor {
        sql.push_str(" AND actor = ?");
        values.push(actor);
    }
    if let Some(subject) = &filter.subject {
        sql.push_str(" AND subject = ?");
        values.push(subject);
    }
    if let Some(from) = &filter.from_ms {
        sql.push_str(" AND time_ms >= ?");
        values.push(from);
    }
    if let Some(until) = &filter.until_ms {
        sql.push_str(" AND time_ms < ?");
        values.push(until);
    }
    sql.push_str(" ORDER BY number DESC LIMIT ?");
    values.push(&limit);
    db.read(|file| {
        let mut statement = file.prepare_cached(&sql)?;
        let mut rows = statement.query(&values[..])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(record(row)?);
        }
        Ok(records)
    })
}

fn record(row: &Row<'_>) -> Result<Record, DbError> {
    let number = row.get("number")?;
    let json = |column| -> Result<Option<Value>, DbError> {
        let text: Option<String> = row.get(column)?;
        let value = text.map(|text| serde_json::from_str(&text)).transpose();
        value.map_err(|_| DbError::Damaged(format!("audit record {number} does not hold JSON")))
    };
    Ok(Record {
        number,
        time_ms: row.get("time_ms")?,
        actor: row.get("actor")?,
        address: row.get("address")?,
        request_id: Uuid::from_bytes(row.get("request_id")?),
        action: row.get("action")?,
        subject: row.get("subject")?,
        before: json("before")?,
        after: json("after")?,
        hash: row.get("hash")?,
    })
}

/// Adds a record, and a checkpoint if it is time for one. The caller's transaction is the only one that writes.
pub(super) fn append(
    tx: &Connection,
    now_ms: i64,
    key: &SigningKey,
    entry: Entry<'_>,
) -> Result<(), DbError> {
    let Entry { by, action, subject, before, after } = entry;
    let (last, previous) = head(tx)?.unwrap_or_default();
    let number = last + 1;
    let request_id = by.request_id.as_bytes().as_slice();
    let before = before.map(|value| value.to_string());
    let after = after.map(|value| value.to_string());
    let hash = hash_of(
        &previous,
        number,
        now_ms,
        [
            Some(by.who.as_bytes()),
            Some(by.address.as_bytes()),
            Some(request_id),
            Some(action.as_bytes()),
            Some(subject.as_bytes()),
            before.as_deref().map(str::as_bytes),
            after.as_deref().map(str::as_bytes),
        ],
    );
    tx.prepare_cached(
        "INSERT INTO audit (number, time_ms, actor, address, request_id, action, subject, before, after, hash) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute((number, now_ms, &by.who, &by.address, request_id, action, subject, &before, &after, hash))?;
    if number % CHECKPOINT_EVERY == 0 {
        checkpoint::put(tx, now_ms, key, number, &hash)?;
    }
    Ok(())
}

/// The newest record's number and hash.
fn head(file: &Connection) -> Result<Option<(i64, Hash)>, DbError> {
    let mut statement = file.prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// The columns are: actor, address, request id, action, subject, before, after.
fn hash_of(previous: &Hash, number: i64, time_ms: i64, columns: [Option<&[u8]>; 7]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(RECORD_DOMAIN);
    hash.update(previous);
    hash.update(number.to_be_bytes());
    hash.update(time_ms.to_be_bytes());
    for column in columns {
        match column {
            None => hash.update([0]),
            Some(bytes) => {
                hash.update([1]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            }
        }
    }
    hash.finalize().into()
}
