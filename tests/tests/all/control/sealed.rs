//! Sealed jobs of a control daemon, by real agents: what its keepers and it itself cannot read, and what follows a rotation.
#![allow(clippy::unwrap_used)]

use crate::sealed::{CANARY, KeyPair, is_beneath};
use sealift_tests::control::{Agent, Daemon};
use sealift_tests::process::{Outcome, Run};
use sealift_tests::tree::{self, SpecialModes};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// A daemon with agents that run, and a source with the canary in names and content.
fn with_agents<const N: usize>(names: [&str; N]) -> (Daemon, [Agent; N]) {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("many", u32::try_from(N).expect("few"), true);
    let agents = names.map(|name| {
        let mut agent = Agent::join(&daemon, name, &token);
        agent.start();
        agent
    });
    let src = agents[0].data().join("src");
    tree::mixed(&src, 100, 7);
    tree::large_file(&src.join(format!("{CANARY}-large")), 2 << 20, 8);
    fs::write(src.join("note"), format!("{CANARY} in the content")).unwrap();
    (daemon, agents)
}

fn import(daemon: &Daemon, name: &str, key: &KeyPair) {
    let files = json!({ "public_pem": fs::read_to_string(&key.public).unwrap() });
    daemon.api("POST", "keks", json!({ "name": name, "files": files }));
}

/// Runs a job until it has this state; how many bytes its destinations have fetched.
fn run(daemon: &Daemon, job: &str, state: &str) -> u64 {
    let run = daemon.api("POST", &format!("jobs/{job}/runs"), None);
    let run = run["id"].as_str().unwrap().to_owned();
    let ended = daemon.run_until(&run, "the run ends", |run| run["state"] != "running");
    assert_eq!(ended["state"], state, "{ended:#}");
    let agents = ended["agents"].as_array().unwrap();
    agents
        .iter()
        .filter(|row| row["role"] == "destination")
        .filter_map(|row| row["bytes_transferred"].as_u64())
        .sum()
}

fn create(daemon: &Daemon, agents: &[Agent]) -> String {
    let to: Vec<_> = agents[1..].iter().map(|agent| agent.endpoint("dest")).collect();
    let spec = json!({
        "kind": "distribution", "from": [agents[0].endpoint("src")], "to": to, "seal_to": ["team"],
    });
    let job: Value = daemon.api("POST", "jobs", json!({ "name": "sealed", "spec": spec }));
    job["id"].as_str().unwrap().to_owned()
}

fn restore(from: &Path, to: &Path, key: &KeyPair, state: &Path) -> Outcome {
    Run::with(["restore", "--json"])
        .arg(from)
        .arg(to)
        .arg("--key")
        .arg(&key.private)
        .state_dir(state)
        .finish()
}

/// Whether the bytes are anywhere in a process' memory: all that a core dump has.
fn is_in_memory(process: u32, bytes: &[u8]) -> bool {
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))).any(
        |line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut content = vec![0; usize::try_from(end - start).unwrap()];
            // What cannot be read (a guard page, a device) is in no dump.
            memory.read_exact_at(&mut content, start).is_ok()
                && content.windows(bytes.len()).any(|window| window == bytes)
        },
    )
}

#[test]
fn neither_keepers_nor_the_daemon_can_read_and_a_rotation_moves_no_data() {
    let (daemon, agents) = with_agents(["alpha", "beta", "gamma"]);
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| KeyPair::new(dir.path(), name, 2048, None));
    import(&daemon, "team", &old);
    let job = create(&daemon, &agents);
    // Named in a warning, which goes no further than the agent.
    let left_out = agents[0].data().join("src").join(format!("{CANARY}-fifo"));
    tree::fifo(&left_out);
    let first = run(&daemon, &job, "partial");
    let holder = left_out.parent().unwrap();
    let is = fs::metadata(holder).unwrap();
    fs::remove_file(&left_out).unwrap();
    tree::set_mtime(holder, is.mtime(), is.mtime_nsec());
    assert!(first > 2 * (2 << 20), "{first}");
    let events = daemon.api("GET", "events", None);
    assert!(events.to_string().contains("kept from the control daemon"), "{events:#}");
    let dests = [agents[1].data().join("dest"), agents[2].data().join("dest")];
    for dest in &dests {
        assert!(dest.join("keys").exists());
        assert!(!is_beneath(dest, CANARY.as_bytes()));
    }
    // Its database, the log of writes before it, its logs; and its memory.
    assert!(!is_beneath(daemon.dir(), CANARY.as_bytes()));
    assert!(!is_in_memory(daemon.id(), CANARY.as_bytes()));
    assert!(is_in_memory(daemon.id(), b"alpha"), "what is there is found");
    let src = agents[0].data().join("src");
    let state = dir.path().join("state");
    let _ = restore(&dests[0], &dir.path().join("one"), &old, &state).expect(0);
    tree::assert_same(&src, &dir.path().join("one"), SpecialModes::Dropped);

    let keks = daemon.api("GET", "keks", None);
    let id = keks["items"][0]["id"].as_str().unwrap().to_owned();
    let files = json!({ "public_pem": fs::read_to_string(&new.public).unwrap() });
    daemon.api("POST", &format!("keks/{id}/rotate"), files);
    let refused =
        daemon.call(sealift_tests::control::As::Administrator, "POST", &format!("keks/{id}/destroy"), None);
    assert_eq!(refused.status, 409, "replicas are wrapped to it still: {refused:?}");
    let moved = run(&daemon, &job, "done");
    let keys = fs::metadata(dests[0].join("keys")).unwrap().len();
    assert_eq!(moved, 2 * keys, "the wrapped key alone");
    daemon.api("POST", &format!("keks/{id}/destroy"), None);
    let _ = restore(&dests[1], &dir.path().join("other"), &new, &state).expect(0);
    tree::assert_same(&src, &dir.path().join("other"), SpecialModes::Dropped);
    let _ = restore(&dests[1], &dir.path().join("none"), &old, &state).expect(1);
}
