//! A receiver's control connection: the manifest as far as it has credit, pings, and its verdict at the end.

use super::serve::{Ended, Halves, Happened, Serve, Serving, close, protocol};
use sealift_net::{ConnectionReader, ConnectionWriter, FrameReader, FrameWriter};
use sealift_proto::limits::{CREDIT_SEGMENTS_MAX, DEAD_PEER_TIMEOUT_MS, PING_INTERVAL_MS, STRIKES_MAX};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::session::Session;
use sealift_proto::wire::{Close, CloseCode, Credit, Finished, FrameHeader, FrameKind, Reject};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Control frames that were read and wait to be heard.
const FRAMES_AHEAD_MAX: usize = 16;
/// A peer that takes nothing for so long is dead.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_millis(DEAD_PEER_TIMEOUT_MS);

type Frame = (FrameHeader, Vec<u8>);

/// Serves the connection until the receiver is done or gone.
///
/// # Errors
/// How it ended, if not by the receiver's having finished.
pub async fn run(
    serving: &Serving,
    serve: &Arc<Serve>,
    wanted: SegmentSeq,
    session: Session,
    (reader, writer): &mut Halves,
) -> Result<(), Ended> {
    let _ = serving.happened.send(Happened::Connected(serve.peer, serve.carrier)).await;
    let (frames, mut heard) = mpsc::channel(FRAMES_AHEAD_MAX);
    // Reading a frame must not be given up half-way, so it goes on beside everything else.
    let reading = read(reader, session, frames);
    let talking = talk(serving, serve, serving.log.serve_from(wanted), &mut heard, writer);
    tokio::select! {
        ended = reading => Err(ended),
        done = talking => done,
    }
}

async fn read(
    reader: &mut FrameReader<ConnectionReader>,
    mut session: Session,
    frames: mpsc::Sender<Frame>,
) -> Ended {
    loop {
        let frame = async {
            let header = reader.header().await?;
            session.admit(header.kind).map_err(protocol)?;
            Ok::<_, Ended>((header, reader.body(header).await?))
        };
        match frame.await {
            Ok(frame) => {
                if frames.send(frame).await.is_err() {
                    // The other half has ended and says why.
                    std::future::pending::<()>().await;
                }
            }
            Err(ended) => return ended,
        }
    }
}

async fn talk(
    serving: &Serving,
    serve: &Arc<Serve>,
    mut next: SegmentSeq,
    heard: &mut mpsc::Receiver<Frame>,
    writer: &mut FrameWriter<ConnectionWriter>,
) -> Result<(), Ended> {
    let mut segments = serving.log.watch();
    let mut ending = serving.ending.clone();
    let mut credit = 0_u32;
    let mut rejects = 0;
    let mut last_heard = Instant::now();
    let mut ticks = interval(Duration::from_millis(PING_INTERVAL_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let end = *segments.borrow_and_update();
        while credit > 0 && next < end {
            let Some(segment) = serving.log.segment(next)? else { break };
            writer.send(FrameKind::Segment, 0, &segment).await?;
            next.0 += 1;
            credit -= 1;
        }
        tokio::select! {
            frame = heard.recv() => {
                let Some((header, body)) = frame else { return Err(Ended::Lost("closed".into())) };
                last_heard = Instant::now();
                match header.kind {
                    FrameKind::Credit => {
                        credit += Credit::decode(&body).map_err(protocol)?.segments;
                        if credit > CREDIT_SEGMENTS_MAX {
                            return Err(Ended::Refused(CloseCode::Flood, "too much credit".into()));
                        }
                    }
                    FrameKind::Reject => {
                        // A block that did not match: if the file has changed, the scanner finds it so.
                        let rejected = Reject::decode(&body).map_err(protocol)?;
                        rejects += 1;
                        if rejects > STRIKES_MAX {
                            return Err(Ended::Refused(CloseCode::Flood, "too many rejects".into()));
                        }
                        super::data::report_if_changed(serving, rejected.file)?;
                    }
                    FrameKind::Finished => {
                        let finished = Finished::decode(&body).map_err(protocol)?;
                        close(writer, CloseCode::Done, String::new()).await;
                        let sent = serve.sent_bytes.load(Ordering::Relaxed);
                        let _ = serving.happened.send(Happened::Finished(serve.peer, finished, sent)).await;
                        return Ok(());
                    }
                    FrameKind::Ping => writer.send(FrameKind::Pong, header.request, &[]).await?,
                    FrameKind::Close => {
                        let Close { code, reason } = Close::decode(&body).map_err(protocol)?;
                        return Err(Ended::Lost(format!("closed by the receiver ({code:?}: {reason})")));
                    }
                    _ => {}
                }
            }
            changed = segments.changed(), if credit > 0 => {
                if changed.is_err() {
                    return Err(Ended::Refused(CloseCode::Internal, "the scan has ended".into()));
                }
            }
            _ = ticks.tick() => {
                if last_heard.elapsed() >= DEAD_PEER_TIMEOUT {
                    return Err(Ended::Lost("silent for too long".into()));
                }
                writer.send(FrameKind::Ping, 0, &[]).await?;
            }
            _ = ending.wait_for(|&ending| ending) => {
                return Err(Ended::Refused(CloseCode::ShuttingDown, "the sender is ending".into()));
            }
        }
    }
}
