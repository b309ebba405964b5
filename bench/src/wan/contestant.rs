//! Who takes part: a tool, and the congestion control that TCP has while it runs.

use crate::results;
use crate::tools::sealift::{self, Sealift, SealiftOptions};
use crate::tools::{Tool, on_path, rsync};
use std::path::Path;
use std::process::{Command, Stdio};

/// What TCP has beside what does not use it.
const OTHERWISE: &str = "cubic";

/// One that takes part.
pub struct Contestant {
    /// What it is called.
    pub name: String,
    /// What copies; several at once, maybe.
    pub tool: Box<dyn Tool + Sync>,
    /// TCP's congestion control.
    pub congestion: String,
}

impl Contestant {
    /// The one of this name, or why it is not here.
    pub fn find(name: &str, sealift: Option<&Path>, connections: Option<u32>) -> Result<Self, String> {
        let (tool, congestion): (Box<dyn Tool + Sync>, _) = match name.split('-').collect::<Vec<_>>()[..] {
            ["sealift", "quic"] => (program(sealift, Some("quic"), connections)?, OTHERWISE),
            ["sealift", "tcp", control] => (program(sealift, Some("tcp"), connections)?, control),
            ["rsync", control] => (Box::new(rsync::Daemon(on_path("rsync")?)), control),
            _ => {
                return Err(
                    "there is no tool of this name; there are sealift-quic, sealift-tcp-CONTROL and \
                            rsync-CONTROL"
                        .into(),
                );
            }
        };
        let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        if !available.unwrap_or_default().split_whitespace().any(|one| one == congestion) {
            return Err(format!("the kernel has no congestion control {congestion:?}, or it is not loaded"));
        }
        Ok(Self { name: name.into(), tool, congestion: congestion.into() })
    }

    /// Its place in a race.
    pub fn result(&self) -> results::Contestant {
        results::Contestant { version: self.tool.version(), ..results::Contestant::new(&self.name) }
    }
}

fn program(
    named: Option<&Path>,
    transport: Option<&'static str>,
    connections: Option<u32>,
) -> Result<Box<dyn Tool + Sync>, String> {
    let program = sealift::find(named)?;
    let chooses = has_transports(&program);
    if transport == Some("quic") && !chooses {
        return Err("this sealift has no --transport".into());
    }
    let options =
        SealiftOptions { connections, transport: transport.filter(|_| chooses), ..Default::default() };
    Ok(Box::new(Sealift::new(program, options)))
}

fn has_transports(program: &Path) -> bool {
    let help = Command::new(program).args(["receive", "--help"]).stdin(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--transport"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_takes_part() {
        for name in ["", "sealift", "rsync", "scp-bbr", "sealift-tcp", "sealift-udp-bbr"] {
            assert!(Contestant::find(name, Some(Path::new("/bin/true")), None).is_err(), "{name}");
        }
        let sealift = |name| Contestant::find(name, Some(Path::new("/bin/true")), None);
        assert!(sealift("sealift-quic").err().unwrap().contains("--transport"));
        assert!(sealift("sealift-tcp-none").err().unwrap().contains("congestion"));
        let found = sealift("sealift-tcp-cubic").ok().unwrap();
        assert_eq!((found.name.as_str(), found.congestion.as_str()), ("sealift-tcp-cubic", "cubic"));
    }
}
