//! Who asks, and whether they may.

use super::problem::{Failure, Pending};
use super::{Api, OPEN_BODY_BYTES_MAX, rank};
use crate::db::users::{self, Credential, Principal};
use crate::db::{Actor, Refusal, new_id};
use crate::serve::Peer;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sealift_api::rest::Role;
use uuid::Uuid;

/// The cookie of a session. The prefix keeps it to this host, to TLS, and from scripts of other origins.
pub(super) const COOKIE: &str = "__Host-sealift";
/// Where a change that a browser asks for brings the session's other half.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";
const REQUEST_ID: &str = "x-request-id";

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever has logged in with at least this role.
    From(Role),
}

use Access::{From as At, Open};
use Role::{Administrator, Operator, Viewer};

/// Every route: method, path, and who may use it.
pub const RULES: &[(&str, &str, Access)] = &[
    ("GET", "/api/v1/health", Open),
    ("GET", "/api/v1/openapi.json", Open),
    ("POST", "/api/v1/login", Open),
    ("POST", "/api/v1/logout", At(Viewer)),
    ("GET", "/api/v1/me", At(Viewer)),
    ("POST", "/api/v1/me/password", At(Viewer)),
    ("GET", "/api/v1/users", At(Administrator)),
    ("POST", "/api/v1/users", At(Administrator)),
    ("GET", "/api/v1/users/{id}", At(Administrator)),
    ("PATCH", "/api/v1/users/{id}", At(Administrator)),
    ("DELETE", "/api/v1/users/{id}", At(Administrator)),
    ("GET", "/api/v1/tokens", At(Viewer)),
    ("POST", "/api/v1/tokens", At(Viewer)),
    ("DELETE", "/api/v1/tokens/{id}", At(Viewer)),
    ("GET", "/api/v1/agents", At(Viewer)),
    ("GET", "/api/v1/agents/{id}", At(Viewer)),
    ("PATCH", "/api/v1/agents/{id}", At(Operator)),
    ("POST", "/api/v1/agents/{id}/approve", At(Operator)),
    ("POST", "/api/v1/agents/{id}/revoke", At(Operator)),
    ("POST", "/api/v1/agents/{id}/release", At(Administrator)),
    ("GET", "/api/v1/enrolment-tokens", At(Operator)),
    ("POST", "/api/v1/enrolment-tokens", At(Operator)),
    ("DELETE", "/api/v1/enrolment-tokens/{id}", At(Operator)),
    ("GET", "/api/v1/groups", At(Viewer)),
    ("PUT", "/api/v1/groups/{name}/policy", At(Administrator)),
    ("GET", "/api/v1/keks", At(Viewer)),
    ("POST", "/api/v1/keks", At(Administrator)),
    ("GET", "/api/v1/keks/{id}", At(Viewer)),
    ("POST", "/api/v1/keks/{id}/rotate", At(Administrator)),
    ("POST", "/api/v1/keks/{id}/disable", At(Administrator)),
    ("POST", "/api/v1/keks/{id}/enable", At(Administrator)),
    ("POST", "/api/v1/keks/{id}/destroy", At(Administrator)),
    ("POST", "/api/v1/keks/{id}/rewrap", At(Administrator)),
    ("GET", "/api/v1/jobs", At(Viewer)),
    ("POST", "/api/v1/jobs", At(Operator)),
    ("GET", "/api/v1/jobs/{id}", At(Viewer)),
    ("PATCH", "/api/v1/jobs/{id}", At(Operator)),
    ("DELETE", "/api/v1/jobs/{id}", At(Operator)),
    ("POST", "/api/v1/jobs/{id}/rotate-keys", At(Operator)),
    ("POST", "/api/v1/jobs/{id}/runs", At(Operator)),
    ("GET", "/api/v1/runs", At(Viewer)),
    ("GET", "/api/v1/runs/{id}", At(Viewer)),
    ("POST", "/api/v1/runs/{id}/pause", At(Operator)),
    ("POST", "/api/v1/runs/{id}/resume", At(Operator)),
    ("POST", "/api/v1/runs/{id}/stop", At(Operator)),
    ("GET", "/api/v1/events", At(Viewer)),
    ("GET", "/api/v1/events/stream", At(Viewer)),
    ("GET", "/api/v1/runs/{id}/stream", At(Viewer)),
    ("GET", "/api/v1/audit", At(Administrator)),
    ("GET", "/api/v1/metrics", At(Viewer)),
    ("GET", "/api/v1/settings", At(Viewer)),
    ("PATCH", "/api/v1/settings", At(Administrator)),
    ("GET", "/api/v1/logs", At(Viewer)),
    ("GET", "/api/v1/logs/sealed", At(Viewer)),
    ("POST", "/api/v1/logs/open", At(Viewer)),
    ("GET", "/api/v1/logs/segments", At(Administrator)),
    ("PUT", "/api/v1/logs/segments/{id}/envelope", At(Administrator)),
];

/// Whose request this is. Handlers of routes that are not open find it in their arguments.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(super) principal: Principal,
    pub(super) actor: Actor,
}

/// The request's id and where it comes from: for those who have not logged in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(super) request_id: Uuid,
    pub(super) address: String,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(unauthenticated)
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| Failure::internal(&"a request was not identified"))
    }
}

fn unauthenticated() -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "This needs a login, or a token in `Authorization: Bearer`.",
    )
}

/// Gives each request an id, and each answer: a problem has it in its body too.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = new_id();
    let peer = request.extensions().get::<Peer>();
    let address = peer.map_or_else(String::new, |peer| peer.address.ip().to_canonical().to_string());
    request.extensions_mut().insert(Asked { request_id, address });
    let mut response = next.run(request).await;
    if let Some(Pending(mut problem)) = response.extensions_mut().remove::<Pending>() {
        problem.request_id = Some(request_id);
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        *response.body_mut() = Body::from(serde_json::to_vec(&problem).unwrap_or_default());
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    response
}

/// Lets a request through to its route if its rule allows that.
pub(super) async fn judge(
    State(api): State<Api>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    // What answers GET answers HEAD.
    let method = if *request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let rule = RULES.iter().find(|(of, at, _)| *of == method.as_str() && *at == path.as_str());
    let Some((_, _, access)) = rule else {
        return Err(Failure::internal(&format!("{method} {} has no rule", path.as_str())));
    };
    if let At(role) = *access {
        let asked = request.extensions().get::<Asked>().cloned();
        let asked = asked.ok_or_else(|| Failure::internal(&"a request was not identified"))?;
        let principal = authenticate(&api, request.headers()).await?.ok_or_else(unauthenticated)?;
        let actor = principal.actor(&asked.address, asked.request_id);
        let what = format!("{method} {}", path.as_str());
        if rank(principal.role) < rank(role) {
            refused(&api, &actor, what, "role").await?;
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "role",
                format!("This takes the role {role}; yours is {}.", principal.role),
            ));
        }
        let is_change = !matches!(*method, Method::GET | Method::OPTIONS);
        let csrf = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok());
        if is_change && !principal.may_change(csrf) {
            refused(&api, &actor, what, "csrf").await?;
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "csrf",
                format!("A change by a session needs its token in `{CSRF_HEADER}`."),
            ));
        }
        request.extensions_mut().insert(Caller { principal, actor });
    } else {
        DefaultBodyLimit::max(OPEN_BODY_BYTES_MAX).apply(&mut request);
    }
    Ok(next.run(request).await)
}

/// A refusal is a matter for the audit.
async fn refused(api: &Api, actor: &Actor, what: String, why: &'static str) -> Result<(), Failure> {
    let actor = actor.clone();
    api.blocking(move |db| {
        // Each route by itself: there are only so many.
        let kind = format!("{what} {why}");
        let after = serde_json::json!({ "reason": why });
        db.refuse(&actor, &Refusal { action: "request.refused", subject: &what, why: &kind, after })
    })
    .await
}

async fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Option<Principal>, Failure> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = token.map(str::to_owned) else { return Ok(None) };
        return api.blocking(move |db| users::token(db, &token)).await;
    }
    match cookie(headers) {
        Some(cookie) => api.blocking(move |db| users::session(db, &cookie)).await,
        None => Ok(None),
    }
}

/// The session's cookie, if there is exactly one.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned());
    let first = ours.next()?;
    ours.next().is_none().then_some(first)
}

impl Caller {
    /// The token of the API that was used, if it was one.
    pub(super) fn is_token(&self) -> bool {
        matches!(self.principal.credential, Credential::Token { .. })
    }
}
