//! One of them: its connection, and what it says.

use super::{Counts, Order};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use sealift_api::agent::channel_client::ChannelClient;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::job_status::State;
use sealift_api::agent::{
    Ack, AgentMessage, Assignment, DaemonMessage, Document, EnrolReply, Event, Hello, HostFacts, JobStatus,
    Report, agent_message, assignment, event,
};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Why something cannot be done.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The name that every daemon shows to agents.
const NAME: &str = "control.sealift.invalid";

/// An agent that has enrolled.
pub(super) struct Member {
    daemon: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A connection on which it is listened to.
struct Line {
    out: mpsc::Sender<AgentMessage>,
    incoming: Streaming<DaemonMessage>,
    assignments: Vec<Assignment>,
}

impl Member {
    pub(super) fn new(
        daemon: SocketAddr,
        outsider: &Arc<ClientConfig>,
        key: &KeyPair,
        reply: EnrolReply,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(reply.ca_certificate)).expect("it is an authority");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(outsider.crypto_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![CertificateDer::from(reply.certificate)], key)
            .expect("its certificate is for its key");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Self { daemon, tls: Arc::new(tls) }
    }

    /// Its terms of TLS, on every port of the daemon's.
    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Connects and reports for as long as it is let.
    pub(super) async fn live(
        self,
        doors: Arc<Semaphore>,
        mut orders: watch::Receiver<Order>,
        counts: Arc<Counts>,
        every: Duration,
        offset: Duration,
    ) {
        let mut line = {
            let _door = doors.acquire().await.expect("it is never closed");
            self.connect().await.expect("the daemon takes it")
        };
        counts.connected.fetch_add(1, Ordering::Relaxed);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut said, mut told) = (0, HashSet::new());
        loop {
            tokio::select! {
                message = line.incoming.message() => match message.ok().flatten().and_then(|message| message.body) {
                    Some(Body::Document(document)) => line.take(document).await,
                    Some(Body::EventsKept(_)) => drop(counts.events_kept.fetch_add(1, Ordering::Relaxed)),
                    Some(Body::Goodbye(_)) | None => {
                        if !counts.ending.load(Ordering::Relaxed) {
                            counts.lost.fetch_add(1, Ordering::Relaxed);
                        }
                        return;
                    }
                },
                _ = orders.changed() => {}
                _ = ticks.tick() => {
                    said += 1;
                    let order = *orders.borrow();
                    let mut report = Report::default();
                    for assignment in &line.assignments {
                        let status = status_of(assignment, order, said);
                        if status.state() == State::Done && told.insert(assignment.run_id.clone()) {
                            report.events.push(event_of(assignment, told.len()));
                            counts.events.fetch_add(1, Ordering::Relaxed);
                        }
                        report.jobs.push(status);
                    }
                    if !report.jobs.is_empty() {
                        counts.progress.fetch_add(1, Ordering::Relaxed);
                        line.say(agent_message::Body::Report(report)).await;
                    }
                    counts.heartbeats.fetch_add(1, Ordering::Relaxed);
                    line.say(agent_message::Body::Report(Report::default())).await;
                }
            }
        }
    }

    async fn connect(&self) -> Result<Line, Failure> {
        let host = Some(HostFacts { hostname: "simulated".into(), cores: 1, ..HostFacts::default() });
        let hello = Hello { version_min: 1, version_max: 1, host, ..Hello::default() };
        let (out, mut incoming) = self.follow(hello).await?;
        let first = incoming.message().await?.and_then(|message| message.body);
        let Some(Body::Document(document)) = first else {
            return Err(format!("it begins with {first:?}").into());
        };
        let mut line = Line { out, incoming, assignments: Vec::new() };
        line.take(document).await;
        Ok(line)
    }

    /// Opens the channel with a Hello.
    pub(super) async fn follow(
        &self,
        hello: Hello,
    ) -> Result<(mpsc::Sender<AgentMessage>, Streaming<DaemonMessage>), Failure> {
        let channel = dial(self.daemon, Arc::clone(&self.tls)).await?;
        let (out, outgoing) = mpsc::channel(4);
        out.send(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }).await?;
        let incoming = ChannelClient::new(channel).follow(ReceiverStream::new(outgoing)).await?;
        Ok((out, incoming.into_inner()))
    }
}

impl Line {
    async fn say(&self, body: agent_message::Body) {
        // That the connection is gone is told by the other direction.
        let _ = self.out.send(AgentMessage { body: Some(body) }).await;
    }

    async fn take(&mut self, document: Document) {
        let ack = Ack { document: document.number, incarnation: document.incarnation };
        self.assignments = document.assignments;
        self.say(agent_message::Body::Ack(ack)).await;
    }
}

fn status_of(assignment: &Assignment, order: Order, said: u64) -> JobStatus {
    let is_source = assignment.role() == assignment::Role::Source;
    let state = if order == Order::BeDone && !is_source { State::Done } else { State::Running };
    JobStatus {
        job_id: assignment.job_id.clone(),
        run_id: assignment.run_id.clone(),
        state: state.into(),
        files: said,
        bytes: said << 20,
        bytes_known: 1 << 40,
        bytes_transferred: said << 19,
        addresses: if is_source { vec!["127.0.0.1:9".into()] } else { vec![] },
        ..JobStatus::default()
    }
}

fn event_of(assignment: &Assignment, number: usize) -> Event {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Event {
        number: number as u64,
        unix_millis: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        severity: event::Severity::Info.into(),
        job_id: assignment.job_id.clone(),
        run_id: assignment.run_id.clone(),
        message: "a simulated run has ended".into(),
    }
}

/// A connection, over which calls can be made.
pub(super) async fn dial(daemon: SocketAddr, tls: Arc<ClientConfig>) -> Result<Channel, Failure> {
    let tcp = TcpStream::connect(daemon).await?;
    tcp.set_nodelay(true)?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from(NAME)?, tcp).await?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://control.sealift.invalid")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector(connector).await?)
}
