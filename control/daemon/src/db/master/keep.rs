//! Where the data directory keeps the master key: `master.key`, for whoever may read the file, or `master.sealed`, for whoever
//! knows its passphrase.
//!
//! A file and a database cannot change at once. So another key's file is made beside the old one first, as `….new`; then the
//! database changes, in one transaction; then the new file takes its place. Which of the two holds is always told by the
//! database, by the id of its key: whoever opens it next [`settle`]s what was left half done, whenever that was.

use super::passphrase;
use super::{DbError, MasterKey};
use crate::db::error::at;
use crate::db::open::{self, sync_directory_of};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The master key in the open, 0600.
pub const MASTER_KEY: &str = "master.key";
/// The master key under a passphrase.
pub const MASTER_SEALED: &str = "master.sealed";
const NEW: &str = ".new";

/// How a data directory keeps its master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptIn {
    /// In a file that holds it.
    File,
    /// In a file that a passphrase opens.
    Sealed,
    /// Not there.
    Nothing,
}

/// How a master key is to be kept.
#[derive(Clone, Copy)]
pub enum KeepIn<'a> {
    /// In `master.key`.
    File,
    /// In `master.sealed`, under this passphrase.
    Sealed(&'a [u8]),
    /// In this new file, which somebody brings to where the daemon finds it: a credential.
    Elsewhere(&'a Path),
}

/// How the directory keeps the key.
#[must_use]
pub fn kept_in(dir: &Path) -> KeptIn {
    if dir.join(MASTER_KEY).exists() {
        KeptIn::File
    } else if dir.join(MASTER_SEALED).exists() {
        KeptIn::Sealed
    } else {
        KeptIn::Nothing
    }
}

/// Reads the key that the directory keeps for its database. `ask` is called if that needs a passphrase.
///
/// # Errors
/// If there is none, or it cannot be opened.
pub fn read_kept(
    dir: &Path,
    database: &Path,
    ask: impl FnOnce() -> Result<Zeroizing<String>, DbError>,
) -> Result<MasterKey, DbError> {
    settle(dir, database)?;
    match kept_in(dir) {
        KeptIn::File => MasterKey::read_file(&dir.join(MASTER_KEY)),
        KeptIn::Sealed => MasterKey::read_sealed(&dir.join(MASTER_SEALED), ask()?.as_bytes()),
        KeptIn::Nothing => Err(DbError::Io(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{} has no master key ({MASTER_KEY} or {MASTER_SEALED}): `sealift-control recover` makes it anew with the \
                 recovery key",
                dir.display()
            ),
        ))),
    }
}

/// Writes the file of a key that is to take the place of what is kept, once the database is under it: see [`settle`]. The
/// database is locked meanwhile, or not there yet.
///
/// # Errors
/// If it cannot be written, or the passphrase is too short.
pub(in crate::db) fn stage(dir: &Path, key: &MasterKey, keep: KeepIn<'_>) -> Result<(), DbError> {
    match keep {
        KeepIn::File => key.create_file(&staged(dir, MASTER_KEY)),
        KeepIn::Sealed(passphrase) => key.create_sealed(&staged(dir, MASTER_SEALED), passphrase),
        KeepIn::Elsewhere(path) => key.create_file(path),
    }
}

/// Puts right what was left half done when a master key was changed, unless somebody has the database open.
///
/// # Errors
/// If a file cannot be renamed or removed.
fn settle(dir: &Path, database: &Path) -> Result<(), DbError> {
    if !any_staged(dir) {
        return Ok(());
    }
    match open::lock_alone(database) {
        Ok(lock) => settle_alone(dir, database, &lock),
        // Whoever has it settles it, or has done so.
        Err(DbError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same, by whoever has the database alone.
pub(in crate::db) fn settle_alone(dir: &Path, database: &Path, _alone: &File) -> Result<(), DbError> {
    if !any_staged(dir) {
        return Ok(());
    }
    let holds = open::key_id(database)?;
    for (name, other) in [(MASTER_KEY, MASTER_SEALED), (MASTER_SEALED, MASTER_KEY)] {
        let new = staged(dir, name);
        if !new.exists() {
            continue;
        }
        // One that was cut off while it was written has no id: then the database is not under it yet.
        let id = match name {
            MASTER_KEY => MasterKey::read_file(&new).and_then(|key| Ok(key.id()?.to_vec())),
            _ => passphrase::key_id(&new),
        };
        match id {
            Ok(id) if holds.as_ref() == Some(&id) => {
                // First what would be believed before the new one.
                remove(&dir.join(other))?;
                std::fs::rename(&new, dir.join(name)).map_err(at(&new))?;
            }
            Ok(_) | Err(DbError::Invalid(_)) => remove(&new)?,
            Err(error) => return Err(error),
        }
        sync_directory_of(&new)?;
    }
    Ok(())
}

fn any_staged(dir: &Path) -> bool {
    [MASTER_KEY, MASTER_SEALED].iter().any(|name| staged(dir, name).exists())
}

fn staged(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{NEW}"))
}

fn remove(path: &Path) -> Result<(), DbError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
