//! The runs that are wanted, and those of which answers are still on their way.

use super::{PeerId, Run};
use crate::block::{BlockIndex, FileId};
use crate::limits;
use std::collections::{BTreeMap, HashMap};

/// Names a run in the table. The name of one that is gone is given to another: who keeps names looks whether what is
/// there is still what it wants.
pub(super) type Slot = u32;

/// Distances that peers are told apart by.
pub(super) const DISTANCES: usize = 3;

/// Whom a run is asked of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Askers([Option<PeerId>; limits::RUN_ASKERS_MAX]);

impl Askers {
    pub(super) fn contains(&self, peer: PeerId) -> bool {
        self.0.contains(&Some(peer))
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }

    fn add(&mut self, peer: PeerId) {
        let free = self.0.iter_mut().find(|asker| asker.is_none());
        *free.expect("the caller has looked whether there is room") = Some(peer);
    }

    fn remove(&mut self, peer: PeerId) {
        if let Some(asker) = self.0.iter_mut().find(|asker| **asker == Some(peer)) {
            *asker = None;
        }
    }
}

/// One run.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) run: Run,
    /// Peers that owe it.
    pub(super) askers: Askers,
    /// Whether it is to be asked for, be it once more.
    pub(super) waits: bool,
    /// Whether answers to it no longer count.
    settled: bool,
    /// Replicas that have it, by distance.
    pub(super) copies: [u16; DISTANCES],
}

impl Wanted {
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether it may be asked of a peer now.
    pub(super) fn may_ask(&self, peer: PeerId) -> bool {
        self.waits && self.may_repeat(peer)
    }

    /// Whether it may be asked of a peer too.
    pub(super) fn may_repeat(&self, peer: PeerId) -> bool {
        !self.askers.contains(peer) && self.askers.count() < limits::RUN_ASKERS_MAX
    }
}

type Key = (FileId, BlockIndex, u32);

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Wanted>>,
    free: Vec<Slot>,
    /// What is not settled.
    index: BTreeMap<Key, Slot>,
    waiting: usize,
    /// Answers on their way that no longer count.
    strays: HashMap<FileId, u32>,
}

impl Table {
    /// Runs that wait to be asked for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Runs that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.index.len()
    }

    pub(super) fn has_strays(&self, file: FileId) -> bool {
        self.strays.contains_key(&file)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Wanted> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Wanted> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// A run that is in use: it stays while answers to it are on their way.
    pub(super) fn at(&self, slot: Slot) -> &Wanted {
        self.get(slot).expect("runs stay while they are asked for")
    }

    /// A new run that waits, or nothing if it is wanted already.
    pub(super) fn want(&mut self, run: Run) -> Option<Slot> {
        let key = (run.file, run.first, run.count);
        if self.index.contains_key(&key) {
            return None;
        }
        let copies = [0; DISTANCES];
        let wanted = Some(Wanted { run, askers: Askers::default(), waits: true, settled: false, copies });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = wanted;
                slot
            }
            None => {
                self.slots.push(wanted);
                Slot::try_from(self.slots.len() - 1).expect("fewer runs than fit memory")
            }
        };
        self.index.insert(key, slot);
        self.waiting += 1;
        Some(slot)
    }

    /// A run is asked of a peer.
    pub(super) fn ask(&mut self, slot: Slot, peer: PeerId) {
        let wanted = self.get_mut(slot).expect("just looked at");
        wanted.askers.add(peer);
        if std::mem::take(&mut wanted.waits) {
            self.waiting -= 1;
        }
    }

    /// A run is to be asked for again. Whether that is new.
    pub(super) fn wait_again(&mut self, slot: Slot) -> bool {
        let Some(wanted) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if wanted.settled || wanted.waits {
            return false;
        }
        wanted.waits = true;
        self.waiting += 1;
        true
    }

    /// A peer owes a run no longer. Of one that is settled this may be the end.
    pub(super) fn answered(&mut self, slot: Slot, peer: PeerId) {
        let wanted = self.get_mut(slot).expect("runs stay while they are asked for");
        wanted.askers.remove(peer);
        let (settled, file, left) = (wanted.settled, wanted.run.file, wanted.askers.count());
        if !settled {
            return;
        }
        if let Some(strays) = self.strays.get_mut(&file) {
            *strays -= 1;
            if *strays == 0 {
                self.strays.remove(&file);
            }
        }
        if left == 0 {
            self.release(slot);
        }
    }

    /// A run is had, or given up: answers that are still on their way no longer count.
    pub(super) fn settle(&mut self, slot: Slot) {
        let wanted = self.get_mut(slot).expect("the caller has it");
        if std::mem::replace(&mut wanted.settled, true) {
            return;
        }
        let (run, askers) = (wanted.run, wanted.askers.count());
        if std::mem::take(&mut wanted.waits) {
            self.waiting -= 1;
        }
        self.index.remove(&(run.file, run.first, run.count));
        if askers == 0 {
            self.release(slot);
        } else {
            let askers = u32::try_from(askers).expect("at most RUN_ASKERS_MAX");
            *self.strays.entry(run.file).or_default() += askers;
        }
    }

    fn release(&mut self, slot: Slot) {
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }

    /// What is not settled of a file's blocks `from..to`.
    pub(super) fn of_blocks(&self, file: FileId, from: u32, to: u32) -> impl Iterator<Item = Slot> {
        let (first, last) = ((file, BlockIndex(from), 0), (file, BlockIndex(to), 0));
        let within = self.index.range(first..last.max(first));
        within.filter(move |((_, at, count), _)| at.0.saturating_add(*count) <= to).map(|(_, slot)| *slot)
    }

    /// What is not settled of the files `from..to`.
    pub(super) fn of_files(&self, from: FileId, to: FileId) -> impl Iterator<Item = Slot> {
        let (first, last) = ((from, BlockIndex(0), 0), (to, BlockIndex(0), 0));
        self.index.range(first..last.max(first)).map(|(_, slot)| *slot)
    }

    /// What is not settled of a file.
    pub(super) fn of_file(&self, file: FileId) -> impl Iterator<Item = Slot> {
        let (first, last) = ((file, BlockIndex(0), 0), (file, BlockIndex(u32::MAX), u32::MAX));
        self.index.range(first..=last).map(|(_, slot)| *slot)
    }

    /// Everything that is not settled.
    pub(super) fn all(&self) -> impl Iterator<Item = Slot> {
        self.index.values().copied()
    }
}
