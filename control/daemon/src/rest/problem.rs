//! Answers that are no success, in the form of RFC 9457.

use crate::db::DbError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealift_api::rest::Problem;
use std::fmt::Display;

/// An answer that says what is wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    retry_after_seconds: Option<u64>,
}

/// Marks an answer whose problem has yet to be given its request's id.
#[derive(Clone, Debug)]
pub(super) struct Pending(pub(super) Problem);

impl Failure {
    pub(super) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after_seconds: None }
    }

    /// Something of ours: the log has it, the answer does not.
    pub(super) fn internal(error: &dyn Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The daemon could not do this: see its log.")
    }

    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let detail = error.to_string();
        match error {
            DbError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not-found", detail),
            DbError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            DbError::Invalid(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
            DbError::Stale => Self::new(StatusCode::PRECONDITION_FAILED, "stale", detail),
            DbError::Refused(_) => Self::new(StatusCode::FORBIDDEN, "refused", detail),
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("/problems/{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: self.status.as_u16(),
            detail: Some(self.detail),
            request_id: None,
        };
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Pending(problem));
        response
    }
}

/// What every route may answer beside its success, for the description.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "for the description alone")]
pub(super) enum Problems {
    /// The request cannot be granted as it is: `type` says why.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Request(#[to_schema] Problem),
    /// The daemon could not do it.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Daemon(#[to_schema] Problem),
}
