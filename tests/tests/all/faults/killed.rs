//! An end of a transfer that is killed or told to stop in the middle (hazards C1, C2, and B10 as far as a receiver
//! without an index can have it): what is left behind is whole, and the next run makes the rest of it.

use crate::relay::{Fate, Relay};
use crate::replicate::Place;
use rustix::process::Signal;
use sealift_tests::process::{Process, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, assert_whole};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A transfer that stands still in the middle.
struct Middle {
    place: Place,
    sender: Sender,
    relay: Relay,
    receiver: Process,
}

impl Middle {
    fn new(receive: &[&str]) -> Self {
        let place = Place::new();
        tree::mixed(&place.src, 300, 50);
        for number in 0..20 {
            tree::large_file(&place.src.join(format!("file {number}")), 1_500_000, number);
        }
        tree::large_file(&place.src.join("large"), 30 * MIB, 51);
        let sender = Sender::start([&place.src], &[]);
        let relay = Relay::start(sender.address(), |piece| {
            if piece.total_down > 25 * MIB { Fate::FreezeAll } else { Fate::Pass }
        });
        let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst)
            .arg("--fsync=no")
            .args(receive)
            .start();
        assert_eq!(relay.next_fate().1, Fate::FreezeAll);
        Self { place, sender, relay, receiver }
    }
}

#[test]
fn c2_a_killed_sender_is_given_up_and_a_new_one_finishes() {
    let Middle { place, sender, relay, receiver } = Middle::new(&["--retry-for=2"]);
    sender.process.kill();
    relay.refuse();
    relay.cut_all();
    let failed = receiver.finish().expect(5);
    assert!(failed.message().contains("unreachable"), "{failed:?}");
    let whole = assert_whole(&place.src, &place.dst);
    println!("{whole} bytes were in place");
    let sender = Sender::start([&place.src], &[]);
    let received = sender.receive(&place.dst, &["--transport=tcp"]).expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert!(received.total("bytes_transferred") <= received.total("bytes") - whole);
}

#[test]
fn b10_a_killed_receiver_leaves_whole_files_and_the_next_finishes() {
    let Middle { place, sender, relay, receiver } = Middle::new(&[]);
    receiver.kill();
    drop(relay);
    let whole = assert_whole(&place.src, &place.dst);
    println!("{whole} bytes were in place");
    let received = sender.receive(&place.dst, &["--transport=tcp"]).expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    tree::assert_tidy(&place.dst);
    assert!(received.total("bytes_transferred") <= received.total("bytes") - whole);
    let sent = sender.stop().expect(0);
    assert_eq!(sent.named("disconnected").count(), 2, "{sent:?}");
}

#[test]
fn an_interrupted_receiver_ends_at_once_and_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let Middle { place, sender, relay: _relay, receiver } = Middle::new(&[]);
        let began = Instant::now();
        receiver.signal(signal);
        let ended = receiver.finish().expect(1);
        // Not a measure of speed: it must not wait for a peer that is silent, which takes 20 s.
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(ended.message().contains("interrupted"), "{ended:?}");
        // What was fetched of unfinished files is kept for the next run, and nothing else.
        let left = tree::staged(&place.dst);
        assert!(left.len() <= 21, "left behind: {left:?}");
        assert_whole(&place.src, &place.dst);
        let _ = sender.receive(&place.dst, &[]).expect(0);
        assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    }
}

#[test]
fn an_interrupted_sender_ends_while_its_receiver_is_silent() {
    let Middle { place: _place, sender, relay: _relay, receiver } = Middle::new(&[]);
    let began = Instant::now();
    let _ = sender.stop().expect(0);
    assert!(began.elapsed() < Duration::from_secs(15));
    drop(receiver);
}
