//! What agents have logged.

use super::extract::Asking;
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::DbError;
use crate::db::logs::LogFilter;
use axum::Json;
use axum::extract::State;
use sealift_api::rest::limits::LOG_QUERY_BYTES_MAX;
use sealift_api::rest::{LogRecord, Page, Severity};
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
