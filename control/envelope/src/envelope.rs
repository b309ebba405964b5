//! A data key wrapped to one or several KEKs, as bytes: what stands beside what the key sealed.

use crate::key::{Commitment, DataKey};
use crate::limits::{ENVELOPE_BYTES_MAX, ENVELOPE_WRAPS_MAX};
use crate::private::{PrivateKek, UnwrapError};
use crate::public::{Fingerprint, KekVersion, PublicKek, WrapError, WrapLabel, WrappedKey};
use std::fmt;

const MAGIC: &[u8; 4] = b"SLEV";
const VERSION: u16 = 1;
/// RSA-OAEP with SHA-256 and MGF1 with SHA-256. Other numbers are free, as for a KEM that quantum computers do not break.
const RSA_OAEP_SHA256: u16 = 1;

/// Bytes before the first wrap: magic, version, algorithm, owner, commitment, count.
pub(crate) const HEAD_BYTES: usize = 4 + 2 + 2 + 16 + 32 + 2;
/// Bytes of a wrap before its ciphertext: fingerprint, version, length.
pub(crate) const WRAP_HEAD_BYTES: usize = 32 + 4 + 2;

/// Whose data a key seals: a job's id, or what else has keys of its own. An envelope opens for its owner alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub [u8; 16]);

/// A data key, wrapped to KEKs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    owner: OwnerId,
    commitment: Commitment,
    wraps: Vec<Wrap>,
}

/// A KEK that an envelope's key is wrapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapInfo {
    /// The KEK.
    pub fingerprint: Fingerprint,
    /// Its version.
    pub version: KekVersion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrap {
    info: WrapInfo,
    wrapped: WrappedKey,
}

/// Why no envelope could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Nobody could open it.
    #[error("a data key has to be wrapped to a KEK at least")]
    NoKek,
    /// More than [`ENVELOPE_WRAPS_MAX`].
    #[error("a data key is wrapped to {ENVELOPE_WRAPS_MAX} KEKs at most")]
    TooMany,
    /// One KEK twice.
    #[error("the KEK {0} is given twice")]
    Twice(Fingerprint),
    /// Another key than the envelope's.
    #[error("the data key is not the one of this envelope")]
    OtherKey,
    /// The cipher refuses.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// Why bytes are no envelope, or an envelope does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Bytes of something else.
    #[error("this is no envelope of a data key")]
    NotAnEnvelope,
    /// Written by a later version.
    #[error("the envelope has version {0}, which this program does not know: a newer one is needed")]
    Version(u16),
    /// Wrapped in another way.
    #[error(
        "the envelope's key is wrapped by algorithm {0}, which this program does not know: a newer one is needed"
    )]
    Algorithm(u16),
    /// Fewer bytes than it says.
    #[error("the envelope is cut off")]
    Truncated,
    /// Something stands behind it, or it says of itself what cannot be.
    #[error("the envelope is damaged: {0}")]
    Malformed(&'static str),
    /// It belongs to other data.
    #[error("the envelope belongs to other data: it was swapped")]
    OtherOwner,
    /// None of its KEKs is the key's.
    #[error("the data key is not wrapped to the KEK {this}, but to {wrapped_to}", wrapped_to = names(wrapped_to))]
    WrongKey {
        /// The key that was tried.
        this: Fingerprint,
        /// Those that open it.
        wrapped_to: Vec<WrapInfo>,
    },
    /// The wrapped key was changed, or the owner or the version.
    #[error("the wrapped data key was changed, or belongs to another owner or version")]
    Damaged,
    /// What came out is another key than was sealed with.
    #[error("the envelope holds another data key than it commits to")]
    Commitment,
}

fn names(infos: &[WrapInfo]) -> String {
    infos
        .iter()
        .map(|info| format!("{} (version {})", info.fingerprint, info.version))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Envelope {
    /// Wraps a data key to each of the KEKs.
    ///
    /// # Errors
    /// If there is none, or too many of them, or one is there twice.
    pub fn seal(key: &DataKey, owner: OwnerId, keks: &[(&PublicKek, KekVersion)]) -> Result<Self, SealError> {
        if keks.is_empty() {
            return Err(SealError::NoKek);
        }
        if keks.len() > ENVELOPE_WRAPS_MAX {
            return Err(SealError::TooMany);
        }
        let mut wraps: Vec<Wrap> = Vec::with_capacity(keks.len());
        for &(kek, version) in keks {
            let info = WrapInfo { fingerprint: kek.fingerprint(), version };
            if wraps.iter().any(|wrap| wrap.info.fingerprint == info.fingerprint) {
                return Err(SealError::Twice(info.fingerprint));
            }
            wraps.push(Wrap { info, wrapped: kek.wrap(key, &info.label(owner))? });
        }
        Ok(Self { owner, commitment: key.commitment(), wraps })
    }

    /// The same data key, wrapped to other KEKs: what it sealed stays as it is.
    ///
    /// # Errors
    /// If the key is not this envelope's, and as [`Envelope::seal`].
    pub fn rewrap(&self, key: &DataKey, keks: &[(&PublicKek, KekVersion)]) -> Result<Self, SealError> {
        if !key.is_committed_by(&self.commitment) {
            return Err(SealError::OtherKey);
        }
        Self::seal(key, self.owner, keks)
    }

    /// Whose data it is about, as it says: [`Envelope::open_for`] proves it.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// What commits to the data key: equal in all envelopes of one key.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// The KEKs that open it.
    #[must_use]
    pub fn keks(&self) -> Vec<WrapInfo> {
        self.wraps.iter().map(|wrap| wrap.info).collect()
    }

    /// The data key.
    ///
    /// # Errors
    /// If it is not wrapped to the KEK, or does not unwrap, or is not the one that the envelope commits to.
    pub fn open(&self, kek: &PrivateKek) -> Result<DataKey, EnvelopeError> {
        let this = kek.public().fingerprint();
        let wrap = self.wraps.iter().find(|wrap| wrap.info.fingerprint == this);
        let wrap = wrap.ok_or_else(|| EnvelopeError::WrongKey { this, wrapped_to: self.keks() })?;
        let key = kek.unwrap(&wrap.wrapped, &wrap.info.label(self.owner)).map_err(|error| match error {
            UnwrapError::Damaged | UnwrapError::WrongKey { .. } => EnvelopeError::Damaged,
        })?;
        if !key.is_committed_by(&self.commitment) {
            return Err(EnvelopeError::Commitment);
        }
        Ok(key)
    }

    /// The data key, if the envelope is this owner's.
    ///
    /// # Errors
    /// If it is another's, and as [`Envelope::open`].
    pub fn open_for(&self, owner: OwnerId, kek: &PrivateKek) -> Result<DataKey, EnvelopeError> {
        if owner != self.owner {
            return Err(EnvelopeError::OtherOwner);
        }
        self.open(kek)
    }

    /// The bytes.
    ///
    /// # Panics
    /// Never: an envelope is within its bounds.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&RSA_OAEP_SHA256.to_le_bytes());
        bytes.extend_from_slice(&self.owner.0);
        bytes.extend_from_slice(&self.commitment.0);
        let count = u16::try_from(self.wraps.len()).expect("at most ENVELOPE_WRAPS_MAX");
        bytes.extend_from_slice(&count.to_le_bytes());
        for wrap in &self.wraps {
            bytes.extend_from_slice(&wrap.info.fingerprint.0);
            bytes.extend_from_slice(&wrap.info.version.0.to_le_bytes());
            let wrapped = wrap.wrapped.as_bytes();
            let length = u16::try_from(wrapped.len()).expect("at most WRAPPED_BYTES_MAX");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(wrapped);
        }
        bytes
    }

    /// An envelope from bytes from outside: all of them, and nothing else.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::Malformed("it is longer than one can be"));
        }
        let mut reader = Reader(bytes);
        if reader.array::<4>().ok() != Some(*MAGIC) {
            return Err(EnvelopeError::NotAnEnvelope);
        }
        match u16::from_le_bytes(reader.array()?) {
            VERSION => {}
            version => return Err(EnvelopeError::Version(version)),
        }
        match u16::from_le_bytes(reader.array()?) {
            RSA_OAEP_SHA256 => {}
            algorithm => return Err(EnvelopeError::Algorithm(algorithm)),
        }
        let (owner, commitment) = (OwnerId(reader.array()?), Commitment(reader.array()?));
        let count = usize::from(u16::from_le_bytes(reader.array()?));
        if !(1..=ENVELOPE_WRAPS_MAX).contains(&count) {
            return Err(EnvelopeError::Malformed("the number of its KEKs cannot be"));
        }
        let mut wraps: Vec<Wrap> = Vec::with_capacity(count);
        for _ in 0..count {
            let fingerprint = Fingerprint(reader.array()?);
            let version = KekVersion(u32::from_le_bytes(reader.array()?));
            let length = usize::from(u16::from_le_bytes(reader.array()?));
            let wrapped = WrappedKey::from_bytes(reader.take(length)?);
            let wrapped = wrapped.ok_or(EnvelopeError::Malformed("no KEK wraps to so many bytes"))?;
            if wraps.iter().any(|wrap| wrap.info.fingerprint == fingerprint) {
                return Err(EnvelopeError::Malformed("a KEK is there twice"));
            }
            wraps.push(Wrap { info: WrapInfo { fingerprint, version }, wrapped });
        }
        if !reader.0.is_empty() {
            return Err(EnvelopeError::Malformed("something stands behind it"));
        }
        Ok(Self { owner, commitment, wraps })
    }
}

impl WrapInfo {
    fn label(self, owner: OwnerId) -> WrapLabel {
        WrapLabel { owner, fingerprint: self.fingerprint, version: self.version }
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(EnvelopeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EnvelopeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests;
