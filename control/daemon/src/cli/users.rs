//! Users, for when nobody can log in, or nobody should.

use super::place::{Place, me};
use super::secret::new_password;
use super::{Done, pages, time};
use crate::db::users;
use clap::{Args, Subcommand};
use sealift_api::rest::{Name, NewUser, Role, User, UserPatch};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make one
    #[command(alias = "add")]
    Create {
        #[command(flatten)]
        one: OneUser,
        /// administrator, operator or viewer
        #[arg(long, value_parser = role)]
        role: Role,
        /// Take the password from standard input; a terminal is asked for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// List them
    List {
        #[command(flatten)]
        place: Place,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Give one another password; sessions end, and a lockout too
    Password {
        #[command(flatten)]
        one: OneUser,
        /// Take the password from standard input; a terminal is asked for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give one another role
    Role {
        #[command(flatten)]
        one: OneUser,
        /// administrator, operator or viewer
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Shut one out: sessions end, and tokens are refused
    Disable(OneUser),
    /// Let one in again who was disabled
    Enable(OneUser),
    /// Let one try to log in again who failed too often
    Unlock(OneUser),
}

#[derive(Debug, Args)]
pub(super) struct OneUser {
    #[command(flatten)]
    place: Place,
    /// The name
    user: Name,
}

pub(super) fn user(command: UserCommand) -> Done {
    match command {
        UserCommand::Create { one: OneUser { place, user }, role, password_stdin } => {
            let db = place.open()?;
            let password = new_password(password_stdin, &format!("A password for {user}: "))?;
            users::create(&db, &me(), &NewUser { name: user, role, password: password.to_string() })?;
        }
        UserCommand::List { place, json } => {
            let db = place.open()?;
            return pages(
                json,
                |after| db.read(|file| users::list(file, after, 200)),
                |user: &User| {
                    let state = if user.disabled { "disabled" } else { "" };
                    let made = time(user.created_ms);
                    format!("{:<30} {:<14} {made} {state}", user.name.as_str(), user.role.as_str())
                        .trim_end()
                        .to_owned()
                },
            );
        }
        UserCommand::Password { one, password_stdin } => {
            let db = one.place.open()?;
            let id = db.read(|file| users::by_name(file, &one.user))?.id;
            let password = new_password(password_stdin, &format!("A new password for {}: ", one.user))?;
            let patch = UserPatch { password: Some(password.to_string()), ..UserPatch::default() };
            users::update(&db, &me(), id, None, &patch)?;
            users::unlock(&db, &me(), &one.user)?;
        }
        UserCommand::Role { one, role } => {
            change(&one, &UserPatch { role: Some(role), ..UserPatch::default() })?;
        }
        UserCommand::Disable(one) => {
            change(&one, &UserPatch { disabled: Some(true), ..UserPatch::default() })?;
        }
        UserCommand::Enable(one) => {
            change(&one, &UserPatch { disabled: Some(false), ..UserPatch::default() })?;
        }
        UserCommand::Unlock(OneUser { place, user }) => {
            let db = place.open()?;
            db.read(|file| users::by_name(file, &user))?;
            users::unlock(&db, &me(), &user)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn change(one: &OneUser, patch: &UserPatch) -> Result<(), Box<dyn std::error::Error>> {
    let db = one.place.open()?;
    let id = db.read(|file| users::by_name(file, &one.user))?.id;
    users::update(&db, &me(), id, None, patch)?;
    Ok(())
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "administrator, operator or viewer".into())
}
