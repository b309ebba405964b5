//! Sixteen lanes in AVX-512 registers.
//!
//! The three-input functions are one `vpternlogd` each and a rotation is one `vprord`. The ring of sixteen schedule
//! words, the eight state words and eight temporaries fill the 32 registers.

use super::State;
use crate::sha256::rounds::{define_compress, eight_rounds, input, round};
use std::arch::asm;
use std::arch::x86_64::*;

/// Messages hashed at once.
const LANES: usize = 16;

/// How far ahead of each lane its bytes are asked for: sixteen streams are more than the CPU foresees by itself, and
/// without this a batch that is not in its caches took half as long again.
const PREFETCH_BYTES: usize = 512;

/// A word of each of sixteen lanes.
#[derive(Clone, Copy)]
struct Zmm(__m512i);

/// Truth tables for `vpternlogd`: the bit at index `4a + 2b + c` is the result.
const XOR3: i32 = 0b1001_0110;
const CHOOSE: i32 = 0b1100_1010;
const MAJORITY: i32 = 0b1110_1000;

impl Zmm {
    /// The same value, computed in a way that the compiler does not know.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn opaque(self) -> Self {
        let mut word = self.0;
        // SAFETY: the text has no instruction.
        unsafe { asm!("/* {0} */", inout(zmm_reg) word, options(pure, nomem, nostack, preserves_flags)) };
        Self(word)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add(self, other: Self) -> Self {
        Self(_mm512_add_epi32(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_epi32(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add_constant(self, constant: &'static u32) -> Self {
        Self(_mm512_add_epi32(self.0, _mm512_set1_epi32(constant.cast_signed())))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn small_sigma0(self) -> Self {
        Self({
            let (x, y) = (_mm512_ror_epi32::<7>(self.0), _mm512_ror_epi32::<18>(self.0));
            _mm512_ternarylogic_epi32::<XOR3>(x, y, _mm512_srli_epi32::<3>(self.0))
        })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn small_sigma1(self) -> Self {
        Self({
            let (x, y) = (_mm512_ror_epi32::<17>(self.0), _mm512_ror_epi32::<19>(self.0));
            _mm512_ternarylogic_epi32::<XOR3>(x, y, _mm512_srli_epi32::<10>(self.0))
        })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn big_sigma0(self) -> Self {
        Self({
            let (x, y) = (_mm512_ror_epi32::<2>(self.0), _mm512_ror_epi32::<13>(self.0));
            _mm512_ternarylogic_epi32::<XOR3>(x, y, _mm512_ror_epi32::<22>(self.0))
        })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn big_sigma1(self) -> Self {
        Self({
            let (x, y) = (_mm512_ror_epi32::<6>(self.0), _mm512_ror_epi32::<11>(self.0));
            _mm512_ternarylogic_epi32::<XOR3>(x, y, _mm512_ror_epi32::<25>(self.0))
        })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn choose(e: Self, f: Self, g: Self) -> Self {
        Self(_mm512_ternarylogic_epi32::<CHOOSE>(e.0, f.0, g.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn majority(a: Self, b: Self, c: Self) -> Self {
        Self(_mm512_ternarylogic_epi32::<MAJORITY>(a.0, b.0, c.0))
    }
}

define_compress!(#[target_feature(enable = "avx512f,avx512bw")] for Zmm);

/// Adds `count` consecutive blocks of each lane to its state.
///
/// # Safety
/// The CPU has AVX-512F and AVX-512BW, and each of `blocks` is valid for reads of `64 * count` bytes.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn compress(state: &mut State<LANES>, blocks: &[*const u8; LANES], count: usize) {
    let mut words = load_state(state);
    for i in 0..count {
        for lane in blocks {
            // A prefetch is not an access: behind the end of a message, or of memory, it has no effect.
            _mm_prefetch::<_MM_HINT_T0>(lane.wrapping_add(64 * i + PREFETCH_BYTES).cast());
        }
        // SAFETY: the caller vouches for `64 * count` bytes behind each pointer, and `i < count`.
        let block = unsafe { load_blocks(blocks, 64 * i) };
        words = compress_block(words, block);
    }
    store_state(state, words);
}

/// Adds one block of each lane and then the padding of a pair.
///
/// # Safety
/// The CPU has AVX-512F and AVX-512BW, and each of `blocks` is valid for reads of 64 bytes.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn compress_pairs(state: &mut State<LANES>, blocks: &[*const u8; LANES]) {
    // SAFETY: the caller vouches for 64 bytes behind each pointer, and the features are enabled here.
    unsafe { compress(state, blocks, 1) };
    store_state(state, compress_pair_padding(load_state(state)));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_state(state: &State<LANES>) -> [Zmm; 8] {
    // SAFETY: each row is 64 readable bytes.
    std::array::from_fn(|i| Zmm(unsafe { _mm512_loadu_si512(state.0[i].as_ptr().cast()) }))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_state(state: &mut State<LANES>, words: [Zmm; 8]) {
    for (row, word) in state.0.iter_mut().zip(words) {
        // SAFETY: the row is 64 writable bytes.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), word.0) };
    }
}

/// The big-endian words of the block at `offset` of each lane: word `i` of every lane in vector `i`.
///
/// # Safety
/// Each of `blocks` is valid for reads of 64 bytes from `offset` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_blocks(blocks: &[*const u8; LANES], offset: usize) -> [Zmm; 16] {
    // SAFETY: the caller vouches for the 64 bytes; loads may be unaligned.
    let rows: [__m512i; 16] =
        std::array::from_fn(|lane| unsafe { _mm512_loadu_si512(blocks[lane].add(offset).cast()) });
    // Transposed in four steps: words within quarters (lanes by pairs, then by fours), then the quarters.
    let mut fours = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        let [r0, r1, r2, r3] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
        let (low01, high01) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (low23, high23) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        fours[i] = _mm512_unpacklo_epi64(low01, low23);
        fours[4 + i] = _mm512_unpackhi_epi64(low01, low23);
        fours[8 + i] = _mm512_unpacklo_epi64(high01, high23);
        fours[12 + i] = _mm512_unpackhi_epi64(high01, high23);
    }
    let swap = _mm512_broadcast_i32x4(_mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
    let mut words = [Zmm(swap); 16];
    for i in 0..4 {
        // Vector `j` here holds words i, 4 + i, 8 + i and 12 + i of lanes 4j to 4j + 3, a quarter for each word.
        let [q0, q1, q2, q3] = [fours[4 * i], fours[4 * i + 1], fours[4 * i + 2], fours[4 * i + 3]];
        let (even01, odd01) = (_mm512_shuffle_i32x4::<0x88>(q0, q1), _mm512_shuffle_i32x4::<0xdd>(q0, q1));
        let (even23, odd23) = (_mm512_shuffle_i32x4::<0x88>(q2, q3), _mm512_shuffle_i32x4::<0xdd>(q2, q3));
        words[i] = Zmm(_mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0x88>(even01, even23), swap));
        words[4 + i] = Zmm(_mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0x88>(odd01, odd23), swap));
        words[8 + i] = Zmm(_mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0xdd>(even01, even23), swap));
        words[12 + i] = Zmm(_mm512_shuffle_epi8(_mm512_shuffle_i32x4::<0xdd>(odd01, odd23), swap));
    }
    words
}
