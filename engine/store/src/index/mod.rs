//! What a replica remembers from run to run, and what a sender does: one redb file each, outside of what they are about.
//!
//! Owns: the tables of a replica's index ([`ReplicaIndex`]) and of a sender's hashes ([`HashCache`]), their bytes (`rows`),
//! the file beneath them (`blocks`: a checksum for each block) and its life (`file`: locked, damaged, made anew).
//!
//! Never: decides what a row is worth. Both can be lost at any time, and are rebuilt from what they are about.

mod blocks;
mod cache;
mod codec;
mod error;
mod file;
mod rows;

pub use cache::{CacheReader, HashCache};
pub use error::IndexError;
pub use file::IndexFound;
pub use rows::{CachedFile, EntryRow, EntryWhat, JobRow, LocalStat, PartialRow};

use crate::limits::{INDEX_ROWS_AT_ONCE, REUSE_BYTES_MIN};
use blocks::Purpose;
use file::{Aside, Handle, Plan, Store, Table, bad_row, discard};
use redb::{ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use sealift_proto::digest::RootHash;
use sealift_proto::keys::JobId;
use sealift_proto::path::SafePath;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

/// The version of the formats in this module. A file with a later one is refused, untouched.
pub const SCHEMA_VERSION: u16 = 1;

const REPLICA_KIND: u8 = 1;
const HASHES_KIND: u8 = 2;

/// Path → [`EntryRow`].
const ENTRIES: Table = Table::new("entries");
/// Size, root and path of each file that is worth reusing → nothing.
const CONTENT: Table = Table::new("content");
/// Path → [`PartialRow`].
const PARTIAL: Table = Table::new("partial");
/// Job id → [`JobRow`].
const JOBS: Table = Table::new("jobs");

const PLAN: Plan = Plan {
    purpose: Purpose { version: SCHEMA_VERSION, kind: REPLICA_KIND, algorithm: 0 },
    tables: &[ENTRIES, CONTENT, PARTIAL, JOBS],
    aside: Aside::Keep,
};

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
type RowsMut<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// What is known of a replica: its entries, the files that are not whole yet, the jobs that write to it. One file, locked
/// while it is open. Share it by reference; its methods block and may be called from any thread.
pub struct ReplicaIndex {
    store: Store,
}

/// What one transaction changes. Within each kind, what is removed is removed first, and of several rows for one path
/// the last one stays.
#[derive(Clone, Debug, Default)]
pub struct IndexBatch {
    /// Entries that are in place now.
    pub placed: Vec<(SafePath, EntryRow)>,
    /// Entries that are no longer there.
    pub removed: Vec<SafePath>,
    /// Files with blocks in staging.
    pub partial: Vec<(SafePath, PartialRow)>,
    /// Files that are in staging no longer.
    pub partial_gone: Vec<SafePath>,
    /// A job, new or with a new mark.
    pub job: Option<(JobId, JobRow)>,
}

impl IndexBatch {
    /// Whether nothing would be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { placed, removed, partial, partial_gone, job } = self;
        placed.is_empty()
            && removed.is_empty()
            && partial.is_empty()
            && partial_gone.is_empty()
            && job.is_none()
    }
}

/// The index as it was at one moment, for a batch of lookups. Pages it can see are not reused while it is held: keep it
/// for a batch, not for a run.
pub struct IndexReader {
    handle: Handle,
    /// Taken when it is dropped.
    tables: Option<Tables>,
}

struct Tables {
    entries: Rows,
    content: Rows,
    partial: Rows,
    jobs: Rows,
}

impl ReplicaIndex {
    /// Opens the index in `file`, or begins an empty one there: also in the place of a damaged one, which is renamed to
    /// "`file`.damaged". The directory must be there. Takes no longer for many rows than for few: the blocks are
    /// checked as they are read.
    ///
    /// # Errors
    /// [`IndexError::Newer`], [`IndexError::Locked`], or what the file system says.
    pub fn open(file: &Path) -> Result<(Self, IndexFound), IndexError> {
        let (store, found) = Store::open(file, PLAN)?;
        Ok((Self { store }, found))
    }

    /// A consistent view of what has been written up to now.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn read(&self) -> Result<IndexReader, IndexError> {
        self.store.with_database(|handle, database| {
            let tables = handle.run(|| {
                let transaction = database.begin_read()?;
                Ok(Tables {
                    entries: transaction.open_table(ENTRIES)?,
                    content: transaction.open_table(CONTENT)?,
                    partial: transaction.open_table(PARTIAL)?,
                    jobs: transaction.open_table(JOBS)?,
                })
            })?;
            Ok(IndexReader { handle: handle.clone(), tables: Some(tables) })
        })
    }

    /// Makes all of a batch true, or nothing of it; synced when this returns.
    ///
    /// # Errors
    /// See [`IndexError`]. Then nothing of the batch took effect; after a failed sync at the very end, all of it may
    /// have.
    ///
    /// # Panics
    /// If the bitmap of a partial file has not as many words as its blocks need, or its name in staging is too long.
    pub fn write(&self, batch: &IndexBatch) -> Result<(), IndexError> {
        assert!(batch.partial.iter().all(|(_, row)| row.is_sound()), "a bitmap fits its file");
        if batch.is_empty() {
            return Ok(());
        }
        self.store.write(true, |transaction| {
            if !batch.removed.is_empty() || !batch.placed.is_empty() {
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut content = transaction.open_table(CONTENT)?;
                for path in &batch.removed {
                    take_entry(&mut entries, &mut content, &rows::path_key(path))?;
                }
                for (key, row) in in_order(&batch.placed) {
                    place_entry(&mut entries, &mut content, &key, row)?;
                }
            }
            if !batch.partial_gone.is_empty() || !batch.partial.is_empty() {
                let mut partial = transaction.open_table(PARTIAL)?;
                for path in &batch.partial_gone {
                    partial.remove(&*rows::path_key(path))?;
                }
                for (key, row) in in_order(&batch.partial) {
                    partial.insert(&*key, &*row.encode(&key))?;
                }
            }
            if let Some((id, row)) = &batch.job {
                transaction.open_table(JOBS)?.insert(&id.0[..], &*row.encode(&id.0))?;
            }
            Ok(())
        })
    }
}

/// In the order of keys, in which a tree grows best; of one key in the order given.
fn in_order<T>(rows: &[(SafePath, T)]) -> Vec<(Vec<u8>, &T)> {
    let mut keyed: Vec<_> = rows.iter().map(|(path, row)| (rows::path_key(path), row)).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed
}

fn place_entry(
    entries: &mut RowsMut<'_>,
    content: &mut RowsMut<'_>,
    key: &[u8],
    row: &EntryRow,
) -> Result<(), redb::Error> {
    let listed = content_key(key, row);
    let before = entries.insert(key, &*row.encode(key))?;
    let before = before.map(|value| EntryRow::decode(key, value.value()).ok_or_else(bad_row)).transpose()?;
    let before = before.and_then(|row| content_key(key, &row));
    if before != listed {
        if let Some(before) = before {
            content.remove(&*before)?;
        }
        if let Some(listed) = listed {
            content.insert(&*listed, &*rows::seal(&listed, Vec::new()))?;
        }
    }
    Ok(())
}

fn take_entry(entries: &mut RowsMut<'_>, content: &mut RowsMut<'_>, key: &[u8]) -> Result<(), redb::Error> {
    if let Some(value) = entries.remove(key)? {
        let row = EntryRow::decode(key, value.value()).ok_or_else(bad_row)?;
        if let Some(listed) = content_key(key, &row) {
            content.remove(&*listed)?;
        }
    }
    Ok(())
}

/// The key under which a file is listed by its content, if it is large enough.
fn content_key(key: &[u8], row: &EntryRow) -> Option<Vec<u8>> {
    match &row.what {
        EntryWhat::File { layout, root, .. } if layout.size_bytes() >= REUSE_BYTES_MIN => {
            let mut listed = rows::content_prefix(layout.size_bytes(), root);
            listed.extend_from_slice(key);
            Some(listed)
        }
        _ => None,
    }
}

impl IndexReader {
    fn run<T>(&self, work: impl FnOnce(&Tables) -> Result<T, redb::Error>) -> Result<T, IndexError> {
        let tables = self.tables.as_ref().expect("taken only when dropped");
        self.handle.run(|| work(tables))
    }

    /// What is known of an entry. Fastest in the order of a walk.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn entry(&self, path: &SafePath) -> Result<Option<EntryRow>, IndexError> {
        let key = rows::path_key(path);
        self.run(|tables| get(&tables.entries, &key, EntryRow::decode))
    }

    /// What is known of a file in staging.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn partial(&self, path: &SafePath) -> Result<Option<PartialRow>, IndexError> {
        let key = rows::path_key(path);
        self.run(|tables| get(&tables.partial, &key, PartialRow::decode))
    }

    /// Every file in staging.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn partials(&self) -> Result<Vec<(SafePath, PartialRow)>, IndexError> {
        self.run(|tables| {
            all(&tables.partial, |key, value| Some((rows::key_path(key)?, PartialRow::decode(key, value)?)))
        })
    }

    /// What is known of a job.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn job(&self, id: &JobId) -> Result<Option<JobRow>, IndexError> {
        self.run(|tables| get(&tables.jobs, &id.0, JobRow::decode))
    }

    /// Every job.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn jobs(&self) -> Result<Vec<(JobId, JobRow)>, IndexError> {
        self.run(|tables| {
            all(&tables.jobs, |key, value| Some((rows::job_of_key(key)?, JobRow::decode(key, value)?)))
        })
    }

    /// An entry with this content, if there is one and it is of [`REUSE_BYTES_MIN`] or more.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn same_content(&self, size_bytes: u64, root: &RootHash) -> Result<Option<SafePath>, IndexError> {
        self.first_listed(&rows::content_prefix(size_bytes, root))
    }

    /// Whether any entry of [`REUSE_BYTES_MIN`] or more has exactly this size.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn has_size(&self, size_bytes: u64) -> Result<bool, IndexError> {
        Ok(self.first_listed(&size_bytes.to_be_bytes())?.is_some())
    }

    fn first_listed(&self, prefix: &[u8]) -> Result<Option<SafePath>, IndexError> {
        self.run(|tables| {
            let Some(row) = tables.content.range(prefix..)?.next() else { return Ok(None) };
            let (key, value) = row?;
            if !key.value().starts_with(prefix) {
                return Ok(None);
            }
            rows::unseal(key.value(), value.value()).ok_or_else(bad_row)?;
            Ok(Some(rows::content_path(key.value()).ok_or_else(bad_row)?))
        })
    }

    /// Shows every entry in the order of a walk, from the first after `after` on, until told to stop.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn for_each_entry(
        &self,
        after: Option<&SafePath>,
        show: &mut dyn FnMut(SafePath, EntryRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let mut last = after.map(rows::path_key);
        loop {
            // Shown outside of `run`, which would take a panic of the caller's for one of redb's.
            let rows = self.run(|tables| next_rows(&tables.entries, last.as_deref(), EntryRow::decode))?;
            let Some((path, _)) = rows.last() else { return Ok(()) };
            last = Some(rows::path_key(path));
            for (path, row) in rows {
                if show(path, row).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// The number of entries.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn len(&self) -> Result<u64, IndexError> {
        self.run(|tables| Ok(tables.entries.len()?))
    }

    /// Whether there is no entry.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn is_empty(&self) -> Result<bool, IndexError> {
        Ok(self.len()? == 0)
    }
}

impl Drop for IndexReader {
    fn drop(&mut self) {
        discard(self.tables.take());
    }
}

fn get<T>(
    table: &Rows,
    key: &[u8],
    decode: impl FnOnce(&[u8], &[u8]) -> Option<T>,
) -> Result<Option<T>, redb::Error> {
    let value = table.get(key)?;
    value.map(|value| decode(key, value.value()).ok_or_else(bad_row)).transpose()
}

fn all<T>(table: &Rows, decode: impl Fn(&[u8], &[u8]) -> Option<T>) -> Result<Vec<T>, redb::Error> {
    let rows = table.iter()?.map(|row| {
        let (key, value) = row?;
        decode(key.value(), value.value()).ok_or_else(bad_row)
    });
    rows.collect()
}

/// The next rows of a table whose keys are paths, in order; none at the end.
fn next_rows<T>(
    table: &Rows,
    after: Option<&[u8]>,
    decode: impl Fn(&[u8], &[u8]) -> Option<T>,
) -> Result<Vec<(SafePath, T)>, redb::Error> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = table.range::<&[u8]>((from, Bound::Unbounded))?.take(INDEX_ROWS_AT_ONCE).map(|row| {
        let (key, value) = row?;
        let path = rows::key_path(key.value()).ok_or_else(bad_row)?;
        Ok((path, decode(key.value(), value.value()).ok_or_else(bad_row)?))
    });
    rows.collect()
}

#[cfg(test)]
mod tests;
