//! What those without the key get (A17): nothing, and no way to tell which jobs exist.

use crate::stranger::{Heard, Stranger, name_of, spki};
use crate::support::{Server, dialer, job, secret};
use sealift_net::{Cipher, DialErrorKind, HandshakeError, Refusal, ServedJob};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;

/// The type all encrypted records share (RFC 8446, section 5.2).
const SEALED: u8 = 23;

async fn visit(server: &Server, stranger: &Stranger) -> (Heard, HandshakeError) {
    // Whoever is let in by mistake is cut, so that the test fails rather than waits.
    let taking = async { server.take().await.map(drop) };
    let (heard, taken) = tokio::join!(stranger.try_at(server.address()), taking);
    (heard, taken.expect_err("a stranger was let in"))
}

fn refusal(error: &HandshakeError) -> Option<Refusal> {
    match error {
        HandshakeError::NotAuthorized(refusal, _) => Some(*refusal),
        _ => None,
    }
}

#[tokio::test]
async fn wrong_key_and_unknown_job_fail_alike_for_a_dialer() {
    let mut failures = Vec::new();
    for jobs in [vec![job(1)], vec![]] {
        let (server, dialer) = (Server::new(jobs), dialer(2));
        let (dialed, taken) = tokio::join!(dialer.dial_one(server.address()), server.take());
        let attempt = dialed.unwrap_err().attempts.remove(0);
        assert_eq!(attempt.kind, DialErrorKind::NotAuthorized);
        failures.push(attempt.reason);
        assert_eq!(refusal(&taken.unwrap_err()), Some(Refusal::UnknownJob));
    }
    assert_eq!(failures[0], failures[1]);
}

#[tokio::test]
async fn tag_without_key_is_rejected() {
    let server = Server::new(vec![job(1)]);
    let (heard, error) = visit(&server, &Stranger::named(name_of(1))).await;
    assert_eq!(refusal(&error), Some(Refusal::WrongKey));
    assert!(heard.rejected, "{}", heard.end);
    assert_eq!(heard.server_key, spki(&secret(1).session_key().public()), "it did reach the job");
}

/// Runs a stranger's attempt against a name that is served and one that is not, and compares all it could notice.
async fn assert_looks_the_same(served: &Stranger, unknown: &Stranger, server: &Server) {
    let (at_served, served_error) = visit(server, served).await;
    let (at_unknown, unknown_error) = visit(server, unknown).await;
    assert_eq!(at_served.records, at_unknown.records);
    assert_eq!(at_served.end, at_unknown.end);
    assert_eq!(at_served.records.last().unwrap().0, SEALED, "an alert ends it: {:?}", at_served.records);
    assert_eq!(refusal(&served_error), Some(Refusal::WrongKey), "{served_error}");
    assert_eq!(refusal(&unknown_error), Some(Refusal::UnknownJob), "{unknown_error}");
}

#[tokio::test]
async fn unknown_job_looks_like_wrong_key() {
    for cipher in Cipher::ALL {
        let server = Server::new(vec![ServedJob { ro: secret(1), cipher }]);
        assert_looks_the_same(&Stranger::named(name_of(1)), &Stranger::named(name_of(2)), &server).await;
    }
}

#[tokio::test]
async fn claiming_the_key_the_server_showed_tells_nothing() {
    let server = Server::new(vec![job(1)]);
    let mut echoing = Vec::new();
    for name in [name_of(1), name_of(2)] {
        let (heard, _) = visit(&server, &Stranger::named(&*name)).await;
        echoing.push(Stranger { claims: heard.server_key, ..Stranger::named(&*name) });
    }
    assert_looks_the_same(&echoing[0], &echoing[1], &server).await;
}

#[tokio::test]
async fn decoys_stay_the_same_when_asked_again_and_when_jobs_change() {
    let mut server = Server::new(vec![job(1)]);
    let stranger = Stranger::named(name_of(2));
    let (first, _) = visit(&server, &stranger).await;
    let (second, _) = visit(&server, &stranger).await;
    server.acceptor = server.acceptor.with_jobs(vec![job(1), job(3)]);
    let (third, _) = visit(&server, &stranger).await;
    assert_eq!(first, second);
    assert_eq!(first, third);
    let (other, _) = visit(&server, &Stranger::named(name_of(4))).await;
    assert_ne!(first.server_key, other.server_key);
}

#[tokio::test]
async fn no_name_or_a_foreign_one_meets_a_decoy() {
    let server = Server::new(vec![job(1)]);
    for name in [None, Some("www.example.org".to_owned())] {
        let stranger = Stranger { name, ..Stranger::named("") };
        let (heard, error) = visit(&server, &stranger).await;
        assert!(heard.rejected, "{}", heard.end);
        assert_eq!(refusal(&error), Some(Refusal::UnknownJob));
    }
}

#[tokio::test]
async fn key_holder_that_negotiates_no_alpn_is_refused() {
    let server = Server::new(vec![job(1)]);
    for alpn in [None, Some(&b"sealift/2"[..])] {
        let (heard, error) = visit(&server, &Stranger { alpn, ..key_holder(1) }).await;
        assert!(matches!(error, HandshakeError::Incompatible(_)), "{error}");
        assert!(!heard.rejected, "its key was right: {}", heard.end);
    }
}

#[tokio::test]
async fn nothing_to_resume_with_is_issued() {
    let server = Server::new(vec![job(1)]);
    let taking = async {
        let (_reader, mut writer) = server.take().await.unwrap().connection.split();
        writer.shutdown().await.unwrap();
    };
    let stranger = key_holder(1);
    let (heard, ()) = tokio::join!(stranger.try_at(server.address()), taking);
    assert_eq!(heard.end, "Ok(\"0 bytes\")");
    let kinds: Vec<_> = heard.records.iter().map(|record| record.0).collect();
    const HELLO: u8 = 22;
    const COMPATIBILITY: u8 = 20;
    assert_eq!(kinds, [HELLO, COMPATIBILITY, SEALED, SEALED], "the handshake, then at once the end");
}

fn key_holder(fill: u8) -> Stranger {
    let key = secret(fill).session_key();
    Stranger {
        claims: spki(&key.public()),
        key: Arc::new(move |message| key.sign(message).to_vec()),
        ..Stranger::named(name_of(fill))
    }
}
