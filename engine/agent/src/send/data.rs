//! A receiver's data connection: fetches in, blocks out, in order.
//!
//! Judge a fetch → take a buffer → read into it, behind room for the frames' headers → write the whole buffer to the
//! connection. Reading goes on a few fetches ahead of writing; what may be ahead is bounded by the pool. Many small
//! files are read by one job of a worker; a run of a large one goes through the shard's block I/O.

use super::feed::{HEAD_BYTES, read_sealed};
use super::recent::Away;
use super::serve::{Ended, Halves, Serve, Serving, protocol};
use super::shelf::{Item, Opened};
use sealift_proto::block::FileId;
use sealift_proto::limits::{BLOCKS_PREFIX_BYTES, FRAME_HEADER_BYTES, RUN_BYTES_MAX};
use sealift_proto::session::Session;
use sealift_proto::transfer::serve::{Answer, Judged, Server};
use sealift_proto::wire::{
    BlocksPrefix, CloseCode, FetchRequest, FrameHeader, FrameKind, RangeError, RangeProblem,
};
use sealift_store::{BlockIo, PoolBuf, ShardFile};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Fetches of one connection that may hold buffers at a time, while there are few connections.
const PREPARED_MAX: usize = 5;
/// Ranges over this go through the shard's block I/O, the others through a worker.
const WORKER_BYTES_MAX: u32 = 128 << 10;
/// Large files a connection keeps open.
const OPEN_FILES_MAX: usize = 8;

/// Serves the connection until its receiver is done or gone.
///
/// # Errors
/// How it ended.
pub async fn run(
    io: BlockIo,
    serving: &Arc<Serving>,
    serve: &Arc<Serve>,
    session: Session,
    (reader, writer): &mut Halves,
) -> Result<(), Ended> {
    let server = Rc::new(RefCell::new(Server::new()));
    let (prepared, mut due) = mpsc::channel::<oneshot::Receiver<Prepared>>(PREPARED_MAX);
    let share = PoolShare::new();
    let preparer = Preparer { io, serving: Arc::clone(serving), open: Rc::default() };

    let reading = async {
        let mut session = session;
        loop {
            let header = reader.header().await?;
            session.admit(header.kind).map_err(protocol)?;
            let body = reader.body(header).await?;
            if header.kind == FrameKind::Close {
                return Err(Ended::Lost("closed by the receiver".into()));
            }
            let fetch = FetchRequest::decode(&body).map_err(protocol)?;
            let (judged, items) = preparer.judge(&fetch, &mut server.borrow_mut())?;
            if judged.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(judged.delay_ms)).await;
            }
            share.room(preparer.io.pool().slots()).await;
            let result = preparer.prepare(header.request, judged, items).await;
            if prepared.send(result).await.is_err() {
                // Writing has failed and says why.
                std::future::pending::<()>().await;
            }
        }
    };
    let writing = async {
        while let Some(next) = due.recv().await {
            let internal = |_| Ended::Refused(CloseCode::Internal, "a reading task failed".into());
            let Prepared { buf, payload_bytes, away } = next.await.map_err(internal)?;
            writer.send_limited(buf.as_slice(), &serving.limiter).await?;
            serve.sent_bytes.fetch_add(payload_bytes, Ordering::Relaxed);
            server.borrow_mut().handle_answered();
            drop((buf, away));
            share.give_back();
        }
        Ok(())
    };
    let mut session_ended = serve.ended.subscribe();
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
        _ = session_ended.wait_for(|&ended| ended) => Ok(()),
    }
}

thread_local! {
    /// Data connections that live on this shard.
    static CONNECTIONS: Cell<usize> = const { Cell::new(0) };
}

/// A connection's share of its shard's buffers: all connections together may hold half of the standard ones, but each
/// may hold one. So a receiver that takes nothing for a while does not keep a few others from their data. It is no
/// defence against one that opens connections by the hundred, nor for the few buffers of blocks over 1 MiB.
struct PoolShare {
    held: Cell<usize>,
    given_back: Notify,
}

impl PoolShare {
    fn new() -> Self {
        CONNECTIONS.set(CONNECTIONS.get() + 1);
        Self { held: Cell::new(0), given_back: Notify::new() }
    }

    /// Waits until one more may be held, and counts it.
    async fn room(&self, slots: usize) {
        while self.held.get() >= (slots / 2 / CONNECTIONS.get()).clamp(1, PREPARED_MAX) {
            self.given_back.notified().await;
        }
        self.held.set(self.held.get() + 1);
    }

    fn give_back(&self) {
        self.held.set(self.held.get() - 1);
        self.given_back.notify_one();
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        CONNECTIONS.set(CONNECTIONS.get() - 1);
    }
}

/// Frames ready to be sent.
struct Prepared {
    /// One of the shard's buffers, or of the scan's if that had just read what is in it.
    buf: PoolBuf,
    payload_bytes: u64,
    /// If it is one of the scan's.
    away: Option<Away>,
}

/// Reads what fetches ask for.
struct Preparer {
    io: BlockIo,
    serving: Arc<Serving>,
    open: Rc<RefCell<OpenFiles>>,
}

/// By the range's file: what can be had of the ranges of one fetch.
type Items = HashMap<FileId, Item>;

type OpenFiles = VecDeque<(FileId, ShardFile, Opened)>;

impl Preparer {
    fn judge(&self, fetch: &FetchRequest, server: &mut Server) -> Result<(Judged, Items), Ended> {
        let mut items = Items::new();
        let mut found = Vec::with_capacity(fetch.ranges.len());
        for &range in &fetch.ranges {
            // At a replica some ranges of a file can be had, and others not yet.
            let item = self.serving.shelf.item(range)?;
            found.push(item.as_ref().map(|item| item.layout).map_err(|problem| *problem));
            if let Ok(item) = item {
                items.insert(range.file, item);
            }
        }
        let judged = server
            .handle_fetch(fetch, &found, self.serving.shelf.total_bytes())
            .map_err(|code| Ended::Refused(code, "these requests go too far".into()))?;
        Ok((judged, items))
    }

    /// Takes a buffer, now and in order, and fills it in a task of its own.
    async fn prepare(&self, request: u64, judged: Judged, items: Items) -> oneshot::Receiver<Prepared> {
        let recent = match judged.answers[..] {
            [Answer::Serve { range, bytes }] if bytes > WORKER_BYTES_MAX => {
                self.serving.shelf.take_recent(range)
            }
            _ => None,
        };
        let payload: usize = judged.answers.iter().map(payload_bytes).sum();
        let one_frame = payload + FRAME_HEADER_BYTES + BLOCKS_PREFIX_BYTES;
        let (buf, away) = match recent {
            Some((buf, away)) => (buf, Some(away)),
            None => (self.io.pool().acquire(one_frame.max(RUN_BYTES_MAX)).await, None),
        };
        let (done, result) = oneshot::channel();
        let (io, serving, open) = (self.io.clone(), Arc::clone(&self.serving), Rc::clone(&self.open));
        tokio::task::spawn_local(async move {
            let prepared = match judged.answers[..] {
                [Answer::Serve { range, bytes }] if bytes > WORKER_BYTES_MAX => {
                    let item = &items[&range.file];
                    let is_filled = away.is_some();
                    large(&io, &serving, &open, request, range, bytes as usize, item, buf, is_filled).await
                }
                _ => {
                    let read = move || small(&serving, request, &judged.answers, &items, buf);
                    io.blocking(read).await
                }
            };
            // The connection may have ended meanwhile.
            let _ = done.send(Prepared { away, ..prepared });
        });
        result
    }
}

fn payload_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Serve { bytes, .. } => *bytes as usize,
        Answer::Refuse(_) => 0,
    }
}

fn blocks_header(request: u64, range: BlocksPrefix, bytes: usize) -> [u8; HEAD_BYTES] {
    let mut header = [0; HEAD_BYTES];
    let frame = FrameHeader::new(FrameKind::Blocks, BLOCKS_PREFIX_BYTES + bytes, request);
    header[..FRAME_HEADER_BYTES].copy_from_slice(&frame.encode());
    header[FRAME_HEADER_BYTES..].copy_from_slice(&range.encode());
    header
}

fn put_error(buf: &mut PoolBuf, request: u64, error: RangeError) {
    let body = error.encode();
    buf.put_slice(&FrameHeader::new(FrameKind::RangeError, body.len(), request).encode());
    buf.put_slice(&body);
}

/// One run of a large file, which is read unless the buffer is filled with it already, behind room for its header.
#[allow(clippy::too_many_arguments)]
async fn large(
    io: &BlockIo,
    serving: &Arc<Serving>,
    open: &RefCell<OpenFiles>,
    request: u64,
    range: BlocksPrefix,
    bytes: usize,
    item: &Item,
    mut buf: PoolBuf,
    is_filled: bool,
) -> Prepared {
    let header = blocks_header(request, range, bytes);
    match is_filled {
        true => buf.as_mut_slice()[..HEAD_BYTES].copy_from_slice(&header),
        false => buf.put_slice(&header),
    }
    let opened = match find_open(open, range.file) {
        Some(file) => Ok(file),
        None => open_large(io, serving, open, range.file, item).await,
    };
    let error = match opened {
        Err(error) => Some(error),
        Ok((file, opened)) => {
            let mut read = Ok(());
            if !is_filled {
                (read, buf) = match opened.sealed() {
                    Some(sealed) => {
                        read_sealed(io, sealed.clone(), item.layout, range.first, bytes, buf).await
                    }
                    None => {
                        let offset = opened.begins + item.layout.offset(range.first);
                        io.read_exact_at(&file, offset, bytes, buf).await
                    }
                };
            }
            match (read, opened.is_unchanged()) {
                (Ok(()), Ok(true)) => None,
                (Ok(()), Ok(false)) => Some(io::ErrorKind::UnexpectedEof.into()),
                (Err(error), _) | (_, Err(error)) => Some(error),
            }
        }
    };
    let Some(error) = error else {
        return Prepared { buf, payload_bytes: bytes as u64, away: None };
    };
    buf.clear();
    let problem = report(serving, range.file, item, &error);
    put_error(&mut buf, request, RangeError { range, problem });
    Prepared { buf, payload_bytes: 0, away: None }
}

fn find_open(open: &RefCell<OpenFiles>, id: FileId) -> Option<(ShardFile, Opened)> {
    open.borrow().iter().find(|(of, ..)| *of == id).map(|(_, file, opened)| (file.clone(), opened.clone()))
}

async fn open_large(
    io: &BlockIo,
    serving: &Arc<Serving>,
    open: &RefCell<OpenFiles>,
    id: FileId,
    item: &Item,
) -> io::Result<(ShardFile, Opened)> {
    let (serving, item) = (Arc::clone(serving), item.clone());
    let opened = io.blocking(move || serving.shelf.open(&item)).await?;
    let file = io.attach(Arc::clone(&opened.file))?;
    let mut open = open.borrow_mut();
    if open.len() == OPEN_FILES_MAX {
        open.pop_front();
    }
    open.push_back((id, file.clone(), opened.clone()));
    Ok((file, opened))
}

/// Every answer of a fetch over small ranges. Blocks.
fn small(serving: &Serving, request: u64, answers: &[Answer], items: &Items, mut buf: PoolBuf) -> Prepared {
    let mut payload_bytes = 0;
    for answer in answers {
        let (range, bytes) = match *answer {
            Answer::Refuse(error) => {
                put_error(&mut buf, request, error);
                continue;
            }
            Answer::Serve { range, bytes } => (range, bytes as usize),
        };
        let before = buf.len();
        buf.put_slice(&blocks_header(request, range, bytes));
        let item = &items[&range.file];
        match read_range(serving, item, range, bytes, &mut buf) {
            Ok(()) => payload_bytes += bytes as u64,
            Err(error) => {
                buf.truncate(before);
                let problem = report(serving, range.file, item, &error);
                put_error(&mut buf, request, RangeError { range, problem });
            }
        }
    }
    Prepared { buf, payload_bytes, away: None }
}

fn read_range(
    serving: &Serving,
    item: &Item,
    range: BlocksPrefix,
    bytes: usize,
    buf: &mut PoolBuf,
) -> io::Result<()> {
    let opened = serving.shelf.open(item)?;
    match opened.sealed() {
        Some(sealed) => sealed.read_sealed(item.layout, range.first, buf.spare_mut(bytes))?,
        None => {
            let offset = opened.begins + item.layout.offset(range.first);
            opened.file.read_exact_at(buf.spare_mut(bytes), offset)?;
        }
    }
    if !opened.is_unchanged()? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buf.advance(bytes);
    Ok(())
}

/// Takes note of a file that could not be read; the user is told of one that cannot be.
fn report(serving: &Serving, file: FileId, item: &Item, error: &io::Error) -> RangeProblem {
    let unread = serving.shelf.unread(file, item, error);
    if let Some(path) = unread.unreadable {
        serving.tell_unreadable(file, &path, error);
    }
    unread.problem
}

/// A peer says that a block of a file did not match.
///
/// # Errors
/// If what is offered cannot be looked up.
pub fn rejected(serving: &Serving, id: FileId) -> io::Result<()> {
    serving.shelf.rejected(id).map(drop)
}
