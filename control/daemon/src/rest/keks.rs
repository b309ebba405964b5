//! Key-encryption keys (KEKs): taken up, rotated, and ended. Private halves come in here, and never go out.

use super::access::Caller;
use super::extract::{Asking, Id, SecretBody, Tagged};
use super::once::{Keep, Once};
use super::problem::{Failure, Problems};
use super::{Api, Paging};
use crate::db::keks::{self, Checked};
use crate::db::{Actor, Db, DbError, Write};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealift_api::rest::{Kek, KekFiles, KekState, NewKek, Page};

/// KEKs, all versions, by name.
#[utoipa::path(get, path = "/api/v1/keks", params(Paging), responses((status = 200, body = Page<Kek>), Problems))]
pub(super) async fn list(
    State(api): State<Api>,
    Asking(paging): Asking<Paging>,
) -> Result<Json<Page<Kek>>, Failure> {
    let list = move |db: &rusqlite::Connection| keks::list(db, paging.after.as_deref(), paging.limit());
    api.blocking(move |db| db.read(list)).await.map(Json)
}

/// Import a KEK under a name of its own. If its private half comes too, the two are proved to belong together.
#[utoipa::path(post, path = "/api/v1/keks", request_body = NewKek, responses((status = 201, body = Kek), Problems))]
pub(super) async fn import(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    SecretBody { says, hash }: SecretBody<NewKek>,
) -> Result<Response, Failure> {
    let NewKek { name, files } = says;
    change(&api, caller, once, &hash, StatusCode::CREATED, Some(files), move |write, halves| {
        keks::import(write, &name, halves.ok_or(DbError::Crypto)?)
    })
    .await
}

/// One KEK.
#[utoipa::path(get, path = "/api/v1/keks/{id}", params(("id" = Uuid, Path)),
    responses((status = 200, body = Kek), Problems))]
pub(super) async fn get(State(api): State<Api>, Id(id): Id) -> Result<Tagged<Kek>, Failure> {
    let kek = api.blocking(move |db| db.read(|db| keks::get(db, id))).await?;
    Ok(Tagged(kek.version, kek))
}

/// Give a KEK's name another key: what is sealed from now on is wrapped to that. The one before can decrypt only.
#[utoipa::path(post, path = "/api/v1/keks/{id}/rotate", params(("id" = Uuid, Path)), request_body = KekFiles,
    responses((status = 201, body = Kek), Problems))]
pub(super) async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
    SecretBody { says: files, hash }: SecretBody<KekFiles>,
) -> Result<Response, Failure> {
    change(&api, caller, once, &hash, StatusCode::CREATED, Some(files), move |write, halves| {
        keks::rotate(write, id, halves.ok_or(DbError::Crypto)?)
    })
    .await
}

/// Have a KEK used no more, until it is enabled.
#[utoipa::path(post, path = "/api/v1/keks/{id}/disable", params(("id" = Uuid, Path)),
    responses((status = 200, body = Kek), Problems))]
pub(super) async fn disable(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, &(), StatusCode::OK, None, move |write, _| keks::disable(write, id)).await
}

/// Have a disabled KEK used again.
#[utoipa::path(post, path = "/api/v1/keks/{id}/enable", params(("id" = Uuid, Path)),
    responses((status = 200, body = Kek), Problems))]
pub(super) async fn enable(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, &(), StatusCode::OK, None, move |write, _| keks::enable(write, id)).await
}

/// Destroy a KEK to which nothing is wrapped any more: its private half is overwritten.
#[utoipa::path(post, path = "/api/v1/keks/{id}/destroy", params(("id" = Uuid, Path)),
    responses((status = 200, body = Kek), Problems))]
pub(super) async fn destroy(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    Id(id): Id,
) -> Result<Response, Failure> {
    change(&api, caller, once, &(), StatusCode::OK, None, move |write, _| keks::destroy(write, id)).await
}

async fn change<B: serde::Serialize>(
    api: &Api,
    caller: Caller,
    once: Once,
    body: &B,
    status: StatusCode,
    files: Option<KekFiles>,
    change: impl FnOnce(&mut Write<'_>, Option<&Checked>) -> Result<Kek, DbError> + Send + 'static,
) -> Result<Response, Failure> {
    let data_keys = api.data_keys.clone();
    let work = move |db: &Db, by: &Actor, keep: &Keep| {
        // Before the transaction: a passphrase is made to take its time.
        let halves = files.as_ref().map(Checked::of).transpose()?;
        let kek = db.write(by, |write| {
            let kek = change(write, halves.as_ref())?;
            keep.answer(write, &kek)?;
            Ok(kek)
        })?;
        if matches!(kek.state, KekState::Disabled | KekState::Destroyed) {
            data_keys.drop_of(kek.id);
        }
        if kek.state == KekState::Destroyed
            && let Err(error) = db.empty_log()
        {
            // It is destroyed nevertheless: who would stop here could not try again.
            let name = kek.name.as_str();
            tracing::warn!(%error, name, "the private half of a destroyed KEK is in the database's log until that is begun anew");
        }
        Ok(kek)
    };
    let then = |kek: Kek| {
        // Sources that wrap to it are told at once.
        api.hub.wake_all();
        kek
    };
    api.once(caller, once, body, status, work, then).await
}
