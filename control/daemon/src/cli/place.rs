//! Which daemon a command is about: its directory, its configuration, and how its master key is had.

use super::secret::{SecretFrom, asked, asked_new};
use crate::config::{Config, ConfigError};
use crate::db::master::{KeepIn, KeptIn, kept_in, read_kept};
use crate::db::{Actor, Db, DbError, MasterKey};
use clap::Args;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(super) const DATABASE: &str = "control.db";
const PASSPHRASE_OPTION: &str = "--passphrase @FILE";

#[derive(Debug, Args)]
pub(super) struct Place {
    /// Where the daemon keeps everything
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// The configuration, instead of sealift-control.toml in the data directory
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The master key is systemd's credential of this name, and not in the data directory
    #[arg(long, value_name = "NAME")]
    pub(super) master_credential: Option<String>,
    /// The passphrase of the master key, from a file or (-) standard input; a terminal is asked for it
    #[arg(long, value_name = "@FILE|-")]
    pub(super) passphrase: Option<SecretFrom>,
    /// The same as `--passphrase -`
    #[arg(long, conflicts_with = "passphrase")]
    pub(super) passphrase_stdin: bool,
}

/// A [`Place`] whose configuration was read.
pub(super) struct Found {
    pub(super) config: Config,
    passphrase: Option<SecretFrom>,
}

impl Place {
    pub(super) fn find(&self) -> Result<Found, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), self.data_dir.as_deref())?;
        if let Some(name) = &self.master_credential {
            config.master_key.credential = Some(name.clone());
        }
        let mut passphrase = self.passphrase.clone();
        if self.passphrase_stdin {
            passphrase = Some(SecretFrom::Stdin);
        }
        Ok(Found { config, passphrase })
    }

    pub(super) fn open(&self) -> Result<Db, Box<dyn std::error::Error>> {
        self.find()?.open()
    }
}

impl Found {
    pub(super) fn dir(&self) -> &Path {
        &self.config.data_dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir().join(DATABASE)
    }

    pub(super) fn master(&self) -> Result<MasterKey, DbError> {
        self.master_and_passphrase().map(|(master, _)| master)
    }

    /// With the passphrase that opened it, if one did.
    pub(super) fn master_and_passphrase(&self) -> Result<(MasterKey, Option<Zeroizing<String>>), DbError> {
        if let Some(name) = &self.config.master_key.credential {
            return Ok((MasterKey::read_credential(name)?, None));
        }
        let mut given = None;
        let master = read_kept(self.dir(), &self.database(), || {
            let passphrase = self.passphrase()?;
            given = Some(passphrase.clone());
            Ok(passphrase)
        })?;
        Ok((master, given))
    }

    fn passphrase(&self) -> io::Result<Zeroizing<String>> {
        let from = self.passphrase.clone();
        match from.or_else(|| self.config.master_key.passphrase_file.clone().map(SecretFrom::File)) {
            Some(from) => from.read(),
            None => asked("The passphrase of the master key: ", PASSPHRASE_OPTION),
        }
    }

    /// A passphrase for a key that is made.
    pub(super) fn new_passphrase(&self) -> io::Result<Zeroizing<String>> {
        let from = self.passphrase.clone();
        match from.or_else(|| self.config.master_key.passphrase_file.clone().map(SecretFrom::File)) {
            Some(from) => from.read(),
            None => asked_new("A new passphrase for the master key: ", PASSPHRASE_OPTION),
        }
    }

    /// How the master key is kept by now; `None` as a credential.
    pub(super) fn kept_in(&self) -> Option<KeptIn> {
        self.config.master_key.credential.is_none().then(|| kept_in(self.dir()))
    }

    pub(super) fn open(&self) -> Result<Db, Box<dyn std::error::Error>> {
        self.has_daemon()?;
        Db::open(&self.database(), self.master()?).map_err(|error| match error {
            DbError::Damaged(_) | DbError::TooNew { .. } => {
                format!("{error}. Nothing was changed. `sealift-control restore` puts a backup in its place")
                    .into()
            }
            error => error.into(),
        })
    }

    pub(super) fn has_daemon(&self) -> Result<(), Box<dyn std::error::Error>> {
        if self.database().exists() {
            return Ok(());
        }
        let shown = self.dir().display();
        if self.set_aside() {
            return Err(format!(
                "{shown} has no {DATABASE}, but one that was set aside: a restore did not end. Begin it anew, or \
                 rename {DATABASE}.before-… back"
            )
            .into());
        }
        Err(format!("{shown} has no daemon: make one with `sealift-control init`").into())
    }

    fn set_aside(&self) -> bool {
        let prefix = format!("{DATABASE}.before-");
        let entries = std::fs::read_dir(self.dir()).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    }
}

/// How a key is to be kept that takes the place of one that is kept so.
pub(super) fn keep_as<'a>(
    kept: Option<KeptIn>,
    passphrase: Option<&'a Zeroizing<String>>,
    elsewhere: Option<&'a Path>,
) -> Result<KeepIn<'a>, &'static str> {
    match (elsewhere, kept, passphrase) {
        (Some(file), ..) => Ok(KeepIn::Elsewhere(file)),
        (None, None, _) => {
            Err("the master key is a credential: name the file for the new one with --key-file FILE")
        }
        (None, _, Some(passphrase)) => Ok(KeepIn::Sealed(passphrase.as_bytes())),
        (None, ..) => Ok(KeepIn::File),
    }
}

/// Who runs this.
pub(super) fn me() -> Actor {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    Actor::cli(&name.unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw())))
}
