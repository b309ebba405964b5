//! Enrolment, hellos, groups.

use super::world::{World, key};
use super::*;
use crate::db::Actor;
use crate::db::events::EventFilter;

fn refused(result: Result<Agent, DbError>) -> String {
    match result {
        Err(DbError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_token_is_kept_as_its_hash_and_shown_once() {
    let world = World::new();
    let made = world.token(true, 2, 60);
    assert!(made.secret.starts_with("slenrol1") && made.secret.len() == 8 + 52, "{}", made.secret);
    assert!(made.secret.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    let listed = world.read(|db| tokens(db, None, 10));
    assert_eq!(listed, Page { items: vec![made.token.clone()], next: None });
    world.enrol(&made.secret, "a", key("a")).unwrap();
    assert!(!world.audit_text().contains(&made.secret[8..]));
    drop(world.db);
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(20).any(|part| part == &made.secret.as_bytes()[8..28]));
    }
}

#[test]
fn a_token_by_its_policy_approves_or_lets_wait_and_puts_into_a_group() {
    let world = World::new();
    let new = NewEnrolmentTokenOf { approve: false, group: Some("dc2") };
    let made = world.write(|w| create_token(w, &new.into()));
    let agent = world.enrol(&made.secret, "a", key("a")).unwrap();
    assert_eq!((agent.state, agent.groups.len()), (AgentState::Pending, 1));
    let agent = world.write(|w| approve(w, agent.id));
    assert_eq!(agent.state, AgentState::Approved);
    // Asking again brings what came of it.
    assert_eq!(world.enrol(&made.secret, "a", key("a")).unwrap(), agent);
    assert!(matches!(world.try_write(|w| approve(w, agent.id)), Err(DbError::Conflict(_))));
}

struct NewEnrolmentTokenOf {
    approve: bool,
    group: Option<&'static str>,
}

impl From<NewEnrolmentTokenOf> for sealift_api::rest::NewEnrolmentToken {
    fn from(of: NewEnrolmentTokenOf) -> Self {
        Self {
            name: "t".parse().unwrap(),
            approve: of.approve,
            group: of.group.map(|name| name.parse().unwrap()),
            uses: 1,
            expires_in_seconds: 60,
        }
    }
}

#[test]
fn a_token_out_of_bounds_is_not_made() {
    let world = World::new();
    for (uses, expires_in_seconds) in [(0, 60), (10_001, 60), (1, 0), (1, u32::MAX)] {
        let new = sealift_api::rest::NewEnrolmentToken {
            uses,
            expires_in_seconds,
            ..NewEnrolmentTokenOf { approve: true, group: None }.into()
        };
        assert!(matches!(world.try_write(|w| create_token(w, &new)), Err(DbError::Invalid(_))));
    }
}

#[test]
fn a_spent_token_answers_its_key_alone() {
    let world = World::new();
    let secret = world.token(true, 1, 60).secret;
    let first = world.enrol(&secret, "a", key("a")).unwrap();
    // The answer was lost: the same request again, also under another name, also when the token has expired.
    assert_eq!(world.enrol(&secret, "a", key("a")).unwrap(), first);
    world.pass_ms(61_000);
    assert_eq!(world.enrol(&secret, "b", key("a")).unwrap().name.as_str(), "a");
    // Somebody who has overheard the token.
    assert_eq!(refused(world.enrol(&secret, "b", key("thief"))), "the enrolment token has expired");
    assert_eq!(world.actions(), ["enrolment_token.create", "agent.enrol", "agent.enrol.refused"]);
    assert_eq!(world.read(|db| list(db, &AgentFilter::default(), None, 10)).items.len(), 1);
}

#[test]
fn every_refusal_has_its_reason_and_its_record() {
    let world = World::with_agents(&["here"]);
    let once = world.token(true, 1, 60).secret;
    world.enrol(&once, "a", key("a")).unwrap();
    let revoked = world.token(true, 9, 60);
    world.write(|w| revoke_token(w, revoked.token.id));
    let good = world.token(true, 9, 600).secret;
    let short = world.token(true, 9, 1).secret;
    world.pass_ms(1000);
    world.enrol(&good, "gone", key("gone")).unwrap();
    world.write(|w| revoke(w, world.id("gone")));
    world.enrol(&good, "odd", key("odd")).unwrap();
    world.write(|w| quarantine(w, world.id("odd"), "odd"));
    let long = "x".repeat(5000);
    for (token, name, of, why) in [
        (once.as_str(), "b", "b", "the enrolment token is spent"),
        (&revoked.secret, "b", "b", "the enrolment token was revoked"),
        (&short, "b", "b", "the enrolment token has expired"),
        ("slenrol1aaaa", "b", "b", "there is no such enrolment token"),
        ("", "b", "b", "there is no such enrolment token"),
        (&good, "here", "b", "another agent has the name"),
        (&good, "b", "here", "the key was enrolled with another token"),
        (&good, "gone", "gone", "the agent with this key was revoked"),
        (&good, "odd", "odd", "the agent with this key is quarantined"),
        (&good, "group", "b", "the name cannot be that of an agent"),
        (&good, "../b", "b", "the name cannot be that of an agent"),
        (&good, "b\u{1b}[2J\r\n", "b", "the name cannot be that of an agent"),
        (&good, &long, "b", "the name cannot be that of an agent"),
    ] {
        // As after a while: of its kind each is a first.
        world.db.record_refusals(true).unwrap();
        let before = world.actions().len();
        assert_eq!(refused(world.enrol(token, name, key(of))), why);
        assert_eq!(world.actions()[before..], ["agent.enrol.refused"], "{why}");
    }
    let log = world.audit_text();
    assert!(
        log.contains("the enrolment token is spent")
            && !log.contains('\u{1b}')
            && !log.contains(&"x".repeat(64))
    );
    assert!(matches!(world.try_write(|w| revoke_token(w, revoked.token.id)), Err(DbError::Conflict(_))));
    // What was refused spent nothing: nine uses, two agents.
    assert!(world.read(|db| tokens(db, None, 10)).items.iter().any(|token| token.uses_left == 7));
}

#[test]
fn c3_of_two_copies_the_second_is_found_out_and_the_identity_is_quarantined() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let first = world.hello("a", &[]).unwrap();
    world.write(|w| acknowledge(w, id, 0, &first));
    // The disk is copied here: copies A and B both have `first`. A goes on.
    let second = world.hello("a", &first).unwrap();
    world.write(|w| acknowledge(w, id, 0, &second));
    assert_eq!(world.hello("a", &first), None, "B shows what A has replaced");
    assert_eq!(world.agent("a").state, AgentState::Quarantined);
    // Both of them, until somebody decides.
    assert_eq!(world.hello("a", &second), None);
    let events = world.read(|db| events::tail(db, &EventFilter::default(), 0, 10)).events;
    let loud =
        events.iter().filter(|event| event.severity == Severity::Security && event.agent_id == Some(id));
    assert_eq!(loud.count(), 1);
    assert_eq!(world.actions().iter().filter(|action| *action == "agent.quarantine").count(), 1);
    // Released, whoever comes first is the one; the other is found out again.
    assert_eq!(world.write(|w| release(w, id)).state, AgentState::Approved);
    let third = world.hello("a", &second).unwrap();
    world.write(|w| acknowledge(w, id, 0, &third));
    assert_eq!(world.hello("a", &first), None);
}

#[test]
fn c3_copies_are_found_out_also_if_the_second_comes_before_the_first_acknowledges() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let first = world.hello("a", &[]).unwrap();
    world.write(|w| acknowledge(w, id, 0, &first));
    let given_to_a = world.hello("a", &first).unwrap();
    let given_to_b = world.hello("a", &first).unwrap();
    // A acknowledges on a connection whose place B has taken.
    assert!(matches!(world.try_write(|w| acknowledge(w, id, 0, &given_to_a)), Err(DbError::Stale)));
    world.write(|w| acknowledge(w, id, 0, &given_to_b));
    assert_eq!(world.hello("a", &given_to_a), None);
    assert_eq!(world.agent("a").state, AgentState::Quarantined);
}

#[test]
fn c4_a_restored_copy_of_an_agent_is_found_out() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let first = world.hello("a", &[]).unwrap();
    world.write(|w| acknowledge(w, id, 0, &first));
    // To before it had any.
    assert_eq!(world.hello("a", &[]), None);
    assert_eq!(world.agent("a").state, AgentState::Quarantined);
}

#[test]
fn an_agent_that_loses_its_connection_at_any_step_is_believed() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    // The first document was lost, then its acknowledgement, then another document.
    world.hello("a", &[]).unwrap();
    let first = world.hello("a", &[]).unwrap();
    let second = world.hello("a", &first).unwrap();
    world.hello("a", &second).unwrap();
    let last = world.hello("a", &second).unwrap();
    world.write(|w| acknowledge(w, id, 0, &last));
    world.write(|w| acknowledge(w, id, 0, &last));
    assert!(world.hello("a", &last).is_some());
}

#[test]
fn a_restored_daemon_believes_each_agent_once_and_counts_on_from_its_document() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let known = world.hello("a", &[]).unwrap();
    world.write(|w| acknowledge(w, id, 0, &known));
    world.write(forget_incarnations);
    let facts = sealift_api::agent::HostFacts::default();
    let said = Said { incarnation: &[9; 16], document: 41, facts: &facts, address: "192.0.2.7" };
    assert!(matches!(world.write(|w| hello(w, id, &said)), Hello::Accepted { .. }));
    assert_eq!(world.document("a").number, 42);
    assert_eq!(world.hello("a", &known), None);
}

#[test]
fn hellos_that_cannot_be_are_refused_without_a_quarantine() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let facts = sealift_api::agent::HostFacts::default();
    for incarnation in [&[0][..], &[7; 15], &[7; 17]] {
        let said = Said { incarnation, document: 0, facts: &facts, address: "" };
        assert!(matches!(world.try_write(|w| hello(w, id, &said)), Err(DbError::Invalid(_))));
    }
    assert_eq!(world.agent("a").state, AgentState::Approved);
    world.write(|w| revoke(w, id));
    let said = Said { incarnation: &[], document: 0, facts: &facts, address: "" };
    assert!(matches!(world.try_write(|w| hello(w, id, &said)), Err(DbError::Refused(_))));
    world.write(forget_incarnations);
    assert!(matches!(world.try_write(|w| hello(w, id, &said)), Err(DbError::Refused(_))));
}

#[test]
fn only_what_was_sent_is_acknowledged() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let given = world.hello("a", &[]).unwrap();
    let number = world.document("a").number;
    assert!(matches!(world.try_write(|w| acknowledge(w, id, number + 1, &given)), Err(DbError::Invalid(_))));
    assert!(matches!(world.try_write(|w| acknowledge(w, id, number, &[])), Err(DbError::Stale)));
    world.write(|w| acknowledge(w, id, number, &given));
    world.write(|w| acknowledge(w, id, 0, &given));
    assert_eq!(world.agent("a").acked_document.unsigned_abs(), number);
}

#[test]
fn what_an_agent_tells_of_its_host_is_kept_within_bounds() {
    let world = World::with_agents(&["a"]);
    let id = world.id("a");
    let facts = sealift_api::agent::HostFacts {
        hostname: "ä".repeat(5000),
        data_addresses: vec!["h:1".into(); 100],
        read_roots: vec![vec![0xff, b'/']; 100],
        ..Default::default()
    };
    let said = Said { incarnation: &[], document: u64::MAX, facts: &facts, address: "192.0.2.9" };
    world.write(|w| hello(w, id, &said));
    let agent = world.agent("a");
    assert_eq!(agent.facts.hostname, "ä".repeat(512));
    assert_eq!((agent.facts.data_addresses.len(), agent.facts.read_roots.len()), (16, 64));
    assert_eq!(agent.address, "192.0.2.9");
    assert!(world.document("a").number > 0);
}

#[test]
fn agents_are_listed_by_name_in_pages_and_by_filter() {
    let world = World::with_agents(&["c", "a", "b"]);
    world.group("g", &["a", "c"]);
    let names = |filter: &AgentFilter, after: Option<&str>, limit| {
        let page = world.read(|db| list(db, filter, after, limit));
        (page.items.iter().map(|agent| agent.name.to_string()).collect::<Vec<_>>().concat(), page.next)
    };
    let all = AgentFilter::default();
    assert_eq!(names(&all, None, 2), ("ab".into(), Some("b".into())));
    assert_eq!(names(&all, Some("b"), 2), ("c".into(), None));
    let in_group = AgentFilter { group: Some("g".parse().unwrap()), state: None };
    assert_eq!(names(&in_group, None, 9).0, "ac");
    world.write(|w| revoke(w, world.id("a")));
    let revoked = AgentFilter { state: Some(AgentState::Revoked), group: None };
    assert_eq!(names(&revoked, None, 9).0, "a");
}

#[test]
fn names_and_groups_change_at_the_version_that_was_seen() {
    let world = World::with_agents(&["a", "b"]);
    let agent = world.agent("a");
    let to = |name: &str| AgentPatch { name: Some(name.parse().unwrap()), groups: None, must_seal: None };
    let try_to = |patch: &AgentPatch, version| world.try_write(|w| update(w, agent.id, version, patch));
    assert!(matches!(try_to(&to("x"), Some(agent.version + 1)), Err(DbError::Stale)));
    assert!(matches!(try_to(&to("b"), None), Err(DbError::Conflict(_))));
    assert!(matches!(try_to(&to("group"), None), Err(DbError::Invalid(_))));
    let groups = AgentPatch {
        name: Some("x".parse().unwrap()),
        groups: Some(vec!["g".parse().unwrap()]),
        must_seal: None,
    };
    let after = try_to(&groups, Some(agent.version)).unwrap();
    assert_eq!((after.name.as_str(), after.groups.len(), after.version), ("x", 1, agent.version + 1));
    let many = AgentPatch {
        name: None,
        groups: Some((0..65).map(|n| format!("g{n}").parse().unwrap()).collect()),
        must_seal: None,
    };
    assert!(matches!(try_to(&many, None), Err(DbError::Invalid(_))));
}

#[test]
fn a_group_is_there_as_long_as_somebody_is_in_it() {
    let world = World::with_agents(&["a", "b"]);
    let name: Name = "g".parse().unwrap();
    world.group("g", &["b", "a", "a"]);
    world.group("h", &["b"]);
    let members = world.read(|db| group(db, &name)).members;
    assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let page = world.read(|db| groups(db, None, 1));
    assert_eq!((page.items.len(), page.next.as_deref()), (1, Some("g")));
    assert_eq!(world.actions().iter().filter(|action| *action == "agent.groups").count(), 3);
    world.write(|w| leave_group(w, world.id("a"), &name));
    world.write(|w| leave_group(w, world.id("b"), &name));
    assert!(matches!(world.db.read(|db| group(db, &name)), Err(DbError::NotFound("group"))));
}

#[test]
fn a_certificate_leaves_its_record() {
    let world = World::with_agents(&["a"]);
    world.db.write(&Actor::system(), |w| certified(w, world.id("a"), 77)).unwrap();
    assert_eq!(world.agent("a").certificate_expires_ms, 77);
    assert_eq!(world.actions().last().unwrap(), "agent.certificate");
    assert_eq!(world.read(|db| by_key(db, &key("a"))).id, world.id("a"));
    let seen_after = |ms| {
        world.pass_ms(ms);
        world.write(|w| seen(w, world.id("a")));
        world.agent("a").seen_ms - world.agent("a").created_ms
    };
    assert_eq!((seen_after(59_999), seen_after(1)), (0, 60_000), "not written for every word");
}
