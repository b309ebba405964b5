//! A control daemon and its agents as processes, and a client of its API that trusts its authority alone.

mod stream;

pub use stream::{Frame, Stream};

use crate::ports::own_address;
use crate::process::{Outcome, Process, Run, control_program};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks.
const TICK: Duration = Duration::from_millis(20);
/// The first administrator's, whose name is `admin`.
pub const PASSWORD: &str = "correct horse battery";

/// A daemon, and everything that belongs to it.
pub struct Daemon {
    dir: TempDir,
    process: Option<Process>,
    /// SHA-256 of the authority's certificate.
    pub pin: String,
    tls: Arc<ClientConfig>,
    /// Where the API is.
    pub web: SocketAddr,
    /// Where agents dial.
    pub agents: SocketAddr,
    /// Where agents bring their logs.
    pub logs: SocketAddr,
    /// Where the tracker is.
    pub tracker: SocketAddr,
    session: Option<(String, String)>,
    runtime: tokio::runtime::Runtime,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; null if there is none.
    pub body: Value,
    /// The head, as it came.
    pub head: String,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }
}

/// What proves who asks.
#[derive(Clone, Copy, Debug)]
pub enum As<'t> {
    /// Nothing.
    Nobody,
    /// The administrator's session.
    Administrator,
    /// A token of the API.
    Token(&'t str),
}

impl Daemon {
    /// Makes a daemon and starts it.
    ///
    /// # Panics
    /// If anything of it fails.
    #[must_use]
    pub fn start() -> Self {
        let dir = TempDir::new().expect("a directory");
        let made = command("init", dir.path()).arg("--password-stdin").stdin(PASSWORD).finish();
        assert_eq!(made.code, Some(0), "{made:?}");
        let shown = command("authority", dir.path()).finish();
        let pin = shown
            .stdout
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("SHA-256 "))
            .expect("a pin")
            .to_owned();
        let authority = CertificateDer::from_pem_slice(shown.stdout.as_bytes()).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(authority).expect("it is an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut daemon = Self {
            dir,
            process: None,
            pin,
            tls: Arc::new(tls),
            web: own_address(),
            agents: own_address(),
            logs: own_address(),
            tracker: own_address(),
            session: None,
            runtime,
        };
        daemon.serve();
        daemon.log_in();
        daemon
    }

    /// Starts it (again), on the ports that it had.
    ///
    /// # Panics
    /// If it does not serve.
    pub fn serve(&mut self) {
        let ready = self.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let run = command("serve", self.dir.path())
            .arg(format!("--web={}", self.web))
            .arg(format!("--agents={}", self.agents))
            .arg(format!("--logs={}", self.logs))
            .arg(format!("--tracker={}", self.tracker))
            .arg("--ready-file")
            .arg(&ready)
            .patience(Duration::from_secs(600));
        self.process = Some(run.start());
        let text = until("the daemon serves", || std::fs::read_to_string(&ready).ok());
        let address = |name: &str| -> Option<SocketAddr> {
            text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
        };
        let told = ["web", "agents", "logs", "tracker"].map(address);
        assert_eq!(told, [self.web, self.agents, self.logs, self.tracker].map(Some), "it says where");
    }

    /// A client's terms of TLS: it trusts the daemon's authority, and shows nothing.
    #[must_use]
    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The number of its process.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Kills it, as a power cut would.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Asks it to end, as its service manager would, and waits until it has.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn end(&mut self) -> Outcome {
        let process = self.process.take().expect("it runs");
        process.signal(rustix::process::Signal::TERM);
        process.finish()
    }

    /// Logs the administrator in.
    ///
    /// # Panics
    /// If that is refused.
    pub fn log_in(&mut self) {
        let answer =
            self.call(As::Nobody, "POST", "login", Some(json!({ "name": "admin", "password": PASSWORD })));
        let cookie =
            answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let cookie = cookie.split(';').next().expect("its value").to_owned();
        let csrf = answer.ok()["csrf_token"].as_str().expect("the other half").to_owned();
        self.session = Some((cookie, csrf));
    }

    /// The administrator's browser loses the other half of its session.
    ///
    /// # Panics
    /// If nobody has logged in.
    pub fn forget_csrf(&mut self) {
        self.session.as_mut().expect("logged in").1 = "none".into();
    }

    /// The administrator asks; the answer is a success.
    ///
    /// # Panics
    /// If it is none.
    pub fn api(&self, method: &str, path: &str, body: impl Into<Option<Value>>) -> Value {
        self.call(As::Administrator, method, path, body).ok()
    }

    /// Asks, and gives the answer whatever it is. `path` is from `/api/v1/` on, unless it begins with a slash.
    ///
    /// # Panics
    /// If there is none.
    pub fn call(&self, who: As<'_>, method: &str, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.call_with(who, method, path, body, &[])
    }

    /// The same with further lines in the request's head.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn call_with(
        &self,
        who: As<'_>,
        method: &str,
        path: &str,
        body: impl Into<Option<Value>>,
        more: &[&str],
    ) -> Answer {
        self.call_together(1, who, method, path, body, more).remove(0)
    }

    /// Sends the same request so many times at once.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn call_together(
        &self,
        times: usize,
        who: As<'_>,
        method: &str,
        path: &str,
        body: impl Into<Option<Value>>,
        more: &[&str],
    ) -> Vec<Answer> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/{path}") };
        let body = body.into().map(|body| body.to_string()).unwrap_or_default();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        head.push_str(&self.proof(who));
        for line in more {
            head.push_str(line);
            head.push_str("\r\n");
        }
        let request = format!("{head}\r\n{body}");
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for _ in 0..times {
                asking.spawn(tokio::time::timeout(PATIENCE, exchange(self.connect(), request.clone())));
            }
            let answers = asking.join_all().await.into_iter();
            answers.map(|answer| answer.expect("an answer in time").expect("an answer")).collect()
        })
    }

    /// Lines of a request's head that prove who asks.
    fn proof(&self, who: As<'_>) -> String {
        match who {
            As::Nobody => String::new(),
            As::Administrator => {
                let (cookie, csrf) = self.session.as_ref().expect("logged in");
                format!("cookie: {cookie}\r\nx-csrf-token: {csrf}\r\n")
            }
            As::Token(token) => format!("authorization: Bearer {token}\r\n"),
        }
    }

    fn connect(&self) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> + use<> {
        let (tls, web) = (TlsConnector::from(Arc::clone(&self.tls)), self.web);
        async move {
            let tcp = TcpStream::connect(web).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            tls.connect(name, tcp).await
        }
    }

    /// A new token for enrolment, in a file.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn enrolment_token(&self, name: &str, uses: u32, approve: bool) -> PathBuf {
        let new = json!({ "name": name, "uses": uses, "approve": approve, "expires_in_seconds": 600 });
        let made = self.api("POST", "enrolment-tokens", new);
        let file = self.dir.path().join(format!("{name}.token"));
        std::fs::write(&file, made["secret"].as_str().expect("a secret")).expect("written");
        file
    }

    /// Asks for a run until it is as it should be.
    ///
    /// # Panics
    /// If it does not become so.
    pub fn run_until(&self, run: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.api("GET", &format!("runs/{run}"), None)).filter(&is_it))
    }

    /// Actions in the audit, the newest first.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn audited(&self, action: &str) -> Vec<Value> {
        let page = self.api("GET", &format!("audit?limit=200&action={action}"), None);
        page["items"].as_array().expect("a list").clone()
    }

    /// Runs a command of `sealift-control` on its directory.
    #[must_use]
    pub fn command(&self, words: &str) -> Outcome {
        command(words, self.dir.path()).finish()
    }
}

async fn exchange(
    connection: impl Future<Output = io::Result<TlsStream<TcpStream>>>,
    request: String,
) -> io::Result<Answer> {
    let mut stream = connection.await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))
    };
    Ok(Answer { status, body, head: head.replace('\r', "") })
}

fn command(words: &str, dir: &Path) -> Run {
    Run::with(words.split(' ')).program(control_program()).arg("--data-dir").arg(dir)
}

/// Looks again and again.
///
/// # Panics
/// If it does not come.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::park_timeout(TICK);
    }
}

/// An agent of a daemon, with directories of its own.
pub struct Agent {
    home: TempDir,
    /// Its name.
    pub name: String,
    process: Option<Process>,
}

impl Agent {
    /// Joins with a token.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn join(daemon: &Daemon, name: &str, token: &Path) -> Self {
        let agent = Self { home: TempDir::new().expect("a directory"), name: name.to_owned(), process: None };
        std::fs::create_dir(agent.data()).expect("a directory");
        let joined = agent.try_join(daemon, &daemon.pin, token);
        assert_eq!(joined.code, Some(0), "{joined:?}");
        agent
    }

    /// An agent that has not joined.
    ///
    /// # Panics
    /// If it can have no directory.
    #[must_use]
    pub fn stranger(name: &str) -> Self {
        let agent = Self { home: TempDir::new().expect("a directory"), name: name.to_owned(), process: None };
        std::fs::create_dir(agent.data()).expect("a directory");
        agent
    }

    /// Tries to join.
    #[must_use]
    pub fn try_join(&self, daemon: &Daemon, pin: &str, token: &Path) -> Outcome {
        self.try_join_at(daemon.agents, pin, token)
    }

    /// The same by address.
    #[must_use]
    pub fn try_join_at(&self, daemon: SocketAddr, pin: &str, token: &Path) -> Outcome {
        self.try_join_with(daemon, pin, token, &[])
    }

    /// The same with further arguments.
    #[must_use]
    pub fn try_join_with(&self, daemon: SocketAddr, pin: &str, token: &Path, args: &[&str]) -> Outcome {
        let data = self.data();
        Run::with(["agent", "join", "--wait", "30"])
            .args(args)
            .arg(daemon.to_string())
            .args(["--pin", pin, "--name", &self.name, "--token"])
            .arg(format!("@{}", token.display()))
            .arg("--allow-read")
            .arg(&data)
            .arg("--allow-write")
            .arg(&data)
            .arg("--state-dir")
            .arg(self.state())
            .finish()
    }

    /// The one directory in which jobs may read and write.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Where it keeps what it knows.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// `NAME:PATH` of something in its data.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}:{}", self.name, self.data().join(path).display())
    }

    /// A copy of its whole machine, as it is on the disk.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn cloned(&self) -> Self {
        let copy = Self::stranger(&self.name);
        let still = self.process.as_ref().map(Still::hold);
        crate::tree::copy(&self.state(), &copy.state());
        drop(still);
        copy
    }

    /// Starts it.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with variables of its environment.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        self.start_as(environment, &[]);
    }

    /// Starts it with variables of its environment and further arguments.
    pub fn start_as(&mut self, environment: &[(&str, &str)], args: &[&str]) {
        let mut run = Run::with(["agent", "run", "--state-dir"]).arg(self.state()).args(args);
        for (name, value) in environment {
            run = run.env(name, value);
        }
        self.process = Some(run.patience(Duration::from_secs(600)).start());
    }

    /// Kills it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Stops it where it is; what it has begun goes on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn finish(&mut self) -> Outcome {
        self.process.take().expect("it runs").finish()
    }
}

/// A process that stands still until this is dropped.
struct Still<'p>(&'p Process);

impl<'p> Still<'p> {
    fn hold(process: &'p Process) -> Self {
        process.signal(Signal::STOP);
        let of = format!("/proc/{}/task", process.id());
        until("all of its threads stand still", || {
            let mut threads = std::fs::read_dir(&of).expect("its threads");
            threads
                .all(|thread| {
                    let stat = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("stat")));
                    // Behind the name, which may have anything in it.
                    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
                })
                .then_some(())
        });
        Self(process)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}
