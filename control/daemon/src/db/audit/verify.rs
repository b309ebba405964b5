//! The proof of the audit: everything is read and computed again.

use super::{CHECKPOINT_EVERY, Checkpoint, Hash, hash_of};
use crate::db::{Db, DbError, audit};
use ed25519_dalek::VerifyingKey;
use rusqlite::{Connection, Row, Rows};
use std::iter::Peekable;

/// What was kept elsewhere, and is believed more than the database.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The daemon's public audit key: else the one is taken whose secret half the master key opens.
    pub public_key: Option<[u8; 32]>,
    /// Checkpoints that the daemon gave once, in any order: the audit must reach as far as each, and be the same up to there.
    pub checkpoints: Vec<Checkpoint>,
}

/// What the proof found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many records are good, from the first on.
    pub records: i64,
    /// The hash of the last of them.
    pub hash: Hash,
    /// The last of them under a signed checkpoint; 0 if there is none. Whoever can write the file could have made the ones
    /// after it anew.
    pub signed: i64,
    /// The key that signed.
    pub public_key: [u8; 32],
    /// The first record that is not as it was written, and why. All before it are good.
    pub bad: Option<Bad>,
}

/// What is wrong, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The record's number.
    pub number: i64,
    /// What is wrong with it.
    pub what: String,
}

impl Report {
    /// Whether the audit is what was written.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad.is_none()
    }
}

/// Proves the audit by what is in the database, and the master key.
///
/// # Errors
/// If the database cannot be read. A bad record is no error: see [`Report::bad`].
pub fn verify(db: &Db) -> Result<Report, DbError> {
    verify_against(db, &Outside::default())
}

/// Proves the audit also by what was kept elsewhere.
///
/// # Errors
/// As [`verify`]; [`DbError::Invalid`] if the public key is none.
pub fn verify_against(db: &Db, outside: &Outside) -> Result<Report, DbError> {
    let own = audit::public_key(db);
    db.read(|file| verify_connection(file, &own, outside))
}

pub(in crate::db) fn verify_connection(
    file: &Connection,
    own: &[u8; 32],
    outside: &Outside,
) -> Result<Report, DbError> {
    let public_key = *outside.public_key.as_ref().unwrap_or(own);
    let key = VerifyingKey::from_bytes(&public_key)
        .map_err(|_| DbError::Invalid("this is not a public audit key".into()))?;
    let mut report = Report { records: 0, hash: [0; 32], signed: 0, public_key, bad: None };
    let mut given: Vec<_> = outside.checkpoints.iter().collect();
    given.sort_by_key(|checkpoint| checkpoint.number);
    if let Some(other) = given.iter().find(|checkpoint| !checkpoint.is_signed_by(&key)) {
        let what = format!("the given checkpoint of record {} is not signed by the audit key", other.number);
        return Err(DbError::Invalid(what));
    }
    let mut records = file.prepare("SELECT * FROM audit ORDER BY number")?;
    let mut records = records.query([])?;
    let mut checkpoints = file.prepare("SELECT * FROM audit_checkpoints ORDER BY number")?;
    let mut walk = Walk {
        key: &key,
        given: given.into_iter().peekable(),
        checkpoints: checkpoints.query([])?,
        next: None,
    };
    walk.step()?;
    while let Some(row) = records.next()? {
        if let Err(bad) = walk.record(row, &mut report)? {
            report.bad = Some(bad);
            return Ok(report);
        }
    }
    report.bad = walk.end(report.records);
    Ok(report)
}

struct Walk<'a> {
    key: &'a VerifyingKey,
    /// Those that were kept elsewhere and no record has reached.
    given: Peekable<std::vec::IntoIter<&'a Checkpoint>>,
    checkpoints: Rows<'a>,
    /// The first checkpoint that no record has reached.
    next: Option<Checkpoint>,
}

impl Walk<'_> {
    /// Takes one record up into the report, unless something is wrong with it.
    fn record(&mut self, row: &Row<'_>, report: &mut Report) -> Result<Result<(), Bad>, DbError> {
        let expected = report.records + 1;
        let number: i64 = row.get("number")?;
        if number != expected {
            return Ok(Err(Bad { number: expected, what: format!("it is missing: the next is {number}") }));
        }
        let bad = |what: &str| Ok(Err(Bad { number, what: what.into() }));
        // As bytes: that a text is not one any more is found by its hash.
        let column = |name| row.get_ref(name)?.as_bytes_or_null().map_err(rusqlite::Error::from);
        let hash = hash_of(
            &report.hash,
            number,
            row.get("time_ms")?,
            [
                column("actor")?,
                column("address")?,
                column("request_id")?,
                column("action")?,
                column("subject")?,
                column("before")?,
                column("after")?,
            ],
        );
        if row.get::<_, Hash>("hash")? != hash {
            return bad("its hash is not the one of what it says after the record before it");
        }
        if let Some(checkpoint) = self.next.take_if(|checkpoint| checkpoint.number == number) {
            if checkpoint.hash != hash {
                return bad("a checkpoint says that it had another hash");
            }
            if !checkpoint.is_signed_by(self.key) {
                return bad("its checkpoint is not signed by the audit key");
            }
            report.signed = number;
            self.step()?;
        } else if number % CHECKPOINT_EVERY == 0 {
            return bad("its checkpoint is missing");
        }
        while let Some(given) = self.given.next_if(|checkpoint| checkpoint.number == number) {
            if given.hash != hash {
                return bad("the given checkpoint says that it had another hash");
            }
        }
        report.records = number;
        report.hash = hash;
        Ok(Ok(()))
    }

    /// The first checkpoint that there is no record for.
    fn end(mut self, records: i64) -> Option<Bad> {
        let furthest = self.next.as_ref().or(self.given.next())?.number;
        let what = format!("it is missing: there is a checkpoint of record {furthest}");
        Some(Bad { number: records + 1, what })
    }

    fn step(&mut self) -> Result<(), DbError> {
        self.next = match self.checkpoints.next()? {
            None => None,
            Some(row) => Some(Checkpoint {
                number: row.get("number")?,
                hash: row.get("hash")?,
                signature: row.get("signature")?,
            }),
        };
        Ok(())
    }
}
