//! The dialling side: a QUIC connection to one address, and further streams of it.
//!
//! Each connection has a socket of its own, which is read where it was dialled. The socket takes packets of that one
//! address alone, and hears at once when nobody listens there.

use super::failure::failure_of;
use super::peer_socket::PeerSocket;
use super::session::Session;
use super::settings::{socket, socket_config};
use super::stream::QuicStream;
use crate::tls::TlsFailure;
use quinn::{ClientConfig, Endpoint, TokioRuntime};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Makes a connection, with its first stream.
pub(crate) async fn connect(
    config: ClientConfig,
    address: SocketAddr,
    server_name: &str,
) -> Result<QuicStream, TlsFailure> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = socket(any)?;
    socket.connect(address)?;
    let socket = PeerSocket::new(socket)?;
    let endpoint = Endpoint::new_with_abstract_socket(socket_config(), None, socket, Arc::new(TokioRuntime))?;
    let connecting = endpoint
        .connect_with(config, address, server_name)
        .map_err(|error| TlsFailure::Io(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let connection = connecting.await.map_err(|error| failure_of(&error))?;
    let session = Arc::new(Session::established(connection)?);
    open(&session).await
}

/// Opens a further stream.
pub(crate) async fn open(session: &Arc<Session>) -> Result<QuicStream, TlsFailure> {
    let stream = session.connection().open_bi().await.map_err(|error| failure_of(&error))?;
    Ok(QuicStream::new(session, stream))
}
