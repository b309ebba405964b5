//! `sealift user`.

use super::{FormArgs, ListArgs, PasswordArgs, role};
use crate::error::{Finish, RunError};
use crate::operator::{Api, PasswordFrom, users};
use clap::{Args, Subcommand};
use sealift_api::rest::{Name, Role, UserPatch};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UserCommand {
    /// Adds a user; asks for the password.
    #[command(after_help = "Example:\n  sealift user create eve --role viewer")]
    Create(Create),
    /// Shows the users.
    List(List),
    /// Changes a user's role or password, or whether the account is disabled.
    #[command(after_help = "Example:\n  sealift user set eve --role operator")]
    Set(SetArgs),
    /// Removes a user.
    Delete(One),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The name
    user: Name,
    /// administrator, operator or viewer
    #[arg(long, value_parser = role)]
    role: Role,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetArgs {
    /// The name or id
    user: String,
    /// administrator, operator or viewer
    #[arg(long, value_parser = role, required_unless_present_any = ["disable", "enable", "password", "password_stdin"])]
    role: Option<Role>,
    /// No sessions, no tokens
    #[arg(long)]
    disable: bool,
    /// As before it was disabled
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Ask for another password; ends the user's sessions
    #[arg(long)]
    password: bool,
    /// Take another password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// The name or id
    user: String,
}

/// Runs a command.
pub(super) async fn run(command: UserCommand) -> Result<Finish, RunError> {
    let api = &mut Api::logged_in()?;
    match command {
        UserCommand::Create(args) => {
            users::create(api, args.user, args.role, args.password.into(), args.form.into()).await
        }
        UserCommand::List(args) => users::list(api, args.list.all()).await,
        UserCommand::Set(args) => {
            let disabled = (args.disable || args.enable).then_some(args.disable);
            let patch = UserPatch { role: args.role, disabled, password: None };
            let password = match (args.password, args.password_stdin) {
                (true, _) => Some(PasswordFrom::Terminal),
                (_, true) => Some(PasswordFrom::Stdin),
                _ => None,
            };
            users::set(api, &args.user, patch, password, args.form.into()).await
        }
        UserCommand::Delete(args) => users::delete(api, &args.user).await,
    }
}
