//! What agents ask, answered.

use super::Shown;
use super::hub::{Hub, Line};
use super::{JOBS_MAX, intake};
use crate::address::network;
use crate::ca::{CaError, Request as CertificateRequest};
use crate::db::agents::{self, EnrolRequest as Asked, Hello as Greeted, Said};
use crate::db::{Actor, Db, DbError, Refusal, Write, events, new_id, runs, settings};
use crate::documents;
use crate::limiter::Limiter;
use crate::serve::Peer;
use prost::Message as _;
use sealift_api::agent::agent_message::Body as FromAgent;
use sealift_api::agent::channel_server::Channel;
use sealift_api::agent::daemon_message::Body as ToAgent;
use sealift_api::agent::enrol_reply::State as EnrolState;
use sealift_api::agent::enrolment_server::Enrolment;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::{
    AgentMessage, DaemonMessage, EnrolReply, EnrolRequest, EventsKept, Goodbye, Hello, RenewReply,
    RenewRequest, Report,
};
use sealift_api::rest::{Agent, AgentState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// From the beginning of a stream to the agent's Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages to an agent that may wait for it to take them.
const OUTBOX_MAX: usize = 8;
/// How long an agent may take nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Events in one report; more are a broken agent.
const EVENTS_MAX: usize = 1000;

/// Refused enrolments from an address at once.
const REFUSALS_BURST: u32 = 30;
/// And then one in so long.
const REFUSALS_EVERY: Duration = Duration::from_secs(2);

/// The services of the port.
#[derive(Clone)]
pub(super) struct Agents {
    hub: Arc<Hub>,
    /// Enrolments that were refused, by address.
    refused: Arc<Limiter<IpAddr>>,
}

/// How a stream ends.
enum Ended {
    /// The agent went away.
    Gone,
    /// It is sent away, and told why.
    SentAway(Reason, String),
    /// Something of ours failed: it comes again.
    Failed(DbError),
}

impl From<DbError> for Ended {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

impl Agents {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, refused: Arc::new(Limiter::new(REFUSALS_BURST, REFUSALS_EVERY)) }
    }

    /// The agent of a request, by the key of its certificate.
    async fn agent(&self, peer: &Peer, need: Need) -> Result<Agent, Status> {
        let shown = Shown::of(peer, self.hub.db.now_ms())
            .ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
        if shown.expired && need == Need::Valid {
            return Err(Status::unauthenticated(
                "the certificate has expired: renew it (or is a clock wrong?)",
            ));
        }
        let found = blocking(&self.hub.db, move |db| db.read(|db| agents::by_key(db, &shown.key))).await;
        found.map_err(|error| match error {
            DbError::NotFound(_) => Status::permission_denied("this agent is not known"),
            error => status(error),
        })
    }
}

/// What a certificate must be for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Valid,
    /// The key alone counts.
    Key,
}

#[tonic::async_trait]
impl Enrolment for Agents {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let address = peer(&request)?.address.ip();
        let from = network(address);
        // Only who was refused is held back: many hosts behind one address may enrol at once.
        self.refused.look(&from, Instant::now()).map_err(too_often)?;
        let address = address.to_string();
        let EnrolRequest { token, name, csr, host } = request.into_inner();
        let hub = Arc::clone(&self.hub);
        let reply = blocking(&self.hub.db, move |db| {
            let by = Actor::anonymous(&address, new_id());
            let wanted = match CertificateRequest::parse(&csr) {
                Ok(wanted) => wanted,
                Err(error) => {
                    let reason = serde_json::json!({ "reason": error.to_string() });
                    let (action, why) = ("agent.enrol.refused", "request");
                    db.refuse(&by, &Refusal { action, subject: "agent:?", why, after: reason })?;
                    return Err(DbError::Invalid(error.to_string()));
                }
            };
            let facts = host.unwrap_or_default();
            let asked =
                Asked { token: &token, name: &name, key: wanted.key_hash, facts: &facts, address: &address };
            let enrolled = agents::enrol(db, &by, &asked)?;
            let mut reply = EnrolReply {
                state: EnrolState::Pending.into(),
                agent_id: enrolled.id.as_bytes().to_vec(),
                certificate: Vec::new(),
                ca_certificate: hub.authority.certificate().to_vec(),
            };
            if enrolled.state == AgentState::Approved {
                let issued = issue(&hub, db, &by, &wanted, &enrolled)?;
                reply.state = EnrolState::Approved.into();
                reply.certificate = issued;
            }
            Ok(reply)
        });
        let reply = reply.await;
        if let Err(DbError::Refused(_) | DbError::Invalid(_)) = &reply {
            let _ = self.refused.take(&from, Instant::now());
        }
        reply.map(Response::new).map_err(status)
    }
}

/// Of who was refused too often: after how long to come again.
fn too_often(wait: Duration) -> Status {
    let mut status = Status::resource_exhausted("too many enrolments from this address were refused: wait");
    status.metadata_mut().insert("retry-after", (wait.as_secs() + 1).into());
    status
}

#[tonic::async_trait]
impl Channel for Agents {
    type FollowStream = ReceiverStream<Result<DaemonMessage, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let peer = peer(&request)?;
        let agent = self.agent(&peer, Need::Valid).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
        let (hub, inbox) = (Arc::clone(&self.hub), request.into_inner());
        tokio::spawn(async move {
            let address = peer.address.ip().to_string();
            let mut talk = Talk { hub, agent, address, outbox, known: intake::Known::default() };
            let ended = talk.run(inbox).await;
            talk.end(ended).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let peer = peer(&request)?;
        let agent = self.agent(&peer, Need::Key).await?;
        if agent.state != AgentState::Approved {
            return Err(Status::permission_denied("this agent may not have a certificate"));
        }
        let csr = request.into_inner().csr;
        let hub = Arc::clone(&self.hub);
        let issued = blocking(&self.hub.db, move |db| {
            let wanted =
                CertificateRequest::parse(&csr).map_err(|error| DbError::Invalid(error.to_string()))?;
            if data_encoding::HEXLOWER.encode(&wanted.key_hash) != agent.key {
                return Err(DbError::Refused("the request is for another key than the agent's".into()));
            }
            let by = by_agent(&agent, &peer.address.ip().to_string());
            issue(&hub, db, &by, &wanted, &agent)
        });
        let certificate = issued.await.map_err(status)?;
        Ok(Response::new(RenewReply { certificate }))
    }
}

/// Makes a certificate, and notes until when it holds.
fn issue(
    hub: &Hub,
    db: &Db,
    by: &Actor,
    wanted: &CertificateRequest,
    agent: &Agent,
) -> Result<Vec<u8>, DbError> {
    let seconds = db.read(settings::get)?.agent_certificate_seconds;
    let lifetime = Duration::from_secs(seconds.into());
    let issued = hub.authority.agent(wanted, agent.id, agent.name.as_str(), lifetime);
    let issued = issued.map_err(|error| match error {
        CaError::Db(error) => error,
        error => DbError::Invalid(error.to_string()),
    })?;
    db.write(by, |write| agents::certified(write, agent.id, issued.expires_ms))?;
    Ok(issued.certificate.to_vec())
}

/// One agent's stream.
struct Talk {
    hub: Arc<Hub>,
    agent: Agent,
    address: String,
    outbox: mpsc::Sender<Result<DaemonMessage, Status>>,
    /// What the agent's last reports said.
    known: intake::Known,
}

impl Talk {
    async fn run(&mut self, mut inbox: Streaming<AgentMessage>) -> Result<(), Ended> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbox.next()).await;
        let Ok(Some(Ok(AgentMessage { body: Some(FromAgent::Hello(hello)) }))) = first else {
            return Err(protocol("a Hello comes first"));
        };
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            let message = format!("this daemon speaks version {VERSION} of the channel");
            return Err(Ended::SentAway(Reason::Version, message));
        }
        self.check_state().await?;
        let incarnation = self.hello(hello).await?;
        let place = self.hub.enter(self.agent.id, Line::Channel);
        let mut goodbye = place.goodbye.clone();
        // The first document is said whatever the agent has: with it comes its incarnation.
        let mut said = None;
        self.say_document(&mut said, &incarnation).await?;
        loop {
            tokio::select! {
                message = inbox.next() => match message {
                    Some(Ok(AgentMessage { body: Some(FromAgent::Ack(ack)) })) => {
                        let id = self.agent.id;
                        let bytes = ack.incarnation.len();
                        let acknowledge = move |write: &mut Write<'_>| {
                            agents::acknowledge(write, id, ack.document, &ack.incarnation)
                        };
                        self.write(bytes, acknowledge).await?;
                    }
                    Some(Ok(AgentMessage { body: Some(FromAgent::Report(report)) })) => self.take(report).await?,
                    Some(Ok(_)) => return Err(protocol("this may not come here")),
                    Some(Err(_)) | None => return Err(Ended::Gone),
                },
                () = place.news.notified() => {
                    self.check_state().await?;
                    self.say_document(&mut said, &incarnation).await?;
                }
                reason = sent_away(&mut goodbye) => return Err(Ended::SentAway(reason, String::new())),
            }
        }
    }

    /// Whether the agent may still speak.
    async fn check_state(&mut self) -> Result<(), Ended> {
        let id = self.agent.id;
        self.agent = blocking(&self.hub.db, move |db| db.read(|db| agents::get(db, id))).await?;
        match self.agent.state {
            AgentState::Approved => Ok(()),
            AgentState::Quarantined => Err(Ended::SentAway(
                Reason::Quarantined,
                "two agents have this identity, or it was restored from an old copy: an operator has to decide".into(),
            )),
            AgentState::Revoked => Err(Ended::SentAway(Reason::Revoked, "the agent was revoked".into())),
            AgentState::Pending => Err(protocol("the agent was not approved")),
        }
    }

    async fn hello(&self, hello: Hello) -> Result<Vec<u8>, Ended> {
        let (id, by) = (self.agent.id, self.by());
        let said = self.write(hello.encoded_len(), move |write| {
            let facts = hello.host.unwrap_or_default();
            let said = Said {
                incarnation: &hello.incarnation,
                document: hello.document,
                facts: &facts,
                address: &by.address,
            };
            agents::hello(write, id, &said)
        });
        match said.await? {
            Greeted::Accepted { incarnation } => Ok(incarnation.to_vec()),
            Greeted::Quarantined => {
                // Whoever else is connected under this identity goes too.
                self.hub.wake([self.agent.id]);
                Err(Ended::SentAway(
                    Reason::Quarantined,
                    "two agents have this identity, or it was restored from an old copy".into(),
                ))
            }
        }
    }

    /// Says what is desired, unless that was said already.
    async fn say_document(&self, said: &mut Option<u64>, incarnation: &[u8]) -> Result<(), Ended> {
        let id = self.agent.id;
        let mut document = self.write(0, move |write| documents::current(write, id)).await?;
        if said.replace(document.number) == Some(document.number) {
            return Ok(());
        }
        document.incarnation = incarnation.to_vec();
        document.logs_port = u32::from(self.hub.logs_port.load(Ordering::Relaxed));
        document.tracker_port = u32::from(self.hub.tracker_port.load(Ordering::Relaxed));
        self.say(ToAgent::Document(document)).await
    }

    async fn take(&mut self, report: Report) -> Result<(), Ended> {
        if report.events.len() > EVENTS_MAX || report.jobs.len() > JOBS_MAX {
            return Err(protocol("a report has too much in it"));
        }
        let id = self.agent.id;
        if self.known.is_progress(&report) {
            // With nothing in it, it says that the agent lives.
            intake::progress(&self.hub, id, self.by(), report.jobs).await;
            return Ok(());
        }
        let shapes = intake::Known::shapes(&report.jobs);
        let taken = self.write(report.encoded_len(), move |write| {
            let Report { jobs, events } = report;
            let kept = if events.is_empty() { None } else { Some(events::keep(write, id, &events)?) };
            let concerned = runs::report(write, id, &jobs)?;
            Ok((kept, concerned))
        });
        let (kept, concerned) = taken.await?;
        self.known.learn(shapes);
        self.hub.wake(concerned);
        if let Some(number) = kept {
            self.say(ToAgent::EventsKept(EventsKept { number })).await?;
        }
        Ok(())
    }

    /// Writes something, together with what other agents bring.
    async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        intake::write(&self.hub, self.agent.id, self.by(), bytes, work).await
    }

    fn by(&self) -> Actor {
        by_agent(&self.agent, &self.address)
    }

    async fn say(&self, body: ToAgent) -> Result<(), Ended> {
        let message = Ok(DaemonMessage { body: Some(body) });
        match tokio::time::timeout(SEND_TIMEOUT, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ended::Gone),
        }
    }

    async fn end(self, ended: Result<(), Ended>) {
        let name = self.agent.name.as_str();
        match ended {
            Ok(()) | Err(Ended::Gone) => tracing::debug!(agent = name, "an agent went away"),
            Err(Ended::Failed(error)) => {
                tracing::error!(agent = name, %error, "an agent could not be served");
                let _ = self.outbox.send(Err(status(error))).await;
            }
            Err(Ended::SentAway(reason, message)) => {
                tracing::info!(agent = name, ?reason, "an agent is sent away");
                let _ = self.say(ToAgent::Goodbye(Goodbye { reason: reason.into(), message })).await;
            }
        }
    }
}

/// Of the channel.
const VERSION: u32 = 1;

/// Ends when the agent is to be sent away.
pub(crate) async fn sent_away(goodbye: &mut watch::Receiver<Option<Reason>>) -> Reason {
    match goodbye.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(reason) => reason.unwrap_or(Reason::Replaced),
        // Its place was taken, and nobody is left who could say so.
        Err(_) => Reason::Replaced,
    }
}

fn protocol(what: &str) -> Ended {
    Ended::SentAway(Reason::Protocol, what.into())
}

fn by_agent(agent: &Agent, address: &str) -> Actor {
    Actor { who: format!("agent:{}", agent.name), address: address.into(), request_id: new_id() }
}

pub(crate) fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("the connection has no peer"))
}

/// Runs what blocks where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    db: &Db,
    work: impl FnOnce(&Db) -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    let db = db.clone();
    let done = tokio::task::spawn_blocking(move || work(&db)).await;
    done.unwrap_or_else(|error| Err(DbError::Damaged(format!("a task failed: {error}"))))
}

pub(crate) fn status(error: DbError) -> Status {
    let code = match &error {
        DbError::NotFound(_) => Code::NotFound,
        DbError::Conflict(_) => Code::AlreadyExists,
        DbError::Invalid(_) => Code::InvalidArgument,
        DbError::Refused(_) => Code::PermissionDenied,
        _ => Code::Internal,
    };
    // What is wrong here is for the daemon's log alone.
    if code == Code::Internal {
        tracing::error!(%error, "a request of an agent failed");
        return Status::internal("the daemon could not do this");
    }
    Status::new(code, error.to_string())
}
