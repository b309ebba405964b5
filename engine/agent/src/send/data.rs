//! A receiver's data connection: fetches in, blocks out, in order.
//!
//! Judge a fetch → take a buffer → read into it, behind room for the frames' headers → write the whole buffer to the
//! connection. Reading goes on a few fetches ahead of writing; what may be ahead is bounded by the pool. Many small
//! files are read by one job of a worker; a run of a large one goes through the shard's block I/O.

use super::feed::HEAD_BYTES;
use super::log::Offered;
use super::recent::Away;
use super::serve::{Ended, Halves, Serve, Serving, protocol};
use sealift_proto::block::{FileId, Layout};
use sealift_proto::limits::{BLOCKS_PREFIX_BYTES, FRAME_HEADER_BYTES, RUN_BYTES_MAX};
use sealift_proto::path::SafePath;
use sealift_proto::session::Session;
use sealift_proto::transfer::serve::{Answer, Judged, Server};
use sealift_proto::wire::{
    BlocksPrefix, CloseCode, FetchRequest, FrameHeader, FrameKind, RangeError, RangeProblem,
};
use sealift_store::{BlockIo, FileStat, PoolBuf, ShardFile, Source};
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
            let (judged, offered) = preparer.judge(&fetch, &mut server.borrow_mut())?;
            if judged.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(judged.delay_ms)).await;
            }
            share.room(preparer.io.pool().slots()).await;
            let result = preparer.prepare(header.request, judged, offered).await;
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
    open: Rc<RefCell<VecDeque<(FileId, ShardFile, FileStat)>>>,
}

type OfferedById = HashMap<FileId, Offered>;

impl Preparer {
    fn judge(&self, fetch: &FetchRequest, server: &mut Server) -> Result<(Judged, OfferedById), Ended> {
        let mut offered = OfferedById::new();
        for range in &fetch.ranges {
            if !offered.contains_key(&range.file)
                && let Some(file) = self.serving.files.get(range.file)?
            {
                offered.insert(range.file, file);
            }
        }
        let layout = |file: FileId| -> Option<Layout> { offered.get(&file).map(|file| file.layout) };
        let judged = server
            .handle_fetch(fetch, layout, self.serving.files.total_bytes())
            .map_err(|code| Ended::Refused(code, "these requests go too far".into()))?;
        Ok((judged, offered))
    }

    /// Takes a buffer, now and in order, and fills it in a task of its own.
    async fn prepare(
        &self,
        request: u64,
        judged: Judged,
        offered: OfferedById,
    ) -> oneshot::Receiver<Prepared> {
        let recent = match judged.answers[..] {
            [Answer::Serve { range, bytes }] if bytes > WORKER_BYTES_MAX => self.serving.recent.take(range),
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
                    let file = &offered[&range.file];
                    let is_filled = away.is_some();
                    large(&io, &serving, &open, request, range, bytes as usize, file, buf, is_filled).await
                }
                _ => {
                    let read = move || small(&serving, request, &judged.answers, &offered, buf);
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
    serving: &Serving,
    open: &RefCell<VecDeque<(FileId, ShardFile, FileStat)>>,
    request: u64,
    range: BlocksPrefix,
    bytes: usize,
    offered: &Offered,
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
        None => open_large(io, serving, open, range.file, offered).await,
    };
    let error = match opened {
        Err(error) => Some(error),
        Ok((file, stat)) => {
            let mut read = Ok(());
            if !is_filled {
                let offset = offered.layout.offset(range.first);
                (read, buf) = io.read_exact_at(&file, offset, bytes, buf).await;
            }
            match (read, FileStat::of(file.file())) {
                (Ok(()), Ok(now)) if now.same_version(&stat) => None,
                (Ok(()), Ok(_)) => Some(io::ErrorKind::UnexpectedEof.into()),
                (Err(error), _) | (_, Err(error)) => Some(error),
            }
        }
    };
    let Some(error) = error else {
        return Prepared { buf, payload_bytes: bytes as u64, away: None };
    };
    buf.clear();
    let problem = report(serving, range.file, &offered.path, &error);
    put_error(&mut buf, request, RangeError { range, problem });
    Prepared { buf, payload_bytes: 0, away: None }
}

fn find_open(
    open: &RefCell<VecDeque<(FileId, ShardFile, FileStat)>>,
    id: FileId,
) -> Option<(ShardFile, FileStat)> {
    open.borrow().iter().find(|(of, ..)| *of == id).map(|(_, file, stat)| (file.clone(), *stat))
}

async fn open_large(
    io: &BlockIo,
    serving: &Serving,
    open: &RefCell<VecDeque<(FileId, ShardFile, FileStat)>>,
    id: FileId,
    offered: &Offered,
) -> io::Result<(ShardFile, FileStat)> {
    let source = Arc::clone(&serving.source);
    let Offered { path, stat, .. } = offered.clone();
    let file = io.blocking(move || open_version(&source, &path, &stat)).await?;
    let file = io.attach(Arc::new(file))?;
    let mut open = open.borrow_mut();
    if open.len() == OPEN_FILES_MAX {
        open.pop_front();
    }
    open.push_back((id, file.clone(), offered.stat));
    Ok((file, offered.stat))
}

/// Opens a file if it is still the version that was hashed.
fn open_version(source: &Source, path: &SafePath, expected: &FileStat) -> io::Result<std::fs::File> {
    let (file, now) = source.open_file(path)?;
    if now.same_version(expected) { Ok(file) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Every answer of a fetch over small ranges. Blocks.
fn small(
    serving: &Serving,
    request: u64,
    answers: &[Answer],
    offered: &OfferedById,
    mut buf: PoolBuf,
) -> Prepared {
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
        match read_range(&serving.source, &offered[&range.file], range, bytes, &mut buf) {
            Ok(()) => payload_bytes += bytes as u64,
            Err(error) => {
                buf.truncate(before);
                let problem = report(serving, range.file, &offered[&range.file].path, &error);
                put_error(&mut buf, request, RangeError { range, problem });
            }
        }
    }
    Prepared { buf, payload_bytes, away: None }
}

fn read_range(
    source: &Source,
    offered: &Offered,
    range: BlocksPrefix,
    bytes: usize,
    buf: &mut PoolBuf,
) -> io::Result<()> {
    let file = open_version(source, &offered.path, &offered.stat)?;
    file.read_exact_at(buf.spare_mut(bytes), offered.layout.offset(range.first))?;
    if !FileStat::of(&file)?.same_version(&offered.stat) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buf.advance(bytes);
    Ok(())
}

/// A file that is gone, shorter or another kind of thing has changed; anything else cannot be read.
fn problem_of(error: &io::Error) -> RangeProblem {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, UnexpectedEof};
    match error.kind() {
        NotFound | NotADirectory | UnexpectedEof | InvalidInput => RangeProblem::Changed,
        _ if error.raw_os_error() == Some(40 /* ELOOP */) => RangeProblem::Changed,
        _ => RangeProblem::Unreadable,
    }
}

/// Tells the scanner of a file that has changed, and the user of one that cannot be read.
fn report(serving: &Serving, file: FileId, path: &SafePath, error: &io::Error) -> RangeProblem {
    let problem = problem_of(error);
    match problem {
        RangeProblem::Changed => serving.changed.add(file),
        _ => serving.tell_unreadable(file, path, error),
    }
    problem
}

/// Looks whether a file is still the version that was hashed, and tells the scanner if not. So it does of a file that
/// an earlier run hashed and this one did not read: its content may have changed without its times (a page that was
/// mapped, a disk that forgets), and now somebody has seen that it did.
///
/// # Errors
/// If the table of files cannot be read.
pub fn report_if_changed(serving: &Serving, id: FileId) -> io::Result<()> {
    let Some(offered) = serving.files.get(id)? else { return Ok(()) };
    match open_version(&serving.source, &offered.path, &offered.stat) {
        Err(error) => drop(report(serving, id, &offered.path, &error)),
        Ok(_) if offered.reused => serving.changed.add(id),
        Ok(_) => {}
    }
    Ok(())
}
