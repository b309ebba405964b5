//! Time zones in which it is the time that a test needs: so that nothing waits for a time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 24 * 3600;

/// A value of `TZ` by which noon is so far ahead.
///
/// # Panics
/// If the clock stands before 1970.
#[must_use]
pub fn zone_where_noon_is_in(ahead: Duration) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now = since.as_secs() % SECONDS_PER_DAY;
    let there = SECONDS_PER_DAY / 2 - ahead.as_secs();
    // West of Greenwich is positive, in the way of POSIX.
    let (sign, west) = if now >= there { ('+', now - there) } else { ('-', there - now) };
    format!("TST{sign}{:02}:{:02}:{:02}", west / 3600, west / 60 % 60, west % 60)
}
