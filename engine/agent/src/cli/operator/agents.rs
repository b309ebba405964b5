//! `sealift agent list`, `show`, `approve`, `revoke`, `release`, `set`, `groups`.

use super::{FormArgs, ListArgs};
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::agents::{self, Action};
use crate::operator::keks;
use clap::{Args, Subcommand};
use sealift_api::rest::{AgentPatch, AgentState, Name};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AgentsCommand {
    /// Shows the agents of the control daemon that you have logged in to.
    #[command(
        after_help = "Examples:\n  sealift agent list --state pending\n  sealift agent list --group dc2 --json"
    )]
    List(ListOptions),
    /// Shows what the control daemon knows of an agent.
    Show(One),
    /// Lets agents in that wait for it.
    #[command(after_help = "Example:\n  sealift agent approve web-1 web-2")]
    Approve(Several),
    /// Shuts agents out, for good: their transfers end within seconds.
    Revoke(Several),
    /// Lets agents in again that are quarantined, since two of one identity were seen.
    Release(Several),
    /// Renames an agent, puts it into other groups, or says whether it takes ciphertext alone.
    #[command(after_help = "Example:\n  sealift agent set web-1 --group dc2 --group web")]
    Set(SetArgs),
    /// Shows the groups that agents are in.
    Groups(Groups),
    /// Says whether the members of a group take ciphertext alone.
    #[command(after_help = "Example:\n  sealift agent set-group vault --must-seal yes")]
    SetGroup(SetGroup),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListOptions {
    /// Those in this state: pending, approved, quarantined or revoked
    #[arg(long, value_parser = state)]
    state: Option<AgentState>,
    /// Those in this group
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// Its name or id
    agent: String,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Several {
    /// Their names or ids
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli) struct SetArgs {
    /// Its name or id
    agent: String,
    /// Another name; jobs that name it are changed with it
    #[arg(long, value_name = "NAME", required_unless_present_any = ["group", "no_groups", "must_seal"])]
    name: Option<Name>,
    /// A group that it is to be in, instead of those it is in; may be repeated
    #[arg(long, value_name = "NAME")]
    group: Vec<Name>,
    /// Take it out of all groups
    #[arg(long, conflicts_with = "group")]
    no_groups: bool,
    /// yes: no plaintext may be placed there, and only sealed jobs have it as a destination; no: administrators can end that
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    must_seal: Option<bool>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetGroup {
    /// The group
    group: Name,
    /// yes: no plaintext may be placed at its members, and only sealed jobs have them as destinations
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no, action = clap::ArgAction::Set, required = true)]
    must_seal: bool,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Groups {
    #[command(flatten)]
    list: ListArgs,
}

/// Runs a command.
pub(super) async fn run(command: AgentsCommand) -> Result<Finish, RunError> {
    let api = &mut Api::logged_in()?;
    let act = |action, several: Several| (action, several.agents, several.form.into());
    let (action, which, form) = match command {
        AgentsCommand::List(args) => return agents::list(api, args.state, args.group, args.list.all()).await,
        AgentsCommand::Show(one) => return agents::show(api, &one.agent, one.form.into()).await,
        AgentsCommand::Groups(args) => return agents::groups(api, args.list.all()).await,
        AgentsCommand::Set(args) => {
            let groups = (args.no_groups || !args.group.is_empty()).then_some(args.group);
            let patch = AgentPatch { name: args.name, groups, must_seal: args.must_seal };
            return agents::set(api, &args.agent, &patch, args.form.into()).await;
        }
        AgentsCommand::SetGroup(args) => {
            return keks::set_group_policy(api, &args.group, args.must_seal, args.form.into()).await;
        }
        AgentsCommand::Approve(several) => act(Action::Approve, several),
        AgentsCommand::Revoke(several) => act(Action::Revoke, several),
        AgentsCommand::Release(several) => act(Action::Release, several),
    };
    agents::act(api, action, &which, form).await
}

fn state(word: &str) -> Result<AgentState, String> {
    AgentState::from_word(word).ok_or_else(|| "pending, approved, quarantined or revoked".into())
}

fn yes_or_no(word: &str) -> Result<bool, String> {
    match word {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("yes or no".into()),
    }
}
