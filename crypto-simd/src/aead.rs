//! Bulk sealing: AES-128-GCM and AES-256-GCM (NIST SP 800-38D) with 96-bit nonces and detached 128-bit tags.
//!
//! Owns the one place where bulk data meets an AEAD. The work is done by AWS-LC, which uses the widest AES and
//! carry-less multiplication the CPU has and compares tags in constant time. Sealing from one buffer into another
//! encrypts and copies in one pass over the data. Never makes nonces: who owns a key must never use one twice.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, UnboundKey};

/// Bytes in a nonce.
pub const NONCE_BYTES: usize = 12;

/// Bytes in a tag.
pub const TAG_BYTES: usize = 16;

/// The most bytes that one nonce can seal: GCM's counter has 32 bits and spends two values on other things.
pub const MAX_MESSAGE_BYTES: u64 = 16 * ((1 << 32) - 2);

/// A number used once with a key. Two messages sealed with the same one reveal both and the means to forge more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

/// Proof that data was sealed with the key. Not comparable, because that takes a constant time that `==` does not
/// promise: opening compares it.
#[derive(Clone, Copy, Debug)]
pub struct Tag(pub [u8; TAG_BYTES]);

/// The data, the associated data, the nonce, the tag and the key do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAuthentic;

impl std::fmt::Display for NotAuthentic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sealed data is not authentic")
    }
}

impl std::error::Error for NotAuthentic {}

/// A key, expanded once for many messages.
///
/// AWS-LC holds it in memory of its own, which it overwrites before it frees it; the bytes that it was made from are
/// the caller's to overwrite.
pub struct SealingKey(LessSafeKey);

impl SealingKey {
    /// A key for AES-128-GCM.
    #[must_use]
    pub fn aes_128_gcm(key: &[u8; 16]) -> Self {
        Self::new(&AES_128_GCM, key)
    }

    /// A key for AES-256-GCM.
    #[must_use]
    pub fn aes_256_gcm(key: &[u8; 32]) -> Self {
        Self::new(&AES_256_GCM, key)
    }

    fn new(algorithm: &'static Algorithm, key: &[u8]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of the algorithm's length")))
    }

    /// Replaces `data` by its ciphertext. `associated` is authenticated too, but not encrypted.
    ///
    /// # Panics
    /// If `data` is longer than [`MAX_MESSAGE_BYTES`].
    #[must_use = "without its tag the data cannot be opened"]
    pub fn seal_in_place(&self, nonce: Nonce, associated: &[u8], data: &mut [u8]) -> Tag {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce.into(), Aad::from(associated), data)
            .expect("at most MAX_MESSAGE_BYTES");
        Tag(tag.as_ref().try_into().expect("GCM's whole tag"))
    }

    /// Writes the ciphertext of `plaintext` to `ciphertext`, in one pass.
    ///
    /// # Panics
    /// If the two differ in length or are longer than [`MAX_MESSAGE_BYTES`].
    #[must_use = "without its tag the data cannot be opened"]
    pub fn seal(&self, nonce: Nonce, associated: &[u8], plaintext: &[u8], ciphertext: &mut [u8]) -> Tag {
        assert_eq!(plaintext.len(), ciphertext.len(), "a ciphertext is as long as its plaintext");
        let mut tag = [0; TAG_BYTES];
        self.0
            .seal_out_of_place_scatter(
                nonce.into(),
                Aad::from(associated),
                plaintext,
                ciphertext,
                &[],
                &mut tag,
            )
            .expect("at most MAX_MESSAGE_BYTES");
        Tag(tag)
    }

    /// Replaces the ciphertext in `data` by its plaintext.
    ///
    /// # Errors
    /// If it is not authentic; then `data` is overwritten with zeros.
    pub fn open_in_place(
        &self,
        nonce: Nonce,
        associated: &[u8],
        data: &mut [u8],
        tag: &Tag,
    ) -> Result<(), NotAuthentic> {
        let opened =
            self.0.open_in_place_separate_tag(nonce.into(), Aad::from(associated), &tag.0, data).map(|_| ());
        opened.map_err(|_| {
            data.fill(0);
            NotAuthentic
        })
    }

    /// Writes the plaintext of `ciphertext` to `plaintext`, in one pass.
    ///
    /// # Panics
    /// If the two differ in length.
    ///
    /// # Errors
    /// If it is not authentic; then `plaintext` is overwritten with zeros.
    pub fn open(
        &self,
        nonce: Nonce,
        associated: &[u8],
        ciphertext: &[u8],
        tag: &Tag,
        plaintext: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        assert_eq!(ciphertext.len(), plaintext.len(), "a plaintext is as long as its ciphertext");
        let opened =
            self.0.open_separate_gather(nonce.into(), Aad::from(associated), ciphertext, &tag.0, plaintext);
        opened.map_err(|_| {
            plaintext.fill(0);
            NotAuthentic
        })
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKey({:?})", self.0.algorithm())
    }
}

impl From<Nonce> for aws_lc_rs::aead::Nonce {
    fn from(nonce: Nonce) -> Self {
        Self::assume_unique_for_key(nonce.0)
    }
}
