//! Hazards B5 and B11: a state directory that is full, damaged, gone or of another version.

use super::{Home, MIB};
use sealift_tests::blockdev::{Mount, Unavailable, or_skip};
use sealift_tests::tree::{self, Random, assert_tidy, file, flip};
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Fills a disk up until no more than that is free.
fn fill_up(at: &Path, free: u64) {
    let room = || {
        let state = rustix::fs::statvfs(at).unwrap();
        state.f_bavail * state.f_frsize
    };
    let mut ballast = fs::File::create(at.join("ballast")).unwrap();
    while room() > free {
        let piece = usize::try_from((room() - free).min(MIB)).unwrap();
        if ballast.write_all(&vec![1; piece]).is_err() {
            break;
        }
    }
}

fn small_state(home: &Home, size: &str) -> Result<Mount, Unavailable> {
    Mount::tmpfs(&home.state, &format!("size={size}"))
}

#[test]
fn b5_a_full_state_directory_stops_it_cleanly_and_with_room_it_converges() {
    for free in [0, 4 << 10, 200 << 10] {
        let home = Home::new();
        tree::small_files(&home.src, 1500, 1);
        tree::large_file(&home.src("large"), 12 * MIB, 2);
        let sender = home.send();
        let Some(_mounted) = or_skip(small_state(&home, "16m")) else { return };
        fill_up(&home.state, free);
        let stopped = home.receive(&sender.ticket, &[]).finish();
        println!("{free} bytes: {:?} {}", stopped.code, stopped.message());
        let stopped = stopped.expect(1);
        let message = stopped.message().to_lowercase();
        assert!(message.contains("space") || message.contains("full"), "{message}");
        assert_eq!(stopped.named("done").count(), 0);
        if home.dst.exists() {
            tree::assert_whole(&home.src, &home.dst);
        }
        fs::remove_file(home.state.join("ballast")).unwrap();
        let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
        home.assert_same();
    }
}

#[test]
fn b5_an_index_that_has_no_room_to_grow_stops_a_later_run_cleanly() {
    let home = Home::new();
    file(&home.src("first"), "x");
    let Some(_mounted) = or_skip(small_state(&home, "32m")) else { return };
    let _ = home.replicate(&[]).expect(0);
    tree::small_files(&home.src, 5000, 1);
    fill_up(&home.state, 0);
    let stopped = home.replicate(&[]).expect(1);
    let message = stopped.message().to_lowercase();
    assert!(message.contains("space") || message.contains("full"), "{message}");
    fs::remove_file(home.state.join("ballast")).unwrap();
    let received = home.replicate(&[]).expect(0);
    assert_eq!(received.warnings(), "");
    home.assert_same();
}

#[test]
fn b5_a_state_directory_that_cannot_be_written_is_said() {
    let home = Home::new();
    file(&home.src("f"), "x");
    let sender = home.send();
    file(&home.dir.path().join("a file"), "mine");
    for state in ["a file", "a file/beneath", "/proc/sealift", "/dev/null"] {
        let state = home.dir.path().join(state);
        let args = ["--state-dir", state.to_str().unwrap()];
        let stopped = home.receive(&sender.ticket, &args).finish().expect(1);
        assert!(stopped.message().contains("--state-dir"), "{stopped:?}");
        assert!(!home.dst("f").exists());
    }
    assert_eq!(fs::read(home.dir.path().join("a file")).unwrap(), b"mine");
}

#[test]
fn b11_a_damaged_index_is_found_set_aside_and_made_anew() {
    let home = Home::new();
    tree::mixed(&home.src, 100, 4);
    tree::large_file(&home.src("large"), 5 * MIB, 5);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let index = home.index();
    let sound = fs::read(&index).unwrap();
    let mut random = Random::new(6);
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("garbage".into(), random.bytes(100_000)),
        ("cut off".into(), sound[..sound.len() / 2].to_vec()),
        ("zeros".into(), vec![0; sound.len()]),
    ];
    for number in 0..6 {
        let mut flipped = sound.clone();
        for _ in 0..=number {
            let at = usize::try_from(random.below(flipped.len() as u64)).unwrap();
            flipped[at] ^= 1 << random.below(8);
        }
        cases.push((format!("{} bits flipped", number + 1), flipped));
    }
    for (case, content) in cases {
        fs::write(&index, content).unwrap();
        let again = home.receive(&sender.ticket, &[]).finish();
        println!("{case}: {:?} {}", again.code, again.warnings());
        let again = again.expect(0);
        assert_eq!(again.total("bytes_transferred"), 0, "{case}");
        home.assert_same();
        let third = home.receive(&sender.ticket, &[]).finish().expect(0);
        assert_eq!(third.warnings(), "", "{case}: it is sound again");
    }
}

#[test]
fn b11_what_is_beside_the_index_may_be_damaged_or_gone() {
    let home = Home::new();
    tree::mixed(&home.src, 50, 4);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    // The record of which replica was at a path.
    let paths = home.state.join("replicas/paths");
    let record = fs::read_dir(&paths).unwrap().next().unwrap().unwrap().path();
    fs::write(&record, "garbage").unwrap();
    let outcome = home.receive(&sender.ticket, &[]).finish();
    println!("{:?} {}", outcome.code, outcome.message());
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    let outcome = home.receive(&sender.ticket, &["--new-replica"]).finish();
    println!("{:?} {}", outcome.code, outcome.message());
    let _ = outcome.expect(0);
    fs::remove_dir_all(&paths).unwrap();
    let again = home.receive(&sender.ticket, &[]).finish().expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    // All of the state.
    fs::remove_dir_all(&home.state).unwrap();
    let again = home.receive(&sender.ticket, &["--delete"]).finish().expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    home.assert_same();
}

#[test]
fn c8_an_index_of_a_newer_version_is_refused_and_not_touched() {
    let home = Home::new();
    file(&home.src("f"), "x");
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let index = home.index();
    let sound = fs::read(&index).unwrap();
    // What is there after the file was damaged in its first bytes is either refused, or set aside whole.
    flip(&index, 0);
    let damaged = fs::read(&index).unwrap();
    let outcome = home.receive(&sender.ticket, &[]).finish();
    println!("{:?} {} {}", outcome.code, outcome.message(), outcome.warnings());
    let aside = home.replica_state().join("index.redb.damaged");
    assert!(fs::read(&index).unwrap() == damaged || fs::read(aside).unwrap() == damaged);
    fs::write(&index, sound).unwrap();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    assert_tidy(&home.dst);
}

#[test]
fn what_is_kept_of_a_job_is_never_sent() {
    // Whoever sends his home directory would send the state in it too: the seed is what signs for the job.
    let home = Home::new();
    file(&home.src("f"), "x");
    let state = home.src(".local/state/sealift");
    for args in [&["--job", "j"][..], &[]] {
        let run = sealift_tests::process::Run::send([&home.src]).args(args);
        let refused = run.state_dir(&state).finish().expect(2);
        assert!(refused.message().contains("--state-dir"), "{refused:?}");
    }
    assert!(!state.exists());
}
