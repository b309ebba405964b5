//! Requests that are sent twice: what was answered to the first, so that the second changes nothing.
//!
//! Owns the table `idempotency`. A request that brings a key leaves its answer here, in the transaction of its change: the
//! one is there if and only if the other is. Answers are sealed under the master key, since that of a token has the
//! token's secret. Of the request only a keyed hash is kept, as a password may be in it.

#[cfg(test)]
mod tests;

use super::{Db, DbError, MasterKey, Write};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long an answer is kept.
pub const KEPT_MS: i64 = 24 * 3_600_000;
/// Answers kept for one user: of more than these the oldest go.
const OF_USER_MAX: i64 = 1000;

/// A request that brought a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    user: Uuid,
    key: String,
    hash: [u8; 32],
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its tag, if it had one.
    pub version: Option<i64>,
    /// JSON.
    pub body: Zeroizing<Vec<u8>>,
}

/// What is known of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is the first of its key.
    New,
    /// It was answered.
    Answered(Answer),
    /// Its key was that of another request.
    Other,
}

impl Request {
    /// A request by a user with a key. `what` is all that makes it another request if it is another.
    ///
    /// # Errors
    /// [`DbError::Crypto`].
    pub fn new(db: &Db, user: Uuid, key: &str, what: &[&[u8]]) -> Result<Self, DbError> {
        let mut text = Vec::new();
        for part in what {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        let hash = db.tag("idempotency", &Zeroizing::new(text))?;
        Ok(Self { user, key: key.to_owned(), hash })
    }

    /// Whose key: two requests of one name are not carried out at a time.
    #[must_use]
    pub fn name(&self) -> (Uuid, String) {
        (self.user, self.key.clone())
    }

    fn purpose(&self) -> String {
        purpose(self.user, &self.key)
    }
}

fn purpose(user: Uuid, key: &str) -> String {
    format!("idempotency:{user}/{key}")
}

/// What is known of the request.
///
/// # Errors
/// If it cannot be read.
pub fn known(db: &Db, request: &Request) -> Result<Known, DbError> {
    let now_ms = db.now_ms();
    let Some(row) = db.read(|file| row(file, request, now_ms))? else { return Ok(Known::New) };
    if row.hash != request.hash {
        return Ok(Known::Other);
    }
    let body = db.master().open(&request.purpose(), &row.sealed)?;
    Ok(Known::Answered(Answer { status: row.status, version: row.version, body }))
}

struct Row {
    hash: [u8; 32],
    status: u16,
    version: Option<i64>,
    sealed: Vec<u8>,
}

fn row(file: &Connection, request: &Request, now_ms: i64) -> Result<Option<Row>, DbError> {
    let sql = "SELECT request, status, version, answer FROM idempotency \
        WHERE user_id = ?1 AND key = ?2 AND created_ms > ?3";
    let row = file
        .prepare_cached(sql)?
        .query_row(params![request.user.into_bytes(), request.key, now_ms - KEPT_MS], |row| {
            Ok(Row { hash: row.get(0)?, status: row.get(1)?, version: row.get(2)?, sealed: row.get(3)? })
        });
    Ok(row.optional()?)
}

/// Keeps the answer to a request, in the transaction of what it changes.
///
/// # Errors
/// [`DbError::Conflict`] if another request with the key was carried out meanwhile: then this one is not.
pub fn keep(w: &Write<'_>, request: &Request, answer: &Answer) -> Result<(), DbError> {
    forget(w)?;
    let user = request.user.into_bytes();
    let sql = "DELETE FROM idempotency WHERE user_id = ?1 AND key IN (SELECT key FROM idempotency \
        WHERE user_id = ?1 ORDER BY created_ms DESC LIMIT -1 OFFSET ?2)";
    w.tx().prepare_cached(sql)?.execute(params![user, OF_USER_MAX - 1])?;
    let sealed = w.seal(&request.purpose(), &answer.body)?;
    let sql = "INSERT INTO idempotency (user_id, key, request, status, version, answer, created_ms) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    w.tx()
        .prepare_cached(sql)?
        .execute(params![user, request.key, request.hash, answer.status, answer.version, sealed, w.now_ms()])
        .map_err(DbError::taken("another request with this Idempotency-Key was carried out meanwhile"))?;
    Ok(())
}

/// Forgets what is too old.
///
/// # Errors
/// If it cannot be written.
pub fn forget(w: &Write<'_>) -> Result<(), DbError> {
    let sql = "DELETE FROM idempotency WHERE created_ms <= ?1";
    w.tx().prepare_cached(sql)?.execute([w.now_ms() - KEPT_MS])?;
    Ok(())
}

/// Seals the answers anew, under another master key.
///
/// # Errors
/// [`DbError::Crypto`] if one is not what was sealed.
pub(super) fn reseal(w: &Write<'_>, new: &MasterKey) -> Result<(), DbError> {
    let mut keys = w.tx().prepare("SELECT user_id, key FROM idempotency")?;
    let keys = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys: Vec<([u8; 16], String)> = keys.collect::<Result<_, _>>()?;
    for (user, key) in keys {
        let sql = "SELECT answer FROM idempotency WHERE user_id = ?1 AND key = ?2";
        let sealed: Vec<u8> = w.tx().prepare_cached(sql)?.query_row((user, &key), |row| row.get(0))?;
        let sealed = w.reseal(new, &purpose(Uuid::from_bytes(user), &key), &sealed)?;
        let sql = "UPDATE idempotency SET answer = ?3 WHERE user_id = ?1 AND key = ?2";
        w.tx().prepare_cached(sql)?.execute((user, &key, sealed))?;
    }
    Ok(())
}
