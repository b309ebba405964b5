//! The words of `sealift restore` and `sealift rewrap`.

use super::{decode_ticket, owners};
use crate::error::RunError;
use crate::preserve::Preserve;
use crate::restore::RestoreOptions;
use crate::restore::RewrapOptions;
use crate::seal::{KeyFile, Passphrase};
use crate::state::StateDir;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// Whose key opens a sealed job.
#[derive(Debug, Args)]
struct KeyArgs {
    /// The private half of a key that the job is sealed to, in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its passphrase is the first line of FILE [default: it is asked for]
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_stdin")]
    passphrase_file: Option<PathBuf>,
    /// Its passphrase is the first line of standard input
    #[arg(long)]
    passphrase_stdin: bool,
}

impl KeyArgs {
    fn parts(self) -> (PathBuf, Passphrase) {
        (self.key, Passphrase::of(self.passphrase_file, self.passphrase_stdin))
    }
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What a receiver of the sealed job has
    replica: PathBuf,
    /// Where the tree goes: a directory that is empty or missing, or that an earlier restore has begun
    dest: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// The wrapped data key, if it was wrapped anew: FILE instead of what is in the replica
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// A ticket of the job that the replica must be of, @FILE or -; by default this host must have received it
    #[arg(long, value_name = "TICKET|@FILE|-")]
    ticket: Option<OsString>,
    /// What is set beside modes, times and links, of what was carried: a list of owner, xattrs, acls; or all
    #[arg(long, value_name = "LIST", default_value = "default")]
    preserve: Preserve,
    /// As with receive
    #[arg(long, value_name = "KIND:FROM=TO")]
    map_owner: Vec<String>,
    /// As with receive
    #[arg(long)]
    allow_root: bool,
    /// As with receive
    #[arg(long, value_name = "NAME")]
    xattr: Vec<String>,
    /// Keep set-user-id, set-group-id and sticky bits of files and directories
    #[arg(long)]
    keep_special_modes: bool,
    /// Tell events as JSON, one object a line, on standard output
    #[arg(long)]
    pub(super) json: bool,
}

impl RestoreArgs {
    pub(super) fn options(self, state: StateDir) -> Result<RestoreOptions, RunError> {
        let ticket = self.ticket.as_ref().map(decode_ticket).transpose()?;
        let owners = owners(&self.preserve, &self.xattr, &self.map_owner, self.allow_root)?;
        let (key, passphrase) = self.key.parts();
        Ok(RestoreOptions {
            replica: self.replica,
            dest: self.dest,
            state,
            ticket,
            key,
            passphrase,
            keys: self.keys,
            owners,
            keep_special_modes: self.keep_special_modes,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct RewrapArgs {
    /// What a receiver of the sealed job has
    replica: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Whose keys are to open it: public keys in PEM; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    seal_to: Vec<KeyFile>,
    /// Where the data key goes, wrapped to these
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl RewrapArgs {
    pub(super) fn options(self) -> RewrapOptions {
        let (key, passphrase) = self.key.parts();
        RewrapOptions { replica: self.replica, key, passphrase, seal_to: self.seal_to, out: self.out }
    }
}
