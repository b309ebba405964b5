//! Members and strangers on the loopback network, with real sockets.

use super::*;
use sealift_proto::discovery::lan::Datagram;
use sealift_proto::keys::RoSecret;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(60);
const BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn key(job: u8) -> DiscoveryKey {
    DiscoveryKey::of(&RoSecret::from_bytes(&[job; 32]))
}

/// A port that nobody else has: members of one test, on the loopback network.
fn lan() -> LanSettings {
    let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    LanSettings { port: free, targets: Some(vec![BROADCAST]) }
}

fn member(listens: Option<u16>) -> Member {
    let addresses = Arc::new(|| vec![Ipv4Addr::LOCALHOST.into()]);
    Member::new(listens.map(|port| (port, Offers::TCP)), addresses).unwrap()
}

fn on(lan: &LanSettings, job: u8, listens: Option<u16>) -> Discovery {
    let settings = DiscoverySettings { tracker: None, lan: Some(lan.clone()) };
    Discovery::start(settings, key(job), member(listens))
}

async fn found(discovery: &mut Discovery) -> SocketAddr {
    match tokio::time::timeout(PATIENCE, discovery.next()).await.expect("somebody is found") {
        News::Found(candidate) => candidate.address,
        News::Trouble(what) => panic!("{what}"),
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What somebody with the key of a job broadcasts, in the name of any member and of any time.
fn datagram(job: u8, made_s: u64, port: u16) -> Datagram {
    let keys = key(job).day(Place::Lan, day_of(now_s()));
    let ips = [Ipv4Addr::LOCALHOST.into()];
    let entry = Entry::listening(NodeId(random().unwrap()), made_s, port, Offers::TCP, &ips);
    Datagram { tag: keys.tag(), entry: keys.seal(&entry, random().unwrap()) }
}

fn broadcaster(lan: &LanSettings) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.connect((BROADCAST, lan.port)).unwrap();
    socket
}

#[tokio::test]
async fn members_on_one_network_find_each_other_whoever_comes_first() {
    let lan = lan();
    let mut first = on(&lan, 1, Some(1001));
    let mut second = on(&lan, 1, Some(1002));
    let mut looking = on(&lan, 1, None);
    let _stranger = on(&lan, 2, Some(1003));
    assert_eq!(found(&mut first).await, SocketAddr::from((Ipv4Addr::LOCALHOST, 1002)));
    assert_eq!(found(&mut second).await, SocketAddr::from((Ipv4Addr::LOCALHOST, 1001)));
    let mut both = [found(&mut looking).await.port(), found(&mut looking).await.port()];
    both.sort_unstable();
    assert_eq!(both, [1001, 1002]);
}

#[tokio::test]
async fn a19_forged_and_old_datagrams_give_nothing_to_dial_and_are_counted() {
    let lan = lan();
    let mut member = on(&lan, 1, None);
    let socket = broadcaster(&lan);
    // Until the member listens nothing comes to it.
    let first = tokio::time::timeout(PATIENCE, async {
        loop {
            socket.send(&datagram(1, now_s(), 2000).encode()).unwrap();
            tokio::select! {
                news = member.next() => return news,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    assert!(matches!(first.await.expect("it is heard"), News::Found(_)));
    let before = member.counts();

    let authentic = datagram(1, now_s(), 2001);
    let mut forged: Vec<Datagram> = (0..100).map(|port| datagram(2, now_s(), 3000 + port)).collect();
    for one in &mut forged {
        // The tag is seen by everybody on the network.
        one.tag = authentic.tag;
    }
    let mut damaged = authentic;
    damaged.entry.0[20] ^= 1;
    forged.push(damaged);
    let stale = [0, now_s() - 3700, now_s() + 3700, u64::MAX].map(|made_s| datagram(1, made_s, 4000));
    let unknown = datagram(2, now_s(), 5000);
    for one in forged.iter().chain(&stale).chain([&unknown]) {
        socket.send(&one.encode()).unwrap();
    }
    for len in [0, 1, 211, 213, 1400] {
        socket.send(&vec![0x53; len]).unwrap();
    }
    socket.send(&authentic.encode()).unwrap();

    // What was sent before it was taken up before it.
    assert_eq!(found(&mut member).await.port(), 2001);
    let counts = member.counts();
    assert_eq!(counts.forged - before.forged, 101);
    assert_eq!(counts.stale - before.stale, 4);
    assert_eq!(counts.heard - before.heard, 1);
}

#[tokio::test]
async fn a_flood_is_dropped_unopened() {
    let lan = lan();
    let mut member = on(&lan, 1, None);
    let socket = broadcaster(&lan);
    let mut forged = datagram(2, now_s(), 1);
    forged.tag = datagram(1, now_s(), 1).tag;
    let bytes = forged.encode();
    let flooded = async {
        loop {
            for _ in 0..64 {
                socket.send(&bytes).unwrap();
            }
            tokio::task::yield_now().await;
            if member.counts().dropped > 0 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, flooded).await.expect("a limit");
    let counts = member.counts();
    assert!(counts.forged >= 256, "{counts:?}");
    assert!(tokio::time::timeout(Duration::ZERO, member.next()).await.is_err(), "nothing to dial");
}

#[test]
fn jitter_stays_about_the_middle() {
    let middle = Duration::from_secs(30);
    for _ in 0..1000 {
        assert!((middle / 2..=middle + middle / 2).contains(&jittered(middle)));
    }
}

#[tokio::test]
async fn at_midnight_the_keys_change_and_for_an_hour_both_are_known() {
    let time = Arc::new(AtomicU64::new(20_000 * 86_400 + 43_200));
    let shown = Arc::clone(&time);
    let clock = Clock::new(move || UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::Relaxed)));
    let discovery = Discovery::start_with(DiscoverySettings::default(), key(1), member(None), clock);
    let mut days = Days::new(&discovery.core, Place::Lan);
    let tag = |day| key(1).day(Place::Lan, day).tag();
    for (second, today, other) in [
        (20_000 * 86_400 + 43_200, 20_000, None),
        (20_001 * 86_400 - 3601, 20_000, None),
        (20_001 * 86_400 - 3600, 20_000, Some(20_001)),
        (20_001 * 86_400, 20_001, Some(20_000)),
        (20_001 * 86_400 + 3600, 20_001, None),
    ] {
        time.store(second, Ordering::Relaxed);
        let (now, then) = days.now(&discovery.core);
        assert_eq!(now.tag(), tag(today), "{second}");
        assert_eq!(then.map(DayKeys::tag), other.map(tag), "{second}");
    }
}
