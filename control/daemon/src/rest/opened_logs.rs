//! Sealed logs, opened for a viewer who brings the key with the request.
//!
//! The key is in memory for the one request, and overwritten after it; nothing that it opens is kept. Who can, opens them on a
//! machine of their own (`sealift logs --key`): there the key does not leave it.

use super::Api;
use super::access::Caller;
use super::extract::SecretBody;
use super::problem::{Failure, Problems};
use crate::db::{Db, DbError};
use crate::limiter::Limiter;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::BASE64;
use prost::Message as _;
use sealift_api::rest::limits::PASSWORD_BYTES_MAX;
use sealift_api::rest::{LogRecord, OpenLogs, OpenedLogs, Page, SealedLog};
use sealift_envelope::{Envelope, OwnerId, PrivateKek, RecordSealer};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Records of a page.
const RECORDS: usize = 200;
/// Requests of a user at once.
const BURST: u32 = 10;
/// And then one each time that so long has passed.
const EVERY: Duration = Duration::from_secs(6);

/// How often each user may.
pub(super) struct OpenLimits(Limiter<Uuid>);

impl Default for OpenLimits {
    fn default() -> Self {
        Self(Limiter::new(BURST, EVERY))
    }
}

/// Open sealed logs with a key that is brought. It is not kept; that it was used is recorded.
#[utoipa::path(post, path = "/api/v1/logs/open", request_body = OpenLogs,
    responses((status = 200, body = OpenedLogs), Problems))]
pub(super) async fn open(
    State(api): State<Api>,
    caller: Caller,
    SecretBody { says: with, .. }: SecretBody<OpenLogs>,
) -> Result<Json<OpenedLogs>, Failure> {
    let Caller { principal, actor } = caller;
    if let Err(wait) = api.opens.0.take(&principal.user_id, Instant::now()) {
        let detail = "Logs are opened too often: try again later, or open them by `sealift logs --key`.";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate", detail);
        return Err(failure.retry_after(wait.as_secs() + 1));
    }
    let logs = api.logs.clone();
    let work = move |db: &Db| {
        let done = brought(&with).and_then(|key| {
            let page = logs.list_sealed(with.agent, with.after.as_deref(), RECORDS)?;
            Ok((key.public().fingerprint().to_string(), opened(&key, page)))
        });
        let after = match &done {
            Ok((fingerprint, opened)) => json!({
                "fingerprint": fingerprint, "agent": with.agent,
                "opened": opened.items.len(), "closed": opened.closed,
            }),
            // Whoever tries passphrases is seen.
            Err(error) => json!({ "agent": with.agent, "failed": error.to_string() }),
        };
        db.record(&actor, "logs.open", "logs", Some(after))?;
        done.map(|(_, opened)| opened)
    };
    api.blocking(work).await.map(Json)
}

/// The key that came with the request.
fn brought(with: &OpenLogs) -> Result<PrivateKek, DbError> {
    let passphrase = with.passphrase.as_deref().map(str::as_bytes);
    if passphrase.is_some_and(|passphrase| passphrase.len() > PASSWORD_BYTES_MAX) {
        return Err(DbError::Invalid(format!("a passphrase has at most {PASSWORD_BYTES_MAX} bytes")));
    }
    let key = PrivateKek::from_pem(&with.private_pem, passphrase);
    key.map_err(|error| DbError::Invalid(error.to_string()))
}

fn opened(key: &PrivateKek, page: Page<SealedLog>) -> OpenedLogs {
    let mut sealers = HashMap::new();
    let mut answer = OpenedLogs { items: Vec::new(), closed: 0, next: page.next };
    for one in &page.items {
        let sealer = sealers.entry((&one.envelope, one.spool)).or_insert_with(|| {
            let envelope = Envelope::decode(&BASE64.decode(one.envelope.as_bytes()).ok()?).ok()?;
            let spool = one.spool.into_bytes();
            Some(RecordSealer::new(&envelope.open_for(OwnerId(spool), key).ok()?, &spool))
        });
        let open = |sealer: &RecordSealer| {
            let record = BASE64.decode(one.record.as_bytes()).ok()?;
            let record = sealer.open(one.spool_number, &record).ok()?;
            sealift_api::logs::Record::decode(&record[..]).ok()
        };
        match sealer.as_ref().and_then(open) {
            Some(record) => answer.items.push(LogRecord::opened(one, record)),
            None => answer.closed += 1,
        }
    }
    answer
}
