//! Limits of rate by the time of day: a boundary that passes while blocks go.

use crate::replicate::Place;
use sealift_tests::clock::zone_where_noon_is_in;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{SpecialModes, assert_same, large_file};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// At 1 MiB a second longer than any process of a test may take.
const BYTES: u64 = 160 * MIB;
/// How far ahead the boundary is.
const AHEAD: Duration = Duration::from_secs(5);
const TABLE: &str = "--bwlimit=00:00,1M 12:00,off";

#[derive(Clone, Copy, PartialEq)]
enum End {
    Sender,
    Receiver,
}

/// What is slow until the boundary, and takes minutes so, ends soon after it, over the connection that it had.
fn the_boundary_holds(limited: End, transport: &str) {
    let place = Place::new();
    large_file(&place.src.join("large"), BYTES, 1);
    let limited_to = |end, run: Run| match end == limited {
        true => run.arg(TABLE).env("TZ", zone_where_noon_is_in(AHEAD)),
        false => run,
    };
    let begun = Instant::now();
    let sender = Sender::of(limited_to(End::Sender, Run::send([&place.src])));
    let receiver = Run::receive(&sender.ticket, &place.dst).args([format!("--transport={transport}")]);
    let received = limited_to(End::Receiver, receiver).finish().expect(0);
    let took = begun.elapsed();
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(received.named("connected").count(), 1, "{received:?}");
    assert!(took >= AHEAD - Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_senders_boundary_holds_over_tcp() {
    the_boundary_holds(End::Sender, "tcp");
}

#[test]
fn a_senders_boundary_holds_over_quic() {
    the_boundary_holds(End::Sender, "quic");
}

#[test]
fn a_receivers_boundary_holds_over_tcp() {
    the_boundary_holds(End::Receiver, "tcp");
}

#[test]
fn a_receivers_boundary_holds_over_quic() {
    the_boundary_holds(End::Receiver, "quic");
}

#[test]
fn what_is_no_timetable_is_refused_and_says_why() {
    let place = Place::new();
    for (wrong, why) in [
        ("25:00,1M", "no time"),
        ("08:00,fast", "no limit"),
        ("08:00,1M 08:00,2M", "twice"),
        ("Noday-08:00,1M", "no time"),
    ] {
        let refused = Run::send([&place.src]).arg(format!("--bwlimit={wrong}")).finish();
        assert!(refused.code == Some(2) && refused.stderr.contains(why), "{wrong}: {refused:?}");
    }
}
