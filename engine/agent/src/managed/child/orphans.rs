//! What an agent that was killed left running, and its end before a new agent starts anything.
//!
//! Owns the files `pid` in the jobs' places. A process is what a file means only if it was started at the very time that
//! the file says, since the machine's last start: numbers of processes are used again.

use crate::state::write_durably;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What they have to end in order.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same, for the call that waits.
const POLL_TIME: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How often it is looked whether they have, where that call cannot.
const END_TICK: Duration = Duration::from_millis(20);
/// The name of the file in a job's place.
pub(crate) const PID_FILE: &str = "pid";

/// Notes which process it is.
pub(crate) fn remember(file: &Path, pid: u32) -> io::Result<()> {
    let Some(started) = started(pid) else { return Ok(()) };
    write_durably(file, format!("{pid} {started} {}\n", boot()).as_bytes())
}

/// Ends what the files in these places name, and waits for it.
pub(crate) async fn end_all(places: &[PathBuf]) {
    let mut ending = Vec::new();
    for place in places {
        let file = place.join(PID_FILE);
        if let Some(process) = find(&file)
            && pidfd_send_signal(&process.descriptor, Signal::TERM).is_ok()
        {
            ending.push(process);
        }
        let _ = std::fs::remove_file(file);
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for process in ending {
        if tokio::time::timeout_at(deadline, process.end()).await.is_err() {
            let _ = pidfd_send_signal(&process.descriptor, Signal::KILL);
            // What is stuck in the kernel is not waited for for ever: its lock says so to the next child.
            let _ = tokio::time::timeout(PATIENCE, process.end()).await;
        }
    }
}

/// A process that was looked at after it was opened: the descriptor means it, and no later one of the same number.
struct Process {
    descriptor: OwnedFd,
    pid: u32,
    started: u64,
}

impl Process {
    /// Waits until all of it has ended: its first thread may be gone, as `/proc` shows it, while others still hold its
    /// locks.
    async fn end(&self) {
        if let Ok(descriptor) = self.descriptor.try_clone() {
            let ended = move || poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&POLL_TIME));
            if matches!(tokio::task::spawn_blocking(ended).await, Ok(Ok(1..))) {
                return;
            }
        }
        while started(self.pid) == Some(self.started) {
            tokio::time::sleep(END_TICK).await;
        }
    }
}

/// The process that a file names, if it still runs.
fn find(file: &Path) -> Option<Process> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let pid: u32 = words.next()?.parse().ok()?;
    let (was_started, was_boot) = (words.next()?, words.next()?);
    let descriptor = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    let was_started = was_started.parse().ok()?;
    let same = started(pid)? == was_started && was_boot == boot();
    same.then_some(Process { descriptor, pid, started: was_started })
}

/// When a process was started, in the kernel's ticks; `None` if it has ended.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have anything in it; the start is the 22nd field, and the name the second.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie has ended, and waits for its parent.
    fields.next().filter(|&state| state != "Z")?;
    fields.nth(18)?.parse().ok()
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.trim().is_empty() { "unknown".into() } else { id.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_now_means_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PID_FILE);
        let own = std::process::id();
        remember(&file, own).unwrap();
        assert!(find(&file).is_some());
        let started = started(own).unwrap();
        for text in [
            format!("{own} {} {}", started + 1, boot()),
            format!("{own} {started} another-boot"),
            format!("{own} {started}"),
            format!("{} {started} {}", u32::MAX, boot()),
            "garbage".into(),
            String::new(),
        ] {
            std::fs::write(&file, &text).unwrap();
            assert!(find(&file).is_none(), "{text}");
        }
    }
}
