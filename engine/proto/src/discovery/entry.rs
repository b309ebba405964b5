//! What a member says of itself: where it can be dialled.

use super::ENTRY_NONCE_BYTES;
use crate::codec::{Put as _, Reader};
use crate::limits::ENTRY_ADDRESSES_MAX;
use crypto_simd::aead::{TAG_BYTES as MAC_BYTES, Tag as Mac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One address: its kind, and 16 bytes.
const SLOT_BYTES: usize = 17;
const KIND_IPV4: u8 = 4;
const KIND_IPV6: u8 = 6;
/// An entry, always as long, whatever is in it.
const PLAIN_BYTES: usize = 16 + 8 + 2 + 1 + 1 + ENTRY_ADDRESSES_MAX * SLOT_BYTES;
/// An entry as it is sent.
pub const SEALED_ENTRY_BYTES: usize = ENTRY_NONCE_BYTES + PLAIN_BYTES + MAC_BYTES;

pub use crate::member::NodeId;

/// What a member can be dialled by: bits, of which others may be defined later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offers(pub u8);

impl Offers {
    /// Nothing: it looks for others.
    pub const NOTHING: Self = Self(0);
    /// TLS over TCP.
    pub const TCP: Self = Self(1);
    /// QUIC, on the same port of UDP.
    pub const QUIC: Self = Self(2);

    /// Both what this has and what the other has.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other is in this.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A member of a job, where it is, and since when it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub node: NodeId,
    /// When this was made, in seconds since 1970 by its clock.
    pub made_s: u64,
    /// The port that it listens on; 0 if it only looks for others.
    port: u16,
    offers: Offers,
    /// Each can be dialled; at most [`ENTRY_ADDRESSES_MAX`], none twice.
    ips: Vec<IpAddr>,
}

/// Why a sealed entry is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// Nobody who holds the key made it, for this place and day.
    #[error("not authentic")]
    NotAuthentic,
    /// Its content makes no sense.
    #[error("malformed")]
    Malformed,
    /// It is older than may be shown again, or of a clock that is far ahead.
    #[error("not of this time")]
    NotOfThisTime,
}

impl Entry {
    /// A member that listens on a port of these addresses. Those that others cannot dial are left out, and those beyond
    /// the limit.
    #[must_use]
    pub fn listening(node: NodeId, made_s: u64, port: u16, offers: Offers, ips: &[IpAddr]) -> Self {
        if port == 0 || offers == Offers::NOTHING {
            return Self::looking(node, made_s);
        }
        let mut kept: Vec<IpAddr> = Vec::with_capacity(ENTRY_ADDRESSES_MAX);
        for ip in ips.iter().map(IpAddr::to_canonical).filter(|ip| is_dialable(*ip)) {
            if kept.len() < ENTRY_ADDRESSES_MAX && !kept.contains(&ip) {
                kept.push(ip);
            }
        }
        Self { node, made_s, port, offers, ips: kept }
    }

    /// A member that cannot be dialled, and wants to know of others.
    #[must_use]
    pub fn looking(node: NodeId, made_s: u64) -> Self {
        Self { node, made_s, port: 0, offers: Offers::NOTHING, ips: Vec::new() }
    }

    /// What it can be dialled by.
    #[must_use]
    pub const fn offers(&self) -> Offers {
        self.offers
    }

    /// Where it can be dialled; nowhere if it only looks.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, self.port))
    }

    pub(super) fn encode(&self) -> [u8; PLAIN_BYTES] {
        let mut bytes = Vec::with_capacity(PLAIN_BYTES);
        bytes.put(&self.node.0);
        bytes.put_u64(self.made_s);
        bytes.put_u16(self.port);
        bytes.put_u8(self.offers.0);
        bytes.put_u8(u8::try_from(self.ips.len()).expect("at most ENTRY_ADDRESSES_MAX"));
        for ip in &self.ips {
            put_ip(&mut bytes, *ip);
        }
        bytes.resize(PLAIN_BYTES, 0);
        bytes.try_into().expect("just resized")
    }

    pub(super) fn decode(bytes: &[u8; PLAIN_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let node = NodeId(reader.array()?);
        let made_s = reader.u64()?;
        let port = reader.u16()?;
        let offers = Offers(reader.u8()?);
        let count = usize::from(reader.u8()?);
        if count > ENTRY_ADDRESSES_MAX
            || (port == 0) != (offers == Offers::NOTHING)
            || (port == 0 && count > 0)
        {
            return None;
        }
        let mut ips = Vec::with_capacity(count);
        for _ in 0..count {
            let ip = take_ip(&mut reader)?;
            if !is_dialable(ip) || ips.contains(&ip) {
                return None;
            }
            ips.push(ip);
        }
        let rest = reader.take((ENTRY_ADDRESSES_MAX - count) * SLOT_BYTES)?;
        rest.iter().all(|byte| *byte == 0).then_some(Self { node, made_s, port, offers, ips })
    }
}

/// Appends an address as 17 bytes.
pub(super) fn put_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            bytes.put_u8(KIND_IPV4);
            bytes.put(&ip.octets());
            bytes.put(&[0; 12]);
        }
        IpAddr::V6(ip) => {
            bytes.put_u8(KIND_IPV6);
            bytes.put(&ip.octets());
        }
    }
}

/// An address of 17 bytes, if it is one, written in the one way that there is.
pub(super) fn take_ip(reader: &mut Reader<'_>) -> Option<IpAddr> {
    match reader.u8()? {
        KIND_IPV4 => {
            let ip = Ipv4Addr::from(reader.array::<4>()?);
            (reader.array::<12>()? == [0; 12]).then_some(ip.into())
        }
        KIND_IPV6 => {
            let ip = Ipv6Addr::from(reader.array::<16>()?);
            ip.to_ipv4_mapped().is_none().then_some(ip.into())
        }
        _ => None,
    }
}

/// Whether others can dial an address: it is one host's, and means the same on any interface.
#[must_use]
pub fn is_dialable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => {
            !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_unicast_link_local()
                && ip.to_ipv4_mapped().is_none()
        }
    }
}

/// An entry as it is sent: nonce, ciphertext and MAC. Nothing is known of it until it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedEntry(pub [u8; SEALED_ENTRY_BYTES]);

impl SealedEntry {
    pub(super) fn joined(
        nonce: [u8; ENTRY_NONCE_BYTES],
        sealed: &[u8; PLAIN_BYTES],
        mac: [u8; MAC_BYTES],
    ) -> Self {
        let mut bytes = [0; SEALED_ENTRY_BYTES];
        bytes[..ENTRY_NONCE_BYTES].copy_from_slice(&nonce);
        bytes[ENTRY_NONCE_BYTES..][..PLAIN_BYTES].copy_from_slice(sealed);
        bytes[ENTRY_NONCE_BYTES + PLAIN_BYTES..].copy_from_slice(&mac);
        Self(bytes)
    }

    pub(super) fn parts(&self) -> ([u8; ENTRY_NONCE_BYTES], [u8; PLAIN_BYTES], Mac) {
        let mut reader = Reader::new(&self.0);
        let parts = (|| Some((reader.array()?, reader.array()?, Mac(reader.array()?))))();
        parts.expect("the lengths are those of the array")
    }
}
