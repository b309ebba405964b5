//! This agent's key and certificate, and the authority that it pinned.
//!
//! Owns how they are made, kept and checked. The key never leaves the host, is zeroized, and is never shown.

use crate::error::RunError;
use crate::managed::home::Home;
use crate::managed::pin::Pin;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;
use zeroize::{Zeroize as _, Zeroizing};

/// The agent's key: ECDSA P-256.
#[derive(Clone)]
pub(crate) struct AgentKey {
    pkcs8: Zeroizing<Vec<u8>>,
    signing: Arc<dyn SigningKey>,
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey(secret)")
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> RunError {
    RunError::Failed(format!("{what}: {error}"))
}

impl AgentKey {
    /// The key that is kept, or a new one, kept from now on.
    pub(crate) fn load_or_make(home: &Home) -> Result<Self, RunError> {
        if let Some(key) = Self::load(home)? {
            return Ok(key);
        }
        let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| failed("no key can be made", error))?;
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        let key = Self::from_pkcs8(pkcs8)?;
        home.write("key", &key.pkcs8).map_err(|error| home.unusable(&error))?;
        Ok(key)
    }

    /// The key that is kept, if there is one.
    pub(crate) fn load(home: &Home) -> Result<Option<Self>, RunError> {
        home.read("key").map_err(|error| home.unusable(&error))?.map(Self::from_pkcs8).transpose()
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, RunError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let signing = any_ecdsa_type(&der).map_err(|error| failed("the agent's key is damaged", error))?;
        Ok(Self { pkcs8, signing })
    }

    fn with_pair<T>(&self, act: impl FnOnce(&KeyPair) -> Result<T, rcgen::Error>) -> Result<T, RunError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        let done =
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).and_then(|mut pair| {
                let done = act(&pair);
                pair.zeroize();
                done
            });
        done.map_err(|error| failed("the agent's key cannot be used", error))
    }

    /// A certificate request by this key.
    pub(crate) fn request(&self, name: &str) -> Result<Vec<u8>, RunError> {
        self.with_pair(|pair| {
            let params = CertificateParams::new(vec![name.to_owned()])?;
            Ok(params.serialize_request(pair)?.der().to_vec())
        })
    }

    fn public(&self) -> Result<Vec<u8>, RunError> {
        self.with_pair(|pair| Ok(pair.subject_public_key_info()))
    }

    /// The key with its certificate, as TLS takes them.
    pub(crate) fn certified(&self, certificate: &Certificate) -> CertifiedKey {
        CertifiedKey::new(vec![CertificateDer::from(certificate.der.clone())], Arc::clone(&self.signing))
    }
}

/// A certificate of this agent: for its key and from its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Certificate {
    /// Checks what the daemon sent.
    pub(crate) fn check(der: Vec<u8>, key: &AgentKey, authority: &[u8]) -> Result<Self, RunError> {
        let wrong = |what: &str| RunError::Failed(format!("the certificate of this agent {what}"));
        let parsed = |der| match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(certificate),
            _ => Err(wrong("or that of its authority is malformed")),
        };
        let (certificate, authority) = (parsed(&der)?, parsed(authority)?);
        if certificate.public_key().raw != key.public()? {
            return Err(wrong("is for another key"));
        }
        if certificate.issuer() != authority.subject()
            || certificate.verify_signature(Some(authority.public_key())).is_err()
        {
            return Err(wrong("is not from the certificate authority that was pinned"));
        }
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { der, not_before, not_after })
    }

    /// Whether less than a third of its life is left, or none.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        unix_seconds(now) >= self.not_after.saturating_sub(life / 3)
    }

    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.not_after
    }

    /// What is odd about the clock, if its time is years from that of the certificate (hazard C5).
    pub(crate) fn clock_doubt(&self, now: SystemTime) -> Option<String> {
        let now = unix_seconds(now);
        let odd = now < self.not_before || now > self.not_after.saturating_add(CLOCK_DOUBT_SECONDS);
        odd.then(|| clock_text(now, self.not_before, self.not_after))
    }
}

/// A certificate that expired this long ago makes the clock look wrong: agents run daily and renew.
const CLOCK_DOUBT_SECONDS: i64 = 365 * 24 * 3600;

/// What is said of a clock that does not fit a certificate.
pub(crate) fn clock_text(now: i64, not_before: i64, not_after: i64) -> String {
    format!(
        "this host's clock looks wrong: it says {}, and a certificate is valid from {} to {}",
        date(now),
        date(not_before),
        date(not_after)
    )
}

/// A time as people read it.
pub(crate) fn date(unix: i64) -> String {
    ASN1Time::from_timestamp(unix).map_or_else(|_| format!("{unix} s after 1970"), |time| time.to_string())
}

pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// All that this agent shows and trusts.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) key: AgentKey,
    pub(crate) certificate: Certificate,
    pub(crate) authority: Vec<u8>,
}

impl Credentials {
    /// What was kept when the host joined; it is checked again, against the pin.
    pub(crate) fn load(home: &Home, pin: &Pin) -> Result<Self, RunError> {
        let missing = |name: &str| {
            RunError::Failed(format!("{} is missing: restore it, or join anew", home.path(name).display()))
        };
        let read = |name| home.read(name).map_err(|error| home.unusable(&error));
        let key = AgentKey::load(home)?.ok_or_else(|| missing("key"))?;
        let authority = read("ca")?.ok_or_else(|| missing("ca"))?.to_vec();
        if Pin::of(&authority) != *pin {
            return Err(failed(&home.path("ca").display().to_string(), "it is not what was pinned"));
        }
        let der = read("certificate")?.ok_or_else(|| missing("certificate"))?.to_vec();
        let certificate = Certificate::check(der, &key, &authority)?;
        Ok(Self { key, certificate, authority })
    }

    /// Takes a new certificate, and keeps it.
    pub(crate) fn renew(&mut self, home: &Home, der: Vec<u8>) -> Result<(), RunError> {
        let certificate = Certificate::check(der, &self.key, &self.authority)?;
        home.write("certificate", &certificate.der).map_err(|error| home.unusable(&error))?;
        self.certificate = certificate;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::testing::Authority;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().to_owned())).unwrap();
        (dir, home)
    }

    #[test]
    fn the_key_is_made_once_and_does_not_show() {
        let (_dir, home) = home();
        let key = AgentKey::load_or_make(&home).unwrap();
        let again = AgentKey::load_or_make(&home).unwrap();
        assert_eq!(key.public().unwrap(), again.public().unwrap());
        assert_eq!(format!("{key:?}"), "AgentKey(secret)");
    }

    #[test]
    fn a_certificate_for_another_key_or_from_another_authority_is_refused() {
        let (_dir, home) = home();
        let key = AgentKey::load_or_make(&home).unwrap();
        let (authority, other) = (Authority::new(), Authority::new());
        let request = key.request("a").unwrap();
        let right = Certificate::check(authority.sign(&request), &key, &authority.der()).unwrap();
        assert!(right.not_after > right.not_before);

        let says = |der, authority: &Authority| {
            Certificate::check(der, &key, &authority.der()).unwrap_err().to_string()
        };
        assert!(says(other.sign(&request), &authority).contains("not from the certificate authority"));
        let (_dir, elsewhere) = super::tests::home();
        let another = AgentKey::load_or_make(&elsewhere).unwrap().request("a").unwrap();
        assert!(says(authority.sign(&another), &authority).contains("another key"));
        assert!(says(b"garbage".to_vec(), &authority).contains("malformed"));
    }

    #[test]
    fn c5_a_clock_that_is_years_off_is_doubted() {
        let day = 24 * 3600;
        let certificate = Certificate { der: vec![], not_before: 1_000 * day, not_after: 1_003 * day };
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
        assert!(!certificate.is_due(at(1_001)) && certificate.is_due(at(1_002)));
        assert!(!certificate.has_expired(at(1_003)) && certificate.has_expired(at(1_004)));
        assert!(certificate.clock_doubt(at(1_002)).is_none() && certificate.clock_doubt(at(1_100)).is_none());
        for days in [0, 2_000] {
            assert!(certificate.clock_doubt(at(days)).unwrap().contains("clock looks wrong"));
        }
    }
}
