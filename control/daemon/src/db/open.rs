//! The file of the database: made, looked at before it is trusted, opened. A file that is refused is left as it was.
//!
//! `meta` holds here: `key.check`, a constant sealed under the master key, by which a wrong key is known before it is
//! used, and `key.id`, which tells in the open which key that is; `audit.key`, the seed of the Ed25519 key that signs the
//! audit's checkpoints, and `tag.key`, under which names are hashed that nobody is to find out by trying, sealed both.

use super::error::at;
use super::{DbError, MasterKey, SCHEMA_VERSION, random};
use ed25519_dalek::SigningKey;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// "SLCT": whose file it is, in its header.
const APPLICATION_ID: i64 = 0x534c_4354;
const KEY_CHECK: &[u8] = b"sealift-control";
/// What each version after the first adds, in their order: a new file gets all of it, an older one what it lacks.
const ADDITIONS: [&str; 1] = [include_str!("schema_2.sql")];
/// What the tables need beside what is in them: refusals of what is never done, and indexes.
const GUARDS: &str = include_str!("guards.sql");
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 128;
/// Other processes write for a moment only: the command line beside the daemon.
const BUSY_MAX: Duration = Duration::from_secs(10);

pub(super) fn create(path: &Path, master: &MasterKey) -> Result<(Connection, SigningKey), DbError> {
    // SQLite gives its other files (-wal, -shm) the mode of this one.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    let made = fill(path, master).and_then(|made| {
        sync_directory_of(path)?;
        Ok(made)
    });
    if made.is_err() {
        remove(path);
    }
    made
}

fn fill(path: &Path, master: &MasterKey) -> Result<(Connection, SigningKey), DbError> {
    let mut writer = connect_overwriting(path)?;
    let audit_key = SigningKey::from_bytes(&*random()?);
    let tx = writer.transaction()?;
    tx.execute_batch(include_str!("schema.sql"))?;
    ADDITIONS.iter().try_for_each(|addition| tx.execute_batch(addition))?;
    tx.execute_batch(GUARDS)?;
    put_sealed(&tx, master, "key.check", KEY_CHECK)?;
    put_sealed(&tx, master, "audit.key", audit_key.as_bytes())?;
    put_sealed(&tx, master, "tag.key", &*random::<32>()?)?;
    put_key_id(&tx, master)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    tx.commit()?;
    Ok((writer, audit_key))
}

pub(super) fn open(path: &Path, master: &MasterKey) -> Result<(Connection, SigningKey), DbError> {
    let (_, audit_key) = inspect(path, master)?;
    let mut writer = connect_overwriting(path)?;
    bring_up(&mut writer)?;
    // A file that was made before a guard or an index came to be gets it now.
    writer.execute_batch(GUARDS)?;
    Ok((writer, audit_key))
}

/// Adds what a file of an earlier version lacks, all or nothing.
fn bring_up(writer: &mut Connection) -> Result<(), DbError> {
    // Alone: another process may be doing the same.
    let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (addition, version) in ADDITIONS.iter().zip(2_i64..).filter(|(_, version)| *version > found) {
        tx.execute_batch(addition)?;
        tx.pragma_update(None, "user_version", version)?;
    }
    Ok(tx.commit()?)
}

/// Looks at a file without changing it: whose it is, its version, whether it is whole, whether this is its master key.
///
/// # Errors
/// What is wrong with it.
pub(super) fn inspect(path: &Path, master: &MasterKey) -> Result<(Connection, SigningKey), DbError> {
    let file = look(path)?;
    match opened(&file, master, "key.check") {
        Ok(plain) if *plain == KEY_CHECK => {}
        Err(error @ (DbError::Damaged(_) | DbError::Sql(_))) => return Err(error),
        _ => return Err(DbError::WrongMasterKey),
    }
    let audit_key = audit_key(&file, master)?;
    Ok((file, audit_key))
}

/// The same without a master key: whose file it is, its version, whether it is whole.
///
/// # Errors
/// What is wrong with it.
pub(super) fn look(path: &Path) -> Result<Connection, DbError> {
    let file = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Closing is not to move into the file what a newer version, or a damaged log, has to say.
    file.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let number = |name| file.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("application_id")? != APPLICATION_ID {
        return Err(DbError::Damaged("the file is not one of this program's".into()));
    }
    let found = number("user_version")?;
    if found > SCHEMA_VERSION {
        return Err(DbError::TooNew { found, known: SCHEMA_VERSION });
    }
    if found < 1 {
        return Err(DbError::Damaged(format!("its version is {found}")));
    }
    let report = file.pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0))?;
    if report != "ok" {
        return Err(DbError::Damaged(report));
    }
    Ok(file)
}

/// Which master key the database is under; `None` if there is no database, or none that says so.
///
/// # Errors
/// If it cannot be read.
pub(super) fn key_id(path: &Path) -> Result<Option<Vec<u8>>, DbError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(file.query_row("SELECT value FROM meta WHERE name = 'key.id'", [], |row| row.get(0)).optional()?)
}

/// Says which master key the database is under.
pub(super) fn put_key_id(file: &Connection, master: &MasterKey) -> Result<(), DbError> {
    let sql = "INSERT INTO meta (name, value) VALUES ('key.id', ?1) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    file.execute(sql, [master.id()?])?;
    Ok(())
}

/// A connection that only reads. There must be a writer, whose shared memory it uses.
pub(super) fn reader(path: &Path) -> Result<Connection, DbError> {
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    reader.pragma_update(None, "query_only", true)?;
    Ok(reader)
}

/// A writer that leaves nothing of what it removes or changes in the file: rows move, and secrets are in them.
fn connect_overwriting(path: &Path) -> Result<Connection, DbError> {
    let writer = connect_writer(path)?;
    writer.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    Ok(writer)
}

pub(super) fn connect_writer(path: &Path) -> Result<Connection, DbError> {
    let writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode = writer.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    if mode != "wal" {
        return Err(DbError::Damaged(format!("its journal is in mode {mode}, not wal")));
    }
    writer.pragma_update(None, "synchronous", "full")?;
    writer.pragma_update(None, "foreign_keys", true)?;
    Ok(writer)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, DbError> {
    // SQLite says only that it cannot open a file; the file system says why. Asked without opening it: to close it again
    // would end the locks that this process has on it.
    std::fs::metadata(path).map_err(at(path))?;
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // What stands in the file's own schema is not to be believed more than its rows.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Held while the database is open, beside others who have it open.
pub(super) fn lock_shared(path: &Path) -> Result<File, DbError> {
    let lock = lock_file(path)?;
    match lock.try_lock_shared() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DbError::Refused(
            "somebody has the database alone, to restore a backup or to change its master key: try again later"
                .into(),
        )),
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

/// Held while the file is replaced: nobody has it open.
pub(super) fn lock_alone(path: &Path) -> Result<File, DbError> {
    let lock = lock_file(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(DbError::Refused("the database is in use: stop the daemon first".into()))
        }
        Err(TryLockError::Error(error)) => Err(at(path)(error)),
    }
}

/// A file of its own, which is never removed: the database's own file is replaced, and locked by SQLite.
fn lock_file(path: &Path) -> Result<File, DbError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
    opened.map_err(at(Path::new(&name)))
}

fn audit_key(file: &Connection, master: &MasterKey) -> Result<SigningKey, DbError> {
    let damaged = || DbError::Damaged("the key of its audit cannot be opened".into());
    let seed = opened(file, master, "audit.key").map_err(|_| damaged())?;
    let seed = <&[u8; 32]>::try_from(seed.as_slice()).map_err(|_| damaged())?;
    Ok(SigningKey::from_bytes(seed))
}

/// A secret of `meta`.
pub(super) fn opened(
    file: &Connection,
    master: &MasterKey,
    name: &str,
) -> Result<Zeroizing<Vec<u8>>, DbError> {
    master.open(&purpose(name), &sealed(file, name)?)
}

fn put_sealed(file: &Connection, master: &MasterKey, name: &str, plain: &[u8]) -> Result<(), DbError> {
    let sealed = master.seal(&purpose(name), plain)?;
    file.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", (name, sealed))?;
    Ok(())
}

/// As it is kept.
pub(super) fn sealed(file: &Connection, name: &str) -> Result<Vec<u8>, DbError> {
    let value =
        file.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    value.ok_or_else(|| DbError::Damaged(format!("it has lost its {name}")))
}

/// What a secret of `meta` is sealed for.
pub(super) fn purpose(name: &str) -> String {
    format!("meta:{name}")
}

/// Makes a new name, or that a name is gone, durable.
pub(super) fn sync_directory_of(file: &Path) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Removes what was begun and failed, with its companions. That it cannot be is told by the failure that came before.
pub(super) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(name);
    }
}
