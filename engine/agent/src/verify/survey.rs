//! A replica's manifest, read twice: once to find out whether it can be believed and which of its entries stand, and
//! once more, a segment at a time, to check what it says. It is never held as a whole.

use super::standing::{Accepted, Standing};
use crate::error::RunError;
use sealift_proto::block::FileId;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::{KEY_BYTES, VerifyKey};
use sealift_proto::manifest::{Catalog, ManifestError, Mark, Record};
use sealift_store::{ManifestReader, ReplicaView};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What is known of a manifest once all of it was seen.
pub struct Survey {
    /// What it is signed with.
    pub key: VerifyKey,
    /// The hash of its blocks.
    pub algorithm: HashAlgorithm,
    /// Its newest segment.
    pub newest: Mark,
    /// Files that it announces and takes back.
    pub withdrawn: HashSet<FileId>,
    /// Bytes of all files that it announces.
    pub bytes: u64,
}

/// A part of the manifest, for the check.
pub enum Part {
    /// The records of a segment.
    Segment {
        /// Its place in the chain.
        sequence: u64,
        /// What it says.
        records: Vec<Record>,
    },
    /// All was said.
    End(Box<Catalog>),
    /// It cannot be read to its end.
    Broken(RunError),
}

/// Segments that the reading may be ahead of the check.
const PARTS_AHEAD_MAX: usize = 2;

/// Reads the manifest for the first time. Blocks.
///
/// # Errors
/// If there is none, it is damaged, or it is not to be believed.
pub fn survey(view: &ReplicaView, standing: &Standing) -> Result<Survey, RunError> {
    let mut segments = Segments::open(view)?;
    let key = segments.key.clone();
    let Accepted { before, what } = standing.accepted(&key)?;
    let mut catalog = Catalog::new(key.clone(), before);
    let refused = |error: &ManifestError| match error {
        ManifestError::Rollback(_) | ManifestError::Fork(_) => RunError::Failed(what.rolled_back()),
        error => damaged(error),
    };
    let mut withdrawn = HashSet::new();
    let mut bytes = 0;
    while let Some(segment) = segments.next()? {
        for record in catalog.admit(&segment).map_err(|error| refused(&error))? {
            match record {
                Record::File { layout, .. } | Record::SmallFile { layout, .. } => {
                    bytes += layout.size_bytes()
                }
                Record::Withdrawn { id, .. } => {
                    withdrawn.insert(id);
                }
                _ => {}
            }
        }
    }
    if catalog.behind() {
        return Err(RunError::Failed(what.rolled_back()));
    }
    let (Some(algorithm), Some(newest), true) = (catalog.algorithm(), catalog.mark(), catalog.ended()) else {
        return Err(damaged("its end is missing"));
    };
    what.check(&newest)?;
    Ok(Survey { key, algorithm, newest, withdrawn, bytes })
}

/// Reads it again, on a thread of its own.
///
/// # Errors
/// If the thread cannot be started.
pub fn read_again(view: Arc<ReplicaView>, survey: &Survey) -> std::io::Result<mpsc::Receiver<Part>> {
    let (parts, receiver) = mpsc::channel(PARTS_AHEAD_MAX);
    let (key, newest) = (survey.key.clone(), survey.newest);
    std::thread::Builder::new().name("sealift-manifest".into()).spawn(move || {
        let last = match read_parts(&view, &key, newest, &parts) {
            Ok(Some(catalog)) => Part::End(Box::new(catalog)),
            // Nobody listens any more.
            Ok(None) => return,
            Err(error) => Part::Broken(error),
        };
        let _ = parts.blocking_send(last);
    })?;
    Ok(receiver)
}

fn read_parts(
    view: &ReplicaView,
    key: &VerifyKey,
    newest: Mark,
    parts: &mpsc::Sender<Part>,
) -> Result<Option<Catalog>, RunError> {
    let changed =
        || RunError::Failed("the manifest was replaced while it was read: another sealift works here".into());
    let mut segments = Segments::open(view)?;
    if segments.key != *key {
        return Err(changed());
    }
    // What was just read counts as accepted: this must be the same.
    let mut catalog = Catalog::new(key.clone(), Some(newest));
    while let Some(segment) = segments.next()? {
        let records = catalog.admit(&segment).map_err(|_| changed())?;
        let sequence = catalog.next_sequence().0.saturating_sub(1);
        if parts.blocking_send(Part::Segment { sequence, records }).is_err() {
            return Ok(None);
        }
    }
    if catalog.mark() == Some(newest) && catalog.ended() { Ok(Some(catalog)) } else { Err(changed()) }
}

/// The file, after its first item.
struct Segments {
    key: VerifyKey,
    file: ManifestReader,
}

impl Segments {
    fn open(view: &ReplicaView) -> Result<Self, RunError> {
        let file = view.manifest().map_err(|error| damaged(&error))?;
        let mut file = file.ok_or_else(|| {
            let what =
                "there is no manifest here yet: nothing was received to its end. Let a receive finish first";
            RunError::Failed(what.into())
        })?;
        let first = file.next().transpose().map_err(|error| damaged(&error))?;
        let key = first.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        let key = key.and_then(|bytes| VerifyKey::from_bytes(&bytes).ok());
        Ok(Self { key: key.ok_or_else(|| damaged("its key is none"))?, file })
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, RunError> {
        self.file.next().transpose().map_err(|error| damaged(&error))
    }
}

/// What is said of a manifest that is not what was signed.
pub fn damaged(why: impl std::fmt::Display) -> RunError {
    RunError::Failed(format!(
        "the manifest .sealift/manifest is damaged ({why}), so nothing can be verified by it. \
         The next receive from the source puts a whole one there"
    ))
}
