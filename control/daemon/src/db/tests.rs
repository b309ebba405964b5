//! The database as a whole: its file, its transactions, who may open it.

use super::*;
use rusqlite::params;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// A database in a directory of its own, and a clock that the test sets.
pub(super) struct Scratch {
    pub(super) dir: TempDir,
    pub(super) master: MasterKey,
    pub(super) db: Db,
    now_ms: Arc<AtomicI64>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let master = MasterKey::generate().unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock = Arc::clone(&now_ms);
        let db = Db::create(&dir.path().join("control.db"), master.clone()).unwrap();
        let db = db.with_clock(Arc::new(move || clock.load(Ordering::Relaxed)));
        Self { dir, master, db, now_ms }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("control.db")
    }

    pub(super) fn pass_ms(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Does to the file what this program never does.
    pub(super) fn tamper(&self, sql: &str) -> usize {
        tamper(&self.path(), sql)
    }

    pub(super) fn actions(&self) -> Vec<String> {
        self.db
            .read(|file| {
                let mut statement = file.prepare("SELECT action FROM audit ORDER BY number")?;
                Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
            })
            .unwrap()
    }

    pub(super) fn count(&self, table: &str) -> i64 {
        self.db
            .read(|file| Ok(file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?))
            .unwrap()
    }
}

pub(super) fn tamper(path: &Path, sql: &str) -> usize {
    tampering(path).execute(sql, []).unwrap()
}

/// The file, opened by somebody who takes the triggers away that refuse what they are about to do.
pub(super) fn tampering(path: &Path) -> Connection {
    let file = Connection::open(path).unwrap();
    let names: Vec<String> = {
        let mut names = file.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").unwrap();
        names.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for name in names {
        file.execute(&format!("DROP TRIGGER {name}"), []).unwrap();
    }
    file
}

fn put_meta(write: &Write<'_>, name: &str, value: &[u8]) -> Result<(), DbError> {
    write.tx().execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

#[test]
fn a_change_and_its_record_are_kept_together_or_not_at_all() {
    let scratch = Scratch::new();
    let by = Actor::cli("root");
    scratch
        .db
        .write(&by, |write| {
            put_meta(write, "one", b"1")?;
            write.audit("test.put", "one", None, Some(json!(1)))
        })
        .unwrap();
    let refused = scratch.db.write(&by, |write| {
        put_meta(write, "two", b"2")?;
        write.audit("test.put", "two", None, Some(json!(2)))?;
        Err::<(), _>(DbError::Refused("no".into()))
    });
    assert!(matches!(refused, Err(DbError::Refused(_))));
    assert_eq!(scratch.actions(), ["test.put"]);
    assert_eq!(scratch.count("meta WHERE name IN ('one', 'two')"), 1);
}

#[test]
fn a_panic_rolls_back_and_the_next_writer_goes_on() {
    let scratch = Scratch::new();
    let by = Actor::system();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = scratch.db.write(&by, |write| {
            put_meta(write, "one", b"1")?;
            let fine = false;
            assert!(fine, "as a bug would");
            Ok(())
        });
    }));
    assert!(panicked.is_err());
    scratch.db.record(&by, "test.after", "", None).unwrap();
    assert_eq!(scratch.actions(), ["test.after"]);
    assert_eq!(scratch.count("meta WHERE name = 'one'"), 0);
}

#[test]
fn many_write_and_read_at_once_and_the_chain_holds() {
    let scratch = Scratch::new();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let db = scratch.db.clone();
            scope.spawn(move || {
                for number in 0..40 {
                    let by = Actor::cli(&writer.to_string());
                    db.write(&by, |write| write.audit("test", &number.to_string(), None, None)).unwrap();
                    db.read(|file| Ok(file.query_row("SELECT count(*) FROM audit", [], |_| Ok(()))?))
                        .unwrap();
                }
            });
        }
    });
    let report = audit::verify(&scratch.db).unwrap();
    assert_eq!((report.records, report.signed, report.bad), (320, 256, None));
    assert!(lock(&scratch.db.shared.readers).len() <= READERS_IDLE_MAX);
}

#[test]
fn a_reader_cannot_write() {
    let scratch = Scratch::new();
    let written = scratch.db.read(|file| Ok(file.execute("DELETE FROM meta", [])?));
    assert!(matches!(written, Err(DbError::Sql(_))));
}

#[test]
fn only_the_owner_can_read_the_files() {
    let scratch = Scratch::new();
    scratch.db.record(&Actor::system(), "test", "", None).unwrap();
    for entry in std::fs::read_dir(scratch.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn opens_again_with_its_master_key_and_no_other() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let path = dir.path().join("control.db");
    let sealed = db.write(&Actor::system(), |write| write.seal("test", b"secret")).unwrap();
    drop(db);
    let other = MasterKey::generate().unwrap();
    assert!(matches!(Db::open(&path, other), Err(DbError::WrongMasterKey)));
    let db = Db::open(&path, master.clone()).unwrap();
    let opened = db.write(&Actor::system(), |write| write.open("test", &sealed)).unwrap();
    assert_eq!(*opened, b"secret");
    assert!(matches!(Db::create(&path, master), Err(DbError::Io(_))));
}

#[test]
fn refuses_a_newer_version_and_leaves_the_file_as_it_was() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let path = dir.path().join("control.db");
    drop(db);
    tamper(&path, "PRAGMA user_version = 3");
    let before = std::fs::read(&path).unwrap();
    let refused = Db::open(&path, master).map(|_| ());
    assert!(matches!(refused, Err(DbError::TooNew { found: 3, known: 2 })), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_an_earlier_version_gets_what_it_lacks() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let path = dir.path().join("control.db");
    db.record(&Actor::system(), "test", "kept", None).unwrap();
    let tables = |db: &Db| {
        let sql = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_master ORDER BY type, name)";
        db.read(|file| Ok(file.query_row(sql, [], |row| row.get::<_, String>(0))?)).unwrap()
    };
    let new = tables(&db);
    drop(db);
    let older = "DROP TABLE kek_wraps; DROP TABLE keks; DROP TABLE groups_that_seal; \
        ALTER TABLE agents DROP COLUMN must_seal; PRAGMA user_version = 1";
    tampering(&path).execute_batch(older).unwrap();
    let db = Db::open(&path, master.clone()).unwrap();
    assert_eq!(tables(&db), new, "as if it had been made so");
    let of_audit = "SELECT count(*) FROM audit WHERE subject = 'kept'";
    assert_eq!(db.read(|file| Ok(file.query_row(of_audit, [], |row| row.get::<_, i64>(0))?)).unwrap(), 1);
    drop(db);
    assert_eq!(tables(&Db::open(&path, master).unwrap()), new, "and once");
}

#[test]
fn refuses_a_damaged_file_and_one_of_another_program() {
    let Scratch { dir, master, db, .. } = Scratch::new();
    let path = dir.path().join("control.db");
    for _ in 0..300 {
        db.record(&Actor::system(), "test", &"x".repeat(100), None).unwrap();
    }
    drop(db);
    let whole = std::fs::read(&path).unwrap();
    let refuses = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let refused = Db::open(&path, master.clone()).map(|_| ());
        assert!(matches!(refused, Err(DbError::Damaged(_))), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    };
    refuses(&whole[..whole.len() / 2]);
    let mut holed = whole.clone();
    let middle = whole.len() / 2 / 4096 * 4096;
    holed[middle..middle + 4096].fill(0xa5);
    refuses(&holed);
    refuses(&[b"no database ".repeat(100).as_slice(), &whole[1200..]].concat());
    let other = dir.path().join("other.db");
    tamper(&other, "CREATE TABLE t (a)");
    refuses(&std::fs::read(&other).unwrap());
    refuses(b"");
    std::fs::write(&path, &whole).unwrap();
    Db::open(&path, master).unwrap();
}

#[test]
fn what_is_not_there_is_not_made_by_opening_it() {
    let dir = TempDir::new().unwrap();
    let opened = Db::open(&dir.path().join("control.db"), MasterKey::generate().unwrap());
    assert!(matches!(opened, Err(DbError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_taken_value_is_a_conflict() {
    let scratch = Scratch::new();
    let put = || {
        scratch.db.write(&Actor::system(), |write| {
            let sql = "INSERT INTO meta (name, value) VALUES ('one', x'')";
            write.tx().execute(sql, []).map_err(DbError::taken("it is there already"))?;
            Ok(())
        })
    };
    put().unwrap();
    assert!(matches!(put(), Err(DbError::Conflict(text)) if text == "it is there already"));
}

#[test]
fn a_part_that_fails_is_undone_and_the_others_stay() {
    let scratch = Scratch::new();
    let (one, other) = (Actor::cli("one"), Actor::cli("other"));
    let put = |name: &'static str| {
        move |w: &mut Write<'_>| {
            put_meta(w, name, b"x")?;
            w.audit("test.put", name, None, None)
        }
    };
    let results = scratch.db.write(&Actor::system(), |w| {
        let fails = |w: &mut Write<'_>| {
            put("second")(w)?;
            Err::<(), _>(DbError::Stale)
        };
        Ok([w.part(&one, put("first")), w.part(&other, fails), w.part(&other, put("third"))])
    });
    let [first, second, third] = results.unwrap();
    assert!(first.is_ok() && matches!(second, Err(DbError::Stale)) && third.is_ok());
    let names: Vec<String> = scratch
        .db
        .read(|file| {
            let mut statement = file.prepare("SELECT actor || ' ' || subject FROM audit ORDER BY number")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .unwrap();
    assert_eq!(names, ["cli:one first", "cli:other third"]);
    assert!(audit::verify(&scratch.db).unwrap().is_good());
}
