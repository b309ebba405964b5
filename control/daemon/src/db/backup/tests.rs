//! Backups: taken while the database is in use, looked at, and put back only if they are good.

use super::*;
use crate::db::tests::{Scratch, tamper};
use std::os::unix::fs::PermissionsExt as _;

fn nothing_outside() -> Outside {
    Outside::default()
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn holds_what_was_there_and_a_checkpoint_covers_it() {
    let scratch = Scratch::new();
    let by = Actor::cli("root");
    let to = scratch.dir.path().join("backup.db");
    scratch.db.record(&by, "test.before", "", None).unwrap();
    std::fs::write(&to, "an older one").unwrap();
    let checkpoint = backup(&scratch.db, &by, &to).unwrap();
    scratch.db.record(&by, "test.after", "", None).unwrap();
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let outside = Outside { public_key: Some(audit::public_key(&scratch.db)), checkpoints: vec![checkpoint] };
    let report = check(&to, &scratch.master, &outside).unwrap();
    assert_eq!((report.records, report.signed), (2, 2));
    let beside = names(scratch.dir.path());
    assert_eq!(beside, ["backup.db", "control.db", "control.db-shm", "control.db-wal", "control.db.lock"]);
}

#[test]
fn is_not_written_over_the_database_itself() {
    let scratch = Scratch::new();
    let link = scratch.dir.path().join("link");
    std::os::unix::fs::symlink(scratch.path(), &link).unwrap();
    for to in [scratch.path(), link] {
        assert!(matches!(backup(&scratch.db, &Actor::system(), &to), Err(DbError::Invalid(_))));
    }
}

#[test]
fn comes_back_with_a_record_and_without_what_happened_since() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let [path, copy] = ["control.db", "backup.db"].map(|name| dir.path().join(name));
    let by = Actor::cli("root");
    backup(&db, &by, &copy).unwrap();
    db.record(&by, "test.since", "", None).unwrap();
    let refused = restore(&copy, &path, &master, None, &nothing_outside(), &by).map(|_| ());
    assert!(matches!(refused, Err(DbError::Refused(_))), "in use: {refused:?}");
    drop(db);
    let restored = restore(&copy, &path, &master, None, &nothing_outside(), &by).unwrap();
    assert_eq!(restored.report.records, 1);
    let db = Db::open(&path, master.clone()).unwrap();
    let report = audit::verify(&db).unwrap();
    assert_eq!((report.records, report.bad), (2, None));
    let page = db.read(|file| audit::page(file, &audit::Filter::default(), None, 9)).unwrap();
    let actions: Vec<_> = page.items.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["backup.restore", "backup.create"]);
    drop(db);
    // What stood there is a database still.
    let kept = Db::open(&restored.kept.unwrap(), master).unwrap();
    assert_eq!(audit::verify(&kept).unwrap().records, 2);
}

#[test]
fn comes_back_where_nothing_is() {
    let scratch = Scratch::new();
    let [copy, path] = ["backup.db", "new.db"].map(|name| scratch.dir.path().join(name));
    backup(&scratch.db, &Actor::system(), &copy).unwrap();
    let restored =
        restore(&copy, &path, &scratch.master, None, &nothing_outside(), &Actor::system()).unwrap();
    assert_eq!(restored.kept, None);
    assert!(!path.with_extension("db-wal").exists());
    Db::open(&path, scratch.master).unwrap();
}

#[test]
fn a_bad_one_replaces_nothing() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let [path, copy] = ["control.db", "backup.db"].map(|name| dir.path().join(name));
    let by = Actor::system();
    for _ in 0..200 {
        db.record(&by, "test", &"x".repeat(100), None).unwrap();
    }
    let checkpoint = backup(&db, &by, &copy).unwrap();
    drop(db);
    let stood = std::fs::read(&path).unwrap();
    let good = std::fs::read(&copy).unwrap();
    let refused = |master: &MasterKey, outside: &Outside| {
        let before = std::fs::read(&copy).unwrap();
        let error = restore(&copy, &path, master, None, outside, &by).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), stood);
        assert_eq!(std::fs::read(&copy).unwrap(), before);
        assert_eq!(names(dir.path()), ["backup.db", "control.db", "control.db.lock"]);
        error
    };
    let other = MasterKey::generate().unwrap();
    assert!(matches!(refused(&other, &nothing_outside()), DbError::WrongMasterKey));
    tamper(&copy, "UPDATE audit SET subject = 'y' WHERE number = 3");
    assert!(
        matches!(refused(&master, &nothing_outside()), DbError::Damaged(text) if text.contains("record 3"))
    );
    std::fs::write(&copy, &good).unwrap();
    tamper(&copy, "DELETE FROM audit WHERE number = 201");
    tamper(&copy, "DELETE FROM audit_checkpoints WHERE number = 201");
    let outside = Outside { public_key: None, checkpoints: vec![checkpoint] };
    assert!(matches!(refused(&master, &outside), DbError::Damaged(_)));
    std::fs::write(&copy, &good).unwrap();
    tamper(&copy, "PRAGMA user_version = 3");
    assert!(matches!(refused(&master, &nothing_outside()), DbError::TooNew { .. }));
    std::fs::write(&copy, &good[..good.len() / 2]).unwrap();
    assert!(matches!(refused(&master, &nothing_outside()), DbError::Damaged(_)));
    std::fs::write(&copy, b"").unwrap();
    assert!(matches!(refused(&master, &nothing_outside()), DbError::Damaged(_)));
}

#[test]
fn a_database_is_not_taken_for_a_backup() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let [path, other] = ["control.db", "other.db"].map(|name| dir.path().join(name));
    db.record(&Actor::system(), "test", "", None).unwrap();
    let restore =
        |from: &Path, to: &Path| restore(from, to, &master, None, &nothing_outside(), &Actor::system());
    assert!(matches!(restore(&path, &other), Err(DbError::Invalid(_))), "its log holds a record");
    drop(db);
    assert!(matches!(restore(&path, &path), Err(DbError::Invalid(_))));
    assert!(!other.exists());
}
