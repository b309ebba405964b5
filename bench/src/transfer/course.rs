//! One race: all tools with one data set, round after round, in an order that moves on by one each round.

use super::options::{Cache, Delete};
use crate::data::DataSet;
use crate::failure::{Failure, OrFailure as _, Outcome};
use crate::place::{Place, remove};
use crate::results::{Contestant, Point, Race, Round};
use crate::tools::{Hosts, Job, Ran, Tool};
use crate::tree::{Compared, Tree};
use crate::units::{show_bytes, show_seconds};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Copies of more files are kept until the end, unless it is said otherwise.
const DELETED_AT_ONCE_FILES: u64 = 1000;

/// One race.
pub struct Course<'a> {
    /// What is copied.
    pub data: &'a DataSet,
    /// Where to.
    pub place: &'a Place,
    /// By which tools.
    pub tools: &'a [Box<dyn Tool>],
    /// Whether copies must be on the disk.
    pub durable: bool,
    /// Rounds that count.
    pub rounds: u32,
    /// Whether a destination is used again.
    pub repeated: bool,
    /// Where the source is.
    pub cache: Cache,
    /// When copies go.
    pub delete: Delete,
    /// For one program.
    pub limit: Duration,
    /// Its place in a series.
    pub point: Option<Point>,
}

impl Course<'_> {
    /// Runs it: what came out, and what went wrong.
    pub fn run(self) -> Outcome<(Race, Vec<String>)> {
        self.check_room()?;
        let mut race = Race {
            title: self.title(),
            bytes: self.data.tree.bytes(),
            files: if self.data.tree.files() > 1 { self.data.tree.files() } else { 0 },
            point: self.point.clone().map(|point| Point { series: self.series(&point.series), ..point }),
            ..Race::default()
        };
        for tool in self.tools {
            race.contestants.push(Contestant { version: tool.version(), ..Contestant::new(tool.name()) });
        }
        eprintln!("{}", race.title);
        let mut problems = Vec::new();
        let mut out = vec![false; self.tools.len()];
        for round in 0..=self.rounds {
            for turn in 0..self.tools.len() {
                let at = (turn + round as usize) % self.tools.len();
                let tool = self.tools[at].as_ref();
                if out[at] {
                    continue;
                }
                let shown =
                    if round == 0 { "warm-up".into() } else { format!("round {round}/{}", self.rounds) };
                match self.turn(tool, round) {
                    Ok(ran) => {
                        let rate = show_bytes(race.bytes as f64 / ran.seconds);
                        let seconds = show_seconds(ran.seconds);
                        eprintln!("  {shown:<10} {:<24} {seconds:>10}  {rate:>10}/s", tool.name());
                        let contestant = &mut race.contestants[at];
                        if round > 0 {
                            contestant.rounds.push(as_round(round, &ran));
                        }
                        contestant.commands = ran.commands;
                    }
                    Err(failure) => {
                        eprintln!("  {shown:<10} {:<24} failed: {failure}", tool.name());
                        problems.push(format!("{}, {shown}, {}: {failure}", race.title, tool.name()));
                        // It would fail again, and take its time for it.
                        out[at] = true;
                    }
                }
            }
        }
        race.finish();
        Ok((race, problems))
    }

    fn title(&self) -> String {
        let kind = if self.repeated { ", nothing changed" } else { "" };
        let cache = if self.cache == Cache::Cold { ", source not in memory" } else { "" };
        let durable = if self.durable { "durable" } else { "not synced" };
        format!("{}{kind}{cache}, {durable}", self.data.spec)
    }

    fn series(&self, name: &str) -> String {
        let title = self.title();
        let how = title.split_once(',').map_or("", |(_, how)| how);
        format!("{name},{how}")
    }

    /// One tool's turn. The first of a race is number 0.
    fn turn(&self, tool: &dyn Tool, round: u32) -> Outcome<Ran> {
        let kind = if self.durable { "durable" } else { "unsynced" };
        let number = if self.repeated { "same".to_owned() } else { round.to_string() };
        let run =
            self.place.new_run(&format!("{}-{kind}-{}-{number}", self.data.spec.name(), tool.name()))?;
        let (dest, scratch) = (run.join("copy"), run.join("scratch"));
        fs::create_dir_all(&scratch).or_failure(|| format!("cannot create {}", scratch.display()))?;
        self.place.settle()?;
        self.set_cache()?;
        let job = Job {
            source: &self.data.path,
            dest: &dest,
            scratch: &scratch,
            durable: self.durable,
            repeated: self.repeated,
            limit: self.limit,
            hosts: &Hosts::default(),
        };
        let ran = tool.run(&job)?;
        // A run that found everything there has changed nothing; the last of them shows it.
        if !self.repeated || round == 0 || round == self.rounds {
            self.check(&ran.copy, tool)?;
        }
        if self.deletes_at_once() {
            remove(&run)?;
        }
        Ok(ran)
    }

    fn check(&self, copy: &Path, tool: &dyn Tool) -> Outcome<()> {
        let compared = Compared { modes: tool.keeps_modes() };
        match self.data.tree.difference(&Tree::read(copy)?, compared) {
            None => Ok(()),
            Some(difference) => Err(Failure(format!("the copy is wrong: {difference}"))),
        }
    }

    fn deletes_at_once(&self) -> bool {
        match self.delete {
            Delete::Run => !self.repeated,
            Delete::Auto => !self.repeated && self.data.tree.files() <= DELETED_AT_ONCE_FILES,
            Delete::Set | Delete::End => false,
        }
    }

    fn check_room(&self) -> Outcome<()> {
        let copies = match (self.deletes_at_once(), self.repeated) {
            (true, _) => 1,
            (false, true) => self.tools.len() as u64,
            (false, false) => self.tools.len() as u64 * (u64::from(self.rounds) + 1),
        };
        // A file takes whole pages, and its inode.
        let each = self.data.tree.bytes() + 4096 * self.data.tree.files();
        self.place
            .check_room(each * copies, "choose another --dir, fewer --rounds or --tools, or --delete run")
    }

    fn set_cache(&self) -> Outcome<()> {
        let mut buffer = vec![0; 1 << 20];
        for path in files_below(&self.data.path)? {
            let cannot = || format!("cannot read {}", path.display());
            if self.repeated && self.cache == Cache::Warm {
                // Where nothing has changed, nothing but this is looked at.
                fs::metadata(&path).or_failure(cannot)?;
                continue;
            }
            let mut file = File::open(&path).or_failure(cannot)?;
            match self.cache {
                Cache::Cold => fadvise(&file, 0, None, Advice::DontNeed).or_failure(cannot)?,
                Cache::Warm => while std::io::Read::read(&mut file, &mut buffer).or_failure(cannot)? > 0 {},
            }
        }
        Ok(())
    }
}

fn files_below(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let cannot = || format!("cannot list {}", directory.display());
        for entry in fs::read_dir(&directory).or_failure(cannot)? {
            let entry = entry.or_failure(cannot)?;
            match entry.file_type().or_failure(cannot)?.is_dir() {
                true => directories.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    Ok(files)
}

fn as_round(round: u32, ran: &Ran) -> Round {
    Round {
        round,
        seconds: ran.seconds,
        cpu_seconds: Some(ran.ends.iter().map(|end| end.user_seconds + end.system_seconds).sum()),
        ends: ran.ends.clone(),
        ..Round::default()
    }
}
