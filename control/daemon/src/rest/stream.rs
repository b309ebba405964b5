//! Streams of Server-Sent Events: what happens, as it happens.
//!
//! Owns how many there are (of a user, and in all) and how long each lasts: until its reader goes or takes nothing for a
//! while, its session or token ends, or the daemon does. A reader who comes again says what it had last, and gets what
//! followed; nothing is kept for it here, since the database has it.

mod follow;
mod places;
mod pulse;

pub(super) use places::Streams;

use super::Api;
use super::access::Caller;
use super::extract::{Asking, Id};
use super::problem::{Failure, Problems};
use crate::db::events::{self, EventFilter};
use crate::db::runs;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use follow::Follower;
use sealift_api::rest::Severity;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

/// Between signs of life, when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What waits for a reader to take it.
const FRAMES_MAX: usize = 16;
/// Where a browser that comes again says what it had last.
const LAST_EVENT_ID: &str = "last-event-id";

type Frames = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Frame, Infallible>>>>;

/// Which events, and from where on.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The number of the last event that the reader has; 0: from the oldest that is kept. Absent: from now on. A
    /// `Last-Event-ID` counts more.
    after: Option<u64>,
    /// Those that matter so much.
    severity: Option<Severity>,
    /// Those of this agent.
    agent: Option<Uuid>,
    /// Those of this job.
    job: Option<Uuid>,
    /// Those of this run.
    run: Option<Uuid>,
}

/// Events as they happen, in their order: Server-Sent Events of the name `event`, whose `data` is an event and whose `id` is
/// its number. Where events are missing that were dropped since, one of the name `gap` says so.
#[utoipa::path(get, path = "/api/v1/events/stream",
    params(Which, ("Last-Event-ID" = Option<u64>, Header, description = "The last `id` that the reader has got.")),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "Until somebody ends it."),
        Problems))]
pub(super) async fn events(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Asking(which): Asking<Which>,
) -> Result<Frames, Failure> {
    let Which { after, severity, agent, job, run } = which;
    let filter = EventFilter { severity, agent_id: agent, job_id: job, run_id: run };
    let after = match headers.get(LAST_EVENT_ID) {
        None => after,
        Some(id) => Some(id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| {
            Failure::new(StatusCode::BAD_REQUEST, "query", "`Last-Event-ID` is not the id of an event.")
        })?),
    };
    // Found out before the answer begins: what happens from then on is in the stream.
    let cursor = match after {
        Some(after) => after,
        None => api.blocking(|db| db.read(events::newest)).await?,
    };
    begin(&api, caller, move |follower| follower.events(filter, cursor))
}

/// A run as it goes on: Server-Sent Events of the name `run`, whose `data` is the run as `GET /api/v1/runs/{id}` has it; one
/// at once, then one whenever it has changed, at most twice a second. Ends after the one that says that the run is over.
#[utoipa::path(get, path = "/api/v1/runs/{id}/stream", params(("id" = Uuid, Path)),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "Until the run is over."),
        Problems))]
pub(super) async fn run(State(api): State<Api>, caller: Caller, Id(id): Id) -> Result<Frames, Failure> {
    api.blocking(move |db| db.read(|db| runs::get(db, id))).await?;
    begin(&api, caller, move |follower| follower.run(id))
}

fn begin<F>(api: &Api, caller: Caller, follow: impl FnOnce(Follower) -> F) -> Result<Frames, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let place = api.streams.enter(caller.principal.user_id).ok_or_else(|| {
        let detail = "There are too many streams open: close one, or try again later.";
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "streams", detail).retry_after(5)
    })?;
    let (frames, taken) = mpsc::channel(FRAMES_MAX);
    tokio::spawn(follow(Follower::new(api.clone(), caller.principal, frames, place)));
    Ok(Sse::new(ReceiverStream::new(taken)).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}
