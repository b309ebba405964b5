//! Tickets: what a reader needs to fetch a job, as text that can be copied and pasted.
//!
//! `sealift1` followed by base32 (RFC 4648, lower case, no padding) of: the read-only secret (32 bytes), the verify
//! key (32), the number of addresses (1), the addresses (kind 4: IPv4 and port; 6: IPv6 and port; 1: a name's length,
//! the name and port), and the first 4 bytes of SHA-256 over a domain text and all before. A ticket is a secret.

use crate::codec::{Put as _, Reader};
use crate::keys::{KEY_BYTES, RoSecret, VerifyKey};
use crate::limits;
use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zeroize::Zeroizing;

const PREFIX: &str = "sealift1";
const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_DOMAIN: &[u8] = b"sealift v1 ticket checksum";
const KIND_NAME: u8 = 1;
const KIND_IPV4: u8 = 4;
const KIND_IPV6: u8 = 6;

/// Where a peer can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A host name, of 1 to 253 printable ASCII characters, and a port.
    Name(HostName, u16),
}

/// A host name that is safe to print and to look up: letters, digits, `-`, `.` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name, if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        ((1..=253).contains(&name.len()) && name.bytes().all(plain)).then(|| Self(name.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Name(name, port) => write!(f, "{}:{port}", name.0),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self::Socket(socket)
    }
}

impl std::str::FromStr for Address {
    type Err = TicketError;

    /// `HOST:PORT`, `IPv4:PORT` or `[IPv6]:PORT`.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        let (name, port) = text.rsplit_once(':').ok_or(TicketError::BadAddress)?;
        let name = HostName::new(name).ok_or(TicketError::BadAddress)?;
        Ok(Self::Name(name, port.parse().map_err(|_| TicketError::BadAddress)?))
    }
}

/// What a reader of a job holds.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Opens sessions.
    pub ro_secret: RoSecret,
    /// Checks manifests.
    pub verify_key: VerifyKey,
    /// Where the job is served; at most [`limits::TICKET_ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
}

/// Why text is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not begin with the prefix.
    #[error("this is not a ticket: one begins with '{PREFIX}'")]
    NotATicket,
    /// A version this build does not know.
    #[error("the ticket is of a newer version than this program knows")]
    Version,
    /// Characters outside the alphabet, or over the limit.
    #[error("the ticket has characters that do not belong in one")]
    BadText,
    /// The checksum does not match.
    #[error("the ticket was mistyped or cut off: its checksum does not match")]
    Checksum,
    /// The checksum matches, the content makes no sense.
    #[error("the ticket is malformed")]
    Malformed,
    /// An address that cannot be one.
    #[error("an address must be HOST:PORT, IPV4:PORT or [IPV6]:PORT")]
    BadAddress,
}

impl Ticket {
    /// Whether this is a ticket of a sealed job: whoever has it can keep what is offered, and not read it.
    #[must_use]
    pub fn is_keepers(&self) -> bool {
        self.ro_secret.as_bytes() == RoSecret::of_keepers(&self.verify_key).as_bytes()
    }

    /// The ticket as text, to be shown to its owner only.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut body = Zeroizing::new(Vec::with_capacity(512));
        body.put(self.ro_secret.as_bytes());
        body.put(self.verify_key.as_bytes());
        let addresses = &self.addresses[..self.addresses.len().min(limits::TICKET_ADDRESSES_MAX)];
        body.put_u8(u8::try_from(addresses.len()).expect("at most 16"));
        for address in addresses {
            match address {
                Address::Socket(SocketAddr::V4(socket)) => {
                    body.put_u8(KIND_IPV4);
                    body.put(&socket.ip().octets());
                    body.put_u16(socket.port());
                }
                Address::Socket(SocketAddr::V6(socket)) => {
                    body.put_u8(KIND_IPV6);
                    body.put(&socket.ip().octets());
                    body.put_u16(socket.port());
                }
                Address::Name(name, port) => {
                    body.put_u8(KIND_NAME);
                    body.put_u8(u8::try_from(name.0.len()).expect("at most 253"));
                    body.put(name.0.as_bytes());
                    body.put_u16(*port);
                }
            }
        }
        let sum = checksum(&body);
        body.put(&sum);
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str(PREFIX);
        let mut encoded = Zeroizing::new(BASE32_NOPAD.encode(&body));
        encoded.make_ascii_lowercase();
        text.push_str(&encoded);
        text
    }

    /// Reads a ticket; white space in it (from line wrapping) and the case of letters do not matter.
    ///
    /// # Errors
    /// Says what is wrong with the text, and never repeats it.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        if text.len() > limits::TICKET_CHARS_MAX {
            return Err(TicketError::BadText);
        }
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(text.chars().filter(|c| !c.is_ascii_whitespace()));
        compact.make_ascii_lowercase();
        let Some(encoded) = compact.strip_prefix(PREFIX) else {
            let versioned = compact.strip_prefix("sealift").and_then(|rest| rest.chars().next());
            return Err(match versioned {
                Some('2'..='9') => TicketError::Version,
                _ => TicketError::NotATicket,
            });
        };
        let bytes = BASE32_NOPAD_NOCASE.decode(encoded.as_bytes()).map_err(|_| TicketError::BadText)?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Checksum)?;
        if checksum(body) != *sum {
            return Err(TicketError::Checksum);
        }
        Self::parse(body)
    }

    fn parse(body: &[u8]) -> Result<Self, TicketError> {
        let malformed = TicketError::Malformed;
        let mut reader = Reader::new(body);
        let ro_secret = Zeroizing::new(reader.array::<KEY_BYTES>().ok_or(malformed)?);
        let verify_key = reader.array::<KEY_BYTES>().ok_or(malformed)?;
        let count = usize::from(reader.u8().ok_or(malformed)?);
        if count > limits::TICKET_ADDRESSES_MAX {
            return Err(malformed);
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            addresses.push(parse_address(&mut reader).ok_or(malformed)?);
        }
        if !reader.is_empty() {
            return Err(malformed);
        }
        Ok(Self {
            ro_secret: RoSecret::from_bytes(&ro_secret),
            verify_key: VerifyKey::from_bytes(&verify_key).map_err(|_| malformed)?,
            addresses,
        })
    }
}

fn parse_address(reader: &mut Reader<'_>) -> Option<Address> {
    let ip: IpAddr = match reader.u8()? {
        KIND_IPV4 => Ipv4Addr::from(reader.array::<4>()?).into(),
        KIND_IPV6 => Ipv6Addr::from(reader.array::<16>()?).into(),
        KIND_NAME => {
            let len = usize::from(reader.u8()?);
            let name = std::str::from_utf8(reader.take(len)?).ok()?;
            return Some(Address::Name(HostName::new(name)?, reader.u16()?));
        }
        _ => return None,
    };
    Some(Address::Socket(SocketAddr::new(ip, reader.u16()?)))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::new_with_prefix(CHECKSUM_DOMAIN).chain_update(body).finalize();
    *digest.first_chunk().expect("32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RwSeed;
    use proptest::prelude::*;

    fn ticket(addresses: Vec<Address>) -> Ticket {
        let seed = RwSeed::new(&[7; 32]);
        Ticket { ro_secret: seed.ro_secret(), verify_key: seed.verify_key(), addresses }
    }

    fn any_address() -> impl Strategy<Value = Address> {
        prop_oneof![
            any::<SocketAddr>().prop_map(|s| Address::Socket(SocketAddr::new(s.ip(), s.port()))),
            ("[a-z0-9.-]{1,253}", any::<u16>())
                .prop_map(|(name, port)| Address::Name(HostName::new(&name).expect("plain"), port)),
        ]
    }

    #[test]
    fn a_mistyped_ticket_is_told_from_a_foreign_text() {
        let text = ticket(vec!["10.0.0.1:3939".parse().expect("address")]).encode();
        let mut wrong = text.to_string();
        let last = wrong.pop().expect("not empty");
        wrong.push(if last == 'a' { 'e' } else { 'a' });
        assert_eq!(Ticket::decode(&wrong).unwrap_err(), TicketError::Checksum);
        assert_eq!(Ticket::decode("hello").unwrap_err(), TicketError::NotATicket);
        assert_eq!(Ticket::decode("sealift2abc").unwrap_err(), TicketError::Version);
        assert_eq!(Ticket::decode("sealift1!!").unwrap_err(), TicketError::BadText);
        assert_eq!(Ticket::decode("sealift1").unwrap_err(), TicketError::Checksum);
    }

    #[test]
    fn wrapped_and_shouted_tickets_are_read() {
        let text = ticket(vec!["host.example:3939".parse().expect("address")]).encode();
        let (front, back) = text.split_at(40);
        let wrapped = format!("  {}\n {}\r\n", front.to_ascii_uppercase(), back);
        assert_eq!(Ticket::decode(&wrapped).expect("valid").encode(), text);
    }

    proptest! {
        #[test]
        fn round_trip(addresses in proptest::collection::vec(any_address(), 0..16)) {
            let text = ticket(addresses.clone()).encode();
            prop_assert_eq!(Ticket::decode(&text).expect("valid").addresses, addresses);
        }

        #[test]
        fn every_single_wrong_character_is_caught(at in 0usize..130, to in "[a-z2-7]") {
            let text = ticket(vec![]).encode();
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            let wrong = format!("{}{}{}", &text[..at], to, &text[at + 1..]);
            if wrong != *text {
                prop_assert!(Ticket::decode(&wrong).is_err());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(sealift1)?[a-z2-7]{0,200}") {
            let _ = Ticket::decode(&text);
        }

        #[test]
        fn arbitrary_content_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Ticket::parse(&body);
        }
    }
}
