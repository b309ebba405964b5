//! What a job's spec must be, by itself: what can be told without a database.
//!
//! Whether the agents and groups that it names exist is for [`crate::db::jobs`] to say.

mod cron;

pub use cron::{Cron, CronError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sealift_api::rest::limits::{
    BYTES_PER_SECOND_MIN, CONNECTIONS_MAX, ENDPOINTS_MAX, INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN,
    RATE_ENTRIES_MAX, SEAL_TO_MAX, TIME_ZONE_CHARS_MAX,
};
use sealift_api::rest::{Endpoint, JobKind, JobSpec, Place, RateSchedule, Schedule};
use sealift_proto::rate::MinuteOfDay;
use std::collections::BTreeSet;

/// Why a spec makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No endpoints on a side, or too many.
    #[error("a job has 1 to {ENDPOINTS_MAX} sources, and as many destinations")]
    Number,
    /// The one side that must be one agent is not.
    #[error("the {0} must be exactly one agent")]
    OneAgent(&'static str),
    /// The same place twice on a side.
    #[error("{0} is named twice")]
    Twice(String),
    /// An agent would replicate to itself.
    #[error("the agent {0} is source and destination")]
    ToItself(String),
    /// Too many KEKs.
    #[error("a job is sealed to {SEAL_TO_MAX} KEKs at most")]
    Keks,
    /// Too many connections.
    #[error("a session has at most {CONNECTIONS_MAX} connections")]
    Connections,
    /// Too low a limit.
    #[error("a limit of rate is at least {BYTES_PER_SECOND_MIN} bytes a second")]
    Rate,
    /// A schedule of rates without entries, or with too many.
    #[error("a schedule of rates has 1 to {RATE_ENTRIES_MAX} entries")]
    RateEntries,
    /// A time of day that is none.
    #[error("'{0}' is no time of day from 00:00 to 23:59")]
    TimeOfDay(String),
    /// Two entries of a schedule of rates for the same time.
    #[error("the schedule of rates says twice what holds from {0}")]
    RateTwice(String),
    /// An interval that is too short or too long.
    #[error("an interval has {INTERVAL_SECONDS_MIN} to {INTERVAL_SECONDS_MAX} seconds")]
    Interval,
    /// No such zone.
    #[error("there is no time zone of this name: one is 'UTC' or like 'Europe/Berlin'")]
    TimeZone,
    /// The cron expression.
    #[error("the cron expression: {0}")]
    Cron(#[from] CronError),
    /// A time that no calendar has.
    #[error("the time of the schedule is out of range")]
    Time,
}

/// Whether a spec makes sense.
///
/// # Errors
/// Why not.
pub fn check(spec: &JobSpec) -> Result<(), SpecError> {
    for side in [&spec.from, &spec.to] {
        if !(1..=ENDPOINTS_MAX).contains(&side.len()) {
            return Err(SpecError::Number);
        }
        check_twice(side)?;
    }
    let (one, what) = match spec.kind {
        JobKind::Distribution => (&spec.from, "source of a distribution"),
        JobKind::Consolidation => (&spec.to, "destination of a consolidation"),
    };
    if !matches!(one.as_slice(), [only] if matches!(only.place(), Place::Agent(_))) {
        return Err(SpecError::OneAgent(what));
    }
    let agents = |side: &[Endpoint]| side.iter().filter_map(agent_of).collect::<BTreeSet<_>>();
    if let Some(both) = agents(&spec.from).intersection(&agents(&spec.to)).next() {
        return Err(SpecError::ToItself(both.clone()));
    }
    if spec.seal_to.len() > SEAL_TO_MAX {
        return Err(SpecError::Keks);
    }
    let mut keks = BTreeSet::new();
    if let Some(kek) = spec.seal_to.iter().find(|kek| !keks.insert(*kek)) {
        return Err(SpecError::Twice(kek.to_string()));
    }
    if spec.connections > CONNECTIONS_MAX {
        return Err(SpecError::Connections);
    }
    if spec.bytes_per_second.is_some_and(|rate| rate < BYTES_PER_SECOND_MIN) {
        return Err(SpecError::Rate);
    }
    spec.rate_schedule.as_ref().map_or(Ok(()), check_rates)?;
    spec.schedule.as_ref().map_or(Ok(()), check_schedule)
}

/// An agent, or a group, takes part once.
fn check_twice(side: &[Endpoint]) -> Result<(), SpecError> {
    let mut places = BTreeSet::new();
    for endpoint in side {
        if !places.insert(endpoint.place()) {
            let (Place::Agent(name) | Place::Group(name)) = endpoint.place();
            return Err(SpecError::Twice(name.to_string()));
        }
    }
    Ok(())
}

fn agent_of(endpoint: &Endpoint) -> Option<String> {
    match endpoint.place() {
        Place::Agent(name) => Some(name.to_string()),
        Place::Group(_) => None,
    }
}

fn check_schedule(schedule: &Schedule) -> Result<(), SpecError> {
    match schedule {
        Schedule::Cron { cron, time_zone } => {
            cron.parse::<Cron>()?;
            zone(time_zone).map(|_| ())
        }
        Schedule::Interval { seconds } => {
            let allowed = (INTERVAL_SECONDS_MIN..=INTERVAL_SECONDS_MAX).contains(seconds);
            if allowed { Ok(()) } else { Err(SpecError::Interval) }
        }
        Schedule::Once { at_ms } => {
            Timestamp::from_millisecond(*at_ms).map(|_| ()).map_err(|_| SpecError::Time)
        }
    }
}

fn check_rates(schedule: &RateSchedule) -> Result<(), SpecError> {
    zone(&schedule.time_zone)?;
    if !(1..=RATE_ENTRIES_MAX).contains(&schedule.entries.len()) {
        return Err(SpecError::RateEntries);
    }
    let mut times = BTreeSet::new();
    for entry in &schedule.entries {
        if entry.bytes_per_second.is_some_and(|rate| rate < BYTES_PER_SECOND_MIN) {
            return Err(SpecError::Rate);
        }
        let from = minute_of_day(&entry.from)?;
        if !times.insert((entry.day, from)) {
            let day = entry.day.map_or_else(String::new, |day| format!("{day} "));
            return Err(SpecError::RateTwice(format!("{day}{from}")));
        }
    }
    Ok(())
}

/// `HH:MM`.
///
/// # Errors
/// If it is no time of day.
pub fn minute_of_day(text: &str) -> Result<MinuteOfDay, SpecError> {
    let minute = text.parse().ok().filter(|_| text.len() == "HH:MM".len());
    minute.ok_or_else(|| SpecError::TimeOfDay(text.chars().take(16).collect()))
}

fn zone(name: &str) -> Result<TimeZone, SpecError> {
    if name.len() > TIME_ZONE_CHARS_MAX {
        return Err(SpecError::TimeZone);
    }
    // A daemon on a host without the database of zones still knows this one.
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| SpecError::TimeZone)
}

/// When a job is to run next by its schedule, if ever.
///
/// `after_ms` is the later of when the schedule was last looked at and when the last run began: what is due before it is
/// over, so that a daemon that was away starts a job once and not for each time that it missed. `ended_ms` is when the
/// last run ended, of one that has had any.
///
/// # Errors
/// If the schedule makes no sense; see [`check`].
pub fn next_start_ms(
    schedule: &Schedule,
    after_ms: i64,
    ended_ms: Option<i64>,
) -> Result<Option<i64>, SpecError> {
    match schedule {
        Schedule::Cron { cron, time_zone } => {
            let cron: Cron = cron.parse()?;
            let after = Timestamp::from_millisecond(after_ms).map_err(|_| SpecError::Time)?;
            let next = cron.next(&after.to_zoned(zone(time_zone)?));
            Ok(next.map(|next| next.timestamp().as_millisecond()))
        }
        Schedule::Interval { seconds } => Ok(Some(
            ended_ms.map_or(after_ms, |ended_ms| ended_ms.saturating_add(i64::from(*seconds) * 1000)),
        )),
        Schedule::Once { at_ms } => Ok((*at_ms > after_ms).then_some(*at_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> JobSpec {
        serde_json::from_str(json).unwrap()
    }

    fn of(kind: &str, from: &[&str], to: &[&str]) -> JobSpec {
        spec(&serde_json::json!({ "kind": kind, "from": from, "to": to }).to_string())
    }

    #[test]
    fn one_side_is_one_agent() {
        assert_eq!(check(&of("distribution", &["a:/x"], &["b:/x", "group:g:/x"])), Ok(()));
        assert_eq!(check(&of("consolidation", &["a:/x", "group:g:/x"], &["b:/x"])), Ok(()));
        let source = SpecError::OneAgent("source of a distribution");
        assert_eq!(check(&of("distribution", &["group:g:/x"], &["b:/x"])), Err(source.clone()));
        assert_eq!(check(&of("distribution", &["a:/x", "c:/x"], &["b:/x"])), Err(source));
        let destination = SpecError::OneAgent("destination of a consolidation");
        assert_eq!(check(&of("consolidation", &["a:/x"], &["b:/x", "c:/x"])), Err(destination));
    }

    #[test]
    fn nobody_takes_part_twice() {
        let twice = SpecError::Twice("b".into());
        assert_eq!(check(&of("distribution", &["a:/x"], &["b:/x", "b:/y"])), Err(twice));
        assert_eq!(check(&of("distribution", &["a:/x"], &["a:/y"])), Err(SpecError::ToItself("a".into())));
        assert_eq!(check(&of("distribution", &["a:/x"], &["b:/x", "group:b:/x"])), Ok(()));
        assert_eq!(check(&of("distribution", &["a:/x"], &[])), Err(SpecError::Number));
        let many: Vec<_> = (0..257).map(|n| format!("b{n}:/x")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(check(&of("distribution", &["a:/x"], &many)), Err(SpecError::Number));
    }

    #[test]
    fn schedules_are_checked() {
        let with = |schedule: serde_json::Value| {
            let json = serde_json::json!({
                "kind": "distribution", "from": ["a:/x"], "to": ["b:/x"], "schedule": schedule,
            });
            check(&spec(&json.to_string()))
        };
        let cron = |cron: &str, zone: &str| {
            with(serde_json::json!({ "type": "cron", "cron": cron, "time_zone": zone }))
        };
        assert_eq!(cron("30 2 * * 1-5", "UTC"), Ok(()));
        assert_eq!(cron("30 2 * * 1-5", "Nowhere/City"), Err(SpecError::TimeZone));
        assert!(matches!(cron("30 25 * * *", "UTC"), Err(SpecError::Cron(_))));
        assert_eq!(with(serde_json::json!({ "type": "interval", "seconds": 60 })), Ok(()));
        assert_eq!(with(serde_json::json!({ "type": "interval", "seconds": 1 })), Err(SpecError::Interval));
        assert_eq!(with(serde_json::json!({ "type": "once", "at_ms": i64::MAX })), Err(SpecError::Time));
    }

    #[test]
    fn schedules_of_rates_are_checked() {
        use serde_json::json;
        let with = |zone: &str, entries: serde_json::Value| {
            let schedule = json!({ "time_zone": zone, "entries": entries });
            let json = json!({
                "kind": "distribution", "from": ["a:/x"], "to": ["b:/x"], "rate_schedule": schedule,
            });
            check(&spec(&json.to_string()))
        };
        let day = json!({ "from": "08:00", "bytes_per_second": 8192 });
        let right = json!([day, { "from": "20:00" }, { "day": "sunday", "from": "08:00" }]);
        assert_eq!(with("UTC", right.clone()), Ok(()));
        assert_eq!(with("Nowhere/City", right), Err(SpecError::TimeZone));
        assert_eq!(with("UTC", json!([])), Err(SpecError::RateEntries));
        assert_eq!(with("UTC", json!(vec![day.clone(); 65])), Err(SpecError::RateEntries));
        assert_eq!(with("UTC", json!([day, day])), Err(SpecError::RateTwice("08:00".into())));
        assert_eq!(with("UTC", json!([{ "from": "08:00", "bytes_per_second": 8191 }])), Err(SpecError::Rate));
        for wrong in ["8:00", "24:00", "", "08:00:00"] {
            assert_eq!(with("UTC", json!([{ "from": wrong }])), Err(SpecError::TimeOfDay(wrong.into())));
        }
    }

    #[test]
    fn what_a_spec_does_not_know_is_refused() {
        for json in [
            r#"{"kind":"distribution","from":["a:/x"],"to":["b:/x"],"fast":true}"#,
            r#"{"kind":"synchronization","from":["a:/x"],"to":["b:/x"]}"#,
            r#"{"kind":"distribution","from":["a:../x"],"to":["b:/x"]}"#,
            r#"{"kind":"distribution","from":["a:/x"],"to":["b:/x"],"schedule":{"type":"interval","seconds":60,"x":1}}"#,
        ] {
            assert!(serde_json::from_str::<JobSpec>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn what_was_missed_is_over() {
        let once = Schedule::Once { at_ms: 5000 };
        assert_eq!(next_start_ms(&once, 4999, None), Ok(Some(5000)));
        assert_eq!(next_start_ms(&once, 5000, Some(5500)), Ok(None));
        let interval = Schedule::Interval { seconds: 60 };
        assert_eq!(next_start_ms(&interval, 7, None), Ok(Some(7)));
        assert_eq!(next_start_ms(&interval, 7, Some(1000)), Ok(Some(61_000)));
        let cron = Schedule::Cron { cron: "0 * * * *".into(), time_zone: "UTC".into() };
        assert_eq!(next_start_ms(&cron, 0, None), Ok(Some(3_600_000)));
        assert_eq!(next_start_ms(&cron, 3_599_999, None), Ok(Some(3_600_000)));
    }
}
