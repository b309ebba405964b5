//! `sealift-bench transfer` as a process, with little data: tools that are here copy, results are whole, and what is
//! wrong shows in the exit code.

use crate::{BENCH, bench, have, json, names, said};
use serde_json::Value;
use std::fs;
use std::process::Command;

#[test]
fn tools_take_turns_and_results_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (results, page) = (dir.path().join("results.json"), dir.path().join("page.html"));
    let rsync = have("rsync");
    let tools = if rsync { "sealift,cp,rsync-daemon,wdt" } else { "sealift,cp,wdt" };
    let work = dir.path().join("work");
    let args = [
        "transfer",
        "--data=small:200",
        "--data=large:8MiB",
        "--rounds=1",
        "--fsync",
        "--tools",
        tools,
        "--json",
        results.to_str().unwrap(),
        "--html",
        page.to_str().unwrap(),
    ];
    let output = bench(&args, &work);
    assert!(output.status.success(), "{}", said(&output));
    let report = json(&results);
    assert_eq!(report["format"], "sealift-bench/1");
    assert_eq!(report["problems"], Value::Array(vec![]));
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    assert!(report["machine"]["tools"]["sealift"].as_str().unwrap().starts_with("sealift "));
    let races = report["races"].as_array().unwrap();
    let titles: Vec<_> = races.iter().map(|race| race["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["small:200, durable", "large:8MiB, durable"]);
    for race in races {
        let wanted: Vec<_> = tools.split(',').filter(|tool| *tool != "wdt" || have("wdt")).collect();
        assert_eq!(names(race), wanted);
        let pairs = wanted.len() * (wanted.len() - 1);
        assert_eq!(race["ratios"].as_array().unwrap().len(), pairs, "each beside each other");
        for contestant in race["contestants"].as_array().unwrap() {
            let rounds = contestant["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 1, "the warm-up does not count");
            assert!(rounds[0]["seconds"].as_f64().unwrap() > 0.0);
            assert!(rounds[0]["cpu_seconds"].as_f64().unwrap() > 0.0);
            for end in rounds[0]["ends"].as_array().unwrap() {
                assert!(end["peak_resident_bytes"].as_u64().unwrap() > 1 << 19, "{end}");
            }
            assert!(!contestant["commands"].as_array().unwrap().is_empty());
        }
        let sealift = &race["contestants"][0];
        let ends = sealift["rounds"][0]["ends"].as_array().unwrap();
        let ends: Vec<_> = ends.iter().map(|end| end["name"].as_str().unwrap()).collect();
        assert_eq!(ends, ["sender", "receiver"]);
    }
    assert!(fs::read_to_string(&page).unwrap().contains("small:200, durable"));
    assert!(!work.join("runs").exists(), "copies are gone");
    assert!(work.join("data/small-200-seed1/stamp.json").exists(), "data sets are kept");
}

#[test]
fn an_unchanged_second_run_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results.json");
    let tools = if have("rsync") { "sealift,rsync-local" } else { "sealift" };
    let args = [
        "transfer",
        "--second-run",
        "--data=small:100:100B",
        "--rounds=2",
        "--tools",
        tools,
        "--json",
        results.to_str().unwrap(),
    ];
    let output = bench(&args, &dir.path().join("work"));
    assert!(output.status.success(), "{}", said(&output));
    let report = json(&results);
    assert_eq!(report["races"][0]["title"], "small:100:100B, nothing changed, not synced");
    assert_eq!(report["races"][0]["contestants"][0]["rounds"].as_array().unwrap().len(), 2);
}

/// A program that says it is done and has copied one byte too few.
#[test]
fn a_wrong_copy_is_an_error_and_does_not_count() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let cp = bin.join("cp");
    fs::write(&cp, "#!/bin/sh\nmkdir \"$3\" && head -c 999 \"$2/file\" > \"$3/file\"\n").unwrap();
    fs::set_permissions(&cp, fs::Permissions::from_mode(0o755)).unwrap();
    let results = dir.path().join("results.json");
    let output = Command::new(BENCH)
        .args(["transfer", "--data=large:1000", "--rounds=1", "--tools=cp", "--dir"])
        .arg(dir.path().join("work"))
        .arg("--json")
        .arg(&results)
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .output()
        .expect("the program under test can be started");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report = json(&results);
    let problem = report["problems"][0].as_str().unwrap();
    assert!(problem.contains("the copy is wrong: file has 999 bytes instead of 1000"), "{problem}");
    assert!(report["races"][0]["contestants"][0]["rounds"].as_array().unwrap().is_empty());
}
