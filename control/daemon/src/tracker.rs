//! The tracker, on 3000: members of a job say where they are and hear where others are.
//!
//! It learns addresses and tags that change daily; what members say is sealed, and only members can open it. Everything
//! is in memory and forgotten when nobody speaks for it. Over TCP there is TLS, and what strangers hold is bounded in
//! number and time; a datagram is answered only if it proves that it is of somebody who was here over TLS, and by fewer
//! bytes than it has.

mod table;

use crate::address::network;
use crate::ca::Authority;
use crate::limiter::Limiter;
use crate::tls::{self, Accepted, TlsError};
use rustls::ServerConfig;
use sealift_proto::discovery::tracker::{
    Answer, HEARTBEAT_BYTES, Heartbeat, REQUEST_BYTES, Request, Verdict,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Full, Table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// From the end of a handshake to the end of the connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests on one connection.
const REQUESTS_MAX: usize = 4;
/// Requests of one address at once, and then one each time that so long has passed: many members may be behind one.
const REQUESTS_BURST: u32 = 512;
/// See [`REQUESTS_BURST`].
const REQUEST_EVERY: Duration = Duration::from_millis(200);
/// Whoever asks too often is told to come back after about this, in seconds.
const TOO_OFTEN_S: u16 = 30;
/// After an error of a socket.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a port is looked for that is free for TCP and UDP, if any will do.
const PORTS_TRIED: usize = 16;
/// Heartbeats without which an entry is forgotten.
const MISSED_MAX: u32 = 3;

/// How often members speak.
#[derive(Clone, Copy, Debug)]
pub struct TrackerTimes {
    /// Between heartbeats. An entry is forgotten after three times as long.
    pub heartbeat_s: u16,
    /// Between requests of a member that says where it is.
    pub again_s: u16,
    /// Between requests of one that only asks.
    pub ask_again_s: u16,
}

impl Default for TrackerTimes {
    fn default() -> Self {
        Self { heartbeat_s: 60, again_s: 1200, ask_again_s: 30 }
    }
}

/// Why there is no tracker.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port.
    #[error("the tracker cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// A tracker whose ports are open.
pub struct Tracker {
    listener: TcpListener,
    datagrams: UdpSocket,
    config: Arc<ServerConfig>,
    local: SocketAddr,
    shared: Arc<Shared>,
}

/// What its connections and its datagrams share.
struct Shared {
    table: Mutex<Table>,
    requests: Limiter<IpAddr>,
    times: TrackerTimes,
}

impl Tracker {
    /// Opens its ports, TCP and UDP of one number.
    ///
    /// # Errors
    /// See [`TrackerError`].
    pub async fn bind(
        authority: &Authority,
        address: SocketAddr,
        times: TrackerTimes,
    ) -> Result<Self, TrackerError> {
        let config = Arc::new(tls::for_members(authority)?);
        let bound = bind(address).await.map_err(|error| TrackerError::Listen(address, error));
        let (listener, datagrams, local) = bound?;
        let forget_after = Duration::from_secs(times.heartbeat_s.into()) * MISSED_MAX;
        let shared = Arc::new(Shared {
            table: Mutex::new(Table::new(forget_after)),
            requests: Limiter::new(REQUESTS_BURST, REQUEST_EVERY),
            times,
        });
        Ok(Self { listener, datagrams, config, local, shared })
    }

    /// Where it is.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until told to end.
    pub async fn run(self, ending: watch::Receiver<bool>) {
        let Self { listener, datagrams, config, shared, .. } = self;
        let of_connections = Arc::clone(&shared);
        let serve = move |accepted| connection(accepted, Arc::clone(&of_connections));
        tokio::select! {
            () = tls::accept(listener, config, ending, serve) => {}
            () = hear(&datagrams, &shared) => {}
            () = forget(&shared) => {}
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket, SocketAddr)> {
    let mut tried = 0;
    loop {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        tried += 1;
        match UdpSocket::bind(local).await {
            Ok(datagrams) => return Ok((listener, datagrams, local)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 && tried < PORTS_TRIED => {
            }
            Err(error) => return Err(error),
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is asked for, for somebody at this address.
    fn answer(&self, request: &Request, from: IpAddr, now: Instant) -> Result<Answer, getrandom::Error> {
        if self.requests.take(&network(from), now).is_err() {
            return Ok(Answer::too_often(TOO_OFTEN_S));
        }
        let mut table = self.table();
        let mut told = None;
        let mut verdict = Verdict::Done;
        if let Some(entry) = request.entry {
            match table.tell(request, entry, network(from), now)? {
                Ok(token) => told = Some(token),
                Err(Full) => verdict = Verdict::Full,
            }
        }
        let own = told.as_ref().map(|token| token.id);
        let entries = table.others(request.tag, own, request.wanted.into())?;
        let TrackerTimes { heartbeat_s, again_s, ask_again_s } = self.times;
        let again_s = if told.is_some() { again_s } else { ask_again_s };
        Ok(Answer { verdict, heartbeat_s, again_s, seen: from.to_canonical(), token: told, entries })
    }
}

/// Answers the requests of one connection: a few, and soon.
async fn connection(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted { mut stream, peer } = accepted;
    let served = async {
        let mut bytes = Zeroizing::new([0; REQUEST_BYTES]);
        for _ in 0..REQUESTS_MAX {
            match stream.read_exact(bytes.as_mut()).await {
                Ok(_) => {}
                // It has no more.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            let request = Request::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            let answer = shared.answer(&request, peer.ip(), Instant::now()).map_err(io::Error::other)?;
            stream.write_all(&answer.encode()).await?;
            stream.flush().await?;
        }
        stream.shutdown().await
    };
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a request to the tracker failed"),
        Err(_) => tracing::debug!(%peer, "a connection to the tracker took too long"),
    }
}

/// Hears heartbeats, and answers those that prove whose they are.
async fn hear(datagrams: &UdpSocket, shared: &Shared) {
    // One byte more than there may be, so that a longer one is seen to be longer.
    let mut buffer = [0; HEARTBEAT_BYTES + 1];
    loop {
        let (len, from) = match datagrams.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(heartbeat) = Heartbeat::decode(&buffer[..len]) else { continue };
        let answer = shared.table().beat(&heartbeat, Instant::now());
        if let Some(answer) = answer {
            // One that cannot be sent now is as good as lost.
            let _ = datagrams.try_send_to(&answer, from);
        }
    }
}

/// Forgets those of whom nothing was heard.
async fn forget(shared: &Shared) {
    let mut ticks = tokio::time::interval(Duration::from_secs(shared.times.heartbeat_s.into()));
    loop {
        ticks.tick().await;
        shared.table().forget(Instant::now());
    }
}
