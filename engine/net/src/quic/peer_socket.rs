//! A UDP socket that is connected to one peer, and ends when nobody listens there.
//!
//! The kernel notes what ICMP says of such a socket, for whoever uses it next. quinn takes no notice, whether it sends or
//! reads; here whoever reads hears of it. (Who forges such a message has to know both ends' ports, and wins no more than
//! that the session is dialled again.)

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// See the module.
pub(super) struct PeerSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket, for its errors.
    socket: UdpSocket,
    is_refused: AtomicBool,
    /// Who reads: not woken by the kernel for an error that somebody else has taken.
    reader: Mutex<Option<Waker>>,
}

impl PeerSocket {
    /// Uses a socket that is connected, on the runtime this is called from.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket.try_clone()?)?;
        Ok(Arc::new(Self { inner, socket, is_refused: AtomicBool::new(false), reader: Mutex::default() }))
    }

    /// Looks what the kernel has noted, before anybody else takes it.
    fn note_error(&self) {
        if let Ok(Some(error)) = self.socket.take_error()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            self.is_refused.store(true, Ordering::Relaxed);
            if let Some(reader) = self.reader().take() {
                reader.wake();
            }
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for PeerSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.note_error();
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.note_error();
        if self.is_refused.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let received = self.inner.poll_recv(cx, bufs, meta);
        if received.is_pending() {
            let mut reader = self.reader();
            if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                *reader = Some(cx.waker().clone());
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for PeerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}
