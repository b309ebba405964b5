//! KEKs: taken up, rotated, ended; what is wrapped to them; who takes ciphertext alone.

use super::*;
use crate::db::agents::world::World;
use crate::db::{agents, jobs, runs};
use sealift_api::agent::Document;
use sealift_api::agent::job_status::State;
use sealift_api::rest::{AgentPatch, GroupPolicy, Job, JobPatch, JobSpec, NewJob};
use sealift_proto::keys::{RoSecret, VerifyKey};

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("../../../../envelope/tests/keys/", $name)).to_owned()
    };
}

fn files(public: String, private: Option<String>, passphrase: Option<&str>) -> KekFiles {
    KekFiles {
        public_pem: public,
        private_pem: private.map(Into::into),
        passphrase: passphrase.map(|text| text.to_owned().into()),
    }
}

fn a_public() -> Checked {
    Checked::of(&files(key!("a.pub.pem"), None, None)).unwrap()
}

fn a() -> Checked {
    Checked::of(&files(key!("a.pub.pem"), Some(key!("a.aes.pem")), Some("secret"))).unwrap()
}

fn b() -> Checked {
    Checked::of(&files(key!("b.pub.pem"), Some(key!("b.pem")), None)).unwrap()
}

fn c() -> Checked {
    Checked::of(&files(key!("c3072.pub.pem"), None, None)).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn imported(world: &World, of: &str, halves: &Checked) -> Kek {
    world.write(|w| import(w, &name(of), halves))
}

fn why<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Invalid(why) | DbError::Conflict(why) | DbError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn sealed_job(world: &World, of: &str, to: &[&str], keks: &[&str]) -> Result<Job, DbError> {
    let spec =
        serde_json::json!({ "kind": "distribution", "from": ["src:/data"], "to": to, "seal_to": keks });
    let new = NewJob { name: name(of), spec: serde_json::from_value(spec).unwrap() };
    world.try_write(|w| jobs::create(w, &new))
}

fn keks_of(document: &Document) -> Vec<(String, u32)> {
    document.assignments[0].keks.iter().map(|kek| (kek.name.clone(), kek.version)).collect()
}

/// A run that every destination has finished.
fn complete(world: &World, job: &Job, to: &[&str]) {
    let run = world.start(job);
    world.listens(&run, "src");
    for destination in to {
        world.says(&run, destination, "src", State::Done, |_| {});
    }
    assert!(world.read(|db| runs::get(db, run.id)).state.is_over());
}

#[test]
fn both_halves_are_taken_up_and_the_private_one_is_sealed() {
    let world = World::new();
    let kek = imported(&world, "team", &a());
    assert_eq!((kek.kek_version, kek.bits, kek.weak), (1, 2048, true));
    assert_eq!((kek.mode, kek.state), (KekMode::Server, KekState::Active));
    assert_eq!(kek.public_pem, key!("a.pub.pem"));
    assert_eq!(kek.created_by, "user:op");
    let private = world.write(|w| private(w, kek.id, "a test")).open(world.db.master()).unwrap();
    assert_eq!(private.public().fingerprint().to_string(), kek.fingerprint);
    assert!(
        world.actions().ends_with(&["kek.import".to_owned(), "kek.use".to_owned()]),
        "{:?}",
        world.actions()
    );
    // Neither in the audit nor on the disk: the private exponent's bytes, which follow the public ones in PKCS#8.
    let der = private.to_pkcs8_der().unwrap();
    let secret = &der[320..360];
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(secret.len()).any(|part| part == secret));
    }
    assert!(!world.audit_text().contains("PRIVATE") && !world.audit_text().contains("secret"));
}

#[test]
fn files_that_are_none_or_do_not_belong_together_are_refused_in_words() {
    let of = |files: &KekFiles| why(Checked::of(files).map(|_| ()));
    let (a, b) = (key!("a.pub.pem"), Some(key!("b.pem")));
    assert_eq!(of(&files(a.clone(), b, None)), "the private key is not the other half of the public key");
    let encrypted = |passphrase| of(&files(a.clone(), Some(key!("a.aes.pem")), passphrase));
    assert_eq!(encrypted(None), "the private key is encrypted: its passphrase is needed");
    assert_eq!(encrypted(Some("wrong")), "the passphrase is not that of the private key");
    assert!(encrypted(Some(&"x".repeat(1025))).contains("1024"));
    let old = of(&files(a.clone(), Some(key!("a.old.pem")), Some("secret")));
    assert!(old.contains("openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"), "{old}");
    assert!(of(&files(key!("small.pub.pem"), None, None)).contains("1024 bits"));
}

#[test]
fn a_key_is_one_record_and_a_name_is_taken_once() {
    let world = World::new();
    imported(&world, "team", &a());
    let again = |of: &str, halves: &Checked| why(world.try_write(|w| import(w, &name(of), halves)));
    assert!(again("team", &b()).contains("rotate it"));
    assert_eq!(
        again("other", &a_public()),
        "this key is there already, as the KEK team (version 1), which is active"
    );
    imported(&world, "other", &b());
    let page = world.read(|db| list(db, None, 1));
    assert_eq!(page.items[0].name.as_str(), "other");
    let rest = world.read(|db| list(db, page.next.as_deref(), 5));
    assert_eq!((rest.items.len(), rest.items[0].name.as_str(), rest.next), (1, "team", None));
    assert!(world.db.read(|db| list(db, Some("x"), 5)).is_err());
}

#[test]
fn states_follow_each_other_as_they_may() {
    let world = World::new();
    let one = imported(&world, "team", &a());
    let state = |id| world.read(|db| get(db, id)).state;
    assert_eq!(why(world.try_write(|w| destroy(w, one.id))), "the KEK team (version 1) is active");
    let two = world.write(|w| rotate(w, one.id, &b()));
    assert_eq!((two.kek_version, two.state, state(one.id)), (2, KekState::Active, KekState::DecryptOnly));
    assert!(world.try_write(|w| private(w, one.id, "a test")).is_ok(), "it decrypts");
    assert_eq!(world.read(|db| active(db, &name("team"))).unwrap().id, two.id);

    world.write(|w| disable(w, two.id));
    assert_eq!(
        why(world.try_write(|w| private(w, two.id, "a test")).map(|_| ())),
        "the KEK team (version 2) is disabled"
    );
    assert_eq!(world.read(|db| active(db, &name("team"))), None);
    assert_eq!(world.write(|w| enable(w, two.id)).state, KekState::Active, "the newest is the one");
    world.write(|w| disable(w, one.id));
    assert_eq!(world.write(|w| enable(w, one.id)).state, KekState::DecryptOnly);
    assert_eq!(why(world.try_write(|w| enable(w, one.id))), "the KEK team (version 1) is decrypt_only");

    assert_eq!(world.write(|w| destroy(w, one.id)).state, KekState::Destroyed);
    let kept: Option<Vec<u8>> = world.read(|db| {
        Ok(db.query_row("SELECT sealed_private FROM keks WHERE id = ?1", [one.id.into_bytes()], |row| {
            row.get(0)
        })?)
    });
    assert_eq!(kept, None);
    assert!(why(world.try_write(|w| private(w, one.id, "a test")).map(|_| ())).contains("destroyed"));
    for change in [enable, disable, destroy] {
        assert_eq!(why(world.try_write(|w| change(w, one.id))), "the KEK team (version 1) is destroyed");
    }
    assert!(
        why(world.try_write(|w| rotate(w, two.id, &a_public()))).contains("is destroyed"),
        "nor taken up again"
    );
    let actions = world.actions();
    for action in ["kek.rotate", "kek.disable", "kek.enable", "kek.destroy"] {
        assert!(actions.iter().any(|done| done == action), "{action}");
    }
}

#[test]
fn nothing_of_a_destroyed_private_half_is_in_the_files() {
    let world = World::new();
    let one = imported(&world, "team", &a());
    let sealed = |id: Uuid| -> Option<Vec<u8>> {
        let sql = "SELECT sealed_private FROM keks WHERE id = ?1";
        world.read(|db| Ok(db.query_row(sql, [id.into_bytes()], |row| row.get(0))?))
    };
    let secret = sealed(one.id).unwrap();
    // Its row is written anew, and moves.
    let two = world.write(|w| rotate(w, one.id, &b()));
    imported(&world, "other", &c());
    for _ in 0..3 {
        world.write(|w| disable(w, one.id));
        world.write(|w| enable(w, one.id));
    }
    let parts_there = |secret: &[u8]| {
        let files = std::fs::read_dir(world.dir.path()).unwrap().map(|file| file.unwrap().path());
        let contents: Vec<_> = files.map(|file| std::fs::read(file).unwrap()).collect();
        let is_there =
            |part: &&[u8]| contents.iter().any(|file| file.windows(part.len()).any(|at| at == *part));
        secret.chunks_exact(16).filter(is_there).count()
    };
    assert_eq!(parts_there(&secret), secret.len() / 16);
    world.write(|w| destroy(w, one.id));
    world.db.empty_log().unwrap();
    assert_eq!(parts_there(&secret), 0);
    let other = sealed(two.id).unwrap();
    assert_eq!(parts_there(&other), other.len() / 16, "what is still used is there");
}

#[test]
fn an_end_to_end_key_opens_nothing_here() {
    let world = World::new();
    let kek = imported(&world, "mine", &a_public());
    assert_eq!(kek.mode, KekMode::EndToEnd);
    assert!(why(world.try_write(|w| private(w, kek.id, "a test")).map(|_| ())).contains("end to end"));
}

#[test]
fn a_job_is_sealed_to_active_keys_alone() {
    let world = World::with_agents(&["src", "d"]);
    assert!(
        why(sealed_job(&world, "j", &["d:/x"], &["team"])).contains("there is no KEK team that is active")
    );
    let kek = imported(&world, "team", &a());
    let twice = why(sealed_job(&world, "j", &["d:/x"], &["team", "team"]));
    assert_eq!(twice, "team is named twice");
    let job = sealed_job(&world, "j", &["d:/x"], &["team"]).unwrap();
    world.write(|w| disable(w, kek.id));
    assert!(why(world.try_write(|w| runs::start(w, job.id))).contains("no KEK team"));
}

#[test]
fn sources_get_public_halves_and_destinations_the_keepers_secret() {
    let world = World::with_agents(&["src", "d"]);
    imported(&world, "team", &a());
    imported(&world, "other", &b());
    let job = sealed_job(&world, "j", &["d:/x"], &["team", "other"]).unwrap();
    let run = world.start(&job);
    world.listens(&run, "src");
    let (source, keeper) = (world.document("src"), world.document("d"));
    assert_eq!(keks_of(&source), [("team".into(), 1), ("other".into(), 1)]);
    let kek = &source.assignments[0].keks[0];
    assert_eq!(kek.public_pem, key!("a.pub.pem"));
    assert_eq!(kek.fingerprint, PublicKek::from_pem(&kek.public_pem).unwrap().fingerprint().0);
    let kept = &keeper.assignments[0];
    assert!(kept.sealed && source.assignments[0].sealed && kept.keks.is_empty());
    let verify_key = VerifyKey::from_bytes(kept.verify_key.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(kept.read_only_secret, RoSecret::of_keepers(&verify_key).as_bytes());
}

#[test]
fn rotation_reaches_runs_that_go_on_and_the_old_key_goes_when_all_is_wrapped_anew() {
    let world = World::with_agents(&["src", "d", "e"]);
    let one = imported(&world, "team", &a());
    let job = sealed_job(&world, "j", &["d:/x", "e:/x"], &["team"]).unwrap();
    let jobs_of = |id| world.read(|db| get(db, id)).wraps.jobs;
    let run = world.start(&job);
    assert_eq!(jobs_of(one.id), 1, "noted before anything is wrapped");
    assert!(why(world.try_write(|w| disable(w, one.id))).contains("a run of the job j"));
    let before = world.document("src");
    let two = world.write(|w| rotate(w, one.id, &b()));
    let after = world.document("src");
    assert_eq!((keks_of(&before), keks_of(&after)), (vec![("team".into(), 1)], vec![("team".into(), 2)]));
    assert!(after.number > before.number);
    assert_eq!((jobs_of(one.id), jobs_of(two.id)), (1, 1));
    let refused = why(world.try_write(|w| destroy(w, one.id)));
    assert!(refused.contains("1 jobs") && refused.contains("0 segments"), "{refused}");

    // This run began with the old key: done, it leaves both.
    world.listens(&run, "src");
    world.says(&run, "d", "src", State::Done, |_| {});
    world.says(&run, "e", "src", State::Done, |_| {});
    assert_eq!((jobs_of(one.id), jobs_of(two.id)), (1, 1));
    // One that some did not finish leaves them too: those have what was wrapped before.
    let partial = world.start(&job);
    world.listens(&partial, "src");
    world.says(&partial, "d", "src", State::Done, |_| {});
    world.says(&partial, "e", "src", State::Failed, |_| {});
    assert_eq!((jobs_of(one.id), jobs_of(two.id)), (1, 1));
    complete(&world, &job, &["d", "e"]);
    assert_eq!((jobs_of(one.id), jobs_of(two.id)), (0, 1));
    assert_eq!(world.write(|w| destroy(w, one.id)).state, KekState::Destroyed);
    world.write(|w| jobs::delete(w, job.id, None));
    assert_eq!(jobs_of(two.id), 0);
}

#[test]
fn a_job_that_is_unsealed_again_lets_its_keys_go() {
    let world = World::with_agents(&["src", "d"]);
    let kek = imported(&world, "team", &a());
    let job = sealed_job(&world, "j", &["d:/x"], &["team"]).unwrap();
    complete(&world, &job, &["d"]);
    let spec = JobSpec { seal_to: Vec::new(), ..job.spec.clone() };
    let job = world.write(|w| jobs::update(w, job.id, None, &JobPatch { name: None, spec: Some(spec) }));
    assert_eq!(world.read(|db| get(db, kek.id)).wraps.jobs, 1);
    complete(&world, &job, &["d"]);
    assert_eq!(world.read(|db| get(db, kek.id)).wraps.jobs, 0);
}

fn must_seal(world: &World, agent: &str, must_seal: bool) -> Result<(), DbError> {
    let patch = AgentPatch { must_seal: Some(must_seal), ..AgentPatch::default() };
    world.try_write(|w| agents::update(w, world.id(agent), None, &patch)).map(|_| ())
}

#[test]
fn no_plaintext_is_placed_where_none_may_be() {
    let world = World::with_agents(&["src", "d", "e"]);
    imported(&world, "team", &c());
    world.group("vault", &["e"]);
    let plain = world.job("distribution", &["src:/data"], &["d:/x", "e:/x"]);
    must_seal(&world, "d", true).unwrap();
    let refused = why(world.try_write(|w| runs::start(w, plain.id)));
    assert!(refused.contains("the agent d takes ciphertext alone"), "{refused}");
    assert!(why(sealed_job(&world, "p", &["group:vault:/x", "d:/x"], &[])).contains("the agent d"));
    assert!(world.document("d").must_seal && !world.document("e").must_seal);

    let policy = |must_seal| {
        world.try_write(|w| agents::set_group_policy(w, &name("vault"), GroupPolicy { must_seal }))
    };
    let (group, told) = policy(true).unwrap();
    assert!(group.must_seal && told.contains(&world.id("e")));
    assert_eq!(world.agent("e").must_seal_by, [name("vault")]);
    assert!(world.document("e").must_seal);
    assert!(why(sealed_job(&world, "p", &["group:vault:/x"], &[])).contains("the agent e"));
    let sealed = sealed_job(&world, "s", &["group:vault:/x", "d:/x"], &["team"]).unwrap();
    world.start(&sealed);
    let unsealed = JobSpec { seal_to: Vec::new(), ..sealed.spec.clone() };
    let run = world.read(|db| runs::current(db, sealed.id)).unwrap();
    world.write(|w| runs::stop(w, run.id));
    let patch = JobPatch { name: None, spec: Some(unsealed) };
    assert!(why(world.try_write(|w| jobs::update(w, sealed.id, None, &patch))).contains("ciphertext alone"));

    // Sources may have what they like: it is their own.
    policy(false).unwrap();
    must_seal(&world, "d", false).unwrap();
    must_seal(&world, "src", true).unwrap();
    let run = world.start(&plain);
    assert!(why(must_seal(&world, "d", true)).contains("a run of the job"), "plaintext is on its way there");
    assert!(why(policy(true)).contains("a run of the job"));
    assert!(!world.agent("d").must_seal && !world.document("e").must_seal, "nothing was changed");
    world.write(|w| runs::stop(w, run.id));
    must_seal(&world, "d", true).unwrap();
    assert!(world.actions().iter().any(|action| action == "agent.must_seal"));
    assert!(world.actions().iter().any(|action| action == "group.must_seal"));
}
