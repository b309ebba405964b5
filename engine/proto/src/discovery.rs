//! How members of a job find each other: what they say to a tracker and on the local network, as bytes.
//!
//! A member says where it is in an [`Entry`], sealed under a key of the job: a tracker, or who listens on the network,
//! learns neither its content nor which job it is of, and cannot make one that members believe. What does not open is
//! never dialled. [`DayKeys`] has the keys of one day; [`lan`] and [`tracker`] the messages; [`Candidates`] what becomes
//! of entries that opened, and how much of it may be dialled. The formats are in docs/discovery.md.

mod candidates;
mod entry;
pub mod lan;
pub mod tracker;

pub use candidates::{Candidate, Candidates};
pub use entry::{Entry, EntryFault, NodeId, Offers, SEALED_ENTRY_BYTES, SealedEntry, is_dialable};

use crate::keys::{KEY_BYTES, RoSecret, derive};
use crate::limits::ENTRY_SKEW_MAX_S;
use crypto_simd::aead::{NONCE_BYTES, Nonce, SealingKey};
use std::fmt;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Bytes in a tag.
pub const TAG_BYTES: usize = 16;
/// Random bytes with which an entry is sealed: never the same twice.
pub const ENTRY_NONCE_BYTES: usize = NONCE_BYTES;

const TAG_INFO: &[u8] = b"sealift v1 discovery tag";
const ENTRY_INFO: &[u8] = b"sealift v1 discovery entry";
const DAY_S: u64 = 24 * 3600;

/// Where something is said. Each place has tags and keys of its own: who sees a tag on the local network cannot ask a
/// tracker for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The local network.
    Lan,
    /// A tracker.
    Tracker,
}

impl Place {
    const fn byte(self) -> u8 {
        match self {
            Self::Lan => 1,
            Self::Tracker => 2,
        }
    }
}

/// Names a job in discovery, to those who hold its read-only secret: for one day, in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoveryTag(pub [u8; TAG_BYTES]);

/// The key beneath all of a job's discovery.
#[derive(Clone)]
pub struct DiscoveryKey(Zeroizing<[u8; KEY_BYTES]>);

impl DiscoveryKey {
    /// That of a job.
    #[must_use]
    pub fn of(ro: &RoSecret) -> Self {
        Self(ro.discovery_key())
    }

    /// The keys of a day, counted from 1970-01-01 UTC.
    #[must_use]
    pub fn day(&self, place: Place, day: u64) -> DayKeys {
        let own = |info| derive(&self.0, &[info, &[place.byte()], &day.to_le_bytes()]);
        let tag = own(TAG_INFO);
        let tag = DiscoveryTag(*tag.first_chunk().expect("16 of 32 bytes"));
        DayKeys { tag, key: SealingKey::aes_256_gcm(&own(ENTRY_INFO)) }
    }

    /// The keys of every day that another member may hold for today, by a clock that shows `now_s` seconds since 1970.
    #[must_use]
    pub fn days(&self, place: Place, now_s: u64) -> Vec<DayKeys> {
        days_around(now_s).map(|day| self.day(place, day)).collect()
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryKey(secret)")
    }
}

/// The day that it is.
#[must_use]
pub const fn day_of(now_s: u64) -> u64 {
    now_s / DAY_S
}

/// The days under whose tags others may be found: one, or two about midnight.
#[must_use]
pub const fn days_around(now_s: u64) -> RangeInclusive<u64> {
    day_of(now_s.saturating_sub(ENTRY_SKEW_MAX_S))..=day_of(now_s.saturating_add(ENTRY_SKEW_MAX_S))
}

/// A job's tag in one place on one day, and the key of its entries there.
#[derive(Debug)]
pub struct DayKeys {
    tag: DiscoveryTag,
    key: SealingKey,
}

impl DayKeys {
    /// The tag.
    #[must_use]
    pub const fn tag(&self) -> DiscoveryTag {
        self.tag
    }

    /// Seals an entry. `nonce` is random, and never used again.
    #[must_use]
    pub fn seal(&self, entry: &Entry, nonce: [u8; ENTRY_NONCE_BYTES]) -> SealedEntry {
        let mut plain = entry.encode();
        let mac = self.key.seal_in_place(Nonce(nonce), &self.tag.0, &mut plain);
        SealedEntry::joined(nonce, &plain, mac.0)
    }

    /// What a member has sealed, if it is of these keys and of this time.
    ///
    /// # Errors
    /// See [`EntryFault`].
    pub fn open(&self, sealed: &SealedEntry, now_s: u64) -> Result<Entry, EntryFault> {
        let (nonce, mut plain, mac) = sealed.parts();
        let opened = self.key.open_in_place(Nonce(nonce), &self.tag.0, &mut plain, &mac);
        opened.map_err(|_| EntryFault::NotAuthentic)?;
        let entry = Entry::decode(&plain).ok_or(EntryFault::Malformed)?;
        if entry.made_s.abs_diff(now_s) > ENTRY_SKEW_MAX_S {
            return Err(EntryFault::NotOfThisTime);
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests;
