//! The layout of an encrypted record: its header, its limits, the types of content.

use super::alert::Violation;

/// Bytes before a record's body: type, version, length.
pub(crate) const HEADER_BYTES: usize = 5;
/// The most plaintext in a record.
pub(crate) const PLAINTEXT_MAX: usize = 1 << 14;
/// The most bytes in an encrypted record's body: plaintext, type, padding and tag.
pub(crate) const BODY_MAX: usize = PLAINTEXT_MAX + 256;
/// Bytes of an AES-GCM tag.
pub(crate) const TAG_BYTES: usize = 16;
/// What sealing adds to a plaintext: the header, the type of the content, the tag.
pub(crate) const OVERHEAD: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// The types of content, in the clear for the handshake's records and encrypted for all others.
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// The header of an encrypted record with a body of so many bytes.
pub(crate) fn header(body: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(body <= BODY_MAX);
    let [.., high, low] = body.to_be_bytes();
    [APPLICATION_DATA, 3, 3, high, low]
}

/// The length of the record behind a header of whatever type, if that can be a record's.
pub(crate) fn record_bytes(header: [u8; HEADER_BYTES]) -> Option<usize> {
    let possible = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&header[0]) && stated(header) <= BODY_MAX;
    possible.then(|| HEADER_BYTES + stated(header))
}

fn stated(header: [u8; HEADER_BYTES]) -> usize {
    usize::from(u16::from_be_bytes([header[3], header[4]]))
}

/// The length of the body behind a header, which must be an encrypted record's.
pub(crate) fn body_bytes(header: [u8; HEADER_BYTES]) -> Result<usize, Violation> {
    let (kind, body) = (header[0], stated(header));
    if kind == CHANGE_CIPHER_SPEC {
        Err(Violation::change_cipher_spec())
    } else if kind != APPLICATION_DATA {
        Err(Violation::unexpected_type(kind))
    } else if body > BODY_MAX {
        Err(Violation::oversized())
    } else if body <= TAG_BYTES {
        // Not even a type beside the tag.
        Err(Violation::forged())
    } else {
        Ok(body)
    }
}
