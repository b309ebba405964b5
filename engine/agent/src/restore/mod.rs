//! `sealift restore`: the tree of a sealed job, made anew from what any keeper has.
//!
//! The keeper's manifest is read and believed as `sealift verify` does it; each sealed file is hashed block by block and
//! compared with it, opened, and written in its place ([`entries`]). Blocks are checked twice, by the hash that the source signed
//! and by the cipher: the first finds what is older than the manifest, the second what was never sealed. Nothing is put in its
//! place before all of it was right. Directories get their metadata, and files their further names, at the end.

mod entries;
mod rewrap;

use crate::error::{Finish, RunError};
use crate::receive::Owners;
use crate::report::{Event, Reporter};
use crate::seal::{Passphrase, ReplicaSeal, read_private};
use crate::state::StateDir;
use crate::verify::{Part, Survey, believed, read_again};
use crossbeam::channel::Sender;
use entries::{Restorer, SealedFile, Tally};
pub use rewrap::{RewrapOptions, rewrap};
use sealift_envelope::Envelope;
use sealift_envelope::limits::ENVELOPE_BYTES_MAX;
use sealift_proto::block::FileId;
use sealift_proto::manifest::Record;
use sealift_proto::manifest::sealed::{KEYS_PATH, SealedName};
use sealift_proto::path::SafePath;
use sealift_proto::ticket::Ticket;
use sealift_store::{Replica, ReplicaId, ReplicaView};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Sealed files that wait for a thread.
const FILES_AHEAD_MAX: usize = 64;

/// What to restore, and how.
pub struct RestoreOptions {
    /// What a keeper has.
    pub replica: PathBuf,
    /// Where the tree goes.
    pub dest: PathBuf,
    /// What this host remembers.
    pub state: StateDir,
    /// The job that the replica must be of.
    pub ticket: Option<Ticket>,
    /// The private key.
    pub key: PathBuf,
    /// Where its passphrase comes from.
    pub passphrase: Passphrase,
    /// The wrapped data key, if not the one in the replica.
    pub keys: Option<PathBuf>,
    /// Whose files they become, and what else is set beside modes and times.
    pub owners: Owners,
    /// Whether set-user-id, set-group-id and sticky bits are kept.
    pub keep_special_modes: bool,
}

/// Restores a tree.
///
/// # Errors
/// If nothing can be restored. What is wrong with single entries is told, and the others are restored.
pub async fn restore(options: RestoreOptions, reporter: Arc<Reporter>) -> Result<Finish, RunError> {
    let started = Instant::now();
    let (view, survey) =
        believed(&options.replica, &options.state, options.ticket.as_ref(), &reporter).await?;
    let job = survey.key.job_id();
    let envelope = envelope(&view, options.keys.as_deref())?;
    let kek = read_private(&options.key, &options.passphrase)?;
    let seal =
        ReplicaSeal::open(&envelope, job, &kek).map_err(|error| RunError::Failed(error.to_string()))?;
    drop(kek);
    let replica = destination(&options.dest, &survey)?;
    let parts = read_again(Arc::clone(&view), &survey).map_err(cannot_start)?;
    let restorer = Restorer::new(
        view,
        seal,
        survey.algorithm,
        Arc::new(replica),
        options.owners,
        options.keep_special_modes,
        Arc::clone(&reporter),
    );
    let tally = tokio::task::spawn_blocking(move || run(&Arc::new(restorer), parts, &survey.withdrawn))
        .await
        .map_err(|_| RunError::Failed("a thread ended that should not have".into()))??;
    let Tally { files, directories, links, bytes, failed } = tally;
    let seconds = started.elapsed().as_secs_f64();
    reporter.tell(&Event::Restored { files, directories, links, bytes, failed, seconds });
    Ok(if failed > 0 { Finish::Partial } else { Finish::Complete })
}

fn cannot_start(error: io::Error) -> RunError {
    RunError::Failed(format!("cannot start threads: {error}"))
}

/// The wrapped data key of a replica, or from a file.
fn envelope(view: &ReplicaView, file: Option<&Path>) -> Result<Envelope, RunError> {
    let path = SafePath::parse(KEYS_PATH.as_bytes()).expect("a plain name");
    let (opened, shown) = match file {
        Some(file) => (File::open(file), file.display().to_string()),
        None => (view.source().open_file(&path).map(|(file, _)| file), format!("{KEYS_PATH} in the replica")),
    };
    let read = opened.and_then(|file| {
        let mut bytes = Vec::with_capacity(1024);
        file.take(ENVELOPE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if file.is_none() => {
            RunError::Failed("the replica is of no sealed job: there is no wrapped key in it".into())
        }
        _ => RunError::Failed(format!("{shown} cannot be read: {error}")),
    })?;
    Envelope::decode(&bytes).map_err(|error| RunError::Failed(format!("{shown}: {error}")))
}

/// Opens the destination: a directory that is empty or not there, or what an earlier restore of this job has begun.
fn destination(dest: &Path, survey: &Survey) -> Result<Replica, RunError> {
    let named = [b"sealift v1 restored tree".as_slice(), &survey.key.job_id().0].concat();
    let id = ReplicaId(*crypto_simd::blake3::hash(&named).first_chunk().expect("16 of 32 bytes"));
    let failed = |error: &dyn std::fmt::Display| RunError::Failed(format!("{}: {error}", dest.display()));
    let begun = match Replica::marker(dest) {
        Ok(marker) => marker == Some(id),
        Err(error) => return Err(failed(&error)),
    };
    let is_empty = match std::fs::read_dir(dest) {
        Ok(mut names) => names.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(&error)),
    };
    if !begun && !is_empty {
        return Err(RunError::Usage(format!(
            "{} is not empty: a tree is restored into a directory of its own",
            dest.display()
        )));
    }
    let replica = Replica::open(dest, id).map_err(|error| failed(&error))?;
    replica.clear_staging(&HashSet::new()).map_err(|error| failed(&error))?;
    Ok(replica)
}

/// Restores all that the manifest has: threads open files while this one reads on. Blocks.
fn run(
    restorer: &Arc<Restorer>,
    mut parts: mpsc::Receiver<Part>,
    withdrawn: &HashSet<FileId>,
) -> Result<Tally, RunError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (files, wanted) = crossbeam::channel::bounded::<SealedFile>(FILES_AHEAD_MAX);
    let read = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (wanted, restorer) = (wanted.clone(), Arc::clone(restorer));
            scope.spawn(move || restorer.work(&wanted));
        }
        drop(wanted);
        // The threads end when the sender of files is gone, with this function.
        hand_out(&mut parts, withdrawn, files)
    });
    read?;
    restorer.finish()
}

/// Reads the manifest, and hands out what is to be restored.
fn hand_out(
    parts: &mut mpsc::Receiver<Part>,
    withdrawn: &HashSet<FileId>,
    files: Sender<SealedFile>,
) -> Result<(), RunError> {
    let mut open = HashMap::new();
    while let Some(part) = parts.blocking_recv() {
        let records = match part {
            Part::Segment { records, .. } => records,
            Part::End(_) => return Ok(()),
            Part::Broken(error) => return Err(error),
        };
        for record in records {
            if let Some(file) = file_of(record, withdrawn, &mut open)
                && files.send(file).is_err()
            {
                return Err(RunError::Failed("all threads that open files have ended".into()));
            }
        }
    }
    Err(RunError::Failed("the manifest was not read to its end".into()))
}

/// A sealed file, once everything was said of it.
fn file_of(
    record: Record,
    withdrawn: &HashSet<FileId>,
    open: &mut HashMap<FileId, SealedFile>,
) -> Option<SealedFile> {
    match record {
        Record::SmallFile { id, path, layout, hash, .. } if !withdrawn.contains(&id) => {
            let name = SealedName::at(&path)?;
            Some(SealedFile { name, layout, hashes: vec![hash] })
        }
        Record::File { id, path, layout, .. } if !withdrawn.contains(&id) => {
            let name = SealedName::at(&path)?;
            open.insert(id, SealedFile { name, layout, hashes: Vec::new() });
            None
        }
        Record::Hashes { id, hashes, .. } => {
            if let Some(file) = open.get_mut(&id) {
                file.hashes.extend(hashes);
            }
            None
        }
        Record::Sealed { id, .. } => open.remove(&id),
        _ => None,
    }
}
