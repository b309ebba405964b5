//! The dialing side: finds one of a peer's addresses that answers and proves the job's key to it.
//!
//! Addresses are raced (after RFC 8305): the next one starts a moment after the last, or at once when one fails; the
//! first finished handshake wins and the others are dropped. Tries each address once; trying again is the caller's,
//! with [`Backoff`](crate::Backoff).

use crate::connection::Connection;
use crate::handshake::Opening;
use crate::quic::{self, Sessions};
use crate::tag::{Clock, server_name};
use crate::tls::{TlsFailure, client_config};
use crate::transport::{Carrier, Transport};
use rustls::ClientConfig;
use sealift_proto::keys::RoSecret;
use sealift_proto::limits::{HANDSHAKE_TIMEOUT_MS, TICKET_ADDRESSES_MAX};
use sealift_proto::rate::Rate;
use sealift_proto::ticket::{Address, HostName};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What answers within this is near.
pub const NEAR: Duration = Duration::from_millis(10);

/// How a dial failed, from the least to the most telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialErrorKind {
    /// Refused, timed out, no route, no such name, or cut during the handshake. May pass.
    Unreachable,
    /// Something answered that does not speak this protocol or version.
    Incompatible,
    /// A Sealift peer answered, and one end did not accept the other's key: another job, or none it knows.
    NotAuthorized,
}

/// What became of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address tried: a name if it did not resolve.
    pub address: Address,
    /// How it failed.
    pub kind: DialErrorKind,
    /// Why, in words.
    pub reason: String,
}

/// No address answered as hoped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialError {
    /// Every address that was tried, in the order of failure; empty if there was none to try.
    pub attempts: Vec<Attempt>,
}

impl DialError {
    /// The most telling of the attempts' failures.
    ///
    /// One address may now belong to somebody else while another is down for a moment: who retries by kind should
    /// look whether [`Self::may_pass`].
    #[must_use]
    pub fn kind(&self) -> DialErrorKind {
        self.attempts.iter().map(|attempt| attempt.kind).max().unwrap_or(DialErrorKind::Unreachable)
    }

    /// Whether trying again later may help: some address was merely unreachable.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.kind == DialErrorKind::Unreachable)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            DialErrorKind::Unreachable => "the peer cannot be reached",
            DialErrorKind::Incompatible => "the peer is incompatible",
            DialErrorKind::NotAuthorized => "not authorized: the peer does not serve this job with this key",
        })?;
        for (index, Attempt { address, reason, .. }) in self.attempts.iter().enumerate() {
            write!(f, "{} {address}: {reason}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DialError {}

/// The times of the race.
#[derive(Clone, Copy, Debug)]
pub struct DialTiming {
    /// Between starting one address and the next.
    pub stagger: Duration,
    /// For one address: resolving it, or connecting and the handshake.
    pub attempt_timeout: Duration,
}

impl Default for DialTiming {
    fn default() -> Self {
        Self {
            stagger: Duration::from_millis(250),
            attempt_timeout: Duration::from_millis(HANDSHAKE_TIMEOUT_MS),
        }
    }
}

/// Opens connections for one job. Clones are one dialer: what one opened, the others open further streams of.
#[derive(Clone, Debug)]
pub struct Dialer {
    ro: RoSecret,
    config: Arc<ClientConfig>,
    clock: Clock,
    timing: DialTiming,
    transport: Transport,
    limit: Option<Rate>,
    /// QUIC connections to one address.
    quic_connections: NonZeroUsize,
    /// Those that there are.
    sessions: Arc<Sessions>,
}

impl Dialer {
    /// A dialer over TCP with the system's clock and the usual timing.
    #[must_use]
    pub fn new(ro: RoSecret) -> Self {
        Self {
            config: client_config(&ro),
            ro,
            clock: Clock::system(),
            timing: DialTiming::default(),
            transport: Transport::Tcp,
            limit: None,
            quic_connections: NonZeroUsize::MIN,
            sessions: Arc::default(),
        }
    }

    /// The same, over another transport.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The same, for a receiver that takes no more than this: less is let come ahead.
    #[must_use]
    pub fn with_limit(self, limit: Option<Rate>) -> Self {
        Self { limit, ..self }
    }

    /// The same, with streams to one address spread over so many QUIC connections. Each is read by the runtime that dialled it.
    #[must_use]
    pub fn with_quic_connections(self, quic_connections: NonZeroUsize) -> Self {
        Self { quic_connections, ..self }
    }

    /// The same, by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The same, with another timing.
    #[must_use]
    pub fn with_timing(self, timing: DialTiming) -> Self {
        Self { timing, ..self }
    }

    /// Connects to whichever address answers first, and says which it was.
    ///
    /// The listener may still refuse us: see [`is_rejection`](crate::is_rejection).
    ///
    /// # Errors
    /// When every address failed.
    pub async fn dial(&self, addresses: &[Address]) -> Result<(Connection, SocketAddr), DialError> {
        let connection = Race::new(self, addresses).run().await?;
        let address = connection.peer_addr();
        self.sessions.begin(&connection);
        Ok((connection, address))
    }

    /// Connects to one address: further connections go where the first one went, over what it goes over. Over QUIC this is
    /// a further stream of a connection that is there, if one is.
    ///
    /// # Errors
    /// With the one attempt.
    pub async fn dial_one(&self, address: SocketAddr) -> Result<Connection, DialError> {
        let connecting = async {
            match self.sessions.first_to(address) {
                Some(session) => quic::open(&session).await.map(Connection::from_stream),
                None => self.connect(address).await,
            }
        };
        self.in_time(address, connecting).await.map_err(|attempt| DialError { attempts: vec![attempt] })
    }

    /// Connects to one address like [`Dialer::dial_one`], over what is named.
    ///
    /// # Errors
    /// With the one attempt.
    pub async fn dial_over(&self, address: SocketAddr, carrier: Carrier) -> Result<Connection, DialError> {
        let connecting = self.over(address, carrier, self.quic_connections);
        self.in_time(address, connecting).await.map_err(|attempt| DialError { attempts: vec![attempt] })
    }

    /// Connects to one address like [`Dialer::dial_over`]; but where both transports may be used, over TCP if its first answer
    /// comes within [`NEAR`]: over so short a path that costs both ends less.
    ///
    /// # Errors
    /// As [`Dialer::dial_over`].
    pub async fn dial_near(&self, address: SocketAddr, carrier: Carrier) -> Result<Connection, DialError> {
        if self.transport == Transport::Auto
            && let Ok(Ok(stream)) = timeout(NEAR, TcpStream::connect(address)).await
            && let Ok(connection) = self.in_time(address, self.over_tcp(stream, address)).await
        {
            return Ok(connection);
        }
        let connecting = self.over(address, carrier, NonZeroUsize::MIN);
        self.in_time(address, connecting).await.map_err(|attempt| DialError { attempts: vec![attempt] })
    }

    async fn over(
        &self,
        address: SocketAddr,
        carrier: Carrier,
        quic_connections: NonZeroUsize,
    ) -> Result<Connection, TlsFailure> {
        match carrier {
            Carrier::Tcp => self.connect_tcp(address).await,
            Carrier::Quic => {
                self.sessions
                    .stream(address, quic_connections, async || self.connect_quic(address).await)
                    .await
            }
        }
    }

    async fn attempt(&self, address: SocketAddr) -> Result<Connection, Attempt> {
        self.in_time(address, self.connect(address)).await
    }

    async fn in_time(
        &self,
        address: SocketAddr,
        connecting: impl Future<Output = Result<Connection, TlsFailure>>,
    ) -> Result<Connection, Attempt> {
        let failure = match timeout(self.timing.attempt_timeout, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failure)) => failure,
            Err(_) => TlsFailure::Io(io::ErrorKind::TimedOut.into()),
        };
        let (kind, reason) = match failure {
            TlsFailure::Key(why) => (DialErrorKind::NotAuthorized, why),
            TlsFailure::Protocol(why) => (DialErrorKind::Incompatible, why),
            TlsFailure::Io(error) => (DialErrorKind::Unreachable, error.to_string()),
        };
        Err(Attempt { address: address.into(), kind, reason })
    }

    async fn connect(&self, address: SocketAddr) -> Result<Connection, TlsFailure> {
        match self.transport {
            Transport::Tcp => self.connect_tcp(address).await,
            Transport::Quic => self.connect_quic(address).await,
            Transport::Auto => self.connect_either(address).await,
        }
    }

    /// Over QUIC, or over TCP if that has not succeeded after a moment; whichever is first.
    async fn connect_either(&self, address: SocketAddr) -> Result<Connection, TlsFailure> {
        let (mut quic, mut tcp) = (pin!(self.connect_quic(address)), pin!(self.connect_tcp(address)));
        let mut quic_failed = None;
        let early = sleep(self.timing.stagger);
        tokio::select! {
            biased;
            dialled = &mut quic => match dialled {
                Err(failure) => quic_failed = Some(failure),
                connected => return connected,
            },
            () = early => {}
        }
        let mut tcp_failed = None;
        loop {
            match (quic_failed, tcp_failed) {
                // Who does not take the key over one of them takes it over neither.
                (Some(failure @ TlsFailure::Key(_)), _) | (_, Some(failure @ TlsFailure::Key(_))) => {
                    return Err(failure);
                }
                (Some(TlsFailure::Io(quic)), Some(TlsFailure::Io(tcp))) => {
                    return Err(TlsFailure::Io(io::Error::new(
                        tcp.kind(),
                        format!("{tcp} (over QUIC: {quic})"),
                    )));
                }
                (Some(TlsFailure::Io(_)), Some(failure)) | (Some(failure), Some(_)) => return Err(failure),
                (quic, tcp) => (quic_failed, tcp_failed) = (quic, tcp),
            }
            tokio::select! {
                dialled = &mut quic, if quic_failed.is_none() => match dialled {
                    Err(failure) => quic_failed = Some(failure),
                    connected => return connected,
                },
                dialled = &mut tcp, if tcp_failed.is_none() => match dialled {
                    Err(failure) => tcp_failed = Some(failure),
                    connected => return connected,
                },
            }
        }
    }

    async fn connect_quic(&self, address: SocketAddr) -> Result<Connection, TlsFailure> {
        let config = quic::client_config(&self.config, self.limit);
        let name = server_name(&self.ro, self.clock.day());
        quic::connect(config, address, &name.to_str()).await.map(Connection::from_stream)
    }

    async fn connect_tcp(&self, address: SocketAddr) -> Result<Connection, TlsFailure> {
        let begun = Instant::now();
        let stream = TcpStream::connect(address).await?;
        let connected_in = begun.elapsed();
        Ok(self.over_tcp(stream, address).await?.connected_in(connected_in))
    }

    async fn over_tcp(&self, stream: TcpStream, address: SocketAddr) -> Result<Connection, TlsFailure> {
        let mut opening = Opening::new(stream)?;
        let name = server_name(&self.ro, self.clock.day());
        let agreed = opening.connect(&self.config, name).await?;
        Connection::established(opening, agreed, address)
    }

    /// A name's addresses, not too many.
    async fn resolve(&self, name: HostName, port: u16) -> Result<Vec<SocketAddr>, Attempt> {
        let lookup = timeout(self.timing.attempt_timeout, lookup_host((name.as_str(), port))).await;
        let result = lookup.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match result.map(|found| found.take(TICKET_ADDRESSES_MAX).collect::<Vec<_>>()) {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err("the name has no address".to_owned()),
            Err(error) => Err(format!("cannot resolve the name: {error}")),
        }
        .map_err(|reason| Attempt {
            address: Address::Name(name, port),
            kind: DialErrorKind::Unreachable,
            reason,
        })
    }
}

enum Finish {
    Connected(Box<Connection>),
    Resolved(Vec<SocketAddr>),
    Failed(Attempt),
}

type Runner<'a> = Pin<Box<dyn Future<Output = Finish> + Send + 'a>>;

/// A race in progress.
struct Race<'a> {
    dialer: &'a Dialer,
    waiting: VecDeque<Address>,
    seen: HashSet<Address>,
    running: Vec<Runner<'a>>,
    failed: Vec<Attempt>,
}

impl<'a> Race<'a> {
    fn new(dialer: &'a Dialer, addresses: &[Address]) -> Self {
        let waiting = addresses.iter().cloned().collect();
        Self { dialer, waiting, seen: HashSet::new(), running: Vec::new(), failed: Vec::new() }
    }

    async fn run(mut self) -> Result<Connection, DialError> {
        let mut next_start = Instant::now();
        loop {
            if Instant::now() >= next_start {
                self.start_next();
                next_start = Instant::now() + self.dialer.timing.stagger;
            }
            if self.running.is_empty() {
                return Err(DialError { attempts: self.failed });
            }
            let waiting = !self.waiting.is_empty();
            tokio::select! {
                biased;
                finish = next_finish(&mut self.running) => match finish {
                    Finish::Connected(connection) => return Ok(*connection),
                    Finish::Resolved(found) => {
                        found.into_iter().rev().for_each(|address| self.waiting.push_front(address.into()));
                        next_start = Instant::now();
                    }
                    Finish::Failed(attempt) => {
                        self.failed.push(attempt);
                        next_start = Instant::now();
                    }
                },
                () = sleep_until(next_start), if waiting => {}
            }
        }
    }

    /// Starts the next address that was not tried yet.
    fn start_next(&mut self) {
        let dialer = self.dialer;
        while let Some(address) = self.waiting.pop_front() {
            if !self.seen.insert(address.clone()) {
                continue;
            }
            self.running.push(match address {
                Address::Socket(address) => Box::pin(async move {
                    match dialer.attempt(address).await {
                        Ok(connection) => Finish::Connected(Box::new(connection)),
                        Err(attempt) => Finish::Failed(attempt),
                    }
                }),
                Address::Name(name, port) => Box::pin(async move {
                    dialer.resolve(name, port).await.map_or_else(Finish::Failed, Finish::Resolved)
                }),
            });
            return;
        }
    }
}

/// Waits for the first of the runners to finish, and takes it out. The runners are few: each wake polls them all.
async fn next_finish(running: &mut Vec<Runner<'_>>) -> Finish {
    poll_fn(|cx| {
        for index in 0..running.len() {
            if let Poll::Ready(finish) = running[index].as_mut().poll(cx) {
                drop(running.swap_remove(index));
                return Poll::Ready(finish);
            }
        }
        Poll::Pending
    })
    .await
}
