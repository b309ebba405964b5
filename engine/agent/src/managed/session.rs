//! The connection to the control daemon: dialled again and again, renewed certificates, messages both ways.
//!
//! Owns the connection and the certificate, and nothing of what the messages mean: those go to the agent and come from it.
//! While the daemon is away there is nothing here but a pause.

use crate::error::RunError;
use crate::managed::credentials::{Credentials, date};
use crate::managed::document::DOCUMENT_BYTES_MAX;
use crate::managed::home::{Home, Identity};
use crate::managed::{facts, pause, tls};
use sealift_api::agent::channel_client::ChannelClient;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::{
    AgentMessage, DaemonMessage, Document, Goodbye, Hello, RenewRequest, agent_message,
};
use sealift_proto::path::escape;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// The versions of the channel that this agent speaks.
const VERSIONS: (u32, u32) = (1, 1);
/// Messages to the daemon that may wait.
const OUTBOX_MAX: usize = 16;
/// News from the daemon that may wait.
pub(crate) const NEWS_MAX: usize = 16;
/// From Hello to the first document, and one call of Renew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether the certificate has to be renewed, and after a failure tried again.
const RENEW_TICK: Duration = Duration::from_secs(60);
/// How often an agent in quarantine asks whether it was released.
const QUARANTINE_TICK: Duration = Duration::from_secs(60);
/// After a connection that lived for so long the pauses begin small again.
const STEADY: Duration = Duration::from_secs(60);

/// The last document on the disk, for the next Hello.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) document: u64,
    pub(crate) incarnation: Vec<u8>,
}

/// What the agent is told.
#[derive(Debug)]
pub(crate) enum FromDaemon {
    /// The daemon listens, and this is its first document. Everything is to be said again.
    Up(mpsc::Sender<AgentMessage>, Document),
    Document(Document),
    EventsKept(u64),
    /// The daemon bars this agent: it was revoked, or is in quarantine.
    Barred(Reason, String),
    /// The connection is gone, and when the next is tried.
    Down(String, Duration),
    /// The certificate was renewed.
    Renewed(String),
    /// Somebody is not who the daemon should be, or refuses this agent.
    Alarm(String),
    /// Something that the operator should see.
    Warning(String),
}

/// See the module.
pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) identity: Identity,
    pub(crate) credentials: Credentials,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) news: mpsc::Sender<FromDaemon>,
}

/// How a connection ended.
enum Ended {
    /// An error, ours or theirs.
    Lost(RunError),
    Goodbye(Reason, String),
    /// Nobody listens to this session any more.
    Deaf,
}

impl From<RunError> for Ended {
    fn from(error: RunError) -> Self {
        Self::Lost(error)
    }
}

impl Session {
    /// Keeps the connection up until the agent is revoked or nobody listens.
    pub(crate) async fn keep_up(mut self) {
        let mut failures = 0;
        loop {
            let begun = tokio::time::Instant::now();
            let Err(ended) = self.once().await;
            if begun.elapsed() >= STEADY {
                failures = 0;
            }
            let delay = pause::delay(failures);
            failures += 1;
            let (said, delay) = match ended {
                Ended::Deaf => return,
                Ended::Lost(error) => {
                    let is_refusal = matches!(error, RunError::Barred(_));
                    let error = error.to_string();
                    if is_refusal && self.news.send(FromDaemon::Alarm(error.clone())).await.is_err() {
                        return;
                    }
                    (error, delay)
                }
                Ended::Goodbye(reason @ (Reason::Revoked | Reason::Quarantined), text) => {
                    if self.news.send(FromDaemon::Barred(reason, text.clone())).await.is_err()
                        || reason == Reason::Revoked
                    {
                        return;
                    }
                    (format!("this agent is in quarantine: {text}"), QUARANTINE_TICK)
                }
                Ended::Goodbye(reason, text) => (parting(reason, &text), delay),
            };
            if self.news.send(FromDaemon::Down(said, delay)).await.is_err() {
                return;
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection, to its end.
    async fn once(&mut self) -> Result<std::convert::Infallible, Ended> {
        if let Some(doubt) = self.credentials.certificate.clock_doubt(SystemTime::now()) {
            self.tell(FromDaemon::Warning(doubt)).await?;
        }
        if self.credentials.certificate.is_due(SystemTime::now()) {
            self.renew_beforehand().await?;
        }
        let channel = self.dial().await?;
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MAX);
        let hello = AgentMessage { body: Some(agent_message::Body::Hello(self.hello())) };
        outbox.send(hello).await.map_err(|_| Ended::Deaf)?;
        let mut client = ChannelClient::new(channel.clone()).max_decoding_message_size(DOCUMENT_BYTES_MAX);
        let begin = async {
            let mut incoming = client.follow(ReceiverStream::new(outgoing)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let (incoming, first) = self.answered(begin).await?;
        match first.and_then(|message| message.body) {
            Some(Body::Document(document)) => {
                self.tell(FromDaemon::Up(outbox, document)).await?;
            }
            Some(Body::Goodbye(goodbye)) => return Err(parted(&goodbye)),
            _ => return Err(self.failed("does not begin with a document").into()),
        }
        self.listen(incoming, channel).await
    }

    async fn listen(
        &mut self,
        mut incoming: Streaming<DaemonMessage>,
        channel: Channel,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut renewals = tokio::time::interval(RENEW_TICK);
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(|status| tls::of_status(&self.identity.daemon, &status))?;
                    match message.map(|message| message.body) {
                        Some(Some(Body::Document(document))) => {
                            self.tell(FromDaemon::Document(document)).await?;
                        }
                        Some(Some(Body::EventsKept(kept))) => {
                            self.tell(FromDaemon::EventsKept(kept.number)).await?;
                        }
                        Some(Some(Body::Goodbye(goodbye))) => return Err(parted(&goodbye)),
                        // Of a newer daemon.
                        Some(None) => {}
                        None => return Err(self.away("it closed the connection").into()),
                    }
                }
                _ = renewals.tick() => {
                    if self.credentials.certificate.is_due(SystemTime::now()) {
                        let renewed = self.renew(channel.clone()).await;
                        self.tell_renewal(renewed).await?;
                    }
                }
                // The agent has let go.
                () = self.news.closed() => return Err(Ended::Deaf),
            }
        }
    }

    /// Renews over a connection of its own: the daemon lets nothing else be done with a certificate that has expired.
    async fn renew_beforehand(&mut self) -> Result<(), Ended> {
        let channel = self.dial().await?;
        match self.renew(channel).await {
            Err(error) if self.credentials.certificate.has_expired(SystemTime::now()) => Err(error.into()),
            renewed => self.tell_renewal(renewed).await,
        }
    }

    async fn renew(&mut self, channel: Channel) -> Result<(), RunError> {
        let csr = self.credentials.key.request(&self.identity.name)?;
        let mut client = ChannelClient::new(channel);
        let reply = self.answered(client.renew(RenewRequest { csr })).await?;
        self.credentials.renew(&self.home, reply.into_inner().certificate)
    }

    async fn tell_renewal(&self, renewed: Result<(), RunError>) -> Result<(), Ended> {
        let told = match renewed {
            Ok(()) => {
                let until = date(self.credentials.certificate.not_after);
                FromDaemon::Renewed(format!("The certificate was renewed, until {until}."))
            }
            Err(error) => FromDaemon::Warning(format!("The certificate could not be renewed: {error}")),
        };
        self.tell(told).await
    }

    async fn dial(&self) -> Result<Channel, RunError> {
        tls::dial(&self.identity.daemon, tls::for_agent(&self.credentials)?).await
    }

    /// Waits for an answer of the daemon's, for as long as one may take.
    async fn answered<T>(&self, call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, RunError> {
        match timeout(ANSWER_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|status| tls::of_status(&self.identity.daemon, &status)),
            Err(_) => Err(self.away("it does not answer")),
        }
    }

    async fn tell(&self, news: FromDaemon) -> Result<(), Ended> {
        self.news.send(news).await.map_err(|_| Ended::Deaf)
    }

    fn hello(&self) -> Hello {
        let standing = self.standing.borrow().clone();
        Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            host: Some(facts::gather(&self.identity)),
            document: standing.document,
            incarnation: standing.incarnation,
        }
    }

    fn away(&self, what: &str) -> RunError {
        RunError::DaemonAway(format!("the control daemon at {}: {what}", self.identity.daemon))
    }

    fn failed(&self, what: &str) -> RunError {
        RunError::Failed(format!("the control daemon at {} {what}", self.identity.daemon))
    }
}

fn parted(goodbye: &Goodbye) -> Ended {
    Ended::Goodbye(goodbye.reason(), escape(goodbye.message.as_bytes()))
}

fn parting(reason: Reason, text: &str) -> String {
    let why = match reason {
        Reason::Version => {
            "the daemon and this agent have no version in common: one of them has to be updated"
        }
        Reason::ShuttingDown => "the daemon is shutting down",
        Reason::Replaced => "another connection of this agent has taken the place of this one",
        Reason::Protocol => "the daemon says that this agent broke the protocol",
        Reason::Revoked => "the daemon has revoked this agent",
        Reason::Quarantined => "this agent is in quarantine",
        Reason::Unspecified => "the daemon speaks no more with this agent",
    };
    if text.is_empty() { why.to_owned() } else { format!("{why}: {text}") }
}
