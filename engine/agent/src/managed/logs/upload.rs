//! Brings the spool to the daemon: dials when there is something, sends a batch, waits until the daemon has it.
//!
//! One batch at a time: the daemon answers as fast as it wants to take, and what was not answered is sent again over the
//! next connection, from where the daemon says that it is.

use super::record::entry;
use super::spool::{Batch, Content};
use super::writer::Logs;
use crate::error::RunError;
use crate::managed::credentials::Credentials;
use crate::managed::home::{Home, Identity};
use crate::managed::{pause, tls};
use sealift_api::logs::from_agent::Body;
use sealift_api::logs::from_daemon::Body as Said;
use sealift_api::logs::logs_client::LogsClient;
use sealift_api::logs::record::Severity;
use sealift_api::logs::{self, FromAgent, FromDaemon, Hello, Records, Sealed};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// The versions of the upload that this agent speaks.
const VERSIONS: (u32, u32) = (1, 1);
/// From Hello to Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// From a batch to its answer, which the daemon may put off.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// A connection over which nothing goes is given up, for the daemon's sake.
const IDLE: Duration = Duration::from_secs(60);
/// Messages to the daemon that may wait.
const OUTBOX_MAX: usize = 2;

/// See the module.
pub(crate) struct Upload {
    pub(crate) home: Home,
    pub(crate) identity: Identity,
    pub(crate) logs: Logs,
    /// Of the daemon's host; 0 until it is known.
    pub(crate) port: watch::Receiver<u16>,
}

impl Upload {
    /// Goes on until the agent ends.
    pub(crate) async fn keep_up(mut self) {
        let (mut failures, mut kept) = (0, 0);
        loop {
            self.logs.after(kept).await;
            if self.port.wait_for(|port| *port > 0).await.is_err() {
                return;
            }
            let before = kept;
            match self.once(&mut kept).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if kept > before {
                        failures = 0;
                    }
                    if failures == 0 {
                        let text = format!("logs cannot be delivered: {error}");
                        self.logs.put(entry(Severity::Warning, "logs", text));
                    }
                    tokio::time::sleep(pause::delay(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// One connection, until nothing has gone over it for a while.
    async fn once(&mut self, kept: &mut u64) -> Result<(), RunError> {
        let daemon = self.address();
        let away = |what: &str| RunError::DaemonAway(format!("the control daemon at {daemon}: {what}"));
        // As they are now: the channel renews the certificate.
        let pin = self.identity.pin.parse();
        let pin = pin.map_err(|error| RunError::Failed(format!("identity.json: {error}")))?;
        let credentials = Credentials::load(&self.home, &pin)?;
        let channel = tls::dial(&daemon, tls::for_agent(&credentials)?).await?;
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MAX);
        let say = async |body| {
            let sent = outbox.send(FromAgent { body: Some(body) }).await;
            sent.map_err(|_| away("it closed the connection"))
        };
        let spool = self.logs.spool().to_vec();
        say(Body::Hello(Hello { version_min: VERSIONS.0, version_max: VERSIONS.1, spool })).await?;
        let mut client = LogsClient::new(channel);
        let begin = async {
            let mut incoming = client.upload(ReceiverStream::new(outgoing)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let begun = timeout(WELCOME_TIMEOUT, begin).await.map_err(|_| away("it does not answer"))?;
        let (mut incoming, first) = begun.map_err(|status| tls::of_status(&daemon, &status))?;
        let Some(Said::Welcome(welcome)) = first.and_then(|message| message.body) else {
            return Err(away("it does not begin with a Welcome"));
        };
        self.acked(welcome.kept, kept).await?;
        loop {
            let Some(batch) = self.logs.read(*kept).await.map_err(|error| unreadable(&error))? else {
                tokio::select! {
                    () = self.logs.after(*kept) => continue,
                    () = tokio::time::sleep(IDLE) => return Ok(()),
                    // Nothing is asked, so that whatever comes is its end.
                    ended = incoming.message() => {
                        return Err(match ended {
                            Err(status) => tls::of_status(&daemon, &status),
                            Ok(_) => away("it closed the connection"),
                        });
                    }
                }
            };
            let last = batch.first + batch.len() as u64 - 1;
            say(Body::Batch(on_the_wire(batch))).await?;
            let answer = timeout(ANSWER_TIMEOUT, answer(&mut incoming, last)).await;
            let answer = answer.map_err(|_| away("it does not answer"))?;
            let number = answer.map_err(|status| tls::of_status(&daemon, &status))?;
            self.acked(number, kept).await?;
        }
    }

    async fn acked(&self, number: u64, kept: &mut u64) -> Result<(), RunError> {
        self.logs.acked(number).await.map_err(|error| unreadable(&error))?;
        *kept = number;
        Ok(())
    }

    /// The daemon's host, with its port for logs.
    fn address(&self) -> String {
        let host = self.identity.daemon.rsplit_once(':').map_or("", |(host, _)| host);
        format!("{host}:{}", *self.port.borrow())
    }
}

/// Waits for the word that the daemon has all up to this number.
async fn answer(incoming: &mut Streaming<FromDaemon>, last: u64) -> Result<u64, tonic::Status> {
    loop {
        match incoming.message().await?.map(|message| message.body) {
            Some(Some(Said::Kept(kept))) if kept.number >= last => return Ok(kept.number),
            // Of a newer daemon.
            Some(_) => {}
            None => return Err(tonic::Status::unavailable("it closed the connection")),
        }
    }
}

fn on_the_wire(batch: Batch) -> logs::Batch {
    let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let content = match batch.content {
        Content::Plain(records) => logs::batch::Content::Records(Records { records }),
        Content::Sealed { envelope, records } => {
            logs::batch::Content::Sealed(Sealed { envelope: envelope.to_vec(), records })
        }
    };
    logs::Batch { first: batch.first, count, content: Some(content) }
}

fn unreadable(error: &std::io::Error) -> RunError {
    RunError::Failed(format!("the spool of logs cannot be used: {error}"))
}
