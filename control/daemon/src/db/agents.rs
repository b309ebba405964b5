//! Agents: who they are, how they stand with the daemon, which groups they are in.
//!
//! Owns the tables `agents`, `group_members` and `enrolment_tokens`. An agent is known by its key: names can be given
//! anew, a key cannot. What an agent tells of its host is kept to be shown, and decides nothing.

mod enrol;
mod hello;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use enrol::{EnrolRequest, create_token, enrol, revoke_token, token, tokens};
#[cfg(test)]
pub(in crate::db) use hello::SEEN;
pub use hello::{Hello, Said, acknowledge, forget_incarnations, hello, seen};

use super::events::{self, NewEvent};
use super::runs::{self, Affected};
use super::{DbError, Write, jobs};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealift_api::rest::limits::{ADDRESSES_MAX, GROUPS_OF_AGENT_MAX, ROOTS_MAX, TEXT_BYTES_MAX};
use sealift_api::rest::{
    Agent, AgentPatch, AgentState, Group, GroupMember, GroupPolicy, HostFacts, Name, Page, Severity,
};
use serde_json::json;
use std::collections::BTreeSet;
use uuid::Uuid;

const SELECT: &str = "SELECT id, name, state, facts, address, document, acked_document, key, certificate_expires_ms, \
    version, created_ms, seen_ms, (SELECT json_group_array(group_name) FROM (SELECT group_name FROM group_members \
    WHERE agent_id = agents.id ORDER BY group_name)), must_seal, (SELECT json_group_array(group_name) FROM (SELECT group_name \
    FROM group_members JOIN groups_that_seal USING (group_name) WHERE agent_id = agents.id ORDER BY group_name)) FROM agents";

fn from_row(row: &Row<'_>) -> Result<Agent, rusqlite::Error> {
    Ok(Agent {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        state: parsed(row, 2, |text: String| AgentState::from_word(&text))?,
        facts: parsed(row, 3, |text: String| serde_json::from_str(&text).ok())?,
        address: row.get(4)?,
        document: row.get(5)?,
        acked_document: row.get(6)?,
        key: HEXLOWER.encode(&row.get::<_, [u8; 32]>(7)?),
        certificate_expires_ms: row.get(8)?,
        version: row.get(9)?,
        created_ms: row.get(10)?,
        seen_ms: row.get(11)?,
        groups: parsed(row, 12, |text: String| serde_json::from_str(&text).ok())?,
        must_seal: row.get(13)?,
        must_seal_by: parsed(row, 14, |text: String| serde_json::from_str(&text).ok())?,
        connected: false,
    })
}

/// A column through what makes a value of it. `None` from that is damage: only this program writes the database.
pub(crate) fn parsed<C: rusqlite::types::FromSql, T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(C) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    let damaged =
        || rusqlite::Error::InvalidColumnType(column, "is damaged".to_owned(), rusqlite::types::Type::Null);
    parse(row.get(column)?).ok_or_else(damaged)
}

/// An agent. Whether it is connected is not known here.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get(db: &Connection, id: Uuid) -> Result<Agent, DbError> {
    let found = db.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?.query_row([id.into_bytes()], from_row);
    found.optional()?.ok_or(DbError::NotFound("agent"))
}

/// The agent that has the key: SHA-256 of its SubjectPublicKeyInfo.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn by_key(db: &Connection, key: &[u8; 32]) -> Result<Agent, DbError> {
    let found = db.prepare_cached(&format!("{SELECT} WHERE key = ?1"))?.query_row([key], from_row);
    found.optional()?.ok_or(DbError::NotFound("agent"))
}

/// The agent of the name.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn by_name(db: &Connection, name: &Name) -> Result<Agent, DbError> {
    let found = db.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?.query_row([name.as_str()], from_row);
    found.optional()?.ok_or(DbError::NotFound("agent"))
}

/// Which agents to list; `None`: whichever.
#[derive(Clone, Debug, Default)]
pub struct AgentFilter {
    /// Those that stand so.
    pub state: Option<AgentState>,
    /// Those in the group.
    pub group: Option<Name>,
}

/// Agents in the order of their names, after the one named by the cursor.
///
/// # Errors
/// Of the database.
pub fn list(
    db: &Connection,
    filter: &AgentFilter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<Agent>, DbError> {
    let sql = format!(
        "{SELECT} WHERE name > ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR id IN \
            (SELECT agent_id FROM group_members WHERE group_name = ?3)) ORDER BY name LIMIT ?4"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let state = filter.state.map(AgentState::as_str);
    let group = filter.group.as_ref().map(Name::as_str);
    let rows = statement.query_map(params![after.unwrap_or(""), state, group, one_more(limit)], from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |agent| agent.name.to_string()))
}

/// One more than the page may have: see [`Page::of`].
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// A cursor in a list of ids that goes down.
pub(super) fn before_id(cursor: Option<&str>) -> Result<Uuid, DbError> {
    let bad = |_| DbError::Invalid("'after' is not what an earlier page gave as 'next'".to_owned());
    cursor.map_or(Ok(Uuid::max()), |text| text.parse().map_err(bad))
}

/// Approves an agent that waits for it.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it does not wait.
pub fn approve(w: &mut Write<'_>, id: Uuid) -> Result<Agent, DbError> {
    change_state(w, id, &[AgentState::Pending], AgentState::Approved, "agent.approve", None)
}

/// Revokes an agent, for good. What it had to do in runs that go on has failed, and the others go on.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is revoked already.
pub fn revoke(w: &mut Write<'_>, id: Uuid) -> Result<(Agent, Affected), DbError> {
    let from = [AgentState::Pending, AgentState::Approved, AgentState::Quarantined];
    let agent = change_state(w, id, &from, AgentState::Revoked, "agent.revoke", None)?;
    let mut affected = runs::agent_was_revoked(w, id)?;
    affected.append(&mut jobs::agent_was_revoked(w, id)?);
    affected.insert(id);
    tell(w, Severity::Security, id, format!("agent {} was revoked", agent.name))?;
    Ok((agent, affected))
}

/// Gives an agent nothing more until somebody releases it. Says why, to those who watch.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is not approved.
pub fn quarantine(w: &mut Write<'_>, id: Uuid, why: &str) -> Result<Agent, DbError> {
    let approved = [AgentState::Approved];
    let agent = change_state(w, id, &approved, AgentState::Quarantined, "agent.quarantine", Some(why))?;
    tell(w, Severity::Security, id, format!("agent {} is quarantined: {why}", agent.name))?;
    Ok(agent)
}

/// Lets a quarantined agent take part again. Whichever copy says hello first is the one from then on; another is found
/// out as before.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is not quarantined.
pub fn release(w: &mut Write<'_>, id: Uuid) -> Result<Agent, DbError> {
    let quarantined = [AgentState::Quarantined];
    let agent = change_state(w, id, &quarantined, AgentState::Approved, "agent.release", None)?;
    hello::forget_incarnation(w, id)?;
    Ok(agent)
}

fn change_state(
    w: &mut Write<'_>,
    id: Uuid,
    from: &[AgentState],
    to: AgentState,
    action: &str,
    why: Option<&str>,
) -> Result<Agent, DbError> {
    let before = get(w.tx(), id)?;
    if !from.contains(&before.state) {
        return Err(DbError::Conflict(format!("the agent {} is {}", before.name, before.state)));
    }
    let sql = "UPDATE agents SET state = ?2, version = version + 1 WHERE id = ?1";
    w.tx().prepare_cached(sql)?.execute(params![id.into_bytes(), to.as_str()])?;
    let mut after = json!({ "id": id, "state": to });
    if let Some(why) = why {
        after["why"] = json!(why);
    }
    w.audit(action, &subject(&before.name), Some(json!({ "state": before.state })), Some(after))?;
    get(w.tx(), id)
}

/// Changes an agent's name, groups, or both. Jobs that name it name it anew.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Stale`] if it is not of the version; [`DbError::Conflict`] if the name is
/// another's; [`DbError::Invalid`] if it cannot be called so, or the groups are too many.
pub fn update(
    w: &mut Write<'_>,
    id: Uuid,
    version: Option<i64>,
    patch: &AgentPatch,
) -> Result<Agent, DbError> {
    let before = get(w.tx(), id)?;
    if version.is_some_and(|version| version != before.version) {
        return Err(DbError::Stale);
    }
    if let Some(name) = patch.name.as_ref().filter(|name| **name != before.name) {
        rename(w, &before, name)?;
    }
    if let Some(groups) = &patch.groups {
        set_groups(w, &before, groups)?;
    }
    if let Some(must_seal) = patch.must_seal.filter(|must_seal| *must_seal != before.must_seal) {
        let sql = "UPDATE agents SET must_seal = ?2 WHERE id = ?1";
        w.tx().prepare_cached(sql)?.execute(params![id.into_bytes(), must_seal])?;
        runs::nothing_plain_under_way(w.tx())?;
        let of = |must_seal: bool| Some(json!({ "must_seal": must_seal }));
        let name = patch.name.as_ref().unwrap_or(&before.name);
        w.audit("agent.must_seal", &subject(name), of(before.must_seal), of(must_seal))?;
    }
    w.tx()
        .prepare_cached("UPDATE agents SET version = version + 1 WHERE id = ?1")?
        .execute([id.into_bytes()])?;
    get(w.tx(), id)
}

fn rename(w: &mut Write<'_>, agent: &Agent, name: &Name) -> Result<(), DbError> {
    may_be_called(name).map_err(|why| DbError::Invalid(why.to_owned()))?;
    if by_name(w.tx(), name).is_ok() {
        return Err(DbError::Conflict(format!("another agent is called {name}")));
    }
    let sql = "UPDATE agents SET name = ?2 WHERE id = ?1";
    w.tx().prepare_cached(sql)?.execute(params![agent.id.into_bytes(), name.as_str()])?;
    w.audit(
        "agent.rename",
        &subject(&agent.name),
        Some(json!({ "id": agent.id, "name": agent.name })),
        Some(json!({ "id": agent.id, "name": name })),
    )?;
    jobs::agent_was_renamed(w, &agent.name, name)
}

/// `group` begins the other form of endpoints.
fn may_be_called(name: &Name) -> Result<(), &'static str> {
    if name.as_str() == "group" { Err("no agent can be called 'group'") } else { Ok(()) }
}

/// Puts an agent into a group; nothing changes if it is in it.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Invalid`] if it would be in too many.
pub fn join_group(w: &mut Write<'_>, id: Uuid, group: &Name) -> Result<Agent, DbError> {
    let before = get(w.tx(), id)?;
    let mut groups = before.groups.clone();
    groups.push(group.clone());
    set_groups(w, &before, &groups)?;
    get(w.tx(), id)
}

/// Takes an agent out of a group; nothing changes if it is not in it.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn leave_group(w: &mut Write<'_>, id: Uuid, group: &Name) -> Result<Agent, DbError> {
    let before = get(w.tx(), id)?;
    let groups: Vec<_> = before.groups.iter().filter(|other| *other != group).cloned().collect();
    set_groups(w, &before, &groups)?;
    get(w.tx(), id)
}

fn set_groups(w: &mut Write<'_>, agent: &Agent, groups: &[Name]) -> Result<(), DbError> {
    let groups: BTreeSet<_> = groups.iter().collect();
    if groups.len() > GROUPS_OF_AGENT_MAX {
        return Err(DbError::Invalid(format!("an agent can be in {GROUPS_OF_AGENT_MAX} groups")));
    }
    if groups.iter().copied().eq(&agent.groups) {
        return Ok(());
    }
    let id = agent.id.into_bytes();
    w.tx().prepare_cached("DELETE FROM group_members WHERE agent_id = ?1")?.execute([id])?;
    for group in &groups {
        let sql = "INSERT INTO group_members (group_name, agent_id) VALUES (?1, ?2)";
        w.tx().prepare_cached(sql)?.execute(params![group.as_str(), id])?;
    }
    runs::nothing_plain_under_way(w.tx())?;
    let (before, after) = (json!({ "groups": agent.groups }), json!({ "groups": groups }));
    w.audit("agent.groups", &subject(&agent.name), Some(before), Some(after))
}

/// A group and who is in it.
///
/// # Errors
/// [`DbError::NotFound`] if nobody is.
pub fn group(db: &Connection, name: &Name) -> Result<Group, DbError> {
    let sql = "SELECT id, name, state FROM group_members JOIN agents ON agents.id = agent_id \
        WHERE group_name = ?1 ORDER BY name";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([name.as_str()], |row| {
        Ok(GroupMember {
            id: Uuid::from_bytes(row.get(0)?),
            name: parsed(row, 1, |text: String| text.try_into().ok())?,
            state: parsed(row, 2, |text: String| AgentState::from_word(&text))?,
        })
    })?;
    let members: Vec<_> = rows.collect::<Result<_, _>>()?;
    if members.is_empty() {
        return Err(DbError::NotFound("group"));
    }
    Ok(Group { name: name.clone(), must_seal: group_must_seal(db, name)?, members })
}

fn group_must_seal(db: &Connection, name: &Name) -> Result<bool, DbError> {
    Ok(db.prepare_cached("SELECT 1 FROM groups_that_seal WHERE group_name = ?1")?.exists([name.as_str()])?)
}

/// Says whether members of a group take ciphertext alone. They have to be told: see [`Affected`].
///
/// # Errors
/// [`DbError::NotFound`] if nobody is in it; [`DbError::Conflict`] if a run places plaintext at one of them.
pub fn set_group_policy(
    w: &mut Write<'_>,
    name: &Name,
    policy: GroupPolicy,
) -> Result<(Group, Affected), DbError> {
    let before = group(w.tx(), name)?;
    if policy.must_seal != before.must_seal {
        let sql = match policy.must_seal {
            true => "INSERT INTO groups_that_seal (group_name) VALUES (?1)",
            false => "DELETE FROM groups_that_seal WHERE group_name = ?1",
        };
        w.tx().prepare_cached(sql)?.execute([name.as_str()])?;
        runs::nothing_plain_under_way(w.tx())?;
        let of = |must_seal: bool| Some(json!({ "must_seal": must_seal }));
        w.audit("group.must_seal", &format!("group:{name}"), of(before.must_seal), of(policy.must_seal))?;
    }
    let after = group(w.tx(), name)?;
    let members = after.members.iter().map(|member| member.id).collect();
    Ok((after, members))
}

/// Agents where no plaintext may be placed, by themselves or by a group.
///
/// # Errors
/// Of the database.
pub(super) fn that_take_ciphertext_alone(db: &Connection) -> Result<BTreeSet<Uuid>, DbError> {
    let sql = "SELECT id FROM agents WHERE must_seal = 1 \
        UNION SELECT agent_id FROM groups_that_seal JOIN group_members USING (group_name)";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok(Uuid::from_bytes(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Groups in the order of their names, after the one named by the cursor.
///
/// # Errors
/// Of the database.
pub fn groups(db: &Connection, after: Option<&str>, limit: usize) -> Result<Page<Group>, DbError> {
    let sql = "SELECT DISTINCT group_name FROM group_members WHERE group_name > ?1 ORDER BY 1 LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![after.unwrap_or(""), one_more(limit)], |row| {
        parsed(row, 0, |text: String| Name::try_from(text).ok())
    })?;
    let names = Page::of(rows.collect::<Result<Vec<_>, _>>()?, limit, Name::to_string);
    let items = names.items.iter().map(|name| group(db, name)).collect::<Result<_, _>>()?;
    Ok(Page { items, next: names.next })
}

/// Keeps when the certificate that an agent was just given expires.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn certified(w: &mut Write<'_>, id: Uuid, expires_ms: i64) -> Result<(), DbError> {
    let before = get(w.tx(), id)?;
    let sql = "UPDATE agents SET certificate_expires_ms = ?2 WHERE id = ?1";
    w.tx().prepare_cached(sql)?.execute(params![id.into_bytes(), expires_ms])?;
    let of = |expires_ms: i64| Some(json!({ "expires_ms": expires_ms }));
    w.audit("agent.certificate", &subject(&before.name), of(before.certificate_expires_ms), of(expires_ms))
}

/// What an agent tells of its host, cut to what is kept.
fn facts_of(said: &sealift_api::agent::HostFacts) -> HostFacts {
    let paths = |paths: &[Vec<u8>]| {
        paths.iter().take(ROOTS_MAX).map(|path| shortened(&String::from_utf8_lossy(path))).collect()
    };
    HostFacts {
        hostname: shortened(&said.hostname),
        os: shortened(&said.os),
        cores: said.cores,
        memory_bytes: said.memory_bytes,
        version: shortened(&said.version),
        data_addresses: said.data_addresses.iter().take(ADDRESSES_MAX).map(|text| shortened(text)).collect(),
        read_roots: paths(&said.read_roots),
        write_roots: paths(&said.write_roots),
    }
}

/// A text from an agent, no longer than texts may be.
pub(super) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn tell(w: &mut Write<'_>, severity: Severity, agent: Uuid, message: String) -> Result<(), DbError> {
    events::append(w, &NewEvent { agent_id: Some(agent), ..NewEvent::new(severity, message) })?;
    Ok(())
}

/// As the audit log names an agent.
fn subject(name: &Name) -> String {
    format!("agent:{name}")
}
