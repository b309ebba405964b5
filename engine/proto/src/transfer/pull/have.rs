//! What a peer has: whole files, and stretches of blocks of others.
//!
//! Bounded by [`limits::HAVE_STRETCHES_MAX`]: what does not fit is not remembered, and so not asked of that peer.

use super::Run;
use crate::block::{BlockIndex, FileId};
use crate::limits;
use std::collections::BTreeMap;

/// Something that a peer has verified, synced and indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaveRange {
    /// All blocks of adjacent files.
    Files {
        /// The first of them.
        first: FileId,
        /// How many.
        count: u64,
    },
    /// Adjacent blocks of one file.
    Blocks {
        /// Which file.
        file: FileId,
        /// The first block.
        first: BlockIndex,
        /// How many.
        count: u32,
    },
}

/// Disjoint stretches `from..to` of numbers, in order, none adjacent to the next.
#[derive(Clone, Debug)]
struct Stretches<T>(Vec<(T, T)>);

impl<T: Copy + Ord> Stretches<T> {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// The stretch that `at` is in.
    fn around(&self, at: T) -> Option<(T, T)> {
        let after = self.0.partition_point(|&(from, _)| from <= at);
        self.0[..after].last().copied().filter(|&(_, to)| at < to)
    }

    fn contains(&self, from: T, to: T) -> bool {
        self.around(from).is_some_and(|(_, end)| to <= end)
    }

    /// The stretches that `from..to` overlaps or touches.
    fn touched(&self, from: T, to: T) -> std::ops::Range<usize> {
        let first = self.0.partition_point(|&(_, end)| end < from);
        let last = self.0.partition_point(|&(begin, _)| begin <= to);
        first..last.max(first)
    }

    /// Adds `from..to`, unless that makes more than `room` stretches of it.
    fn insert(&mut self, from: T, to: T, room: usize) {
        let touched = self.touched(from, to);
        if from >= to || (touched.is_empty() && self.len() >= room) {
            return;
        }
        let begin = self.0[touched.clone()].first().map_or(from, |first| first.0.min(from));
        let end = self.0[touched.clone()].last().map_or(to, |last| last.1.max(to));
        self.0.splice(touched, [(begin, end)]);
    }

    /// Takes out `from..to`, and what lies behind it too if there would be more than `room` stretches.
    fn remove(&mut self, from: T, to: T, room: usize) {
        if from >= to {
            return;
        }
        let touched = self.touched(from, to);
        let mut kept = Vec::new();
        for &(begin, end) in &self.0[touched.clone()] {
            kept.extend((begin < from).then(|| (begin, end.min(from))));
            kept.extend((to < end).then(|| (begin.max(to), end)));
        }
        if self.len() - touched.len() + kept.len() > room {
            kept.truncate(touched.len());
        }
        self.0.splice(touched, kept);
    }
}

/// What one peer has.
#[derive(Debug)]
pub(super) struct Haves {
    files: Stretches<u64>,
    blocks: BTreeMap<FileId, Stretches<u32>>,
    /// Stretches of all `blocks`.
    of_blocks: usize,
}

impl Haves {
    pub(super) fn new() -> Self {
        Self { files: Stretches::new(), blocks: BTreeMap::new(), of_blocks: 0 }
    }

    fn room(&self) -> usize {
        limits::HAVE_STRETCHES_MAX.saturating_sub(self.files.len() + self.of_blocks)
    }

    pub(super) fn has(&self, run: &Run) -> bool {
        let end = run.first.0.saturating_add(run.count);
        self.blocks.get(&run.file).is_some_and(|blocks| blocks.contains(run.first.0, end))
            || self.files.around(run.file.0).is_some()
    }

    /// Whether all of a range is known already.
    pub(super) fn covers(&self, range: HaveRange) -> bool {
        match range {
            HaveRange::Files { first, count } => {
                self.files.contains(first.0, first.0.saturating_add(count.max(1)))
            }
            HaveRange::Blocks { file, first, count } => {
                self.files.around(file.0).is_some()
                    || self
                        .blocks
                        .get(&file)
                        .is_some_and(|blocks| blocks.contains(first.0, first.0.saturating_add(count.max(1))))
            }
        }
    }

    pub(super) fn add(&mut self, range: HaveRange) {
        let room = self.room();
        match range {
            HaveRange::Files { first, count } => {
                let end = FileId(first.0.saturating_add(count));
                self.files.insert(first.0, end.0, self.files.len() + room);
                if first < end && self.files.contains(first.0, end.0) {
                    let now_whole: Vec<FileId> = self.blocks.range(first..end).map(|(id, _)| *id).collect();
                    for file in now_whole {
                        self.of_blocks -= self.blocks.remove(&file).map_or(0, |blocks| blocks.len());
                    }
                }
            }
            HaveRange::Blocks { file, first, count } => {
                let end = first.0.saturating_add(count);
                if self.files.around(file.0).is_some() || (room == 0 && !self.blocks.contains_key(&file)) {
                    return;
                }
                self.change_blocks(file, |blocks| blocks.insert(first.0, end, blocks.len() + room));
            }
        }
    }

    /// The peer has shown that it does not have this.
    pub(super) fn remove(&mut self, run: &Run) {
        let room = self.room();
        let end = run.first.0.saturating_add(run.count);
        if self.files.around(run.file.0).is_some() {
            self.files.remove(run.file.0, run.file.0.saturating_add(1), self.files.len() + room);
            if self.room() > 1 {
                self.change_blocks(run.file, |blocks| blocks.insert(0, u32::MAX, 1));
            }
        }
        if self.blocks.contains_key(&run.file) {
            self.change_blocks(run.file, |blocks| blocks.remove(run.first.0, end, blocks.len() + room));
        }
    }

    fn change_blocks(&mut self, file: FileId, change: impl FnOnce(&mut Stretches<u32>)) {
        let blocks = self.blocks.entry(file).or_insert_with(Stretches::new);
        let before = blocks.len();
        change(blocks);
        let after = blocks.len();
        if after == 0 {
            self.blocks.remove(&file);
        }
        self.of_blocks = self.of_blocks - before + after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(file: u64, first: u32, count: u32) -> Run {
        Run { file: FileId(file), first: BlockIndex(first), count, bytes: 1 }
    }

    #[test]
    fn what_a_peer_claims_is_remembered_up_to_a_limit() {
        let mut haves = Haves::new();
        let claims = 2 * limits::HAVE_STRETCHES_MAX as u64;
        for file in 0..claims {
            let range = HaveRange::Blocks { file: FileId(file), first: BlockIndex(3), count: 2 };
            haves.add(range);
            haves.add(HaveRange::Files { first: FileId(claims + 2 * file), count: 1 });
        }
        assert_eq!(haves.files.len() + haves.of_blocks, limits::HAVE_STRETCHES_MAX);
        assert_eq!(haves.blocks.len(), haves.of_blocks, "no empty ones");
        assert!(haves.has(&run(0, 3, 2)) && !haves.has(&run(claims - 1, 3, 2)));
        // What joins known stretches fits still.
        haves.add(HaveRange::Files { first: FileId(0), count: u64::MAX });
        assert!(haves.has(&run(u64::MAX - 1, u32::MAX, 1)));
        assert_eq!((haves.files.len(), haves.of_blocks), (1, 0));
    }

    proptest! {
        #[test]
        fn stretches_are_sets(steps in proptest::collection::vec((any::<bool>(), 0..3_u64, 0..40_u32, 0..12_u32), 1..60)) {
            let mut haves = Haves::new();
            let mut model = std::collections::BTreeSet::new();
            for (adds, file, first, count) in steps {
                if adds && count == 11 {
                    haves.add(HaveRange::Files { first: FileId(file), count: 1 });
                    model.extend((0..64).map(|block| (file, block)));
                } else if adds {
                    haves.add(HaveRange::Blocks { file: FileId(file), first: BlockIndex(first), count });
                    model.extend((first..first + count).map(|block| (file, block)));
                } else {
                    haves.remove(&run(file, first, count));
                    model.retain(|&(of, block)| of != file || !(first..first + count).contains(&block));
                }
                for file in 0..3 {
                    for first in 0..52 {
                        let one = model.contains(&(file, first));
                        prop_assert_eq!(haves.has(&run(file, first, 1)), one);
                        let two = one && model.contains(&(file, first + 1));
                        prop_assert_eq!(haves.has(&run(file, first, 2)), two);
                    }
                }
                prop_assert_eq!(haves.of_blocks, haves.blocks.values().map(Stretches::len).sum::<usize>());
            }
        }
    }
}
