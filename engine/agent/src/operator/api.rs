//! The API as commands use it: objects in and out, lists over all their pages, and names where the API takes ids.

use crate::error::RunError;
use crate::operator::http::{Answer, Asked, Http};
use crate::operator::login_file::{Access, Login};
use crate::operator::refusal::refused;
use crate::operator::sse::Subscription;
use crate::operator::tls::{Dialler, Trust};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, IF_MATCH};
use hyper::{Method, StatusCode};
use sealift_api::rest::Page;
use sealift_proto::path::escape;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use uuid::Uuid;
use zeroize::Zeroizing;

/// By which the daemon knows a request that comes again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Items that are asked for at a time; as many as the API gives.
const PAGE_ITEMS: usize = 200;
/// Pages of a list: so that one which never ends does.
const PAGES_MAX: usize = 1_000_000;

/// A connection with the daemon, and what it is shown.
pub(crate) struct Api {
    http: Http,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A kind of things that have names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Of its list.
    pub(crate) path: &'static str,
    /// For people.
    pub(crate) one: &'static str,
    /// The command that shows them.
    pub(crate) list: &'static str,
}

/// An answer of this daemon's as what it should be.
pub(super) fn typed<T: DeserializeOwned>(daemon: &str, value: &Value) -> Result<T, RunError> {
    T::deserialize(value).map_err(|error| {
        let what = escape(error.to_string().as_bytes());
        RunError::Failed(format!(
            "the answer of {daemon} is not understood ({what}): is this sealift as new as the daemon?"
        ))
    })
}

impl Api {
    /// As the environment or the login says.
    pub(crate) fn logged_in() -> Result<Self, RunError> {
        let access = Access::find()?;
        let mut api = Self::anonymous(&access.daemon, &access.trust)?;
        api.bear(&access.token)?;
        Ok(api)
    }

    /// As a login says, whatever the environment does.
    pub(super) fn of_login(login: &Login) -> Result<Self, RunError> {
        let mut api = Self::anonymous(&login.daemon, &Trust::Authority(login.authority()?))?;
        api.bear(&login.token())?;
        Ok(api)
    }

    /// Without a proof of who asks.
    pub(super) fn anonymous(daemon: &str, trust: &Trust) -> Result<Self, RunError> {
        Ok(Self { http: Http::new(Dialler::new(daemon, trust)?), headers: Vec::new() })
    }

    fn bear(&mut self, token: &Zeroizing<String>) -> Result<(), RunError> {
        let bearer = Zeroizing::new(format!("Bearer {}", **token));
        self.show(AUTHORIZATION, &bearer)
    }

    /// Has a header go with every request from now on. It is a secret.
    pub(super) fn show(&mut self, name: HeaderName, value: &str) -> Result<(), RunError> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| RunError::Failed("the daemon's answer makes no sense here".into()))?;
        value.set_sensitive(true);
        self.headers.push((name, value));
        Ok(())
    }

    /// Where it is asked: `HOST:PORT`.
    pub(super) fn daemon(&self) -> &str {
        self.http.dialler().address()
    }

    /// The daemon's authority, DER, once it was reached.
    pub(super) fn authority(&self) -> Option<Vec<u8>> {
        self.http.dialler().authority()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Value, RunError> {
        self.value(self.asked(Method::GET, path)).await
    }

    /// Makes something, or has something done. Asked twice, it is done once.
    pub(crate) async fn post<B: Serialize>(
        &mut self,
        path: &str,
        body: Option<&B>,
    ) -> Result<Value, RunError> {
        let mut asked = self.asked(Method::POST, path);
        asked.body = body.map(json).transpose()?;
        let key = HeaderValue::from_str(&new_uuid()?.to_string())
            .map_err(|error| RunError::Failed(error.to_string()))?;
        asked.headers.push((IDEMPOTENCY_KEY, key));
        asked.repeatable = true;
        self.value(asked).await
    }

    /// The same, of what must not be asked twice; with the answer as it came.
    pub(super) async fn post_once<B: Serialize>(
        &mut self,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, RunError> {
        let mut asked = self.asked(Method::POST, path);
        asked.body = body.map(json).transpose()?;
        self.exchange(&asked).await
    }

    /// Changes what still is as it was seen.
    pub(crate) async fn patch<B: Serialize>(
        &mut self,
        path: &str,
        version: i64,
        body: &B,
    ) -> Result<Value, RunError> {
        let mut asked = self.asked(Method::PATCH, path);
        asked.body = Some(json(body)?);
        let tag = HeaderValue::from_str(&format!("\"{version}\""))
            .map_err(|error| RunError::Failed(error.to_string()))?;
        asked.headers.push((IF_MATCH, tag));
        self.value(asked).await
    }

    /// Puts something in place of what is there.
    pub(crate) async fn put<B: Serialize>(&mut self, path: &str, body: &B) -> Result<Value, RunError> {
        let mut asked = self.asked(Method::PUT, path);
        asked.body = Some(json(body)?);
        self.value(asked).await
    }

    /// The same, of what is answered by nothing; `false` if nothing is there any more. Asked twice, it is the same.
    pub(crate) async fn put_if_there<B: Serialize>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<bool, RunError> {
        let mut asked = self.asked(Method::PUT, path);
        asked.body = Some(json(body)?);
        asked.repeatable = true;
        let answer = self.http.exchange(&asked).await?;
        is_there(self.daemon(), &answer)
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Result<(), RunError> {
        let asked = self.asked(Method::DELETE, path);
        self.exchange(&asked).await.map(drop)
    }

    /// Opens a stream of events; `None` if the daemon has none at this address.
    pub(super) async fn subscribe(&mut self, path: &str) -> Result<Option<Subscription>, RunError> {
        let asked = self.asked(Method::GET, path);
        Subscription::open(&mut self.http, asked).await
    }

    /// All items of a list, or so many, page by page: `each` gets them in their order. Says whether there are more.
    pub(crate) async fn list(
        &mut self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<usize>,
        mut each: impl FnMut(Value) -> Result<(), RunError>,
    ) -> Result<bool, RunError> {
        let mut left = limit.unwrap_or(usize::MAX);
        let mut pages = Pages::of(path, query);
        while let Some(items) = pages.next(self, left).await? {
            for item in items {
                left -= 1;
                each(item)?;
            }
            if left == 0 {
                return Ok(pages.are_more());
            }
        }
        Ok(false)
    }

    /// The one of a kind that has this name or id.
    pub(crate) async fn find(&mut self, kind: Kind, text: &str) -> Result<Value, RunError> {
        self.find_where(kind, text, |_| true).await
    }

    /// The same, among those that fit.
    pub(crate) async fn find_where(
        &mut self,
        kind: Kind,
        text: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, RunError> {
        let id = Uuid::try_parse(text).ok().map(|id| id.to_string());
        let mut found: Vec<Value> = Vec::new();
        self.list(kind.path, &[], None, |item| {
            let is_it = item["name"] == text || id.as_deref().is_some_and(|id| item["id"] == id);
            if is_it && fits(&item) && found.len() < 2 {
                found.push(item);
            }
            Ok(())
        })
        .await?;
        let shown = escape(text.as_bytes());
        match (found.pop(), found.is_empty()) {
            (Some(item), true) => Ok(item),
            (None, _) => Err(RunError::Failed(format!(
                "there is no {} {shown}: `{}` shows which there are",
                kind.one, kind.list
            ))),
            (Some(_), false) => Err(RunError::Usage(format!(
                "more than one {} is called {shown}, or has it as its id: give the id of the one that is meant \
                (`{}`), or rename one",
                kind.one, kind.list
            ))),
        }
    }

    /// An answer, as what it ought to be.
    pub(crate) fn typed<T: DeserializeOwned>(&self, value: &Value) -> Result<T, RunError> {
        typed(self.daemon(), value)
    }

    fn asked(&self, method: Method, path: &str) -> Asked {
        let repeatable = method == Method::GET;
        Asked { method, path: path.to_owned(), headers: self.headers.clone(), body: None, repeatable }
    }

    async fn exchange(&mut self, asked: &Asked) -> Result<Answer, RunError> {
        let answer = self.http.exchange(asked).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(refused(self.daemon(), &answer)),
        }
    }

    async fn value(&mut self, asked: Asked) -> Result<Value, RunError> {
        let answer = self.exchange(&asked).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|_| {
            RunError::Failed(format!("{} does not answer as a control daemon does", self.daemon()))
        })
    }
}

/// Whether what was asked for was done, or there is nothing to do it to.
fn is_there(daemon: &str, answer: &Answer) -> Result<bool, RunError> {
    match answer.status {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => Ok(true),
        _ => Err(refused(daemon, answer)),
    }
}

/// A list, of which one page is held at a time.
pub(crate) struct Pages {
    asked: String,
    after: Option<String>,
    left: usize,
    ended: bool,
}

impl Pages {
    /// From its beginning.
    pub(crate) fn of(path: &str, query: &[(&str, String)]) -> Self {
        let mut asked = format!("{path}?");
        for (name, value) in query {
            let _ = write!(asked, "{name}={}&", encode(value));
        }
        Self { asked, after: None, left: PAGES_MAX, ended: false }
    }

    /// The next items, so many at most; `None` at the end.
    pub(crate) async fn next(&mut self, api: &mut Api, limit: usize) -> Result<Option<Vec<Value>>, RunError> {
        if self.ended {
            return Ok(None);
        }
        let path = self.asked.split('?').next().unwrap_or_default();
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| RunError::Failed(format!("the list of {path} has no end")))?;
        let limit = limit.min(PAGE_ITEMS);
        let mut asked = format!("{}limit={limit}", self.asked);
        if let Some(after) = &self.after {
            let _ = write!(asked, "&after={}", encode(after));
        }
        let answer = api.get(&asked).await?;
        let mut page: Page<Value> = api.typed(&answer)?;
        // A daemon that gives more than it was asked for is not believed.
        page.items.truncate(limit);
        self.ended = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.items))
    }

    /// Whether the daemon has said that there are more.
    pub(crate) fn are_more(&self) -> bool {
        !self.ended
    }
}

/// The id of an object that the daemon gave, safe to put into a path.
pub(crate) fn id_of(item: &Value) -> Result<Uuid, RunError> {
    let id = item["id"].as_str().and_then(|id| Uuid::try_parse(id).ok());
    id.ok_or_else(|| RunError::Failed("the daemon's answer has no id".into()))
}

fn json<B: Serialize>(body: &B) -> Result<Zeroizing<Vec<u8>>, RunError> {
    serde_json::to_vec(body).map(Zeroizing::new).map_err(|error| RunError::Failed(error.to_string()))
}

fn new_uuid() -> Result<Uuid, RunError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| RunError::Failed(format!("the system gives no random bytes: {error}")))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// A value of a query, percent-encoded.
pub(super) fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            true => text.push(char::from(byte)),
            false => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_meanwhile_is_no_error_and_what_is_refused_is() {
        let answered = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            is_there("d", &Answer { status, headers: hyper::HeaderMap::new(), body: Zeroizing::default() })
        };
        assert!(answered(204).unwrap());
        assert!(!answered(404).unwrap());
        for status in [401, 409, 422, 500] {
            assert!(answered(status).is_err(), "{status}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("user:ann/a b&c=%\u{e4}"), "user%3Aann%2Fa%20b%26c%3D%25%C3%A4");
    }
}
