//! Frames over a byte stream: reads a header, checks it, then reads exactly its body.
//!
//! Owns neither the session's state (see `sealift_proto::session`) nor the payload's buffers: a payload is decrypted
//! straight into the caller's, and encrypted straight out of it.

use crate::limit::Limiter;
use sealift_proto::limits::{DEAD_PEER_TIMEOUT_MS, FRAME_HEADER_BYTES};
use sealift_proto::wire::{FrameError, FrameHeader, FrameKind};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// What is written at a time: a batch of full records, little enough for a slow peer to show that it lives.
const WRITE_PART_BYTES: usize = 256 << 10;

async fn unless_dead(write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let dead = || io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing");
    timeout(Duration::from_millis(DEAD_PEER_TIMEOUT_MS), write).await.unwrap_or_else(|_| Err(dead()))
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Reads frames.
pub struct FrameReader<R>(R);

/// Writes frames.
pub struct FrameWriter<W>(W);

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames from a stream.
    pub fn new(stream: R) -> Self {
        Self(stream)
    }

    /// The next frame's header. Its length is within its kind's limit. Not cancel safe.
    ///
    /// # Errors
    /// If the connection broke or ended, or the header is none.
    pub async fn header(&mut self) -> Result<FrameHeader, ReadError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.0.read_exact(&mut bytes).await?;
        Ok(FrameHeader::decode(&bytes)?)
    }

    /// The body of a frame that is a message or a segment, not blocks.
    ///
    /// # Errors
    /// If the connection broke.
    ///
    /// # Panics
    /// For a frame of blocks.
    pub async fn body(&mut self, header: FrameHeader) -> Result<Vec<u8>, ReadError> {
        assert!(header.kind != FrameKind::Blocks, "blocks are read into pooled buffers");
        // Bounded by the kind's limit, which the header was checked against.
        let mut body = vec![0; header.body_bytes as usize];
        self.0.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Fills a buffer with the next bytes of a body.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.0.read_exact(buffer).await?;
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Frames to a stream.
    pub fn new(stream: W) -> Self {
        Self(stream)
    }

    /// The stream.
    pub const fn get_ref(&self) -> &W {
        &self.0
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn send(&mut self, kind: FrameKind, request: u64, body: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
        frame.extend_from_slice(&FrameHeader::new(kind, body.len(), request).encode());
        frame.extend_from_slice(body);
        self.send_encoded(&frame).await
    }

    /// Sends bytes that are whole frames already. A peer that takes nothing for [`DEAD_PEER_TIMEOUT_MS`] is given up;
    /// one that takes little is not.
    ///
    /// # Errors
    /// If the connection broke, or the peer takes nothing.
    pub async fn send_encoded(&mut self, frames: &[u8]) -> io::Result<()> {
        for part in frames.chunks(WRITE_PART_BYTES) {
            unless_dead(self.0.write_all(part)).await?;
        }
        unless_dead(self.0.flush()).await
    }

    /// Sends bytes that are whole frames already, as fast as the limit lets them pass.
    ///
    /// # Errors
    /// As [`FrameWriter::send_encoded`].
    pub async fn send_limited(&mut self, mut frames: &[u8], limiter: &Limiter) -> io::Result<()> {
        while !frames.is_empty() {
            let (part, rest) = frames.split_at(limiter.part(frames.len()));
            limiter.pass(part.len()).await;
            self.send_encoded(part).await?;
            frames = rest;
        }
        Ok(())
    }

    /// Ends the stream in order, so that the peer can tell the end from a cut.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
