//! One direction's key: its cipher, its nonces, and the one after it.

use super::alert::Violation;
use super::format::{HEADER_BYTES, TAG_BYTES};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::kernel::KernelConnection;
use rustls::{ConnectionTrafficSecrets, Error};
use zeroize::Zeroizing;

/// Derives the keys that follow.
pub(crate) trait NextKeys: Send {
    /// The next key of what is sent.
    fn next_outgoing(&mut self) -> Result<TrafficKey, Error>;
    /// The next key of what is received.
    fn next_incoming(&mut self) -> Result<TrafficKey, Error>;
}

impl<Data> NextKeys for KernelConnection<Data>
where
    Self: Send,
{
    fn next_outgoing(&mut self) -> Result<TrafficKey, Error> {
        TrafficKey::new(self.update_tx_secret()?)
    }

    fn next_incoming(&mut self) -> Result<TrafficKey, Error> {
        TrafficKey::new(self.update_rx_secret()?)
    }
}

/// A key and the number of the record that is next under it.
///
/// AWS-LC overwrites its copy of the key when it frees it, rustls its own; the rest is overwritten here.
pub(crate) struct TrafficKey {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl TrafficKey {
    /// The key rustls agreed on.
    pub(crate) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(Error::General("a cipher was negotiated that was not offered".to_owned())),
        };
        let iv = iv.as_ref().try_into().map_err(|_| bad_secrets())?;
        Self::from_parts(algorithm, key.as_ref(), iv, sequence)
    }

    pub(super) fn from_parts(
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: [u8; NONCE_LEN],
        sequence: u64,
    ) -> Result<Self, Error> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| bad_secrets())?;
        Ok(Self { key: LessSafeKey::new(key), iv: Zeroizing::new(iv), sequence })
    }

    /// Records that went by under this key, in its direction.
    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The nonce of the next record: each number is used once.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        // Writing a key is given up long before, and a peer would need aeons.
        self.sequence = self.sequence.checked_add(1).expect("fewer than 2^64 records");
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts `plaintext` into `ciphertext` of the same length, and its type and the tag into `tail`.
    pub(super) fn seal(
        &mut self,
        header: &[u8; HEADER_BYTES],
        plaintext: &[u8],
        kind: u8,
        ciphertext: &mut [u8],
        tail: &mut [u8],
    ) {
        let nonce = self.next_nonce();
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), plaintext, ciphertext, &[kind], tail)
            .expect("a record is within the cipher's limit");
    }

    /// The same, where the plaintext stands already.
    pub(super) fn seal_in_place(
        &mut self,
        header: &[u8; HEADER_BYTES],
        text: &mut [u8],
        kind: u8,
        tail: &mut [u8],
    ) {
        let nonce = self.next_nonce();
        self.key
            .seal_in_place_scatter(nonce, Aad::from(header), text, &[kind], tail)
            .expect("a record is within the cipher's limit");
    }

    /// Decrypts a body without its tag into `content` of the same length; zeros if it is not authentic.
    pub(super) fn open(
        &mut self,
        header: &[u8; HEADER_BYTES],
        body: &[u8],
        content: &mut [u8],
    ) -> Result<(), Violation> {
        let (ciphertext, tag) = body.split_at(body.len() - TAG_BYTES);
        let nonce = self.next_nonce();
        self.key.open_separate_gather(nonce, Aad::from(header), ciphertext, tag, content).map_err(|_| {
            content.fill(0);
            Violation::forged()
        })
    }

    /// The same, over the ciphertext.
    pub(super) fn open_in_place(
        &mut self,
        header: &[u8; HEADER_BYTES],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Violation> {
        let nonce = self.next_nonce();
        self.key
            .open_in_place_separate_tag(nonce, Aad::from(header), tag, text)
            .map(|_| ())
            .map_err(|_| Violation::forged())
    }
}

fn bad_secrets() -> Error {
    Error::General("the secrets do not fit the cipher".to_owned())
}
