//! Jobs and their runs.

use super::access::Caller;
use super::extract::{Asking, Body, Id, IfMatch, Tagged};
use super::once::{Keep, Once};
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::runs::Affected;
use crate::db::{Actor, Db, DbError, Write, jobs, runs};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealift_api::rest::{Job, JobPatch, NewJob, Page, Run, RunDetail};
use uuid::Uuid;

/// Jobs, by name.
#[utoipa::path(get, path = "/api/v1/jobs", params(Paging), responses((status = 200, body = Page<Job>), Problems))]
pub(super) async fn list(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<Job>>, Failure> {
    let list = move |db: &rusqlite::Connection| jobs::list(db, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Define a job. Its keys are made with it.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = NewJob, responses((status = 201, body = Job), Problems))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Body(new): Body<NewJob>,
) -> Result<Response, Failure> {
    let body = new.clone();
    api.once_write(caller, once, &body, StatusCode::CREATED, move |write| jobs::create(write, &new)).await
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), Problems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id) -> Result<Tagged<Job>, Failure> {
    let job = api.blocking(move |db| db.read(|db| jobs::get(db, id))).await?;
    Ok(Tagged(job.version, job))
}

/// Change a job. A run that goes on is not changed by it.
#[utoipa::path(patch, path = "/api/v1/jobs/{id}", params(("id" = Uuid, Path)), request_body = JobPatch,
    responses((status = 200, body = Job), Problems))]
pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    IfMatch(version): IfMatch,
    Body(patch): Body<JobPatch>,
) -> Result<Tagged<Job>, Failure> {
    let change = move |db: &Db| db.write(&caller.actor, |write| jobs::update(write, id, version, &patch));
    let job = api.blocking(change).await?;
    // Its limit holds for runs that go on.
    api.hub.wake_all();
    Ok(Tagged(job.version, job))
}

/// Remove a job. What it has replicated stays where it is.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Gone."), Problems))]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Failure> {
    api.blocking(move |db| db.write(&caller.actor, |write| jobs::delete(write, id, version))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a job new keys, from its next run on.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/rotate-keys", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), Problems))]
pub(super) async fn rotate_keys(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    api.once_write(caller, once, &(), StatusCode::OK, move |write| jobs::rotate(write, id)).await
}

/// Start a run of a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/runs", params(("id" = Uuid, Path)),
    responses((status = 201, body = Run), Problems))]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change_run(&api, caller, once, StatusCode::CREATED, move |write| runs::start(write, id)).await
}

/// Which runs.
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
    /// Those of this job.
    job: Option<Uuid>,
}

/// Runs, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", params(Which), responses((status = 200, body = Page<Run>), Problems))]
pub(super) async fn list_runs(
    State(api): State<Api>,
    Asking(which): Asking<Which>,
) -> Result<Json<Page<Run>>, Failure> {
    let Which { after, limit, job } = which;
    let limit = Paging { after: None, limit }.limit();
    let list = move |db: &rusqlite::Connection| runs::list(db, job, after.as_deref(), limit);
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// A run, with what each agent has to say of it.
#[utoipa::path(get, path = "/api/v1/runs/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, body = RunDetail), Problems))]
pub(super) async fn get_run(State(api): State<Api>, Id(id): Id) -> Result<Tagged<RunDetail>, Failure> {
    let run = api.blocking(move |db| db.read(|db| runs::detail(db, id))).await?;
    Ok(Tagged(run.run.version, run))
}

/// Pause a run: its agents keep what they have.
#[utoipa::path(post, path = "/api/v1/runs/{id}/pause", params(("id" = Uuid, Path)),
    responses((status = 200, body = Run), Problems))]
pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change_run(&api, caller, once, StatusCode::OK, move |write| runs::pause(write, id)).await
}

/// Let a paused run go on.
#[utoipa::path(post, path = "/api/v1/runs/{id}/resume", params(("id" = Uuid, Path)),
    responses((status = 200, body = Run), Problems))]
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change_run(&api, caller, once, StatusCode::OK, move |write| runs::resume(write, id)).await
}

/// End a run for good.
#[utoipa::path(post, path = "/api/v1/runs/{id}/stop", params(("id" = Uuid, Path)),
    responses((status = 200, body = Run), Problems))]
pub(super) async fn stop(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change_run(&api, caller, once, StatusCode::OK, move |write| runs::stop(write, id)).await
}

async fn change_run(
    api: &Api,
    caller: Caller,
    once: Once,
    status: StatusCode,
    change: impl FnOnce(&mut Write<'_>) -> Result<(Run, Affected), DbError> + Send + 'static,
) -> Result<Response, Failure> {
    let work = move |db: &Db, by: &Actor, keep: &Keep| {
        db.write(by, |write| {
            let (run, affected) = change(write)?;
            keep.answer(write, &run)?;
            Ok((run, affected))
        })
    };
    let then = |(run, affected): (Run, Affected)| {
        api.hub.wake(affected);
        run
    };
    api.once(caller, once, &(), status, work, then).await
}
