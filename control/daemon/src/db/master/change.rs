//! Another master key; the same one kept another way; one that was lost. Nobody else has the database open meanwhile.
//!
//! Killed at any point, what is there is the old or the new: see `keep`. The old key opens nothing any more once the new one
//! holds, but for backups that were made before.

use super::keep::{self, KeepIn};
use super::{MasterKey, RecoveryKey};
use crate::db::{Actor, Db, DbError, Write, idempotency, jobs, keks, open};
use rusqlite::OptionalExtension as _;
use serde_json::json;
use std::path::Path;

/// The secrets of `meta`, and what each is sealed for.
const META: [(&str, &str); 4] = [
    ("key.check", "meta:key.check"),
    ("audit.key", "meta:audit.key"),
    ("tag.key", "meta:tag.key"),
    // The authority's.
    ("ca.key", "ca.key"),
];

/// Puts the database under a new master key, and makes a new recovery key, which `told` keeps or shows before either holds.
///
/// # Errors
/// [`DbError::Refused`] if the database is in use; what `told` returns. Then the old ones hold.
pub fn rotate(
    dir: &Path,
    database: &Path,
    old: &MasterKey,
    keep: KeepIn<'_>,
    by: &Actor,
    told: impl FnOnce(&RecoveryKey) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let lock = open::lock_alone(database)?;
    // What was staged before and never taken is in the way.
    keep::settle_alone(dir, database, &lock)?;
    let new = MasterKey::generate()?;
    let (writer, audit_key) = open::open(database, old)?;
    // What was sealed under the old key is overwritten, and not only let go.
    writer.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    let recovery = RecoveryKey::generate()?;
    told(&recovery)?;
    let changed = keep::stage(dir, &new, keep).and_then(|()| {
        // Closing moves the log into the file.
        let db = Db::new(database, writer, old.clone(), audit_key, lock.try_clone()?);
        db.write(by, |write| {
            reseal(write, &new)?;
            recovery.put(write, &new)?;
            write.audit("master.rotate", "master", None, Some(kept(keep)))
        })
    });
    // Whatever was done: the database tells which of the two it is.
    keep::settle_alone(dir, database, &lock)?;
    changed
}

fn reseal(write: &Write<'_>, new: &MasterKey) -> Result<(), DbError> {
    for (name, purpose) in META {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        let sealed = write.tx().prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
        let Some(sealed) = sealed else { continue };
        let sealed: Vec<u8> = sealed;
        let sql = "UPDATE meta SET value = ?2 WHERE name = ?1";
        write.tx().prepare_cached(sql)?.execute((name, write.reseal(new, purpose, &sealed)?))?;
    }
    jobs::reseal(write, new)?;
    keks::reseal(write, new)?;
    idempotency::reseal(write, new)?;
    open::put_key_id(write.tx(), new)
}

/// Keeps the same master key another way, or under another passphrase.
///
/// # Errors
/// [`DbError::Refused`] if the database is in use.
pub fn keep_otherwise(
    dir: &Path,
    database: &Path,
    master: &MasterKey,
    keep: KeepIn<'_>,
    by: &Actor,
) -> Result<(), DbError> {
    put(dir, database, master, keep, by, "master.keep")
}

/// Makes the master key anew that was lost, by its recovery key.
///
/// # Errors
/// [`DbError::Refused`] if the recovery key is another's, or the database is in use.
pub fn recover(
    dir: &Path,
    database: &Path,
    recovery: &RecoveryKey,
    keep: KeepIn<'_>,
    by: &Actor,
) -> Result<(), DbError> {
    put(dir, database, &recovery.open(database)?, keep, by, "master.recover")
}

fn put(
    dir: &Path,
    database: &Path,
    master: &MasterKey,
    keep: KeepIn<'_>,
    by: &Actor,
    action: &str,
) -> Result<(), DbError> {
    let lock = open::lock_alone(database)?;
    let (writer, audit_key) = open::open(database, master)?;
    keep::settle_alone(dir, database, &lock)?;
    keep::stage(dir, master, keep)?;
    let db = Db::new(database, writer, master.clone(), audit_key, lock.try_clone()?);
    let recorded = db.write(by, |write| write.audit(action, "master", None, Some(kept(keep))));
    drop(db);
    keep::settle_alone(dir, database, &lock)?;
    recorded
}

/// What the audit says of where a key is kept.
fn kept(keep: KeepIn<'_>) -> serde_json::Value {
    json!({ "kept": match keep {
        KeepIn::File => "file",
        KeepIn::Sealed(_) => "passphrase",
        KeepIn::Elsewhere(_) => "elsewhere",
    }})
}
