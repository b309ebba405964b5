//! A child: this very program as `send` or `receive`, its standard output read, its end told.
//!
//! Owns the process from start to reaping, and the file by which a later agent finds it. Key material goes to it by
//! standard input alone. Decides nothing.

pub(crate) mod orphans;
pub(crate) mod output;

use crate::managed::document::RunKey;
use crate::orders;
use output::{Lines, Told, parse};
use rustix::process::{Pid, Signal, kill_process};
use sealift_proto::path::escape;
use sealift_proto::rate::BothWays;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

/// News of children that may wait; a child that talks more waits for the agent.
pub(crate) const NEWS_MAX: usize = 256;
/// Orders that may wait for a child's task: to end, and to be made to.
const ORDERS_MAX: usize = 2;
/// Bytes that are kept of what a child says on standard error: the last.
const STDERR_BYTES_MAX: usize = 4 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 8 << 10;

/// Variables in which this program takes secrets: children are not to inherit any.
const SECRET_VARIABLES: [&str; 3] = ["SEALIFT_TOKEN", "SEALIFT_TICKET", "SEALIFT_API_TOKEN"];

/// What to start.
pub(crate) struct Program {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The first line of its standard input.
    pub(crate) stdin: Option<Zeroizing<String>>,
    /// How fast it may be, now and later: told by further lines, for as long as it runs.
    pub(crate) pace: Option<watch::Receiver<BothWays>>,
    /// Tells a later agent which process it is.
    pub(crate) pid_file: PathBuf,
}

/// Something a child said, or its end. `birth` tells children of one run apart.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) key: RunKey,
    pub(crate) birth: u64,
    pub(crate) what: What,
}

/// See [`News`].
#[derive(Debug)]
pub(crate) enum What {
    Told(Told),
    Ended(Exit),
}

/// What stands for what was said of the source of a sealed job.
const WITHHELD: &str = "what was said of it is kept from the control daemon, since the job is sealed; it is on the standard \
    error of the agent on this host";

impl What {
    /// The same without what may have names of the source's entries in it; that goes to this host's own standard error.
    pub(crate) fn without_names(self) -> Self {
        let withhold = |text: String| {
            let _ = writeln!(std::io::stderr().lock(), "{}", escape(text.as_bytes()));
            WITHHELD.to_owned()
        };
        match self {
            Self::Told(told) => Self::Told(match told {
                Told::Problem(text) => Told::Problem(withhold(text)),
                Told::Warning(text) => Told::Warning(withhold(text)),
                Told::NoRoom(text) => Told::NoRoom(withhold(text)),
                // This one is asked about, and has no name in it.
                Told::Error(text) if text != "interrupted" => Told::Error(withhold(text)),
                told => told,
            }),
            Self::Ended(exit) if exit.stderr.is_empty() => Self::Ended(exit),
            Self::Ended(exit) => Self::Ended(Exit { stderr: withhold(exit.stderr), ..exit }),
        }
    }
}

/// How a child ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, unless it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The end of what it said on standard error.
    pub(crate) stderr: String,
}

/// What a child is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// SIGTERM: to end in order.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A child that runs. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Tells the child. One that has been told twice, or has ended, is not told again.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

/// Starts a child, whose news come with this key.
pub(crate) fn start(
    program: Program,
    key: RunKey,
    birth: u64,
    news: mpsc::Sender<News>,
) -> io::Result<Handle> {
    let Program { program, arguments, stdin, pace, pid_file } = program;
    let is_fed = stdin.is_some() || pace.is_some();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(if is_fed { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The agent itself ends its children in order when it is interrupted.
        .process_group(0)
        .kill_on_drop(true);
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.spawn()?;
    if let Some(pid) = child.id() {
        orphans::remember(&pid_file, pid)?;
    }
    let (orders, received) = mpsc::channel(ORDERS_MAX);
    let feeding = feed(child.stdin.take(), stdin, pace);
    tokio::spawn(attend(child, feeding, received, pid_file, key, birth, news));
    Ok(Handle { orders })
}

async fn attend(
    mut child: Child,
    feeding: impl Future<Output = ()>,
    mut orders: mpsc::Receiver<Order>,
    pid_file: PathBuf,
    key: RunKey,
    birth: u64,
    news: mpsc::Sender<News>,
) {
    let telling = tell(child.stdout.take(), key, birth, &news);
    let complaining = keep_tail(child.stderr.take());
    let reaping = async {
        let mut open = true;
        loop {
            tokio::select! {
                status = child.wait() => break status,
                order = orders.recv(), if open => {
                    // Nobody holds the handle any more.
                    open = order.is_some();
                    signal(&child, order.unwrap_or(Order::Kill));
                }
            }
        }
    };
    // It is fed for as long as it lives.
    let living = async {
        let mut feeding = std::pin::pin!(feeding);
        let mut reaping = std::pin::pin!(reaping);
        tokio::select! {
            status = &mut reaping => status,
            () = &mut feeding => reaping.await,
        }
    };
    let ((), stderr, status) = tokio::join!(telling, complaining, living);
    let _ = std::fs::remove_file(pid_file);
    let (code, signal) = status.map_or((None, None), |status| (status.code(), status.signal()));
    let _ = news.send(News { key, birth, what: What::Ended(Exit { code, signal, stderr }) }).await;
}

/// Gives a child its first line, and then how fast it may be whenever that changes. One that ends before it has read
/// says why by its exit.
async fn feed(
    pipe: Option<ChildStdin>,
    first: Option<Zeroizing<String>>,
    pace: Option<watch::Receiver<BothWays>>,
) {
    let Some(mut pipe) = pipe else { return };
    if let Some(first) = first
        && (pipe.write_all(first.as_bytes()).await.is_err() || pipe.write_all(b"\n").await.is_err())
    {
        return;
    }
    let Some(mut pace) = pace else { return };
    loop {
        let order = orders::limit(*pace.borrow_and_update());
        if pipe.write_all(order.as_bytes()).await.is_err() || pace.changed().await.is_err() {
            return;
        }
    }
}

/// Signals a child that has not been reaped, so that its number is still its own.
fn signal(child: &Child, order: Order) {
    let signal = match order {
        Order::Terminate => Signal::TERM,
        Order::Kill => Signal::KILL,
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        let _ = kill_process(pid, signal);
    }
}

async fn tell(stdout: Option<ChildStdout>, key: RunKey, birth: u64, news: &mpsc::Sender<News>) {
    let Some(mut stdout) = stdout else { return };
    let mut buffer = Zeroizing::new([0; READ_BYTES]);
    let mut lines = Lines::new();
    while let Ok(read @ 1..) = stdout.read(&mut buffer[..]).await {
        let mut told = Vec::new();
        lines.push(&buffer[..read], |line| told.extend(parse(line)));
        for told in told {
            if news.send(News { key, birth, what: What::Told(told) }).await.is_err() {
                return;
            }
        }
    }
}

/// Reads to the end and keeps the last of it.
async fn keep_tail(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut buffer = [0; READ_BYTES];
    let mut tail = Vec::new();
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(STDERR_BYTES_MAX));
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RunKey = RunKey { job: [1; 16], run: [2; 16] };

    fn shell(dir: &tempfile::TempDir, script: &str, stdin: Option<&str>) -> Program {
        Program {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            stdin: stdin.map(|text| Zeroizing::new(text.to_owned())),
            pace: None,
            pid_file: dir.path().join("pid"),
        }
    }

    async fn ended(news: &mut mpsc::Receiver<News>) -> (Vec<Told>, Exit) {
        let mut told = Vec::new();
        loop {
            match news.recv().await.expect("an end comes").what {
                What::Told(one) => told.push(one),
                What::Ended(exit) => return (told, exit),
            }
        }
    }

    #[tokio::test]
    async fn what_a_child_says_and_how_it_ends_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let script = r#"read it; echo '{"event":"warning","message":"'$it'"}'; echo oops >&2; exit 3"#;
        let _handle = start(shell(&dir, script, Some("given")), KEY, 1, sender).unwrap();
        let (told, exit) = ended(&mut news).await;
        assert_eq!(told, [Told::Warning("given".into())]);
        assert_eq!(exit, Exit { code: Some(3), signal: None, stderr: "oops".into() });
        assert!(!dir.path().join("pid").exists());
    }

    #[tokio::test]
    async fn a_child_ends_when_told_and_when_nobody_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let handle = start(shell(&dir, "exec sleep 1000", None), KEY, 1, sender.clone()).unwrap();
        handle.order(Order::Terminate);
        assert_eq!(ended(&mut news).await.1.signal, Some(15));
        drop(start(shell(&dir, "exec sleep 1000", None), KEY, 2, sender).unwrap());
        assert_eq!(ended(&mut news).await.1.signal, Some(9));
    }

    #[tokio::test]
    async fn a_child_hears_how_fast_it_may_be_for_as_long_as_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let (pace, orders) = watch::channel("9000:10000".parse().unwrap());
        let script = r#"for i in 1 2; do read it; echo '{"event":"warning","message":"'$it'"}'; done; read it; exit 4"#;
        let program = Program { pace: Some(orders), ..shell(&dir, script, None) };
        let _handle = start(program, KEY, 1, sender).unwrap();
        let told = |news: Option<News>| match news.expect("it goes on").what {
            What::Told(Told::Warning(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(news.recv().await), "limit 9000 10000");
        pace.send_replace(BothWays::default());
        assert_eq!(told(news.recv().await), "limit none none");
        drop(pace);
        assert_eq!(ended(&mut news).await.1.code, Some(4), "it hears the end, too");
    }

    #[tokio::test]
    async fn of_standard_error_the_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done >&2";
        let _handle = start(shell(&dir, script, None), KEY, 1, sender).unwrap();
        let (_, exit) = ended(&mut news).await;
        assert!(exit.stderr.len() <= STDERR_BYTES_MAX && exit.stderr.ends_with("line 1999"));
    }

    #[tokio::test]
    async fn a_process_that_an_earlier_agent_left_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let handle = start(shell(&dir, "exec sleep 1000", None), KEY, 1, sender).unwrap();
        orphans::end_all(&[dir.path().to_owned()]).await;
        assert_eq!(ended(&mut news).await.1.signal, Some(15));
        drop(handle);
    }

    #[test]
    fn no_name_of_a_sealed_source_is_told() {
        let secret = || "secret/name: cannot be read".to_owned();
        let said =
            [Told::Problem(secret()), Told::Warning(secret()), Told::NoRoom(secret()), Told::Error(secret())];
        let ended = Exit { code: Some(1), signal: None, stderr: secret() };
        for what in said.into_iter().map(What::Told).chain([What::Ended(ended)]) {
            assert!(!format!("{:?}", what.without_names()).contains("secret"));
        }
        let What::Told(Told::Error(text)) = What::Told(Told::Error("interrupted".into())).without_names()
        else {
            panic!("an error")
        };
        assert_eq!(text, "interrupted");
    }
}
