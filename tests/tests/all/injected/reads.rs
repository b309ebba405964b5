//! Hazard B3, at every step: the n-th operation of a sender fails.

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
        let run = Run::send([&scene.src]).arg("--once").io(engine).state_dir(state);
        let sender = Sender::of(run.program(faulty_program()).env("SEALIFT_FAULTS", plan));
        let received = case.faulty_from(&sender.ticket, "").finish();
        (case, sender.process.finish(), received)
    };
    let operations = |only: &str| -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let (_, sent, received) = send(0, &format!("{only};count={}", count.display()));
        let _ = (sent.expect(0), received.expect(0));
        fs::read_to_string(count).unwrap().trim().parse().unwrap()
    };
    let (last_read, last) = (operations(READS), operations(""));
    let reads = points(last_read, share(18), 127).into_iter().map(|nth| (READS, nth));
    let all = points(last, share(8), 128).into_iter().map(|nth| ("", nth));
    let (ends, named) = (Tally::default(), Tally::default());
    each((0..).zip(reads.chain(all).collect::<Vec<_>>()), |(number, (only, nth)): (u64, _)| {
        // Once, or from then on for good.
        let how = if number % 3 == 2 { ";until=1000000" } else { "" };
        let plan = format!("{only};nth={nth};error=EIO{how}");
        let (case, sent, received) = send(number, &plan);
        println!("{plan}: exit {:?}, {:?}", received.code, received.problems());
        assert!(!sent.stderr.contains("panicked"), "{sent:#?}");
        assert_eq!(sent.code, received.code, "{sent:#?} {received:#?}");
        assert!([Some(0), Some(3)].contains(&sent.code), "{sent:#?} {received:#?}");
        case.check_end(&received);
        ends.add(format!("exit {}:", received.code.unwrap()));
        named.add(format!("{} named:", received.problems().len()));
        let _ = case.converge();
    });
    println!("of {last_read} reads and {last} operations: {ends}; {named}");
}
