//! Who is meant by a spec's endpoints.

use crate::db::DbError;
use crate::db::agents::{self, AgentFilter};
use rusqlite::Connection;
use sealift_api::rest::limits::RUN_AGENTS_MAX;
use sealift_api::rest::{Agent, AgentState, Endpoint, JobSpec, Name, Place};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// An agent that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) struct Member {
    /// The agent.
    pub(in crate::db) id: Uuid,
    /// Its name.
    pub(in crate::db) name: Name,
    /// Where on it.
    pub(in crate::db) path: String,
}

/// Who takes part in a job: nobody on both sides, nobody twice on one; in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) struct Members {
    /// Who gives.
    pub(in crate::db) sources: Vec<Member>,
    /// Who takes.
    pub(in crate::db) destinations: Vec<Member>,
}

/// Which agents an endpoint may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::db) enum Who {
    /// All that are not revoked: for a job that may run later.
    Known,
    /// Those that can take part now. What is named must be approved; of a group those that are.
    Approved,
}

/// Tells who takes part. An agent that is named takes part as named, also if it is in a group; of groups, an agent that
/// is on the other side by name is left out.
pub(in crate::db) fn resolve(db: &Connection, spec: &JobSpec, who: Who) -> Result<Members, DbError> {
    let mut sources = side(db, &spec.from, who)?;
    let mut destinations = side(db, &spec.to, who)?;
    let named =
        |side: &Side| side.values().filter(|found| found.named).map(|found| found.member.id).collect();
    let (named_sources, named_destinations): (BTreeSet<_>, BTreeSet<_>) =
        (named(&sources), named(&destinations));
    sources.retain(|id, _| !named_destinations.contains(id));
    destinations.retain(|id, _| !named_sources.contains(id));
    let list = |side: Side| side.into_values().map(|found| found.member).collect::<Vec<_>>();
    let members = Members { sources: list(sources), destinations: list(destinations) };
    if who == Who::Approved && (members.sources.is_empty() || members.destinations.is_empty()) {
        let what = "there is no approved agent on one side of the job";
        return Err(DbError::Conflict(what.to_owned()));
    }
    Ok(members)
}

/// Refuses a job that would place plaintext where only ciphertext may be.
///
/// # Errors
/// [`DbError::Invalid`]: where, and what to do.
pub(in crate::db) fn nothing_plain_where_none_may_be(
    db: &Connection,
    spec: &JobSpec,
    members: &Members,
) -> Result<(), DbError> {
    if !spec.seal_to.is_empty() {
        return Ok(());
    }
    let sealing = agents::that_take_ciphertext_alone(db)?;
    match members.destinations.iter().find(|destination| sealing.contains(&destination.id)) {
        None => Ok(()),
        Some(Member { name, .. }) => Err(DbError::Invalid(format!(
            "the agent {name} takes ciphertext alone (must_seal), and this job would place plaintext there: seal it to a \
            KEK (seal_to)"
        ))),
    }
}

struct Found {
    member: Member,
    named: bool,
}

type Side = BTreeMap<Uuid, Found>;

fn side(db: &Connection, endpoints: &[Endpoint], who: Who) -> Result<Side, DbError> {
    let mut side = Side::new();
    for endpoint in endpoints {
        match endpoint.place() {
            Place::Agent(name) => {
                let agent = named(db, name, who)?;
                side.insert(agent.id, found(agent.id, agent.name, endpoint, true));
            }
            Place::Group(group) => {
                for (id, name) in in_group(db, group, who)? {
                    let found = found(id, name, endpoint, false);
                    match side.get(&id) {
                        Some(there) if there.named || there.member.path == found.member.path => {}
                        Some(there) => {
                            let name = &there.member.name;
                            let what =
                                format!("the agent {name} is in two groups of the job, with two paths");
                            return Err(DbError::Conflict(what));
                        }
                        None => {
                            side.insert(id, found);
                        }
                    }
                }
            }
        }
        if side.len() > RUN_AGENTS_MAX {
            return Err(DbError::Invalid(format!("a side of a job has at most {RUN_AGENTS_MAX} agents")));
        }
    }
    Ok(side)
}

fn found(id: Uuid, name: Name, endpoint: &Endpoint, named: bool) -> Found {
    Found { member: Member { id, name, path: endpoint.path().to_owned() }, named }
}

fn named(db: &Connection, name: &Name, who: Who) -> Result<Agent, DbError> {
    let agent = agents::by_name(db, name).map_err(|error| match error {
        DbError::NotFound(_) => DbError::Invalid(format!("there is no agent {name}")),
        error => error,
    })?;
    match (who, agent.state) {
        (Who::Known, AgentState::Revoked) => Err(DbError::Invalid(format!("the agent {name} is revoked"))),
        (Who::Known, _) | (Who::Approved, AgentState::Approved) => Ok(agent),
        (Who::Approved, state) => Err(DbError::Conflict(format!("the agent {name} is {state}"))),
    }
}

fn in_group(db: &Connection, group: &Name, who: Who) -> Result<Vec<(Uuid, Name)>, DbError> {
    let filter = AgentFilter { group: Some(group.clone()), state: None };
    let members = agents::list(db, &filter, None, RUN_AGENTS_MAX + 1)?.items;
    if members.is_empty() {
        return Err(DbError::Invalid(format!("there is no group {group}, or nobody is in it")));
    }
    let takes_part = |agent: &Agent| match who {
        Who::Known => agent.state != AgentState::Revoked,
        Who::Approved => agent.state == AgentState::Approved,
    };
    Ok(members.into_iter().filter(takes_part).map(|agent| (agent.id, agent.name)).collect())
}
