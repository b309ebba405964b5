//! Hazard A4 as a race: a directory of the replica is swapped for a symbolic link that leads outside and back, as
//! fast as can be, while the replica does everything it can do beneath it. Nothing outside may change.

use crate::links::link_target_hash;
use crate::metadata;
use crate::publish::{Durability, Ready};
use crate::remove::{Removal, RemoveExpected};
use crate::replica::{Replica, ReplicaId};
use crate::staging::Allocation;
use crate::stat::{FileStat, Timestamp};
use crate::{Existing, FileError};
use rustix::fs::{CWD, RenameFlags};
use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(2);
const TIME: Timestamp = Timestamp { seconds: 1_234_567_890, nanos: 0 };

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).expect("safe")
}

/// Everything that could be changed of an entry, access times aside.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    inode: u64,
    links: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    content: Vec<u8>,
}

/// All entries beneath a directory, by path.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let seen = Seen {
            mode: stat.mode(),
            inode: stat.ino(),
            links: stat.nlink(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            ctime: (stat.ctime(), stat.ctime_nsec()),
            content,
        };
        all.insert(path, seen);
    }
    all
}

/// Swaps `d` and a link to `outside` until told to stop.
fn swap(replica: &Path, outside: &Path, stop: &AtomicBool) -> u64 {
    let (place, other) = (replica.join("d"), replica.join("other"));
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|stat| stat.is_symlink());
        if !is_link(&place) && !is_link(&other) {
            let _ = fs::remove_dir_all(&other);
            let _ = symlink(outside, &other);
        }
        if rustix::fs::renameat_with(CWD, &place, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
            swaps += 1;
        }
    }
    swaps
}

/// One round of everything; the number of operations that succeeded.
fn attack(replica: &Replica, victim: &FileStat) -> usize {
    let ok = |result: Result<(), FileError>| usize::from(result.is_ok());
    let mut done = 0;
    done += ok(replica.make_directory(&path("d")).map(drop));
    done += ok(replica.make_directory(&path("d/sub")).map(drop));
    let batch: Vec<_> = ["d/file", "d/sub/file", "d/victim"]
        .into_iter()
        .map(|name| {
            let staged = replica.create_staged(FileId(0), &path(name), 4, Allocation::Sparse).unwrap();
            staged.file().as_ref().write_all(b"data").unwrap();
            Ready::new(staged, path(name), 0o666, TIME)
        })
        .collect();
    done += replica
        .publish(batch, Durability::Unsynced)
        .into_iter()
        .map(|result| ok(result.map(drop)))
        .sum::<usize>();
    done += ok(replica.make_symlink(&path("d/link"), b"anything", Some(TIME)).map(drop));
    done += ok(replica.make_symlink(&path("d/outside-link"), b"changed", Some(TIME)).map(drop));
    done += ok(replica.make_hardlink(&path("d/hard"), &path("d/victim")).map(drop));
    done += ok(replica.make_hardlink(&path("hard"), &path("d/victim")).map(drop));
    done += ok(replica.set_aside(&path("d/file"), b"aside").map(drop));
    for name in ["d/aside", "d/victim", "d/sub/file"] {
        done += ok(replica.set_aside(&path(name), b"victim").map(drop));
    }
    let removed = |name, expected| {
        let removal = replica.remove_entry(&path(name), &expected);
        usize::from(matches!(removal, Ok(Removal::Removed)))
    };
    let target_hash = link_target_hash(b"precious");
    assert_eq!(removed("d/outside-link", RemoveExpected::Symlink { target_hash }), 0, "it is outside");
    assert_eq!(removed("d/victim", RemoveExpected::File(*victim)), 0, "it is outside");
    done += removed("d/sub", RemoveExpected::Directory);
    for name in ["d/aside", "d/hard", "hard"] {
        if let Ok(Existing::File(stat)) = replica.existing(&path(name)) {
            done += removed(name, RemoveExpected::File(stat));
        }
    }
    for name in ["d", "d/sub"] {
        done += usize::from(replica.set_directory_metadata(Some(&path(name)), 0o777, TIME).is_ok());
        done += usize::from(metadata::make_usable(replica, &path(name)).is_ok());
    }
    assert!(
        replica.update_metadata(&path("d/victim"), victim, 0o777, TIME).is_err(),
        "not even by its inode"
    );
    if let Ok(Existing::File(stat)) = replica.existing(&path("d/victim")) {
        assert_ne!(stat.inode, victim.inode, "the outside was looked at");
        done += ok(replica.update_metadata(&path("d/victim"), &stat, 0o604, TIME));
    }
    done
}

#[test]
fn a4_nothing_outside_changes_while_parents_are_swapped_for_links() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    fs::write(outside.join("sub/file"), "precious").unwrap();
    symlink("precious", outside.join("outside-link")).unwrap();
    let victim = FileStat::of(&fs::File::open(outside.join("victim")).unwrap()).unwrap();
    let before = snapshot(&outside);

    let dest = base.path().join("dest");
    let replica = Replica::open(&dest, ReplicaId([7; 16])).unwrap();
    replica.make_directory(&path("d")).unwrap();
    let stop = AtomicBool::new(false);
    let (swaps, done) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap(&dest, &outside, &stop));
        let started = Instant::now();
        let mut done = 0;
        while started.elapsed() < BUDGET {
            done += attack(&replica, &victim);
        }
        stop.store(true, Ordering::Relaxed);
        (swapper.join().unwrap(), done)
    });
    assert_eq!(snapshot(&outside), before);
    assert!(swaps > 0 && done > 0, "{swaps} swaps, {done} operations");
    eprintln!("{swaps} swaps, {done} operations that succeeded");
}
