//! Data sets: made from a seed, the same bytes under the same names everywhere, and kept for the next run.
//!
//! [`Spec`] says what is in one, `content` makes its bytes, `made` puts it on the disk.

mod content;
mod made;

pub use made::{DataSet, prepare};

use crate::units::{exact_bytes, parse_bytes, parse_count};
use content::Random;
use std::fmt;
use std::str::FromStr;

/// What a data set is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file of so many bytes.
    Large(u64),
    /// So many files, of 1 B to 256 KiB (every power of two as likely as the next) or of one size.
    Small {
        /// How many files.
        files: u64,
        /// Bytes in each, if all are alike.
        bytes_each: Option<u64>,
    },
    /// So many bytes in files of 4 KiB and more, each doubling of the size half as likely: few files have most bytes.
    Mixed(u64),
}

/// A data set, to the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What it is like.
    pub shape: Shape,
    /// What its bytes are drawn from.
    pub seed: u64,
    /// Whether its bytes can be compressed, to about a quarter.
    pub compressible: bool,
}

/// The exponent of the largest size among small files of no fixed size.
const SMALL_OCTAVES: u64 = 18;
/// The exponent of the smallest size in a mixed set.
const MIXED_LEAST_OCTAVE: u32 = 12;
/// Files in one directory.
const FILES_PER_DIRECTORY: u64 = 256;

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = "a data set is large:SIZE, small:COUNT, small:COUNT:SIZE or mixed:SIZE";
        let (kind, rest) = text.split_once(':').ok_or(what)?;
        match kind {
            "large" => Ok(Self::Large(parse_bytes(rest)?)),
            "mixed" => Ok(Self::Mixed(parse_bytes(rest)?)),
            "small" => {
                let (files, bytes_each) = match rest.split_once(':') {
                    Some((files, bytes)) => (files, Some(parse_bytes(bytes)?)),
                    None => (rest, None),
                };
                Ok(Self::Small { files: parse_count(files)?, bytes_each })
            }
            _ => Err(what.into()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large(bytes) => write!(f, "large:{}", exact_bytes(*bytes)),
            Self::Mixed(bytes) => write!(f, "mixed:{}", exact_bytes(*bytes)),
            Self::Small { files, bytes_each: None } => write!(f, "small:{files}"),
            Self::Small { files, bytes_each: Some(bytes) } => {
                write!(f, "small:{files}:{}", exact_bytes(*bytes))
            }
        }
    }
}

/// One file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Where it is, below the data set's directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What its bytes are drawn from.
    pub seed: u64,
}

impl Spec {
    /// Every file, in order.
    #[must_use]
    pub fn files(&self) -> Vec<Planned> {
        let mut sizes = Random::new(self.seed);
        let lengths: Vec<u64> = match self.shape {
            Shape::Large(bytes) => vec![bytes],
            Shape::Small { files, bytes_each: Some(bytes) } => (0..files).map(|_| bytes).collect(),
            Shape::Small { files, bytes_each: None } => {
                let mut length = |_| {
                    let octave = sizes.next() % SMALL_OCTAVES;
                    sizes.around(1 << octave)
                };
                (0..files).map(&mut length).collect()
            }
            Shape::Mixed(bytes) => mixed(bytes, &mut sizes),
        };
        let one = lengths.len() == 1;
        let file = |(index, bytes): (u64, u64)| Planned {
            path: if one { "file".into() } else { path_of(index) },
            bytes,
            seed: Random::new(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next(),
        };
        (0..).zip(lengths).map(file).collect()
    }

    /// The name of its directory.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = if self.compressible { "-compressible" } else { "" };
        format!("{}{kind}-seed{}", self.shape.to_string().replace(':', "-"), self.seed)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.compressible { ", compressible" } else { "" };
        write!(f, "{}{kind}", self.shape)
    }
}

fn mixed(total: u64, sizes: &mut Random) -> Vec<u64> {
    let mut lengths = Vec::new();
    let mut left = total;
    while left > 0 {
        let largest = (total / 8).max(1 << MIXED_LEAST_OCTAVE);
        let doublings = sizes.next().trailing_ones();
        let floor = (1_u64 << (MIXED_LEAST_OCTAVE + doublings).min(62)).min(largest);
        let bytes = sizes.around(floor).min(left);
        lengths.push(bytes);
        left -= bytes;
    }
    lengths
}

fn path_of(index: u64) -> String {
    let directory = index / FILES_PER_DIRECTORY;
    format!("{:02x}/{:02x}/{:02x}.bin", directory / 256, directory % 256, index % FILES_PER_DIRECTORY)
}

/// Fills it with bytes that have no order.
pub fn fill_with_noise(bytes: &mut [u8]) {
    content::Content::new(1, false).fill(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &str) -> Spec {
        Spec { shape: shape.parse().unwrap(), seed: 1, compressible: false }
    }

    /// Of names, sizes and bytes of everything.
    fn digest(spec: &Spec) -> String {
        let mut hasher = blake3::Hasher::new();
        for file in spec.files() {
            hasher.update(file.path.as_bytes());
            hasher.update(&file.bytes.to_le_bytes());
            let mut bytes = vec![0; usize::try_from(file.bytes).unwrap()];
            content::Content::new(file.seed, spec.compressible).fill(&mut bytes);
            hasher.update(&bytes);
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    #[test]
    fn data_sets_are_the_same_everywhere() {
        let compressible = Spec { compressible: true, ..spec("large:100000") };
        let other_seed = Spec { seed: 2, ..spec("small:40") };
        let digests = [
            digest(&spec("large:100000")),
            digest(&spec("small:40")),
            digest(&spec("small:300:100B")),
            digest(&spec("mixed:300KiB")),
            digest(&compressible),
            digest(&other_seed),
        ];
        assert_eq!(digests, GOLDEN);
    }

    /// Change these only together with `made::GENERATOR`.
    const GOLDEN: [&str; 6] = [
        "4f92b9278ba79380",
        "edca17e821b1578c",
        "7fcd4361a6925fb6",
        "7deb36e0321d8dd8",
        "45f48d98ad89f70e",
        "6f5314d1a5597dbf",
    ];

    #[test]
    fn shapes_are_read_and_written_alike() {
        for text in ["large:4GiB", "small:20000", "small:1000000:100B", "mixed:1GiB", "large:3B"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        for text in ["", "large", "large:", "large:0", "small:0", "small:5:", "huge:1GiB", "mixed:x"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn small_files_have_the_promised_sizes() {
        let files = spec("small:20000").files();
        assert_eq!(files.len(), 20_000);
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        assert!((400 << 20..435 << 20).contains(&total), "{total}");
        assert!(files.iter().all(|file| (1..=256 << 10).contains(&file.bytes)));
        let mut paths: Vec<_> = files.iter().map(|file| &file.path).collect();
        paths.dedup();
        assert_eq!(paths.len(), 20_000);
        assert_eq!(path_of(0x01_02_03), "01/02/03.bin");
    }

    #[test]
    fn mixed_sizes_are_heavy_tailed_and_add_up() {
        let mut sizes: Vec<u64> = spec("mixed:256MiB").files().iter().map(|file| file.bytes).collect();
        assert_eq!(sizes.iter().sum::<u64>(), 256 << 20);
        sizes.sort_unstable();
        let largest: u64 = sizes.iter().rev().take(sizes.len() / 20).sum();
        assert!(largest > 128 << 20, "a twentieth of the files has half of the bytes: {largest}");
        assert!(sizes.len() > 1000, "{}", sizes.len());
    }
}
