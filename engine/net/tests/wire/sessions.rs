//! What holders of the key get: a stream in both directions, with the job's cipher, that ends cleanly or says so.

use crate::support::{Server, TODAY, dialer, job, noon_of, secret};
use sealift_net::{
    Acceptor, Cipher, Connection, Dialer, HandshakeGate, Incoming, JobIndex, Listener, ServedJob,
};
use std::io::{ErrorKind, IoSlice};
use std::net::Ipv6Addr;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

fn payload(seed: u8, length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).map(|byte: u8| byte ^ seed).collect()
}

/// Sends one payload each way at the same time and ends both directions.
async fn exchange(dialed: Connection, taken: Connection, length: usize) {
    let one_side = |connection: Connection, sends: u8, expects: u8| async move {
        let (mut reader, mut writer) = connection.split();
        let sending = async {
            writer.write_all(&payload(sends, length)).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (count, ()) = tokio::join!(reader.read_to_end(&mut received), sending);
        assert_eq!(count.unwrap(), length);
        assert!(received == payload(expects, length));
    };
    tokio::join!(one_side(dialed, 1, 2), one_side(taken, 2, 1));
}

#[tokio::test]
async fn both_ciphers_carry_bytes_both_ways() {
    for cipher in Cipher::ALL {
        let server = Server::new(vec![job(9), ServedJob { ro: secret(1), cipher }]);
        let (dialed, taken) = server.session(&dialer(1)).await;
        assert_eq!(taken.job, JobIndex(1));
        for connection in [&dialed, &taken.connection] {
            assert_eq!(connection.cipher(), cipher);
            assert_eq!(connection.key_exchange(), "X25519MLKEM768");
        }
        assert_eq!(dialed.peer_addr(), server.address());
        drop(taken.auth);
        exchange(dialed, taken.connection, 5_000_001).await;
        assert_eq!(server.acceptor.gate().in_progress(), 0);
    }
}

#[tokio::test]
async fn exporter_agrees_and_depends_on_session_and_label() {
    let server = Server::new(vec![job(1)]);
    let (dialed, taken) = server.session(&dialer(1)).await;
    let (other, _taken) = server.session(&dialer(1)).await;
    assert_eq!(dialed.exporter("a"), taken.connection.exporter("a"));
    assert_ne!(dialed.exporter("a"), dialed.exporter("b"));
    assert_ne!(dialed.exporter("a"), other.exporter("a"));
}

#[tokio::test]
async fn vectored_writes_pass_through() {
    let server = Server::new(vec![job(1)]);
    let (dialed, taken) = server.session(&dialer(1)).await;
    let (_reader, mut writer) = dialed.split();
    assert!(writer.is_write_vectored());
    let run = payload(0, 1 << 20);
    let sending = async {
        let written = writer.write_vectored(&[IoSlice::new(&[7; 16]), IoSlice::new(&run)]).await.unwrap();
        assert!(written > 16, "header and run go out as one batch");
        writer.write_all(&run[written - 16..]).await.unwrap();
        writer.flush().await.unwrap();
    };
    let mut received = vec![0; 16 + run.len()];
    let (mut reader, _writer) = taken.connection.split();
    let (result, ()) = tokio::join!(reader.read_exact(&mut received), sending);
    result.unwrap();
    assert!(received[..16] == [7; 16] && received[16..] == run);
}

#[tokio::test]
async fn cut_stream_is_no_end() {
    let server = Server::new(vec![job(1)]);
    let (dialed, taken) = server.session(&dialer(1)).await;
    let (mut reader, mut writer) = dialed.split();
    writer.write_all(b"half a mess").await.unwrap();
    writer.flush().await.unwrap();
    let (mut other_reader, other_writer) = taken.connection.split();
    other_reader.read_exact(&mut [0; 11]).await.unwrap();
    drop((other_reader, other_writer));
    assert_eq!(reader.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn tags_of_neighbouring_days_are_known_and_no_others() {
    let server = Server::new(vec![job(1)]);
    for (day, known) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let dialer = Dialer::new(secret(1)).with_clock(noon_of(TODAY.strict_add_signed(day)));
        let (dialed, taken) = tokio::join!(dialer.dial_one(server.address()), server.take());
        assert_eq!((dialed.is_ok(), taken.is_ok()), (known, known), "day {day:+}");
    }
}

#[tokio::test]
async fn any_address_takes_both_families() {
    let mut server = Server::new(vec![job(1)]);
    server.listener = Listener::bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
    let port = server.address().port();
    for local in ["127.0.0.1", "::1"] {
        let address = (local.parse::<std::net::IpAddr>().unwrap(), port).into();
        let (dialed, taken) = tokio::join!(async { dialer(1).dial_one(address).await }, server.take());
        dialed.unwrap();
        assert_eq!(taken.unwrap().connection.peer_addr().ip().to_string(), local);
    }
}

#[tokio::test]
async fn connection_may_be_accepted_here_and_served_on_another_thread() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Acceptor>();
    shared::<HandshakeGate>();
    sent::<Incoming>();

    let Server { listener, acceptor } = Server::new(vec![job(1)]);
    let address = listener.local_addr();
    let (hand_over, taken_over) = tokio::sync::oneshot::channel::<Incoming>();
    let shard = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let accepted = acceptor.handshake(taken_over.await.unwrap()).await.unwrap();
            let (mut reader, _writer) = accepted.connection.split();
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        })
    });
    let dialing = async {
        let (_reader, mut writer) = dialer(1).dial_one(address).await.unwrap().split();
        writer.write_all(b"over there").await.unwrap();
        writer.shutdown().await.unwrap();
    };
    tokio::join!(dialing, async { hand_over.send(listener.accept().await).unwrap() });
    assert_eq!(shard.join().unwrap(), b"over there");
}
