//! What requests bring, read into types; and versions, as entity tags.

use super::problem::Failure;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(Failure::new(rejection.status(), "body", rejection.body_text())),
        }
    }
}

/// The id in a path.
pub(super) struct Id(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        // An id that is none names nothing.
        let not_found =
            |_| Failure::new(StatusCode::NOT_FOUND, "not-found", "There is nothing with this id.");
        Path::from_request_parts(parts, state).await.map(|Path(id)| Self(id)).map_err(not_found)
    }
}

/// What follows the question mark.
pub(super) struct Asking<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asking<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asking)) => Ok(Self(asking)),
            Err(rejection) => Err(Failure::new(rejection.status(), "query", rejection.body_text())),
        }
    }
}

/// The version that a change is meant for, by `If-Match`; `None` if any is.
pub(super) struct IfMatch(pub(super) Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        if value == "*" {
            return Ok(Self(None));
        }
        let text = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
        match text.and_then(|text| text.parse().ok()) {
            Some(version) => Ok(Self(Some(version))),
            // A tag that we never gave matches nothing.
            None => Err(Failure::new(StatusCode::PRECONDITION_FAILED, "stale", "No version has this tag.")),
        }
    }
}

/// An answer with its version as its tag.
pub(super) struct Tagged<T>(pub(super) i64, pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        tagged(StatusCode::OK, Some(self.0), axum::Json(self.1))
    }
}

/// An answer with its status, and its tag if it has one.
pub(super) fn tagged(status: StatusCode, version: Option<i64>, answer: impl IntoResponse) -> Response {
    let mut response = (status, answer).into_response();
    if let Some(version) = version
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\""))
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
