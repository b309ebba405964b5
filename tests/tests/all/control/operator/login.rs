//! Who is let in, whom the command line believes, and what it leaves.

use super::{Operator, mode};
use crate::relay::{Fate, Relay};
use sealift_tests::control::{As, Daemon, PASSWORD, until};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_login_leaves_a_token_that_expires_for_its_owner_alone() {
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    assert_eq!(mode(&operator.file()), 0o600);
    assert_eq!(mode(operator.file().parent().unwrap()), 0o700);
    let kept = std::fs::read_to_string(operator.file()).unwrap();
    assert!(!kept.contains(PASSWORD));
    let tokens = operator.json(&["token", "api", "list"]);
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0]["role"], "administrator");
    let lasts_ms = tokens[0]["expires_ms"].as_i64().unwrap() - tokens[0]["created_ms"].as_i64().unwrap();
    assert_eq!(lasts_ms, 7 * 24 * 3600 * 1000);
    // The session that made it is over: one has begun and one has ended.
    assert_eq!(daemon.audited("logout").len(), 1);

    // Logging in again takes the place of the first login.
    let _ = operator.log_in(&daemon, &["--role", "viewer"]).finish().expect(0);
    let tokens = operator.json(&["token", "api", "list"]);
    assert_eq!(tokens.len(), 2);
    assert!(!tokens[0]["revoked_ms"].is_null() && tokens[1]["revoked_ms"].is_null(), "{tokens:#?}");
    // A viewer makes no tokens.
    operator.fails(&["token", "create", "--name", "x"], 4);

    operator.does(&["logout"]);
    assert!(operator.kept().is_none());
    let listed = daemon.api("GET", "tokens", None);
    assert!(listed["items"].as_array().unwrap().iter().all(|token| !token["revoked_ms"].is_null()));
    assert!(operator.fails(&["job", "list"], 2).contains("sealift login"));
}

#[test]
fn the_daemon_is_believed_by_its_own_authority_alone() {
    let daemon = Daemon::start();
    let operator = Operator::new();
    let web = daemon.web.to_string();
    let with = |trust: &[&str]| {
        let words = [&["login", web.as_str(), "--user", "admin", "--password-stdin"], trust].concat();
        operator.run(&words).stdin(PASSWORD).finish()
    };
    let refused = with(&["--pin", &"0".repeat(64)]).expect(4);
    assert!(refused.stderr.contains("pinned"), "{refused:?}");
    // Another daemon's certificate.
    let other = operator.home.path().join("other");
    let made = sealift_tests::process::Run::with(["init", "--password-stdin", "--data-dir"])
        .arg(&other)
        .program(sealift_tests::process::control_program())
        .stdin(PASSWORD)
        .finish();
    assert_eq!(made.code, Some(0), "{made:?}");
    let authority = |dir: Option<&std::path::Path>, name: &str| {
        let shown = match dir {
            Some(dir) => sealift_tests::process::Run::with(["authority", "--data-dir"])
                .arg(dir)
                .program(sealift_tests::process::control_program())
                .finish(),
            None => daemon.command("authority"),
        };
        let file = operator.home.path().join(name);
        std::fs::write(&file, shown.expect(0).stdout).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let wrong = authority(Some(&other), "wrong.pem");
    let refused = with(&["--ca", &wrong]).expect(4);
    assert!(!refused.stderr.contains(PASSWORD), "{refused:?}");
    let none = operator.home.path().join("none.pem");
    std::fs::write(&none, "nothing").unwrap();
    let _ = with(&["--ca", none.to_str().unwrap()]).expect(2);
    // Nobody is believed unseen.
    let _ = with(&[]).expect(2);
    assert!(operator.kept().is_none());
    // Nothing was asked of it: neither a login nor a refused one is in its audit but the first administrator's.
    assert_eq!(daemon.audited("login").len(), 1);

    let right = authority(None, "right.pem");
    let _ = with(&["--ca", &right]).expect(0);
    operator.does(&["agent", "list"]);
}

#[test]
fn a_wrong_password_is_refused_and_audited() {
    let mut daemon = Daemon::start();
    let operator = Operator::new();
    let refused = operator.log_in(&daemon, &[]).stdin("not the right one").finish().expect(4);
    assert!(!refused.stderr.contains("not the right one"), "{refused:?}");
    assert!(operator.kept().is_none());
    assert_eq!(daemon.audited("login.refused").len(), 1);
    let _ = operator.log_in(&daemon, &[]).stdin("").finish().expect(2);
    daemon.kill();
    let away = operator.log_in(&daemon, &[]).finish().expect(5);
    assert!(away.stderr.contains("unreachable"), "{away:?}");
}

#[test]
fn a_token_that_holds_no_more_is_said_to() {
    let daemon = Daemon::start();
    let operator = Operator::new();
    let _ = operator.log_in(&daemon, &["--expires-in", "1"]).finish().expect(0);
    let refused = until("the token expires", || {
        let done = operator.run(&["job", "list"]).finish();
        (done.code != Some(0)).then_some(done)
    });
    let refused = refused.expect(4);
    assert!(refused.stderr.contains("sealift login"), "{refused:?}");
    // It is as good as logged out.
    operator.does(&["logout"]);

    let _ = operator.log_in(&daemon, &[]).finish().expect(0);
    let id = operator.kept().unwrap()["token_id"].as_str().unwrap().to_owned();
    operator.does(&["job", "list"]);
    let _ = daemon.call(As::Administrator, "DELETE", &format!("tokens/{id}"), None);
    operator.fails(&["job", "list"], 4);
}

#[test]
fn scripts_bring_their_own_token() {
    let daemon = Daemon::start();
    let new = json!({ "name": "script", "role": "viewer", "expires_in_seconds": 600 });
    let made = daemon.api("POST", "tokens", new);
    let secret = made["secret"].as_str().unwrap();
    let nobody = Operator::new();
    let run = |token: &str, pin: &str| {
        nobody
            .run(&["agent", "list", "--json"])
            .env("SEALIFT_API_TOKEN", token)
            .env("SEALIFT_CONTROL", daemon.web.to_string())
            .env("SEALIFT_CONTROL_PIN", pin)
            .finish()
    };
    let _ = run(secret, &daemon.pin).expect(0);
    let _ = run(secret, &"0".repeat(64)).expect(4);
    let _ = run(secret, "").expect(2);
    let _ = run("slapi1wrong", &daemon.pin).expect(4);
    assert!(nobody.kept().is_none());
}

#[test]
fn a_login_that_others_can_read_or_that_is_damaged_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let permit = |mode| {
        std::fs::set_permissions(operator.file(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(0o644);
    assert!(operator.fails(&["job", "list"], 1).contains("chmod 600"));
    permit(0o600);
    operator.does(&["job", "list"]);
    std::fs::write(operator.file(), "{").unwrap();
    let said = operator.run(&["job", "list"]).finish().expect(1);
    assert!(said.stderr.contains("damaged"), "{said:?}");
    // What cannot be read is no reason not to log in again.
    let _ = operator.log_in(&daemon, &[]).finish().expect(0);
    operator.does(&["job", "list"]);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_the_thing_is_done_once() {
    let daemon = Daemon::start();
    let operator = Operator::new();
    let cutting = Arc::new(AtomicBool::new(false));
    let plan = {
        let cutting = Arc::clone(&cutting);
        // What follows the second turn of the command is the answer of its request, which is lost once: before that the two
        // greet each other, in as many pieces as may be.
        let (mut turns, mut is_down, mut lost) = (0, true, false);
        move |piece: crate::relay::Piece| {
            if !cutting.load(Ordering::SeqCst) || lost {
                return Fate::Pass;
            }
            turns += u32::from(is_down && !piece.down);
            is_down = piece.down;
            lost = is_down && turns == 2;
            if lost { Fate::Cut } else { Fate::Pass }
        }
    };
    let relay = Relay::start(daemon.web, plan);
    let web = relay.address().to_string();
    let words = ["login", &web, "--user", "admin", "--pin", &daemon.pin, "--password-stdin"];
    let _ = operator.run(&words).stdin(PASSWORD).finish().expect(0);
    let before = relay.connections();
    cutting.store(true, Ordering::SeqCst);
    let made = operator.json(&["token", "create", "--name", "once"]);
    assert!(made[0]["secret"].as_str().unwrap().starts_with("slenrol1"), "{made:#?}");
    assert!(relay.connections() >= before + 2, "nothing was lost");
    let tokens = operator.json(&["token", "list"]);
    assert_eq!(tokens.len(), 1, "{tokens:#?}");
}
