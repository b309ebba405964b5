//! Agents, and the tokens by which they enrol.

use super::place::{Place, me};
use super::{Done, pages, say, time};
use crate::db::{Db, DbError, agents};
use clap::{Args, Subcommand};
use sealift_api::rest::{EnrolmentToken, Name, NewEnrolmentToken};
use std::process::ExitCode;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make one, and show it
    Create {
        #[command(flatten)]
        place: Place,
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
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// How long it holds
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        expires_in: u32,
    },
    /// List them, also those that hold no more
    List {
        #[command(flatten)]
        place: Place,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke one: nobody enrols by it any more
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Its name or id
        token: String,
    },
}

pub(super) fn token(command: Token) -> Done {
    match command {
        Token::Create { place, name, approve, group, uses, expires_in } => {
            let new = NewEnrolmentToken { name, approve, group, uses, expires_in_seconds: expires_in };
            let db = place.open()?;
            let made = db.write(&me(), |write| agents::create_token(write, &new))?;
            say(&made.secret)
        }
        Token::List { place, json } => {
            let db = place.open()?;
            let now_ms = db.now_ms();
            pages(
                json,
                |after| db.read(|file| agents::tokens(file, after, 200)),
                |token: &EnrolmentToken| {
                    let uses = token.uses_left;
                    let state = match token.revoked_ms {
                        Some(_) => "revoked",
                        None if token.expires_ms <= now_ms => "expired",
                        None if uses == 0 => "spent",
                        None => "holds",
                    };
                    let until = time(token.expires_ms);
                    format!(
                        "{:<30} {state:<8} {uses:>5} uses left, until {until}  {}",
                        token.name.as_str(),
                        token.id
                    )
                },
            )
        }
        Token::Revoke { place, token } => {
            let db = place.open()?;
            let id = token_id(&db, &token)?;
            db.write(&me(), |write| agents::revoke_token(write, id))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// By its id, or by its name if only one of that name was not revoked.
fn token_id(db: &Db, token: &str) -> Result<Uuid, DbError> {
    if let Ok(id) = Uuid::try_parse(token) {
        return Ok(id);
    }
    let mut found = None;
    let mut after: Option<String> = None;
    loop {
        let page = db.read(|file| agents::tokens(file, after.as_deref(), 200))?;
        for one in page.items.iter().filter(|one| one.name.as_str() == token && one.revoked_ms.is_none()) {
            if found.replace(one.id).is_some() {
                let what =
                    format!("several tokens are called {token}: give the id of one, as `list` shows it");
                return Err(DbError::Conflict(what));
            }
        }
        after = page.next;
        if after.is_none() {
            return found.ok_or(DbError::NotFound("token"));
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// List them
    List {
        #[command(flatten)]
        place: Place,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Let one in that waits
    Approve(OneAgent),
    /// Shut one out for good
    Revoke(OneAgent),
    /// Let one in again that is quarantined
    Release(OneAgent),
}

#[derive(Debug, Args)]
pub(super) struct OneAgent {
    #[command(flatten)]
    place: Place,
    /// Its name
    agent: Name,
}

pub(super) fn agent(command: AgentCommand) -> Done {
    let (OneAgent { place, agent: name }, change): (_, fn(&mut crate::db::Write<'_>, Uuid) -> _) =
        match command {
            AgentCommand::List { place, json } => {
                let db = place.open()?;
                return pages(
                    json,
                    |after| db.read(|db| agents::list(db, &agents::AgentFilter::default(), after, 200)),
                    |agent| format!("{:<30} {:<12} {}", agent.name.as_str(), agent.state.as_str(), agent.id),
                );
            }
            AgentCommand::Approve(one) => (one, |write, id| agents::approve(write, id).map(drop)),
            AgentCommand::Revoke(one) => (one, |write, id| agents::revoke(write, id).map(drop)),
            AgentCommand::Release(one) => (one, |write, id| agents::release(write, id).map(drop)),
        };
    place.open()?.write(&me(), |write| {
        let id = agents::by_name(write.tx(), &name)?.id;
        change(write, id)
    })?;
    Ok(ExitCode::SUCCESS)
}
