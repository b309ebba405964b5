//! Log upload, on 8445: agents bring what they have logged, and search finds it.
//!
//! Owns the port's service and the retention of records. An agent is who its certificate says; without one that is valid
//! there is no handshake. Whether it may speak is looked up as on its channel, at the beginning and whenever anything has
//! changed. What it says is cut to its limits, and answered no faster than one agent may speak: it waits, and nothing is
//! dropped here.

mod judge;
mod rate;
mod upload;

use crate::channel::Hub;
use crate::db::logs::{LogStore, Retention};
use crate::db::{Db, settings};
use axum::Router;
use sealift_api::logs::logs_server::LogsServer;
use sealift_api::rest::limits::LOG_BATCH_BYTES_MAX;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;

/// A message from an agent: a batch, and what frames it.
const MESSAGE_BYTES_MAX: usize = 2 * LOG_BATCH_BYTES_MAX;
/// Between looks whether records are too old or too many.
const RETENTION_TICK: Duration = Duration::from_secs(60);
/// Between steps of their removal: others write meanwhile.
const RETENTION_PAUSE: Duration = Duration::from_millis(20);

/// The routes of the port.
pub fn router(hub: Arc<Hub>, store: LogStore) -> Router {
    let service = LogsServer::new(upload::Uploads::new(hub, store));
    Routes::new(service.max_decoding_message_size(MESSAGE_BYTES_MAX)).into_axum_router()
}

/// Removes what is too old or too much, for as long as the daemon serves.
pub async fn retain(store: LogStore, db: Db) {
    let mut ticks = tokio::time::interval(RETENTION_TICK);
    loop {
        ticks.tick().await;
        loop {
            let (store, db) = (store.clone(), db.clone());
            let reduce = move || {
                let settings = db.read(settings::get)?;
                store.reduce(Retention {
                    age_ms: i64::from(settings.logs_kept_seconds) * 1000,
                    bytes: settings.logs_bytes,
                })
            };
            match tokio::task::spawn_blocking(reduce).await {
                Ok(Ok(true)) => tokio::time::sleep(RETENTION_PAUSE).await,
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::error!(%error, "old logs could not be removed");
                    break;
                }
                Err(_) => break,
            }
        }
    }
}
