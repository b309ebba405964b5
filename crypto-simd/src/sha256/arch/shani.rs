//! One or more interleaved streams through the SHA extensions.
//!
//! One stream waits on the latency of `sha256rnds2`; a second one fills the gaps.

use super::State;
use crate::sha256::rounds::{K, PAIR_PADDING_BLOCK};
use std::arch::x86_64::*;

/// Adds `count` consecutive blocks of each stream to its state.
///
/// # Safety
/// The CPU has the SHA extensions, SSSE3 and SSE4.1, and each of `blocks` is valid for reads of `64 * count` bytes.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
pub(super) unsafe fn compress<const N: usize>(state: &mut State<N>, blocks: &[*const u8; N], count: usize) {
    let (mut abef, mut cdgh) = load_state(state);
    let swap = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    for i in 0..count {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut w = [[_mm_setzero_si128(); 4]; N];
        for n in 0..N {
            for (q, w) in w[n].iter_mut().enumerate() {
                // SAFETY: the caller vouches for `64 * count` bytes, and `64 * i + 16 * q + 16` is at most that.
                let bytes = unsafe { _mm_loadu_si128(blocks[n].add(64 * i + 16 * q).cast()) };
                *w = _mm_shuffle_epi8(bytes, swap);
            }
        }
        /// Four rounds of every stream with schedule words `$q` (modulo 4), then the words sixteen rounds later.
        macro_rules! four_rounds {
            ($q:expr) => {
                // SAFETY: four constants follow index 4 * $q, at most 60.
                let k = unsafe { _mm_loadu_si128(K.as_ptr().add(4 * $q).cast()) };
                for n in 0..N {
                    let sum = _mm_add_epi32(w[n][$q % 4], k);
                    cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], sum);
                    abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(sum));
                    if $q < 12 {
                        let [w0, w1, w2, w3] = std::array::from_fn(|i| w[n][($q + i) % 4]);
                        let partial =
                            _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                        w[n][$q % 4] = _mm_sha256msg2_epu32(partial, w3);
                    }
                }
            };
        }
        four_rounds!(0);
        four_rounds!(1);
        four_rounds!(2);
        four_rounds!(3);
        four_rounds!(4);
        four_rounds!(5);
        four_rounds!(6);
        four_rounds!(7);
        four_rounds!(8);
        four_rounds!(9);
        four_rounds!(10);
        four_rounds!(11);
        four_rounds!(12);
        four_rounds!(13);
        four_rounds!(14);
        four_rounds!(15);
        for n in 0..N {
            abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
            cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
        }
    }
    store_state(state, abef, cdgh);
}

/// The state as `sha256rnds2` wants it: (a, b, e, f) and (c, d, g, h) of each stream, most significant word first.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn load_state<const N: usize>(state: &State<N>) -> ([__m128i; N], [__m128i; N]) {
    let mut abef = [_mm_setzero_si128(); N];
    let mut cdgh = [_mm_setzero_si128(); N];
    if N == 1 {
        // One stream's words lie side by side.
        let words = state.0.as_ptr().cast::<__m128i>();
        // SAFETY: eight words of one stream are two vectors; the loads may be unaligned.
        let (dcba, hgfe) = unsafe { (_mm_loadu_si128(words), _mm_loadu_si128(words.add(1))) };
        let (abcd, efgh) = (_mm_shuffle_epi32::<0x1b>(dcba), _mm_shuffle_epi32::<0x1b>(hgfe));
        abef[0] = _mm_unpackhi_epi64(efgh, abcd);
        cdgh[0] = _mm_unpacklo_epi64(efgh, abcd);
    } else {
        for n in 0..N {
            let [a, b, c, d, e, f, g, h] = state.0.map(|row| row[n].cast_signed());
            abef[n] = _mm_set_epi32(a, b, e, f);
            cdgh[n] = _mm_set_epi32(c, d, g, h);
        }
    }
    (abef, cdgh)
}

#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn store_state<const N: usize>(state: &mut State<N>, abef: [__m128i; N], cdgh: [__m128i; N]) {
    if N == 1 {
        let abcd = _mm_unpackhi_epi64(cdgh[0], abef[0]);
        let efgh = _mm_unpacklo_epi64(cdgh[0], abef[0]);
        let words = state.0.as_mut_ptr().cast::<__m128i>();
        // SAFETY: eight words of one stream are two vectors; the stores may be unaligned.
        unsafe {
            _mm_storeu_si128(words, _mm_shuffle_epi32::<0x1b>(abcd));
            _mm_storeu_si128(words.add(1), _mm_shuffle_epi32::<0x1b>(efgh));
        }
    } else {
        for n in 0..N {
            let words = [
                _mm_extract_epi32::<3>(abef[n]),
                _mm_extract_epi32::<2>(abef[n]),
                _mm_extract_epi32::<3>(cdgh[n]),
                _mm_extract_epi32::<2>(cdgh[n]),
                _mm_extract_epi32::<1>(abef[n]),
                _mm_extract_epi32::<0>(abef[n]),
                _mm_extract_epi32::<1>(cdgh[n]),
                _mm_extract_epi32::<0>(cdgh[n]),
            ];
            for (row, word) in state.0.iter_mut().zip(words) {
                row[n] = word.cast_unsigned();
            }
        }
    }
}

/// Adds one block of each stream and then the padding of a pair.
///
/// # Safety
/// The CPU has the SHA extensions, SSSE3 and SSE4.1, and each of `blocks` is valid for reads of 64 bytes.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
pub(super) unsafe fn compress_pairs<const N: usize>(state: &mut State<N>, blocks: &[*const u8; N]) {
    // SAFETY: the caller vouches for the first pointers, and each of the second has a block behind it.
    unsafe {
        compress(state, blocks, 1);
        compress(state, &[PAIR_PADDING_BLOCK.as_ptr(); N], 1);
    }
}
