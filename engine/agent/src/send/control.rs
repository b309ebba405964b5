//! A receiver's control connection: the manifest as far as it has credit, pings, and its verdict at the end.

use super::serve::{Ended, Halves, Happened, Serve, Serving, close, protocol};
use super::shelf::Shelf;
use crate::swarm::ReplicaShelf;
use sealift_net::{ConnectionReader, ConnectionWriter, FrameReader, FrameWriter};
use sealift_proto::limits::{CREDIT_SEGMENTS_MAX, DEAD_PEER_TIMEOUT_MS, PING_INTERVAL_MS, STRIKES_MAX};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::session::Session;
use sealift_proto::wire::{
    Close, CloseCode, Credit, Finished, FrameHeader, FrameKind, Member, Peers, Reject,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

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
        // Whoever has everything may be gone as soon as it was told goodbye: then both end, and it is done.
        biased;
        done = talking => done,
        ended = reading => Err(ended),
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
    let mut news = News::new(serving, serve);
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
        news.tell(writer).await?;
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
                        super::data::rejected(serving, rejected.file)?;
                    }
                    FrameKind::Finished => {
                        let finished = Finished::decode(&body).map_err(protocol)?;
                        if finished.failed == 0 {
                            serving.finished(serve);
                        }
                        // Counted before the receiver ends: whoever waits for that may then end the sender.
                        let sent = serve.sent_bytes.load(Ordering::Relaxed);
                        let _ = serving.happened.send(Happened::Finished(serve.peer, finished, sent)).await;
                        close(writer, CloseCode::Done, String::new()).await;
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
            () = news.due() => {}
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

/// Between two times that a member is told of others.
const MEMBERS_INTERVAL: Duration = Duration::from_millis(200);
/// Between two times that it is told what is here.
const HAVE_INTERVAL: Duration = Duration::from_millis(20);

/// What a member of the swarm is told unasked: who else there is, and what is here.
struct News<'s> {
    serving: &'s Serving,
    /// `None`: it is told nothing.
    member: Option<&'s Member>,
    members: Subject<()>,
    /// What was told of others.
    others: Peers,
    /// Nothing at a source, which has everything.
    shelf: Option<(&'s ReplicaShelf, Subject<usize>)>,
    told: usize,
}

/// Something to tell of, now and then.
struct Subject<T> {
    changes: watch::Receiver<T>,
    /// Whether it has changed since it was told of.
    is_due: bool,
    /// It is not told of before then.
    at: Instant,
}

impl<T> Subject<T> {
    fn new(changes: watch::Receiver<T>) -> Self {
        Self { changes, is_due: true, at: Instant::now() }
    }

    /// Whether it is to be told of now; then it counts as told.
    fn take(&mut self, interval: Duration) -> bool {
        let now = Instant::now();
        let is_due = self.is_due && now >= self.at;
        if is_due {
            self.is_due = false;
            self.at = now + interval;
        }
        is_due
    }

    /// Waits until it is to be told of. Cancel safe.
    async fn due(&mut self) {
        if !self.is_due {
            match self.changes.changed().await {
                Ok(()) => self.is_due = true,
                // Nothing comes any more.
                Err(_) => std::future::pending().await,
            }
        }
        sleep_until(self.at).await;
    }
}

impl<'s> News<'s> {
    fn new(serving: &'s Serving, serve: &'s Serve) -> Self {
        let shelf = match &serving.shelf {
            Shelf::Source(_) => None,
            Shelf::Replica(shelf) => Some((&**shelf, Subject::new(shelf.watch()))),
        };
        let members = Subject::new(serving.members.subscribe());
        Self { serving, member: serve.member.as_ref(), members, others: Peers::default(), shelf, told: 0 }
    }

    /// Says what there is to say now.
    async fn tell(&mut self, writer: &mut FrameWriter<ConnectionWriter>) -> Result<(), Ended> {
        let Some(member) = self.member else { return Ok(()) };
        if self.members.take(MEMBERS_INTERVAL) {
            let others = self.serving.others(member);
            if others != self.others {
                writer.send(FrameKind::Peers, 0, &others.encode()).await?;
                self.others = others;
            }
        }
        if let Some((shelf, growing)) = &mut self.shelf
            && growing.take(HAVE_INTERVAL)
        {
            loop {
                let (have, told) = shelf.news_since(self.told);
                if have.is_empty() {
                    break;
                }
                writer.send(FrameKind::Have, 0, &have.encode()).await?;
                self.told = told;
            }
        }
        Ok(())
    }

    /// Waits until there is something to say. Cancel safe.
    async fn due(&mut self) {
        if self.member.is_none() {
            return std::future::pending().await;
        }
        let growing = async {
            match &mut self.shelf {
                Some((_, growing)) => growing.due().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.members.due() => {}
            () = growing => {}
        }
    }
}
