//! The private half of a KEK: what unwraps data keys.

use crate::OwnerId;
use crate::key::DataKey;
use crate::limits::{
    PBKDF2_ITERATIONS_MAX, PEM_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN, RSA_BITS_STRONG, SCRYPT_BYTES_MAX,
    SCRYPT_PASSES_MAX,
};
use crate::oaep;
use crate::pem::{self, Block, PemError, RsaError, bits_of_private, is_rsa, rsa_algorithm};
use crate::public::{Fingerprint, KekVersion, PublicKek, WrapLabel, WrappedKey};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::PrivateDecryptingKey;
use pkcs5::EncryptionScheme;
use pkcs5::pbes2::Kdf;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode as _, SecretDocument};
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The command that makes a file that can be read of one that is encrypted in an old way.
pub const CONVERT_COMMAND: &str = "openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW";

/// The private half of an RSA key. AWS-LC overwrites its memory when it is dropped.
pub struct PrivateKek {
    key: PrivateDecryptingKey,
    public: PublicKek,
}

/// Why a file is no private half of a KEK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("a file of a private key has at most {PEM_BYTES_MAX} bytes")]
    TooLong,
    /// No block of PEM in it.
    #[error("this is no private key in PEM: no line begins with -----BEGIN")]
    NotPem,
    /// Several blocks.
    #[error("the file has several keys or certificates: give one private key in a file of its own")]
    Several,
    /// A public key.
    #[error("this is a public key, and the private one is needed")]
    IsPublic,
    /// Another thing.
    #[error(
        "this is a {0:?}, and no private key: PRIVATE KEY, ENCRYPTED PRIVATE KEY or RSA PRIVATE KEY is what can be read"
    )]
    Other(String),
    /// A key of another kind.
    #[error("the private key is not for RSA (id rsaEncryption): data keys are wrapped to RSA keys alone")]
    NotRsa,
    /// Below [`RSA_BITS_MIN`].
    #[error("the RSA key has {0} bits: {RSA_BITS_MIN} is the least, and {RSA_BITS_STRONG} is recommended")]
    TooSmall(u32),
    /// Above [`RSA_BITS_MAX`].
    #[error("the RSA key has {0} bits: {RSA_BITS_MAX} is the most")]
    TooLarge(u32),
    /// Encrypted, and no passphrase was given.
    #[error("the private key is encrypted: its passphrase is needed")]
    PassphraseNeeded,
    /// A passphrase that does not open it.
    #[error("the passphrase is not that of the private key")]
    WrongPassphrase,
    /// `Proc-Type: 4,ENCRYPTED`.
    #[error(
        "the private key is encrypted in the old way (Proc-Type: 4,ENCRYPTED), which is not read; convert it: {CONVERT_COMMAND}"
    )]
    OldEncryption,
    /// Another encryption than PBES2 with PBKDF2 or scrypt, and AES.
    #[error(
        "the private key is encrypted in a way that is not read (PBES2 with PBKDF2 or scrypt and AES is); convert it: {CONVERT_COMMAND}"
    )]
    OtherEncryption,
    /// More work than a file may ask for.
    #[error(
        "the private key asks for more work to decrypt it than is allowed; convert it: {CONVERT_COMMAND}"
    )]
    TooCostly,
    /// Bytes that are no key.
    #[error("the private key is damaged: it cannot be read")]
    Malformed,
}

/// Why a wrapped data key does not unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// It was wrapped to another KEK.
    #[error("the data key is wrapped to the KEK {wrapped_to}, and this key is {this}")]
    WrongKey {
        /// The KEK of the label.
        wrapped_to: Fingerprint,
        /// The KEK that was tried.
        this: Fingerprint,
    },
    /// The bytes were changed, or the label is that of another owner or version.
    #[error("the wrapped data key was changed, or belongs to another owner or version")]
    Damaged,
}

impl PrivateKek {
    /// A key from its file: PKCS#8, as it is or encrypted (PBES2), or PKCS#1 that is not encrypted. A passphrase that is
    /// not needed is not looked at.
    ///
    /// # Errors
    /// See [`PrivateKeyError`].
    pub fn from_pem(file: &str, passphrase: Option<&[u8]>) -> Result<Self, PrivateKeyError> {
        let block = Block::of(file)?;
        if block.is_encrypted_of_old() {
            return Err(PrivateKeyError::OldEncryption);
        }
        match block.label {
            "PRIVATE KEY" => Self::from_pkcs8_der(block.der()?.as_bytes()),
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase.ok_or(PrivateKeyError::PassphraseNeeded)?;
                Self::from_encrypted(block.der()?.as_bytes(), passphrase)
            }
            "RSA PRIVATE KEY" => Self::from_pkcs1(block.der()?.as_bytes()),
            "EC PRIVATE KEY" | "DSA PRIVATE KEY" => Err(PrivateKeyError::NotRsa),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Err(PrivateKeyError::IsPublic),
            _ => Err(PrivateKeyError::Other(block.shown())),
        }
    }

    /// Whether the file's key can be read with a passphrase only: so that a program knows whether to ask for one.
    #[must_use]
    pub fn needs_passphrase(file: &str) -> bool {
        Block::of(file).is_ok_and(|block| block.label == "ENCRYPTED PRIVATE KEY")
    }

    /// A key from PKCS#8 (RFC 5208).
    ///
    /// # Errors
    /// See [`PrivateKeyError`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let info = PrivateKeyInfoRef::from_der(der)?;
        if !is_rsa(&info.algorithm) {
            return Err(PrivateKeyError::NotRsa);
        }
        bits_of_private(info.private_key.as_bytes())?;
        // Parts that are no key together (a modulus that is not the primes' product) are refused here.
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| PrivateKeyError::Malformed)?;
        let public = PublicKek::from_key(key.public_key()).ok_or(PrivateKeyError::Malformed)?;
        Ok(Self { key, public })
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, PrivateKeyError> {
        bits_of_private(der)?;
        let info = PrivateKeyInfoRef::new(rsa_algorithm(), OctetStringRef::new(der)?);
        Self::from_pkcs8_der(SecretDocument::encode_msg(&info)?.as_bytes())
    }

    fn from_encrypted(der: &[u8], passphrase: &[u8]) -> Result<Self, PrivateKeyError> {
        let (algorithm, ciphertext) = pem::encrypted(der)?;
        let scheme = EncryptionScheme::try_from(algorithm).map_err(|_| PrivateKeyError::OtherEncryption)?;
        let parameters = scheme.pbes2().ok_or(PrivateKeyError::OtherEncryption)?;
        if costs_too_much(&parameters.kdf) {
            return Err(PrivateKeyError::TooCostly);
        }
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let der = parameters.decrypt_in_place(passphrase, &mut buffer).map_err(|error| match error {
            pkcs5::Error::UnsupportedAlgorithm { .. } => PrivateKeyError::OtherEncryption,
            _ => PrivateKeyError::WrongPassphrase,
        })?;
        // With a wrong passphrase the padding is right once in 256 times; what it hides is no key then.
        match Self::from_pkcs8_der(der) {
            Err(PrivateKeyError::Malformed) => Err(PrivateKeyError::WrongPassphrase),
            read => read,
        }
    }

    /// The key as PKCS#8, not encrypted: to be sealed by whoever keeps it.
    ///
    /// # Errors
    /// If the cipher cannot write it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
        let der: Pkcs8V1Der<'_> = self.key.as_der().map_err(|_| PrivateKeyError::Malformed)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKek {
        &self.public
    }

    /// Unwraps a data key under the label it was wrapped with.
    ///
    /// # Errors
    /// If the label is another KEK's, or the bytes do not open.
    pub fn unwrap(&self, wrapped: &WrappedKey, label: &WrapLabel) -> Result<DataKey, UnwrapError> {
        let this = self.public.fingerprint();
        if label.fingerprint != this {
            return Err(UnwrapError::WrongKey { wrapped_to: label.fingerprint, this });
        }
        let opened = oaep::decrypt(&self.key, &label.encode(), wrapped.as_bytes());
        let opened = opened.map_err(|_| UnwrapError::Damaged)?;
        let bytes = <&[u8; 32]>::try_from(&opened[..]).map_err(|_| UnwrapError::Damaged)?;
        Ok(DataKey::from_bytes(bytes))
    }

    /// Whether this is the other half of a public key: a fresh data key that is wrapped to it comes out the same.
    #[must_use]
    pub fn proves(&self, public: &PublicKek) -> bool {
        let label =
            WrapLabel { owner: OwnerId([0; 16]), fingerprint: public.fingerprint(), version: KekVersion(0) };
        let Ok(fresh) = DataKey::generate() else { return false };
        let Ok(wrapped) = public.wrap(&fresh, &label) else { return false };
        self.unwrap(&wrapped, &label).is_ok_and(|opened| opened.as_bytes().ct_eq(fresh.as_bytes()).into())
    }
}

impl fmt::Debug for PrivateKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKek({})", self.public.fingerprint())
    }
}

/// Whether deriving a key from a passphrase takes more than a file may ask for.
fn costs_too_much(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count > PBKDF2_ITERATIONS_MAX,
        Kdf::Scrypt(parameters) => {
            let memory = parameters.cost_parameter.saturating_mul(128 * u64::from(parameters.block_size));
            memory > SCRYPT_BYTES_MAX || parameters.parallelization > SCRYPT_PASSES_MAX
        }
        _ => true,
    }
}

impl From<PemError> for PrivateKeyError {
    fn from(error: PemError) -> Self {
        match error {
            PemError::TooLong => Self::TooLong,
            PemError::None => Self::NotPem,
            PemError::Several => Self::Several,
            PemError::Malformed => Self::Malformed,
        }
    }
}

impl From<RsaError> for PrivateKeyError {
    fn from(error: RsaError) -> Self {
        match error {
            RsaError::TooSmall(bits) => Self::TooSmall(bits),
            RsaError::TooLarge(bits) => Self::TooLarge(bits),
            RsaError::Malformed => Self::Malformed,
        }
    }
}

impl From<pkcs8::der::Error> for PrivateKeyError {
    fn from(_: pkcs8::der::Error) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests;
