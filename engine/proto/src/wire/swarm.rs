//! What members of a swarm tell each other: who they are, who else there is, and what they have.

use super::frame::{BlocksPrefix, FrameKind};
use super::message::MessageError;
use crate::block::FileId;
use crate::codec::Put as _;
use crate::limits;
use crate::member::{Label, NodeId};
use prost::Message as _;
use std::net::{IpAddr, SocketAddr};

/// What a member says of itself in its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// The port on which it serves, or 0 for one that does not.
    pub port: u16,
    /// Where it stands.
    pub label: Label,
}

/// Adjacent files, by their numbers, all blocks of which are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// The first.
    pub first: FileId,
    /// How many numbers. Those among them that have no content say nothing.
    pub count: u32,
}

/// What a receiver has, beyond what it said before: verified, synced and indexed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// Whole files.
    pub files: Vec<FileSpan>,
    /// Blocks of files that are not whole. Here a range may be longer than a run.
    pub blocks: Vec<BlocksPrefix>,
}

/// Somebody who serves the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// Where it says that it stands; empty, if that is not known.
    pub label: Label,
}

/// Others who serve the job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// At most [`limits::PEERS_TOLD_MAX`].
    pub peers: Vec<Peer>,
}

/// What stands around a label in a message, at most: its field and length, and one more byte of the length around it.
const LABEL_AROUND_BYTES: usize = 4;

mod proto {
    #[derive(prost::Message)]
    pub(super) struct Peer {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) node: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) ip: Vec<u8>,
        #[prost(uint32, tag = "3")]
        pub(super) port: u32,
        #[prost(string, tag = "4")]
        pub(super) label: String,
    }
    #[derive(prost::Message)]
    pub(super) struct Peers {
        #[prost(message, repeated, tag = "1")]
        pub(super) peers: Vec<Peer>,
    }
}

impl Member {
    /// From the fields of a message; `None` if it says nothing.
    pub(super) fn of_fields(
        node: Option<Vec<u8>>,
        port: u32,
        label: &str,
        error: MessageError,
    ) -> Result<Option<Self>, MessageError> {
        let Some(node) = node else { return Ok(None) };
        Ok(Some(Self {
            node: NodeId(node.try_into().map_err(|_| error)?),
            port: u16::try_from(port).map_err(|_| error)?,
            label: Label::parse(label).map_err(|_| error)?,
        }))
    }
}

impl Have {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.blocks.is_empty()
    }

    /// The bytes: two counts (2 each), spans of files (12 each), ranges of blocks (16 each).
    ///
    /// # Panics
    /// If there are more than [`limits::HAVE_SPANS_MAX`] or [`limits::HAVE_RANGES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.files.len() <= limits::HAVE_SPANS_MAX, "too many files");
        assert!(self.blocks.len() <= limits::HAVE_RANGES_MAX, "too many blocks");
        let mut body = Vec::with_capacity(4 + 12 * self.files.len() + 16 * self.blocks.len());
        body.put_u16(u16::try_from(self.files.len()).expect("at most HAVE_SPANS_MAX"));
        body.put_u16(u16::try_from(self.blocks.len()).expect("at most HAVE_RANGES_MAX"));
        for span in &self.files {
            body.put(&span.first.0.to_le_bytes());
            body.put(&span.count.to_le_bytes());
        }
        for range in &self.blocks {
            body.put(&range.encode());
        }
        body
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If the counts are not what follows, or a span or range is empty or goes past the last number.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Have);
        let (counts, rest) = body.split_first_chunk::<4>().ok_or(error)?;
        let spans = usize::from(u16::from_le_bytes([counts[0], counts[1]]));
        let ranges = usize::from(u16::from_le_bytes([counts[2], counts[3]]));
        if spans > limits::HAVE_SPANS_MAX
            || ranges > limits::HAVE_RANGES_MAX
            || rest.len() != 12 * spans + 16 * ranges
        {
            return Err(error);
        }
        let (spans, ranges) = rest.split_at(12 * spans);
        let files = spans.as_chunks::<12>().0.iter().map(|span| {
            let (first, count) = span.split_at(8);
            let first = u64::from_le_bytes(first.try_into().expect("8 of 12 bytes"));
            let count = u32::from_le_bytes(count.try_into().expect("the other 4"));
            let ends = first.checked_add(count.into());
            (count > 0 && ends.is_some()).then_some(FileSpan { first: FileId(first), count }).ok_or(error)
        });
        let blocks = ranges.as_chunks::<16>().0.iter().map(|range| {
            let range = BlocksPrefix::decode(range);
            let ends = range.first.0.checked_add(range.count);
            (range.count > 0 && ends.is_some()).then_some(range).ok_or(error)
        });
        Ok(Self { files: files.collect::<Result<_, _>>()?, blocks: blocks.collect::<Result<_, _>>()? })
    }
}

impl Peers {
    /// The bytes; of more than [`limits::PEERS_TOLD_MAX`] the first ones, and labels as far as there is room for them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let peers = self.peers.iter().take(limits::PEERS_TOLD_MAX).map(|peer| proto::Peer {
            node: peer.node.0.to_vec(),
            ip: match peer.address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: peer.address.port().into(),
            label: String::new(),
        });
        let mut told = proto::Peers { peers: peers.collect() };
        let mut room = limits::MESSAGE_BYTES_MAX.saturating_sub(told.encoded_len());
        for (peer, named) in told.peers.iter_mut().zip(&self.peers) {
            let label = named.label.as_str();
            let needs = label.len() + LABEL_AROUND_BYTES;
            if !label.is_empty() && needs <= room {
                room -= needs;
                label.clone_into(&mut peer.label);
            }
        }
        told.encode_to_vec()
    }

    /// Reads the body of a frame. Addresses that nobody can be dialled at (unspecified, multicast, port 0) are left out.
    ///
    /// # Errors
    /// If it is malformed, or too many.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Peers);
        let told = proto::Peers::decode(body).map_err(|_| error)?;
        if told.peers.len() > limits::PEERS_TOLD_MAX {
            return Err(error);
        }
        let mut peers = Vec::with_capacity(told.peers.len());
        for peer in told.peers {
            let ip = match peer.ip.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(peer.ip).map_err(|_| error)?),
                _ => IpAddr::from(<[u8; 16]>::try_from(peer.ip).map_err(|_| error)?).to_canonical(),
            };
            let port = u16::try_from(peer.port).map_err(|_| error)?;
            let node = NodeId(peer.node.try_into().map_err(|_| error)?);
            let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            if port != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast {
                let label = Label::parse(&peer.label).map_err(|_| error)?;
                peers.push(Peer { node, address: SocketAddr::new(ip, port), label });
            }
        }
        Ok(Self { peers })
    }
}
