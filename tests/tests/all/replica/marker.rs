//! Hazard B14: a destination whose disk did not mount is no destination. And what is known of a replica goes with it.

use super::{Home, MIB, bytes_read};
use crate::home::let_live;
use crate::relay::{Fate, Relay};
use sealift_tests::blockdev::{FileSystem, Mount, SmallDisk, or_skip};
use sealift_tests::tree::{self, SpecialModes, assert_same, file};
use std::fs;
use std::path::Path;

/// A destination on a tmpfs, or why not.
fn mounted(at: &Path) -> Option<Mount> {
    or_skip(Mount::tmpfs(at, "size=64m"))
}

fn fill(home: &Home) -> u64 {
    tree::mixed(&home.src, 100, 3);
    tree::large_file(&home.src("large"), 8 * MIB, 4);
    tree::file_bytes(&home.src)
}

#[test]
fn b14_an_empty_mount_point_is_not_filled_and_nothing_is_deleted() {
    let home = Home::new();
    let _ = fill(&home);
    let Some(mount) = mounted(&home.dst) else { return };
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    mount.unmount().unwrap();
    for args in [&[][..], &["--delete", "--max-delete=100%"]] {
        let stopped = home.receive(&sender.ticket, args).finish().expect(1);
        let message = stopped.message();
        assert!(message.contains("mounted") && message.contains("--new-replica"), "{message}");
        assert!(message.contains(home.dst.to_str().unwrap()), "{message}");
        assert_eq!(fs::read_dir(&home.dst).unwrap().count(), 0, "nothing was made");
    }
    // By other names of the same place.
    std::os::unix::fs::symlink(&home.dst, home.dir.path().join("by a link")).unwrap();
    for other in ["by a link", "src/../dst", "dst/"] {
        let _ = home.receive_into(&sender.ticket, &home.dir.path().join(other), &[]).finish().expect(1);
    }
    assert_eq!(fs::read_dir(&home.dst).unwrap().count(), 0, "nothing was made");
    // If it is meant.
    let _ = home.receive(&sender.ticket, &["--new-replica"]).finish().expect(0);
    home.assert_same();
    let again = home.receive(&sender.ticket, &[]).finish().expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
}

#[test]
fn b14_another_replica_mounted_there_is_not_taken_for_it() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let disks: Vec<_> = match (0..2).map(|_| SmallDisk::new(FileSystem::Ext4, 32 * MIB, &[])).collect() {
        Ok(disks) => disks,
        Err(why) => return println!("skipped: {why}"),
    };
    let bind =
        |disk: &SmallDisk| Mount::args(&home.dst, ["--bind".as_ref(), disk.path().as_os_str()]).unwrap();
    let first = bind(&disks[0]);
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    first.unmount().unwrap();
    // It is a replica, known here under another path.
    let _ = home.receive_into(&sender.ticket, disks[1].path(), &[]).finish().expect(0);
    let second = bind(&disks[1]);
    let stopped = home.receive(&sender.ticket, &[]).finish().expect(1);
    assert!(stopped.message().contains("another replica"), "{stopped:?}");
    let (read, taken) = bytes_read(home.receive(&sender.ticket, &["--new-replica"]));
    assert_eq!(taken.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 2, "its index is known, and yet {read} bytes were read");
    second.unmount().unwrap();
    // The first one is another one now.
    let first = bind(&disks[0]);
    let _ = home.receive(&sender.ticket, &[]).finish().expect(1);
    first.unmount().unwrap();
}

#[test]
fn a_replica_that_was_moved_keeps_its_index() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let moved = home.dir.path().join("moved/further");
    fs::create_dir(moved.parent().unwrap()).unwrap();
    fs::rename(&home.dst, &moved).unwrap();
    let (read, again) = bytes_read(home.receive_into(&sender.ticket, &moved, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 4, "{read} of {total} bytes were read");
    assert_same(&home.src, &moved, SpecialModes::Dropped);
    // Where it was, nothing is made without being asked.
    let _ = home.receive(&sender.ticket, &[]).finish().expect(1);
    assert!(!home.dst.exists());
}

#[test]
fn b14_a_replica_that_was_removed_is_not_made_again_unasked() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    fs::remove_dir_all(&home.dst).unwrap();
    let stopped = home.receive(&sender.ticket, &[]).finish().expect(1);
    assert!(stopped.message().contains("--new-replica"), "{stopped:?}");
    assert!(!home.dst.exists());
    let again = home.receive(&sender.ticket, &["--new-replica"]).finish().expect(0);
    assert!(again.total("bytes_transferred") > total / 2);
    home.assert_same();
}

#[test]
fn b14_a_replica_without_its_marker_is_asked_about_and_compared_anew() {
    let home = Home::new();
    let _ = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    fs::remove_file(home.dst(".sealift/id")).unwrap();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(1);
    let again = home.receive(&sender.ticket, &["--new-replica"]).finish().expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    home.assert_same();
    for damaged in ["", "no identity", "0123456789abcdef0123456789abcdeg\n"] {
        fs::write(home.dst(".sealift/id"), damaged).unwrap();
        let stopped = home.receive(&sender.ticket, &[]).finish().expect(1);
        assert!(!stopped.message().is_empty());
        home.assert_same();
    }
}

#[test]
fn a_copy_of_a_replica_is_not_believed_to_be_it() {
    // The identity is in it twice, the files are others.
    let home = Home::new();
    let _ = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let copy = home.dir.path().join("copy");
    tree::copy(&home.dst, &copy);
    fs::write(copy.join("large"), "other").unwrap();
    for _ in 0..2 {
        let _ = home.receive_into(&sender.ticket, &copy, &["--on-conflict=overwrite"]).finish().expect(0);
        assert_same(&home.src, &copy, SpecialModes::Dropped);
        let again = home.receive(&sender.ticket, &["--on-conflict=keep"]).finish().expect(0);
        assert_eq!(again.total("bytes_transferred"), 0);
        home.assert_same();
    }
}

#[test]
fn two_destinations_of_one_job_do_not_disturb_each_other() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let other = home.dir.path().join("other");
    let receivers = [&home.dst, &other].map(|dest| home.receive_into(&sender.ticket, dest, &[]).start());
    for receiver in receivers {
        let _ = receiver.finish().expect(0);
    }
    home.assert_same();
    assert_same(&home.src, &other, SpecialModes::Dropped);
    let (read, again) = bytes_read(home.receive_into(&sender.ticket, &other, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 2);
}

#[test]
fn a_second_receiver_into_one_destination_is_turned_away_and_harms_nothing() {
    let home = Home::new();
    tree::large_file(&home.src("large"), 40 * MIB, 7);
    let sender = home.send();
    let relay = Relay::start(sender.address(), |piece| {
        if piece.total_down > 20 * MIB { Fate::FreezeAll } else { Fate::Pass }
    });
    let mut first = home.receive(&sender.ticket_via(relay.address()), &[]).start();
    let _ = relay.next_fate();
    let_live(&mut first, 6);
    let second = home.receive(&sender.ticket, &[]).finish().expect(1);
    assert!(second.message().contains("another"), "{second:?}");
    // Nor one that keeps its state elsewhere.
    let elsewhere = home.receive(&sender.ticket, &["--state-dir", "/nowhere/at/all"]);
    assert!(elsewhere.finish().expect(1).message().contains("another"));
    relay.thaw();
    let first = first.finish().expect(0);
    assert_eq!(first.total("bytes_transferred"), 40 * MIB);
    home.assert_same();
}

#[test]
fn a_destination_in_the_state_directory_or_around_it_works() {
    let home = Home::new();
    let _ = fill(&home);
    let sender = home.send();
    let inside = home.state.join("replicas/my copy");
    for _ in 0..2 {
        let _ = home.receive_into(&sender.ticket, &inside, &[]).finish().expect(0);
        assert_same(&home.src, &inside, SpecialModes::Dropped);
    }
    // The state is in the destination: it is of no job, and stays.
    let within = home.dst.join("state");
    for _ in 0..2 {
        let args = ["--state-dir", within.to_str().unwrap(), "--delete"];
        let run = sealift_tests::process::Run::receive(&sender.ticket, &home.dst).args(args);
        let _ = run.finish().expect(0);
        assert!(within.join("replicas").is_dir());
    }
    file(&home.src("one more"), "x");
    let _ = home.replicate(&["--delete"]);
}
