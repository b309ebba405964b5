//! The public half of a KEK: what data keys are wrapped to.

use crate::key::DataKey;
use crate::limits::{
    PEM_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN, RSA_BITS_STRONG, WRAPPED_BYTES_MAX, WRAPPED_BYTES_MIN,
};
use crate::oaep;
use crate::pem::{Block, PemError, RsaError, bits_of_public, is_rsa, rsa_algorithm};
use crate::{OwnerId, pem};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicEncryptingKey;
use data_encoding::HEXLOWER_PERMISSIVE;
use pkcs8::der::asn1::BitStringRef;
use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode as _, Document};
use pkcs8::spki::SubjectPublicKeyInfoRef;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

const WRAP_DOMAIN: &[u8] = b"sealift v1 wrapped data key";

/// The public half of an RSA key to which data keys are wrapped.
#[derive(Clone)]
pub struct PublicKek {
    key: PublicEncryptingKey,
    bits: u32,
    spki: Box<[u8]>,
    fingerprint: Fingerprint,
}

/// Names a KEK: the SHA-256 of its public half as DER (SubjectPublicKeyInfo, RFC 5280). In text it is hexadecimal;
/// `openssl pkey -pubin -in KEY -outform DER | sha256sum` prints the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Which of the KEKs of one name: it rises with each rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KekVersion(pub u32);

/// What a wrapped key belongs to: it opens under the same label alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapLabel {
    /// Whose data the key seals.
    pub owner: OwnerId,
    /// The KEK that it is wrapped to.
    pub fingerprint: Fingerprint,
    /// That KEK's version.
    pub version: KekVersion,
}

/// A data key, encrypted to a KEK.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Box<[u8]>);

/// Why a file is no public half of a KEK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("a file of a public key has at most {PEM_BYTES_MAX} bytes")]
    TooLong,
    /// No block of PEM in it.
    #[error("this is no public key in PEM: no line begins with -----BEGIN")]
    NotPem,
    /// Several blocks.
    #[error("the file has several keys or certificates: give one public key in a file of its own")]
    Several,
    /// A private key.
    #[error("this is a private key: its public half is what `openssl pkey -in FILE -pubout` prints")]
    IsPrivate,
    /// Another thing.
    #[error("this is a {0:?}, and no public key: PUBLIC KEY or RSA PUBLIC KEY is what can be read")]
    Other(String),
    /// A key of another kind.
    #[error("the key is not for RSA (id rsaEncryption): data keys are wrapped to RSA keys alone")]
    NotRsa,
    /// Below [`RSA_BITS_MIN`].
    #[error("the RSA key has {0} bits: {RSA_BITS_MIN} is the least, and {RSA_BITS_STRONG} is recommended")]
    TooSmall(u32),
    /// Above [`RSA_BITS_MAX`].
    #[error("the RSA key has {0} bits: {RSA_BITS_MAX} is the most")]
    TooLarge(u32),
    /// Bytes that are no key.
    #[error("the public key is damaged: it cannot be read")]
    Malformed,
}

/// A data key could not be wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data key cannot be wrapped to the KEK {0}")]
pub struct WrapError(pub Fingerprint);

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint of a KEK is 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl PublicKek {
    /// A key from its file: SubjectPublicKeyInfo ("PUBLIC KEY") or PKCS#1 ("RSA PUBLIC KEY").
    ///
    /// # Errors
    /// See [`PublicKeyError`].
    pub fn from_pem(file: &str) -> Result<Self, PublicKeyError> {
        let block = Block::of(file)?;
        match block.label {
            "PUBLIC KEY" => {
                let der = block.der()?;
                let spki = SubjectPublicKeyInfoRef::from_der(der.as_bytes())?;
                if !is_rsa(&spki.algorithm) {
                    return Err(PublicKeyError::NotRsa);
                }
                let pkcs1 = spki.subject_public_key.as_bytes().ok_or(PublicKeyError::Malformed)?;
                Self::from_pkcs1(pkcs1)
            }
            "RSA PUBLIC KEY" => Self::from_pkcs1(block.der()?.as_bytes()),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" | "EC PRIVATE KEY" => {
                Err(PublicKeyError::IsPrivate)
            }
            _ => Err(PublicKeyError::Other(block.shown())),
        }
    }

    fn from_pkcs1(pkcs1: &[u8]) -> Result<Self, PublicKeyError> {
        bits_of_public(pkcs1)?;
        let subject_public_key = BitStringRef::from_bytes(pkcs1)?;
        let spki = Document::encode_msg(&SubjectPublicKeyInfoRef {
            algorithm: rsa_algorithm(),
            subject_public_key,
        })?;
        let key = PublicEncryptingKey::from_der(spki.as_bytes()).map_err(|_| PublicKeyError::Malformed)?;
        Self::from_key(key).ok_or(PublicKeyError::Malformed)
    }

    /// The key with its one encoding: that of the cipher, whatever the file had.
    pub(crate) fn from_key(key: PublicEncryptingKey) -> Option<Self> {
        let spki: PublicKeyX509Der<'_> = key.as_der().ok()?;
        let spki: Box<[u8]> = spki.as_ref().into();
        let fingerprint = Fingerprint(Sha256::digest(&spki).into());
        let bits = u32::try_from(key.key_size_bits()).ok()?;
        Some(Self { key, bits, spki, fingerprint })
    }

    /// Bits of the modulus.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether whoever uses it should be told to take a longer one: below [`RSA_BITS_STRONG`].
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.bits < RSA_BITS_STRONG
    }

    /// The key's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The key as a file: SubjectPublicKeyInfo, in lines that end in a line feed.
    ///
    /// # Panics
    /// Never: what was read can be written.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let spki = Document::try_from(&self.spki[..]).expect("the cipher writes DER");
        spki.to_pem("PUBLIC KEY", LineEnding::LF).expect("PEM of a key")
    }

    /// Wraps a data key: RSA-OAEP with SHA-256, under the label.
    ///
    /// # Errors
    /// If the label is that of another KEK, or the cipher refuses.
    pub fn wrap(&self, key: &DataKey, label: &WrapLabel) -> Result<WrappedKey, WrapError> {
        let wrapped = (label.fingerprint == self.fingerprint)
            .then(|| oaep::encrypt(&self.key, &label.encode(), key.as_bytes()))
            .flatten();
        wrapped.map(|bytes| WrappedKey(bytes.into())).ok_or(WrapError(self.fingerprint))
    }
}

impl PartialEq for PublicKek {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKek {}

impl fmt::Debug for PublicKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKek({}, {} bits)", self.fingerprint, self.bits)
    }
}

impl WrapLabel {
    /// A domain, the owner, the fingerprint, the version: all but the domain of fixed length.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        [WRAP_DOMAIN, &self.owner.0, &self.fingerprint.0, &self.version.0.to_le_bytes()].concat()
    }
}

impl WrappedKey {
    /// Bytes from outside; none if no RSA key has as many.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (WRAPPED_BYTES_MIN..=WRAPPED_BYTES_MAX).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes: as many as the modulus of the KEK has.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.0.len())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| NotAFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| NotAFingerprint)
    }
}

impl fmt::Display for KekVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<PemError> for PublicKeyError {
    fn from(error: PemError) -> Self {
        match error {
            PemError::TooLong => Self::TooLong,
            PemError::None => Self::NotPem,
            PemError::Several => Self::Several,
            PemError::Malformed => Self::Malformed,
        }
    }
}

impl From<RsaError> for PublicKeyError {
    fn from(error: RsaError) -> Self {
        match error {
            pem::RsaError::TooSmall(bits) => Self::TooSmall(bits),
            pem::RsaError::TooLarge(bits) => Self::TooLarge(bits),
            pem::RsaError::Malformed => Self::Malformed,
        }
    }
}

impl From<pkcs8::der::Error> for PublicKeyError {
    fn from(_: pkcs8::der::Error) -> Self {
        Self::Malformed
    }
}
