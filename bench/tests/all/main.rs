//! `sealift-bench` as a process, with little data: one module a command.

mod transfer;
mod wan;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program under test.
pub(crate) const BENCH: &str = env!("CARGO_BIN_EXE_sealift-bench");

/// `sealift` beside it, built if it is not there.
fn sealift() -> PathBuf {
    let beside = Path::new(BENCH).with_file_name("sealift");
    if !beside.exists() {
        let profile_dir = beside.parent().expect("a program is in a directory");
        let profile =
            match profile_dir.file_name().and_then(|name| name.to_str()).expect("a profile has a name") {
                "debug" => "dev",
                other => other,
            };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--bin", "sealift"])
            // With some test: what it uses is built with the same features as for the tests then.
            .args(["--test", "guard", "--profile", profile, "--target-dir"])
            .arg(profile_dir.parent().expect("a profile is in a target directory"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be started");
        assert!(built.success(), "sealift cannot be built");
    }
    beside
}

pub(crate) fn bench(args: &[&str], dir: &Path) -> Output {
    let sealift = sealift();
    let mut command = Command::new(BENCH);
    command.arg(args[0]).arg("--sealift").arg(sealift).arg("--dir").arg(dir).args(&args[1..]);
    command.stdin(Stdio::null()).output().expect("the program under test can be started")
}

pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn have(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("results were written")).expect("they are JSON")
}

pub(crate) fn names(race: &Value) -> Vec<&str> {
    let contestants = race["contestants"].as_array().expect("contestants");
    contestants.iter().map(|contestant| contestant["name"].as_str().expect("a name")).collect()
}
