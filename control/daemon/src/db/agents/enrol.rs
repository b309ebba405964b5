//! Enrolment: tokens, and what agents get for them.
//!
//! A token is `slenrol1` and 32 random bytes in base32; only its SHA-256 is kept. Each spending is for one key: whoever
//! asks again with the same token and the same key gets the same answer, so that an answer that was lost costs nothing
//! and a request that was overheard brings nothing. Every refusal is in the audit log, although the request fails: a first of its kind by
//! itself, those like it as a number.

use super::{
    Agent, before_id, by_key, by_name, facts_of, get, may_be_called, one_more, parsed, shortened, subject,
    tell,
};
use crate::db::{Actor, Db, DbError, Refusal as Refused, Write, new_id, settings};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealift_api::agent::HostFacts;
use sealift_api::rest::limits::{ENROLMENT_TOKEN_SECONDS_MAX, TOKEN_USES_MAX};
use sealift_api::rest::{
    AgentState, EnrolmentToken, Name, NewEnrolmentToken, NewEnrolmentTokenSecret, Page, Severity,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

const PREFIX: &str = "slenrol1";
const SECRET_BYTES: usize = 32;
const SELECT: &str = "SELECT id, name, approve, group_name, uses_left, created_ms, expires_ms, revoked_ms \
    FROM enrolment_tokens";

/// What an agent asks with.
#[derive(Clone, Copy, Debug)]
pub struct EnrolRequest<'a> {
    /// The secret of a token.
    pub token: &'a str,
    /// By which it wants to be known.
    pub name: &'a str,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that it has shown to hold.
    pub key: [u8; 32],
    /// What it tells of its host.
    pub facts: &'a HostFacts,
    /// Where it comes from.
    pub address: &'a str,
}

/// Why nobody is enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    BadName,
    NoToken,
    Expired,
    Revoked,
    Spent,
    NameTaken,
    KeyTaken,
    AgentRevoked,
    AgentQuarantined,
}

impl Refusal {
    /// For the audit log, and for the agent, whose operator has to know what to do.
    fn why(self) -> &'static str {
        match self {
            Self::BadName => "the name cannot be that of an agent",
            Self::NoToken => "there is no such enrolment token",
            Self::Expired => "the enrolment token has expired",
            Self::Revoked => "the enrolment token was revoked",
            Self::Spent => "the enrolment token is spent",
            Self::NameTaken => "another agent has the name",
            Self::KeyTaken => "the key was enrolled with another token",
            Self::AgentRevoked => "the agent with this key was revoked",
            Self::AgentQuarantined => "the agent with this key is quarantined",
        }
    }
}

/// Enrols an agent, or tells again how it stands: it is pending or approved. Its name need not be the one that it asked
/// for any more.
///
/// # Errors
/// [`DbError::Refused`], which is in the audit log by then.
pub fn enrol(db: &Db, by: &Actor, request: &EnrolRequest<'_>) -> Result<Agent, DbError> {
    // A refusal is an answer here, so that its record is kept; it is an error to the caller alone.
    let answer = db.write(by, |w| match judge(w, request)? {
        Ok(enrolled) => Ok(Ok(enrolled)),
        Err(refusal) => {
            let after = json!({ "reason": refusal.why(), "key": HEXLOWER.encode(&request.key) });
            // Whatever was sent, cut to the length of a name and without what is not printed.
            let name: String = request.name.chars().take(63).flat_map(char::escape_default).collect();
            let subject = format!("agent:{name}");
            let why = refusal.why();
            w.refuse(by, &Refused { action: "agent.enrol.refused", subject: &subject, why, after })?;
            Ok(Err(refusal))
        }
    })?;
    answer.map_err(|refusal| DbError::Refused(refusal.why().to_owned()))
}

fn judge(w: &mut Write<'_>, request: &EnrolRequest<'_>) -> Result<Result<Agent, Refusal>, DbError> {
    let Some(token) = token_of_secret(w.tx(), request.token)? else { return Ok(Err(Refusal::NoToken)) };
    match by_key(w.tx(), &request.key) {
        Ok(agent) => return again(w, &token, agent),
        Err(DbError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    if token.revoked_ms.is_some() {
        return Ok(Err(Refusal::Revoked));
    }
    if token.expires_ms <= w.now_ms() {
        return Ok(Err(Refusal::Expired));
    }
    if token.uses_left == 0 {
        return Ok(Err(Refusal::Spent));
    }
    let Ok(name) = request.name.parse::<Name>() else { return Ok(Err(Refusal::BadName)) };
    if may_be_called(&name).is_err() {
        return Ok(Err(Refusal::BadName));
    }
    match by_name(w.tx(), &name) {
        Ok(_) => return Ok(Err(Refusal::NameTaken)),
        Err(DbError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    admit(w, &token, &name, request).map(Ok)
}

/// The key is known. For the token that it was enrolled with, the answer is what it was then, or what came of it.
fn again(w: &Write<'_>, token: &EnrolmentToken, agent: Agent) -> Result<Result<Agent, Refusal>, DbError> {
    let spent: Option<[u8; 16]> =
        w.tx().query_row("SELECT token_id FROM agents WHERE id = ?1", [agent.id.into_bytes()], |row| {
            row.get(0)
        })?;
    Ok(match agent.state {
        AgentState::Revoked => Err(Refusal::AgentRevoked),
        AgentState::Quarantined => Err(Refusal::AgentQuarantined),
        _ if spent != Some(token.id.into_bytes()) => Err(Refusal::KeyTaken),
        AgentState::Pending | AgentState::Approved => Ok(agent),
    })
}

fn admit(
    w: &mut Write<'_>,
    token: &EnrolmentToken,
    name: &Name,
    request: &EnrolRequest<'_>,
) -> Result<Agent, DbError> {
    let id = new_id();
    let is_approved = token.approve && !settings::get(w.tx())?.approve_every_agent;
    let state = if is_approved { AgentState::Approved } else { AgentState::Pending };
    let facts = serde_json::to_string(&facts_of(request.facts))
        .map_err(|error| DbError::Invalid(error.to_string()))?;
    w.tx().execute(
        "UPDATE enrolment_tokens SET uses_left = uses_left - 1 WHERE id = ?1",
        [token.id.into_bytes()],
    )?;
    w.tx().execute(
        "INSERT INTO agents (id, name, key, state, token_id, facts, address, created_ms, seen_ms) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        params![
            id.into_bytes(),
            name.as_str(),
            request.key,
            state.as_str(),
            token.id.into_bytes(),
            facts,
            shortened(request.address),
            w.now_ms()
        ],
    )?;
    if let Some(group) = &token.group {
        let sql = "INSERT INTO group_members (group_name, agent_id) VALUES (?1, ?2)";
        w.tx().execute(sql, params![group.as_str(), id.into_bytes()])?;
    }
    let after = json!({
        "id": id, "state": state, "key": HEXLOWER.encode(&request.key), "group": token.group,
        "token": { "id": token.id, "name": token.name },
    });
    w.audit("agent.enrol", &subject(name), None, Some(after))?;
    let waits = if is_approved { "" } else { " and waits to be approved" };
    tell(w, Severity::Info, id, format!("agent {name} has enrolled{waits}"))?;
    get(w.tx(), id)
}

/// Makes a token. Its secret is in the answer alone.
///
/// # Errors
/// [`DbError::Invalid`] if it is for too many or too long, or for none.
pub fn create_token(w: &mut Write<'_>, new: &NewEnrolmentToken) -> Result<NewEnrolmentTokenSecret, DbError> {
    if !(1..=TOKEN_USES_MAX).contains(&new.uses) {
        return Err(DbError::Invalid(format!("an enrolment token is good for 1 to {TOKEN_USES_MAX} agents")));
    }
    if !(1..=ENROLMENT_TOKEN_SECONDS_MAX).contains(&new.expires_in_seconds) {
        return Err(DbError::Invalid(format!(
            "an enrolment token is good for 1 to {ENROLMENT_TOKEN_SECONDS_MAX} seconds"
        )));
    }
    let mut random = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(random.as_mut()).map_err(|_| DbError::Crypto)?;
    let mut secret = PREFIX.to_owned();
    secret.push_str(&Zeroizing::new(BASE32_NOPAD.encode(random.as_ref())).to_ascii_lowercase());
    let id = new_id();
    w.tx().execute(
        "INSERT INTO enrolment_tokens (id, name, hash, approve, group_name, uses_left, created_ms, expires_ms) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            id.into_bytes(),
            new.name.as_str(),
            hash(&secret),
            new.approve,
            new.group.as_ref().map(Name::as_str),
            new.uses,
            w.now_ms(),
            w.now_ms().saturating_add(i64::from(new.expires_in_seconds) * 1000)
        ],
    )?;
    let token = token(w.tx(), id)?;
    w.audit("enrolment_token.create", &token_subject(id), None, Some(json!(token)))?;
    Ok(NewEnrolmentTokenSecret { token, secret })
}

/// Revokes a token. Agents that have spent it stay as they are.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is revoked already.
pub fn revoke_token(w: &mut Write<'_>, id: Uuid) -> Result<EnrolmentToken, DbError> {
    let before = token(w.tx(), id)?;
    if before.revoked_ms.is_some() {
        return Err(DbError::Conflict("the enrolment token is revoked already".to_owned()));
    }
    let sql = "UPDATE enrolment_tokens SET revoked_ms = ?2 WHERE id = ?1";
    w.tx().execute(sql, params![id.into_bytes(), w.now_ms()])?;
    let after = token(w.tx(), id)?;
    w.audit("enrolment_token.revoke", &token_subject(id), Some(json!(before)), Some(json!(after)))?;
    Ok(after)
}

/// A token, without its secret.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn token(db: &Connection, id: Uuid) -> Result<EnrolmentToken, DbError> {
    let found = db.query_row(&format!("{SELECT} WHERE id = ?1"), [id.into_bytes()], from_row);
    found.optional()?.ok_or(DbError::NotFound("enrolment token"))
}

/// Tokens, the newest first, after the one named by the cursor.
///
/// # Errors
/// [`DbError::Invalid`] if the cursor is none.
pub fn tokens(db: &Connection, after: Option<&str>, limit: usize) -> Result<Page<EnrolmentToken>, DbError> {
    let after = before_id(after)?;
    let mut statement = db.prepare_cached(&format!("{SELECT} WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
    let rows = statement.query_map(params![after.into_bytes(), one_more(limit)], from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |token| token.id.to_string()))
}

fn token_of_secret(db: &Connection, secret: &str) -> Result<Option<EnrolmentToken>, DbError> {
    // By its hash: how long the look-up takes tells nothing of any secret.
    Ok(db.query_row(&format!("{SELECT} WHERE hash = ?1"), [hash(secret)], from_row).optional()?)
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn from_row(row: &Row<'_>) -> Result<EnrolmentToken, rusqlite::Error> {
    Ok(EnrolmentToken {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        approve: row.get(2)?,
        group: parsed(row, 3, |text: Option<String>| text.map(Name::try_from).transpose().ok())?,
        uses_left: row.get(4)?,
        created_ms: row.get(5)?,
        expires_ms: row.get(6)?,
        revoked_ms: row.get(7)?,
    })
}

fn token_subject(id: Uuid) -> String {
    format!("enrolment_token:{id}")
}
