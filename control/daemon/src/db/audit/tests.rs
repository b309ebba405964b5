//! The audit: whatever is changed is found, by the number of the first record.

use super::*;
use crate::db::tests::Scratch;
use serde_json::json;

fn filled(records: i64) -> Scratch {
    let scratch = Scratch::new();
    for number in 1..=records {
        let by = Actor { address: "192.0.2.1".into(), ..Actor::cli("root") };
        let subject = format!("thing:{number}");
        scratch
            .db
            .write(&by, |write| {
                write.audit("test.put", &subject, Some(json!(0)), Some(json!({ "n": number })))
            })
            .unwrap();
    }
    scratch
}

fn first_bad(scratch: &Scratch) -> Option<i64> {
    verify(&scratch.db).unwrap().bad.map(|bad| bad.number)
}

#[test]
fn an_empty_audit_is_good() {
    let scratch = Scratch::new();
    let report = verify(&scratch.db).unwrap();
    assert!(report.is_good());
    assert_eq!((report.records, report.signed), (0, 0));
    assert!(matches!(checkpoint(&scratch.db), Err(DbError::NotFound(_))));
}

#[test]
fn each_column_is_covered() {
    let changes = [
        "time_ms = time_ms + 1",
        "actor = 'cli:other'",
        "actor = CAST(x'ff' AS TEXT)",
        "address = ''",
        "request_id = zeroblob(16)",
        "action = 'test.get'",
        "subject = 'thing:8'",
        "before = NULL",
        "before = ''",
        "after = '{\"n\":8}'",
        "after = NULL",
        "hash = zeroblob(32)",
        // What stood in one column now stands in the next.
        "action = 'test.putthing:', subject = '7'",
    ];
    for change in changes {
        let scratch = filled(9);
        assert_eq!(first_bad(&scratch), None);
        assert_eq!(scratch.tamper(&format!("UPDATE audit SET {change} WHERE number = 7")), 1);
        assert_eq!(first_bad(&scratch), Some(7), "{change}");
    }
}

#[test]
fn a_missing_and_a_moved_record_are_found() {
    for (change, bad) in [
        ("DELETE FROM audit WHERE number = 5", 5),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("UPDATE audit SET number = 0 WHERE number = 4", 1),
        ("UPDATE audit SET number = 12 WHERE number = 9", 9),
        (
            "INSERT INTO audit SELECT 10, time_ms, actor, address, request_id, action, subject, before, after, hash \
          FROM audit WHERE number = 9",
            10,
        ),
    ] {
        let scratch = filled(9);
        scratch.tamper(change);
        assert_eq!(first_bad(&scratch), Some(bad), "{change}");
    }
}

#[test]
fn a_chain_made_anew_is_found_by_its_checkpoint() {
    let scratch = filled(CHECKPOINT_EVERY + 2);
    let report = verify(&scratch.db).unwrap();
    assert_eq!((report.records, report.signed, report.bad), (CHECKPOINT_EVERY + 2, CHECKPOINT_EVERY, None));
    // Who can write the file can compute hashes, and has no key.
    let file = crate::db::tests::tampering(&scratch.path());
    file.execute("UPDATE audit SET subject = 'thing:other' WHERE number = 100", []).unwrap();
    rehash(&file);
    assert_eq!(first_bad(&scratch), Some(CHECKPOINT_EVERY));
    let set_hash = "UPDATE audit_checkpoints SET hash = (SELECT hash FROM audit WHERE number = 256)";
    file.execute(set_hash, []).unwrap();
    let bad = verify(&scratch.db).unwrap().bad.unwrap();
    assert_eq!((bad.number, bad.what.as_str()), (256, "its checkpoint is not signed by the audit key"));
    file.execute("DELETE FROM audit_checkpoints", []).unwrap();
    assert_eq!(first_bad(&scratch), Some(CHECKPOINT_EVERY));
}

/// Makes the whole chain anew, as somebody could who has the file and this source.
fn rehash(file: &Connection) {
    let mut statement = file.prepare("SELECT * FROM audit ORDER BY number").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut hash = [0; 32];
    let mut hashes = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let number: i64 = row.get("number").unwrap();
        let columns = ["actor", "address", "request_id", "action", "subject", "before", "after"]
            .map(|name| row.get_ref(name).unwrap().as_bytes_or_null().unwrap());
        hash = hash_of(&hash, number, row.get("time_ms").unwrap(), columns);
        hashes.push((number, hash));
    }
    for (number, hash) in hashes {
        file.execute("UPDATE audit SET hash = ?2 WHERE number = ?1", (number, hash)).unwrap();
    }
}

#[test]
fn a_tail_that_was_cut_off_is_found_by_a_checkpoint_kept_elsewhere() {
    let scratch = filled(9);
    let kept = checkpoint(&scratch.db).unwrap();
    assert_eq!(kept, checkpoint(&scratch.db).unwrap());
    let outside = |checkpoint: &Checkpoint| {
        let public_key = Some(public_key(&scratch.db));
        verify_against(&scratch.db, &Outside { public_key, checkpoints: vec![checkpoint.clone()] })
    };
    assert!(outside(&kept).unwrap().is_good());
    scratch.tamper("DELETE FROM audit WHERE number > 6");
    assert_eq!(first_bad(&scratch), Some(7), "the one that is in the database tells");
    scratch.tamper("DELETE FROM audit_checkpoints WHERE number > 6");
    assert_eq!(first_bad(&scratch), None, "within, nothing is left that tells");
    assert_eq!(outside(&kept).unwrap().bad.unwrap().number, 7);
    // New records in the place of those that were cut off.
    for _ in 0..5 {
        scratch.db.record(&Actor::system(), "test.other", "", None).unwrap();
    }
    assert_eq!(first_bad(&scratch), None);
    assert_eq!(outside(&kept).unwrap().bad.unwrap().number, 9);
}

#[test]
fn a_foreign_key_or_checkpoint_proves_nothing() {
    let scratch = filled(3);
    let kept = checkpoint(&scratch.db).unwrap();
    let other = filled(3);
    let public_key = Some(public_key(&other.db));
    let report = verify_against(&scratch.db, &Outside { public_key, checkpoints: vec![] }).unwrap();
    assert_eq!(report.bad.unwrap().number, 3, "its checkpoint is another's");
    let foreign = Outside { public_key: None, checkpoints: vec![checkpoint(&other.db).unwrap()] };
    assert!(matches!(verify_against(&scratch.db, &foreign), Err(DbError::Invalid(_))));
    let mut changed = kept;
    changed.number = 2;
    let changed = Outside { public_key: None, checkpoints: vec![changed] };
    assert!(matches!(verify_against(&scratch.db, &changed), Err(DbError::Invalid(_))));
}

#[test]
fn a_checkpoint_is_read_back_from_its_text() {
    let scratch = filled(3);
    let kept = checkpoint(&scratch.db).unwrap();
    let text = kept.to_string();
    assert_eq!(text.parse::<Checkpoint>().unwrap(), kept);
    for text in [
        "",
        "slaudit1",
        &text[1..],
        &text[..text.len() - 1],
        &format!("{text} x"),
        &text.replace(" 3 ", " -3 "),
    ] {
        assert!(matches!(text.parse::<Checkpoint>(), Err(DbError::Invalid(_))), "{text:?}");
    }
}

#[test]
fn pages_go_from_the_newest_and_take_filters() {
    let scratch = filled(5);
    scratch.pass_ms(1000);
    let by = Actor::anonymous("192.0.2.9", crate::db::new_id());
    scratch.db.record(&by, "login.refused", "user:eve", Some(json!({ "why": "unknown" }))).unwrap();
    let numbers = |filter: &Filter, after: Option<&str>, limit| {
        let page = scratch.db.read(|file| page(file, filter, after, limit)).unwrap();
        (page.items.iter().map(|record| record.number).collect::<Vec<_>>(), page.next)
    };
    let all = Filter::default();
    assert_eq!(numbers(&all, None, 4), (vec![6, 5, 4, 3], Some("3".into())));
    assert_eq!(numbers(&all, Some("3"), 4), (vec![2, 1], None));
    let only = |filter: Filter| numbers(&filter, None, 10).0;
    assert_eq!(only(Filter { action_prefix: Some("login.".into()), ..all.clone() }), [6]);
    assert_eq!(only(Filter { action_prefix: Some("l%".into()), ..all.clone() }), [0; 0]);
    assert_eq!(only(Filter { actor: Some("anonymous".into()), ..all.clone() }), [6]);
    assert_eq!(only(Filter { subject: Some("thing:2".into()), ..all.clone() }), [2]);
    let last = scratch.db.now_ms();
    assert_eq!(only(Filter { from_ms: Some(last), ..all.clone() }), [6]);
    assert_eq!(only(Filter { until_ms: Some(last), ..all.clone() }), [5, 4, 3, 2, 1]);
    let bad = scratch.db.read(|file| page(file, &all, Some("x"), 1));
    assert!(matches!(bad, Err(DbError::Invalid(_))));
    let newest = scratch.db.read(|file| page(file, &all, None, 1)).unwrap().items.remove(0);
    assert_eq!(newest.after.as_deref(), Some(r#"{"why":"unknown"}"#));
    assert_eq!((newest.address.as_str(), newest.request_id), ("192.0.2.9", by.request_id));
}

#[test]
fn the_database_refuses_to_change_or_remove_records() {
    let scratch = filled(CHECKPOINT_EVERY);
    // Any program that opens the file, also one that knows nothing of the audit.
    let file = Connection::open(scratch.path()).unwrap();
    for (sql, why) in [
        ("UPDATE audit SET subject = 'other' WHERE number = 3", "never changed"),
        ("UPDATE audit SET hash = hash", "never changed"),
        ("DELETE FROM audit", "never removed"),
        ("DELETE FROM audit WHERE number = 256", "never removed"),
        ("INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE number = 3", "never replaced"),
        ("UPDATE audit_checkpoints SET hash = zeroblob(32)", "never changed"),
        ("DELETE FROM audit_checkpoints", "never removed"),
        (
            "INSERT OR REPLACE INTO audit_checkpoints SELECT number, 0, zeroblob(32), signature FROM audit_checkpoints",
            "never replaced",
        ),
    ] {
        let refused = file.execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains(why), "{sql}: {refused}");
    }
    assert_eq!(first_bad(&scratch), None);
    // Triggers that somebody took away are there again once the daemon has opened the file.
    let scratch = filled(3);
    let (path, master) = (scratch.path(), scratch.db.master().clone());
    crate::db::tests::tampering(&path);
    let again = crate::db::Db::open(&path, master).unwrap();
    let refused = Connection::open(&path).unwrap().execute("DELETE FROM audit", []).unwrap_err();
    assert!(refused.to_string().contains("never removed"), "{refused}");
    drop(again);
}

/// How SQLite means to answer: no table is read as a whole.
#[test]
fn filters_are_answered_from_indexes() {
    let scratch = filled(3);
    let text = || Some("x".to_owned());
    for (filter, wanted) in [
        (Filter::default(), "SEARCH audit USING INTEGER PRIMARY KEY (rowid<?)"),
        (Filter { actor: text(), ..Filter::default() }, "USING INDEX audit_by_actor (actor=? AND rowid<?)"),
        (
            Filter { subject: text(), ..Filter::default() },
            "USING INDEX audit_by_subject (subject=? AND rowid<?)",
        ),
        (
            Filter { action_prefix: text(), ..Filter::default() },
            "USING INDEX audit_by_action (action>? AND action<?)",
        ),
    ] {
        let plan = scratch
            .db
            .read(|file| {
                let (sql, values) = query(&filter, &7, &10);
                let mut statement = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let rows = statement.query_map(&values[..], |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?.join("; "))
            })
            .unwrap();
        assert!(plan.contains(wanted), "{filter:?}: {plan}");
    }
}

/// The vector of docs/audit.md, which `docs/audit_vector.py` computes from that page alone.
#[test]
fn hashes_and_signatures_are_those_of_the_page() {
    let page = include_str!("../../../../../docs/audit.md");
    let is_there = |name: &str, bytes: &[u8]| {
        let line = format!("{name:<13}{}", HEXLOWER.encode(bytes));
        assert!(page.lines().any(|found| found == line), "{line}");
    };
    let id: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let text = |text: &'static str| Some(text.as_bytes());
    let columns =
        [text("cli:root"), text(""), Some(&id), text("test.put"), text("thing:1"), None, text("{\"n\":1}")];
    let first = hash_of(&[0; 32], 1, 1_800_000_000_000, columns);
    is_there("record 1", &first);
    let columns = [
        text("user:admin"),
        text("192.0.2.1"),
        Some(&[1; 16]),
        text("job.create"),
        text("job:d\u{e9}j\u{e0}"),
        text("\"\""),
        None,
    ];
    let second = hash_of(&first, 2, 1_800_000_000_001, columns);
    is_there("record 2", &second);
    let key = SigningKey::from_bytes(&[7; 32]);
    is_there("public key", key.verifying_key().as_bytes());
    let scratch = Scratch::new();
    let put = |w: &mut crate::db::Write<'_>| checkpoint::put(w.tx(), 0, &key, 2, &second);
    is_there("signature", &scratch.db.write(&Actor::system(), put).unwrap().signature);
}
