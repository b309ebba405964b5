//! A session stream over TCP: joins a socket to the record layer of either direction.

use crate::handshake::{Agreed, Opening};
use crate::record::{Incoming, Outgoing, Progress, Violation, error_of};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The two directions of a session that was agreed on.
pub(super) fn halves(opening: Opening, agreed: Agreed) -> Result<(TcpReader, TcpWriter), rustls::Error> {
    let (stream, incoming, outgoing) = opening.established(agreed)?;
    let (input, output) = stream.into_split();
    let sending = Sending(Arc::new(Mutex::new(Outlet { outgoing, socket: output })));
    let reader = TcpReader { incoming, socket: input, sending: sending.clone() };
    Ok((reader, TcpWriter(sending)))
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

/// What the peer sends.
pub(super) struct TcpReader {
    incoming: Incoming,
    socket: OwnedReadHalf,
    sending: Sending,
}

/// What is sent to the peer.
pub(super) struct TcpWriter(Sending);

#[cfg(test)]
impl TcpWriter {
    /// Lets a key seal so many records; how many it has sealed.
    pub(super) fn limit_to(&self, records: u64) -> u64 {
        self.0.lock().outgoing.limit_to(records)
    }
}

impl AsyncRead for TcpReader {
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
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, super::CUT)));
            }
            incoming.put(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpWriter {
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
