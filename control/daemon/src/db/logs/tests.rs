//! Logs: kept once, found, forgotten in their time.

use super::*;
use rusqlite::params_from_iter;
use sealift_api::rest::{LogField, Page, Severity};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

const NOW: i64 = 1_800_000_000_000;
const SPOOL: [u8; 16] = [5; 16];

struct Scratch {
    dir: TempDir,
    store: LogStore,
    now: Arc<AtomicI64>,
}

fn scratch() -> Scratch {
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicI64::new(NOW));
    let store = open_at(&dir.path().join("logs.db"), &now);
    Scratch { dir, store, now }
}

fn open_at(path: &Path, now: &Arc<AtomicI64>) -> LogStore {
    let now = Arc::clone(now);
    LogStore::open(path, Arc::new(move || now.load(Ordering::Relaxed))).unwrap()
}

fn agent(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn record(message: &str) -> NewRecord {
    NewRecord {
        time_ms: Some(NOW),
        severity: Severity::Info,
        job_id: None,
        run_id: None,
        target: "agent".into(),
        message: message.into(),
        fields: vec![],
    }
}

fn texts(page: &Page<sealift_api::rest::LogRecord>) -> Vec<&str> {
    page.items.iter().map(|record| record.message.as_str()).collect()
}

fn all(store: &LogStore) -> Vec<String> {
    let page = store.list(&LogFilter::default(), None, 1000).unwrap();
    texts(&page).into_iter().rev().map(str::to_owned).collect()
}

#[test]
fn what_comes_again_is_not_taken_twice_over_restarts_too() {
    let Scratch { dir, store, now } = scratch();
    let abc = ["a", "b", "c"].map(record);
    assert_eq!(store.kept(agent(1), SPOOL).unwrap(), 0);
    assert_eq!(store.take(agent(1), SPOOL, 1, &abc[..2]).unwrap(), 2);
    drop(store);
    let store = open_at(&dir.path().join("logs.db"), &now);
    assert_eq!(store.kept(agent(1), SPOOL).unwrap(), 2);
    // The acknowledgement was lost, and the agent has one more by now.
    assert_eq!(store.take(agent(1), SPOOL, 1, &abc).unwrap(), 3);
    assert_eq!(store.take(agent(1), SPOOL, 2, &abc[..2]).unwrap(), 3);
    // A gap: what is missing is lost.
    assert_eq!(store.take(agent(1), SPOOL, 9, &[record("d")]).unwrap(), 9);
    assert_eq!(all(&store), ["a", "b", "c", "d"]);
    // Another agent, and another spool, count by themselves.
    assert_eq!(store.take(agent(2), SPOOL, 1, &[record("e")]).unwrap(), 1);
    assert_eq!(store.take(agent(1), [6; 16], 1, &[record("f")]).unwrap(), 1);
    assert_eq!(store.kept(agent(1), SPOOL).unwrap(), 9);
    for nonsense in [0, u64::MAX, u64::MAX / 2] {
        assert!(store.take(agent(1), SPOOL, nonsense, &[record("g")]).is_err());
    }
    assert_eq!(all(&store).len(), 6);
}

#[test]
fn of_an_agents_spools_a_few_are_remembered() {
    let Scratch { dir: _dir, store, .. } = scratch();
    for spool in 0..50 {
        store.take(agent(1), [spool; 16], 1, &[record("x")]).unwrap();
        assert_eq!(store.kept(agent(1), [spool; 16]).unwrap(), 1);
    }
    let count = |sql| store.read(|db| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)).unwrap();
    assert_eq!(count("SELECT count(*) FROM spools"), 8);
}

#[test]
fn records_are_found_by_all_that_is_known_of_them() {
    let Scratch { dir: _dir, store, .. } = scratch();
    let (job, run) = (agent(10), agent(20));
    let records = [
        record("plain"),
        NewRecord { severity: Severity::Security, time_ms: Some(NOW - 1000), ..record("Knock knock") },
        NewRecord { job_id: Some(job), run_id: Some(run), time_ms: Some(NOW + 5), ..record("of a run") },
        NewRecord {
            fields: vec![LogField { name: "peer".into(), value: "192.0.2.1".into() }],
            target: "send".into(),
            ..record("with fields")
        },
    ];
    store.take(agent(1), SPOOL, 1, &records).unwrap();
    store.take(agent(2), SPOOL, 1, &[record("of another")]).unwrap();
    let find = |filter: LogFilter| {
        let page = store.list(&filter, None, 10).unwrap();
        texts(&page).join(", ")
    };
    let any = LogFilter::default;
    assert_eq!(find(any()), "of a run, of another, with fields, plain, Knock knock");
    assert_eq!(find(LogFilter { agent_id: Some(agent(2)), ..any() }), "of another");
    assert_eq!(find(LogFilter { job_id: Some(job), ..any() }), "of a run");
    assert_eq!(find(LogFilter { run_id: Some(run), agent_id: Some(agent(1)), ..any() }), "of a run");
    assert_eq!(find(LogFilter { run_id: Some(run), agent_id: Some(agent(2)), ..any() }), "");
    assert_eq!(find(LogFilter { severity: Some(Severity::Security), ..any() }), "Knock knock");
    let info = LogFilter { severity: Some(Severity::Info), agent_id: Some(agent(2)), ..any() };
    assert_eq!(find(info), "of another");
    assert_eq!(
        find(LogFilter { from_ms: Some(NOW), until_ms: Some(NOW + 5), ..any() }).split(", ").count(),
        3
    );
    for text in ["KNOCK", "nock k"] {
        assert_eq!(find(LogFilter { text: Some(text.into()), ..any() }), "Knock knock");
    }
    assert_eq!(find(LogFilter { text: Some("0.2.1".into()), ..any() }), "with fields");
    assert_eq!(find(LogFilter { text: Some("send".into()), ..any() }), "with fields");
    // No pattern of SQL's.
    assert_eq!(find(LogFilter { text: Some("%".into()), ..any() }), "");
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let Scratch { dir: _dir, store, .. } = scratch();
    // Many at one time.
    let records: Vec<_> =
        (0..25i64).map(|at| NewRecord { time_ms: Some(NOW + at / 10), ..record(&at.to_string()) }).collect();
    store.take(agent(1), SPOOL, 1, &records).unwrap();
    for looked_at_max in [4, 1000] {
        let (mut found, mut after, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = store.list_within(&LogFilter::default(), after.as_deref(), 7, looked_at_max).unwrap();
            found.extend(texts(&page).into_iter().map(str::to_owned));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let expected: Vec<_> = (0..25).rev().map(|at: i32| at.to_string()).collect();
        assert_eq!(found, expected);
        assert_eq!(pages, if looked_at_max == 4 { 7 } else { 4 });
    }
    for bad in ["", "x", "1", "1.x", "1.2.3"] {
        let refused = store.list(&LogFilter::default(), Some(bad), 7);
        assert!(matches!(refused, Err(DbError::Invalid(_))), "{bad}");
    }
}

#[test]
fn each_question_goes_along_an_index() {
    let Scratch { dir: _dir, store, .. } = scratch();
    for (condition, index) in [
        ("1", "logs_by_time"),
        ("agent_id = ?4", "logs_by_agent"),
        ("severity > 1 AND severity = ?4", "logs_by_severity"),
        ("job_id = ?4", "logs_by_job"),
        ("run_id = ?4", "logs_by_run"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT * FROM logs WHERE {condition} AND time_ms >= ?1 AND time_ms <= ?2 \
            AND (time_ms, number) < (?2, ?3) ORDER BY time_ms DESC, number DESC"
        );
        let plan = store.read(|db| {
            let mut statement = db.prepare(&sql)?;
            let values = vec![0; statement.parameter_count()];
            let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?.join("; "))
        });
        let plan = plan.unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[test]
fn what_is_old_goes_in_small_steps_and_its_room_is_given_back() {
    let Scratch { dir, store, now } = scratch();
    let many = vec![record(&"x".repeat(1000)); 1000];
    for batch in 0..5 {
        store.take(agent(1), SPOOL, 1 + batch * 1000, &many).unwrap();
    }
    now.fetch_add(10_000, Ordering::Relaxed);
    // By the agent's clock it is of long ago; what counts is when it came.
    store.take(agent(1), SPOOL, 5001, &[NewRecord { time_ms: Some(1), ..record("young") }]).unwrap();
    let retention = |age_ms, bytes| Retention { age_ms, bytes };
    assert!(!store.reduce(retention(10_001, u64::MAX)).unwrap().more, "nothing is too old");
    let count = || store.read(|db| Ok(db.query_row("SELECT count(*) FROM logs", [], |row| row.get(0))?));
    assert!(store.reduce(retention(9_999, u64::MAX)).unwrap().more);
    let left: i64 = count().unwrap();
    assert_eq!(left, 5001 - STEP_RECORDS, "one step");
    while store.reduce(retention(9_999, u64::MAX)).unwrap().more {}
    assert_eq!(all(&store), ["young"]);
    for _ in 0..100 {
        store.reduce(retention(9_999, u64::MAX)).unwrap();
    }
    let pages = store.read(|db| number_of(db, "page_count")).unwrap();
    assert!(pages < 2 * STEP_PAGES, "{pages} pages are left");
    // Too many bytes: the oldest go, however young.
    for batch in 0..5 {
        store.take(agent(1), SPOOL, 5002 + batch * 1000, &many).unwrap();
    }
    store.take(agent(1), SPOOL, 20_000, &[record("last")]).unwrap();
    while store.reduce(retention(i64::MAX, 2 << 20)).unwrap().more {}
    let left: i64 = count().unwrap();
    assert!((500..3000).contains(&left), "{left}");
    assert_eq!(all(&store).last().unwrap(), "last");
    // Numbers are never used again.
    while store.reduce(retention(-1, 0)).unwrap().more {}
    let before = store.read(|db| Ok(db.query_row("SELECT seq FROM sqlite_sequence", [], |row| row.get(0))?));
    let before: i64 = before.unwrap();
    store.take(agent(1), SPOOL, 30_000, &[record("new")]).unwrap();
    assert_eq!(
        store.list(&LogFilter::default(), None, 1).unwrap().items[0].number,
        before.unsigned_abs() + 1
    );
    drop(dir);
}

#[test]
fn the_file_is_for_its_owner_and_a_damaged_one_is_set_aside() {
    let Scratch { dir, store, now } = scratch();
    let path = dir.path().join("logs.db");
    store.take(agent(1), SPOOL, 1, &[record("x")]).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);
    std::fs::write(&path, "this is no database, and was never one".repeat(1000)).unwrap();
    let store = open_at(&path, &now);
    assert!(all(&store).is_empty());
    store.take(agent(1), SPOOL, 7, &[record("y")]).unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("damaged")).count(), 1);
    drop(store);
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", VERSION + 1).unwrap();
    drop(newer);
    let refused = LogStore::open(&path, Arc::new(|| 0));
    assert!(matches!(refused, Err(DbError::TooNew { .. })));
}

#[test]
fn a20_texts_come_back_as_they_were() {
    let Scratch { dir: _dir, store, .. } = scratch();
    let nasty = "\u{1b}[2J\r\n<script>\u{202e}\0\u{7}'; DROP TABLE logs; --";
    let field = LogField { name: nasty.into(), value: nasty.into() };
    let record = NewRecord { target: nasty.into(), fields: vec![field.clone()], ..record(nasty) };
    store.take(agent(1), SPOOL, 1, &[record]).unwrap();
    let page = store.list(&LogFilter { text: Some("drop".into()), ..LogFilter::default() }, None, 9).unwrap();
    let found = &page.items[0];
    assert_eq!((found.message.as_str(), &found.fields, found.target.as_str()), (nasty, &vec![field], nasty));
}

fn envelope(spool: [u8; 16]) -> sealift_envelope::Envelope {
    use sealift_envelope::{DataKey, Envelope, KekVersion, OwnerId, PublicKek};
    let public = include_str!("../../../../envelope/tests/keys/a.pub.pem");
    let public = PublicKek::from_pem(public).unwrap();
    Envelope::seal(&DataKey::generate().unwrap(), OwnerId(spool), &[(&public, KekVersion(1))]).unwrap()
}

#[test]
fn sealed_records_are_kept_as_they_came_once_and_forgotten_with_their_segment() {
    let Scratch { dir, store, now } = scratch();
    let (one, two) = (envelope(SPOOL), envelope(SPOOL));
    let records = |from: u8, to: u8| (from..=to).map(|number| vec![number; 60]).collect::<Vec<_>>();
    assert_eq!(store.take_sealed(agent(1), SPOOL, 1, &one, &records(1, 3)).unwrap(), (3, true));
    // Sent again, with one more; numbers are shared with records that are not sealed.
    assert_eq!(store.take_sealed(agent(1), SPOOL, 2, &one, &records(2, 4)).unwrap(), (4, false));
    assert_eq!(store.take(agent(1), SPOOL, 5, &[record("plain")]).unwrap(), 5);
    now.store(NOW + 1000, Ordering::Relaxed);
    assert_eq!(store.take_sealed(agent(1), SPOOL, 6, &two, &records(6, 6)).unwrap(), (6, true));
    assert_eq!(
        store.take_sealed(agent(2), [6; 16], 1, &envelope([6; 16]), &records(9, 9)).unwrap(),
        (1, true)
    );
    assert_eq!(store.kept(agent(1), SPOOL).unwrap(), 6);
    assert!(store.take_sealed(agent(1), SPOOL, 0, &one, &records(1, 1)).is_err());

    let page = store.list_sealed(Some(agent(1)), None, 2).unwrap();
    let numbers = |page: &Page<sealift_api::rest::SealedLog>| {
        page.items.iter().map(|log| log.spool_number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&page), [6, 4]);
    let rest = store.list_sealed(Some(agent(1)), page.next.as_deref(), 10).unwrap();
    assert_eq!((numbers(&rest), rest.next), (vec![3, 2, 1], None));
    assert_eq!(store.list_sealed(None, None, 10).unwrap().items.len(), 6);
    assert!(store.list_sealed(None, Some("x"), 10).is_err());
    let decoded = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    assert_eq!(decoded(&page.items[0].envelope), two.encode());
    assert_eq!((decoded(&page.items[0].record), page.items[0].spool), (vec![6; 60], Uuid::from_bytes(SPOOL)));

    // The older segment goes, the others stay.
    now.store(NOW + 1500, Ordering::Relaxed);
    let reduced = store.reduce(Retention { age_ms: 1000, bytes: u64::MAX }).unwrap();
    assert_eq!(reduced, Reduced { more: true, forgotten: vec![segment_id(&one)] });
    let reduced = store.reduce(Retention { age_ms: 1000, bytes: u64::MAX }).unwrap();
    assert_eq!(reduced, Reduced { more: false, forgotten: vec![] });
    // What comes again brings nothing, and no segment.
    assert_eq!(store.take_sealed(agent(1), SPOOL, 1, &one, &records(1, 4)).unwrap(), (6, false));
    assert_eq!(store.envelope(segment_id(&one)).unwrap(), None);
    assert_eq!(store.envelope(segment_id(&two)).unwrap(), Some(two));
    assert_eq!(store.list_sealed(None, None, 10).unwrap().items.len(), 2);
    drop(store);
    let store = open_at(&dir.path().join("logs.db"), &now);
    assert_eq!(store.list_sealed(None, None, 10).unwrap().items.len(), 2);
}

#[test]
fn a_file_of_the_first_version_gets_what_it_lacks() {
    let Scratch { dir, store, now } = scratch();
    store.take(agent(1), SPOOL, 1, &[record("kept")]).unwrap();
    drop(store);
    let path = dir.path().join("logs.db");
    let older = "DROP TABLE sealed_logs; DROP TABLE sealed_segments; PRAGMA user_version = 1";
    Connection::open(&path).unwrap().execute_batch(older).unwrap();
    let store = open_at(&path, &now);
    assert_eq!(store.take_sealed(agent(1), SPOOL, 2, &envelope(SPOOL), &[vec![1; 60]]).unwrap().0, 2);
    assert_eq!(texts(&store.list(&LogFilter::default(), None, 10).unwrap()), ["kept"]);
}
