//! The writing side of a session without its socket: the writer's bytes into records in a buffer.

use super::alert::{Violation, content};
use super::format::{ALERT, APPLICATION_DATA, HANDSHAKE, OVERHEAD, PLAINTEXT_MAX};
use super::key::{NextKeys, TrafficKey};
use super::messages::KeyUpdate;
use super::sealer::Sealer;
use rustls::{AlertDescription, Error};
use std::io::IoSlice;

/// Full records that are sealed before the socket is asked to take them.
const BATCH_RECORDS: usize = 16;
/// What the news of a key takes, with its record.
const KEY_UPDATE_BYTES: usize = OVERHEAD + 5;
/// And an alert, of which there is one.
const ALERT_BYTES: usize = OVERHEAD + 2;
const CAPACITY: usize = BATCH_RECORDS * (OVERHEAD + PLAINTEXT_MAX) + KEY_UPDATE_BYTES + ALERT_BYTES;

/// Whether more may be written.
enum State {
    Open,
    Closed,
    Failed(Error),
}

/// Records on their way to the socket.
pub(crate) struct Outgoing {
    sealer: Sealer,
    keys: Box<dyn NextKeys>,
    buffer: Box<[u8]>,
    sent: usize,
    end: usize,
    answer_due: bool,
    state: State,
}

impl Outgoing {
    /// Writes with a sealer; both directions' next keys come from `keys`.
    pub(crate) fn new(sealer: Sealer, keys: Box<dyn NextKeys>) -> Self {
        let buffer = vec![0; CAPACITY].into_boxed_slice();
        Self { sealer, keys, buffer, sent: 0, end: 0, answer_due: false, state: State::Open }
    }

    /// What the socket has not taken yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.sent..self.end]
    }

    /// The socket took so many bytes.
    pub(crate) fn took(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.end, "no more than was pending");
        if self.sent == self.end {
            (self.sent, self.end) = (0, 0);
        }
    }

    /// Why nothing more may be written, if so: `Ok` after an orderly end.
    pub(crate) const fn ended(&self) -> Option<Result<(), &Error>> {
        match &self.state {
            State::Open => None,
            State::Closed => Some(Ok(())),
            State::Failed(error) => Some(Err(error)),
        }
    }

    /// Seals a batch of the bytes and says how many those were: all of them, or what there was room for.
    ///
    /// # Errors
    /// If there is no next key.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut written = 0;
        while written < bytes.len() && self.prepare()? {
            let part = &bytes[written..bytes.len().min(written + PLAINTEXT_MAX)];
            self.end += self.sealer.seal(APPLICATION_DATA, part, &mut self.buffer[self.end..]);
            written += part.len();
        }
        Ok(written)
    }

    /// The same with bytes from several places. Full records, and those within one place, are not copied together.
    ///
    /// # Errors
    /// If there is no next key.
    pub(crate) fn write_gathered(&mut self, places: &[IoSlice<'_>]) -> Result<usize, Error> {
        let (mut written, mut skip, mut places) = (0, 0, places);
        while let [first, rest @ ..] = places {
            if skip == first.len() {
                (skip, places) = (0, rest);
                continue;
            }
            if !self.prepare()? {
                break;
            }
            let here = &first[skip..];
            let out = &mut self.buffer[self.end..];
            if here.len() >= PLAINTEXT_MAX || rest.iter().all(|place| place.is_empty()) {
                let part = &here[..here.len().min(PLAINTEXT_MAX)];
                self.end += self.sealer.seal(APPLICATION_DATA, part, out);
                (written, skip) = (written + part.len(), skip + part.len());
                continue;
            }
            let all = places.iter().map(|place| place.len()).sum::<usize>() - skip;
            let length = all.min(PLAINTEXT_MAX);
            self.end += self.sealer.seal_gathered(APPLICATION_DATA, places, skip, length, out);
            written += length;
            skip += length;
            while let [first, rest @ ..] = places
                && skip > first.len()
            {
                (skip, places) = (skip - first.len(), rest);
            }
        }
        Ok(written)
    }

    /// Says that nothing more will be written, unless that was said, or the session failed.
    pub(crate) fn close(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closed;
            self.alert(AlertDescription::CloseNotify);
        }
    }

    /// Ends the session: what the peer has to be told of it is pending then.
    pub(crate) fn fail(&mut self, violation: &Violation) {
        if matches!(self.state, State::Open)
            && let Some(alert) = violation.alert
        {
            self.alert(alert);
        }
        self.state = State::Failed(violation.error.clone());
    }

    /// The peer's next key. If it asks for ours, that is announced before the next data.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn peer_updates(&mut self, update: KeyUpdate) -> Result<TrafficKey, Error> {
        self.answer_due |= update.answer;
        self.keys.next_incoming()
    }

    /// Makes every key worn after so many records, and says how many the present one has sealed.
    #[cfg(test)]
    pub(crate) fn limit_to(&mut self, records: u64) -> u64 {
        self.sealer.limit_to(records)
    }

    /// Makes ready for a record of data, whatever its length; or says that there is no room for one.
    fn prepare(&mut self) -> Result<bool, Error> {
        if self.buffer.len() - self.end < KEY_UPDATE_BYTES + OVERHEAD + PLAINTEXT_MAX + ALERT_BYTES {
            return Ok(false);
        }
        if self.answer_due || self.sealer.is_worn() {
            let message = KeyUpdate { answer: false }.encode();
            self.end += self.sealer.seal(HANDSHAKE, &message, &mut self.buffer[self.end..]);
            let next = self.keys.next_outgoing();
            self.sealer.rekey(next.inspect_err(|error| self.state = State::Failed(error.clone()))?);
            self.answer_due = false;
        }
        Ok(true)
    }

    fn alert(&mut self, description: AlertDescription) {
        self.end += self.sealer.seal(ALERT, &content(description), &mut self.buffer[self.end..]);
    }
}
