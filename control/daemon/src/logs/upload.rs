//! One agent's upload, from its Hello to its end.

#[cfg(test)]
mod tests;

use super::judge::judged;
use super::rate::Rates;
use super::sealed::{SealedBatch, Taken};
use super::{DataKeys, sealed};
use crate::channel::{Hub, Line, Place, Shown, blocking, peer, sent_away, status};
use crate::db::agents;
use crate::db::logs::{LogStore, runs_of};
use crate::db::{Db, DbError};
use sealift_api::logs::batch::Content;
use sealift_api::logs::from_agent::Body as Said;
use sealift_api::logs::from_daemon::Body;
use sealift_api::logs::logs_server::Logs;
use sealift_api::logs::{Batch, FromAgent, FromDaemon, Hello, Kept, Record, Sealed, Welcome};
use sealift_api::rest::limits::{LOG_BATCH_BYTES_MAX, LOG_BATCH_RECORDS_MAX, LOG_RECORD_BYTES_MAX};
use sealift_api::rest::{Agent, AgentState};
use sealift_envelope::block::OVERHEAD;
use sealift_envelope::{Envelope, OwnerId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Of the protocol.
const VERSION: u32 = 1;
/// From the beginning of a stream to the agent's Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// A sealed record: the largest there is, and what sealing it adds.
const SEALED_RECORD_BYTES_MAX: usize = LOG_RECORD_BYTES_MAX + OVERHEAD;
/// Answers that may wait for an agent to take them; there is one for each batch.
const OUTBOX_MAX: usize = 2;

/// The service of the port.
pub(super) struct Uploads {
    hub: Arc<Hub>,
    store: LogStore,
    rates: Arc<Rates>,
    keys: DataKeys,
}

impl Uploads {
    pub(super) fn new(hub: Arc<Hub>, store: LogStore, keys: DataKeys) -> Self {
        Self { hub, store, rates: Arc::default(), keys }
    }
}

#[tonic::async_trait]
impl Logs for Uploads {
    type UploadStream = ReceiverStream<Result<FromDaemon, Status>>;

    async fn upload(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        let peer = peer(&request)?;
        let shown = Shown::of(&peer, self.hub.db.now_ms()).filter(|shown| !shown.expired);
        let shown = shown.ok_or_else(|| Status::unauthenticated("no valid certificate was shown"))?;
        let found = blocking(&self.hub.db, move |db| db.read(|db| agents::by_key(db, &shown.key))).await;
        let agent = found.map_err(|error| match error {
            DbError::NotFound(_) => Status::permission_denied("this agent is not known"),
            error => status(error),
        })?;
        allowed(&agent)?;
        let (outbox, answers) = mpsc::channel(OUTBOX_MAX);
        let place = self.hub.enter(agent.id, Line::Logs);
        let (hub, store, rates) = (Arc::clone(&self.hub), self.store.clone(), Arc::clone(&self.rates));
        let keys = self.keys.clone();
        let upload = Upload { hub, store, rates, keys, agent, outbox };
        let inbox = request.into_inner();
        tokio::spawn(async move {
            let Upload { outbox, agent, .. } = &upload;
            if let Err(status) = upload.run(inbox, place).await {
                tracing::debug!(agent = agent.name.as_str(), %status, "an upload of logs is cut");
                let _ = tokio::time::timeout(SEND_TIMEOUT, outbox.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn allowed(agent: &Agent) -> Result<(), Status> {
    match agent.state {
        AgentState::Approved => Ok(()),
        state => Err(Status::permission_denied(format!("the agent is {state}"))),
    }
}

struct Upload {
    hub: Arc<Hub>,
    store: LogStore,
    rates: Arc<Rates>,
    keys: DataKeys,
    agent: Agent,
    outbox: mpsc::Sender<Result<FromDaemon, Status>>,
}

impl Upload {
    /// To the end: `Ok` if the agent went away.
    async fn run(&self, mut inbox: Streaming<FromAgent>, mut place: Place) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbox.next()).await;
        let Ok(Some(Ok(FromAgent { body: Some(Said::Hello(hello)) }))) = first else {
            return Err(Status::invalid_argument("a Hello comes first"));
        };
        let Hello { version_min, version_max, spool } = hello;
        if !(version_min..=version_max).contains(&VERSION) {
            return Err(Status::unimplemented(format!("this daemon speaks version {VERSION} of the upload")));
        }
        let spool = <[u8; 16]>::try_from(spool.as_slice())
            .map_err(|_| Status::invalid_argument("the id of a spool has 16 bytes"))?;
        // What changed before it had its place was told to nobody.
        self.check_state().await?;
        let (store, agent) = (self.store.clone(), self.agent.id);
        let kept = blocking(&self.hub.db, move |_| store.kept(agent, spool)).await.map_err(status)?;
        // An answer, and when it is due: until then nothing more is taken in. What the agent brought before it hung up is
        // waited for first.
        let owed = self.rates.owed(agent, std::time::Instant::now());
        let mut answer = Some((Body::Welcome(Welcome { version: VERSION, kept }), Instant::now() + owed));
        loop {
            let due = answer.as_ref().map(|(_, due)| *due);
            let waited = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = waited => {
                    if let Some((body, _)) = answer.take() {
                        self.say(body).await?;
                    }
                }
                message = inbox.next(), if due.is_none() => match message {
                    Some(Ok(FromAgent { body: Some(Said::Batch(batch)) })) => {
                        let (kept, due) = self.take(spool, batch).await?;
                        answer = Some((Body::Kept(kept), due));
                    }
                    Some(Ok(_)) => return Err(Status::invalid_argument("this may not come here")),
                    // One that cannot be decoded, or is too large, is told by tonic.
                    Some(Err(status)) => return Err(status),
                    None => return Ok(()),
                },
                () = place.news.notified() => self.check_state().await?,
                reason = sent_away(&mut place.goodbye) => {
                    return Err(Status::unavailable(format!("the upload ends: {}", reason.as_str_name())));
                }
            }
        }
    }

    /// Whether the agent may still speak.
    async fn check_state(&self) -> Result<(), Status> {
        let id = self.agent.id;
        let agent = blocking(&self.hub.db, move |db| db.read(|db| agents::get(db, id))).await;
        allowed(&agent.map_err(status)?)
    }

    /// Puts a batch on the disk.
    async fn take(&self, spool: [u8; 16], batch: Batch) -> Result<(Kept, Instant), Status> {
        let Batch { first, count, content } = batch;
        let (brought, bytes): (usize, usize) = match &content {
            Some(Content::Records(content)) => {
                (content.records.len(), content.records.iter().map(size).sum())
            }
            Some(Content::Sealed(content)) => {
                (content.records.len(), content.records.iter().map(Vec::len).sum())
            }
            None => return Err(Status::invalid_argument("a batch has records")),
        };
        let too_long = match &content {
            // What is sealed cannot be cut.
            Some(Content::Sealed(content)) => {
                content.records.iter().any(|record| record.len() > SEALED_RECORD_BYTES_MAX)
            }
            _ => false,
        };
        if brought == 0
            || too_long
            || brought > LOG_BATCH_RECORDS_MAX
            || usize::try_from(count) != Ok(brought)
            || bytes > LOG_BATCH_BYTES_MAX
        {
            return Err(Status::invalid_argument(
                "a batch is empty, too large, or not of its count, or a record of it is too large",
            ));
        }
        let (store, id) = (self.store.clone(), self.agent.id);
        let envelope_bytes = match &content {
            Some(Content::Sealed(content)) => content.envelope.len(),
            _ => 0,
        };
        let (keys, agent) = (self.keys.clone(), self.agent.clone());
        let take = move |db: &Db, price: &mut usize| {
            let records = match content {
                None => Vec::new(),
                Some(Content::Records(content)) => content.records,
                Some(Content::Sealed(Sealed { envelope, records })) => {
                    let envelope =
                        Envelope::decode(&envelope).map_err(|error| DbError::Invalid(error.to_string()))?;
                    if envelope.owner() != OwnerId(spool) {
                        return Err(DbError::Invalid("the envelope is of another spool".to_owned()));
                    }
                    let (agent, envelope, records) = (&agent, &envelope, &records[..]);
                    let batch = SealedBatch { agent, spool, first, envelope, records };
                    match sealed::take(&keys, db, &store, &batch, price)? {
                        Taken::Records(records) => records,
                        Taken::Sealed(number) => return Ok(number),
                    }
                }
            };
            let named = records.iter().map(|record| record.run_id.as_slice());
            let runs = db.read(|db| runs_of(db, id, named))?;
            let records: Vec<_> = records.into_iter().map(|record| judged(record, &runs)).collect();
            store.take(id, spool, first, &records)
        };
        let paid = move |db: &Db| {
            let mut price = 0;
            let taken = take(db, &mut price);
            Ok((taken, price))
        };
        let (taken, price) = blocking(&self.hub.db, paid).await.map_err(status)?;
        // What was refused is paid for as well: it made work.
        let (records, bytes) = (brought + price, bytes + envelope_bytes);
        let delay = self.rates.pay(id, records, bytes, std::time::Instant::now());
        let number = taken.map_err(status)?;
        Ok((Kept { number }, Instant::now() + delay))
    }

    async fn say(&self, body: Body) -> Result<(), Status> {
        let sent = self.outbox.send(Ok(FromDaemon { body: Some(body) }));
        match tokio::time::timeout(SEND_TIMEOUT, sent).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Status::cancelled("the agent takes nothing")),
        }
    }
}

/// As the agent counts it: what the record is on the wire.
fn size(record: &Record) -> usize {
    prost::Message::encoded_len(record)
}
