//! The messages in frames: protobuf for what is structured and rare, a fixed layout for what is frequent.
//!
//! The protobuf types stay in here; what leaves is checked.

use super::frame::{BlocksPrefix, FrameKind};
use super::swarm::Member;
use crate::block::{BlockIndex, FileId};
use crate::codec::Put as _;
use crate::limits;
use crate::manifest::SegmentSeq;
use crate::path::escape;
use prost::Message as _;

/// A message that is not what its kind must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0:?} is malformed")]
pub struct MessageError(pub FrameKind);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The first of a session: manifest, credit, verdicts.
    Control {
        /// The segment the receiver wants first; everything before it, it has.
        next_segment: SegmentSeq,
    },
    /// A further one: fetches and blocks.
    Data {
        /// What the listener called the session in its welcome.
        session: [u8; 16],
    },
}

/// The dialler's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version the dialler speaks.
    pub version_min: u32,
    /// The highest.
    pub version_max: u32,
    /// What the connection is for.
    pub channel: Channel,
    /// Who dials; `None` for one that takes no part in a swarm.
    pub member: Option<Member>,
}

/// The listener's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u32,
    /// Names the session for its data connections.
    pub session: [u8; 16],
    /// How many fetches may be unanswered on a connection.
    pub fetches_outstanding: u32,
    /// Where the snapshot begins by whose numbers files are fetched. A sender that was started anew has another one.
    pub snapshot: SegmentSeq,
    /// Who listens; `None` for one that takes no part in a swarm.
    pub member: Option<Member>,
    /// Whether it has only what its frames of [`FrameKind::Have`] say: a receiver, not the source.
    pub partial: bool,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// All is done.
    Done,
    /// A frame that makes no sense here.
    Protocol,
    /// No common version.
    Version,
    /// More than the limits allow.
    Flood,
    /// The program is ending.
    ShuttingDown,
    /// Something failed on this side.
    Internal,
    /// The session is not known (any more).
    UnknownSession,
    /// The manifest was refused.
    BadManifest,
    /// Too many blocks did not match the manifest.
    BadBlocks,
    /// As many sessions are served as can be.
    Busy,
}

impl CloseCode {
    const ALL: [(u32, Self); 10] = [
        (0, Self::Done),
        (1, Self::Protocol),
        (2, Self::Version),
        (3, Self::Flood),
        (4, Self::ShuttingDown),
        (5, Self::Internal),
        (6, Self::UnknownSession),
        (7, Self::BadManifest),
        (8, Self::BadBlocks),
        (9, Self::Busy),
    ];
}

/// The last message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why.
    pub code: CloseCode,
    /// More, for people; already escaped.
    pub reason: String,
}

/// More segments may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// How many more.
    pub segments: u32,
}

/// Blocks that did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Whose.
    pub file: FileId,
    /// Which block.
    pub block: BlockIndex,
}

/// The receiver is done with all that it could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Files that are in place, fetched or not.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of content that were fetched.
    pub bytes_transferred: u64,
    /// Entries that could not be had.
    pub failed: u64,
}

/// The ranges a receiver asks for at once; answered in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// From 1 to [`limits::FETCH_RANGES_MAX`].
    pub ranges: Vec<BlocksPrefix>,
}

mod proto {
    #[derive(prost::Message)]
    pub(super) struct Hello {
        #[prost(uint32, tag = "1")]
        pub(super) version_min: u32,
        #[prost(uint32, tag = "2")]
        pub(super) version_max: u32,
        #[prost(uint64, optional, tag = "3")]
        pub(super) next_segment: Option<u64>,
        #[prost(bytes = "vec", optional, tag = "4")]
        pub(super) session: Option<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(super) node: Option<Vec<u8>>,
        #[prost(uint32, tag = "6")]
        pub(super) port: u32,
        #[prost(string, tag = "7")]
        pub(super) label: String,
    }
    #[derive(prost::Message)]
    pub(super) struct Welcome {
        #[prost(uint32, tag = "1")]
        pub(super) version: u32,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) session: Vec<u8>,
        #[prost(uint32, tag = "3")]
        pub(super) fetches_outstanding: u32,
        #[prost(uint64, tag = "4")]
        pub(super) snapshot: u64,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(super) node: Option<Vec<u8>>,
        #[prost(uint32, tag = "6")]
        pub(super) port: u32,
        #[prost(string, tag = "7")]
        pub(super) label: String,
        #[prost(bool, tag = "8")]
        pub(super) partial: bool,
    }
    #[derive(prost::Message)]
    pub(super) struct Close {
        #[prost(uint32, tag = "1")]
        pub(super) code: u32,
        #[prost(string, tag = "2")]
        pub(super) reason: String,
    }
    #[derive(prost::Message)]
    pub(super) struct Credit {
        #[prost(uint32, tag = "1")]
        pub(super) segments: u32,
    }
    #[derive(prost::Message)]
    pub(super) struct Reject {
        #[prost(uint64, tag = "1")]
        pub(super) file: u64,
        #[prost(uint32, tag = "2")]
        pub(super) block: u32,
    }
    #[derive(prost::Message)]
    pub(super) struct Finished {
        #[prost(uint64, tag = "1")]
        pub(super) files: u64,
        #[prost(uint64, tag = "2")]
        pub(super) bytes: u64,
        #[prost(uint64, tag = "3")]
        pub(super) bytes_transferred: u64,
        #[prost(uint64, tag = "4")]
        pub(super) failed: u64,
    }
}

/// How a member is written: who, where, and where it stands.
fn fields_of(member: Option<&Member>) -> (Option<Vec<u8>>, u32, String) {
    member.map_or((None, 0, String::new()), |member| {
        (Some(member.node.0.to_vec()), member.port.into(), member.label.to_string())
    })
}

impl Hello {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (next_segment, session) = match self.channel {
            Channel::Control { next_segment } => (Some(next_segment.0), None),
            Channel::Data { session } => (None, Some(session.to_vec())),
        };
        let (node, port, label) = fields_of(self.member.as_ref());
        proto::Hello {
            version_min: self.version_min,
            version_max: self.version_max,
            next_segment,
            session,
            node,
            port,
            label,
        }
        .encode_to_vec()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Hello);
        let hello = proto::Hello::decode(body).map_err(|_| error)?;
        let channel = match (hello.next_segment, hello.session) {
            (Some(next), None) => Channel::Control { next_segment: SegmentSeq(next) },
            (None, Some(session)) => Channel::Data { session: session.try_into().map_err(|_| error)? },
            _ => return Err(error),
        };
        if hello.version_min > hello.version_max {
            return Err(error);
        }
        let member = Member::of_fields(hello.node, hello.port, &hello.label, error)?;
        Ok(Self { version_min: hello.version_min, version_max: hello.version_max, channel, member })
    }
}

impl Welcome {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (node, port, label) = fields_of(self.member.as_ref());
        proto::Welcome {
            version: self.version,
            session: self.session.to_vec(),
            fetches_outstanding: self.fetches_outstanding,
            snapshot: self.snapshot.0,
            node,
            port,
            label,
            partial: self.partial,
        }
        .encode_to_vec()
    }

    /// Reads the body of a frame; the limit it states is cut to our own.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Welcome);
        let welcome = proto::Welcome::decode(body).map_err(|_| error)?;
        let ours = u32::try_from(limits::FETCHES_OUTSTANDING_MAX).expect("small");
        if welcome.fetches_outstanding == 0 {
            return Err(error);
        }
        Ok(Self {
            version: welcome.version,
            session: welcome.session.try_into().map_err(|_| error)?,
            fetches_outstanding: welcome.fetches_outstanding.min(ours),
            snapshot: SegmentSeq(welcome.snapshot),
            member: Member::of_fields(welcome.node, welcome.port, &welcome.label, error)?,
            partial: welcome.partial,
        })
    }
}

impl Close {
    /// The bytes; a long reason is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let code =
            CloseCode::ALL.iter().find(|(_, code)| *code == self.code).expect("every code is listed").0;
        let mut reason = self.reason.clone();
        reason.truncate(reason.floor_char_boundary(limits::CLOSE_REASON_BYTES_MAX));
        proto::Close { code, reason }.encode_to_vec()
    }

    /// Reads the body of a frame. A code this build does not know is [`CloseCode::Internal`].
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let close = proto::Close::decode(body).map_err(|_| MessageError(FrameKind::Close))?;
        if close.reason.len() > limits::CLOSE_REASON_BYTES_MAX {
            return Err(MessageError(FrameKind::Close));
        }
        let code = CloseCode::ALL.iter().find(|(number, _)| *number == close.code);
        Ok(Self {
            code: code.map_or(CloseCode::Internal, |(_, code)| *code),
            reason: escape(close.reason.as_bytes()),
        })
    }
}

impl Credit {
    /// The bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        proto::Credit { segments: self.segments }.encode_to_vec()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If it is malformed or more than may be asked for at once.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Credit);
        let credit = proto::Credit::decode(body).map_err(|_| error)?;
        if credit.segments > limits::CREDIT_SEGMENTS_MAX {
            return Err(error);
        }
        Ok(Self { segments: credit.segments })
    }
}

impl Reject {
    /// The bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        proto::Reject { file: self.file.0, block: self.block.0 }.encode_to_vec()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let reject = proto::Reject::decode(body).map_err(|_| MessageError(FrameKind::Reject))?;
        Ok(Self { file: FileId(reject.file), block: BlockIndex(reject.block) })
    }
}

impl Finished {
    /// The bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        proto::Finished {
            files: self.files,
            bytes: self.bytes,
            bytes_transferred: self.bytes_transferred,
            failed: self.failed,
        }
        .encode_to_vec()
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let proto::Finished { files, bytes, bytes_transferred, failed } =
            proto::Finished::decode(body).map_err(|_| MessageError(FrameKind::Finished))?;
        Ok(Self { files, bytes, bytes_transferred, failed })
    }
}

impl FetchRequest {
    /// The bytes: a count (2) and the ranges (16 each).
    ///
    /// # Panics
    /// If there are more ranges than a fetch may have.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.ranges.len() <= limits::FETCH_RANGES_MAX, "too many ranges");
        let mut body = Vec::with_capacity(2 + 16 * self.ranges.len());
        body.put_u16(u16::try_from(self.ranges.len()).expect("at most FETCH_RANGES_MAX"));
        for range in &self.ranges {
            body.put(&range.encode());
        }
        body
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If the count is not what follows, or no count a fetch may have.
    pub fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError(FrameKind::Fetch);
        let (count, ranges) = body.split_first_chunk::<2>().ok_or(error)?;
        let count = usize::from(u16::from_le_bytes(*count));
        let (ranges, rest) = ranges.as_chunks::<16>();
        if !rest.is_empty() || ranges.len() != count || !(1..=limits::FETCH_RANGES_MAX).contains(&count) {
            return Err(error);
        }
        Ok(Self { ranges: ranges.iter().map(BlocksPrefix::decode).collect() })
    }
}
