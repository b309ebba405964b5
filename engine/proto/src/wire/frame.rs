//! Frame headers, and the frames that are no structured message: fixed little-endian layouts.

use crate::block::{BlockIndex, FileId};
use crate::codec::Reader;
use crate::limits;

/// What a frame is. Each kind has its own limit of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The dialler's first frame.
    Hello,
    /// The listener's first frame.
    Welcome,
    /// The last frame: why the connection ends.
    Close,
    /// Asks for a [`FrameKind::Pong`].
    Ping,
    /// Answers a ping, with its request number.
    Pong,
    /// How many more segments the receiver takes.
    Credit,
    /// A manifest segment, as signed.
    Segment,
    /// A receiver asks for ranges of blocks.
    Fetch,
    /// One range of blocks.
    Blocks,
    /// One range that cannot be had.
    RangeError,
    /// Blocks that did not match the manifest.
    Reject,
    /// The receiver has everything.
    Finished,
    /// What a receiver that serves has.
    Have,
    /// Others who serve.
    Peers,
}

impl FrameKind {
    const ALL: [(u16, Self); 14] = [
        (1, Self::Hello),
        (2, Self::Welcome),
        (3, Self::Close),
        (4, Self::Ping),
        (5, Self::Pong),
        (6, Self::Credit),
        (7, Self::Segment),
        (8, Self::Fetch),
        (9, Self::Blocks),
        (10, Self::RangeError),
        (11, Self::Reject),
        (12, Self::Finished),
        (13, Self::Have),
        (14, Self::Peers),
    ];

    fn code(self) -> u16 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).expect("every kind is listed").0
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().find(|(of, _)| *of == code).map(|(_, kind)| *kind)
    }

    /// The longest body a frame of this kind may have, in bytes.
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        match self {
            Self::Ping | Self::Pong => 0,
            Self::Hello
            | Self::Welcome
            | Self::Close
            | Self::Credit
            | Self::Reject
            | Self::Finished
            | Self::Peers => limits::MESSAGE_BYTES_MAX,
            Self::Have => 4 + 12 * limits::HAVE_SPANS_MAX + 16 * limits::HAVE_RANGES_MAX,
            Self::Segment => limits::SEGMENT_BYTES_MAX,
            Self::Fetch => 2 + 16 * limits::FETCH_RANGES_MAX,
            Self::Blocks => limits::BLOCKS_PREFIX_BYTES + limits::BLOCKS_PAYLOAD_BYTES_MAX,
            Self::RangeError => RangeError::BYTES,
        }
    }
}

/// The 16 bytes before every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: FrameKind,
    /// Its length in bytes.
    pub body_bytes: u32,
    /// The request it belongs to, or 0.
    pub request: u64,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind this version does not know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u16),
    /// Longer than its kind may be.
    #[error("a frame of {0:?} with {1} bytes is too long")]
    TooLong(FrameKind, u32),
    /// A reserved field is used.
    #[error("a reserved field of a frame is used")]
    Reserved,
    /// The body's layout is wrong.
    #[error("a frame of {0:?} is malformed")]
    Malformed(FrameKind),
}

impl FrameHeader {
    /// The header of a frame.
    ///
    /// # Panics
    /// If the body is longer than its kind may be.
    #[must_use]
    pub fn new(kind: FrameKind, body_bytes: usize, request: u64) -> Self {
        assert!(body_bytes <= kind.body_bytes_max(), "a frame of {kind:?} with {body_bytes} bytes");
        Self { kind, body_bytes: u32::try_from(body_bytes).expect("limits are below 4 GiB"), request }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; limits::FRAME_HEADER_BYTES] {
        let mut bytes = [0; limits::FRAME_HEADER_BYTES];
        bytes[..2].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&self.request.to_le_bytes());
        bytes
    }

    /// Reads a header and checks the length against the kind's limit.
    ///
    /// # Errors
    /// If the kind is unknown, a reserved field is used or the frame is too long.
    pub fn decode(bytes: &[u8; limits::FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [k0, k1, r0, r1, l0, l1, l2, l3, request @ ..] = *bytes;
        let code = u16::from_le_bytes([k0, k1]);
        let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownKind(code))?;
        if [r0, r1] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        if body_bytes as usize > kind.body_bytes_max() {
            return Err(FrameError::TooLong(kind, body_bytes));
        }
        Ok(Self { kind, body_bytes, request: u64::from_le_bytes(request) })
    }
}

/// What stands before the payload in a frame of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlocksPrefix {
    /// Whose blocks.
    pub file: FileId,
    /// The first of them.
    pub first: BlockIndex,
    /// How many.
    pub count: u32,
}

impl BlocksPrefix {
    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; limits::BLOCKS_PREFIX_BYTES] {
        let mut bytes = [0; limits::BLOCKS_PREFIX_BYTES];
        bytes[..8].copy_from_slice(&self.file.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[12..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// Reads a prefix; whether it makes sense is for the one who asked.
    #[must_use]
    pub fn decode(bytes: &[u8; limits::BLOCKS_PREFIX_BYTES]) -> Self {
        let mut reader = Reader::new(bytes);
        let whole = "the array has all fields";
        Self {
            file: FileId(reader.u64().expect(whole)),
            first: BlockIndex(reader.u32().expect(whole)),
            count: reader.u32().expect(whole),
        }
    }
}

/// Why a range cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeProblem {
    /// No such file, or not one with content.
    UnknownFile,
    /// Not within the file.
    OutOfRange,
    /// The file has changed since it was hashed; the manifest will say what became of it.
    Changed,
    /// The source cannot read it.
    Unreadable,
    /// Asked for again while unanswered, or far too often.
    Excessive,
    /// A receiver that serves does not have it, or not any more.
    NotHere,
}

/// A range that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeError {
    /// Which range: as it was asked for.
    pub range: BlocksPrefix,
    /// Why.
    pub problem: RangeProblem,
}

impl RangeError {
    /// Bytes of its layout.
    pub const BYTES: usize = limits::BLOCKS_PREFIX_BYTES + 4;

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let code: u32 = match self.problem {
            RangeProblem::UnknownFile => 1,
            RangeProblem::OutOfRange => 2,
            RangeProblem::Changed => 3,
            RangeProblem::Unreadable => 4,
            RangeProblem::Excessive => 5,
            RangeProblem::NotHere => 6,
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.range.encode());
        bytes[16..].copy_from_slice(&code.to_le_bytes());
        bytes
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// If the length or the code is wrong.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let malformed = FrameError::Malformed(FrameKind::RangeError);
        let (range, code) = body.split_first_chunk::<16>().ok_or(malformed)?;
        let problem = match u32::from_le_bytes(code.try_into().map_err(|_| malformed)?) {
            1 => RangeProblem::UnknownFile,
            2 => RangeProblem::OutOfRange,
            3 => RangeProblem::Changed,
            4 => RangeProblem::Unreadable,
            5 => RangeProblem::Excessive,
            6 => RangeProblem::NotHere,
            _ => return Err(malformed),
        };
        Ok(Self { range: BlocksPrefix::decode(range), problem })
    }
}
