//! Copies of the database, and their return.

use super::Done;
use super::audit::KeptElsewhere;
use super::place::{Place, keep_as, me};
use super::secret::SecretFrom;
use crate::db::master::{KeptIn, RecoveryKey};
use crate::db::{agents, backup};
use clap::Args;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    place: Place,
    /// The backup: a file, which is replaced if it is there; or a directory, in which each has a name by its time
    file: PathBuf,
    /// In a directory: keep so many of the newest, and remove those before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 14)]
    keep: u32,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    place: Place,
    /// The backup
    file: PathBuf,
    /// The recovery key that held when the backup was made, if the master key is lost, or another by now
    #[arg(long, value_name = "@FILE|-")]
    recovery_key: Option<SecretFrom>,
    #[command(flatten)]
    kept: KeptElsewhere,
}

pub(super) fn backup(options: &Backup) -> Done {
    let found = options.place.find()?;
    let db = found.open()?;
    let (file, checkpoint) = if options.file.is_dir() {
        backup::backup_among(&db, &me(), &options.file, usize::try_from(options.keep)?)?
    } else {
        (options.file.clone(), backup::backup(&db, &me(), &options.file)?)
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}: whole, with the audit up to record {}", file.display(), checkpoint.number)?;
    writeln!(out, "The checkpoint, to be kept elsewhere:  {checkpoint}")?;
    writeln!(
        out,
        "To put it back, with the daemon stopped:  sealift-control restore --data-dir {} {}",
        found.dir().display(),
        file.display()
    )?;
    writeln!(out, "The master key is not in it: its file or its recovery key is needed too.")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(options: &Restore) -> Done {
    let found = options.place.find()?;
    let outside = options.kept.read()?;
    let (file, database) = (&options.file, found.database());
    let restored = match &options.recovery_key {
        None => {
            let master = found.master()?;
            backup::restore(file, &database, &master, None, &outside, &me()).map_err(|error| match error {
                crate::db::DbError::WrongMasterKey => format!(
                    "the master key is not the one of {}: if there was another when it was made, give the recovery \
                     key of that time with --recovery-key @FILE",
                    file.display()
                )
                .into(),
                error => Box::<dyn std::error::Error>::from(error),
            })?
        }
        Some(recovery) => {
            let master = RecoveryKey::parse(&recovery.read()?)?.open(file)?;
            std::fs::DirBuilder::new().mode(0o700).recursive(true).create(found.dir())?;
            let kept = found.kept_in();
            let passphrase = match kept {
                Some(KeptIn::Sealed) => Some(found.new_passphrase()?),
                _ => None,
            };
            let keep = keep_as(kept, passphrase.as_ref(), None).map_err(|_| {
                "a credential cannot be made anew from here: restore without --master-credential, then make one of \
                 master.key"
            })?;
            backup::restore(file, &database, &master, Some(keep), &outside, &me())?
        }
    };
    // What agents were given after the backup is not known any more: the next hello of each is believed.
    found.open()?.write(&me(), agents::forget_incarnations)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{} is in place, with {} records of the audit", file.display(), restored.report.records)?;
    if let Some(kept) = restored.kept {
        writeln!(out, "What stood there is {}", kept.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
