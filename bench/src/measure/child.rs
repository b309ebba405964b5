//! The process below which a program is measured.
//!
//! Its command line is `measure REPORT SECONDS join|apart NAMESPACE PROGRAM ARGS`, where NAMESPACE may be empty. It waits for a line on standard input (a JSON
//! list of more arguments), runs the program, and writes what was used to REPORT. When standard input ends, so does the
//! program. It is small on purpose: the kernel counts the memory of who starts a program into its peak.

use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, wait};
use rustix::time::{ClockId, clock_gettime};
use sealift_bench::emulated::namespace;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, BufRead as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a program that was told to end may take.
const ENDING: Duration = Duration::from_secs(10);

/// What a program and all that it started used.
#[derive(Debug, Serialize, Deserialize)]
pub struct Used {
    /// When it was started.
    pub began_nanoseconds: u64,
    /// When it ended.
    pub ended_nanoseconds: u64,
    /// In user mode.
    pub user_microseconds: u64,
    /// In system mode.
    pub system_microseconds: u64,
    /// The most that one of the processes had resident.
    pub peak_resident_bytes: u64,
    /// How it ended, unless with success.
    pub failed: Option<String>,
}

/// The kernel's monotonic clock, which all processes share.
pub fn now_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Runs it; `args` are those after `measure`.
pub fn main(args: &[OsString]) -> ExitCode {
    let [report, seconds, streams, namespace, program, args @ ..] = args else { return ExitCode::from(2) };
    let limit = seconds.to_str().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let mut line = String::new();
    // Nobody wants it any more.
    if !matches!(io::stdin().lock().read_line(&mut line), Ok(1..)) {
        return ExitCode::FAILURE;
    }
    if let Some(name) = namespace.to_str().filter(|name| !name.is_empty())
        && let Err(error) = namespace::enter(name)
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let more: Vec<String> = serde_json::from_str(&line).unwrap_or_default();
    let mut command = Command::new(program);
    command.args(args).args(more).stdin(Stdio::null()).process_group(0);
    if streams == "join"
        && let Ok(output) = io::stdout().as_fd().try_clone_to_owned()
    {
        command.stderr(output);
    }
    match measure(command, limit.unwrap_or(Duration::MAX)).map(|used| serde_json::to_vec(&used)) {
        Ok(Ok(used)) if std::fs::write(report, &used).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(mut command: Command, limit: Duration) -> io::Result<Used> {
    // What a daemon leaves behind comes here, and is counted.
    set_child_subreaper(Some(getpid()))?;
    let began_nanoseconds = now_nanoseconds();
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    // Its output is its own: whoever listens sees it end.
    drop(command);
    let overseer = std::thread::spawn(move || oversee(pid, limit));
    let mut ended = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((who, status))) if who == pid => ended = Some((now_nanoseconds(), status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(_) => break,
        }
    }
    drop(overseer);
    let (ended_nanoseconds, status) = ended.ok_or_else(|| io::Error::other("the program was lost"))?;
    let failed = match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("ended with {code}")),
        (None, Some(signal)) => Some(format!("was killed by signal {signal}, maybe for taking too long")),
        (None, None) => Some("ended in an unknown way".into()),
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0)
    };
    Ok(Used {
        began_nanoseconds,
        ended_nanoseconds,
        user_microseconds: micros(usage.user_time()),
        system_microseconds: micros(usage.system_time()),
        peak_resident_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) << 10,
        failed,
    })
}

/// Ends the program when standard input ends or its time is over.
fn oversee(pid: Pid, limit: Duration) {
    let waiting = std::thread::current();
    std::thread::spawn(move || {
        let mut line = String::new();
        while matches!(io::stdin().lock().read_line(&mut line), Ok(1..)) {}
        let _ = kill_process_group(pid, Signal::TERM);
        park_for(ENDING);
        let _ = kill_process_group(pid, Signal::KILL);
        waiting.unpark();
    });
    park_for(limit);
    let _ = kill_process_group(pid, Signal::KILL);
}

fn park_for(time: Duration) {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
