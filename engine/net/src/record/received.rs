//! What has come from the socket and is not used up.

use super::format::{BODY_MAX, HEADER_BYTES};
use std::ops::Range;

/// Asked of the socket at a time.
const READ_BYTES: usize = 256 << 10;
/// Room for that behind what is left over, which is less than one record.
const CAPACITY: usize = READ_BYTES + HEADER_BYTES + BODY_MAX;

/// A buffer that is filled at its end and used up from its front.
pub(crate) struct Received {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Received {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What there is.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What there is, to be decrypted where it stands.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How much there is.
    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// The first bytes are used up. They stay at this place until room is made.
    pub(crate) fn consume(&mut self, count: usize) -> Range<usize> {
        assert!(count <= self.len(), "what was not there is not used up");
        self.start += count;
        self.start - count..self.start
    }

    /// What is at a place.
    pub(crate) fn at(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Where more may be put; empty only when a whole buffer is left over. What is left over moves to the front.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were put there.
    pub(crate) fn put(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "no more than there was room for");
        self.end += count;
    }
}
