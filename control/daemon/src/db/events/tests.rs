//! Events: kept once, listed, bounded.

use super::*;
use crate::db::agents::world::World;
use sealift_api::agent::event::Severity as Told;

fn told(number: u64, message: &str) -> agent::Event {
    agent::Event {
        number,
        unix_millis: 77,
        severity: Told::Warning.into(),
        message: message.into(),
        ..agent::Event::default()
    }
}

fn messages(world: &World) -> Vec<String> {
    after(world, 0, 100).into_iter().map(|event| event.message).collect()
}

#[test]
fn what_an_agent_tells_again_is_kept_once() {
    let world = World::with_agents(&["a", "b"]);
    let before = messages(&world).len();
    let keep = |name: &str, events: &[agent::Event]| world.write(|w| keep(w, world.id(name), events));
    assert_eq!(keep("a", &[]), 0);
    assert_eq!(keep("a", &[told(1, "one"), told(2, "two")]), 2);
    assert_eq!(keep("a", &[told(2, "two"), told(1, "one"), told(3, "three")]), 3);
    // A gap: the agent has lost what is missing. Within a message order does not matter.
    assert_eq!(keep("a", &[told(9, "nine"), told(7, "seven"), told(7, "seven")]), 9);
    assert_eq!(keep("a", &[told(8, "late"), told(u64::MAX, "no number"), told(0, "nor this")]), 9);
    assert_eq!(keep("b", &[told(1, "of b")]), 1, "each agent counts by itself");
    assert_eq!(messages(&world)[before..], ["one", "two", "three", "seven", "nine", "of b"]);
    let nobody = world.try_write(|w| super::keep(w, Uuid::nil(), &[]));
    assert!(matches!(nobody, Err(DbError::NotFound("agent"))));
}

#[test]
fn an_agent_tells_of_its_own_runs_alone() {
    let world = World::with_agents(&["src", "d1", "stranger"]);
    let job = world.job("distribution", &["src:/x"], &["d1:/x"]);
    let run = world.start(&job);
    let event = || agent::Event {
        run_id: run.id.as_bytes().to_vec(),
        job_id: vec![9; 16],
        unix_millis: 0,
        severity: 42,
        message: "x".repeat(9999),
        ..told(1, "")
    };
    let kept = |name: &str| {
        world.write(|w| keep(w, world.id(name), &[event()]));
        after(&world, world.read(newest) - 1, 1).remove(0)
    };
    let own = kept("d1");
    assert_eq!((own.run_id, own.job_id, own.agent_id), (Some(run.id), Some(job.id), Some(world.id("d1"))));
    assert_eq!((own.severity, own.message.len()), (Severity::Info, 1024));
    assert_eq!(own.time_ms, world.agent("d1").created_ms, "without a time it is now");
    let foreign = kept("stranger");
    assert_eq!((foreign.run_id, foreign.job_id), (None, None));
}

#[test]
fn events_are_listed_from_the_newest_and_streamed_from_the_oldest() {
    let world = World::with_agents(&["a"]);
    let start = world.read(newest);
    let job = Uuid::from_bytes([3; 16]);
    for (severity, message) in [(Severity::Info, "1"), (Severity::Error, "2"), (Severity::Error, "3")] {
        let event = NewEvent { job_id: Some(job), ..NewEvent::new(severity, message.into()) };
        world.write(|w| append(w, &event));
    }
    let texts = |filter: EventFilter, cursor: Option<&str>, limit| {
        let page = world.read(|db| list(db, &filter, cursor, limit));
        (page.items.into_iter().map(|event| event.message).collect::<Vec<_>>().concat(), page.next)
    };
    let of_job = EventFilter { job_id: Some(job), ..EventFilter::default() };
    let (first, next) = texts(of_job, None, 2);
    assert_eq!(first, "32");
    assert_eq!(texts(of_job, next.as_deref(), 2), ("1".into(), None));
    let errors = EventFilter { severity: Some(Severity::Error), ..EventFilter::default() };
    assert_eq!(texts(errors, None, 9).0, "32");
    let of_agent = EventFilter { agent_id: Some(world.id("a")), ..EventFilter::default() };
    assert_eq!(texts(of_agent, None, 9).0, "agent a has enrolled");
    let streamed = after(&world, start + 1, 9);
    assert_eq!(streamed.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert!(world.db.read(|db| list(db, &of_job, Some("x"), 9)).is_err());
    assert!(after(&world, u64::MAX, 9).is_empty());
}

#[test]
fn the_oldest_go() {
    let world = World::new();
    world.write(|w| {
        w.tx().execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
                INSERT INTO events (time_ms, severity, message) SELECT i, 'info', 'old' FROM n",
        )?;
        Ok(())
    });
    let count =
        || world.read(|db| Ok(db.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(count(), 100_000);
    world.write(|w| append(w, &NewEvent::new(Severity::Info, "new".into())));
    assert_eq!(count(), 100_000);
    assert_eq!(after(&world, 0, 1)[0].number, 2);
}

fn after(world: &World, number: u64, limit: usize) -> Vec<Event> {
    world.read(|db| tail(db, &EventFilter::default(), number, limit)).events
}

#[test]
fn the_number_of_the_newest_stays_when_nothing_is_kept() {
    let world = World::new();
    for text in ["1", "2"] {
        world.write(|w| append(w, &NewEvent::new(Severity::Info, text.into())));
    }
    world.write(|w| Ok(w.tx().execute("DELETE FROM events", [])?));
    let tail = world.read(|db| tail(db, &EventFilter::default(), 0, 9));
    assert_eq!((tail.oldest, tail.newest, tail.events.len()), (3, 2, 0));
}

/// How SQLite means to answer: no table is read as a whole.
#[test]
fn filters_are_answered_from_indexes() {
    let world = World::new();
    let id = Some(Uuid::from_bytes([7; 16]));
    let none = EventFilter::default();
    for (filter, wanted) in [
        (none, "USING INTEGER PRIMARY KEY (rowid"),
        (EventFilter { severity: Some(Severity::Error), ..none }, "events_by_severity (severity=? AND rowid"),
        (EventFilter { agent_id: id, ..none }, "events_by_agent (agent_id=? AND rowid"),
        (EventFilter { job_id: id, ..none }, "events_by_job (job_id=? AND rowid"),
        (EventFilter { run_id: id, ..none }, "events_by_run (run_id=? AND rowid"),
    ] {
        for (from, order) in [("number < ?", "DESC"), ("number > ?", "ASC")] {
            let plan = world.read(|db| {
                let (sql, values) = query(&filter, from, order);
                let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let values = [Value::from(7)].into_iter().chain(values).chain([Value::from(7)]);
                let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3))?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?.join("; "))
            });
            assert!(plan.contains(wanted), "{filter:?}: {plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP"), "{filter:?}: {plan}");
        }
    }
}
