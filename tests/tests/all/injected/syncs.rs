//! Hazard B2: a sync that fails once, and would succeed if it were asked again.

use super::scene::{ENGINES, Scene, Tally, each, points, share};
use crate::relay::{Relay, limited};
use crate::replicate::Place;
use sealift_tests::process::{Outcome, Run, Sender, faulty_program};
use sealift_tests::tree::{self, SpecialModes, assert_same, assert_tidy};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What is asked to bring something to the disk.
const SYNCS: &str = "only=fsync,syncfs";

/// The index syncs so often as it is closed, when all is done and told.
const SYNCS_AS_THE_INDEX_CLOSES: u64 = 4;

/// Paths of which was told that they are tried again.
fn tried_again(outcome: &Outcome) -> BTreeSet<&str> {
    let messages = outcome.messages("warning");
    let again = messages.filter(|message| message.ends_with("it is tried again"));
    again.filter_map(|message| message.split_once(": ")).map(|(path, _)| path).collect()
}

#[test]
fn b2_a_sync_that_fails_once_is_never_believed_afterwards() {
    let scene = Scene::new();
    let (last, whole) = scene.case(1).operations(SYNCS);
    let missing = whole.total("bytes_transferred");
    let (ends, kinds) = (Tally::default(), Tally::default());
    each((1..).zip(points(last, share(36), 122)), |(number, nth): (u64, u64)| {
        let case = scene.case(1 + number % 2);
        let count = case.dst.with_file_name("count");
        let outcome = case.faulty(&format!("{SYNCS};nth={nth};error=EIO;count={}", count.display())).finish();
        let count: u64 = fs::read_to_string(count).unwrap().trim().parse().unwrap();
        case.check_end(&outcome);
        ends.add(format!("exit {}:", outcome.code.unwrap()));
        let failed = !case.faults().is_empty();
        let again = tried_again(&outcome);
        kinds.add(match outcome.code {
            // Of the marker, of the manifest, of the index, of the whole at the end.
            Some(1) => "ended the run",
            _ if !failed => "did not come to it",
            _ if outcome.total("bytes_transferred") > missing => "fetched again",
            // The index has everything before it is closed.
            _ if again.is_empty() && nth + SYNCS_AS_THE_INDEX_CLOSES > count => "came after the end",
            _ => {
                // Only directories may be looked at again, and what is in them hashed again.
                let above: BTreeSet<_> = again.iter().map(|path| Path::new(path).parent()).collect();
                assert_eq!(above.len(), 1, "{again:?}: {outcome:#?}");
                "hashed again"
            }
        });
        let _ = case.converge();
    });
    println!("each of {last} syncs failed once: {ends}; {kinds}");
    // Each of the files with several blocks is synced by itself.
    assert!(kinds.count("fetched again") >= 3 && kinds.count("hashed again") >= 3, "{kinds}");
}

#[test]
fn b2_a_sync_of_an_unfinished_file_that_fails_costs_what_was_fetched_of_it() {
    const BYTES: u64 = 20 << 20;
    // So slow that several times the index is told of what is there: a sync each, of one file or of several.
    const BYTES_PER_SECOND: u64 = 5 << 20;
    let place = Place::new();
    for number in 0..2 {
        tree::large_file(&place.src.join(number.to_string()), BYTES / 2, number);
    }
    let state = |name: &str| place.dir.path().join(format!("state {name}"));
    let sender = Sender::of(Run::send([&place.src]).state_dir(state("sender")));
    let (ticket, address) = (&sender.ticket, sender.address());
    let run = |name: &str, plan: &str| {
        let relay = Relay::start(address, limited(BYTES_PER_SECOND));
        let dst = place.dir.path().join(format!("dst {name}"));
        let ticket = sealift_tests::process::ticket_via(ticket, relay.address());
        let plan = format!("only=fsync,syncfs,checkpoint;{plan}");
        let run = Run::receive(ticket, &dst).state_dir(state(name)).env("SEALIFT_FAULTS", plan);
        let engine = ENGINES[name.len() % 2];
        let outcome = run.program(faulty_program()).io(engine).finish();
        assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
        if outcome.code == Some(0) {
            assert_same(&place.src, &dst, SpecialModes::Dropped);
            assert_tidy(&dst);
        }
        outcome
    };
    let count = place.dir.path().join("count");
    let whole = run("whole", &format!("count={}", count.display())).expect(0);
    assert_eq!(whole.total("bytes_transferred"), BYTES);
    let last: u64 = fs::read_to_string(count).unwrap().trim().parse().unwrap();
    // In the middle, where files are unfinished, unless all of them are tried.
    let (skipped, tried) = if share(0) == u64::MAX { (0, last) } else { (last / 4, last / 2) };
    let kinds = Tally::default();
    each(points(tried, share(12), 123).into_iter().map(|nth| skipped + nth), |nth| {
        let outcome = run(&nth.to_string(), &format!("nth={nth};error=EIO"));
        kinds.add(match outcome.code {
            // Of the index and the like: what is not written down is not called done.
            Some(1) => "ended the run",
            Some(0) if outcome.total("bytes_transferred") > BYTES => "fetched again",
            // Of the directory, once the file was in it.
            Some(0) if !tried_again(&outcome).is_empty() => "hashed again",
            Some(0) => "came after the end",
            _ => panic!("another end: {outcome:#?}"),
        });
    });
    println!("of {last} syncs and checkpoints: {kinds}");
    assert!(kinds.count("fetched again") >= 1, "{kinds}");
}

#[test]
fn b2_what_a_failed_sync_of_everything_may_have_lost_is_hashed_again() {
    const RUNS: u64 = 12;
    for engine in ENGINES {
        let place = Place::new();
        tree::large_file(&place.src.join("large"), RUNS << 20, 129);
        tree::file(&place.src.join("small"), "small");
        let state = |name: &str| place.dir.path().join(format!("state {name}"));
        let sender = Sender::of(Run::send([&place.src]).state_dir(state("sender")));
        let count = place.dir.path().join("count");
        let run = |plan: &str| {
            let plan = format!("{plan};count={}", count.display());
            let run = Run::receive(&sender.ticket, &place.dst).state_dir(state("receiver"));
            run.program(faulty_program()).io(engine).env("SEALIFT_FAULTS", plan)
        };
        let count = || fs::read_to_string(&count).unwrap().trim().parse::<u64>().unwrap();
        let _ = run("").arg("--fsync=no").finish().expect(0);
        // Nothing has changed, so nothing of it is read.
        let _ = run("only=read").arg("--fsync=no").finish().expect(0);
        let usual = count();
        // A run that syncs finds that it cannot.
        let _ = run("only=syncfs;nth=1;error=EIO").finish().expect(1);
        assert_eq!(count(), 1);
        // The next sync may say that all is well: it was told of already.
        let again = run("only=read").finish().expect(0);
        println!("{engine}: {} reads, {usual} usually", count());
        assert!(count() >= usual + RUNS, "it is believed to be there: {again:#?}");
    }
}
