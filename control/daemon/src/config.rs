//! The daemon's configuration: a TOML file, and what the command line says instead.
//!
//! Owns which settings there are, what they are without a file, and what is wrong with them. There are no secrets in it:
//! it says where they are. What administrators choose at run time (sessions, retention, approval) are settings of the API.

mod check;
mod show;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The file's name in the data directory, where it is found without being named.
pub const FILE_NAME: &str = "sealift-control.toml";
/// No file is longer.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// What holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the daemon keeps everything.
    pub data_dir: PathBuf,
    /// Names and addresses by which people reach this host.
    pub names: Names,
    /// Where it listens.
    pub listen: Listen,
    /// What it logs.
    pub log: Log,
    /// Where the master key is.
    pub master_key: MasterKeyFrom,
    /// Where the audit's checkpoints go.
    pub audit: Audit,
}

/// Names of this host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Names(pub Vec<String>);

impl Default for Names {
    fn default() -> Self {
        Self(vec!["localhost".into(), "127.0.0.1".into()])
    }
}

/// The ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The console and the API.
    pub web: SocketAddr,
    /// The agents' channel.
    pub agents: SocketAddr,
    /// Where agents bring their logs.
    pub logs: SocketAddr,
    /// The tracker.
    pub tracker: TrackerAt,
}

/// Where the tracker is, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TrackerAt(pub Option<SocketAddr>);

impl FromStr for TrackerAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            address => match address.parse() {
                Ok(address) => Ok(Self(Some(address))),
                Err(_) => Err("the tracker is at IP:PORT, or off".into()),
            },
        }
    }
}

impl TryFrom<String> for TrackerAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TrackerAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let port = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        Self { web: port(8443), agents: port(8444), logs: port(8445), tracker: TrackerAt(Some(port(3000))) }
    }
}

/// The daemon's own log, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives of modules.
    pub level: String,
    /// For people or for programs.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Where the master key is, if it is not in the data directory and in the open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterKeyFrom {
    /// The name of systemd's credential that holds it.
    pub credential: Option<String>,
    /// The file of the passphrase that opens it.
    pub passphrase_file: Option<PathBuf>,
}

/// Where the audit's checkpoints go, so that a log that was cut off or rewritten is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Each is a line of this file, which others should not be able to rewrite.
    pub checkpoint_file: Option<PathBuf>,
    /// Each is a line of the daemon's log.
    pub checkpoint_log: bool,
    /// How often there is one, if anything was recorded meanwhile.
    pub checkpoint_every_seconds: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { checkpoint_file: None, checkpoint_log: false, checkpoint_every_seconds: 300 }
    }
}

/// Why there is no configuration. The command makes no sense, then.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says something that means nothing.
    #[error("{}:{line}: {what}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// It is not said where everything is.
    #[error(
        "say where the daemon keeps everything: --data-dir DIR, or data_dir in the file of --config FILE"
    )]
    NoDataDir,
    /// What it says cannot hold.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
}

impl Config {
    /// Reads the file that is named, or the one in the data directory if it is there. A data directory that is named is
    /// believed more than the file.
    ///
    /// # Errors
    /// See [`ConfigError`]. Whether the values make sense is for [`Config::problems`] to say.
    pub fn load(file: Option<&Path>, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let own = data_dir.map(|dir| dir.join(FILE_NAME)).filter(|file| file.exists());
        let mut config = match file.or(own.as_deref()) {
            None => Self::default(),
            Some(file) => Self::parse(file, &read(file)?)?,
        };
        if let Some(dir) = data_dir {
            config.data_dir = dir.to_owned();
        }
        if config.data_dir.as_os_str().is_empty() { Err(ConfigError::NoDataDir) } else { Ok(config) }
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            // Without the line itself: it may have what should not be there.
            ConfigError::Parse {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                what: error.message().replace('\n', " "),
            }
        })
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let fault = |error| ConfigError::Read { file: file.to_owned(), error };
    let mut text = String::new();
    File::open(file).map_err(fault)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(fault)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(fault(std::io::Error::other("it is too long to be a configuration")));
    }
    Ok(text)
}
