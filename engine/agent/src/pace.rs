//! How fast blocks may go, up and down, and by what time it is.
//!
//! Owns the limiters of a run, and the clock by which timetables are read: the one of this host, in a time zone. What holds
//! when is for [`Timetable`] to say.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use sealift_net::Limiter;
use sealift_proto::rate::{BothWays, MinuteOfDay, MinuteOfWeek, Rate, Timetable, Weekday};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often the clock is looked at while a timetable holds. Not only when something is to change: clocks are set, and
/// machines sleep.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The limits of a run. Clones share them.
#[derive(Clone, Debug)]
pub struct Pace {
    /// What is sent.
    pub up: Arc<Limiter>,
    /// What is received.
    pub down: Arc<Limiter>,
    /// What is received at most, whenever it is.
    pub(crate) down_most: Option<Rate>,
}

impl Pace {
    /// These limits, until others are set.
    #[must_use]
    pub fn new(limits: BothWays) -> Self {
        let limiter = |rate| Arc::new(Limiter::new(rate));
        Self { up: limiter(limits.up), down: limiter(limits.down), down_most: limits.down }
    }

    /// Other limits from now on.
    pub fn set(&self, limits: BothWays) {
        set(Some(&self.up), limits.up);
        set(Some(&self.down), limits.down);
    }

    /// Those that the timetable says, by this host's clock in its own time zone, from now on.
    ///
    /// # Errors
    /// If there can be no thread that looks at the clock.
    pub fn by(timetable: Timetable) -> io::Result<Self> {
        let zone = TimeZone::system();
        let pace = Self { down_most: timetable.highest().down, ..Self::new(timetable.at(now(&zone))) };
        if !timetable.is_constant() {
            let (up, down) = (Arc::downgrade(&pace.up), Arc::downgrade(&pace.down));
            let look = move || {
                // A sender keeps one of the two.
                while up.strong_count() + down.strong_count() > 0 {
                    let limits = timetable.at(now(&zone));
                    set(up.upgrade().as_deref(), limits.up);
                    set(down.upgrade().as_deref(), limits.down);
                    std::thread::park_timeout(LOOK_INTERVAL);
                }
            };
            std::thread::Builder::new().name("sealift-clock".into()).spawn(look)?;
        }
        Ok(pace)
    }
}

fn set(limiter: Option<&Limiter>, rate: Option<Rate>) {
    if let Some(limiter) = limiter.filter(|limiter| limiter.rate() != rate) {
        limiter.set(rate);
    }
}

impl Default for Pace {
    /// No limits.
    fn default() -> Self {
        Self::new(BothWays::default())
    }
}

/// What time of the week it is there.
pub(crate) fn now(zone: &TimeZone) -> MinuteOfWeek {
    minute_of_week(Timestamp::now(), zone)
}

fn minute_of_week(at: Timestamp, zone: &TimeZone) -> MinuteOfWeek {
    let there = at.to_zoned(zone.clone());
    let day = match there.weekday() {
        civil::Weekday::Monday => Weekday::Monday,
        civil::Weekday::Tuesday => Weekday::Tuesday,
        civil::Weekday::Wednesday => Weekday::Wednesday,
        civil::Weekday::Thursday => Weekday::Thursday,
        civil::Weekday::Friday => Weekday::Friday,
        civil::Weekday::Saturday => Weekday::Saturday,
        civil::Weekday::Sunday => Weekday::Sunday,
    };
    let minutes = u16::from(there.hour().unsigned_abs()) * 60 + u16::from(there.minute().unsigned_abs());
    let minute = MinuteOfDay::new(minutes).expect("hours and minutes of a day");
    MinuteOfWeek::new(day, minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_zone() {
        // A Sunday.
        let at: Timestamp = "2026-03-29T23:30:59Z".parse().unwrap();
        let minute = |day, time: &str| MinuteOfWeek::new(day, time.parse().unwrap());
        assert_eq!(minute_of_week(at, &TimeZone::UTC), minute(Weekday::Sunday, "23:30"));
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(minute_of_week(at, &east), minute(Weekday::Monday, "01:30"));
    }

    #[test]
    fn what_holds_now_is_set_from_the_beginning() {
        let always: Timetable = "00:00,1M:2M".parse().unwrap();
        let pace = Pace::by(always).unwrap();
        assert_eq!((pace.up.rate(), pace.down.rate()), ("1M".parse().ok(), "2M".parse().ok()));
        assert_eq!(pace.down_most, "2M".parse().ok());
    }
}
