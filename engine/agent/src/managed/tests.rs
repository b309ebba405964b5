//! An agent and a control daemon in one process, over real TLS. The daemon says what the test has it say; children are
//! scripts.

use super::agent::run_until;
use super::document::tests::{assignment, document};
use super::home::Home;
use super::join::{JoinOptions, join_asking};
use super::pin::Pin;
use super::testing::{Authority, Connected, Daemon};
use crate::error::{Finish, RunError};
use crate::report::{Reporter, Style};
use sealift_api::agent::agent_message::Body as Said;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::event::Severity;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::job_status::State;
use sealift_api::agent::{EventsKept, Goodbye, Hello, JobStatus, Report};
use std::collections::BTreeMap;
use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

fn options(dir: &Path, daemon: &Daemon) -> JoinOptions {
    JoinOptions {
        daemon: daemon.address.to_string(),
        pin: Pin::of(&daemon.authority.der()),
        token: Zeroizing::new("slenrol1right".into()),
        name: Some("host-a".into()),
        state_dir: Some(dir.join("state")),
        allow_read: vec![],
        allow_write: vec![dir.join("data")],
        data_addresses: vec!["127.0.0.1:3939".into()],
        data_ports: None,
        wait: None,
    }
}

async fn join(options: JoinOptions) -> Result<Finish, RunError> {
    join_asking(options, &Reporter::new(Style::People), Duration::from_millis(10)).await
}

fn home(dir: &Path) -> Home {
    Home::open(Some(dir.join("state"))).unwrap()
}

/// A directory with an agent that has joined.
async fn joined() -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let daemon = Daemon::start(Arc::new(Authority::new()), 0).await;
    join(options(dir.path(), &daemon)).await.unwrap();
    (dir, daemon)
}

/// An agent whose children are this script.
async fn agent(dir: &Path, script: &str) -> Result<Finish, RunError> {
    agent_limited(dir, script, "off").await
}

/// The same, all of whose children together keep to limits.
async fn agent_limited(dir: &Path, script: &str, limits: &str) -> Result<Finish, RunError> {
    let program = dir.join("child");
    // Renamed into place: a file that is open for writing cannot be run.
    let draft = dir.join("child.new");
    std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::rename(&draft, &program).unwrap();
    let limits = limits.parse().unwrap();
    run_until(Some(dir.join("state")), limits, &Reporter::new(Style::People), program, pending()).await
}

async fn hello(connected: &mut Connected) -> Hello {
    match connected.hear().await {
        Said::Hello(hello) => hello,
        other => panic!("not a Hello: {other:?}"),
    }
}

async fn ack(connected: &mut Connected) -> (u64, Vec<u8>) {
    match connected.hear().await {
        Said::Ack(ack) => (ack.document, ack.incarnation),
        other => panic!("not an Ack: {other:?}"),
    }
}

/// Hears reports until one is right; all that were heard.
async fn reports(connected: &mut Connected, right: impl Fn(&Report) -> bool) -> Vec<Report> {
    let mut reports = Vec::new();
    loop {
        if let Said::Report(report) = connected.hear().await {
            let last = right(&report);
            reports.push(report);
            if last {
                return reports;
            }
        }
    }
}

fn has(state: State) -> impl Fn(&Report) -> bool {
    move |report| report.jobs.iter().any(|job| job.state() == state)
}

fn status(reports: &[Report]) -> &JobStatus {
    reports.last().and_then(|report| report.jobs.first()).expect("a status")
}

async fn revoke(connected: &Connected) {
    let mut goodbye = Goodbye::default();
    goodbye.set_reason(Reason::Revoked);
    connected.say(Body::Goodbye(goodbye)).await;
}

#[tokio::test]
async fn a_daemon_that_was_not_pinned_gets_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(Arc::new(Authority::new()), 0).await;
    let mut wrong = options(dir.path(), &daemon);
    wrong.pin = Pin::of(&Authority::new().der());
    let error = join(wrong).await.unwrap_err();
    assert!(error.code() == 4 && error.to_string().contains("--pin is wrong"), "{error}");
    assert!(daemon.tokens().is_empty() && home(dir.path()).identity_if_joined().unwrap().is_none());
}

#[tokio::test]
async fn a_server_that_is_not_the_control_daemon_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_at("127.0.0.1:0", Arc::new(Authority::new()), "other.invalid", 0).await;
    let error = join(options(dir.path(), &daemon)).await.unwrap_err();
    assert!(error.code() == 4 && error.to_string().contains("does not prove"), "{error}");
    assert!(daemon.tokens().is_empty());
}

#[tokio::test]
async fn a_token_that_is_refused_and_a_daemon_that_is_away_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(Arc::new(Authority::new()), 0).await;
    let mut wrong = options(dir.path(), &daemon);
    wrong.token = Zeroizing::new("slenrol1wrong".into());
    let error = join(wrong).await.unwrap_err();
    assert!(error.code() == 4 && !error.to_string().contains("slenrol1wrong"), "{error}");
    let right = options(dir.path(), &daemon);
    daemon.end().await;
    assert_eq!(join(right).await.unwrap_err().code(), 5);
}

#[tokio::test]
async fn joining_waits_for_approval_with_one_key_and_happens_once() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(Arc::new(Authority::new()), 2).await;
    let mut impatient = options(dir.path(), &daemon);
    impatient.wait = Some(Duration::ZERO);
    let error = join(impatient).await.unwrap_err();
    assert!(error.code() == 4 && error.to_string().contains("not approved in time"), "{error}");
    let key = std::fs::read(home(dir.path()).path("key")).unwrap();

    assert_eq!(join(options(dir.path(), &daemon)).await.unwrap(), Finish::Complete);
    assert_eq!(daemon.tokens().len(), 3);
    assert_eq!(std::fs::read(home(dir.path()).path("key")).unwrap(), key);
    let identity = home(dir.path()).identity().unwrap();
    assert_eq!(identity.agent_id.into_bytes(), [5; 16]);
    assert_eq!(super::status(Some(dir.path().join("state")), true).unwrap(), Finish::Complete);

    let again = join(options(dir.path(), &daemon)).await.unwrap_err();
    assert!(again.code() == 2 && again.to_string().contains("already"), "{again}");
}

#[tokio::test]
async fn a_document_is_on_the_disk_before_it_is_acknowledged() {
    let (dir, mut daemon) = joined().await;
    let said = async {
        let mut connected = daemon.next().await;
        let first = hello(&mut connected).await;
        assert_eq!((first.document, first.incarnation, first.version_max), (0, vec![], 1));
        assert_eq!(first.host.unwrap().write_roots.len(), 1);
        let outside = assignment(1, 2, false, "/");
        connected.say(Body::Document(document(3, vec![outside]))).await;
        assert_eq!(ack(&mut connected).await, (3, vec![9; 16]));
        assert!(home(dir.path()).path("document").exists());

        // What this host does not allow is not done, whoever says so.
        let heard = reports(&mut connected, has(State::Failed)).await;
        assert!(status(&heard).message.contains("not within what this host allows"), "{heard:?}");
        let events: Vec<_> = heard.iter().flat_map(|report| &report.events).collect();
        assert!(events.iter().any(|event| event.severity() == Severity::Security), "{events:?}");
        assert!(events.iter().zip(1..).all(|(event, number)| event.number == number), "{events:?}");
        connected.say(Body::EventsKept(EventsKept { number: 1 })).await;
        drop(connected);

        // Everything is said again, but for events that the daemon has.
        let mut connected = daemon.next().await;
        let second = hello(&mut connected).await;
        assert_eq!((second.document, second.incarnation), (3, vec![9; 16]));
        let mut document = document(4, vec![assignment(1, 2, false, "/")]);
        document.incarnation = vec![10; 16];
        connected.say(Body::Document(document)).await;
        assert_eq!(ack(&mut connected).await, (4, vec![10; 16]));
        let heard = reports(&mut connected, has(State::Failed)).await;
        assert_eq!(heard[0].events[0].number, 2);
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), "exit 1"), said);
    let error = ended.unwrap_err();
    assert!(error.code() == 4 && error.to_string().contains("revoked"), "{error}");
    assert!(home(dir.path()).path("barred").exists());
}

fn destination(dir: &Path) -> sealift_api::agent::Assignment {
    assignment(1, 2, false, dir.join("data/copy").to_str().unwrap())
}

/// Notes each start; is unreachable until a file appears; then done.
fn patient(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"head -n 1 > {dir}/stdin; echo started >> {dir}/starts
        [ -e {dir}/source ] || exit 5
        echo '{{"event":"done","files":3,"bytes":7,"bytes_transferred":7,"seconds":1.0,"failed":0}}'"#
    )
}

fn starts(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("starts")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn c6_runs_go_on_while_the_daemon_is_away_and_it_learns_of_their_end() {
    let (dir, mut daemon) = joined().await;
    let script = patient(dir.path());
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(1, vec![destination(dir.path())]))).await;
        let waiting = |report: &Report| report.jobs.iter().any(|job| job.message.contains("tried again"));
        reports(&mut connected, waiting).await;
        let authority = Arc::clone(&daemon.authority);
        let address = daemon.end().await;
        drop(connected);
        std::fs::write(dir.path().join("source"), "").unwrap();

        // It comes back later, knowing nothing of what has happened since.
        let mut daemon =
            Daemon::start_at(&address.to_string(), authority, "control.sealift.invalid", 0).await;
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(2, vec![destination(dir.path())]))).await;
        let heard = reports(&mut connected, has(State::Done)).await;
        assert_eq!((status(&heard).files, status(&heard).bytes), (3, 7));
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), &script), said);
    assert_eq!(ended.unwrap_err().code(), 4);
    let ticket = std::fs::read_to_string(dir.path().join("stdin")).unwrap();
    assert!(ticket.starts_with("sealift1"), "the ticket comes by standard input");
}

#[tokio::test]
async fn c6_an_agent_that_is_started_without_its_daemon_goes_on_with_the_document_it_has() {
    let (dir, mut daemon) = joined().await;
    let home = home(dir.path());
    let desired = super::document::receive(document(5, vec![destination(dir.path())])).unwrap();
    super::document::keep(&home, &desired).unwrap();
    std::fs::write(dir.path().join("source"), "").unwrap();
    let script = patient(dir.path());
    for _ in 0..2 {
        // The second start finds it done, and does nothing again.
        let said = async {
            let mut connected = daemon.next().await;
            assert_eq!(hello(&mut connected).await.document, 5);
            connected.say(Body::Document(document(5, vec![destination(dir.path())]))).await;
            reports(&mut connected, has(State::Done)).await;
            revoke(&connected).await;
            connected.incoming.message().await.ok();
        };
        let (ended, ()) = tokio::join!(agent(dir.path(), &script), said);
        assert_eq!(ended.unwrap_err().code(), 4);
        home.remove("barred").unwrap();
    }
    assert_eq!(starts(dir.path()), 1);
}

#[tokio::test]
async fn a_source_tells_where_it_is_and_ends_when_it_is_paused() {
    let (dir, mut daemon) = joined().await;
    let mut identity = home(dir.path()).identity().unwrap();
    identity.allow_read = vec![dir.path().join("data")];
    home(dir.path()).write_identity(&identity).unwrap();
    let source = |action| {
        let mut source = assignment(1, 2, true, dir.path().join("data").to_str().unwrap());
        source.set_action(action);
        source
    };
    use sealift_api::agent::assignment::Action;
    let script =
        r#"echo '{"event":"ticket","ticket":"sealift1x","addresses":["10.0.0.1:4711"]}'; exec sleep 1000"#;
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(1, vec![source(Action::Run)]))).await;
        let listens = |report: &Report| report.jobs.iter().any(|job| !job.addresses.is_empty());
        let heard = reports(&mut connected, listens).await;
        assert_eq!(status(&heard).addresses, ["127.0.0.1:4711"]);
        connected.say(Body::Document(document(2, vec![source(Action::Pause)]))).await;
        let heard = reports(&mut connected, has(State::Paused)).await;
        assert!(status(&heard).addresses.is_empty());
        connected.say(Body::Document(document(3, vec![source(Action::Run)]))).await;
        reports(&mut connected, listens).await;
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), script), said);
    assert_eq!(ended.unwrap_err().code(), 4);
}

#[tokio::test]
async fn what_a_sealed_source_says_last_is_not_told_either() {
    const NAME: &str = "canary-name";
    let (dir, mut daemon) = joined().await;
    let mut identity = home(dir.path()).identity().unwrap();
    identity.allow_read = vec![dir.path().join("data")];
    home(dir.path()).write_identity(&identity).unwrap();
    let public = include_str!("../../../../control/envelope/tests/keys/a.pub.pem");
    let kek = sealift_envelope::PublicKek::from_pem(public).unwrap();
    let source = sealift_api::agent::Assignment {
        sealed: true,
        keks: vec![sealift_api::agent::Kek {
            name: "team".into(),
            version: 1,
            fingerprint: kek.fingerprint().0.to_vec(),
            public_pem: public.into(),
        }],
        ..assignment(1, 2, true, dir.path().join("data").to_str().unwrap())
    };
    // When it is ended it has something to say, on both of its outputs.
    let script = format!(
        r#"trap 'echo "{{\"event\":\"warning\",\"message\":\"{NAME}\"}}"; echo {NAME} >&2; kill $!; exit 1' TERM
        echo '{{"event":"ticket","ticket":"sealift1x","addresses":["10.0.0.1:4711"]}}'
        sleep 1000 & wait"#
    );
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(1, vec![source]))).await;
        reports(&mut connected, |report| report.jobs.iter().any(|job| !job.addresses.is_empty())).await;
        // Nobody wants it any more.
        connected.say(Body::Document(document(2, vec![]))).await;
        let withheld = |report: &Report| {
            report.events.iter().any(|event| event.message.contains("kept from the control daemon"))
        };
        let heard = reports(&mut connected, withheld).await;
        assert!(!format!("{heard:?}").contains(NAME), "{heard:?}");
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), &script), said);
    assert_eq!(ended.unwrap_err().code(), 4);
    let logs = std::fs::read_dir(home(dir.path()).path("logs")).unwrap();
    let logs: Vec<_> = logs.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let has = |part: &str| logs.windows(part.len()).any(|window| window == part.as_bytes());
    assert!(has("kept from the control daemon") && !has(NAME));
}

#[tokio::test]
async fn children_share_what_the_agent_is_allowed_and_hear_of_it_when_others_come_and_go() {
    let (dir, mut daemon) = joined().await;
    let mut identity = home(dir.path()).identity().unwrap();
    identity.allow_read = vec![dir.path().join("data")];
    home(dir.path()).write_identity(&identity).unwrap();
    let path = dir.path().join("data");
    let source = |job, bytes_per_second| {
        let mut source = assignment(job, 2, true, path.to_str().unwrap());
        source.settings.as_mut().unwrap().bytes_per_second = bytes_per_second;
        source
    };
    let destination = assignment(3, 2, false, path.join("copy").to_str().unwrap());
    // Says what it hears, but for a ticket.
    let script = r#"while read it; do
        case "$it" in limit*) echo '{"event":"warning","message":"'$it'"}';; esac
    done"#;
    // The last that each job's child has heard.
    async fn until_heard(connected: &mut Connected, heard: &mut BTreeMap<u8, String>, wanted: &[(u8, &str)]) {
        while !wanted.iter().all(|(job, order)| heard.get(job).is_some_and(|heard| heard == order)) {
            if let Said::Report(report) = connected.hear().await {
                for event in report.events.into_iter().filter(|event| event.message.starts_with("limit")) {
                    heard.insert(event.job_id[0], event.message);
                }
            }
        }
    }
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        let mut heard = BTreeMap::new();
        connected.say(Body::Document(document(1, vec![source(1, 0)]))).await;
        until_heard(&mut connected, &mut heard, &[(1, "limit 90000 none")]).await;
        let all = vec![source(1, 0), source(2, 10_000), destination.clone()];
        connected.say(Body::Document(document(2, all))).await;
        let parts = [(1, "limit 40000 none"), (2, "limit 10000 none"), (3, "limit 40000 70000")];
        until_heard(&mut connected, &mut heard, &parts).await;
        connected.say(Body::Document(document(3, vec![source(1, 0), destination]))).await;
        let parts = [(1, "limit 45000 none"), (3, "limit 45000 70000")];
        until_heard(&mut connected, &mut heard, &parts).await;
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent_limited(dir.path(), script, "90000:70000"), said);
    assert_eq!(ended.unwrap_err().code(), 4);
}

#[tokio::test]
async fn a_certificate_that_nears_its_end_is_renewed() {
    let (dir, mut daemon) = joined().await;
    let home = home(dir.path());
    let key = super::credentials::AgentKey::load(&home).unwrap().unwrap();
    // Of 1975 to 2045 less than a third is left.
    let old = daemon.authority.sign_until(&key.request("host-a").unwrap(), 2045);
    home.write("certificate", &old).unwrap();
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(1, vec![]))).await;
        ack(&mut connected).await;
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), "exit 1"), said);
    assert_eq!(ended.unwrap_err().code(), 4);
    assert_eq!(daemon.renewals(), 1);
    assert_ne!(std::fs::read(home.path("certificate")).unwrap(), old);
}

#[tokio::test]
async fn quarantine_ends_runs_and_a_document_begins_them_again() {
    let (dir, mut daemon) = joined().await;
    let path: PathBuf = home(dir.path()).path("barred");
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        let mut goodbye = Goodbye::default();
        goodbye.set_reason(Reason::Quarantined);
        connected.say(Body::Goodbye(goodbye)).await;
        connected.incoming.message().await.ok();
    };
    // It stays, and asks again every minute, which is not waited for here.
    tokio::select! {
        ended = agent(dir.path(), "exit 1") => panic!("it ended: {ended:?}"),
        () = async { said.await; while !path.exists() { tokio::task::yield_now().await } } => {}
    }
    let said = async {
        let mut connected = daemon.next().await;
        hello(&mut connected).await;
        connected.say(Body::Document(document(1, vec![]))).await;
        ack(&mut connected).await;
        assert!(!path.exists());
        revoke(&connected).await;
    };
    let (ended, ()) = tokio::join!(agent(dir.path(), "exit 1"), said);
    assert_eq!(ended.unwrap_err().code(), 4);
}
