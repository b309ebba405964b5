//! Runs programs and counts what they used, with everything that they started.
//!
//! A program is run below a small process of this very binary (`child`), which waits for it and for all of its
//! descendants and asks the kernel what they used (`getrusage`). So a daemon's sessions count, wherever they were
//! reaped, and nothing of this process does. The process is started before the measurement and waits for a word, so
//! that its own start is not timed either.

pub mod child;

use crate::failure::{Failure, OrFailure as _, Outcome, failure};
use crate::results::End;
use crate::tools::Host;
use child::Used;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A program that is yet to be run.
#[derive(Clone, Debug)]
pub struct Program {
    end: &'static str,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    namespace: Option<String>,
    listened: bool,
}

impl Program {
    /// Of this path; `end` is what it is to the transfer.
    pub fn new(end: &'static str, path: impl Into<PathBuf>) -> Self {
        Self {
            end,
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            namespace: None,
            listened: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts it in this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts it on this host.
    #[must_use]
    pub fn at(mut self, host: &Host) -> Self {
        self.namespace.clone_from(&host.namespace);
        self
    }

    /// Its lines of standard output can be waited for; and of standard error, too.
    #[must_use]
    pub fn listened(mut self) -> Self {
        self.listened = true;
        self
    }

    /// As it would be typed.
    #[must_use]
    pub fn shown(&self) -> String {
        let quoted = |word: &OsStr| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_./:=@,+%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        };
        let env =
            self.env.iter().map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(value)));
        let words = std::iter::once(self.path.as_os_str()).chain(self.args.iter().map(OsString::as_os_str));
        let host = self.namespace.iter().map(|name| format!("ip netns exec {name}"));
        env.chain(host).chain(words.map(quoted)).collect::<Vec<_>>().join(" ")
    }

    /// Gets everything ready but the program itself. Logs go into `logs`; it is killed when it takes longer than
    /// `limit`.
    pub fn ready(self, logs: &Path, limit: Duration) -> Outcome<Ready> {
        let own = std::env::current_exe().or_failure(|| "this program does not know its own path".into())?;
        let report = logs.join(format!("{}.json", self.end));
        let log = logs.join(format!("{}.log", self.end));
        let log_file = || File::create(&log).or_failure(|| format!("cannot write {}", log.display()));
        let errors = log_file()?;
        let cannot = || format!("cannot start {}", self.path.display());
        let mut command = Command::new(own);
        command.arg("measure").arg(&report).arg(limit.as_secs().to_string());
        // What it listens for comes in one stream, whichever of the two a program uses.
        command.arg(if self.listened { "join" } else { "apart" });
        command.arg(self.namespace.as_deref().unwrap_or_default()).arg(&self.path).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let stdout = match self.listened {
            true => Stdio::piped(),
            false => errors.try_clone().or_failure(cannot)?.into(),
        };
        // Out of reach of the terminal's Ctrl-C: when this process goes, its standard input ends, and it ends all.
        command.stdin(Stdio::piped()).stdout(stdout).stderr(errors).process_group(0);
        let mut child = command.spawn().or_failure(cannot)?;
        let Some(control) = child.stdin.take() else { return failure("a pipe is missing") };
        let lines = child.stdout.take().map(BufReader::new);
        Ok(Ready(Running {
            program: self,
            child,
            control: Some(control),
            lines,
            said: String::new(),
            report,
            log,
        }))
    }
}

/// A program that runs at a word.
#[derive(Debug)]
pub struct Ready(Running);

impl Ready {
    /// Runs it.
    pub fn go(self) -> Outcome<Running> {
        self.go_with(&[])
    }

    /// Runs it with more arguments, which were not known before.
    pub fn go_with(self, more: &[String]) -> Outcome<Running> {
        let mut running = self.0;
        let cannot = || format!("cannot start {}", running.program.path.display());
        let mut line = serde_json::to_vec(more).or_failure(cannot)?;
        line.push(b'\n');
        if let Some(control) = &mut running.control {
            control.write_all(&line).or_failure(cannot)?;
        }
        running.program.args.extend(more.iter().map(OsString::from));
        Ok(running)
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    program: Program,
    child: Child,
    /// Ends the program when it is closed.
    control: Option<ChildStdin>,
    lines: Option<BufReader<ChildStdout>>,
    said: String,
    report: PathBuf,
    log: PathBuf,
}

impl Running {
    /// The first line with which `wanted` is content, in its words.
    pub fn wait_for_line<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> Outcome<T> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = match &mut self.lines {
                Some(lines) => lines.read_line(&mut line).or_failure(|| "a pipe broke".into())?,
                None => 0,
            };
            if read == 0 {
                let name = self.program.path.display();
                return failure(format!("{name} ended before it {what}: {}", self.last_words()));
            }
            self.said.push_str(&line);
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
    }

    /// Waits until it ends by itself, which it must do with success.
    pub fn finish(mut self) -> Outcome<Finished> {
        let used = self.wait()?;
        match used.failed {
            Some(how) => failure(format!("{} {how}: {}", self.program.path.display(), self.last_words())),
            None => Ok(self.finished(&used)),
        }
    }

    /// Tells it to end, and waits until it has.
    pub fn stop(mut self) -> Outcome<Finished> {
        self.control = None;
        let used = self.wait()?;
        Ok(self.finished(&used))
    }

    fn wait(&mut self) -> Outcome<Used> {
        // What it still says must not fill the pipe.
        if let Some(mut lines) = self.lines.take() {
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut lines, &mut rest);
            self.said.push_str(&String::from_utf8_lossy(&rest));
        }
        let cannot = || format!("cannot measure {}", self.program.path.display());
        self.child.wait().or_failure(cannot)?;
        let report = std::fs::read(&self.report)
            .map_err(|_| Failure(format!("{}: {}", cannot(), self.last_words())))?;
        serde_json::from_slice(&report).or_failure(cannot)
    }

    fn finished(&self, used: &Used) -> Finished {
        Finished {
            command: self.program.shown(),
            began_nanoseconds: used.began_nanoseconds,
            ended_nanoseconds: used.ended_nanoseconds,
            end: End {
                name: self.program.end.into(),
                user_seconds: used.user_microseconds as f64 / 1e6,
                system_seconds: used.system_microseconds as f64 / 1e6,
                peak_resident_bytes: used.peak_resident_bytes,
            },
        }
    }

    /// The end of what it said.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let said = format!("{}{}", self.said, String::from_utf8_lossy(&log));
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.len() {
            0 => "it said nothing".into(),
            count => lines[count.saturating_sub(5)..].join(" | "),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of one that was waited for, neither does anything.
        self.control = None;
        let _ = self.child.wait();
    }
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Finished {
    /// As it was typed.
    pub command: String,
    /// When it was started, on the kernel's monotonic clock.
    pub began_nanoseconds: u64,
    /// When it ended.
    pub ended_nanoseconds: u64,
    /// What it used.
    pub end: End,
}
