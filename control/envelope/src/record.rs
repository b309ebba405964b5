//! Log records, sealed one by one in a spool: each opens under its spool and its number alone, and the same under both.

use crate::block::{BlockSealer, NotAuthentic, OVERHEAD};
use crate::key::DataKey;
use crate::stream::{HEADER_BYTES, TAG_BYTES};
use std::fmt;
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"sealift v1 log record";

/// Seals and opens records of one spool under the data key of a segment of it.
pub struct RecordSealer(BlockSealer);

impl RecordSealer {
    /// For the records of a spool.
    #[must_use]
    pub fn new(key: &DataKey, spool: &[u8; 16]) -> Self {
        Self(BlockSealer::new(key, &[CONTEXT, spool].concat()))
    }

    /// The record of this number, sealed. One that is written again in its place, after a failure, is sealed under another
    /// nonce if it is another: see [`crate::block`].
    #[must_use]
    pub fn seal(&self, number: u64, record: &[u8]) -> Vec<u8> {
        let mut block = Vec::with_capacity(record.len() + OVERHEAD);
        block.resize(HEADER_BYTES, 0);
        block.extend_from_slice(record);
        block.resize(block.len() + TAG_BYTES, 0);
        self.0.seal(&number.to_le_bytes(), &mut block);
        block
    }

    /// The record of this number.
    ///
    /// # Errors
    /// If it is another's, or was changed.
    pub fn open(&self, number: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let mut block = Zeroizing::new(sealed.to_vec());
        let content = self.0.open(&number.to_le_bytes(), &mut block)?;
        Ok(Zeroizing::new(block[content].to_vec()))
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordSealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_where_it_was_sealed_and_nowhere_else() {
        let (key, other) = (DataKey::from_bytes(&[7; 32]), DataKey::from_bytes(&[8; 32]));
        let sealer = RecordSealer::new(&key, &[1; 16]);
        let sealed = sealer.seal(5, b"a record");
        assert_eq!(&sealer.open(5, &sealed).unwrap()[..], b"a record");
        assert_eq!(sealer.open(6, &sealed), Err(NotAuthentic));
        assert_eq!(RecordSealer::new(&key, &[2; 16]).open(5, &sealed), Err(NotAuthentic));
        assert_eq!(RecordSealer::new(&other, &[1; 16]).open(5, &sealed), Err(NotAuthentic));
        assert_eq!(sealer.open(5, &sealed[1..]), Err(NotAuthentic));
        assert_ne!(sealer.seal(5, b"another one")[..HEADER_BYTES], sealed[..HEADER_BYTES]);
    }
}
