//! Logs that are sealed on the agent's disk: read by the daemon that has the key, or by nobody but the viewer.

use super::keks::{Keys, PASSPHRASE};
use super::{Operator, agents};
use sealift_tests::control::{Agent, As, Daemon, until};
use sealift_tests::tree;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Segments of an agent's spool that are sealed and have records, as bytes.
fn sealed_segments(agent: &Agent) -> Vec<Vec<u8>> {
    // One may be removed meanwhile.
    let read = files(&agent.state().join("agent/logs")).into_iter().map(std::fs::read);
    let is_sealed = |content: &Vec<u8>| content.len() > 600 && content[4..8] == 2_u32.to_le_bytes();
    read.flat_map(Result::ok).filter(is_sealed).collect()
}

/// Has logs sealed to a KEK, and waits until all agents have it.
pub(in crate::control) fn seal_logs(daemon: &Daemon, operator: &Operator, kek: &str) {
    let numbers = || -> Vec<(i64, i64)> {
        let page = daemon.api("GET", "agents", None);
        let number = |agent: &Value, name: &str| agent[name].as_i64().expect("a number");
        let agents = page["items"].as_array().expect("agents").iter();
        agents.map(|agent| (number(agent, "document"), number(agent, "acked_document"))).collect()
    };
    let before = numbers();
    operator.does(&["kek", "seal-logs", kek]);
    until("the agents have the KEK", || {
        numbers().iter().zip(&before).all(|(now, before)| now.0 > before.0 && now.0 == now.1).then_some(())
    });
}

#[test]
fn logs_are_sealed_while_the_daemon_is_away_and_read_by_who_has_the_key() {
    let mut daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys(dir.path());
    keys.pair("one", 2048, "-aes-256-cbc");
    keys.pair("two", 4096, "-aes-256-cbc");
    let [mut alpha, beta] = agents(&daemon, &operator, ["alpha", "beta"]);
    let running = |operator: &Operator| operator.does(&["logs", "--agent", "alpha", "is running"]);
    until("it runs", || running(&operator).contains("Agent alpha").then_some(()));

    // The daemon has the key: what was spooled while it was away is read as if it had never been sealed.
    let (passphrase, public, private) =
        (keys.text("passphrase"), keys.text("one.pub.pem"), keys.text("one.pem"));
    let import = ["kek", "import", "logs", "--public", &public, "--private", &private];
    operator.does(&[&import[..], &["--passphrase-file", &passphrase]].concat());
    seal_logs(&daemon, &operator, "logs");
    daemon.kill();
    alpha.kill();
    alpha.start();
    let spooled = until("it spools", || Some(sealed_segments(&alpha)).filter(|sealed| !sealed.is_empty()));
    assert!(spooled.iter().all(|segment| !contains(segment, "is running")));
    // What waits beside the log has no words of its own; whoever begins anew cannot read them either.
    let events = || std::fs::read(alpha.state().join("agent/events")).expect("events");
    assert!(!contains(&events(), "the agent was started"));
    alpha.kill();
    alpha.start();
    daemon.serve();
    until("what was sealed is found", || {
        (running(&operator).matches("Agent alpha").count() == 3).then_some(())
    });
    // Events come on a connection of their own.
    until("what was withheld is told, and what was not", || {
        let told = operator.does(&["events"]);
        let withheld = told.contains("what happened is in this agent's log, which is sealed");
        (withheld && told.contains("the agent was started")).then_some(())
    });
    let uses = daemon.audited("kek.use");
    assert!(uses.iter().any(|used| used["after"].to_string().contains("alpha")), "{uses:#?}");
    assert!(operator.fails(&["kek", "disable", "logs"], 1).contains("logs are sealed to the KEK logs"));

    // It has not: then it keeps what it cannot read, and the viewer's machine opens that.
    operator.does(&["kek", "import", "mine", "--public", &keys.text("two.pub.pem")]);
    seal_logs(&daemon, &operator, "mine");
    tree::mixed(&alpha.data().join("src"), 20, 1);
    let (from, to) = (alpha.endpoint("src"), beta.endpoint("dest"));
    let create =
        ["job", "create", "--kind", "distribution", "--from", &from, "--to", &to, "--start", "--wait"];
    operator.does(&create);
    let key = keys.text("two.pem");
    let view = ["logs", "--key", &key, "--passphrase-file", &passphrase];
    let seen = until("the end of both is read with the key", || {
        let seen = operator.does(&[&view[..], &["has ended"]].concat());
        (seen.contains("send") && seen.contains("receive")).then_some(seen)
    });
    assert!(seen.contains("alpha") && seen.contains("beta"), "{seen}");
    let one = operator.json(&[&view[..], &["--agent", "alpha", "--limit", "1", "has ended"]].concat());
    assert_eq!(one.len(), 1);
    assert!(!operator.does(&["logs", "has ended"]).contains("has ended"), "the daemon cannot read it");
    for file in files(daemon.dir()) {
        let content = std::fs::read(&file).unwrap_or_default();
        assert!(!contains(&content, "has ended"), "{}", file.display());
    }
    for agent in [&alpha, &beta] {
        assert!(sealed_segments(agent).iter().all(|segment| !contains(segment, "has ended")));
    }
    // As a request that brings the key: it is used, recorded, and kept nowhere.
    let brought = |file: &str, passphrase: &str| {
        let body = json!({ "private_pem": std::fs::read_to_string(file).unwrap(), "passphrase": passphrase });
        daemon.call(As::Administrator, "POST", "logs/open", body)
    };
    let opened = brought(&key, PASSPHRASE).ok();
    let messages: Vec<_> =
        opened["items"].as_array().expect("records").iter().map(|one| &one["message"]).collect();
    assert!(messages.contains(&&json!("has ended")), "{messages:?}");
    assert_eq!(brought(&key, "wrong").status, 422);
    let closed = brought(&private, PASSPHRASE).ok();
    assert!(closed["items"].as_array().expect("records").is_empty() && closed["closed"].as_u64() > Some(0));
    let audited = daemon.audited("logs.open");
    assert_eq!(audited.len(), 3, "also of a key that could not be read");
    assert!(
        audited.iter().any(|one| one["after"].to_string().contains("the passphrase is not")),
        "{audited:#?}"
    );
    let refused = (0..20).map(|_| brought(&key, PASSPHRASE).status).find(|status| *status != 200);
    assert_eq!(refused, Some(429), "not as often as anybody likes");
    for file in files(daemon.dir()) {
        let content = std::fs::read(&file).unwrap_or_default();
        assert!(!contains(&content, "has ended") && !contains(&content, PASSPHRASE), "{}", file.display());
    }
    let keks = operator.json(&["kek", "list"]);
    let mine = keks.iter().find(|kek| kek["name"] == "mine").expect("it is there");
    assert!(mine["wraps"]["logs"].as_u64() > Some(0), "{mine:#}");

    // Another key, or another passphrase, opens nothing.
    let other = ["logs", "--key", &private, "--passphrase-file", &passphrase, "has ended"];
    let refused = operator.run(&other).finish().expect(0);
    assert!(refused.stderr.contains("the data key is not wrapped to the KEK"), "{refused:#?}");
    assert!(!refused.stdout.contains("has ended"), "{refused:#?}");
    let wrong =
        operator.run(&["logs", "--key", &key, "--passphrase-stdin"]).stdin("wrong").finish().expect(2);
    assert!(wrong.stderr.contains("the passphrase is not that of the private key"), "{wrong:#?}");

    // The key is rotated: what is kept is wrapped to the new one where the old one is, and then that can go.
    keys.pair("three", 3072, "");
    operator.does(&["kek", "rotate", "mine", "--public", &keys.text("three.pub.pem")]);
    assert!(operator.fails(&["kek", "destroy", "mine@1"], 1).contains("segments of logs"));
    until("nothing is wrapped to the old one any more", || {
        // Agents may still bring what they had sealed to it.
        let rewrap = ["kek", "rewrap", "mine", "--key", &key, "--passphrase-file", &passphrase];
        let done = operator.run(&rewrap).finish().expect(0);
        assert!(done.stderr.contains("are wrapped to mine (version 2)"), "{done:#?}");
        (operator.run(&["kek", "destroy", "mine@1"]).finish().code == Some(0)).then_some(())
    });
    let seen = operator.does(&["logs", "--key", &keys.text("three.pem"), "has ended"]);
    assert!(seen.contains("alpha") && seen.contains("beta"), "{seen}");
    assert!(
        !operator.does(&[&view[..], &["has ended"]].concat()).contains("has ended"),
        "the old key opens nothing"
    );
    assert!(!daemon.audited("kek.rewrap").is_empty());
}
