//! Settings of the daemon.

use super::Api;
use super::access::Caller;
use super::extract::{Body, IfMatch, Tagged};
use super::problem::{Failure, Problems};
use crate::db::{Db, settings};
use axum::extract::State;
use sealift_api::rest::{Settings, SettingsPatch};

/// The settings that hold.
#[utoipa::path(get, path = "/api/v1/settings", responses((status = 200, body = Settings), Problems))]
pub(super) async fn get(State(api): State<Api>) -> Result<Tagged<Settings>, Failure> {
    let settings = api.blocking(|db| db.read(settings::get)).await?;
    Ok(Tagged(settings.version, settings))
}

/// Change settings. They hold at once.
#[utoipa::path(patch, path = "/api/v1/settings", request_body = SettingsPatch,
    responses((status = 200, body = Settings), Problems))]
pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    IfMatch(version): IfMatch,
    Body(patch): Body<SettingsPatch>,
) -> Result<Tagged<Settings>, Failure> {
    let change = move |db: &Db| db.write(&caller.actor, |write| settings::update(write, version, &patch));
    let settings = api.blocking(change).await?;
    // What their logs are sealed to.
    api.hub.wake_all();
    Ok(Tagged(settings.version, settings))
}
