//! Disks made from a log, mounted and checked, one after the other on each core.

use super::cut::{Cut, Share, flushes, plan};
use super::image::{Image, apply_to_file};
use super::log::{Position, WriteLog};
use crate::blockdev::{Caching, FileSystem, LoopDevice, Mount, Scratch};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The most images that are mounted at the same time.
const WORKERS_MAX: usize = 4;

/// A run that has ended: the disk as it was, and everything that was written to it.
#[derive(Debug)]
pub struct Recording {
    kind: FileSystem,
    options: String,
    base: PathBuf,
    log: WriteLog,
    scratch: Scratch,
    fsck: bool,
}

/// A disk after a power cut, mounted.
#[derive(Clone, Copy, Debug)]
pub struct PoweredOn<'i> {
    /// Which of all cuts it is, from 0.
    pub number: usize,
    /// Where it was cut.
    pub cut: Cut,
    /// Where it is mounted. It can be written to.
    pub path: &'i Path,
}

/// Something that should not be after a power cut.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Where it was cut.
    pub cut: Cut,
    /// What was found.
    pub what: String,
}

/// What was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// How many images.
    pub images: usize,
    /// At how many flush boundaries of the run, of how many.
    pub boundaries: (usize, usize),
    /// What should not be.
    pub violations: Vec<Violation>,
    /// How long it took.
    pub took: Duration,
}

impl Recording {
    pub(super) fn new(
        kind: FileSystem,
        options: String,
        base: PathBuf,
        log: WriteLog,
        scratch: Scratch,
    ) -> Self {
        Self { kind, options, base, log, scratch, fsck: false }
    }

    /// Has each file system also checked by its own tool, after it recovered and was unmounted again.
    #[must_use]
    pub fn with_fsck(self) -> Self {
        Self { fsck: true, ..self }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &WriteLog {
        &self.log
    }

    /// The moment at which everything was over.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.log.entries().len())
    }

    /// The moments right after each flush.
    #[must_use]
    pub fn boundaries(&self, range: Range<Position>) -> Vec<Position> {
        flushes(self.log.entries(), range).map(|(_, flush)| Position(flush + 1)).collect()
    }

    /// Power cuts at and between the flushes in this range, by this seed.
    #[must_use]
    pub fn cuts(&self, range: Range<Position>, share: Share, seed: u64) -> Vec<Cut> {
        plan(self.log.entries(), range, share, seed)
    }

    /// Makes the disk after each of these cuts, mounts it and hands it to `check`, which returns what should not be. A
    /// disk that cannot be mounted is a violation as well.
    ///
    /// # Panics
    /// If an image cannot be made.
    pub fn check(&self, cuts: &[Cut], check: impl Fn(PoweredOn<'_>) -> Vec<String> + Sync) -> Checked {
        let began = Instant::now();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let numbered: Vec<(usize, Cut)> = cuts.iter().copied().enumerate().collect();
        let violations = std::thread::scope(|scope| {
            let work = |worker: usize| {
                let mine: Vec<_> = numbered.iter().copied().skip(worker).step_by(workers).collect();
                let check = &check;
                scope.spawn(move || self.work(worker, mine, check))
            };
            let running: Vec<_> = (0..workers).map(work).collect();
            let done = running.into_iter().map(|worker| worker.join());
            let mut violations: Vec<Violation> = Vec::new();
            for found in done {
                violations.extend(found.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            violations
        });
        let entries = self.log.entries();
        let mut boundaries: Vec<usize> = cuts.iter().map(|cut| cut.flushed(entries)).collect();
        // Before the first there is none.
        boundaries.retain(|boundary| entries[*boundary].flush);
        boundaries.sort_unstable();
        boundaries.dedup();
        let all = self.boundaries(Position(0)..self.end()).len();
        Checked { images: cuts.len(), boundaries: (boundaries.len(), all), violations, took: began.elapsed() }
    }

    fn work(
        &self,
        worker: usize,
        mut cuts: Vec<(usize, Cut)>,
        check: &impl Fn(PoweredOn<'_>) -> Vec<String>,
    ) -> Vec<Violation> {
        let [image, at] = ["image", "at"].map(|name| self.scratch.path().join(format!("{name} {worker}")));
        let entries = self.log.entries();
        let mut disk = Image::load(&self.base).expect("the disk as it was can be read");
        let mut rolled = 0;
        let mut violations = Vec::new();
        cuts.sort_by_key(|(_, cut)| cut.at);
        for (number, cut) in cuts {
            let flushed = cut.flushed(entries);
            for entry in &entries[rolled..flushed] {
                disk.apply(&self.log, entry);
            }
            rolled = flushed;
            let _ = std::fs::remove_file(&image);
            let file = disk.save(&image).expect("there is room for an image");
            self.apply_survivors(&file, flushed, cut);
            drop(file);
            let found = self.power_on(&image, &at, number, cut, check);
            violations.extend(found.into_iter().map(|what| Violation { cut, what }));
        }
        let _ = std::fs::remove_file(&image);
        violations
    }

    fn apply_survivors(&self, file: &File, flushed: usize, cut: Cut) {
        let mut fate = cut.fates();
        for entry in &self.log.entries()[flushed..cut.at.0] {
            let fate = fate(entry);
            apply_to_file(file, &self.log, entry, fate).expect("there is room for an image");
        }
    }

    fn power_on(
        &self,
        image: &Path,
        at: &Path,
        number: usize,
        cut: Cut,
        check: &impl Fn(PoweredOn<'_>) -> Vec<String>,
    ) -> Vec<String> {
        let device = LoopDevice::attach(image, Caching::Direct).unwrap_or_else(|error| panic!("{error}"));
        let mount = match Mount::new(device.path(), at, &self.options) {
            Ok(mount) => mount,
            Err(why) => return vec![format!("it cannot be mounted: {why}")],
        };
        let mut found = check(PoweredOn { number, cut, path: at });
        if let Err(why) = mount.unmount() {
            found.push(format!("it cannot be unmounted: {why}"));
        } else if self.fsck {
            found.extend(self.kind.fsck(image).err().map(|why| format!("it is damaged: {why}")));
        }
        found
    }
}

impl Checked {
    /// Prints how much was checked, and fails if something was found.
    ///
    /// # Panics
    /// If there are violations.
    pub fn assert_none(&self) {
        println!("{self}");
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 10;
        let Self { images, boundaries: (at, of), violations, took } = self;
        write!(
            out,
            "{images} images checked, at {at} of {of} flush boundaries, {:.1} s",
            took.as_secs_f64()
        )?;
        write!(out, ", {} violations", violations.len())?;
        for Violation { cut, what } in violations.iter().take(SHOWN_MAX) {
            write!(out, "\n  {cut:?}: {what}")?;
        }
        if violations.len() > SHOWN_MAX {
            write!(out, "\n  and {} more", violations.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}
