//! Accepting while the process is out of descriptors (B6). Alone in its process, whose limit it lowers.

use rustix::process::{Resource, Rlimit, setrlimit};
use sealift_net::Listener;
use std::fs::File;
use std::net::TcpStream;
use std::pin::pin;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn accept_outlives_a_full_descriptor_table() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = TcpStream::connect(listener.local_addr()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

    let mut accept = pin!(listener.accept());
    let blocked = tokio::time::timeout(Duration::from_secs(5), &mut accept).await;
    assert!(blocked.is_err(), "there is no descriptor to accept with");
    drop(hoard);
    assert_eq!(accept.await.peer_addr(), client.local_addr().unwrap());
}
