//! The serving side's handshake: finds the job a ClientHello names and lets in those who hold its key.
//!
//! ClientHello → tag → the job's configuration, or a decoy's → rest of the handshake, all under one absolute deadline
//! and one place in the [`HandshakeGate`]. A decoy is a job like any other, except that nobody has its key: it is
//! derived from a secret of this process and the name asked for. So a stranger who names an unknown job and one who
//! names a real job without its key see the same messages, the same sizes and the same alerts, however often they ask.
//! Which of the two it was is for the log alone.

mod jobs;

use crate::connection::Connection;
use crate::gate::{AuthDeadline, HandshakeGate, Overdue};
use crate::handshake::Opening;
use crate::listen::{Arrival, Incoming};
use crate::quic;
use crate::tag::Clock;
use crate::tls::TlsFailure;
pub(crate) use jobs::Jobs;
pub use jobs::{DecoySecret, JobIndex, ServedJob};
use sealift_proto::limits::HANDSHAKE_TIMEOUT_MS;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A refused peer is given this long to take the alert in; closing at once would reset the connection and lose it.
const LINGER: Duration = Duration::from_secs(1);
/// And this many bytes are read from it meanwhile.
const LINGER_BYTES: u64 = 1 << 20;

/// What an [`Acceptor`] shares with the rest of the process, and what tests set.
#[derive(Clone, Debug)]
pub struct AcceptorOptions {
    /// Bounds the handshakes of all shards together.
    pub gate: HandshakeGate,
    /// Makes up the jobs that do not exist.
    pub decoy: DecoySecret,
    /// From accepting the connection to the end of its authentication.
    pub timeout: Duration,
    /// Says which day's tags are known.
    pub clock: Clock,
}

impl AcceptorOptions {
    /// The limits of the protocol, the system's clock, a new gate and a new decoy secret.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            gate: HandshakeGate::new(),
            decoy: DecoySecret::random()?,
            timeout: Duration::from_millis(HANDSHAKE_TIMEOUT_MS),
            clock: Clock::system(),
        })
    }
}

/// Authenticates incoming connections. One serves all shards, behind an `Arc`.
#[derive(Debug)]
pub struct Acceptor {
    jobs: Arc<Jobs>,
    options: AcceptorOptions,
    quic: Arc<quinn::ServerConfig>,
}

/// A connection whose peer holds its job's key.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub connection: Connection,
    /// The job it is for.
    pub job: JobIndex,
    /// Read the first message under this, then drop it.
    pub auth: AuthDeadline,
}

/// Why a peer was not let in. For the log: the peer cannot tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It named no job that is served here on this day.
    UnknownJob,
    /// It named a job and did not prove that it holds its key, or did not believe that we do.
    WrongKey,
}

/// Why a handshake on the serving side failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Too slow, or in the way of newer ones.
    #[error(transparent)]
    Overdue(#[from] Overdue),
    /// The peer lacks the key.
    #[error("the peer was refused ({0:?}): {1}")]
    NotAuthorized(Refusal, String),
    /// The peer speaks another protocol or version, or breaks this one's rules.
    #[error("the peer does not speak sealift/1 properly: {0}")]
    Incompatible(String),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    pub(crate) fn new(failure: TlsFailure, job: Option<JobIndex>) -> Self {
        let refusal = if job.is_some() { Refusal::WrongKey } else { Refusal::UnknownJob };
        match failure {
            TlsFailure::Key(why) => Self::NotAuthorized(refusal, why),
            TlsFailure::Protocol(why) => Self::Incompatible(why),
            TlsFailure::Io(error) => Self::Io(error),
        }
    }
}

impl Acceptor {
    /// Serves these jobs.
    #[must_use]
    pub fn new(jobs: Vec<ServedJob>, options: AcceptorOptions) -> Self {
        let jobs = Arc::new(Jobs::new(jobs, options.decoy.clone(), options.clock.clone()));
        let quic = quic::serving_config(&jobs);
        Self { jobs, options, quic }
    }

    /// Serves other jobs through the same gate and behind the same decoys.
    #[must_use]
    pub fn with_jobs(&self, jobs: Vec<ServedJob>) -> Self {
        Self::new(jobs, self.options.clone())
    }

    /// The gate it admits handshakes through.
    #[must_use]
    pub const fn gate(&self) -> &HandshakeGate {
        &self.options.gate
    }

    /// Authenticates a connection, on the runtime it is called from.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed then, after a refused peer was told so.
    pub async fn handshake(&self, incoming: Incoming) -> Result<Accepted, HandshakeError> {
        let deadline = incoming.accepted_at + self.options.timeout;
        let mut auth = AuthDeadline::new(self.options.gate.enter(), deadline);
        let peer = incoming.peer;
        let negotiated = async {
            match incoming.arrival {
                Arrival::Tcp(stream) => self.negotiate(stream, peer).await,
                Arrival::Quic(arrival) => self.negotiate_quic(arrival).await,
            }
        };
        let (connection, job) = auth.run(negotiated).await??;
        Ok(Accepted { connection, job, auth })
    }

    /// A connection's first stream, or a further one of a peer that has proved itself.
    async fn negotiate_quic(&self, arrival: quic::Arrival) -> Result<(Connection, JobIndex), HandshakeError> {
        let (stream, job) = match arrival {
            quic::Arrival::Connection(arriving) => {
                quic::negotiate(arriving, Arc::clone(&self.quic), Arc::clone(&self.jobs)).await?
            }
            quic::Arrival::Stream(stream, jobs, job) if Arc::ptr_eq(&jobs, &self.jobs) => (stream, job),
            quic::Arrival::Stream(..) => {
                let why = "a stream of a job that is no longer served".to_owned();
                return Err(HandshakeError::NotAuthorized(Refusal::UnknownJob, why));
            }
        };
        Ok((Connection::from_stream(stream), job))
    }

    async fn negotiate(
        &self,
        stream: std::net::TcpStream,
        peer: SocketAddr,
    ) -> Result<(Connection, JobIndex), HandshakeError> {
        let mut opening = TcpStream::from_std(stream).and_then(Opening::new).map_err(HandshakeError::Io)?;
        let name = match opening.server_name().await {
            Ok(name) => name.unwrap_or_default(),
            Err(failure) => {
                linger(opening.stream).await;
                return Err(HandshakeError::new(failure, None));
            }
        };
        let (job, config) = self.jobs.choose(&name);
        match (opening.serve(&config).await, job) {
            (Ok(agreed), Some(job)) => {
                let connection = Connection::established(opening, agreed, peer);
                connection
                    .map(|connection| (connection, job))
                    .map_err(|why| HandshakeError::new(why, Some(job)))
            }
            (Ok(_), None) => Err(HandshakeError::NotAuthorized(
                Refusal::UnknownJob,
                "the peer knows a decoy's key".to_owned(),
            )),
            (Err(failure), job) => {
                linger(opening.stream).await;
                Err(HandshakeError::new(failure, job))
            }
        }
    }
}

/// Ends the sending side and reads on for a while, so that the peer gets to see what it was sent.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Failing or not, the connection ends here.
    let _ = tokio::time::timeout(LINGER, reading).await;
}
