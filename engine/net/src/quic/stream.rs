//! A stream of a QUIC connection, as the two halves of a session stream.
//!
//! What is dropped without having been ended is cut: the peer sees a reset. quinn itself would end it in order.

use super::failure::error_of;
use super::session::Session;
use crate::connection::CUT;
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The code of a stream that was cut.
const CUT_OFF: VarInt = VarInt::from_u32(1);
/// So much is written between two looks at what the path has room for.
const FIT_AFTER_BYTES: usize = 1 << 20;

/// A stream that was opened or came in.
#[derive(Debug)]
pub(crate) struct QuicStream {
    writer: QuicWriter,
    reader: QuicReader,
}

impl QuicStream {
    pub(super) fn new(session: &Arc<Session>, (stream, input): (SendStream, RecvStream)) -> Self {
        let writer =
            QuicWriter { stream, ending: None, is_whole: false, unfitted: 0, session: Arc::clone(session) };
        Self { writer, reader: QuicReader { stream: input, _session: Arc::clone(session) } }
    }

    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.writer.session
    }

    pub(crate) fn split(self) -> (QuicReader, QuicWriter) {
        (self.reader, self.writer)
    }
}

/// What the peer sends.
#[derive(Debug)]
pub(crate) struct QuicReader {
    stream: RecvStream,
    _session: Arc<Session>,
}

type Ending = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// What is sent to the peer.
pub(crate) struct QuicWriter {
    stream: SendStream,
    /// Waits until the peer has everything.
    ending: Option<Ending>,
    is_whole: bool,
    /// What was written since it was looked what the path has room for.
    unfitted: usize,
    session: Arc<Session>,
}

impl QuicWriter {
    /// Its bytes go before those of streams of which this was not said.
    pub(crate) fn take_precedence(&self) {
        // A stream that is closed already has nothing to send.
        let _ = self.stream.set_priority(1);
    }
}

impl AsyncRead for QuicReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.poll_read_buf(cx, buf).map_err(|error| match error {
            ReadError::ConnectionLost(error) => error_of(&error),
            ReadError::Reset(_) => io::Error::new(io::ErrorKind::UnexpectedEof, CUT),
            error => io::Error::new(io::ErrorKind::NotConnected, error),
        })
    }
}

impl AsyncWrite for QuicWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unfitted >= FIT_AFTER_BYTES {
            self.unfitted = 0;
            self.session.fit_send_window();
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        let count = written.map_err(|error| match error {
            WriteError::ConnectionLost(error) => error_of(&error),
            WriteError::Stopped(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the peer reads no more"),
            error => io::Error::new(io::ErrorKind::BrokenPipe, error),
        })?;
        self.unfitted += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the stream in order, and waits until the peer has all of it: what is dropped then may be lost.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, ending, is_whole, .. } = &mut *self;
        let ending = ending.get_or_insert_with(|| {
            // One that the peer stopped, or that was ended before, says so below.
            let _ = stream.finish();
            *is_whole = true;
            Box::pin(stream.stopped())
        });
        match ready!(ending.as_mut().poll(cx)) {
            // Or the peer was faster.
            Ok(_) | Err(StoppedError::ConnectionLost(quinn::ConnectionError::ApplicationClosed(_))) => {
                Poll::Ready(Ok(()))
            }
            Err(StoppedError::ConnectionLost(error)) => Poll::Ready(Err(error_of(&error))),
            Err(error) => Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, error))),
        }
    }
}

impl Drop for QuicWriter {
    fn drop(&mut self) {
        if !self.is_whole {
            // One that is over already cannot be cut.
            let _ = self.stream.reset(CUT_OFF);
        }
    }
}

impl std::fmt::Debug for QuicWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicWriter")
    }
}
