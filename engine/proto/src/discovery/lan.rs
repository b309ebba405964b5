//! What is said on the local network: one datagram, always as long.

use super::{DiscoveryTag, SEALED_ENTRY_BYTES, SealedEntry, TAG_BYTES};
use crate::codec::Reader;

/// The first bytes of a datagram, with the version.
const MAGIC: [u8; 4] = *b"SLD1";
/// Bytes in a datagram.
pub const DATAGRAM_BYTES: usize = MAGIC.len() + TAG_BYTES + SEALED_ENTRY_BYTES;

/// A member's datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Of which job, in [`Place::Lan`](super::Place::Lan).
    pub tag: DiscoveryTag,
    /// Where the member is.
    pub entry: SealedEntry,
}

impl Datagram {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; DATAGRAM_BYTES] {
        let mut bytes = [0; DATAGRAM_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..][..TAG_BYTES].copy_from_slice(&self.tag.0);
        bytes[4 + TAG_BYTES..].copy_from_slice(&self.entry.0);
        bytes
    }

    /// A datagram from anybody, if it is one of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DATAGRAM_BYTES] = bytes.try_into().ok()?;
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return None;
        }
        Some(Self { tag: DiscoveryTag(reader.array()?), entry: SealedEntry(reader.array()?) })
    }
}
