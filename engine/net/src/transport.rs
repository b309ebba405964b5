//! What sessions go over, and its names.

use std::fmt;
use std::str::FromStr;

/// What a session may go over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP connections alone.
    Tcp,
    /// QUIC over UDP alone.
    Quic,
    /// Whichever works, and serves better.
    #[default]
    Auto,
}

/// What a connection does go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A TCP connection of its own.
    Tcp,
    /// A stream of a QUIC connection.
    Quic,
}

/// A word that names no transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transport is tcp, quic or auto")]
pub struct UnknownTransport;

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Quic, Self::Auto];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Auto => "auto",
        }
    }

    /// Whether it allows TCP.
    #[must_use]
    pub const fn allows_tcp(self) -> bool {
        !matches!(self, Self::Quic)
    }

    /// Whether it allows QUIC.
    #[must_use]
    pub const fn allows_quic(self) -> bool {
        !matches!(self, Self::Tcp)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        Self::ALL.into_iter().find(|transport| transport.name() == name).ok_or(UnknownTransport)
    }
}

impl Carrier {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => Transport::Tcp.name(),
            Self::Quic => Transport::Quic.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for transport in Transport::ALL {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("udp".parse::<Transport>().is_err());
    }
}
