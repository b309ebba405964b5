//! Plaintext to records.

use super::format::{HEADER_BYTES, OVERHEAD, PLAINTEXT_MAX, header};
use super::key::TrafficKey;
use std::io::IoSlice;

/// Records that every key has left for what must still be sent under it: the news of the next key, and an alert.
const SPARE_RECORDS: u64 = 2;

/// Seals what is sent.
pub(crate) struct Sealer {
    key: TrafficKey,
    limit: u64,
}

impl Sealer {
    /// Seals with a key, and is worn when near `limit` records.
    pub(crate) fn new(key: TrafficKey, limit: u64) -> Self {
        Self { key, limit: limit.max(SPARE_RECORDS + 1) }
    }

    /// Whether data must wait for the next key.
    pub(crate) const fn is_worn(&self) -> bool {
        self.key.sequence() >= self.limit - SPARE_RECORDS
    }

    #[cfg(test)]
    pub(crate) fn limit_to(&mut self, records: u64) -> u64 {
        self.limit = records;
        self.key.sequence()
    }

    /// Goes on with another key.
    pub(crate) fn rekey(&mut self, key: TrafficKey) {
        self.key = key;
    }

    /// Writes a record with this content to the front of `out`, and says how long it is.
    ///
    /// # Panics
    /// If the content is longer than a record's or `out` is too short.
    pub(crate) fn seal(&mut self, kind: u8, plaintext: &[u8], out: &mut [u8]) -> usize {
        let (header, text, tail) = layout(plaintext.len(), out);
        self.key.seal(header, plaintext, kind, text, tail);
        OVERHEAD + plaintext.len()
    }

    /// The same with content from several places, the first `length` bytes of them, which are copied together.
    pub(crate) fn seal_gathered(
        &mut self,
        kind: u8,
        places: &[IoSlice<'_>],
        skip: usize,
        length: usize,
        out: &mut [u8],
    ) -> usize {
        let (header, text, tail) = layout(length, out);
        let (mut skip, mut rest) = (skip, &mut *text);
        for place in places {
            let place = &place[skip.min(place.len())..];
            let taken = place.len().min(rest.len());
            let (here, after) = rest.split_at_mut(taken);
            here.copy_from_slice(&place[..taken]);
            (skip, rest) = (0, after);
        }
        debug_assert!(rest.is_empty(), "the places hold as much");
        self.key.seal_in_place(header, text, kind, tail);
        OVERHEAD + length
    }
}

/// Divides the place of a record into its header, which is written, its text, and its type and tag.
fn layout(length: usize, out: &mut [u8]) -> (&[u8; HEADER_BYTES], &mut [u8], &mut [u8]) {
    assert!(length <= PLAINTEXT_MAX, "a record holds no more");
    let (record, _) = out.split_at_mut(OVERHEAD + length);
    let (head, body) = record.split_first_chunk_mut().expect("the overhead has the header");
    *head = header(body.len());
    let (text, tail) = body.split_at_mut(length);
    (head, text, tail)
}
