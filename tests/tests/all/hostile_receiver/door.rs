//! Strangers at a real sender's door: too slow, too many, without the key, with yesterday's bytes (A16–A18).

use super::{FILES, Served, assert_complete, peer};
use sealift_proto::limits::HANDSHAKE_TIMEOUT_MS;
use sealift_proto::ticket::Ticket;
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{HostileReceiver, Job};
use sealift_tests::process::{Receive, ticket_via};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[test]
fn a16_one_byte_and_then_silence_is_cut_at_the_deadline() {
    let served = Served::new();
    peer(async {
        let started = std::time::Instant::now();
        let mut silent = TcpStream::connect(served.sender.address()).await.expect("it listens");
        let mut dripping = TcpStream::connect(served.sender.address()).await.expect("it listens");
        silent.write_all(&[22]).await.expect("it listens");
        let drip = async {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].into_iter().chain(std::iter::repeat(0)) {
                second.tick().await;
                if dripping.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let mut byte = [0; 1];
        let limit = Duration::from_millis(HANDSHAKE_TIMEOUT_MS) + Duration::from_secs(8);
        let silence = async { assert!(!matches!(silent.read(&mut byte).await, Ok(1)), "without a word") };
        let both = async { tokio::join!(silence, drip) };
        tokio::time::timeout(limit, both).await.expect("both are cut");
        assert!(started.elapsed() >= Duration::from_millis(HANDSHAKE_TIMEOUT_MS), "not at once");
    });
    let _ = served.assert_unharmed();
}

#[test]
fn a16_a_crowd_of_idle_connections_harms_neither_a_running_session_nor_a_new_one() {
    let served = Served::new();
    let address = served.sender.address();
    for crowd in [300, 2000] {
        peer(async {
            let mut receiver = HostileReceiver::new(served.ticket());
            let (mut control, _) = receiver.control().await;
            let mut idle = Vec::new();
            for _ in 0..crowd {
                idle.push(TcpStream::connect(address).await.expect("it listens"));
            }
            receiver.manifest(&mut control).await.expect("a running session goes on");
            // Beside all of them, on a thread of its own: they stay as they are.
            let ticket = served.ticket().to_owned();
            let honest = std::thread::spawn(move || {
                let dest = tempfile::tempdir().expect("there is room");
                let outcome = Receive::run(&ticket, dest.path(), &["--retry-for", "20"]).expect(0);
                assert_eq!(outcome.total("files"), FILES.len() as u64);
                assert_complete(dest.path());
            });
            honest.join().expect("an honest receiver is served");
        });
    }
    let _ = served.assert_unharmed();
}

#[test]
fn a17_without_the_jobs_key_nothing_is_served_and_the_exit_code_says_so() {
    let served = Served::new();
    let other = Served::new();
    let address = served.sender.address();
    let ticket = Ticket::decode(served.ticket()).expect("a ticket");
    let no_key = Job::random().ticket(vec![address.into()]);
    let others_key = ticket_via(other.ticket(), address);
    let wrong_secret = Ticket { ro_secret: Job::random().ro(), ..ticket.clone() }.encode().to_string();
    for (case, text) in [("no key", no_key), ("another job's", others_key), ("half of it", wrong_secret)] {
        let dest = tempfile::tempdir().expect("there is room");
        let outcome = Receive::run(&text, dest.path(), &["--retry-for", "20"]);
        assert_plain(&outcome);
        assert_eq!(outcome.code, Some(4), "{case}: {outcome:#?}");
        assert!(outcome.message().contains("not authorized"), "{case}: {}", outcome.message());
        assert_eq!(sealift_tests::tree::entries(dest.path()).len(), 1, "{case}");
    }
    // The right secret opens the session, and the manifest is not signed by the key that was given.
    let wrong_verify = Ticket { verify_key: Job::random().verify_key(), ..ticket }.encode().to_string();
    let dest = tempfile::tempdir().expect("there is room");
    let outcome = Receive::run(&wrong_verify, dest.path(), &["--retry-for", "20"]).expect(1);
    assert!(outcome.message().contains("another job"), "{outcome:#?}");
    let told = served.assert_unharmed();
    assert_eq!(told.named("connected").count(), 2, "strangers are not announced as receivers: {told:#?}");
    let _ = other.assert_unharmed();
}

/// Relays connections and keeps what each client sent.
async fn relay(listener: TcpListener, to: SocketAddr, recorded: Arc<Mutex<Vec<Vec<u8>>>>) {
    loop {
        let (client, _) = listener.accept().await.expect("it listens");
        let server = TcpStream::connect(to).await.expect("it listens");
        let index = {
            let mut recorded = recorded.lock().expect("one thread");
            recorded.push(Vec::new());
            recorded.len() - 1
        };
        let kept = Arc::clone(&recorded);
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let forward = async {
                let mut chunk = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut chunk).await {
                    kept.lock().expect("one thread")[index].extend_from_slice(&chunk[..count]);
                    if to_server.write_all(&chunk[..count]).await.is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown().await;
            };
            let backward = async {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                let _ = to_client.shutdown().await;
            };
            tokio::join!(forward, backward);
        });
    }
}

#[test]
fn a18_a_recorded_session_replayed_brings_nothing() {
    let served = Served::new();
    let address = served.sender.address();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    peer(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let via = ticket_via(served.ticket(), listener.local_addr().expect("bound"));
        let relaying = tokio::spawn(relay(listener, address, Arc::clone(&recorded)));
        let receiving = tokio::task::spawn_blocking(move || {
            let dest = tempfile::tempdir().expect("there is room");
            let _ = Receive::run(&via, dest.path(), &[]).expect(0);
            assert_complete(dest.path());
        });
        receiving.await.expect("it is received through the relay");
        relaying.abort();
    });
    let recorded = recorded.lock().expect("one thread").clone();
    assert!(recorded.len() >= 2, "a control and data connections");
    peer(async {
        for bytes in recorded.iter().filter(|bytes| !bytes.is_empty()) {
            let mut replayed = TcpStream::connect(address).await.expect("it listens");
            // It may cut the connection while we write.
            let _ = replayed.write_all(bytes).await;
            let _ = replayed.shutdown().await;
            let mut back = Vec::new();
            let _ = replayed.read_to_end(&mut back).await;
            assert!(back.len() < 16 << 10, "no more than a handshake comes back: {} bytes", back.len());
        }
    });
    let told = served.assert_unharmed();
    assert_eq!(told.named("connected").count(), 2, "the replay is no receiver: {told:#?}");
}
