//! Hazard B8: a disk that does less than it was asked to, or something else, at random and the same for the same seed.

use super::scene::{Scene, Tally, each, share};

/// Seeds that are tried of each kind.
const SEEDS: u64 = 6;

#[test]
fn b8_short_reads_and_writes_are_completed_and_slow_ones_waited_for() {
    let scene = Scene::new();
    let faults = Tally::default();
    let seeds = share(SEEDS).min(200);
    each(0..seeds, |seed| {
        let case = scene.case(seed);
        let plan = match seed % 3 {
            0 => format!("seed={seed};rate=50000;kinds=slow"),
            1 => format!("seed={seed};rate=700000;kinds=short"),
            _ => format!("seed={seed};rate=300000;kinds=short,slow"),
        };
        let outcome = case.faulty(&plan).finish().expect(0);
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
    let seeds = share(3 * SEEDS).min(500);
    each(0..seeds, |seed| {
        let case = scene.remembered(seed);
        let rate = [20_000, 100_000, 400_000][usize::try_from(seed % 3).unwrap()];
        let plan = format!("only=write;seed={seed};rate={rate};kinds=torn,misdirected");
        let outcome = case.faulty(&plan).arg("--verify=readback").finish();
        if outcome.code != Some(0) {
            println!("{seed}: {:?} {:?} {}", outcome.code, outcome.events, outcome.stderr);
        }
        case.check_end(&outcome);
        ends.add(format!("exit {}:", outcome.code.unwrap()));
        case.faults().into_iter().for_each(|fault| faults.add(fault));
        let _ = case.converge();
    });
    println!("{seeds} seeds, in which were torn or went elsewhere: {faults}; {ends}");
}
