//! The master key and its recovery key: another one, the same one kept another way, one that was lost.

use super::Done;
use super::init::Kept;
use super::place::{Place, keep_as, me};
use super::secret::{SecretFrom, asked_new, keep};
use crate::db::DbError;
use crate::db::master::{self, KeepIn, KeptIn, RecoveryKey};
use clap::{Args, Subcommand};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Debug, Subcommand)]
pub(super) enum Master {
    /// Make a new master key, and a new recovery key; what the old ones open is sealed anew. The daemon is stopped meanwhile
    Rotate {
        #[command(flatten)]
        place: Place,
        /// Write the recovery key to this new file (0600), instead of showing it
        #[arg(long, value_name = "FILE")]
        recovery_key_file: Option<PathBuf>,
        /// Write the master key to this new file (0600), as that of a credential
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Keep the same master key another way, or under another passphrase. The daemon is stopped meanwhile
    Keep {
        #[command(flatten)]
        place: Place,
        /// In a file, or in one that a passphrase opens
        #[arg(value_enum)]
        kept: Kept,
        /// The new passphrase; a terminal is asked for it
        #[arg(long, value_name = "@FILE|-")]
        new_passphrase: Option<SecretFrom>,
    },
    /// Make a new recovery key: the one before opens nothing any more
    NewRecoveryKey {
        #[command(flatten)]
        place: Place,
        /// Write it to this new file (0600), instead of showing it
        #[arg(long, value_name = "FILE")]
        recovery_key_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    #[command(flatten)]
    place: Place,
    /// The recovery key
    #[arg(long, value_name = "@FILE|-")]
    recovery_key: SecretFrom,
    /// How the master key is kept from now on; as it was, if this is not said. A passphrase is a new one
    #[arg(long, value_name = "HOW", value_enum)]
    master: Option<Kept>,
    /// Write the master key to this new file (0600), as that of a credential
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

pub(super) fn master(command: Master) -> Done {
    match command {
        Master::Rotate { place, recovery_key_file, key_file } => {
            let found = place.find()?;
            found.has_daemon()?;
            let (old, passphrase) = found.master_and_passphrase()?;
            let keep_in = keep_as(found.kept_in(), passphrase.as_ref(), key_file.as_deref())?;
            let told = |key: &RecoveryKey| tell(key, recovery_key_file.as_deref());
            master::rotate(found.dir(), &found.database(), &old, keep_in, &me(), told)?;
            eprintln!(
                "The master key and the recovery key are new. Make a backup now: those made before open with their own \
                 recovery key alone."
            );
        }
        Master::Keep { place, kept, new_passphrase } => {
            let found = place.find()?;
            found.has_daemon()?;
            let master = found.master()?;
            let passphrase = match kept {
                Kept::File => None,
                Kept::Passphrase => Some(match new_passphrase {
                    Some(from) => from.read()?,
                    None => asked_new("A new passphrase for the master key: ", "--new-passphrase @FILE")?,
                }),
            };
            let keep_in = passphrase.as_ref().map_or(KeepIn::File, |text| KeepIn::Sealed(text.as_bytes()));
            master::keep_otherwise(found.dir(), &found.database(), &master, keep_in, &me())?;
        }
        Master::NewRecoveryKey { place, recovery_key_file } => {
            let db = place.open()?;
            master::renew_recovery(&db, &me(), |key| tell(key, recovery_key_file.as_deref()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Before it holds, so that there is never one that nobody knows.
fn tell(key: &RecoveryKey, file: Option<&Path>) -> Result<(), DbError> {
    let text = Zeroizing::new(key.to_string());
    match file {
        Some(file) => keep(file, &text)?,
        None => {
            let mut out = io::stdout().lock();
            writeln!(
                out,
                "The new recovery key, shown this once; it holds once this command has ended well:  {}",
                *text
            )?;
            out.flush()?;
        }
    }
    Ok(())
}

pub(super) fn recover(options: &Recover) -> Done {
    let found = options.place.find()?;
    found.has_daemon()?;
    let recovery = RecoveryKey::parse(&options.recovery_key.read()?)?;
    let kept = match options.master {
        Some(Kept::File) => Some(KeptIn::File),
        Some(Kept::Passphrase) => Some(KeptIn::Sealed),
        None => found.kept_in(),
    };
    let passphrase = match kept {
        Some(KeptIn::Sealed) if options.key_file.is_none() => Some(found.new_passphrase()?),
        _ => None,
    };
    let keep_in = keep_as(kept, passphrase.as_ref(), options.key_file.as_deref())?;
    master::recover(found.dir(), &found.database(), &recovery, keep_in, &me())?;
    eprintln!("The master key is there again.");
    Ok(ExitCode::SUCCESS)
}
