//! The paths that stand in a manifest, as a table that takes about 20 bytes for each.
//!
//! A path is known by 96 bits of a hash under a key that is drawn for each table: nobody can choose paths that meet in
//! it, and by chance two of 2²⁵ do once in 2⁴⁷ manifests (then the manifest is refused). A slot holds these bits, the
//! entry's number and its kind. The table is cut into shards that grow by a twelfth each when it is their turn, so that
//! neither the room kept free nor that for moving is ever much. (The standard table doubles: 17 to 39 bytes, and half as
//! much again while it moves.)

use crate::block::FileId;
use crate::limits;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) id: FileId,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory = 1,
    File = 2,
    Link = 3,
}

/// Shards of a table; the first byte of a hash says which.
const SHARDS: usize = 256;
/// Slots of a shard that begins to be used.
const SHARD_SLOTS_MIN: usize = 8;

pub(super) struct PathTable {
    key: [u8; 32],
    shards: Vec<Shard>,
    len: u64,
}

#[derive(Clone, Default)]
struct Shard {
    slots: Vec<Slot>,
    used: usize,
}

type Hash = [u32; 3];

#[derive(Clone, Copy)]
struct Slot {
    hash: Hash,
    /// The number above two bits of the kind; 0 is a free slot.
    packed: u32,
}

const FREE: Slot = Slot { hash: [0; 3], packed: 0 };

const _: () = assert!(size_of::<Slot>() == 16);
const _: () = assert!(limits::MANIFEST_ENTRIES_MAX <= 1 << 30);

impl PathTable {
    pub(super) fn new() -> Self {
        // As the standard library seeds its tables: what comes of the key is the same whatever it is.
        let random = RandomState::new();
        let mut key = [0; 32];
        for (place, bytes) in (0_u8..).zip(key.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&random.hash_one(place).to_le_bytes());
        }
        Self { key, shards: vec![Shard::default(); SHARDS], len: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Standing> {
        let (shard, hash) = self.place(path);
        let shard = &self.shards[shard];
        shard.find(hash).ok().map(|at| shard.slots[at].standing())
    }

    /// Adds a path, unless it is there already.
    #[must_use]
    pub(super) fn insert(&mut self, path: &[u8], standing: Standing) -> bool {
        let (shard, hash) = self.place(path);
        let added = self.shards[shard].insert(Slot::new(hash, standing));
        self.len += u64::from(added);
        added
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        let (shard, hash) = self.place(path);
        let shard = &mut self.shards[shard];
        if let Ok(at) = shard.find(hash) {
            shard.remove(at);
            self.len -= 1;
        }
    }

    fn place(&self, path: &[u8]) -> (usize, Hash) {
        let hash = blake3::keyed_hash(&self.key, path);
        let (words, _) = hash.as_bytes().as_chunks::<4>();
        let word = |at: usize| u32::from_le_bytes(words[at]);
        (usize::from(hash.as_bytes()[31]) % SHARDS, [word(0), word(1), word(2)])
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.capacity()).sum();
        slots * size_of::<Slot>() + self.shards.capacity() * size_of::<Shard>()
    }
}

impl Slot {
    fn new(hash: Hash, standing: Standing) -> Self {
        let id = u32::try_from(standing.id.0).expect("below MANIFEST_ENTRIES_MAX");
        Self { hash, packed: id << 2 | standing.kind as u32 }
    }

    fn standing(self) -> Standing {
        let kind = match self.packed & 3 {
            1 => Kind::Directory,
            2 => Kind::File,
            _ => Kind::Link,
        };
        Standing { id: FileId((self.packed >> 2).into()), kind }
    }

    fn is_free(self) -> bool {
        self.packed == 0
    }

    /// Where it would like to be in a shard of so many slots.
    fn home(self, slots: usize) -> usize {
        usize::try_from(u64::from(self.hash[0]) * slots as u64 >> 32).expect("below the number of slots")
    }
}

/// Open addressing: a slot is at its home, or in the first that was free after it.
impl Shard {
    /// The slot that has this hash, or the free one where it would be. (`Err(0)` where there is no slot at all.)
    fn find(&self, hash: Hash) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mut at = Slot { hash, packed: 0 }.home(self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot.is_free() {
                return Err(at);
            }
            if slot.hash == hash {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn insert(&mut self, slot: Slot) -> bool {
        let Err(mut at) = self.find(slot.hash) else { return false };
        // At most seven eighths are used, so that a free one is always near.
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            self.grow();
            at = self.find(slot.hash).expect_err("it was not there");
        }
        self.slots[at] = slot;
        self.used += 1;
        true
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() + self.slots.len() / 12 + 1).max(SHARD_SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        for slot in old.into_iter().filter(|slot| !slot.is_free()) {
            let at = self.find(slot.hash).expect_err("no hash is there twice");
            self.slots[at] = slot;
        }
    }

    /// Frees a slot, and moves back what was pushed beyond it.
    fn remove(&mut self, at: usize) {
        let len = self.slots.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + len - from };
        let (mut free, mut at) = (at, self.after(at));
        while !self.slots[at].is_free() {
            if distance(self.slots[at].home(len), at) >= distance(free, at) {
                self.slots[free] = self.slots[at];
                free = at;
            }
            at = self.after(at);
        }
        self.slots[free] = FREE;
        self.used -= 1;
    }
}
