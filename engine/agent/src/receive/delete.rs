//! Removes what an earlier run of the job put here and the source has no more. Never anything else: not what was here
//! before, not what another job put here, not what was edited since, no directory with anything in it.

use super::failure::Failure;
use super::local::read_back;
use super::place::Publisher;
use sealift_proto::digest;
use sealift_proto::manifest::Catalog;
use sealift_proto::path::SafePath;
use sealift_store::{EntryRow, EntryWhat, FileStat, LocalStat, Removal, RemoveExpected};
use std::ops::ControlFlow;
use std::str::FromStr;

/// How many entries may be removed without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxDelete {
    /// A tenth of what the job has put here or a thousand, whichever is less; ten in any case.
    Usual,
    /// So many.
    Count(u64),
    /// That part of what the job has put here.
    Percent(u8),
}

const USUAL_PERCENT: u64 = 10;
const USUAL_MAX: u64 = 1000;
const USUAL_MIN: u64 = 10;

impl MaxDelete {
    /// How many of so many.
    fn of(self, entries: u64) -> u64 {
        match self {
            Self::Usual => (entries * USUAL_PERCENT / 100).clamp(USUAL_MIN, USUAL_MAX),
            Self::Count(count) => count,
            Self::Percent(percent) => {
                u64::try_from(u128::from(entries) * u128::from(percent) / 100).unwrap_or(entries)
            }
        }
    }
}

impl FromStr for MaxDelete {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a number of entries, or a percentage as in 25%".to_owned();
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

/// What is to be removed.
pub struct Deletions {
    /// What stands at the source.
    pub catalog: Catalog,
    /// How much may be removed.
    pub max: MaxDelete,
    /// Whether a person can be asked about more.
    pub ask: Option<fn(u64, u64) -> bool>,
}

/// What was removed.
#[derive(Default)]
pub struct Deleted {
    /// Entries.
    pub count: u64,
    /// What was not removed, and why.
    pub kept: Vec<String>,
    /// What could not be removed, and why.
    pub failures: Vec<(SafePath, String)>,
    /// Why nothing was removed at all.
    pub withheld: Option<String>,
}

/// Entries that are removed before the index is told.
const BATCH: usize = 4096;

/// Removes entries. Blocks.
///
/// # Errors
/// If the index cannot be read or written.
pub fn delete(publisher: &Publisher, deletions: Deletions) -> Result<Deleted, Failure> {
    let number = publisher.memory.number();
    let gone = |path: &SafePath, row: &EntryRow| row.job == number && !deletions.catalog.stands(path);
    let (mut ours, mut count) = (0, 0);
    publisher.memory.read()?.for_each_entry(None, &mut |path, row| {
        ours += u64::from(row.job == number);
        count += u64::from(gone(&path, &row));
        ControlFlow::Continue(())
    })?;
    let mut deleted = Deleted::default();
    let allowed = match deletions.max {
        // A source that has nothing at all is rather a disk that is not mounted there.
        MaxDelete::Usual if deletions.catalog.entries() == 0 => 0,
        max => max.of(ours),
    };
    if count > allowed && !deletions.ask.is_some_and(|ask| ask(count, ours)) {
        deleted.withheld = Some(format!(
            "{count} of the {ours} entries here are gone at the source, and no more than {allowed} are removed unasked: \
             nothing was removed. If that is meant, use --max-delete={count}"
        ));
        return Ok(deleted);
    }
    let mut directories = Vec::new();
    let mut after = None;
    loop {
        let mut batch = Vec::new();
        publisher.memory.read()?.for_each_entry(after.as_ref(), &mut |path, row| {
            if gone(&path, &row) {
                match row.what {
                    EntryWhat::Directory => directories.push(path),
                    what => batch.push((path, what)),
                }
            }
            if batch.len() == BATCH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some((last, _)) = batch.last() else { break };
        after = Some(last.clone());
        remove(publisher, batch, &mut deleted)?;
    }
    // Children before parents.
    directories.sort();
    directories.dedup();
    let wanted = directories.into_iter().rev().map(|path| (path, EntryWhat::Directory)).collect();
    remove(publisher, wanted, &mut deleted)?;
    Ok(deleted)
}

fn expected(what: &EntryWhat) -> RemoveExpected {
    match what {
        EntryWhat::File { stat, .. } | EntryWhat::Hardlink { stat } => RemoveExpected::File(seen(stat)),
        EntryWhat::Symlink { target_hash } => RemoveExpected::Symlink { target_hash: *target_hash },
        EntryWhat::Directory => RemoveExpected::Directory,
    }
}

/// Whether a file was edited since, though its size and time say otherwise: its inode was changed, and its content is
/// another. (Names that come and go change the inode too.)
fn is_edited(publisher: &Publisher, path: &SafePath, what: &EntryWhat) -> bool {
    let EntryWhat::File { layout, algorithm, root, stat: was, .. } = what else { return false };
    match publisher.replica.open_existing(path) {
        Ok((file, now))
            if now.inode == was.inode && now.size_bytes == was.size_bytes && now.ctime != was.ctime =>
        {
            let hashes = read_back(&file, *algorithm, *layout);
            hashes.map_or(true, |hashes| digest::root(*algorithm, &hashes) != *root)
        }
        _ => false,
    }
}

/// As the disk would tell it, as far as that is compared.
fn seen(stat: &LocalStat) -> FileStat {
    let LocalStat { inode, size_bytes, mtime, ctime, mode } = *stat;
    FileStat { size_bytes, mtime, ctime, inode, device: 0, mode, links: 1 }
}

fn remove(
    publisher: &Publisher,
    wanted: Vec<(SafePath, EntryWhat)>,
    deleted: &mut Deleted,
) -> Result<(), Failure> {
    let mut removed = Vec::new();
    for (path, what) in wanted {
        let expected = expected(&what);
        if is_edited(publisher, &path, &what) {
            deleted.kept.push(format!("{path}: is gone at the source, but was edited here: it is kept"));
            continue;
        }
        match publisher.replica.remove_entry(&path, &expected) {
            Ok(Removal::Removed) => {
                deleted.count += 1;
                removed.push(path);
            }
            Ok(Removal::Absent) => removed.push(path),
            Ok(Removal::Differs) => {
                deleted.kept.push(format!("{path}: is gone at the source, but was edited here: it is kept"));
            }
            Ok(Removal::NotEmpty) => {
                deleted
                    .kept
                    .push(format!("{path}: is gone at the source, but has other files here: it is kept"));
            }
            Err(error) => {
                let reason = format!("is gone at the source, and could not be removed: {error}");
                deleted.failures.push((path, reason));
            }
        }
    }
    // What is removed from the index before it is from the disk would be nobody's after a power cut.
    if !removed.is_empty() {
        if publisher.durability == sealift_store::Durability::Synced {
            publisher.replica.sync().map_err(Failure::nameless)?;
        }
        publisher.memory.forget(removed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c9_a_tenth_or_a_thousand_and_never_less_than_ten() {
        for (entries, allowed) in [(0, 10), (50, 10), (200, 20), (10_000, 1000), (1_000_000, 1000)] {
            assert_eq!(MaxDelete::Usual.of(entries), allowed, "{entries}");
        }
        assert_eq!("25%".parse::<MaxDelete>().map(|max| max.of(80)), Ok(20));
        assert_eq!("7".parse::<MaxDelete>().map(|max| max.of(80)), Ok(7));
        for bad in ["", "101%", "-1", "%", "x"] {
            assert!(bad.parse::<MaxDelete>().is_err(), "{bad}");
        }
    }
}
