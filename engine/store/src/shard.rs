//! A shard: an OS thread with its own runtime, ring, buffer pool and tasks; and the one interface its block I/O goes
//! through, whether io_uring or threads do the work.
//!
//! Owns the choice between the two, made once by a probe, and the thread's beginning and end. Never shares a ring
//! between threads.

use crate::faults;
use crate::ring::pool::{BufferPool, PoolBuf, PoolConfig};
use crate::ring::uring::{self, RingFile, RingIo};
use crate::workers::IoWorkers;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

/// What does the block I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring, by tokio-uring.
    Uring,
    /// The process's I/O worker threads.
    Threads,
}

/// A backend and why it was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What does the block I/O.
    pub backend: Backend,
    /// Why, for the log.
    pub reason: String,
}

/// A setting that names no backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Not one of the names.
    #[error("SEALIFT_IO is {value:?}; it can be 'uring' or 'threads'")]
    Unknown {
        /// What was set.
        value: String,
    },
}

impl Backend {
    /// The backend named by the environment variable `SEALIFT_IO` (`uring` or `threads`); if it is unset, io_uring
    /// where this process may use it, or else threads.
    ///
    /// # Errors
    /// If the variable has any other value.
    pub fn choose() -> Result<Choice, BackendError> {
        let setting = std::env::var_os("SEALIFT_IO").map(|value| value.to_string_lossy().into_owned());
        Self::choose_by(setting.as_deref())
    }

    fn choose_by(setting: Option<&str>) -> Result<Choice, BackendError> {
        let by_setting = |backend| Choice { backend, reason: "set by SEALIFT_IO".into() };
        match setting {
            Some("uring") => Ok(by_setting(Self::Uring)),
            Some("threads") => Ok(by_setting(Self::Threads)),
            Some(value) => Err(BackendError::Unknown { value: value.into() }),
            None => Ok(match uring::probe() {
                Ok(()) => Choice { backend: Self::Uring, reason: "io_uring is available".into() },
                Err(error) => {
                    Choice { backend: Self::Threads, reason: format!("io_uring is refused: {error}") }
                }
            }),
        }
    }
}

/// Starts a shard: a thread named `name` that runs `f` to its end. The thread's value is what `f` gave, or why its
/// pool or ring could not be made. Tasks that `f` spawned locally end with it; block I/O in flight is waited for.
///
/// Inside, `tokio::task::spawn_local`, tokio's timers and its sockets can be used, with either backend.
///
/// # Errors
/// If the thread cannot be started.
pub fn spawn_shard<F, Fut, T>(
    name: &str,
    backend: Backend,
    config: PoolConfig,
    f: F,
) -> io::Result<JoinHandle<io::Result<T>>>
where
    F: FnOnce(BlockIo) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let pool = BufferPool::new(config)?;
        let workers = IoWorkers::global()?;
        match backend {
            Backend::Uring => run_on_ring(pool, workers, f),
            Backend::Threads => run_on_threads(pool, workers, f),
        }
    })
}

fn run_on_ring<F, Fut, T>(pool: BufferPool, workers: IoWorkers, f: F) -> io::Result<T>
where
    F: FnOnce(BlockIo) -> Fut,
    Fut: Future<Output = T>,
{
    let runtime = uring::runtime(pool.slots())?;
    let result = runtime.block_on(async {
        let (ring, description) = RingIo::start(&pool);
        let io = BlockIo(Rc::new(Inner { pool, workers, engine: Engine::Ring(ring.clone()), description }));
        let result = until_done_or_panic(|| f(io)).await;
        // Even after a panic: the kernel may still be writing into buffers.
        ring.drained().await;
        result
    });
    drop(runtime);
    Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
}

fn run_on_threads<F, Fut, T>(pool: BufferPool, workers: IoWorkers, f: F) -> io::Result<T>
where
    F: FnOnce(BlockIo) -> Fut,
    Fut: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let description = format!("{} I/O threads", workers.threads());
    let io = BlockIo(Rc::new(Inner { pool, workers, engine: Engine::Threads, description }));
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(&runtime, async move { f(io).await }))
}

async fn until_done_or_panic<Fut: Future>(f: impl FnOnce() -> Fut) -> std::thread::Result<Fut::Output> {
    let future = catch_unwind(AssertUnwindSafe(f))?;
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// A shard's handle to its disk I/O and buffers. Cheap to clone; bound to the shard's thread.
#[derive(Clone)]
pub struct BlockIo(Rc<Inner>);

struct Inner {
    pool: BufferPool,
    workers: IoWorkers,
    engine: Engine,
    description: String,
}

enum Engine {
    Ring(RingIo),
    Threads,
}

/// A file that a shard does block I/O on. Cheap to clone; bound to the shard's thread.
#[derive(Clone)]
pub struct ShardFile {
    file: Arc<File>,
    ring: Option<RingFile>,
}

impl ShardFile {
    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl BlockIo {
    /// The shard's buffers.
    #[must_use]
    pub fn pool(&self) -> &BufferPool {
        &self.0.pool
    }

    /// What does the work, for the log.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.0.description
    }

    /// Makes a file usable for [`BlockIo::read_exact_at`] and [`BlockIo::write_all_at`] on this shard. With io_uring
    /// this takes a second descriptor, closed with the last clone.
    ///
    /// # Errors
    /// If no descriptor is left (EMFILE).
    pub fn attach(&self, file: Arc<File>) -> io::Result<ShardFile> {
        let ring = match &self.0.engine {
            Engine::Ring(_) => Some(RingIo::attach(&file)?),
            Engine::Threads => None,
        };
        Ok(ShardFile { file, ring })
    }

    /// Reads exactly `len` bytes from `offset` of the file and appends them to `buf`. On an error the filled part of
    /// `buf` is as before.
    ///
    /// If the future is dropped the operation goes on, and the buffer returns to its pool when it is over.
    ///
    /// # Errors
    /// Those of `pread`; `UnexpectedEof` if the file ends before.
    ///
    /// # Panics
    /// If `buf` has no room for `len` bytes.
    pub async fn read_exact_at(
        &self,
        file: &ShardFile,
        offset: u64,
        len: usize,
        buf: PoolBuf,
    ) -> (io::Result<()>, PoolBuf) {
        assert!(len <= buf.spare_bytes(), "the buffer has room for it");
        if !in_file_range(offset, len) {
            return (Err(io::ErrorKind::InvalidInput.into()), buf);
        }
        if let (Engine::Ring(ring), Some(file)) = (&self.0.engine, &file.ring) {
            return ring.read_exact_at(file, offset, len, buf).await;
        }
        let file = Arc::clone(&file.file);
        self.blocking(move || {
            let mut buf = buf;
            let result = faults::read_exact_at(&file, buf.spare_mut(len), offset);
            if result.is_ok() {
                buf.advance(len);
            }
            (result, buf)
        })
        .await
    }

    /// Writes the bytes `range` of what is filled in `buf` at `offset` of the file.
    ///
    /// If the future is dropped the operation goes on, and the buffer returns to its pool when it is over.
    ///
    /// # Errors
    /// Those of `pwrite`. Some of the bytes may then have been written.
    ///
    /// # Panics
    /// If `range` is not within the filled part.
    pub async fn write_all_at(
        &self,
        file: &ShardFile,
        offset: u64,
        buf: PoolBuf,
        range: Range<usize>,
    ) -> (io::Result<()>, PoolBuf) {
        assert!(range.start <= range.end && range.end <= buf.len(), "only filled bytes are written");
        if !in_file_range(offset, range.len()) {
            return (Err(io::ErrorKind::InvalidInput.into()), buf);
        }
        if let (Engine::Ring(ring), Some(file)) = (&self.0.engine, &file.ring) {
            return ring.write_all_at(file, offset, buf, range).await;
        }
        let file = Arc::clone(&file.file);
        self.blocking(move || (faults::write_all_at(&file, &buf.as_slice()[range], offset), buf)).await
    }

    /// Runs a blocking function on the process's I/O workers. Once queued it runs even if the future is dropped.
    ///
    /// # Panics
    /// With the function's own panic.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.0.workers.run(f).await
    }
}

/// Whether the kernel's signed offsets can express it.
fn in_file_range(offset: u64, len: usize) -> bool {
    offset.checked_add(len as u64).is_some_and(|end| i64::try_from(end).is_ok())
}

#[cfg(test)]
mod tests;
