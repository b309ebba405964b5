//! Contestants within this process, in turn: each does the same work once or more in its turn of a round.

use crate::failure::Outcome;
use crate::output::{OutputArgs, race_as_text};
use crate::results::{Clock, Contestant, Race, Report, Round};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// How often contestants take turns.
#[derive(Clone, Debug, Args)]
pub struct TurnsArgs {
    /// Rounds that count; one more before them warms up and does not
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// What a contestant does in its turn. It says itself, by its watch, which part of that is timed.
type Work<'a> = Box<dyn FnMut(&mut Watch) -> Outcome<()> + 'a>;

/// Contestants that are yet to take turns.
pub struct Turns<'a> {
    race: Race,
    works: Vec<Work<'a>>,
    turn: Duration,
}

/// Adds up time.
#[derive(Debug)]
pub struct Watch {
    clock: Clock,
    times: u32,
    spent: Duration,
    cpu: Duration,
}

impl Watch {
    /// Times this.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (began, cpu_began) = (Instant::now(), self.cpu_now());
        let value = work();
        let cpu = self.cpu_now().saturating_sub(cpu_began);
        self.spent += match self.clock {
            Clock::Wall => began.elapsed(),
            Clock::Cpu => cpu,
        };
        self.cpu += cpu;
        self.times += 1;
        value
    }

    fn cpu_now(&self) -> Duration {
        let time = clock_gettime(match self.clock {
            Clock::Wall => ClockId::ProcessCPUTime,
            Clock::Cpu => ClockId::ThreadCPUTime,
        });
        Duration::try_from(time).unwrap_or_default()
    }
}

impl<'a> Turns<'a> {
    /// Of work on so many bytes. A turn is repeated until it has taken `turn`.
    pub fn new(title: String, clock: Clock, bytes: u64, turn: Duration) -> Self {
        Self { race: Race { title, clock, bytes, ..Race::default() }, works: Vec::new(), turn }
    }

    /// Work that makes so many files.
    pub fn with_files(mut self, files: u64) -> Self {
        self.race.files = files;
        self
    }

    /// One that is timed from start to end.
    pub fn add(&mut self, name: &str, mut work: impl FnMut() + 'a) {
        self.add_watched(name, move |watch| {
            watch.time(&mut work);
            Ok(())
        });
    }

    /// One that times itself.
    pub fn add_watched(&mut self, name: &str, work: impl FnMut(&mut Watch) -> Outcome<()> + 'a) {
        self.race.contestants.push(Contestant::new(name));
        self.works.push(Box::new(work));
    }

    /// Lets them take turns, shows what came out, and adds it to the report.
    pub fn run(mut self, rounds: u32, report: &mut Report) {
        let mut failed = vec![false; self.works.len()];
        for round in 0..=rounds {
            for turn in 0..self.works.len() {
                let at = (turn + round as usize) % self.works.len();
                if failed[at] {
                    continue;
                }
                let mut watch =
                    Watch { clock: self.race.clock, times: 0, spent: Duration::ZERO, cpu: Duration::ZERO };
                // By the wall, so that it ends whatever is timed.
                let began = Instant::now();
                let result = loop {
                    let result = self.works[at](&mut watch);
                    if result.is_err() || began.elapsed() >= self.turn {
                        break result;
                    }
                };
                if let Err(failure) = result {
                    let name = &self.race.contestants[at].name;
                    report.problems.push(format!("{}, {name}: {failure}", self.race.title));
                    failed[at] = true;
                } else if round > 0 && watch.times > 0 {
                    self.race.contestants[at].rounds.push(Round {
                        round,
                        seconds: watch.spent.as_secs_f64() / f64::from(watch.times),
                        cpu_seconds: Some(watch.cpu.as_secs_f64() / f64::from(watch.times)),
                        ..Round::default()
                    });
                }
            }
        }
        self.race.finish();
        print!("{}", race_as_text(&self.race));
        report.races.push(self.race);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::failure;
    use std::cell::Cell;

    #[test]
    fn everybody_has_as_many_turns_but_who_fails() {
        let turns_taken = Cell::new(0);
        let mut report = Report::begin("hash", None);
        let mut turns = Turns::new("work".into(), Clock::Wall, 1000, Duration::ZERO);
        turns.add("one", || turns_taken.set(turns_taken.get() + 1));
        turns.add_watched("broken", |_| failure("it is broken"));
        turns.run(3, &mut report);
        assert_eq!(turns_taken.get(), 4);
        assert_eq!(report.races[0].contestants[0].rounds.len(), 3);
        assert!(report.races[0].contestants[1].summary.is_none());
        assert_eq!(report.problems, ["work, broken: it is broken"]);
    }
}
