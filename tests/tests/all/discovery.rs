//! Senders and receivers that find each other: by a tracker alone, by the local network alone; and nobody else.

mod tracker;

use sealift_net::LanSettings;
use sealift_proto::discovery::lan::{DATAGRAM_BYTES, Datagram};
use sealift_proto::discovery::{DiscoveryKey, Entry, NodeId, Offers, Place, day_of};
use sealift_proto::keys::RoSecret;
use sealift_proto::ticket::Ticket;
use sealift_tests::control::{Agent, Daemon};
use sealift_tests::ports::{bind_again, own_address};
use sealift_tests::process::{Process, Receive, Run, Sender, control_program};
use sealift_tests::tree::{SpecialModes, assert_same, mixed};
use serde_json::json;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// Of the loopback network.
const BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// The ticket without addresses.
fn without_addresses(ticket: &str) -> String {
    let mut ticket = Ticket::decode(ticket).expect("a ticket");
    ticket.addresses.clear();
    ticket.encode().to_string()
}

/// A tree, and a place for its copy.
struct Trees {
    _dir: TempDir,
    src: std::path::PathBuf,
    dst: std::path::PathBuf,
}

impl Trees {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
        fs::create_dir(&src).expect("a directory");
        mixed(&src, 5, 10);
        Self { _dir: dir, src, dst }
    }

    fn assert_same(&self) {
        assert_same(&self.src, &self.dst, SpecialModes::Dropped);
    }
}

/// A network of one test: the loopback one, by a port that nobody else has.
struct Lan(u16);

impl Lan {
    fn new() -> Self {
        Self(own_address().port())
    }

    fn variable(&self) -> String {
        format!("{BROADCAST}:{}", self.0)
    }

    fn sender(&self, src: &Path) -> Run {
        Run::send([src]).env("SEALIFT_LAN", self.variable())
    }

    fn receiver(&self, ticket: &str, dst: &Path) -> Run {
        Run::receive(ticket, dst).env("SEALIFT_LAN", self.variable())
    }

    /// What is sent to everybody on it.
    fn listener(&self) -> UdpSocket {
        // The programs share the port with whoever says so, which std cannot.
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
        let socket = socket.expect("a socket");
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).expect("a shared port");
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.0));
        rustix::net::bind(&socket, &any).expect("the port");
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket
    }

    /// Sends to everybody on it.
    fn speaker(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.set_broadcast(true).expect("a socket");
        socket.connect((BROADCAST, self.0)).expect("a socket");
        socket
    }
}

/// What somebody says who holds the secret: that a member is at this address.
fn datagram(ro: &RoSecret, made_s: u64, at: SocketAddr) -> Datagram {
    let keys = DiscoveryKey::of(ro).day(Place::Lan, day_of(now_s()));
    let mut random = [0; 28];
    getrandom::fill(&mut random).expect("randomness");
    let (node, nonce) = random.split_first_chunk().expect("28 bytes");
    let entry = Entry::listening(NodeId(*node), made_s, at.port(), Offers::TCP, &[at.ip()]);
    Datagram { tag: keys.tag(), entry: keys.seal(&entry, *nonce.first_chunk().expect("12 of them")) }
}

/// A port on which nobody speaks Sealift; who dials it is counted.
struct Trap(TcpListener);

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// How often it was dialled so far.
    fn dialled(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

/// A tracker that is a process.
struct TrackerProcess {
    dir: TempDir,
    _process: Process,
    address: SocketAddr,
    pin: String,
}

impl TrackerProcess {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ready = dir.path().join("ready");
        let process = Run::with(["tracker", "--listen", "127.0.0.1:0", "--ready-file"])
            .arg(&ready)
            .arg("--dir")
            .arg(dir.path().join("tracker"))
            .program(control_program())
            .start();
        let deadline = Instant::now() + PATIENCE;
        let text = loop {
            match fs::read_to_string(&ready) {
                Ok(text) => break text,
                Err(_) => assert!(Instant::now() < deadline, "the tracker does not start"),
            }
            std::thread::yield_now();
        };
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).expect("it says so").to_owned()
        };
        let address = of("tracker ").parse().expect("an address");
        Self { dir, _process: process, address, pin: of("pin ") }
    }

    fn option(&self) -> String {
        format!("--tracker={}#sha256:{}", self.address, self.pin)
    }
}

#[test]
fn a_receiver_finds_a_sender_by_a_tracker_alone() {
    let (trees, tracker) = (Trees::new(), TrackerProcess::start());
    let sender = Sender::start([&trees.src], &[&tracker.option()]);
    let ticket = without_addresses(&sender.ticket);
    let _ = Receive::run(&ticket, &trees.dst, &[&tracker.option()]).expect(0);
    trees.assert_same();
    // Its key is its own.
    let key = fs::metadata(tracker.dir.path().join("tracker/tracker.pem")).expect("a key");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&key) & 0o777, 0o600);
}

#[test]
fn two_receivers_find_each_other_by_a_tracker_alone_when_the_source_is_gone() {
    let tracker = TrackerProcess::start();
    let dir = tempfile::tempdir().expect("a directory");
    let (src, [first, second]) =
        (dir.path().join("src"), ["first", "second"].map(|name| dir.path().join(name)));
    fs::create_dir(&src).expect("a directory");
    mixed(&src, 5, 200);
    let sender = Sender::start([&src], &["--no-lan"]);
    let receive = |dst: &Path, ticket: &str| {
        Run::receive(ticket, dst).args(["--bind=127.0.0.1:0", "--no-lan", &tracker.option()])
    };
    let mut one = receive(&first, &sender.ticket).arg("--stay=30").start();
    drop(one.wait_for("done"));
    let gone = sender.ticket.clone();
    let _ = sender.stop().expect(0);
    // The address of the ticket is nobody's any more, and nobody told the second of the first.
    let received = receive(&second, &gone).arg("--retry-for=30").finish().expect(0);
    assert_same(&src, &second, SpecialModes::Dropped);
    let peers: Vec<_> = received.named("connected").map(|event| event["peer"].clone()).collect();
    let old = Ticket::decode(&gone).expect("a ticket").addresses[0].to_string();
    assert!(!peers.is_empty() && peers.iter().all(|peer| *peer != old), "{peers:?}");
    let _ = one.finish().expect(0);
}

#[test]
fn a_daemon_is_a_tracker_with_the_pin_that_its_agents_know() {
    let (trees, daemon) = (Trees::new(), Daemon::start());
    let option = format!("--tracker={}#{}", daemon.tracker, daemon.pin);
    let sender = Sender::start([&trees.src], &[&option]);
    let by_variable = Run::receive(without_addresses(&sender.ticket), &trees.dst)
        .env("SEALIFT_TRACKER", format!("{}#{}", daemon.tracker, daemon.pin));
    let _ = by_variable.finish().expect(0);
    trees.assert_same();
}

#[test]
fn a_destination_finds_its_source_by_the_daemons_tracker() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("two", 2, true);
    let (mut alpha, mut beta) = (Agent::stranger("alpha"), Agent::join(&daemon, "beta", &token));
    // What the daemon is told leads nowhere (RFC 5737).
    let nowhere = ["--data-address", "192.0.2.1:1"];
    let joined = alpha.try_join_with(daemon.agents, &daemon.pin, &token, &nowhere);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let (src, dst) = (alpha.data().join("src"), beta.data().join("dst"));
    fs::create_dir(&src).expect("a directory");
    mixed(&src, 5, 10);
    alpha.start();
    beta.start();
    let spec =
        json!({ "kind": "distribution", "from": [alpha.endpoint("src")], "to": [beta.endpoint("dst")] });
    let job = daemon.api("POST", "jobs", json!({ "name": "found", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().expect("an id")), None);
    daemon.run_until(run["id"].as_str().expect("an id"), "it is done", |run| run["state"] == "done");
    assert_same(&src, &dst, SpecialModes::Dropped);
}

#[test]
fn a_tracker_that_is_not_the_pinned_one_is_told_nothing() {
    let (trees, tracker) = (Trees::new(), TrackerProcess::start());
    let wrong = format!("--tracker={}#{}", tracker.address, "ab".repeat(32));
    let mut sender = Sender::start([&trees.src], &[&wrong]);
    let warning = sender.process.wait_for("warning");
    let message = warning["message"].as_str().expect("a message");
    assert!(message.contains("tracker") && message.contains("pinned"), "{message}");
    // Nor is anybody found by the right one, therefore.
    let ticket = without_addresses(&sender.ticket);
    let _ = Receive::run(&ticket, &trees.dst, &[&tracker.option(), "--retry-for=2"]).expect(5);
}

#[test]
fn a_receiver_finds_a_sender_on_the_local_network_alone() {
    let (trees, lan) = (Trees::new(), Lan::new());
    let sender = Sender::of(lan.sender(&trees.src));
    let _ = lan.receiver(&without_addresses(&sender.ticket), &trees.dst).finish().expect(0);
    trees.assert_same();
}

#[test]
fn a_sender_that_moved_is_found_by_the_ticket_that_it_gave_before() {
    let (trees, lan) = (Trees::new(), Lan::new());
    let state = tempfile::tempdir().expect("a directory");
    let sender = |args: &[&str]| Sender::of(lan.sender(&trees.src).args(args).state_dir(state.path()));
    let first = sender(&["--job=moving"]);
    let (ticket, address) = (first.ticket.clone(), first.address());
    let _ = first.stop().expect(0);
    // Somebody else's port now.
    let trap = bind_again(|| TcpListener::bind(address));
    let moved = sender(&["--job=moving"]);
    assert_ne!(moved.address(), address);
    drop(trap);
    let received = lan.receiver(&ticket, &trees.dst).finish().expect(0);
    let peer = received.events.iter().find(|event| event["event"] == "connected").expect("it connected");
    assert_eq!(peer["peer"], moved.address().to_string());
    trees.assert_same();
}

#[test]
fn a_sender_is_found_whose_only_address_is_another_senders_now() {
    let (trees, lan) = (Trees::new(), Lan::new());
    let other = Trees::new();
    let stranger = Sender::start([&other.src], &["--no-lan"]);
    let sender = Sender::of(lan.sender(&trees.src));
    let ticket = sender.ticket_via(stranger.address());
    let received = lan.receiver(&ticket, &trees.dst).finish().expect(0);
    trees.assert_same();
    assert!(received.named("warning").count() > 0, "{received:?}");
    // Where nobody can be asked, it is said at once what is wrong.
    let nobody = Run::receive(&ticket, trees.dst.join("else")).arg("--no-lan").finish().expect(4);
    assert!(nobody.message().contains("not authorized"), "{nobody:?}");
    // And soon, where nobody answers.
    drop(sender);
    let lost = lan.receiver(&ticket, &trees.dst.join("else")).arg("--retry-for=600").finish().expect(4);
    assert!(lost.message().contains("not authorized"), "{lost:?}");
}

#[test]
fn a_sender_is_found_while_an_address_of_its_ticket_keeps_silent() {
    let (trees, lan) = (Trees::new(), Lan::new());
    // It takes connections in, and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let sender = Sender::of(lan.sender(&trees.src));
    let ticket = sender.ticket_via(silent.local_addr().expect("it is bound"));
    // To wait for that one would take longer.
    let _ = lan.receiver(&ticket, &trees.dst).arg("--retry-for=8").finish().expect(0);
    trees.assert_same();
}

#[test]
fn with_no_lan_nothing_is_said_there() {
    let (trees, lan) = (Trees::new(), Lan::new());
    let listener = lan.listener();
    let sender = Sender::of(lan.sender(&trees.src).args(["--no-lan", "--once"]));
    let _ = lan.receiver(&sender.ticket, &trees.dst).arg("--no-lan").finish().expect(0);
    let _ = sender.process.finish().expect(0);
    listener.set_nonblocking(true).expect("a socket");
    let heard = listener.recv(&mut [0; 2 * DATAGRAM_BYTES]);
    assert_eq!(heard.expect_err("nothing was said").kind(), std::io::ErrorKind::WouldBlock);
    // It was listened: somebody who says something is heard.
    lan.speaker().send(b"something").expect("a network");
    listener.set_nonblocking(false).expect("a socket");
    assert_eq!(listener.recv(&mut [0; 16]).expect("heard"), 9);
}

#[test]
fn a19_what_strangers_say_on_the_local_network_is_never_dialled_and_what_is_replayed_once() {
    let (trees, lan) = (Trees::new(), Lan::new());
    let [forged, stale, replayed] = [Trap::new(), Trap::new(), Trap::new()];
    let sender = Sender::start([&trees.src], &["--no-lan"]);
    let ticket = without_addresses(&sender.ticket);
    let ro = Ticket::decode(&ticket).expect("a ticket").ro_secret;
    let (listener, speaker) = (lan.listener(), lan.speaker());
    let receiver = lan.receiver(&ticket, &trees.dst).arg("--retry-for=4").start();
    // A stranger on the network sees the tag,
    let mut bytes = [0; DATAGRAM_BYTES + 1];
    let len = listener.recv(&mut bytes).expect("the receiver looks for somebody");
    let seen = Datagram::decode(&bytes[..len]).expect("a datagram");
    let stranger = RoSecret::from_bytes(&[9; 32]);
    for _ in 0..50 {
        let mut said = datagram(&stranger, now_s(), forged.address());
        said.tag = seen.tag;
        speaker.send(&said.encode()).expect("a network");
    }
    // and has what a member said some time ago, and just now.
    speaker.send(&datagram(&ro, now_s() - 4000, stale.address()).encode()).expect("a network");
    let now = datagram(&ro, now_s(), replayed.address());
    for _ in 0..50 {
        speaker.send(&now.encode()).expect("a network");
    }
    let _ = receiver.finish().expect(5);
    assert_eq!([forged.dialled(), stale.dialled(), replayed.dialled()], [0, 0, 1]);
    assert!(!trees.dst.join("a").exists());
    assert_eq!(LanSettings::default().port, 3838);
}
