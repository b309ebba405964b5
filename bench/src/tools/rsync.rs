//! rsync to a daemon (nothing is encrypted) and over ssh.

use super::local::slash;
use super::ssh::SshHost;
use super::{Host, Job, Ran, Tool, free_port};
use crate::failure::{OrFailure as _, Outcome, failure};
use crate::machine::version_of;
use crate::measure::Program;
use sealift_bench::emulated::namespace;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Where a daemon listens that has a host of its own.
const PORT: u16 = 8730;
/// How long a daemon may take until it listens.
const STARTING: Duration = Duration::from_secs(10);

/// rsync to a daemon of our own on the loopback interface, or on the host that is asked for.
pub struct Daemon(pub PathBuf);

impl Tool for Daemon {
    fn name(&self) -> String {
        "rsync-daemon".into()
    }

    fn version(&self) -> Option<String> {
        version_of(&self.0, &["--version"])
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        fs::create_dir_all(job.dest).or_failure(|| format!("cannot create {}", job.dest.display()))?;
        let host = &job.hosts.receiver;
        let port = match host.namespace {
            None => free_port().or_failure(|| "no port is free".into())?,
            Some(_) => PORT,
        };
        let config = job.scratch.join("rsyncd.conf");
        fs::write(&config, daemon_config(job, port))
            .or_failure(|| format!("cannot write {}", config.display()))?;
        let daemon = Program::new("receiver", &self.0)
            .args(["--daemon", "--no-detach", "--config"])
            .arg(&config)
            .at(host)
            .ready(job.scratch, job.limit)?
            .go()?;
        wait_for_port(host, port)?;
        let sender = Program::new("sender", &self.0)
            .args(options(job))
            .arg(slash(job.source))
            .arg(format!("rsync://{}/copy/", SocketAddr::new(host.address, port)))
            .at(&job.hosts.sender)
            .ready(job.scratch, job.limit)?
            .go()?
            .finish();
        let daemon = daemon.stop()?;
        Ok(Ran::of(job, vec![sender?], vec![daemon]))
    }
}

/// `-W` leaves out the search for parts that are alike, which cannot help a first copy.
fn options(job: &Job<'_>) -> Vec<&'static str> {
    let mut options = vec![if job.repeated { "-a" } else { "-aW" }];
    if job.durable {
        options.push("--fsync");
    }
    options
}

fn daemon_config(job: &Job<'_>, port: u16) -> String {
    let shown = |path: &Path| path.display().to_string();
    // Without these two it becomes nobody when root starts it.
    let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    format!(
        "port = {port}\naddress = {}\nuse chroot = no\nuid = {}\ngid = {}\npid file = {}\nlog file = {}\n\
         reverse lookup = no\n\n[copy]\npath = {}\nread only = no\n",
        job.hosts.receiver.address,
        ids.0,
        ids.1,
        shown(&job.scratch.join(format!("rsyncd-{port}.pid"))),
        shown(&job.scratch.join("rsyncd.log")),
        shown(job.dest),
    )
}

fn wait_for_port(host: &Host, port: u16) -> Outcome<()> {
    match &host.namespace {
        None => wait(host.address, port),
        // From where it is: what goes over the network is the transfer alone.
        Some(name) => namespace::inside(name, || wait(host.address, port))?,
    }
}

fn wait(address: IpAddr, port: u16) -> Outcome<()> {
    let began = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        if began.elapsed() > STARTING {
            return failure("rsync's daemon does not listen");
        }
        // It tells nobody when it listens.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

/// rsync over ssh.
pub struct OverSsh {
    /// The program.
    pub rsync: PathBuf,
    /// The other end.
    pub host: Rc<SshHost>,
}

impl Tool for OverSsh {
    fn name(&self) -> String {
        "rsync-ssh".into()
    }

    fn version(&self) -> Option<String> {
        let versions = [version_of(&self.rsync, &["--version"]), self.host.version()];
        Some(versions.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let (server, address) = self.host.start(job)?;
        let mut dest = OsString::from(format!("{}:", address.host));
        dest.push(slash(job.dest));
        let sender = Program::new("sender", &self.rsync)
            .args(options(job))
            .arg("-e")
            .arg(address.shell_command())
            .arg(slash(job.source))
            .arg(dest)
            .ready(job.scratch, job.limit)?
            .go()?
            .finish();
        let server = server.stop()?;
        Ok(Ran::of(job, vec![sender?], vec![server]))
    }
}
