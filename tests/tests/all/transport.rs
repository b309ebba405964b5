//! Replication over QUIC: the same trees, keys, limits and ends as over TCP.
#![allow(clippy::unwrap_used)]

use crate::replicate::Place;
use sealift_proto::keys::RoSecret;
use sealift_proto::ticket::Ticket;
use sealift_tests::control::until;
use sealift_tests::process::{Outcome, Receive, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, large_file, small_files};
use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Instant;

const MIB: u64 = 1 << 20;
const QUIC: &[&str] = &["--transport=quic"];

/// What a session went over, as one end tells it.
fn carriers(outcome: &Outcome) -> Vec<String> {
    let told = outcome.named("connected");
    told.map(|event| event["transport"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tree_of_oddities_is_the_same_over_quic() {
    let place = Place::new();
    tree::oddities(&place.src, 1);
    let (sent, received) = place.replicate(&[], QUIC);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(carriers(&received), ["quic"]);
    assert_eq!(carriers(&sent), ["quic"]);
    assert_eq!(sent.total("bytes_transferred"), received.total("bytes_transferred"));
}

#[test]
fn large_files_go_over_many_streams_by_ipv6() {
    let place = Place::new();
    large_file(&place.src.join("large"), 40 * MIB + 7, 1);
    small_files(&place.src.join("small"), 200, 1);
    let run = Run::with(["send", "--json", "--bind", "[::1]:0", "--transport=quic"]).arg(&place.src);
    let sender = Sender::of(run);
    let received = sender.receive(&place.dst, &["--transport=quic", "--connections=7"]).expect(0);
    assert_eq!(carriers(&received), ["quic"]);
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

/// The UDP sockets of a process.
fn udp_sockets(process: u32) -> usize {
    let table = fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap();
    let inodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
    let sockets: HashSet<PathBuf> = inodes.map(|inode| format!("socket:[{inode}]").into()).collect();
    let handles = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = handles.filter_map(|handle| fs::read_link(handle.unwrap().path()).ok());
    links.filter(|link| sockets.contains(link)).collect::<HashSet<_>>().len()
}

#[test]
fn a_receiver_may_have_several_quic_connections() {
    let place = Place::new();
    large_file(&place.src.join("large"), 40 * MIB + 7, 1);
    small_files(&place.src.join("small"), 200, 1);
    let sender = Sender::start([&place.src], &["--bwlimit=8M"]);
    let options = ["--transport=quic", "--connections=6", "--quic-connections=3", "--no-share"];
    let receiver = Run::receive(&sender.ticket, &place.dst).args(options).start();
    let process = receiver.id();
    until("three connections", || (udp_sockets(process) == 3).then_some(()));
    let received = receiver.finish().expect(0);
    assert_eq!(carriers(&received), ["quic"]);
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

#[test]
fn a17_a_wrong_key_is_refused_over_quic() {
    let place = Place::new();
    small_files(&place.src, 3, 1);
    let mut sender = Sender::start([&place.src], &[]);
    let ticket = Ticket::decode(&sender.ticket).unwrap();
    let wrong = Ticket { ro_secret: RoSecret::from_bytes(&[7; 32]), ..ticket };
    let refused = Receive::run(wrong.encode(), &place.dst, QUIC).expect(4);
    assert!(refused.message().contains("not authorized"), "{refused:?}");
    drop(sender.process.wait_for("refused"));
    let sent = sender.stop().expect(0);
    assert_eq!(sent.named("connected").count(), 0);
    assert_eq!(sent.named("refused").count(), 1);
}

#[test]
fn a_sender_that_has_tcp_alone_is_found_to_be_unreachable_by_quic_at_once() {
    let place = Place::new();
    small_files(&place.src, 3, 1);
    let sender = Sender::start([&place.src], &["--transport=tcp"]);
    let port = Ticket::decode(&sender.ticket).unwrap().addresses[0].to_string();
    assert!(UdpSocket::bind(&port).is_ok(), "nothing listens there");
    let begun = Instant::now();
    drop(Receive::run(&sender.ticket, &place.dst, &["--transport=quic", "--retry-for=0"]).expect(5));
    assert!(begun.elapsed().as_secs() < 30, "it is not waited for");
    drop(sender.receive(&place.dst, &["--transport=tcp"]).expect(0));
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

/// Replicates with `auto`, and says what the receiver's session went over.
fn by_auto(place: &Place, ticket: &str) -> Vec<String> {
    let received = Receive::run(ticket, &place.dst, &["--transport=auto", "--retry-for=5"]).expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    carriers(&received)
}

#[test]
fn auto_goes_over_whichever_a_sender_has() {
    // Of a sender that has both, QUIC is tried first; on a busy machine TCP may be there before it all the same.
    let cases: [(&str, &[&str]); 3] = [("tcp", &["tcp"]), ("quic", &["quic"]), ("auto", &["quic", "tcp"])];
    for (transport, carriers) in cases {
        let place = Place::new();
        large_file(&place.src.join("large"), 30 * MIB, 1);
        let sender = Sender::start([&place.src], &["--transport", transport]);
        let over = by_auto(&place, &sender.ticket);
        assert!(over.len() == 1 && carriers.contains(&over[0].as_str()), "{transport}: {over:?}");
        drop(sender.stop().expect(0));
    }
}

#[test]
fn auto_falls_back_to_tcp_where_udp_is_lost_without_a_word() {
    let place = Place::new();
    large_file(&place.src.join("large"), 30 * MIB, 1);
    let sender = Sender::start([&place.src], &["--transport=tcp"]);
    // Takes every packet, and answers none.
    let _hole = UdpSocket::bind(Ticket::decode(&sender.ticket).unwrap().addresses[0].to_string()).unwrap();
    assert_eq!(by_auto(&place, &sender.ticket), ["tcp"]);
    drop(sender.stop().expect(0));
}

#[test]
fn c1_a_sender_that_is_killed_is_noticed_over_quic() {
    let place = Place::new();
    large_file(&place.src.join("large"), 64 * MIB, 1);
    let sender = Sender::start([&place.src], &["--bwlimit=8M"]);
    let mut receiver = Run::receive(&sender.ticket, &place.dst).args(QUIC).arg("--retry-for=1").start();
    drop(receiver.wait_for("connected"));
    let begun = Instant::now();
    drop(sender);
    let lost = receiver.finish().expect(5);
    assert!(begun.elapsed().as_secs() < 60, "{lost:?}");
}

/// Replicates 6 MiB at no more than 2 MiB a second.
fn takes_its_time(at_sender: &[&str], at_receiver: &[&str]) {
    let place = Place::new();
    large_file(&place.src.join("large"), 6 * MIB, 1);
    small_files(&place.src.join("small"), 20, 1);
    let sender = Sender::start([&place.src], at_sender);
    let begun = Instant::now();
    let received = sender.receive(&place.dst, at_receiver).expect(0);
    let took = begun.elapsed().as_secs_f64();
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(carriers(&received), ["quic"]);
    assert!(took >= 2.8, "{took} s");
}

#[test]
fn a_sender_keeps_to_its_limit_over_quic() {
    takes_its_time(&["--bwlimit=2M"], QUIC);
}

#[test]
fn a_receiver_keeps_to_its_limit_over_quic() {
    takes_its_time(&[], &["--bwlimit=2M", "--transport=quic"]);
}

#[test]
fn a_transport_that_is_none_is_refused() {
    let place = Place::new();
    drop(Run::send([&place.src]).arg("--transport=udp").finish().expect(2));
}
