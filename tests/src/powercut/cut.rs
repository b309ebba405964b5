//! Where the power is cut, and what the disk has by then of what it had not flushed.

use super::log::{Entry, Position, What};
use crate::tree::Random;
use std::ops::Range;

/// What a disk writes as a whole or not at all.
pub const TEAR_BYTES: u64 = 4096;

/// A power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// After that many entries of the log.
    pub at: Position,
    /// What is left of the writes since the last flush.
    pub survivors: Survivors,
}

/// What is left of the writes since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Some of them, chosen by this seed.
    Some(u64),
    /// Some of them, a part of these torn: only some of their sectors were written.
    Torn(u64),
}

/// How many of the possible cuts are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Each flush boundary, in each way.
    All,
    /// About so many, over the whole run.
    Images(usize),
}

impl Share {
    /// What `SEALIFT_POWERCUT_IMAGES` says: a number, or `all`. Otherwise so many.
    ///
    /// # Panics
    /// If it says something else.
    #[must_use]
    pub fn asked_for(otherwise: usize) -> Self {
        match std::env::var("SEALIFT_POWERCUT_IMAGES").as_deref() {
            Ok("all") => Self::All,
            Ok(number) => Self::Images(number.parse().expect("SEALIFT_POWERCUT_IMAGES is a number or `all`")),
            Err(_) => Self::Images(otherwise),
        }
    }

    /// So many of `of` parts of it, at least one image.
    #[must_use]
    pub fn part(self, parts: usize, of: usize) -> Self {
        match self {
            Self::All => Self::All,
            Self::Images(images) => Self::Images((images * parts).div_ceil(of)),
        }
    }

    /// A part of these, from all over them.
    fn of(self, all: Vec<Cut>, random: &mut Random) -> Vec<Cut> {
        match self {
            Self::Images(images) if images < all.len() => {
                let stratum = |number: usize| number * all.len() / images;
                (0..images)
                    .map(|number| {
                        let (start, end) = (stratum(number), stratum(number + 1));
                        all[start + usize::try_from(random.below((end - start) as u64)).expect("small")]
                    })
                    .collect()
            }
            _ => all,
        }
    }
}

/// Each flush of these entries within `range`, as the positions before and after it, with where what it flushes begins.
pub(super) fn flushes(entries: &[Entry], range: Range<Position>) -> impl Iterator<Item = (usize, usize)> {
    let mut unflushed_from = 0;
    entries.iter().enumerate().filter_map(move |(number, entry)| {
        let from = unflushed_from;
        if entry.flush {
            unflushed_from = number;
        }
        (entry.flush && (range.start.0..range.end.0).contains(&number)).then_some((from, number))
    })
}

/// Cuts at the beginning of `range`, at and between the flushes in it, and at its end; by this seed.
pub(super) fn plan(entries: &[Entry], range: Range<Position>, share: Share, seed: u64) -> Vec<Cut> {
    let mut random = Random::new(seed);
    let mut cuts = vec![Cut { at: range.start, survivors: Survivors::None }];
    let mut last = Cut { at: range.start, survivors: Survivors::None }.flushed(entries);
    for (from, flush) in flushes(entries, range.clone()) {
        last = flush;
        // Before the flush came, but not before the range.
        cuts.extend(unflushed(entries, from, (from + 1).max(range.start.0)..flush, &mut random));
        cuts.push(Cut { at: Position(flush + 1), survivors: Survivors::None });
    }
    cuts.extend(unflushed(entries, last, (last + 1).max(range.start.0)..range.end.0, &mut random));
    let mut cuts = share.of(cuts, &mut random);
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

/// Cuts at moments in `between` and at its end, where something was written since `from`, the last flush.
fn unflushed(entries: &[Entry], from: usize, between: Range<usize>, random: &mut Random) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let moments = (between.end + 1).saturating_sub(between.start).max(1) as u64;
    let mut moment = || between.start + usize::try_from(random.below(moments)).expect("small");
    let [some, other] = [moment(), moment()];
    let mut cut = |at: usize, survivors| {
        if entries[from..at.min(entries.len())].iter().any(Entry::is_lost_without_flush) {
            cuts.push(Cut { at: Position(at), survivors });
        }
    };
    for at in [between.end, other] {
        cut(at, Survivors::Some(random.number()));
        cut(at, Survivors::Torn(random.number()));
    }
    cut(some, Survivors::All);
    cuts
}

impl Entry {
    /// Whether it changes the disk, and for certain only with a flush.
    pub(super) fn is_lost_without_flush(&self) -> bool {
        !self.durable && matches!(self.what, What::Write { .. } | What::Discard { .. })
    }
}

impl Cut {
    /// Where what may be lost begins; all before it is on the disk.
    pub(super) fn flushed(&self, entries: &[Entry]) -> usize {
        entries[..self.at.0].iter().rposition(|entry| entry.flush).unwrap_or(0)
    }

    /// Which of the writes that may be lost are on the disk: for each, in order, what of it.
    pub(super) fn fates(&self) -> impl FnMut(&Entry) -> Fate {
        let mut random = match self.survivors {
            Survivors::None | Survivors::All => Random::new(0),
            Survivors::Some(seed) | Survivors::Torn(seed) => Random::new(seed),
        };
        // Of each four writes, one to three are kept.
        let kept_of_four = 1 + random.below(3);
        let survivors = self.survivors;
        move |entry| {
            if !entry.is_lost_without_flush() {
                return Fate::Whole;
            }
            match survivors {
                Survivors::None => Fate::Lost,
                Survivors::All => Fate::Whole,
                Survivors::Some(_) | Survivors::Torn(_) => {
                    let (kept, torn, seed) =
                        (random.below(4) < kept_of_four, random.below(2) == 0, random.number());
                    match (kept, survivors) {
                        (false, _) => Fate::Lost,
                        (true, Survivors::Torn(_)) if torn => Fate::Torn(seed),
                        (true, _) => Fate::Whole,
                    }
                }
            }
        }
    }
}

/// What of a write is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Whole,
    /// Each [`TEAR_BYTES`] of it or not, by this seed.
    Torn(u64),
}

impl Fate {
    /// Whether these bytes, which are all in one sector of [`TEAR_BYTES`], are on the disk.
    pub(super) fn keeps(self, at_bytes: u64) -> bool {
        match self {
            Self::Lost => false,
            Self::Whole => true,
            Self::Torn(seed) => Random::new(seed ^ (at_bytes / TEAR_BYTES)).below(2) == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::{Image, apply_to_file};
    use super::super::log::{WriteLog, tests as logs};
    use super::*;
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    const SECTOR: usize = 4096;
    const DISK_SECTORS: u64 = 64;
    const FLUSH: u64 = 1;
    const FUA: u64 = 2;

    /// Writes of a number each, here and there, with flushes between them.
    fn log(seed: u64) -> WriteLog {
        let mut random = Random::new(seed);
        let data: Vec<Vec<u8>> =
            (1..=200_u8).map(|number| vec![number; SECTOR * (1 + number as usize % 3)]).collect();
        let mut entries: Vec<(u64, u64, &[u8])> = Vec::new();
        for data in &data {
            let sector = random.below(DISK_SECTORS - 3);
            match random.below(10) {
                0 => entries.push((0, FLUSH, b"")),
                1 => entries.push((sector, FLUSH, data)),
                2 => entries.push((sector, FUA, data)),
                _ => entries.push((sector, 0, data)),
            }
        }
        logs::read(&logs::written(SECTOR as u64, &entries), DISK_SECTORS * SECTOR as u64).unwrap()
    }

    /// The number in each sector of the disk after a cut, made as recordings do it.
    fn disk_after(log: &WriteLog, cut: &Cut, dir: &Path) -> Vec<u8> {
        let (base, image) = (dir.join("base"), dir.join("image"));
        fs::write(&base, vec![0; SECTOR * 64]).unwrap();
        let mut disk = Image::load(&base).unwrap();
        let flushed = cut.flushed(log.entries());
        for entry in &log.entries()[..flushed] {
            disk.apply(log, entry);
        }
        let file = disk.save(&image).unwrap();
        let mut fate = cut.fates();
        for entry in &log.entries()[flushed..cut.at.0] {
            apply_to_file(&file, log, entry, fate(entry)).unwrap();
        }
        let disk = fs::read(&image).unwrap();
        disk.chunks(SECTOR).for_each(|sector| assert!(sector.iter().all(|byte| *byte == sector[0])));
        disk.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    /// For each sector what it may hold after a cut: what is certain, and what was written since that may be lost.
    fn allowed(log: &WriteLog, at: Position) -> Vec<HashSet<u8>> {
        let mut allowed = vec![HashSet::from([0]); 64];
        let mut certain = [0; 64];
        let mut number_of = HashSet::new();
        for entry in &log.entries()[..at.0] {
            if entry.flush {
                // What may be there still may: whatever of it was kept is now certain, and here all of it is.
                for (allowed, certain) in allowed.iter_mut().zip(certain) {
                    *allowed = HashSet::from([certain]);
                }
            }
            log.for_each_piece(entry, |at_bytes, piece| {
                for (offset, sector) in piece.chunks(SECTOR).enumerate() {
                    let index = usize::try_from(at_bytes).unwrap() / SECTOR + offset;
                    certain[index] = sector[0];
                    if entry.durable {
                        allowed[index].clear();
                    }
                    allowed[index].insert(sector[0]);
                    number_of.insert(sector[0]);
                }
            });
        }
        allowed
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_some_of_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        for seed in 0..3 {
            let log = log(seed);
            let end = Position(log.entries().len());
            let (mut lost, mut kept) = (0, 0);
            for cut in plan(log.entries(), Position(0)..end, Share::Images(80), seed) {
                let disk = disk_after(&log, &cut, dir.path());
                let allowed = allowed(&log, cut.at);
                for (sector, allowed) in disk.iter().zip(&allowed) {
                    assert!(allowed.contains(sector), "{cut:?}: {sector}, not of {allowed:?}");
                }
                let whole = disk_after(&log, &Cut { survivors: Survivors::All, ..cut }, dir.path());
                match cut.survivors {
                    Survivors::All => assert_eq!(disk, whole),
                    Survivors::None | Survivors::Some(_) | Survivors::Torn(_) if disk == whole => kept += 1,
                    Survivors::None | Survivors::Some(_) | Survivors::Torn(_) => lost += 1,
                }
            }
            assert!(lost > 20 && kept > 5, "{lost} {kept}");
        }
    }

    #[test]
    fn a_share_is_from_all_over_the_run_and_the_same_for_a_seed() {
        let log = log(3);
        let end = Position(log.entries().len());
        let cuts = |share, seed| plan(log.entries(), Position(0)..end, share, seed);
        let all = cuts(Share::All, 1);
        assert_eq!(cuts(Share::Images(10_000), 1), all);
        let some = cuts(Share::Images(10), 1);
        assert_eq!(some, cuts(Share::Images(10), 1));
        assert_ne!(some, cuts(Share::Images(10), 2));
        assert!(some.len() == 10 && some.iter().all(|cut| all.contains(cut)));
        assert!(some[0].at < Position(60) && some[9].at > Position(140), "{some:?}");
        let boundaries = flushes(log.entries(), Position(50)..Position(100)).count();
        let within = plan(log.entries(), Position(50)..Position(100), Share::All, 1);
        assert!(within.iter().all(|cut| (Position(50)..=Position(100)).contains(&cut.at)));
        assert_eq!(within.iter().filter(|cut| cut.survivors == Survivors::None).count(), boundaries + 1);
    }
}
