//! What the API promises beside its resources: streams, requests that are sent twice, settings, metrics, limits.

use sealift_tests::control::{Agent, As, Daemon};
use sealift_tests::tree;
use serde_json::json;
use std::time::{Duration, Instant};

/// A token of the administrator's: its id and its secret.
fn token(daemon: &Daemon, name: &str, role: &str) -> (String, String) {
    let made = daemon.api("POST", "tokens", json!({ "name": name, "role": role, "expires_in_seconds": 600 }));
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    (text(&made["token"]["id"]), text(&made["secret"]))
}

#[test]
fn a_stream_goes_on_after_what_was_had_also_over_a_restart() {
    let mut daemon = Daemon::start();
    let several = daemon.enrolment_token("several", 4, true);
    let _alpha = Agent::join(&daemon, "alpha", &several);
    let mut stream = daemon.stream(As::Administrator, "events/stream?after=0", "");
    assert_eq!(stream.status, 200);
    let first = stream.next_frame().unwrap();
    assert_eq!((first.name.as_str(), &first.data["message"]), ("event", &json!("agent alpha has enrolled")));
    let _beta = Agent::join(&daemon, "beta", &several);
    let second = stream.next_frame().unwrap();
    assert_eq!(second.data["message"], "agent beta has enrolled");
    daemon.kill();
    assert!(stream.next_frame().is_none());
    daemon.serve();
    daemon.log_in();
    let _gamma = Agent::join(&daemon, "gamma", &several);
    // As a browser does that comes again: by the same address, which says where it once began.
    let had = format!("last-event-id: {}\r\n", first.id);
    let mut stream = daemon.stream(As::Administrator, "events/stream?after=0&severity=info", &had);
    let again: Vec<_> = (0..2).map(|_| stream.next_frame().unwrap()).collect();
    assert_eq!((&again[0].id, &again[0].data), (&second.id, &second.data));
    assert_eq!(again[1].data["message"], "agent gamma has enrolled");
    // What was never told by this daemon is said to be missing, and the stream goes on.
    let mut stream = daemon.stream(As::Administrator, "events/stream?after=1000000", "");
    assert_eq!(stream.next_frame().unwrap().name, "gap");
    assert_eq!(stream.next_frame().unwrap().data["message"], "agent alpha has enrolled");
    let refused = daemon.stream(As::Administrator, "events/stream", "last-event-id: x\r\n");
    assert_eq!(refused.status, 400);
}

#[test]
fn a_stream_ends_with_its_token_and_with_the_daemon_and_there_are_so_many() {
    let mut daemon = Daemon::start();
    let (id, secret) = token(&daemon, "watcher", "viewer");
    let mut stream = daemon.stream(As::Token(&secret), "events/stream", "");
    let mut others: Vec<_> = (0..15).map(|_| daemon.stream(As::Administrator, "events/stream", "")).collect();
    assert!(others.iter().all(|stream| stream.status == 200));
    assert_eq!(daemon.stream(As::Administrator, "events/stream", "").status, 429);
    let begun = Instant::now();
    daemon.api("DELETE", &format!("tokens/{id}"), None);
    assert!(stream.next_frame().is_none());
    assert!(begun.elapsed() < Duration::from_secs(30), "after {:?}", begun.elapsed());
    assert_eq!(daemon.stream(As::Token(&secret), "events/stream", "").status, 401);
    let ended = daemon.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for stream in &mut others {
        assert!(stream.next_frame().is_none());
    }
}

#[test]
fn a_run_is_watched_until_it_is_over() {
    let daemon = Daemon::start();
    let two = daemon.enrolment_token("two", 2, true);
    let mut agents = ["alpha", "beta"].map(|name| Agent::join(&daemon, name, &two));
    tree::small_files(&agents[0].data().join("src"), 500, 2);
    let spec = json!({
        "kind": "distribution", "from": [agents[0].endpoint("src")], "to": [agents[1].endpoint("dest")],
    });
    let job = daemon.api("POST", "jobs", json!({ "name": "models", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().unwrap()), None);
    let path = format!("runs/{}/stream", run["id"].as_str().unwrap());
    let mut stream = daemon.stream(As::Administrator, &path, "");
    let mut states = Vec::new();
    while let Some(frame) = stream.next_frame() {
        if states.is_empty() {
            agents.iter_mut().for_each(Agent::start);
        }
        assert_eq!((frame.name.as_str(), &frame.data["id"]), ("run", &run["id"]));
        states.push(frame.data["state"].as_str().unwrap().to_owned());
    }
    assert!(states.len() > 1 && states.last().unwrap() == "done", "{states:?}");
    // Of one that is over there is that to say.
    let mut stream = daemon.stream(As::Administrator, &path, "");
    assert_eq!(stream.next_frame().unwrap().data["state"], "done");
    assert!(stream.next_frame().is_none());
    let nothing = format!("runs/{}/stream", job["id"].as_str().unwrap());
    assert_eq!(daemon.stream(As::Administrator, &nothing, "").status, 404);
}

#[test]
fn a_request_that_is_sent_twice_is_carried_out_once() {
    let mut daemon = Daemon::start();
    let new = json!({ "name": "twice", "uses": 1, "expires_in_seconds": 600 });
    let ask = |daemon: &Daemon, key: &str, new: &serde_json::Value| {
        let key = format!("idempotency-key: {key}");
        daemon.call_with(As::Administrator, "POST", "enrolment-tokens", new.clone(), &[&key])
    };
    let first = ask(&daemon, "one", &new);
    assert_eq!(first.status, 201, "{first:?}");
    daemon.kill();
    daemon.serve();
    daemon.log_in();
    let again = ask(&daemon, "one", &new);
    assert_eq!((again.status, &again.body), (201, &first.body), "its secret too");
    assert!(again.head.contains("idempotency-replayed: true"), "{again:?}");
    assert_eq!(daemon.audited("enrolment_token.create").len(), 1);
    let other = json!({ "name": "twice", "uses": 2, "expires_in_seconds": 600 });
    assert_eq!(ask(&daemon, "one", &other).status, 422);
    assert_eq!(ask(&daemon, "no key", &new).status, 400);
    // What failed is tried anew.
    let user = json!({ "name": "eve", "role": "viewer", "password": "short" });
    let key = "idempotency-key: user";
    let ask = |user| daemon.call_with(As::Administrator, "POST", "users", user, &[key]);
    assert_eq!(ask(user).status, 422);
    let user = json!({ "name": "eve", "role": "viewer", "password": "a long enough one" });
    let (made, again) = (ask(user.clone()), ask(user));
    assert_eq!((made.status, again.status), (201, 201), "{again:?}");
    assert!(made.head.contains("etag: \"1\"") && again.head.contains("etag: \"1\""), "{again:?}");
    // The keys of one user are not those of another.
    let (_, secret) = token(&daemon, "own", "administrator");
    let own =
        daemon.call_with(As::Token(&secret), "POST", "enrolment-tokens", new, &["idempotency-key: one"]);
    assert!(own.head.contains("idempotency-replayed: true"), "a token is its user: {own:?}");
}

#[test]
fn of_requests_with_one_key_at_a_time_one_is_carried_out() {
    let daemon = Daemon::start();
    let (_, secret) = token(&daemon, "many", "administrator");
    let user = json!({ "name": "eve", "role": "viewer", "password": "a long enough one" });
    let answers = daemon.call_together(8, As::Token(&secret), "POST", "users", user, &["idempotency-key: k"]);
    for answer in &answers {
        let busy = answer.status == 409 && answer.body["type"] == "/problems/idempotency-key-busy";
        assert!(busy || answer.status == 201, "{answer:?}");
    }
    assert!(answers.iter().any(|answer| answer.status == 201));
    assert_eq!(daemon.audited("user.create").len(), 2, "the administrator, and eve");
}

#[test]
fn settings_are_of_a_version_and_hold_at_once() {
    let daemon = Daemon::start();
    let ask = |tag: &str, body| {
        daemon.call_with(As::Administrator, "PATCH", "settings", body, &[&format!("if-match: {tag}")])
    };
    let first = daemon.call(As::Administrator, "GET", "settings", None);
    assert!(first.head.contains("etag: \"1\""), "{first:?}");
    let patch = json!({ "approve_every_agent": true, "agent_certificate_seconds": 7200 });
    assert_eq!(ask("\"7\"", patch.clone()).status, 412);
    assert!(ask("\"1\"", patch).ok()["approve_every_agent"] == true);
    assert_eq!(ask("*", json!({ "session_seconds": 1 })).status, 422);
    assert_eq!(ask("*", json!({ "nonsense": 1 })).status, 422);
    let changed = daemon.audited("settings.update");
    let text = |name: &str| changed[0][name].as_str().expect("JSON").to_owned();
    assert!(text("before").contains("\"agent_certificate_seconds\":86400"), "{changed:?}");
    assert!(text("after").contains("\"agent_certificate_seconds\":7200"), "{changed:?}");
}

#[test]
fn metrics_are_told_and_logins_without_end_are_few_records() {
    let daemon = Daemon::start();
    let guess = || {
        let body = json!({ "name": "admin", "password": "guessed at random" });
        daemon.call(As::Nobody, "POST", "login", body)
    };
    let answers: Vec<_> = (0..60).map(|_| guess()).collect();
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(limited.len() > 50, "{limited:?}");
    assert!(limited.iter().all(|answer| answer.head.contains("retry-after: ")), "{limited:?}");
    assert!(limited.iter().any(|answer| answer.body["type"] == "/problems/rate"), "{limited:?}");
    assert!((1..=2).contains(&daemon.audited("login.locked").len()));
    assert_eq!(daemon.call(As::Nobody, "GET", "metrics", None).status, 401);
    let told = daemon.call(As::Administrator, "GET", "metrics", None);
    assert!(told.head.contains("content-type: text/plain; version=0.0.4"), "{told:?}");
    let text = told.body.as_str().expect("text");
    for line in [
        "sealift_agents{state=\"approved\"} 0",
        "sealift_logins_refused_total 60",
        "sealift_http_requests_total{method=\"GET\",route=\"/api/v1/metrics\",status=\"401\"} 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
}
