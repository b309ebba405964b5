//! Hellos: an agent that exists twice, or was put back to what it once was, is found out.
//!
//! With each document the daemon gives an *incarnation*, 16 random bytes that the agent puts on its disk and shows with
//! its next hello. The daemon keeps the one that was acknowledged and the one that was given since. Of two copies of an
//! agent's disk, the one that says hello second shows what the other has already replaced; and so does an agent whose
//! disk was restored. Both copies have one identity, and the identity is quarantined: nobody can tell which is the
//! right one but an operator.

use super::{facts_of, get, quarantine, shortened};
use crate::db::{DbError, Write};
use rusqlite::params;
use sealift_api::agent::HostFacts;
use sealift_api::rest::AgentState;
use serde_json::json;
use uuid::Uuid;

/// Bytes in an incarnation.
pub const INCARNATION_BYTES: usize = 16;

/// Kept instead of an incarnation: the next hello is believed, whatever it shows. No agent can show this.
const ANY: &[u8] = &[0];

/// What an agent says when it connects.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// What it was given last; empty at first.
    pub incarnation: &'a [u8],
    /// The number of the document that it applied last.
    pub document: u64,
    /// Of its host.
    pub facts: &'a HostFacts,
    /// Where it comes from.
    pub address: &'a str,
}

/// What comes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The agent is who it says.
    Accepted {
        /// To be given with every document of this connection.
        incarnation: [u8; INCARNATION_BYTES],
    },
    /// The agent is quarantined, perhaps by this very hello.
    Quarantined,
}

/// Takes an agent's hello. The quarantine that it may bring has to be committed like its acceptance.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Refused`] if the agent is not approved; [`DbError::Invalid`] if what it shows
/// cannot be an incarnation.
pub fn hello(w: &mut Write<'_>, id: Uuid, said: &Said<'_>) -> Result<Hello, DbError> {
    let agent = get(w.tx(), id)?;
    match agent.state {
        AgentState::Approved => {}
        AgentState::Quarantined => return Ok(Hello::Quarantined),
        state => return Err(DbError::Refused(format!("the agent is {state}"))),
    }
    if !matches!(said.incarnation.len(), 0 | INCARNATION_BYTES) {
        return Err(DbError::Invalid("an incarnation has 16 bytes, or none at first".to_owned()));
    }
    let (acknowledged, given) = incarnations(w, id)?;
    if !is_believed(said.incarnation, &acknowledged, &given) {
        let why = format!(
            "it showed, from {}, an incarnation that it no longer has: two copies of it are running, or an old copy \
             of its state was restored",
            shortened(said.address).escape_default()
        );
        quarantine(w, id, &why)?;
        return Ok(Hello::Quarantined);
    }
    let mut next = [0; INCARNATION_BYTES];
    getrandom::fill(&mut next).map_err(|_| DbError::Crypto)?;
    let facts =
        serde_json::to_string(&facts_of(said.facts)).map_err(|error| DbError::Invalid(error.to_string()))?;
    // Of a daemon that was restored, the agent may know a document that the daemon does not: the next one has to be
    // above it, and must be made even if its content is what the daemon remembers.
    let document = i64::try_from(said.document).unwrap_or(i64::MAX - 1).min(i64::MAX - 1);
    w.tx()
        .prepare_cached(
            "UPDATE agents SET incarnation = ?2, next_incarnation = ?3, facts = ?4, address = ?5, seen_ms = ?6, \
                document_digest = CASE WHEN document < ?7 THEN x'' ELSE document_digest END, \
                document = max(document, ?7) WHERE id = ?1",
        )?
        .execute(params![
            id.into_bytes(),
            said.incarnation,
            next,
            facts,
            shortened(said.address),
            w.now_ms(),
            document
        ])?;
    Ok(Hello::Accepted { incarnation: next })
}

/// The rule. Nothing was given before the first hello, and so an empty one matches nothing that was given.
fn is_believed(shown: &[u8], acknowledged: &[u8], given: &[u8]) -> bool {
    acknowledged == ANY || shown == acknowledged || (!given.is_empty() && shown == given)
}

/// The agent has put a document and its incarnation on its disk.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Stale`] if the incarnation is not the agent's any more; [`DbError::Invalid`] if
/// there is no such document.
pub fn acknowledge(w: &mut Write<'_>, id: Uuid, document: u64, incarnation: &[u8]) -> Result<(), DbError> {
    let agent = get(w.tx(), id)?;
    let (acknowledged, given) = incarnations(w, id)?;
    if incarnation.len() != INCARNATION_BYTES || (incarnation != acknowledged && incarnation != given) {
        return Err(DbError::Stale);
    }
    let known = |document: &i64| *document <= agent.document;
    let Some(document) = i64::try_from(document).ok().filter(known) else {
        return Err(DbError::Invalid("the agent acknowledged a document that it was not sent".to_owned()));
    };
    w.tx()
        .prepare_cached(
            "UPDATE agents SET incarnation = ?2, acked_document = max(acked_document, ?3), seen_ms = ?4 WHERE id = ?1",
        )?
        .execute(params![id.into_bytes(), incarnation, document, w.now_ms()])?;
    Ok(())
}

/// How old it may be when an agent was seen last, before it is written anew: agents speak twice a second.
pub const SEEN_EVERY_MS: i64 = 60_000;

/// Asked for with every report.
pub(in crate::db) const SEEN: &str = "UPDATE agents SET seen_ms = ?2 WHERE id = ?1 AND seen_ms <= ?2 - ?3";

/// Keeps that an agent has been heard of, unless that is known already.
///
/// # Errors
/// Of the database.
pub fn seen(w: &mut Write<'_>, agent: Uuid) -> Result<(), DbError> {
    w.tx().prepare_cached(SEEN)?.execute(params![agent.into_bytes(), w.now_ms(), SEEN_EVERY_MS])?;
    Ok(())
}

/// Believes every agent's next hello, whatever it shows. For a database that was restored from a backup, which knows
/// older incarnations than the agents do; else they would all be taken for copies.
///
/// # Errors
/// Of the database.
pub fn forget_incarnations(w: &mut Write<'_>) -> Result<(), DbError> {
    let sql = "UPDATE agents SET incarnation = ?1, next_incarnation = x'' WHERE state != 'revoked'";
    let agents = w.tx().execute(sql, [ANY])?;
    w.audit("agent.incarnations.forget", "agents", None, Some(json!({ "agents": agents })))
}

/// The same for one agent.
pub(super) fn forget_incarnation(w: &Write<'_>, id: Uuid) -> Result<(), DbError> {
    let sql = "UPDATE agents SET incarnation = ?2, next_incarnation = x'' WHERE id = ?1";
    w.tx().execute(sql, params![id.into_bytes(), ANY])?;
    Ok(())
}

/// The incarnation that was acknowledged, and the one that was given last.
fn incarnations(w: &Write<'_>, id: Uuid) -> Result<(Vec<u8>, Vec<u8>), DbError> {
    let sql = "SELECT incarnation, next_incarnation FROM agents WHERE id = ?1";
    Ok(w.tx().prepare_cached(sql)?.query_row([id.into_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?)
}
