//! Every command, over a real daemon and real agents.

use super::{Operator, agents, mode};
use sealift_tests::control::{Agent, Daemon, PASSWORD, until};
use sealift_tests::tree;
use serde_json::Value;
use std::time::Duration;

fn id(item: &Value) -> &str {
    item["id"].as_str().expect("an id")
}

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

#[test]
fn a_directory_is_distributed_by_commands_alone() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let all = agents(&daemon, &operator, ["alpha", "beta", "gamma"]);
    tree::mixed(&all[0].data().join("src"), 200, 1);
    let from = all[0].endpoint("src");
    let to = [all[1].endpoint("dest"), all[2].endpoint("dest")];
    let create = ["job", "create", "--kind", "distribution", "--from", &from, "--to", &to[0], "--to", &to[1]];
    let made = operator.run(&create).args(["--start", "--wait"]).finish().expect(0);
    assert!(made.stderr.contains("beta (destination) is done"), "{made:#?}");
    assert!(made.stdout.contains("state:    done"), "{made:#?}");
    for agent in &all[1..] {
        let (src, dest) = (all[0].data().join("src"), agent.data().join("dest"));
        tree::assert_same(&src, &dest, tree::SpecialModes::Dropped);
    }

    // It is named after its directory, and may be so but once.
    let jobs = operator.json(&["job", "list"]);
    assert_eq!(names(&jobs), ["src"]);
    assert!(operator.fails(&create, 1).contains("src"));
    assert!(operator.does(&["job", "list"]).contains(&from));
    assert_eq!(operator.json(&["job", "show", "src"]), operator.json(&["job", "show", id(&jobs[0])]));
    assert!(operator.does(&["job", "show", "src"]).contains("sha256"));

    // A change keeps what it does not name.
    let changed = operator.json(&["job", "update", "src", "--name", "models", "--schedule", "30 2 * * *"]);
    assert_eq!(changed[0]["name"], "models");
    assert_eq!(changed[0]["spec"]["schedule"]["time_zone"], "UTC");
    let zone = ["job", "update", "models", "--time-zone", "Europe/Berlin", "--delete", "--hash", "blake3"];
    let changed = operator.json(&zone);
    assert_eq!(changed[0]["spec"]["schedule"]["cron"], "30 2 * * *");
    assert_eq!(changed[0]["spec"]["schedule"]["time_zone"], "Europe/Berlin");
    assert_eq!(changed[0]["spec"]["delete"], true);
    assert_eq!(changed[0]["spec"]["to"].as_array().unwrap().len(), 2);
    operator.fails(&["job", "update", "models", "--schedule", "61 2 * * *"], 2);
    let changed = operator.json(&["job", "update", "models", "--schedule", "none", "--no-delete"]);
    assert!(changed[0]["spec"]["schedule"].is_null() && changed[0]["spec"]["delete"] == false);
    let epoch = changed[0]["epoch"].as_u64().unwrap();
    let rotated = operator.json(&["job", "rotate-keys", "models"]);
    assert_eq!(rotated[0]["epoch"].as_u64(), Some(epoch + 1));

    // Runs by their ids, and the newest by the job's name.
    let started = operator.json(&["run", "start", "models", "--wait"]);
    assert_eq!(started.last().unwrap()["state"], "done", "{started:#?}");
    let runs = operator.json(&["run", "list", "--job", "models"]);
    assert_eq!(runs.len(), 2);
    assert_eq!(id(&runs[0]), id(&started[0]));
    assert_eq!(operator.json(&["run", "list", "--limit", "1"]).len(), 1);
    let listed = operator.run(&["run", "list", "--limit", "1"]).finish().expect(0);
    assert!(listed.stderr.contains("--limit"), "{listed:?}");
    let newest = operator.json(&["run", "show", "models"]);
    assert_eq!(newest, operator.json(&["run", "show", id(&runs[0])]));
    assert_eq!(newest[0]["agents"].as_array().unwrap().len(), 3);
    assert!(operator.does(&["run", "show", "models"]).contains("gamma"));
    // One that has ended is watched no longer than that.
    operator.does(&["run", "watch", "models"]);

    assert!(operator.fails(&["job", "show", "none"], 1).contains("sealift job list"));
    assert!(operator.fails(&["run", "show", "none"], 1).contains("sealift run list"));
    operator.does(&["job", "delete", "models"]);
    assert!(operator.json(&["job", "list"]).is_empty());

    // Who did it is known.
    let records = operator.json(&["audit", "list", "--action", "job.create"]);
    assert_eq!(records.len(), 1);
    assert!(records[0]["actor"].as_str().unwrap().starts_with("token:admin/cli."), "{records:#?}");
    assert!(operator.does(&["audit", "list", "--action", "job."]).contains("job.delete"));
    let none = operator.json(&["audit", "list", "--until", "2020-01-01T00:00:00Z"]);
    assert!(none.is_empty());
    assert!(!operator.json(&["audit", "list", "--since", "2020-01-01T00:00:00Z", "--limit", "3"]).is_empty());
}

#[test]
fn runs_that_do_not_succeed_end_their_commands_so() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let all = agents(&daemon, &operator, ["alpha", "beta", "gamma"]);
    tree::file(&all[0].data().join("src/x"), "x");
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = |agent: &str| format!("{agent}:{}", elsewhere.path().join("dest").display());
    let create = |name: &str, to: &[&str]| {
        let from = all[0].endpoint("src");
        let mut words = vec!["job", "create", "--name", name, "--kind", "distribution", "--from", &from];
        words.extend(to.iter().flat_map(|to| ["--to", to]));
        operator.does(&words);
    };
    create("nowhere", &[&refused("beta")]);
    assert!(operator.fails(&["run", "start", "nowhere", "--wait"], 1).contains("failed"));
    create("half", &[&refused("beta"), &all[2].endpoint("dest")]);
    operator.fails(&["run", "start", "half", "--wait"], 3);
    let last = operator.run(&["run", "watch", "half", "--json"]).finish().expect(3);
    assert_eq!(last.events.last().unwrap()["state"], "partial");
}

#[test]
fn a_run_is_paused_resumed_and_stopped_and_its_watcher_is_told() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let mut all = agents(&daemon, &operator, ["alpha", "beta"]);
    tree::file(&all[0].data().join("src/x"), "x");
    // Nobody takes it: it goes on until somebody ends it.
    all[1].kill();
    let (from, to) = (all[0].endpoint("src"), all[1].endpoint("dest"));
    operator.does(&[
        "job",
        "create",
        "--name",
        "models",
        "--kind",
        "distribution",
        "--from",
        &from,
        "--to",
        &to,
    ]);
    let run = operator.json(&["run", "start", "models"]);
    let run = id(&run[0]).to_owned();
    let mut watcher = operator.run(&["run", "watch", &run, "--json"]).start();
    watcher.wait_until("it is watched", |run| run["state"] == "running");
    // What everybody on the host can see has no secret.
    let line = std::fs::read(format!("/proc/{}/cmdline", watcher.id())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains(&operator.token()));
    assert_eq!(operator.json(&["run", "pause", "models"])[0]["state"], "paused");
    watcher.wait_until("the watcher is told", |run| run["state"] == "paused");
    assert_eq!(operator.json(&["run", "resume", &run])[0]["state"], "running");
    watcher.wait_until("the watcher is told", |run| run["state"] == "running");
    assert!(operator.does(&["run", "stop", &run]).contains("stopped"));
    let ended = watcher.finish().expect(1);
    assert_eq!(ended.events.last().unwrap()["state"], "stopped");
    operator.fails(&["run", "resume", &run], 1);
}

#[test]
fn a_watcher_waits_for_a_daemon_that_is_away() {
    let mut daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let mut all = agents(&daemon, &operator, ["alpha", "beta"]);
    tree::mixed(&all[0].data().join("src"), 20, 3);
    all[1].kill();
    let (from, to) = (all[0].endpoint("src"), all[1].endpoint("dest"));
    operator.does(&[
        "job",
        "create",
        "--name",
        "models",
        "--kind",
        "distribution",
        "--from",
        &from,
        "--to",
        &to,
    ]);
    let run = operator.json(&["run", "start", "models"]);
    let mut watcher = operator.run(&["run", "watch", id(&run[0]), "--json"]).start();
    watcher.wait_until("it is watched", |run| run["state"] == "running");
    daemon.kill();
    operator.fails(&["job", "list"], 5);
    daemon.serve();
    all[1].start();
    let ended = watcher.finish().expect(0);
    assert_eq!(ended.events.last().unwrap()["state"], "done");
}

#[test]
fn agents_are_shown_approved_grouped_and_shut_out() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let all = agents(&daemon, &operator, ["alpha", "beta"]);
    let listed = operator.json(&["agent", "list"]);
    assert_eq!(names(&listed), ["alpha", "beta"]);
    assert!(operator.does(&["agent", "list", "--group", "dc2"]).contains("approved"));
    assert!(operator.json(&["agent", "list", "--state", "pending"]).is_empty());
    let groups = operator.json(&["agent", "groups"]);
    assert_eq!(names(&groups), ["dc2"]);
    operator.does(&["agent", "set", "alpha", "--group", "web", "--group", "dc3"]);
    assert_eq!(operator.json(&["agent", "list", "--group", "web"]).len(), 1);
    operator.does(&["agent", "set", id(&listed[0]), "--no-groups", "--name", "omega"]);
    let omega = operator.json(&["agent", "show", "omega"]);
    assert_eq!(id(&omega[0]), id(&listed[0]));
    assert!(omega[0]["groups"].as_array().unwrap().is_empty());

    // A name that is another's id names two: nobody guesses which.
    operator.does(&["agent", "set", "beta", "--name", id(&listed[0])]);
    assert!(operator.fails(&["agent", "show", id(&listed[0])], 2).contains("more than one"));
    operator.fails(&["agent", "revoke", id(&listed[0])], 2);
    assert_eq!(operator.json(&["agent", "show", "omega"])[0]["state"], "approved");
    operator.does(&["agent", "set", id(&listed[1]), "--name", "beta"]);

    // Of several, one that is not there does not keep the others from it.
    let said = operator.fails(&["agent", "revoke", "none", "beta"], 1);
    assert!(said.contains("beta is revoked") && said.contains("no agent none"), "{said}");
    assert_eq!(operator.json(&["agent", "show", "beta"])[0]["state"], "revoked");
    operator.fails(&["agent", "release", "omega"], 1);
    let waiting = operator.home.path().join("waiting.token");
    operator.does(&["token", "create", "--name", "waiting", "--write", waiting.to_str().unwrap()]);
    std::thread::scope(|scope| {
        let stranger = Agent::stranger("gamma");
        let (pin, address, token) = (daemon.pin.clone(), daemon.agents, waiting.clone());
        let joining = scope.spawn(move || stranger.try_join_at(address, &pin, &token));
        until("gamma waits", || {
            (!operator.json(&["agent", "list", "--state", "pending"]).is_empty()).then_some(())
        });
        operator.does(&["agent", "approve", "gamma"]);
        let _ = joining.join().unwrap().expect(0);
    });
    drop(all);
}

#[test]
fn secrets_go_where_they_are_sent() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let file = operator.home.path().join("rack.token");
    let shown = file.to_str().unwrap();
    let said = operator.run(&["token", "create", "--name", "rack", "--write", shown]).finish().expect(0);
    let secret = std::fs::read_to_string(&file).unwrap();
    assert!(secret.starts_with("slenrol1") && secret.ends_with('\n'), "{said:?}");
    assert_eq!(mode(&file), 0o600);
    assert!(!said.stdout.contains(secret.trim()) && !said.stderr.contains(secret.trim()), "{said:?}");
    let json = operator.json(&["token", "create", "--name", "rack2", "--write", shown]);
    assert_eq!(json[0]["name"], "rack2");
    assert!(json[0]["secret"].is_null());
    // On standard output there is nothing but the secret, for a pipe.
    let piped = operator.does(&["token", "create", "--name", "rack3"]);
    assert!(piped.starts_with("slenrol1") && piped.lines().count() == 1, "{piped}");
    // No token is made that could not be kept.
    operator.fails(&["token", "create", "--name", "lost", "--write", "/nowhere/token"], 1);
    assert_eq!(names(&operator.json(&["token", "list"])), ["rack3", "rack2", "rack"]);
    operator.does(&["token", "revoke", "rack2"]);
    operator.fails(&["token", "revoke", "rack2"], 1);
    assert!(!operator.json(&["token", "list"])[1]["revoked_ms"].is_null());

    // A token makes no tokens: the password does.
    let api = operator.home.path().join("api.token");
    let words = ["token", "api", "create", "--name", "nightly", "--role", "viewer", "--password-stdin"];
    let to = ["--write", api.to_str().unwrap()];
    let _ = operator.run(&words).args(to).stdin("not the right one").finish().expect(4);
    assert!(!api.exists());
    let _ = operator.run(&words).args(to).stdin(PASSWORD).finish().expect(0);
    assert_eq!(mode(&api), 0o600);
    let nightly = std::fs::read_to_string(&api).unwrap();
    let run = |words: &[&str]| operator.run(words).env("SEALIFT_API_TOKEN", nightly.trim()).finish();
    let _ = run(&["job", "list"]).expect(0);
    let refused = run(&["token", "create", "--name", "x"]).expect(4);
    assert!(refused.stderr.contains("operator"), "{refused:?}");
    operator.does(&["token", "api", "revoke", "nightly"]);
    let _ = run(&["job", "list"]).expect(4);
}

#[test]
fn users_are_managed() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let create = operator.run(&["user", "create", "eve", "--role", "viewer", "--password-stdin"]);
    let _ = create.stdin("a long enough one").finish().expect(0);
    assert_eq!(names(&operator.json(&["user", "list"])), ["admin", "eve"]);
    let short = operator.run(&["user", "create", "bob", "--role", "viewer", "--password-stdin"]);
    let _ = short.stdin("short").finish().expect(2);
    assert_eq!(operator.json(&["user", "set", "eve", "--role", "operator"])[0]["role"], "operator");
    assert!(operator.does(&["user", "set", "eve", "--disable"]).contains("disabled"));
    operator.does(&["user", "set", "eve", "--enable"]);
    let set = operator.run(&["user", "set", "eve", "--password-stdin"]).stdin("another long one").finish();
    let _ = set.expect(0);
    let eve = Operator::new();
    let web = daemon.web.to_string();
    let words = ["login", &web, "--user", "eve", "--pin", &daemon.pin, "--password-stdin"];
    let _ = eve.run(&words).stdin("another long one").finish().expect(0);
    eve.fails(&["user", "list"], 4);
    eve.fails(&["audit", "list"], 4);
    eve.does(&["job", "list"]);
    operator.does(&["user", "delete", "eve"]);
    eve.fails(&["job", "list"], 4);
}

#[test]
fn events_are_followed() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let all = agents(&daemon, &operator, ["alpha", "beta"]);
    let mut follower = operator
        .run(&["events", "--follow", "--json", "--limit", "1"])
        .patience(Duration::from_secs(60))
        .start();
    tree::file(&all[0].data().join("src/x"), "x");
    let (from, to) = (all[0].endpoint("src"), "beta:/not/allowed".to_owned());
    let refused = ["job", "create", "--name", "sly", "--kind", "distribution", "--from", &from, "--to", &to];
    let _ = operator.run(&refused).args(["--start", "--wait"]).finish().expect(1);
    let listed = operator.json(&["events", "--job", "sly"]);
    assert!(!listed.is_empty(), "nothing has happened");
    let last = listed.last().unwrap()["number"].as_u64();
    let seen = follower.wait_until("the event is seen", |event| event["number"].as_u64() == last);
    assert_eq!(&seen, listed.last().unwrap());
    follower.kill();
    // The oldest first, and by whom they are of.
    let numbers: Vec<_> =
        operator.json(&["events"]).iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(operator.does(&["events", "--agent", "beta", "--run", "sly"]).contains("SEVERITY"));
}

#[test]
fn a20_names_that_could_drive_a_terminal_are_escaped() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let token = daemon.enrolment_token("one", 1, true);
    let stranger = Agent::stranger("alpha");
    let joined = sealift_tests::process::Run::with(["agent", "join", "--name", "alpha"])
        .arg(daemon.agents.to_string())
        .args(["--pin", &daemon.pin, "--allow-read", "/data/\u{1b}[2J\u{202e}x", "--token"])
        .arg(format!("@{}", token.display()))
        .arg("--state-dir")
        .arg(stranger.state())
        .finish();
    let _ = joined.expect(0);
    let to = "alpha:/data/\u{202e}gpj.exe";
    let create = ["job", "create", "--name", "sly", "--kind", "distribution", "--from", to, "--to", to];
    // Whether or not the daemon takes it, what is shown of it is escaped.
    let said = operator.run(&create).finish();
    let shown = operator.does(&["agent", "show", "alpha"]);
    assert!(shown.contains("/data/\\x1b[2J\\u{202e}x"), "{shown}");
    let jobs = operator.does(&["job", "list"]);
    let json = operator.does(&["agent", "show", "alpha", "--json"]);
    for text in [&said.stdout, &said.stderr, &shown, &jobs, &json] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
    let parsed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["facts"]["read_roots"][0], "/data/\u{1b}[2J\u{202e}x");
}
