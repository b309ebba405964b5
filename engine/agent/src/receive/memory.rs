//! What is remembered of a destination from run to run: its identity, its index, and how far the job's chain was
//! accepted.
//!
//! The index is believed about a file only while the file's inode is what it was when it was put there. After a run that
//! did not sync, and a restart of the machine, it is believed about nothing: then content is hashed.

use super::entries::Metadata;
use super::local::Before;
use crate::error::RunError;
use crate::report::{Event, Reporter};
use crate::state::StateDir;
use crate::verify::PutLast;
use sealift_proto::block::Layout;
use sealift_proto::digest::{HashAlgorithm, RootHash};
use sealift_proto::keys::{JobId, VerifyKey};
use sealift_proto::manifest::Mark;
use sealift_proto::path::SafePath;
use sealift_store::{
    EntryRow, EntryWhat, Expected, FileStat, IndexBatch, IndexError, IndexFound, IndexReader, JobRow,
    LocalStat, Replica, ReplicaId, ReplicaIndex,
};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The job of entries that no job put where they are, but whose content is known.
pub const NO_JOB: u32 = 0;

/// See the module. Shared by the jobs of a receiver.
pub struct Memory {
    index: ReplicaIndex,
    /// Its file.
    file: PathBuf,
    job: JobId,
    number: u32,
    verify_key: VerifyKey,
    accepted: Mutex<Option<Mark>>,
    in_doubt: bool,
    unsynced: UnsyncedFlag,
    /// Names of staged files that are not to be taken up again.
    given_up: Mutex<HashSet<String>>,
}

/// What is known of a file beside its state on the disk.
pub struct Draft {
    /// The hash of its blocks.
    pub algorithm: HashAlgorithm,
    /// Size and blocks.
    pub layout: Layout,
    /// Its root.
    pub root: RootHash,
    /// The segment that announced it.
    pub segment: u64,
}

impl Draft {
    /// What the index is to say of it, as it is on the disk now.
    pub fn row(&self, job: u32, metadata: &Metadata, stat: &FileStat) -> EntryRow {
        let what = EntryWhat::File {
            layout: self.layout,
            algorithm: self.algorithm,
            root: self.root,
            mode: metadata.mode.unwrap_or(stat.mode),
            mtime: metadata.mtime.unwrap_or(stat.mtime),
            stat: LocalStat::from(stat),
        };
        EntryRow { what, job, segment: self.segment }
    }
}

/// Opens a destination and what is remembered of it.
///
/// # Errors
/// If the destination was a replica and its marker is gone; if it or its index cannot be opened.
pub async fn open(
    state: &StateDir,
    dest: &Path,
    verify_key: &VerifyKey,
    new_replica: bool,
    reporter: &Reporter,
) -> Result<(Arc<Replica>, Memory), RunError> {
    check_marker(state, dest, new_replica)?;
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|error| RunError::Failed(format!("no randomness: {error}")))?;
    let replica =
        Replica::open(dest, ReplicaId(fresh)).map_err(|error| RunError::Failed(error.to_string()))?;
    let id = replica.id();
    // A record that cannot be read is written anew.
    if state.replica_at(dest).ok().flatten() != Some(id.0) {
        state.remember_replica(dest, &id.0).map_err(|error| cannot_keep(state, &error))?;
    }
    let memory = open_index(state, dest, &replica, verify_key, reporter).await?;
    Ok((Arc::new(replica), memory))
}

/// Opens the index of a replica that is locked. One that was lost or damaged is made anew from what is there.
///
/// # Errors
/// If it cannot be opened or written.
pub async fn open_index(
    state: &StateDir,
    dest: &Path,
    replica: &Replica,
    verify_key: &VerifyKey,
    reporter: &Reporter,
) -> Result<Memory, RunError> {
    let file = state.replica_index(&replica.id().0).map_err(|error| cannot_keep(state, &error))?;
    let failed = |error: IndexError| RunError::Failed(error.to_string());
    let mut tries = 0;
    loop {
        let (index, found) = ReplicaIndex::open(&file).map_err(failed)?;
        if found == IndexFound::Damaged {
            let message = format!("the index of {} was damaged", dest.display());
            reporter.tell(&Event::Warning { message });
        }
        let found = match index.read().and_then(|reader| Ok((reader.jobs()?, reader.partials()?))) {
            Ok((jobs, _)) if jobs.is_empty() => {
                crate::verify::restore(dest, &index, &file, reporter).await?;
                Memory::of(index, &file, verify_key)
            }
            Ok(_) => Memory::of(index, &file, verify_key),
            Err(error) => Err(error),
        };
        match found {
            // Found by looking into it: the next opening moves it aside.
            Err(IndexError::Damaged { .. }) if tries < INDEX_TRIES_MAX => tries += 1,
            found => return found.map_err(failed),
        }
    }
}

/// How often an index that turns out to be damaged is begun anew.
const INDEX_TRIES_MAX: u32 = 2;

fn cannot_keep(state: &StateDir, error: &io::Error) -> RunError {
    let place = state.path().display();
    RunError::Failed(format!("cannot keep state in {place}: {error} (another place: --state-dir)"))
}

/// A replica whose marker is missing is a disk that is not mounted, until somebody says otherwise (hazard B14).
fn check_marker(state: &StateDir, dest: &Path, new_replica: bool) -> Result<(), RunError> {
    let unusable = |error: io::Error| {
        let (dest, place) = (dest.display(), state.path().display());
        RunError::Failed(format!(
            "cannot look at {dest}, or at what {place} remembers of it: {error} (another place: --state-dir)"
        ))
    };
    if new_replica {
        return Ok(());
    }
    let Some(was) = state.replica_at(dest).map_err(unusable)? else {
        return Ok(());
    };
    let is = Replica::marker(dest).map_err(unusable)?;
    if is == Some(ReplicaId(was)) {
        return Ok(());
    }
    let what = match is {
        None => "its marker .sealift/id is gone",
        Some(_) => "another replica is there now",
    };
    Err(RunError::Failed(format!(
        "{} was a replica, and {what}: is its disk mounted? Nothing was changed. If this is meant, use --new-replica",
        dest.display()
    )))
}

impl Memory {
    fn of(index: ReplicaIndex, file: &Path, verify_key: &VerifyKey) -> Result<Self, IndexError> {
        let job = verify_key.job_id();
        let reader = index.read()?;
        let known = reader.job(&job)?;
        let is_new = known.is_none();
        let (number, accepted) = match known {
            Some(row) => (row.number, row.mark),
            None => {
                let jobs = reader.jobs()?;
                (1 + jobs.iter().map(|(_, row)| row.number).max().unwrap_or(NO_JOB), None)
            }
        };
        drop(reader);
        let unsynced = UnsyncedFlag::beside(file);
        let memory = Self {
            index,
            file: file.to_owned(),
            job,
            number,
            verify_key: verify_key.clone(),
            accepted: Mutex::new(accepted),
            in_doubt: unsynced.is_of_another_boot(),
            unsynced,
            given_up: Mutex::default(),
        };
        if is_new {
            // The job has its number before anything is said to be its.
            memory.write(IndexBatch::default(), accepted)?;
        }
        Ok(memory)
    }

    /// What the index says now, for one batch of questions.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<IndexReader, IndexError> {
        self.index.read()
    }

    /// Writes what is synced, and how far the chain was accepted. Durable when this returns.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub fn write(&self, mut batch: IndexBatch, mark: Option<Mark>) -> Result<(), IndexError> {
        // Held while it is written, so that what is accepted never goes back.
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let order = |mark: &Mark| (mark.epoch, mark.sequence);
        let newest = accepted.into_iter().chain(mark).max_by_key(order);
        let row = JobRow { number: self.number, verify_key: *self.verify_key.as_bytes(), mark: newest };
        batch.job = Some((self.job, row));
        self.index.write(&batch)?;
        *accepted = newest;
        Ok(())
    }

    /// Entries are gone.
    ///
    /// # Errors
    /// If that is not on the disk.
    pub fn forget(&self, removed: Vec<SafePath>) -> Result<(), IndexError> {
        self.index.write(&IndexBatch { removed, ..IndexBatch::default() })
    }

    /// This job's number in the index.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How far the chain was accepted.
    pub fn accepted(&self) -> Option<Mark> {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest up to this segment is now the replica's.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn manifest_is_put(&self, mark: Mark) -> io::Result<()> {
        PutLast { job: self.job, mark }.write(&self.file)
    }

    /// Whether the index was found damaged since it was opened.
    pub fn is_damaged(&self) -> bool {
        matches!(self.index.read(), Err(IndexError::Damaged { .. }))
    }

    /// Whether the index is believed about nothing.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether the index vouches for a file's being what is wanted.
    pub fn vouches(
        &self,
        known: Option<&EntryRow>,
        now: &FileStat,
        wanted_by: HashAlgorithm,
        wanted: Layout,
        wanted_root: &RootHash,
    ) -> bool {
        let Some(EntryRow { what: EntryWhat::File { layout, algorithm, root, stat, .. }, .. }) = known else {
            return false;
        };
        !self.in_doubt
            && (*layout, *algorithm, root) == (wanted, wanted_by, wanted_root)
            && now.size_bytes == wanted.size_bytes()
            && stat.matches(now)
    }

    /// Whether only hashing tells if somebody edited a file that was put there.
    pub fn must_hash(&self, known: Option<&EntryRow>, now: &FileStat) -> bool {
        let Some(EntryRow { what: EntryWhat::File { layout, stat, .. }, .. }) = known else { return false };
        !self.in_doubt && !stat.matches(now) && layout.size_bytes() == now.size_bytes
    }

    /// What it means to replace a file as it is, whose root is known or not.
    pub fn before(
        &self,
        known: Option<&EntryRow>,
        now: &FileStat,
        hashed_by: HashAlgorithm,
        root_now: Option<RootHash>,
    ) -> Before {
        let expected = Expected::Version(*now);
        if !matches!(known, None | Some(EntryRow { what: EntryWhat::File { .. }, .. })) {
            return Before { expected, edited: self.is_edited(known, now), rewrites: true };
        }
        let Some(EntryRow { what: EntryWhat::File { algorithm, root, stat, .. }, .. }) = known else {
            return Before { expected, edited: false, rewrites: false };
        };
        let untouched = stat.matches(now) || (*algorithm == hashed_by && root_now.as_ref() == Some(root));
        // What a power cut left of an unsynced run was edited by nobody.
        Before { expected, edited: !untouched && !self.in_doubt, rewrites: true }
    }

    /// Whether a file is not what was put where it is, by its inode alone.
    pub fn is_edited(&self, known: Option<&EntryRow>, now: &FileStat) -> bool {
        let Some(EntryRow { what, .. }) = known else { return false };
        let untouched = match what {
            EntryWhat::File { stat, .. } | EntryWhat::Hardlink { stat } => {
                (stat.inode, stat.size_bytes, stat.mtime) == (now.inode, now.size_bytes, now.mtime)
            }
            EntryWhat::Symlink { .. } | EntryWhat::Directory => false,
        };
        !untouched && !self.in_doubt
    }

    /// Names of staged files that the index knows, which are to be kept.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn staged_names(&self) -> Result<HashSet<String>, IndexError> {
        Ok(self.read()?.partials()?.into_iter().map(|(_, row)| row.staged).collect())
    }

    /// Whether a staged file of an earlier run may be taken up.
    pub fn takes_up(&self, name: &str) -> bool {
        !self.lock().contains(name)
    }

    /// A staged file is not believed any more.
    pub fn give_up(&self, name: &str) {
        self.lock().insert(name.to_owned());
    }

    /// Notes that what is written from now on is not synced.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn begin_unsynced(&self) -> io::Result<()> {
        self.unsynced.set()
    }

    /// Notes that the disk may have lost what it said it took: from the next run on, all is hashed.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn begin_doubt(&self) -> io::Result<()> {
        crate::state::write_durably(&self.unsynced.0, DOUBT)
    }

    /// Notes that all is synced.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn all_synced(&self) -> io::Result<()> {
        self.unsynced.clear()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the place of a boot: none is like it.
const DOUBT: &[u8] = b"in doubt\n";

/// A file beside the index that says in which boot of the machine a run did not sync.
struct UnsyncedFlag(PathBuf);

impl UnsyncedFlag {
    fn beside(index: &Path) -> Self {
        Self(index.with_file_name("unsynced"))
    }

    fn is_of_another_boot(&self) -> bool {
        match std::fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Ok(boot) => boot_id().is_none_or(|now| now != boot),
            Err(_) => true,
        }
    }

    fn set(&self) -> io::Result<()> {
        // While an older one says that nothing is to be believed, it stays.
        if self.0.exists() && self.is_of_another_boot() {
            return Ok(());
        }
        crate::state::write_durably(&self.0, &boot_id().unwrap_or_default())
    }

    fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// What the kernel calls this boot of the machine.
fn boot_id() -> Option<Vec<u8>> {
    std::fs::read("/proc/sys/kernel/random/boot_id").ok()
}
