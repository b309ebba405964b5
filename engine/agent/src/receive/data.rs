//! A data connection of a receiver, on its shard: fetches out, blocks in.
//!
//! Read a fetch's answers into one pooled buffer → hash all of its blocks at once → compare → write what matches at its
//! place in staging → tell the coordinator. Nothing unverified is written. Several fetches are in that pipeline at a
//! time; when the pool runs dry the connection is not read, and the sender waits.

use super::Event;
use super::control::close;
use super::entries::Metadata;
use super::failure::Failure;
use super::gate::WriteGate;
use sealift_net::{
    Carrier, ConnectionReader, ConnectionWriter, Dialer, FrameReader, FrameWriter, Limiter, ReadError,
};
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm};
use sealift_proto::limits::{BLOCKS_PREFIX_BYTES, HANDSHAKE_TIMEOUT_MS, RUN_BYTES_MAX};
use sealift_proto::path::SafePath;
use sealift_proto::session::{Purpose, Role, Session, check_welcome, hello};
use sealift_proto::transfer::pull::{ConnectionId, DueAnswers, Fetch, FetchId, Outcome, Run};
use sealift_proto::wire::{
    BlocksPrefix, Channel, Close, CloseCode, FetchRequest, FrameHeader, FrameKind, RangeError, RangeProblem,
    Welcome,
};
use sealift_store::{
    BlockIo, Durability, Piece, PoolBuf, Ready, Replica, SmallWrite, WriteTarget, hash_pieces,
    ranges_to_write,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Payload is taken from the connection in pieces of this size, so that a slow one is seen to be alive.
const FILL_BYTES: usize = 64 << 10;
/// See [`Task::owed_since_ms`].
pub const NOTHING_OWED: u64 = u64::MAX;

/// Where and for whom a connection works.
#[derive(Clone)]
pub struct Task {
    /// Its name.
    pub id: ConnectionId,
    /// Where the sender was found.
    pub address: SocketAddr,
    /// What the connection goes over.
    pub carrier: Carrier,
    /// Or over TCP, if that may be used and the path is short.
    pub or_near: bool,
    /// The session's name.
    pub session: [u8; 16],
    /// Opens connections.
    pub dialer: Dialer,
    /// How fast blocks are received.
    pub limiter: Arc<Limiter>,
    /// The hash of the blocks.
    pub algorithm: HashAlgorithm,
    /// Where files go.
    pub replica: Arc<Replica>,
    /// Whether they are synced there.
    pub durability: Durability,
    /// Who is told.
    pub events: mpsc::Sender<Event>,
    /// When anything was last heard: milliseconds since `started`.
    pub heard_ms: Arc<AtomicU64>,
    /// Since when the sender owes bytes that have not come and that we would read, or [`NOTHING_OWED`].
    pub owed_since_ms: Arc<AtomicU64>,
    /// The transfer's clock.
    pub started: Instant,
}

impl Task {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NOTHING_OWED - 1)
    }
}

/// A fetch with what is needed to verify and place its answers.
pub struct FetchJob {
    /// What to ask.
    pub fetch: Fetch,
    /// One for each run.
    pub places: Vec<Place>,
}

/// How a run is verified and where it goes.
#[derive(Clone)]
pub struct Place {
    /// The file's layout.
    pub layout: Layout,
    /// The hashes of the run's blocks.
    pub hashes: Box<[BlockHash]>,
    /// Where it goes.
    pub sink: Sink,
}

/// Where verified content goes.
#[derive(Clone)]
pub enum Sink {
    /// A file that is staged and written whole, in one go.
    Whole {
        /// Where it belongs.
        path: SafePath,
        /// What else is wanted of it.
        metadata: Metadata,
    },
    /// A file that is staged already.
    Staged {
        /// The file.
        target: WriteTarget,
        /// Its holes, where zeros are not written.
        holes: Arc<[Range<u64>]>,
        /// Closed once the file is whole.
        gate: WriteGate,
    },
}

/// The answer to a fetch, verified and written.
pub struct Fetched {
    /// Who.
    pub connection: ConnectionId,
    /// Which.
    pub fetch: FetchId,
    /// Its runs.
    pub runs: Vec<Run>,
    /// How each turned out.
    pub outcomes: Vec<Outcome>,
    /// Files that are staged whole.
    pub ready: Vec<(FileId, Ready)>,
    /// What could not be written, and why.
    pub errors: Vec<(FileId, Failure)>,
    /// Bytes of content that came over the wire.
    pub payload_bytes: u64,
}

/// Why a data connection ended.
#[derive(Debug)]
pub enum Down {
    /// It broke, or could not be made.
    Lost(String),
    /// The sender closed it.
    Closed(Close),
    /// The sender broke the protocol.
    Broken(String),
    /// A task of ours failed.
    Failed(String),
}

impl From<ReadError> for Down {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Lost(error.to_string()),
            ReadError::Frame(error) => Self::Broken(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Down {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

fn broken(error: impl std::fmt::Display) -> Down {
    Down::Broken(error.to_string())
}

/// Opens the connection, and works on it until it ends or `jobs` closes. Tells the coordinator both.
pub async fn run(io: BlockIo, task: Task, jobs: mpsc::Receiver<FetchJob>) {
    let (id, events) = (task.id, task.events.clone());
    let down = connect_and_work(io, task, jobs).await;
    // The coordinator may have ended.
    let _ = events.send(Event::DataDown(id, down)).await;
}

async fn connect_and_work(io: BlockIo, task: Task, mut jobs: mpsc::Receiver<FetchJob>) -> Down {
    let opened = timeout(Duration::from_millis(2 * HANDSHAKE_TIMEOUT_MS), open(&task)).await;
    let (mut reader, mut writer, session, answered_in) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(down)) => return down,
        Err(_) => return Down::Lost("the sender did not answer in time".into()),
    };
    if task.events.send(Event::DataUp(task.id, answered_in)).await.is_err() {
        return Down::Lost("the transfer has ended".into());
    }
    let due = RefCell::new((DueAnswers::default(), HashMap::new()));
    let asking = async {
        while let Some(FetchJob { fetch, places }) = jobs.recv().await {
            let request = FetchRequest { ranges: fetch.runs.iter().map(|run| run.range()).collect() };
            let id = fetch.id;
            {
                let mut due = due.borrow_mut();
                if due.0.is_empty() {
                    task.owed_since_ms.store(task.now_ms(), Ordering::Relaxed);
                }
                due.1.insert(id, (fetch.runs.clone(), places));
                due.0.push(fetch);
            }
            if let Err(error) = writer.send(FrameKind::Fetch, id.0, &request.encode()).await {
                return Down::from(error);
            }
        }
        Down::Lost("given up".into())
    };
    let tasks = Rc::new(RefCell::new(JoinSet::new()));
    let answers = Answers { io, task: task.clone(), due: &due, session, tasks: Rc::clone(&tasks) };
    let down = tokio::select! {
        down = asking => down,
        down = answers.read(&mut reader) => down,
    };
    // What was received whole is written before the connection counts as gone, and asked of nobody else meanwhile.
    let mut tasks = std::mem::take(&mut *tasks.borrow_mut());
    while tasks.join_next().await.is_some() {}
    if let Down::Broken(reason) = &down {
        close(&mut writer, Close { code: CloseCode::Protocol, reason: reason.clone() }).await;
    }
    down
}

type Halves = (FrameReader<ConnectionReader>, FrameWriter<ConnectionWriter>, Session, Option<Duration>);

async fn open(task: &Task) -> Result<Halves, Down> {
    let dialled = match task.or_near {
        true => task.dialer.dial_near(task.address, task.carrier).await,
        false => task.dialer.dial_over(task.address, task.carrier).await,
    };
    let connection = dialled.map_err(|error| Down::Lost(error.to_string()))?;
    let answered_in = connection.answered_in();
    let (reader, writer) = connection.split();
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    let mut session = Session::new(Role::Receiver, Purpose::Data);
    let greeting = hello(Channel::Data { session: task.session });
    writer.send(FrameKind::Hello, 0, &greeting.encode()).await?;
    let header = reader.header().await?;
    session.admit(header.kind).map_err(broken)?;
    let body = reader.body(header).await?;
    if header.kind == FrameKind::Close {
        return Err(Down::Closed(Close::decode(&body).map_err(broken)?));
    }
    let welcome = Welcome::decode(&body).map_err(broken)?;
    check_welcome(&welcome).map_err(|_| broken("the sender chose a version that was not offered"))?;
    Ok((reader, writer, session, answered_in))
}

type Owed = (DueAnswers, HashMap<FetchId, (Vec<Run>, Vec<Place>)>);

/// The reading half.
struct Answers<'c> {
    io: BlockIo,
    task: Task,
    due: &'c RefCell<Owed>,
    session: Session,
    tasks: Rc<RefCell<JoinSet<()>>>,
}

/// The answers of a fetch as they come in.
struct Parcel {
    fetch: FetchId,
    buf: Option<PoolBuf>,
    /// For each run so far, its bytes in the buffer or why there are none.
    received: Vec<Result<Range<usize>, RangeProblem>>,
}

impl Answers<'_> {
    async fn read(mut self, reader: &mut FrameReader<ConnectionReader>) -> Down {
        let mut parcel: Option<Parcel> = None;
        loop {
            if let Err(down) = self.answer(reader, &mut parcel).await {
                return down;
            }
        }
    }

    /// Takes one frame.
    async fn answer(
        &mut self,
        reader: &mut FrameReader<ConnectionReader>,
        parcel: &mut Option<Parcel>,
    ) -> Result<(), Down> {
        let header = reader.header().await?;
        self.session.admit(header.kind).map_err(broken)?;
        self.heard();
        let (due, problem) = match header.kind {
            FrameKind::Close => {
                let close = Close::decode(&reader.body(header).await?).map_err(broken)?;
                return Err(Down::Closed(close));
            }
            FrameKind::RangeError => {
                let error = RangeError::decode(&reader.body(header).await?).map_err(broken)?;
                let due = self.due.borrow_mut().0.accept(header.request, error.range).map_err(broken)?;
                (due, Some(error.problem))
            }
            _ => {
                let prefix = self.prefix(header, reader).await?;
                let due = self.due.borrow_mut().0.accept(header.request, prefix).map_err(broken)?;
                if header.body_bytes as usize != BLOCKS_PREFIX_BYTES + due.run.bytes as usize {
                    return Err(broken("a range of the wrong length"));
                }
                (due, None)
            }
        };
        let current =
            parcel.get_or_insert_with(|| Parcel { fetch: due.fetch, buf: None, received: Vec::new() });
        current.received.push(match problem {
            Some(problem) => Err(problem),
            None => Ok(self.payload(reader, &mut current.buf, due.run).await?),
        });
        if due.last {
            let parcel = parcel.take().expect("just filled");
            let owed = self.due.borrow_mut().1.remove(&parcel.fetch);
            let (runs, places) = owed.expect("entered when it was asked");
            let verify = Verify { io: self.io.clone(), task: self.task.clone(), runs, places };
            let mut tasks = self.tasks.borrow_mut();
            while let Some(ended) = tasks.try_join_next() {
                ended.map_err(|error| Down::Failed(error.to_string()))?;
            }
            tasks.spawn_local(verify.verify_and_write(parcel));
            if self.due.borrow().0.is_empty() {
                self.task.owed_since_ms.store(NOTHING_OWED, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    async fn prefix(
        &self,
        header: FrameHeader,
        reader: &mut FrameReader<ConnectionReader>,
    ) -> Result<BlocksPrefix, Down> {
        if (header.body_bytes as usize) < BLOCKS_PREFIX_BYTES {
            return Err(broken("a frame of blocks without any"));
        }
        let mut prefix = [0; BLOCKS_PREFIX_BYTES];
        reader.fill(&mut prefix).await?;
        Ok(BlocksPrefix::decode(&prefix))
    }

    /// Reads a run's bytes into the parcel's buffer.
    async fn payload(
        &self,
        reader: &mut FrameReader<ConnectionReader>,
        buf: &mut Option<PoolBuf>,
        run: Run,
    ) -> Result<Range<usize>, Down> {
        let bytes = run.bytes as usize;
        if buf.is_none() {
            // All runs of a fetch fit one buffer: it asks for at most one run's bytes, or for one large block.
            self.task.owed_since_ms.store(NOTHING_OWED, Ordering::Relaxed);
            *buf = Some(self.io.pool().acquire(bytes.max(RUN_BYTES_MAX)).await);
            self.heard();
        }
        let buf = buf.as_mut().expect("just acquired");
        let start = buf.len();
        let end = start + bytes;
        while buf.len() < end {
            let part = self.task.limiter.part(FILL_BYTES.min(end - buf.len()));
            self.task.limiter.pass(part).await;
            self.heard();
            reader.fill(buf.spare_mut(part)).await?;
            buf.advance(part);
            self.heard();
        }
        Ok(start..end)
    }

    fn heard(&self) {
        let now = self.task.now_ms();
        self.task.heard_ms.store(now, Ordering::Relaxed);
        self.task.owed_since_ms.store(now, Ordering::Relaxed);
    }
}

/// The work on one parcel.
struct Verify {
    io: BlockIo,
    task: Task,
    runs: Vec<Run>,
    places: Vec<Place>,
}

impl Verify {
    async fn verify_and_write(self, parcel: Parcel) {
        let mut fetched = Fetched {
            connection: self.task.id,
            fetch: parcel.fetch,
            runs: self.runs.clone(),
            outcomes: Vec::with_capacity(self.runs.len()),
            ready: Vec::new(),
            errors: Vec::new(),
            payload_bytes: parcel.received.iter().flatten().map(|range| range.len() as u64).sum(),
        };
        let mut pieces = Vec::new();
        for ((run, place), received) in self.runs.iter().zip(&self.places).zip(&parcel.received) {
            if let Ok(range) = received {
                pieces.extend(blocks_of(run, place.layout, range).map(|(_, piece)| piece));
            }
        }
        if let Some(buf) = parcel.buf {
            let (hashes, buf) = hash_pieces(self.task.algorithm, pieces, buf).await;
            self.place(&mut fetched, &parcel.received, &hashes, buf).await;
        } else {
            fetched.outcomes.extend(parcel.received.iter().map(|received| match received {
                Err(problem) => Outcome::Refused(*problem),
                Ok(_) => Outcome::Written,
            }));
        }
        // The coordinator may have ended.
        let _ = self.task.events.send(Event::Fetched(fetched)).await;
    }

    /// Compares, and writes what matches.
    async fn place(
        &self,
        fetched: &mut Fetched,
        received: &[Result<Range<usize>, RangeProblem>],
        hashes: &[BlockHash],
        mut buf: PoolBuf,
    ) {
        let mut hashes = hashes.iter();
        let mut whole = Vec::new();
        for ((run, place), received) in self.runs.iter().zip(&self.places).zip(received) {
            let range = match received {
                Ok(range) => range.clone(),
                Err(problem) => {
                    fetched.outcomes.push(Outcome::Refused(*problem));
                    continue;
                }
            };
            let found: Vec<&BlockHash> = hashes.by_ref().take(run.count as usize).collect();
            let wrong: Vec<Run> = (0..run.count)
                .filter(|&i| *found[i as usize] != place.hashes[i as usize])
                .map(|i| one_block(run, place.layout, i))
                .collect();
            match &place.sink {
                Sink::Whole { path, metadata } if wrong.is_empty() => {
                    let (mode, mtime) = metadata.of_new_file();
                    let (path, attributes) = (path.clone(), metadata.attributes.clone());
                    let write = SmallWrite { id: run.file, path, content: range, mode, mtime, attributes };
                    whole.push((fetched.outcomes.len(), write));
                    fetched.outcomes.push(Outcome::Written);
                }
                // A file that is written in one go is fetched again in one go.
                Sink::Whole { .. } => fetched.outcomes.push(Outcome::Mismatch(vec![*run])),
                Sink::Staged { target, holes, gate } => {
                    let written = match gate.enter() {
                        Some(_writing) => {
                            let written = self.write(run, place, target, holes, &wrong, range, buf).await;
                            buf = written.1;
                            written.0
                        }
                        // It came from another peer before.
                        None => Ok(()),
                    };
                    fetched.outcomes.push(match written {
                        Err(error) => {
                            fetched.errors.push((run.file, Failure::nameless(error)));
                            Outcome::NotWritten
                        }
                        Ok(()) if wrong.is_empty() => Outcome::Written,
                        Ok(()) => Outcome::Mismatch(wrong),
                    });
                }
            }
        }
        if whole.is_empty() {
            return;
        }
        let (at, writes): (Vec<_>, Vec<_>) = whole.into_iter().unzip();
        let ids: Vec<_> = writes.iter().map(|write| write.id).collect();
        let (replica, durability) = (Arc::clone(&self.task.replica), self.task.durability);
        let results = self.io.blocking(move || replica.write_small(writes, &buf, durability)).await;
        for ((at, id), result) in at.into_iter().zip(ids).zip(results) {
            match result {
                Ok(ready) => fetched.ready.push((id, ready)),
                Err(error) => {
                    fetched.outcomes[at] = Outcome::NotWritten;
                    fetched.errors.push((id, Failure::from(&error)));
                }
            }
        }
    }

    /// Writes the blocks of a run that matched; adjacent ones at once.
    #[allow(clippy::too_many_arguments)]
    async fn write(
        &self,
        run: &Run,
        place: &Place,
        target: &WriteTarget,
        holes: &[Range<u64>],
        wrong: &[Run],
        range: Range<usize>,
        mut buf: PoolBuf,
    ) -> (std::io::Result<()>, PoolBuf) {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (index, piece) in blocks_of(run, place.layout, &range) {
            if wrong.iter().any(|wrong| wrong.first == index) {
                continue;
            }
            match spans.last_mut() {
                Some(last) if last.end == piece.range.start => last.end = piece.range.end,
                _ => spans.push(piece.range),
            }
        }
        let file_offset = place.layout.offset(run.first);
        for span in spans {
            let offset = file_offset + (span.start - range.start) as u64;
            let parts = ranges_to_write(offset, &buf.as_slice()[span.clone()], holes);
            for part in parts {
                let at = offset + part.start as u64;
                let within = span.start + part.start..span.start + part.end;
                let (written, returned) = self.io.write_staged(target, at, buf, within).await;
                buf = returned;
                if written.is_err() {
                    return (written, buf);
                }
            }
        }
        (Ok(()), buf)
    }
}

/// The blocks of a run whose bytes lie at `range` of a buffer.
fn blocks_of(run: &Run, layout: Layout, range: &Range<usize>) -> impl Iterator<Item = (BlockIndex, Piece)> {
    let block_bytes = usize::try_from(layout.block_size().bytes()).expect("at most 16 MiB");
    let (start, end, first) = (range.start, range.end, run.first);
    let only = layout.blocks() == 1;
    (0..run.count).map(move |i| {
        let index = BlockIndex(first.0 + i);
        let from = start + i as usize * block_bytes;
        let piece = Piece { range: from..end.min(from + block_bytes), offset: layout.offset(index), only };
        (index, piece)
    })
}

fn one_block(run: &Run, layout: Layout, i: u32) -> Run {
    let first = BlockIndex(run.first.0 + i);
    let bytes = layout.run_bytes(first, 1).expect("a block of the run");
    Run { file: run.file, first, count: 1, bytes: u32::try_from(bytes).expect("at most 16 MiB") }
}

/// Whether a close says that this sender gives no more connections.
pub fn is_busy(down: &Down) -> bool {
    matches!(down, Down::Closed(Close { code: CloseCode::Busy, .. }))
}
