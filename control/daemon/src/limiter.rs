//! How often somebody may do something: so many at once, and then so many in a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Those that are remembered at a time.
const KNOWN_MAX: usize = 4096;

/// Limits of all who do one thing.
pub struct Limiter<K> {
    known: Mutex<HashMap<K, Bucket>>,
    burst: u32,
    every: Duration,
}

/// What somebody has left, as of when.
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// So many at once; then one each time that so long has passed.
    #[must_use]
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { known: Mutex::default(), burst, every }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<K, Bucket>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self, bucket: &Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() / self.every.as_secs_f64();
        (bucket.left + gained).min(f64::from(self.burst))
    }

    /// Whether somebody has any left.
    ///
    /// # Errors
    /// After how long there will be.
    pub fn look(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let known = self.known();
        let left = known.get(who).map_or(f64::from(self.burst), |bucket| self.left(bucket, now));
        if left >= 1.0 { Ok(()) } else { Err(self.every.mul_f64(1.0 - left)) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// After how long there will be one, if there is none.
    pub fn take(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX && !known.contains_key(who) {
            known.retain(|_, bucket| self.left(bucket, now) < f64::from(self.burst));
            // With so many there is no remembering all: one who is forgotten begins anew.
            if known.len() >= KNOWN_MAX
                && let Some(one) = known.keys().next().cloned()
            {
                known.remove(&one);
            }
        }
        let bucket =
            known.entry(who.clone()).or_insert_with(|| Bucket { left: f64::from(self.burst), at: now });
        let left = self.left(bucket, now);
        *bucket = Bucket { left, at: now };
        if left < 1.0 {
            return Err(self.every.mul_f64(1.0 - left));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_then_one_in_a_while_and_each_by_itself() {
        let limiter = Limiter::new(3, Duration::from_secs(10));
        let now = Instant::now();
        assert_eq!([0; 3].map(|_| limiter.take(&1, now)), [Ok(()); 3]);
        assert_eq!(limiter.look(&1, now), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take(&1, now), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take(&2, now), Ok(()));
        let later = now + Duration::from_secs(11);
        assert_eq!(limiter.take(&1, later), Ok(()));
        assert!(limiter.take(&1, later).is_err());
    }

    #[test]
    fn so_many_are_known() {
        let limiter = Limiter::new(3, Duration::from_secs(10));
        let now = Instant::now();
        for who in 0..2 * KNOWN_MAX {
            assert_eq!(limiter.take(&who, now), Ok(()));
        }
        assert_eq!(limiter.known().len(), KNOWN_MAX);
    }
}
