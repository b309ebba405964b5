//! Network namespaces, by the `ip` command: each is a host of its own, with nothing in it but its loopback interface.

use crate::failure::{Failure, OrFailure as _, Outcome, failure};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where `ip` keeps them.
const PLACE: &str = "/run/netns";
/// What the names of ours begin with; the process that made it follows.
const PREFIX: &str = "sealift-";

/// One, until it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, whose loopback interface is up. `label` is the end of its name.
    ///
    /// # Errors
    /// If this is not root, iproute2 is not installed, or the kernel refuses.
    pub fn new(label: &str) -> Outcome<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        static CLEARED: Once = Once::new();
        if !rustix::process::geteuid().is_root() {
            return failure("only root can make network namespaces");
        }
        CLEARED.call_once(clear);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        tool("ip", &["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as in `ip netns exec NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it, and returns what that said.
    ///
    /// # Errors
    /// If it fails: its words.
    pub fn ip(&self, args: &[&str]) -> Outcome<String> {
        tool("ip", &[&["-n", &self.name], args].concat())
    }

    /// Runs `tc` in it, and returns what that said.
    ///
    /// # Errors
    /// If it fails: its words.
    pub fn tc(&self, args: &[&str]) -> Outcome<String> {
        tool("tc", &[&["-n", &self.name], args].concat())
    }

    /// Does something on a thread that is in it. Sockets that are made there stay in it.
    ///
    /// # Errors
    /// If it cannot be entered, or `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Outcome<T> {
        inside(&self.name, work)
    }

    /// Sets a variable of the kernel in it, as in `net.ipv4.tcp_congestion_control`.
    ///
    /// # Errors
    /// If there is no such variable, or the kernel refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Outcome<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if !name.starts_with("net.") || name.contains("..") || !name.chars().all(plain) {
            return failure(format!("{name}: not a variable of the network"));
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.inside(|| std::fs::write(path, value))?.or_failure(|| format!("cannot set {name} to {value:?}"))
    }

    /// Datagrams for which sockets had no room since it was made: their programs were not there in time.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn datagrams_overrun(&self) -> Outcome<u64> {
        // Of the thread: /proc/net is that of the first one.
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        let text = self.inside(read)?.or_failure(|| "cannot read the counters of UDP".into())?;
        let lines: Vec<Vec<&str>> = text
            .lines()
            .filter_map(|line| line.strip_prefix("Udp: "))
            .map(|line| line.split(' ').collect())
            .collect();
        let [names, values] = lines.as_slice() else { return failure("unknown counters of UDP") };
        let at = names.iter().position(|name| *name == "RcvbufErrors");
        let value = at.and_then(|at| values.get(at)?.parse().ok());
        value.ok_or_else(|| Failure("the kernel counts no overruns of UDP".into()))
    }

    /// Has TCP of its programs use this congestion control unless they choose another.
    ///
    /// # Errors
    /// If the kernel has none of this name.
    pub fn set_congestion(&self, name: &str) -> Outcome<()> {
        const DEFAULT: &str = "net.ipv4.tcp_congestion_control";
        if self.sysctl(DEFAULT, name).is_ok() {
            return Ok(());
        }
        // One that only privileged programs may choose cannot be the default of a namespace. It is allowed to all for as
        // long as it takes to say so; the lock keeps apart those who do that at once.
        const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
        let cannot = || format!("cannot use the congestion control {name:?}");
        let lock = File::open(PLACE).or_failure(cannot)?;
        flock(&lock, FlockOperation::LockExclusive).or_failure(cannot)?;
        let allowed = std::fs::read_to_string(ALLOWED).or_failure(cannot)?;
        std::fs::write(ALLOWED, format!("{} {name}", allowed.trim())).or_failure(cannot)?;
        let set = self.sysctl(DEFAULT, name);
        std::fs::write(ALLOWED, allowed).or_failure(cannot)?;
        set
    }

    /// Counters of one of its interfaces.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn counters(&self, interface: &str) -> Outcome<Counters> {
        let said = self.ip(&["-s", "-j", "link", "show", "dev", interface])?;
        let value: Value = serde_json::from_str(&said).or_failure(|| "ip: unknown output".into())?;
        let counter = |direction: &str, name: &str| {
            let found = value[0]["stats64"][direction][name].as_u64();
            found.ok_or_else(|| Failure(format!("ip tells no {name} of {interface}")))
        };
        Ok(Counters {
            sent_bytes: counter("tx", "bytes")?,
            received_bytes: counter("rx", "bytes")?,
            sent_dropped: counter("tx", "dropped")?,
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = tool("ip", &["netns", "delete", &self.name]);
    }
}

/// What an interface has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Packets that were to go out and for which it had no room.
    pub sent_dropped: u64,
}

/// Does something on a thread that is in the namespace of that name.
///
/// # Errors
/// If it cannot be entered, or `work` panics.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter(name).map(|()| work()));
        thread.join().unwrap_or_else(|_| failure("a thread in a network namespace panicked"))
    })
}

/// Moves this thread into the namespace of that name, for good. Threads and processes that it starts are in it, too.
///
/// # Errors
/// If there is none, or this is not root.
pub fn enter(name: &str) -> Outcome<()> {
    let cannot = || format!("cannot enter the network namespace {name}");
    let file = File::open(Path::new(PLACE).join(name)).or_failure(cannot)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).or_failure(cannot)
}

/// Removes namespaces of processes that are over and could not do it themselves.
pub fn clear() {
    for entry in std::fs::read_dir(PLACE).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(process) = process.and_then(|digits| digits.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(process.to_string()).exists() {
            // Another run may do it at the same moment.
            let _ = tool("ip", &["netns", "delete", name]);
        }
    }
}

fn tool(program: &str, args: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(args).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure(format!("{program} is not on PATH: install iproute2")),
        _ => Failure(format!("{program}: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    failure(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
