//! Single blocks, sealed in place.
//!
//! A sealed block is a stream ([`crate::stream`]) of one segment, whose associated data says where the block belongs.
//! Its salt and prefix of the nonce are *synthetic*: a keyed hash of the content and the place. Equal content at an equal
//! place gives equal bytes, so that blocks that did not change need not be moved again; other content never meets a nonce
//! that was used. Who sees two versions of a block learns whether they are equal, and nothing more.

use crate::key::DataKey;
use crate::limits::CONTEXT_BYTES_MAX;
use crate::stream::{Cipher, HEADER_BYTES, PREFIX_BYTES, SALT_BYTES, TAG_BYTES};
use std::fmt;
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes by which a sealed block is longer than its content: the header before, the tag behind.
pub const OVERHEAD: usize = HEADER_BYTES + TAG_BYTES;

const DOMAIN: &[u8] = b"sealift v1 sealed block";
const SALT_INFO: &[u8] = b"sealift v1 sealed block synthetic salt";
const CONTENT_INFO: &[u8] = b"sealift v1 sealed block content hash";
const RANDOM_BYTES: usize = SALT_BYTES + PREFIX_BYTES;
/// The first byte of a header says how long it is.
const HEADER_LENGTH: u8 = 40;
const _: () = assert!(HEADER_LENGTH as usize == HEADER_BYTES);

/// Seals and opens the blocks of one context under one data key. It can be used by many threads at once.
pub struct BlockSealer {
    key: DataKey,
    salt_key: Zeroizing<[u8; 32]>,
    content_key: Zeroizing<[u8; 32]>,
    context: Box<[u8]>,
    context_bytes: [u8; 4],
}

/// Sealed data was changed, or belongs to another key or place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed data was changed, or belongs to another key or place")]
pub struct NotAuthentic;

impl BlockSealer {
    /// What seals blocks of this context.
    ///
    /// # Panics
    /// If the context has more than [`CONTEXT_BYTES_MAX`].
    #[must_use]
    pub fn new(key: &DataKey, context: &[u8]) -> Self {
        Self {
            key: key.clone(),
            salt_key: key.expand(SALT_INFO),
            content_key: key.expand(CONTENT_INFO),
            context: context.into(),
            context_bytes: length(context),
        }
    }

    /// Seals a block in place: behind room for the header stands the content, and behind it room for the tag.
    /// Allocates nothing but the cipher's key.
    ///
    /// # Panics
    /// If the block is shorter than [`OVERHEAD`], or the label longer than [`CONTEXT_BYTES_MAX`].
    pub fn seal(&self, label: &[u8], block: &mut [u8]) {
        assert!(block.len() >= OVERHEAD, "a block has room for header and tag");
        let content = HEADER_BYTES..block.len() - TAG_BYTES;
        let random = self.synthetic(label, &block[content.clone()]);
        let tag = self.cipher(label, &random).seal(0, true, &mut block[content.clone()]);
        block[0] = HEADER_LENGTH;
        block[1..HEADER_BYTES].copy_from_slice(&random);
        block[content.end..].copy_from_slice(&tag);
    }

    /// Opens a block in place, and says where in it the content is.
    ///
    /// # Errors
    /// If it was not sealed under this key for this context and label. What it held is overwritten then.
    ///
    /// # Panics
    /// If the label is longer than [`CONTEXT_BYTES_MAX`].
    pub fn open(&self, label: &[u8], block: &mut [u8]) -> Result<Range<usize>, NotAuthentic> {
        if block.len() < OVERHEAD || block[0] != HEADER_LENGTH {
            return Err(NotAuthentic);
        }
        let content = HEADER_BYTES..block.len() - TAG_BYTES;
        let (header, tag) = (block.first_chunk::<HEADER_BYTES>(), block.last_chunk::<TAG_BYTES>());
        let (&header, &tag) = (header.ok_or(NotAuthentic)?, tag.ok_or(NotAuthentic)?);
        let random = header[1..].try_into().map_err(|_| NotAuthentic)?;
        self.cipher(label, random).open_in_place(0, true, &mut block[content.clone()], tag)?;
        Ok(content)
    }

    /// BLAKE3's keyed output over the content's keyed hash, context and label, and behind them their lengths, which makes it
    /// one to one. The content is hashed apart and at once, which is what BLAKE3 does with many lanes.
    fn synthetic(&self, label: &[u8], content: &[u8]) -> [u8; RANDOM_BYTES] {
        let hash = blake3::keyed_hash(&self.content_key, content);
        let mut hasher = blake3::Hasher::new_keyed(&self.salt_key);
        hasher.update(hash.as_bytes()).update(&self.context).update(label);
        hasher.update(&self.context_bytes).update(&length(label));
        let mut random = [0; RANDOM_BYTES];
        hasher.finalize_xof().fill(&mut random);
        random
    }

    fn cipher(&self, label: &[u8], random: &[u8; RANDOM_BYTES]) -> Cipher {
        let associated = [DOMAIN, &self.context_bytes, &self.context, &length(label), label];
        Cipher::new(&self.key, &associated, random)
    }
}

impl fmt::Debug for BlockSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockSealer")
    }
}

fn length(of: &[u8]) -> [u8; 4] {
    const { assert!(CONTEXT_BYTES_MAX == u32::MAX as usize) }
    u32::try_from(of.len()).expect("at most CONTEXT_BYTES_MAX").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;
    use proptest::prelude::*;

    fn sealer() -> BlockSealer {
        BlockSealer::new(&DataKey::from_bytes(&[7; 32]), b"context")
    }

    fn sealed(sealer: &BlockSealer, label: &[u8], content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; content.len() + OVERHEAD];
        block[HEADER_BYTES..HEADER_BYTES + content.len()].copy_from_slice(content);
        sealer.seal(label, &mut block);
        block
    }

    #[test]
    fn equal_content_at_an_equal_place_gives_equal_bytes_and_nothing_else_does() {
        let one = sealed(&sealer(), b"label", b"content");
        assert_eq!(one, sealed(&sealer(), b"label", b"content"));
        let other_context = BlockSealer::new(&DataKey::from_bytes(&[7; 32]), b"contextl");
        let other_key = BlockSealer::new(&DataKey::from_bytes(&[8; 32]), b"context");
        let others = [
            sealed(&sealer(), b"label", b"Content"),
            sealed(&sealer(), b"labe", b"content"),
            sealed(&sealer(), b"", b"content"),
            sealed(&other_context, b"abel", b"content"),
            sealed(&other_key, b"label", b"content"),
            // The bytes that are hashed are the same, but for their lengths.
            sealed(&BlockSealer::new(&DataKey::from_bytes(&[7; 32]), b"tcontext"), b"label", b"conten"),
        ];
        for other in others {
            assert_ne!(
                one[1..HEADER_BYTES],
                other[1..HEADER_BYTES],
                "a nonce is never used for two contents"
            );
        }
    }

    #[test]
    fn a_sealed_block_is_a_stream_of_one_segment() {
        let block = sealed(&sealer(), b"label", b"content");
        let mut associated = DOMAIN.to_vec();
        associated.extend_from_slice(&[7, 0, 0, 0]);
        associated.extend_from_slice(b"context");
        associated.extend_from_slice(&[5, 0, 0, 0]);
        associated.extend_from_slice(b"label");
        let stream = Stream::new(1 << 10).unwrap();
        let opened = stream.open_all(&DataKey::from_bytes(&[7; 32]), &associated, &block).unwrap();
        assert_eq!(&opened[..], b"content");
    }

    #[test]
    fn what_is_too_short_is_refused() {
        for bytes in 0..OVERHEAD {
            let mut block = vec![HEADER_LENGTH; bytes];
            assert_eq!(sealer().open(b"", &mut block), Err(NotAuthentic));
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_what_was_changed_does_not(
            content in prop::collection::vec(any::<u8>(), 0..300),
            label in prop::collection::vec(any::<u8>(), 0..20),
            bit in any::<prop::sample::Index>(),
        ) {
            let sealer = sealer();
            let block = sealed(&sealer, &label, &content);
            let mut opened = block.clone();
            let range = sealer.open(&label, &mut opened).unwrap();
            prop_assert_eq!(&opened[range], &content[..]);

            let mut changed = block.clone();
            let bit = bit.index(block.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(sealer.open(&label, &mut changed), Err(NotAuthentic));
            let mut elsewhere = block.clone();
            let other = BlockSealer::new(&DataKey::from_bytes(&[7; 32]), b"other");
            prop_assert_eq!(other.open(&label, &mut elsewhere), Err(NotAuthentic));
            let mut short = block[..block.len() - 1].to_vec();
            prop_assert_eq!(sealer.open(&label, &mut short), Err(NotAuthentic));
        }
    }
}
