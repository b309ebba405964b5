//! Makes a child's command line of an assignment: what it may touch, where it listens, what it keeps.
//!
//! Owns the rule that no key is in arguments or environment: a source's seed is put into the job's own state directory, a
//! destination's ticket goes to standard input.

use super::verdict::Kind;
use crate::managed::allow::{Access, AllowList, Refusal};
use crate::managed::child::{Program, orphans::PID_FILE};
use crate::managed::document::{Part, RunKey, Work};
use crate::managed::home::Home;
use crate::state::{JobName, StateDir, write_durably};
use jiff::tz::TimeZone;
use sealift_net::Cipher;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::{RoSecret, VerifyKey};
use sealift_proto::limits::TICKET_ADDRESSES_MAX;
use sealift_proto::rate::Timetable;
use sealift_proto::ticket::{Address, Ticket};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// How long a destination's child looks for its source before it ends; it is then started again with what is known by
/// then of where the source is.
const RETRY_SECONDS: u32 = 10;

/// This host's terms.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) home: Home,
    pub(crate) allow: AllowList,
    pub(crate) data_addresses: Vec<String>,
    pub(crate) data_ports: Option<(u16, u16)>,
    /// The daemon's address, and the fingerprint of its authority.
    pub(crate) daemon: (String, String),
    /// How fast all children together may be.
    pub(crate) limits: Timetable,
    /// By whose time of day.
    pub(crate) zone: TimeZone,
    /// Where its tracker is, if it has one.
    pub(crate) tracker_port: Option<NonZeroU16>,
    /// This very program.
    pub(crate) program: PathBuf,
}

/// Why there is no child.
#[derive(Debug)]
pub(crate) enum Hindrance {
    /// This host does not allow it.
    Refused(Refusal),
    /// It would be the same the next time.
    Wrong(String),
    /// It may pass.
    Now(String),
}

impl Work {
    pub(crate) fn kind(&self) -> Kind {
        match self.part {
            Part::Source { .. } => Kind::Source,
            Part::Destination { .. } => Kind::Destination,
        }
    }

    /// Where a destination finds its source, as far as it makes sense.
    pub(crate) fn sources(&self) -> Vec<Address> {
        match &self.part {
            Part::Source { .. } => Vec::new(),
            Part::Destination { sources, .. } => {
                sources.iter().filter_map(|text| text.parse().ok()).take(TICKET_ADDRESSES_MAX).collect()
            }
        }
    }
}

impl Terms {
    /// Makes everything ready and says what to start, and the port that a source is to have.
    pub(crate) fn prepare(
        &self,
        key: RunKey,
        work: &Work,
        taken: &BTreeSet<u16>,
    ) -> Result<(Program, Option<u16>), Hindrance> {
        let access = match work.kind() {
            Kind::Source => Access::Read,
            Kind::Destination => Access::Write,
        };
        // The agent's place and all the state around it.
        let state = self.home.dir().parent().unwrap_or(self.home.dir());
        let path = self.allow.judge(access, &work.path, state).map_err(Hindrance::Refused)?;
        let now = |error: &dyn std::fmt::Display| Hindrance::Now(error.to_string());
        let place = self.home.job_dir(&key.job).map_err(|error| now(&error))?;
        let mut arguments: Vec<OsString> = vec!["--state-dir".into(), place.clone().into()];
        let mut put = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        let mut last = Vec::new();
        let (stdin, port) = match &work.part {
            Part::Source { seed, keks } => {
                let job: JobName = format!("epoch-{}", work.epoch)
                    .parse()
                    .map_err(|_| Hindrance::Wrong("its epoch is none".into()))?;
                let state = StateDir::open(Some(place.clone())).map_err(|error| now(&error))?;
                state.put_job_seed(&job, seed).map_err(|error| now(&error))?;
                let address = self.listen_address(taken).map_err(Hindrance::Now)?;
                put(&["send", "--json", "--orders", "--job", job.as_str(), "--bind", &address.to_string()]);
                put(&["--hash", hash_word(work.hash), "--cipher", cipher_word(work.cipher)]);
                put(&["--transport", work.transport.name()]);
                if let Some(connections) = work.connections {
                    put(&["--connections", &connections.to_string()]);
                }
                for kek in keks {
                    let file = place.join(format!("kek-{}.pem", kek.fingerprint));
                    write_durably(&file, kek.pem.as_bytes()).map_err(|error| now(&error))?;
                    let Some(file) = file.to_str() else {
                        return Err(Hindrance::Wrong("the state directory's path is not UTF-8".into()));
                    };
                    put(&["--seal-to", &format!("{}@{file}", kek.version)]);
                }
                (None, Some(address.port()).filter(|&port| port > 0))
            }
            Part::Destination { secret, verify, .. } => {
                let ticket = Ticket {
                    ro_secret: RoSecret::from_bytes(secret),
                    verify_key: VerifyKey::clone(verify),
                    addresses: work.sources(),
                };
                put(&["receive", "--json", "--orders", "--retry-for", &RETRY_SECONDS.to_string()]);
                put(&["--transport", work.transport.name()]);
                if work.delete {
                    put(&["--delete"]);
                }
                if work.sealed {
                    put(&["--must-seal"]);
                }
                if let Some(connections) = work.connections {
                    put(&["--connections", &connections.to_string()]);
                }
                last.push("-");
                (Some(ticket.encode()), None)
            }
        };
        if let Some(tracker) = self.tracker() {
            put(&["--tracker", &tracker]);
        }
        put(&last);
        arguments.push(path.into());
        let pid_file = place.join(PID_FILE);
        Ok((Program { program: self.program.clone(), arguments, stdin, pace: None, pid_file }, port))
    }

    /// The daemon's tracker, as its children name it.
    fn tracker(&self) -> Option<String> {
        let (daemon, pin) = &self.daemon;
        let (host, _) = daemon.rsplit_once(':')?;
        Some(format!("{host}:{}#{pin}", self.tracker_port?))
    }

    /// Where a source listens: any port, or the first of the range that is free.
    fn listen_address(&self, taken: &BTreeSet<u16>) -> Result<SocketAddr, String> {
        let any = |port| {
            let free =
                |address: &SocketAddr| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
            let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            // A host without IPv6.
            [six, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))].into_iter().find(free)
        };
        let found = match self.data_ports {
            None => any(0),
            Some((first, last)) => (first..=last).filter(|port| !taken.contains(port)).find_map(any),
        };
        found.ok_or_else(|| match self.data_ports {
            None => "no port is free to listen on".to_owned(),
            Some((first, last)) => format!("none of the data ports {first} to {last} is free"),
        })
    }

    /// Where a source is reached: as the operator said, with the port that it has; otherwise as the source itself says.
    pub(crate) fn addresses(&self, told: Vec<String>) -> Vec<String> {
        let port = told.iter().find_map(|address| address.rsplit_once(':')).map(|(_, port)| port.to_owned());
        let (false, Some(port)) = (self.data_addresses.is_empty(), port) else {
            return told.into_iter().take(TICKET_ADDRESSES_MAX).collect();
        };
        let host = |address: &String| address.rsplit_once(':').map(|(host, _)| format!("{host}:{port}"));
        self.data_addresses.iter().filter_map(host).take(TICKET_ADDRESSES_MAX).collect()
    }
}

fn hash_word(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Sha256 => "sha256",
        HashAlgorithm::Blake3 => "blake3",
    }
}

fn cipher_word(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes128Gcm => "aes-128-gcm",
        Cipher::Aes256Gcm => "aes-256-gcm",
    }
}

/// Where this program is. One that was replaced by a newer version while it runs is still found.
pub(crate) fn this_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(if path.exists() { path } else { Path::new("/proc/self/exe").to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::document::receive;
    use crate::managed::document::tests::{assignment, document};
    use sealift_proto::rate::BothWays;

    fn terms(dir: &Path) -> Terms {
        std::fs::create_dir_all(dir.join("data")).unwrap();
        let roots = vec![dir.join("data")];
        Terms {
            home: Home::open(Some(dir.join("state"))).unwrap(),
            allow: AllowList { read: roots.clone(), write: roots },
            data_addresses: vec![],
            data_ports: None,
            daemon: ("control.example:8444".into(), "00".repeat(32)),
            limits: Timetable::always(BothWays::default()),
            zone: TimeZone::UTC,
            tracker_port: None,
            program: "/bin/true".into(),
        }
    }

    fn work(source: bool, path: &Path) -> (RunKey, Work) {
        let assignment = assignment(1, 2, source, path.to_str().unwrap());
        let desired = receive(document(1, vec![assignment])).unwrap().desired;
        let task = desired.tasks.into_iter().next().unwrap();
        (task.key, task.work.unwrap())
    }

    #[test]
    fn keys_are_in_no_argument() {
        let dir = tempfile::tempdir().unwrap();
        let terms = terms(dir.path());
        for source in [true, false] {
            let (key, work) = work(source, &dir.path().join("data/x"));
            let (program, _) = terms.prepare(key, &work, &BTreeSet::new()).unwrap();
            let line = program.arguments.join(OsString::from(" ").as_os_str()).into_string().unwrap();
            assert!(!line.contains("sealift1") && !line.contains("0707"), "{line}");
            let ticket = program.stdin.map(|text| Ticket::decode(&text).unwrap());
            assert_eq!(ticket.is_some(), !source);
        }
        let seed = terms.home.job_dir(&[1; 16]).unwrap().join("jobs/epoch-1/seed");
        assert_eq!(std::fs::read(seed).unwrap(), [7; 32]);
    }

    #[test]
    fn children_are_told_of_the_daemons_tracker() {
        let dir = tempfile::tempdir().unwrap();
        let mut terms = terms(dir.path());
        for port in [None, NonZeroU16::new(3000)] {
            terms.tracker_port = port;
            for source in [true, false] {
                let (key, work) = work(source, &dir.path().join("data/x"));
                let (program, _) = terms.prepare(key, &work, &BTreeSet::new()).unwrap();
                let line = program.arguments.join(OsString::from(" ").as_os_str()).into_string().unwrap();
                let told = format!(" --tracker control.example:3000#{} ", "00".repeat(32));
                assert_eq!(line.contains(&told), port.is_some(), "{line}");
                assert_eq!(line.contains(" - /"), !source, "{line}");
            }
        }
    }

    #[test]
    fn a_path_that_this_host_does_not_allow_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let terms = terms(dir.path());
        for source in [true, false] {
            let (key, work) = work(source, &dir.path().join("else"));
            let hindered = terms.prepare(key, &work, &BTreeSet::new());
            assert!(matches!(hindered, Err(Hindrance::Refused(Refusal::Outside(..)))));
        }
    }

    #[test]
    fn sources_take_free_ports_of_the_range() {
        let dir = tempfile::tempdir().unwrap();
        let mut terms = terms(dir.path());
        let held = TcpListener::bind("[::]:0").unwrap();
        let port = held.local_addr().unwrap().port();
        terms.data_ports = Some((port, port));
        assert!(terms.listen_address(&BTreeSet::new()).unwrap_err().contains("none of the data ports"));
        drop(held);
        assert_eq!(terms.listen_address(&BTreeSet::new()).unwrap().port(), port);
        assert!(terms.listen_address(&BTreeSet::from([port])).is_err());
    }

    #[test]
    fn the_operators_addresses_come_with_the_port_that_the_source_has() {
        let dir = tempfile::tempdir().unwrap();
        let mut terms = terms(dir.path());
        let told = || vec!["10.0.0.1:5".to_owned(), "[fe80::1]:5".to_owned()];
        assert_eq!(terms.addresses(told()), told());
        terms.data_addresses = vec!["gate.example:3939".into(), "[::1]:3939".into()];
        assert_eq!(terms.addresses(told()), ["gate.example:5", "[::1]:5"]);
    }
}
