//! The shards of a process: one OS thread a core, each with its own runtime, ring and buffer pool.
//!
//! Owns the threads and a bounded mailbox for each. Work that must stay on a shard (a connection, a file's block I/O)
//! is sent there as a closure that makes its future.

use crate::report::{Event, Reporter};
use sealift_store::{Backend, BlockIo, Choice, PoolConfig, spawn_shard};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Shards at most; more do not help one process.
const SHARDS_MAX: usize = 16;
/// Work that may wait for a shard to take it up.
const MAILBOX_MAX: usize = 256;
/// Standard buffers of all shards together: what a process keeps for payload, beside its large blocks.
const BUFFERS_TOTAL: usize = 24;
/// Standard buffers of one shard at least.
const BUFFERS_MIN: usize = 12;

type Task = Box<dyn FnOnce(BlockIo) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The running shards. When dropped, they end and what still runs on them is cancelled.
pub struct Shards {
    mailboxes: Vec<mpsc::Sender<Task>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    next: AtomicUsize,
}

/// How many shards there are, and standard buffers of each.
fn shape() -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = cores.clamp(1, SHARDS_MAX);
    (count, (BUFFERS_TOTAL / count).max(BUFFERS_MIN))
}

/// Standard buffers of all shards.
pub fn buffers() -> usize {
    let (count, slots) = shape();
    count * slots
}

impl Shards {
    /// Starts one shard a core.
    ///
    /// # Errors
    /// If a thread cannot be started. (A ring that cannot be made shows when work is sent.)
    pub fn start(name: &str, backend: Backend) -> io::Result<Self> {
        let (count, slots) = shape();
        let config = PoolConfig { slots, ..PoolConfig::default() };
        let mut shards = Self { mailboxes: Vec::new(), threads: Vec::new(), next: AtomicUsize::new(0) };
        for index in 0..count {
            let (mailbox, mut tasks) = mpsc::channel::<Task>(MAILBOX_MAX);
            let thread = spawn_shard(&format!("{name}-{index}"), backend, config, move |io| async move {
                while let Some(task) = tasks.recv().await {
                    tokio::task::spawn_local(task(io.clone()));
                }
            })?;
            shards.mailboxes.push(mailbox);
            shards.threads.push(thread);
        }
        Ok(shards)
    }

    /// Tells how the disk is read and written, and why so.
    ///
    /// # Errors
    /// If no shard could be made.
    pub async fn describe(&self, choice: &Choice, reporter: &Reporter) -> io::Result<()> {
        let (told, description) = oneshot::channel();
        self.spawn(move |io| async move {
            let _ = told.send(io.describe().to_owned());
        })
        .await?;
        let description = description.await.map_err(|_| ended())?;
        let message = format!("Disk I/O: {description} ({}).", choice.reason);
        reporter.tell(&Event::Note { message });
        Ok(())
    }

    /// Runs a future on the next shard in turn. Waits while that shard's mailbox is full.
    ///
    /// # Errors
    /// If the shard has ended, which it does only when its ring or pool could not be made or it panicked.
    pub async fn spawn<F, Fut>(&self, make: F) -> io::Result<()>
    where
        F: FnOnce(BlockIo) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len();
        let task: Task = Box::new(move |io| Box::pin(make(io)));
        self.mailboxes[index].send(task).await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("a worker thread has ended; is there memory for its buffers?")
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.mailboxes.clear();
        for thread in self.threads.drain(..) {
            // A shard's panic or failure has shown itself to whoever waited for its work.
            let _ = thread.join();
        }
    }
}
