//! Hazard B12: files that grow, shrink, are replaced or removed between the scan and the fetch, or while they are
//! read. What arrives is one version of each, or it is named; never a mixture.

use crate::replicate::Place;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, Random, SpecialModes, assert_same, file};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Small enough to share a buffer; of one run; of several.
const SIZES: [u64; 4] = [1_000, 40_000, 900_000, 5_000_000];

/// Something done to a file of that many bytes.
type Change = fn(&Path, u64);

const CHANGES: [(&str, Change); 9] = [
    ("rewritten", |path, bytes| fs::write(path, Random::new(9).bytes(bytes)).unwrap()),
    ("touched in the middle", |path, bytes| {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", bytes / 2).unwrap();
    }),
    ("changed behind its time", |path, bytes| {
        let mtime = fs::metadata(path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"!", bytes - 1).unwrap();
        file.set_modified(mtime).unwrap();
    }),
    ("grown", |path, _| {
        OpenOptions::new().append(true).open(path).unwrap().write_all(&[7; 70_000]).unwrap();
    }),
    ("shrunk", |path, bytes| {
        OpenOptions::new().write(true).open(path).unwrap().set_len(bytes / 3).unwrap();
    }),
    ("emptied", |path, _| fs::write(path, "").unwrap()),
    ("replaced", |path, bytes| {
        let new = path.with_extension("new");
        fs::write(&new, Random::new(10).bytes(bytes)).unwrap();
        fs::rename(new, path).unwrap();
    }),
    ("removed", |path, _| fs::remove_file(path).unwrap()),
    ("made a link", |path, _| {
        fs::remove_file(path).unwrap();
        symlink("elsewhere", path).unwrap();
    }),
];

#[test]
fn b12_what_changes_between_scan_and_fetch_arrives_as_it_is_then() {
    for fresh in [true, false] {
        let place = Place::new();
        tree::mixed(&place.src, 200, 60);
        for (change, _) in CHANGES {
            for bytes in SIZES {
                tree::large_file(&place.src.join(format!("{change} {bytes}")), bytes, bytes);
            }
        }
        if !fresh {
            // The receiver has the old versions.
            let _ = place.replicate(&[], &["--fsync=no"]);
        }
        let mut sender = Sender::start([&place.src], &["--once"]);
        let _ = sender.process.wait_for("scanned");
        let mtime = fs::metadata(&place.src).unwrap().modified().unwrap();
        for (change, apply) in CHANGES {
            for bytes in SIZES {
                apply(&place.src.join(format!("{change} {bytes}")), bytes);
            }
        }
        fs::File::open(&place.src).unwrap().set_modified(mtime).unwrap();
        let received = sender.receive(&place.dst, &["--fsync=no"]);
        let sent = sender.process.finish();
        if fresh {
            // All of them were asked for, so all were found out.
            let became_links = SIZES.len();
            for problem in received.problems() {
                assert!(problem.starts_with("made a link"), "{problem}: {received:?}");
            }
            assert!([0, 3].contains(&received.code.unwrap_or(-1)), "{received:?}");
            assert_eq!(received.code, sent.code);
            let mut told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
            told.retain(|line| !line.starts_with("\"made a link"));
            assert!(told.is_empty(), "{told:?}");
            assert!(received.problems().len() <= became_links);
        } else {
            // What the receiver had already is the version that was signed: whole, if old.
            let _ = received.expect(0);
            let _ = sent.expect(0);
            for (path, entry) in tree::entries(&place.dst) {
                let old = path.to_str().unwrap().rsplit_once(' ').and_then(|(_, bytes)| bytes.parse().ok());
                let Some(bytes) = old.filter(|bytes| SIZES.contains(bytes)) else { continue };
                assert!(entry.is_file());
                assert_eq!(
                    fs::read(place.dst.join(&path)).unwrap(),
                    Random::new(bytes).bytes(bytes).as_slice()
                );
            }
            let _ = place.replicate(&[], &["--fsync=no"]);
            let told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
            let stale = |line: &String| line.starts_with("\"removed") && line.ends_with("only in the copy");
            assert!(told.iter().all(stale), "{told:?}");
        }
        assert!(!place.dst.join(".sealift").exists());
    }
}

/// Content in which every byte says which version it belongs to.
fn version(number: u64, bytes: usize) -> Vec<u8> {
    vec![b'0' + u8::try_from(number % 64).unwrap(); bytes]
}

/// Replicates a tree in which one file keeps being changed by `change`, which is given the number of the version to
/// write. Checks that a copy of it, if there is one, is of one version, and that the rest is exact.
fn keeps_changing(bytes: usize, change: impl Fn(&Path, u64) + Sync) {
    let place = Place::new();
    tree::mixed(&place.src, 300, 61);
    tree::large_file(&place.src.join("a large one"), 5 << 20, 62);
    let restless = place.src.join("restless");
    fs::write(&restless, version(0, bytes)).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                change(&restless, number);
            }
        });
        for round in 0..3 {
            let dest = place.dir.path().join(format!("dst {round}"));
            let sender = Sender::of(Run::send([&place.src]).arg("--once"));
            let received = sender.receive(&dest, &["--fsync=no"]);
            let sent = sender.process.finish();
            assert!([Some(0), Some(3)].contains(&received.code), "{received:?}");
            assert_eq!(received.code, sent.code);
            match fs::read(dest.join("restless")) {
                Ok(content) => {
                    let first = content.first().copied().unwrap_or(b'0');
                    let other = content.iter().filter(|byte| **byte != first).count();
                    assert_eq!(other, 0, "a mixture of versions: {other} of {} bytes", content.len());
                    assert_eq!(received.code, Some(0));
                    println!("it arrived in version {first}, {} bytes", content.len());
                }
                // Named, unless it was not there at that moment.
                Err(_) if received.code == Some(3) => {
                    println!("it was named");
                    assert_eq!(received.problems(), ["restless"]);
                }
                Err(_) => println!("it was not there"),
            }
            let mut told = tree::differences(&place.src, &dest, SpecialModes::Dropped);
            told.retain(|line| !line.contains("restless") && !line.starts_with("\"\": mtime"));
            assert!(told.is_empty(), "{told:?}");
            assert!(!dest.join(".sealift").exists());
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn in_place(path: &Path, number: u64, bytes: usize) {
    // One write, so that the file is whole at all times.
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&version(number, bytes), 0).unwrap();
}

#[test]
fn b12_a_small_file_rewritten_all_the_time_is_never_mixed() {
    keeps_changing(3_000, |path, number| in_place(path, number, 3_000));
}

#[test]
fn b12_a_large_file_rewritten_all_the_time_is_never_mixed() {
    keeps_changing(4 << 20, |path, number| in_place(path, number, 4 << 20));
}

#[test]
fn b12_a_large_file_replaced_all_the_time_is_never_mixed() {
    keeps_changing(4 << 20, |path, number| {
        let new = path.with_file_name("../restless.new");
        fs::write(&new, version(number, 4 << 20)).unwrap();
        fs::rename(&new, path).unwrap();
    });
}

#[test]
fn b12_a_file_that_grows_and_shrinks_all_the_time_is_never_mixed() {
    keeps_changing(1 << 20, |path, number| {
        let bytes = (1 << 20) + usize::try_from(number % 7).unwrap() * 300_000;
        // Emptied in between: a version of no bytes.
        fs::write(path, "").unwrap();
        in_place(path, number, bytes);
    });
}

#[test]
fn b12_a_file_that_comes_and_goes_is_never_mixed() {
    keeps_changing(2 << 20, |path, number| {
        fs::remove_file(path).unwrap();
        let new = path.with_file_name("../restless.new");
        fs::write(&new, version(number, 2 << 20)).unwrap();
        fs::rename(&new, path).unwrap();
    });
}

#[test]
fn b12_what_changes_once_while_it_is_fetched_arrives_new() {
    // The receiver is told of the first blocks while the last ones are still to be fetched.
    let place = Place::new();
    tree::large_file(&place.src.join("large"), 64 << 20, 63);
    file(&place.src.join("other"), "x");
    let mut sender = Sender::start([&place.src], &["--once"]);
    let _ = sender.process.wait_for("scanned");
    let relay = super::relay::Relay::start(sender.address(), |piece| {
        let now = piece.total_down > 16 << 20;
        if now { super::relay::Fate::FreezeAll } else { super::relay::Fate::Pass }
    });
    let receiver = Run::receive(sender.ticket_via(relay.address()), &place.dst).arg("--fsync=no").start();
    let _ = relay.next_fate();
    let large = OpenOptions::new().write(true).open(place.src.join("large")).unwrap();
    large.write_all_at(b"new", 50 << 20).unwrap();
    relay.thaw();
    let _ = receiver.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let _ = sender.process.finish().expect(0);
}
