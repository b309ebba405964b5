//! Hazard B10, at every step: a receiver that kills itself at its n-th operation.

use super::scene::{RARE, Scene, Tally, each, points, share};
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn b10_a_receiver_killed_at_any_operation_is_made_good_by_the_next() {
    let scene = Scene::new();
    let (last, whole) = scene.remembered(1).operations("");
    let (last_rare, _) = scene.remembered(1).operations(RARE);
    let missing = whole.total("bytes_transferred");
    let mut plans: Vec<String> =
        points(last, share(26), 121).iter().map(|nth| format!("kill={nth}")).collect();
    plans.extend(points(last_rare, share(10), 122).iter().map(|nth| format!("{RARE};kill={nth}")));
    let (count, killed, at, again) = (plans.len(), Tally::default(), Tally::default(), AtomicU64::new(0));
    each((0..).zip(plans), |(number, plan): (u64, String)| {
        let case = scene.case(number);
        // Before it happens, or after.
        let plan = format!("{plan};after={}", number / 2 % 2);
        println!("{plan}");
        let outcome = case.faulty(&plan).finish();
        if outcome.signal.is_none() {
            // The order of operations isn't the same in every run, nor quite their number.
            let _ = outcome.expect(0);
        } else {
            assert_eq!(outcome.signal, Some(9), "{outcome:#?}");
            killed.add("killed");
            case.faults().last().into_iter().for_each(|fault| at.add(fault));
        }
        case.check_whole();
        let in_place = case.new_bytes_in_place();
        let rest = case.converge().total("bytes_transferred");
        assert!(rest <= missing - in_place, "{rest} bytes came again, with {in_place} of {missing} in place");
        again.fetch_max(rest, Ordering::Relaxed);
    });
    println!("killed {} of {count} times, of {last} operations: at {at}", killed.count("killed"));
    println!("at most {} of {missing} bytes came again", again.into_inner());
    assert!(killed.count("killed") * 5 >= count as u64 * 4);
}
