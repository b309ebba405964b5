//! An established session stream: bytes in order, encrypted, from a peer that holds the job's key.
//!
//! Owns the socket and the TLS state. Says nothing about what the bytes mean. The end of the stream is an ordinary end
//! only when the peer said so (`close_notify`); a cut connection is an error.

use crate::cipher::Cipher;
use crate::tls::{ALPN, SOCKET_READ_BYTES, TlsFailure, cipher_of};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// The socket as TLS sees it: reads gathered into large ones, writes straight through.
pub(crate) type Socket = BufReader<TcpStream>;

/// Prepares a socket for the handshake.
pub(crate) fn socket(stream: TcpStream) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(SOCKET_READ_BYTES, stream))
}

/// A session stream whose handshake has succeeded on this side.
///
/// Dropping it (or both halves) without shutting the writer down cuts it, which the peer sees as an error.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<Socket>,
    peer: SocketAddr,
    cipher: Cipher,
    key_exchange: &'static str,
}

impl Connection {
    pub(crate) fn established(
        stream: impl Into<TlsStream<Socket>>,
        peer: SocketAddr,
    ) -> Result<Self, TlsFailure> {
        let stream = stream.into();
        let (_, tls) = stream.get_ref();
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(TlsFailure::Protocol("the peer did not negotiate sealift/1".to_owned()));
        }
        let cipher = tls
            .negotiated_cipher_suite()
            .and_then(|negotiated| cipher_of(negotiated.suite()))
            .expect("only our suites are offered");
        let key_exchange = tls
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str())
            .expect("only named groups are offered");
        Ok(Self { stream, peer, cipher, key_exchange })
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
    #[must_use]
    pub fn exporter(&self, label: &str) -> [u8; 32] {
        let (output, label) = ([0; 32], label.as_bytes());
        match &self.stream {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material(output, label, None),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material(output, label, None),
        }
        .expect("the handshake is done, and 32 bytes are asked for")
    }

    /// The two directions, for separate tasks of one thread.
    #[must_use]
    pub fn split(self) -> (ConnectionReader, ConnectionWriter) {
        let (reader, writer) = tokio::io::split(self.stream);
        (ConnectionReader(reader), ConnectionWriter(writer))
    }
}

/// What the peer sends. Ends after the peer's `close_notify`; [`io::ErrorKind::UnexpectedEof`] without one.
#[derive(Debug)]
pub struct ConnectionReader(ReadHalf<TlsStream<Socket>>);

/// What is sent to the peer. Flush to be sure that it left; shut down to end the stream cleanly.
#[derive(Debug)]
pub struct ConnectionWriter(WriteHalf<TlsStream<Socket>>);

impl AsyncRead for ConnectionReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ConnectionWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
