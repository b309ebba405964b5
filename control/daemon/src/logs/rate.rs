//! How much one agent may bring: what it brings beyond that is answered later.
//!
//! An account an agent, kept over its connections: it fills with what comes, and drains with time. Pure, but for the lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Records a second of one agent.
pub(super) const RECORDS_PER_SECOND: f64 = 2000.0;
/// Bytes a second of one agent.
pub(super) const BYTES_PER_SECOND: f64 = 1024.0 * 1024.0;
/// Seconds of that which may come at once.
const BURST_SECONDS: f64 = 2.0;
/// Accounts, before those that are empty are closed.
const ACCOUNTS_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rates {
    accounts: Mutex<HashMap<Uuid, Account>>,
}

/// In seconds of what is allowed.
#[derive(Clone, Copy, Debug)]
struct Account {
    records: f64,
    bytes: f64,
    at: Instant,
}

impl Account {
    fn drain(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.records = (self.records - passed).max(0.0);
        self.bytes = (self.bytes - passed).max(0.0);
        self.at = now;
    }

    fn is_empty(&self) -> bool {
        self.records <= 0.0 && self.bytes <= 0.0
    }
}

impl Rates {
    /// How much later whoever comes again is to be heard.
    pub(super) fn owed(&self, agent: Uuid, now: Instant) -> Duration {
        self.pay(agent, 0, 0, now)
    }

    /// Takes note of what came, and tells how much later it is to be answered.
    #[allow(clippy::cast_precision_loss, reason = "counts of a batch are small")]
    pub(super) fn pay(&self, agent: Uuid, records: usize, bytes: usize, now: Instant) -> Duration {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ACCOUNTS_MAX && !accounts.contains_key(&agent) {
            accounts.retain(|_, account| {
                account.drain(now);
                !account.is_empty()
            });
        }
        let account = accounts.entry(agent).or_insert(Account { records: 0.0, bytes: 0.0, at: now });
        account.drain(now);
        account.records += records as f64 / RECORDS_PER_SECOND;
        account.bytes += bytes as f64 / BYTES_PER_SECOND;
        let over = account.records.max(account.bytes) - BURST_SECONDS;
        Duration::from_secs_f64(over.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_is_slowed_and_another_is_not() {
        let (rates, begun) = (Rates::default(), Instant::now());
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut now = begun;
        let mut brought = 0;
        // Batches as fast as they are answered, for a simulated minute.
        while now < begun + Duration::from_secs(60) {
            now += rates.pay(a, 1000, 0, now);
            brought += 1000;
        }
        let allowed = (60.0 + BURST_SECONDS) * RECORDS_PER_SECOND;
        assert!((f64::from(brought) - allowed).abs() <= 2000.0, "{brought} of {allowed}");
        assert_eq!(rates.pay(b, 1000, 0, now), Duration::ZERO);
        // Bytes count as well, and time forgives.
        assert!(rates.pay(b, 1, 8 << 20, now) > Duration::from_secs(5));
        assert_eq!(rates.pay(b, 1, 1, now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn accounts_of_the_silent_are_closed() {
        let (rates, now) = (Rates::default(), Instant::now());
        for agent in 0..ACCOUNTS_MAX as u128 {
            rates.pay(Uuid::from_u128(agent), 1, 1, now);
        }
        rates.pay(Uuid::max(), 1, 1, now + Duration::from_secs(1));
        assert_eq!(rates.accounts.lock().unwrap().len(), 1);
    }
}
