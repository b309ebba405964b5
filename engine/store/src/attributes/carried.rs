//! Attributes on their way to one entry, with what sets them and counts what could not be set.

use super::EntryKind;
use super::apply::Applied;
use super::map::{AttributeMapper, Dropped, Resolved};
use crate::error::FileError;
use crate::limits::DROPPED_KINDS_MAX;
use crate::replica::Replica;
use crate::stat::FileStat;
use sealift_proto::path::SafePath;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// How often each kind of attribute could not be set. Bounded: what does not fit is counted as one.
#[derive(Debug, Default)]
pub struct DroppedTally {
    counts: Mutex<(HashMap<Dropped, u64>, u64)>,
}

impl DroppedTally {
    /// Counts some.
    pub fn add(&self, dropped: Vec<Dropped>) {
        if dropped.is_empty() {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (kinds, others) = &mut *counts;
        for dropped in dropped {
            if kinds.len() < DROPPED_KINDS_MAX || kinds.contains_key(&dropped) {
                *kinds.entry(dropped).or_default() += 1;
            } else {
                *others += 1;
            }
        }
    }

    /// A sentence for each kind, the most frequent first; it is forgotten then.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        let (kinds, others) =
            std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kinds: Vec<(Dropped, u64)> = kinds.into_iter().collect();
        kinds.sort_by_cached_key(|(dropped, count)| (u64::MAX - count, dropped.to_string()));
        let mut told: Vec<String> = kinds
            .into_iter()
            .map(|(dropped, count)| match count {
                1 => format!("one entry: {dropped}"),
                count => format!("{count} entries: {dropped}"),
            })
            .collect();
        if others > 0 {
            told.push(format!("{others} more attributes of other kinds were not set"));
        }
        told
    }
}

/// Attributes that one entry is to have.
#[derive(Clone, Debug)]
pub struct Attributed {
    mapper: Arc<AttributeMapper>,
    tally: Arc<DroppedTally>,
    resolved: Resolved,
}

impl Attributed {
    /// What is resolved, with what sets it.
    #[must_use]
    pub fn new(mapper: Arc<AttributeMapper>, tally: Arc<DroppedTally>, resolved: Resolved) -> Self {
        Self { mapper, tally, resolved }
    }

    /// The mode that the entry is to have, where the manifest says `mode`.
    #[must_use]
    pub fn mode(&self, mode: u32) -> u32 {
        self.resolved.mode(mode)
    }

    /// Sets what differs of an open file. Returns the mode that it is to have then; the times come after.
    pub(crate) fn apply(&self, file: impl AsFd, mode: u32) -> io::Result<u32> {
        Ok(self.noted(self.mapper.apply(file, &self.resolved, Some(mode))?).mode)
    }

    fn noted(&self, mut applied: Applied) -> Applied {
        self.tally.add(std::mem::take(&mut applied.dropped));
        applied
    }

    /// Sets what differs of an entry in its place. `expected` is a file as it was looked at. The times come after.
    ///
    /// # Errors
    /// [`FileError::Changed`] if something else is there by now; otherwise what the file system says.
    pub fn update(
        &self,
        replica: &Replica,
        path: &SafePath,
        kind: EntryKind,
        expected: Option<&FileStat>,
        mode: Option<u32>,
    ) -> Result<Applied, FileError> {
        let applied = replica.set_attributes(&self.mapper, path, kind, expected, &self.resolved, mode)?;
        Ok(self.noted(applied))
    }

    /// Sets what differs of the root itself.
    ///
    /// # Errors
    /// What the file system says.
    pub fn update_root(&self, replica: &Replica, mode: Option<u32>) -> io::Result<Applied> {
        Ok(self.noted(replica.set_root_attributes(&self.mapper, &self.resolved, mode)?))
    }
}
