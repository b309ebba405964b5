//! What agents log comes to the daemon: once, in order, later if need be, and from nobody else.

use rustls::pki_types::ServerName;
use sealift_tests::control::{Agent, Daemon, until};
use sealift_tests::tree;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A daemon with agents of these names.
fn with_agents<const N: usize>(names: [&str; N]) -> (Daemon, [Agent; N]) {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("many", u32::try_from(N).expect("few"), true);
    let agents = names.map(|name| Agent::join(&daemon, name, &token));
    (daemon, agents)
}

fn start(daemon: &Daemon, from: &str, to: &str) -> String {
    let spec = json!({ "kind": "distribution", "from": [from], "to": [to] });
    let job = daemon.api("POST", "jobs", json!({ "name": "models", "spec": spec }));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().expect("an id")), None);
    run["id"].as_str().expect("an id").to_owned()
}

/// All records that answer a question, the newest first, page by page.
fn logs(daemon: &Daemon, question: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = daemon.api("GET", &format!("logs?limit=7&{question}{after}"), None);
        found.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

fn text(record: &Value) -> &str {
    record["message"].as_str().expect("a message")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The bytes of an agent's spool.
fn spool(agent: &Agent) -> Vec<u8> {
    // A segment may be removed meanwhile.
    let read = files(&agent.state().join("agent/logs")).into_iter().map(std::fs::read);
    read.flat_map(Result::unwrap_or_default).collect()
}

#[test]
fn what_a_run_logs_is_found_and_holds_no_secret() {
    let (daemon, mut agents) = with_agents(["alpha", "beta"]);
    tree::mixed(&agents[0].data().join("src"), 20, 1);
    agents.iter_mut().for_each(Agent::start);
    let run = start(&daemon, &agents[0].endpoint("src"), &agents[1].endpoint("dest"));
    daemon.run_until(&run, "the run ends", |run| run["state"] == "done");
    let of_run = format!("run={run}");
    let found = until("both tell of the run", || {
        let found = logs(&daemon, &of_run);
        let done =
            |target| found.iter().any(|record| record["target"] == target && text(record) == "has ended");
        (done("send") && done("receive")).then_some(found)
    });
    let listens = found.iter().find(|record| text(record) == "listens").expect("the source listens");
    assert_eq!(listens["run_id"], run);
    assert!(listens["job_id"].is_string() && listens["severity"] == "info", "{listens}");
    let agent = listens["agent_id"].as_str().expect("an id");
    let of_agent = logs(&daemon, &format!("agent={agent}&q=LISTENS&severity=info&{of_run}"));
    assert_eq!(of_agent, std::slice::from_ref(listens));
    let time = listens["time_ms"].as_i64().expect("a time");
    assert!(logs(&daemon, &format!("{of_run}&until_ms={time}&q=listens")).is_empty());
    assert_eq!(logs(&daemon, &format!("{of_run}&from_ms={time}&q=listens")).len(), 1);
    // The canary: nothing that is secret, in any of the forms that it may have.
    let mut secrets = vec![std::fs::read(daemon.dir().join("many.token")).unwrap()];
    let job = agents[0].state().join("agent/jobs");
    let seed = files(&job).into_iter().find(|file| file.ends_with("seed")).expect("a seed");
    let seed = std::fs::read(seed).unwrap();
    assert_eq!(seed.len(), 32);
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    secrets.extend([seed, hex.into_bytes(), b"sealift1".to_vec(), b"slenrol1".to_vec()]);
    secrets.push(std::fs::read(agents[0].state().join("agent/key")).unwrap());
    let database = files(daemon.dir())
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("logs.db")));
    let database: Vec<u8> = database.flat_map(|file| std::fs::read(file).unwrap()).collect();
    assert!(contains(&database, b"has ended") && contains(&spool(&agents[0]), b"has ended"));
    for secret in &secrets {
        for place in [&database, &spool(&agents[0]), &spool(&agents[1])] {
            assert!(!contains(place, secret), "{}", String::from_utf8_lossy(secret));
        }
    }
}

#[test]
fn c6_records_of_while_the_daemon_was_away_come_later_once_and_in_order() {
    let (mut daemon, mut agents) = with_agents(["alpha"]);
    let running = |daemon: &Daemon| {
        let found = logs(daemon, "q=is%20running");
        found.iter().filter(|record| text(record).starts_with("Agent alpha")).count()
    };
    agents[0].start();
    until("the first comes", || (running(&daemon) == 1).then_some(()));
    daemon.kill();
    for _ in 0..3 {
        agents[0].kill();
        let before = spool(&agents[0]).len();
        agents[0].start();
        until("it has logged", || (spool(&agents[0]).len() > before + 50).then_some(()));
    }
    daemon.serve();
    daemon.log_in();
    until("all come", || (running(&daemon) == 4).then_some(()));
    // Killed in between, so that acknowledgements are lost.
    daemon.kill();
    daemon.serve();
    daemon.log_in();
    agents[0].kill();
    agents[0].start();
    until("the fifth comes", || (running(&daemon) == 5).then_some(()));
    let mut found = logs(&daemon, "");
    found.sort_by_key(|record| record["number"].as_u64());
    let times: Vec<_> = found.iter().map(|record| record["time_ms"].as_i64()).collect();
    assert!(times.is_sorted(), "they came in the order in which they were logged: {times:?}");
    assert!(found.iter().all(|record| !text(record).contains("dropped")), "nothing is missing");
    let came_late = |record: &&Value| record["received_ms"].as_i64() > record["time_ms"].as_i64();
    assert!(found.iter().any(|record| came_late(&record)));
}

#[test]
fn of_a_spool_that_overflows_it_is_told_how_many_were_dropped() {
    let (mut daemon, mut agents) = with_agents(["alpha", "beta"]);
    let small = [("SEALIFT_LOG_SPOOL_BYTES", "65536")];
    let src = agents[0].data().join("src");
    tree::file(&src.join("x"), "x");
    // What cannot be offered is complained about one by one.
    let pipes = (0..1500).map(|at| src.join(format!("pipe-{at}")));
    assert!(Command::new("mkfifo").args(pipes).status().unwrap().success());
    agents[0].start_with(&small);
    // Beta never comes, so that the source goes on.
    start(&daemon, &agents[0].endpoint("src"), &agents[1].endpoint("dest"));
    until("alpha serves", || logs(&daemon, "q=has%20looked%20at%20everything").pop());
    daemon.kill();
    let oldest = |agent: &Agent| files(&agent.state().join("agent/logs")).into_iter().min();
    agents[0].kill();
    let before = oldest(&agents[0]);
    agents[0].start_with(&small);
    until("the oldest are dropped", || (oldest(&agents[0]) > before).then_some(()));
    daemon.serve();
    daemon.log_in();
    let told = until("it is told", || logs(&daemon, "q=were%20dropped").pop());
    let count: u64 = told["fields"][0]["value"].as_str().expect("a count").parse().expect("a number");
    assert!(count > 0 && text(&told).starts_with(&format!("{count} log records")), "{told}");
    assert_eq!((&told["severity"], &told["target"]), (&json!("warning"), &json!("logs")));
}

#[test]
fn without_a_certificate_nobody_brings_logs() {
    let daemon = Daemon::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = (*daemon.tls()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(daemon.logs).await.unwrap();
        let name = ServerName::try_from("control.sealift.invalid").unwrap();
        let mut stream =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("half of it");
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        stream.read_to_end(&mut Vec::new()).await
    });
    let refused = refused.expect_err("the daemon ends the handshake");
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
}

#[test]
fn an_agent_that_is_quarantined_brings_no_more_logs() {
    let (daemon, [mut alpha]) = with_agents(["alpha"]);
    alpha.start();
    until("alpha has logged", || logs(&daemon, "q=Connected").pop());
    let id = until("alpha is known", || {
        let agent = daemon.api("GET", "agents", None)["items"][0].clone();
        let has_all = agent["acked_document"] == agent["document"] && agent["connected"] == json!(true);
        has_all.then(|| agent["id"].as_str().unwrap().to_owned())
    });
    let mut copy = alpha.cloned();
    alpha.kill();
    alpha.start();
    until("alpha is connected again", || {
        (daemon.api("GET", &format!("agents/{id}"), None)["connected"] == json!(true)).then_some(())
    });
    copy.start();
    until("the agent is quarantined", || {
        (daemon.api("GET", &format!("agents/{id}"), None)["state"] == "quarantined").then_some(())
    });
    for agent in [&alpha, &copy] {
        until("it says so", || contains(&spool(agent), b"has barred this agent").then_some(()));
    }
    assert!(logs(&daemon, "q=has%20barred%20this%20agent").is_empty());
}

#[test]
fn a20_what_agents_log_comes_back_as_data() {
    let (daemon, mut agents) = with_agents(["alpha", "beta"]);
    agents.iter_mut().for_each(Agent::start);
    let nasty = "<script>alert(1)</script>'\"";
    let run = start(&daemon, &agents[0].endpoint(nasty), &agents[1].endpoint("dest"));
    let found = until("the error is logged", || {
        let found = logs(&daemon, &format!("run={run}&q=alert(1)"));
        found.into_iter().find(|record| record["severity"] == "error")
    });
    assert!(text(&found).contains("<script>alert(1)<"), "{found}");
    assert!(!text(&found).contains('\u{1b}'));
}
