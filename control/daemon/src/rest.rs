//! The REST API on 8443.
//!
//! Each route stands once in a table with the role that it takes ([`access::RULES`]): a request for a route without a rule
//! is refused, so that none can be forgotten. Who asks is found out before anything else is looked at. Every answer has the
//! request's id, every problem the form of RFC 9457.

mod access;
mod agents;
mod describe;
mod extract;
mod jobs;
mod keks;
mod logs;
mod metrics;
mod once;
mod opened_logs;
mod problem;
mod records;
mod settings;
mod stream;
mod users;

pub use access::{Access, RULES};

use crate::channel::Hub;
use crate::db::logs::LogStore;
use crate::db::{Db, DbError};
use crate::logs::DataKeys;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware;
use problem::{Failure, Problems};
use sealift_api::rest::limits::{ENDPOINT_BYTES_MAX, ENDPOINTS_MAX};
use sealift_api::rest::{Problem, Role};
use std::sync::{Arc, LazyLock};
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The body of a request: the longest job has its place in it.
const BODY_BYTES_MAX: usize = 4 << 20;
/// The body of a request by somebody who has not logged in.
const OPEN_BODY_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(BODY_BYTES_MAX > 3 * ENDPOINTS_MAX * ENDPOINT_BYTES_MAX);

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Api {
    db: Db,
    hub: Arc<Hub>,
    logs: LogStore,
    data_keys: DataKeys,
    streams: Arc<stream::Streams>,
    under_way: once::UnderWay,
    metrics: Arc<metrics::Metrics>,
    logins: Arc<users::LoginLimits>,
    opens: Arc<opened_logs::OpenLimits>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealift control",
        description = "Who may replicate what. Agents move the data; this daemon never carries any of it.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(Problem))
)]
struct Description;

fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health))
        .routes(routes!(openapi))
        .routes(routes!(users::log_in))
        .routes(routes!(users::log_out))
        .routes(routes!(users::who_am_i))
        .routes(routes!(users::change_password))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::update, users::delete))
        .routes(routes!(users::list_tokens, users::create_token))
        .routes(routes!(users::revoke_token))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get, agents::update))
        .routes(routes!(agents::approve))
        .routes(routes!(agents::revoke))
        .routes(routes!(agents::release))
        .routes(routes!(agents::list_tokens, agents::create_token))
        .routes(routes!(agents::revoke_token))
        .routes(routes!(agents::groups))
        .routes(routes!(agents::set_group_policy))
        .routes(routes!(keks::list, keks::import))
        .routes(routes!(keks::get))
        .routes(routes!(keks::rotate))
        .routes(routes!(keks::disable))
        .routes(routes!(keks::enable))
        .routes(routes!(keks::destroy))
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::get, jobs::update, jobs::delete))
        .routes(routes!(jobs::rotate_keys))
        .routes(routes!(jobs::start))
        .routes(routes!(jobs::list_runs))
        .routes(routes!(jobs::get_run))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::stop))
        .routes(routes!(records::events))
        .routes(routes!(stream::events))
        .routes(routes!(stream::run))
        .routes(routes!(records::audit))
        .routes(routes!(metrics::get))
        .routes(routes!(settings::get, settings::update))
        .routes(routes!(logs::list))
        .routes(routes!(logs::list_sealed))
        .routes(routes!(opened_logs::open))
        .routes(routes!(logs::segments))
        .routes(routes!(logs::rewrap_held))
        .routes(routes!(logs::rewrap))
}

/// The API's description, OpenAPI 3.1, as JSON.
///
/// # Panics
/// Never: it is made of constants.
#[must_use]
pub fn description() -> String {
    let (_, api) = documented().split_for_parts();
    let mut api = serde_json::to_value(api).expect("it is made of constants");
    describe::complete(&mut api);
    format!("{api:#}")
}

/// The routes of the port. Streams end when `ending` says so.
pub fn router(
    db: Db,
    hub: Arc<Hub>,
    logs: LogStore,
    data_keys: DataKeys,
    ending: watch::Receiver<bool>,
) -> Router {
    let api = Api {
        db,
        hub,
        logs,
        data_keys,
        streams: stream::Streams::new(ending),
        under_way: once::UnderWay::default(),
        metrics: Arc::default(),
        logins: Arc::default(),
        opens: Arc::default(),
    };
    let (router, _) = documented().split_for_parts();
    router
        .route_layer(middleware::from_fn_with_state(api.clone(), access::judge))
        .fallback(|| async {
            Failure::new(StatusCode::NOT_FOUND, "not-found", "There is nothing at this address.")
        })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method", "This address is not for this method.")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(access::identify))
        .layer(middleware::from_fn_with_state(api.clone(), metrics::observe))
        .with_state(api)
}

/// Whether the daemon serves. For load balancers.
#[utoipa::path(get, path = "/api/v1/health", responses((status = 204, description = "It serves."), Problems))]
async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json",
    responses((status = 200, body = serde_json::Value, description = "OpenAPI 3.1"), Problems))]
async fn openapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    static TEXT: LazyLock<String> = LazyLock::new(description);
    ([(header::CONTENT_TYPE, "application/json")], &TEXT)
}

impl Api {
    /// Runs what blocks where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, Failure> {
        let db = self.db.clone();
        match tokio::task::spawn_blocking(move || work(&db)).await {
            Ok(done) => done.map_err(Failure::from),
            Err(error) => Err(Failure::internal(&error)),
        }
    }
}

/// Which part of a list.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// `next` of the page before.
    after: Option<String>,
    /// How many at most.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// How many items are asked for; what is no such number is refused, and not made one.
fn limit<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    use serde::Deserialize as _;
    use serde::de::Error as _;
    let limit = usize::deserialize(from)?;
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(Some(limit));
    }
    Err(D::Error::custom(format_args!("'limit' is from 1 to {PAGE_MAX}")))
}

/// Items on a page, if nothing else is asked for.
const PAGE_DEFAULT: usize = 50;
/// Items on a page.
const PAGE_MAX: usize = 200;

impl Paging {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT)
    }
}

/// Least first.
fn rank(role: Role) -> u8 {
    match role {
        Role::Viewer => 0,
        Role::Operator => 1,
        Role::Administrator => 2,
    }
}
