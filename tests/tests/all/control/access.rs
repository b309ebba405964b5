//! Who may ask what of the API: driven by the table of rules, so that no route can be forgotten.

use sealift_control::rest::{Access, RULES, description};
use sealift_tests::control::{As, Daemon};
use sealift_tests::process::{Run, control_program};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SOME_ID: &str = "01900000-0000-7000-8000-000000000000";

fn described() -> BTreeSet<(String, String)> {
    let api: Value = serde_json::from_str(&description()).expect("JSON");
    let paths = api["paths"].as_object().expect("paths").iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.to_ascii_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_route_has_a_rule_and_every_rule_a_route() {
    let rules: BTreeSet<_> =
        RULES.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect();
    assert_eq!(rules, described());
}

#[test]
fn without_credentials_it_is_401_and_with_too_small_a_role_403() {
    let daemon = Daemon::start();
    let viewer = json!({ "name": "eve", "role": "viewer", "password": "a long enough one" });
    daemon.api("POST", "users", viewer);
    let mut tokens = Vec::new();
    for role in ["viewer", "operator"] {
        let new = json!({ "name": role, "role": role, "expires_in_seconds": 600 });
        let made = daemon.api("POST", "tokens", new);
        tokens.push((role, made["secret"].as_str().unwrap().to_owned()));
    }
    for (method, path, access) in RULES {
        let path = path.replace("{id}", SOME_ID);
        let Access::From(needed) = access else { continue };
        for who in [As::Nobody, As::Token("slapi1nonsense")] {
            let answer = daemon.call(who, method, &path, None);
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert!(answer.head.contains("application/problem+json"), "{answer:?}");
        }
        for (role, token) in &tokens {
            let small = match needed.as_str() {
                "administrator" => true,
                "operator" => *role == "viewer",
                _ => false,
            };
            if small {
                let answer = daemon.call(As::Token(token), method, &path, None);
                assert_eq!(answer.status, 403, "{method} {path} as {role}: {answer:?}");
            }
        }
    }
    assert!(!daemon.audited("request.refused").is_empty());
}

#[test]
fn a_session_changes_nothing_without_its_other_half() {
    let mut daemon = Daemon::start();
    daemon.forget_csrf();
    let answer = daemon.call(As::Administrator, "POST", "tokens", json!({ "name": "x", "role": "viewer" }));
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.body["type"], "/problems/csrf");
    assert_eq!(daemon.call(As::Administrator, "GET", "agents", None).status, 200);
}

#[test]
fn a_daemon_that_could_not_be_made_leaves_nothing_and_one_that_was_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let init = |password: &str| {
        let run = Run::with(["init", "--password-stdin", "--data-dir"]).program(control_program());
        run.arg(dir.path()).stdin(password).finish()
    };
    let refused = init("short");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(init("long enough now").code, Some(0));
    let before = std::fs::read(dir.path().join("master.key")).unwrap();
    assert_eq!(init("long enough now").code, Some(1));
    assert_eq!(std::fs::read(dir.path().join("master.key")).unwrap(), before);
}

#[test]
fn what_is_not_there_is_a_problem_in_json() {
    let daemon = Daemon::start();
    for (method, path, status) in [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/agents", 404),
        ("PUT", "/api/v1/agents", 405),
        ("GET", "/api/v1/agents/no-id", 404),
        ("GET", "/api/v1/agents?limit=many", 400),
        ("POST", "/api/v1/jobs", 400),
    ] {
        let body = (method == "POST").then(|| json!("no job"));
        let answer = daemon.call(As::Administrator, method, path, body);
        assert!(answer.head.contains("application/problem+json"), "{method} {path}: {answer:?}");
        let right = answer.status == status || (status == 400 && answer.status == 422);
        assert!(right, "{method} {path}: {answer:?}");
        assert!(answer.body["request_id"].is_string(), "{answer:?}");
    }
}

#[test]
fn the_description_is_the_one_that_is_committed() {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let now = description() + "\n";
    if std::env::var_os("SEALIFT_UPDATE_OPENAPI").is_some() {
        std::fs::write(committed, &now).unwrap();
    }
    let kept = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(
        kept == now,
        "docs/openapi.json is not what the code says: run this test with SEALIFT_UPDATE_OPENAPI=1"
    );
}
