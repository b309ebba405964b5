//! A tracker and those who speak with it, in one process and with short times.

use super::{PATIENCE, now_s};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sealift_control::ca::Authority;
use sealift_control::tracker::{Tracker, TrackerTimes};
use sealift_net::{Discovery, DiscoverySettings, Member, News, TrackerSettings};
use sealift_proto::discovery::tracker::{
    ALPN, ANSWER_HEAD_BYTES, Answer, Beat, HEARD_BYTES, HEARTBEAT_BYTES, Heartbeat, Request, Token, Verdict,
    heard_counter,
};
use sealift_proto::discovery::{
    DayKeys, DiscoveryKey, Entry, NodeId, Offers, Place, SEALED_ENTRY_BYTES, SealedEntry, day_of,
};
use sealift_proto::keys::RoSecret;
use sealift_tests::ports::own_address;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TICK: Duration = Duration::from_millis(20);

fn key() -> DiscoveryKey {
    DiscoveryKey::of(&RoSecret::from_bytes(&[1; 32]))
}

fn today() -> DayKeys {
    key().day(Place::Tracker, day_of(now_s()))
}

/// A tracker that hears from members every second.
struct Server {
    dir: TempDir,
    authority: Authority,
    address: SocketAddr,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(1).await
    }

    /// One to which members speak so many seconds apart.
    async fn start_with(heartbeat_s: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::at(dir, own_address(), heartbeat_s).await
    }

    async fn at(dir: TempDir, address: SocketAddr, heartbeat_s: u16) -> Self {
        let authority = Authority::in_file(&dir.path().join("tracker.pem")).expect("an authority");
        let times = TrackerTimes { heartbeat_s, again_s: 600, ask_again_s: 1 };
        let tracker = Tracker::bind(&authority, address, times).await.expect("a tracker");
        let address = tracker.local_addr();
        let (end, ending) = watch::channel(false);
        Self { dir, authority, address, end, task: tokio::spawn(tracker.run(ending)) }
    }

    async fn stop(self) -> (TempDir, SocketAddr) {
        self.end.send_replace(true);
        self.task.await.expect("it ends");
        (self.dir, self.address)
    }

    fn settings(&self) -> DiscoverySettings {
        let fingerprint = self.authority.fingerprint();
        let byte = |at: usize| u8::from_str_radix(&fingerprint[2 * at..2 * at + 2], 16).expect("hexadecimal");
        let pin = std::array::from_fn(byte);
        DiscoverySettings { tracker: Some(TrackerSettings { address: self.address.into(), pin }), lan: None }
    }

    /// A member that listens on this port of the loopback address, or only looks.
    fn member(&self, listens: Option<u16>) -> Discovery {
        let addresses = Arc::new(|| vec![Ipv4Addr::LOCALHOST.into()]);
        let member = Member::new(listens.map(|port| (port, Offers::TCP)), addresses).expect("randomness");
        Discovery::start(self.settings(), key(), member)
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let name = ServerName::try_from("control.sealift.invalid").expect("a name");
        let tcp = TcpStream::connect(self.address).await.expect("it listens");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("it is the tracker")
    }

    async fn ask(&self, request: &Request) -> Answer {
        ask(&mut self.connect().await, request).await
    }

    /// What it says to one who only looks.
    async fn members(&self) -> Vec<SealedEntry> {
        self.ask(&asking()).await.entries
    }

    /// Until so many members are in it.
    async fn until(&self, members: usize) {
        let there = async {
            while self.members().await.len() != members {
                tokio::time::sleep(TICK).await;
            }
        };
        timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("there are never {members} members"));
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, request: &Request) -> Answer {
    stream.write_all(&request.encode()).await.expect("it reads");
    stream.flush().await.expect("it reads");
    let mut bytes = vec![0; ANSWER_HEAD_BYTES];
    stream.read_exact(&mut bytes).await.expect("it answers");
    let more = Answer::entries_bytes(bytes.first_chunk().expect("a head")).expect("within the limit");
    bytes.resize(ANSWER_HEAD_BYTES + more, 0);
    stream.read_exact(&mut bytes[ANSWER_HEAD_BYTES..]).await.expect("it answers");
    Answer::decode(&bytes).expect("an answer")
}

fn asking() -> Request {
    Request { tag: today().tag(), token: None, wanted: 64, entry: None }
}

fn telling(entry: SealedEntry) -> Request {
    Request { entry: Some(entry), ..asking() }
}

fn sealed(port: u16) -> SealedEntry {
    let mut random = [0; 28];
    getrandom::fill(&mut random).expect("randomness");
    let (node, nonce) = random.split_first_chunk().expect("28 bytes");
    let ips = [Ipv4Addr::LOCALHOST.into()];
    let entry = Entry::listening(NodeId(*node), now_s(), port, Offers::TCP, &ips);
    today().seal(&entry, *nonce.first_chunk().expect("12 of them"))
}

async fn found(member: &mut Discovery) -> u16 {
    match timeout(PATIENCE, member.next()).await.expect("somebody is found") {
        News::Found(candidate) => candidate.address.port(),
        News::Trouble(what) => panic!("{what}"),
    }
}

#[tokio::test]
async fn members_find_each_other_and_who_goes_says_so() {
    let server = Server::start().await;
    let first = server.member(Some(1001));
    server.until(1).await;
    let mut second = server.member(Some(1002));
    let mut looking = server.member(None);
    assert_eq!(found(&mut second).await, 1001);
    assert!([1001, 1002].contains(&found(&mut looking).await));
    server.until(2).await;
    // A heartbeat's socket, by which it says so, is there since the answer was read.
    drop((first, second));
    server.until(0).await;
}

#[tokio::test]
async fn heartbeats_keep_an_entry_and_silence_ends_it() {
    let server = Server::start_with(3).await;
    let _speaking = server.member(Some(1001));
    server.until(1).await;
    assert_eq!(server.ask(&telling(sealed(1002))).await.verdict, Verdict::Done);
    server.until(2).await;
    // By then the other one's last word over TLS is older still: heartbeats alone have kept it.
    server.until(1).await;
    let left: Vec<_> = server.members().await.iter().map(|entry| today().open(entry, now_s())).collect();
    let ports = left.iter().flatten().flat_map(Entry::addresses).map(|address| address.port());
    assert_eq!(ports.collect::<Vec<_>>(), [1001]);
}

#[tokio::test]
async fn after_a_restart_of_the_tracker_members_are_in_it_again() {
    let server = Server::start().await;
    let _member = server.member(Some(1001));
    server.until(1).await;
    let (dir, address) = server.stop().await;
    let server = Server::at(dir, address, 1).await;
    server.until(1).await;
}

#[tokio::test]
async fn a19_what_a_tracker_says_that_no_member_made_is_never_dialled() {
    let server = Server::start().await;
    let stranger = DiscoveryKey::of(&RoSecret::from_bytes(&[2; 32])).day(Place::Tracker, day_of(now_s()));
    let entry = Entry::listening(NodeId([1; 16]), now_s(), 9, Offers::TCP, &[Ipv4Addr::LOCALHOST.into()]);
    let mut damaged = sealed(10);
    damaged.0[100] ^= 1;
    let old =
        Entry::listening(NodeId([2; 16]), now_s() - 4000, 11, Offers::TCP, &[Ipv4Addr::LOCALHOST.into()]);
    let told = [
        stranger.seal(&entry, [1; 12]),
        SealedEntry([0x55; SEALED_ENTRY_BYTES]),
        damaged,
        today().seal(&old, [2; 12]),
        // What another place said is of another key.
        key().day(Place::Lan, day_of(now_s())).seal(&entry, [3; 12]),
        sealed(1001),
    ];
    for entry in told {
        assert_eq!(server.ask(&telling(entry)).await.verdict, Verdict::Done);
    }
    let mut member = server.member(None);
    assert_eq!(found(&mut member).await, 1001);
    // All of one answer was taken up before any of it was given.
    let counts = member.counts();
    assert!(counts.forged >= 4 && counts.stale >= 1 && counts.heard >= 1, "{counts:?}");
    assert!(timeout(Duration::ZERO, member.next()).await.is_err(), "nothing else to dial");
}

#[tokio::test]
async fn a_datagram_is_answered_by_less_than_it_has_or_not_at_all() {
    let server = Server::start().await;
    let token = server.ask(&telling(sealed(1001))).await.token.expect("a token");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    socket.connect(server.address).await.expect("a socket");
    let forged = Token::new(token.id.0, &[0; 32]);
    let mut repeated = Heartbeat::new(Beat::Alive, &token, 0).encode().to_vec();
    let mut sent = 0;
    let mut send = async |bytes: &[u8]| sent += socket.send(bytes).await.expect("it is sent");
    for len in [0, 1, HEARTBEAT_BYTES - 1, HEARTBEAT_BYTES, HEARTBEAT_BYTES + 1, 512, 1400] {
        send(&vec![0x53; len]).await;
    }
    for wrong in [
        Heartbeat::new(Beat::Leave, &forged, 1),
        Heartbeat::new(Beat::Alive, &Token::new([9; 16], &[0; 32]), 1),
    ] {
        send(&wrong.encode()).await;
    }
    send(&repeated).await;
    repeated.push(0);
    send(&repeated).await;
    assert!(sent > 2000);
    // Datagrams are taken one after another: the first answer is that to the first which deserves one.
    let mut buffer = [0; 2048];
    for counter in [1, 5] {
        let heartbeat = Heartbeat::new(Beat::Alive, &token, counter).encode();
        for _ in 0..3 {
            socket.send(&heartbeat).await.expect("it is sent");
        }
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").expect("an answer");
        assert_eq!(heard_counter(&buffer[..len], &token), Some(counter));
        assert_eq!((len, heartbeat.len()), (HEARD_BYTES, HEARTBEAT_BYTES));
        assert!(len < heartbeat.len(), "amplification {}", len as f64 / heartbeat.len() as f64);
    }
}

#[tokio::test]
async fn an_address_may_ask_so_often_and_a_connection_so_many_times() {
    let server = Server::start().await;
    let mut asked = 0;
    let verdict = 'all: loop {
        let mut stream = server.connect().await;
        for _ in 0..4 {
            asked += 1;
            let answer = ask(&mut stream, &asking()).await;
            if answer.verdict != Verdict::Done {
                assert!(answer.entries.is_empty() && answer.token.is_none());
                break 'all answer.verdict;
            }
        }
        // A fifth is not read.
        let _ = stream.write_all(&asking().encode()).await;
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert!(asked < 10_000, "there is no limit");
    };
    assert_eq!(verdict, Verdict::TooOften);
    assert!(asked > 512, "{asked}");
}

#[tokio::test]
async fn who_does_not_end_a_request_is_cut() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(&asking().encode()[..100]).await.expect("it reads");
    stream.flush().await.expect("it reads");
    let cut = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is cut");
    assert_eq!(cut.unwrap_or(0), 0);
}
