//! Datagrams that are dropped, and a port that is refused, before and in the middle of a transfer over QUIC (C2).

use crate::relay::pause;
use crate::replicate::Place;
use sealift_tests::ports::{bind_again, own_address};
use sealift_tests::process::{Outcome, Process, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, large_file};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Between looks at whether it is over.
const LOOK: Duration = Duration::from_millis(20);
const DROP_UP: u8 = 1;
const DROP_DOWN: u8 = 2;

/// What relays datagrams to one address, and drops those of a direction if it is told to.
struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    /// What is dropped: bits.
    drops: AtomicU8,
    /// Bytes that came from the sender.
    down_bytes: AtomicU64,
    /// Ends who listens: the number of who is to go on.
    turn: AtomicU64,
}

impl Relay {
    /// One that does not listen yet.
    fn new(upstream: SocketAddr) -> Self {
        let address = own_address();
        let shared = Shared {
            upstream,
            drops: AtomicU8::new(0),
            down_bytes: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        };
        Self { address, shared: Arc::new(shared), listening: None }
    }

    /// Listens, knowing nobody who spoke with it before.
    fn listen(&mut self) {
        let socket = bind_again(|| UdpSocket::bind(self.address));
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (shared, turn) = (Arc::clone(&self.shared), self.shared.turn.load(Ordering::SeqCst));
        self.listening = Some(thread::spawn(move || relay(&socket, &shared, turn)));
    }

    /// Whoever speaks to it hears that nobody listens.
    fn refuse(&mut self) {
        self.shared.turn.fetch_add(1, Ordering::SeqCst);
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
    }

    fn drops(&self, what: u8) {
        self.shared.drops.store(what, Ordering::SeqCst);
    }

    /// Waits until so much came from the sender.
    fn wait_for(&self, bytes: u64) {
        let begun = Instant::now();
        while self.shared.down_bytes.load(Ordering::SeqCst) < bytes {
            assert!(begun.elapsed() < Duration::from_secs(60), "too little comes");
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.refuse();
    }
}

fn relay(socket: &UdpSocket, shared: &Arc<Shared>, turn: u64) {
    let over = || shared.turn.load(Ordering::SeqCst) != turn;
    let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let backs = Mutex::new(());
    let mut buffer = vec![0; 64 << 10];
    thread::scope(|scope| {
        while !over() {
            let Ok((len, client)) = socket.recv_from(&mut buffer) else { continue };
            let up = clients.entry(client).or_insert_with(|| {
                let up = UdpSocket::bind("127.0.0.1:0").unwrap();
                up.connect(shared.upstream).unwrap();
                up.set_read_timeout(Some(LOOK)).unwrap();
                let (from, backs) = (up.try_clone().unwrap(), &backs);
                scope.spawn(move || {
                    let mut buffer = vec![0; 64 << 10];
                    while !over() {
                        let Ok(len) = from.recv(&mut buffer) else { continue };
                        shared.down_bytes.fetch_add(len as u64, Ordering::SeqCst);
                        let _one = backs.lock().unwrap();
                        if shared.drops.load(Ordering::SeqCst) & DROP_DOWN == 0 {
                            let _ = socket.send_to(&buffer[..len], client);
                        }
                    }
                });
                up
            });
            if shared.drops.load(Ordering::SeqCst) & DROP_UP == 0 {
                let _ = up.send(&buffer[..len]);
            }
        }
    });
}

/// A transfer over QUIC by a relay, to which something is done, to its end.
fn transferred(
    bytes: u64,
    limit: &str,
    prepare: impl FnOnce(&mut Relay),
    happens: impl FnOnce(&mut Relay, &mut Process),
) -> Outcome {
    let place = Place::new();
    large_file(&place.src.join("large"), bytes, 1);
    let sender = Sender::start([&place.src], &["--once", limit]);
    let mut relay = Relay::new(sender.address());
    prepare(&mut relay);
    let receiver = Run::receive(sender.ticket_via(relay.address), &place.dst);
    let mut receiver = receiver.args(["--transport=quic", "--retry-for=60"]).start();
    happens(&mut relay, &mut receiver);
    let received = receiver.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    tree::assert_tidy(&place.dst);
    assert_eq!(received.total("failed"), 0);
    let _ = sender.process.finish().expect(0);
    received
}

#[test]
fn c2_what_is_dropped_in_the_middle_in_either_direction_is_made_up_for_over_quic() {
    for direction in [DROP_UP, DROP_DOWN, DROP_UP | DROP_DOWN] {
        let received = transferred(24 * MIB, "--bwlimit=8M", Relay::listen, |relay, receiver| {
            drop(receiver.wait_for("connected"));
            relay.wait_for(4 * MIB);
            relay.drops(direction);
            pause(Duration::from_secs(2));
            relay.drops(0);
        });
        assert_eq!(received.named("connected").count(), 1, "the session outlives it: {received:?}");
        assert!(received.total("bytes_transferred") < 26 * MIB, "{received:?}");
    }
}

#[test]
fn c2_a_port_that_is_dropped_or_refused_at_first_is_tried_again_over_quic() {
    let _ = transferred(
        MIB,
        "--bwlimit=8M",
        |_| {},
        |relay, _| {
            pause(Duration::from_millis(1500));
            relay.listen();
        },
    );
    let silent = |relay: &mut Relay| {
        relay.drops(DROP_UP | DROP_DOWN);
        relay.listen();
    };
    let _ = transferred(MIB, "--bwlimit=8M", silent, |relay, _| {
        pause(Duration::from_millis(1500));
        relay.drops(0);
    });
}

#[test]
fn c2_a_port_that_is_refused_in_the_middle_is_tried_again_and_nothing_fetched_twice_over_quic() {
    let received = transferred(48 * MIB, "--bwlimit=6M", Relay::listen, |relay, receiver| {
        drop(receiver.wait_for("connected"));
        relay.wait_for(16 * MIB);
        relay.refuse();
        pause(Duration::from_secs(1));
        // What comes by it now comes from elsewhere: the session is lost, and has to be found out to be.
        relay.listen();
    });
    assert!(received.named("connected").count() >= 2, "{received:?}");
    assert!(received.named("warning").count() > 0, "the break was told: {received:?}");
    assert!(received.total("bytes_transferred") < 60 * MIB, "{received:?}");
}
