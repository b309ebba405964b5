//! Cron expressions: five fields, and the next time that fits them.
//!
//! A time that the clocks skip in spring does not fit; one that they repeat in autumn fits once, the first time. As of
//! old, if the day of the month and the day of the week are both restricted, either is enough.

use jiff::civil::{Date, Time};
use jiff::tz::AmbiguousOffset;
use jiff::{ToSpan as _, Zoned};
use sealift_api::rest::limits::CRON_CHARS_MAX;
use std::str::FromStr;

/// Days that are looked at for the next time: the rarest date, 29 February, comes at least once in eight years.
const DAYS_AHEAD_MAX: u32 = 366 * 9;

/// When: sets of minutes, hours and so on; a bit for each number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0: Sunday.
    weekdays: u64,
    /// Both kinds of days are restricted, and either is enough.
    either_day: bool,
}

/// Why a text is no cron expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields, or far too long.
    #[error("it has five fields: minute, hour, day of the month, month, day of the week")]
    Fields,
    /// A field that is none.
    #[error(
        "the {0} must be '*', a number, a range 'A-B', a step '*/N' or 'A-B/N', or several with commas between"
    )]
    Field(&'static str),
    /// A number out of its range.
    #[error("the {0} is out of range")]
    Range(&'static str),
    /// No day of any year is meant, such as 30 February.
    #[error("no day is like this")]
    Never,
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.len() > CRON_CHARS_MAX {
            return Err(CronError::Fields);
        }
        let fields: Vec<_> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return Err(CronError::Fields) };
        let mut cron = Self {
            minutes: set(minutes, 0, 59, "minute")?,
            hours: set(hours, 0, 23, "hour")?,
            days: set(days, 1, 31, "day of the month")?,
            months: set(months, 1, 12, "month")?,
            weekdays: set(weekdays, 0, 7, "day of the week")?,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        // Sunday has two numbers.
        cron.weekdays |= cron.weekdays >> 7;
        if !cron.either_day && !cron.has_a_date() {
            return Err(CronError::Never);
        }
        Ok(cron)
    }
}

/// A field as a set of numbers.
fn set(field: &str, least: u8, most: u8, what: &'static str) -> Result<u64, CronError> {
    let number = |text: &str| -> Result<u8, CronError> {
        if text.is_empty() || text.len() > 2 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CronError::Field(what));
        }
        let number = text.parse().map_err(|_| CronError::Field(what))?;
        if (least..=most).contains(&number) { Ok(number) } else { Err(CronError::Range(what)) }
    };
    let mut set = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u8 = step.parse().map_err(|_| CronError::Field(what))?;
                (range, Some(step).filter(|step| (1..=most).contains(step)).ok_or(CronError::Range(what))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            // A step needs a range that it goes through.
            None if part.contains('/') => return Err(CronError::Field(what)),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(CronError::Range(what));
        }
        for number in (from..=to).step_by(usize::from(step)) {
            set |= 1 << number;
        }
    }
    Ok(set)
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set >> number & 1 == 1)
}

impl Cron {
    /// The first time after `after` that fits, in its zone.
    #[must_use]
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let mut date = after.date();
        for _ in 0..DAYS_AHEAD_MAX {
            if self.fits(date)
                && let Some(next) = self.next_on(date, after)
            {
                return Some(next);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn next_on(&self, date: Date, after: &Zoned) -> Option<Zoned> {
        let hours = (0..24).filter(|hour| has(self.hours, *hour));
        let times = hours.flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
        times.filter(|(_, minute)| has(self.minutes, *minute)).find_map(|(hour, minute)| {
            let time = Time::new(hour, minute, 0, 0).ok()?;
            let local = after.time_zone().to_ambiguous_zoned(date.to_datetime(time));
            if matches!(local.offset(), AmbiguousOffset::Gap { .. }) {
                return None;
            }
            local.earlier().ok().filter(|time| time > after)
        })
    }

    fn fits(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn has_a_date(&self) -> bool {
        const LONGEST: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let months = (1..=12).zip(LONGEST).filter(|(month, _)| has(self.months, *month));
        months.into_iter().any(|(_, days)| (1..=days).any(|day| has(self.days, day)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, after: &str) -> String {
        let after: Zoned = after.parse().unwrap();
        cron.parse::<Cron>().unwrap().next(&after).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_after_now_and_fits() {
        let utc = |text: &str| format!("{text}+00:00[UTC]");
        for (cron, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00", "2026-01-01T00:01:00"),
            ("*/15 * * * *", "2026-01-01T00:14:59", "2026-01-01T00:15:00"),
            ("30 2 * * *", "2026-01-01T02:30:00", "2026-01-02T02:30:00"),
            ("0 3 * * 1-5", "2026-01-02T03:00:00", "2026-01-05T03:00:00"),
            ("0 0 * * 7", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
            ("0 0 * * 0", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
            ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
            // Either kind of day.
            ("0 0 13 * 5", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
            ("0 0 13 * 5", "2026-01-09T00:00:00", "2026-01-13T00:00:00"),
            ("5,10-20/5 0 1 1 *", "2026-01-01T00:11:00", "2026-01-01T00:15:00"),
        ] {
            assert_eq!(next(cron, &utc(after)), utc(expected), "{cron}");
        }
    }

    #[test]
    fn skipped_times_do_not_fit_and_repeated_ones_fit_once() {
        // The zone is spelled out, as POSIX has it: the host may have no database of zones.
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at = |text: &str| text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap();
        let cron: Cron = "30 2 * * *".parse().unwrap();
        let spring = cron.next(&at("2026-03-28T12:00:00")).unwrap();
        assert_eq!(spring.datetime().to_string(), "2026-03-30T02:30:00");
        let autumn = cron.next(&at("2026-10-24T12:00:00")).unwrap();
        assert_eq!(autumn.datetime().to_string(), "2026-10-25T02:30:00");
        assert_eq!(cron.next(&autumn).unwrap().datetime().to_string(), "2026-10-26T02:30:00");
    }

    #[test]
    fn other_texts_are_refused() {
        let parse = |text: &str| text.parse::<Cron>();
        for text in ["", "* * * *", "* * * * * *", &"* ".repeat(200)] {
            assert_eq!(parse(text), Err(CronError::Fields), "{text}");
        }
        for text in ["a", "", "1-", "-1", "+1", "1/2", "1,,2", "1-2-3", "*/", "*/x", "**", "001"] {
            if !text.is_empty() {
                assert_eq!(parse(&format!("{text} * * * *")), Err(CronError::Field("minute")), "{text}");
            }
        }
        for text in ["60", "5-1", "*/0", "*/99"] {
            assert_eq!(parse(&format!("{text} * * * *")), Err(CronError::Range("minute")), "{text}");
        }
        assert_eq!(parse("* * 0 * *"), Err(CronError::Range("day of the month")));
        assert_eq!(parse("* * * * 8"), Err(CronError::Range("day of the week")));
        assert_eq!(parse("0 0 30 2 *"), Err(CronError::Never));
    }
}
