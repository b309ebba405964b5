//! Eight lanes in AVX2 registers, for CPUs without AVX-512 and without the SHA extensions.

use super::State;
use crate::sha256::rounds::{define_compress, eight_rounds, input, round};
use std::arch::asm;
use std::arch::x86_64::*;

/// Messages hashed at once.
const LANES: usize = 8;

/// A word of each of eight lanes.
#[derive(Clone, Copy)]
struct Ymm(__m256i);

impl Ymm {
    /// The same value, computed in a way that the compiler does not know.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn opaque(self) -> Self {
        let mut word = self.0;
        // SAFETY: the text has no instruction.
        unsafe { asm!("/* {0} */", inout(ymm_reg) word, options(pure, nomem, nostack, preserves_flags)) };
        Self(word)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate_right<const RIGHT: i32, const LEFT: i32>(self) -> Self {
        const { assert!(RIGHT + LEFT == 32) };
        Self(_mm256_or_si256(_mm256_srli_epi32::<RIGHT>(self.0), _mm256_slli_epi32::<LEFT>(self.0)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift_right<const RIGHT: i32>(self) -> Self {
        Self(_mm256_srli_epi32::<RIGHT>(self.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn xor(self, other: Self) -> Self {
        Self(_mm256_xor_si256(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn and(self, other: Self) -> Self {
        Self(_mm256_and_si256(self.0, other.0))
    }
}

impl Ymm {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(self, other: Self) -> Self {
        Self(_mm256_add_epi32(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_epi32(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_constant(self, constant: &'static u32) -> Self {
        Self(_mm256_add_epi32(self.0, _mm256_set1_epi32(constant.cast_signed())))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn small_sigma0(self) -> Self {
        self.rotate_right::<7, 25>().xor(self.rotate_right::<18, 14>()).xor(self.shift_right::<3>())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn small_sigma1(self) -> Self {
        self.rotate_right::<17, 15>().xor(self.rotate_right::<19, 13>()).xor(self.shift_right::<10>())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn big_sigma0(self) -> Self {
        self.rotate_right::<2, 30>().xor(self.rotate_right::<13, 19>()).xor(self.rotate_right::<22, 10>())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn big_sigma1(self) -> Self {
        self.rotate_right::<6, 26>().xor(self.rotate_right::<11, 21>()).xor(self.rotate_right::<25, 7>())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn choose(e: Self, f: Self, g: Self) -> Self {
        g.xor(e.and(f.xor(g)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn majority(a: Self, b: Self, c: Self) -> Self {
        // `a ^ b` of this round is `b ^ c` of the next, which the compiler sees and computes once.
        b.xor(a.xor(b).and(b.xor(c)))
    }
}

define_compress!(#[target_feature(enable = "avx2")] for Ymm);

/// Adds `count` consecutive blocks of each lane to its state.
///
/// # Safety
/// The CPU has AVX2, and each of `blocks` is valid for reads of `64 * count` bytes.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn compress(state: &mut State<LANES>, blocks: &[*const u8; LANES], count: usize) {
    let mut words = load_state(state);
    for i in 0..count {
        // SAFETY: the caller vouches for `64 * count` bytes behind each pointer, and `i < count`.
        let block = unsafe { load_blocks(blocks, 64 * i) };
        words = compress_block(words, block);
    }
    store_state(state, words);
}

/// Adds one block of each lane and then the padding of a pair.
///
/// # Safety
/// The CPU has AVX2, and each of `blocks` is valid for reads of 64 bytes.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn compress_pairs(state: &mut State<LANES>, blocks: &[*const u8; LANES]) {
    // SAFETY: the caller vouches for 64 bytes behind each pointer, and the features are enabled here.
    unsafe { compress(state, blocks, 1) };
    store_state(state, compress_pair_padding(load_state(state)));
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_state(state: &State<LANES>) -> [Ymm; 8] {
    // SAFETY: each row is 32 readable bytes.
    std::array::from_fn(|i| Ymm(unsafe { _mm256_loadu_si256(state.0[i].as_ptr().cast()) }))
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_state(state: &mut State<LANES>, words: [Ymm; 8]) {
    for (row, word) in state.0.iter_mut().zip(words) {
        // SAFETY: the row is 32 writable bytes.
        unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), word.0) };
    }
}

/// The big-endian words of the block at `offset` of each lane: word `i` of every lane in vector `i`.
///
/// # Safety
/// Each of `blocks` is valid for reads of 64 bytes from `offset` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_blocks(blocks: &[*const u8; LANES], offset: usize) -> [Ymm; 16] {
    let swap =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
    let mut words = [Ymm(swap); 16];
    for half in 0..2 {
        // SAFETY: the caller vouches for the 64 bytes, of which these are 32; loads may be unaligned.
        let rows: [__m256i; 8] = std::array::from_fn(|lane| unsafe {
            _mm256_loadu_si256(blocks[lane].add(offset + 32 * half).cast())
        });
        // Transposed in three steps: words within halves (lanes by pairs, then by fours), then the halves.
        let mut fours = [_mm256_setzero_si256(); 8];
        for i in 0..2 {
            let [r0, r1, r2, r3] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
            let (low01, high01) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpackhi_epi32(r0, r1));
            let (low23, high23) = (_mm256_unpacklo_epi32(r2, r3), _mm256_unpackhi_epi32(r2, r3));
            fours[i] = _mm256_unpacklo_epi64(low01, low23);
            fours[2 + i] = _mm256_unpackhi_epi64(low01, low23);
            fours[4 + i] = _mm256_unpacklo_epi64(high01, high23);
            fours[6 + i] = _mm256_unpackhi_epi64(high01, high23);
        }
        for i in 0..4 {
            let (q0, q1) = (fours[2 * i], fours[2 * i + 1]);
            let (low, high) =
                (_mm256_permute2x128_si256::<0x20>(q0, q1), _mm256_permute2x128_si256::<0x31>(q0, q1));
            words[8 * half + i] = Ymm(_mm256_shuffle_epi8(low, swap));
            words[8 * half + 4 + i] = Ymm(_mm256_shuffle_epi8(high, swap));
        }
    }
    words
}
