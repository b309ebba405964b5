//! The bytes of a segment. Pure.
//!
//! ```text
//! "SLLG" | version (4) | spool (16) | first (8) | skipped (8) | acked (8) | check (8)
//! of version 2, which is sealed: length (4) | check (8) | envelope
//! then records: length (4) | check (8) | payload
//! ```
//!
//! Numbers are little-endian. A check is the first 8 bytes of BLAKE3: of what stands before it in the head; of a record's
//! number (8) and its payload, and so with an envelope, whose number is that of the first record.

use crypto_simd::blake3;
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"SLLG";
const VERSION: u32 = 1;
const VERSION_SEALED: u32 = 2;
pub(super) const HEADER_BYTES: u64 = 56;
const CHECKED_BYTES: usize = 48;
pub(super) const RECORD_HEAD_BYTES: u64 = 12;
/// Bytes of a record's payload.
const PAYLOAD_BYTES_MAX: usize = 32 << 10;

/// What stands at the beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) spool: [u8; 16],
    /// The number of the first record.
    pub(super) first: u64,
    /// Numbers just before it that are of no record.
    pub(super) skipped: u64,
    /// What the daemon had when the segment was begun, at least.
    pub(super) acked: u64,
    /// Of the data key that its records are sealed under; of one that is not sealed there is none.
    pub(super) envelope: Option<Arc<[u8]>>,
}

impl Head {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let version = if self.envelope.is_some() { VERSION_SEALED } else { VERSION };
        bytes.extend(version.to_le_bytes());
        bytes.extend(self.spool);
        for number in [self.first, self.skipped, self.acked] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(check(&bytes));
        if let Some(envelope) = &self.envelope {
            framed(self.first, envelope, &mut bytes);
        }
        bytes
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        HEADER_BYTES + self.envelope.as_ref().map_or(0, |envelope| RECORD_HEAD_BYTES + envelope.len() as u64)
    }

    /// `None` if it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<CHECKED_BYTES>()?;
        let number =
            |at: usize| -> Option<u64> { Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?)) };
        let is_right = head.starts_with(MAGIC) && rest.first_chunk::<8>() == Some(&check(head));
        let first = number(24)?;
        let envelope = match u32::from_le_bytes(head[4..8].try_into().ok()?) {
            VERSION => None,
            VERSION_SEALED => Some(record(rest.get(8..)?, first)?.0.into()),
            _ => return None,
        };
        let parsed = Self {
            spool: head[8..24].try_into().ok()?,
            first,
            skipped: number(32)?,
            acked: number(40)?,
            envelope,
        };
        is_right.then_some(parsed)
    }
}

fn check(bytes: &[u8]) -> [u8; 8] {
    let digest = blake3::hash(bytes);
    std::array::from_fn(|at| digest[at])
}

fn check_of(number: u64, payload: &[u8]) -> [u8; 8] {
    check(&[&number.to_le_bytes(), payload].concat())
}

/// Appends a record.
pub(super) fn framed(number: u64, payload: &[u8], to: &mut Vec<u8>) {
    to.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(check_of(number, payload));
    to.extend(payload);
}

/// The record of this number, and what comes after it; `None` if it is not whole.
pub(super) fn record(bytes: &[u8], number: u64) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok();
    let (payload, rest) = rest.split_at_checked(length.filter(|&length| length <= PAYLOAD_BYTES_MAX)?)?;
    (check_of(number, payload) == *sum).then_some((payload, rest))
}

/// How many whole records stand behind a segment's head, and the bytes of it up to there.
pub(super) fn scan(content: &[u8], head: &Head) -> (u64, u64) {
    let mut rest = content.get(usize::try_from(head.len()).unwrap_or(0)..).unwrap_or_default();
    let mut records = 0;
    while let Some((_, after)) = record(rest, head.first + records) {
        records += 1;
        rest = after;
    }
    (records, (content.len() - rest.len()) as u64)
}
