//! What was measured, as it is kept in JSON.
//!
//! A report has races; a race has contestants that took turns; a contestant has rounds. Everything but the rounds is
//! computed from them, by [`Race::finish`].

mod network;

pub use network::{Direction, NetworkSummary, Swarm, Wan};

use crate::machine::Machine;
use crate::stats::{Spread, paired_ratios};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of this layout; another number when old reports cannot be read any more.
pub const FORMAT: &str = "sealift-bench/1";

/// One run of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// Which command made it.
    pub command: String,
    /// The whole command line.
    pub arguments: Vec<String>,
    /// When it began.
    pub started_unix_seconds: u64,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub races: Vec<Race>,
    /// Tools that were asked for and are not here.
    pub missing: Vec<Missing>,
    /// What went wrong. Empty if every result counts.
    pub problems: Vec<String>,
}

/// A tool that is not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// The tool.
    pub tool: String,
    /// What it lacks.
    pub reason: String,
}

/// Contestants that did the same work in turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Race {
    /// What the work was.
    pub title: String,
    /// What the seconds of its rounds are.
    pub clock: Clock,
    /// Bytes that each round worked on; 0 where files are what counts.
    pub bytes: u64,
    /// Files that each round worked on; 0 where bytes are what counts.
    pub files: u64,
    /// Where it stands in a series.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub point: Option<Point>,
    /// Who took part.
    pub contestants: Vec<Contestant>,
    /// Each beside each other.
    pub ratios: Vec<Ratio>,
}

/// What seconds are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Time on the wall.
    #[default]
    Wall,
    /// Time of the CPU, of one thread.
    Cpu,
}

/// A race's place in a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Races of one name are one series.
    pub series: String,
    /// What grows.
    pub axis: Axis,
    /// How much of it this race had.
    pub value: u64,
}

/// What grows along a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Bytes of one file.
    Bytes,
    /// The number of files.
    Files,
}

/// One that took part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contestant {
    /// Its name.
    pub name: String,
    /// Its version, in its own words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The command lines of its last round.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<String>,
    /// Its rounds, without warm-up and without what failed.
    pub rounds: Vec<Round>,
    /// What they came to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<Summary>,
}

/// One turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From 1; the same number for all that took turns.
    pub round: u32,
    /// How long it took.
    pub seconds: f64,
    /// What the CPUs did for it, in user and system mode, at all ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_seconds: Option<f64>,
    /// What each end used.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ends: Vec<End>,
    /// What an emulated link saw of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wan: Option<Wan>,
    /// What an emulated network of many hosts saw of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub swarm: Option<Swarm>,
}

/// What one process that was started used, with all that it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Which one.
    pub name: String,
    /// Seconds in user mode.
    pub user_seconds: f64,
    /// Seconds in system mode.
    pub system_seconds: f64,
    /// The most memory that one process of it had resident.
    pub peak_resident_bytes: u64,
}

/// What rounds came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How long a round took.
    pub seconds: Spread,
    /// 10⁹ bytes a second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gigabytes_per_second: Option<Spread>,
    /// Files a second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files_per_second: Option<Spread>,
    /// CPU seconds of all ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_seconds: Option<Spread>,
    /// CPU nanoseconds for each byte, by the median.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_nanoseconds_per_byte: Option<f64>,
    /// The most memory of each end, in any round.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub peak_resident_bytes: BTreeMap<String, u64>,
    /// What an emulated network saw.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<NetworkSummary>,
}

/// One contestant beside another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The one.
    pub of: String,
    /// The other.
    pub beside: String,
    /// How many times as fast the one is: the other's seconds over its own, round by round.
    pub speed: Spread,
    /// The other's median over its own.
    pub speed_by_medians: f64,
    /// How many times the CPU seconds of the other it takes, round by round.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<Spread>,
}

impl Report {
    /// One of this command, which begins now. `work_dir` is where files are written, if any are.
    #[must_use]
    pub fn begin(command: &str, work_dir: Option<&Path>) -> Self {
        Self {
            format: FORMAT.into(),
            command: command.into(),
            arguments: std::env::args().collect(),
            started_unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            machine: Machine::here(work_dir),
            races: Vec::new(),
            missing: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl Contestant {
    /// One without rounds yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn seconds(&self) -> Vec<(u32, f64)> {
        self.rounds.iter().map(|round| (round.round, round.seconds)).collect()
    }

    fn cpu_seconds(&self) -> Vec<(u32, f64)> {
        self.rounds.iter().filter_map(|round| Some((round.round, round.cpu_seconds?))).collect()
    }

    fn summarize(&mut self, bytes: u64, files: u64) {
        let values = |rounds: Vec<(u32, f64)>| rounds.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        self.summary = Spread::of(&values(self.seconds())).map(|seconds| {
            let cpu_seconds = Spread::of(&values(self.cpu_seconds()));
            let mut peak_resident_bytes = BTreeMap::new();
            for end in self.rounds.iter().flat_map(|round| &round.ends) {
                let peak = peak_resident_bytes.entry(end.name.clone()).or_insert(0);
                *peak = end.peak_resident_bytes.max(*peak);
            }
            Summary {
                seconds,
                gigabytes_per_second: (bytes > 0).then(|| seconds.inverse(bytes as f64 / 1e9)),
                files_per_second: (files > 0).then(|| seconds.inverse(files as f64)),
                cpu_seconds,
                cpu_nanoseconds_per_byte: cpu_seconds
                    .filter(|_| bytes > 0)
                    .map(|cpu| cpu.median * 1e9 / bytes as f64),
                peak_resident_bytes,
                network: NetworkSummary::of(
                    &self.rounds.iter().filter_map(|round| round.wan.as_ref()).collect::<Vec<_>>(),
                    &self.rounds.iter().filter_map(|round| round.swarm.as_ref()).collect::<Vec<_>>(),
                ),
            }
        });
    }
}

impl Race {
    /// Computes summaries and ratios.
    pub fn finish(&mut self) {
        for contestant in &mut self.contestants {
            contestant.summarize(self.bytes, self.files);
        }
        self.ratios.clear();
        for one in &self.contestants {
            for other in self.contestants.iter().filter(|other| other.name != one.name) {
                self.ratios.extend(ratio(one, other));
            }
        }
    }
}

fn ratio(one: &Contestant, other: &Contestant) -> Option<Ratio> {
    let speed = Spread::of(&paired_ratios(&one.seconds(), &other.seconds()))?;
    let medians = (one.summary.as_ref()?.seconds.median, other.summary.as_ref()?.seconds.median);
    Some(Ratio {
        of: one.name.clone(),
        beside: other.name.clone(),
        speed,
        speed_by_medians: medians.1 / medians.0,
        // Upside down: more is worse.
        cpu: Spread::of(&paired_ratios(&other.cpu_seconds(), &one.cpu_seconds())),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A report with a little of everything.
    pub fn sample() -> Report {
        let round = |round, seconds| Round {
            round,
            seconds,
            cpu_seconds: Some(2.0 * seconds),
            ends: vec![End {
                name: "sender".into(),
                user_seconds: seconds,
                system_seconds: seconds,
                peak_resident_bytes: 1000 * u64::from(round),
            }],
            wan: None,
            swarm: None,
        };
        let contestant = |name: &str, seconds: [f64; 3]| Contestant {
            rounds: seconds.into_iter().zip(1..).map(|(seconds, number)| round(number, seconds)).collect(),
            commands: vec![format!("{name} <from> \"to\" & more")],
            ..Contestant::new(name)
        };
        let mut race = Race {
            title: "large:4GiB".into(),
            bytes: 4_000_000_000,
            files: 1,
            point: Some(Point { series: "sizes".into(), axis: Axis::Bytes, value: 4_000_000_000 }),
            contestants: vec![contestant("sealift", [1.0, 2.0, 4.0]), contestant("cp", [2.0, 4.0, 4.0])],
            ..Race::default()
        };
        race.finish();
        Report {
            format: FORMAT.into(),
            command: "transfer".into(),
            arguments: vec!["sealift-bench".into(), "transfer".into()],
            started_unix_seconds: 1_700_000_000,
            machine: Machine::default(),
            races: vec![race],
            missing: vec![Missing { tool: "wdt".into(), reason: "it is not on PATH".into() }],
            problems: vec![],
        }
    }

    #[test]
    fn ratios_and_summaries_come_from_rounds() {
        let report = sample();
        let race = &report.races[0];
        let summary = race.contestants[0].summary.as_ref().unwrap();
        assert_eq!(summary.seconds.median, 2.0);
        assert_eq!(summary.gigabytes_per_second.unwrap().median, 2.0);
        assert_eq!(summary.cpu_nanoseconds_per_byte, Some(1.0));
        assert_eq!(summary.peak_resident_bytes["sender"], 3000);
        let ratio = race.ratios.iter().find(|ratio| ratio.of == "sealift").unwrap();
        assert_eq!((ratio.speed.median, ratio.speed.min, ratio.speed.max), (2.0, 1.0, 2.0));
        assert_eq!(ratio.speed_by_medians, 2.0);
        assert_eq!(ratio.cpu.unwrap().median, 0.5);
        assert_eq!(race.ratios.len(), 2);
    }

    #[test]
    fn a_report_survives_json() {
        let report = sample();
        let text = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_race_without_rounds_has_no_summary() {
        let mut race =
            Race { contestants: vec![Contestant::new("a"), Contestant::new("b")], ..Race::default() };
        race.finish();
        assert!(race.ratios.is_empty());
        assert_eq!(race.contestants[0].summary, None);
    }
}
