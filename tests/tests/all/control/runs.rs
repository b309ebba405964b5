//! Jobs that are run by real agents.

use sealift_tests::clock::zone_where_noon_is_in;
use sealift_tests::control::{Agent, As, Daemon, until};
use sealift_tests::tree;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// A job from the first agent to the others so slow that it doesn't end by itself, and its run.
fn start_slowly(daemon: &Daemon, agents: &[Agent]) -> (String, Value, String) {
    let src = agents[0].data().join("src");
    std::fs::create_dir(&src).expect("made");
    tree::large_file(&src.join("large"), 32 << 20, 4);
    let to: Vec<_> = agents[1..].iter().map(|agent| agent.endpoint("dest")).collect();
    let spec = json!({
        "kind": "distribution",
        "from": [agents[0].endpoint("src")],
        "to": to,
        "bytes_per_second": 131_072,
        "connections": 1,
    });
    let job = daemon.api("POST", "jobs", json!({ "name": "slow", "spec": spec }));
    let job = job["id"].as_str().expect("an id").to_owned();
    let run = daemon.api("POST", &format!("jobs/{job}/runs"), None);
    let run = run["id"].as_str().expect("an id").to_owned();
    daemon.run_until(&run, "beta receives", |run| {
        of(run, "beta")["bytes_transferred"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    (job, spec, run)
}

/// Defines a job from the first agent's `src` to `dest` of the others, and starts it.
fn start(daemon: &Daemon, agents: &[Agent]) -> String {
    start_at(daemon, agents, None)
}

/// As [`start`], with a limit of bytes a second.
fn start_at(daemon: &Daemon, agents: &[Agent], limit: Option<u64>) -> String {
    let to: Vec<_> = agents[1..].iter().map(|agent| agent.endpoint("dest")).collect();
    let mut spec = json!({ "kind": "distribution", "from": [agents[0].endpoint("src")], "to": to });
    if let Some(limit) = limit {
        spec["bytes_per_second"] = json!(limit);
    }
    let job = daemon.api("POST", "jobs", json!({ "name": "models", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().expect("an id")), None);
    run["id"].as_str().expect("an id").to_owned()
}

fn state(run: &Value) -> &str {
    run["state"].as_str().expect("a state")
}

fn of<'r>(run: &'r Value, agent: &str) -> &'r Value {
    run["agents"].as_array().expect("agents").iter().find(|row| row["agent"] == agent).expect("it takes part")
}

fn assert_same(agents: &[&Agent]) {
    for agent in &agents[1..] {
        tree::assert_same(
            &agents[0].data().join("src"),
            &agent.data().join("dest"),
            tree::SpecialModes::Dropped,
        );
    }
}

#[test]
fn from_nothing_to_a_directory_on_three_agents() {
    let (daemon, agents) = with_agents(["alpha", "beta", "gamma", "delta"]);
    tree::mixed(&agents[0].data().join("src"), 200, 1);
    let run = start(&daemon, &agents);
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_same(&agents.each_ref());
    let issued = daemon.audited("job.create");
    assert_eq!(issued.len(), 1);
    let verified = daemon.command("audit verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn c6_a_daemon_that_is_killed_in_a_run_learns_its_result_later() {
    let (mut daemon, agents) = with_agents(["alpha", "beta"]);
    tree::small_files(&agents[0].data().join("src"), 5000, 2);
    let run = start(&daemon, &agents);
    daemon.run_until(&run, "beta receives", |run| of(run, "beta")["state"] != "waiting");
    daemon.kill();
    daemon.serve();
    daemon.log_in();
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_same(&agents.each_ref());
}

#[test]
fn an_agent_that_is_killed_resumes() {
    let (daemon, mut agents) = with_agents(["alpha", "beta"]);
    // 5 MB.
    tree::small_files(&agents[0].data().join("src"), 5000, 3);
    let run = start_at(&daemon, &agents, Some(1 << 20));
    daemon.run_until(&run, "beta receives", |run| of(run, "beta")["state"] == "running");
    agents[1].kill();
    agents[1].start();
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_same(&agents.each_ref());
}

#[test]
fn a17_an_agent_that_is_revoked_in_a_run_is_cut_off_and_the_others_finish() {
    let (daemon, mut agents) = with_agents(["alpha", "beta", "gamma"]);
    // Twice 20 MB.
    tree::small_files(&agents[0].data().join("src"), 20_000, 4);
    let run = start_at(&daemon, &agents, Some(4 << 20));
    let running = daemon.run_until(&run, "beta receives", |run| of(run, "beta")["state"] == "running");
    let beta = of(&running, "beta")["agent_id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    daemon.api("POST", &format!("agents/{beta}/revoke"), None);
    let ended = agents[1].finish();
    assert!(begun.elapsed() < Duration::from_secs(60), "cut off after {:?}", begun.elapsed());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(of(&ended, "beta")["state"], "failed", "{ended:#}");
    assert_eq!(of(&ended, "gamma")["state"], "done", "{ended:#}");
    assert_eq!(state(&ended), "partial", "{ended:#}");
    assert_same(&[&agents[0], &agents[2]]);
}

#[test]
fn what_an_agent_does_not_allow_is_not_done() {
    let (daemon, agents) = with_agents(["alpha", "beta"]);
    tree::file(&agents[0].data().join("src/x"), "x");
    let elsewhere = tempfile::tempdir().unwrap();
    let to = format!("beta:{}", elsewhere.path().join("dest").display());
    let spec = json!({ "kind": "distribution", "from": [agents[0].endpoint("src")], "to": [to] });
    let job = daemon.api("POST", "jobs", json!({ "name": "sly", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().unwrap()), None);
    let run = run["id"].as_str().unwrap();
    let ended = daemon.run_until(run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "failed", "{ended:#}");
    assert!(!elsewhere.path().join("dest").exists());
}

#[test]
fn a_job_runs_by_itself_at_its_time() {
    let (daemon, agents) = with_agents(["alpha", "beta"]);
    tree::mixed(&agents[0].data().join("src"), 10, 7);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() * 1000;
    let spec = json!({
        "kind": "distribution",
        "from": [agents[0].endpoint("src")],
        "to": [agents[1].endpoint("dest")],
        "schedule": { "type": "once", "at_ms": now + 5000 },
    });
    daemon.api("POST", "jobs", json!({ "name": "nightly", "spec": spec }));
    let run = until("it has begun", || {
        daemon.api("GET", "runs", None)["items"].as_array().unwrap().first().cloned()
    });
    let ended = daemon.run_until(run["id"].as_str().unwrap(), "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_eq!(ended["started_by"], "system");
    assert!(ended["created_ms"].as_u64() >= Some(now + 5000), "{ended:#}");
    assert_same(&agents.each_ref());
}

#[test]
fn sources_are_consolidated_each_into_its_own_directory() {
    let (daemon, agents) = with_agents(["alpha", "beta", "gamma"]);
    tree::mixed(&agents[0].data().join("src"), 50, 5);
    tree::mixed(&agents[1].data().join("src"), 50, 6);
    let from = [agents[0].endpoint("src"), agents[1].endpoint("src")];
    let spec = json!({ "kind": "consolidation", "from": from, "to": [agents[2].endpoint("all")] });
    let job = daemon.api("POST", "jobs", json!({ "name": "collect", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().unwrap()), None);
    let run = run["id"].as_str().unwrap();
    let ended = daemon.run_until(run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    for agent in &agents[..2] {
        let copy = agents[2].data().join("all").join(&agent.name);
        tree::assert_same(&agent.data().join("src"), &copy, tree::SpecialModes::Dropped);
    }
}

#[test]
fn another_limit_holds_at_once_for_a_run_that_goes_on() {
    let (daemon, agents) = with_agents(["alpha", "beta"]);
    let (job, mut spec, run) = start_slowly(&daemon, &agents);
    // It would take four minutes.
    spec.as_object_mut().unwrap().remove("bytes_per_second");
    daemon.api("PATCH", &format!("jobs/{job}"), json!({ "spec": spec }));
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_same(&agents.each_ref());
    spec["bytes_per_second"] = json!(1);
    let refused = daemon.call(As::Administrator, "PATCH", &format!("jobs/{job}"), json!({ "spec": spec }));
    assert_eq!(refused.status, 422, "{refused:?}");
}

#[test]
fn an_agents_own_timetable_holds_for_all_its_runs() {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("many", 2, true);
    let mut agents = ["alpha", "beta"].map(|name| Agent::join(&daemon, name, &token));
    let src = agents[0].data().join("src");
    std::fs::create_dir(&src).unwrap();
    tree::large_file(&src.join("large"), 128 << 20, 5);
    let ahead = Duration::from_secs(10);
    let begun = Instant::now();
    agents[0].start_as(&[("TZ", &zone_where_noon_is_in(ahead))], &["--bwlimit=00:00,512K:off 12:00,off"]);
    agents[1].start();
    let run = start(&daemon, &agents);
    // It would take four minutes.
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert!(begun.elapsed() >= ahead - Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_same(&agents.each_ref());
}

#[test]
fn a_jobs_schedule_of_rates_holds_at_its_agents_while_the_daemon_is_away() {
    let (mut daemon, agents) = with_agents(["alpha", "beta"]);
    let (job, mut spec, run) = start_slowly(&daemon, &agents);
    let minute = |seconds: u64| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
        (since / 60, format!("{:02}:{:02}", since / 3600 % 24, since / 60 % 60))
    };
    let ((now, _), (next, boundary)) = (minute(0), minute(65));
    assert!(next > now);
    let before = minute(24 * 3600 - 3600).1;
    spec.as_object_mut().unwrap().remove("bytes_per_second");
    spec["rate_schedule"] = json!({
        "time_zone": "UTC",
        "entries": [{ "from": before, "bytes_per_second": 131_072 }, { "from": boundary }],
    });
    daemon.api("PATCH", &format!("jobs/{job}"), json!({ "spec": spec }));
    let shown = daemon.api("GET", &format!("jobs/{job}"), None);
    assert_eq!(shown["spec"]["rate_schedule"], spec["rate_schedule"]);
    // Only once they know of it is the daemon not needed any more.
    let known = |agent: &Agent| {
        let document = std::fs::read(agent.state().join("agent/document")).unwrap_or_default();
        document.windows(3).any(|bytes| bytes == b"UTC").then_some(())
    };
    agents.iter().for_each(|agent| until("it knows of the schedule", || known(agent)));
    daemon.kill();
    let copy = agents[1].data().join("dest/large");
    until("the minute has begun", || (minute(20).0 >= next).then_some(()));
    let is_there = copy.exists();
    assert!(!is_there || minute(0).0 >= next, "it would take four minutes");
    until("all is there", || copy.exists().then_some(()));
    assert!(minute(0).0 >= next, "not before its time");
    daemon.serve();
    daemon.log_in();
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(state(&ended), "done", "{ended:#}");
    assert_same(&agents.each_ref());
    spec["rate_schedule"]["entries"][0]["from"] = json!("24:00");
    let refused = daemon.call(As::Administrator, "PATCH", &format!("jobs/{job}"), json!({ "spec": spec }));
    assert_eq!(refused.status, 422, "{refused:?}");
}

/// Processes that an agent has begun.
fn children(agent: &Agent) -> usize {
    let state = agent.state().display().to_string();
    let of_agent = |entry: std::io::Result<std::fs::DirEntry>| {
        let words = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).into_owned();
        (words.contains(&state) && words.contains("--orders")).then_some(words)
    };
    std::fs::read_dir("/proc").expect("it is there").filter_map(of_agent).count()
}

#[test]
fn a17_a_revoked_agent_that_does_not_obey_has_keys_that_open_nothing() {
    let (daemon, mut agents) = with_agents(["alpha", "beta", "gamma"]);
    let (job, mut spec, run) = start_slowly(&daemon, &agents);
    // It hears of nothing, and what it has begun goes on.
    agents[1].freeze();
    let running = daemon.api("GET", &format!("runs/{run}"), None);
    let beta = of(&running, "beta")["agent_id"].as_str().unwrap().to_owned();
    daemon.api("POST", &format!("agents/{beta}/revoke"), None);
    until("its process has lost its source", || (children(&agents[1]) == 0).then_some(()));
    assert_eq!(daemon.api("GET", &format!("jobs/{job}"), None)["epoch"], 2);
    spec.as_object_mut().unwrap().remove("bytes_per_second");
    daemon.api("PATCH", &format!("jobs/{job}"), json!({ "spec": spec }));
    let ended = daemon.run_until(&run, "the run ends", |run| state(run) != "running");
    assert_eq!(of(&ended, "gamma")["state"], "done", "{ended:#}");
    assert_eq!(state(&ended), "partial", "{ended:#}");
    assert_same(&[&agents[0], &agents[2]]);
    assert!(!agents[1].data().join("dest/large").exists());
    agents[1].kill();
}

#[test]
fn no_child_outlives_an_agent_that_is_killed() {
    let (daemon, mut agents) = with_agents(["alpha", "beta"]);
    let _ = start_slowly(&daemon, &agents);
    assert_eq!(agents.each_ref().map(children), [1, 1]);
    // The destination first: without its source its child would end by itself.
    for agent in agents.iter_mut().rev() {
        agent.kill();
        until("its child has ended", || (children(agent) == 0).then_some(()));
    }
}
