//! `sealift-bench wan` and `swarm` as processes, on links that are fast enough for a test: copies are made between namespaces,
//! and what the link saw of them is in the results.

use crate::{bench, have, json, names, said};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Whether namespaces can be made here.
fn can_emulate() -> bool {
    let made = Command::new("ip").args(["netns", "add", &name()]).stderr(Stdio::null()).status();
    let can = made.is_ok_and(|status| status.success());
    if can {
        let _ = Command::new("ip").args(["netns", "delete", &name()]).status();
    } else {
        println!("skipped: no network namespaces can be made");
    }
    can
}

fn name() -> String {
    format!("sealift-{}-{:?}-tried", std::process::id(), std::thread::current().id())
}

fn run(args: &[&str], dir: &Path) -> (Output, Value) {
    let results = dir.join("results.json");
    let args = [args, &["--json", results.to_str().expect("a plain name")]].concat();
    let output = bench(&args, &dir.join("work"));
    assert!(output.status.success(), "{}", said(&output));
    let report = json(&results);
    assert_eq!(report["problems"], Value::Array(vec![]));
    (output, report)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn copies_over_a_link_are_measured_by_the_link() {
    if !can_emulate() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tools = if have("rsync") { "sealift-tcp-reno,rsync-reno" } else { "sealift-tcp-reno" };
    let link =
        ["--rate=100M", "--rtt=10ms", "--loss=0.1%", "--queue=50ms", "--data=large:4MiB", "--rounds=1"];
    let (output, report) = run(&[&["wan", "--tools", tools][..], &link].concat(), dir.path());
    let race = &report["races"][0];
    assert_eq!(race["title"], "large:4MiB over 100 Mb/s, round trip 10 ms, 0.1 % lost, queue 50 ms");
    assert_eq!(names(race), tools.split(',').collect::<Vec<_>>());
    for contestant in race["contestants"].as_array().unwrap() {
        let round = &contestant["rounds"][0];
        let wan = &round["wan"];
        let (rate, share) = (number(&wan["megabits_per_second"]), number(&wan["share"]));
        assert!(share > 0.01 && share < 1.0 && (rate / 100.0 - share).abs() < 1e-9, "{wan}");
        assert!(
            (rate * 1e6 / 8.0 * number(&round["seconds"]) / f64::from(4 << 20) - 1.0).abs() < 1e-6,
            "{round}"
        );
        assert!(number(&wan["round_trip_inflation"]) >= 1.0, "{wan}");
        let there = &wan["there"];
        assert!(number(&there["payload_bytes"]) >= f64::from(4 << 20), "{there}");
        assert!(number(&wan["waste"]) >= 0.0 && number(&wan["waste"]) < 1.0, "{wan}");
        assert!(number(&round["cpu_seconds"]) > 0.0);
        let commands = contestant["commands"].to_string();
        assert!(commands.contains("ip netns exec sealift-") && commands.contains("10.77.0."), "{commands}");
    }
    assert!(said(&output).contains("of the link"));
}

#[test]
fn copies_at_once_share_the_link_with_each_other_and_with_what_is_beside_them() {
    if !can_emulate() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "wan",
        "--tools=sealift-tcp-reno",
        "--flows=2",
        "--beside=reno",
        "--rate=100M",
        "--rtt=10ms",
        "--loss=0%",
        "--data=large:4MiB",
        "--rounds=1",
        "--sysctl=net.ipv4.tcp_wmem=4096 16384 1000000",
    ];
    let (_, report) = run(&args, dir.path());
    let contestant = &report["races"][0]["contestants"][0];
    let wan = &contestant["rounds"][0]["wan"];
    let shares: Vec<f64> = wan["shares"].as_array().unwrap().iter().map(number).collect();
    assert!(shares.len() == 2 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
    assert!(number(&wan["beside_megabits_per_second"]) > 1.0, "{wan}");
    assert_eq!(contestant["rounds"][0]["ends"].as_array().unwrap().len(), 4);
    assert!(number(&contestant["summary"]["network"]["least_share"]["median"]) <= 1.0);
}

#[test]
fn what_takes_too_long_is_cut_off_and_told_apart() {
    if !can_emulate() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "wan",
        "--tools=sealift-tcp-reno",
        "--rate=1M",
        "--data=large:8MiB",
        "--rounds=1",
        "--limit-seconds=3",
    ];
    let (_, report) = run(&args, dir.path());
    let contestant = &report["races"][0]["contestants"][0];
    let wan = &contestant["rounds"][0]["wan"];
    assert_eq!((&wan["cut_off"], &wan["waste"]), (&Value::Bool(true), &Value::Null));
    assert!(number(&wan["share"]) < 1.0, "{wan}");
    assert_eq!(contestant["summary"]["network"]["cut_off"], true);
}

#[test]
fn one_receiver_and_several_take_turns() {
    if !can_emulate() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "swarm",
        "--receivers=3",
        "--zones=2",
        "--rate=400M",
        "--between=200M",
        "--data=large:4MiB",
        "--rounds=1",
    ];
    let (_, report) = run(&args, dir.path());
    let race = &report["races"][0];
    assert_eq!(race["title"], "large:4MiB to hosts with 400 Mb/s each, 2 zones joined by 200 Mb/s");
    assert_eq!(names(race), ["1 receiver", "3 receivers"]);
    for (contestant, receivers) in race["contestants"].as_array().unwrap().iter().zip([1, 3]) {
        let round = &contestant["rounds"][0];
        let swarm = &round["swarm"];
        assert_eq!(swarm["receivers"], receivers);
        // What it has, once at least; what crosses is a part of it.
        let (source, between) = (number(&swarm["source_share"]), number(&swarm["between_share"]));
        assert!(source >= 1.0 && between >= 1.0 && between <= source + 0.1, "{swarm}");
        assert_eq!(round["ends"].as_array().unwrap().len(), 1 + usize::try_from(receivers).unwrap());
    }
}
