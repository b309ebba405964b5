//! Master keys: where they come from, and what they open.

use super::*;
use crate::ca::Authority;
use crate::db::tests::Scratch;
use crate::db::{Actor, audit, idempotency, jobs, keks, users};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

fn same(a: &MasterKey, b: &MasterKey) -> bool {
    a.0 == b.0
}

#[test]
fn what_is_sealed_opens_with_the_same_key_for_the_same_purpose_only() {
    let key = MasterKey::generate().unwrap();
    let sealed = key.seal("job:1", b"secret").unwrap();
    assert_eq!(*key.open("job:1", &sealed).unwrap(), b"secret");
    assert_ne!(sealed, key.seal("job:1", b"secret").unwrap());
    assert!(key.open("job:2", &sealed).is_err());
    assert!(MasterKey::generate().unwrap().open("job:1", &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(key.open("job:1", &changed).is_err(), "byte {at}");
        assert!(key.open("job:1", &sealed[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn never_shows_itself() {
    assert_eq!(format!("{:?}", MasterKey([7; 32])), "MasterKey(..)");
}

#[test]
fn is_kept_in_a_file_that_others_cannot_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("master.key");
    let key = MasterKey::generate().unwrap();
    key.create_file(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(same(&MasterKey::read_file(&path).unwrap(), &key));
    assert!(matches!(key.create_file(&path), Err(DbError::Io(_))));
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(MasterKey::read_file(&path), Err(DbError::Refused(_))), "{mode:o}");
    }
}

#[test]
fn refuses_a_file_that_holds_no_key() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("master.key");
    let good = format!("{FILE_PREFIX}{}", BASE64URL_NOPAD.encode(&[7; 32]));
    for text in
        ["", "\n", "slmk1:", "slmk1:AAAA", &good[1..], &good[..good.len() - 1], &format!("{good}\n\n")]
    {
        std::fs::remove_file(&path).ok();
        write_new(&path, text.as_bytes()).unwrap();
        assert!(matches!(MasterKey::read_file(&path), Err(DbError::Invalid(_))), "{text:?}");
    }
    std::fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(matches!(MasterKey::read_file(&path), Err(DbError::Io(_))));
}

#[test]
fn comes_from_a_credential_of_a_plain_name() {
    let dir = TempDir::new().unwrap();
    let key = MasterKey::generate().unwrap();
    key.create_file(&dir.path().join("key")).unwrap();
    assert!(same(&MasterKey::read_credential_in(dir.path(), "key").unwrap(), &key));
    for name in ["", "..", "../key", "a/key", "/etc/passwd"] {
        let refused = MasterKey::read_credential_in(dir.path(), name);
        assert!(matches!(refused, Err(DbError::Invalid(_))), "{name:?}");
    }
}

#[test]
fn comes_from_a_file_that_a_passphrase_opens() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("master.sealed");
    let key = MasterKey::generate().unwrap();
    assert!(matches!(key.create_sealed(&file, b"too short"), Err(DbError::Invalid(_))));
    key.create_sealed(&file, b"correct horse battery").unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(same(&MasterKey::read_sealed(&file, b"correct horse battery").unwrap(), &key));
    let wrong = MasterKey::read_sealed(&file, b"correct horse batterz");
    assert!(matches!(wrong, Err(DbError::Refused(text)) if text.contains("passphrase")));
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [("65536", "99999999"), ("\"passes\":3", "\"passes\":4000000"), ("argon2id", "argon2i")]
    {
        assert!(text.contains(from));
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let refused = MasterKey::read_sealed(&file, b"correct horse battery");
        assert!(matches!(refused, Err(DbError::Invalid(_))), "{to}");
    }
}

#[test]
fn comes_back_by_the_recovery_key_as_it_is_typed() {
    let world = World::new();
    let text = world.new_recovery_key();
    assert_eq!(text.len(), 8 * 7 + 7, "{text}");
    let typed = format!(" {}\n", text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
    for text in [&text, &typed] {
        let found = RecoveryKey::parse(text).unwrap().open(&world.database()).unwrap();
        assert!(same(&found, &world.key));
    }
    let other = world.new_recovery_key();
    let old = RecoveryKey::parse(&text).unwrap().open(&world.database());
    assert!(matches!(old, Err(DbError::Refused(_))), "the one before opens nothing any more");
    RecoveryKey::parse(&other).unwrap().open(&world.database()).unwrap();
}

#[test]
fn a_recovery_key_with_a_mistake_and_another_ones_are_told_apart() {
    let world = World::new();
    let text = world.new_recovery_key();
    let other = World::new().new_recovery_key();
    let refused = RecoveryKey::parse(&other).unwrap().open(&world.database());
    assert!(matches!(refused, Err(DbError::Refused(_))));
    for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
        let mut mistaken = text.clone().into_bytes();
        mistaken[at] = if mistaken[at] == b'7' { b'8' } else { b'7' };
        let mistaken = String::from_utf8(mistaken).unwrap();
        assert!(matches!(RecoveryKey::parse(&mistaken), Err(DbError::Invalid(_))), "symbol {at}");
    }
    for text in ["", &text[..text.len() - 8], &format!("{text}-AAAAAAA")] {
        assert!(matches!(RecoveryKey::parse(text), Err(DbError::Invalid(_))), "{text:?}");
    }
}

/// A data directory whose database has something of all that is sealed.
struct World {
    dir: TempDir,
    key: MasterKey,
    user: uuid::Uuid,
    job: [uuid::Uuid; 2],
    kek: uuid::Uuid,
}

const SEED: [u8; 32] = [42; 32];

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = MasterKey::generate().unwrap();
        key.create_file(&dir.path().join(MASTER_KEY)).unwrap();
        let db = Db::create(&dir.path().join("control.db"), key.clone()).unwrap();
        let by = Actor::system();
        Authority::create(&db, &by).unwrap();
        let new = serde_json::json!({ "name": "eve", "role": "viewer", "password": "a long enough one" });
        let user = users::create(&db, &by, &serde_json::from_value(new).unwrap()).unwrap().id;
        let files = sealift_api::rest::KekFiles {
            public_pem: include_str!("../../../../envelope/tests/keys/a.pub.pem").to_owned(),
            private_pem: Some(include_str!("../../../../envelope/tests/keys/a.pem").to_owned().into()),
            passphrase: None,
        };
        let halves = keks::Checked::of(&files).unwrap();
        let kek = db.write(&by, |write| keks::import(write, &"team".parse().unwrap(), &halves)).unwrap().id;
        let world = Self { dir, key, user, job: [crate::db::new_id(), crate::db::new_id()], kek };
        let answer = idempotency::Answer { status: 201, version: None, body: b"secret".to_vec().into() };
        let [job, source] = world.job;
        db.write(&by, |write| {
            write.tx().execute_batch("PRAGMA defer_foreign_keys = ON")?;
            idempotency::keep(write, &world.request(&db), &answer)?;
            // Rows of their own: what a job is made of is another room's.
            let sealed = write.seal(&format!("job-key:{job}:{source}:1"), &SEED)?;
            write.tx().execute(
                "INSERT INTO agents (id, name, key, state, facts, address, created_ms, seen_ms) \
                 VALUES (?1, 'alpha', ?2, 'approved', '{}', '', 0, 0)",
                (source.as_bytes(), [1_u8; 32]),
            )?;
            write.tx().execute(
                "INSERT INTO jobs (id, name, kind, spec, created_ms, updated_ms) \
                 VALUES (?1, 'models', 'distribution', '{}', 0, 0)",
                [job.as_bytes()],
            )?;
            for (epoch, sealed) in [(1, sealed), (2, vec![])] {
                write.tx().execute(
                    "INSERT INTO job_keys (job_id, source_id, epoch, sealed_seed, verify_key, created_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, 0)",
                    (job.as_bytes(), source.as_bytes(), epoch, sealed, [2_u8; 32]),
                )?;
            }
            Ok(())
        })
        .unwrap();
        world
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("control.db")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn request(&self, db: &Db) -> idempotency::Request {
        idempotency::Request::new(db, self.user, "key", &[b"POST", b"tokens"]).unwrap()
    }

    fn new_recovery_key(&self) -> String {
        let mut text = String::new();
        let told = |key: &RecoveryKey| {
            text = key.to_string();
            Ok(())
        };
        let db = Db::open(&self.database(), self.key.clone()).unwrap();
        renew_recovery(&db, &Actor::system(), told).unwrap();
        text
    }

    fn rotate(&self, keep: KeepIn<'_>) -> Result<String, DbError> {
        let mut text = String::new();
        let told = |key: &RecoveryKey| {
            text = key.to_string();
            Ok(())
        };
        let old = self.kept()?;
        rotate(self.dir.path(), &self.database(), &old, keep, &Actor::system(), told).map(|()| text)
    }

    fn kept(&self) -> Result<MasterKey, DbError> {
        let passphrase = || Ok(Zeroizing::new("correct horse battery".to_owned()));
        read_kept(self.dir.path(), &self.database(), passphrase)
    }

    /// Everything that is sealed opens under the key that is kept, which is returned.
    fn is_whole(&self) -> MasterKey {
        let key = self.kept().unwrap();
        let db = Db::open(&self.database(), key.clone()).unwrap();
        Authority::load(&db).unwrap();
        let known = idempotency::known(&db, &self.request(&db)).unwrap();
        assert!(matches!(known, idempotency::Known::Answered(answer) if **answer.body == *b"secret"));
        let [job, source] = self.job;
        let seed = db.write(&Actor::system(), |write| jobs::seed(write, job, source, 1)).unwrap();
        assert_eq!(*seed, SEED);
        let private = db.write(&Actor::system(), |write| keks::private(write, self.kek, "a test"));
        assert!(private.unwrap().open(db.master()).is_ok());
        assert!(audit::verify(&db).unwrap().is_good());
        assert!(!self.file("master.key.new").exists() && !self.file("master.sealed.new").exists());
        key
    }
}

#[test]
fn a_new_one_opens_all_that_the_old_one_did_and_the_old_one_nothing() {
    let world = World::new();
    let before = world.new_recovery_key();
    let held = Db::open(&world.database(), world.key.clone()).unwrap();
    assert!(matches!(world.rotate(KeepIn::File), Err(DbError::Refused(_))), "it is in use");
    drop(held);
    let recovery = world.rotate(KeepIn::File).unwrap();
    let new = world.is_whole();
    assert!(!same(&new, &world.key));
    assert_eq!(world.file(MASTER_KEY).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let old = Db::open(&world.database(), world.key.clone()).map(drop);
    assert!(matches!(old, Err(DbError::WrongMasterKey)));
    let recovered = RecoveryKey::parse(&recovery).unwrap().open(&world.database()).unwrap();
    assert!(same(&recovered, &new));
    assert!(RecoveryKey::parse(&before).unwrap().open(&world.database()).is_err());
    // Nothing is left in the file that the old key opens.
    let file = std::fs::read(world.database()).unwrap();
    let db = Db::open(&world.database(), new).unwrap();
    let sealed: Vec<u8> = db.read(|file| super::super::open::sealed(file, "audit.key")).unwrap();
    assert!(file.windows(sealed.len()).any(|window| *window == *sealed), "it is found where it is");
    let purposes = ["meta:audit.key", "meta:key.check", "meta:tag.key"];
    for at in 0..file.len() - sealed.len() {
        if file[at] == FORMAT {
            let opens = |purpose: &&str| world.key.open(purpose, &file[at..at + sealed.len()]).is_ok();
            assert!(!purposes.iter().any(opens), "at {at}");
        }
    }
}

#[test]
fn is_kept_under_a_passphrase_and_in_the_open_by_turns() {
    let world = World::new();
    let by = Actor::system();
    let passphrase = KeepIn::Sealed(b"correct horse battery");
    keep_otherwise(world.dir.path(), &world.database(), &world.key, passphrase, &by).unwrap();
    assert_eq!(kept_in(world.dir.path()), KeptIn::Sealed);
    assert!(same(&world.is_whole(), &world.key));
    world.rotate(passphrase).unwrap();
    let new = world.is_whole();
    assert!(!same(&new, &world.key));
    let short = keep_otherwise(world.dir.path(), &world.database(), &new, KeepIn::Sealed(b"short"), &by);
    assert!(matches!(short, Err(DbError::Invalid(_))));
    keep_otherwise(world.dir.path(), &world.database(), &new, KeepIn::File, &by).unwrap();
    assert_eq!(kept_in(world.dir.path()), KeptIn::File);
    assert!(!world.file(MASTER_SEALED).exists());
    assert!(same(&world.is_whole(), &new));
    let elsewhere = world.file("elsewhere");
    world.rotate(KeepIn::Elsewhere(&elsewhere)).unwrap();
    let newest = MasterKey::read_file(&elsewhere).unwrap();
    Db::open(&world.database(), newest).unwrap();
}

#[test]
fn one_that_was_lost_comes_back() {
    let world = World::new();
    let text = world.new_recovery_key();
    let recover = |text: &str, keep| {
        let key = RecoveryKey::parse(text).unwrap();
        recover(world.dir.path(), &world.database(), &key, keep, &Actor::system())
    };
    std::fs::remove_file(world.file(MASTER_KEY)).unwrap();
    assert!(matches!(world.kept(), Err(DbError::Io(_))));
    let other = World::new().new_recovery_key();
    assert!(matches!(recover(&other, KeepIn::File), Err(DbError::Refused(_))));
    assert!(!world.file(MASTER_KEY).exists());
    recover(&text, KeepIn::File).unwrap();
    assert!(same(&world.is_whole(), &world.key));
    // Nor is a passphrase needed that was forgotten.
    recover(&text, KeepIn::Sealed(b"never to be seen again")).unwrap();
    assert!(matches!(world.kept(), Err(DbError::Refused(_))));
    recover(&text, KeepIn::Sealed(b"correct horse battery")).unwrap();
    assert!(same(&world.is_whole(), &world.key));
}

#[test]
fn killed_at_any_point_it_is_the_old_or_the_new() {
    let passphrase = KeepIn::Sealed(b"correct horse battery");
    for (before, after) in [
        (KeepIn::File, KeepIn::File),
        (KeepIn::File, passphrase),
        (passphrase, KeepIn::File),
        (passphrase, passphrase),
    ] {
        let world = World::new();
        let by = Actor::system();
        keep_otherwise(world.dir.path(), &world.database(), &world.key, before, &by).unwrap();
        let name = |keep| if matches!(keep, KeepIn::File) { MASTER_KEY } else { MASTER_SEALED };
        let new = world.file(&format!("{}.new", name(after)));
        // The new key's file was begun, and not ended.
        for torn in [&b""[..], b"slmk1:abc", b"{\"format\":1"] {
            std::fs::write(&new, torn).unwrap();
            std::fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
            assert!(same(&world.is_whole(), &world.key));
        }
        // It was written, and the database not changed.
        stage(world.dir.path(), &MasterKey::generate().unwrap(), after).unwrap();
        assert!(same(&world.is_whole(), &world.key));
        // While somebody has the database, nothing is put right: the old one is what they have.
        stage(world.dir.path(), &MasterKey::generate().unwrap(), after).unwrap();
        let held = Db::open(&world.database(), world.key.clone()).unwrap();
        assert!(same(&world.kept().unwrap(), &world.key) && new.exists());
        drop(held);
        // The database was changed, and the old file is there still.
        let old = std::fs::read(world.file(name(before))).unwrap();
        world.rotate(after).unwrap();
        let changed = world.is_whole();
        std::fs::rename(world.file(name(after)), &new).unwrap();
        write_new(&world.file(name(before)), &old).unwrap();
        assert!(same(&world.is_whole(), &changed));
        // The old file was removed, and the new one is not in its place.
        std::fs::rename(world.file(name(after)), &new).unwrap();
        assert!(same(&world.is_whole(), &changed));
        assert!(!same(&changed, &world.key));
    }
}

#[test]
fn what_may_be_sealed_is_known_to_whoever_seals_anew() {
    let scratch = Scratch::new();
    let columns: Vec<String> = scratch
        .db
        .read(|file| {
            let sql = "SELECT tables.name || '.' || columns.name FROM sqlite_master AS tables \
                JOIN pragma_table_info(tables.name) AS columns \
                WHERE tables.type = 'table' AND columns.type = 'BLOB' AND columns.name NOT LIKE '%id' \
                    AND columns.name NOT LIKE '%hash' \
                ORDER BY 1";
            Ok(file.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .unwrap();
    // Sealed are `idempotency.answer`, `job_keys.sealed_seed`, `keks.sealed_private`, and the rows of `meta` that `change` names. Whoever adds a
    // column here has it sealed anew there, if it is one.
    assert_eq!(
        columns,
        [
            "agents.document_digest",
            "agents.incarnation",
            "agents.key",
            "agents.next_incarnation",
            "audit_checkpoints.signature",
            "idempotency.answer",
            "idempotency.request",
            "job_keys.sealed_seed",
            "job_keys.verify_key",
            "kek_wraps.reference",
            "keks.fingerprint",
            "keks.sealed_private",
            "meta.value",
            "run_agents.path",
            "sessions.csrf",
        ]
    );
}
