//! Records to plaintext, and judgement of everything that is not plaintext.

use super::alert::{self, Notice, Violation};
use super::format::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER_BYTES, PLAINTEXT_MAX, TAG_BYTES,
};
use super::key::TrafficKey;
use super::messages::{KeyUpdate, Messages};

/// Records in a row that may bring no data.
const FRUITLESS_MAX: u8 = 32;

/// What a record brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// So many bytes of plaintext, at the front.
    Data(usize),
    /// The peer's next key, under which the next record is.
    KeyUpdate(KeyUpdate),
    /// The end of what the peer sends.
    End,
    /// Nothing.
    Nothing,
}

/// Opens what is received.
pub(crate) struct Opener {
    key: TrafficKey,
    messages: Messages,
    fruitless: u8,
}

impl Opener {
    /// Opens with a key. Only a client may be sent tickets.
    pub(crate) const fn new(key: TrafficKey, tickets: bool) -> Self {
        Self { key, messages: Messages::new(tickets), fruitless: 0 }
    }

    /// Goes on with another key.
    pub(crate) fn rekey(&mut self, key: TrafficKey) {
        self.key = key;
    }

    /// Opens a whole record (its header was checked) into `content`, which is as long as the body without its tag.
    pub(crate) fn open(&mut self, record: &[u8], content: &mut [u8]) -> Result<Opened, Violation> {
        let (header, body) = record.split_first_chunk().ok_or_else(Violation::forged)?;
        self.key.open(header, body, content)?;
        self.judge(content)
    }

    /// Opens a whole record (its header was checked) where it stands: the content replaces the body.
    pub(crate) fn open_in_place(&mut self, record: &mut [u8]) -> Result<Opened, Violation> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or_else(Violation::forged)?;
        let (content, tag) = body.split_at_mut(body.len() - TAG_BYTES);
        self.key.open_in_place(header, content, tag)?;
        self.judge(content)
    }

    /// What an authentic record says, its padding and type removed.
    fn judge(&mut self, content: &[u8]) -> Result<Opened, Violation> {
        let length = content.iter().rposition(|&byte| byte != 0).ok_or_else(Violation::untyped)?;
        if length > PLAINTEXT_MAX {
            return Err(Violation::oversized());
        }
        let (content, kind) = (&content[..length], content[length]);
        if kind == APPLICATION_DATA && length > 0 {
            self.fruitless = 0;
        } else {
            self.fruitless += 1;
            if self.fruitless > FRUITLESS_MAX {
                return Err(Violation::fruitless());
            }
        }
        match kind {
            APPLICATION_DATA if self.messages.is_cut() => Err(Violation::interleaved()),
            APPLICATION_DATA if length == 0 => Ok(Opened::Nothing),
            APPLICATION_DATA => Ok(Opened::Data(length)),
            HANDSHAKE => Ok(self.messages.read(content)?.map_or(Opened::Nothing, Opened::KeyUpdate)),
            ALERT if content.is_empty() => Err(Violation::empty()),
            ALERT => alert::read(content).map(|notice| match notice {
                Notice::End => Opened::End,
                Notice::Nothing => Opened::Nothing,
            }),
            CHANGE_CIPHER_SPEC => Err(Violation::change_cipher_spec()),
            kind => Err(Violation::unexpected_type(kind)),
        }
    }
}
