//! The paths that stand in a manifest, as a table that takes about 20 bytes for each.
//!
//! A path is known by 96 bits of a hash under a key that is drawn for each table: nobody can choose paths that meet in
//! it, and by chance two of 2²⁵ do once in 2⁴⁷ manifests (then the manifest is refused). A slot holds these bits, the
//! entry's number and its kind. The table is cut into shards that grow by a twelfth when it is their turn, so that
//! neither the room kept free nor that for moving is ever much; and shards into pages of one size, so that no allocator
//! keeps what they have outgrown. (The standard table doubles: 19 to 39 bytes here, and half as much again while it
//! moves.)

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
/// Slots in a page.
const PAGE: usize = 64;

pub(super) struct PathTable {
    key: [u8; 32],
    shards: Vec<Shard>,
    len: u64,
    /// What a growing shard holds, while it moves.
    moving: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Shard {
    // Boxed, so that a page stays where it is when there are more.
    #[allow(clippy::vec_box)]
    pages: Vec<Box<[Slot; PAGE]>>,
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
        Self { key, shards: vec![Shard::default(); SHARDS], len: 0, moving: Vec::new() }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Standing> {
        let (shard, hash) = self.place(path);
        let shard = &self.shards[shard];
        shard.find(hash).ok().map(|at| shard.slot(at).standing())
    }

    /// Adds a path, unless it is there already.
    #[must_use]
    pub(super) fn insert(&mut self, path: &[u8], standing: Standing) -> bool {
        let (shard, hash) = self.place(path);
        let added = self.shards[shard].insert(Slot::new(hash, standing), &mut self.moving);
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
        let pages: usize = self.shards.iter().map(|shard| shard.pages.len()).sum();
        let listed: usize = self.shards.iter().map(|shard| shard.pages.capacity()).sum();
        pages * size_of::<[Slot; PAGE]>()
            + listed * size_of::<Box<[Slot; PAGE]>>()
            + self.shards.capacity() * size_of::<Shard>()
            + self.moving.capacity() * size_of::<Slot>()
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
}

/// Open addressing: a slot is at its home, or in the first that was free after it.
impl Shard {
    fn slots(&self) -> usize {
        self.pages.len() * PAGE
    }

    fn slot(&self, at: usize) -> Slot {
        self.pages[at / PAGE][at % PAGE]
    }

    fn put(&mut self, at: usize, slot: Slot) {
        self.pages[at / PAGE][at % PAGE] = slot;
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots() { 0 } else { at + 1 }
    }

    /// The slot that has this hash, or the free one where it would be. (`Err(0)` where there is no slot at all.)
    fn find(&self, hash: Hash) -> Result<usize, usize> {
        if self.pages.is_empty() {
            return Err(0);
        }
        let mut at = home(hash, self.slots());
        loop {
            let slot = self.slot(at);
            if slot.is_free() {
                return Err(at);
            }
            if slot.hash == hash {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    fn insert(&mut self, slot: Slot, moving: &mut Vec<Slot>) -> bool {
        let Err(mut at) = self.find(slot.hash) else { return false };
        // At most seven eighths are used, so that a free one is always near.
        if (self.used + 1) * 8 > self.slots() * 7 {
            self.grow(moving);
            at = self.find(slot.hash).expect_err("it was not there");
        }
        self.put(at, slot);
        self.used += 1;
        true
    }

    fn grow(&mut self, moving: &mut Vec<Slot>) {
        moving.clear();
        for page in &mut self.pages {
            moving.extend(page.iter().filter(|slot| !slot.is_free()));
            page.fill(FREE);
        }
        let pages = self.pages.len() + (self.pages.len() / 12).max(1);
        self.pages.resize_with(pages, || Box::new([FREE; PAGE]));
        for &slot in &*moving {
            let at = self.find(slot.hash).expect_err("no hash is there twice");
            self.put(at, slot);
        }
    }

    /// Frees a slot, and moves back what was pushed beyond it.
    fn remove(&mut self, at: usize) {
        let slots = self.slots();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + slots - from };
        let (mut free, mut at) = (at, self.after(at));
        while !self.slot(at).is_free() {
            let slot = self.slot(at);
            if distance(home(slot.hash, slots), at) >= distance(free, at) {
                self.put(free, slot);
                free = at;
            }
            at = self.after(at);
        }
        self.put(free, FREE);
        self.used -= 1;
    }
}

/// Where a hash would like to be among so many slots.
fn home(hash: Hash, slots: usize) -> usize {
    usize::try_from((u64::from(hash[0]) * slots as u64) >> 32).expect("below the number of slots")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_million_paths_take_at_most_twenty_bytes_each() {
        let mut table = PathTable::new();
        let mut worst = 0.0_f64;
        for number in 0..1_100_000_u32 {
            let standing = Standing { id: FileId(number.into()), kind: Kind::File };
            assert!(table.insert(format!("directory/{number}").as_bytes(), standing));
            if number >= 500_000 && number % 10_000 == 0 {
                #[allow(clippy::cast_precision_loss)]
                let each = table.bytes() as f64 / f64::from(number + 1);
                worst = worst.max(each);
            }
        }
        assert!(worst <= 20.0, "{worst:.2} bytes an entry");
        assert_eq!(table.len(), 1_100_000);
        let last = Standing { id: FileId(1_099_999), kind: Kind::File };
        assert_eq!(table.get(b"directory/1099999"), Some(last));
        assert_eq!(table.get(b"directory/1100000"), None);
    }

    #[test]
    fn the_last_number_fits() {
        let mut table = PathTable::new();
        let standing = Standing { id: FileId(limits::MANIFEST_ENTRIES_MAX - 1), kind: Kind::Link };
        assert!(table.insert(b"a", standing));
        assert_eq!(table.get(b"a"), Some(standing));
    }

    proptest! {
        /// As a map does, also where hashes crowd: a shard of its own, with hashes that share their homes.
        #[test]
        fn a_shard_holds_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((any::<bool>(), 0..8_u32, 0..40_u32), 0..600)
        ) {
            let mut shard = Shard::default();
            let mut model = HashMap::new();
            for (number, (remove, home, other)) in (0_u32..).zip(steps) {
                let hash = [home << 29 | 0x1fff_ffff, other, 0];
                if remove {
                    if let Ok(at) = shard.find(hash) {
                        shard.remove(at);
                    }
                    model.remove(&hash);
                } else {
                    let slot = Slot { hash, packed: number << 2 | 1 };
                    let added = shard.insert(slot, &mut Vec::new());
                    prop_assert_eq!(added, !model.contains_key(&hash));
                    model.entry(hash).or_insert(slot.packed);
                }
                prop_assert_eq!(shard.used, model.len());
            }
            for (hash, packed) in &model {
                prop_assert_eq!(shard.find(*hash).map(|at| shard.slot(at).packed), Ok(*packed));
            }
            let kept = shard.pages.iter().flat_map(|page| page.iter()).filter(|slot| !slot.is_free()).count();
            prop_assert_eq!(kept, model.len());
        }
    }
}
