//! Which kernels hash a batch, chosen once.
//!
//! A backend is a widest kernel and the kernels that take over when too few messages are left to fill it. Where each
//! takes over was measured (`cargo bench -p crypto-simd -- crossover`), not guessed.

use super::arch::{self, Kernel};
use super::lanes::{self, Feed, Lanes, Messages};
use super::queue::{self, Queue};
use crate::Digest;
use std::sync::LazyLock;

/// The environment variable that forces a backend: one of the names of [`Backend::supported`].
pub const BACKEND_VARIABLE: &str = "CRYPTO_SIMD";

/// A way of hashing that this CPU supports.
#[derive(Clone, Copy)]
pub struct Backend(&'static Plan);

#[derive(Clone, Copy)]
struct Plan {
    name: &'static str,
    sixteen: Option<Wide<16>>,
    eight: Option<Wide<8>>,
    two: Option<Kernel<2>>,
    one: Kernel<1>,
}

/// A kernel and the fewest busy lanes with which it is the fastest.
///
/// Its time does not depend on how many lanes are busy. Measured on Zen 5: sixteen lanes of AVX-512 take as long as
/// the SHA extensions for 6.5 messages or portable code for 1.1; eight lanes of AVX2 as long as portable code for 1.8.
/// (The SHA extensions beat AVX2 at any number, so the two are never combined.)
#[derive(Clone, Copy)]
struct Wide<const N: usize> {
    kernel: Kernel<N>,
    fewest: usize,
}

/// A kernel of one of the widths.
pub(super) enum Chosen {
    Sixteen(Kernel<16>),
    Eight(Kernel<8>),
    Two(Kernel<2>),
    One(Kernel<1>),
}

/// Everything this CPU supports, fastest first.
static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let portable = Plan { name: "portable", sixteen: None, eight: None, two: None, one: arch::portable() };
    let mut plans = Vec::new();
    let narrow = match (arch::shani(), arch::armv8()) {
        (Some((two, one)), _) => Some(Plan { name: "shani", two: Some(two), one, ..portable }),
        (None, Some(one)) => Some(Plan { name: "armv8", one, ..portable }),
        (None, None) => None,
    };
    if let Some(kernel) = arch::avx512() {
        let fewest = if narrow.is_some() { 7 } else { 2 };
        let narrow = narrow.as_ref().unwrap_or(&portable);
        plans.push(Plan { name: "avx512", sixteen: Some(Wide { kernel, fewest }), ..*narrow });
    }
    plans.extend(narrow);
    if let Some(kernel) = arch::avx2() {
        plans.push(Plan { name: "avx2", eight: Some(Wide { kernel, fewest: 2 }), ..portable });
    }
    plans.push(portable);
    plans
});

static ACTIVE: LazyLock<Backend> = LazyLock::new(|| match std::env::var(BACKEND_VARIABLE) {
    Ok(name) => Backend::named(&name)
        .unwrap_or_else(|| panic!("{BACKEND_VARIABLE}={name}: this CPU supports {:?}", Backend::supported())),
    Err(_) => Backend(&PLANS[0]),
});

impl Backend {
    /// The backend that the functions of this module use: the fastest, unless the environment variable
    /// `CRYPTO_SIMD` named another when the first of them was called.
    ///
    /// # Panics
    /// If `CRYPTO_SIMD` names no backend that this CPU supports.
    #[must_use]
    pub fn active() -> Self {
        *ACTIVE
    }

    /// Every backend that this CPU supports, fastest first. The last is always `portable`.
    #[must_use]
    pub fn supported() -> Vec<Self> {
        PLANS.iter().map(Self).collect()
    }

    /// The backend of this name, if the CPU supports it.
    ///
    /// - `avx512`: sixteen lanes, with the SHA extensions for the last few messages.
    /// - `shani`: two interleaved streams through the SHA extensions.
    /// - `avx2`: eight lanes, as on a CPU without the SHA extensions.
    /// - `armv8`: the SHA-2 instructions of aarch64.
    /// - `portable`: no instruction that the target does not guarantee.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PLANS.iter().find(|plan| plan.name == name).map(Self)
    }

    /// The name that [`named`](Self::named) knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// [`hash_many`](super::hash_many) by this backend.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn hash_many(self, messages: &[&[u8]], digests: &mut [Digest]) {
        assert_eq!(messages.len(), digests.len(), "one digest for each message");
        if let ([message], [digest]) = (messages, &mut *digests) {
            *digest = self.hash(message);
            return;
        }
        let mut order = [0; queue::ORDERED];
        let queue = Queue::new(messages, &mut order);
        self.hash_from(&mut Messages::new(queue), messages.len(), &mut |index, digest| {
            digests[index] = digest
        });
    }

    /// Hashes all that comes from `feed`, which is `count` messages or fewer.
    pub(super) fn hash_from<'m>(
        self,
        feed: &mut impl Feed<'m>,
        count: usize,
        done: &mut impl FnMut(usize, Digest),
    ) {
        let plan = self.0;
        match self.kernel_for(count) {
            Chosen::Sixteen(kernel) => {
                let fewest = plan.sixteen.map_or(1, |wide| wide.fewest);
                let mut rest = Lanes::run(kernel, feed, fewest, done);
                plan.finish(&mut rest, done);
            }
            Chosen::Eight(kernel) => {
                let fewest = plan.eight.map_or(1, |wide| wide.fewest);
                let mut rest = Lanes::run(kernel, feed, fewest, done);
                plan.finish(&mut rest, done);
            }
            Chosen::Two(_) | Chosen::One(_) => plan.finish(feed, done),
        }
    }

    /// The kernel that hashes `count` messages of one length the fastest.
    pub(super) fn kernel_for(self, count: usize) -> Chosen {
        let plan = self.0;
        if let Some(wide) = plan.sixteen.filter(|wide| count >= wide.fewest) {
            Chosen::Sixteen(wide.kernel)
        } else if let Some(wide) = plan.eight.filter(|wide| count >= wide.fewest) {
            Chosen::Eight(wide.kernel)
        } else if let Some(two) = plan.two.filter(|_| count >= 2) {
            Chosen::Two(two)
        } else {
            Chosen::One(plan.one)
        }
    }

    /// The kernel for one message.
    pub(super) fn one(self) -> Kernel<1> {
        self.0.one
    }

    /// [`hash`](super::hash) by this backend.
    #[must_use]
    pub fn hash(self, message: &[u8]) -> Digest {
        lanes::hash_one(self.0.one, message)
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Plan {
    /// Hashes what is left by the kernels for few messages.
    fn finish<'m>(&self, feed: &mut impl Feed<'m>, done: &mut impl FnMut(usize, Digest)) {
        if let Some(two) = self.two {
            let mut last = Lanes::run(two, feed, 2, done);
            Lanes::run(self.one, &mut last, 1, done);
        } else {
            Lanes::run(self.one, feed, 1, done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hand-overs of CPUs that have other combinations than this one.
    #[test]
    fn kernels_that_other_cpus_combine_agree() {
        let wide = |kernel| Wide { kernel, fewest: 2 };
        let portable = PLANS.last().expect("at least portable");
        let mut plans = vec![Plan { name: "AVX-512 alone", sixteen: arch::avx512().map(wide), ..*portable }];
        if let Some((two, one)) = arch::shani() {
            let eight = arch::avx2().map(|kernel| Wide { kernel, fewest: 5 });
            plans.push(Plan { name: "AVX2 over SHA", eight, two: Some(two), one, ..*portable });
            plans.push(Plan {
                name: "AVX-512 to the last",
                sixteen: arch::avx512().map(wide),
                one,
                ..*portable
            });
        }
        let data: Vec<u8> = (0..=255).cycle().take(3_000).collect();
        let messages: Vec<&[u8]> = (0..50).map(|i| &data[..i * 541 % 2_900]).collect();
        for plan in plans {
            let backend = Backend(Box::leak(Box::new(plan)));
            for count in (0..messages.len()).step_by(if cfg!(miri) { 25 } else { 1 }) {
                let mut digests = [[[0xa5; 32]; 50]; 2];
                backend.hash_many(&messages[..count], &mut digests[0][..count]);
                Backend(portable).hash_many(&messages[..count], &mut digests[1][..count]);
                assert_eq!(digests[0], digests[1], "{backend:?}, {count} messages");
            }
        }
    }
}
