//! Messages of the handshake's kind within a session (RFC 8446, section 4.6), however they are cut into records.
//!
//! Two have a place there: `KeyUpdate`, and, towards the client, `NewSessionTicket`, which nothing is done with.

use super::alert::Violation;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// The longest ticket that is read past.
const TICKET_MAX: usize = u16::MAX as usize;

/// Whether a `KeyUpdate` asks for one in return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyUpdate {
    pub(crate) answer: bool,
}

impl KeyUpdate {
    /// The message.
    pub(crate) fn encode(self) -> [u8; 5] {
        [KEY_UPDATE, 0, 0, 1, u8::from(self.answer)]
    }
}

/// The message that is being read.
#[derive(Debug)]
pub(crate) struct Messages {
    tickets: bool,
    /// Its first bytes: type, length, and of a `KeyUpdate` all.
    begun: [u8; 5],
    filled: usize,
    /// What is left of a ticket.
    skip: usize,
}

impl Messages {
    /// Nothing read yet. Only a client may be sent tickets.
    pub(crate) const fn new(tickets: bool) -> Self {
        Self { tickets, begun: [0; 5], filled: 0, skip: 0 }
    }

    /// Whether the last record ended in the middle of a message.
    pub(crate) const fn is_cut(&self) -> bool {
        self.filled > 0 || self.skip > 0
    }

    /// Reads a record's content.
    pub(crate) fn read(&mut self, mut content: &[u8]) -> Result<Option<KeyUpdate>, Violation> {
        if content.is_empty() {
            return Err(Violation::empty());
        }
        while let Some((&byte, rest)) = content.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(content.len());
                (self.skip, content) = (self.skip - skipped, &content[skipped..]);
                continue;
            }
            self.begun[self.filled] = byte;
            (self.filled, content) = (self.filled + 1, rest);
            match self.begun {
                [KEY_UPDATE, 0, 0, 1, answer @ 0..=1] if self.filled == 5 => {
                    self.filled = 0;
                    let aligned = content.is_empty();
                    let update = KeyUpdate { answer: answer == 1 };
                    return if aligned { Ok(Some(update)) } else { Err(Violation::beyond_key()) };
                }
                _ if self.filled == 5 => return Err(Violation::unknown_key_update()),
                [kind, a, b, c, _] if self.filled == 4 => self.begin(kind, [0, a, b, c])?,
                _ => {}
            }
        }
        Ok(None)
    }

    /// Judges a message by its header.
    fn begin(&mut self, kind: u8, length: [u8; 4]) -> Result<(), Violation> {
        match (kind, u32::from_be_bytes(length) as usize) {
            (KEY_UPDATE, 1) => Ok(()),
            (KEY_UPDATE, _) => Err(Violation::malformed_key_update()),
            (NEW_SESSION_TICKET, length) if self.tickets && length <= TICKET_MAX => {
                (self.filled, self.skip) = (0, length);
                Ok(())
            }
            (NEW_SESSION_TICKET, _) if self.tickets => Err(Violation::oversized_message()),
            (kind, _) => Err(Violation::unexpected_message(kind)),
        }
    }
}
