//! A KEK is rotated while many data keys are wrapped to it and transfers run: nothing is moved, and nothing is lost.
//!
//! Few of them, unless whoever runs this asks for more. Each is that of a segment of sealed logs; a sealed job has one more.
#![allow(clippy::unwrap_used)]

use super::operator::sealed_logs::seal_logs;
use super::operator::{Operator, agents};
use crate::sealed::KeyPair;
use prost::Message as _;
use sealift_api::logs::batch::Content;
use sealift_api::logs::{Batch, Record, Sealed};
use sealift_envelope::{DataKey, Envelope, Fingerprint, KekVersion, OwnerId, PublicKek, RecordSealer};
use sealift_tests::control::{Agent, Daemon, until};
use sealift_tests::fleet::{Puppet, Upload};
use sealift_tests::process::{Outcome, Run};
use sealift_tests::settings::number;
use sealift_tests::tree::{self, Random, SpecialModes};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SPOOL: [u8; 16] = [9; 16];
/// The text of the records that the test brings: this and a number.
const TEXT: &str = "a record of the rotation, number ";
/// What a run may move each second: the one that goes on when the KEK is rotated takes a while.
const RATE: u64 = 2 << 20;
/// What changes before that run.
const LARGE: u64 = 16 << 20;
/// What changes before each later one.
const SMALL: u64 = 100 << 10;
/// How long one command may take on very many data keys.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between requests of others.
const EVERY: Duration = Duration::from_millis(100);
/// The most that the daemon may have resident meanwhile.
const RESIDENT_BYTES_MAX: u64 = 300 << 20;

/// A segment of logs as an agent seals it: a data key of its own, wrapped.
struct Segment {
    records: RecordSealer,
    envelope: Vec<u8>,
}

impl Segment {
    fn new(kek: &PublicKek, version: u32) -> Self {
        let key = DataKey::generate().unwrap();
        let envelope = Envelope::seal(&key, OwnerId(SPOOL), &[(kek, KekVersion(version))]).unwrap();
        Self { records: RecordSealer::new(&key, &SPOOL), envelope: envelope.encode() }
    }

    /// Brings the record of this number.
    fn bring(&self, upload: &mut Upload<'_>, number: u64) {
        let record = Record { unix_millis: number, message: format!("{TEXT}{number}."), ..Record::default() };
        let records = vec![self.records.seal(number, &record.encode_to_vec())];
        let content = Content::Sealed(Sealed { envelope: self.envelope.clone(), records });
        upload.bring(Batch { first: number, count: 1, content: Some(content) });
    }
}

fn public(key: &KeyPair) -> PublicKek {
    PublicKek::from_pem(&fs::read_to_string(&key.public).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All items of a list, page by page.
fn all(daemon: &Daemon, path: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = daemon.api("GET", &format!("{path}?limit=200{after}"), None);
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

/// What the daemon keeps sealed, without the envelopes: by its number there.
fn sealed_data(daemon: &Daemon) -> BTreeMap<u64, Value> {
    let bare = |mut record: Value| {
        record.as_object_mut().unwrap().remove("envelope").expect("it has one");
        (record["number"].as_u64().unwrap(), record)
    };
    all(daemon, "logs/sealed").into_iter().map(bare).collect()
}

/// The numbers of the test's records that this key opens, each as often as it is there; and what is said of others.
fn opened(operator: &Operator, key: &KeyPair) -> (Vec<u64>, String) {
    let words = ["logs", "--json", "--limit", "1000000", "--key", text(&key.private)];
    let done = operator.run(&words).patience(PATIENCE).finish().expect(0);
    let number = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["message"].as_str().unwrap().strip_prefix(TEXT)?.strip_suffix('.')?.parse().ok()
    };
    let mut numbers: Vec<u64> = done.stdout.lines().filter_map(number).collect();
    numbers.sort_unstable();
    (numbers, done.stderr)
}

/// Whom a replica's data key is wrapped to.
fn wrapped_to(replica: &Path) -> Vec<Fingerprint> {
    let envelope = Envelope::decode(&fs::read(replica.join("keys")).unwrap()).unwrap();
    envelope.keks().iter().map(|info| info.fingerprint).collect()
}

fn restore(operator: &Operator, from: &Path, to: &Path, key: &KeyPair) -> Outcome {
    operator.run(&["restore", text(from), text(to), "--key", text(&key.private)]).finish()
}

/// How many segments a refusal to destroy counts.
fn segments_in(refusal: &str) -> u64 {
    let (before, _) = refusal.split_once(" segments of logs").expect("it says how many");
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

fn peak_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A sealed job whose source changes.
struct Job<'d> {
    daemon: &'d Daemon,
    id: String,
    source: &'d Agent,
    changes: u64,
}

impl<'d> Job<'d> {
    fn new(daemon: &'d Daemon, source: &'d Agent, keeper: &Agent) -> Self {
        let spec = json!({
            "kind": "distribution", "from": [source.endpoint("src")], "to": [keeper.endpoint("dest")],
            "seal_to": ["team"], "bytes_per_second": RATE,
        });
        let made = daemon.api("POST", "jobs", json!({ "name": "sealed", "spec": spec }));
        Self { daemon, id: made["id"].as_str().unwrap().to_owned(), source, changes: 0 }
    }

    /// Another file in the source.
    fn change(&mut self, bytes: u64) {
        self.changes += 1;
        let content = Random::new(self.changes).bytes(bytes);
        tree::file(&self.source.data().join("src").join(format!("change-{}", self.changes)), content);
    }

    fn start(&self) -> String {
        let run = self.daemon.api("POST", &format!("jobs/{}/runs", self.id), None);
        run["id"].as_str().unwrap().to_owned()
    }

    /// How many bytes a run has moved, once it has ended.
    fn moved(&self, run: &str) -> Option<u64> {
        let run = self.daemon.api("GET", &format!("runs/{run}"), None);
        if run["state"] == "running" {
            return None;
        }
        assert_eq!(run["state"], "done", "{run:#}");
        Some(moved(&run))
    }

    fn run(&self) -> u64 {
        let run = self.start();
        until("the run ends", || self.moved(&run))
    }
}

fn moved(run: &Value) -> u64 {
    let agents = run["agents"].as_array().unwrap().iter();
    agents
        .filter(|row| row["role"] == "destination")
        .filter_map(|row| row["bytes_transferred"].as_u64())
        .sum()
}

/// Runs a command while the job runs again and again and others ask for something. Gives its outcome and how long it took;
/// how many runs there were, and how long the slowest request took.
fn meanwhile(job: &mut Job<'_>, command: Run) -> (Outcome, Duration, u32, Duration) {
    let process = command.patience(PATIENCE).start();
    let commanded = std::thread::spawn(move || {
        let begun = Instant::now();
        (process.finish(), begun.elapsed())
    });
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    let mut run = None;
    let mut next = Instant::now();
    while runs == 0 || !commanded.is_finished() || run.is_some() {
        let asked = Instant::now();
        job.daemon.api("GET", "agents", None);
        slowest = slowest.max(asked.elapsed());
        match &run {
            None => {
                job.change(SMALL);
                run = Some(job.start());
            }
            Some(id) => {
                if let Some(bytes) = job.moved(id) {
                    // The new file, its head and that of its directory; and nothing of what was there.
                    assert!((SMALL..SMALL + (64 << 10)).contains(&bytes), "{bytes}");
                    runs += 1;
                    run = None;
                }
            }
        }
        next += EVERY;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let (outcome, took) = commanded.join().unwrap();
    (outcome, took, runs, slowest)
}

#[test]
fn a_rotation_over_many_data_keys_moves_nothing_and_loses_nothing() {
    let count = number("SEALIFT_TEST_WRAPS", 100);
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| KeyPair::new(dir.path(), name, 2048, None));
    let [source, keeper] = agents(&daemon, &operator, ["alpha", "beta"]);
    operator.does(&["kek", "import", "team", "--public", text(&old.public)]);
    seal_logs(&daemon, &operator, "team");
    let token = fs::read_to_string(daemon.enrolment_token("puppet", 1, true)).unwrap();
    let puppet = Puppet::enrol(&daemon, "puppet", token.trim());
    let mut upload = puppet.upload(&daemon, SPOOL);
    let old_public = public(&old);
    let begun = Instant::now();
    let mut last = Segment::new(&old_public, 1);
    for at in 1..=count {
        last = Segment::new(&old_public, 1);
        last.bring(&mut upload, at);
    }
    println!("{count} segments are kept sealed after {:.1?}", begun.elapsed());

    let src = source.data().join("src");
    tree::mixed(&src, 40, 7);
    tree::large_file(&src.join("large"), 2 << 20, 8);
    let replica = keeper.data().join("dest");
    let mut job = Job::new(&daemon, &source, &keeper);
    assert!(job.run() > 2 << 20);
    assert_eq!(wrapped_to(&replica), [old_public.fingerprint()]);

    // Rotated in the middle of a transfer.
    job.change(LARGE);
    let run = job.start();
    daemon.run_until(&run, "it moves", |run| {
        assert_eq!(run["state"], "running", "{run:#}");
        moved(run) > 0
    });
    operator.does(&["kek", "rotate", "team", "--public", text(&new.public)]);
    assert_eq!(daemon.api("GET", &format!("runs/{run}"), None)["state"], "running");
    let bytes = until("the run ends", || job.moved(&run));
    assert!((LARGE..LARGE + LARGE / 4).contains(&bytes), "{bytes}");
    // Another one moves the wrapped key, or the one before has.
    let keys = fs::metadata(replica.join("keys")).unwrap().len();
    let bytes = job.run();
    assert!(bytes == 0 || bytes == keys, "{bytes}");
    assert_eq!(wrapped_to(&replica), [public(&new).fingerprint()]);

    let before = sealed_data(&daemon);
    let refused = operator.fails(&["kek", "destroy", "team@1"], 1);
    let held = segments_in(&refused);
    assert!(held >= count && refused.contains(" 0 jobs"), "{refused}");

    let rewrap = ["kek", "rewrap", "team", "--key", text(&old.private)];
    let (done, took, runs, slowest) = meanwhile(&mut job, operator.run(&rewrap));
    let done = done.expect(0);
    assert!(done.stderr.contains("are wrapped to team (version 2)"), "{done:#?}");
    assert!(segments_in(&done.stderr) >= count, "{done:#?}");
    #[expect(clippy::cast_precision_loss)]
    let rate = held as f64 / took.as_secs_f64();
    println!(
        "{held} data keys wrapped anew in {took:.1?}, {rate:.0} a second; meanwhile {runs} runs, and GET agents at most {slowest:.1?}; \
        the daemon had {} MiB at most",
        peak_bytes(daemon.id()) >> 20
    );

    // The agent had not brought all of it yet: the rest of a segment that is wrapped anew, and one of which nothing is known.
    last.bring(&mut upload, count + 1);
    Segment::new(&old_public, 1).bring(&mut upload, count + 2);
    until("nothing is wrapped to the old one any more", || {
        let _ = operator.run(&rewrap).finish().expect(0);
        let done = operator.run(&["kek", "destroy", "team@1"]).finish();
        (done.code == Some(0)).then_some(())
    });
    last = Segment::new(&public(&new), 2);
    last.bring(&mut upload, count + 3);

    let after = sealed_data(&daemon);
    for (number, record) in &before {
        assert_eq!(after.get(number), Some(record), "no sealed record has changed");
    }
    let envelopes: BTreeSet<String> =
        all(&daemon, "logs/segments").iter().map(|one| one["envelope"].to_string()).collect();
    assert!(envelopes.len() as u64 > count, "each has a data key of its own");
    let begun = Instant::now();
    let (numbers, _) = opened(&operator, &new);
    println!("all of them opened with the new key in {:.1?}", begun.elapsed());
    assert_eq!(numbers, (1..=count + 3).collect::<Vec<_>>());
    let (numbers, said) = opened(&operator, &old);
    assert!(numbers.is_empty() && said.contains("the data key is not wrapped to the KEK"), "{said}");

    let _ = restore(&operator, &replica, &dir.path().join("whole"), &new).expect(0);
    tree::assert_same(&src, &dir.path().join("whole"), SpecialModes::Dropped);
    let _ = restore(&operator, &replica, &dir.path().join("none"), &old).expect(1);

    // The daemon never had a private half that it could have used.
    assert!(daemon.audited("kek.use").is_empty());
    let states: Vec<_> = operator.json(&["kek", "list"]).iter().map(|kek| kek["state"].clone()).collect();
    assert_eq!(states, ["destroyed", "active"]);
    assert!(peak_bytes(daemon.id()) < RESIDENT_BYTES_MAX);
}

/// What came while a KEK was disabled is kept sealed, though the daemon has the private half: it wraps that anew itself.
#[test]
fn a_daemon_that_has_the_private_half_wraps_anew_what_came_while_it_was_disabled() {
    const SEGMENTS: u64 = 60;
    let daemon = Daemon::start();
    let operator = Operator::logged_in(&daemon);
    let dir = tempfile::tempdir().unwrap();
    let [old, new, foreign] =
        ["old", "new", "foreign"].map(|name| KeyPair::new(dir.path(), name, 2048, None));
    let both =
        |key: &KeyPair| ["--public", text(&key.public), "--private", text(&key.private)].map(str::to_owned);
    let halves = |words: &[&str], key: &KeyPair| {
        let halves = both(key);
        let words: Vec<&str> = words.iter().copied().chain(halves.iter().map(String::as_str)).collect();
        operator.does(&words);
    };
    halves(&["kek", "import", "team"], &old);
    halves(&["kek", "import", "other"], &foreign);
    halves(&["kek", "rotate", "team"], &new);
    operator.does(&["kek", "disable", "team@1"]);
    operator.does(&["kek", "disable", "other"]);
    let token = fs::read_to_string(daemon.enrolment_token("puppet", 1, true)).unwrap();
    let puppet = Puppet::enrol(&daemon, "puppet", token.trim());
    let mut upload = puppet.upload(&daemon, SPOOL);
    for at in 1..=SEGMENTS {
        Segment::new(&public(&old), 1).bring(&mut upload, at);
    }
    Segment::new(&public(&foreign), 1).bring(&mut upload, SEGMENTS + 1);
    let before = sealed_data(&daemon);
    assert_eq!(before.len() as u64, SEGMENTS + 1);
    assert_eq!(segments_in(&operator.fails(&["kek", "destroy", "team@1"], 1)), SEGMENTS);

    // It may not use that one, and says so.
    let rewrap = ["kek", "rewrap", "team"];
    let partly = operator.run(&rewrap).finish().expect(3);
    assert!(partly.stderr.contains(&format!("{SEGMENTS} are wrapped to versions")), "{partly:#?}");
    assert_eq!(segments_in(&partly.stderr), 0);
    assert!(daemon.audited("kek.use").is_empty() && daemon.audited("kek.rewrap").is_empty());
    assert!(operator.fails(&["kek", "rewrap", "team@1"], 1).contains("disabled"), "it is not wrapped to");

    operator.does(&["kek", "enable", "team@1"]);
    operator.does(&["kek", "enable", "other"]);
    let done = operator.run(&rewrap).finish().expect(0);
    assert_eq!(segments_in(&done.stderr), SEGMENTS, "{done:#?}");
    let uses = daemon.audited("kek.use");
    assert!(
        !uses.is_empty()
            && uses.iter().all(|used| used["after"].as_str().unwrap().contains(r#""version":1"#)),
        "{uses:#?}"
    );
    assert!(uses.iter().all(|used| used["subject"] == "kek:team"), "another KEK's are left: {uses:#?}");
    assert_eq!(daemon.audited("kek.rewrap").len() as u64, SEGMENTS);
    assert_eq!(sealed_data(&daemon), before, "no record has moved");
    assert_eq!(segments_in(&operator.run(&rewrap).finish().expect(0).stderr), 0, "once is enough");

    operator.does(&["kek", "destroy", "team@1"]);
    let (numbers, _) = opened(&operator, &new);
    assert_eq!(numbers, (1..=SEGMENTS).collect::<Vec<_>>());
    assert_eq!(opened(&operator, &foreign).0, [SEGMENTS + 1]);
    assert!(opened(&operator, &old).0.is_empty());
}
