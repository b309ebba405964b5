//! The listening sockets: take TCP connections and QUIC connections and streams in, and hand them on, unread.
//!
//! Accepting outlives everything: out of descriptors, aborted connections, a network that went away. Never talks to a
//! peer; that is the acceptor's.

use crate::gate::HandshakeGate;
use crate::quic::{self, QuicListener};
use crate::transport::Transport;
use sealift_proto::limits::HANDSHAKE_TIMEOUT_MS;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Connections the kernel holds until they are accepted; it caps this by `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Pause after an error that lasts, such as a full descriptor table.
const BACKOFF: Duration = Duration::from_millis(100);
const _: () = assert!(BACKOFF.as_millis() < HANDSHAKE_TIMEOUT_MS as u128);

/// With both transports on any free port: how many are tried until one is free for both.
const PORTS_TRIED_MAX: usize = 16;

/// A listening TCP socket, a UDP socket of the same port, or one of the two.
#[derive(Debug)]
pub struct Listener {
    tcp: Option<TcpListener>,
    quic: Option<QuicListener>,
    local: SocketAddr,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A connection.
    Tcp(std::net::TcpStream),
    /// A connection or one of its streams.
    Quic(quic::Arrival),
}

/// A connection that came in and has not been read from. May be handed to another thread's runtime.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) arrival: Arrival,
    pub(crate) peer: SocketAddr,
    /// The handshake's deadline counts from here, however long the connection waits for its shard.
    pub(crate) accepted_at: Instant,
}

impl Incoming {
    /// The other end's address.
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

impl Listener {
    /// Listens for TCP on an address; on an IPv6 one for IPv4 too. Port 0 takes a free port.
    ///
    /// # Errors
    /// As the system says: the port is taken, the address is not ours, IPv6 is off.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled. The listener belongs to that runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = bind_tcp(address)?;
        let local = tcp.local_addr()?;
        Ok(Self { tcp: Some(tcp), quic: None, local })
    }

    /// Listens for what the transport allows, on one port. The gate says when peers have to show that their addresses are
    /// theirs.
    ///
    /// # Errors
    /// As with [`Listener::bind`], for either of the sockets.
    ///
    /// # Panics
    /// As with [`Listener::bind`].
    pub fn bind_for(address: SocketAddr, transport: Transport, gate: &HandshakeGate) -> io::Result<Self> {
        let quic = |address| QuicListener::bind(address, gate.clone());
        match transport {
            Transport::Tcp => Self::bind(address),
            Transport::Quic => {
                let quic = quic(address)?;
                let local = quic.local_addr()?;
                Ok(Self { tcp: None, quic: Some(quic), local })
            }
            Transport::Auto => {
                let mut tries = PORTS_TRIED_MAX;
                loop {
                    let bound = Self::bind(address)?;
                    tries -= 1;
                    match quic(bound.local) {
                        Ok(quic) => return Ok(Self { quic: Some(quic), ..bound }),
                        // That port is another's for UDP; any other will do.
                        Err(error)
                            if address.port() == 0
                                && error.kind() == io::ErrorKind::AddrInUse
                                && tries > 0 => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// The address it listens on, with the port it was given.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection, or stream of one that is established. Does not fail: waits and goes on after errors.
    /// Cancel-safe.
    pub async fn accept(&self) -> Incoming {
        tokio::select! {
            (stream, peer) = accept_tcp(self.tcp.as_ref()) => {
                let arrival = Arrival::Tcp(stream);
                Incoming { arrival, peer: unmapped(peer), accepted_at: Instant::now() }
            }
            (arrival, peer, accepted_at) = accept_quic(self.quic.as_ref()) => {
                Incoming { arrival: Arrival::Quic(arrival), peer, accepted_at }
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept_tcp(socket: Option<&TcpListener>) -> (std::net::TcpStream, SocketAddr) {
    let Some(socket) = socket else { return pending().await };
    persist(|| async {
        let (stream, peer) = socket.accept().await?;
        Ok((stream.into_std()?, peer))
    })
    .await
}

async fn accept_quic(listener: Option<&QuicListener>) -> (quic::Arrival, SocketAddr, Instant) {
    match listener {
        Some(listener) => listener.accept().await,
        None => pending().await,
    }
}

/// An IPv4 peer of a dual-stack socket, by its own address. (A link-local IPv6 one keeps its scope.)
pub(crate) fn unmapped(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, peer.port()).into(),
        IpAddr::V6(_) => peer,
    }
}

/// Tries until it succeeds.
async fn persist<T, F: Future<Output = io::Result<T>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            // That connection is gone from the queue; the next one is not to wait for it.
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => tokio::time::sleep(BACKOFF).await,
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    #[tokio::test(start_paused = true)]
    async fn errors_never_end_accepting() {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOMEM: i32 = 12;
        let started = Instant::now();
        let mut errors = vec![
            io::Error::from_raw_os_error(EMFILE),
            io::ErrorKind::ConnectionAborted.into(),
            io::Error::from_raw_os_error(ENFILE),
            io::Error::from_raw_os_error(ENOMEM),
        ];
        persist(|| ready(errors.pop().map_or(Ok(()), Err))).await;
        assert_eq!(started.elapsed(), BACKOFF * 3, "waits after what lasts, not after what passed");
    }
}
