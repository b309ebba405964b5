//! `sealift agent list`, `show`, `approve`, `revoke`, `release`, `set`, `groups`: the agents, as the daemon knows them.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::api::{Kind, id_of};
use crate::operator::output::{
    Form, Listing, bytes, joined, note, properties, say_json, show_list, show_one, time, yes,
};
use sealift_api::rest::{Agent, AgentPatch, AgentState, Group, Name};

/// Agents.
pub(crate) const AGENT: Kind = Kind { path: "agents", one: "agent", list: "sealift agent list" };

/// What is done to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It takes part from now on.
    Approve,
    /// It is shut out for good.
    Revoke,
    /// It takes part again.
    Release,
}

impl Action {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Approve => ("approve", "approved"),
            Self::Revoke => ("revoke", "revoked"),
            Self::Release => ("release", "released"),
        }
    }
}

/// Shows them all, or those in a state or group.
pub(crate) async fn list(
    api: &mut Api,
    state: Option<AgentState>,
    group: Option<Name>,
    listing: Listing,
) -> Result<Finish, RunError> {
    let mut query = Vec::new();
    query.extend(state.map(|state| ("state", state.to_string())));
    query.extend(group.map(|group| ("group", group.to_string())));
    let head = ["NAME", "STATE", "CONNECTED", "GROUPS", "HOST", "ADDRESS", "SEEN"];
    show_list(api, "agents", &query, listing, &head, |agent: &Agent| {
        vec![
            agent.name.to_string(),
            agent.state.to_string(),
            yes(agent.connected),
            joined(&agent.groups),
            agent.facts.hostname.clone(),
            agent.address.clone(),
            time(agent.seen_ms),
        ]
    })
    .await
}

/// Shows one.
pub(crate) async fn show(api: &mut Api, agent: &str, form: Form) -> Result<Finish, RunError> {
    let agent = api.find(AGENT, agent).await?;
    show_one(api, &agent, form, people)
}

fn people(agent: &Agent) -> String {
    let facts = &agent.facts;
    properties([
        ("name", agent.name.to_string()),
        ("id", agent.id.to_string()),
        ("state", agent.state.to_string()),
        ("connected", yes(agent.connected)),
        ("groups", joined(&agent.groups)),
        ("takes", takes(agent)),
        ("host", facts.hostname.clone()),
        ("system", facts.os.clone()),
        ("hardware", format!("{} cores, {}", facts.cores, bytes(facts.memory_bytes))),
        ("version", facts.version.clone()),
        ("address", agent.address.clone()),
        ("data addresses", facts.data_addresses.join(", ")),
        ("may read", facts.read_roots.join(", ")),
        ("may write", facts.write_roots.join(", ")),
        ("document", format!("{}, of which it has {}", agent.document, agent.acked_document)),
        ("key", agent.key.clone()),
        ("certificate", format!("until {}", time(agent.certificate_expires_ms))),
        ("enrolled", time(agent.created_ms)),
        ("seen", time(agent.seen_ms)),
    ])
}

fn takes(agent: &Agent) -> String {
    match (agent.must_seal, agent.must_seal_by.is_empty()) {
        (true, _) => "ciphertext alone".to_owned(),
        (false, false) => format!("ciphertext alone, as all in {}", joined(&agent.must_seal_by)),
        (false, true) => "plaintext and ciphertext".to_owned(),
    }
}

/// Does something to each of them. What can be done is, whatever becomes of the others.
pub(crate) async fn act(
    api: &mut Api,
    action: Action,
    agents: &[String],
    form: Form,
) -> Result<Finish, RunError> {
    let (word, done) = action.words();
    let mut first = None;
    for name in agents {
        let changed = match api.find(AGENT, name).await {
            Ok(agent) => api.post::<()>(&format!("agents/{}/{word}", id_of(&agent)?), None).await,
            Err(error) => Err(error),
        };
        match (changed, form) {
            (Ok(agent), Form::Json) => say_json(&agent)?,
            (Ok(agent), Form::People) => {
                let agent: Agent = api.typed(&agent)?;
                note(&format!("{} is {done}.", agent.name));
            }
            (Err(error), _) if agents.len() == 1 => return Err(error),
            (Err(error), _) => {
                note(&format!("sealift: {error}"));
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(Finish::Complete), Err)
}

/// Renames an agent, or puts it into other groups.
pub(crate) async fn set(
    api: &mut Api,
    agent: &str,
    patch: &AgentPatch,
    form: Form,
) -> Result<Finish, RunError> {
    let found = api.find(AGENT, agent).await?;
    let agent: Agent = api.typed(&found)?;
    let changed = api.patch(&format!("agents/{}", agent.id), agent.version, patch).await?;
    show_one(api, &changed, form, people)
}

/// Shows the groups that agents are in.
pub(crate) async fn groups(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    show_list(api, "groups", &[], listing, &["GROUP", "TAKES", "MEMBERS"], |group: &Group| {
        let members: Vec<_> = group.members.iter().map(|member| member.name.to_string()).collect();
        let takes = if group.must_seal { "ciphertext" } else { "all" };
        vec![group.name.to_string(), takes.to_owned(), members.join(", ")]
    })
    .await
}
