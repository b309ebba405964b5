//! Users, their sessions, and tokens of the API.

use super::access::{Asked, COOKIE, Caller, cookie};
use super::extract::{Asking, Body, Id, IfMatch, Tagged};
use super::once::{Keep, Once};
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::address::network;
use crate::db::users::{self, LoginOutcome};
use crate::db::{Actor, Db, DbError};
use crate::limiter::Limiter;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sealift_api::rest::limits::NAME_CHARS_MAX;
use sealift_api::rest::{
    ApiToken, Login, LoginAnswer, NewApiToken, NewApiTokenSecret, NewUser, Page, PasswordChange, Role, User,
    UserPatch,
};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Attempts to log in at once, of an address or for an account.
const ATTEMPTS_BURST: u32 = 30;
/// And then one in so long.
const ATTEMPTS_EVERY: Duration = Duration::from_secs(2);

/// How often somebody may try to log in, whether it is right or wrong. Lockouts come before that, for those who are wrong;
/// this is for what a lockout costs.
pub(super) struct LoginLimits {
    addresses: Limiter<Option<IpAddr>>,
    accounts: Limiter<String>,
}

impl Default for LoginLimits {
    fn default() -> Self {
        let (burst, every) = (ATTEMPTS_BURST, ATTEMPTS_EVERY);
        Self { addresses: Limiter::new(burst, every), accounts: Limiter::new(burst, every) }
    }
}

impl LoginLimits {
    fn take(&self, address: &str, account: &str) -> Result<(), Duration> {
        let now = Instant::now();
        self.addresses.take(&address.parse().ok().map(network), now)?;
        let end = account.floor_char_boundary(NAME_CHARS_MAX + 1);
        self.accounts.take(&account[..end].to_ascii_lowercase(), now)
    }
}

/// Begin a session: the answer sets a cookie, and has the token that changes need beside it.
#[utoipa::path(post, path = "/api/v1/login", request_body = Login,
    responses((status = 200, body = LoginAnswer), Problems))]
pub(super) async fn log_in(
    State(api): State<Api>,
    asked: Asked,
    Body(login): Body<Login>,
) -> Result<Response, Failure> {
    if let Err(wait) = api.logins.take(&asked.address, &login.name) {
        api.metrics.login_refused();
        let detail = "There are too many logins from this address, or for this account: try again later.";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate", detail);
        return Err(failure.retry_after(wait.as_secs() + 1));
    }
    let by = Actor::anonymous(&asked.address, asked.request_id);
    let outcome = api.blocking(move |db| {
        let outcome = users::login(db, &by, &login.name, &login.password)?;
        Ok((outcome, db.now_ms()))
    });
    let (outcome, now_ms) = outcome.await?;
    if !matches!(outcome, LoginOutcome::Session(_)) {
        api.metrics.login_refused();
    }
    match outcome {
        LoginOutcome::Session(session) => {
            let age_seconds = (session.expires_ms - now_ms).max(0) / 1000;
            let cookie = format!(
                "{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age_seconds}",
                *session.token
            );
            let answer =
                LoginAnswer { user: session.user, csrf_token: session.csrf, expires_ms: session.expires_ms };
            let cookie = HeaderValue::from_str(&cookie).map_err(|error| Failure::internal(&error))?;
            Ok(([(header::SET_COOKIE, cookie)], Json(answer)).into_response())
        }
        LoginOutcome::Refused => Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "login",
            "The name or the password is wrong, or the account is disabled.",
        )),
        LoginOutcome::Locked { until_ms } => {
            let seconds = u64::try_from((until_ms - now_ms).max(0) / 1000 + 1).unwrap_or(1);
            let detail = "Too many logins have failed: try again later.";
            Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, "locked", detail).retry_after(seconds))
        }
        LoginOutcome::Busy => {
            let detail = "Too many log in at once: try again.";
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(1))
        }
    }
}

/// End this session.
#[utoipa::path(post, path = "/api/v1/logout", responses((status = 204, description = "It is over."), Problems))]
pub(super) async fn log_out(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if caller.is_token() {
        return Err(Failure::new(StatusCode::CONFLICT, "no-session", "A token is revoked, not logged out."));
    }
    if let Some(token) = cookie(&headers) {
        api.blocking(move |db| users::logout(db, &caller.actor, &token)).await?;
    }
    let gone = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    let gone = HeaderValue::from_str(&gone).map_err(|error| Failure::internal(&error))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// Who asks.
#[utoipa::path(get, path = "/api/v1/me", responses((status = 200, body = User), Problems))]
pub(super) async fn who_am_i(State(api): State<Api>, caller: Caller) -> Result<Tagged<User>, Failure> {
    let id = caller.principal.user_id;
    let user = api.blocking(move |db| db.read(|db| users::get(db, id))).await?;
    Ok(Tagged(user.version, user))
}

/// Change one's own password. It ends all of one's sessions.
#[utoipa::path(post, path = "/api/v1/me/password", request_body = PasswordChange,
    responses((status = 200, body = User), Problems))]
pub(super) async fn change_password(
    State(api): State<Api>,
    caller: Caller,
    Body(change): Body<PasswordChange>,
) -> Result<Tagged<User>, Failure> {
    let id = caller.principal.user_id;
    let user = api.blocking(move |db| users::change_password(db, &caller.actor, id, &change)).await?;
    Ok(Tagged(user.version, user))
}

/// Users, by name.
#[utoipa::path(get, path = "/api/v1/users", params(Paging), responses((status = 200, body = Page<User>), Problems))]
pub(super) async fn list(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<User>>, Failure> {
    let list = move |db: &rusqlite::Connection| users::list(db, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Add a user.
#[utoipa::path(post, path = "/api/v1/users", request_body = NewUser,
    responses((status = 201, body = User), Problems))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Body(new): Body<NewUser>,
) -> Result<Response, Failure> {
    let body = new.clone();
    let work = move |db: &Db, by: &Actor, keep: &Keep| {
        users::create_and(db, by, &new, |write, user| keep.answer(write, user))
    };
    api.once(caller, once, &body, StatusCode::CREATED, work, |user| user).await
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{id}", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = User), Problems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id) -> Result<Tagged<User>, Failure> {
    let user = api.blocking(move |db| db.read(|db| users::get(db, id))).await?;
    Ok(Tagged(user.version, user))
}

/// Change a user.
#[utoipa::path(patch, path = "/api/v1/users/{id}", params(("id" = uuid::Uuid, Path)), request_body = UserPatch,
    responses((status = 200, body = User), Problems))]
pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    IfMatch(version): IfMatch,
    Body(patch): Body<UserPatch>,
) -> Result<Tagged<User>, Failure> {
    let user = api.blocking(move |db| users::update(db, &caller.actor, id, version, &patch)).await?;
    Ok(Tagged(user.version, user))
}

/// Remove a user.
#[utoipa::path(delete, path = "/api/v1/users/{id}", params(("id" = uuid::Uuid, Path)),
    responses((status = 204, description = "Gone."), Problems))]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Failure> {
    api.blocking(move |db| users::delete(db, &caller.actor, id, version)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tokens of the API: one's own, and for administrators everybody's.
#[utoipa::path(get, path = "/api/v1/tokens", params(Paging),
    responses((status = 200, body = Page<ApiToken>), Problems))]
pub(super) async fn list_tokens(
    State(api): State<Api>,
    caller: Caller,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<ApiToken>>, Failure> {
    let everybody = caller.principal.role == Role::Administrator;
    let of = (!everybody).then_some(caller.principal.user_id);
    let list =
        move |db: &rusqlite::Connection| users::list_tokens(db, of, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Make a token for oneself. Its secret is in this answer alone. A token cannot make others.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = NewApiToken,
    responses((status = 201, body = NewApiTokenSecret), Problems))]
pub(super) async fn create_token(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Body(new): Body<NewApiToken>,
) -> Result<Response, Failure> {
    if caller.is_token() {
        return Err(Failure::new(StatusCode::FORBIDDEN, "token", "A token cannot make tokens: log in."));
    }
    let user = caller.principal.user_id;
    let body = new.clone();
    let work = move |db: &Db, by: &Actor, keep: &Keep| {
        users::create_token_and(db, by, user, &new, |write, made| keep.answer(write, made))
    };
    api.once(caller, once, &body, StatusCode::CREATED, work, |made| made).await
}

/// Revoke a token: one's own, or for administrators anybody's.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", params(("id" = uuid::Uuid, Path)),
    responses((status = 204, description = "Revoked."), Problems))]
pub(super) async fn revoke_token(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<StatusCode, Failure> {
    let revoke = move |db: &crate::db::Db| {
        let token = db.read(|db| users::get_token(db, id))?;
        let own = token.user_id == caller.principal.user_id;
        if !own && caller.principal.role != Role::Administrator {
            // Whose it is, and that it is, is nobody else's business.
            return Err(DbError::NotFound("token"));
        }
        users::revoke_token(db, &caller.actor, id)
    };
    api.blocking(revoke).await?;
    Ok(StatusCode::NO_CONTENT)
}
