//! What one replica has and nobody was asked for yet, the rarest first and otherwise at random.

use super::random::Random;
use super::table::{Slot, Wanted};

/// From so many copies on, all runs are as common.
const LEVELS: usize = 16;

/// Runs by how many copies of them there were when they were put here. A run that has become more common is put
/// further back when it is met, so that each is moved a bounded number of times and none is looked for.
#[derive(Debug, Default)]
pub(super) struct Rarity {
    levels: [Vec<Slot>; LEVELS],
}

impl Rarity {
    /// How common a run is to somebody at that distance: what somebody nearer has counts as far more common.
    fn level(wanted: &Wanted, distance: usize) -> usize {
        let copies: usize = wanted.copies.iter().map(|&copies| usize::from(copies)).sum();
        let nearer = wanted.copies[..distance].iter().any(|&copies| copies > 0);
        (copies.saturating_sub(1) + if nearer { LEVELS / 2 } else { 0 }).min(LEVELS - 1)
    }

    pub(super) fn push(&mut self, slot: Slot, wanted: &Wanted, distance: usize) {
        self.levels[Self::level(wanted, distance)].push(slot);
    }

    /// Takes out one of the rarest. `of` tells of a run whether it may be asked of this peer still; those that may not
    /// are dropped, each of which is counted off `budget`, as is each that is put further back.
    pub(super) fn pop<'t>(
        &mut self,
        distance: usize,
        random: &mut Random,
        budget: &mut usize,
        of: impl Fn(Slot) -> Option<&'t Wanted>,
    ) -> Option<Slot> {
        for at in 0..LEVELS {
            while !self.levels[at].is_empty() && *budget > 0 {
                let slots = &mut self.levels[at];
                let slot = slots.swap_remove(random.below(slots.len()));
                if let Some(wanted) = of(slot) {
                    let level = Self::level(wanted, distance);
                    if level <= at {
                        return Some(slot);
                    }
                    self.levels[level].push(slot);
                }
                *budget -= 1;
            }
        }
        None
    }

    /// How many there are, those included that are of no more use.
    pub(super) fn len(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.levels.iter_mut().for_each(Vec::clear);
    }
}
