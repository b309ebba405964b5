//! What requests bring, read into types; and versions, as entity tags.

use super::problem::Failure;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use sealift_api::rest::limits::{KEK_FILE_BYTES_MAX, PASSWORD_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize as _, Zeroizing};

/// A body with secrets: the files of a KEK's halves, with what escapes add, a passphrase, and what is around them.
const SECRET_BODY_BYTES_MAX: usize = 4 * KEK_FILE_BYTES_MAX;

const _: () = assert!(SECRET_BODY_BYTES_MAX > 2 * KEK_FILE_BYTES_MAX + 6 * PASSWORD_BYTES_MAX + 4096);

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

/// A body of JSON with secrets: read into one piece of memory, which is overwritten. What the connection's buffers had of it is
/// not ours.
pub(super) struct SecretBody<T> {
    /// What it says.
    pub(super) says: T,
    /// By which it is told from another.
    pub(super) hash: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for SecretBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let failure = |status, detail: &str| Failure::new(status, "body", detail);
        if !is_json(request.headers()) {
            let detail = "The body has to be JSON, with `Content-Type: application/json`.";
            return Err(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        // As much as there can be: to grow would leave a copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(SECRET_BODY_BYTES_MAX));
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| failure(StatusCode::BAD_REQUEST, "The body did not come whole."))?;
            let Ok(part) = frame.into_data() else { continue };
            if part.len() > SECRET_BODY_BYTES_MAX - text.len() {
                return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."));
            }
            text.extend_from_slice(&part);
            if let Ok(mut part) = part.try_into_mut() {
                part[..].zeroize();
            }
        }
        // What is wrong is not told in serde's words: they quote.
        let says = serde_json::from_slice(&text).map_err(|error| {
            let status = match error.classify() {
                Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_REQUEST,
            };
            let place = format!("line {}, column {}", error.line(), error.column());
            failure(status, &format!("The body is not the JSON that belongs here: look at {place}."))
        })?;
        Ok(Self { says, hash: Sha256::digest(&text[..]).into() })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body as HttpBody, Bytes};
    use sealift_api::rest::OpenLogs;

    async fn read(kind: &str, parts: Vec<String>) -> Result<SecretBody<OpenLogs>, StatusCode> {
        let parts = parts.into_iter().map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        let body = HttpBody::from_stream(tokio_stream::iter(parts));
        let request = Request::builder().header(header::CONTENT_TYPE, kind).body(body).unwrap();
        let read = SecretBody::from_request(request, &()).await;
        read.map_err(|failure| failure.into_response().status())
    }

    #[tokio::test]
    async fn secrets_come_in_parts_and_within_limits() {
        let json = |text: &str| vec![format!(r#"{{"private_pem":"{text}"#), r#"\n","after":"5"}"#.to_owned()];
        let one = read("application/json; charset=utf-8", json("a")).await.unwrap();
        assert_eq!((&*one.says.private_pem, one.says.after.as_deref()), ("a\n", Some("5")));
        let again = read("application/json", json("a")).await.unwrap();
        let other = read("application/json", json("b")).await.unwrap();
        assert!(one.hash == again.hash && one.hash != other.hash);
        let status = async |kind, parts| read(kind, parts).await.map(|_| ()).unwrap_err().as_u16();
        assert_eq!(status("text/plain", json("a")).await, 415);
        assert_eq!(status("application/json", vec!["{".to_owned()]).await, 400);
        assert_eq!(status("application/json", vec![r#"{"private_pem":1}"#.to_owned()]).await, 422);
        assert_eq!(status("application/json", json(&"x".repeat(SECRET_BODY_BYTES_MAX))).await, 413);
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_without_what_was_brought() {
        let json = r#"{"private_pem":"","agent":"the secret stands elsewhere"}"#;
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = request.body(HttpBody::from(json)).unwrap();
        let Err(failure) = SecretBody::<OpenLogs>::from_request(request, &()).await else {
            panic!("an id is none")
        };
        assert!(!format!("{failure:?}").contains("stands elsewhere"), "{failure:?}");
    }
}
