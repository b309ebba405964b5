//! Hazard B6: a process that has no descriptors left backs off, and goes on when it has some again.

use super::{Home, MIB};
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree;
use std::net::TcpStream;

fn limited(run: Run, descriptors: u32) -> Run {
    run.wrapped(["prlimit".to_owned(), format!("--nofile={descriptors}:{descriptors}")])
}

#[test]
fn b6_a_sender_without_descriptors_accepts_again_when_it_has_some() {
    let home = Home::new();
    tree::mixed(&home.src, 100, 1);
    tree::large_file(&home.src("large"), 5 * MIB, 2);
    let run = Run::send([&home.src]).state_dir(&home.state);
    let mut sender = Sender::of(limited(run, 64));
    let _ = sender.process.wait_for("scanned");
    // More peers than it has descriptors, none of which says anything.
    let idle: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(sender.address()).ok()).collect();
    assert!(idle.len() > 100, "{}", idle.len());
    let receiver = home.receive(&sender.ticket, &["--retry-for=60"]).start();
    drop(idle);
    let _ = receiver.finish().expect(0);
    home.assert_same();
    // And while they are there, it is alive: it ends when it is told to.
    let idle: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(sender.address()).ok()).collect();
    let _ = sender.stop().expect(0);
    drop(idle);
}

#[test]
fn b6_a_receiver_with_few_descriptors_finishes() {
    for large in [false, true] {
        let home = Home::new();
        if large {
            for number in 0..300 {
                tree::large_file(&home.src(&format!("{number}")), MIB + 100_000, number);
            }
        } else {
            tree::small_files(&home.src, 3000, 1);
        }
        let sender = home.send();
        let received = limited(home.receive(&sender.ticket, &[]), 128).finish();
        let problems = received.problems().len();
        assert_eq!((received.code, problems), (Some(0), 0), "large: {large}: {received:?}");
        home.assert_same();
    }
}
