//! Hazard B1: writes that fail, once or for good.

use super::scene::{ENGINES, Scene, Tally, each, points, share};
use crate::replicate::Place;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, SpecialModes};
use std::fs;

const MIB: u64 = 1 << 20;

#[test]
fn b1_a_write_that_fails_once_is_made_good() {
    let scene = Scene::new();
    // The program made the destination itself: all that is written is content, the manifest, and the index.
    let (last, whole) = scene.remembered(1).operations("only=write");
    let (files, missing) = (whole.total("files"), whole.total("bytes_transferred"));
    let kinds = Tally::default();
    each((1..).zip(points(last, share(24), 124)), |(number, nth): (u64, u64)| {
        let case = scene.remembered(number);
        let count = case.dst.with_file_name("count");
        let outcome =
            case.faulty(&format!("only=write;nth={nth};error=EIO;count={}", count.display())).finish();
        let count: u64 = fs::read_to_string(count).unwrap().trim().parse().unwrap();
        case.check_end(&outcome);
        let mut warned = outcome.messages("warning");
        kinds.add(match outcome.code {
            Some(0) if case.faults().is_empty() => "did not come",
            Some(0) if warned.any(|text| text.ends_with("it is tried again")) => {
                assert_eq!(outcome.total("files"), files);
                "was tried again"
            }
            // What could have been copied from the older version.
            Some(0) if outcome.total("bytes_transferred") > missing => "was fetched instead",
            // The index has everything before it is closed.
            Some(0) if nth == count => "came after the end",
            Some(1) => {
                let message = outcome.message();
                assert!(message.contains("manifest") || message.contains("index"), "{outcome:#?}");
                "ended the run"
            }
            _ => panic!("{nth} of {count}: {outcome:#?}"),
        });
        let _ = case.converge();
    });
    println!("each of {last} writes failed once, and it {kinds}");
    assert!(kinds.count("was tried again") >= 3, "{kinds}");
}

/// Runs what follows with files of at most so many bytes: what would go beyond fails.
const SMALL_FILES_ONLY: [&str; 6] =
    ["prlimit", "--fsize=4194304", "perl", "-e", "$SIG{XFSZ} = 'IGNORE'; exec { $ARGV[0] } @ARGV", "--"];

#[test]
fn b4_a_file_that_cannot_be_written_is_named_and_the_others_are_made() {
    if let Err(error) = std::process::Command::new("prlimit").arg("--version").output() {
        return println!("skipped: no prlimit: {error}");
    }
    for engine in ENGINES {
        let place = Place::new();
        tree::mixed(&place.src, 60, 125);
        for (name, bytes) in [("a large", 5 * MIB), ("m fits", 4 * MIB), ("z large", 40 * MIB)] {
            tree::large_file(&place.src.join(name), bytes, bytes);
        }
        let state = place.dir.path().join("state");
        let ours = |run: Run| run.state_dir(&state).io(engine);
        let sender = Sender::of(ours(Run::send([&place.src])));
        let receive = || ours(Run::receive(&sender.ticket, &place.dst));
        let outcome = receive().wrapped(SMALL_FILES_ONLY).finish().expect(3);
        let mut named = outcome.problems();
        named.sort_unstable();
        assert_eq!(named, ["a large", "z large"], "{outcome:#?}");
        assert_eq!(outcome.total("failed"), 2);
        println!("{engine}: {:?}", outcome.named("problem").collect::<Vec<_>>());
        let told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
        assert_eq!(told, ["\"a large\" is missing", "\"z large\" is missing"]);
        tree::assert_tidy(&place.dst);
        let _ = receive().finish().expect(0);
        tree::assert_same(&place.src, &place.dst, SpecialModes::Dropped);
        tree::assert_tidy(&place.dst);
    }
}

#[test]
fn b1_directories_and_links_that_fail_once_are_made_all_the_same() {
    for kind in ["mkdir", "symlink"] {
        let scene = Scene::new();
        let (last, _) = scene.case(1).operations(&format!("only={kind}"));
        assert!(last > 1, "{kind}: {last}");
        let case = scene.case(2);
        let outcome = case.faulty(&format!("only={kind};nth={last};error=EIO")).finish().expect(0);
        assert_eq!(case.faults().len(), 1, "{kind}");
        assert!(outcome.warnings().contains("it is tried again"), "{kind}: {outcome:#?}");
        case.check_end(&outcome);
        let _ = case.converge();
    }
}
