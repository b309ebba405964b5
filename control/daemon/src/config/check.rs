//! What is wrong with a configuration: all of it, and not only the first.

use super::{Config, ConfigError};
use crate::db::master::{KeptIn, kept_in};
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tracing_subscriber::EnvFilter;

const NAMES_MAX: usize = 64;
const CHECKPOINT_SECONDS_MIN: u32 = 10;
const CHECKPOINT_SECONDS_MAX: u32 = 24 * 3600;

impl Config {
    /// The configuration, if it makes sense.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn sound(self) -> Result<Self, ConfigError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(self) } else { Err(ConfigError::Wrong(problems)) }
    }

    /// What makes no sense in itself.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.names.0.is_empty() || self.names.0.len() > NAMES_MAX {
            problems.push(format!("names: there are 1 to {NAMES_MAX}, of this host"));
        }
        for name in &self.names.0 {
            if ServerName::try_from(name.as_str()).is_err() {
                problems.push(format!("names: {name:?} is neither a host name nor an IP address"));
            }
        }
        let mut taken = BTreeMap::new();
        let ports = [("web", self.listen.web), ("agents", self.listen.agents), ("logs", self.listen.logs)];
        let tracker = self.listen.tracker.0.map(|address| ("tracker", address));
        for (what, address) in ports.into_iter().chain(tracker).filter(|(_, address)| address.port() != 0) {
            if let Some(other) = taken.insert(address, what) {
                problems.push(format!("listen.{what}: {address} is that of listen.{other} already"));
            }
        }
        if let Err(error) = EnvFilter::try_new(&self.log.level) {
            problems.push(format!("log.level: {:?}: {error}", self.log.level));
        }
        let every = self.audit.checkpoint_every_seconds;
        if !(CHECKPOINT_SECONDS_MIN..=CHECKPOINT_SECONDS_MAX).contains(&every) {
            problems.push(format!(
                "audit.checkpoint_every_seconds: {every}: it is from {CHECKPOINT_SECONDS_MIN} to \
                 {CHECKPOINT_SECONDS_MAX}"
            ));
        }
        if self.master_key.credential.is_some() && self.master_key.passphrase_file.is_some() {
            problems.push("master_key: credential and passphrase_file exclude each other".into());
        }
        let files = [
            ("master_key.passphrase_file", &self.master_key.passphrase_file),
            ("audit.checkpoint_file", &self.audit.checkpoint_file),
        ];
        for (what, file) in files {
            if let Some(file) = file.as_deref().filter(|file| !file.is_absolute()) {
                problems.push(format!("{what}: {}: give an absolute path", file.display()));
            }
        }
        problems
    }

    /// What is not on this host as the configuration needs it. It has to be looked at as the daemon's user.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let dir = &self.data_dir;
        match dir.metadata() {
            Err(error) => missing.push(format!("data_dir: {}: {error}", dir.display())),
            Ok(found) if !found.is_dir() => {
                missing.push(format!("data_dir: {} is not a directory", dir.display()));
            }
            Ok(found) if found.mode() & 0o022 != 0 => {
                missing.push(format!("data_dir: others can write in {}: make it 0700", dir.display()));
            }
            Ok(_) if !dir.join("control.db").exists() => missing.push(format!(
                "data_dir: {} has no daemon: make one with `sealift-control init`",
                dir.display()
            )),
            Ok(_) => missing.extend(self.missing_key()),
        }
        if let Some(file) = &self.audit.checkpoint_file
            && let Some(above) = file.parent()
            && !above.is_dir()
        {
            missing.push(format!("audit.checkpoint_file: there is no directory {}", above.display()));
        }
        missing
    }

    fn missing_key(&self) -> Option<String> {
        if self.master_key.credential.is_some() {
            // Only systemd's service has it.
            return None;
        }
        match (kept_in(&self.data_dir), &self.master_key.passphrase_file) {
            (KeptIn::Nothing, _) => Some(format!(
                "master_key: {} has none: name its credential, or make it anew with `sealift-control recover`",
                self.data_dir.display()
            )),
            (KeptIn::Sealed, Some(file)) => unreadable(file),
            _ => None,
        }
    }
}

fn unreadable(file: &Path) -> Option<String> {
    let shown = file.display();
    match file.metadata() {
        Err(error) => Some(format!("master_key.passphrase_file: {shown}: {error}")),
        Ok(found) if found.is_file() && found.mode() & 0o077 != 0 => {
            Some(format!("master_key.passphrase_file: others can read {shown}: make it 0600"))
        }
        Ok(_) => None,
    }
}
