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

use super::{Actor, DbError};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sealift_api::rest::{AuditRecord, Page};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A signed checkpoint covers at most so many records more than the one before.
pub const CHECKPOINT_EVERY: i64 = 256;

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

/// The newest records, newest first; with a cursor, those that come after the page that it ended.
///
/// # Errors
/// [`DbError::Invalid`] if the cursor is none.
pub fn page(
    file: &Connection,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<AuditRecord>, DbError> {
    let before: i64 = after
        .map_or(Ok(i64::MAX), str::parse)
        .map_err(|_| DbError::Invalid("the cursor is none of this list".into()))?;
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let (sql, values) = query(filter, &before, &one_more);
    let mut statement = file.prepare_cached(&sql)?;
    let records = statement.query_map(&values[..], record)?.collect::<Result<_, _>>()?;
    Ok(Page::of(records, limit, |record: &AuditRecord| record.number.to_string()))
}

/// Only what is asked for is in the text: so it is answered from the index for it.
fn query<'a>(filter: &'a Filter, before: &'a i64, limit: &'a i64) -> (String, Vec<&'a dyn ToSql>) {
    let mut sql = String::from(
        "SELECT number, time_ms, actor, address, request_id, action, subject, before, after, hash FROM audit \
         WHERE number < ?",
    );
    let mut values: Vec<&dyn ToSql> = vec![before];
    if let Some(prefix) = &filter.action_prefix {
        // Whatever begins so is not above it, followed by the highest character.
        sql.push_str(" AND action >= ? AND action < ? || char(0x10ffff)");
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
    values.push(limit);
    (sql, values)
}

fn record(row: &Row<'_>) -> Result<AuditRecord, rusqlite::Error> {
    Ok(AuditRecord {
        number: row.get(0)?,
        time_ms: row.get(1)?,
        actor: row.get(2)?,
        address: row.get(3)?,
        request_id: Uuid::from_bytes(row.get(4)?),
        action: row.get(5)?,
        subject: row.get(6)?,
        before: row.get(7)?,
        after: row.get(8)?,
        hash: HEXLOWER.encode(&row.get::<_, Hash>(9)?),
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
