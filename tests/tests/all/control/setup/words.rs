//! The commands: configuration, users, tokens, backups, the audit's proof.

use super::*;
use sealift_tests::control::{As, Daemon, until};
use serde_json::{Value, json};

fn objects(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_is_made_is_private_and_made_once() {
    let place = Place { dir: TempDir::new().unwrap() };
    let short = place.run("init --password-stdin").stdin("short").finish();
    assert_eq!(short.code, Some(1), "{short:?}");
    let made = place.done("init");
    assert_private(&place.data());
    let recovery = made.stdout.lines().find(|line| line.contains("recovery key")).unwrap();
    let recovery = recovery.split_whitespace().last().unwrap();
    ok(place.run("recover --recovery-key -").stdin(recovery));
    let again = place.run("init").finish();
    assert!(again.code == Some(1) && again.stderr.contains("has a daemon already"), "{again:?}");
    refused(Run::with(["user", "list"]).program(control_program()), 2, "--data-dir");
}

#[test]
fn a_wrong_configuration_is_told_before_anything_is_opened() {
    let place = Place::made(&["--password-stdin"], "correct horse battery");
    let file = place.data().join("sealift-control.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\nfromat = \"json\"\n").unwrap();
    for words in ["config check", "config show", "serve", "user list"] {
        refused(place.run(words), 2, "sealift-control.toml:3: unknown field `fromat`");
    }
    std::fs::write(&file, "names = [\"a b\"]\n[listen]\nweb = \"127.0.0.1:1\"\nagents = \"127.0.0.1:1\"\n")
        .unwrap();
    for words in ["config check", "serve"] {
        let outcome = refused(place.run(words), 2, "\"a b\" is neither");
        assert!(outcome.stderr.contains("listen.agents"), "all of it: {outcome:?}");
    }
    // The command line wins.
    let right = place.done("config check --name control.example --agents 127.0.0.1:2 --log-format json");
    for line in ["names = [\"control.example\"]", "agents = \"127.0.0.1:2\"", "format = \"json\""] {
        assert!(right.stdout.contains(line), "{line}: {right:?}");
    }
    // What is shown is a configuration.
    let shown = place.file("shown.toml");
    std::fs::write(&shown, &right.stdout).unwrap();
    let again = ok(Run::with(["config", "check", "--config"]).program(control_program()).arg(&shown));
    assert_eq!(again.stdout, right.stdout);
    std::fs::remove_file(place.data().join("master.key")).unwrap();
    refused(Run::with(["config", "check", "--config"]).program(control_program()).arg(&shown), 2, "recover");
    refused(
        Run::with(["config", "check", "--config", "/nowhere.toml"]).program(control_program()),
        2,
        "/nowhere.toml",
    );
}

#[test]
fn users_and_tokens_are_managed_without_the_api() {
    let mut daemon = Daemon::start();
    ok(on(daemon.dir(), "user create eve --role operator --password-stdin").stdin("a long enough one"));
    let login = |daemon: &Daemon, password: &str| {
        let body = json!({ "name": "eve", "password": password });
        daemon.call(As::Nobody, "POST", "login", body).status
    };
    assert_eq!(login(&daemon, "a long enough one"), 200);
    refused(on(daemon.dir(), "user password eve --password-stdin").stdin("short"), 1, "12 characters");
    ok(on(daemon.dir(), "user password eve --password-stdin").stdin("another long one"));
    assert_eq!(login(&daemon, "another long one"), 200);
    ok(on(daemon.dir(), "user disable eve"));
    assert_eq!(login(&daemon, "another long one"), 401);
    ok(on(daemon.dir(), "user enable eve"));
    ok(on(daemon.dir(), "user role eve viewer"));
    let listed = objects(&ok(on(daemon.dir(), "user list --json")));
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["name"], &listed[1]["role"]), (&json!("eve"), &json!("viewer")));
    assert!(!listed[1].to_string().contains("argon2"), "{listed:?}");
    // Somebody who failed too often is let in again at once.
    while login(&daemon, "a wrong password") == 401 {}
    assert_eq!(login(&daemon, "another long one"), 429);
    ok(on(daemon.dir(), "user unlock eve"));
    refused(on(daemon.dir(), "user unlock nobody"), 1, "no such user");
    refused(on(daemon.dir(), "user disable admin"), 1, "only administrator");

    let secret = ok(on(daemon.dir(), "token create --name rack1 --uses 3 --approve")).stdout;
    let tokens = objects(&ok(on(daemon.dir(), "token list --json")));
    assert_eq!(tokens[0]["uses_left"], 3);
    assert!(!tokens[0].to_string().contains(secret.trim()), "{tokens:?}");
    ok(on(daemon.dir(), "token revoke rack1"));
    refused(on(daemon.dir(), "token revoke rack1"), 1, "no such token");
    assert!(ok(on(daemon.dir(), "token list")).stdout.contains("revoked"));
    assert!(ok(on(daemon.dir(), "agent list --json")).stdout.is_empty());
    let by = &daemon.audited("user.update")[0]["actor"];
    assert!(by.as_str().unwrap().starts_with("cli:"), "{by}");
    daemon.end();
}

#[test]
fn backups_are_whole_and_the_oldest_go() {
    let place = Place::made(&["--password-stdin"], "correct horse battery");
    let series = place.file("series");
    std::fs::create_dir(&series).unwrap();
    std::fs::write(series.join("sealift-control-notes.db"), "somebody else's").unwrap();
    for old in ["20200101T000000Z", "20210101T000000Z"] {
        std::fs::write(series.join(format!("sealift-control-{old}.db")), "").unwrap();
    }
    let made = ok(place.run("backup --keep 2").arg(&series));
    let mut names: Vec<_> = std::fs::read_dir(&series)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((&*names[0], &*names[2]), ("sealift-control-20210101T000000Z.db", "sealift-control-notes.db"));
    let backup = series.join(&names[1]);
    assert_eq!(mode(&backup), 0o600);
    // It says how to put it back, and that does it.
    let said = made.stdout.lines().find_map(|line| line.split("stopped:  sealift-control ").nth(1)).unwrap();
    ok(Run::with(said.split(' ')).program(control_program()));

    // What is not whole, or of a later version, replaces nothing.
    let database = || std::fs::read(place.data().join("control.db")).unwrap();
    let (stood, good) = (database(), std::fs::read(&backup).unwrap());
    let bad = place.file("bad.db");
    std::fs::write(&bad, &good[..good.len() / 2]).unwrap();
    refused(place.run("restore").arg(&bad), 1, "damaged");
    let mut newer = good.clone();
    // The version of the tables, in SQLite's header.
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&bad, newer).unwrap();
    refused(place.run("restore").arg(&bad), 1, "version 99");
    std::fs::write(&bad, "nothing").unwrap();
    refused(place.run("restore").arg(&bad), 1, "");
    refused(place.run("restore").arg(place.file("none.db")), 1, "none.db");
    assert!(stood == database());
    // The old one is beside.
    let restored = ok(place.run("restore").arg(&backup));
    let kept = restored.stdout.lines().find_map(|line| line.strip_prefix("What stood there is ")).unwrap();
    assert_eq!(mode(Path::new(kept)), 0o600);
    assert!(std::fs::read(kept).unwrap() == stood);
}

#[test]
fn a_log_that_was_cut_off_is_found_by_checkpoints_kept_elsewhere() {
    let mut daemon = Daemon::start();
    let away = TempDir::new().unwrap();
    let [old, kept] = ["old.db", "kept"].map(|name| away.path().join(name));
    ok(on(daemon.dir(), "backup").arg(&old));
    daemon.end();
    // The daemon keeps its checkpoints there by itself, and in its log.
    let ready = away.path().join("ready");
    let serving = on(
        daemon.dir(),
        "serve --web 127.0.0.1:0 --agents 127.0.0.1:0 --logs 127.0.0.1:0 --tracker off --checkpoint-log",
    )
    .arg("--checkpoint-file")
    .arg(&kept)
    .arg("--ready-file")
    .arg(&ready)
    .start();
    until("it serves", || ready.exists().then_some(()));
    ok(on(daemon.dir(), "user create eve --role viewer --password-stdin").stdin("a long enough one"));
    serving.signal(rustix::process::Signal::TERM);
    let ended = serving.finish();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(mode(&kept), 0o600);
    let text = std::fs::read_to_string(&kept).unwrap();
    assert_eq!(text.lines().count(), 2, "one at the start, one at the end: {text}");
    assert_eq!(ended.stderr.matches("slaudit1 ").count(), 2, "{ended:?}");
    let log = away.path().join("log");
    std::fs::write(&log, &ended.stderr).unwrap();
    let value = ok(on(daemon.dir(), "audit checkpoint")).stdout;
    for given in [kept.to_str().unwrap(), log.to_str().unwrap(), value.trim()] {
        let proved = ok(on(daemon.dir(), "audit verify --checkpoint").arg(given));
        assert!(proved.stdout.contains("kept elsewhere"), "{proved:?}");
    }
    // Somebody puts an older state in the place, with nothing in it that tells.
    let copy = std::fs::read(&old).unwrap();
    std::fs::write(daemon.dir().join("control.db"), copy).unwrap();
    ok(on(daemon.dir(), "audit verify"));
    for given in [kept.to_str().unwrap(), log.to_str().unwrap(), value.trim()] {
        refused(on(daemon.dir(), "audit verify --checkpoint").arg(given), 1, "not whole");
        refused(on(daemon.dir(), "restore --checkpoint").arg(given).arg(&old), 1, "damaged");
    }
    // And goes on from there, so that there are as many records again.
    for name in ["one", "two", "three", "four", "five", "six"] {
        ok(on(daemon.dir(), "token create --name").arg(name));
    }
    refused(on(daemon.dir(), "audit verify --checkpoint").arg(&kept), 1, "another hash");
    refused(on(daemon.dir(), "audit verify --checkpoint").arg(away.path().join("none")), 1, "none");
    refused(on(daemon.dir(), "audit verify --checkpoint").arg(&old), 1, "");
    let other = Place::made(&["--password-stdin"], "correct horse battery").done("audit checkpoint").stdout;
    refused(
        on(daemon.dir(), "audit verify --checkpoint").arg(other.trim()),
        1,
        "not signed by the audit key",
    );
}
