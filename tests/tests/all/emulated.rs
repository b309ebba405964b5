//! Emulated networks are what was asked for: seen by echoes, by the kernel's own TCP and by the program, and gone when they
//! are dropped.
#![allow(clippy::unwrap_used)]

use crate::relay::pause;
use crate::replicate::Place;
use sealift_proto::ticket::Ticket;
use sealift_tests::blockdev::{Unavailable, or_skip, run};
use sealift_tests::net;
use sealift_tests::net::emulated::lan::LanSpec;
use sealift_tests::net::emulated::{Bulk, Echoes, End, LinkSpec, Namespace, Path, Probe, namespace};
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{SpecialModes, assert_same, large_file, small_files};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// A flow that nothing else uses.
const ECHOES: usize = 14;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What becomes of an echo each millisecond, for so long.
fn echoes(path: &Path, time: Duration) -> Echoes {
    let probe = Probe::start(path, ECHOES, millis(1)).unwrap();
    pause(time);
    probe.finish()
}

#[test]
fn echoes_meet_the_delay_and_the_losses_that_were_asked_for() {
    let link = LinkSpec { delay: millis(20), loss: 0.1, ..LinkSpec::default() };
    let Some(path) = or_skip(net::path(link, 1)) else { return };
    let echoes = echoes(&path, millis(2500));
    // Never early; late only because the machine was busy, which for some of them it was not.
    let (first, some) = (echoes.percentile(0).unwrap(), echoes.percentile(10).unwrap());
    assert!(first >= millis(40), "{first:?}");
    assert!(some < millis(60), "{some:?}");
    // Lost on the way there or on the way back: 19 %.
    assert!(echoes.sent > 300, "{}", echoes.sent);
    assert!((0.12..0.27).contains(&echoes.lost()), "{} of {}", echoes.lost(), echoes.sent);
    // The relay's own counters say the same.
    let [there, back] = path.tallies();
    assert_eq!(there.flow(ECHOES).offered.packets, echoes.sent as u64);
    assert_eq!(back.flow(ECHOES).offered, there.flow(ECHOES).passed());
    assert_eq!(back.flow(ECHOES).passed().packets, echoes.round_trips.len() as u64);
    assert_eq!(there.flow(ECHOES).passed().payload_bytes, 8 * there.flow(ECHOES).passed().packets);
    path.check().unwrap();
}

#[test]
fn echoes_overtake_each_other_and_meet_jitter() {
    let link = LinkSpec { delay: millis(5), jitter: millis(30), reorder: 0.2, ..LinkSpec::default() };
    let Some(path) = or_skip(net::path(link, 1)) else { return };
    let echoes = echoes(&path, millis(1500));
    assert!(echoes.lost() < 0.01, "{}", echoes.lost());
    let (least, most) = (echoes.percentile(1).unwrap(), echoes.percentile(99).unwrap());
    assert!(least >= millis(10) && most > least + millis(20), "{least:?} {most:?}");
}

#[test]
fn tcp_fills_the_link_and_its_queue_and_no_more() {
    // Beside it echoes wait in the queue.
    let link = LinkSpec { rate: 50_000_000, delay: millis(5), queue: millis(40), ..LinkSpec::default() };
    let Some(path) = or_skip(net::path(link, 1)) else { return };
    let bulk = Bulk::start(&path, 1, "reno").unwrap();
    let passed = || path.tallies()[0].flow(1).passed().bytes;
    // Once it is under way.
    let begins = Instant::now();
    while passed() < 4 * MIB {
        assert!(begins.elapsed() < Duration::from_secs(20), "{} bytes", passed());
        pause(millis(5));
    }
    let measured = || {
        let (began, before) = (Instant::now(), passed());
        let echoes = echoes(&path, millis(2000));
        // What waits in the queue is counted when it comes.
        let rate = (passed() - before) as f64 * 8.0 / began.elapsed().as_secs_f64();
        assert!(rate < 53e6, "{rate}");
        (echoes, rate)
    };
    // Less where the machine was busy, which it is not always.
    let (echoes, rate) =
        (0..5).map(|_| measured()).find(|&(_, rate)| rate > 35e6).expect("the link is filled once");
    drop(bulk);
    println!("{rate} b/s");
    let most = echoes.percentile(95).unwrap();
    assert!(most > millis(15), "{most:?}");
    let waited = path.tallies()[0].queueing.longest();
    assert!(waited > millis(20) && waited <= millis(40), "{waited:?}");
}

#[test]
fn a_tree_is_the_same_after_a_long_link_that_loses_and_reorders() {
    let link = LinkSpec {
        rate: 100_000_000,
        delay: millis(10),
        jitter: millis(2),
        loss: 0.01,
        reorder: 0.02,
        queue: millis(50),
    };
    for transport in ["--transport=tcp", "--transport=quic"] {
        let Some(path) = or_skip(net::path(link, 1)) else { return };
        let place = Place::new();
        large_file(&place.src.join("large"), 4 * MIB + 1, 1);
        small_files(&place.src.join("small"), 50, 1);
        let bind = format!("{}:0", path.address(End::Near, 0));
        let send = Run::with(["send", "--json", "--bind", &bind]).arg(&place.src);
        let sender = path.host(End::Near).inside(|| Sender::of(send)).unwrap();
        let receive = Run::receive(&sender.ticket, &place.dst).arg(transport);
        let receiver = path.host(End::Far).inside(|| receive.start()).unwrap();
        let _ = receiver.finish().expect(0);
        let _ = sender.stop().expect(0);
        assert_same(&place.src, &place.dst, SpecialModes::Dropped);
        let passed = path.tallies()[0].flow(0).passed().payload_bytes;
        assert!(passed > 4 * MIB, "it went over the link: {passed}");
        path.check().unwrap();
    }
}

/// Nothing of this protocol leaves this host any more.
fn block(path: &Path, end: End, protocol: &str) -> Result<(), Unavailable> {
    let rule = ["rule", "add", "ipproto", protocol, "prohibit"];
    path.host(end).inside(|| run("ip", rule).map(drop)).unwrap()
}

#[test]
fn auto_moves_to_the_other_transport_when_the_one_that_it_chose_is_blocked() {
    let link = LinkSpec { rate: 50_000_000, delay: millis(20), queue: millis(100), ..LinkSpec::default() };
    let Some(path) = or_skip(net::path(link, 1)) else { return };
    let place = Place::new();
    large_file(&place.src.join("large"), 64 * MIB, 1);
    let bind = format!("{}:0", path.address(End::Near, 0));
    let send = Run::with(["send", "--json", "--bind", &bind]).arg(&place.src);
    let sender = path.host(End::Near).inside(|| Sender::of(send)).unwrap();
    let receive = Run::receive(&sender.ticket, &place.dst);
    let receive = receive.args(["--transport=auto", "--connections=4", "--retry-for=60"]);
    let mut receiver = path.host(End::Far).inside(|| receive.start()).unwrap();
    // Both carry something until one is chosen: which one is for the link and the machine to say.
    let (blocked, left) = match receiver.wait_for("content")["transport"].as_str().unwrap() {
        "quic" => ("udp", "tcp"),
        "tcp" => ("tcp", "quic"),
        other => panic!("no transport: {other}"),
    };
    let Some(()) = or_skip(block(&path, End::Near, blocked)) else { return };
    let received = receiver.finish().expect(0);
    let _ = sender.stop().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let told: Vec<_> = received.named("content").map(|event| event["transport"].clone()).collect();
    println!("content came over {told:?}");
    assert_eq!(told.last().unwrap(), left, "{told:?}");
    // What had come was not fetched again.
    assert!(received.total("bytes_transferred") < 96 * MIB, "{received:?}");
}

#[test]
fn hosts_at_bridges_are_limited_and_counted() {
    let spec = LanSpec { hosts: 3, rate: 80_000_000, zones: 2, between: 20_000_000, queue: millis(50) };
    let Some(lan) = or_skip(net::lan(spec)) else { return };
    // Host 0 and 2 are at one bridge, host 1 at the other.
    let place = Place::new();
    large_file(&place.src.join("large"), 4 * MIB, 1);
    let bind = format!("{}:0", lan.address(0));
    let send = Run::with(["send", "--json", "--bind", &bind]).arg(&place.src);
    let sender = lan.hosts()[0].inside(|| Sender::of(send)).unwrap();
    let mut times = Vec::new();
    for host in [2, 1] {
        let dst = place.dst.join(host.to_string());
        let began = Instant::now();
        let receive = Run::receive(&sender.ticket, &dst).arg("--transport=tcp");
        let _ = lan.hosts()[host].inside(|| receive.start()).unwrap().finish().expect(0);
        times.push(began.elapsed().as_secs_f64());
        assert_same(&place.src, &dst, SpecialModes::Dropped);
        let crossed = lan.between().unwrap().sent_bytes;
        assert_eq!(crossed > 4 * MIB, host == 1, "{crossed}");
        assert!(crossed < 5 * MIB, "{crossed}");
    }
    let source = lan.host_counters(0).unwrap().sent_bytes;
    assert!((8 * MIB..10 * MIB).contains(&source), "{source}");
    // 4 MiB, less the token buckets, at 80 and at 20 Mb/s.
    assert!(times[0] > 0.38 && times[1] > 1.55, "{times:?}");
    let _ = sender.stop().expect(0);
}

#[test]
fn a_receiver_finds_a_sender_on_a_link_that_has_ipv6_alone() {
    let made = |label| Namespace::new(label).map_err(|failure| Unavailable(failure.0));
    let Some(near) = or_skip(made("near")) else { return };
    let Some(far) = or_skip(made("far")) else { return };
    let veth = ["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name()];
    let _ = near.ip(&veth).unwrap();
    for (host, own) in [(&near, "fd77::1/64"), (&far, "fd77::2/64")] {
        let _ = host.ip(&["link", "set", "eth0", "up"]).unwrap();
        let _ = host.ip(&["address", "add", own, "dev", "eth0", "nodad"]).unwrap();
    }
    let place = Place::new();
    small_files(&place.src, 5, 1);
    let send = Run::with(["send", "--json", "--bind", "[::]:0", "--transport=tcp"])
        .arg(&place.src)
        .env("SEALIFT_LAN", "3838");
    let sender = near.inside(|| Sender::of(send)).unwrap();
    let mut ticket = Ticket::decode(&sender.ticket).unwrap();
    ticket.addresses.clear();
    let receive = Run::receive(ticket.encode().as_str(), &place.dst).env("SEALIFT_LAN", "3838");
    let received = far.inside(|| receive.start()).unwrap().finish().expect(0);
    let found = received.named("connected").next().unwrap()["peer"].as_str().unwrap().to_owned();
    assert!(found.starts_with("[fd77::1]:"), "{found}");
    let _ = sender.stop().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

fn namespaces() -> String {
    run("ip", ["netns", "list"]).unwrap()
}

#[test]
fn namespaces_are_gone_with_their_owners_even_those_that_were_killed() {
    let Some(path) = or_skip(net::path(LinkSpec::default(), 1)) else { return };
    let names = [End::Near, End::Far].map(|end| path.host(end).name().to_owned());
    assert!(names.iter().all(|name| namespaces().contains(name)));
    drop(path);
    assert!(!names.iter().any(|name| namespaces().contains(name)));
    // A process that is over, and what it would have left.
    let mut over = Command::new("true").spawn().unwrap();
    over.wait().unwrap();
    let left = format!("sealift-{}-0-left", over.id());
    let ours = format!("sealift-{}-0-kept", std::process::id());
    run("ip", ["netns", "add", &left]).unwrap();
    run("ip", ["netns", "add", &ours]).unwrap();
    namespace::clear();
    let listed = namespaces();
    run("ip", ["netns", "delete", &ours]).unwrap();
    assert!(!listed.contains(&left) && listed.contains(&ours), "{listed}");
}

#[test]
fn variables_are_set_on_one_host_alone() {
    let Some(path) = or_skip(net::path(LinkSpec::default(), 1)) else { return };
    let control = |end| {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        path.host(end).inside(read).unwrap().trim().to_owned()
    };
    path.host(End::Near).set_congestion("reno").unwrap();
    path.host(End::Far).set_congestion("cubic").unwrap();
    assert_eq!((control(End::Near).as_str(), control(End::Far).as_str()), ("reno", "cubic"));
    assert!(path.host(End::Near).set_congestion("no such").is_err());
    for name in ["kernel.hostname", "net.../x", "net./etc", "net.ipv4.no_such"] {
        assert!(path.host(End::Near).sysctl(name, "1").is_err(), "{name}");
    }
}
