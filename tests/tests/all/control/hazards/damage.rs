//! A database that is damaged, of a later version, or older than what the agents know; a daemon that is away.

use super::{agent, has_ended, id_of, is_up, run_again, start, with_agents};
use sealift_tests::control::{Daemon, until};
use sealift_tests::process::{Outcome, Run, control_program};
use sealift_tests::tree;
use serde_json::json;
use std::path::Path;

/// Starts the daemon, which does not come up.
fn refuses_to_serve(daemon: &Daemon) -> Outcome {
    let words = [
        "serve",
        "--web=127.0.0.1:0",
        "--agents=127.0.0.1:0",
        "--logs=127.0.0.1:0",
        "--tracker=off",
        "--data-dir",
    ];
    Run::with(words).program(control_program()).arg(daemon.dir()).finish().expect(1)
}

fn command(daemon: &Daemon, words: &str, file: &Path) -> Outcome {
    Run::with([words]).program(control_program()).arg("--data-dir").arg(daemon.dir()).arg(file).finish()
}

#[test]
fn c7_a_database_that_is_damaged_or_newer_is_refused_untouched_and_a_backup_returns() {
    let mut daemon = Daemon::start();
    daemon.api(
        "POST",
        "enrolment-tokens",
        json!({ "name": "kept", "uses": 3, "approve": true, "expires_in_seconds": 600 }),
    );
    let backup = daemon.dir().join("backup");
    let _ = command(&daemon, "backup", &backup).expect(0);
    let _ = daemon.end();
    let file = daemon.dir().join("control.db");
    let whole = std::fs::read(&file).unwrap();
    let page = usize::from(u16::from_be_bytes([whole[16], whole[17]])).max(512);
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    let cases = [
        ("a torn page", broken(&|bytes| bytes[3 * page..4 * page].fill(0x5a)), "damaged"),
        ("cut off", broken(&|bytes| bytes.truncate(bytes.len() / 2 / page * page)), "damaged"),
        ("not a database", b"what is this?".repeat(1000), "damaged"),
        ("empty", Vec::new(), "damaged"),
        // The version that this program writes into the header of the file.
        ("newer", broken(&|bytes| bytes[60..64].copy_from_slice(&9_u32.to_be_bytes())), "is of version 9"),
    ];
    for (case, bytes, says) in cases {
        std::fs::write(&file, &bytes).unwrap();
        let refused = refuses_to_serve(&daemon);
        assert!(refused.stderr.contains(says), "{case}: {}", refused.stderr);
        assert!(refused.stderr.contains("sealift-control restore"), "{case}: {}", refused.stderr);
        assert!(refused.stderr.contains("Nothing was changed"), "{case}: {}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{case}: {}", refused.stderr);
        assert!(std::fs::read(&file).unwrap() == bytes, "{case}: the file is as it was");
    }
    let _ = command(&daemon, "restore", &backup).expect(0);
    daemon.serve();
    daemon.log_in();
    let tokens = daemon.api("GET", "enrolment-tokens", None);
    assert_eq!(tokens["items"][0]["name"], "kept");
    let _ = daemon.command("audit verify").expect(0);
}

#[test]
fn c6_a_run_ends_while_the_daemon_is_away_and_is_told_later() {
    let (mut daemon, agents) = with_agents(["alpha", "beta"]);
    tree::file(&agents[0].data().join("src/small"), "x");
    tree::large_file(&agents[0].data().join("src/large"), 4 << 20, 4);
    let to = [agents[1].endpoint("dest")];
    let spec = json!({
        "kind": "distribution", "from": [agents[0].endpoint("src")], "to": to, "bytes_per_second": 1 << 20,
    });
    let job = daemon.api("POST", "jobs", json!({ "name": "slow", "spec": spec }));
    let run = run_again(&daemon, job["id"].as_str().unwrap());
    daemon.run_until(&run, "beta receives", |run| {
        run["agents"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["agent"] == "beta" && row["bytes_transferred"].as_u64() > Some(0))
    });
    daemon.kill();
    let copy = agents[1].data().join("dest/large");
    until("the file is there, without any daemon", || copy.exists().then_some(()));
    daemon.serve();
    daemon.log_in();
    assert_eq!(has_ended(&daemon, &run)["state"], "done");
    assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(agents[0].data().join("src/large")).unwrap());
}

#[test]
fn agents_outlive_the_return_of_a_backup() {
    let (mut daemon, mut agents) = with_agents(["alpha", "beta"]);
    tree::mixed(&agents[0].data().join("src"), 20, 1);
    let (job, run) = start(&daemon, "models", &agents[0].endpoint("src"), &[agents[1].endpoint("dest")]);
    assert_eq!(has_ended(&daemon, &run)["state"], "done");
    // In the middle of a run, so that the backup knows it as one that goes on.
    tree::file(&agents[0].data().join("more/small"), "x");
    tree::large_file(&agents[0].data().join("more/large"), 3 << 20, 9);
    let spec = json!({
        "kind": "distribution", "from": [agents[0].endpoint("more")], "to": [agents[1].endpoint("more")],
        "bytes_per_second": 1 << 20,
    });
    let slow = daemon.api("POST", "jobs", json!({ "name": "slow", "spec": spec }));
    let slow = run_again(&daemon, slow["id"].as_str().unwrap());
    daemon.run_until(&slow, "beta receives", |run| {
        run["agents"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["agent"] == "beta" && row["bytes_transferred"].as_u64() > Some(0))
    });
    let backup = daemon.dir().join("backup");
    let _ = command(&daemon, "backup", &backup).expect(0);

    // The agents go on: the run ends, there is another one, and both are started anew.
    assert_eq!(has_ended(&daemon, &slow)["state"], "done");
    let after = run_again(&daemon, &job);
    assert_eq!(has_ended(&daemon, &after)["state"], "done");
    for agent in &mut agents {
        agent.kill();
        agent.start();
    }
    for name in ["alpha", "beta"] {
        is_up(&daemon, name);
    }
    let keys = ["alpha", "beta"].map(|name| agent(&daemon, name)["key"].clone());

    let _ = daemon.end();
    let _ = command(&daemon, "restore", &backup).expect(0);
    daemon.serve();
    daemon.log_in();
    for (name, key) in ["alpha", "beta"].into_iter().zip(&keys) {
        is_up(&daemon, name);
        let agent = agent(&daemon, name);
        assert_eq!((&agent["key"], &agent["state"]), (key, &json!("approved")), "it has not enrolled anew");
    }
    assert!(daemon.audited("agent.quarantine").is_empty());
    assert_eq!(
        daemon.call(sealift_tests::control::As::Administrator, "GET", &format!("runs/{after}"), None).status,
        404
    );
    // What the backup knows as going on goes on, and new runs are run.
    assert_eq!(has_ended(&daemon, &slow)["state"], "done");
    tree::file(&agents[0].data().join("src/new"), "since");
    let again = run_again(&daemon, &job);
    assert_eq!(has_ended(&daemon, &again)["state"], "done");
    assert_eq!(std::fs::read(agents[1].data().join("dest/new")).unwrap(), b"since");
    let _ = daemon.command("audit verify").expect(0);
    assert!(!id_of(&daemon, "beta").is_empty());
}
