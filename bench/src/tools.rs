//! The tools that are compared, each behind one interface.

mod local;
mod rclone;
pub mod rsync;
mod scp;
pub mod sealift;
mod sendme;
mod ssh;
mod wdt;

pub use sealift::SealiftOptions;

use crate::failure::Outcome;
use crate::measure::{Finished, Program};
use crate::results::End;
use ssh::SshHost;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The tools' names, in the order in which they are listed.
pub const NAMES: [&str; 10] = [
    "sealift",
    "rsync-daemon",
    "rsync-ssh",
    "rsync-local",
    "cp",
    "scp",
    "rclone",
    "wdt",
    "wdt-plain",
    "sendme",
];

/// Where one end of a transfer runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// The name of its network namespace; none is this host.
    pub namespace: Option<String>,
    /// Where others reach it.
    pub address: IpAddr,
}

/// Where both ends run: on this host, unless something else is said.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// The end that has the data.
    pub sender: Host,
    /// The end that wants them.
    pub receiver: Host,
}

impl Default for Hosts {
    fn default() -> Self {
        let host = Host { namespace: None, address: Ipv4Addr::LOCALHOST.into() };
        Self { sender: host.clone(), receiver: host }
    }
}

/// One run of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The directory whose contents are copied.
    pub source: &'a Path,
    /// Where they go. Does not exist before the first run.
    pub dest: &'a Path,
    /// A directory for what the tool keeps. The same when `dest` is.
    pub scratch: &'a Path,
    /// Whether all must be on the disk at the end.
    pub durable: bool,
    /// Whether `dest` is used for more than one run.
    pub repeated: bool,
    /// How long one program may take.
    pub limit: Duration,
    /// Where it runs. Tools that are not compared over a network run here whatever it says.
    pub hosts: &'a Hosts,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// From the start of the first program to the end of the last that the transfer consists of.
    pub seconds: f64,
    /// What each end used.
    pub ends: Vec<End>,
    /// What was typed.
    pub commands: Vec<String>,
    /// Where the copy is.
    pub copy: PathBuf,
}

impl Ran {
    /// A transfer that lasts from the start of the first of `timed` to the last end of one; `others` count for what
    /// they used.
    fn of(job: &Job<'_>, timed: Vec<Finished>, others: Vec<Finished>) -> Self {
        let began = timed.iter().map(|one| one.began_nanoseconds).min().unwrap_or(0);
        let ended = timed.iter().map(|one| one.ended_nanoseconds).max().unwrap_or(0);
        let all = || timed.iter().chain(&others);
        Self {
            seconds: ended.saturating_sub(began) as f64 / 1e9,
            ends: all().map(|one| one.end.clone()).collect(),
            commands: all().map(|one| one.command.clone()).collect(),
            copy: job.dest.to_owned(),
        }
    }
}

/// Something that copies directories.
pub trait Tool {
    /// What it is called in results.
    fn name(&self) -> String;

    /// Its version, in its own words.
    fn version(&self) -> Option<String>;

    /// Whether a copy has the modes of what was copied.
    fn keeps_modes(&self) -> bool {
        true
    }

    /// Whether a second run finds what is there.
    fn can_repeat(&self) -> bool {
        false
    }

    /// Copies.
    fn run(&self, job: &Job<'_>) -> Outcome<Ran>;
}

/// What tools are made with.
pub struct Setup<'a> {
    /// For keys and configurations.
    pub dir: &'a Path,
    /// The program, unless it is found by itself.
    pub sealift: Option<&'a Path>,
    /// How Sealift is run.
    pub sealift_options: Vec<SealiftOptions>,
    /// More arguments for both of WDT's ends.
    pub wdt_args: Vec<String>,
}

/// The tools of this name, or why there are none.
pub fn find(
    name: &str,
    setup: &Setup<'_>,
    ssh: &mut Option<Rc<SshHost>>,
) -> Result<Vec<Box<dyn Tool>>, String> {
    let mut host = || match ssh {
        Some(host) => Ok(Rc::clone(host)),
        None => {
            let host = Rc::new(SshHost::new(&setup.dir.join("ssh"))?);
            *ssh = Some(Rc::clone(&host));
            Ok::<_, String>(host)
        }
    };
    let one = |tool: Box<dyn Tool>| Ok(vec![tool]);
    match name {
        "sealift" => {
            let program = sealift::find(setup.sealift)?;
            let tools = setup.sealift_options.iter();
            Ok(tools
                .map(|options| {
                    Box::new(sealift::Sealift::new(program.clone(), options.clone())) as Box<dyn Tool>
                })
                .collect())
        }
        "cp" => one(Box::new(local::Cp(on_path("cp")?))),
        "rsync-local" => one(Box::new(local::Rsync(on_path("rsync")?))),
        "rsync-daemon" => one(Box::new(rsync::Daemon(on_path("rsync")?))),
        "rsync-ssh" => one(Box::new(rsync::OverSsh { rsync: on_path("rsync")?, host: host()? })),
        "scp" => one(Box::new(scp::Scp { scp: on_path("scp")?, host: host()? })),
        "rclone" => one(Box::new(rclone::Rclone { rclone: on_path("rclone")?, host: host()? })),
        "wdt" | "wdt-plain" => one(Box::new(wdt::Wdt {
            wdt: on_path("wdt")?,
            encrypted: name == "wdt",
            args: setup.wdt_args.clone(),
        })),
        "sendme" => one(Box::new(sendme::Sendme(on_path("sendme")?))),
        _ => Err(format!("there is no tool of this name; there are {}", NAMES.join(", "))),
    }
}

/// The program that a shell would run, or one where system programs are.
pub fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| format!("{name} is not on PATH"))
}

/// What makes a copy durable for a tool that does not: part of its time.
fn sync(job: &Job<'_>, dest: &Path) -> Outcome<Option<Finished>> {
    if !job.durable {
        return Ok(None);
    }
    let program = Program::new("sync", "sync").arg("-f").arg(dest);
    program.ready(job.scratch, job.limit)?.go()?.finish().map(Some)
}

/// A port of this host on which nobody listens now.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
