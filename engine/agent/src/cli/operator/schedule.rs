//! Times and schedules, as they are written on the command line.

use sealift_api::rest::Schedule;
use sealift_api::rest::limits::{INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN};

/// When a job runs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Not at all.
    Never,
    /// At the times of a cron expression, in a time zone that is named elsewhere.
    Cron(String),
    /// So many seconds after the last run has ended.
    Every(u32),
    /// Once, in milliseconds since 1970.
    At(i64),
}

impl When {
    /// With the time zone, which only cron has.
    pub(super) fn schedule(self, time_zone: &str) -> Option<Schedule> {
        match self {
            Self::Never => None,
            Self::Cron(cron) => Some(Schedule::Cron { cron, time_zone: time_zone.to_owned() }),
            Self::Every(seconds) => Some(Schedule::Interval { seconds }),
            Self::At(at_ms) => Some(Schedule::Once { at_ms }),
        }
    }
}

/// `none`, `every 15m`, `at 2026-12-24T18:00:00Z`, or the five fields of cron. The daemon checks those.
pub(super) fn when(text: &str) -> Result<When, String> {
    let text = text.trim();
    if text == "none" {
        return Ok(When::Never);
    }
    if let Some(rest) = text.strip_prefix("every ") {
        return interval(rest.trim()).map(When::Every);
    }
    if let Some(rest) = text.strip_prefix("at ") {
        return time(rest.trim()).map(When::At);
    }
    match text.split_ascii_whitespace().count() {
        5 => Ok(When::Cron(text.to_owned())),
        _ => Err("five fields as of cron, `every 15m`, `at 2026-12-24T18:00:00Z`, or `none`".into()),
    }
}

fn interval(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.as_bytes()[number.len()]),
        None => (text, b's'),
    };
    let unit_seconds = match unit {
        b'm' => 60,
        b'h' => 3600,
        b'd' => 24 * 3600,
        _ => 1,
    };
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit_seconds));
    seconds.filter(|seconds| (INTERVAL_SECONDS_MIN..=INTERVAL_SECONDS_MAX).contains(seconds)).ok_or_else(
        || format!("an interval is a number of s, m, h or d, from {INTERVAL_SECONDS_MIN}s to a year"),
    )
}

/// A time by RFC 3339, in milliseconds since 1970.
pub(super) fn time(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| "a time is written 2026-12-24T18:00:00Z, or with +01:00 instead of Z".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_people_write_them() {
        for (text, expected) in [
            ("30 2 * * 1-5", When::Cron("30 2 * * 1-5".into())),
            ("every 15m", When::Every(900)),
            ("every 10", When::Every(10)),
            ("every 2h", When::Every(7200)),
            ("every 1d", When::Every(86_400)),
            ("at 2026-11-22T10:40:23Z", When::At(1_795_344_023_000)),
            ("at 2026-11-22T11:40:23+01:00", When::At(1_795_344_023_000)),
            (" none ", When::Never),
        ] {
            assert_eq!(when(text), Ok(expected), "{text}");
        }
        for text in
            ["", "daily", "1 2 3 4", "every", "every 9", "every m", "every 99999999d", "at noon", "every é"]
        {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
