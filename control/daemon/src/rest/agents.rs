//! Agents, their groups, and the tokens by which they enrol.

use super::access::Caller;
use super::extract::{Asking, Body, Id, IfMatch, Tagged};
use super::once::{Keep, Once};
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::agents::{self, AgentFilter};
use crate::db::runs::Affected;
use crate::db::{Actor, Db, DbError, Write};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use sealift_api::rest::{
    Agent, AgentPatch, AgentState, EnrolmentToken, Group, GroupPolicy, Name, NewEnrolmentToken,
    NewEnrolmentTokenSecret, Page, Role,
};
use std::sync::Arc;

/// Which agents.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "super::limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Those in this state.
    state: Option<AgentState>,
    /// Those in this group.
    group: Option<Name>,
}

impl Api {
    /// What only the hub knows.
    fn with_presence(&self, mut agent: Agent) -> Agent {
        agent.connected = self.hub.is_connected(agent.id);
        agent
    }

    fn tagged(&self, agent: Agent) -> Tagged<Agent> {
        Tagged(agent.version, self.with_presence(agent))
    }
}

/// Agents, by name.
#[utoipa::path(get, path = "/api/v1/agents", params(Which),
    responses((status = 200, body = Page<Agent>), Problems))]
pub(super) async fn list(
    State(api): State<Api>,
    Asking(which): Asking<Which>,
) -> Result<Json<Page<Agent>>, Failure> {
    let Which { after, limit, state, group } = which;
    let limit = Paging { after: None, limit }.limit();
    let filter = AgentFilter { state, group };
    let list = move |db: &rusqlite::Connection| agents::list(db, &filter, after.as_deref(), limit);
    let mut page = api.blocking(move |db| db.read(list)).await?;
    page.items = page.items.into_iter().map(|agent| api.with_presence(agent)).collect();
    Ok(Json(page))
}

/// One agent.
#[utoipa::path(get, path = "/api/v1/agents/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, body = Agent), Problems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id) -> Result<Tagged<Agent>, Failure> {
    let agent = api.blocking(move |db| db.read(|db| agents::get(db, id))).await?;
    Ok(api.tagged(agent))
}

/// Rename an agent, or put it into other groups.
#[utoipa::path(patch, path = "/api/v1/agents/{id}", params(("id" = Uuid, Path)), request_body = AgentPatch,
    responses((status = 200, body = Agent), Problems))]
pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    IfMatch(version): IfMatch,
    Body(patch): Body<AgentPatch>,
) -> Result<Tagged<Agent>, Failure> {
    let Caller { principal, actor } = caller;
    let change = move |write: &mut Write<'_>| {
        let before = agents::get(write.tx(), id)?;
        let after = agents::update(write, id, version, &patch)?;
        // By a group too: who may move agents between groups is not to undo by that what an administrator has said.
        let ends = before.takes_ciphertext_alone() && !after.takes_ciphertext_alone();
        if ends && principal.role != Role::Administrator {
            let what = "only an administrator can end that an agent takes ciphertext alone (must_seal)";
            return Err(DbError::Refused(what.to_owned()));
        }
        Ok(after)
    };
    let agent = api.blocking(move |db| db.write(&actor, change)).await?;
    api.hub.wake([id]);
    Ok(api.tagged(agent))
}

/// Let an agent in that waits for it.
#[utoipa::path(post, path = "/api/v1/agents/{id}/approve", params(("id" = Uuid, Path)),
    responses((status = 200, body = Agent), Problems))]
pub(super) async fn approve(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, move |write| Ok((agents::approve(write, id)?, Affected::new()))).await
}

/// Shut an agent out for good. Its channel and its sessions end within seconds.
#[utoipa::path(post, path = "/api/v1/agents/{id}/revoke", params(("id" = Uuid, Path)),
    responses((status = 200, body = Agent), Problems))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, move |write| agents::revoke(write, id)).await
}

/// Let a quarantined agent in again.
#[utoipa::path(post, path = "/api/v1/agents/{id}/release", params(("id" = Uuid, Path)),
    responses((status = 200, body = Agent), Problems))]
pub(super) async fn release(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, move |write| Ok((agents::release(write, id)?, Affected::new()))).await
}

async fn change(
    api: &Api,
    caller: Caller,
    once: Once,
    change: impl FnOnce(&mut Write<'_>) -> Result<(Agent, Affected), DbError> + Send + 'static,
) -> Result<Response, Failure> {
    let hub = Arc::clone(&api.hub);
    let work = move |db: &Db, by: &Actor, keep: &Keep| {
        db.write(by, |write| {
            let (mut agent, affected) = change(write)?;
            agent.connected = hub.is_connected(agent.id);
            keep.answer(write, &agent)?;
            Ok((agent, affected))
        })
    };
    let then = |(agent, affected): (Agent, Affected)| {
        api.hub.wake(affected.into_iter().chain([agent.id]));
        agent
    };
    api.once(caller, once, &(), StatusCode::OK, work, then).await
}

/// Tokens for enrolment, without their secrets.
#[utoipa::path(get, path = "/api/v1/enrolment-tokens", params(Paging),
    responses((status = 200, body = Page<EnrolmentToken>), Problems))]
pub(super) async fn list_tokens(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<EnrolmentToken>>, Failure> {
    let list = move |db: &rusqlite::Connection| agents::tokens(db, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Make a token for enrolment. Its secret is in this answer alone.
#[utoipa::path(post, path = "/api/v1/enrolment-tokens", request_body = NewEnrolmentToken,
    responses((status = 201, body = NewEnrolmentTokenSecret), Problems))]
pub(super) async fn create_token(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Body(new): Body<NewEnrolmentToken>,
) -> Result<Response, Failure> {
    let body = new.clone();
    api.once_write(caller, once, &body, StatusCode::CREATED, move |write| agents::create_token(write, &new))
        .await
}

/// Revoke a token for enrolment. Agents that it let in stay.
#[utoipa::path(delete, path = "/api/v1/enrolment-tokens/{id}", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Revoked."), Problems))]
pub(super) async fn revoke_token(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<StatusCode, Failure> {
    api.blocking(move |db| db.write(&caller.actor, |write| agents::revoke_token(write, id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say whether the members of a group take ciphertext alone.
#[utoipa::path(put, path = "/api/v1/groups/{name}/policy", params(("name" = Name, Path)), request_body = GroupPolicy,
    responses((status = 200, body = Group), Problems))]
pub(super) async fn set_group_policy(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Body(policy): Body<GroupPolicy>,
) -> Result<Json<Group>, Failure> {
    let change = move |write: &mut Write<'_>| {
        // What can be no name is the name of no group.
        let name = name.parse::<Name>().map_err(|_| DbError::NotFound("group"))?;
        agents::set_group_policy(write, &name, policy)
    };
    let (group, members) = api.blocking(move |db| db.write(&caller.actor, change)).await?;
    api.hub.wake(members);
    Ok(Json(group))
}

/// Groups that have members.
#[utoipa::path(get, path = "/api/v1/groups", params(Paging), responses((status = 200, body = Page<Group>), Problems))]
pub(super) async fn groups(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<Group>>, Failure> {
    let list = move |db: &rusqlite::Connection| agents::groups(db, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}
