//! The serving side: connections and streams as they come in.
//!
//! A connection is accepted by the shard that it was given to, and its packets are decrypted there. The streams after its
//! first go back to the listener, which hands them on like connections of their own.

use super::failure::failure_of;
use super::session::Session;
use super::settings::{endpoint_config, socket, socket_config};
use super::stream::QuicStream;
use super::tls::Agreed;
use crate::accept::{HandshakeError, JobIndex, Jobs, Refusal};
use crate::gate::HandshakeGate;
use crate::listen::unmapped;
use crate::tls::TlsFailure;
use quinn::{Endpoint, ServerConfig, TokioRuntime};
use sealift_proto::limits::{DATA_CONNECTIONS_MAX, HANDSHAKES_MAX};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Handshakes in progress from which on a peer first has to show that it gets what is sent to its address.
const RETRY_FROM: usize = HANDSHAKES_MAX / 4;
/// Streams that wait to be taken up; beyond that they are cut.
const STREAMS_WAITING_MAX: usize = 4 * DATA_CONNECTIONS_MAX;

/// What came in.
pub(crate) enum Arrival {
    /// A connection that is not accepted yet.
    Connection(Box<Arriving>),
    /// A stream of one that is, for a job of these.
    Stream(QuicStream, Arc<Jobs>, JobIndex),
}

/// A connection that is not accepted yet, and where its further streams go.
pub(crate) struct Arriving {
    incoming: quinn::Incoming,
    arrivals: Arc<Arrivals>,
}

/// Streams on their way to the listener.
#[derive(Default)]
pub(crate) struct Arrivals {
    waiting: Mutex<VecDeque<(Arrival, SocketAddr, Instant)>>,
    came: Notify,
}

impl Arrivals {
    /// Takes a stream in; too many are cut.
    fn push(&self, arrival: Arrival, peer: SocketAddr) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < STREAMS_WAITING_MAX {
            waiting.push_back((arrival, peer, Instant::now()));
            self.came.notify_one();
        }
    }

    async fn next(&self) -> (Arrival, SocketAddr, Instant) {
        loop {
            let came = self.came.notified();
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(next) => return next,
                None => came.await,
            }
        }
    }
}

/// A listening UDP socket.
pub(crate) struct QuicListener {
    endpoint: Endpoint,
    arrivals: Arc<Arrivals>,
    gate: HandshakeGate,
}

impl QuicListener {
    /// Listens on an address; on an IPv6 one for IPv4 too.
    pub(crate) fn bind(address: SocketAddr, gate: HandshakeGate) -> io::Result<Self> {
        let socket = socket(address)?;
        let endpoint =
            Endpoint::new(socket_config(), Some(endpoint_config()), socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, arrivals: Arc::default(), gate })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection or stream, where it came from and since when it is there. Cancel-safe.
    pub(crate) async fn accept(&self) -> (Arrival, SocketAddr, Instant) {
        loop {
            let incoming = tokio::select! {
                stream = self.arrivals.next() => return stream,
                incoming = self.endpoint.accept() => incoming,
            };
            // An endpoint without its task accepts nothing any more; streams of old still may come.
            let Some(incoming) = incoming else { return self.arrivals.next().await };
            if self.gate.in_progress() >= RETRY_FROM && incoming.may_retry() {
                // It was just asked whether it may.
                let _ = incoming.retry();
                continue;
            }
            let peer = unmapped(incoming.remote_address());
            let arriving = Arriving { incoming, arrivals: Arc::clone(&self.arrivals) };
            return (Arrival::Connection(Box::new(arriving)), peer, Instant::now());
        }
    }
}

/// Authenticates a connection and takes its first stream, on the runtime this is called from.
pub(crate) async fn negotiate(
    arriving: Box<Arriving>,
    config: Arc<ServerConfig>,
    jobs: Arc<Jobs>,
) -> Result<(QuicStream, JobIndex), HandshakeError> {
    let Arriving { incoming, arrivals } = *arriving;
    let failed = |job| move |failure: TlsFailure| HandshakeError::new(failure, job);
    let mut connecting = incoming.accept_with(config).map_err(|error| failed(None)(failure_of(&error)))?;
    let named = connecting.handshake_data().await.map_err(|error| failed(None)(failure_of(&error)))?;
    let job = named.downcast::<Agreed>().ok().and_then(|agreed| agreed.job);
    let connection = connecting.await.map_err(|error| failed(job)(failure_of(&error)))?;
    let session = Arc::new(Session::established(connection).map_err(failed(job))?);
    let Some(job) = job else {
        let why = "the peer knows a decoy's key".to_owned();
        return Err(HandshakeError::NotAuthorized(Refusal::UnknownJob, why));
    };
    let stream =
        session.connection().accept_bi().await.map_err(|error| failed(Some(job))(failure_of(&error)))?;
    let stream = QuicStream::new(&session, stream);
    tokio::spawn(take_streams(Arc::downgrade(&session), session.connection().clone(), arrivals, jobs, job));
    Ok((stream, job))
}

/// Hands a connection's further streams on, until it is closed.
async fn take_streams(
    session: std::sync::Weak<Session>,
    connection: quinn::Connection,
    arrivals: Arc<Arrivals>,
    jobs: Arc<Jobs>,
    job: JobIndex,
) {
    while let Ok(stream) = connection.accept_bi().await {
        let Some(session) = session.upgrade() else { return };
        let peer = session.peer();
        arrivals.push(Arrival::Stream(QuicStream::new(&session, stream), Arc::clone(&jobs), job), peer);
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection(_) => "Connection",
            Self::Stream(..) => "Stream",
        })
    }
}

impl fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicListener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
