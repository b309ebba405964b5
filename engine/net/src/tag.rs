//! How a ClientHello names a job: the tag of the day, as a DNS name.
//!
//! Owns the form of that name and the rule which days count. Reads no clock but the one it is given.

use data_encoding::HEXLOWER;
use rustls::pki_types::ServerName;
use sealift_proto::keys::{JobTag, RoSecret};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `.invalid` (RFC 2606): the name can never be somebody's.
const SUFFIX: &str = ".sealift.invalid";
const DAY: Duration = Duration::from_hours(24);

/// Where the date comes from: the system, or a test.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(SystemTime::now)
    }

    /// A clock of the caller's.
    #[must_use]
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Days since 1970-01-01 UTC; a clock set before that counts as that day.
    pub(crate) fn day(&self) -> u64 {
        self.now_s() / DAY.as_secs()
    }

    /// Seconds since then.
    pub(crate) fn now_s(&self) -> u64 {
        (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The days whose tags a listener knows: clocks may differ, and midnight passes during handshakes.
pub(crate) fn days_around(day: u64) -> RangeInclusive<u64> {
    day.saturating_sub(1)..=day.saturating_add(1)
}

/// The server name a dialer asks for.
pub(crate) fn server_name(ro: &RoSecret, day: u64) -> ServerName<'static> {
    ServerName::try_from(HEXLOWER.encode(&ro.tag(day).0) + SUFFIX).expect("hex and a suffix are a DNS name")
}

/// The tag in a server name, if it is one of ours.
pub(crate) fn tag_in(server_name: &str) -> Option<JobTag> {
    let hex = server_name.strip_suffix(SUFFIX)?;
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok().map(JobTag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_carries_the_tag() {
        let ro = RoSecret::from_bytes(&[3; 32]);
        assert_eq!(tag_in(&server_name(&ro, 20_000).to_str()), Some(ro.tag(20_000)));
    }

    #[test]
    fn other_names_carry_none() {
        for name in ["", ".sealift.invalid", "example.org", "00.sealift.invalid"] {
            assert_eq!(tag_in(name), None, "{name}");
        }
    }

    #[test]
    fn day_survives_a_clock_before_1970() {
        assert_eq!(Clock::new(|| UNIX_EPOCH - DAY).day(), 0);
        assert_eq!(Clock::new(|| UNIX_EPOCH + DAY * 9 / 2).day(), 4);
        assert_eq!(days_around(0), 0..=1);
    }
}
