//! What goes wrong with a daemon and its agents, and what they then do: one test or more a row of the list of hazards.

mod damage;
mod names;
mod revoked;
mod time;

use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::{Document, Hello};
use sealift_tests::control::{Agent, Daemon, until};
use sealift_tests::fleet::Puppet;
use serde_json::{Value, json};

/// A daemon with agents of these names that run.
fn with_agents<const N: usize>(names: [&str; N]) -> (Daemon, [Agent; N]) {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("many", u32::try_from(N).expect("few"), true);
    let agents = names.map(|name| {
        let mut agent = Agent::join(&daemon, name, &token);
        agent.start();
        agent
    });
    (daemon, agents)
}

/// An agent that the test speaks for.
fn puppet(daemon: &Daemon, name: &str) -> Puppet {
    let token = daemon.enrolment_token(name, 1, true);
    Puppet::enrol(daemon, name, &std::fs::read_to_string(token).expect("a token"))
}

/// Defines a job and starts it.
fn start(daemon: &Daemon, name: &str, from: &str, to: &[String]) -> (String, String) {
    let spec = json!({ "kind": "distribution", "from": [from], "to": to });
    let job = daemon.api("POST", "jobs", json!({ "name": name, "spec": spec }));
    let job = job["id"].as_str().expect("an id").to_owned();
    let run = run_again(daemon, &job);
    (job, run)
}

fn run_again(daemon: &Daemon, job: &str) -> String {
    let run = daemon.api("POST", &format!("jobs/{job}/runs"), None);
    run["id"].as_str().expect("an id").to_owned()
}

fn agent(daemon: &Daemon, name: &str) -> Value {
    let page = daemon.api("GET", "agents", None);
    let found = page["items"].as_array().expect("a list").iter().find(|agent| agent["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is an agent")).clone()
}

fn id_of(daemon: &Daemon, name: &str) -> String {
    agent(daemon, name)["id"].as_str().expect("an id").to_owned()
}

/// Waits until an agent is connected and has its newest document.
fn is_up(daemon: &Daemon, name: &str) {
    until(&format!("{name} is up"), || {
        let agent = agent(daemon, name);
        (agent["connected"] == json!(true) && agent["acked_document"] == agent["document"]).then_some(())
    });
}

fn has_ended(daemon: &Daemon, run: &str) -> Value {
    daemon.run_until(run, "the run ends", |run| run["state"] != "running")
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, ..Hello::default() }
}

fn document(body: Option<Body>) -> Document {
    match body {
        Some(Body::Document(document)) => document,
        other => panic!("a document comes first, and not {other:?}"),
    }
}

#[test]
fn c8_versions_are_negotiated_or_refused_with_a_word() {
    let daemon = Daemon::start();
    let mut puppet = puppet(&daemon, "alpha");
    for (version_min, version_max) in [(2, 3), (0, 0), (7, u32::MAX), (3, 2)] {
        match puppet.hello(Hello { version_min, version_max, ..hello() }).unwrap() {
            Some(Body::Goodbye(goodbye)) => {
                assert_eq!(goodbye.reason(), Reason::Version, "{version_min} to {version_max}");
                assert!(goodbye.message.contains("speaks version 1"), "{goodbye:?}");
            }
            other => panic!("{version_min} to {version_max}: {other:?}"),
        }
        assert_eq!(agent(&daemon, "alpha")["connected"], json!(false));
    }
    // An older one, and one that knows later versions beside this one; nothing of what was refused stays.
    for (version_min, version_max) in [(0, 1), (1, 9), (1, 1)] {
        let said = document(
            puppet.hello(Hello { version_min, version_max, incarnation: vec![], ..hello() }).unwrap(),
        );
        assert_eq!(said.incarnation.len(), 16, "{version_min} to {version_max}");
    }
}

#[test]
fn c4_an_incarnation_that_was_replaced_is_found_out() {
    let daemon = Daemon::start();
    let mut puppet = puppet(&daemon, "alpha");
    let with = |incarnation: &[u8]| Hello { incarnation: incarnation.to_vec(), ..hello() };
    let first = document(puppet.hello(hello()).unwrap());
    puppet.acknowledge(&first);
    is_up(&daemon, "alpha");
    let second = document(puppet.hello(with(&first.incarnation)).unwrap());
    assert_ne!(first.incarnation, second.incarnation);
    // It was given and not acknowledged: the agent may have it on its disk or not. Both are believed.
    let third = document(puppet.hello(with(&first.incarnation)).unwrap());
    puppet.acknowledge(&third);
    let has_acked = |wanted: &Document| {
        // An acknowledgement has no answer: what the next hello brings shows that it was taken.
        until("it is taken", || {
            (agent(&daemon, "alpha")["seen_ms"].as_i64() > Some(0)).then_some(wanted.number)
        })
    };
    has_acked(&third);
    let fourth = document(puppet.hello(with(&third.incarnation)).unwrap());
    puppet.acknowledge(&fourth);
    // A snapshot of before comes back.
    match puppet.hello(with(&first.incarnation)).unwrap() {
        Some(Body::Goodbye(goodbye)) => assert_eq!(goodbye.reason(), Reason::Quarantined, "{goodbye:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent(&daemon, "alpha")["state"], "quarantined");
    assert_eq!(daemon.audited("agent.quarantine").len(), 1);
}

#[test]
fn c4_an_agent_restored_from_an_old_snapshot_is_quarantined_until_it_is_released() {
    let (daemon, [mut alpha]) = with_agents(["alpha"]);
    is_up(&daemon, "alpha");
    let mut old = alpha.cloned();
    // It goes on: each start is another incarnation.
    for _ in 0..2 {
        let before = agent(&daemon, "alpha")["seen_ms"].as_i64();
        alpha.kill();
        alpha.start();
        until("alpha is connected again", || {
            (agent(&daemon, "alpha")["seen_ms"].as_i64() > before).then_some(())
        });
        is_up(&daemon, "alpha");
    }
    alpha.kill();
    old.start();
    until("it is quarantined", || (agent(&daemon, "alpha")["state"] == "quarantined").then_some(()));
    until("the agent knows", || old.state().join("agent/barred").exists().then_some(()));
    let told = daemon.api("GET", "events?severity=security", None);
    let told = told["items"].as_array().unwrap();
    assert!(told.iter().any(|event| event["message"].as_str().unwrap().contains("quarantined")), "{told:?}");
    daemon.api("POST", &format!("agents/{}/release", id_of(&daemon, "alpha")), None);
    old.kill();
    old.start();
    is_up(&daemon, "alpha");
    until("nothing bars it", || (!old.state().join("agent/barred").exists()).then_some(()));
}

#[test]
fn c3_both_copies_are_cut_off_and_it_is_told() {
    let (daemon, [mut alpha]) = with_agents(["alpha"]);
    is_up(&daemon, "alpha");
    let mut copy = alpha.cloned();
    let before = agent(&daemon, "alpha")["seen_ms"].as_i64();
    alpha.kill();
    alpha.start();
    until("alpha is connected again", || {
        (agent(&daemon, "alpha")["seen_ms"].as_i64() > before).then_some(())
    });
    is_up(&daemon, "alpha");
    copy.start();
    for (which, agent) in [("the copy", &copy), ("the original, which was connected", &alpha)] {
        until(&format!("{which} is barred"), || agent.state().join("agent/barred").exists().then_some(()));
    }
    assert_eq!(agent(&daemon, "alpha")["connected"], json!(false));
    let told = daemon.api("GET", "events?severity=security", None);
    let message = told["items"][0]["message"].as_str().unwrap();
    assert!(message.contains("two copies of it are running"), "{message}");
}
