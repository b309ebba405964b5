//! `sealift kek`.

use super::{FormArgs, ListArgs};
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::keks::{self, Action, Halves};
use crate::operator::sealed_logs::Key;
use crate::seal::Passphrase;
use clap::{Args, Subcommand};
use sealift_api::rest::Name;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KekCommand {
    /// Imports a KEK under a name.
    ///
    /// With its public half alone the daemon can have data sealed to it, and can read none of it. With --private it can, and
    /// keeps that half sealed under its master key.
    #[command(
        after_help = "Examples:\n  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -aes-256-cbc -out kek.pem\n  \
        openssl pkey -in kek.pem -pubout -out kek.pub.pem\n  sealift kek import team --public kek.pub.pem\n  \
        sealift kek import logs --public kek.pub.pem --private kek.pem --passphrase-file passphrase"
    )]
    Import(Import),
    /// Shows the KEKs.
    List(List),
    /// Shows a KEK, with its public half.
    Show(One),
    /// Gives a KEK's name another key: what is sealed from now on is wrapped to that. The one before can decrypt only.
    #[command(after_help = "Example:\n  sealift kek rotate team --public kek2.pub.pem")]
    Rotate(Rotate),
    /// Has a KEK used no more, until it is enabled.
    Disable(One),
    /// Has a disabled KEK used again.
    Enable(One),
    /// Has what agents log sealed to a KEK, on their disks and on the way; or to none.
    ///
    /// With a KEK of which the daemon has the private half it reads and indexes what comes. Without, it keeps ciphertext:
    /// `sealift logs --key` opens that.
    #[command(after_help = "Example:\n  sealift kek seal-logs team")]
    SealLogs(SealLogs),
    /// Wraps the data keys of sealed logs that the daemon keeps to a KEK's active version: after a rotation, so that the old one can
    /// be destroyed.
    ///
    /// With --key the data keys are unwrapped on this machine, by the private half of the old version. Without, the daemon unwraps
    /// them, where it has that. The logs stay where they are. What jobs have sealed is wrapped anew by a run of each.
    #[command(
        after_help = "Example:\n  sealift kek rotate team --public new.pub.pem\n  sealift kek rewrap team --key old.pem\n  \
        sealift kek destroy team@1"
    )]
    Rewrap(Rewrap),
    /// Destroys a KEK to which nothing is wrapped any more.
    ///
    /// After a rotation that is when a run of each job that is sealed to it was completed. The daemon's private half is
    /// overwritten; backups of the daemon that were made before still have it.
    #[command(after_help = "Example:\n  sealift kek destroy team@1")]
    Destroy(One),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// By which jobs will name it
    name: Name,
    #[command(flatten)]
    halves: HalvesArgs,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// Its name, NAME@VERSION, fingerprint or id
    kek: String,
    #[command(flatten)]
    halves: HalvesArgs,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
struct HalvesArgs {
    /// The public half: PEM, as of `openssl pkey -pubout`
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// The private half, for a daemon that is to be able to read: PEM, as of `openssl genpkey`
    #[arg(long, value_name = "FILE")]
    private: Option<PathBuf>,
    /// Take the private half's passphrase from the first line of a file [default: ask for it]
    #[arg(long, value_name = "FILE", requires = "private")]
    passphrase_file: Option<PathBuf>,
    /// Take it from standard input
    #[arg(long, requires = "private", conflicts_with = "passphrase_file")]
    passphrase_stdin: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// Its name, NAME@VERSION, fingerprint or id
    kek: String,
    #[command(flatten)]
    form: FormArgs,
}

impl From<HalvesArgs> for Halves {
    fn from(args: HalvesArgs) -> Self {
        let passphrase = Passphrase::of(args.passphrase_file, args.passphrase_stdin);
        Self { public: args.public, private: args.private, passphrase }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rewrap {
    /// The KEK to wrap to: its name
    kek: String,
    /// The private half of what they are wrapped to now, which stays on this machine [default: those that the daemon has]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take its passphrase from the first line of a file [default: ask for it]
    #[arg(long, value_name = "FILE", requires = "key")]
    passphrase_file: Option<PathBuf>,
    /// Take it from standard input
    #[arg(long, requires = "key", conflicts_with = "passphrase_file")]
    passphrase_stdin: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SealLogs {
    /// Its name, or none
    #[arg(value_name = "KEK|none")]
    kek: Name,
    #[command(flatten)]
    form: FormArgs,
}

/// Runs a command.
pub(super) async fn run(command: KekCommand) -> Result<Finish, RunError> {
    let api = &mut Api::logged_in()?;
    let (action, one) = match command {
        KekCommand::Import(args) => {
            return keks::import(api, args.name, &args.halves.into(), args.form.into()).await;
        }
        KekCommand::Rotate(args) => {
            return keks::rotate(api, &args.kek, &args.halves.into(), args.form.into()).await;
        }
        KekCommand::Rewrap(args) => {
            let passphrase = Passphrase::of(args.passphrase_file, args.passphrase_stdin);
            let key = args.key.map(|file| Key { file, passphrase });
            return keks::rewrap(api, &args.kek, key.as_ref()).await;
        }
        KekCommand::SealLogs(args) => {
            let kek = (args.kek.as_str() != "none").then_some(args.kek);
            return keks::seal_logs(api, kek, args.form.into()).await;
        }
        KekCommand::List(args) => return keks::list(api, args.list.all()).await,
        KekCommand::Show(one) => return keks::show(api, &one.kek, one.form.into()).await,
        KekCommand::Disable(one) => (Action::Disable, one),
        KekCommand::Enable(one) => (Action::Enable, one),
        KekCommand::Destroy(one) => (Action::Destroy, one),
    };
    keks::act(api, action, &one.kek, one.form.into()).await
}
