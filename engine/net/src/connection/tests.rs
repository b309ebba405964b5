//! Sessions with an unmodified rustls at the other end, in either role.

mod endings;
mod handshakes;
mod keys;

use super::Connection;
use crate::cipher::Cipher;
use crate::handshake::Opening;
use crate::tls::{TlsFailure, client_config, server_config};
use rustls::pki_types::ServerName;
use sealift_proto::keys::RoSecret;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

type Theirs = TlsStream<TcpStream>;

/// Which end of a session is ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ours {
    Client,
    Server,
}

const BOTH: [Ours; 2] = [Ours::Client, Ours::Server];

impl super::ConnectionWriter {
    /// Lets a key seal so many records; how many it has sealed.
    fn limit_to(&self, records: u64) -> u64 {
        match &self.0 {
            super::Writer::Tcp(writer) => writer.limit_to(records),
            super::Writer::Quic(_) => panic!("QUIC has keys of its own"),
        }
    }
}

fn secret(fill: u8) -> RoSecret {
    RoSecret::from_bytes(&[fill; 32])
}

fn name() -> ServerName<'static> {
    "job.sealift.invalid".try_into().unwrap()
}

/// The two ends of a connection: the dialed one and the accepted one.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialed, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (dialed.unwrap(), accepted.unwrap().0)
}

async fn connect(stream: TcpStream, config: &rustls::ClientConfig) -> Result<Connection, TlsFailure> {
    let peer = stream.peer_addr()?;
    let mut opening = Opening::new(stream)?;
    let agreed = opening.connect(config, name()).await?;
    Connection::established(opening, agreed, peer)
}

async fn serve(stream: TcpStream, config: &rustls::ServerConfig) -> Result<Connection, TlsFailure> {
    let peer = stream.peer_addr()?;
    let mut opening = Opening::new(stream)?;
    assert_eq!(opening.server_name().await?.as_deref(), Some("job.sealift.invalid"));
    let agreed = opening.serve(config).await?;
    Connection::established(opening, agreed, peer)
}

/// A session between the two.
async fn session(ours: Ours, cipher: Cipher) -> (Connection, Theirs) {
    let (dialed, accepted) = sockets().await;
    let (client, server) = (client_config(&secret(1)), server_config(&secret(1), cipher));
    match ours {
        Ours::Client => {
            let acceptor = TlsAcceptor::from(server);
            let (ours, theirs) = tokio::join!(connect(dialed, &client), acceptor.accept(accepted));
            (ours.unwrap(), theirs.unwrap().into())
        }
        Ours::Server => {
            let connector = TlsConnector::from(Arc::clone(&client));
            let (ours, theirs) = tokio::join!(serve(accepted, &server), connector.connect(name(), dialed));
            (ours.unwrap(), theirs.unwrap().into())
        }
    }
}

fn export(theirs: &Theirs, label: &str) -> [u8; 32] {
    match theirs {
        TlsStream::Client(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], label.as_bytes(), None)
        }
        TlsStream::Server(stream) => {
            stream.get_ref().1.export_keying_material([0; 32], label.as_bytes(), None)
        }
    }
    .unwrap()
}

#[tokio::test]
async fn both_ends_export_the_same() {
    for ours in BOTH {
        for cipher in Cipher::ALL {
            let (connection, theirs) = session(ours, cipher).await;
            assert_eq!(connection.cipher(), cipher);
            for label in ["EXPORTER-Channel-Binding", ""] {
                assert_eq!(connection.exporter(label), export(&theirs, label), "{ours:?} {cipher}");
            }
        }
    }
}
