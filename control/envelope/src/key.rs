//! A data key: what content is sealed under. It lives in memory only, and is overwritten when it is dropped.

use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a data key.
pub const KEY_BYTES: usize = 32;

const DERIVED_INFO: &[u8] = b"sealift v1 derived data key";
const COMMITMENT_INFO: &[u8] = b"sealift v1 data key commitment";

/// An AES-256 data key. Never written anywhere, but wrapped to a KEK.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

/// Fits one data key alone, and tells nothing of it: AES-GCM by itself lets one ciphertext open under two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commitment(pub [u8; 32]);

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes for a key")]
pub struct NoRandomness;

impl DataKey {
    /// A fresh key, from the operating system.
    ///
    /// # Errors
    /// If it has no randomness to give.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| NoRandomness)?;
        Ok(Self(key))
    }

    /// The key with these bytes, which are the caller's to overwrite.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A key for one purpose, from which this one cannot be told: HKDF-SHA256 (RFC 5869). The parts stand in it with
    /// their lengths, so that no two lists of parts give the same key.
    ///
    /// # Panics
    /// If a part has 4 GiB.
    #[must_use]
    pub fn derive(&self, info: &[&[u8]]) -> Self {
        let mut framed = DERIVED_INFO.to_vec();
        for part in info {
            framed.extend_from_slice(&u32::try_from(part.len()).expect("a part below 4 GiB").to_le_bytes());
            framed.extend_from_slice(part);
        }
        Self(self.expand(&framed))
    }

    /// What commits to this key.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment(*self.expand(COMMITMENT_INFO))
    }

    /// Whether this is the key of the commitment.
    #[must_use]
    pub fn is_committed_by(&self, commitment: &Commitment) -> bool {
        self.commitment().0.ct_eq(&commitment.0).into()
    }

    /// HKDF-SHA256 without salt, for an info that begins with a domain of its own.
    pub(crate) fn expand(&self, info: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        Hkdf::<Sha256>::new(None, &*self.0).expand(info, &mut *derived).expect("one block of output");
        derived
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_differ_by_every_part_and_by_where_parts_end() {
        let key = DataKey::from_bytes(&[7; 32]);
        let derived = [
            key.derive(&[]),
            key.derive(&[b""]),
            key.derive(&[b"ab"]),
            key.derive(&[b"a", b"b"]),
            key.derive(&[b"ab", b""]),
            DataKey::from_bytes(&[8; 32]).derive(&[b"ab"]),
            DataKey(key.expand(COMMITMENT_INFO)),
            key.clone(),
        ];
        for (at, one) in derived.iter().enumerate() {
            for other in &derived[at + 1..] {
                assert_ne!(one.as_bytes(), other.as_bytes());
            }
        }
    }

    #[test]
    fn a_commitment_fits_its_key_alone() {
        let (key, other) = (DataKey::generate().unwrap(), DataKey::generate().unwrap());
        assert!(key.is_committed_by(&key.commitment()));
        assert!(!other.is_committed_by(&key.commitment()));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", DataKey::from_bytes(&[0x41; 32])), "DataKey");
    }
}
