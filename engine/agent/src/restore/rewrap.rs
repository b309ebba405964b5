//! `sealift rewrap`: a replica's data key wrapped to other keys, where the source is gone or not to be asked.
//!
//! The new envelope is no part of the manifest, so it goes into a file of its own: what is in the replica is the source's.

use super::envelope;
use crate::error::{Finish, RunError};
use crate::report::{Event, Reporter};
use crate::seal::{KeyFile, Passphrase, read_private, read_public};
use crate::state::create_durably;
use sealift_envelope::KekVersion;
use sealift_store::ReplicaView;
use std::io;
use std::path::PathBuf;

/// What to wrap anew.
pub struct RewrapOptions {
    /// What a keeper has.
    pub replica: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Where its passphrase comes from.
    pub passphrase: Passphrase,
    /// Whose keys are to open it.
    pub seal_to: Vec<KeyFile>,
    /// Where the new envelope goes.
    pub out: PathBuf,
}

/// Wraps a data key anew.
///
/// # Errors
/// If the key does not open it, or the new envelope cannot be kept.
pub fn rewrap(options: &RewrapOptions, reporter: &Reporter) -> Result<Finish, RunError> {
    let RewrapOptions { replica, key, passphrase, seal_to, out } = options;
    let failed = |error: &dyn std::fmt::Display| RunError::Failed(error.to_string());
    let view = ReplicaView::open(replica).map_err(|error| failed(&error))?;
    let view = view.ok_or_else(|| RunError::Failed(format!("{} is no replica", replica.display())))?;
    let old = envelope(&view, None)?;
    let publics = seal_to.iter().map(|file| Ok((read_public(&file.path)?, KekVersion(file.version))));
    let publics = publics.collect::<Result<Vec<_>, RunError>>()?;
    let keks: Vec<_> = publics.iter().map(|(kek, version)| (kek, *version)).collect();
    let data_key = old.open(&read_private(key, passphrase)?).map_err(|error| failed(&error))?;
    let new = old.rewrap(&data_key, &keks).map_err(|error| RunError::Usage(error.to_string()))?;
    create_durably(out, &new.encode()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => RunError::Usage(format!("{} is there already", out.display())),
        _ => RunError::Failed(format!("{}: {error}", out.display())),
    })?;
    let message = format!("The data key is in {}, wrapped to {} keys.", out.display(), keks.len());
    reporter.tell(&Event::Note { message });
    Ok(Finish::Complete)
}
