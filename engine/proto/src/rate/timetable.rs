//! Limits of rate by the time of day, as people write them: `08:00,512K 18:00,30M 23:00,off`, or `Mon-08:00,1M` for a day of
//! the week.
//!
//! Owns what holds when. It has no clock, and no time zone: it is asked with a minute of the week.

use super::{Rate, RateError};
use crate::limits::TIMETABLE_ENTRIES_MAX;
use std::fmt;
use std::str::FromStr;

const MINUTES_PER_DAY: u16 = 24 * 60;

/// A limit of each direction, or none. As text: one rate or `off` for each of both, or two with a colon between, up first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BothWays {
    /// Of what is sent.
    pub up: Option<Rate>,
    /// Of what is received.
    pub down: Option<Rate>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A minute of a day, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinuteOfDay(u16);

/// A minute of a week, from 0 on Monday at 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinuteOfWeek(u16);

/// From when on what holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// On which day; none: on all.
    pub day: Option<Weekday>,
    /// From when on.
    pub from: MinuteOfDay,
    /// What holds.
    pub limits: BothWays,
}

/// What holds when, in a week that comes again and again. What began last holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// As they were given, to be shown.
    entries: Vec<Entry>,
    /// When something begins, in order; never empty.
    changes: Vec<(MinuteOfWeek, BothWays)>,
}

/// What is no timetable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not a limit.
    #[error(
        "'{0}' is no limit: one is a rate or 'off', or two of these with a colon between for up and down; {RateError}"
    )]
    Limit(String),
    /// Not a time.
    #[error("'{0}' is no time from 00:00 to 23:59, nor one of a day, like Mon-08:00")]
    Time(String),
    /// Not an entry.
    #[error("'{0}' is no entry of a timetable: one is like 08:00,512K")]
    Entry(String),
    /// None, or too many.
    #[error("a timetable has 1 to {TIMETABLE_ENTRIES_MAX} entries")]
    Number,
    /// Two that begin at the same time.
    #[error("{0} is in the timetable twice")]
    Twice(String),
}

impl BothWays {
    /// The same limit up and down, or none.
    #[must_use]
    pub fn each(limit: Option<Rate>) -> Self {
        Self { up: limit, down: limit }
    }

    /// The lower of two limits, in each direction.
    #[must_use]
    pub fn lower(self, other: Self) -> Self {
        Self { up: lower(self.up, other.up), down: lower(self.down, other.down) }
    }

    /// The higher of two limits, in each direction: none, if one of them is none.
    #[must_use]
    pub fn higher(self, other: Self) -> Self {
        let higher = |one: Option<Rate>, other: Option<Rate>| Some(one?.max(other?));
        Self { up: higher(self.up, other.up), down: higher(self.down, other.down) }
    }
}

fn lower(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    one.into_iter().chain(other).min()
}

impl FromStr for BothWays {
    type Err = TimetableError;

    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let wrong = || TimetableError::Limit(shown(text));
        let rate = |text: &str| match text {
            "off" => Ok(None),
            rate => rate.parse().map(Some).map_err(|_| wrong()),
        };
        match text.split_once(':') {
            None => rate(text).map(Self::each),
            Some((up, down)) => Ok(Self { up: rate(up)?, down: rate(down)? }),
        }
    }
}

impl fmt::Display for BothWays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<Rate>| rate.map_or_else(|| "off".to_owned(), |rate| rate.to_string());
        write!(f, "{}", rate(self.up))?;
        if self.up != self.down {
            write!(f, ":{}", rate(self.down))?;
        }
        Ok(())
    }
}

impl Weekday {
    /// All, from Monday on.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    fn index(self) -> u16 {
        match self {
            Self::Monday => 0,
            Self::Tuesday => 1,
            Self::Wednesday => 2,
            Self::Thursday => 3,
            Self::Friday => 4,
            Self::Saturday => 5,
            Self::Sunday => 6,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Monday => "Mon",
            Self::Tuesday => "Tue",
            Self::Wednesday => "Wed",
            Self::Thursday => "Thu",
            Self::Friday => "Fri",
            Self::Saturday => "Sat",
            Self::Sunday => "Sun",
        }
    }
}

impl FromStr for Weekday {
    type Err = TimetableError;

    /// By its first three letters, in any case.
    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let named = Self::ALL.into_iter().find(|day| day.word().eq_ignore_ascii_case(text));
        named.ok_or_else(|| TimetableError::Time(shown(text)))
    }
}

impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl MinuteOfDay {
    /// So many minutes after midnight; none, if that is not on the same day.
    #[must_use]
    pub fn new(minute: u16) -> Option<Self> {
        (minute < MINUTES_PER_DAY).then_some(Self(minute))
    }

    /// As a number.
    #[must_use]
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl FromStr for MinuteOfDay {
    type Err = TimetableError;

    /// `HH:MM`.
    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let number = |text: &str, end: u16| {
            let plain = matches!(text.len(), 1..=2) && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|&number: &u16| plain && number < end)
        };
        let minute = text
            .split_once(':')
            .filter(|(_, minute)| minute.len() == 2)
            .and_then(|(hour, minute)| Some(number(hour, 24)? * 60 + number(minute, 60)?));
        minute.map(Self).ok_or_else(|| TimetableError::Time(shown(text)))
    }
}

impl fmt::Display for MinuteOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl MinuteOfWeek {
    /// A minute of a day.
    #[must_use]
    pub fn new(day: Weekday, minute: MinuteOfDay) -> Self {
        Self(day.index() * MINUTES_PER_DAY + minute.0)
    }
}

impl FromStr for Entry {
    type Err = TimetableError;

    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let (when, limits) = text.split_once(',').ok_or_else(|| TimetableError::Entry(shown(text)))?;
        let time = |_| TimetableError::Time(shown(when));
        let (day, from) = match when.split_once('-') {
            Some((day, from)) => (Some(day.parse().map_err(time)?), from),
            None => (None, when),
        };
        Ok(Self { day, from: from.parse().map_err(time)?, limits: limits.parse()? })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(day) = self.day {
            write!(f, "{day}-")?;
        }
        write!(f, "{},{}", self.from, self.limits)
    }
}

impl Timetable {
    /// These entries. What is said of a day takes precedence over what is said of all days for the same time.
    ///
    /// # Errors
    /// If there are none, or too many, or two say something about the same time.
    pub fn new(entries: Vec<Entry>) -> Result<Self, TimetableError> {
        if !(1..=TIMETABLE_ENTRIES_MAX).contains(&entries.len()) {
            return Err(TimetableError::Number);
        }
        let mut changes = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let same = |other: &&Entry| (other.day, other.from) == (entry.day, entry.from);
            if let Some(twice) = entries.iter().take(at).find(same) {
                let day = twice.day.map_or_else(String::new, |day| format!("{day}-"));
                return Err(TimetableError::Twice(format!("{day}{}", twice.from)));
            }
            let days = Weekday::ALL.into_iter().filter(|day| entry.day.is_none_or(|only| only == *day));
            // Of two for the same minute that of the day comes later, and is found first.
            changes.extend(
                days.map(|day| ((MinuteOfWeek::new(day, entry.from), entry.day.is_some()), entry.limits)),
            );
        }
        changes.sort_by_key(|(when, _)| *when);
        let changes = changes.into_iter().map(|((when, _), limits)| (when, limits)).collect();
        Ok(Self { entries, changes })
    }

    /// The same at all times.
    #[must_use]
    pub fn always(limits: BothWays) -> Self {
        Self { entries: Vec::new(), changes: vec![(MinuteOfWeek(0), limits)] }
    }

    /// Whether nothing ever changes.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.changes.iter().all(|(_, limits)| *limits == self.at(MinuteOfWeek(0)))
    }

    /// What holds in this minute.
    #[must_use]
    pub fn at(&self, now: MinuteOfWeek) -> BothWays {
        let begun = self.changes.partition_point(|(when, _)| *when <= now);
        // Before the first of the week what was last in the week before goes on.
        let before = self.changes.get(..begun).and_then(<[_]>::last).or(self.changes.last());
        before.map_or_else(BothWays::default, |(_, limits)| *limits)
    }

    /// What is allowed at all times, in each direction.
    #[must_use]
    pub fn lowest(&self) -> BothWays {
        self.changes.iter().fold(BothWays::default(), |low, (_, limits)| low.lower(*limits))
    }

    /// What is never exceeded, in each direction.
    #[must_use]
    pub fn highest(&self) -> BothWays {
        let all = self.changes.iter().map(|(_, limits)| *limits);
        all.reduce(BothWays::higher).unwrap_or_default()
    }

    /// When what begins, as it was given; nothing, if it is the same at all times.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl FromStr for Timetable {
    type Err = TimetableError;

    /// A limit that always holds, or entries with spaces between.
    fn from_str(text: &str) -> Result<Self, TimetableError> {
        if !text.contains([',', ' ']) {
            return text.parse().map(Self::always);
        }
        let entries = text.split_ascii_whitespace().take(TIMETABLE_ENTRIES_MAX + 1).map(str::parse);
        Self::new(entries.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return self.at(MinuteOfWeek(0)).fmt(f);
        }
        for (at, entry) in self.entries.iter().enumerate() {
            write!(f, "{}{entry}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// As much of what somebody wrote as an error shows.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTES_PER_WEEK: u16 = 7 * MINUTES_PER_DAY;

    fn table(text: &str) -> Timetable {
        text.parse().unwrap()
    }

    fn at(table: &Timetable, day: Weekday, time: &str) -> String {
        table.at(MinuteOfWeek::new(day, time.parse().unwrap())).to_string()
    }

    #[test]
    fn what_began_last_holds_over_midnight_and_the_end_of_the_week() {
        let daily = table("08:00,512k 18:00,30M 23:00,off");
        for day in Weekday::ALL {
            for (time, limit) in [
                ("00:00", "off"),
                ("07:59", "off"),
                ("08:00", "512K"),
                ("17:59", "512K"),
                ("18:00", "30M"),
                ("22:59", "30M"),
                ("23:00", "off"),
                ("23:59", "off"),
            ] {
                assert_eq!(at(&daily, day, time), limit, "{day} {time}");
            }
        }
        let weekly = table("Mon-00:00,512k Fri-23:59,10M Sat-10:00,1M Sun-20:00,off");
        assert_eq!(at(&weekly, Weekday::Monday, "00:00"), "512K");
        assert_eq!(at(&weekly, Weekday::Friday, "23:58"), "512K");
        assert_eq!(at(&weekly, Weekday::Friday, "23:59"), "10M");
        assert_eq!(at(&weekly, Weekday::Sunday, "19:59"), "1M");
        assert_eq!(at(&table("tue-12:00,1M"), Weekday::Monday, "00:00"), "1M");
    }

    #[test]
    fn a_day_takes_precedence_over_all_days() {
        for text in ["08:00,1M Sat-08:00,off 20:00,2M", "Sat-08:00,off 20:00,2M 08:00,1M"] {
            let table = table(text);
            assert_eq!(at(&table, Weekday::Friday, "09:00"), "1M");
            assert_eq!(at(&table, Weekday::Saturday, "09:00"), "off");
            assert_eq!(at(&table, Weekday::Saturday, "20:00"), "2M");
            assert_eq!(at(&table, Weekday::Sunday, "09:00"), "1M");
        }
    }

    #[test]
    fn each_direction_may_have_a_limit_of_its_own() {
        let table = table("08:00,10M:off 20:00,off:1M");
        let limits = table.at(MinuteOfWeek::new(Weekday::Monday, "09:00".parse().unwrap()));
        assert_eq!(limits, BothWays { up: Some("10M".parse().unwrap()), down: None });
        assert_eq!(table.lowest(), "10M:1M".parse().unwrap());
        assert_eq!(table.highest(), BothWays::default());
        assert_eq!(super::tests::table("08:00,10M:2M 20:00,1M:3M").highest(), "10M:3M".parse().unwrap());
    }

    #[test]
    fn what_never_changes_is_known() {
        for (text, constant) in
            [("10M", true), ("off", true), ("08:00,1M", true), ("08:00,1M 9:00,off", false)]
        {
            assert_eq!(table(text).is_constant(), constant, "{text}");
        }
        assert_eq!(table("1M").lowest().to_string(), "1M");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "",
            " ",
            "none",
            "1:2:3",
            "08:00",
            "24:00,1M",
            "08:60,1M",
            "8:0,1M",
            "+8:00,1M",
            "08:00,7K",
            "08:00,",
            "Fun-08:00,1M",
            "-08:00,1M",
            "08:00,1M 08:00,2M",
            "Mon-08:00,1M mon-08:00,2M",
            "1M 08:00,1M",
            "08:00,1M,2M",
        ] {
            assert!(wrong.parse::<Timetable>().is_err(), "{wrong:?}");
        }
        let many = vec!["08:00,1M"; TIMETABLE_ENTRIES_MAX + 1].join(" ");
        assert_eq!(many.parse::<Timetable>(), Err(TimetableError::Number));
    }

    fn limits() -> impl Strategy<Value = BothWays> {
        let rate = || {
            proptest::option::of((super::super::RATE_MIN..1 << 40).prop_map(|rate| Rate::new(rate).unwrap()))
        };
        (rate(), rate()).prop_map(|(up, down)| BothWays { up, down })
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let day = proptest::option::of((0_usize..7).prop_map(|day| Weekday::ALL[day]));
        let entry = (day, 0..MINUTES_PER_DAY, limits()).prop_map(|(day, from, limits)| Entry {
            day,
            from: MinuteOfDay(from),
            limits,
        });
        proptest::collection::vec(entry, 1..20)
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(entries in entries(), always in limits()) {
            let always = Timetable::always(always);
            prop_assert_eq!(always.to_string().parse(), Ok(always));
            if let Ok(table) = Timetable::new(entries) {
                prop_assert_eq!(table.to_string().parse(), Ok(table));
            }
        }

        #[test]
        fn it_is_as_if_one_went_back_minute_by_minute(entries in entries(), now in 0..MINUTES_PER_WEEK) {
            let Ok(table) = Timetable::new(entries.clone()) else { return Ok(()) };
            let begins = |minute: u16| {
                let (day, from) = (Weekday::ALL[usize::from(minute / MINUTES_PER_DAY)], MinuteOfDay(minute % MINUTES_PER_DAY));
                let of = |wanted| entries.iter().find(|entry| entry.from == from && entry.day == wanted);
                of(Some(day)).or_else(|| of(None))
            };
            let back = (0..MINUTES_PER_WEEK).map(|back| (now + MINUTES_PER_WEEK - back) % MINUTES_PER_WEEK);
            let expected = back.filter_map(begins).next().unwrap().limits;
            prop_assert_eq!(table.at(MinuteOfWeek(now)), expected);
            prop_assert_eq!(table.lowest().lower(expected), table.lowest());
            prop_assert_eq!(table.highest().higher(expected), table.highest());
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}", like in "[A-Za-z0-9:,\\- ]{0,60}") {
            let _ = text.parse::<Timetable>();
            let _ = like.parse::<Timetable>();
        }
    }
}
