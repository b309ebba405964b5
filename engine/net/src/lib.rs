//! Sealift's wire side: TLS 1.3 over TCP and QUIC, opened by a job's read-only secret.
//!
//! Owns sockets, the handshake and who may take part in it: [`Listener`] → [`Incoming`] → [`Acceptor`] on the serving
//! side, [`Dialer`] on the other, and on both a [`Connection`]: an ordered, encrypted stream of bytes.
//! [`Discovery`] finds a job's members, by a tracker and on the local network.
//! It runs on whatever current-thread tokio runtime it is called from, starts no thread, no task but those of discovery
//! and those that carry QUIC, and installs nothing process-wide. It knows nothing of frames, messages, manifests or disks, and never says to
//! the outside which jobs exist.

#![forbid(unsafe_code)]

mod accept;
mod backoff;
mod cipher;
mod connection;
mod dial;
mod discovery;
mod exporter;
mod frames;
mod gate;
mod handshake;
mod lan;
mod limit;
mod listen;
mod quic;
mod record;
mod rpk;
mod tag;
mod tls;
mod tracker;
mod transport;

pub use accept::{
    Accepted, Acceptor, AcceptorOptions, DecoySecret, HandshakeError, JobIndex, Refusal, ServedJob,
};
pub use backoff::Backoff;
pub use cipher::{Cipher, UnknownCipher};
pub use connection::{Connection, ConnectionReader, ConnectionWriter};
pub use dial::{Attempt, DialError, DialErrorKind, DialTiming, Dialer, NEAR};
pub use discovery::{Discovery, DiscoveryCounts, DiscoverySettings, Member, News, OwnAddresses};
pub use frames::{FrameReader, FrameWriter, ReadError};
pub use gate::{AuthDeadline, HandshakeGate, Overdue};
pub use lan::{LAN_PORT, LanSettings};
pub use limit::Limiter;
pub use listen::{Incoming, Listener};
pub use tag::Clock;
pub use tls::is_rejection;
pub use tracker::{TRACKER_PORT, TrackerSettings};
pub use transport::{Carrier, Transport, UnknownTransport};
