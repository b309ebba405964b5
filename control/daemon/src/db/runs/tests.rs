//! Runs, from their start to their end.

use super::*;
use crate::db::agents;
use crate::db::agents::world::World;
use crate::db::events;
use sealift_api::agent::job_status::State;
use sealift_api::rest::Severity;

fn distribution(agents: &[&str]) -> (World, Job) {
    let world = World::with_agents(&[&["src"], agents].concat());
    world.group("all", agents);
    let job = world.job("distribution", &["src:/data"], &["group:all:/copy"]);
    (world, job)
}

fn conflict<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Conflict(why)) => why,
        other => panic!("no conflict: {other:?}"),
    }
}

#[test]
fn a_run_has_a_part_for_each_who_takes_part() {
    let (world, job) = distribution(&["d1", "d2"]);
    let (run, affected) = world.write(|w| start(w, job.id));
    assert_eq!(
        (run.state, run.started_by.as_str(), run.job_name.as_str()),
        (RunState::Running, "user:op", "models")
    );
    assert_eq!(affected, ["src", "d1", "d2"].map(|name| world.id(name)).into());
    let detail = world.read(|db| detail(db, run.id));
    let parts: Vec<_> = detail
        .agents
        .iter()
        .map(|part| format!("{} {}:{} from {} {}", part.role, part.agent, part.path, part.source, part.state))
        .collect();
    assert_eq!(
        parts,
        [
            "source src:/data from src waiting",
            "destination d1:/copy from src waiting",
            "destination d2:/copy from src waiting",
        ]
    );
}

#[test]
fn in_a_consolidation_each_source_has_its_own_directory() {
    let world = World::with_agents(&["a", "b.dc", "dest", "root"]);
    let job = world.job("consolidation", &["a:/logs", "b.dc:/logs"], &["dest:/all"]);
    let run = world.start(&job);
    assert_eq!(world.part(&run, "dest", "a").path, "/all/a");
    assert_eq!(world.part(&run, "dest", "b.dc").path, "/all/b.dc");
    assert_eq!(world.part(&run, "b.dc", "b.dc").path, "/logs");
    let other = world.new_job("other", "consolidation", &["a:/x"], &["root:/"]).unwrap();
    assert_eq!(world.part(&world.start(&other), "root", "a").path, "/a");
}

#[test]
fn one_run_of_a_job_goes_on_at_a_time() {
    let (world, job) = distribution(&["d1"]);
    let run = world.start(&job);
    let again = || world.try_write(|w| start(w, job.id));
    assert_eq!(conflict(again()), "a run of the job models goes on already");
    world.write(|w| pause(w, run.id));
    assert_eq!(conflict(again()), "a run of the job models goes on already");
    world.write(|w| stop(w, run.id));
    let second = again().unwrap().0;
    assert_eq!(world.read(|db| current(db, job.id)).map(|run| run.id), Some(second.id));
    assert_eq!(world.read(|db| newest(db, job.id)), Some(second));
}

#[test]
fn a_run_is_with_approved_agents_alone() {
    let (world, job) = distribution(&["d1", "d2"]);
    world.write(|w| agents::quarantine(w, world.id("d1"), "odd"));
    let run = world.start(&job);
    let takes_part = |run: &Run| world.read(|db| detail(db, run.id)).agents.len();
    assert_eq!(takes_part(&run), 2);
    world.write(|w| stop(w, run.id));
    world.write(|w| agents::revoke(w, world.id("d2")));
    let nobody = "there is no approved agent on one side of the job";
    assert_eq!(conflict(world.try_write(|w| start(w, job.id))), nobody);
    world.write(|w| agents::release(w, world.id("d1")));
    world.write(|w| agents::quarantine(w, world.id("src"), "odd"));
    assert_eq!(conflict(world.try_write(|w| start(w, job.id))), "the agent src is quarantined");
}

#[test]
fn who_joins_a_group_as_a_source_gets_its_key_when_a_run_starts() {
    let world = World::with_agents(&["a", "late", "dest"]);
    world.group("g", &["a"]);
    let job = world.job("consolidation", &["group:g:/x"], &["dest:/x"]);
    world.group("g", &["late"]);
    let run = world.start(&job);
    assert!(world.write(|w| jobs::seed(w, job.id, world.id("late"), 1)).len() == 32);
    assert_eq!(world.part(&run, "dest", "late").path, "/x/late");
}

#[test]
fn what_agents_report_is_kept_and_the_end_ends_the_run() {
    let (world, job) = distribution(&["d1", "d2"]);
    let run = world.start(&job);
    assert_eq!(world.listens(&run, "src"), ["d1", "d2"], "they can begin");
    assert_eq!(world.part(&run, "src", "src").addresses, ["src.example:3939"]);
    assert!(world.listens(&run, "src").is_empty(), "nothing new");
    let progress = world.says(&run, "d1", "src", State::Running, |status| {
        (status.files, status.bytes, status.bytes_known, status.bytes_transferred) = (3, 300, 900, 150);
        status.addresses = vec!["evil.example:1".into()];
    });
    assert!(progress.is_empty(), "progress changes nobody's document");
    let part = world.part(&run, "d1", "src");
    assert_eq!((part.state, part.files, part.bytes, part.bytes_known), (RunAgentState::Running, 3, 300, 900));
    assert!(part.addresses.is_empty(), "a destination is dialled by nobody");
    assert_eq!(world.says(&run, "d1", "src", State::Done, |_| {}), ["d1", "src"]);
    assert_eq!(world.run(run.id).state, RunState::Running);
    // It comes again, with a report that is late.
    assert!(world.says(&run, "d1", "src", State::Running, |_| {}).is_empty());
    assert_eq!(world.part(&run, "d1", "src").state, RunAgentState::Done);
    world.pass_ms(1000);
    assert_eq!(world.says(&run, "d2", "src", State::Done, |_| {}), ["d1", "d2", "src"]);
    let over = world.run(run.id);
    assert_eq!((over.state, over.ended_ms), (RunState::Done, Some(run.created_ms + 1000)));
    assert_eq!(world.part(&run, "src", "src").state, RunAgentState::Done);
    assert_eq!(world.actions().last().unwrap(), "run.end");
    let event = world.read(|db| events::list(db, &events::EventFilter::default(), None, 1)).items.remove(0);
    assert_eq!((event.severity, event.run_id, event.job_id), (Severity::Info, Some(run.id), Some(job.id)));
}

#[test]
fn a_source_that_begins_again_is_still_reached_where_it_was() {
    let (world, job) = distribution(&["d1"]);
    let run = world.start(&job);
    world.listens(&run, "src");
    assert!(world.says(&run, "src", "src", State::Waiting, |_| {}).is_empty());
    assert_eq!(world.part(&run, "src", "src").addresses, ["src.example:3939"]);
    let moved = |status: &mut sealift_api::agent::JobStatus| status.addresses = vec!["[::1]:4711".into()];
    assert_eq!(world.says(&run, "src", "src", State::Running, moved), ["d1"]);
}

#[test]
fn an_agent_has_no_more_parts_than_a_document_holds() {
    let (world, job) = distribution(&["d1"]);
    let run = world.start(&job);
    let sources: Vec<_> = (0..PARTS_OF_AGENT_MAX).map(|n| format!("s{n}")).collect();
    world.write(|w| {
        for name in &sources {
            let id = new_id().into_bytes();
            let sql = "INSERT INTO agents (id, name, key, state, facts, address, created_ms, seen_ms) \
                VALUES (?1, ?2, ?3, 'approved', '{}', '', 0, 0)";
            w.tx().execute(sql, params![id, name, crate::db::agents::world::key(name)])?;
            let sql = "INSERT INTO group_members (group_name, agent_id) VALUES ('many', ?1)";
            w.tx().execute(sql, [id])?;
        }
        Ok(())
    });
    let many = world.new_job("many", "consolidation", &["group:many:/x"], &["d1:/x"]).unwrap();
    let why = conflict(world.try_write(|w| start(w, many.id)));
    assert_eq!(why, "the agent d1 would have more than 1024 parts in runs that go on");
    world.write(|w| stop(w, run.id));
    world.start(&many);
}

#[test]
fn some_missing_is_partial_and_nothing_anywhere_is_failed() {
    for (first, second, expected) in [
        (State::Done, State::Failed, RunState::Partial),
        (State::Partial, State::Done, RunState::Partial),
        (State::Failed, State::Failed, RunState::Failed),
        (State::Stopped, State::Failed, RunState::Failed),
        (State::Stopped, State::Stopped, RunState::Stopped),
    ] {
        let (world, job) = distribution(&["d1", "d2"]);
        let run = world.start(&job);
        world.says(&run, "d1", "src", first, |_| {});
        world.says(&run, "d2", "src", second, |_| {});
        assert_eq!(world.run(run.id).state, expected, "{first:?} {second:?}");
    }
}

#[test]
fn what_is_not_an_agents_own_is_passed_over() {
    let (world, job) = distribution(&["d1", "d2"]);
    let run = world.start(&job);
    world.enrolled("stranger");
    assert!(world.says(&run, "stranger", "src", State::Done, |_| {}).is_empty());
    assert!(world.says(&run, "d1", "src", State::Done, |status| status.run_id = vec![7; 16]).is_empty());
    assert!(world.says(&run, "d1", "src", State::Done, |status| status.run_id = vec![7; 3]).is_empty());
    assert!(world.says(&run, "d1", "src", State::Done, |status| status.job_id = vec![7; 16]).is_empty());
    assert!(world.says(&run, "d1", "src", State::Unspecified, |status| status.state = 99).is_empty());
    assert_eq!(world.part(&run, "d1", "src").state, RunAgentState::Waiting);
}

#[test]
fn counters_beyond_all_bounds_are_kept_as_the_most() {
    let (world, job) = distribution(&["d1"]);
    let run = world.start(&job);
    world.says(&run, "d1", "src", State::Running, |status| {
        status.bytes = u64::MAX;
        status.message = "é".repeat(3000);
    });
    let part = world.part(&run, "d1", "src");
    assert_eq!((part.bytes, part.message.len()), (i64::MAX.unsigned_abs(), 1024));
}

#[test]
fn without_its_source_a_destination_fails() {
    let world = World::with_agents(&["a", "b", "dest"]);
    let job = world.job("consolidation", &["a:/x", "b:/x"], &["dest:/x"]);
    let run = world.start(&job);
    world.says(&run, "a", "a", State::Failed, |status| status.message = "no such directory".into());
    let part = world.part(&run, "dest", "a");
    assert_eq!(
        (part.state, part.message.as_str()),
        (RunAgentState::Failed, "the source failed: no such directory")
    );
    assert_eq!(world.part(&run, "dest", "b").state, RunAgentState::Waiting, "the other goes on");
    world.says(&run, "dest", "b", State::Done, |_| {});
    assert_eq!(world.run(run.id).state, RunState::Partial);
}

#[test]
fn a_source_that_cannot_read_everything_makes_the_run_partial() {
    let (world, job) = distribution(&["d1"]);
    let run = world.start(&job);
    world.says(&run, "src", "src", State::Partial, |_| {});
    world.says(&run, "d1", "src", State::Done, |_| {});
    assert_eq!(world.run(run.id).state, RunState::Partial);
}

#[test]
fn a_revoked_agent_has_failed_and_the_others_go_on() {
    let (world, job) = distribution(&["d1", "d2"]);
    let run = world.start(&job);
    let (_, affected) = world.write(|w| agents::revoke(w, world.id("d1")));
    // The others have to hear of new keys.
    assert_eq!(affected, ["d1", "d2", "src"].map(|name| world.id(name)).into());
    let rekeyed = world.write(|w| crate::db::jobs::get(w.tx(), job.id));
    assert_eq!((job.epoch, rekeyed.epoch, rekeyed.keys.len()), (1, 2, 1));
    assert_ne!(rekeyed.keys, job.keys);
    let part = world.part(&run, "d1", "src");
    assert_eq!((part.state, part.message.as_str()), (RunAgentState::Failed, "the agent was revoked"));
    assert_eq!(world.run(run.id).state, RunState::Running);
    assert!(world.says(&run, "d1", "src", State::Done, |_| {}).is_empty());
    world.says(&run, "d2", "src", State::Done, |_| {});
    assert_eq!(world.run(run.id).state, RunState::Partial);
}

#[test]
fn without_its_revoked_source_a_distribution_fails() {
    let (world, job) = distribution(&["d1", "d2"]);
    let run = world.start(&job);
    world.says(&run, "d1", "src", State::Done, |_| {});
    let (_, affected) = world.write(|w| agents::revoke(w, world.id("src")));
    assert!(affected.contains(&world.id("d2")));
    assert_eq!(world.part(&run, "d2", "src").message, "the source failed: the agent was revoked");
    assert_eq!(world.run(run.id).state, RunState::Partial);
}

#[test]
fn a_run_is_paused_resumed_and_stopped() {
    let (world, job) = distribution(&["d1", "d2"]);
    let run = world.start(&job);
    world.says(&run, "d1", "src", State::Done, |_| {});
    assert_eq!(conflict(world.try_write(|w| resume(w, run.id))), "the run is running");
    let (paused, affected) = world.write(|w| pause(w, run.id));
    assert_eq!((paused.state, paused.version, affected.len()), (RunState::Paused, 2, 3));
    // One that finishes before it hears of the pause has finished.
    world.says(&run, "d2", "src", State::Paused, |_| {});
    assert_eq!(world.part(&run, "d2", "src").state, RunAgentState::Paused);
    assert_eq!(world.write(|w| resume(w, run.id)).0.state, RunState::Running);
    let (stopped, _) = world.write(|w| stop(w, run.id));
    assert_eq!((stopped.state, stopped.ended_ms.is_some()), (RunState::Stopped, true));
    assert_eq!(world.part(&run, "d1", "src").state, RunAgentState::Done, "what was done is done");
    assert_eq!(world.part(&run, "d2", "src").state, RunAgentState::Stopped);
    assert_eq!(world.part(&run, "src", "src").state, RunAgentState::Stopped);
    assert_eq!(conflict(world.try_write(|w| stop(w, run.id))), "the run is stopped");
    assert!(world.says(&run, "d2", "src", State::Done, |_| {}).is_empty());
    let actions = world.actions();
    assert_eq!(actions[actions.len() - 4..], ["run.start", "run.pause", "run.resume", "run.stop"]);
}

#[test]
fn history_is_listed_from_the_newest_and_bounded() {
    let (world, job) = distribution(&["d1"]);
    let other = world.new_job("other", "distribution", &["src:/x"], &["d1:/x"]).unwrap();
    let mut ids: Vec<_> = (0..3)
        .map(|_| {
            let run = world.start(&job);
            world.write(|w| stop(w, run.id));
            run.id
        })
        .collect();
    ids.reverse();
    let other = world.start(&other);
    let page = world.read(|db| list(db, Some(job.id), None, 2));
    assert_eq!(page.items.iter().map(|run| run.id).collect::<Vec<_>>(), ids[..2]);
    let rest = world.read(|db| list(db, Some(job.id), page.next.as_deref(), 2));
    assert_eq!((rest.items[0].id, rest.items.len(), rest.next), (ids[2], 1, None));
    assert_eq!(world.read(|db| list(db, None, None, 9)).items[0].id, other.id);
    assert!(matches!(world.db.read(|db| list(db, None, Some("x"), 9)), Err(DbError::Invalid(_))));
    // As many as there may be, and one more.
    world.write(|w| {
        for _ in 0..RUNS_OF_JOB_MAX {
            let sql =
                "INSERT INTO runs (id, job_id, state, started_by, created_ms) VALUES (?1, ?2, 'done', '', 0)";
            w.tx().execute(sql, params![new_id().into_bytes(), job.id.into_bytes()])?;
        }
        Ok(())
    });
    world.start(&job);
    let kept = world.read(|db| list(db, Some(job.id), None, 2000)).items;
    assert_eq!(kept.len(), RUNS_OF_JOB_MAX as usize);
    assert!(kept.iter().all(|run| !ids.contains(&run.id)));
}
