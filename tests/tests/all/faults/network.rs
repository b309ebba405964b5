//! Hazards C1 and C2: connections that die, fall silent, are refused or cut, before or in the middle.

use crate::relay::{Fate, Relay, pause};
use crate::replicate::Place;
use sealift_tests::ports::own_address;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, Random, SpecialModes, assert_same};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A tree with a large file, files of some size and small ones.
fn worthwhile(place: &Place, large_bytes: u64) {
    tree::mixed(&place.src, 300, 40);
    tree::large_file(&place.src.join("large"), large_bytes, 41);
    for number in 0..10 {
        tree::large_file(&place.src.join(format!("medium {number}")), 700_000, number);
    }
}

#[test]
fn c1_a_dead_connection_is_given_up_and_the_rest_finish() {
    // One transfer loses a data connection, the other the control connection; they wait at the same time.
    thread::scope(|scope| {
        for dead in [2, 0] {
            scope.spawn(move || {
                let place = Place::new();
                worthwhile(&place, 40 * MIB);
                // Not until one has finished: that may be said on the connection that is dead.
                let sender = Sender::start([&place.src], &[]);
                let relay = Relay::start(sender.address(), move |piece| {
                    let now = piece.connection == dead && piece.down && piece.total_down > 4 * MIB;
                    if now { Fate::Freeze } else { Fate::Pass }
                });
                let receiver =
                    Run::receive(sender.ticket_via(relay.address()), &place.dst).finish().expect(0);
                assert_eq!(relay.next_fate(), (dead, Fate::Freeze), "it happened");
                assert_same(&place.src, &place.dst, SpecialModes::Dropped);
                assert_eq!(receiver.total("failed"), 0);
                let _ = sender.stop().expect(0);
            });
        }
    });
}

#[test]
fn c1_all_connections_dead_is_unreachable_in_the_end() {
    let place = Place::new();
    worthwhile(&place, 40 * MIB);
    let sender = Sender::start([&place.src], &[]);
    let relay =
        Relay::start(
            sender.address(),
            |piece| {
                if piece.total_down > 4 * MIB { Fate::FreezeAll } else { Fate::Pass }
            },
        );
    let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst).arg("--retry-for=2").start();
    assert_eq!(relay.next_fate().1, Fate::FreezeAll);
    relay.refuse();
    let failed = receiver.finish().expect(5);
    assert!(failed.message().contains("unreachable"), "{failed:?}");
    // The sender lives, and serves the next.
    let _ = sender.receive(&place.dst, &[]).expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    tree::assert_tidy(&place.dst);
    let _ = sender.stop().expect(0);
}

#[test]
fn c2_connections_that_are_cut_again_and_again_are_made_again() {
    let place = Place::new();
    worthwhile(&place, 48 * MIB);
    let mut sender = Sender::start([&place.src], &["--once"]);
    let _ = sender.process.wait_for("scanned");
    let (tell, cuts) = channel();
    let mut next = 3 * MIB;
    let relay = Relay::start(sender.address(), move |piece| {
        if piece.total_down >= next {
            next += 3 * MIB;
            let _ = tell.send(());
        }
        Fate::Pass
    });
    let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst).start();
    let received = thread::scope(|scope| {
        let relay = &relay;
        let cutting = scope.spawn(move || {
            let mut random = Random::new(42);
            let mut count = 0;
            // Ends when the receiver has: then the plan is replaced.
            while cuts.recv().is_ok() {
                let live = relay.live();
                if !live.is_empty() {
                    let which = usize::try_from(random.below(live.len() as u64)).unwrap();
                    count += u32::from(relay.cut(live[which]));
                }
            }
            count
        });
        let received = receiver.finish();
        relay.thaw();
        let count = cutting.join().unwrap();
        assert!(count >= 10, "it was cut {count} times only");
        received.expect(0)
    });
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(received.total("failed"), 0);
    tree::assert_tidy(&place.dst);
    let _ = sender.process.finish().expect(0);
}

#[test]
fn c2_a_sender_that_cannot_be_reached_at_first_is_tried_again() {
    let place = Place::new();
    worthwhile(&place, MIB);
    let sender = Sender::start([&place.src], &["--once"]);
    let relay = Relay::silent(sender.address(), |_| Fate::Pass);
    let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst).start();
    pause(Duration::from_millis(1500));
    relay.listen();
    let _ = receiver.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let _ = sender.process.finish().expect(0);
}

#[test]
fn c2_a_port_that_is_refused_in_the_middle_is_tried_again() {
    let place = Place::new();
    worthwhile(&place, 40 * MIB);
    let sender = Sender::start([&place.src], &["--once"]);
    let relay =
        Relay::start(
            sender.address(),
            |piece| {
                if piece.total_down > 8 * MIB { Fate::FreezeAll } else { Fate::Pass }
            },
        );
    let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst).start();
    assert_eq!(relay.next_fate().1, Fate::FreezeAll);
    relay.refuse();
    relay.cut_all();
    pause(Duration::from_secs(1));
    relay.thaw();
    relay.listen();
    let received = receiver.finish().expect(0);
    assert!(received.named("warning").count() > 0, "the break was told: {received:?}");
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    // What was in place was not fetched again: no more than what was in flight.
    let bytes = received.total("bytes");
    assert!(received.total("bytes_transferred") < bytes + 40 * MIB, "{received:?}");
    let _ = sender.process.finish().expect(0);
}

#[test]
fn c2_a_connection_cut_while_it_is_made_is_made_again() {
    // Each of the first twelve is cut after its first few pieces, in one direction or the other: in the handshake,
    // in the greeting, in the first answers.
    let place = Place::new();
    worthwhile(&place, 5 * MIB);
    let sender = Sender::start([&place.src], &["--once"]);
    let mut pieces = std::collections::HashMap::<(usize, bool), usize>::new();
    let relay = Relay::start(sender.address(), move |piece| {
        let seen = pieces.entry((piece.connection, piece.down)).or_default();
        *seen += 1;
        let doomed = piece.connection < 12 && piece.connection % 5 != 4;
        let (side, last) = (piece.connection % 2 == 0, 1 + piece.connection / 2);
        if doomed && piece.down == side && *seen == last { Fate::Cut } else { Fate::Pass }
    });
    let began = Instant::now();
    let _ = Run::receive(sender.ticket_via(relay.address()), &place.dst).finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert!(relay.fates() >= 3, "it was cut");
    println!("took {:?}", began.elapsed());
    let _ = sender.process.finish().expect(0);
}

#[test]
fn c2_one_dead_address_of_several_does_not_matter() {
    let place = Place::new();
    tree::mixed(&place.src, 30, 43);
    let nobody = own_address();
    let sender = Sender::start([&place.src], &["--once", &format!("--advertise={nobody}")]);
    let _ = sender.receive(&place.dst, &["--retry-for=5"]).expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let _ = sender.process.finish().expect(0);
}
