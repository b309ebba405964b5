//! How a run ends when it does not succeed: one family for each exit code, and the text for people.

use sealift_net::{DialError, DialErrorKind};
use sealift_proto::wire::CloseCode;
use std::process::ExitCode;

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The peer broke its promises (bad signature, wrong blocks, broken protocol): exit code 1.
    #[error("the sender cannot be trusted, so the transfer was stopped: {what}")]
    Hostile {
        /// What the session is closed with.
        code: CloseCode,
        /// What it did.
        what: String,
    },
    /// The key does not open the peer's job: exit code 4.
    #[error("{0}\nIs the ticket the newest one, and the sender still running with it?")]
    NotAuthorized(String),
    /// The peer cannot be reached: exit code 5.
    #[error("unreachable: {0}\nIs the sender running, and its port open from here?")]
    Unreachable(String),
    /// The control daemon is not what was pinned, or refuses this host: exit code 4.
    #[error("{0}")]
    Barred(String),
    /// The control daemon cannot be reached: exit code 5.
    #[error("unreachable: {0}\nIs the control daemon running, and its port open from here?")]
    DaemonAway(String),
    /// The sender began a new snapshot: everything is looked at again. Never reaches the user.
    #[error("the sender began anew")]
    NewSnapshot,
    /// Ctrl-C, or a request to end: exit code 1.
    #[error("interrupted")]
    Interrupted,
}

/// A run that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// All of it: exit code 0.
    Complete,
    /// Some entries are missing, and were named: exit code 3.
    Partial,
}

impl RunError {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Hostile { .. } | Self::Interrupted | Self::NewSnapshot => 1,
            Self::Usage(_) => 2,
            Self::NotAuthorized(_) | Self::Barred(_) => 4,
            Self::Unreachable(_) | Self::DaemonAway(_) => 5,
        }
    }
}

impl From<DialError> for RunError {
    fn from(error: DialError) -> Self {
        match error.kind() {
            DialErrorKind::Unreachable => Self::Unreachable(error.to_string()),
            DialErrorKind::NotAuthorized => Self::NotAuthorized(error.to_string()),
            DialErrorKind::Incompatible => Self::Failed(error.to_string()),
        }
    }
}

impl From<Finish> for ExitCode {
    fn from(finish: Finish) -> Self {
        Self::from(match finish {
            Finish::Complete => 0,
            Finish::Partial => 3,
        })
    }
}
