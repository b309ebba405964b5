//! Content in segments: AES-GCM-HKDF streaming as Google's Tink publishes it ("AES256_GCM_HKDF", with HKDF-SHA256), after
//! Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance".
//!
//! A header has a salt and seven bytes of nonce; the key of the content follows from the data key, the salt and the
//! associated data. A segment's nonce ends in its number and in whether it is the last: each can be opened alone, and a
//! stream that was cut off, put in another order or made longer shows.

use crate::key::DataKey;
use crate::limits::{MOVES_TRIED_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX};
use crate::{NoRandomness, NotAuthentic};
use crypto_simd::aead::{Nonce, SealingKey, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes of the header: its length, the salt, the nonce's prefix.
pub const HEADER_BYTES: usize = 1 + SALT_BYTES + PREFIX_BYTES;
/// Bytes of the tag at the end of each segment.
pub const TAG_BYTES: usize = crypto_simd::aead::TAG_BYTES;

pub(crate) const SALT_BYTES: usize = 32;
pub(crate) const PREFIX_BYTES: usize = 7;

/// How long the segments of a stream are: both sides have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    segment_bytes: usize,
}

/// Opens segments of one stream, in any order.
pub struct Opener {
    cipher: Cipher,
    layout: Layout,
}

/// Why a stream, or a segment of it, does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It begins otherwise than a stream does.
    #[error("this is no sealed stream: its header is not one")]
    Header,
    /// It ends where none can end, or a segment was given that is not as long as it must be.
    #[error("the sealed stream is cut off within a segment")]
    Short,
    /// It is longer than any can be.
    #[error("the sealed stream is longer than a stream can be")]
    Long,
    /// What is there is right, and its end is missing.
    #[error("the sealed stream is cut off after segment {after}: its end is missing")]
    Truncated {
        /// The last segment that is there.
        after: u32,
    },
    /// Something was put behind its end.
    #[error("the sealed stream goes on behind its end, which is segment {end}")]
    Extended {
        /// The segment that was sealed as the last.
        end: u32,
    },
    /// A segment stands where another one was.
    #[error("segments of the sealed stream are in another order: {at} is where {is} was")]
    Moved {
        /// Where it stands.
        at: u32,
        /// Where it was sealed.
        is: u32,
    },
    /// There is no such segment.
    #[error("the sealed stream has no segment {0}")]
    NoSegment(u32),
    /// Another key, other associated data, or bytes that were changed or cut off.
    #[error("segment {0} of the sealed stream was changed or cut off, or belongs to another key or place")]
    NotAuthentic(u32),
}

impl Stream {
    /// Streams of segments of so many bytes, tags and header included; none if that is out of bounds.
    #[must_use]
    pub const fn new(segment_bytes: usize) -> Option<Self> {
        if segment_bytes < SEGMENT_BYTES_MIN || segment_bytes > SEGMENT_BYTES_MAX {
            return None;
        }
        Some(Self { segment_bytes })
    }

    /// Seals content under a salt of its own.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    ///
    /// # Panics
    /// If the content has more than [`SEGMENTS_MAX`] segments.
    pub fn seal(&self, key: &DataKey, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let mut random = [0; SALT_BYTES + PREFIX_BYTES];
        getrandom::fill(&mut random).map_err(|_| NoRandomness)?;
        Ok(self.seal_salted(&AES256_SHA256, key.as_bytes(), associated, &random, plaintext))
    }

    /// Seals under a salt and a prefix that were never used with the key and the associated data.
    fn seal_salted(
        &self,
        kind: &Kind,
        key: &[u8],
        associated: &[u8],
        random: &[u8],
        plaintext: &[u8],
    ) -> Vec<u8> {
        let header_bytes = kind.header_bytes();
        let mut sealed = Vec::with_capacity(header_bytes + plaintext.len() + TAG_BYTES);
        sealed.push(u8::try_from(header_bytes).expect("40 at most"));
        sealed.extend_from_slice(random);
        let cipher = kind.cipher(key, &[associated], random);
        let first = self.segment_bytes - header_bytes - TAG_BYTES;
        let (mut rest, mut room, mut number) = (plaintext, first, 0_u32);
        loop {
            let is_last = rest.len() <= room;
            let (now, later) = rest.split_at(room.min(rest.len()));
            let at = sealed.len();
            sealed.extend_from_slice(now);
            let tag = cipher.seal(number, is_last, &mut sealed[at..]);
            sealed.extend_from_slice(&tag);
            if is_last {
                return sealed;
            }
            (rest, room) = (later, self.segment_bytes - TAG_BYTES);
            number = number.checked_add(1).expect("at most SEGMENTS_MAX segments");
        }
    }

    /// What opens a stream of so many bytes that begins with this header.
    ///
    /// # Errors
    /// If no stream begins like this or has such a length. Nothing is authenticated yet.
    pub fn opener(
        &self,
        key: &DataKey,
        associated: &[u8],
        header: &[u8; HEADER_BYTES],
        sealed_bytes: u64,
    ) -> Result<Opener, StreamError> {
        self.opener_of(&AES256_SHA256, key.as_bytes(), associated, header, sealed_bytes)
    }

    fn opener_of(
        &self,
        kind: &Kind,
        key: &[u8],
        associated: &[u8],
        header: &[u8],
        sealed_bytes: u64,
    ) -> Result<Opener, StreamError> {
        if usize::from(header[0]) != kind.header_bytes() {
            return Err(StreamError::Header);
        }
        let layout = Layout::new(kind.header_bytes(), self.segment_bytes, sealed_bytes)?;
        Ok(Opener { cipher: kind.cipher(key, &[associated], &header[1..]), layout })
    }

    /// Opens a whole stream.
    ///
    /// # Errors
    /// See [`StreamError`]; nothing of it is given out then.
    pub fn open_all(
        &self,
        key: &DataKey,
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StreamError> {
        self.open_all_of(&AES256_SHA256, key.as_bytes(), associated, sealed)
    }

    fn open_all_of(
        &self,
        kind: &Kind,
        key: &[u8],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StreamError> {
        let header = sealed.get(..kind.header_bytes()).ok_or(StreamError::Short)?;
        let sealed_bytes = u64::try_from(sealed.len()).map_err(|_| StreamError::Long)?;
        let opener = self.opener_of(kind, key, associated, header, sealed_bytes)?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len()));
        for number in 0..=opener.layout.last {
            let range = opener.layout.range(number).ok_or(StreamError::NoSegment(number))?;
            let range = within(&range).ok_or(StreamError::Long)?;
            plaintext.extend_from_slice(&opener.open(number, &sealed[range])?);
        }
        Ok(plaintext)
    }
}

/// A range of what is in memory.
fn within(range: &Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

impl Opener {
    /// The number of the last segment; the first is 0.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.layout.last
    }

    /// Where a segment stands in the stream, its tag included and the header not; none if there is no such segment.
    #[must_use]
    pub fn range(&self, number: u32) -> Option<Range<u64>> {
        self.layout.range(number)
    }

    /// Opens the segment of this number.
    ///
    /// # Errors
    /// See [`StreamError`]; the reason is told as well as the segment alone shows it.
    pub fn open(&self, number: u32, segment: &[u8]) -> Result<Zeroizing<Vec<u8>>, StreamError> {
        let range = self.layout.range(number).ok_or(StreamError::NoSegment(number))?;
        if u64::try_from(segment.len()) != Ok(range.end - range.start) {
            return Err(StreamError::Short);
        }
        let is_last = number == self.layout.last;
        match self.cipher.open(number, is_last, segment) {
            Ok(plaintext) => Ok(plaintext),
            Err(NotAuthentic) => Err(self.diagnose(number, is_last, segment)),
        }
    }

    /// Why a segment does not open: only who has the key can have sealed it for where it was.
    fn diagnose(&self, number: u32, is_last: bool, segment: &[u8]) -> StreamError {
        let fits = |number, is_last| self.cipher.open(number, is_last, segment).is_ok();
        if fits(number, !is_last) {
            return match is_last {
                true => StreamError::Truncated { after: number },
                false => StreamError::Extended { end: number },
            };
        }
        let tried = number.saturating_sub(MOVES_TRIED_MAX / 2)..=number.saturating_add(MOVES_TRIED_MAX / 2);
        match tried.filter(|&is| is != number).find(|&is| fits(is, false) || fits(is, true)) {
            Some(is) => StreamError::Moved { at: number, is },
            None => StreamError::NotAuthentic(number),
        }
    }
}

/// Where segments stand.
struct Layout {
    header_bytes: u64,
    segment_bytes: u64,
    sealed_bytes: u64,
    last: u32,
}

impl Layout {
    fn new(header_bytes: usize, segment_bytes: usize, sealed_bytes: u64) -> Result<Self, StreamError> {
        let wide = |bytes: usize| u64::try_from(bytes).map_err(|_| StreamError::Long);
        let (header_bytes, segment_bytes, tag_bytes) =
            (wide(header_bytes)?, wide(segment_bytes)?, wide(TAG_BYTES)?);
        // The first segment is counted with the header, so that all are of one length.
        if sealed_bytes < header_bytes + tag_bytes {
            return Err(StreamError::Short);
        }
        let segments = sealed_bytes.div_ceil(segment_bytes);
        if segments > SEGMENTS_MAX {
            return Err(StreamError::Long);
        }
        let last = u32::try_from(segments - 1).map_err(|_| StreamError::Long)?;
        let least = if last == 0 { header_bytes + tag_bytes } else { tag_bytes + 1 };
        if sealed_bytes - u64::from(last) * segment_bytes < least {
            return Err(StreamError::Short);
        }
        Ok(Self { header_bytes, segment_bytes, sealed_bytes, last })
    }

    fn range(&self, number: u32) -> Option<Range<u64>> {
        let begin = u64::from(number) * self.segment_bytes;
        let end = (begin + self.segment_bytes).min(self.sealed_bytes);
        let begin = if number == 0 { self.header_bytes } else { begin };
        (number <= self.last).then_some(begin..end)
    }
}

/// The construction's parameters. Sealift uses one set; others are there for the vectors that Tink publishes.
struct Kind {
    key_bytes: usize,
    derive: Derive,
}

/// HKDF: key, salt, info, and where to.
type Derive = fn(&[u8], &[u8], &[&[u8]], &mut [u8]);

const AES256_SHA256: Kind = Kind { key_bytes: SALT_BYTES, derive: hkdf_sha256 };

fn hkdf_sha256(key: &[u8], salt: &[u8], info: &[&[u8]], derived: &mut [u8]) {
    Hkdf::<Sha256>::new(Some(salt), key).expand_multi_info(info, derived).expect("one block of output");
}

impl Kind {
    /// The salt is as long as the derived key.
    fn header_bytes(&self) -> usize {
        1 + self.key_bytes + PREFIX_BYTES
    }

    fn cipher(&self, key: &[u8], associated: &[&[u8]], random: &[u8]) -> Cipher {
        let (salt, prefix) = random.split_at(self.key_bytes);
        let mut derived = Zeroizing::new([0; SALT_BYTES]);
        (self.derive)(key, salt, associated, &mut derived[..self.key_bytes]);
        let key = match <&[u8; 16]>::try_from(&derived[..self.key_bytes]) {
            Ok(short) => SealingKey::aes_128_gcm(short),
            Err(_) => SealingKey::aes_256_gcm(&derived),
        };
        Cipher { key, prefix: prefix.try_into().expect("a header's rest is the prefix") }
    }
}

/// The key and the nonces of one stream.
pub(crate) struct Cipher {
    key: SealingKey,
    prefix: [u8; PREFIX_BYTES],
}

impl Cipher {
    /// That of a header, without the byte of its length. The associated data is the parts, one after the other.
    pub(crate) fn new(key: &DataKey, associated: &[&[u8]], random: &[u8; SALT_BYTES + PREFIX_BYTES]) -> Self {
        AES256_SHA256.cipher(key.as_bytes(), associated, random)
    }

    fn nonce(&self, number: u32, is_last: bool) -> Nonce {
        let mut nonce = [0; PREFIX_BYTES + 5];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&number.to_be_bytes());
        nonce[PREFIX_BYTES + 4] = u8::from(is_last);
        Nonce(nonce)
    }

    pub(crate) fn seal(&self, number: u32, is_last: bool, data: &mut [u8]) -> [u8; TAG_BYTES] {
        self.key.seal_in_place(self.nonce(number, is_last), &[], data).0
    }

    pub(crate) fn open_in_place(
        &self,
        number: u32,
        is_last: bool,
        data: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), NotAuthentic> {
        self.key.open_in_place(self.nonce(number, is_last), &[], data, &Tag(tag)).map_err(|_| NotAuthentic)
    }

    fn open(&self, number: u32, is_last: bool, segment: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let (ciphertext, tag) = segment.split_last_chunk().ok_or(NotAuthentic)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        self.open_in_place(number, is_last, &mut plaintext, *tag)?;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests;
