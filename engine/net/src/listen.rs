//! The listening socket: takes TCP connections in and hands them on, unread.
//!
//! Accepting outlives everything: out of descriptors, aborted connections, a network that went away. Never talks to a
//! peer; that is the acceptor's.

use sealift_proto::limits::HANDSHAKE_TIMEOUT_MS;
use socket2::{Domain, Protocol, Socket, Type};
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

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

/// A connection that came in and has not been read from. May be handed to another thread's runtime.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) stream: std::net::TcpStream,
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
    /// Listens on an address; on an IPv6 one for IPv4 too. Port 0 takes a free port.
    ///
    /// # Errors
    /// As the system says: the port is taken, the address is not ours, IPv6 is off.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled. The listener belongs to that runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // A restart need not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// The address it listens on, with the port it was given.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. Does not fail: waits and goes on after errors. Cancel-safe.
    pub async fn accept(&self) -> Incoming {
        let (stream, peer) = persist(|| async {
            let (stream, peer) = self.socket.accept().await?;
            Ok((stream.into_std()?, peer))
        })
        .await;
        Incoming { stream, peer: unmapped(peer), accepted_at: Instant::now() }
    }
}

/// An IPv4 peer of a dual-stack socket, by its own address. (A link-local IPv6 one keeps its scope.)
fn unmapped(peer: SocketAddr) -> SocketAddr {
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
