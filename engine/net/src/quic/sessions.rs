//! The QUIC connections of a dialler to each of its peers, which further streams are opened of.
//!
//! A connection's packets are made and read by one thread at either end. Where that is what limits it, several connections
//! carry more: streams are spread over them.

use super::dial::open;
use super::session::Session;
use crate::connection::Connection;
use crate::tls::TlsFailure;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Mutex as Line;
use tokio::time::{Instant, timeout};

/// How long one connection more may take, where there is one already that will do.
const FURTHER_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long none is tried after that.
const PASSED_OVER_FOR: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(crate) struct Sessions {
    peers: Mutex<HashMap<SocketAddr, Peer>>,
}

/// The places for connections to a peer.
type Peer = Vec<Arc<Place>>;

/// A place for a connection.
#[derive(Default)]
struct Place {
    session: Mutex<Weak<Session>>,
    /// The line of those who would make it.
    dialling: Line<()>,
    /// Streams that are being opened of it.
    opening: AtomicUsize,
    /// When its connection could not be had, where there were others.
    failed_at: Mutex<Option<Instant>>,
}

/// A stream that is being opened.
struct Opening(Arc<Place>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    /// A session with a peer begins, with the connection that was dialled first: further streams are of this one, if it is of QUIC,
    /// and of no older one.
    pub(crate) fn begin(&self, connection: &Connection) {
        let first = Place::default();
        first.keep(connection);
        let mut peers = self.peers();
        peers.retain(|_, places| places.iter().any(|place| place.streams() > 0));
        peers.insert(connection.peer_addr(), vec![Arc::new(first)]);
    }

    /// The first connection to an address, if there is one that is open.
    pub(crate) fn first_to(&self, address: SocketAddr) -> Option<Arc<Session>> {
        self.peers().get(&address)?.first()?.open_session()
    }

    /// A stream to an address, of that connection of so many which has the fewest; `connect` makes one that is missing.
    pub(crate) async fn stream(
        &self,
        address: SocketAddr,
        connections: NonZeroUsize,
        connect: impl AsyncFnOnce() -> Result<Connection, TlsFailure>,
    ) -> Result<Connection, TlsFailure> {
        let opening = self.place(address, connections);
        let place = &opening.0;
        if let Some(stream) = place.further().await {
            return Ok(stream);
        }
        // One makes the connection, the others open streams of it.
        let _first = place.dialling.lock().await;
        if let Some(stream) = place.further().await {
            return Ok(stream);
        }
        let Some(another) = self.any_to(address) else {
            let connection = connect().await?;
            place.keep(&connection);
            return Ok(connection);
        };
        if !place.is_passed_over() {
            if let Ok(Ok(connection)) = timeout(FURTHER_TIMEOUT, connect()).await {
                place.keep(&connection);
                return Ok(connection);
            }
            *place.failed_at() = Some(Instant::now());
        }
        // One more cannot be had: those that there are will do.
        open(&another).await.map(Connection::from_stream)
    }

    /// The place with the fewest streams of an address' first places, with one stream more.
    fn place(&self, address: SocketAddr, among: NonZeroUsize) -> Opening {
        let mut peers = self.peers();
        if !peers.contains_key(&address) {
            peers.retain(|_, places| places.iter().any(|place| place.streams() > 0));
        }
        let places = peers.entry(address).or_default();
        if places.len() < among.get() {
            places.resize_with(among.get(), Arc::default);
        }
        let places = places[..among.get()].iter();
        let place =
            places.min_by_key(|place| (place.is_passed_over(), place.streams())).expect("there is one");
        place.opening.fetch_add(1, Ordering::Relaxed);
        Opening(Arc::clone(place))
    }

    /// Any connection to an address that is open.
    fn any_to(&self, address: SocketAddr) -> Option<Arc<Session>> {
        self.peers().get(&address)?.iter().find_map(|place| place.open_session())
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<SocketAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Lets further streams be of this connection, if it is of QUIC.
    fn keep(&self, connection: &Connection) {
        if let Some(session) = connection.session() {
            *self.session() = Arc::downgrade(session);
        }
    }

    /// A further stream of its connection, if there is one that is open.
    async fn further(&self) -> Option<Connection> {
        let session = self.open_session()?;
        // One that was closed meanwhile opens none.
        open(&session).await.ok().map(Connection::from_stream)
    }

    fn is_passed_over(&self) -> bool {
        self.failed_at().is_some_and(|at| at.elapsed() < PASSED_OVER_FOR)
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_session(&self) -> Option<Arc<Session>> {
        self.session().upgrade().filter(|session| session.is_open())
    }

    /// How many streams it has, about: each half of one holds the connection.
    fn streams(&self) -> usize {
        let halves = self.session().strong_count();
        halves.div_ceil(2) + self.opening.load(Ordering::Relaxed)
    }

    fn session(&self) -> MutexGuard<'_, Weak<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
