//! Hazard B4: a disk that is full is waited for, without spinning, and the rest comes when there is room. What no room
//! would help with is named.

use super::{Home, MIB, problem_of};
use crate::home::let_live;
use crate::relay::{Fate, Relay};
use rustix::process::Signal;
use sealift_tests::blockdev::{FileSystem, Mount, SmallDisk, or_skip};
use sealift_tests::process::{Process, Run};
use sealift_tests::tree::{self, SpecialModes, assert_tidy, file};
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::time::{Duration, Instant};

/// A destination in memory of that size.
fn small(home: &Home, options: &str) -> Option<Mount> {
    or_skip(Mount::tmpfs(&home.dst, options))
}

fn ballast(home: &Home, free: u64) {
    let state = rustix::fs::statvfs(&home.dst).unwrap();
    let bytes = state.f_bavail * state.f_frsize - free;
    let file = fs::File::create(home.dst("ballast")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
}

/// Checks all but the ballast, and the time of what it is in.
fn assert_same_beside_ballast(home: &Home) {
    fs::remove_file(home.dst("ballast")).unwrap();
    let told = tree::differences(&home.src, &home.dst, SpecialModes::Dropped);
    assert!(told.iter().all(|line| line.starts_with("\"\": mtime")), "{told:?}");
    assert_tidy(&home.dst);
}

/// Time that a process has worked, in user and kernel mode.
fn worked(process: &Process) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<u64> = after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // utime and stime, in ticks of 10 ms.
    Duration::from_millis(10 * (fields[11] + fields[12]))
}

fn is_paused(receiver: &mut Process) -> String {
    let paused = receiver.wait_for("paused");
    paused["reason"].as_str().unwrap().to_owned()
}

#[test]
fn b4_a_full_disk_is_waited_for_without_spinning_and_all_of_it_comes() {
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=48m") else { return };
    tree::small_files(&home.src, 300, 1);
    for number in 0..6 {
        tree::large_file(&home.src(&format!("large {number}")), 4 * MIB, number);
    }
    ballast(&home, 10 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let reason = is_paused(&mut receiver);
    assert!(reason.contains("no space") || reason.contains("no room"), "{reason}");
    let (before, began) = (worked(&receiver), Instant::now());
    let_live(&mut receiver, 16);
    let (work, time) = (worked(&receiver) - before, began.elapsed());
    println!("worked {work:?} of {time:?}");
    assert!(work < time / 5, "it worked {work:?} of {time:?} while there was nothing to do");
    fs::remove_file(home.dst("ballast")).unwrap();
    let received = receiver.finish().expect(0);
    assert!(received.named("resumed").count() > 0, "{received:?}");
    assert_eq!(received.total("failed"), 0);
    home.assert_same();
}

#[test]
fn b4_room_that_comes_bit_by_bit_is_used_bit_by_bit() {
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=64m") else { return };
    for number in 0..3 {
        tree::large_file(&home.src(&format!("large {number}")), 10 * MIB, number);
    }
    ballast(&home, 4 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let _ = is_paused(&mut receiver);
    let shrink = |bytes: u64| {
        let file = fs::File::options().write(true).open(home.dst("ballast")).unwrap();
        let now = file.metadata().unwrap().len();
        file.set_len(now.saturating_sub(bytes)).unwrap();
    };
    for placed in 1..=3 {
        shrink(10 * MIB);
        let _ = receiver
            .wait_until("one more file", |event| event["files"].as_u64().is_some_and(|n| n >= placed));
    }
    let _ = receiver.finish().expect(0);
    assert_same_beside_ballast(&home);
}

#[test]
fn b4_room_for_what_is_missing_is_enough() {
    // A file with a hole is not allocated ahead: most of it is here when the disk is full, and is kept.
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=64m") else { return };
    let bytes = 40 * MIB;
    tree::large_file(&home.src("sparse"), bytes, 5);
    fs::File::options().write(true).open(home.src("sparse")).unwrap().set_len(bytes + 5 * MIB).unwrap();
    ballast(&home, 30 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let _ = is_paused(&mut receiver);
    let file = fs::File::options().write(true).open(home.dst("ballast")).unwrap();
    file.set_len(file.metadata().unwrap().len() - 15 * MIB).unwrap();
    let received = receiver.finish().expect(0);
    println!("{} bytes were fetched", received.total("bytes_transferred"));
    assert_same_beside_ballast(&home);
}

#[test]
fn b4_nobody_waits_longer_than_allowed() {
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=20m") else { return };
    file(&home.src("fits"), "fits");
    for number in 0..3 {
        tree::large_file(&home.src(&format!("large {number}")), 12 * MIB, number);
    }
    ballast(&home, 5 * MIB);
    let sender = home.send();
    for (wait, least, most) in [("0", 0, 60), ("2", 2, 60)] {
        let began = Instant::now();
        let received = home.receive(&sender.ticket, &["--wait-for-space", wait]).finish().expect(3);
        let took = began.elapsed();
        assert!((least..most).contains(&took.as_secs()), "{wait}: {took:?}");
        let mut problems = received.problems();
        problems.sort_unstable();
        assert_eq!(problems, ["large 0", "large 1", "large 2"]);
        for path in problems {
            let reason = problem_of(&received, path);
            assert!(reason.contains("space") || reason.contains("room"), "{reason}");
        }
        assert_eq!(received.named("paused").count() > 0, wait != "0", "{received:?}");
        assert_eq!(fs::read(home.dst("fits")).unwrap(), b"fits");
        assert_tidy(&home.dst);
    }
}

#[test]
fn b4_a_paused_receiver_can_be_stopped_and_goes_on_later() {
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=32m") else { return };
    tree::large_file(&home.src("large"), 12 * MIB, 1);
    file(&home.src("small"), "small");
    ballast(&home, 5 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let _ = is_paused(&mut receiver);
    let began = Instant::now();
    receiver.signal(Signal::INT);
    let _ = receiver.finish().expect(1);
    assert!(began.elapsed() < Duration::from_secs(10));
    fs::remove_file(home.dst("ballast")).unwrap();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    home.assert_same();
}

#[test]
fn b4_a_disk_that_fills_while_the_manifest_still_comes_is_waited_for_too() {
    // Thousands of files: the manifest, which is kept beside them, is far from ended when the disk is full.
    let home = Home::new();
    let Some(mount) = small(&home, "size=14m") else { return };
    tree::small_files(&home.src, 8000, 3);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let _ = is_paused(&mut receiver);
    let_live(&mut receiver, 8);
    mount.remount("size=128m").unwrap();
    let _ = receiver.finish().expect(0);
    home.assert_same();
}

/// Directories, links and files that take an inode each.
fn many_inodes(home: &Home) {
    for number in 0..60 {
        fs::create_dir_all(home.src(&format!("dir {number}/inner"))).unwrap();
        symlink("x", home.src(&format!("dir {number}/link"))).unwrap();
        file(&home.src(&format!("dir {number}/small")), format!("{number}"));
    }
    tree::large_file(&home.src("large"), 3 * MIB, 1);
    tree::large_file(&home.src("medium"), 300_000, 1);
}

#[test]
fn b4_inodes_that_are_used_up_are_waited_for_and_said() {
    let home = Home::new();
    let Some(mount) = small(&home, "size=64m,nr_inodes=100") else { return };
    many_inodes(&home);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let reason = is_paused(&mut receiver);
    assert!(reason.contains("inode"), "{reason}");
    let (before, began) = (worked(&receiver), Instant::now());
    let_live(&mut receiver, 12);
    let work = worked(&receiver) - before;
    assert!(work < began.elapsed() / 5, "it worked {work:?} of {:?}", began.elapsed());
    mount.remount("size=64m,nr_inodes=10000").unwrap();
    let received = receiver.finish().expect(0);
    println!("paused {} times", received.named("paused").count());
    home.assert_same();
}

#[test]
fn b4_inodes_that_stay_used_up_are_named_for_each_entry() {
    let Some(disk) = or_skip(SmallDisk::new(FileSystem::Ext4, 32 * MIB, &["-N", "64"])) else {
        return;
    };
    let home = Home::new();
    many_inodes(&home);
    let sender = home.send();
    let dest = disk.path().join("dest");
    let received = home.receive_into(&sender.ticket, &dest, &["--wait-for-space=2"]).finish().expect(3);
    assert!(received.total("failed") > 100, "{received:?}");
    assert!(problem_of(&received, "dir 59").contains("inode"), "{received:?}");
    tree::assert_tidy(&dest);
}

#[test]
fn b4_a_file_that_is_too_large_for_the_destination_is_named_and_others_come() {
    // `prlimit --fsize`, which would also end a process by a signal that does not expect it.
    let home = Home::new();
    file(&home.src("small"), "small");
    tree::large_file(&home.src("medium"), 900_000, 1);
    tree::large_file(&home.src("large"), 40 * MIB, 2);
    let sender = home.send();
    let limited = |run: Run| run.wrapped(["prlimit", "--fsize=20971520:20971520"]);
    let received = limited(home.receive(&sender.ticket, &[])).finish();
    assert_eq!(received.signal, None, "{received:?}");
    let received = received.expect(3);
    assert_eq!(received.problems(), ["large"]);
    assert!(problem_of(&received, "large").contains("too large"), "{received:?}");
    assert_tidy(&home.dst);
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    home.assert_same();
}

#[test]
fn b4_a_disk_that_becomes_read_only_is_said_and_not_waited_for() {
    // As the kernel makes a file system read-only that it found damaged; here by taking the disk away beneath it.
    let home = Home::new();
    let Some(disk) = or_skip(SmallDisk::new(FileSystem::Ext4, 64 * MIB, &[])) else { return };
    for number in 0..10 {
        tree::large_file(&home.src(&format!("large {number}")), 3 * MIB, number);
    }
    let mut sender = home.send();
    let _ = sender.process.wait_for("scanned");
    let dest = disk.path().join("dest");
    let relay =
        Relay::start(
            sender.address(),
            |piece| {
                if piece.total_down > MIB { Fate::FreezeAll } else { Fate::Pass }
            },
        );
    let mut receiver = home.receive_into(&sender.ticket_via(relay.address()), &dest, &[]).start();
    let _ = relay.next_fate();
    let_live(&mut receiver, 2);
    if let Err(why) = disk.shut_down() {
        return println!("skipped: {why}");
    }
    let began = Instant::now();
    relay.thaw();
    let received = receiver.finish();
    println!(
        "{:?} after {:?}: {} {}",
        received.code,
        began.elapsed(),
        received.message(),
        received.warnings()
    );
    assert!(matches!(received.code, Some(1 | 3)), "{received:?}");
    assert!(!received.stderr.contains("panicked"), "{received:?}");
    assert_eq!(received.named("paused").count(), 0, "{received:?}");
}

#[test]
fn b4_what_is_read_only_beneath_a_destination_is_named_and_others_come() {
    let home = Home::new();
    for name in ["dir/small", "other/small"] {
        file(&home.src(name), "small");
    }
    tree::large_file(&home.src("dir/large"), 3 * MIB, 1);
    symlink("x", home.src("dir/link")).unwrap();
    fs::create_dir(home.src("dir/sub")).unwrap();
    let at = home.dst("dir");
    let Some(_mounted) = or_skip(Mount::tmpfs(&at, "ro")) else {
        return;
    };
    let sender = home.send();
    let received = home.receive(&sender.ticket, &[]).finish().expect(3);
    for path in ["dir/small", "dir/large", "dir/link", "dir/sub"] {
        let reason = problem_of(&received, path);
        assert!(reason.contains("read-only") || reason.contains("another file system"), "{path}: {reason}");
    }
    assert_eq!(fs::read(home.dst("other/small")).unwrap(), b"small");
    assert_tidy(&home.dst);
}

#[test]
fn b4_quotas_and_holes_are_no_exception() {
    // What is sparse meets the full disk while it is written, not before.
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=32m") else { return };
    let sparse = fs::File::create(home.src("sparse")).unwrap();
    sparse.set_len(400 * MIB).unwrap();
    for number in 0..20 {
        sparse.write_all_at(&tree::Random::new(number).bytes(MIB), number * 20 * MIB).unwrap();
    }
    file(&home.src("small"), "small");
    ballast(&home, 10 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let reason = is_paused(&mut receiver);
    // Whatever meets the full disk first.
    assert!(reason.contains("no space") || reason.contains("no room"), "{reason}");
    fs::remove_file(home.dst("ballast")).unwrap();
    // It needs 20 of the 32 MiB, though it is 400 MiB long.
    let _ = receiver.finish().expect(0);
    home.assert_same();
}

#[test]
fn b4_what_is_too_large_keeps_nothing_else_waiting() {
    let home = Home::new();
    let Some(_mounted) = small(&home, "size=64m") else { return };
    // Listed first, and never fits.
    tree::large_file(&home.src("a large one"), 40 * MIB, 1);
    for number in 0..3 {
        tree::large_file(&home.src(&format!("large {number}")), 4 * MIB, number);
    }
    tree::small_files(&home.src("small"), 100, 2);
    ballast(&home, 20 * MIB);
    let sender = home.send();
    let mut receiver = home.receive(&sender.ticket, &[]).start();
    let _ = is_paused(&mut receiver);
    let _ = receiver.wait_until("all else", |event| event["files"].as_u64().is_some_and(|n| n >= 103));
    fs::remove_file(home.dst("ballast")).unwrap();
    let _ = receiver.finish().expect(0);
    home.assert_same();
}
