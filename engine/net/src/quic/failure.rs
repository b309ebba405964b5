//! What quinn's errors mean.

use crate::connection::CUT;
use crate::tls::{TlsFailure, alert_is_about_keys};
use quinn::{ConnectionError, TransportErrorCode};
use rustls::{AlertDescription, Error};
use std::io;

/// TLS alerts among the codes of QUIC (RFC 9001, section 4.8).
const ALERTS: u64 = 0x100;

/// The alert that a code stands for.
fn alert_in(code: TransportErrorCode) -> Option<AlertDescription> {
    let number = u64::from(code).checked_sub(ALERTS)?;
    u8::try_from(number).ok().map(AlertDescription::from)
}

/// Why a connection is over, as far as TLS knows. A peer's words are not repeated.
pub(super) fn failure_of(error: &ConnectionError) -> TlsFailure {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut};
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::VersionMismatch => {
            return TlsFailure::Protocol("no common version of QUIC".to_owned());
        }
        ConnectionError::TimedOut => return TlsFailure::Io(TimedOut.into()),
        ConnectionError::Reset => return TlsFailure::Io(ConnectionReset.into()),
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => return TlsFailure::Io(ConnectionAborted.into()),
    };
    match alert_in(code) {
        Some(alert) if alert_is_about_keys(alert) => TlsFailure::Key(format!("{alert:?}")),
        Some(alert) => TlsFailure::Protocol(format!("{alert:?}")),
        None if code == TransportErrorCode::CONNECTION_REFUSED => TlsFailure::Io(ConnectionRefused.into()),
        // The socket's task ended: nobody listens there any more.
        None if code == TransportErrorCode::INTERNAL_ERROR => TlsFailure::Io(ConnectionReset.into()),
        None => TlsFailure::Protocol(format!("QUIC: {code}")),
    }
}

/// What a reader or writer is told of a connection that is over.
pub(super) fn error_of(error: &ConnectionError) -> io::Error {
    let code = match error {
        ConnectionError::TransportError(error) => Some(error.code),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        _ => None,
    };
    if let Some(alert) = code.and_then(alert_in) {
        return io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(alert));
    }
    match (error, failure_of(error)) {
        (ConnectionError::ApplicationClosed(_), _) => io::Error::new(io::ErrorKind::UnexpectedEof, CUT),
        (_, TlsFailure::Io(error)) => error,
        (_, TlsFailure::Key(why) | TlsFailure::Protocol(why)) => {
            io::Error::new(io::ErrorKind::InvalidData, why)
        }
    }
}
