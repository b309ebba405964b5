//! A limit of rate that connections share, on whatever threads they are.
//!
//! Who wants bytes to pass waits in line; only the first in line waits for time to pass, and hears when the limit is
//! changed. Without a limit nobody waits for anything, nor locks.

use sealift_proto::rate::{Rate, TokenBucket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Line, Notify};
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    /// The limit in bytes a second, or 0 without one: so that nobody has to lock to see that there is none.
    rate: AtomicU64,
    bucket: Mutex<TokenBucket>,
    line: Line<()>,
    changed: Notify,
    begun: Instant,
}

impl Limiter {
    /// A limit, or none for now.
    #[must_use]
    pub fn new(rate: Option<Rate>) -> Self {
        Self {
            rate: AtomicU64::new(rate.map_or(0, Rate::bytes_per_second)),
            bucket: Mutex::new(TokenBucket::new(rate)),
            line: Line::default(),
            changed: Notify::new(),
            begun: Instant::now(),
        }
    }

    /// The limit, if there is one.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        Rate::new(self.rate.load(Ordering::Relaxed)).ok()
    }

    /// Another limit, or none, from now on: also for those who wait.
    pub fn set(&self, rate: Option<Rate>) {
        let now = self.now();
        self.bucket().set_rate(rate, now);
        self.rate.store(rate.map_or(0, Rate::bytes_per_second), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How many of `bytes` bytes to ask for next: all, without a limit.
    #[must_use]
    pub fn part(&self, bytes: usize) -> usize {
        match self.rate() {
            None => bytes,
            Some(rate) => bytes.min(usize::try_from(rate.part_bytes()).unwrap_or(usize::MAX)),
        }
    }

    /// Waits until so many bytes may pass, and lets them. Whoever gives up waiting lets nothing pass.
    pub async fn pass(&self, bytes: usize) {
        if self.rate().is_none() {
            return;
        }
        let _first = self.line.lock().await;
        loop {
            let delay = {
                let now = self.now();
                let mut bucket = self.bucket();
                let delay = bucket.delay(now);
                if delay == 0 {
                    return bucket.pass(bytes as u64, now);
                }
                delay
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(delay)) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn bucket(&self) -> MutexGuard<'_, TokenBucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const RATE: u64 = 1 << 20;

    async fn pass(limiter: &Limiter, mut bytes: usize) {
        while bytes > 0 {
            let part = limiter.part(bytes);
            limiter.pass(part).await;
            bytes -= part;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_share_one_limit_and_each_gets_its_part() {
        let limiter = Arc::new(Limiter::new(Some(Rate::new(RATE).unwrap())));
        let begun = Instant::now();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move {
                    pass(&limiter, 1 << 20).await;
                    Instant::now()
                })
            })
            .collect();
        for task in tasks {
            let took = task.await.unwrap() - begun;
            assert!((3.3..=4.0).contains(&took.as_secs_f64()), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let limiter = Limiter::new(None);
        let begun = Instant::now();
        pass(&limiter, usize::MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_hear_of_another_limit() {
        let limiter = Limiter::new(Some(Rate::new(8192).unwrap()));
        let begun = Instant::now();
        let ((), ()) = tokio::join!(pass(&limiter, 1 << 20), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            limiter.set(None);
        });
        assert_eq!(begun.elapsed().as_secs(), 5);
    }
}
