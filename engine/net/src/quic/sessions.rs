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
use tokio::sync::Mutex as Line;

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
}

/// A stream that is being opened.
struct Opening(Arc<Place>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    /// Lets further streams to its peer be of this connection, if it is of QUIC.
    pub(crate) fn keep(&self, connection: &Connection) {
        if let Some(session) = connection.session() {
            let first = self.place(session.peer(), NonZeroUsize::MIN);
            first.0.keep(session);
        }
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
        if let Some(session) = place.open_session() {
            return open(&session).await.map(Connection::from_stream);
        }
        // One makes the connection, the others open streams of it.
        let _first = place.dialling.lock().await;
        if let Some(session) = place.open_session() {
            return open(&session).await.map(Connection::from_stream);
        }
        match connect().await {
            Ok(connection) => {
                if let Some(session) = connection.session() {
                    place.keep(session);
                }
                Ok(connection)
            }
            // One more cannot be had: those that there are will do.
            Err(failure) => match self.any_to(address) {
                Some(session) => open(&session).await.map(Connection::from_stream),
                None => Err(failure),
            },
        }
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
        let place = places[..among.get()].iter().min_by_key(|place| place.streams()).expect("there is one");
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
    fn keep(&self, session: &Arc<Session>) {
        *self.session() = Arc::downgrade(session);
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
