//! Documents, from runs that go on.

use super::*;
use crate::db::agents::world::World;
use crate::db::runs;
use sealift_api::agent::job_status::State;
use sealift_api::rest::{Job, JobPatch, Run};

fn world() -> (World, Job, Run) {
    let world = World::with_agents(&["src", "d1", "d2"]);
    let job = world.job("distribution", &["src:/data"], &["d1:/one", "d2:/two"]);
    let run = world.start(&job);
    (world, job, run)
}

fn refreshed(world: &World, name: &str) -> Option<u64> {
    world.write(|w| refresh(w, world.id(name))).map(|(number, _)| number)
}

#[test]
fn a_source_gets_the_seed_and_destinations_what_is_below_it() {
    let (world, job, run) = world();
    let source = world.document("src").assignments.remove(0);
    assert_eq!((source.role(), source.action()), (Role::Source, Action::Run));
    assert_eq!(
        (source.job_id.as_slice(), source.run_id.as_slice()),
        (&job.id.as_bytes()[..], &run.id.as_bytes()[..])
    );
    assert_eq!(
        (source.path.as_slice(), source.job_name.as_str(), source.epoch),
        (&b"/data"[..], "models", 1)
    );
    assert_eq!(source.destinations, 2);
    assert!(source.read_only_secret.is_empty() && source.verify_key.is_empty());
    let keys = RwSeed::new(source.read_write_seed.as_slice().try_into().unwrap());

    assert!(world.document("d1").assignments.is_empty(), "nobody listens yet");
    world.listens(&run, "src");
    let destination = world.document("d1").assignments.remove(0);
    assert_eq!((destination.role(), destination.path.as_slice()), (Role::Destination, &b"/one"[..]));
    assert_eq!(destination.source_addresses, ["src.example:3939"]);
    assert!(destination.read_write_seed.is_empty(), "no destination can sign");
    assert_eq!(destination.read_only_secret, keys.ro_secret().as_bytes());
    assert_eq!(destination.verify_key, keys.verify_key().as_bytes());
    let settings = destination.settings.unwrap();
    assert_eq!((settings.hash(), settings.cipher()), (settings::Hash::Sha256, settings::Cipher::Aes256Gcm));
}

#[test]
fn the_number_goes_up_when_something_else_is_desired_and_only_then() {
    let (world, job, run) = world();
    assert_eq!(refreshed(&world, "src"), Some(1));
    assert_eq!(refreshed(&world, "src"), None);
    assert_eq!(world.document("src").number, 1);
    assert_eq!(world.document("src"), world.document("src"));
    assert_eq!(refreshed(&world, "d1"), Some(1), "the first is empty");
    world.listens(&run, "src");
    assert_eq!((refreshed(&world, "d1"), refreshed(&world, "d1")), (Some(2), None));
    world.says(&run, "d1", "src", State::Running, |status| status.bytes = 1);
    assert_eq!((refreshed(&world, "d1"), refreshed(&world, "src")), (None, None));
    world.write(|w| runs::pause(w, run.id));
    assert_eq!((refreshed(&world, "d1"), refreshed(&world, "src")), (Some(3), Some(2)));
    assert_eq!(world.document("d1").assignments[0].action(), Action::Pause);
    world.write(|w| runs::stop(w, run.id));
    assert_eq!(refreshed(&world, "src"), Some(3));
    // The same but for the keys is not the same.
    let again = world.start(&job);
    let first = world.document("src");
    world.write(|w| runs::stop(w, again.id));
    world.write(|w| crate::db::jobs::rotate(w, job.id));
    world.start(&job);
    let second = world.document("src");
    assert_ne!(first.assignments[0].read_write_seed, second.assignments[0].read_write_seed);
    assert_eq!((second.assignments[0].epoch, second.number > first.number), (2, true));
}

#[test]
fn every_field_counts() {
    let content = Assignment { settings: Some(Settings::default()), ..Assignment::default() };
    let of = |change: fn(&mut Assignment)| {
        let mut content = content.clone();
        change(&mut content);
        digest(&Document { assignments: vec![content], ..Document::default() })
    };
    let all = [
        of(|_| {}),
        of(|a| a.job_id.push(1)),
        of(|a| a.job_name.push('\u{1}')),
        of(|a| a.run_id.push(1)),
        of(|a| a.role = 1),
        of(|a| a.path.push(1)),
        of(|a| a.epoch = 1),
        of(|a| a.read_write_seed.push(1)),
        of(|a| a.read_only_secret.push(1)),
        of(|a| a.verify_key.push(1)),
        of(|a| a.action = 1),
        of(|a| a.source_addresses.push("a".into())),
        of(|a| a.source_addresses.extend(["".into(), "a".into()])),
        of(|a| a.destinations = 1),
        of(|a| a.settings.as_mut().unwrap().hash = 1),
        of(|a| a.settings.as_mut().unwrap().cipher = 1),
        of(|a| a.settings.as_mut().unwrap().delete = true),
        of(|a| a.settings.as_mut().unwrap().connections = 1),
        of(|a| a.settings.as_mut().unwrap().bytes_per_second = 9000),
        of(|a| a.settings.as_mut().unwrap().transport = 1),
        of(|a| a.sealed = true),
        of(|a| a.keks.push(Kek::default())),
        of(|a| a.keks.push(Kek { name: "a".into(), ..Kek::default() })),
        of(|a| a.keks.push(Kek { version: 1, ..Kek::default() })),
        of(|a| a.keks.push(Kek { fingerprint: vec![1], ..Kek::default() })),
        of(|a| a.keks.push(Kek { public_pem: "a".into(), ..Kek::default() })),
        digest(&Document { must_seal: true, ..Document::default() }),
        digest(&Document { logs_kek: Some(Kek::default()), ..Document::default() }),
        of(|a| a.rate_schedule = Some(RateSchedule::default())),
        of(|a| a.rate_schedule = Some(RateSchedule { time_zone: "UTC".into(), entries: vec![] })),
        of(|a| {
            let entries = vec![RateEntry { day: 1, minute: 0, bytes_per_second: 0 }];
            a.rate_schedule = Some(RateSchedule { time_zone: String::new(), entries });
        }),
        of(|a| {
            let entries = vec![RateEntry { day: 0, minute: 1, bytes_per_second: 0 }];
            a.rate_schedule = Some(RateSchedule { time_zone: String::new(), entries });
        }),
        of(|a| {
            let entries = vec![RateEntry { day: 0, minute: 0, bytes_per_second: 1 }];
            a.rate_schedule = Some(RateSchedule { time_zone: String::new(), entries });
        }),
        digest(&Document::default()),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    let numbered = Document {
        number: 7,
        incarnation: vec![7],
        assignments: vec![],
        logs_port: 7,
        tracker_port: 7,
        must_seal: false,
        logs_kek: None,
    };
    assert_eq!(digest(&numbered), digest(&Document::default()), "number and incarnation are no content");
}

#[test]
fn who_has_ended_has_nothing_to_do_and_a_source_waits_for_the_last() {
    let (world, _, run) = world();
    world.listens(&run, "src");
    world.says(&run, "d1", "src", State::Done, |_| {});
    assert!(world.document("d1").assignments.is_empty());
    assert_eq!(world.document("src").assignments[0].destinations, 2);
    // It believes that it is done; the other destination may still need it.
    world.says(&run, "src", "src", State::Done, |_| {});
    assert_eq!(world.document("src").assignments.len(), 1);
    world.says(&run, "d2", "src", State::Done, |_| {});
    assert!(world.document("src").assignments.is_empty());
}

#[test]
fn a_source_does_not_wait_for_who_was_revoked() {
    let (world, _, run) = world();
    world.listens(&run, "src");
    world.document("d1");
    world.write(|w| agents::revoke(w, world.id("d1")));
    assert_eq!(world.document("src").assignments[0].destinations, 1);
    assert!(world.document("d1").assignments.is_empty());
}

#[test]
fn a_quarantined_agent_gets_nothing_until_it_is_released() {
    let (world, _, _) = world();
    assert_eq!(world.document("src").assignments.len(), 1);
    world.write(|w| agents::quarantine(w, world.id("src"), "odd"));
    assert!(world.document("src").assignments.is_empty());
    world.write(|w| agents::release(w, world.id("src")));
    assert_eq!(world.document("src").assignments.len(), 1);
}

#[test]
fn a_consolidating_destination_has_a_part_with_each_source() {
    let world = World::with_agents(&["a", "b", "dest"]);
    let job = world.job("consolidation", &["a:/x", "b:/x"], &["dest:/all"]);
    let run = world.start(&job);
    world.listens(&run, "a");
    assert_eq!(world.document("dest").assignments.len(), 1);
    world.listens(&run, "b");
    let parts = world.document("dest").assignments;
    assert_eq!(parts.len(), 2);
    assert_ne!(parts[0].job_id, parts[1].job_id);
    assert_ne!(parts[0].verify_key, parts[1].verify_key);
    let source = world.document("a").assignments.remove(0);
    assert_eq!(source.destinations, 1);
    assert!(parts.iter().any(|part| part.job_id == source.job_id && part.path == b"/all/a"));
    // The report of one part is not that of the other.
    world.says(&run, "dest", "a", State::Done, |_| {});
    assert_eq!(world.document("dest").assignments.len(), 1);
    assert!(world.document("a").assignments.is_empty(), "its only destination has ended");
}

#[test]
fn settings_are_those_of_the_spec() {
    let world = World::with_agents(&["src", "d1"]);
    let job = world.job("distribution", &["src:/data"], &["d1:/one"]);
    let spec = JobSpec {
        hash: Hash::Blake3,
        cipher: Cipher::Aes128Gcm,
        delete: true,
        connections: 8,
        transport: Transport::Quic,
        bytes_per_second: Some(10_000),
        rate_schedule: Some(sealift_api::rest::RateSchedule {
            time_zone: "UTC".into(),
            entries: vec![sealift_api::rest::RateEntry {
                day: Some(Day::Sunday),
                from: "08:30".into(),
                bytes_per_second: Some(9000),
            }],
        }),
        ..job.spec.clone()
    };
    let patch = JobPatch { name: None, spec: Some(spec) };
    world.write(|w| jobs::update(w, job.id, None, &patch));
    world.start(&job);
    let settings = world.document("src").assignments[0].settings.unwrap();
    let (hash, cipher) = (settings::Hash::Blake3.into(), settings::Cipher::Aes128Gcm.into());
    let transport = settings::Transport::Quic.into();
    let expected =
        Settings { hash, cipher, delete: true, connections: 8, bytes_per_second: 10_000, transport };
    assert_eq!(settings, expected);
    let entries = vec![RateEntry { day: 7, minute: 510, bytes_per_second: 9000 }];
    let rates = world.document("src").assignments[0].rate_schedule.clone().unwrap();
    assert_eq!(rates, RateSchedule { time_zone: "UTC".into(), entries });
}
