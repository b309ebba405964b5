//! Names and texts that would do something to whoever looks at them.

use super::{document, hello, puppet};
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::{Event, Hello, HostFacts, Report, agent_message, event};
use sealift_tests::control::{As, Daemon};
use sealift_tests::process::Run;
use serde_json::json;

/// ESC (a title of the terminal, and its colours), CR and LF, HTML, right-to-left and other marks without a width, C1.
const NASTY: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m\r\nINFO forged line <script>alert(1)</script> \u{202e}txt.exe\u{2066}\u{200f}\u{9b}2J";

/// What a terminal, or somebody who reads lines, would fall for.
fn is_harmless(text: &str) -> bool {
    let bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !text.contains(bad) && !text.lines().any(|line| line.starts_with("INFO forged"))
}

#[test]
fn a20_what_agents_say_is_escaped_wherever_people_look() {
    let mut daemon = Daemon::start();
    let mut puppet = puppet(&daemon, "alpha");
    let host = HostFacts {
        hostname: NASTY.into(),
        os: NASTY.into(),
        version: NASTY.into(),
        data_addresses: vec![NASTY.into()],
        read_roots: vec![NASTY.as_bytes().to_vec(), b"/\xff\x1b[31m".to_vec()],
        ..HostFacts::default()
    };
    let said = document(puppet.hello(Hello { host: Some(host), ..hello() }).unwrap());
    puppet.acknowledge(&said);
    let event = Event {
        number: 1,
        severity: event::Severity::Warning.into(),
        message: NASTY.into(),
        ..Event::default()
    };
    puppet.say(agent_message::Body::Report(Report { jobs: vec![], events: vec![event] }));
    puppet.hear_until("the event is kept", |body| matches!(body, Body::EventsKept(_)).then_some(()));

    // The API carries it as it is, as data: JSON has an escape for each control character, and nobody takes it for HTML.
    for path in ["agents", "events"] {
        let answer = daemon.call(As::Administrator, "GET", path, None);
        assert!(answer.head.contains("content-type: application/json"), "{path}: {}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{path}: {}", answer.head);
        assert!(is_harmless(&answer.head), "{path}: {}", answer.head);
    }
    assert_eq!(daemon.api("GET", "agents", None)["items"][0]["facts"]["hostname"], NASTY);
    assert_eq!(daemon.api("GET", "events", None)["items"][0]["message"], NASTY);

    // The command line escapes.
    let home = tempfile::tempdir().unwrap();
    let web = daemon.web.to_string();
    let run = |words: &[&str]| {
        let run = Run::with(words).env("XDG_CONFIG_HOME", home.path());
        ["SEALIFT_API_TOKEN", "SEALIFT_CONTROL", "SEALIFT_CONTROL_PIN"]
            .iter()
            .fold(run, |run, name| run.env(name, ""))
    };
    let pin = daemon.pin.clone();
    let _ = run(&["login", &web, "--user", "admin", "--pin", &pin, "--password-stdin"])
        .stdin(sealift_tests::control::PASSWORD)
        .finish()
        .expect(0);
    for words in [&["agent", "list"][..], &["agent", "show", "alpha"], &["events"]] {
        let shown = run(words).finish().expect(0);
        assert!(is_harmless(&shown.stdout) && is_harmless(&shown.stderr), "{words:?}: {:?}", shown.stdout);
    }
    assert!(
        run(&["events"]).finish().expect(0).stdout.contains("<script>"),
        "the text is there, and harmless"
    );

    // What somebody tries to be called is refused, and the refusal is harmless in the audit and in the daemon's log.
    for (method, path, body) in [
        (
            "POST",
            "jobs",
            json!({ "name": NASTY, "spec": { "kind": "distribution", "from": ["alpha:/x"], "to": ["alpha:/y"] } }),
        ),
        ("POST", "users", json!({ "name": NASTY, "role": "viewer", "password": "long enough to do" })),
        ("POST", "login", json!({ "name": NASTY, "password": "x" })),
    ] {
        let refused = daemon.call(As::Administrator, method, path, body);
        assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
    }
    let audit = run(&["audit", "list"]).finish().expect(0);
    assert!(is_harmless(&audit.stdout), "{:?}", audit.stdout);
    let log = daemon.end().stderr;
    assert!(
        is_harmless(&log.replace("\u{1b}[0m", "").replace("\u{1b}[2m", "").replace("\u{1b}[32m", "")),
        "{log:?}"
    );
}
