//! Copies of the database, and their return.
//!
//! A backup is one file, of one moment, as secret as the database: what is sealed in it stays sealed, the rest is plain. It
//! needs the same master key. A copy is put in the place of the database only after all that can be known about it was
//! found good, and what stood there is kept beside.

#[cfg(test)]
mod tests;

use super::audit::{self, Checkpoint, Outside, Report};
use super::error::at;
use super::master::{self, KeepIn, MASTER_KEY, MASTER_SEALED};
use super::{Actor, Db, DbError, MasterKey, new_id, open};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Names of a series.
const SERIES_FORMAT: &str = "sealift-control-%Y%m%dT%H%M%SZ.db";

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The proof of the audit that came back.
    pub report: Report,
    /// Where the database that stood there is now, if there was one.
    pub kept: Option<PathBuf>,
}

/// Copies the database, while it is in use, to a file that only its owner can read; one that is there is replaced. Whole
/// and durable when this returns, or as it was. Returns a checkpoint that covers the copy: kept elsewhere, it shows that
/// a copy is that one, and not an older one. The copy was looked at as a restore does.
///
/// # Errors
/// If the copy cannot be written, or would be the database itself; [`DbError::Damaged`] if it could not be put back.
pub fn backup(db: &Db, by: &Actor, to: &Path) -> Result<Checkpoint, DbError> {
    if is_same(to, &db.shared.path) {
        return Err(DbError::Invalid("a backup is not written over the database".into()));
    }
    db.record(by, "backup.create", &format!("file:{}", to.display()), None)?;
    let checkpoint = audit::checkpoint(db)?;
    let partial = beside(to, &format!(".{}", new_id().simple()));
    let copied = copy(db, &partial).and_then(|()| {
        let outside = Outside { public_key: None, checkpoints: vec![checkpoint.clone()] };
        check(&partial, db.master(), &outside)?;
        std::fs::rename(&partial, to).map_err(at(to))?;
        Ok(open::sync_directory_of(to)?)
    });
    if copied.is_err() {
        open::remove(&partial);
    }
    copied.map(|()| checkpoint)
}

/// Copies the database to a new file of a directory, named by the time, and then removes the oldest such files, but for so
/// many of the newest.
///
/// # Errors
/// As [`backup`]; or if an old one cannot be removed.
pub fn backup_among(db: &Db, by: &Actor, dir: &Path, keep: usize) -> Result<(PathBuf, Checkpoint), DbError> {
    let now = jiff::Timestamp::from_millisecond(db.now_ms())
        .map_err(|_| DbError::Invalid("the clock is wrong".into()))?;
    let to = dir.join(now.strftime(SERIES_FORMAT).to_string());
    if to.exists() {
        return Err(DbError::Conflict(format!("there is a backup of this second already: {}", to.display())));
    }
    let checkpoint = backup(db, by, &to)?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let name = entry.map_err(at(dir))?.file_name();
        let is_one = name.to_str().is_some_and(|name| {
            jiff::civil::DateTime::strptime(SERIES_FORMAT, name)
                .is_ok_and(|time| time.strftime(SERIES_FORMAT).to_string() == name)
        });
        if is_one {
            all.push(name);
        }
    }
    // By their names, which is by age.
    all.sort();
    for old in all.iter().rev().skip(keep.max(1)) {
        let old = dir.join(old);
        std::fs::remove_file(&old).map_err(at(&old))?;
    }
    Ok((to, checkpoint))
}

fn copy(db: &Db, to: &Path) -> Result<(), DbError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(at(to))?;
    let mut target = Connection::open(to)?;
    db.read(|source| {
        // All in one step: it reads one moment, and writers are not kept waiting by it.
        match Backup::new(source, &mut target)?.step(-1)? {
            StepResult::Done => Ok(()),
            _ => Err(DbError::Io(io::Error::new(io::ErrorKind::ResourceBusy, "the backup is in use"))),
        }
    })?;
    // One file, without a log beside it.
    target.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    Ok(File::open(to)?.sync_all()?)
}

/// Looks at a backup without changing it: whether it is whole, of a known version and of this master key, and its audit.
///
/// # Errors
/// As [`Db::open`]; [`DbError::Damaged`] if the audit is not what was written.
pub fn check(backup: &Path, master: &MasterKey, outside: &Outside) -> Result<Report, DbError> {
    let (file, key) = open::inspect(backup, master)?;
    let report = audit::verify_connection(&file, &key.verifying_key().to_bytes(), outside)?;
    match &report.bad {
        None => Ok(report),
        Some(bad) => Err(DbError::Damaged(format!("audit record {}: {}", bad.number, bad.what))),
    }
}

/// Puts a backup in the place of the database, which nobody may have open. All sessions end. What the backup does not know
/// is undone: a user that was deleted since, a token or an agent that was revoked since, is as it was. If it is told how, the
/// master key of the backup is kept in the directory of the database from then on; the one before stays beside the
/// database that was set aside.
///
/// # Errors
/// As [`check`]; [`DbError::Refused`] if the database is in use; [`DbError::Invalid`] if the backup is a database that
/// was not closed, or the one to be replaced. Then all is as it was.
pub fn restore(
    backup: &Path,
    to: &Path,
    master: &MasterKey,
    keep: Option<KeepIn<'_>>,
    outside: &Outside,
    by: &Actor,
) -> Result<Restored, DbError> {
    let lock = open::lock_alone(to)?;
    // A database that was not closed says the latest in its log, which would be lost without a word.
    let log_bytes = beside(backup, "-wal").metadata().map_or(0, |found| found.len());
    if is_same(backup, to) || log_bytes > 0 {
        return Err(DbError::Invalid(format!("{} is a database, and not a backup of one", backup.display())));
    }
    let fresh = beside(to, ".restoring");
    open::remove(&fresh);
    let prepared = prepare(backup, &fresh, master, outside, by, lock.try_clone()?);
    let restored = prepared.and_then(|report| {
        let dir = to.parent().unwrap_or(Path::new("."));
        if let Some(keep) = keep {
            master::settle_alone(dir, to, &lock)?;
            master::stage(dir, master, keep)?;
        }
        let kept = set_aside(to)?;
        if let (Some(kept), true) = (&kept, keep.is_some()) {
            for name in [MASTER_KEY, MASTER_SEALED].iter().filter(|name| dir.join(name).exists()) {
                std::fs::hard_link(dir.join(name), beside(kept, &format!(".{name}")))?;
            }
        }
        std::fs::rename(&fresh, to)?;
        open::sync_directory_of(to)?;
        master::settle_alone(dir, to, &lock)?;
        Ok(Restored { report, kept })
    });
    if restored.is_err() {
        open::remove(&fresh);
    }
    restored
}

/// What is looked at is the copy, so that it is also what comes into the place.
fn prepare(
    backup: &Path,
    fresh: &Path,
    master: &MasterKey,
    outside: &Outside,
    by: &Actor,
    lock: File,
) -> Result<Report, DbError> {
    let mut source = File::open(backup).map_err(at(backup))?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh);
    let mut target = target.map_err(at(fresh))?;
    io::copy(&mut source, &mut target).and_then(|_| target.sync_all()).map_err(at(fresh))?;
    drop(target);
    let report = check(fresh, master, outside)?;
    let (writer, audit_key) = open::open(fresh, master)?;
    let db = Db::new(fresh, writer, master.clone(), audit_key, lock);
    db.write(by, |write| {
        write.tx().execute("DELETE FROM sessions", ())?;
        let after = json!({ "records": report.records });
        write.audit("backup.restore", &format!("file:{}", backup.display()), None, Some(after))
    })?;
    // Closing moves the log into the file.
    drop(db);
    Ok(report)
}

/// The file first: without it, nothing else of the old is taken for the new.
fn set_aside(path: &Path) -> Result<Option<PathBuf>, DbError> {
    let kept = beside(path, &format!(".before-{}", new_id().simple()));
    let mut moved = None;
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(beside(path, suffix), beside(&kept, suffix)) {
            Ok(()) if suffix.is_empty() => moved = Some(kept.clone()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    open::sync_directory_of(path)?;
    Ok(moved)
}

/// Asked without opening either: to close the database's file would end the locks that this process has on it.
fn is_same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
