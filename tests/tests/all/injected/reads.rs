//! Hazard B3, at every step: the n-th read of a sender fails.

use super::scene::{ENGINES, Scene, Tally, each, points, share};
use sealift_tests::process::{Run, Sender, faulty_program};
use std::fs;

/// Of the source, as it is scanned and again as it is served; and of what the sender keeps for itself.
const READS: &str = "only=read,open";

#[test]
fn b3_whichever_read_of_the_source_fails_the_file_is_named_and_the_others_finish() {
    let scene = Scene::new();
    let send = |number: u64, plan: &str| {
        let case = scene.empty(number);
        let state = case.dst.with_file_name("state of the sender");
        let engine = ENGINES[usize::try_from(number / 2 % 2).unwrap()];
        let run = Run::send([&scene.src]).arg("--once").io(engine).env("SEALIFT_STATE_DIR", state);
        let sender =
            Sender::of(run.program(faulty_program()).env("SEALIFT_FAULTS", format!("{READS};{plan}")));
        let received = case.faulty_from(&sender.ticket, "").finish();
        (case, sender.process.finish(), received)
    };
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let (_, sent, received) = send(0, &format!("count={}", count.display()));
    let _ = (sent.expect(0), received.expect(0));
    let last: u64 = fs::read_to_string(count).unwrap().trim().parse().unwrap();
    let (ends, named) = (Tally::default(), Tally::default());
    each((0..).zip(points(last, share(20), 127)), |(number, nth): (u64, u64)| {
        // Once, or from then on for good.
        let how = if number % 3 == 2 { ";until=1000000" } else { "" };
        let (case, sent, received) = send(number, &format!("nth={nth};error=EIO{how}"));
        println!("nth={nth}{how}: exit {:?}, {:?}", received.code, received.problems());
        assert!(!sent.stderr.contains("panicked"), "{sent:#?}");
        assert_eq!(sent.code, received.code, "{sent:#?} {received:#?}");
        assert!([Some(0), Some(3)].contains(&sent.code), "{sent:#?} {received:#?}");
        case.check_end(&received);
        ends.add(format!("exit {}:", received.code.unwrap()));
        named.add(format!("{} named:", received.problems().len()));
        let _ = case.converge();
    });
    println!("each of {last} reads failed: {ends}; {named}");
}
