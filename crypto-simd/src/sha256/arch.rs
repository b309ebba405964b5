//! What the backends have in common: the state of their lanes and the shape of their kernels.
//!
//! Only the files below this module use intrinsics. Each offers its kernels as a [`Kernel`], which exists only
//! where the CPU can run it, so that calling one asks nothing of the caller but valid pointers.

// Portable code but for what `sha2` does inside, so that tests run it anywhere.
#[cfg(any(target_arch = "aarch64", test))]
mod armv8;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod shani;

/// The eight state words of `N` lanes, lanes side by side.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct State<const N: usize>(pub(super) [[u32; N]; 8]);

impl<const N: usize> State<N> {
    /// Every lane in the same state.
    pub(super) fn splat(state: &[u32; 8]) -> Self {
        Self(state.map(|word| [word; N]))
    }

    /// The state of one lane.
    pub(super) fn lane(&self, lane: usize) -> [u32; 8] {
        std::array::from_fn(|word| self.0[word][lane])
    }

    /// Replaces the state of one lane.
    pub(super) fn set_lane(&mut self, lane: usize, state: &[u32; 8]) {
        for (row, word) in self.0.iter_mut().zip(state) {
            row[lane] = *word;
        }
    }
}

type Compress<const N: usize> = unsafe fn(&mut State<N>, &[*const u8; N], usize);
type CompressPairs<const N: usize> = unsafe fn(&mut State<N>, &[*const u8; N]);

/// The compression function for `N` lanes, on a CPU that can run it.
#[derive(Clone, Copy)]
pub(super) struct Kernel<const N: usize> {
    compress: Compress<N>,
    compress_pairs: CompressPairs<N>,
}

impl<const N: usize> Kernel<N> {
    /// Adds `count` consecutive blocks of each lane to its state.
    ///
    /// # Safety
    /// Each of `blocks` is valid for reads of `64 * count` bytes.
    pub(super) unsafe fn compress(self, state: &mut State<N>, blocks: &[*const u8; N], count: usize) {
        // SAFETY: a kernel is made only where the CPU has its features; the caller vouches for the pointers.
        unsafe { (self.compress)(state, blocks, count) };
    }

    /// Adds one block of each lane and then [`PAIR_PADDING`](super::rounds::PAIR_PADDING).
    ///
    /// # Safety
    /// Each of `blocks` is valid for reads of 64 bytes.
    pub(super) unsafe fn compress_pairs(self, state: &mut State<N>, blocks: &[*const u8; N]) {
        // SAFETY: a kernel is made only where the CPU has its features; the caller vouches for the pointers.
        unsafe { (self.compress_pairs)(state, blocks) };
    }
}

/// Sixteen lanes of AVX-512.
pub(super) fn avx512() -> Option<Kernel<16>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        return Some(Kernel { compress: avx512::compress, compress_pairs: avx512::compress_pairs });
    }
    None
}

/// Eight lanes of AVX2.
pub(super) fn avx2() -> Option<Kernel<8>> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return Some(Kernel { compress: avx2::compress, compress_pairs: avx2::compress_pairs });
    }
    None
}

/// Two streams, and one, through x86's SHA extensions.
pub(super) fn shani() -> Option<(Kernel<2>, Kernel<1>)> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
    {
        return Some((
            Kernel { compress: shani::compress, compress_pairs: shani::compress_pairs },
            Kernel { compress: shani::compress, compress_pairs: shani::compress_pairs },
        ));
    }
    None
}

/// One stream through ARMv8's SHA-2 instructions.
pub(super) fn armv8() -> Option<Kernel<1>> {
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("sha2") {
        return Some(Kernel { compress: armv8::compress, compress_pairs: armv8::compress_pairs });
    }
    None
}

/// One stream of plain integers.
pub(super) fn portable() -> Kernel<1> {
    Kernel { compress: portable::compress, compress_pairs: portable::compress_pairs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256::rounds::INITIAL;

    /// The kernel for one lane that other CPUs than this one use.
    #[test]
    fn the_kernel_over_sha2_agrees_with_the_portable_one() {
        let data: Vec<u8> = (0..=255).collect();
        let over_sha2 = Kernel { compress: armv8::compress, compress_pairs: armv8::compress_pairs };
        let states = [over_sha2, portable()].map(|kernel| {
            let mut state = State::splat(&INITIAL);
            // SAFETY: the four blocks of `data`, and then its first.
            unsafe {
                kernel.compress(&mut state, &[data.as_ptr()], 4);
                kernel.compress_pairs(&mut state, &[data.as_ptr()]);
            }
            state.lane(0)
        });
        assert_eq!(states[0], states[1]);
    }
}
