//! What the index vouches for is neither read nor fetched; what it does not vouch for is hashed; and what changed is
//! found, whatever its size and time say.

use super::{Home, MIB, bytes_read, version};
use sealift_tests::tree::{self, flip_unseen, set_mode, set_mtime};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Small files, larger ones, and one with holes, of about 30 MiB.
fn fill(home: &Home) -> u64 {
    tree::mixed(&home.src, 200, 7);
    for number in 0..5 {
        tree::large_file(&home.src(&format!("medium {number}")), 900_000, number);
    }
    tree::large_file(&home.src("large"), 24 * MIB, 8);
    let sparse = File::create(home.src("sparse")).unwrap();
    sparse.set_len(5 * MIB).unwrap();
    sparse.write_all_at(&[7; 300_000], MIB).unwrap();
    tree::file_bytes(&home.src)
}

#[test]
fn unchanged_files_are_not_read_again() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    home.assert_same();
    let before: Vec<_> = tree::entries(&home.dst).keys().map(|path| version(&home.dst.join(path))).collect();

    let (read, again) = bytes_read(home.receive(&sender.ticket, &[]));
    let again = again.expect(0);
    assert_eq!((again.total("bytes_transferred"), again.total("bytes")), (0, total));
    assert!(read < total / 10, "{read} of {total} bytes were read");
    // A new sender has new keys: another job, and the same files.
    let (read, again) = bytes_read(home.receive(&home.send().ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 10, "{read} of {total} bytes were read");
    let after: Vec<_> = tree::entries(&home.dst).keys().map(|path| version(&home.dst.join(path))).collect();
    // The root itself is given its time again, as things come and go in it.
    assert_eq!(before[1..].len(), after[1..].len());
    let files = tree::entries(&home.dst);
    for ((path, entry), (was, is)) in files.iter().zip(before.iter().zip(&after)) {
        assert!(!entry.is_file() || was == is, "{path:?} was touched");
    }

    // With another hash nothing is vouched for: all is read, which shows that reading is seen here.
    let sender = home.send_with(&["--hash=blake3"]);
    let (read, again) = bytes_read(home.receive(&sender.ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read > total - 6 * MIB, "only {read} of {total} bytes were read");
    home.assert_same();
}

#[test]
fn without_its_index_everything_is_hashed_and_nothing_fetched() {
    let home = Home::new();
    let total = fill(&home);
    let _ = home.replicate(&[]).expect(0);
    fs::remove_dir_all(home.replica_state()).unwrap();
    let (read, again) = bytes_read(home.receive(&home.send().ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read > total - 6 * MIB, "{read} of {total} bytes were read");
    let (read, again) = bytes_read(home.receive(&home.send().ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 10, "what was found is remembered, and yet {read} bytes were read");
    home.assert_same();
}

#[test]
fn times_and_modes_that_were_changed_here_are_restored_and_nothing_is_fetched() {
    let home = Home::new();
    let _ = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    for (path, entry) in tree::entries(&home.dst) {
        let path = home.dst.join(path);
        set_mtime(&path, 1_000_000, 1);
        if !entry.is_symlink() {
            set_mode(&path, if entry.is_dir() { 0o750 } else { 0o600 });
        }
    }
    let again = home.receive(&sender.ticket, &[]).finish().expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    assert!(again.warnings().is_empty(), "{again:?}");
    home.assert_same();
    // And what was restored is vouched for.
    let (read, again) = bytes_read(home.receive(&sender.ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < 3 * MIB, "{read} bytes were read");
}

#[test]
fn times_and_modes_that_changed_at_the_source_follow_and_nothing_is_fetched() {
    let home = Home::new();
    let total = fill(&home);
    let _ = home.replicate(&[]).expect(0);
    for (path, entry) in tree::entries(&home.src) {
        let path = home.src.join(path);
        if !entry.is_symlink() {
            set_mode(&path, if entry.is_dir() { 0o711 } else { 0o640 });
        }
        set_mtime(&path, 1_234_567, 890);
    }
    let (read, again) = bytes_read(home.receive(&home.send().ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 10, "{read} of {total} bytes were read");
    home.assert_same();
}

/// Changes a file in its middle, without a trace in size or mtime.
fn change_secretly(path: &Path) {
    flip_unseen(path, 4 * fs::metadata(path).unwrap().len());
}

#[test]
fn b13_content_that_changed_here_behind_its_size_and_time_is_found() {
    let home = Home::new();
    let names = ["tiny", "medium", "large"];
    for (name, bytes) in names.into_iter().zip([100, 500_000, 5 * MIB]) {
        tree::large_file(&home.src(name), bytes, bytes);
    }
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let changed = names.map(|name| {
        change_secretly(&home.dst(name));
        fs::read(home.dst(name)).unwrap()
    });
    let again = home.receive(&sender.ticket, &[]).finish().expect(0);
    for (name, changed) in names.into_iter().zip(changed) {
        assert!(tree::same_content(&home.src(name), &home.dst(name)), "{name}");
        let conflicts = home.conflicts(name);
        assert_eq!(conflicts.len(), 1, "{name}: {conflicts:?}");
        assert_eq!(fs::read(&conflicts[0]).unwrap(), changed, "{name}");
    }
    assert!(again.total("bytes_transferred") < 500_000 + 100 + 1024 * 1024, "{again:?}");
}

#[test]
fn content_that_changed_at_the_source_behind_its_size_and_time_is_found() {
    let home = Home::new();
    let names = ["tiny", "medium", "large"];
    for (name, bytes) in names.into_iter().zip([100, 500_000, 5 * MIB]) {
        tree::large_file(&home.src(name), bytes, bytes);
    }
    let _ = home.replicate(&[]).expect(0);
    for name in names {
        change_secretly(&home.src(name));
    }
    let again = home.replicate(&[]).expect(0);
    assert!(again.warnings().is_empty(), "{again:?}");
    home.assert_same();
    assert!(names.iter().all(|name| home.conflicts(name).is_empty()));
}

#[test]
fn b9_after_a_run_that_did_not_sync_and_another_boot_nothing_is_believed() {
    let home = Home::new();
    let total = fill(&home);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &["--fsync=no"]).finish().expect(0);
    let flag = home.replica_state().join("unsynced");
    assert!(flag.exists());
    // In the same boot the index is as good as any.
    let (read, again) = bytes_read(home.receive(&sender.ticket, &["--fsync=no"]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 10, "{read} of {total} bytes were read");
    // What a power cut left, of which the index says that it is right.
    fs::write(&flag, "another boot").unwrap();
    let torn = fs::File::options().write(true).open(home.dst("large")).unwrap();
    let stat = torn.metadata().unwrap();
    torn.write_all_at(&[0; 100], 3 * MIB).unwrap();
    set_mtime(&home.dst("large"), stat.mtime(), stat.mtime_nsec());
    let (read, again) = bytes_read(home.receive(&sender.ticket, &[]));
    let again = again.expect(0);
    assert!(again.total("bytes_transferred") <= 2 * MIB, "{again:?}");
    assert!(read > total - 6 * MIB, "only {read} of {total} bytes were read");
    assert!(again.messages("note").any(|note| note.contains("everything is hashed")));
    home.assert_same();
    assert!(!flag.exists(), "all of it is synced now");
    let (read, again) = bytes_read(home.receive(&sender.ticket, &[]));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < total / 10, "{read} of {total} bytes were read");
}

#[test]
fn an_unsynced_run_in_doubt_does_not_take_the_doubt_away() {
    let home = Home::new();
    tree::file(&home.src("f"), "content");
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &["--fsync=no"]).finish().expect(0);
    let flag = home.replica_state().join("unsynced");
    fs::write(&flag, "another boot").unwrap();
    // Interrupted or not, it must not make believe what it has not synced either.
    let _ = home.receive(&sender.ticket, &["--fsync=no"]).finish().expect(0);
    assert!(flag.exists());
}
