//! What an index of a replica remembers and finds, and who may have it open.

use super::*;
use crate::stat::FileStat;

#[test]
fn index_remembers_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, found) = open(&at);
    assert_eq!(found, IndexFound::Created);
    assert!(index.read().unwrap().is_empty().unwrap());
    let id = JobId([1; 16]);
    let batch = IndexBatch {
        partial: vec![(path("p"), partial_row(3, 4)), (path("q/r"), partial_row(100, 5))],
        job: Some((id, job_row(1, 9))),
        ..placed(&[("a", file(10, 1)), ("a/b", file(10, 2)), ("a!", file(0, 3)), ("a/c", file(70_000, 4))])
    };
    index.write(&batch).unwrap();
    let before = index.read().unwrap();
    let row = EntryRow { what: EntryWhat::Symlink { target_hash: 5 }, job: 2, segment: 8 };
    index
        .write(&IndexBatch {
            removed: vec![path("a/c"), path("a/b"), path("none")],
            partial_gone: vec![path("p"), path("none")],
            ..placed(&[("a/b", row.clone()), ("a/b", file(1, 1)), ("a/b", row.clone())])
        })
        .unwrap();
    index.write(&IndexBatch::default()).unwrap();
    // A reader stays with its moment.
    assert_eq!(before.entry(&path("a/b")).unwrap(), Some(file(10, 2)));
    assert_eq!(before.same_content(70_000, &root(4)).unwrap(), Some(path("a/c")));
    drop(before);
    drop(index);
    let (index, found) = open(&at);
    assert_eq!(found, IndexFound::Sound);
    let reader = index.read().unwrap();
    assert_eq!(reader.entry(&path("a/b")).unwrap(), Some(row));
    assert_eq!(reader.entry(&path("a/c")).unwrap(), None);
    assert_eq!(reader.partial(&path("p")).unwrap(), None);
    assert_eq!(reader.partial(&path("q/r")).unwrap(), Some(partial_row(100, 5)));
    assert_eq!(reader.partials().unwrap(), [(path("q/r"), partial_row(100, 5))]);
    assert_eq!(reader.job(&id).unwrap(), Some(job_row(1, 9)));
    assert_eq!(reader.job(&JobId([2; 16])).unwrap(), None);
    assert_eq!(reader.jobs().unwrap(), [(id, job_row(1, 9))]);
    let after = |after: Option<&str>| {
        let mut seen = Vec::new();
        let mut show = |path: SafePath, _| {
            seen.push(path.to_string());
            if path.as_bytes() == b"a/b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reader.for_each_entry(after.map(path).as_ref(), &mut show).unwrap();
        seen
    };
    assert_eq!(after(None), ["a", "a/b"]);
    assert_eq!(after(Some("a/a")), ["a/b"]);
    assert_eq!(after(Some("a/b")), ["a!"]);
    assert_eq!(reader.len().unwrap(), 3);
}

#[test]
fn index_goes_through_more_rows_than_it_takes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let names: Vec<_> = (0..2 * INDEX_ROWS_AT_ONCE + 1).map(|i| format!("d{:02}/{i}", i % 7)).collect();
    let rows: Vec<_> = names.iter().map(|name| (name.as_str(), file(1, 1))).collect();
    index.write(&placed(&rows)).unwrap();
    assert_eq!(content(&index).unwrap().0.len(), names.len());
}

#[test]
fn index_finds_large_files_by_content_for_as_long_as_any_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let size = REUSE_BYTES_MIN;
    let found = || index.read().unwrap().same_content(size, &root(1)).unwrap().map(|path| path.to_string());
    index
        .write(&placed(&[("small", file(size - 1, 1)), ("y", file(size, 1)), ("x", file(size, 1))]))
        .unwrap();
    assert_eq!(found().as_deref(), Some("x"));
    assert!(!index.read().unwrap().has_size(size - 1).unwrap());
    assert!(index.read().unwrap().has_size(size).unwrap());
    index.write(&placed(&[("x", file(size, 2))])).unwrap();
    assert_eq!(found().as_deref(), Some("y"));
    index.write(&IndexBatch { removed: vec![path("y")], ..IndexBatch::default() }).unwrap();
    assert_eq!(found(), None);
    assert!(index.read().unwrap().has_size(size).unwrap());
    index.write(&IndexBatch { removed: vec![path("x")], ..IndexBatch::default() }).unwrap();
    assert!(!index.read().unwrap().has_size(size).unwrap());
}

#[test]
fn index_knows_a_file_by_its_inode_wherever_its_device_is_mounted() {
    let time = time(7, 1);
    let found =
        FileStat { size_bytes: 1, mtime: time, ctime: time, inode: 1, device: 1, mode: 0o644, links: 1 };
    let known = LocalStat::from(&found);
    assert!(known.matches(&FileStat { device: 2, links: 2, ..found }));
    for other in [
        FileStat { inode: 2, ..found },
        FileStat { size_bytes: 2, ..found },
        FileStat { mode: 0o600, ..found },
        FileStat { mtime: Timestamp { nanos: 2, ..time }, ..found },
        FileStat { ctime: Timestamp { nanos: 2, ..time }, ..found },
    ] {
        assert!(!known.matches(&other), "{other:?}");
    }
}

#[test]
fn index_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ReplicaIndex>();
    shared::<IndexReader>();
    shared::<HashCache>();
    shared::<CacheReader>();
}

#[test]
fn index_in_use_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    let (index, _) = open(&at);
    let Err(error) = ReplicaIndex::open(&at) else { panic!("opened twice") };
    assert!(matches!(error, IndexError::Locked { .. }), "{error}");
    // A reader keeps it open.
    let reader = index.read().unwrap();
    drop(index);
    assert!(matches!(ReplicaIndex::open(&at), Err(IndexError::Locked { .. })));
    drop(reader);
    assert_eq!(open(&at).1, IndexFound::Sound);
}

#[test]
fn index_is_read_by_many_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("index.redb"));
    let names: Vec<_> = (0..400).map(|i| format!("d/{i:03}")).collect();
    let rows = |version: u64| -> Vec<_> {
        names.iter().map(|name| (name.as_str(), file(REUSE_BYTES_MIN, version))).collect()
    };
    index.write(&placed(&rows(0))).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let reader = index.read().unwrap();
                    let of = |name: &String| reader.entry(&path(name)).unwrap().unwrap().segment;
                    let version = of(&names[0]);
                    assert!(names.iter().all(|name| of(name) == version), "a mixture of two batches");
                    assert!(reader.same_content(REUSE_BYTES_MIN, &root(version)).unwrap().is_some());
                }
            });
        }
        for version in 1..30 {
            index.write(&placed(&rows(version))).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn index_opened_by_many_at_once_is_had_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("index.redb");
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let at = &at;
            scope.spawn(move || {
                let mut done = 0;
                while done < 10 {
                    match ReplicaIndex::open(at) {
                        Ok((index, found)) => {
                            assert_ne!(found, IndexFound::Damaged);
                            let name = format!("{thread}/{done}");
                            index.write(&placed(&[(name.as_str(), file(1, thread))])).unwrap();
                            done += 1;
                        }
                        Err(IndexError::Locked { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(content(&open(&at).0).unwrap().0.len(), 40);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
