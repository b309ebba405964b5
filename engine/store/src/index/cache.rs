//! What a sender remembers of the files it hashed, so that those it finds unchanged are not read again.

use super::blocks::Purpose;
use super::error::IndexError;
use super::file::{Aside, Handle, IndexFound, Plan, Store, Table, bad_row, discard};
use super::rows::{self, CachedFile, CachedHead};
use super::{HASHES_KIND, Rows, RowsMut, SCHEMA_VERSION, get, in_order, next_rows};
use crate::limits::{CACHE_UNFLUSHED_ROWS_MAX, HASHES_PER_ROW};
use redb::ReadableDatabase as _;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::path::SafePath;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Path → [`CachedFile`] without its block hashes.
const FILES: Table = Table::new("files");
/// Path and number of the row → up to [`HASHES_PER_ROW`] block hashes.
const LISTS: Table = Table::new("lists");

/// The hashes of the files of one source, by one algorithm. A file that is damaged, or is about another algorithm, is
/// removed and begun anew. Share it by reference; its methods block and may be called from any thread.
pub struct HashCache {
    store: Store,
    found: IndexFound,
    /// Rows written since the last flush. Locked while any are written.
    unflushed: Mutex<u64>,
}

/// The cache as it was at one moment. Keep it for a batch of lookups, not for a run.
pub struct CacheReader {
    handle: Handle,
    /// Taken when it is dropped.
    tables: Option<(Rows, Rows)>,
}

pub(super) fn plan(algorithm: HashAlgorithm) -> Plan {
    let purpose = Purpose { version: SCHEMA_VERSION, kind: HASHES_KIND, algorithm: algorithm.code() };
    Plan { purpose, tables: &[FILES, LISTS], aside: Aside::Remove }
}

impl HashCache {
    /// Opens the cache in `file`, or begins an empty one there. The directory must be there.
    ///
    /// # Errors
    /// [`IndexError::Newer`], [`IndexError::Locked`], or what the file system says. One can do without a cache.
    pub fn open(file: &Path, algorithm: HashAlgorithm) -> Result<Self, IndexError> {
        let (store, found) = Store::open(file, plan(algorithm))?;
        Ok(Self { found, ..Self::on(store) })
    }

    pub(super) fn on(store: Store) -> Self {
        Self { store, found: IndexFound::Sound, unflushed: Mutex::new(0) }
    }

    /// What was there when it was opened.
    #[must_use]
    pub fn found(&self) -> IndexFound {
        self.found
    }

    /// A consistent view of what has been written up to now, flushed or not.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn read(&self) -> Result<CacheReader, IndexError> {
        self.store.with_database(|handle, database| {
            let tables = handle.run(|| {
                let transaction = database.begin_read()?;
                Ok((transaction.open_table(FILES)?, transaction.open_table(LISTS)?))
            })?;
            Ok(CacheReader { handle: handle.clone(), tables: Some(tables) })
        })
    }

    /// Remembers files, in the place of what was known of them. Readers see them from now on. A crash may lose them until
    /// the next [`HashCache::flush`], which comes by itself after many.
    ///
    /// # Errors
    /// See [`IndexError`]. What was not flushed may then be lost.
    ///
    /// # Panics
    /// If a file's parts do not belong together: see [`CachedFile`].
    pub fn write(&self, files: &[(SafePath, CachedFile)]) -> Result<(), IndexError> {
        assert!(files.iter().all(|(_, file)| file.is_sound()), "hashes and holes fit their file");
        self.change(files.len(), |table, lists| {
            for (key, file) in in_order(files) {
                let before = forget(table.insert(&*key, &*file.encode_head(&key))?, &key)?;
                let rows = file.hashes.chunks(HASHES_PER_ROW);
                remove_lists(lists, &key, rows.len(), before)?;
                for (number, hashes) in (0..).zip(rows) {
                    let list = list_key(&key, number);
                    lists.insert(&*list, &*rows::encode_hashes(&list, hashes))?;
                }
            }
            Ok(())
        })
    }

    /// Forgets files.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn remove(&self, paths: &[SafePath]) -> Result<(), IndexError> {
        self.change(paths.len(), |table, lists| {
            for path in paths {
                let key = rows::path_key(path);
                let before = forget(table.remove(&*key)?, &key)?;
                remove_lists(lists, &key, 0, before)?;
            }
            Ok(())
        })
    }

    /// Forgets every file for which `keep` says no; asked in the order of a walk. Returns how many were forgotten.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn retain(&self, keep: &mut dyn FnMut(&SafePath) -> bool) -> Result<u64, IndexError> {
        let mut last = None;
        let mut forgotten = 0;
        loop {
            let reader = self.read()?;
            let rows = reader.run(|(files, _)| next_rows(files, last.as_deref(), |_, _| Some(())))?;
            drop(reader);
            let Some((path, ())) = rows.last() else { return Ok(forgotten) };
            last = Some(rows::path_key(path));
            let gone: Vec<_> = rows.into_iter().map(|(path, ())| path).filter(|path| !keep(path)).collect();
            self.remove(&gone)?;
            forgotten += gone.len() as u64;
        }
    }

    /// Makes what was written up to now durable.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn flush(&self) -> Result<(), IndexError> {
        let mut unflushed = self.unflushed();
        if *unflushed > 0 {
            self.store.write(true, |_| Ok(()))?;
            *unflushed = 0;
        }
        Ok(())
    }

    fn unflushed(&self) -> MutexGuard<'_, u64> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(
        &self,
        rows: usize,
        work: impl FnOnce(&mut RowsMut<'_>, &mut RowsMut<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), IndexError> {
        if rows == 0 {
            return Ok(());
        }
        let mut unflushed = self.unflushed();
        *unflushed += rows as u64;
        let durable = *unflushed > CACHE_UNFLUSHED_ROWS_MAX;
        self.store.write(durable, |transaction| {
            work(&mut transaction.open_table(FILES)?, &mut transaction.open_table(LISTS)?)
        })?;
        if durable {
            *unflushed = 0;
        }
        Ok(())
    }
}

impl CacheReader {
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&(Rows, Rows)) -> Result<T, redb::Error>,
    ) -> Result<T, IndexError> {
        let tables = self.tables.as_ref().expect("taken only when dropped");
        self.handle.run(|| work(tables))
    }

    /// What is known of a file. Fastest in the order of a walk.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn get(&self, path: &SafePath) -> Result<Option<CachedFile>, IndexError> {
        let key = rows::path_key(path);
        self.run(|(files, lists)| {
            let Some(CachedHead { mut file, hashes }) = get(files, &key, CachedHead::decode)? else {
                return Ok(None);
            };
            file.hashes.reserve_exact(hashes);
            for number in 0.. {
                let count = (hashes - file.hashes.len()).min(HASHES_PER_ROW);
                if count == 0 {
                    break;
                }
                let list = list_key(&key, number);
                let value = lists.get(&*list)?.ok_or_else(bad_row)?;
                rows::decode_hashes(&list, value.value(), count, &mut file.hashes).ok_or_else(bad_row)?;
            }
            Ok(Some(file))
        })
    }

    /// What is known of the next files after a path, or of the first ones, in the order of a walk; none at the end. Without
    /// the hashes of their blocks, which may be many: [`CacheReader::get`] has those.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn after(&self, path: Option<&SafePath>) -> Result<Vec<(SafePath, CachedFile)>, IndexError> {
        let key = path.map(rows::path_key);
        self.run(|(files, _)| {
            next_rows(files, key.as_deref(), |key, value| Some(CachedHead::decode(key, value)?.file))
        })
    }
}

impl Drop for CacheReader {
    fn drop(&mut self) {
        discard(self.tables.take());
    }
}

/// A path's key cannot end in these four bytes and be another's: both are as long.
fn list_key(key: &[u8], number: u32) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// The number of rows of block hashes that the row which was there before had.
fn forget(before: Option<redb::AccessGuard<'_, &'static [u8]>>, key: &[u8]) -> Result<usize, redb::Error> {
    let Some(value) = before else { return Ok(0) };
    let head = CachedHead::decode(key, value.value()).ok_or_else(bad_row)?;
    Ok(head.hashes.div_ceil(HASHES_PER_ROW))
}

/// Removes the rows of block hashes from number `from` up to `to`.
fn remove_lists(lists: &mut RowsMut<'_>, key: &[u8], from: usize, to: usize) -> Result<(), redb::Error> {
    for number in from..to {
        let number = u32::try_from(number).map_err(|_| bad_row())?;
        lists.remove(&*list_key(key, number))?;
    }
    Ok(())
}
