//! One redb file: opened, locked, found damaged, made anew; and what redb's errors mean.
//!
//! Every call into redb goes through [`Handle::run`]: what redb says is explained there, and a panic of redb's becomes
//! damage instead of the end of the program.

use super::blocks::{Backend, BlockFile, Disk, Fault, HeadError, Purpose};
use super::error::IndexError;
use crate::faults::{self, Op};
use crate::limits::{INDEX_CACHE_BYTES, REPLACE_TRIES_MAX};
use redb::{Database, TableDefinition, WriteTransaction};
use rustix::fs::{FlockOperation, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A table of rows: both sides are bytes, which `rows` knows.
pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// What was found where an index was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFound {
    /// Nothing: a new, empty one was made.
    Created,
    /// One that can be used.
    Sound,
    /// A damaged one, which was moved aside; a new, empty one was made.
    Damaged,
}

/// What becomes of a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// It is kept as "NAME.damaged", in the place of an older such.
    Keep,
    /// It is removed.
    Remove,
}

/// What a file is, and the tables it has from the beginning.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) purpose: Purpose,
    pub(super) tables: &'static [Table],
    pub(super) aside: Aside,
}

/// One life of a file's database, shared with its readers: from its opening until something fails.
#[derive(Clone)]
pub(super) struct Handle {
    path: Arc<PathBuf>,
    blocks: Arc<BlockFile>,
}

impl Handle {
    /// Does something with redb, and explains how it failed. After a failure the handle is of no further use.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, IndexError> {
        if self.blocks.is_dead() {
            return Err(self.fault());
        }
        // Nothing that `work` had in hand is looked at after a panic: the handle is dead from then on, the file takes
        // no more writes, and what is left of redb is only dropped.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(self.damaged()),
        }
    }

    fn explain(&self, error: redb::Error) -> IndexError {
        match error {
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                if self.blocks.fault() == Some(Fault::Damaged) {
                    return self.damaged();
                }
                self.blocks.end();
                match error {
                    redb::Error::Io(source) => IndexError::from_io(&self.path, source),
                    _ => self.fault(),
                }
            }
            // A value over 3 GiB, and the like: the limits leave no room for it.
            redb::Error::ValueTooLarge(_) => IndexError::from_io(
                &self.path,
                io::Error::new(io::ErrorKind::InvalidInput, error.to_string()),
            ),
            // Of the rest, those about tables can only come of a file that is not what we wrote.
            _ => self.damaged(),
        }
    }

    fn damaged(&self) -> IndexError {
        self.blocks.condemn();
        IndexError::Damaged { path: self.path.to_path_buf() }
    }

    /// What the last failure was.
    fn fault(&self) -> IndexError {
        let path = || self.path.to_path_buf();
        match self.blocks.fault() {
            Some(Fault::Damaged) => IndexError::Damaged { path: path() },
            Some(Fault::Disk { errno: Some(errno), .. }) => {
                IndexError::from_io(&self.path, io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Disk { kind, errno: None }) => IndexError::from_io(&self.path, kind.into()),
            None => IndexError::from_io(&self.path, io::Error::other("the index was closed")),
        }
    }
}

/// A row that is not what was written.
pub(super) fn bad_row() -> redb::Error {
    redb::Error::Corrupted("a row is damaged".to_owned())
}

/// Drops what belongs to redb, which may panic over a damaged file.
pub(super) fn discard<T>(value: T) {
    // A handle that panicked is dead already: it writes nothing here.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// An open file.
pub(super) struct Store {
    plan: Plan,
    path: Arc<PathBuf>,
    life: RwLock<Life>,
}

struct Life {
    /// `None` while it is being opened anew, and if that failed.
    database: Option<Database>,
    handle: Handle,
}

impl Drop for Life {
    fn drop(&mut self) {
        discard(self.database.take());
    }
}

impl Store {
    pub(super) fn open(path: &Path, plan: Plan) -> Result<(Self, IndexFound), IndexError> {
        let failed = |source| IndexError::from_io(path, source);
        let mut made_anew = IndexFound::Created;
        for _ in 0..REPLACE_TRIES_MAX {
            match faults::guard(Op::Open, || OpenOptions::new().read(true).write(true).open(path)) {
                Ok(file) => {
                    if !lock(&file, path)? {
                        continue;
                    }
                    let file = Arc::new(file);
                    let disk: Arc<dyn Disk> = file.clone();
                    let unusable = match Self::start(path, plan, disk)? {
                        Ok(store) => return Ok((store, IndexFound::Sound)),
                        Err(unusable) => unusable,
                    };
                    match plan.aside {
                        Aside::Keep => {
                            faults::guard(Op::Rename, || std::fs::rename(path, with_suffix(path, ".damaged")))
                        }
                        Aside::Remove => faults::guard(Op::Unlink, || std::fs::remove_file(path)),
                    }
                    .map_err(failed)?;
                    // Locked up to here: nobody else takes the next one's place for this one's.
                    drop(file);
                    made_anew = unusable;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(store) = Self::create(path, plan)? {
                        return Ok((store, made_anew));
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(IndexError::Locked { path: path.to_owned() })
    }

    /// Opens what is on a disk; or says as what it counts if it cannot be used.
    pub(super) fn start(
        path: &Path,
        plan: Plan,
        disk: Arc<dyn Disk>,
    ) -> Result<Result<Self, IndexFound>, IndexError> {
        match BlockFile::open(disk, plan.purpose) {
            Ok(blocks) => match Self::with(path, plan, blocks) {
                Ok(store) => Ok(Ok(store)),
                Err(IndexError::Damaged { .. }) => Ok(Err(IndexFound::Damaged)),
                Err(error) => Err(error),
            },
            // What is removed need not be spoken of.
            Err(HeadError::Foreign) if plan.aside == Aside::Remove => Ok(Err(IndexFound::Created)),
            Err(HeadError::Damaged | HeadError::Foreign) => Ok(Err(IndexFound::Damaged)),
            Err(HeadError::Newer(version)) => Err(IndexError::Newer { path: path.to_owned(), version }),
            Err(HeadError::Io(error)) => Err(IndexError::from_io(path, error)),
        }
    }

    /// Makes a new file under another name, so that one with this name is whole. `None` if somebody else was faster.
    fn create(path: &Path, plan: Plan) -> Result<Option<Self>, IndexError> {
        let failed = |source| IndexError::from_io(path, source);
        let unfinished = with_suffix(path, ".new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = faults::guard(Op::Create, || options.open(&unfinished)).map_err(failed)?;
        if !lock(&file, &unfinished)? {
            return Ok(None);
        }
        let file = Arc::new(file);
        let result = Self::fill_and_name(path, plan, &file, &unfinished);
        if !matches!(result, Ok(Some(_))) {
            // Still locked: it is nobody else's.
            let _ = std::fs::remove_file(&unfinished);
        }
        result
    }

    fn fill_and_name(
        path: &Path,
        plan: Plan,
        file: &Arc<File>,
        unfinished: &Path,
    ) -> Result<Option<Self>, IndexError> {
        let failed = |source| IndexError::from_io(path, source);
        file.set_len(0).map_err(failed)?;
        let disk: Arc<dyn Disk> = file.clone();
        let store = Self::fill(path, plan, disk)?;
        let cwd = rustix::fs::CWD;
        let renamed = faults::guard(Op::Rename, || {
            rustix::fs::renameat_with(cwd, unfinished, cwd, path, RenameFlags::NOREPLACE)
        });
        match renamed {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(None),
            // Some file systems cannot do that. Then who opens at the same time must be kept out by the caller.
            Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(unfinished, path).map_err(failed)?,
            Err(error) => return Err(failed(error.into())),
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        faults::guard(Op::Sync, || parent.sync_all()).map_err(failed)?;
        Ok(Some(store))
    }

    /// Makes an empty disk a file with all its tables, synced.
    pub(super) fn fill(path: &Path, plan: Plan, disk: Arc<dyn Disk>) -> Result<Self, IndexError> {
        let store = Self::with(path, plan, BlockFile::create(disk, plan.purpose))?;
        store.write(true, |transaction| {
            for table in plan.tables {
                transaction.open_table(*table)?;
            }
            Ok(())
        })?;
        Ok(store)
    }

    fn with(path: &Path, plan: Plan, blocks: BlockFile) -> Result<Self, IndexError> {
        let path = Arc::new(path.to_owned());
        let life = Life::begin(Arc::clone(&path), blocks)?;
        Ok(Self { plan, path, life: RwLock::new(life) })
    }

    /// Does something with the database. After a full disk it is opened anew first.
    pub(super) fn with_database<T>(
        &self,
        work: impl FnOnce(&Handle, &Database) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let is_full = |life: &Life| {
            life.handle.blocks.is_dead() && matches!(life.handle.fault(), IndexError::Full { .. })
        };
        let life = self.life.read().unwrap_or_else(PoisonError::into_inner);
        let life = if is_full(&life) {
            drop(life);
            let mut life = self.life.write().unwrap_or_else(PoisonError::into_inner);
            if is_full(&life) {
                self.begin_again(&mut life)?;
            }
            drop(life);
            self.life.read().unwrap_or_else(PoisonError::into_inner)
        } else {
            life
        };
        match &life.database {
            Some(database) => work(&life.handle, database),
            None => Err(life.handle.fault()),
        }
    }

    /// Opens the file anew. What was not committed is gone, and the blocks it was written to count as free; so a
    /// sync that failed is of no consequence: whatever is written from here is written, and synced, again.
    fn begin_again(&self, life: &mut Life) -> Result<(), IndexError> {
        // The lock stays: it goes with the disk.
        let disk = life.handle.blocks.disk();
        discard(life.database.take());
        let blocks = match BlockFile::open(disk, self.plan.purpose) {
            Ok(blocks) => blocks,
            Err(HeadError::Io(error)) => return Err(IndexError::from_io(&self.path, error)),
            Err(_) => return Err(life.handle.damaged()),
        };
        *life = Life::begin(Arc::clone(&self.path), blocks)?;
        Ok(())
    }

    /// One transaction: durable when this returns, or only visible.
    pub(super) fn write<T>(
        &self,
        durable: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, IndexError> {
        self.with_database(|handle, database| {
            handle.run(|| {
                let mut transaction = database.begin_write()?;
                if durable {
                    // In two phases (see `blocks`), and with the list of free pages, so that opening takes no time
                    // even after a crash.
                    transaction.set_quick_repair(true);
                } else {
                    transaction.set_durability(redb::Durability::None)?;
                }
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            })
        })
    }
}

impl Life {
    fn begin(path: Arc<PathBuf>, blocks: BlockFile) -> Result<Self, IndexError> {
        let handle = Handle { path, blocks: Arc::new(blocks) };
        let backend = Backend(Arc::clone(&handle.blocks));
        let database = handle.run(|| {
            Ok(Database::builder().set_cache_size(INDEX_CACHE_BYTES).create_with_backend(backend)?)
        })?;
        Ok(Self { database: Some(database), handle })
    }
}

/// Locks a file for as long as it is open. False if it is no longer what the path names.
fn lock(file: &File, path: &Path) -> Result<bool, IndexError> {
    let failed = |source| IndexError::from_io(path, source);
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(IndexError::Locked { path: path.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    }
    let ours = file.metadata().map_err(failed)?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
