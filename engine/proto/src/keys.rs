//! A job's keys: read-write seed → read-only secret → session key and job tag; and the verify key.
//!
//! Each holder can derive only what is below: the seed signs manifests, the read-only secret opens sessions
//! and authorizes nothing, the verify key checks manifests. Derivation is HKDF-SHA256 (RFC 5869), signatures are
//! Ed25519 (RFC 8032). Secrets are zeroized when dropped and never shown.

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes in every key and seed.
pub const KEY_BYTES: usize = 32;
/// Bytes in a signature.
pub const SIGNATURE_BYTES: usize = 64;

const RO_SECRET_INFO: &[u8] = b"sealift v1 read-only secret";
const SESSION_KEY_INFO: &[u8] = b"sealift v1 session key";
const TAG_KEY_INFO: &[u8] = b"sealift v1 job tag key";
const TAG_INFO: &[u8] = b"sealift v1 job tag";
const KEEPERS_INFO: &[u8] = b"sealift v1 keepers' secret";
const DISCOVERY_INFO: &[u8] = b"sealift v1 discovery key";
const JOB_ID_DOMAIN: &[u8] = b"sealift v1 job id";

/// The read-write seed of a job: an Ed25519 signing key.
pub struct RwSeed(SigningKey);

/// The read-only secret of a job: opens sessions, and never authorizes content.
#[derive(Clone)]
pub struct RoSecret(Zeroizing<[u8; KEY_BYTES]>);

/// The public half of the read-write seed: checks a job's manifests.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyKey(VerifyingKey);

/// The Ed25519 key with which both ends of a session prove that they hold the read-only secret.
#[derive(Clone)]
pub struct SessionKey(SigningKey);

/// Names a job in its manifests: derived from its verify key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(pub [u8; 16]);

/// Names a job in a ClientHello, to those who hold its read-only secret, for one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobTag(pub [u8; 16]);

/// An Ed25519 signature.
pub type Signature = [u8; SIGNATURE_BYTES];

/// The bytes are no point of the curve, or one of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Ed25519 public key")]
pub struct BadVerifyKey;

impl RwSeed {
    /// A seed from 32 random bytes.
    #[must_use]
    pub fn new(seed: &[u8; KEY_BYTES]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The read-only secret below this seed.
    #[must_use]
    pub fn ro_secret(&self) -> RoSecret {
        RoSecret(derive(self.0.as_bytes(), &[RO_SECRET_INFO]))
    }

    /// The public half.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.0.verifying_key())
    }

    /// Signs a message that already begins with its domain.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).to_bytes()
    }
}

impl RoSecret {
    /// The secret from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// What opens the sessions of a sealed job: all that is fetched there is ciphertext, so that whoever can check it may have it.
    #[must_use]
    pub fn of_keepers(verify_key: &VerifyKey) -> Self {
        Self(derive(verify_key.as_bytes(), &[KEEPERS_INFO]))
    }

    /// The bytes, for a ticket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The key of the job's sessions.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        SessionKey(SigningKey::from_bytes(&derive(&self.0, &[SESSION_KEY_INFO])))
    }

    /// The key by which a job's members find each other: everything of discovery is derived from it, and nothing else is.
    pub(crate) fn discovery_key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        derive(&self.0, &[DISCOVERY_INFO])
    }

    /// The job's tag for a day, counted from 1970-01-01 UTC.
    #[must_use]
    pub fn tag(&self, day: u64) -> JobTag {
        let tag_key = derive(&self.0, &[TAG_KEY_INFO]);
        let tag = derive(&tag_key, &[TAG_INFO, &day.to_le_bytes()]);
        JobTag(tag[..16].try_into().expect("16 of 32 bytes"))
    }
}

impl VerifyKey {
    /// A key from bytes from outside.
    ///
    /// # Errors
    /// If they are not a point of the curve, or one of the weak points every signature fits.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, BadVerifyKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadVerifyKey)?;
        if key.is_weak() {
            return Err(BadVerifyKey);
        }
        Ok(Self(key))
    }

    /// The bytes, for a ticket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }

    /// The job that this key belongs to.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        let digest = Sha256::new_with_prefix(JOB_ID_DOMAIN).chain_update(self.as_bytes()).finalize();
        JobId(digest[..16].try_into().expect("16 of 32 bytes"))
    }

    /// Whether the signature is this key's over the message (strict: no malleable encodings).
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl SessionKey {
    /// The public half, as it is shown in the handshake.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a handshake transcript.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).to_bytes()
    }
}

/// HKDF-SHA256 without salt: 32 bytes.
pub(crate) fn derive(secret: &[u8; KEY_BYTES], info: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut output = Zeroizing::new([0; KEY_BYTES]);
    Hkdf::<Sha256>::new(None, secret)
        .expand_multi_info(info, output.as_mut())
        .expect("32 bytes are one block of output");
    output
}

macro_rules! hide {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    )*};
}
hide!(RwSeed RoSecret SessionKey);

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({:?})", self.job_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    /// The vectors of docs/wire.md; computed apart, by a script over Python's hmac and hashlib.
    #[test]
    fn derivation_matches_the_documented_vectors() {
        let seed = RwSeed::new(&[7; 32]);
        let ro = seed.ro_secret();
        assert_eq!(hex(ro.as_bytes()), "ca68e30746410c366601f0ca62935c2411863f413a982911e792440f1c39c3a3");
        assert_eq!(hex(&ro.tag(20_000).0), "aee49bbbe22dbe5422d591ff36a87cb9");
        assert_eq!(
            hex(&ro.session_key().0.to_bytes()),
            "c36544a3bf1f9d98ce8dc20a28ca96da8111489111d3f619ab42e212ca0d2546"
        );
        assert_eq!(hex(&seed.verify_key().job_id().0), "13b6499695062c4b79cc488f3b050b45");
    }

    #[test]
    fn keepers_have_a_secret_of_their_own() {
        let seed = RwSeed::new(&[7; 32]);
        let keepers = RoSecret::of_keepers(&seed.verify_key());
        assert_eq!(
            hex(keepers.as_bytes()),
            "f78257d5bac0a330f85c269201fb01b3d23b07b8a3c9c6af5f93080205ebbd76"
        );
        assert_ne!(keepers.as_bytes(), seed.ro_secret().as_bytes());
    }

    #[test]
    fn secrets_do_not_show() {
        let seed = RwSeed::new(&[7; 32]);
        assert_eq!(format!("{seed:?} {:?}", seed.ro_secret()), "RwSeed(secret) RoSecret(secret)");
    }

    #[test]
    fn tag_changes_daily() {
        let ro = RwSeed::new(&[7; 32]).ro_secret();
        assert_ne!(ro.tag(1), ro.tag(2));
    }

    #[test]
    fn refuses_weak_verify_keys() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(VerifyKey::from_bytes(&identity), Err(BadVerifyKey));
    }
}
