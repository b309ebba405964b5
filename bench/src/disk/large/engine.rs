//! What reads and writes: a shard of Sealift's own block I/O, or threads that call `pread` and `pwrite`.

use crate::disk::DiskArgs;
use crate::failure::{OrFailure as _, Outcome};
use crate::units::several;
use sealift_store::{Backend, BlockIo, PoolConfig, spawn_shard};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What O_DIRECT wants buffers to begin at.
const ALIGNMENT: usize = 4096;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// What does the work.
#[derive(Clone, Copy, Debug)]
pub enum Engine {
    /// One shard with so many operations in flight.
    Shard {
        /// What is beneath it.
        backend: Backend,
        /// In flight.
        depth: usize,
        /// Bytes in one.
        block: usize,
    },
    /// So many threads with one operation each.
    Threads {
        /// How many.
        threads: usize,
        /// Bytes in one.
        block: usize,
    },
}

impl Engine {
    /// Those of these arguments.
    pub fn all(args: &DiskArgs) -> Outcome<Vec<Self>> {
        let choice = Backend::choose().or_failure(|| "no block I/O".into())?;
        let shard = Self::Shard { backend: choice.backend, depth: args.depth as usize, block: block(args) };
        Ok(vec![shard, Self::threads(args)])
    }

    /// The plain one.
    pub fn threads(args: &DiskArgs) -> Self {
        Self::Threads { threads: args.threads(), block: block(args) }
    }

    /// What it is called in results.
    pub fn name(&self) -> String {
        match self {
            Self::Shard { backend: Backend::Uring, depth, .. } => {
                format!("shard on io_uring, {depth} in flight")
            }
            Self::Shard { backend: Backend::Threads, depth, .. } => {
                format!("shard on threads, {depth} in flight")
            }
            Self::Threads { threads, .. } => several(*threads as u64, "thread"),
        }
    }

    /// Reads or writes the first `bytes` bytes, which must be whole blocks.
    pub fn run(&self, direction: Direction, file: &File, bytes: u64) -> io::Result<()> {
        match *self {
            Self::Shard { backend, depth, block } => {
                let file = Arc::new(file.try_clone()?);
                let config = PoolConfig { slot_bytes: block, slots: depth, large_slots: 0 };
                let shard = spawn_shard("bench", backend, config, move |io| async move {
                    on_shard(&io, direction, file, bytes, depth, block).await
                })?;
                shard.join().map_err(|_| io::Error::other("a shard died"))??
            }
            Self::Threads { threads, block } => on_threads(direction, file, bytes, threads, block),
        }
    }
}

fn block(args: &DiskArgs) -> usize {
    usize::try_from(args.block).unwrap_or(1 << 20)
}

async fn on_shard(
    io: &BlockIo,
    direction: Direction,
    file: Arc<File>,
    bytes: u64,
    depth: usize,
    block: usize,
) -> io::Result<()> {
    let file = io.attach(file)?;
    let next = Rc::new(Cell::new(0_u64));
    let work = |io: BlockIo, next: Rc<Cell<u64>>| {
        let file = file.clone();
        async move {
            let no_room = || io::Error::other("no buffer is as large as a block");
            let mut buffer = io.pool().try_acquire(block).ok_or_else(no_room)?;
            if direction == Direction::Write {
                crate::data::fill_with_noise(buffer.spare_mut(block));
                buffer.advance(block);
            }
            loop {
                let offset = next.get();
                if offset >= bytes {
                    return Ok(());
                }
                next.set(offset + block as u64);
                let result;
                (result, buffer) = match direction {
                    Direction::Write => io.write_all_at(&file, offset, buffer, 0..block).await,
                    Direction::Read => {
                        buffer.clear();
                        io.read_exact_at(&file, offset, block, buffer).await
                    }
                };
                result?;
            }
        }
    };
    let tasks: Vec<_> =
        (0..depth).map(|_| tokio::task::spawn_local(work(io.clone(), Rc::clone(&next)))).collect();
    let mut first = Ok(());
    for task in tasks {
        let result: io::Result<()> = task.await.unwrap_or_else(|_| Err(io::Error::other("a task died")));
        first = first.and(result);
    }
    first
}

fn on_threads(direction: Direction, file: &File, bytes: u64, threads: usize, block: usize) -> io::Result<()> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut memory = vec![0; block + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let buffer = &mut memory[start..start + block];
        crate::data::fill_with_noise(buffer);
        loop {
            let offset = next.fetch_add(block as u64, Ordering::Relaxed);
            if offset >= bytes {
                return Ok(());
            }
            match direction {
                Direction::Read => file.read_exact_at(buffer, offset)?,
                Direction::Write => file.write_all_at(buffer, offset)?,
            }
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut first = Ok(());
        for thread in running {
            first = first.and(thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))));
        }
        first
    })
}
