//! What is said to a tracker and by it: a request and an answer over TLS, heartbeats and their answers in datagrams.
//!
//! A request is always as long, whatever it asks for. A heartbeat proves by a key, which the tracker gave out in its
//! answer over TLS, who sends it; its answer is shorter than it is.

use super::entry::{put_ip, take_ip};
use super::{DiscoveryTag, SEALED_ENTRY_BYTES, SealedEntry, TAG_BYTES};
use crate::codec::{Put as _, Reader};
use crate::limits::{AMPLIFICATION_MAX, TRACKER_ANSWER_ENTRIES_MAX};
use hkdf::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What both ends of a connection to a tracker must negotiate (ALPN).
pub const ALPN: &[u8] = b"sealift-tracker/1";

const ID_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 16;
const TOKEN_BYTES: usize = ID_BYTES + KEY_BYTES;
/// Bytes in a request.
pub const REQUEST_BYTES: usize = TAG_BYTES + TOKEN_BYTES + 1 + 1 + SEALED_ENTRY_BYTES;
/// Bytes in an answer before its entries.
pub const ANSWER_HEAD_BYTES: usize = 1 + 1 + 2 + 2 + 17 + TOKEN_BYTES;
/// Bytes in the largest answer.
pub const ANSWER_BYTES_MAX: usize = ANSWER_HEAD_BYTES + TRACKER_ANSWER_ENTRIES_MAX * SEALED_ENTRY_BYTES;

const HEARTBEAT_MAGIC: [u8; 4] = *b"SLH1";
const HEARD_MAGIC: [u8; 4] = *b"SLA1";
/// Bytes in a heartbeat.
pub const HEARTBEAT_BYTES: usize = 4 + 1 + ID_BYTES + 8 + MAC_BYTES;
/// Bytes in the answer to a heartbeat.
pub const HEARD_BYTES: usize = 4 + 8 + MAC_BYTES;
const _: () = assert!(HEARD_BYTES <= AMPLIFICATION_MAX * HEARTBEAT_BYTES);

const HEARTBEAT_DOMAIN: &[u8] = b"sealift v1 heartbeat";
const HEARD_DOMAIN: &[u8] = b"sealift v1 heartbeat answer";

/// Names an entry at a tracker. It is seen on the network, in heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub [u8; ID_BYTES]);

impl EntryId {
    const NONE: Self = Self([0; ID_BYTES]);
}

/// What a member gets for its entry: with it the entry is kept alive, replaced and taken back.
#[derive(Clone)]
pub struct Token {
    /// Which entry.
    pub id: EntryId,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl Token {
    /// A new one, of random bytes.
    #[must_use]
    pub fn new(id: [u8; ID_BYTES], key: &[u8; KEY_BYTES]) -> Self {
        Self { id: EntryId(id), key: Zeroizing::new(*key) }
    }

    /// Whether it is the same, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.id.0.ct_eq(&other.id.0) & self.key.ct_eq(&*other.key)).into()
    }

    fn mac(&self, domain: &[u8], bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("HMAC takes keys of any length");
        mac.update(domain);
        mac.update(bytes);
        *mac.finalize().into_bytes().first_chunk().expect("16 of 32 bytes")
    }

    fn put(token: Option<&Self>, bytes: &mut Vec<u8>) {
        match token {
            Some(token) => {
                bytes.put(&token.id.0);
                bytes.put(&*token.key);
            }
            None => bytes.put(&[0; TOKEN_BYTES]),
        }
    }

    /// The token; `Some(None)` if there is none.
    fn take(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let id = EntryId(reader.array()?);
        let key = Zeroizing::new(reader.array::<KEY_BYTES>()?);
        match id {
            EntryId::NONE => (*key == [0; KEY_BYTES]).then_some(None),
            id => Some(Some(Self { id, key })),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, secret)", self.id)
    }
}

/// What a member asks of a tracker, and tells it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of which job, in [`Place::Tracker`](super::Place::Tracker).
    pub tag: DiscoveryTag,
    /// That of the entry which was told before: it is replaced.
    pub token: Option<Token>,
    /// How many entries of others are wanted at most, up to [`TRACKER_ANSWER_ENTRIES_MAX`].
    pub wanted: u8,
    /// Where the member is; nothing if it only asks.
    pub entry: Option<SealedEntry>,
}

impl Request {
    /// Its bytes; to be zeroized, for the token's sake.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES));
        bytes.put(&self.tag.0);
        Token::put(self.token.as_ref(), &mut bytes);
        bytes.put_u8(self.wanted);
        bytes.put_u8(self.entry.is_some().into());
        bytes.put(&self.entry.map_or([0; SEALED_ENTRY_BYTES], |entry| entry.0));
        bytes
    }

    /// A request from anybody, if it is one.
    #[must_use]
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let tag = DiscoveryTag(reader.array()?);
        let token = Token::take(&mut reader)?;
        let wanted = reader.u8()?;
        let has_entry = reader.u8()?;
        let sealed = reader.array()?;
        let entry = match has_entry {
            0 if sealed == [0; SEALED_ENTRY_BYTES] => None,
            1 => Some(SealedEntry(sealed)),
            _ => return None,
        };
        (usize::from(wanted) <= TRACKER_ANSWER_ENTRIES_MAX).then_some(Self { tag, token, wanted, entry })
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it was done.
    Done,
    /// The tracker has no room for the entry: it is not kept.
    Full,
    /// Too many requests come from there: nothing was done.
    TooOften,
}

/// What a tracker answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What became of the request.
    pub verdict: Verdict,
    /// In seconds: an entry of which nothing is heard for three times as long is forgotten.
    pub heartbeat_s: u16,
    /// In seconds: when to ask again.
    pub again_s: u16,
    /// Where the request came from, as the tracker sees it.
    pub seen: IpAddr,
    /// For the entry that was told.
    pub token: Option<Token>,
    /// Entries of others; at most [`TRACKER_ANSWER_ENTRIES_MAX`].
    pub entries: Vec<SealedEntry>,
}

impl Answer {
    /// Its bytes; to be zeroized, for the token's sake.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let entries = &self.entries[..self.entries.len().min(TRACKER_ANSWER_ENTRIES_MAX)];
        let len = ANSWER_HEAD_BYTES + entries.len() * SEALED_ENTRY_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.put_u8(match self.verdict {
            Verdict::Done => 0,
            Verdict::Full => 1,
            Verdict::TooOften => 2,
        });
        bytes.put_u8(u8::try_from(entries.len()).expect("within the limit"));
        bytes.put_u16(self.heartbeat_s);
        bytes.put_u16(self.again_s);
        put_ip(&mut bytes, self.seen.to_canonical());
        Token::put(self.token.as_ref(), &mut bytes);
        for entry in entries {
            bytes.put(&entry.0);
        }
        bytes
    }

    /// How many bytes of entries follow a head; `None` if they are too many.
    #[must_use]
    pub fn entries_bytes(head: &[u8; ANSWER_HEAD_BYTES]) -> Option<usize> {
        let count = usize::from(head[1]);
        (count <= TRACKER_ANSWER_ENTRIES_MAX).then_some(count * SEALED_ENTRY_BYTES)
    }

    /// A whole answer, if it is one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<ANSWER_HEAD_BYTES>()?;
        if bytes.len() != ANSWER_HEAD_BYTES + Self::entries_bytes(head)? {
            return None;
        }
        let mut reader = Reader::new(bytes);
        let verdict = match reader.u8()? {
            0 => Verdict::Done,
            1 => Verdict::Full,
            2 => Verdict::TooOften,
            _ => return None,
        };
        let count = reader.u8()?;
        let heartbeat_s = reader.u16()?;
        let again_s = reader.u16()?;
        let seen = take_ip(&mut reader)?;
        let token = Token::take(&mut reader)?;
        let entries = (0..count).map(|_| reader.array().map(SealedEntry)).collect::<Option<_>>()?;
        Some(Self { verdict, heartbeat_s, again_s, seen, token, entries })
    }

    /// An answer to somebody who asks too often: it says nothing else.
    #[must_use]
    pub fn too_often(again_s: u16) -> Self {
        Self {
            verdict: Verdict::TooOften,
            heartbeat_s: 0,
            again_s,
            seen: Ipv4Addr::UNSPECIFIED.into(),
            token: None,
            entries: Vec::new(),
        }
    }
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The member is still there.
    Alive,
    /// It goes: its entry is to be forgotten.
    Leave,
}

/// A heartbeat whose sender is not proved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it says.
    pub beat: Beat,
    /// Of which entry.
    pub id: EntryId,
    /// Higher than in every one before it.
    pub counter: u64,
    mac: [u8; MAC_BYTES],
}

impl Heartbeat {
    /// One that proves to be of the token's holder.
    #[must_use]
    pub fn new(beat: Beat, token: &Token, counter: u64) -> Self {
        let mut heartbeat = Self { beat, id: token.id, counter, mac: [0; MAC_BYTES] };
        let bytes = heartbeat.encode();
        heartbeat.mac = token.mac(HEARTBEAT_DOMAIN, &bytes[..HEARTBEAT_BYTES - MAC_BYTES]);
        heartbeat
    }

    /// Whether the token's holder made it.
    #[must_use]
    pub fn is_of(&self, token: &Token) -> bool {
        let bytes = self.encode();
        let mac = token.mac(HEARTBEAT_DOMAIN, &bytes[..HEARTBEAT_BYTES - MAC_BYTES]);
        (self.id == token.id) & bool::from(mac.ct_eq(&self.mac))
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEARTBEAT_BYTES] {
        let mut bytes = Vec::with_capacity(HEARTBEAT_BYTES);
        bytes.put(&HEARTBEAT_MAGIC);
        bytes.put_u8(match self.beat {
            Beat::Alive => 1,
            Beat::Leave => 2,
        });
        bytes.put(&self.id.0);
        bytes.put_u64(self.counter);
        bytes.put(&self.mac);
        bytes.try_into().expect("fields of fixed lengths")
    }

    /// A datagram from anybody, if it is a heartbeat.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEARTBEAT_BYTES] = bytes.try_into().ok()?;
        let mut reader = Reader::new(bytes);
        if reader.array()? != HEARTBEAT_MAGIC {
            return None;
        }
        let beat = match reader.u8()? {
            1 => Beat::Alive,
            2 => Beat::Leave,
            _ => return None,
        };
        let id = EntryId(reader.array()?);
        Some(Self { beat, id, counter: reader.u64()?, mac: reader.array()? })
    }
}

/// The answer to the heartbeat of this number: no longer than that.
#[must_use]
pub fn heard(token: &Token, counter: u64) -> [u8; HEARD_BYTES] {
    let mut bytes = Vec::with_capacity(HEARD_BYTES);
    bytes.put(&HEARD_MAGIC);
    bytes.put_u64(counter);
    let mac = token.mac(HEARD_DOMAIN, &bytes);
    bytes.put(&mac);
    bytes.try_into().expect("fields of fixed lengths")
}

/// The number of the heartbeat that a datagram answers, if the tracker made it.
#[must_use]
pub fn heard_counter(bytes: &[u8], token: &Token) -> Option<u64> {
    let bytes: &[u8; HEARD_BYTES] = bytes.try_into().ok()?;
    let mut reader = Reader::new(bytes);
    let _magic: [u8; 4] = reader.array().filter(|magic| *magic == HEARD_MAGIC)?;
    let counter = reader.u64()?;
    bool::from(heard(token, counter).ct_eq(bytes)).then_some(counter)
}
