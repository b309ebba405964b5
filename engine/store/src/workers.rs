//! A few OS threads for file operations that block, shared by the whole process.
//!
//! Owns the threads and their bounded queue. A task that finds the queue full waits for its turn, in order; a job
//! that panics takes its task down and no worker with it. Never runs anything of its own.

use crate::limits::{IO_QUEUE_JOBS_MAX, IO_WORKERS_MAX, IO_WORKERS_MIN};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// The pool of I/O workers. Cheap to clone; the threads end when the last clone and the last job are gone.
#[derive(Clone, Debug)]
pub struct IoWorkers {
    queue: Sender<(Job, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    threads: usize,
}

impl IoWorkers {
    /// The pool of this process, started on first use: twice as many threads as cores, from 4 to 32.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn global() -> io::Result<Self> {
        static WORKERS: OnceLock<IoWorkers> = OnceLock::new();
        if let Some(workers) = WORKERS.get() {
            return Ok(workers.clone());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Self::start((2 * cores).clamp(IO_WORKERS_MIN, IO_WORKERS_MAX), IO_QUEUE_JOBS_MAX)?;
        Ok(WORKERS.get_or_init(|| workers).clone())
    }

    /// A pool of its own.
    pub(crate) fn start(threads: usize, queue_jobs_max: usize) -> io::Result<Self> {
        // A permit stands for a place in the queue, so that sending never blocks.
        let (queue, jobs) = bounded(queue_jobs_max);
        for index in 0..threads {
            let jobs: Receiver<(Job, OwnedSemaphorePermit)> = jobs.clone();
            std::thread::Builder::new().name(format!("sealift-io-{index}")).spawn(move || {
                for (job, permit) in jobs {
                    drop(permit);
                    // A job carries its own panic to whoever waits for it; see `run`.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { queue, room: Arc::new(Semaphore::new(queue_jobs_max)), threads })
    }

    /// The number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `job` on a worker and waits for it. Once queued, it runs even if the future is dropped.
    ///
    /// # Panics
    /// With the job's own panic.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.room).acquire_owned().await.expect("never closed");
        let (done, result) = oneshot::channel();
        let job = move || {
            let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
        };
        assert!(self.queue.try_send((Box::new(job), permit)).is_ok(), "a permit is a place in the queue");
        match result.await.expect("a worker runs every job") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_panicking_job_takes_its_task_down_and_no_worker() {
        let workers = IoWorkers::start(1, 4).unwrap();
        runtime().block_on(async {
            for _ in 0..3 {
                let failing = workers.clone();
                let local = tokio::task::LocalSet::new();
                let task = local.spawn_local(async move {
                    failing.run(|| -> () { std::panic::panic_any("by design") }).await;
                });
                assert!(local.run_until(task).await.unwrap_err().is_panic());
            }
            assert_eq!(workers.run(|| 7).await, 7);
        });
    }

    #[test]
    fn a_full_queue_makes_tasks_wait_and_loses_nothing() {
        let workers = IoWorkers::start(2, 2).unwrap();
        let total = runtime().block_on(async {
            let local = tokio::task::LocalSet::new();
            let tasks: Vec<_> = (0..100_u64)
                .map(|i| {
                    let workers = workers.clone();
                    local.spawn_local(async move { workers.run(move || i).await })
                })
                .collect();
            local
                .run_until(async {
                    let mut total = 0;
                    for task in tasks {
                        total += task.await.unwrap();
                    }
                    total
                })
                .await
        });
        assert_eq!(total, 4950);
    }
}
