//! Many agents at a time, and what the daemon is under them.
//!
//! Few and for a moment, unless whoever runs this asks for more: see `docs/performance.md`.

use sealift_tests::control::{As, Daemon, until};
use sealift_tests::fleet::{Fleet, GROUP};
use sealift_tests::settings::number;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Twice a second each.
const EVERY: Duration = Duration::from_millis(500);
/// Units of the times in /proc: 100 a second on all of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The most that the daemon may have resident with a thousand agents, and with fewer.
const RESIDENT_BYTES_MAX: u64 = 300 << 20;

/// User and system time of a process.
fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let (_, after_name) = stat.rsplit_once(") ").expect("it has a name");
    let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// A line of /proc/PID/status, in bytes.
fn resident_bytes(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let found = status.lines().find_map(|text| text.strip_prefix(line)).expect("it is told");
    found.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// The time below which a share of them is, in ms.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[at].as_secs_f64() * 1e3
}

fn sum(run: &Value, column: &str) -> u64 {
    let rows = run["agents"].as_array().expect("agents").iter();
    rows.filter(|row| row["role"] == "destination").map(|row| row[column].as_u64().expect("a number")).sum()
}

#[test]
fn many_agents_report_and_nothing_of_it_is_lost() {
    let count = u32::try_from(number("SEALIFT_TEST_AGENTS", 40)).expect("so many");
    let seconds = number("SEALIFT_TEST_AGENTS_SECONDS", 3);
    let daemon = Daemon::start();
    let process = daemon.id();
    let begun = Instant::now();
    let fleet = Fleet::start(&daemon, count, EVERY);
    let counts = fleet.counts();
    until("all are connected", || (counts.connected.load(Relaxed) == u64::from(count)).then_some(()));
    let joined = begun.elapsed();
    println!(
        "{count} agents enrolled and connected in {joined:.1?}; resident {} MiB",
        resident_bytes(process, "VmRSS:") >> 20
    );

    let spec =
        json!({ "kind": "distribution", "from": ["agent-0:/from"], "to": [format!("group:{GROUP}:/to")] });
    let job = daemon.api("POST", "jobs", json!({ "name": "many", "spec": spec }));
    let (begun, cpu) = (Instant::now(), cpu_seconds(process));
    let run = daemon.api("POST", &format!("jobs/{}/runs", job["id"].as_str().expect("an id")), None);
    let run = run["id"].as_str().expect("an id").to_owned();
    let others = u64::from(count) - 1;
    daemon.run_until(&run, "all receive", |run| {
        run["agents"].as_array().expect("agents").iter().all(|row| row["state"] == "running")
    });
    println!(
        "all {others} destinations run after {:.1?}; CPU {:.2} s",
        begun.elapsed(),
        cpu_seconds(process) - cpu
    );

    // The time that is measured.
    let (begun, cpu, reports) = (Instant::now(), cpu_seconds(process), counts.progress.load(Relaxed));
    let (mut reads, mut writes, mut details) = (Vec::new(), Vec::new(), Vec::new());
    let timed = |times: &mut Vec<Duration>, method: &str, path: &str, body: Option<Value>| {
        let asked = Instant::now();
        let answer = daemon.call(As::Administrator, method, path, body);
        times.push(asked.elapsed());
        answer.ok()
    };
    let mut turn = 0_u32;
    while begun.elapsed() < Duration::from_secs(seconds) {
        timed(&mut reads, "GET", "agents?limit=50", None);
        if turn.is_multiple_of(5) {
            let new =
                json!({ "name": format!("t{turn}"), "uses": 1, "approve": true, "expires_in_seconds": 60 });
            timed(&mut writes, "POST", "enrolment-tokens", Some(new));
        }
        if turn.is_multiple_of(20) {
            timed(&mut details, "GET", &format!("runs/{run}"), None);
        }
        turn += 1;
        let next = begun + Duration::from_millis(100) * turn;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let reported = counts.progress.load(Relaxed) - reports;
    let share = (cpu_seconds(process) - cpu) / elapsed;
    #[expect(clippy::cast_precision_loss)]
    let rate = reported as f64 / elapsed;
    println!(
        "{elapsed:.0} s: {rate:.0} reports a second and as many signs of life; CPU {share:.3} of a core"
    );
    for (what, times) in [
        ("GET agents?limit=50", &reads),
        ("POST enrolment-tokens", &writes),
        ("GET runs/ID, whole", &details),
    ] {
        println!(
            "{what}: {} requests, each on a connection of its own: p50 {:.1} ms, p99 {:.1} ms",
            times.len(),
            quantile(times, 0.5),
            quantile(times, 0.99)
        );
    }
    let peak = resident_bytes(process, "VmHWM:");
    println!("resident {} MiB, at most {} MiB", resident_bytes(process, "VmRSS:") >> 20, peak >> 20);

    // All have reported, however slowly, and what was reported is there.
    until("each has reported each second", || {
        (counts.progress.load(Relaxed) - reports >= others * seconds).then_some(())
    });
    let detail = daemon.api("GET", &format!("runs/{run}"), None);
    assert!(sum(&detail, "files") > 0, "{detail:#}");
    assert!(
        detail["agents"].as_array().unwrap().iter().all(|row| row["files"].as_u64() > Some(0)),
        "{detail:#}"
    );

    let begun = Instant::now();
    fleet.be_done();
    let ended = daemon.run_until(&run, "the run ends", |run| run["state"] != "running");
    println!("the run ended {:.1?} after its agents had", begun.elapsed());
    assert_eq!(ended["state"], "done");
    assert!(ended["agents"].as_array().unwrap().iter().all(|row| row["state"] == "done"));
    // An event that was acknowledged is on the disk: the daemon is killed, and has all of them.
    until("all events are acknowledged", || (counts.events_kept.load(Relaxed) == others).then_some(()));
    assert_eq!((counts.events.load(Relaxed), counts.lost.load(Relaxed)), (others, 0));
    fleet.end();
    let mut daemon = daemon;
    daemon.kill();
    daemon.serve();
    daemon.log_in();
    let mut kept = 0;
    let mut after = String::new();
    loop {
        let page = daemon.api("GET", &format!("events?run={run}&limit=200{after}"), None);
        let items = page["items"].as_array().unwrap();
        kept += items.iter().filter(|event| event["message"] == "a simulated run has ended").count();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(kept as u64, others);
    assert_eq!(daemon.api("GET", &format!("runs/{run}"), None)["state"], "done");
    assert!(peak < RESIDENT_BYTES_MAX, "{} MiB", peak >> 20);
}
