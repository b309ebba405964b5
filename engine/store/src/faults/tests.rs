//! The plans, and single steps that fail by them. What has to be a process of its own is in `tests/faults.rs`.

use super::plan::{State, with};
use super::*;
use crate::limits::SYNC_EACH_FILES_MAX;
use crate::publish::{Durability, Ready};
use crate::remove::RemoveExpected;
use crate::replica::{Replica, ReplicaId};
use crate::staging::Allocation;
use crate::stat::Timestamp;
use crate::{FileError, link_target_hash};
use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use std::fs;
use std::sync::Arc;

const ID: ReplicaId = ReplicaId([7; 16]);
const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 0 };

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).expect("safe")
}

#[test]
fn the_nth_operation_fails_and_no_other() {
    let file = tempfile::tempfile().unwrap();
    let write = || write_all_at(&file, b"data", 0);
    let (results, done) = with("nth=3;error=ENOSPC", || [write(), write(), write(), write()]);
    assert_eq!(
        results.map(|result| result.err().and_then(|e| e.raw_os_error())),
        [None, None, Some(28), None]
    );
    assert_eq!(done, 4);
    let (results, _) = with("nth=2;until=3", || [write(), write(), write(), write()]);
    assert_eq!(results.map(|result| result.is_ok()), [true, false, false, true]);
    let (results, done) = with("only=index,rename;nth=2", || {
        write().unwrap();
        [fault_point("index"), fault_point("other"), fault_point("index"), fault_point("index")]
    });
    assert_eq!(results.map(|result| result.is_ok()), [true, true, false, true]);
    assert_eq!(done, 3);
}

#[test]
fn an_operation_can_fail_once_it_has_happened() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| guard(Op::Mkdir, || fs::create_dir(dir.path().join(name)));
    let ((first, second), _) = with("nth=1;after=1", || (make("a"), make("b")));
    assert!(first.is_err() && second.is_ok());
    assert!(dir.path().join("a").is_dir() && dir.path().join("b").is_dir());
    let (before, _) = with("nth=1", || make("c"));
    assert!(before.is_err() && !dir.path().join("c").exists());
}

#[test]
fn b8_short_transfers_are_completed_and_others_do_what_they_are_to() {
    let content: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    let run = |kinds: &str| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(content.len() as u64).unwrap();
        let mut read = vec![0; content.len()];
        let ((), done) = with(&format!("seed=7;rate=500000;kinds={kinds}"), || {
            for at in (0..content.len()).step_by(8192) {
                write_all_at(&file, &content[at..at + 8192], at as u64).unwrap();
            }
            read_exact_at(&file, &mut read, 0).unwrap();
        });
        (read == content, done)
    };
    assert_eq!(run("slow"), (true, 9));
    let (right, done) = run("short");
    assert!(right && done > 9, "{done}");
    assert_eq!(run("torn"), (false, 9));
    assert_eq!(run("misdirected"), (false, 9));
    let (fails, _) = with("seed=1;rate=500000;kinds=eio,enospc", || {
        (0..1000).filter(|_| fault_point("any").is_err()).count()
    });
    assert!((400..600).contains(&fails), "{fails}");
    let draws = |seed: u64| {
        let plan = format!("seed={seed};rate=500000;kinds=eio");
        with(&plan, || (0..64).map(|_| fault_point("any").is_ok()).collect::<Vec<_>>()).0
    };
    assert_eq!(draws(5), draws(5));
    assert_ne!(draws(5), draws(6));
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    for bad in ["nth", "nth=x", "error=EWHAT", "kinds=eio,what", "what=1", "count=/none/such", "after=yes"] {
        assert!(State::parse(bad).is_err(), "{bad}");
    }
    assert!(State::parse("").is_ok());
    assert!(State::parse(" nth=1 ; error=EMFILE;").is_ok());
}

#[test]
fn b14_no_sync_of_the_marker_that_failed_is_passed_over() {
    let syncs = {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new/dest");
        with("only=fsync,syncfs", || drop(Replica::open(&dest, ID).unwrap())).1
    };
    assert_eq!(
        syncs, 5,
        "of what is above two new directories; of the marker, of .sealift, of the destination"
    );
    for n in 1..=syncs {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("new/dest");
        with(&format!("only=fsync,syncfs;nth={n}"), || assert!(Replica::open(&dest, ID).is_err(), "{n}"));
        assert!(matches!(Replica::marker(&dest).unwrap(), None | Some(ID)));
        let other = ReplicaId([8; 16]);
        let marker = Replica::marker(&dest).unwrap();
        assert_eq!(Replica::open(&dest, other).unwrap().id(), marker.unwrap_or(other));
    }
}

/// `files` staged files with something in them.
fn staged(replica: &Replica, files: usize) -> Vec<Ready> {
    let stage = |i| {
        let path = path(&format!("f{i}"));
        let staged = replica.create_staged(FileId(0), &path, 4, Allocation::Sparse).unwrap();
        write_all_at(staged.file(), b"data", 0).unwrap();
        Ready::new(staged, path, 0o644, TIME)
    };
    (0..files).map(stage).collect()
}

#[test]
fn b2_a_sync_that_fails_and_then_succeeds_is_never_believed() {
    // One by one, and by one sync of the file system.
    for files in [2, SYNC_EACH_FILES_MAX + 1] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ID).unwrap();
        let (results, _) = with("only=fsync,syncfs;nth=1;error=EIO", || {
            replica.publish(staged(&replica, files), Durability::Synced)
        });
        assert!(matches!(results[0], Err(FileError::NotSynced { .. })));
        assert!(!dir.path().join("f0").exists());
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), dir.path().join(format!("f{i}")).exists(), "{i}");
        }
        // Begun before a checkpoint fails, published after it: with syncs that succeed.
        let stage = |replica: &Replica| {
            let staged = replica.create_staged(FileId(0), &path("new"), 4, Allocation::Sparse).unwrap();
            let file = Arc::clone(staged.file());
            (Ready::new(staged, path("new"), 0o644, TIME), file)
        };
        let (all, handles): (Vec<_>, Vec<_>) = (0..files).map(|_| stage(&replica)).unzip();
        let (results, _) = with("only=fsync,syncfs;nth=1;error=EIO", || replica.sync_staged(&handles));
        assert!(results.iter().all(Result::is_err));
        for _ in 0..2 {
            assert!(replica.sync_staged(&handles).iter().all(Result::is_err));
        }
        for ready in all {
            let result = replica.publish(vec![ready], Durability::Synced).remove(0);
            assert!(matches!(result, Err(FileError::NotSynced { .. })));
        }
        assert!(!dir.path().join("new").exists());
        // By a sync that fails on its way through the files: those before it aren't believed either.
        let (all, handles): (Vec<_>, Vec<_>) = (0..3).map(|_| stage(&replica)).unzip();
        let (results, _) = with("only=fsync;nth=3;error=EIO", || replica.sync_staged(&handles));
        assert!(results.iter().all(Result::is_err));
        drop(all);
        // All that comes after is believed again.
        let results = replica.publish(staged(&replica, files), Durability::Synced);
        assert!(results.iter().all(Result::is_ok));
    }
}

#[test]
fn b2_a_directory_whose_sync_failed_holds_nothing_that_is_called_done() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path(), ID).unwrap();
    let (results, syncs) =
        with("only=fsync;nth=3", || replica.publish(staged(&replica, 2), Durability::Synced));
    assert!(results.iter().all(|result| matches!(result, Err(FileError::NotSynced { .. }))));
    assert_eq!(syncs, 3);
}

#[test]
fn b4_each_error_of_the_disk_is_told_by_its_kind_and_staging_stays_clean() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path(), ID).unwrap();
    for only in ["create", "allocate", "write", "chmod", "utimens", "rename"] {
        for error in ["ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EMFILE", "EIO"] {
            let (failure, _) = with(&format!("only={only};nth=1;error={error}"), || {
                let staged = replica.create_staged(FileId(0), &path("x"), 4, Allocation::Preallocated)?;
                write_all_at(staged.file(), b"data", 0).map_err(|e| FileError::from_io(&path("x"), e))?;
                let ready = Ready::new(staged, path("x"), 0o644, TIME);
                replica.publish(vec![ready], Durability::Synced).remove(0)
            });
            let failure = failure.unwrap_err();
            let kind = match failure {
                FileError::NoSpace { .. } => "ENOSPC",
                FileError::OverQuota { .. } => "EDQUOT",
                FileError::ReadOnly { .. } => "EROFS",
                FileError::TooLarge { .. } => "EFBIG",
                FileError::Io { .. } if failure.is_io() => error,
                _ => "another",
            };
            assert_eq!(kind, error, "{only}: {failure}");
            assert!(!dir.path().join("x").exists());
            assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
        }
    }
}

#[test]
fn b4_a_link_or_directory_that_finds_no_room_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path(), ID).unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    let no_space = |only: &str, f: &dyn Fn() -> Result<(), FileError>| {
        let (result, _) = with(&format!("only={only};nth=1;error=ENOSPC"), f);
        assert!(matches!(result, Err(FileError::NoSpace { .. })), "{only}: {result:?}");
    };
    no_space("mkdir", &|| replica.make_directory(&path("d")).map(drop));
    no_space("symlink", &|| replica.make_symlink(&path("l"), b"t", Some(TIME)).map(drop));
    no_space("link", &|| replica.make_hardlink(&path("h"), &path("f")).map(drop));
    no_space("rename", &|| replica.make_symlink(&path("l"), b"t", Some(TIME)).map(drop));
    no_space("rename", &|| replica.set_aside(&path("f"), b"g").map(drop));
    let hash = link_target_hash(b"t");
    replica.make_symlink(&path("l"), b"t", Some(TIME)).unwrap();
    let (removed, _) = with("only=unlink;nth=1;error=EROFS", || {
        replica.remove_entry(&path("l"), &RemoveExpected::Symlink { target_hash: hash })
    });
    assert!(matches!(removed, Err(FileError::ReadOnly { .. })));
    assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
}
