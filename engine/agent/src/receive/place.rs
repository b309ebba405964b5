//! Puts verified files in their places, by the batch: read-back if it is asked for, sync, rename. And, at the very
//! end, what needs everything else to be in place: further names of files, and the metadata of directories.

use super::delete::{Deletions, delete};
use super::entries::{DirectoryEntry, Metadata};
use super::failure::{Failure, Trouble};
use super::local::{Before, read_back};
use super::memory::{Draft, Memory};
use super::{OnConflict, Verify};
use sealift_proto::block::FileId;
use sealift_proto::digest::{HashAlgorithm, root};
use sealift_proto::manifest::Mark;
use sealift_proto::path::SafePath;
use sealift_store::{
    Allocation, Durability, EntryRow, EntryWhat, Existing, Expected, FileError, FileStat, IndexBatch,
    IndexReader, Linked, LocalStat, Ready, Replica,
};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How files are published.
pub struct Publisher {
    /// The destination.
    pub replica: Arc<Replica>,
    /// What is remembered of it.
    pub memory: Arc<Memory>,
    /// Whether it is synced.
    pub durability: Durability,
    /// What is verified first.
    pub verify: Verify,
    /// What becomes of files that were edited here.
    pub on_conflict: OnConflict,
}

/// A file that is complete, verified and staged.
pub struct Complete {
    /// Its number.
    pub id: FileId,
    /// The file.
    pub ready: Ready,
    /// What is known of it.
    pub draft: Draft,
    /// What was wanted of it beside its content.
    pub metadata: Metadata,
    /// What is at its place.
    pub before: Before,
    /// Whether the index knows its staged file.
    pub kept: bool,
}

/// A file that was published, or why not.
pub struct Placed {
    /// Its number.
    pub id: FileId,
    /// How it went.
    pub result: Result<(), Failure>,
}

/// What else the index is to be told with a batch.
#[derive(Default)]
pub struct Notes {
    /// Entries that stand.
    pub rows: Vec<(SafePath, EntryRow)>,
    /// Paths of which nothing is staged any more.
    pub unstaged: Vec<SafePath>,
    /// How far the chain was accepted.
    pub mark: Option<Mark>,
}

impl Publisher {
    /// Publishes a batch: content synced, renamed, directories synced, and then the index, synced too. Blocks. Returns
    /// what became of each, and what was set aside.
    ///
    /// # Errors
    /// If the index cannot be written: nothing of the batch is then called done.
    pub fn publish(
        &self,
        mut batch: Vec<Complete>,
        mut notes: Notes,
    ) -> Result<(Vec<Placed>, Vec<String>), Failure> {
        if !notes.rows.is_empty() && self.durability == Durability::Synced && self.replica.sync().is_err() {
            // What was found as it should be may not be on the disk: it is hashed again next time.
            notes.rows.clear();
        }
        // In the order of paths each directory is looked up once.
        batch.sort_by(|a, b| a.ready.path().cmp(b.ready.path()));
        let mut placed = Vec::with_capacity(batch.len());
        let mut set_aside = Vec::new();
        let mut drafts = Vec::with_capacity(batch.len());
        let mut ready = Vec::with_capacity(batch.len());
        for complete in batch {
            let right = match self.verify {
                Verify::Stream => Ok(()),
                Verify::Readback => check_on_disk(complete.draft.algorithm, &complete),
            };
            match right.and_then(|()| self.make_way(&complete, &mut set_aside)) {
                Ok(expected) => {
                    let Complete { id, ready: file, draft, metadata, kept, .. } = complete;
                    drafts.push((id, file.path().clone(), draft, metadata, kept));
                    ready.push(file.expect(expected));
                }
                Err(failure) => {
                    let Complete { id, ready: file, kept, .. } = complete;
                    if failure.lost_writes {
                        if kept {
                            notes.unstaged.push(file.path().clone());
                        }
                        file.discard();
                    }
                    placed.push(Placed { id, result: Err(failure) });
                }
            }
        }
        let results = self.replica.publish(ready, self.durability);
        for ((id, path, draft, metadata, kept), result) in drafts.into_iter().zip(results) {
            let result = match result {
                Ok(stat) => {
                    notes.rows.push((path.clone(), draft.row(self.memory.number(), &metadata, &stat)));
                    Ok(())
                }
                Err(error) => Err(Failure::from(&error)),
            };
            // What is whole in staging and could not be renamed need not be fetched again.
            if kept && result.as_ref().map_or_else(|failure: &Failure| failure.lost_writes, |()| true) {
                notes.unstaged.push(path);
            }
            placed.push(Placed { id, result });
        }
        self.note(notes)?;
        Ok((placed, set_aside))
    }

    /// Tells the index. Blocks.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub fn note(&self, notes: Notes) -> Result<(), Failure> {
        let Notes { rows, unstaged, mark } = notes;
        sealift_store::fault_point("index").map_err(Failure::nameless)?;
        let batch = IndexBatch { placed: rows, partial_gone: unstaged, ..IndexBatch::default() };
        Ok(self.memory.write(batch, mark)?)
    }

    /// Sees to it that a file may be replaced: what somebody edited here is set aside, if that is the rule.
    fn make_way(&self, complete: &Complete, set_aside: &mut Vec<String>) -> Result<Expected, Failure> {
        let Before { expected, edited, .. } = complete.before;
        if !edited {
            return Ok(expected);
        }
        let path = complete.ready.path();
        match self.on_conflict {
            OnConflict::Overwrite => Ok(expected),
            OnConflict::Keep => {
                Err(Failure::lasting("was edited here, and is kept as it is (--on-conflict)"))
            }
            OnConflict::Rename => {
                let unchanged = match (self.replica.existing(path), expected) {
                    (Ok(Existing::File(now)), Expected::Version(then)) => now.same_version(&then),
                    _ => false,
                };
                if !unchanged {
                    return Err(Failure::from(&FileError::Changed { path: path.clone() }));
                }
                let aside = self.replica.set_aside(path, &conflict_name(path));
                let aside = aside.map_err(|error| Failure::from(&error))?;
                set_aside.push(format!("{path}: was edited here; what was there is now {aside}"));
                Ok(Expected::Missing)
            }
        }
    }
}

/// Sees to it that a file may be replaced by something that is none, or by a further name: what somebody edited here
/// is set aside, if that is the rule. Says so then. Blocks.
///
/// # Errors
/// Why it must stay.
pub fn make_way(
    replica: &Replica,
    memory: &Memory,
    on_conflict: OnConflict,
    path: &SafePath,
) -> Result<Option<String>, String> {
    let Ok(Existing::File(now)) = replica.existing(path) else { return Ok(None) };
    let known = memory.read().and_then(|reader| reader.entry(path)).map_err(|error| error.to_string())?;
    if !memory.is_edited(known.as_ref(), &now) {
        return Ok(None);
    }
    match on_conflict {
        OnConflict::Overwrite => Ok(None),
        OnConflict::Keep => Err("was edited here, and is kept as it is (--on-conflict)".to_owned()),
        OnConflict::Rename => {
            let aside = replica.set_aside(path, &conflict_name(path)).map_err(|error| error.to_string())?;
            Ok(Some(format!("{path}: was edited here; what was there is now {aside}")))
        }
    }
}

/// The longest name that a file may have.
const NAME_BYTES_MAX: usize = sealift_proto::limits::COMPONENT_BYTES_MAX;

/// Under which name a file is kept that was edited here.
pub fn conflict_name(path: &SafePath) -> Vec<u8> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let suffix = format!(".sealift-conflict-{}.{:09}", since_1970.as_secs(), since_1970.subsec_nanos());
    let mut name = path.name().to_vec();
    name.truncate(NAME_BYTES_MAX - suffix.len());
    name.extend_from_slice(suffix.as_bytes());
    name
}

fn check_on_disk(algorithm: HashAlgorithm, complete: &Complete) -> Result<(), Failure> {
    let hashes = complete
        .ready
        .open_from_disk()
        .and_then(|file| read_back(&file, algorithm, complete.draft.layout))
        .map_err(|error| Failure::of(complete.ready.path(), error))?;
    if root(algorithm, &hashes) == complete.draft.root {
        Ok(())
    } else {
        let reason = "what was read back from the disk is not what was written".to_owned();
        // The disk lied once: what else it says it took is not believed either.
        Err(Failure { reason, trouble: Trouble::Passing, lost_writes: true, disputed: false })
    }
}

/// What is done last.
pub struct Closing {
    /// Further names: the number, the path, and the file's first name.
    pub hardlinks: Vec<(SafePath, SafePath)>,
    /// Whether a further name is made as such, or as a copy.
    pub links_names: bool,
    /// Entries that could not be had, and of which nothing may be made.
    pub unplaced: HashSet<SafePath>,
    /// What is to be removed.
    pub deletions: Option<Deletions>,
    /// Directories, parents first.
    pub directories: Vec<DirectoryEntry>,
    /// The root's own metadata.
    pub root: Option<Metadata>,
    /// The newest segment.
    pub segment: u64,
    /// Whether only some files were looked at.
    pub is_repair: bool,
    /// What the index is to be told.
    pub notes: Notes,
}

/// How the last things went.
#[derive(Default)]
pub struct Closed {
    /// Further names that were made or there.
    pub links: u64,
    /// Entries that were removed.
    pub deleted: u64,
    /// What failed, with why.
    pub failures: Vec<(SafePath, String)>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// Why nothing was removed, though something was to be.
    pub withheld: Option<String>,
}

/// Finishes the tree. Blocks.
///
/// # Errors
/// If the disk or the index did not take all of it.
pub fn close(publisher: &Publisher, closing: Closing) -> Result<Closed, String> {
    let replica = &publisher.replica;
    let mut closed = Closed::default();
    let mut notes = closing.notes;
    let mut unplaced = closing.unplaced;
    let reader = publisher.memory.read().map_err(|error| error.to_string())?;
    let names = Names { publisher, reader, segment: closing.segment };
    for (path, target) in closing.hardlinks {
        let made = if unplaced.contains(&target) {
            Err("the file that it is a further name of could not be had".to_owned())
        } else if closing.links_names {
            names.further_name(&path, &target, &mut notes, &mut closed.warnings)
        } else {
            names.copy(&path, &target, &mut notes)
        };
        match made {
            Ok(()) => closed.links += 1,
            Err(reason) => {
                unplaced.insert(path.clone());
                closed.failures.push((path, reason));
            }
        }
    }
    if let Some(deletions) = closing.deletions {
        let deleted = delete(publisher, deletions).map_err(|failure| failure.reason)?;
        closed.deleted = deleted.count;
        closed.warnings.extend(deleted.kept);
        closed.failures.extend(deleted.failures);
        closed.withheld = deleted.withheld;
    }
    // Children first: setting them changes nothing above, but a parent may become read-only.
    for DirectoryEntry { path, metadata } in closing.directories.iter().rev() {
        if let Err(error) = set_directory(replica, Some(path), metadata) {
            closed.failures.push((path.clone(), error.to_string()));
        }
    }
    replica.close().map_err(|error| error.to_string())?;
    if let Some(metadata) = closing.root.filter(|root| root.mode.is_some()) {
        let set = set_directory(replica, None, &metadata);
        set.map_err(|error| format!("cannot set the mode and time of the destination itself: {error}"))?;
    }
    if publisher.durability == Durability::Synced {
        if let Err(error) = replica.sync() {
            let noted = publisher.memory.begin_doubt();
            let noted =
                noted.map_or_else(|error| format!(", and that cannot be noted: {error}"), |()| String::new());
            return Err(format!("the disk did not take the data: {error}{noted}"));
        }
        publisher.memory.all_synced().map_err(|error| format!("cannot note that all is synced: {error}"))?;
    }
    // All is in place: what is staged yet is of no use, but for what could not be had and may be another time.
    let partials = publisher.memory.read().and_then(|reader| reader.partials());
    let (useless, kept): (Vec<_>, Vec<_>) = partials
        .map_err(|error| error.to_string())?
        .into_iter()
        .partition(|(path, _)| !unplaced.contains(path) || notes.unstaged.contains(path));
    if !closing.is_repair {
        notes.unstaged.extend(useless.into_iter().map(|(path, _)| path));
    }
    publisher.note(notes).map_err(|failure| failure.reason)?;
    if !closing.is_repair {
        let kept = kept.into_iter().map(|(_, row)| row.staged).collect();
        if let Err(error) = replica.clear_staging(&kept) {
            closed.warnings.push(format!("cannot clear what was staged: {error}"));
        }
    }
    Ok(closed)
}

fn set_directory(replica: &Replica, path: Option<&SafePath>, metadata: &Metadata) -> io::Result<()> {
    let (mode, mtime) = metadata.of_new_directory();
    replica.set_directory_metadata(path, mode, mtime)
}

/// Whether two files of this size have the same content.
fn same_content(a: &File, b: &File, size_bytes: u64) -> io::Result<bool> {
    const PIECE_BYTES: u64 = 1 << 18;
    let mut pieces = [Vec::new(), Vec::new()];
    let mut offset = 0;
    while offset < size_bytes {
        let bytes = PIECE_BYTES.min(size_bytes - offset);
        for (piece, file) in pieces.iter_mut().zip([a, b]) {
            piece.resize(usize::try_from(bytes).expect("small"), 0);
            file.read_exact_at(piece, offset)?;
        }
        if pieces[0] != pieces[1] {
            return Ok(false);
        }
        offset += bytes;
    }
    Ok(true)
}

/// Makes further names of files that are in place.
struct Names<'p> {
    publisher: &'p Publisher,
    reader: IndexReader,
    segment: u64,
}

impl Names<'_> {
    fn further_name(
        &self,
        path: &SafePath,
        target: &SafePath,
        notes: &mut Notes,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let Publisher { replica, memory, on_conflict, .. } = self.publisher;
        let is_it = |at: &SafePath| match replica.existing(at) {
            Ok(Existing::File(stat)) => Some((stat.device, stat.inode)),
            _ => None,
        };
        // A copy in its place, as some programs make of a further name, is no edit.
        if is_it(path) != is_it(target) && !self.is_copy(path, target) {
            warnings.extend(make_way(replica, memory, *on_conflict, path)?);
        }
        let linked = replica.make_hardlink(path, target).map_err(|error| error.to_string())?;
        let known = self.known(path)?;
        let is_known = matches!(known, Some(EntryRow { what: EntryWhat::Hardlink { .. }, .. }));
        if linked == Linked::Unchanged && (is_known || known.is_none()) {
            // As it was; or there before us.
            return Ok(());
        }
        let Ok(Existing::File(stat)) = replica.existing(path) else { return Ok(()) };
        notes.rows.push((path.clone(), self.row(EntryWhat::Hardlink { stat: LocalStat::from(&stat) })));
        // The first name's inode has changed by that, and nothing else of it.
        if let Some(mut first) = self.known(target)?
            && let EntryWhat::File { stat: was, .. } = &mut first.what
            && (was.inode, was.size_bytes, was.mtime) == (stat.inode, stat.size_bytes, stat.mtime)
        {
            *was = LocalStat::from(&stat);
            notes.rows.push((target.clone(), first));
        }
        Ok(())
    }

    /// Whether what is at `path` is a file with the same content.
    fn is_copy(&self, path: &SafePath, target: &SafePath) -> bool {
        let replica = &self.publisher.replica;
        let (Ok((a, of_a)), Ok((b, of_b))) = (replica.open_existing(path), replica.open_existing(target))
        else {
            return false;
        };
        of_a.size_bytes == of_b.size_bytes && same_content(&a, &b, of_a.size_bytes).unwrap_or(false)
    }

    /// A further name as a file of its own.
    fn copy(&self, path: &SafePath, target: &SafePath, notes: &mut Notes) -> Result<(), String> {
        let replica = &self.publisher.replica;
        let (from, stat) = replica.open_existing(target).map_err(|error| error.to_string())?;
        let first = self.known(target)?;
        if let (
            Some(EntryRow { what: EntryWhat::File { root, stat: was, .. }, .. }),
            Some(EntryRow { what: EntryWhat::File { root: wanted, .. }, .. }),
            Ok(Existing::File(now)),
        ) = (self.known(path)?, &first, replica.existing(path))
            && root == *wanted
            && was.matches(&now)
            && !now.same_inode(&stat)
        {
            return Ok(());
        }
        let published = self.publish_copy(path, &from, &stat)?;
        if let Some(EntryRow { mut what, .. }) = first {
            if let EntryWhat::File { stat, .. } = &mut what {
                *stat = LocalStat::from(&published);
            }
            notes.rows.push((path.clone(), self.row(what)));
        }
        Ok(())
    }

    fn publish_copy(&self, path: &SafePath, from: &File, stat: &FileStat) -> Result<FileStat, String> {
        let failed = |error: FileError| error.to_string();
        let (replica, durability) = (&self.publisher.replica, self.publisher.durability);
        let id = FileId(u64::MAX);
        let staged = replica.create_staged(id, path, stat.size_bytes, Allocation::Sparse).map_err(failed)?;
        if !Replica::clone_from(replica, &staged, from).unwrap_or(false) {
            io::copy(&mut &*from, &mut &**staged.file()).map_err(|error| error.to_string())?;
        }
        let ready = Ready::new(staged, path.clone(), stat.mode, stat.mtime);
        replica.publish(vec![ready], durability).remove(0).map_err(failed)
    }

    fn known(&self, path: &SafePath) -> Result<Option<EntryRow>, String> {
        self.reader.entry(path).map_err(|error| error.to_string())
    }

    fn row(&self, what: EntryWhat) -> EntryRow {
        EntryRow { what, job: self.publisher.memory.number(), segment: self.segment }
    }
}
