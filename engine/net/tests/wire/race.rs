//! Dialing a peer of which several addresses are known, not all of them good.

use crate::support::{Server, dialer, job};
use sealift_net::{DialErrorKind, DialTiming};
use sealift_proto::ticket::{Address, HostName};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// An address whose port was free a moment ago.
fn refusing() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Listens, and never answers.
fn silent() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

fn addresses(list: &[SocketAddr]) -> Vec<Address> {
    list.iter().copied().map(Address::Socket).collect()
}

#[tokio::test]
async fn refused_address_is_passed_over() {
    let server = Server::new(vec![job(1)]);
    let list = addresses(&[refusing(), server.address()]);
    let (dialer, taking) = (dialer(1), server.take());
    let (dialed, _) = tokio::join!(dialer.dial(&list), taking);
    assert_eq!(dialed.unwrap().1, server.address());
}

#[tokio::test]
async fn silent_address_does_not_hold_up_the_next() {
    let (server, silent) = (Server::new(vec![job(1)]), silent());
    let list = addresses(&[silent.local_addr().unwrap(), server.address()]);
    let never = DialTiming { attempt_timeout: Duration::from_hours(1), ..DialTiming::default() };
    let dialer = dialer(1).with_timing(never);
    let racing = async { tokio::join!(dialer.dial(&list), server.take()) };
    let (dialed, _) = tokio::time::timeout(Duration::from_mins(1), racing).await.expect("held up");
    assert_eq!(dialed.unwrap().1, server.address());
}

#[tokio::test]
async fn another_jobs_peer_is_passed_over() {
    let (stale, server) = (Server::new(vec![job(2)]), Server::new(vec![job(1)]));
    let list = addresses(&[stale.address(), server.address()]);
    let dialer = dialer(1);
    let (dialed, refused, _) = tokio::join!(dialer.dial(&list), stale.take(), server.take());
    assert!(refused.is_err());
    assert_eq!(dialed.unwrap().1, server.address());
}

#[tokio::test]
async fn name_is_resolved_and_raced() {
    let server = Server::new(vec![job(1)]);
    let list = [Address::Name(HostName::new("localhost").unwrap(), server.address().port())];
    let (dialer, taking) = (dialer(1), server.take());
    let (dialed, _) = tokio::join!(dialer.dial(&list), taking);
    assert_eq!(dialed.unwrap().1, server.address());
}

#[tokio::test]
async fn unreachable_names_every_address_once() {
    let (one, two) = (refusing(), refusing());
    let error = dialer(1).dial(&addresses(&[one, two, one])).await.unwrap_err();
    assert_eq!(error.kind(), DialErrorKind::Unreachable);
    assert!(error.may_pass());
    let tried: Vec<_> = error.attempts.iter().map(|attempt| attempt.address.clone()).collect();
    assert_eq!(tried, addresses(&[one, two]));
    assert!(error.to_string().contains(&one.to_string()), "{error}");
    assert_eq!(dialer(1).dial(&[]).await.unwrap_err().kind(), DialErrorKind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn silence_is_unreachable_after_the_timeout() {
    let silent = silent();
    let timing = DialTiming { attempt_timeout: Duration::from_secs(3), ..DialTiming::default() };
    let started = tokio::time::Instant::now();
    let error = dialer(1).with_timing(timing).dial_one(silent.local_addr().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), DialErrorKind::Unreachable);
    assert!(started.elapsed() >= timing.attempt_timeout);
}

#[tokio::test]
async fn another_protocol_is_incompatible() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answering = async {
        let (mut stream, _) = other.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (dialer, address) = (dialer(1), other.local_addr().unwrap());
    let (dialed, _open) = tokio::join!(dialer.dial_one(address), answering);
    assert_eq!(dialed.unwrap_err().kind(), DialErrorKind::Incompatible);
}
