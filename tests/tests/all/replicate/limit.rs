//! Limits of rate, at either end.

use super::Place;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{SpecialModes, assert_same, large_file, small_files};
use std::time::Instant;

const MIB: u64 = 1 << 20;

/// Replicates 6 MiB in a large file, and some in small ones, at no more than 2 MiB a second.
fn takes_its_time(at_sender: &[&str], at_receiver: &[&str]) {
    let place = Place::new();
    large_file(&place.src.join("large"), 6 * MIB, 1);
    small_files(&place.src.join("small"), 20, 1);
    let sender = Sender::of(Run::send([&place.src]).args(at_sender));
    let begun = Instant::now();
    let received = Run::receive(&sender.ticket, &place.dst).args(at_receiver).finish().expect(0);
    let took = begun.elapsed().as_secs_f64();
    drop(sender.stop().expect(0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert!(received.total("bytes_transferred") >= 6 * MIB);
    assert!(took >= 2.8, "{took} s");
}

#[test]
fn a_sender_keeps_to_its_limit() {
    takes_its_time(&["--bwlimit=2M"], &[]);
}

#[test]
fn a_receiver_keeps_to_its_limit() {
    takes_its_time(&[], &["--bwlimit=2M"]);
}

#[test]
fn what_is_no_limit_is_refused() {
    let place = Place::new();
    for wrong in ["0", "7K", "fast", "-1"] {
        let refused = Run::send([&place.src]).arg(format!("--bwlimit={wrong}")).finish();
        assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
    }
}
