//! An established session stream: bytes in order, encrypted, from a peer that holds the job's key.
//!
//! One face over both transports: a TCP connection with records of ours, or a stream of a QUIC connection. Says nothing
//! about what the bytes mean. The end of the stream is an ordinary end only when the peer said so; one that was cut is an
//! error.

mod tcp;

use crate::cipher::Cipher;
use crate::exporter::ExporterSecret;
use crate::handshake::{Agreed, Opening};
use crate::quic::{QuicReader, QuicStream, QuicWriter, Session};
use crate::tls::{ALPN, TlsFailure, cipher_of};
use crate::transport::Carrier;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tcp::{TcpReader, TcpWriter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
mod tests;

/// What a reader is told of a stream that did not end in order.
pub(crate) const CUT: &str = "the peer closed the connection without saying that this is the end";

/// A session stream whose handshake has succeeded on this side.
///
/// Dropping it (or both halves) without shutting the writer down cuts it, which the peer sees as an error.
pub struct Connection {
    reader: ConnectionReader,
    writer: ConnectionWriter,
    peer: SocketAddr,
    cipher: Cipher,
    key_exchange: &'static str,
    exporter: Exporter,
    answered_in: Option<Duration>,
}

/// Where keying material comes from.
enum Exporter {
    Tcp(ExporterSecret),
    /// The streams of one connection share theirs.
    Quic(Arc<Session>),
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
        let exporter = Exporter::Tcp(agreed.exporter.clone());
        let (reader, writer) = tcp::halves(opening, agreed)?;
        let reader = ConnectionReader(Reader::Tcp(Box::new(reader)));
        let writer = ConnectionWriter(Writer::Tcp(writer));
        Ok(Self { reader, writer, peer, cipher, key_exchange, exporter, answered_in: None })
    }

    /// TCP's first answer took so long.
    pub(crate) fn connected_in(self, answered_in: Duration) -> Self {
        Self { answered_in: Some(answered_in), ..self }
    }

    /// How long TCP's first answer took, which is the other host's kernel's: its programs may be busy. Not known of what was
    /// accepted, nor over QUIC.
    #[must_use]
    pub const fn answered_in(&self) -> Option<Duration> {
        self.answered_in
    }

    /// A stream of a QUIC connection.
    pub(crate) fn from_stream(stream: QuicStream) -> Self {
        let session = Arc::clone(stream.session());
        let (reader, writer) = stream.split();
        Self {
            reader: ConnectionReader(Reader::Quic(reader)),
            writer: ConnectionWriter(Writer::Quic(writer)),
            peer: session.peer(),
            cipher: session.cipher(),
            key_exchange: session.key_exchange(),
            exporter: Exporter::Quic(session),
            answered_in: None,
        }
    }

    /// The QUIC connection that it is a stream of.
    pub(crate) const fn session(&self) -> Option<&Arc<Session>> {
        match &self.exporter {
            Exporter::Tcp(_) => None,
            Exporter::Quic(session) => Some(session),
        }
    }

    /// The other end's address (an IPv4 address even when it came in through an IPv6 socket).
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// What carries it.
    #[must_use]
    pub const fn carrier(&self) -> Carrier {
        match self.exporter {
            Exporter::Tcp(_) => Carrier::Tcp,
            Exporter::Quic(_) => Carrier::Quic,
        }
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

    /// Keying material that both ends of this connection, and nobody else, can compute (RFC 8446, section 7.5). Over QUIC
    /// it is the same for all streams of a QUIC connection.
    ///
    /// # Panics
    /// If the label has more than 249 bytes.
    #[must_use]
    pub fn exporter(&self, label: &str) -> [u8; 32] {
        match &self.exporter {
            Exporter::Tcp(secret) => secret.export(self.cipher, label),
            Exporter::Quic(session) => session.export(label),
        }
        .expect("the handshake is done, and the label is short")
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
            .field("carrier", &self.carrier())
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

/// What the peer sends. Ends after the peer has ended its direction in order; [`io::ErrorKind::UnexpectedEof`] if it did
/// not.
pub struct ConnectionReader(Reader);

enum Reader {
    Tcp(Box<TcpReader>),
    Quic(QuicReader),
}

/// What is sent to the peer. Flush to be sure that it left; shut down to end the stream cleanly.
///
/// Over QUIC what was flushed is kept until the peer has acknowledged it, and is lost when the connection is dropped: who
/// needs to know that it arrived shuts down, which waits for that.
pub struct ConnectionWriter(Writer);

enum Writer {
    Tcp(TcpWriter),
    Quic(QuicWriter),
}

impl ConnectionWriter {
    /// What is sent over it goes before what is sent over others that share a QUIC connection with it: for control.
    pub fn take_precedence(&self) {
        if let Writer::Quic(writer) = &self.0 {
            writer.take_precedence();
        }
    }
}

impl AsyncRead for ConnectionReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Reader::Tcp(reader) => Pin::new(&mut **reader).poll_read(cx, buf),
            Reader::Quic(reader) => Pin::new(reader).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ConnectionWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Writer::Tcp(writer) => Pin::new(writer).poll_write(cx, bytes),
            Writer::Quic(writer) => Pin::new(writer).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Writer::Tcp(writer) => Pin::new(writer).poll_write_vectored(cx, slices),
            Writer::Quic(writer) => Pin::new(writer).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Writer::Tcp(writer) => writer.is_write_vectored(),
            Writer::Quic(writer) => writer.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Writer::Tcp(writer) => Pin::new(writer).poll_flush(cx),
            Writer::Quic(writer) => Pin::new(writer).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Writer::Tcp(writer) => Pin::new(writer).poll_shutdown(cx),
            Writer::Quic(writer) => Pin::new(writer).poll_shutdown(cx),
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
