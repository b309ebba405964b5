//! What an attacker on the wire may do: dawdle, crowd, replay (A16, A18).

use crate::support::{Server, dialer, job};
use sealift_net::{HandshakeError, HandshakeGate, Overdue};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_millis(sealift_proto::limits::HANDSHAKE_TIMEOUT_MS);

fn is_timeout<T>(result: Result<T, HandshakeError>) -> bool {
    matches!(result, Err(HandshakeError::Overdue(Overdue::TimedOut)))
}

#[tokio::test(start_paused = true)]
async fn silence_after_one_byte_is_cut_at_the_deadline() {
    let server = Server::new(vec![job(1)]);
    let mut client = TcpStream::connect(server.address()).await.unwrap();
    client.write_all(&[22]).await.unwrap();
    let incoming = server.listener.accept().await;
    let started = Instant::now();
    assert!(is_timeout(server.acceptor.handshake(incoming).await));
    assert!(started.elapsed().abs_diff(LIMIT) < Duration::from_millis(10), "{:?}", started.elapsed());
    assert!(!matches!(client.read(&mut [0; 1]).await, Ok(1..)), "closed without a word");
    assert_eq!(server.acceptor.gate().in_progress(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_does_not_extend_the_deadline() {
    let server = Server::new(vec![job(1)]);
    let mut client = TcpStream::connect(server.address()).await.unwrap();
    let incoming = server.listener.accept().await;
    let started = Instant::now();
    let dripping = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].into_iter().chain(std::iter::repeat(0)) {
            second.tick().await;
            if client.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    };
    let (result, ()) = tokio::join!(server.acceptor.handshake(incoming), dripping);
    assert!(is_timeout(result));
    assert!(started.elapsed() < LIMIT + Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn deadline_also_covers_the_first_message() {
    let server = Server::new(vec![job(1)]);
    let (_silent, mut taken) = server.session(&dialer(1)).await;
    let (mut reader, _writer) = taken.connection.split();
    assert_eq!(server.acceptor.gate().in_progress(), 1, "its place is held until it has spoken");
    tokio::time::pause();
    let first = taken.auth.run(reader.read_u8()).await;
    assert!(matches!(first, Err(Overdue::TimedOut)));
    drop(taken.auth);
    assert_eq!(server.acceptor.gate().in_progress(), 0);
}

#[tokio::test]
async fn crowd_of_idle_connections_harms_neither_running_nor_new_sessions() {
    const CAP: usize = 8;
    const CROWD: usize = CAP + 50;
    let gate = HandshakeGate::with_max(NonZeroUsize::new(CAP).unwrap());
    let Server { listener, acceptor } = Server::with(vec![job(1)], |options| options.gate = gate.clone());
    let acceptor = std::sync::Arc::new(acceptor);
    let dialer = dialer(1);

    let taking = async { acceptor.handshake(listener.accept().await).await };
    let (dialed, taken) = tokio::join!(dialer.dial_one(listener.local_addr()), taking);
    let (mut running, taken) = (dialed.unwrap().split(), taken.unwrap());
    drop(taken.auth);
    let mut served = taken.connection.split();

    let mut idle = Vec::new();
    let mut handshakes = JoinSet::new();
    for _ in 0..CROWD {
        idle.push(TcpStream::connect(listener.local_addr()).await.unwrap());
        let (acceptor, incoming) = (acceptor.clone(), listener.accept().await);
        handshakes.spawn(async move { acceptor.handshake(incoming).await.map(drop) });
    }
    for _ in 0..CROWD - CAP {
        let cut = handshakes.join_next().await.unwrap().unwrap();
        assert!(matches!(cut, Err(HandshakeError::Overdue(Overdue::Evicted))));
    }
    assert_eq!(gate.in_progress(), CAP);
    for evicted in &mut idle[..CROWD - CAP] {
        assert_eq!(evicted.read(&mut [0; 1]).await.unwrap(), 0, "its socket is closed");
    }

    let taking = async { acceptor.handshake(listener.accept().await).await };
    let (dialed, taken) = tokio::join!(dialer.dial_one(listener.local_addr()), taking);
    assert!(dialed.is_ok() && taken.is_ok(), "an honest one gets in");

    running.1.write_all(b"still here").await.unwrap();
    running.1.flush().await.unwrap();
    let mut received = [0; 10];
    served.0.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"still here");
}

/// Passes one connection on to the server and keeps what the client sent.
async fn record_session(relay: &TcpListener, server: std::net::SocketAddr) -> Vec<u8> {
    let (client, _) = relay.accept().await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
    let mut recorded = Vec::new();
    let forward = async {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let count = from_client.read(&mut chunk).await.unwrap();
            recorded.extend_from_slice(&chunk[..count]);
            if count == 0 {
                return to_server.shutdown().await;
            }
            to_server.write_all(&chunk[..count]).await.unwrap();
        }
    };
    let backward = async {
        tokio::io::copy(&mut from_server, &mut to_client).await.unwrap();
        to_client.shutdown().await
    };
    let (forwarded, returned) = tokio::join!(forward, backward);
    forwarded.and(returned).unwrap();
    recorded
}

#[tokio::test]
async fn recorded_session_replayed_has_no_effect() {
    let server = Server::new(vec![job(1)]);
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay_address = relay.local_addr().unwrap();
    let dialing = async {
        let (mut reader, mut writer) = dialer(1).dial_one(relay_address).await.unwrap().split();
        writer.write_all(b"delete everything").await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
    };
    let serving = async {
        let (mut reader, mut writer) = server.take().await.unwrap().connection.split();
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        writer.shutdown().await.unwrap();
        received
    };
    let (recorded, (), received) = tokio::join!(record_session(&relay, server.address()), dialing, serving);
    assert_eq!(received, b"delete everything");

    let replaying = async {
        let mut replayer = TcpStream::connect(server.address()).await.unwrap();
        replayer.write_all(&recorded).await.unwrap();
        // The server may already have cut it.
        let _ = replayer.shutdown().await;
        let _ = replayer.read_to_end(&mut Vec::new()).await;
    };
    let (taken, ()) = tokio::join!(server.take(), replaying);
    let error = taken.expect_err("no connection, so no data either");
    assert!(matches!(error, HandshakeError::Incompatible(_)), "{error}");
}
