//! Where a managed agent keeps what must survive it: `STATE/agent/`.
//!
//! Owns the names, the modes (0700 and 0600) and the lock, by which two agents never share one place. Files are replaced
//! whole and durably or not at all.
//!
//! ```text
//! agent/identity.json       who this agent is and whose; its existence means that the host has joined
//! agent/key                 its key, PKCS #8; made before it joins
//! agent/certificate, ca     DER
//! agent/document            what is desired of it
//! agent/outcomes.json       how runs of that document ended
//! agent/events              what the daemon has not been told yet
//! agent/logs/               log records that the daemon has not got yet
//! agent/barred              there while the daemon has revoked or quarantined it: nothing is run
//! agent/lock                locked (flock) while an agent runs or joins
//! agent/jobs/HEX/           the state directory of the children of one job, and `pid` of the one that runs
//! ```

use crate::error::RunError;
use crate::managed::allow::AllowList;
use crate::state::{StateDir, make_directory, write_durably};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Bytes of a file here; events are read piece by piece.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The version of `identity.json`.
const IDENTITY_VERSION: u32 = 1;

/// The place.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// Who this agent is, and what its operator allowed it when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) agent_id: Uuid,
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) daemon: String,
    /// SHA-256 of the authority's certificate.
    pub(crate) pin: String,
    pub(crate) data_addresses: Vec<String>,
    pub(crate) data_ports: Option<(u16, u16)>,
    pub(crate) allow_read: Vec<PathBuf>,
    pub(crate) allow_write: Vec<PathBuf>,
}

impl Identity {
    /// The version that this program writes.
    pub(crate) const VERSION: u32 = IDENTITY_VERSION;

    pub(crate) fn allow_list(&self) -> AllowList {
        AllowList { read: self.allow_read.clone(), write: self.allow_write.clone() }
    }
}

impl Home {
    /// The place beneath the state directory, made if it is missing.
    pub(crate) fn open(state_dir: Option<PathBuf>) -> Result<Self, RunError> {
        let home = Self::find(state_dir)?;
        make_directory(&home.dir).map_err(|error| home.unusable(&error))?;
        Ok(home)
    }

    /// The same, without making it.
    pub(crate) fn find(state_dir: Option<PathBuf>) -> Result<Self, RunError> {
        let dir = StateDir::open(state_dir)?.path().join("agent");
        // Children have it on their command lines, and may not depend on where the agent was started.
        let dir = std::path::absolute(&dir)
            .map_err(|error| RunError::Failed(format!("cannot tell where {} is: {error}", dir.display())))?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Held while an agent works here, and by whoever joins.
    pub(crate) fn lock(&self) -> Result<File, RunError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(self.path("lock")).map_err(|error| self.unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(RunError::Failed(format!(
                "another agent works in {}: stop that one, or name another place with --state-dir",
                self.dir.display()
            ))),
            Err(TryLockError::Error(error)) => Err(self.unusable(&error)),
        }
    }

    pub(crate) fn unusable(&self, error: &io::Error) -> RunError {
        RunError::Failed(format!(
            "cannot keep the agent's state in {}: {error} (another place can be named with --state-dir)",
            self.dir.display()
        ))
    }

    /// A file whole; `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let file = match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is too large")));
        }
        // One more than it has, so that reading to the end needs no larger buffer, which would leave a copy.
        let capacity = usize::try_from(length).unwrap_or(0) + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        file.take(length).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Replaces a file whole and durably.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_durably(&self.path(name), content)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Who this agent is; a usage error if the host has not joined.
    pub(crate) fn identity(&self) -> Result<Identity, RunError> {
        self.identity_if_joined()?.ok_or_else(|| {
            RunError::Usage(format!(
                "this host has not joined a control daemon (nothing in {}): use `sealift agent join`",
                self.dir.display()
            ))
        })
    }

    /// Who this agent is, if the host has joined.
    pub(crate) fn identity_if_joined(&self) -> Result<Option<Identity>, RunError> {
        let Some(text) = self.read("identity.json").map_err(|error| self.unusable(&error))? else {
            return Ok(None);
        };
        let damaged = |what: String| {
            RunError::Failed(format!("{} is damaged: {what}", self.path("identity.json").display()))
        };
        let identity: Identity = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if identity.version != IDENTITY_VERSION {
            return Err(damaged(format!("version {} is not known here", identity.version)));
        }
        Ok(Some(identity))
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), RunError> {
        let mut text = serde_json::to_vec_pretty(identity)
            .map_err(|error| RunError::Usage(format!("a path cannot be kept: {error}")))?;
        text.push(b'\n');
        self.write("identity.json", &text).map_err(|error| self.unusable(&error))
    }

    /// Where the children of a job keep their state. Made here.
    pub(crate) fn job_dir(&self, job: &[u8; 16]) -> io::Result<PathBuf> {
        let dir = self.dir.join("jobs").join(HEXLOWER.encode(job));
        make_directory(&dir)?;
        Ok(dir)
    }

    /// The places of all jobs there ever were.
    pub(crate) fn job_dirs(&self) -> io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(self.dir.join("jobs")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn identity() -> Identity {
        Identity {
            version: Identity::VERSION,
            agent_id: Uuid::from_bytes([3; 16]),
            name: "a".into(),
            daemon: "control.example:8444".into(),
            pin: "00".into(),
            data_addresses: vec![],
            data_ports: Some((4000, 4010)),
            allow_read: vec!["/data".into()],
            allow_write: vec![],
        }
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().join("state"))).unwrap();
        assert!(home.identity_if_joined().unwrap().is_none());
        assert_eq!(home.identity().unwrap_err().code(), 2);
        home.write_identity(&identity()).unwrap();
        home.write("key", b"secret").unwrap();
        home.job_dir(&[1; 16]).unwrap();
        assert_eq!(home.identity().unwrap(), identity());
        assert_eq!(home.job_dirs().unwrap().len(), 1);
        let mode = |name: &str| std::fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode(""), mode("key"), mode("jobs")], [0o700, 0o600, 0o700]);
    }

    #[test]
    fn one_agent_works_in_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().to_owned())).unwrap();
        let held = home.lock().unwrap();
        assert!(home.lock().unwrap_err().to_string().contains("another agent works in"));
        drop(held);
        home.lock().unwrap();
    }
}
