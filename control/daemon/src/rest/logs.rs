//! What agents have logged.

use super::access::Caller;
use super::extract::{Asking, Body, Id};
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::logs::LogFilter;
use crate::db::{Db, DbError};
use crate::logs::{self, replace};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::BASE64;
use sealift_api::rest::limits::LOG_QUERY_BYTES_MAX;
use sealift_api::rest::{LogRecord, Page, Rewrapped, RewrappedPage, SealedLog, SealedSegment, Severity};
use sealift_envelope::Envelope;
use uuid::Uuid;

/// Which records.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichLogs {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "super::limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Those of this agent.
    agent: Option<Uuid>,
    /// Those of this job.
    job: Option<Uuid>,
    /// Those of this run.
    run: Option<Uuid>,
    /// Those that matter so much.
    severity: Option<Severity>,
    /// Of this time by the agent's clock or later, in milliseconds since 1970.
    from_ms: Option<i64>,
    /// Of before this time, in milliseconds since 1970.
    until_ms: Option<i64>,
    /// Those with this text in message, target or fields, in upper or lower case; at most 256 bytes.
    #[param(max_length = 256)]
    q: Option<String>,
}

/// What agents have logged, the newest first by their clocks. A search looks at a limited number of records at a time: a
/// page may have few items or none, and yet a `next`, by which it goes on.
#[utoipa::path(get, path = "/api/v1/logs", params(WhichLogs),
    responses((status = 200, body = Page<LogRecord>), Problems))]
pub(super) async fn list(
    State(api): State<Api>,
    Asking(which): Asking<WhichLogs>,
) -> Result<Json<Page<LogRecord>>, Failure> {
    let WhichLogs { after, limit, agent, job, run, severity, from_ms, until_ms, q } = which;
    if q.as_ref().is_some_and(|text| text.len() > LOG_QUERY_BYTES_MAX) {
        return Err(DbError::Invalid(format!(
            "'q' has at most {LOG_QUERY_BYTES_MAX} bytes: search for less"
        ))
        .into());
    }
    let limit = Paging { after: None, limit }.limit();
    let text = q.filter(|text| !text.is_empty());
    let filter = LogFilter { agent_id: agent, job_id: job, run_id: run, severity, from_ms, until_ms, text };
    let logs = api.logs.clone();
    api.blocking(move |_| logs.list(&filter, after.as_deref(), limit)).await.map(Json)
}

/// Which sealed records.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichSealed {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "super::limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Those of this agent.
    agent: Option<Uuid>,
}

/// What agents have logged that the daemon cannot read, the newest first by when it came.
#[utoipa::path(get, path = "/api/v1/logs/sealed", params(WhichSealed),
    responses((status = 200, body = Page<SealedLog>), Problems))]
pub(super) async fn list_sealed(
    State(api): State<Api>,
    Asking(which): Asking<WhichSealed>,
) -> Result<Json<Page<SealedLog>>, Failure> {
    let WhichSealed { after, limit, agent } = which;
    let limit = Paging { after: None, limit }.limit();
    let logs = api.logs.clone();
    api.blocking(move |_| logs.list_sealed(agent, after.as_deref(), limit)).await.map(Json)
}

/// The data keys of segments that the daemon keeps sealed, wrapped: for who wraps them anew.
#[utoipa::path(get, path = "/api/v1/logs/segments", params(Paging),
    responses((status = 200, body = Page<SealedSegment>), Problems))]
pub(super) async fn segments(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<SealedSegment>>, Failure> {
    let logs = api.logs.clone();
    api.blocking(move |_| logs.segments(paging.after.as_deref(), paging.limit())).await.map(Json)
}

/// Have a segment's data key wrapped to other KEKs, by who could unwrap it. No record moves.
#[utoipa::path(put, path = "/api/v1/logs/segments/{id}/envelope", params(("id" = Uuid, Path)), request_body = Rewrapped,
    responses((status = 204, description = "It is."), Problems))]
pub(super) async fn rewrap(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Body(anew): Body<Rewrapped>,
) -> Result<StatusCode, Failure> {
    let logs = api.logs.clone();
    let work = move |db: &Db| {
        let invalid = |error: &dyn std::fmt::Display| DbError::Invalid(error.to_string());
        let bytes = BASE64.decode(anew.envelope.as_bytes()).map_err(|error| invalid(&error))?;
        let envelope = Envelope::decode(&bytes).map_err(|error| invalid(&error))?;
        replace(db, &logs, &caller.actor, id, &envelope)
    };
    api.blocking(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Have the daemon wrap to an active KEK the data keys of a page of sealed segments that are wrapped to other versions of its
/// name, as far as it has the private halves of these. No record moves.
#[utoipa::path(post, path = "/api/v1/keks/{id}/rewrap", params(("id" = Uuid, Path), Paging),
    responses((status = 200, body = RewrappedPage), Problems))]
pub(super) async fn rewrap_held(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Asking(paging): Asking<Paging>,
) -> Result<Json<RewrappedPage>, Failure> {
    let store = api.logs.clone();
    let work =
        move |db: &Db| logs::rewrap(db, &store, &caller.actor, id, paging.after.as_deref(), paging.limit());
    api.blocking(work).await.map(Json)
}
