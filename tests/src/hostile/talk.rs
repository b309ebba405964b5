//! One connection of a peer that lies: frames in, and frames or anything else out.

use super::DataSet;
use super::sender::{Log, Seen};
use sealift_net::{ConnectionReader, ConnectionWriter, FrameReader, FrameWriter, ReadError};
use sealift_proto::block::{BlockIndex, FileId};
use sealift_proto::limits::BLOCKS_PREFIX_BYTES;
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::wire::{
    BlocksPrefix, Channel, Close, CloseCode, Credit, FetchRequest, Finished, FrameHeader, FrameKind, Hello,
    RangeError, RangeProblem, Reject, Welcome,
};
use std::io;

/// What came of saying or hearing something.
pub type Said<T> = Result<T, ReadError>;

/// The name that a hostile sender gives its sessions.
pub const SESSION: [u8; 16] = [7; 16];

/// A connection.
pub struct Talk {
    /// The peer's greeting, where it has greeted.
    pub hello: Option<Hello>,
    /// How many connections of this purpose there were before.
    pub nth: usize,
    reader: FrameReader<ConnectionReader>,
    writer: FrameWriter<ConnectionWriter>,
    log: Log,
    /// Segments that may be sent.
    credit: u32,
}

/// The answer to one range.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, in a frame of the range that was asked for.
    Blocks(Vec<u8>),
    /// It cannot be had.
    Error(RangeProblem),
    /// These bytes on the wire.
    Raw(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// A frame of any kind and any claimed length.
#[must_use]
pub fn raw_frame(kind: u16, claimed_bytes: u32, request: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(16 + body.len());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&claimed_bytes.to_le_bytes());
    frame.extend_from_slice(&request.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A range of blocks, as fetches and their answers name it.
#[must_use]
pub fn range(file: u64, first: u32, count: u32) -> BlocksPrefix {
    BlocksPrefix { file: FileId(file), first: BlockIndex(first), count }
}

/// A frame of blocks, as it should be but for what the caller makes of it.
///
/// # Panics
/// If the content is longer than any frame.
#[must_use]
pub fn blocks_frame(request: u64, range: BlocksPrefix, content: &[u8]) -> Vec<u8> {
    let mut body = range.encode().to_vec();
    body.extend_from_slice(content);
    raw_frame(9, u32::try_from(body.len()).expect("a frame"), request, &body)
}

fn malformed(kind: FrameKind) -> ReadError {
    ReadError::Frame(sealift_proto::wire::FrameError::Malformed(kind))
}

impl Talk {
    /// A connection after its handshake.
    #[must_use]
    pub fn new(reader: ConnectionReader, writer: ConnectionWriter, log: Log, nth: usize) -> Self {
        let (reader, writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        Self { hello: None, nth, reader, writer, log, credit: 0 }
    }

    /// Hears one frame and writes it into the log. Pings are answered.
    ///
    /// # Errors
    /// At the end of the connection, or if it is no frame.
    pub async fn hear(&mut self) -> Said<(FrameHeader, Vec<u8>)> {
        let header = self.reader.header().await?;
        let body = if header.kind == FrameKind::Blocks {
            let mut body = vec![0; header.body_bytes as usize];
            self.reader.fill(&mut body).await?;
            body
        } else {
            self.reader.body(header).await?
        };
        let bad = |_| malformed(header.kind);
        match header.kind {
            FrameKind::Hello => {
                let hello = Hello::decode(&body).map_err(bad)?;
                self.log.note(Seen::Hello(hello.clone()));
                self.hello = Some(hello);
            }
            FrameKind::Credit => {
                let credit = Credit::decode(&body).map_err(bad)?.segments;
                self.credit += credit;
                self.log.note(Seen::Credit(credit));
            }
            FrameKind::Fetch => {
                let fetch = FetchRequest::decode(&body).map_err(bad)?;
                self.log.note(Seen::Fetch(header.request, fetch.ranges));
            }
            FrameKind::Reject => self.log.note(Seen::Reject(Reject::decode(&body).map_err(bad)?)),
            FrameKind::Finished => self.log.note(Seen::Finished(Finished::decode(&body).map_err(bad)?)),
            FrameKind::Close => self.log.note(Seen::Close(Close::decode(&body).map_err(bad)?)),
            FrameKind::Ping => self.say(FrameKind::Pong, header.request, &[]).await?,
            _ => {}
        }
        Ok((header, body))
    }

    /// Hears frames until one is of this kind.
    ///
    /// # Errors
    /// At the end of the connection.
    pub async fn hear_until(&mut self, kind: FrameKind) -> Said<(FrameHeader, Vec<u8>)> {
        loop {
            let heard = self.hear().await?;
            if heard.0.kind == kind {
                return Ok(heard);
            }
        }
    }

    /// Hears frames until the peer's last: what it closed with, or `None` if it just went.
    pub async fn hear_out(&mut self) -> Option<Close> {
        loop {
            match self.hear().await {
                Ok((header, body)) if header.kind == FrameKind::Close => return Close::decode(&body).ok(),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits until the peer says nothing more, and says nothing oneself: not even to pings.
    ///
    /// # Errors
    /// At the end of the connection, always.
    pub async fn stare(&mut self) -> Said<()> {
        let mut sink = [0; 1];
        loop {
            self.reader.fill(&mut sink).await?;
        }
    }

    /// Writes something of the script's own into the log.
    pub fn log_mark(&self, mark: &'static str) {
        self.log.note(Seen::Mark(mark));
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn say(&mut self, kind: FrameKind, request: u64, body: &[u8]) -> Said<()> {
        Ok(self.writer.send(kind, request, body).await?)
    }

    /// Sends anything.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn say_raw(&mut self, bytes: &[u8]) -> Said<()> {
        Ok(self.writer.send_encoded(bytes).await?)
    }

    /// Ends the sending side in order.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn hang_up(&mut self) -> Said<()> {
        Ok(self.writer.shutdown().await?)
    }

    /// Sends a close.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Said<()> {
        let close = Close { code, reason: reason.to_owned() };
        self.say(FrameKind::Close, 0, &close.encode()).await
    }

    /// Answers a hello as a sender does.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn welcome(&mut self) -> Said<()> {
        self.welcome_in(1).await
    }

    /// Answers a hello, choosing a version.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn welcome_in(&mut self, version: u32) -> Said<()> {
        let welcome = Welcome {
            version,
            session: SESSION,
            fetches_outstanding: 32,
            snapshot: SegmentSeq(0),
            member: None,
            partial: false,
        };
        self.say(FrameKind::Welcome, 0, &welcome.encode()).await
    }

    /// Segments that may be sent and were not.
    #[must_use]
    pub fn credit(&self) -> u32 {
        self.credit
    }

    /// Sends segments as there is credit for them, beginning with the one that was asked for.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn send_segments(&mut self, segments: &[Vec<u8>]) -> Said<()> {
        let first = match self.hello.as_ref().map(|hello| hello.channel) {
            Some(Channel::Control { next_segment }) => usize::try_from(next_segment.0).unwrap_or(usize::MAX),
            _ => 0,
        };
        for segment in segments.iter().skip(first) {
            self.send_segment(segment).await?;
        }
        Ok(())
    }

    /// Sends one segment once there is credit for it.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn send_segment(&mut self, segment: &[u8]) -> Said<()> {
        while self.credit == 0 {
            self.hear().await?;
        }
        self.credit -= 1;
        self.say(FrameKind::Segment, 0, segment).await
    }

    /// Serves a control connection as it should be: these segments, and then whatever comes until the receiver is done.
    ///
    /// # Errors
    /// If the connection broke before that.
    pub async fn serve_manifest(&mut self, segments: &[Vec<u8>]) -> Said<()> {
        self.welcome().await?;
        self.send_segments(segments).await?;
        self.until_finished().await
    }

    /// Serves what comes on a control connection until the receiver has finished or closed.
    ///
    /// # Errors
    /// If the connection broke before that.
    pub async fn until_finished(&mut self) -> Said<()> {
        loop {
            match self.hear().await?.0.kind {
                FrameKind::Finished => {
                    self.close(CloseCode::Done, "").await?;
                    return self.hang_up().await;
                }
                FrameKind::Close => return Ok(()),
                _ => {}
            }
        }
    }

    /// The next fetch on a data connection.
    ///
    /// # Errors
    /// At the end of the connection.
    pub async fn next_fetch(&mut self) -> Said<(u64, Vec<BlocksPrefix>)> {
        let (header, body) = self.hear_until(FrameKind::Fetch).await?;
        let fetch = FetchRequest::decode(&body).map_err(|_| malformed(FrameKind::Fetch))?;
        Ok((header.request, fetch.ranges))
    }

    /// Serves a data connection; `reply` makes each answer from the right one.
    ///
    /// # Errors
    /// At the end of the connection.
    pub async fn serve_blocks(
        &mut self,
        set: &DataSet,
        mut reply: impl FnMut(u64, BlocksPrefix, &[u8]) -> Reply,
    ) -> Said<()> {
        self.welcome().await?;
        loop {
            let (request, ranges) = self.next_fetch().await?;
            for range in ranges {
                let right = set.bytes_of(range).unwrap_or_default();
                self.reply(request, range, reply(request, range, right)).await?;
            }
        }
    }

    /// Serves a data connection as it should be.
    ///
    /// # Errors
    /// At the end of the connection.
    pub async fn serve_honestly(&mut self, set: &DataSet) -> Said<()> {
        self.serve_blocks(set, |_, _, right| Reply::Blocks(right.to_vec())).await
    }

    async fn reply(&mut self, request: u64, range: BlocksPrefix, reply: Reply) -> Said<()> {
        match reply {
            Reply::Blocks(bytes) => self.say_raw(&blocks_frame(request, range, &bytes)).await,
            Reply::Error(problem) => {
                let error = RangeError { range, problem };
                self.say(FrameKind::RangeError, request, &error.encode()).await
            }
            Reply::Raw(bytes) => self.say_raw(&bytes).await,
            Reply::Nothing => Ok(()),
        }
    }

    /// Asks for ranges.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn fetch(&mut self, request: u64, ranges: &[BlocksPrefix]) -> Said<()> {
        let fetch = FetchRequest { ranges: ranges.to_vec() };
        self.say(FrameKind::Fetch, request, &fetch.encode()).await
    }

    /// The next answer on a data connection: its request, its range, and its bytes or why there are none.
    ///
    /// # Errors
    /// At the end of the connection; a close is one.
    pub async fn answer(&mut self) -> Said<(u64, BlocksPrefix, Result<Vec<u8>, RangeProblem>)> {
        let (header, mut body) = self.hear().await?;
        match header.kind {
            FrameKind::Blocks => {
                let content = body.split_off(BLOCKS_PREFIX_BYTES.min(body.len()));
                let prefix = body.try_into().map_err(|_| malformed(FrameKind::Blocks))?;
                Ok((header.request, BlocksPrefix::decode(&prefix), Ok(content)))
            }
            FrameKind::RangeError => {
                let error = RangeError::decode(&body)?;
                Ok((header.request, error.range, Err(error.problem)))
            }
            FrameKind::Close => {
                let close = Close::decode(&body).map_err(|_| malformed(FrameKind::Close))?;
                Err(ReadError::Io(io::Error::other(format!("closed: {close:?}"))))
            }
            other => Err(malformed(other)),
        }
    }
}
