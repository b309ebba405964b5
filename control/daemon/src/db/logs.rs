//! What agents have logged: a file of its own, `logs.db`.
//!
//! Beside the control database, and not in it: logs are written all the time and are many, so that they would swell the
//! database's backups and keep its one writer busy; and a log file that is damaged is set aside and begun anew, which
//! nothing that decides anything may be. Up to which number the daemon has an agent's records is in the same transaction
//! as these, so that none is taken twice and none is called kept that is not.
//!
//! Searching reads along one index, the newest first, and stops after so many records whether it found enough or not: no
//! question keeps the daemon busy. The oldest go, a few at a time, when they are too old or too many.

mod keep;
mod list;
mod sealed;
#[cfg(test)]
mod tests;

pub use keep::{NewRecord, runs_of};
pub use list::LogFilter;
pub use sealed::segment_id;

use super::{Clock, DbError, lock, new_id, open};
use rusqlite::{Connection, TransactionBehavior};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// "SLLG": whose file it is, in its header.
const APPLICATION_ID: i64 = 0x534c_4c47;
const VERSION: i64 = 2;
/// What the second version adds.
const SEALED: &str = include_str!("logs/sealed.sql");
/// Connections for reading that are kept when nobody uses them.
const READERS_IDLE_MAX: usize = 2;
/// Records that one step of [`LogStore::reduce`] looks at: a moment's work, so that nobody waits for long.
const STEP_RECORDS: i64 = 500;
/// Pages that such a step gives back to the file system.
const STEP_PAGES: i64 = 256;

/// For how long, and how many, records stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Since they came.
    pub age_ms: i64,
    /// Of the file.
    pub bytes: u64,
}

impl Default for Retention {
    /// 30 days, 1 GiB.
    fn default() -> Self {
        Self { age_ms: 30 * 24 * 3600 * 1000, bytes: 1 << 30 }
    }
}

/// What a step of [`LogStore::reduce`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduced {
    /// There may be more to do.
    pub more: bool,
    /// Segments of which nothing is kept any more.
    pub forgotten: Vec<Uuid>,
}

/// The file. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    clock: Clock,
}

struct Shared {
    path: PathBuf,
    // Closed in this order: the last to close moves the log into the file, which a reader cannot.
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Connection>,
}

impl LogStore {
    /// Opens the file, or makes it. One that is damaged is set aside, and that is told by `tracing`.
    ///
    /// # Errors
    /// [`DbError::TooNew`], or what the file system says.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, DbError> {
        let writer = match connect(path) {
            Err(DbError::Damaged(why)) => {
                let aside = beside(path, &format!(".damaged-{}", new_id().simple()));
                tracing::error!(%why, "the logs are damaged: kept as {}, and begun anew", aside.display());
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::rename(beside(path, suffix), beside(&aside, suffix));
                }
                connect(path)?
            }
            opened => opened?,
        };
        let shared = Shared { path: path.to_owned(), readers: Mutex::default(), writer: Mutex::new(writer) };
        Ok(Self { shared: Arc::new(shared), clock })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
        let idle = lock(&self.shared.readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => open::reader(&self.shared.path)?,
        };
        let tx = reader.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let result = work(&tx);
        tx.finish()?;
        let mut readers = lock(&self.shared.readers);
        if readers.len() < READERS_IDLE_MAX {
            readers.push(reader);
        }
        result
    }

    /// Removes some of the oldest if they are too old or too many.
    ///
    /// # Errors
    /// Of the database.
    pub fn reduce(&self, retention: Retention) -> Result<Reduced, DbError> {
        let mut writer = lock(&self.shared.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let number = |name| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = number("page_count")? - number("freelist_count")?;
        let used = pages.saturating_mul(number("page_size")?);
        let too_many = used.unsigned_abs() > retention.bytes;
        let before = if too_many { i64::MAX } else { (self.clock)().saturating_sub(retention.age_ms) };
        // By the order in which they came: what a clock of an agent's says keeps nothing.
        let sql = "DELETE FROM logs WHERE number IN (SELECT number FROM logs ORDER BY number LIMIT ?1) \
            AND received_ms < ?2";
        let removed = tx.prepare_cached(sql)?.execute((STEP_RECORDS, before))?;
        let (sealed, forgotten) = sealed::reduce(&tx, before, STEP_RECORDS)?;
        let removed = removed + sealed;
        tx.commit()?;
        if removed > 0 || number_of(&writer, "freelist_count")? > STEP_PAGES {
            // Each row that it gives is a page given back.
            let mut statement = writer.prepare(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(Reduced { more: removed > 0, forgotten })
    }
}

fn number_of(connection: &Connection, name: &str) -> Result<i64, DbError> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

fn connect(path: &Path) -> Result<Connection, DbError> {
    // SQLite gives its other files (-wal, -shm) the mode of this one.
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let is_new = opened.and_then(|file| file.metadata()).map_err(super::error::at(path))?.len() == 0;
    if is_new {
        // Has to be said before anything is written.
        let bare = Connection::open(path)?;
        bare.pragma_update(None, "auto_vacuum", "incremental")?;
        bare.execute_batch("VACUUM")?;
    }
    let mut writer = open::connect_writer(path)?;
    let (whose, version) = (number_of(&writer, "application_id")?, number_of(&writer, "user_version")?);
    match (whose, version) {
        // New, or not finished: the tables are one transaction with the version.
        (0, 0) => {
            let tx = writer.transaction()?;
            tx.execute_batch(include_str!("logs/schema.sql"))?;
            tx.execute_batch(SEALED)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()?;
            open::sync_directory_of(path)?;
            Ok(writer)
        }
        (APPLICATION_ID, VERSION) => Ok(writer),
        (APPLICATION_ID, 1) => {
            let tx = writer.transaction()?;
            tx.execute_batch(SEALED)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()?;
            Ok(writer)
        }
        (APPLICATION_ID, found) if found > VERSION => Err(DbError::TooNew { found, known: VERSION }),
        _ => Err(DbError::Damaged("the file is not one of logs".into())),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn blob(id: Uuid) -> [u8; 16] {
    id.into_bytes()
}
