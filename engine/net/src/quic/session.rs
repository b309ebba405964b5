//! An established QUIC connection, shared by its streams.
//!
//! It is closed when the last of them is dropped.

use super::settings::send_window;
use super::tls::Agreed;
use crate::cipher::Cipher;
use crate::listen::unmapped;
use crate::tls::TlsFailure;
use quinn::{Connection, VarInt};
use std::fmt;
use std::net::SocketAddr;

/// The code of a connection that is no longer needed. What a session came to is said in frames.
const NO_LONGER_NEEDED: VarInt = VarInt::from_u32(0);

/// See the module.
pub(crate) struct Session {
    connection: Connection,
    peer: SocketAddr,
    cipher: Cipher,
    key_exchange: &'static str,
}

impl Session {
    /// What a handshake led to.
    pub(super) fn established(connection: Connection) -> Result<Self, TlsFailure> {
        let agreed = connection.handshake_data().and_then(|data| data.downcast::<Agreed>().ok());
        let Some(agreed) = agreed.filter(|agreed| agreed.alpn) else {
            return Err(TlsFailure::Protocol("the peer did not negotiate sealift/1".to_owned()));
        };
        let cipher = agreed.cipher.expect("only our suites are offered");
        let key_exchange = agreed.key_exchange.expect("only named groups are offered");
        let peer = unmapped(connection.remote_address());
        Ok(Self { connection, peer, cipher, key_exchange })
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) const fn cipher(&self) -> Cipher {
        self.cipher
    }

    pub(crate) const fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// Keying material for a label; none if the label is too long.
    pub(crate) fn export(&self, label: &str) -> Option<[u8; 32]> {
        let mut material = [0; 32];
        self.connection.export_keying_material(&mut material, label.as_bytes(), &[]).ok()?;
        Some(material)
    }

    /// Whether it is still there.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Keeps as much for the path as it has room for now.
    pub(super) fn fit_send_window(&self) {
        self.connection.set_send_window(send_window(self.connection.stats().path.cwnd));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.close(NO_LONGER_NEEDED, &[]);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}
