//! The program under test as real processes: built once, started with arguments and an environment of its own, heard
//! event by event, and killed when a test is done with it or has waited for too long.
//!
//! Nothing here sleeps: output is read by threads into channels, and the end of a process is waited for by one.

mod outcome;

pub use outcome::Outcome;

use crate::ports::own_address;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use sealift_proto::ticket::{Address, Ticket};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one process may take in all, unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The path of the `sealift` program, built in the profile and target directory of this test.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("sealift", &[]))
}

/// The path of the `sealift-control` program; `SEALIFT_TEST_CONTROL` names another one, as to measure what was built for
/// release.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn control_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("SEALIFT_TEST_CONTROL") {
        Some(program) => program.into(),
        None => build("sealift-control", &[]),
    })
}

/// The path of `sealift-faulty`: the same program, whose disk fails where `SEALIFT_FAULTS` says so.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn faulty_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("sealift-faulty", &["--features=sealift/faults"]))
}

fn build(program: &str, args: &[&str]) -> PathBuf {
    // TARGET/PROFILE/deps/all-HASH
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile_dir = test.ancestors().nth(2).expect("tests are built into TARGET/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("a profile is in a target directory");
    let profile = match profile_dir.file_name().and_then(OsStr::to_str).expect("a profile has a name") {
        "debug" => "dev",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    // Of the whole workspace, and with some test, so that what it uses is built with the same features as for
    // `cargo test --workspace`, and so not once more.
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", program, "--test", "guard", "--profile", profile])
        .args(args)
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo can be started");
    assert!(built.success(), "{program} cannot be built");
    profile_dir.join(program)
}

/// Where processes keep their state unless a test says otherwise: one directory for each process of tests, in a place
/// that the system clears, or the next such process.
fn state_dir() -> &'static Path {
    static STATE_DIR: OnceLock<PathBuf> = OnceLock::new();
    const PREFIX: &str = "sealift-tests-state-";
    STATE_DIR.get_or_init(|| {
        let above = std::env::temp_dir();
        for left in std::fs::read_dir(&above).into_iter().flatten().flatten() {
            let name = left.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = std::fs::remove_dir_all(left.path());
            }
        }
        let own = above.join(format!("{PREFIX}{}", std::process::id()));
        // Of a process that had this number before.
        let _ = std::fs::remove_dir_all(&own);
        own
    })
}

/// A run of the program that is yet to be started.
#[derive(Debug)]
pub struct Run {
    wrapper: Vec<OsString>,
    program: PathBuf,
    args: Vec<OsString>,
    /// After `--`, so that they may begin with a dash.
    operands: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    patience: Duration,
}

impl Run {
    /// `sealift ARGS`, as they are.
    pub fn with<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            wrapper: Vec::new(),
            program: program().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            operands: Vec::new(),
            env: Vec::new(),
            dir: None,
            stdin: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// `sealift send --json --bind ADDRESS PATHS`, on an address of its own.
    pub fn send<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut run = Self::with(["send", "--json", "--bind", &own_address().to_string()]);
        run.operands = paths.into_iter().map(|path| path.as_ref().as_os_str().to_owned()).collect();
        run
    }

    /// `sealift receive --json TICKET DEST`.
    pub fn receive(ticket: impl AsRef<OsStr>, dest: impl AsRef<Path>) -> Self {
        let mut run = Self::with(["receive", "--json"]);
        run.operands = vec![ticket.as_ref().to_owned(), dest.as_ref().as_os_str().to_owned()];
        run
    }

    /// Adds an argument, before paths and ticket.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments, before paths and ticket.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Chooses where it keeps its state.
    #[must_use]
    pub fn state_dir(self, dir: impl AsRef<Path>) -> Self {
        self.env("SEALIFT_STATE_DIR", dir.as_ref())
    }

    /// Chooses how it does disk I/O: `uring` or `threads`.
    #[must_use]
    pub fn io(self, backend: &str) -> Self {
        self.env("SEALIFT_IO", backend)
    }

    /// Starts it in this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// What it can read from standard input; nothing by default.
    #[must_use]
    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = text.as_ref().to_vec();
        self
    }

    /// Starts it by another program that ends in `exec` of its arguments (`setpriv`, `prlimit`), which come first.
    #[must_use]
    pub fn wrapped<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = wrapper.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self
    }

    /// Runs another copy of the program, for users who cannot reach the one that was built.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    /// How long it may take in all, from its start.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(self) -> Process {
        let mut words = self.wrapper;
        words.push(self.program.into_os_string());
        words.extend(self.args);
        if !self.operands.is_empty() {
            // A lone "-" as an operand means standard input, and `--` leaves it so.
            words.push("--".into());
            words.extend(self.operands);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_remove("SEALIFT_IO").env_remove("SEALIFT_TICKET");
        // Members are found only where a test wants it.
        command.env_remove("SEALIFT_TRACKER").env("SEALIFT_LAN", "off");
        command.env("SEALIFT_STATE_DIR", state_dir()).envs(self.env);
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0].display()));
        let mut stdin = child.stdin.take().expect("piped");
        let text = self.stdin;
        // It may end without reading; then nobody misses what was not read.
        std::thread::spawn(move || drop(stdin.write_all(&text)));
        Process::new(child, Instant::now() + self.patience)
    }

    /// Runs it to its end.
    #[must_use]
    pub fn finish(self) -> Outcome {
        self.start().finish()
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    deadline: Instant,
    lines: Receiver<Vec<u8>>,
    stdout: Vec<u8>,
    events: Vec<Value>,
    ended: Receiver<()>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    peak_resident_bytes: u64,
}

impl Process {
    fn new(mut child: Child, deadline: Instant) -> Self {
        let pid = Pid::from_child(&child);
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (send_line, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(stdout.read_until(b'\n', &mut line), Ok(1..)) {
                if send_line.send(std::mem::take(&mut line)).is_err() {
                    // The test has gone: what still comes must not fill the pipe.
                    let _ = std::io::copy(&mut stdout, &mut std::io::sink());
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            text
        });
        let (send_ended, ended) = channel();
        std::thread::spawn(move || {
            // Seen, not reaped: until `Child` reaps it the number stays its own, and it can be signalled safely.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            let _ = send_ended.send(());
        });
        Self {
            child,
            pid,
            deadline,
            lines,
            stdout: Vec::new(),
            events: Vec::new(),
            ended,
            stderr: Some(stderr),
            peak_resident_bytes: 0,
        }
    }

    /// The next event; `None` at the end of its output.
    ///
    /// # Panics
    /// If it says nothing until its time is over.
    pub fn next_event(&mut self) -> Option<Value> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.note_memory();
                    self.stdout.extend_from_slice(&line);
                    let event = serde_json::from_slice::<Value>(&line).ok().filter(Value::is_object);
                    if let Some(event) = event {
                        self.events.push(event.clone());
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.out_of_time("ends its output"),
            }
        }
    }

    /// The next event of this name, past any other.
    ///
    /// # Panics
    /// If it ends or its time is over before that.
    pub fn wait_for(&mut self, name: &str) -> Value {
        self.wait_until(name, |event| event["event"] == name)
    }

    /// The next event with which `is_it` is content, past any other.
    ///
    /// # Panics
    /// If it ends or its time is over before that.
    pub fn wait_until(&mut self, what: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        while let Some(event) = self.next_event() {
            if is_it(&event) {
                return event;
            }
        }
        let stderr = self.take_stderr();
        panic!("the process ended before {what}: {:#?}\n{stderr}", self.events);
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If that is not allowed.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("a child can be signalled");
    }

    /// The most memory it has had resident so far.
    pub fn peak_resident_bytes(&mut self) -> u64 {
        self.note_memory();
        self.peak_resident_bytes
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time; then it is killed.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        while self.next_event().is_some() {}
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left).is_err() {
            self.out_of_time("ends");
        }
        let status = self.child.wait().expect("it has ended");
        Outcome {
            code: status.code(),
            signal: status.signal(),
            events: std::mem::take(&mut self.events),
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: self.take_stderr(),
            peak_resident_bytes: self.peak_resident_bytes,
        }
    }

    /// Kills it, as by `kill -9`, and waits until it is gone.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        let _ = self.finish();
    }

    fn note_memory(&mut self) {
        // Gone once it has ended; what was seen before that counts.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())) else { return };
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.peak_resident_bytes = self.peak_resident_bytes.max(kib.unwrap_or(0) << 10);
    }

    fn out_of_time(&mut self, before: &str) -> ! {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.take_stderr();
        panic!("the process took too long until it {before}; it said {:#?}\n{stderr}", self.events);
    }

    fn take_stderr(&mut self) -> String {
        let _ = self.child.kill();
        let text = self.stderr.take().map(|reader| reader.join().unwrap_or_default());
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that was waited for, neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sender that has told its ticket.
#[derive(Debug)]
pub struct Sender {
    /// The process.
    pub process: Process,
    /// Its ticket.
    pub ticket: String,
}

impl Sender {
    /// Starts a sender of these paths and waits for its ticket.
    pub fn start<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, args: &[&str]) -> Self {
        Self::of(Run::send(paths).args(args))
    }

    /// Starts a sender and waits for its ticket.
    ///
    /// # Panics
    /// If it gives none.
    #[must_use]
    pub fn of(run: Run) -> Self {
        let mut process = run.start();
        let told = process.wait_for("ticket");
        let ticket = match told["ticket"].as_str() {
            Some(ticket) => ticket.to_owned(),
            None => {
                let file = told["ticket_file"].as_str().expect("a ticket is told, or where it is");
                std::fs::read_to_string(file).expect("the ticket file can be read").trim_end().to_owned()
            }
        };
        Self { process, ticket }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If its ticket has no socket address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let ticket = Ticket::decode(&self.ticket).expect("it gave a ticket");
        match ticket.addresses.first() {
            Some(Address::Socket(address)) => *address,
            other => panic!("no socket address: {other:?}"),
        }
    }

    /// Its ticket, with another address in it.
    #[must_use]
    pub fn ticket_via(&self, address: SocketAddr) -> String {
        ticket_via(&self.ticket, address)
    }

    /// Receives from it into `dest`, to the end.
    #[must_use]
    pub fn receive(&self, dest: impl AsRef<Path>, args: &[&str]) -> Outcome {
        Receive::run(&self.ticket, dest, args)
    }

    /// Tells it to stop, and waits for its end.
    #[must_use]
    pub fn stop(self) -> Outcome {
        self.process.signal(Signal::TERM);
        self.process.finish()
    }
}

/// The ticket, with another address in it.
///
/// # Panics
/// If it is no ticket.
#[must_use]
pub fn ticket_via(ticket: &str, address: SocketAddr) -> String {
    let mut ticket = Ticket::decode(ticket).expect("a ticket");
    ticket.addresses = vec![address.into()];
    ticket.encode().to_string()
}

/// A receiver that runs from start to end.
#[derive(Debug)]
pub struct Receive;

impl Receive {
    /// `sealift receive --json ARGS TICKET DEST`, to its end.
    #[must_use]
    pub fn run(ticket: impl AsRef<OsStr>, dest: impl AsRef<Path>, args: &[&str]) -> Outcome {
        Run::receive(ticket, dest).args(args).finish()
    }
}
