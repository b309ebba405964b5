//! Interior nodes of a Merkle tree: many fixed 64-byte pairs behind a 64-byte prefix.
//!
//! The prefix fills exactly one compression, so its state is computed once; the last block is nothing but padding
//! and its schedule is a constant. A pair so costs one full compression and one without message expansion.

use super::Backend;
use super::arch::{Kernel, State};
use super::backend::Chosen;
use super::lanes::to_digest;
use super::rounds::INITIAL;
use crate::Digest;

/// Hashes pairs of digests, each as `SHA-256(prefix ‖ left ‖ right)`.
#[derive(Clone, Debug)]
pub struct PairHasher {
    backend: Backend,
    /// After the prefix.
    prefixed: [u32; 8],
}

impl PairHasher {
    /// A hasher whose pairs follow `prefix`, which separates their domain from others.
    #[must_use]
    pub fn new(prefix: &[u8; 64]) -> Self {
        Self::with_backend(prefix, Backend::active())
    }

    /// The same by a backend of one's choice.
    #[must_use]
    pub fn with_backend(prefix: &[u8; 64], backend: Backend) -> Self {
        let mut state = State::splat(&INITIAL);
        // SAFETY: the prefix is one block.
        unsafe { backend.one().compress(&mut state, &[prefix.as_ptr()], 1) };
        Self { backend, prefixed: state.lane(0) }
    }

    /// The parent of two nodes.
    #[must_use]
    pub fn hash(&self, left: &Digest, right: &Digest) -> Digest {
        let mut parent = [[0; 32]];
        self.run(self.backend.one(), &[[*left, *right]], &mut parent);
        parent[0]
    }

    /// Hashes `pairs[i]` into `parents[i]`.
    ///
    /// `<[Digest]>::as_chunks::<2>()` cuts a level of a tree into pairs.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn hash_many(&self, pairs: &[[Digest; 2]], parents: &mut [Digest]) {
        assert_eq!(pairs.len(), parents.len(), "one parent for each pair");
        let mut done = 0;
        while done < pairs.len() {
            let (pairs, parents) = (&pairs[done..], &mut parents[done..]);
            done += match self.backend.kernel_for(pairs.len()) {
                Chosen::Sixteen(kernel) => self.run(kernel, pairs, parents),
                Chosen::Eight(kernel) => self.run(kernel, pairs, parents),
                Chosen::Two(kernel) => self.run(kernel, pairs, parents),
                Chosen::One(kernel) => self.run(kernel, pairs, parents),
            };
        }
    }

    /// Hashes the first pairs, at most as many as the kernel has lanes, and returns their number.
    fn run<const N: usize>(&self, kernel: Kernel<N>, pairs: &[[Digest; 2]], parents: &mut [Digest]) -> usize {
        let last = pairs.len().min(N) - 1;
        let blocks = std::array::from_fn(|lane| pairs[lane.min(last)].as_ptr().cast());
        let mut state = State::splat(&self.prefixed);
        // SAFETY: each pointer has a pair behind it, which is 64 bytes.
        unsafe { kernel.compress_pairs(&mut state, &blocks) };
        for (lane, parent) in parents.iter_mut().take(N).enumerate() {
            *parent = to_digest(&state.lane(lane));
        }
        last + 1
    }
}
