//! Who becomes an agent, and who does not.

use sealift_tests::control::{Agent, Daemon, until};
use serde_json::json;

#[test]
fn a_wrong_pin_is_refused_by_the_agent() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("one", 1, true);
    let stranger = Agent::stranger("alpha");
    let refused = stranger.try_join(&daemon, &"0".repeat(64), &token);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(daemon.audited("agent.enrol").is_empty(), "nothing was asked of the daemon");
}

#[test]
fn a_token_lets_in_as_many_as_it_says_and_refusals_are_audited() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("one", 1, true);
    let _alpha = Agent::join(&daemon, "alpha", &token);
    let second = Agent::stranger("beta").try_join(&daemon, &daemon.pin, &token);
    assert_eq!(second.code, Some(4), "{second:?}");
    let unknown = token.with_extension("unknown");
    std::fs::write(&unknown, format!("slenrol1{}", "a".repeat(52))).unwrap();
    let third = Agent::stranger("gamma").try_join(&daemon, &daemon.pin, &unknown);
    assert_eq!(third.code, Some(4), "{third:?}");
    assert_eq!(daemon.audited("agent.enrol.refused").len(), 2);
}

#[test]
fn an_agent_without_approval_waits_for_an_operator() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("slow", 1, false);
    std::thread::scope(|scope| {
        let stranger = Agent::stranger("alpha");
        let joining = scope.spawn({
            let daemon_pin = daemon.pin.clone();
            let (agents, token) = (daemon.agents, token.clone());
            move || stranger.try_join_at(agents, &daemon_pin, &token)
        });
        let waiting = until("an agent waits", || {
            let page = daemon.api("GET", "agents?state=pending", None);
            page["items"].as_array().unwrap().first().cloned()
        });
        daemon.api("POST", &format!("agents/{}/approve", waiting["id"].as_str().unwrap()), None);
        let joined = joining.join().unwrap();
        assert_eq!(joined.code, Some(0), "{joined:?}");
    });
}

#[test]
fn c3_two_agents_of_one_identity_are_quarantined() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("one", 1, true);
    let mut alpha = Agent::join(&daemon, "alpha", &token);
    alpha.start();
    let id = until("alpha is connected", || {
        let page = daemon.api("GET", "agents", None);
        let agent = &page["items"][0];
        (agent["connected"] == json!(true) && agent["acked_document"] == agent["document"])
            .then(|| agent["id"].as_str().unwrap().to_owned())
    });
    // A copy of the machine, made now; then the original goes on by itself for a while.
    let mut copy = alpha.cloned();
    alpha.kill();
    alpha.start();
    let state = |wanted: &str| {
        until(&format!("alpha is {wanted}"), || {
            let agent = daemon.api("GET", &format!("agents/{id}"), None);
            (agent["state"] == wanted).then_some(())
        });
    };
    until("alpha is connected again", || {
        let agent = daemon.api("GET", &format!("agents/{id}"), None);
        (agent["connected"] == json!(true)).then_some(())
    });
    copy.start();
    state("quarantined");
    assert_eq!(daemon.audited("agent.quarantine").len(), 1);
}
