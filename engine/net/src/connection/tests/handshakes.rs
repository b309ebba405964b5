//! Handshakes that arrive in pieces, in one piece with what follows, or not at all.

use super::{BOTH, Ours, client_config, connect, name, secret, serve, server_config, sockets};
use crate::cipher::Cipher;
use crate::connection::Connection;
use crate::tls::TlsFailure;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How a relay passes bytes on.
#[derive(Clone, Copy, Debug)]
enum Relay {
    /// One at a time.
    ByteByByte,
    /// What came within a while, at once.
    Gathered,
}

async fn pass_on(from: TcpStream, to: TcpStream, how: Relay) {
    let (mut from_read, mut from_write) = from.into_split();
    let (mut to_read, mut to_write) = to.into_split();
    let forward = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let mut count = from_read.read(&mut buffer).await.unwrap_or(0);
            if matches!(how, Relay::Gathered) && count > 0 {
                // Until nothing more comes: the sender waits for an answer by then.
                let quiet = Duration::from_millis(30);
                while let Ok(Ok(more @ 1..)) = timeout(quiet, from_read.read(&mut buffer[count..])).await {
                    count += more;
                }
            }
            let size = if matches!(how, Relay::ByteByByte) { 1 } else { buffer.len() };
            for part in buffer[..count].chunks(size) {
                if to_write.write_all(part).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if count == 0 {
                return;
            }
        }
    };
    let backward = async {
        // The test's end closes it.
        let _ = tokio::io::copy(&mut to_read, &mut from_write).await;
    };
    tokio::join!(forward, backward);
}

/// Data that is said at once after the handshake, by the peer, whose bytes go through a relay.
async fn eager_peer(ours: Ours, how: Relay, fragment: Option<usize>) {
    let ((near, near_relay), (far_relay, far)) = (sockets().await, sockets().await);
    far.set_nodelay(true).unwrap();
    near_relay.set_nodelay(true).unwrap();
    let relaying = tokio::spawn(pass_on(far_relay, near_relay, how));
    let mut client = ClientConfig::clone(&client_config(&secret(1)));
    let mut server = ServerConfig::clone(&server_config(&secret(1), Cipher::Aes256Gcm));
    let data = [7; 3000];
    let (connection, _theirs) = match ours {
        Ours::Server => {
            client.max_fragment_size = fragment;
            let connector = TlsConnector::from(Arc::new(client));
            let theirs = async {
                let mut theirs = connector.connect(name(), far).await.unwrap();
                theirs.write_all(&data).await.unwrap();
                theirs.flush().await.unwrap();
                theirs.into()
            };
            let ours = async { serve(near, &server).await.unwrap() };
            tokio::join!(ours, theirs)
        }
        Ours::Client => {
            server.max_fragment_size = fragment;
            let acceptor = TlsAcceptor::from(Arc::new(server));
            let theirs = async {
                let mut theirs = acceptor.accept(far).await.unwrap();
                theirs.write_all(&data).await.unwrap();
                theirs.flush().await.unwrap();
                tokio_rustls::TlsStream::from(theirs)
            };
            let ours = async { connect(near, &client).await.unwrap() };
            tokio::join!(ours, theirs)
        }
    };
    let (mut reader, _writer) = connection.split();
    let mut heard = [0; 3000];
    reader.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, data, "{ours:?} {how:?} {fragment:?}");
    relaying.abort();
}

#[tokio::test]
async fn however_its_bytes_come_a_handshake_succeeds() {
    for ours in BOTH {
        for how in [Relay::ByteByByte, Relay::Gathered] {
            for fragment in [None, Some(40)] {
                eager_peer(ours, how, fragment).await;
            }
        }
    }
}

/// What becomes of a handshake with a peer that says this and no more.
async fn with_peer_that_says(ours: Ours, bytes: &[u8]) -> Result<Connection, TlsFailure> {
    let (near, mut far) = sockets().await;
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    match ours {
        Ours::Client => connect(near, &client_config(&secret(1))).await,
        Ours::Server => serve(near, &server_config(&secret(1), Cipher::Aes256Gcm)).await,
    }
}

#[tokio::test]
async fn what_is_no_handshake_fails() {
    for ours in BOTH {
        let cut = with_peer_that_says(ours, b"\x16\x03\x01\x02\x00\x01").await.unwrap_err();
        assert!(matches!(cut, TlsFailure::Io(_)), "{cut:?}");
        for other in [
            &b"SSH-2.0-OpenSSH_9.9\r\n"[..],
            b"\x16\x03\x01\xff\xff whatever",
            b"\x17\x03\x03\x00\x1e sealed before there is a key ",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"\x14\x03\x03\x00\x01\x01\x14\x03\x03\x00\x01\x01\x14\x03\x03\x00\x01\x01",
            b"\x16\x03\x03\x00\x04\x14\x00\x00\x00",
        ] {
            let failure = with_peer_that_says(ours, other).await.unwrap_err();
            assert!(matches!(failure, TlsFailure::Protocol(_)), "{ours:?}: {other:?}: {failure:?}");
        }
        let endless = [&b"\x16\x03\x03\x40\x00\x01\x00\xff\xff"[..], &[0; 300_000]].concat();
        with_peer_that_says(ours, &endless).await.unwrap_err();
    }
}
