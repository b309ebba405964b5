//! The reading side of a session without its socket: records out of a buffer into the reader's.

use super::alert::Violation;
use super::format::{HEADER_BYTES, TAG_BYTES, body_bytes};
use super::key::TrafficKey;
use super::messages::KeyUpdate;
use super::opener::{Opened, Opener};
use super::received::Received;
use rustls::Error;
use std::ops::Range;

/// How far reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many bytes were read: at least one.
    Read(usize),
    /// Nothing, until more comes from the socket.
    Blocked,
    /// Nothing ever: the peer has said so.
    End,
}

/// Records that came, and what was opened of them and not read yet.
pub(crate) struct Incoming {
    opener: Opener,
    received: Received,
    /// Plaintext within what was received, of a record that the reader's buffer had no room for.
    opened: Range<usize>,
    end: Option<Result<(), Violation>>,
}

impl Incoming {
    /// Reads with an opener, beginning with what came after the handshake.
    pub(crate) const fn new(opener: Opener, received: Received) -> Self {
        Self { opener, received, opened: 0..0, end: None }
    }

    /// Reads into `place`, as much as there is. `next_key` gives the peer's next key whenever it announces one.
    ///
    /// Bytes of `place` beyond those read may be overwritten.
    ///
    /// # Errors
    /// If the peer broke the protocol or says that we did; again and again.
    pub(crate) fn read(
        &mut self,
        place: &mut [u8],
        mut next_key: impl FnMut(KeyUpdate) -> Result<TrafficKey, Error>,
    ) -> Result<Progress, Violation> {
        let mut read = self.read_opened(place);
        while read < place.len() && self.end.is_none() {
            match self.open_next(&mut place[read..], &mut next_key) {
                Ok(Some(count)) => read += count,
                Ok(None) => break,
                Err(violation) => self.end = Some(Err(violation)),
            }
        }
        match &self.end {
            _ if read > 0 => Ok(Progress::Read(read)),
            None => Ok(Progress::Blocked),
            Some(Ok(())) => Ok(Progress::End),
            Some(Err(violation)) => Err(violation.clone()),
        }
    }

    /// More than can be read now, at the least: how much of a place is worth preparing.
    pub(crate) const fn readable_max(&self) -> usize {
        self.opened.end - self.opened.start + self.received.len()
    }

    /// Where the socket's bytes go, once reading is blocked; tell [`Self::put`] how many they were.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.opened.is_empty(), "what was opened is read first");
        self.received.room()
    }

    /// So many bytes came.
    pub(crate) fn put(&mut self, count: usize) {
        self.received.put(count);
    }

    fn read_opened(&mut self, place: &mut [u8]) -> usize {
        let count = self.opened.len().min(place.len());
        if count > 0 {
            let from = self.opened.start;
            place[..count].copy_from_slice(self.received.at(from..from + count));
            self.opened.start += count;
        }
        count
    }

    /// Opens the next record, if it is all there, and says how many bytes of it are in `place`.
    fn open_next(
        &mut self,
        place: &mut [u8],
        next_key: &mut impl FnMut(KeyUpdate) -> Result<TrafficKey, Error>,
    ) -> Result<Option<usize>, Violation> {
        let Some(&header) = self.received.filled().first_chunk() else { return Ok(None) };
        let length = HEADER_BYTES + body_bytes(header)?;
        let Some(record) = self.received.filled_mut().get_mut(..length) else { return Ok(None) };
        let content = length - HEADER_BYTES - TAG_BYTES;
        let direct = place.get_mut(..content);
        let in_place = direct.is_none();
        let opened = match direct {
            Some(place) => self.opener.open(record, place),
            None => self.opener.open_in_place(record),
        }?;
        let record = self.received.consume(length);
        match opened {
            Opened::Data(bytes) if in_place => {
                let start = record.start + HEADER_BYTES;
                self.opened = start..start + bytes;
                return Ok(Some(self.read_opened(place)));
            }
            Opened::Data(bytes) => return Ok(Some(bytes)),
            Opened::KeyUpdate(update) => self.opener.rekey(next_key(update)?),
            Opened::End => self.end = Some(Ok(())),
            Opened::Nothing => {}
        }
        Ok(Some(0))
    }
}
