//! What has happened: events, and the audit.

use super::extract::Asking;
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::audit::{self, Filter};
use crate::db::events::{self, EventFilter};
use axum::Json;
use axum::extract::State;
use sealift_api::rest::{AuditRecord, Event, Page, Severity};
use uuid::Uuid;

/// Which events.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichEvents {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "super::limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Those that matter so much.
    severity: Option<Severity>,
    /// Those of this agent.
    agent: Option<Uuid>,
    /// Those of this job.
    job: Option<Uuid>,
    /// Those of this run.
    run: Option<Uuid>,
}

/// Events, the newest first.
#[utoipa::path(get, path = "/api/v1/events", params(WhichEvents),
    responses((status = 200, body = Page<Event>), Problems))]
pub(super) async fn events(
    State(api): State<Api>,
    Asking(which): Asking<WhichEvents>,
) -> Result<Json<Page<Event>>, Failure> {
    let WhichEvents { after, limit, severity, agent, job, run } = which;
    let limit = Paging { after: None, limit }.limit();
    let filter = EventFilter { severity, agent_id: agent, job_id: job, run_id: run };
    let list = move |db: &rusqlite::Connection| events::list(db, &filter, after.as_deref(), limit);
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Which records.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichRecords {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "super::limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Those whose action begins so.
    action: Option<String>,
    /// Those of this actor.
    actor: Option<String>,
    /// Those about this.
    subject: Option<String>,
    /// At this time or later, in milliseconds since 1970.
    from_ms: Option<i64>,
    /// Earlier than this time, in milliseconds since 1970.
    until_ms: Option<i64>,
}

/// The audit, the newest record first.
#[utoipa::path(get, path = "/api/v1/audit", params(WhichRecords),
    responses((status = 200, body = Page<AuditRecord>), Problems))]
pub(super) async fn audit(
    State(api): State<Api>,
    Asking(which): Asking<WhichRecords>,
) -> Result<Json<Page<AuditRecord>>, Failure> {
    let WhichRecords { after, limit, action, actor, subject, from_ms, until_ms } = which;
    let limit = Paging { after: None, limit }.limit();
    let filter = Filter { action_prefix: action, actor, subject, from_ms, until_ms };
    let page = move |db: &rusqlite::Connection| audit::page(db, &filter, after.as_deref(), limit);
    api.blocking(move |db| db.read(page)).await.map(Json)
}
