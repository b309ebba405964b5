//! `sealift token`.

use super::{FormArgs, ListArgs, PasswordArgs, role};
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::tokens::{self, SecretTo};
use clap::{Args, Subcommand};
use sealift_api::rest::limits::{API_TOKEN_SECONDS_MAX, ENROLMENT_TOKEN_SECONDS_MAX, TOKEN_USES_MAX};
use sealift_api::rest::{Name, NewApiToken, NewEnrolmentToken, Role};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Makes a token, by which hosts join as agents.
    #[command(
        after_help = "Examples:\n  sealift token create --name rack1 --uses 20 --approve --group dc2 --write rack1.token\n  \
        sealift token create --name web-1 | ssh web-1 sealift agent join control.example --pin 1f2e... --token -"
    )]
    Create(Create),
    /// Shows them, without their secrets.
    List(List),
    /// Revokes one. Agents that it let in stay.
    Revoke(Revoke),
    /// Tokens for programs that use the API.
    #[command(subcommand)]
    Api(ApiCommand),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ApiCommand {
    /// Makes one, which may do no more than you. It asks for your password, since a token cannot make tokens.
    #[command(
        after_help = "Example:\n  sealift token api create --name nightly --role operator --write nightly.token"
    )]
    Create(CreateApi),
    /// Shows yours; an administrator sees everybody's.
    List(List),
    /// Revokes one.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// What it is for
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// Agents that bring it are let in at once, instead of waiting for an operator
    #[arg(long)]
    approve: bool,
    /// The group that they join
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    /// How many agents may use it
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(TOKEN_USES_MAX)))]
    uses: u32,
    /// How long it holds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(ENROLMENT_TOKEN_SECONDS_MAX)))]
    expires_in: u32,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateApi {
    /// What it is for
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// What it allows at most: viewer, operator or administrator
    #[arg(long, value_parser = role)]
    role: Role,
    /// How long it holds
    #[arg(long, value_name = "SECONDS", default_value_t = 90 * 24 * 3600,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(API_TOKEN_SECONDS_MAX)))]
    expires_in: u32,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    to: To,
}

/// Where the secret goes.
#[derive(Debug, Args)]
struct To {
    /// Write the token to FILE, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    form: FormArgs,
}

impl To {
    fn secret(&self) -> SecretTo<'_> {
        SecretTo { file: self.write.as_deref(), form: self.form.into() }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    /// Its name or id
    token: String,
}

/// Runs a command.
pub(super) async fn run(command: TokenCommand) -> Result<Finish, RunError> {
    match command {
        TokenCommand::Create(args) => {
            let new = NewEnrolmentToken {
                name: args.name,
                approve: args.approve,
                group: args.group,
                uses: args.uses,
                expires_in_seconds: args.expires_in,
            };
            tokens::create(&mut Api::logged_in()?, &new, args.to.secret()).await
        }
        TokenCommand::List(args) => tokens::list(&mut Api::logged_in()?, args.list.all()).await,
        TokenCommand::Revoke(args) => tokens::revoke(&mut Api::logged_in()?, &args.token).await,
        TokenCommand::Api(ApiCommand::Create(args)) => {
            let new = NewApiToken { name: args.name, role: args.role, expires_in_seconds: args.expires_in };
            tokens::create_api(&new, args.password.into(), args.to.secret()).await
        }
        TokenCommand::Api(ApiCommand::List(args)) => {
            tokens::list_api(&mut Api::logged_in()?, args.list.all()).await
        }
        TokenCommand::Api(ApiCommand::Revoke(args)) => {
            tokens::revoke_api(&mut Api::logged_in()?, &args.token).await
        }
    }
}
