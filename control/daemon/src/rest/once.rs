//! Requests that bring an `Idempotency-Key`: carried out once, however often they are sent.
//!
//! Owns the keys of requests that are being carried out. A success is kept with its change (see [`idempotency`]) and told
//! again for a day; what failed changed nothing, and is tried anew.

use super::Api;
use super::access::Caller;
use super::extract::tagged;
use super::problem::Failure;
use crate::db::idempotency::{self, Answer, Known, Request};
use crate::db::{Actor, Db, DbError, Write};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The header.
pub(super) const KEY_HEADER: &str = "idempotency-key";
/// Bytes in a key.
pub(super) const KEY_BYTES_MAX: usize = 255;
/// Says that an answer is told again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What makes a request the same as another: its key, if it brings one, and where it goes.
pub(super) struct Once {
    key: Option<String>,
    place: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let place = format!("{} {}", parts.method, parts.uri);
        let mut keys = parts.headers.get_all(KEY_HEADER).into_iter();
        let key = match (keys.next(), keys.next()) {
            (None, _) => None,
            (Some(key), None) => {
                Some(key.to_str().ok().filter(|key| is_key(key)).ok_or_else(bad_key)?.to_owned())
            }
            (Some(_), Some(_)) => return Err(bad_key()),
        };
        Ok(Self { key, place })
    }
}

fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn bad_key() -> Failure {
    let detail =
        format!("An `Idempotency-Key` is 1 to {KEY_BYTES_MAX} printable ASCII characters without spaces.");
    Failure::new(StatusCode::BAD_REQUEST, "idempotency-key", detail)
}

/// Keys of requests that are being carried out.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<(Uuid, String)>>>);

struct Turn {
    all: UnderWay,
    name: (Uuid, String),
}

impl UnderWay {
    fn names(&self) -> MutexGuard<'_, HashSet<(Uuid, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, name: (Uuid, String)) -> Option<Turn> {
        self.names().insert(name.clone()).then(|| Turn { all: self.clone(), name })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.names().remove(&self.name);
    }
}

/// Keeps the answer with the change: to be called in the change's own transaction.
pub(super) struct Keep {
    request: Option<Request>,
    status: StatusCode,
}

impl Keep {
    pub(super) fn answer<T: Versioned>(&self, write: &Write<'_>, value: &T) -> Result<(), DbError> {
        let Some(request) = &self.request else { return Ok(()) };
        let answer = Answer { status: self.status.as_u16(), version: value.version(), body: text(value)? };
        idempotency::keep(write, request, &answer)
    }
}

fn text(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, DbError> {
    let text = serde_json::to_vec(value);
    text.map(Zeroizing::new).map_err(|error| DbError::Damaged(format!("an answer cannot be told: {error}")))
}

/// What may be answered, and its tag if it has one.
pub(super) trait Versioned: Serialize {
    fn version(&self) -> Option<i64>;
}

macro_rules! versioned {
    ($($with:ty),+; $($without:ty),+) => {
        $(impl Versioned for $with {
            fn version(&self) -> Option<i64> {
                Some(self.version)
            }
        })+
        $(impl Versioned for $without {
            fn version(&self) -> Option<i64> {
                None
            }
        })+
    };
}
versioned!(
    sealift_api::rest::Agent, sealift_api::rest::Job, sealift_api::rest::Kek, sealift_api::rest::Run, sealift_api::rest::User;
    sealift_api::rest::NewApiTokenSecret, sealift_api::rest::NewEnrolmentTokenSecret
);

impl Api {
    /// Carries a request out, unless it was already: then it is answered as it was. `work` makes the change and calls
    /// [`Keep::answer`] in its transaction; `then` runs after a change that was made.
    pub(super) async fn once<B: Serialize, T: Versioned, R: Send + 'static>(
        &self,
        caller: Caller,
        once: Once,
        body: &B,
        status: StatusCode,
        work: impl FnOnce(&Db, &Actor, &Keep) -> Result<R, DbError> + Send + 'static,
        then: impl FnOnce(R) -> T,
    ) -> Result<Response, Failure> {
        let Caller { principal, actor } = caller;
        let mut request = None;
        let mut turn = None;
        if let Some(key) = once.key {
            let parts = [once.place.as_bytes(), &text(body)?];
            let named = Request::new(&self.db, principal.user_id, &key, &parts)?;
            turn = Some(self.under_way.enter(named.name()).ok_or_else(|| {
                let detail = "A request with this `Idempotency-Key` is being carried out: try again.";
                Failure::new(StatusCode::CONFLICT, "idempotency-key-busy", detail).retry_after(1)
            })?);
            let look = named.clone();
            match self.blocking(move |db| idempotency::known(db, &look)).await? {
                Known::New => request = Some(named),
                Known::Answered(answer) => return again(&answer),
                Known::Other => {
                    let detail = "This `Idempotency-Key` was that of another request: take a new one.";
                    return Err(Failure::new(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        "idempotency-key-reused",
                        detail,
                    ));
                }
            }
        }
        let keep = Keep { request, status };
        let done = self.blocking(move |db| {
            let done = work(db, &actor, &keep);
            // Also if nobody waits for the answer any more, the next one comes after this.
            drop(turn);
            done
        });
        let value = then(done.await?);
        Ok(tagged(status, value.version(), axum::Json(value)))
    }

    /// [`Self::once`], for what is one transaction.
    pub(super) async fn once_write<B: Serialize, T: Versioned + Send + 'static>(
        &self,
        caller: Caller,
        once: Once,
        body: &B,
        status: StatusCode,
        change: impl FnOnce(&mut Write<'_>) -> Result<T, DbError> + Send + 'static,
    ) -> Result<Response, Failure> {
        let work = move |db: &Db, by: &Actor, keep: &Keep| {
            db.write(by, |write| {
                let value = change(write)?;
                keep.answer(write, &value)?;
                Ok(value)
            })
        };
        self.once(caller, once, body, status, work, |value| value).await
    }
}

/// Tells an answer again.
fn again(answer: &Answer) -> Result<Response, Failure> {
    let status = StatusCode::from_u16(answer.status).map_err(|error| Failure::internal(&error))?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let replayed = (REPLAYED, HeaderValue::from_static("true"));
    Ok(tagged(status, answer.version, ([json, replayed], answer.body.to_vec()).into_response()))
}
