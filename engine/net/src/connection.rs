//! An established session stream: bytes in order, encrypted, from a peer that holds the job's key.
//!
//! Joins a socket to the record layer of either direction. Says nothing about what the bytes mean. The end of the stream
//! is an ordinary end only when the peer said so (`close_notify`); a cut connection is an error.

use crate::cipher::Cipher;
use crate::exporter::ExporterSecret;
use crate::handshake::{Agreed, Opening};
use crate::record::{Incoming, Outgoing, Progress, Violation, error_of};
use crate::tls::{ALPN, TlsFailure, cipher_of};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

#[cfg(test)]
mod tests;

/// A session stream whose handshake has succeeded on this side.
///
/// Dropping it (or both halves) without shutting the writer down cuts it, which the peer sees as an error.
pub struct Connection {
    reader: ConnectionReader,
    writer: ConnectionWriter,
    peer: SocketAddr,
    cipher: Cipher,
    key_exchange: &'static str,
    exporter: ExporterSecret,
}

impl Connection {
    pub(crate) fn established(
        opening: Opening,
        agreed: Agreed,
        peer: SocketAddr,
    ) -> Result<Self, TlsFailure> {
        if agreed.alpn.as_deref() != Some(ALPN) {
            return Err(TlsFailure::Protocol("the peer did not negotiate sealift/1".to_owned()));
        }
        let cipher = cipher_of(agreed.suite.suite()).expect("only our suites are offered");
        let key_exchange = agreed.key_exchange.expect("only named groups are offered");
        let exporter = agreed.exporter.clone();
        let (stream, incoming, outgoing) = opening.established(agreed)?;
        let (input, output) = stream.into_split();
        let sending = Sending(Arc::new(Mutex::new(Outlet { outgoing, socket: output })));
        let reader = ConnectionReader { incoming, socket: input, sending: sending.clone() };
        Ok(Self { reader, writer: ConnectionWriter(sending), peer, cipher, key_exchange, exporter })
    }

    /// The other end's address (an IPv4 address even when it came in through an IPv6 socket).
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The negotiated cipher.
    #[must_use]
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The name of the negotiated key agreement, as IANA registers it.
    #[must_use]
    pub const fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// Keying material that both ends of this connection, and nobody else, can compute (RFC 8446, section 7.5).
    ///
    /// # Panics
    /// If the label has more than 249 bytes.
    #[must_use]
    pub fn exporter(&self, label: &str) -> [u8; 32] {
        self.exporter.export(self.cipher, label).expect("the handshake is done, and the label is short")
    }

    /// The two directions, for separate tasks of one thread.
    #[must_use]
    pub fn split(self) -> (ConnectionReader, ConnectionWriter) {
        (self.reader, self.writer)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// The writing direction's socket and records.
struct Outlet {
    outgoing: Outgoing,
    socket: OwnedWriteHalf,
}

impl Outlet {
    /// Gives the socket what is pending, until it has taken all.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.pending().is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.pending()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.took(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Why nothing more may be written, if so.
    fn check(&self) -> io::Result<()> {
        match self.outgoing.ended() {
            None => Ok(()),
            Some(Ok(())) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream was shut down")),
            Some(Err(error)) => Err(error_of(error)),
        }
    }

    /// Has what is to be written sealed, once all before it has left, and sends what the socket takes at once.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl FnOnce(&mut Outgoing) -> Result<usize, rustls::Error>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        self.check()?;
        let written = seal(&mut self.outgoing).map_err(|error| error_of(&error))?;
        if let Poll::Ready(drained) = self.poll_drain(cx) {
            drained?;
        }
        Poll::Ready(Ok(written))
    }
}

/// The writing direction, which the reading one needs where it has to answer: to a new key, or to a violation. Both are
/// on one thread, so nobody ever waits for it.
#[derive(Clone)]
struct Sending(Arc<Mutex<Outlet>>);

impl Sending {
    fn lock(&self) -> MutexGuard<'_, Outlet> {
        self.0.lock().expect("nothing panics while it holds the outlet")
    }

    /// Ends the session, and tells the peer why if the socket takes it.
    fn fail(&self, violation: &Violation) {
        let Outlet { outgoing, socket } = &mut *self.lock();
        outgoing.fail(violation);
        // The writer's task keeps its place in the socket's queue; what does not fit is its to send.
        while let Ok(count @ 1..) = socket.try_write(outgoing.pending()) {
            outgoing.took(count);
        }
    }
}

/// What the peer sends. Ends after the peer's `close_notify`; [`io::ErrorKind::UnexpectedEof`] without one.
pub struct ConnectionReader {
    incoming: Incoming,
    socket: OwnedReadHalf,
    sending: Sending,
}

/// What is sent to the peer. Flush to be sure that it left; shut down to end the stream cleanly.
pub struct ConnectionWriter(Sending);

impl AsyncRead for ConnectionReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { incoming, socket, sending } = &mut *self;
        while buf.remaining() > 0 {
            let worth = incoming.readable_max().min(buf.remaining());
            let place = buf.initialize_unfilled_to(worth);
            let next_key = |update| sending.lock().outgoing.peer_updates(update);
            match incoming.read(place, next_key) {
                Ok(Progress::Read(count)) => {
                    buf.advance(count);
                    break;
                }
                Ok(Progress::Blocked) => {}
                Ok(Progress::End) => break,
                Err(violation) => {
                    sending.fail(&violation);
                    return Poll::Ready(Err(error_of(&violation.error)));
                }
            }
            let mut room = ReadBuf::new(incoming.room());
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut room))?;
            let count = room.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT)));
            }
            incoming.put(count);
        }
        Poll::Ready(Ok(()))
    }
}

const CUT: &str = "the peer closed the connection without saying that this is the end";

impl AsyncWrite for ConnectionWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, |outgoing| outgoing.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, |outgoing| outgoing.write_gathered(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outlet = self.0.lock();
        ready!(outlet.poll_drain(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outlet = self.0.lock();
        outlet.outgoing.close();
        ready!(outlet.poll_drain(cx))?;
        match ready!(Pin::new(&mut outlet.socket).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

impl fmt::Debug for ConnectionReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionReader")
    }
}

impl fmt::Debug for ConnectionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionWriter")
    }
}
