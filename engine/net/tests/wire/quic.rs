//! The same sessions over QUIC: streams, keys, refusals and ends.

use crate::stranger::{Stranger, name_of, spki};
use crate::support::{Server, TODAY, dialer, job, noon_of, secret};
use quinn::ConnectionError;
use sealift_net::{
    Accepted, Carrier, Cipher, Connection, DialErrorKind, Dialer, HandshakeError, HandshakeGate, JobIndex,
    Listener, Refusal, ServedJob, Transport, is_rejection,
};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

fn quic_dialer(fill: u8) -> Dialer {
    dialer(fill).with_transport(Transport::Quic)
}

/// A session with both its ends. A stream shows only once something is written to it, so a byte goes first.
async fn session(server: &Server, dialer: &Dialer) -> (Connection, Accepted) {
    let (dialed, taken) = tokio::join!(begin(dialer, server), server.take());
    (dialed, greeted(taken.unwrap()).await)
}

async fn begin(dialer: &Dialer, server: &Server) -> Connection {
    let (connection, address) = dialer.dial(&[server.address().into()]).await.unwrap();
    assert_eq!(address, server.address());
    say_hello(connection).await
}

async fn say_hello(mut connection: Connection) -> Connection {
    connection.write_all(&[7]).await.unwrap();
    connection
}

async fn greeted(mut accepted: Accepted) -> Accepted {
    let mut hello = [0];
    accepted.connection.read_exact(&mut hello).await.unwrap();
    assert_eq!(hello, [7]);
    accepted
}

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
async fn both_ciphers_carry_bytes_both_ways_on_several_streams() {
    for cipher in Cipher::ALL {
        let server = Server::over_quic(vec![job(9), ServedJob { ro: secret(1), cipher }]);
        let dialer = quic_dialer(1);
        let (control, taken) = session(&server, &dialer).await;
        assert_eq!(taken.job, JobIndex(1));
        for connection in [&control, &taken.connection] {
            assert_eq!(connection.cipher(), cipher);
            assert_eq!(connection.key_exchange(), "X25519MLKEM768");
            assert_eq!(connection.carrier(), Carrier::Quic);
        }
        assert_eq!(control.peer_addr(), server.address());
        let further = async { say_hello(dialer.dial_one(server.address()).await.unwrap()).await };
        let (data, data_taken) = tokio::join!(further, server.take());
        let data_taken = greeted(data_taken.unwrap()).await;
        assert_eq!(data_taken.job, JobIndex(1));
        // A stream of the same connection has the same keys.
        assert_eq!(data.exporter("a"), control.exporter("a"));
        assert_eq!(data_taken.connection.exporter("a"), control.exporter("a"));
        assert_ne!(control.exporter("a"), control.exporter("b"));
        drop((taken.auth, data_taken.auth));
        tokio::join!(
            exchange(control, taken.connection, 3_000_001),
            exchange(data, data_taken.connection, 5_000_001)
        );
        assert_eq!(server.acceptor.gate().in_progress(), 0);
    }
}

#[tokio::test]
async fn every_session_has_its_own_keys() {
    let server = Server::over_quic(vec![job(1)]);
    let (first, _taken) = session(&server, &quic_dialer(1)).await;
    let (second, _taken) = session(&server, &quic_dialer(1)).await;
    assert_ne!(first.exporter("a"), second.exporter("a"));
}

#[tokio::test]
async fn streams_are_spread_over_as_many_connections_as_are_wanted() {
    let server = Server::over_quic(vec![job(1)]);
    let dialer = quic_dialer(1).with_quic_connections(NonZeroUsize::new(3).unwrap());
    let (control, taken) = session(&server, &dialer).await;
    let mut streams = vec![(control, taken)];
    for _ in 0..5 {
        let dialing =
            async { say_hello(dialer.dial_over(server.address(), Carrier::Quic).await.unwrap()).await };
        let (dialed, taken) = tokio::join!(dialing, server.take());
        streams.push((dialed, greeted(taken.unwrap()).await));
    }
    // Streams of one connection share its keying material.
    let mut numbers = HashMap::new();
    for (dialed, taken) in &streams {
        assert_eq!(dialed.exporter("a"), taken.connection.exporter("a"));
        *numbers.entry(dialed.exporter("a")).or_insert(0) += 1;
    }
    assert_eq!(numbers.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    // One that is cut is made anew when it is wanted.
    let (control, taken) = streams.remove(0);
    drop(streams);
    let dialing = async { say_hello(dialer.dial_over(server.address(), Carrier::Quic).await.unwrap()).await };
    let (data, data_taken) = tokio::join!(dialing, server.take());
    assert_ne!(data.exporter("a"), control.exporter("a"));
    exchange(data, greeted(data_taken.unwrap()).await.connection, 100_000).await;
    exchange(control, taken.connection, 100_000).await;
}

#[tokio::test]
async fn where_no_further_connection_can_be_had_streams_are_of_those_that_there_are() {
    let server = Server::over_quic(vec![job(1)]);
    let dialer = quic_dialer(1).with_quic_connections(NonZeroUsize::new(2).unwrap());
    let (control, taken) = session(&server, &dialer).await;
    // By this clock its name for the job is of a day that is long gone.
    let stale = dialer.clone().with_clock(noon_of(TODAY - 30));
    let dialing = async { say_hello(stale.dial_over(server.address(), Carrier::Quic).await.unwrap()).await };
    let taking = async {
        assert!(server.take().await.is_err(), "a further connection is refused");
        server.take().await
    };
    let (data, data_taken) = tokio::join!(dialing, taking);
    assert_eq!(data.exporter("a"), control.exporter("a"));
    exchange(data, greeted(data_taken.unwrap()).await.connection, 1000).await;
    drop(taken);
}

/// Carries the packets of whoever comes first to a server and back; all others' are lost without a word.
async fn relay_of_one(server: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let (outer, inner) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    inner.connect(server).await.unwrap();
    let address = outer.local_addr().unwrap();
    let carrying = tokio::spawn(async move {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let mut first = None;
        loop {
            tokio::select! {
                came = outer.recv_from(&mut there) => {
                    let Ok((length, from)) = came else { continue };
                    if *first.get_or_insert(from) == from {
                        let _ = inner.send(&there[..length]).await;
                    }
                }
                came = inner.recv(&mut back) => {
                    if let (Ok(length), Some(first)) = (came, first) {
                        let _ = outer.send_to(&back[..length], first).await;
                    }
                }
            }
        }
    });
    (address, carrying)
}

#[tokio::test]
async fn where_a_further_connection_gets_no_answer_streams_are_soon_of_those_that_there_are() {
    let server = Server::over_quic(vec![job(1)]);
    let (relay, carrying) = relay_of_one(server.address()).await;
    let dialer = quic_dialer(1).with_quic_connections(NonZeroUsize::new(2).unwrap());
    let dialing = async { say_hello(dialer.dial(&[relay.into()]).await.unwrap().0).await };
    let (control, taken) = tokio::join!(dialing, server.take());
    let _taken = taken.unwrap();
    // The one that tries waits for it, one that comes meanwhile does not try again, and a later one does not wait.
    let stream = async || say_hello(dialer.dial_over(relay, Carrier::Quic).await.unwrap()).await;
    let streams = async { (tokio::join!(stream(), stream()), stream().await) };
    let taking =
        async { (server.take().await.unwrap(), server.take().await.unwrap(), server.take().await.unwrap()) };
    let (((one, two), three), _held) = tokio::join!(streams, taking);
    for data in [one, two, three] {
        assert_eq!(data.exporter("a"), control.exporter("a"));
    }
    carrying.abort();
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cut_and_the_others_go_on() {
    let server = Server::over_quic(vec![job(1)]);
    let dialer = quic_dialer(1);
    let (control, taken) = session(&server, &dialer).await;
    let further = async { say_hello(dialer.dial_one(server.address()).await.unwrap()).await };
    let (mut data, data_taken) = tokio::join!(further, server.take());
    let data_taken = greeted(data_taken.unwrap()).await;
    drop(data_taken);
    assert_eq!(data.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    exchange(control, taken.connection, 100_000).await;
}

#[tokio::test]
async fn a_session_whose_last_stream_is_dropped_is_cut() {
    let server = Server::over_quic(vec![job(1)]);
    let (mut dialed, taken) = session(&server, &quic_dialer(1)).await;
    drop(taken);
    assert_eq!(dialed.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn both_families_reach_a_listener_on_any_address() {
    let mut server = Server::new(vec![job(1)]);
    let any = (Ipv6Addr::UNSPECIFIED, 0).into();
    server.listener = Listener::bind_for(any, Transport::Auto, server.acceptor.gate()).unwrap();
    let port = server.address().port();
    for local in ["127.0.0.1", "::1"] {
        for transport in [Transport::Tcp, Transport::Quic] {
            let address = (local.parse::<std::net::IpAddr>().unwrap(), port).into();
            let dialer = dialer(1).with_transport(transport);
            let dialing = async { say_hello(dialer.dial_one(address).await.unwrap()).await };
            let (dialed, taken) = tokio::join!(dialing, server.take());
            let taken = greeted(taken.unwrap()).await.connection;
            assert_eq!(taken.peer_addr().ip().to_string(), local);
            assert_eq!(
                (dialed.carrier().name(), taken.carrier().name()),
                (transport.name(), transport.name())
            );
        }
    }
}

fn refusal(error: &HandshakeError) -> Option<Refusal> {
    match error {
        HandshakeError::NotAuthorized(refusal, _) => Some(*refusal),
        _ => None,
    }
}

#[tokio::test]
async fn a17_wrong_key_and_unknown_job_fail_alike_for_a_dialer() {
    let mut failures = Vec::new();
    for jobs in [vec![job(1)], vec![]] {
        let (server, dialer) = (Server::over_quic(jobs), quic_dialer(2));
        let (dialed, taken) = tokio::join!(dialer.dial_one(server.address()), server.take());
        let attempt = dialed.unwrap_err().attempts.remove(0);
        assert_eq!(attempt.kind, DialErrorKind::NotAuthorized);
        failures.push(attempt.reason);
        assert_eq!(refusal(&taken.unwrap_err()), Some(Refusal::UnknownJob));
    }
    assert_eq!(failures[0], failures[1]);
}

#[tokio::test]
async fn a17_unknown_job_looks_like_wrong_key() {
    for cipher in Cipher::ALL {
        let server = Server::over_quic(vec![ServedJob { ro: secret(1), cipher }]);
        let mut ends = Vec::new();
        for (fill, refused) in [(1, Refusal::WrongKey), (2, Refusal::UnknownJob)] {
            let stranger = Stranger::named(name_of(fill));
            let taking = async { server.take().await.map(drop) };
            let ((shown, end), taken) = tokio::join!(stranger.try_over_quic(server.address()), taking);
            assert_eq!(shown == spki(&secret(1).session_key().public()), fill == 1);
            assert_eq!(refusal(&taken.unwrap_err()), Some(refused));
            let ConnectionError::ConnectionClosed(close) = end else { panic!("{end:?}") };
            assert!(close.reason.is_empty(), "nothing is told in words");
            ends.push((close.error_code, close.frame_type));
        }
        assert_eq!(ends[0], ends[1]);
    }
}

#[tokio::test]
async fn a17_a_refusal_after_the_dialer_s_handshake_is_told_from_a_cut() {
    // A dialer is done before the listener has judged its key: the refusal is the error of its first read.
    let error = std::io::Error::other(rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied));
    assert!(is_rejection(&error));
    let server = Server::over_quic(vec![job(1)]);
    let (mut dialed, taken) = session(&server, &quic_dialer(1)).await;
    drop(taken);
    assert!(!is_rejection(&dialed.read(&mut [0; 1]).await.unwrap_err()));
}

#[tokio::test]
async fn a16_one_that_says_nothing_after_the_handshake_is_cut_at_the_deadline() {
    // The handshake is in it.
    let timeout = Duration::from_secs(3);
    let server = Server::over_quic_with(vec![job(1)], |options| options.timeout = timeout);
    let dialer = quic_dialer(1);
    let (dialed, taken) = tokio::join!(dialer.dial_one(server.address()), server.take());
    assert!(matches!(taken.unwrap_err(), HandshakeError::Overdue(_)));
    let mut dialed = dialed.unwrap();
    assert!(dialed.read(&mut [0; 1]).await.is_err());
}

#[tokio::test]
async fn a16_addresses_are_checked_while_many_handshakes_are_open() {
    let many = NonZeroUsize::new(1 << 10).unwrap();
    let server = Server::over_quic_with(vec![job(1)], |options| options.gate = HandshakeGate::with_max(many));
    // Those who have shown their keys and say nothing more count, too.
    let idle: Vec<_> = (0..40).map(|_| quic_dialer(1)).collect();
    let mut held = Vec::new();
    for dialer in &idle {
        let (dialed, taken) = tokio::join!(begin(dialer, &server), server.take());
        held.push((dialed, taken.unwrap()));
    }
    assert_eq!(server.acceptor.gate().in_progress(), 40);
    let (dialed, taken) = session(&server, &quic_dialer(1)).await;
    exchange(dialed, taken.connection, 1000).await;
}

#[tokio::test]
async fn where_nobody_listens_a_dialer_hears_it_at_once() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = quic_dialer(1).dial_one(nobody).await.unwrap_err();
    assert_eq!(error.kind(), DialErrorKind::Unreachable);
    assert!(!error.attempts[0].reason.contains("timed out"), "{error}");
}
