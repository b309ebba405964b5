//! A whole small receiver, as a process of its own, of which each operation fails, or is the last, in turn (hazards B1,
//! B4, B8, B9, B10). Not among the unit tests: a process that is being started holds, for a moment, the locks of others.
#![allow(clippy::unwrap_used)]

use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use sealift_store::{
    Allocation, Backend, BlockIo, Durability, Existing, Expected, FileError, ManifestReader, PoolConfig,
    Ready, RemoveExpected, Replica, ReplicaId, SmallWrite, Timestamp, fault_point, spawn_shard,
};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

const ID: ReplicaId = ReplicaId([7; 16]);
const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 0 };
const LARGE_BYTES: usize = 150_000;
const RUN_BYTES: usize = 50_000;

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).expect("safe")
}

/// Where the receiver of a test writes, if this process is one.
const DIR: &str = "SEALIFT_TEST_DIR";
const BACKEND: &str = "SEALIFT_TEST_BACKEND";

/// Runs [`receiver`] in a process of its own.
fn receive(dir: &Path, backend: Backend, plan: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["receiver", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(BACKEND, format!("{backend:?}"))
        .env("SEALIFT_FAULTS", plan)
        .output()
        .unwrap()
}

fn content(version: u8) -> Vec<u8> {
    (0..251).cycle().map(|byte: u8| byte.wrapping_add(version)).take(LARGE_BYTES).collect()
}

/// What is at the destination before a receiver begins: version 1 of everything.
fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("d/large"), content(1)).unwrap();
    fs::write(dir.join("small"), "version 1").unwrap();
    fs::write(dir.join("goes"), "version 1").unwrap();
    fs::write(dir.join("edited"), "version 1").unwrap();
}

/// A whole small receiver: version 2 of everything.
#[test]
#[ignore = "run by other tests, as a process"]
fn receiver() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let backend = if std::env::var(BACKEND).unwrap() == "Uring" { Backend::Uring } else { Backend::Threads };
    let config = PoolConfig { slot_bytes: RUN_BYTES, slots: 4, large_slots: 0 };
    let shard = spawn_shard("test", backend, config, |io| async move { run(&io, Path::new(&dir)).await });
    let result = shard.unwrap().join().unwrap().unwrap();
    println!("result: {}", result.map_or_else(|error| error, |()| "done".into()));
}

async fn run(io: &BlockIo, dir: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let replica = Replica::open(dir, ID).map_err(|error| text(&error))?;
    replica.clear_staging(&HashSet::new()).map_err(|error| text(&error))?;
    let mut spool = replica.new_manifest().map_err(|error| text(&error))?;
    for segment in 0..3 {
        spool.append(&[segment; 100]).map_err(|error| text(&error))?;
    }
    replica.make_directory(&path("new")).map_err(|error| text(&error))?;
    let mut batch = Vec::new();
    for (name, expected) in [("d/large", Expected::Anything), ("new/large", Expected::Missing)] {
        let mut staged = replica
            .create_staged(FileId(1), &path(name), LARGE_BYTES as u64, Allocation::Preallocated)
            .map_err(|error| text(&error))?;
        let file = io.attach(Arc::clone(staged.file())).map_err(|error| text(&error))?;
        for (i, run) in content(2).chunks(RUN_BYTES).enumerate() {
            let mut buf = io.pool().acquire(run.len()).await;
            buf.put_slice(run);
            let (written, _) = io.write_all_at(&file, (i * RUN_BYTES) as u64, buf, 0..run.len()).await;
            written.map_err(|error| text(&error))?;
        }
        if name == "new/large" {
            replica.sync_staged(&[Arc::clone(staged.file())]).remove(0).map_err(|error| text(&error))?;
            staged.keep();
        }
        batch.push(Ready::new(staged, path(name), 0o640, TIME).expect(expected));
    }
    let mut buf = io.pool().acquire(9).await;
    buf.put_slice(b"version 2");
    let small = SmallWrite {
        id: FileId(2),
        path: path("small"),
        content: 0..9,
        mode: 0o600,
        mtime: TIME,
        attributes: None,
    };
    for ready in replica.write_small(vec![small], &buf, Durability::Synced) {
        batch.push(ready.map_err(|error| text(&error))?);
    }
    fault_point("index").map_err(|error| text(&error))?;
    for result in replica.publish(batch, Durability::Synced) {
        result.map_err(|error| text(&error))?;
    }
    let (large, _) = replica.open_existing(&path("d/large")).map_err(|error| text(&error))?;
    let file = io.attach(Arc::new(large)).map_err(|error| text(&error))?;
    let buf = io.pool().acquire(RUN_BYTES).await;
    let (read, buf) = io.read_exact_at(&file, 0, RUN_BYTES, buf).await;
    read.map_err(|error| text(&error))?;
    if buf.as_slice() != &content(2)[..RUN_BYTES] {
        return Err("another content".into());
    }
    replica.make_symlink(&path("link"), b"small", Some(TIME)).map_err(|error| text(&error))?;
    replica.make_hardlink(&path("hard"), &path("d/large")).map_err(|error| text(&error))?;
    replica.set_aside(&path("edited"), b"edited.aside").map_err(|error| text(&error))?;
    if let Ok(Existing::File(stat)) = replica.existing(&path("goes")) {
        replica.remove_entry(&path("goes"), &RemoveExpected::File(stat)).map_err(|error| text(&error))?;
    }
    replica.set_directory_metadata(Some(&path("new")), 0o755, TIME).map_err(|error| text(&error))?;
    spool.commit().map_err(|error| text(&error))?;
    replica.sync().map_err(|error| text(&error))?;
    replica.close().map_err(|error| text(&error))
}

/// What must hold of a destination whatever happened to its receiver.
fn check(dir: &Path, what: &str) {
    for name in ["d/large", "new/large", "hard"] {
        match fs::read(dir.join(name)) {
            Ok(found) => {
                let old_may_be = name == "d/large";
                assert!(
                    found == content(2) || old_may_be && found == content(1),
                    "{what}: {name} is a mixture"
                );
            }
            Err(error) => assert!(name != "d/large", "{what}: {name}: {error}"),
        }
    }
    let small = fs::read_to_string(dir.join("small")).unwrap();
    assert!(["version 1", "version 2"].contains(&&*small), "{what}: {small:?}");
    let edited = ["edited", "edited.aside"].map(|name| dir.join(name).exists());
    assert!(edited[0] != edited[1], "{what}");
    if let Some(marker) = Replica::marker(dir).unwrap() {
        assert_eq!(marker, ID, "{what}");
    }
    if let Some(manifest) = ManifestReader::open(dir).unwrap() {
        let segments: Vec<_> = manifest.map(Result::unwrap).collect();
        assert_eq!(segments, [[0; 100], [1; 100], [2; 100]], "{what}");
    }
}

/// What must hold once a receiver has run undisturbed.
fn check_done(dir: &Path, what: &str) {
    check(dir, what);
    for name in ["d/large", "new/large", "hard"] {
        assert!(fs::read(dir.join(name)).unwrap() == content(2), "{what}: {name}");
    }
    assert_eq!(fs::read_to_string(dir.join("small")).unwrap(), "version 2");
    assert!(!dir.join("goes").exists() && fs::metadata(dir.join("new")).unwrap().mode() & 0o777 == 0o755);
    let own: BTreeSet<_> = fs::read_dir(dir.join(".sealift"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(own, BTreeSet::from(["id", "lock", "manifest"].map(String::from)), "{what}: nothing stray");
}

fn backends() -> Vec<Backend> {
    let mut backends = vec![Backend::Threads];
    let choice = Backend::choose().unwrap();
    match choice.backend {
        Backend::Uring => backends.push(Backend::Uring),
        Backend::Threads => eprintln!("io_uring is not tested: {}", choice.reason),
    }
    backends
}

/// How many operations a receiver that nothing happens to has.
fn operations(backend: Backend) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("dest");
    prepare(&dest);
    let count = dir.path().join("count");
    let output = receive(&dest, backend, &format!("count={}", count.display()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("result: done"), "{output:?}");
    check_done(&dest, "undisturbed");
    fs::read_to_string(count).unwrap().trim().parse().unwrap()
}

/// A second run finishes what the first left. What was set aside or removed already is put there again.
fn check_next_run(dest: &Path, backend: Backend, what: &str) {
    check(dest, what);
    let _ = fs::rename(dest.join("edited.aside"), dest.join("edited"));
    let _ = fs::remove_file(dest.join("new/large"));
    let output = receive(dest, backend, "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("result: done"), "{what}: {output:?}");
    check_done(dest, what);
}

#[test]
fn b10_killed_at_any_operation_a_receiver_leaves_old_or_new_and_the_next_one_finishes() {
    for backend in backends() {
        let operations = operations(backend);
        assert!(operations > 40, "{operations}");
        eprintln!("{operations} operations by {backend:?}");
        // Both engines share all but bulk I/O: one is tried at every other operation.
        let (step, sides) = if backend == Backend::Threads { (1, &["0", "1"][..]) } else { (3, &["1"][..]) };
        for n in (1..=operations).step_by(step) {
            for after in sides {
                let dir = tempfile::tempdir().unwrap();
                let dest = dir.path().join("dest");
                prepare(&dest);
                let plan = format!("kill={n};after={after}");
                let output = receive(&dest, backend, &plan);
                assert_eq!(output.status.signal(), Some(9), "{plan}: {output:?}");
                check_next_run(&dest, backend, &plan);
            }
        }
    }
}

#[test]
fn b1_whichever_operation_fails_the_receiver_says_so_or_needs_it_not() {
    for backend in backends() {
        let step = if backend == Backend::Threads { 1 } else { 3 };
        for error in ["EIO", "ENOSPC"] {
            for n in (1..=operations(backend)).step_by(step) {
                let dir = tempfile::tempdir().unwrap();
                let dest = dir.path().join("dest");
                prepare(&dest);
                let log = dir.path().join("log");
                let plan = format!("nth={n};error={error};log={}", log.display());
                let output = receive(&dest, backend, &plan);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{plan}: {output:?}");
                let log = fs::read_to_string(log).unwrap();
                if text.contains("result: done") {
                    check(&dest, &plan);
                    assert!(log.contains(" mkdir ") || log.contains(" unlink "), "{log} was passed over");
                }
                check_next_run(&dest, backend, &plan);
            }
        }
    }
}

#[test]
fn b8_seeded_faults_of_both_engines() {
    for backend in backends() {
        let run = |kinds: &str, only: &str, seed| {
            let dir = tempfile::tempdir().unwrap();
            let dest = dir.path().join("dest");
            prepare(&dest);
            let log = dir.path().join("log");
            let plan = format!("seed={seed};rate=300000;kinds={kinds};only={only};log={}", log.display());
            let output = receive(&dest, backend, &plan);
            assert!(output.status.success(), "{plan}: {output:?}");
            let done = String::from_utf8_lossy(&output.stdout).contains("result: done");
            (dir, done, fs::read_to_string(log).unwrap())
        };
        let mut faults = 0;
        for seed in 0..4 {
            let (dir, done, log) = run("short,slow", "read,write", seed);
            assert!(done, "{log}");
            check_done(&dir.path().join("dest"), &log);
            faults += log.lines().count();
        }
        assert!(faults > 0);
        // What lies is not noticed here: that is for hashes to find, which is why they are checked.
        let lied = (0..4).any(|seed| {
            let (dir, _, log) = run("torn,misdirected", "write", seed);
            let right = fs::read(dir.path().join("dest/d/large")).unwrap() == content(2)
                && fs::read(dir.path().join("dest/new/large")).is_ok_and(|found| found == content(2));
            !log.is_empty() && !right
        });
        assert!(lied);
    }
}

/// A mounted file system, until it goes.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// A tmpfs, if this process may mount one.
    fn tmpfs(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn b4_a_disk_without_inodes_is_told_from_one_without_space() {
    let Some(disk) = Mounted::tmpfs("nr_inodes=16,size=1m") else {
        return eprintln!("skipped: a small file system cannot be mounted here");
    };
    let replica = Replica::open(disk.0.path(), ID).unwrap();
    let stage =
        |bytes| replica.create_staged(FileId(0), &path("x"), bytes, Allocation::Preallocated).unwrap_err();
    let error = stage(8 << 20);
    assert!(matches!(error, FileError::NoSpace { .. }) && error.is_no_space(), "{error}");
    for i in 0.. {
        if fs::write(disk.0.path().join(i.to_string()), "").is_err() {
            break;
        }
    }
    for error in [
        stage(0),
        replica.make_directory(&path("d")).unwrap_err(),
        replica.make_symlink(&path("l"), b"t", Some(TIME)).unwrap_err(),
    ] {
        assert!(matches!(error, FileError::NoInodes { .. }) && error.is_no_space(), "{error}");
        assert!(error.to_string().contains("no inode is left"), "{error}");
    }
    fs::remove_file(disk.0.path().join("0")).unwrap();
    replica.create_staged(FileId(0), &path("x"), 0, Allocation::Sparse).unwrap();
}
