//! Alerts: what a peer's mean, and which one a peer is sent that broke the protocol.

use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};
use std::io;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Why reading a session ends in an error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Violation {
    /// What the peer is told; nothing if it was the peer that ended the session.
    pub alert: Option<AlertDescription>,
    /// What the reader is told.
    pub error: Error,
}

impl Violation {
    fn new(alert: AlertDescription, error: impl Into<Error>) -> Self {
        Self { alert: Some(alert), error: error.into() }
    }

    fn unexpected(error: impl Into<Error>) -> Self {
        Self::new(AlertDescription::UnexpectedMessage, error)
    }

    fn malformed(error: InvalidMessage) -> Self {
        Self::new(AlertDescription::DecodeError, error)
    }

    /// A record that the key did not seal.
    pub(crate) fn forged() -> Self {
        Self::new(AlertDescription::BadRecordMac, Error::DecryptError)
    }

    /// A record beyond the limits.
    pub(crate) fn oversized() -> Self {
        Self::new(AlertDescription::RecordOverflow, Error::PeerSentOversizedRecord)
    }

    /// A record with no type of content.
    pub(crate) fn untyped() -> Self {
        Self::unexpected(PeerMisbehaved::IllegalTlsInnerPlaintext)
    }

    /// A type of content that has no place in a session.
    pub(crate) fn unexpected_type(kind: u8) -> Self {
        let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];
        Self::unexpected(Error::InappropriateMessage { expect_types, got_type: kind.into() })
    }

    /// A `ChangeCipherSpec` after the handshake.
    pub(crate) fn change_cipher_spec() -> Self {
        Self::unexpected(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec)
    }

    /// A message of the handshake that has no place in a session.
    pub(crate) fn unexpected_message(kind: u8) -> Self {
        let expect_types = vec![HandshakeType::KeyUpdate];
        Self::unexpected(Error::InappropriateHandshakeMessage { expect_types, got_type: kind.into() })
    }

    /// Something else in the middle of a message.
    pub(crate) fn interleaved() -> Self {
        Self::unexpected(PeerMisbehaved::MessageInterleavedWithHandshakeMessage)
    }

    /// More under the old key after the message that announced another.
    pub(crate) fn beyond_key() -> Self {
        Self::unexpected(PeerMisbehaved::KeyEpochWithPendingFragment)
    }

    /// An alert or a message without content.
    pub(crate) fn empty() -> Self {
        Self::unexpected(InvalidMessage::InvalidEmptyPayload)
    }

    /// Record upon record, and never a byte of data.
    pub(crate) fn fruitless() -> Self {
        Self::unexpected(PeerMisbehaved::TooManyEmptyFragments)
    }

    /// A `KeyUpdate` of another length.
    pub(crate) fn malformed_key_update() -> Self {
        Self::malformed(InvalidMessage::InvalidKeyUpdate)
    }

    /// A `KeyUpdate` that asks for something else than an answer or none.
    pub(crate) fn unknown_key_update() -> Self {
        Self::new(AlertDescription::IllegalParameter, InvalidMessage::InvalidKeyUpdate)
    }

    /// A message longer than its kind can be.
    pub(crate) fn oversized_message() -> Self {
        Self::malformed(InvalidMessage::HandshakePayloadTooLarge)
    }

    /// An alert that is none.
    pub(crate) fn malformed_alert() -> Self {
        Self::malformed(InvalidMessage::MessageTooShort)
    }

    /// The peer ended the session with this alert.
    pub(crate) const fn told(alert: AlertDescription) -> Self {
        Self { alert: None, error: Error::AlertReceived(alert) }
    }
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self::new(AlertDescription::InternalError, error)
    }
}

/// What an alert is to its receiver, if no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The peer sends no more.
    End,
    /// Nothing that matters.
    Nothing,
}

/// Reads an alert. Its level does not matter in TLS 1.3: all are fatal but two (RFC 8446, section 6).
pub(crate) fn read(content: &[u8]) -> Result<Notice, Violation> {
    let &[WARNING | FATAL, description] = content else { return Err(Violation::malformed_alert()) };
    match description.into() {
        AlertDescription::CloseNotify => Ok(Notice::End),
        AlertDescription::UserCanceled => Ok(Notice::Nothing),
        fatal => Err(Violation::told(fatal)),
    }
}

/// An alert's content.
pub(crate) fn content(description: AlertDescription) -> [u8; 2] {
    let level = if description == AlertDescription::CloseNotify { WARNING } else { FATAL };
    [level, description.into()]
}

/// The error of a stream that broke the protocol, in which `tls::is_rejection` finds the cause.
pub(crate) fn error_of(error: &Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.clone())
}
