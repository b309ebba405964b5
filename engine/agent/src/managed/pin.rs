//! The fingerprint by which an agent knows its control daemon: SHA-256 of the authority's certificate.

use crypto_simd::sha256;
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;

/// A pinned certificate authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// The text is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint is SHA-256 in hexadecimal: 64 digits, with colons or without, and perhaps `sha256:` before them"
)]
pub struct PinError;

impl Pin {
    /// The fingerprint of a certificate, DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256::hash(certificate))
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let mut text = text.trim().to_ascii_lowercase();
        if let Some(rest) = text.strip_prefix("sha256:") {
            text = rest.to_owned();
        }
        if text.contains(':') {
            // Colons stand between pairs of digits, or there are none.
            if text.split(':').any(|pair| pair.len() != 2) {
                return Err(PinError);
            }
            text.retain(|c| c != ':');
        }
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| PinError)?;
        bytes.try_into().map(Self).map_err(|_| PinError)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_write_them() {
        let pin = Pin::of(b"certificate");
        let plain = pin.to_string();
        let upper = plain.to_ascii_uppercase();
        let pairs: Vec<_> = upper.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).collect();
        for text in
            [plain.clone(), format!("sha256:{plain}"), pairs.join(":"), format!("SHA256:{}", pairs.join(":"))]
        {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
        for text in
            ["", "sha256:", &plain[1..], &plain[2..], &format!("{plain}00"), &format!("x{}", &plain[1..])]
        {
            assert_eq!(text.parse::<Pin>(), Err(PinError), "{text}");
        }
    }

    #[test]
    fn it_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Pin::of(b"").to_string(), empty);
    }
}
