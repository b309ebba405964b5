//! One lane in plain integers: the oracle of the other backends, and the one that miri runs.

use super::State;
use crate::sha256::rounds::{define_compress, eight_rounds, input, round};

/// The word of the only lane.
#[derive(Clone, Copy)]
struct Word(u32);

impl Word {
    /// Nothing to hide: one lane is bound by the number of operations.
    #[inline]
    fn opaque(self) -> Self {
        self
    }

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }

    #[inline]
    fn add_constant(self, constant: &'static u32) -> Self {
        Self(self.0.wrapping_add(*constant))
    }

    #[inline]
    fn small_sigma0(self) -> Self {
        Self(self.0.rotate_right(7) ^ self.0.rotate_right(18) ^ (self.0 >> 3))
    }

    #[inline]
    fn small_sigma1(self) -> Self {
        Self(self.0.rotate_right(17) ^ self.0.rotate_right(19) ^ (self.0 >> 10))
    }

    #[inline]
    fn big_sigma0(self) -> Self {
        Self(self.0.rotate_right(2) ^ self.0.rotate_right(13) ^ self.0.rotate_right(22))
    }

    #[inline]
    fn big_sigma1(self) -> Self {
        Self(self.0.rotate_right(6) ^ self.0.rotate_right(11) ^ self.0.rotate_right(25))
    }

    #[inline]
    fn choose(e: Self, f: Self, g: Self) -> Self {
        Self(g.0 ^ (e.0 & (f.0 ^ g.0)))
    }

    #[inline]
    fn majority(a: Self, b: Self, c: Self) -> Self {
        Self((a.0 & b.0) | (c.0 & (a.0 | b.0)))
    }
}

define_compress!(for Word);

/// Adds `count` consecutive blocks to the state.
///
/// # Safety
/// The pointer is valid for reads of `64 * count` bytes.
pub(super) unsafe fn compress(state: &mut State<1>, blocks: &[*const u8; 1], count: usize) {
    let mut words = state.0.map(|[word]| Word(word));
    for i in 0..count {
        // SAFETY: the caller vouches for `64 * count` bytes, and `i < count`; an array of bytes needs no alignment.
        let block = unsafe { blocks[0].add(64 * i).cast::<[[u8; 4]; 16]>().read() };
        words = compress_block(words, block.map(|bytes| Word(u32::from_be_bytes(bytes))));
    }
    state.0 = words.map(|word| [word.0]);
}

/// Adds one block and then the padding of a pair.
///
/// # Safety
/// The pointer is valid for reads of 64 bytes.
pub(super) unsafe fn compress_pairs(state: &mut State<1>, blocks: &[*const u8; 1]) {
    // SAFETY: the caller vouches for 64 bytes.
    unsafe { compress(state, blocks, 1) };
    let words = state.0.map(|[word]| Word(word));
    state.0 = compress_pair_padding(words).map(|word| [word.0]);
}
