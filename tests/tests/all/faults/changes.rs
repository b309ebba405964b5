//! Hazard B12: files that grow, shrink, are replaced or removed between the scan and the fetch, or while they are
//! read. What arrives is one version of each, or it is named; never a mixture.

use crate::relay::{Fate, Relay};
use crate::replicate::Place;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, Random, SpecialModes, assert_same, file};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

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
        tree::assert_tidy(&place.dst);
    }
}

#[test]
fn b12_both_ends_agree_on_what_a_file_removed_meanwhile_means() {
    let place = Place::new();
    tree::mixed(&place.src, 20, 64);
    tree::large_file(&place.src.join("gone"), 3_000_000, 65);
    let mut sender = Sender::start([&place.src], &["--once"]);
    let _ = sender.process.wait_for("scanned");
    fs::remove_file(place.src.join("gone")).unwrap();
    let received = sender.receive(&place.dst, &["--fsync=no"]);
    let sent = sender.process.finish();
    assert!([Some(0), Some(3)].contains(&received.code), "{received:?}");
    assert_eq!(sent.code, received.code, "{sent:?}\n{received:?}");
    assert_eq!(sent.total("failed"), received.total("failed"));
}

#[test]
fn b12_every_name_of_a_file_that_changes_meanwhile_gets_the_new_version() {
    for bytes in SIZES {
        let place = Place::new();
        for first in ["changed", "renamed", "removed"] {
            tree::large_file(&place.src.join(first), bytes, 66);
            fs::hard_link(place.src.join(first), place.src.join(format!("{first} too"))).unwrap();
        }
        let mut sender = Sender::start([&place.src], &["--once"]);
        let _ = sender.process.wait_for("scanned");
        let mtime = fs::metadata(&place.src).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(place.src.join("changed")).unwrap();
        file.write_all_at(b"new", bytes / 2).unwrap();
        // One name is another file now, the other name keeps the old one.
        fs::write(place.src.join("fresh"), Random::new(67).bytes(bytes)).unwrap();
        fs::rename(place.src.join("fresh"), place.src.join("renamed")).unwrap();
        fs::remove_file(place.src.join("removed")).unwrap();
        fs::File::open(&place.src).unwrap().set_modified(mtime).unwrap();
        let received = sender.receive(&place.dst, &["--fsync=no"]);
        assert!([Some(0), Some(3)].contains(&received.code), "{received:?}");
        for (path, entry) in tree::entries(&place.src) {
            let named = received.problems().iter().any(|name| path == Path::new(name));
            let same = || tree::same_content(&place.src.join(&path), &place.dst.join(&path));
            assert!(!entry.is_file() || named || same(), "{path:?} of {bytes}: {received:?}");
        }
    }
}

/// Content in which every byte says which version it belongs to.
fn version(number: u64, bytes: usize) -> Vec<u8> {
    vec![b'0' + u8::try_from(number % 64).unwrap(); bytes]
}

/// Ends a thread that changes files, also when a test fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replicates a tree in which one file keeps being changed by `change`, which is given the number of the version to
/// write. Checks that a copy of it, if there is one, is of one version, and that the rest is exact.
///
/// After each change it rests for up to `rest_ms`, now short, now long, so that changes come at every moment.
fn keeps_changing(bytes: usize, rest_ms: u64, change: impl Fn(&Path, u64) + Sync) {
    let place = Place::new();
    tree::mixed(&place.src.join("calm"), 300, 61);
    tree::large_file(&place.src.join("calm/a large one"), 5 << 20, 62);
    let restless = place.src.join("restless");
    fs::write(&restless, version(0, bytes)).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                change(&restless, number);
                thread::park_timeout(Duration::from_millis(number * 7 % (rest_ms + 1)));
            }
        });
        let _over = Over(&over);
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
                    // Once for each version that was to be had, of which there may be several.
                    let named = received.problems();
                    assert!(!named.is_empty() && named.iter().all(|name| *name == "restless"), "{named:?}");
                }
                Err(_) => println!("it was not there"),
            }
            let told = tree::differences(&place.src.join("calm"), &dest.join("calm"), SpecialModes::Dropped);
            assert!(told.is_empty(), "{told:?}");
            tree::assert_tidy(&dest);
        }
    });
}

fn in_place(path: &Path, number: u64, bytes: usize) {
    // One write, so that the file is whole at all times.
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&version(number, bytes), 0).unwrap();
}

#[test]
fn b12_a_small_file_rewritten_all_the_time_is_never_mixed() {
    keeps_changing(3_000, 3, |path, number| in_place(path, number, 3_000));
}

#[test]
fn b12_a_file_that_is_read_while_it_is_written_for_the_last_time_is_never_mixed() {
    // The kernel sets a file's time once, as a write begins: what is read before that write is over looks unchanged.
    let bytes = 6 << 20;
    let place = Place::new();
    let last = place.src.join("last");
    fs::write(&last, version(0, bytes)).unwrap();
    for round in 0..20 {
        let over = AtomicBool::new(false);
        let dest = place.dir.path().join(format!("dst {round}"));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    in_place(&last, number, bytes);
                }
            });
            let guard = Over(&over);
            // The ticket is told just before the scan begins.
            let sender = Sender::start([&place.src], &["--once"]);
            drop(guard);
            let received = sender.receive(&dest, &["--fsync=no"]);
            assert!([Some(0), Some(3)].contains(&received.code), "{received:?}");
        });
        let Ok(content) = fs::read(dest.join("last")) else { continue };
        let other = content.iter().filter(|byte| **byte != content[0]).count();
        assert_eq!(other, 0, "a mixture of versions in round {round}: {other} of {bytes} bytes");
    }
}

#[test]
fn b12_a_large_file_rewritten_all_the_time_is_never_mixed() {
    keeps_changing(4 << 20, 0, |path, number| in_place(path, number, 4 << 20));
}

#[test]
fn b12_a_large_file_replaced_all_the_time_is_never_mixed() {
    keeps_changing(4 << 20, 40, |path, number| {
        let new = path.with_file_name("../restless.new");
        fs::write(&new, version(number, 4 << 20)).unwrap();
        fs::rename(&new, path).unwrap();
    });
}

#[test]
fn b12_a_file_that_grows_and_shrinks_all_the_time_is_never_mixed() {
    keeps_changing(1 << 20, 300, |path, number| {
        let bytes = (1 << 20) + usize::try_from(number % 7).unwrap() * 300_000;
        // Emptied in between: a version of no bytes.
        fs::write(path, "").unwrap();
        in_place(path, number, bytes);
    });
}

#[test]
fn b12_a_file_that_comes_and_goes_is_never_mixed() {
    keeps_changing(2 << 20, 300, |path, number| {
        let new = path.with_file_name("../restless.new");
        fs::write(&new, version(number, 2 << 20)).unwrap();
        fs::remove_file(path).unwrap();
        thread::yield_now();
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
    let relay = Relay::start(sender.address(), |piece| {
        let now = piece.total_down > 16 << 20;
        if now { Fate::FreezeAll } else { Fate::Pass }
    });
    // Not all of it is asked for at once by one connection.
    let receive = Run::receive(sender.ticket_via(relay.address()), &place.dst);
    let receiver = receive.args(["--fsync=no", "--connections=1"]).start();
    let _ = relay.next_fate();
    let large = OpenOptions::new().write(true).open(place.src.join("large")).unwrap();
    large.write_all_at(b"new", 50 << 20).unwrap();
    relay.thaw();
    let _ = receiver.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let _ = sender.process.finish().expect(0);
}
