//! Files of keys: one block of PEM (RFC 7468), and DER of RSA keys in it.

use crate::limits::{PEM_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN};
use pkcs8::der::asn1::{AnyRef, OctetStringRef, UintRef};
use pkcs8::der::{Decode as _, Reader as _, SecretDocument, SliceReader};
use pkcs8::spki::AlgorithmIdentifier;
use pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier};

/// PKCS#1 keys in SPKI and PKCS#8 (RFC 8017, appendix A.1).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
/// Bytes of a label that are shown.
const SHOWN_BYTES_MAX: usize = 40;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PemError {
    TooLong,
    None,
    Several,
    Malformed,
}

/// What is wrong with an RSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RsaError {
    TooSmall(u32),
    TooLarge(u32),
    Malformed,
}

/// The one block of a file.
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    text: &'a str,
}

impl<'a> Block<'a> {
    /// Finds it. What stands around it is left alone.
    pub(crate) fn of(file: &'a str) -> Result<Self, PemError> {
        if file.len() > PEM_BYTES_MAX {
            return Err(PemError::TooLong);
        }
        let (_, from) = file.split_once(BEGIN).ok_or(PemError::None)?;
        if from.contains(BEGIN) {
            return Err(PemError::Several);
        }
        let (label, _) = from.split_once(DASHES).ok_or(PemError::Malformed)?;
        let begin = file.len() - from.len() - BEGIN.len();
        let end = format!("-----END {label}-----");
        let end = begin + file[begin..].find(&end).ok_or(PemError::Malformed)? + end.len();
        Ok(Self { label, text: &file[begin..end] })
    }

    /// Whether it is encrypted in the way before PKCS#8 (RFC 1421), which says so in headers.
    pub(crate) fn is_encrypted_of_old(&self) -> bool {
        self.text.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
    }

    pub(crate) fn der(&self) -> Result<SecretDocument, PemError> {
        let (_, document) = SecretDocument::from_pem(self.text).map_err(|_| PemError::Malformed)?;
        Ok(document)
    }

    /// The label, fit to be shown.
    pub(crate) fn shown(&self) -> String {
        self.label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(SHOWN_BYTES_MAX).collect()
    }
}

/// What SPKI and PKCS#8 say of RSA keys: an object identifier, and NULL.
pub(crate) fn rsa_algorithm() -> AlgorithmIdentifierRef<'static> {
    AlgorithmIdentifier { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) }
}

pub(crate) fn is_rsa(algorithm: &AlgorithmIdentifierRef<'_>) -> bool {
    algorithm.oid == RSA_ENCRYPTION
}

/// Bits of the modulus of an `RSAPublicKey`, within bounds.
pub(crate) fn bits_of_public(pkcs1: &[u8]) -> Result<u32, RsaError> {
    bits(pkcs1, false)
}

/// Bits of the modulus of an `RSAPrivateKey`, within bounds. It has a version before the modulus.
pub(crate) fn bits_of_private(pkcs1: &[u8]) -> Result<u32, RsaError> {
    bits(pkcs1, true)
}

fn bits(pkcs1: &[u8], has_version: bool) -> Result<u32, RsaError> {
    let modulus_bits = || -> pkcs8::der::Result<Option<u32>> {
        let key = AnyRef::from_der(pkcs1)?;
        pkcs8::der::Tagged::tag(&key).assert_eq(pkcs8::der::Tag::Sequence)?;
        let mut reader = SliceReader::new(key.value())?;
        if has_version {
            reader.decode::<UintRef<'_>>()?;
        }
        let modulus = reader.decode::<UintRef<'_>>()?;
        let bytes = modulus.as_bytes();
        let leading = bytes.first().map_or(0, |first| first.leading_zeros());
        Ok(u32::try_from(bytes.len()).ok().and_then(|bytes| bytes.checked_mul(8)?.checked_sub(leading)))
    };
    match modulus_bits().map_err(|_| RsaError::Malformed)?.ok_or(RsaError::Malformed)? {
        bits if bits < RSA_BITS_MIN => Err(RsaError::TooSmall(bits)),
        bits if bits > RSA_BITS_MAX => Err(RsaError::TooLarge(bits)),
        bits => Ok(bits),
    }
}

/// The algorithm and the ciphertext of an encrypted PKCS#8 key, whatever the algorithm is.
pub(crate) fn encrypted(der: &[u8]) -> pkcs8::der::Result<(AlgorithmIdentifierRef<'_>, &[u8])> {
    let whole = AnyRef::from_der(der)?;
    pkcs8::der::Tagged::tag(&whole).assert_eq(pkcs8::der::Tag::Sequence)?;
    let mut reader = SliceReader::new(whole.value())?;
    let algorithm = reader.decode::<AlgorithmIdentifierRef<'_>>()?;
    let data = reader.decode::<&OctetStringRef>()?;
    reader.finish()?;
    Ok((algorithm, data.as_bytes()))
}
