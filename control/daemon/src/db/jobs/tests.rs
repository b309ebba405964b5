//! Jobs: made, changed, their keys.

use super::*;
use crate::db::agents::world::World;
use crate::db::{agents, runs};
use sealift_proto::keys::RwSeed;

fn why(result: Result<Job, DbError>) -> String {
    match result {
        Err(DbError::Invalid(why) | DbError::Conflict(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_job_has_a_key_for_each_source_sealed() {
    let world = World::with_agents(&["a", "b", "c", "dest"]);
    world.group("g", &["a", "b", "dest"]);
    let job = world.job("consolidation", &["group:g:/logs", "c:/logs"], &["dest:/all"]);
    let sources: Vec<_> = job.keys.iter().map(|key| key.source.as_str()).collect();
    assert_eq!(sources, ["a", "b", "c"], "the destination is not its own source");
    assert_eq!(job.epoch, 1);
    let seed_of = |source: &str| world.write(|w| seed(w, job.id, world.id(source), 1));
    assert_ne!(*seed_of("a"), *seed_of("b"));
    let verify_key = RwSeed::new(&seed_of("a")).verify_key();
    assert_eq!(job.keys[0].verify_key, data_encoding::HEXLOWER.encode(verify_key.as_bytes()));
    // Neither in the audit log nor on the disk.
    let hex = data_encoding::HEXLOWER.encode(&*seed_of("a"));
    assert!(!world.audit_text().contains(&hex));
    let bytes = seed_of("a");
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(32).any(|part| part == bytes.as_slice()));
    }
}

#[test]
fn a_seed_is_bound_to_its_place() {
    let world = World::with_agents(&["a", "b", "dest"]);
    let job = world.job("consolidation", &["a:/x", "b:/x"], &["dest:/x"]);
    world.write(|w| {
        let sql = "UPDATE job_keys SET sealed_seed = (SELECT sealed_seed FROM job_keys WHERE source_id = ?1)";
        w.tx().execute(sql, [world.id("a").into_bytes()])?;
        Ok(())
    });
    assert!(world.try_write(|w| seed(w, job.id, world.id("a"), 1)).is_ok());
    assert!(matches!(world.try_write(|w| seed(w, job.id, world.id("b"), 1)), Err(DbError::Crypto)));
    assert!(matches!(world.try_write(|w| seed(w, job.id, world.id("a"), 2)), Err(DbError::NotFound(_))));
}

#[test]
fn a_job_names_only_who_is_known() {
    let world = World::with_agents(&["a", "b"]);
    let distribution = |from: &str, to: &str| why(world.new_job("j", "distribution", &[from], &[to]));
    assert_eq!(distribution("nobody:/x", "b:/x"), "there is no agent nobody");
    assert_eq!(distribution("a:/x", "group:g:/x"), "there is no group g, or nobody is in it");
    assert_eq!(distribution("a:/x", "a:/y"), "the agent a is source and destination");
    world.write(|w| agents::revoke(w, world.id("b")));
    assert_eq!(distribution("a:/x", "b:/x"), "the agent b is revoked");
    assert!(!world.actions().iter().any(|action| action.starts_with("job.")), "nothing was made");
}

#[test]
fn an_agent_with_two_paths_is_refused_unless_it_is_named() {
    let world = World::with_agents(&["a", "b"]);
    world.group("g", &["b"]);
    world.group("h", &["b"]);
    let of = |to: &[&str]| world.new_job("j", "distribution", &["a:/x"], to);
    assert_eq!(
        why(of(&["group:g:/x", "group:h:/y"])),
        "the agent b is in two groups of the job, with two paths"
    );
    let job = of(&["group:g:/x", "b:/named", "group:h:/y"]).unwrap();
    let members = world.read(|db| resolve(db, &job.spec, Who::Approved));
    assert_eq!(
        members.destinations.iter().map(|member| member.path.as_str()).collect::<Vec<_>>(),
        ["/named"]
    );
}

#[test]
fn a_job_changes_at_the_version_that_was_seen() {
    let world = World::with_agents(&["a", "b", "c"]);
    let job = world.job("distribution", &["a:/x"], &["b:/x"]);
    let named = |name: &str| JobPatch { name: Some(name.parse().unwrap()), spec: None };
    let renamed = world.write(|w| update(w, job.id, Some(job.version), &named("other")));
    assert_eq!((renamed.name.as_str(), renamed.version), ("other", job.version + 1));
    let stale = world.try_write(|w| update(w, job.id, Some(job.version), &named("third")));
    assert!(matches!(stale, Err(DbError::Stale)));
    world.job("distribution", &["a:/x"], &["b:/x"]);
    assert_eq!(
        why(world.try_write(|w| update(w, job.id, None, &named("models")))),
        "there is a job models already"
    );
    let spec = |kind: &str, from: &str, to: &str| JobPatch {
        name: None,
        spec: serde_json::from_value(json!({ "kind": kind, "from": [from], "to": [to] })).unwrap(),
    };
    let other_kind = world.try_write(|w| update(w, job.id, None, &spec("consolidation", "a:/x", "b:/x")));
    assert_eq!(why(other_kind), "a job keeps its kind: make another one");
    // Another source has its own key.
    let other = world.write(|w| update(w, job.id, None, &spec("distribution", "c:/x", "b:/x")));
    assert!(other.keys.iter().any(|key| key.source.as_str() == "c"));
    assert_eq!(world.read(|db| by_name(db, &"other".parse().unwrap())), other);
}

#[test]
fn while_a_run_goes_on_only_name_and_schedule_change() {
    let world = World::with_agents(&["a", "b"]);
    let job = world.job("distribution", &["a:/x"], &["b:/x"]);
    let run = world.start(&job);
    let patch = |change: fn(&mut JobSpec)| {
        let mut spec = job.spec.clone();
        change(&mut spec);
        JobPatch { name: Some("models".parse().unwrap()), spec: Some(spec) }
    };
    let try_to = |patch: &JobPatch| world.try_write(|w| update(w, job.id, None, patch));
    let goes_on = "a run of the job models goes on: stop it first";
    assert_eq!(why(try_to(&patch(|spec| spec.delete = true))), goes_on);
    let hourly =
        |spec: &mut JobSpec| spec.schedule = Some(sealift_api::rest::Schedule::Interval { seconds: 3600 });
    try_to(&patch(hourly)).unwrap();
    assert_eq!(world.read(scheduled).len(), 1);
    assert_eq!(why(world.try_write(|w| rotate(w, job.id))), goes_on);
    assert!(matches!(world.try_write(|w| delete(w, job.id, None)), Err(DbError::Conflict(_))));
    world.write(|w| runs::stop(w, run.id));
    assert!(try_to(&patch(|spec| spec.delete = true)).is_ok());
    assert!(world.read(scheduled).is_empty());
}

#[test]
fn rotation_begins_an_epoch_and_destroys_the_seeds_before_it() {
    let world = World::with_agents(&["a", "b"]);
    let job = world.job("distribution", &["a:/x"], &["b:/x"]);
    let rotated = world.write(|w| rotate(w, job.id));
    assert_eq!((rotated.epoch, rotated.version, rotated.keys.len()), (2, job.version + 1, 1));
    assert_ne!(rotated.keys[0].verify_key, job.keys[0].verify_key);
    assert!(world.try_write(|w| seed(w, job.id, world.id("a"), 1)).is_err());
    assert!(world.try_write(|w| seed(w, job.id, world.id("a"), 2)).is_ok());
    assert_eq!(world.actions()[world.actions().len() - 2..], ["job.keys.rotate", "job.key.make"]);
}

#[test]
fn a_deleted_job_leaves_its_name_and_no_keys() {
    let world = World::with_agents(&["a", "b"]);
    let job = world.job("distribution", &["a:/x"], &["b:/x"]);
    let run = world.start(&job);
    world.write(|w| runs::stop(w, run.id));
    assert!(matches!(world.try_write(|w| delete(w, job.id, Some(9))), Err(DbError::Stale)));
    world.write(|w| delete(w, job.id, Some(job.version)));
    assert!(matches!(world.db.read(|db| get(db, job.id)), Err(DbError::NotFound("job"))));
    assert!(world.try_write(|w| seed(w, job.id, world.id("a"), 1)).is_err());
    assert_eq!(world.run(run.id).job_name, format!("models~{}", job.id), "its history stays");
    let again = world.job("distribution", &["a:/x"], &["b:/x"]);
    assert_eq!(world.read(|db| list(db, None, 10)).items, [again]);
}

#[test]
fn a_renamed_agent_is_named_anew_in_jobs() {
    let world = World::with_agents(&["a", "b"]);
    world.group("a", &["b"]);
    let job = world.job("distribution", &["a:/x"], &["b:/x", "group:a:/x"]);
    let patch =
        sealift_api::rest::AgentPatch { name: Some("z".parse().unwrap()), groups: None, must_seal: None };
    world.write(|w| agents::update(w, world.id("a"), None, &patch));
    let after = world.read(|db| get(db, job.id));
    assert_eq!(after.spec.from[0].to_string(), "z:/x");
    assert_eq!(after.spec.to, job.spec.to, "a group of the name stays");
    assert_eq!(after.version, job.version + 1);
}
