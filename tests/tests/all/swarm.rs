//! Receivers that serve each other: about one copy leaves the source, and what is in the swarm needs no source any more.
#![allow(clippy::unwrap_used)]

use crate::home::Home;
use sealift_tests::process::{Outcome, Process, Run, Sender};
use sealift_tests::tree::{self, SpecialModes};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A source with a large file and many small ones; its bytes.
fn fill(home: &Home, large: u64) -> u64 {
    let noise = |seed: u64, bytes: u64| -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..bytes.div_ceil(8))
            .flat_map(|_| next().to_le_bytes())
            .take(usize::try_from(bytes).unwrap())
            .collect()
    };
    fs::write(home.src("large"), noise(1, large)).unwrap();
    fs::create_dir(home.src("small")).unwrap();
    let sizes: Vec<u64> = (0..400).map(|i| 100 + 77 * i).collect();
    for (i, bytes) in sizes.iter().enumerate() {
        fs::write(home.src(&format!("small/{i}")), noise(7 + i as u64, *bytes)).unwrap();
    }
    large + sizes.iter().sum::<u64>()
}

/// A destination for each receiver.
fn dest(home: &Home, number: usize) -> PathBuf {
    home.src.parent().unwrap().join(format!("dst{number}"))
}

fn receive(home: &Home, ticket: &str, number: usize, args: &[&str]) -> Run {
    let run = home.receive_into(ticket, &dest(home, number), args);
    run.args(["--bind", "127.0.0.1:0"]).patience(Duration::from_secs(120))
}

fn assert_same(home: &Home, number: usize) {
    tree::assert_same(&home.src, &dest(home, number), SpecialModes::Dropped);
    tree::assert_tidy(&dest(home, number));
}

/// Bytes of content that a sender has sent, after its end.
fn sent(sender: Sender) -> u64 {
    let outcome: Outcome = sender.stop();
    outcome.done()["bytes_transferred"].as_u64().unwrap()
}

#[test]
fn about_one_copy_leaves_the_source_for_four_receivers() {
    let home = Home::new();
    let bytes = fill(&home, 48 * MIB);
    // The source's link is what is dear.
    let sender = home.send_with(&["--bwlimit", "12M"]);
    let receivers: Vec<Process> =
        (0..4).map(|i| receive(&home, &sender.ticket, i, &["--stay", "4"]).start()).collect();
    for receiver in receivers {
        let _ = receiver.finish().expect(0);
    }
    for number in 0..4 {
        assert_same(&home, number);
    }
    let sent = sent(sender);
    assert!(sent >= bytes, "{sent} of {bytes}: nobody else had it");
    // Each alone would take one; how little it is depends on how soon the others come to serve.
    assert!(sent <= bytes * 5 / 2, "{sent} bytes left the source for 4 copies of {bytes}");
}

#[test]
fn a_late_receiver_finishes_without_the_source() {
    let home = Home::new();
    let bytes = fill(&home, 24 * MIB);
    let sender = home.send_with(&["--bwlimit", "8M"]);
    let mut first = receive(&home, &sender.ticket, 0, &["--stay", "60"]).start();
    let _ = first.wait_until("its end", |event| event["event"] == "done");
    // The second begins at the source, where it hears of the first, and loses it.
    let mut second = receive(&home, &sender.ticket, 1, &["--retry-for", "60"]).start();
    let _ = second.wait_until("content", |event| event["bytes_transferred"].as_u64() > Some(MIB));
    sender.process.kill();
    let outcome = second.finish().expect(0);
    assert_eq!(outcome.done()["bytes"].as_u64(), Some(bytes));
    assert_same(&home, 1);
    // It would stay for a while.
    first.kill();
    assert_same(&home, 0);
}

#[test]
fn who_takes_no_part_is_served_by_the_source_alone() {
    let home = Home::new();
    let bytes = fill(&home, 4 * MIB);
    let sender = home.send();
    let receivers: Vec<Process> =
        (0..2).map(|i| home.receive_into(&sender.ticket, &dest(&home, i), &["--no-share"]).start()).collect();
    for receiver in receivers {
        let _ = receiver.finish().expect(0);
    }
    assert_eq!(sent(sender), 2 * bytes);
}
