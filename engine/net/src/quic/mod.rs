//! Sessions over QUIC (RFC 9000), by quinn: the same keys, names and frames as over TCP.
//!
//! A session's control connection is the first stream of a QUIC connection, its data connections are further streams of
//! the same, or streams of others to the same peer; each begins with its own greeting. No 0-RTT, no resumption, no datagrams, no streams in one
//! direction, and no migration to other addresses. The socket is read where the endpoint was made; a connection's packets
//! are encrypted and decrypted by the runtime that accepted or dialled it.

mod controller;
mod dial;
mod failure;
mod hello;
mod listen;
mod peer_socket;
mod session;
mod sessions;
mod settings;
mod stream;
mod tls;

pub(crate) use dial::{connect, open};
pub(crate) use listen::{Arrival, QuicListener, negotiate};
pub(crate) use session::Session;
pub(crate) use sessions::Sessions;
pub(crate) use settings::{client_config, serving_config};
pub(crate) use stream::{QuicReader, QuicStream, QuicWriter};
