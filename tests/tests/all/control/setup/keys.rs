//! The master key: in a file, under a passphrase, lost, and another one.

use super::*;
use sealift_tests::control::{Agent, Daemon, until};
use serde_json::json;
use std::time::{Duration, Instant};

/// A daemon, and an agent that is connected.
fn connected() -> (Daemon, Agent) {
    let daemon = Daemon::start();
    let token = daemon.enrolment_token("one", 1, true);
    let mut alpha = Agent::join(&daemon, "alpha", &token);
    alpha.start();
    await_agent(&daemon);
    (daemon, alpha)
}

fn await_agent(daemon: &Daemon) {
    until("alpha is connected", || {
        let page = daemon.api("GET", "agents", None);
        let agent = page["items"].as_array()?.first()?.clone();
        (agent["connected"] == json!(true) && agent["acked_document"] == agent["document"]).then_some(())
    });
}

#[test]
fn a_lost_master_key_is_recovered_and_agents_come_back() {
    let (mut daemon, mut alpha) = connected();
    let away = TempDir::new().unwrap();
    let recovery = away.path().join("recovery.key");
    ok(on(daemon.dir(), "master new-recovery-key").arg("--recovery-key-file").arg(&recovery));
    assert_eq!(mode(&recovery), 0o600);
    let given = format!("@{}", recovery.display());
    daemon.end();
    std::fs::remove_file(daemon.dir().join("master.key")).unwrap();
    refused(on(daemon.dir(), "audit verify"), 1, "sealift-control recover");
    let text = std::fs::read_to_string(&recovery).unwrap();
    // Another symbol in the place of the first.
    let mistaken = format!("{}{}", if text.starts_with('7') { '8' } else { '7' }, &text[1..]);
    refused(on(daemon.dir(), "recover --recovery-key -").stdin(mistaken), 1, "mistake");
    refused(on(daemon.dir(), "recover --recovery-key").arg(text.trim()), 2, "not an argument");
    let other = Place::made(&["--password-stdin"], "correct horse battery");
    refused(on(daemon.dir(), "recover --recovery-key").arg(other.at("recovery.key")), 1, "not the one");
    assert!(!daemon.dir().join("master.key").exists());
    ok(on(daemon.dir(), "recover --recovery-key").arg(&given));
    assert_eq!(mode(&daemon.dir().join("master.key")), 0o600);
    daemon.serve();
    daemon.log_in();
    await_agent(&daemon);
    assert_eq!(daemon.audited("master.recover").len(), 1);
    alpha.kill();
}

#[test]
fn another_master_key_holds_and_the_old_one_is_gone() {
    let (mut daemon, mut alpha) = connected();
    let away = TempDir::new().unwrap();
    let old = std::fs::read(daemon.dir().join("master.key")).unwrap();
    refused(on(daemon.dir(), "master rotate"), 1, "stop the daemon");
    daemon.end();
    let before = away.path().join("before.db");
    ok(on(daemon.dir(), "backup").arg(&before));
    let rotated = ok(on(daemon.dir(), "master rotate"));
    let recovery = rotated.stdout.split_whitespace().last().unwrap().to_owned();
    assert_ne!(std::fs::read(daemon.dir().join("master.key")).unwrap(), old);
    daemon.serve();
    daemon.log_in();
    await_agent(&daemon);
    assert_eq!(daemon.audited("master.rotate").len(), 1);
    daemon.end();
    // The new recovery key is right, and that backup is of another time.
    ok(on(daemon.dir(), "recover --recovery-key -").stdin(&recovery));
    refused(on(daemon.dir(), "restore").arg(&before), 1, "--recovery-key");
    // With the old key the database is not opened, and stays as it is.
    let new = std::fs::read(daemon.dir().join("master.key")).unwrap();
    std::fs::write(daemon.dir().join("master.key"), old).unwrap();
    refused(on(daemon.dir(), "audit verify"), 1, "not the one of this database");
    std::fs::write(daemon.dir().join("master.key"), new).unwrap();
    ok(on(daemon.dir(), "audit verify"));
    alpha.kill();
}

#[test]
fn a_rotation_that_is_killed_leaves_the_old_or_the_new() {
    let place = Place::made(&["--password-stdin"], "correct horse battery");
    let key = place.data().join("master.key");
    let rotations = || {
        let records = place.done("audit verify").stdout;
        let at = records.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
        (at, std::fs::read(&key).unwrap())
    };
    // How long a whole one takes here.
    let begun = Instant::now();
    place.done("master rotate");
    let whole = begun.elapsed();
    let mut last = rotations();
    let (mut old, mut new) = (0, 0);
    for at in 0..24 {
        let staged = place.data().join("master.key.new");
        let rotating = place.run("master rotate").start();
        // At some time, and in every second round soon after the new key's file has appeared.
        let until = Instant::now() + whole * (at + 1) / 24;
        while Instant::now() < until && !(at % 2 == 1 && staged.exists()) {
            std::thread::park_timeout(Duration::from_micros(200));
        }
        if at % 2 == 1 {
            std::thread::park_timeout(Duration::from_micros(u64::from(at) * 700));
        }
        rotating.kill();
        // The next command finds it whole, whichever it is.
        let now = rotations();
        assert!(!staged.exists());
        match now.1 == last.1 {
            true => old += 1,
            false => new += 1,
        }
        assert_eq!(now.0 > last.0, now.1 != last.1, "the record of it and the key of it are one");
        last = now;
    }
    assert_eq!(old + new, 24);
    place.done("user list");
}

#[test]
fn a_passphrase_opens_the_master_key_and_is_seen_nowhere() {
    let lines = format!("{PASSPHRASE}\ncorrect horse battery\n");
    let place = Place::made(&["--master", "passphrase", "--passphrase-stdin", "--password-stdin"], &lines);
    assert!(!place.data().join("master.key").exists());
    assert_private(&place.data());
    refused(
        place.run("user list --passphrase -").stdin("another long phrase"),
        1,
        "passphrase is not the one",
    );
    refused(place.run("user list --passphrase hunter2"), 2, "not an argument");
    let given = place.secret("passphrase", PASSPHRASE);
    ok(place.run("user list --passphrase").arg(&given));
    std::fs::set_permissions(place.file("passphrase"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(place.run("user list --passphrase").arg(&given), 1, "0600");
    std::fs::set_permissions(place.file("passphrase"), std::fs::Permissions::from_mode(0o600)).unwrap();
    // The daemon reads it from the file that its configuration names.
    let text = format!(
        "[listen]\nweb = \"127.0.0.1:0\"\nagents = \"127.0.0.1:0\"\nlogs = \"127.0.0.1:0\"\ntracker = \"off\"\n\
         [log]\nlevel = \"trace\"\n[master_key]\npassphrase_file = {:?}\n",
        place.file("passphrase")
    );
    std::fs::write(place.data().join("sealift-control.toml"), text).unwrap();
    place.done("config check");
    let ready = place.file("ready");
    let serving = place.run("serve --ready-file").arg(&ready).start();
    until("it serves", || ready.exists().then_some(()));
    let seen = shows(serving.id());
    serving.signal(rustix::process::Signal::TERM);
    let ended = serving.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("serving"), "it logs: {ended:?}");
    for secret in [PASSPHRASE, "correct horse battery"] {
        assert!(!seen.contains(secret));
        assert!(!ended.stderr.contains(secret) && !ended.stdout.contains(secret), "{ended:?}");
    }
    // A new key under the same passphrase; then without one; then under one that is forgotten, and recovered.
    ok(place.run("master rotate --recovery-key-file").arg(place.file("recovery.new")));
    assert!(!place.data().join("master.key").exists());
    place.done("master keep file");
    assert!(!place.data().join("master.sealed").exists());
    ok(place.run("master keep passphrase --new-passphrase -").stdin("soon to be forgotten"));
    refused(place.run("user list"), 1, "passphrase is not the one");
    refused(place.run("recover --recovery-key").arg(place.at("recovery.key")), 1, "not the one");
    ok(place.run("recover --recovery-key").arg(place.at("recovery.new")));
    place.done("user list");
    assert_private(&place.data());
}

#[test]
fn a_backup_and_its_recovery_key_are_enough_for_another_host() {
    let (mut daemon, mut alpha) = connected();
    let away = TempDir::new().unwrap();
    let [backup, recovery] = ["backup.db", "recovery.key"].map(|name| away.path().join(name));
    ok(on(daemon.dir(), "master new-recovery-key --recovery-key-file").arg(&recovery));
    ok(on(daemon.dir(), "backup").arg(&backup));
    daemon.end();
    // All is lost.
    for entry in std::fs::read_dir(daemon.dir()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    refused(on(daemon.dir(), "restore").arg(&backup), 1, "no master key");
    let given = format!("@{}", recovery.display());
    let restored = ok(on(daemon.dir(), "restore --recovery-key").arg(&given).arg(&backup));
    assert!(restored.stdout.contains("is in place"), "{restored:?}");
    daemon.serve();
    daemon.log_in();
    await_agent(&daemon);
    // Once more, over what is there, which stays beside, with its key.
    daemon.end();
    ok(on(daemon.dir(), "restore --recovery-key").arg(&given).arg(&backup));
    let names = std::fs::read_dir(daemon.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let beside: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".before-")).collect();
    assert!(beside.iter().any(|name| name.to_string_lossy().ends_with(".master.key")), "{beside:?}");
    ok(on(daemon.dir(), "audit verify"));
    alpha.kill();
}
