//! The database: one SQLite file. What the daemon knows, and the record of who changed it.
//!
//! Owns: the file's life (made, opened, refused), its one writer and its readers, and the rule that a change and its
//! audit record are one transaction. The rooms beside this one own the tables:
//!
//! - `audit`: the chain of records, its checkpoints, and their proof
//! - `users`: users, passwords, logins, sessions, tokens of the API
//! - `master`: the master key, what is sealed under it, and the recovery key
//! - `backup`: copies of the whole, and their return
//! - `agents`, `jobs`, `runs`, `events`: what the daemon is for
//! - `keks`: keys that data keys are wrapped to
//! - `settings`: what administrators choose; `idempotency`: answers to requests that may come twice; `refusals`: what
//!   outsiders can have recorded
//! - `logs`: what agents have logged, in a file of its own
//!
//! Everything here blocks: call it where blocking is allowed. Nothing here knows of HTTP, TLS or agents' streams.

pub mod agents;
pub mod audit;
pub mod backup;
mod error;
pub mod events;
pub mod idempotency;
pub mod jobs;
pub mod keks;
pub mod logs;
pub mod master;
mod open;
mod refusals;
pub mod runs;
pub mod settings;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod users;

pub use error::DbError;
pub use master::MasterKey;
pub use refusals::Refusal;

use ed25519_dalek::SigningKey;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The version of the tables: `schema.sql` has the first, and what was added since is in files of its own. A file with a later one is refused, untouched.
pub const SCHEMA_VERSION: i64 = 2;

/// How many connections for reading are kept when nobody uses them.
const READERS_IDLE_MAX: usize = 4;

/// What tells the time: milliseconds since 1970, UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The database. Clones share it.
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
    clock: Clock,
}

struct Shared {
    path: PathBuf,
    // Closed in this order: the last to close moves the log into the file, which a reader cannot.
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Connection>,
    master: MasterKey,
    audit_key: SigningKey,
    hashing: users::Hashing,
    refusals: Mutex<refusals::Counted>,
    /// Beside which no backup is restored.
    _lock: File,
}

/// Who does something: for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `user:NAME`, `token:USER/NAME` (whose it is, and its own name), `agent:NAME`, `cli:NAME`, `system` or `anonymous`.
    pub who: String,
    /// The IP address it comes from; empty if it comes from this host.
    pub address: String,
    /// The request it is part of, also told to the one who asked.
    pub request_id: Uuid,
}

impl Actor {
    /// The daemon itself.
    #[must_use]
    pub fn system() -> Self {
        Self { who: "system".into(), address: String::new(), request_id: new_id() }
    }

    /// Who runs the command line on the daemon's own host.
    #[must_use]
    pub fn cli(name: &str) -> Self {
        Self { who: format!("cli:{name}"), address: String::new(), request_id: new_id() }
    }

    /// Somebody who has not proved who they are.
    #[must_use]
    pub fn anonymous(address: &str, request_id: Uuid) -> Self {
        Self { who: "anonymous".into(), address: address.into(), request_id }
    }
}

/// A new id: UUIDv7, so that ids sort by the time they were made.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

impl Db {
    /// Makes the database, which must not be there yet: its tables, and the key that signs the audit's checkpoints.
    ///
    /// # Errors
    /// If there is a file already, or it cannot be made.
    pub fn create(path: &Path, master: MasterKey) -> Result<Self, DbError> {
        let lock = open::lock_shared(path)?;
        let (writer, audit_key) = open::create(path, &master)?;
        Ok(Self::new(path, writer, master, audit_key, lock))
    }

    /// Opens the database. What is refused is left as it was.
    ///
    /// # Errors
    /// [`DbError::TooNew`], [`DbError::Damaged`], [`DbError::WrongMasterKey`], or that there is no such file.
    pub fn open(path: &Path, master: MasterKey) -> Result<Self, DbError> {
        // Not even a lock is left where no database is.
        std::fs::metadata(path).map_err(error::at(path))?;
        let lock = open::lock_shared(path)?;
        let (writer, audit_key) = open::open(path, &master)?;
        Ok(Self::new(path, writer, master, audit_key, lock))
    }

    fn new(path: &Path, writer: Connection, master: MasterKey, audit_key: SigningKey, lock: File) -> Self {
        let shared = Shared {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            master,
            audit_key,
            hashing: users::Hashing::default(),
            refusals: Mutex::default(),
            _lock: lock,
        };
        Self { shared: Arc::new(shared), clock: Arc::new(system_clock) }
    }

    /// The same database by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// What the clock says: milliseconds since 1970, UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// Changes something: one transaction, kept if `work` returns `Ok`, as if it had never been if it returns `Err`.
    /// Only one runs at a time, so that `work` must not ask for another, and should not be slow.
    ///
    /// # Errors
    /// What `work` returns, or that the transaction cannot be made durable.
    pub fn write<T>(
        &self,
        by: &Actor,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let mut writer = lock(&self.shared.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked for when all earlier writers are done: the times in the audit follow its numbers.
        let mut write = Write { tx, now_ms: self.now_ms(), by: by.clone(), shared: &self.shared };
        let result = work(&mut write)?;
        write.tx.commit()?;
        Ok(result)
    }

    /// Looks at something: as it was at one moment, whoever writes meanwhile.
    ///
    /// # Errors
    /// What `work` returns, or that the database cannot be read.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
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

    /// Records what changed nothing: a refusal, or something that happened elsewhere.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn record(
        &self,
        by: &Actor,
        action: &str,
        subject: &str,
        after: Option<serde_json::Value>,
    ) -> Result<(), DbError> {
        self.write(by, |write| write.audit(action, subject, None, after))
    }

    /// Moves SQLite's log into the file and empties it: it has earlier versions of what was changed since the last time, also of
    /// what is overwritten in the file.
    ///
    /// # Errors
    /// [`DbError::Conflict`] if readers did not end for so long.
    pub fn empty_log(&self) -> Result<(), DbError> {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        if lock(&self.shared.writer).query_row(sql, [], |row| row.get(0))? {
            return Err(DbError::Conflict("somebody reads the database".to_owned()));
        }
        Ok(())
    }

    /// A number that is another one whenever somebody else has changed the file: a command on this host.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn data_version(&self) -> Result<i64, DbError> {
        Ok(lock(&self.shared.writer).query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// The key under which secrets are sealed.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.shared.master
    }
}

/// A transaction that changes something.
pub struct Write<'a> {
    tx: Transaction<'a>,
    now_ms: i64,
    by: Actor,
    shared: &'a Shared,
}

impl Write<'_> {
    /// The transaction itself.
    #[must_use]
    pub fn tx(&self) -> &Transaction<'_> {
        &self.tx
    }

    /// When it began: the one time of everything in it.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Who changes something.
    #[must_use]
    pub fn by(&self) -> &Actor {
        &self.by
    }

    /// Does what somebody else wants as a part of this transaction: kept with it if `work` returns `Ok`; if it returns
    /// `Err`, as if it had never been, and the rest stays.
    ///
    /// # Errors
    /// What `work` returns; or that the whole transaction has ended, as after an error of the disk.
    pub fn part<T>(
        &mut self,
        by: &Actor,
        work: impl FnOnce(&mut Self) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        if self.tx.is_autocommit() {
            return Err(DbError::Io(std::io::Error::other("the transaction has ended")));
        }
        let run = |sql: &str| self.tx.prepare_cached(sql)?.execute(());
        run("SAVEPOINT part")?;
        let before = std::mem::replace(&mut self.by, by.clone());
        let result = work(self);
        self.by = before;
        let run = |sql: &str| self.tx.prepare_cached(sql)?.execute(());
        if result.is_err() && !self.tx.is_autocommit() {
            run("ROLLBACK TO part")?;
        }
        if !self.tx.is_autocommit() {
            run("RELEASE part")?;
        }
        result
    }

    /// Records the change in the same transaction. `before` and `after` never hold a secret.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn audit(
        &mut self,
        action: &str,
        subject: &str,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
    ) -> Result<(), DbError> {
        self.audit_as(&self.by, action, subject, before, after)
    }

    /// Records what somebody did who proved who they are only in this transaction.
    fn audit_as(
        &self,
        by: &Actor,
        action: &str,
        subject: &str,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
    ) -> Result<(), DbError> {
        let entry = audit::Entry { by, action, subject, before, after };
        audit::append(&self.tx, self.now_ms, &self.shared.audit_key, entry)
    }

    /// Seals a secret under the master key: see [`MasterKey::seal`].
    ///
    /// # Errors
    /// [`DbError::Crypto`].
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, DbError> {
        self.shared.master.seal(purpose, plain)
    }

    /// Opens what [`Self::seal`] sealed for the same purpose.
    ///
    /// # Errors
    /// [`DbError::Crypto`] if it is anything else.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DbError> {
        self.shared.master.open(purpose, sealed)
    }

    /// What was sealed for the purpose, sealed under another master key.
    fn reseal(&self, new: &MasterKey, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, DbError> {
        new.seal(purpose, &self.open(purpose, sealed)?)
    }
}

/// What a thread that panicked left behind is whole: its transaction was rolled back when it was dropped.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn system_clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, DbError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| DbError::Crypto)?;
    Ok(bytes)
}
