//! Sealed jobs: content and names are sealed at the source, and whoever receives keeps ciphertext (`docs/sealed.md`).
//!
//! [`SourceSeal`] is the sealing side, [`ReplicaSeal`] the opening one. What is sealed is bound to the job, the entry and the
//! block's place, so that nothing can be put elsewhere.

mod keys;

pub use keys::{KeyFile, Passphrase};
pub(crate) use keys::{data_key, envelope, read_pem, read_private, read_public};

use sealift_envelope::block::OVERHEAD;
use sealift_envelope::{BlockSealer, DataKey, Envelope, EnvelopeError, OwnerId, PrivateKek};
use sealift_proto::block::BlockIndex;
use sealift_proto::keys::JobId;
use sealift_proto::manifest::sealed::{BLOCK_OVERHEAD_BYTES, NAME_BYTES, SealedName};
use std::ops::Range;

/// Bytes before a block's plaintext, and behind it.
const HEADER_BYTES: usize = 40;
const TAG_BYTES: usize = 16;
const _: () = assert!(OVERHEAD == HEADER_BYTES + TAG_BYTES && OVERHEAD as u64 == BLOCK_OVERHEAD_BYTES);

/// What names are made by.
const NAMES: &[u8] = b"sealift v1 sealed names";
/// What content is sealed by.
const CONTENT: &[u8] = b"sealift v1 sealed content";

/// What names a way of sealing.
const VARIANT: &[u8] = b"sealift v1 sealed variant";

/// Names and blocks of one job, under its data key.
struct Cipher {
    sealer: BlockSealer,
    names: DataKey,
}

impl Cipher {
    fn new(key: &DataKey, job: JobId) -> Self {
        let content = key.derive(&[CONTENT, &job.0]);
        Self { sealer: BlockSealer::new(&content, &job.0), names: key.derive(&[NAMES, &job.0]) }
    }

    fn name(&self, path: &[u8]) -> SealedName {
        let name = self.names.derive(&[path]);
        SealedName(*name.as_bytes().first_chunk::<NAME_BYTES>().expect("20 of 32 bytes"))
    }
}

/// The entry, the block's place, and whether it is the last.
fn label(name: SealedName, block: BlockIndex, last: bool) -> [u8; NAME_BYTES + 5] {
    let mut label = [0; NAME_BYTES + 5];
    label[..NAME_BYTES].copy_from_slice(&name.0);
    label[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&block.0.to_le_bytes());
    label[NAME_BYTES + 4] = last.into();
    label
}

/// Seals what a source offers.
pub struct SourceSeal {
    cipher: Cipher,
    envelope: Vec<u8>,
    variant: [u8; 32],
}

impl SourceSeal {
    /// Seals under a data key, which is wrapped in this envelope.
    #[must_use]
    pub fn new(key: &DataKey, job: JobId, envelope: Vec<u8>) -> Self {
        Self { cipher: Cipher::new(key, job), envelope, variant: *key.derive(&[VARIANT, &job.0]).as_bytes() }
    }

    /// Tells one way of sealing from another.
    pub fn variant(&self) -> Vec<u8> {
        self.variant.to_vec()
    }

    /// The wrapped data key, as it is offered.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The name under which an entry is offered.
    pub fn name(&self, path: &[u8]) -> SealedName {
        self.cipher.name(path)
    }

    /// Where in a block its plaintext goes.
    pub fn plain_part(block: &mut [u8]) -> &mut [u8] {
        let end = block.len() - TAG_BYTES;
        &mut block[HEADER_BYTES..end]
    }

    /// Seals a block in its place.
    pub fn seal_block(&self, name: SealedName, index: BlockIndex, last: bool, block: &mut [u8]) {
        self.cipher.sealer.seal(&label(name, index, last), block);
    }
}

/// Opens what a keeper has.
pub struct ReplicaSeal {
    cipher: Cipher,
}

impl ReplicaSeal {
    /// Unwraps a job's data key.
    ///
    /// # Errors
    /// If the envelope is of another job, or not for this key, or was changed.
    pub fn open(envelope: &Envelope, job: JobId, kek: &PrivateKek) -> Result<Self, EnvelopeError> {
        let key = envelope.open_for(OwnerId(job.0), kek)?;
        Ok(Self { cipher: Cipher::new(&key, job) })
    }

    /// The name under which an entry must be.
    pub fn name(&self, path: &[u8]) -> SealedName {
        self.cipher.name(path)
    }

    /// Opens a block in its place, and says where in it the plaintext is; `None` if it is not what was sealed there.
    pub fn open_block(
        &self,
        name: SealedName,
        index: BlockIndex,
        last: bool,
        block: &mut [u8],
    ) -> Option<Range<usize>> {
        self.cipher.sealer.open(&label(name, index, last), block).ok()
    }
}
