//! The bytes of data sets: fast, the same everywhere, and either without any order or with much of it.

/// Numbers from a seed: SplitMix64.
pub struct Random(u64);

impl Random {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `floor` to just below its double.
    pub fn around(&mut self, floor: u64) -> u64 {
        floor + self.next() % floor
    }
}

/// Bytes in a word of compressible content.
const WORD_BYTES: usize = 8;
/// Words that compressible content is made of.
const WORDS: usize = 256;

/// The bytes of one file.
pub struct Content {
    random: Random,
    words: Option<Box<[[u8; WORD_BYTES]; WORDS]>>,
}

impl Content {
    /// Those of this seed.
    pub fn new(seed: u64, compressible: bool) -> Self {
        let words = compressible.then(|| {
            let mut random = Random::new(0);
            Box::new(std::array::from_fn(|_| {
                // Letters and a space.
                random.next().to_le_bytes().map(|byte| if byte < 40 { b' ' } else { b'a' + byte % 26 })
            }))
        });
        Self { random: Random::new(seed), words }
    }

    /// The next bytes. All calls but the last for a file must ask for a multiple of 64.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        match &self.words {
            None => {
                for chunk in bytes.chunks_mut(8) {
                    chunk.copy_from_slice(&self.random.next().to_le_bytes()[..chunk.len()]);
                }
            }
            Some(words) => {
                // One number chooses eight words.
                for chunk in bytes.chunks_mut(8 * WORD_BYTES) {
                    let chosen = self.random.next().to_le_bytes();
                    for (place, index) in chunk.chunks_mut(WORD_BYTES).zip(chosen) {
                        place.copy_from_slice(&words[usize::from(index)][..place.len()]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_same_bytes_as_the_whole() {
        for compressible in [false, true] {
            let mut whole = vec![0; 1000];
            Content::new(7, compressible).fill(&mut whole);
            let mut parts = vec![0; 1000];
            let mut content = Content::new(7, compressible);
            let (first, second) = parts.split_at_mut(640);
            content.fill(first);
            content.fill(second);
            assert_eq!(whole, parts);
        }
    }
}
