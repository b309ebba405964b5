//! Log upload, on 8445: agents bring what they have logged, and search finds it.
//!
//! Owns the port's service and the retention of records. An agent is who its certificate says; without one that is valid
//! there is no handshake. Whether it may speak is looked up as on its channel, at the beginning and whenever anything has
//! changed. What it says is cut to its limits, and answered no faster than one agent may speak: it waits, and nothing is
//! dropped here.

mod judge;
mod keys;
mod rate;
mod rewrap;
mod sealed;
#[cfg(test)]
mod tests;
mod upload;

pub use keys::DataKeys;
pub use rewrap::{replace, rewrap};

use crate::channel::Hub;
use crate::db::logs::{LogStore, Retention};
use crate::db::{Actor, Db, DbError, Write, keks, settings};
use axum::Router;
use sealift_api::logs::logs_server::LogsServer;
use sealift_api::rest::limits::LOG_BATCH_BYTES_MAX;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;
use uuid::Uuid;

/// A message from an agent: a batch, and what frames it.
const MESSAGE_BYTES_MAX: usize = 2 * LOG_BATCH_BYTES_MAX;
/// Between looks whether records are too old or too many.
const RETENTION_TICK: Duration = Duration::from_secs(60);
/// Between steps of their removal: others write meanwhile.
const RETENTION_PAUSE: Duration = Duration::from_millis(20);
/// Segments whose KEKs are compared at once.
const RECONCILED_AT_ONCE: usize = 500;

/// The routes of the port.
pub fn router(hub: Arc<Hub>, store: LogStore, keys: DataKeys) -> Router {
    let service = LogsServer::new(upload::Uploads::new(hub, store, keys));
    Routes::new(service.max_decoding_message_size(MESSAGE_BYTES_MAX)).into_axum_router()
}

/// Has what is noted as wrapped to KEKs follow the file of logs: that is in no backup, may have been begun anew, and may be
/// ahead by what was wrapped anew when the daemon was killed. To be called before anything is taken in.
///
/// # Errors
/// Of the databases.
pub fn reconcile(store: &LogStore, db: &Db) -> Result<(), DbError> {
    let (mut after, mut is_other) = (Uuid::nil(), false);
    loop {
        let segments = store.wrapped_after(after, RECONCILED_AT_ONCE)?;
        let last = segments.last().map(|(id, _)| *id).filter(|_| segments.len() == RECONCILED_AT_ONCE);
        is_other |= keks::segments_are(db, after, last, &segments)?;
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    if is_other {
        tracing::info!("what is wrapped to KEKs was noted otherwise than the file of logs has it");
    }
    Ok(())
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
                let reduced = store.reduce(Retention {
                    age_ms: i64::from(settings.logs_kept_seconds) * 1000,
                    bytes: settings.logs_bytes,
                })?;
                if !reduced.forgotten.is_empty() {
                    let forget = |write: &mut Write<'_>| {
                        // What came again meanwhile stays noted; what comes after this is noted after it.
                        let gone = store.missing(reduced.forgotten)?;
                        keks::segments_forgotten(write, &gone)
                    };
                    db.write(&Actor::system(), forget)?;
                }
                Ok::<_, DbError>(reduced.more)
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
