//! A new daemon.

use super::Done;
use super::place::{DATABASE, Place, me};
use super::secret::{SecretFrom, keep};
use crate::ca::Authority;
use crate::db::master::{self, MASTER_KEY, MASTER_SEALED};
use crate::db::{Db, MasterKey, users};
use clap::{Args, ValueEnum};
use sealift_api::rest::{Name, NewUser, Role};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    place: Place,
    /// How the master key is kept: in a file, or in one that a passphrase opens
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Kept::File)]
    master: Kept,
    /// Write the recovery key to this new file (0600), instead of showing it
    #[arg(long, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
    /// The first administrator's name
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: Name,
    /// Take the first administrator's password from standard input, instead of making one and showing it
    #[arg(long)]
    password_stdin: bool,
}

/// How a master key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kept {
    /// For whoever may read the file
    File,
    /// For whoever knows the passphrase
    Passphrase,
}

pub(super) fn init(options: &Init) -> Done {
    let found = options.place.find()?;
    let dir = found.dir();
    let shown = dir.display();
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir)
        .map_err(|error| format!("{shown}: {error}"))?;
    let mut files: Vec<_> =
        [DATABASE, "control.db.lock", "control.db-wal", "control.db-shm"].map(|name| dir.join(name)).into();
    files.extend([MASTER_KEY, MASTER_SEALED].map(|name| dir.join(name)));
    if files.iter().any(|file| file.exists()) {
        return Err(format!("{shown} has a daemon already, or something of one").into());
    }
    if let Some(file) = &options.recovery_key_file {
        if file.exists() {
            return Err(format!("{} is there already", file.display()).into());
        }
        files.push(file.clone());
    }
    make(options).inspect_err(|_| {
        // Half a daemon would be of no use, and in the way of a whole one. None of these was there before.
        for file in &files {
            let _ = std::fs::remove_file(file);
        }
    })
}

/// Makes everything, and shows at the end what is shown once.
fn make(options: &Init) -> Done {
    let found = options.place.find()?;
    let (dir, database) = (found.dir(), found.database());
    // Of standard input the passphrase is the first line, if it is there.
    let master = match (&found.config.master_key.credential, options.master) {
        (Some(name), Kept::File) => MasterKey::read_credential(name)?,
        (Some(_), Kept::Passphrase) => {
            return Err("a master key that is a credential has no passphrase".into());
        }
        (None, kept) => {
            let master = MasterKey::generate()?;
            match kept {
                Kept::File => master.create_file(&dir.join(MASTER_KEY))?,
                Kept::Passphrase => {
                    let passphrase = found.new_passphrase()?;
                    master.create_sealed(&dir.join(MASTER_SEALED), passphrase.as_bytes())?;
                }
            }
            master
        }
    };
    let password = if options.password_stdin { SecretFrom::Stdin.read()? } else { new_password()? };
    let db = Db::create(&database, master)?;
    let authority = Authority::create(&db, &me())?;
    let admin =
        NewUser { name: options.admin.clone(), role: Role::Administrator, password: password.to_string() };
    users::create(&db, &me(), &admin)?;
    let mut recovery = None;
    master::renew_recovery(&db, &me(), |key| {
        let text = Zeroizing::new(key.to_string());
        match &options.recovery_key_file {
            Some(file) => keep(file, &text)?,
            None => recovery = Some(text),
        }
        Ok(())
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "The daemon's authority, for agents to pin:  {}", authority.fingerprint())?;
    if !options.password_stdin {
        writeln!(out, "The password of {}, shown this once:  {}", options.admin, *password)?;
    }
    if let Some(recovery) = recovery {
        writeln!(out, "The recovery key, shown this once; keep it apart from this host:  {}", *recovery)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Twenty letters and digits: 100 bits.
fn new_password() -> Result<Zeroizing<String>, io::Error> {
    let mut bytes = Zeroizing::new([0; 13]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(bytes.as_ref()).to_lowercase());
    text.truncate(20);
    Ok(text)
}
