//! Keys of sealed jobs: the files that `openssl` writes, and the data key that a source keeps.
//!
//! A source that runs again must seal what did not change as it did before, or all would be moved anew. So it keeps its
//! job's data key in its state directory, beside the job's seed, readable by its owner alone: whoever can read that can read
//! the source. Receivers, and whoever runs the control daemon, have it wrapped alone.

use crate::error::RunError;
use crate::operator::PasswordFrom;
use crate::state::{JobName, StateDir, write_durably};
use sealift_envelope::limits::PEM_BYTES_MAX;
use sealift_envelope::{DataKey, Envelope, OwnerId, PrivateKek, PublicKek};
use sealift_proto::keys::JobId;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// A public key to seal to, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The file, in PEM.
    pub path: PathBuf,
    /// Which of the keys of one name it is, where these are kept by a control daemon.
    pub version: u32,
}

impl FromStr for KeyFile {
    type Err = std::convert::Infallible;

    /// `FILE`, or `VERSION@FILE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let versioned = text.split_once('@').and_then(|(version, path)| Some((version.parse().ok()?, path)));
        let (version, path) = versioned.unwrap_or((1, text));
        Ok(Self { path: path.into(), version })
    }
}

/// Reads a key that is sealed to.
///
/// # Errors
/// A usage error that names the file.
pub(crate) fn read_public(path: &Path) -> Result<PublicKek, RunError> {
    let text = read_pem(path)?;
    PublicKek::from_pem(&text).map_err(|error| RunError::Usage(format!("{}: {error}", path.display())))
}

/// Reads a key that opens; its passphrase is asked for if it has one.
///
/// # Errors
/// A usage error that names the file.
pub(crate) fn read_private(path: &Path, passphrase: &Passphrase) -> Result<PrivateKek, RunError> {
    let text = read_pem(path)?;
    let passphrase = match PrivateKek::needs_passphrase(&text) {
        true => Some(passphrase.read(path)?),
        false => None,
    };
    let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_bytes());
    PrivateKek::from_pem(&text, passphrase)
        .map_err(|error| RunError::Usage(format!("{}: {error}", path.display())))
}

/// Where the passphrase of a private key comes from. Never from an argument: those are seen by everybody on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passphrase {
    /// Typed, and not shown.
    Typed,
    /// The first line of standard input.
    Stdin,
    /// The first line of a file.
    File(PathBuf),
}

impl Passphrase {
    /// As options say: a file, standard input, or the terminal.
    pub(crate) fn of(file: Option<PathBuf>, is_stdin: bool) -> Self {
        match (file, is_stdin) {
            (Some(file), _) => Self::File(file),
            (None, true) => Self::Stdin,
            (None, false) => Self::Typed,
        }
    }

    pub(crate) fn read(&self, key: &Path) -> Result<Zeroizing<String>, RunError> {
        match self {
            Self::Typed => PasswordFrom::Terminal.read(&format!("Passphrase of {}: ", key.display())),
            Self::Stdin => PasswordFrom::Stdin.read(""),
            Self::File(path) => {
                let text = read_pem(path)?;
                Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
            }
        }
    }
}

/// A key's file, of which no more is read than a key can have.
pub(crate) fn read_pem(path: &Path) -> Result<Zeroizing<String>, RunError> {
    let cannot = |error: io::Error| RunError::Usage(format!("cannot read {}: {error}", path.display()));
    // Room for all of it at once: growing would leave copies of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(PEM_BYTES_MAX + 1));
    let file = File::open(path).map_err(cannot)?;
    file.take(PEM_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() > PEM_BYTES_MAX {
        let what = format!("{} is no file of a key: it has more than {PEM_BYTES_MAX} bytes", path.display());
        return Err(RunError::Usage(what));
    }
    Ok(text)
}

/// The data key of a job of this host, made now if it has none; whoever calls works for the job.
///
/// # Errors
/// If it cannot be read or kept.
pub(crate) fn data_key(state: &StateDir, job: &JobName) -> Result<DataKey, RunError> {
    let file = state.job_file(job, "data-key");
    let failed =
        |what: String| RunError::Failed(format!("the data key of job {job} in {}: {what}", file.display()));
    match read_whole(&file, 32) {
        Ok(Some(bytes)) => match bytes.first_chunk() {
            Some(key) if bytes.len() == 32 => Ok(DataKey::from_bytes(key)),
            _ => Err(failed("it is damaged: restore it; without it all would be sealed anew".into())),
        },
        Ok(None) => {
            let key = DataKey::generate().map_err(|error| failed(error.to_string()))?;
            write_durably(&file, key.as_bytes()).map_err(|error| failed(error.to_string()))?;
            Ok(key)
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// A job's data key wrapped to these keys: as it was wrapped before, if it was wrapped to the same. Wrapping is never the same
/// twice, and nothing is to be moved for that.
///
/// # Errors
/// If it cannot be wrapped or kept.
pub(crate) fn envelope(
    kept: Option<(&StateDir, &JobName)>,
    key: &DataKey,
    job: JobId,
    keks: &[(PublicKek, u32)],
) -> Result<Vec<u8>, RunError> {
    let file = kept.map(|(state, name)| state.job_file(name, "envelope"));
    let failed =
        |what: &dyn std::fmt::Display| RunError::Failed(format!("the data key cannot be wrapped: {what}"));
    if let Some(file) = &file
        && let Ok(Some(bytes)) = read_whole(file, sealift_envelope::limits::ENVELOPE_BYTES_MAX)
        && let Ok(envelope) = Envelope::decode(&bytes)
        && envelope.owner() == OwnerId(job.0)
        && key.is_committed_by(&envelope.commitment())
        && is_to(&envelope, keks)
    {
        return Ok(bytes.to_vec());
    }
    let keks: Vec<_> =
        keks.iter().map(|(kek, version)| (kek, sealift_envelope::KekVersion(*version))).collect();
    let envelope =
        Envelope::seal(key, OwnerId(job.0), &keks).map_err(|error| RunError::Usage(error.to_string()))?;
    let bytes = envelope.encode();
    if let Some(file) = &file {
        write_durably(file, &bytes).map_err(|error| failed(&error))?;
    }
    Ok(bytes)
}

/// Whether an envelope is wrapped to exactly these keys.
fn is_to(envelope: &Envelope, keks: &[(PublicKek, u32)]) -> bool {
    let mut has: Vec<_> = envelope.keks().iter().map(|info| (info.fingerprint, info.version.0)).collect();
    let mut wanted: Vec<_> = keks.iter().map(|(kek, version)| (kek.fingerprint(), *version)).collect();
    has.sort_unstable();
    wanted.sort_unstable();
    has == wanted
}

fn read_whole(file: &Path, bytes_max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    opened.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Some(bytes)) }
}
