//! Hazard B8: a disk that does less than it was asked to, or something else, at random and the same for the same seed.

use super::scene::{ENGINES, Scene, Tally, each, share};
use sealift_tests::process::{Run, Sender, faulty_program};

const SEEDS: u64 = 6;
/// What is said of a file that was written and is another on the disk.
const FOUND: &str = "what was read back from the disk is not what was written";

/// At most so many, where nothing is counted that all of it could be.
fn seeds(otherwise: u64) -> u64 {
    share(otherwise).min(100 * otherwise)
}

#[test]
fn b8_short_reads_and_writes_are_completed_and_slow_ones_waited_for() {
    let scene = Scene::new();
    let (faults, seeds) = (Tally::default(), seeds(SEEDS));
    each(0..seeds, |seed| {
        let case = scene.by_hand(seed);
        let plan = match seed % 3 {
            0 => format!("seed={seed};rate=50000;kinds=slow"),
            1 => format!("seed={seed};rate=700000;kinds=short"),
            _ => format!("seed={seed};rate=300000;kinds=short,slow"),
        };
        // On both sides.
        let state = case.dst.with_file_name("state of the sender");
        let run = Run::send([&scene.src]).arg("--once").state_dir(state);
        let run = run.program(faulty_program()).io(ENGINES[usize::try_from(seed % 2).unwrap()]);
        let sender = Sender::of(run.env("SEALIFT_FAULTS", &plan));
        let outcome = case.faulty_from(&sender.ticket, &plan).finish().expect(0);
        let _ = sender.process.finish().expect(0);
        case.check_end(&outcome);
        case.faults().into_iter().for_each(|fault| faults.add(fault));
        let _ = case.converge();
    });
    println!("{seeds} seeds, in which were short or slow: {faults}");
}

#[test]
fn b8_torn_and_misdirected_writes_are_found_by_reading_back() {
    let scene = Scene::new();
    let (faults, ends) = (Tally::default(), Tally::default());
    let seeds = seeds(3 * SEEDS);
    each(0..seeds, |seed| {
        // The marker is there already: of one that is torn, people are told, and nothing is done to it.
        let case = scene.remembered(seed);
        let rate = [20_000, 60_000, 200_000][usize::try_from(seed % 3).unwrap()];
        let plan = format!("only=write;seed={seed};rate={rate};kinds=torn,misdirected");
        let outcome = case.faulty(&plan).arg("--verify=readback").finish();
        case.check_end(&outcome);
        let found = outcome.messages("warning").filter(|message| message.contains(FOUND)).count();
        (0..found).for_each(|_| ends.add("found:"));
        ends.add(format!("exit {}:", outcome.code.unwrap()));
        if outcome.code == Some(1) {
            println!("{seed}: {}", outcome.message());
        }
        case.faults().into_iter().for_each(|fault| faults.add(fault));
        let _ = case.converge();
    });
    println!("{seeds} seeds, in which were torn or went elsewhere: {faults}; {ends}");
    assert!(ends.count("found:") > 0 && ends.count("exit 0:") > 0, "{ends}");
}
