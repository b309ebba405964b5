//! Hazards B1 and B4, at every step: the n-th operation of a receiver fails.

use super::scene::{RARE, Scene, Tally, each, points, share};

/// How it fails, and how long space is waited for.
const WAYS: [(&str, u32); 6] = [
    ("error=EIO", 0),
    ("error=ENOSPC", 2),
    ("error=EIO;after=1", 0),
    // From then on for good.
    ("error=EIO;until=1000000", 0),
    ("error=ENOSPC;until=1000000", 1),
    ("error=EROFS;until=1000000", 0),
];

#[test]
fn b1_b4_whichever_operation_fails_the_run_ends_by_itself_and_the_next_makes_all_of_it() {
    let scene = Scene::new();
    let (last, _) = scene.remembered(1).operations("");
    let (last_rare, _) = scene.remembered(1).operations(RARE);
    let common = points(last, share(30), 120).into_iter().map(|nth| ("", nth));
    let rare = points(last_rare, share(12), 121).into_iter().map(|nth| (RARE, nth));
    let mut cases = Vec::new();
    for (number, (only, nth)) in common.chain(rare).enumerate() {
        // Each in its turn, or all of them.
        let ways = if share(0) == u64::MAX { &WAYS[..] } else { &WAYS[number % WAYS.len()..][..1] };
        cases.extend(ways.iter().map(|way| (only, nth, *way)));
    }
    let (count, ends, failed) = (cases.len(), Tally::default(), Tally::default());
    each((0..).zip(cases), |(number, (only, nth, (how, wait))): (u64, _)| {
        let case = scene.case(number / 2);
        let plan = format!("{only};nth={nth};{how}");
        println!("{plan}");
        let outcome = case.faulty(&plan).arg(format!("--wait-for-space={wait}")).finish();
        case.check_end(&outcome);
        ends.add(format!("exit {}:", outcome.code.unwrap()));
        case.faults().first().into_iter().for_each(|fault| failed.add(fault));
        let _ = case.converge();
    });
    let entries = scene.entries();
    println!("{count} runs of {last} operations with {entries} entries: {ends}; failed first: {failed}");
}
