//! The bulk ciphers a job may choose, by name. Holds no keys and encrypts nothing.

use std::fmt;
use std::str::FromStr;

/// How a job's sessions are encrypted. Both are TLS 1.3 suites (RFC 8446, appendix B.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// `TLS_AES_256_GCM_SHA384`.
    #[default]
    Aes256Gcm,
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128Gcm,
}

/// No cipher has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such cipher: {0:?} (aes-256-gcm and aes-128-gcm are known)")]
pub struct UnknownCipher(String);

impl Cipher {
    /// Every cipher, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::Aes128Gcm];

    /// The name in configuration and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Gcm => "aes-128-gcm",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Cipher {
    type Err = UnknownCipher;

    fn from_str(name: &str) -> Result<Self, UnknownCipher> {
        Self::ALL
            .into_iter()
            .find(|cipher| cipher.name() == name)
            .ok_or_else(|| UnknownCipher(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for cipher in Cipher::ALL {
            assert_eq!(cipher.to_string().parse(), Ok(cipher));
        }
        assert!("AES-256-GCM".parse::<Cipher>().is_err());
    }
}
