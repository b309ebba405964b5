//! Sealed trees: what a source offers whose names and content only the holders of a key may read (`docs/sealed.md`).
//!
//! Each entry of the tree becomes one file with a name that says nothing. Its plaintext is a head, which says what the entry
//! is in the records of a manifest, and its content; it is sealed block by block, each with [`BLOCK_OVERHEAD_BYTES`] more than
//! its part of the plaintext. Here is what is pure of that: names, heads, and how plaintext lies in blocks. The sealing itself
//! is the caller's.

use super::attributes::Attributes;
use super::record::{Record, RecordError};
use crate::block::{BlockIndex, BlockSize, FileId, Layout};
use crate::codec::{Put as _, Reader};
use crate::limits::{ATTRIBUTES_BYTES_MAX, PATH_BYTES_MAX};
use crate::path::SafePath;
use data_encoding::HEXLOWER;
use std::ops::Range;

/// What a sealed block has beside its part of the plaintext.
pub const BLOCK_OVERHEAD_BYTES: u64 = 56;
/// Bytes of a sealed name.
pub const NAME_BYTES: usize = 20;
/// Where the wrapped data key is.
pub const KEYS_PATH: &str = "keys";
/// Beneath which all else is.
pub const DIRECTORY: &str = "sealed";
/// A head is as long as a multiple of this, so that its length tells little of the path in it.
const HEAD_STEP_BYTES: usize = 64;
const HEAD_VERSION: u16 = 1;
/// Version and length.
const HEAD_FIXED_BYTES: usize = 2 + 4;
/// A head's bytes at most: two paths and attributes, with what is around them.
pub const HEAD_BYTES_MAX: usize = 2 * PATH_BYTES_MAX + ATTRIBUTES_BYTES_MAX + 1024;

/// The name of a sealed entry: made of its path by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealedName(pub [u8; NAME_BYTES]);

impl SealedName {
    /// Where the entry is in the sealed tree.
    #[must_use]
    pub fn path(self) -> SafePath {
        let hex = HEXLOWER.encode(&self.0);
        let path = format!("{DIRECTORY}/{}/{}", &hex[..2], &hex[2..]);
        SafePath::parse(path.as_bytes()).expect("plain names")
    }

    /// The name at such a path.
    #[must_use]
    pub fn at(path: &SafePath) -> Option<Self> {
        let rest = path.as_bytes().strip_prefix(DIRECTORY.as_bytes())?.strip_prefix(b"/")?;
        let (shard, rest) = rest.split_at_checked(2)?;
        let hex = [shard, rest.strip_prefix(b"/")?].concat();
        Some(Self(HEXLOWER.decode(&hex).ok()?.try_into().ok()?))
    }
}

/// The directories that come before the entries: the one, and those in it.
pub fn directories() -> impl Iterator<Item = SafePath> {
    let shards = (0..=255_u8).map(|shard| format!("{DIRECTORY}/{shard:02x}"));
    let paths = std::iter::once(DIRECTORY.to_owned()).chain(shards);
    paths.map(|path| SafePath::parse(path.as_bytes()).expect("plain names"))
}

/// Whether a record can be one of a sealed tree: a keeper takes no other.
#[must_use]
pub fn admits(record: &Record) -> bool {
    match record {
        Record::Directory { path, .. } => {
            path.as_bytes() == DIRECTORY.as_bytes()
                || path.as_bytes().strip_prefix(DIRECTORY.as_bytes()).is_some_and(
                    |rest| matches!(rest, [b'/', a, b] if [a, b].iter().all(|digit| is_hex(**digit))),
                )
        }
        Record::File { path, .. } | Record::SmallFile { path, .. } | Record::Withdrawn { path, .. } => {
            path.as_bytes() == KEYS_PATH.as_bytes() || SealedName::at(path).is_some()
        }
        Record::Problem { shown_path, .. } => shown_path.is_empty(),
        Record::Hashes { .. } | Record::Sealed { .. } | Record::End { .. } => true,
        Record::Root(_)
        | Record::Holes { .. }
        | Record::Symlink { .. }
        | Record::Hardlink { .. }
        | Record::Attributes { .. } => false,
    }
}

fn is_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

/// The layout of a sealed file with so much plaintext, its head included; `None` if it is more than a file may have.
#[must_use]
pub fn layout(plain_bytes: u64) -> Option<Layout> {
    let sized = |block_size: BlockSize| {
        let blocks = plain_bytes.div_ceil(block_size.bytes() - BLOCK_OVERHEAD_BYTES);
        blocks.checked_mul(BLOCK_OVERHEAD_BYTES)?.checked_add(plain_bytes)
    };
    let small = BlockSize::for_file(plain_bytes);
    // What is sealed may be just too long for blocks of that size.
    let block_size = BlockSize::for_file(sized(small)?);
    Layout::new(sized(block_size)?, block_size)
}

/// The plaintext in a file of this layout; `None` if no sealed file has it.
#[must_use]
pub fn plain_bytes(of: Layout) -> Option<u64> {
    let plain = of.size_bytes().checked_sub(u64::from(of.blocks()) * BLOCK_OVERHEAD_BYTES)?;
    (layout(plain) == Some(of)).then_some(plain)
}

/// Which part of the plaintext is in a block of such a file.
#[must_use]
pub fn plain_range(of: Layout, block: BlockIndex) -> Range<u64> {
    let room = of.block_size().bytes() - BLOCK_OVERHEAD_BYTES;
    let start = u64::from(block.0) * room;
    let plain = of.size_bytes() - u64::from(of.blocks()) * BLOCK_OVERHEAD_BYTES;
    start..(start + room).min(plain)
}

/// What an entry is: the beginning of a sealed file's plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedHead {
    /// The entry as a manifest would say it, with the number 0: [`Record::Root`], [`Record::Directory`], [`Record::File`],
    /// [`Record::Symlink`] or [`Record::Hardlink`].
    pub entry: Record,
    /// What else is kept of it.
    pub attributes: Option<Attributes>,
}

/// Why bytes are no head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More bytes are needed: so many in all.
    #[error("the head is cut off")]
    Short(usize),
    /// A version that this program does not know.
    #[error("sealed by a newer version ({0}) than this program knows")]
    Version(u16),
    /// A length that cannot be.
    #[error("a length that no head has")]
    Length,
    /// Not a record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record that does not belong in a head.
    #[error("a record that does not belong there")]
    Kind,
}

impl SealedHead {
    /// The number of every entry in a head.
    pub const ID: FileId = FileId(0);

    /// The head's bytes, filled up with zeros.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 * HEAD_STEP_BYTES);
        out.put_u16(HEAD_VERSION);
        out.put_u32(0);
        if let Some(attributes) = &self.attributes {
            let id = (!matches!(self.entry, Record::Root(_))).then_some(Self::ID);
            Record::Attributes { id, attributes: attributes.clone() }.encode(&mut out);
        }
        self.entry.encode(&mut out);
        out.resize(out.len().next_multiple_of(HEAD_STEP_BYTES), 0);
        let bytes = u32::try_from(out.len()).expect("at most HEAD_BYTES_MAX");
        out[2..HEAD_FIXED_BYTES].copy_from_slice(&bytes.to_le_bytes());
        out
    }

    /// Reads a head at the beginning of some plaintext, and how long it is.
    ///
    /// # Errors
    /// [`HeadError::Short`] if there is more of it, with how much is needed; what else is wrong.
    pub fn decode(plain: &[u8]) -> Result<(Self, usize), HeadError> {
        let mut reader = Reader::new(plain);
        let version = reader.u16().ok_or(HeadError::Short(HEAD_FIXED_BYTES))?;
        if version != HEAD_VERSION {
            return Err(HeadError::Version(version));
        }
        let bytes = reader.u32().ok_or(HeadError::Short(HEAD_FIXED_BYTES))?;
        let bytes = usize::try_from(bytes).map_err(|_| HeadError::Length)?;
        if !(HEAD_FIXED_BYTES..=HEAD_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(HEAD_STEP_BYTES) {
            return Err(HeadError::Length);
        }
        let head = plain.get(HEAD_FIXED_BYTES..bytes).ok_or(HeadError::Short(bytes))?;
        let mut reader = Reader::new(head);
        let (entry, attributes) = match Record::decode(&mut reader)? {
            Record::Attributes { id, attributes } => {
                let entry = Record::decode(&mut reader)?;
                let fits = id.is_none() == matches!(entry, Record::Root(_));
                (fits.then_some(entry).ok_or(HeadError::Kind)?, Some(attributes))
            }
            entry => (entry, None),
        };
        let known = matches!(
            entry,
            Record::Root(_)
                | Record::Directory { .. }
                | Record::File { .. }
                | Record::Symlink { .. }
                | Record::Hardlink { .. }
        );
        let padding: Vec<u8> = std::iter::from_fn(|| reader.u8()).collect();
        if !known || padding.len() >= HEAD_STEP_BYTES || padding.iter().any(|byte| *byte != 0) {
            return Err(HeadError::Kind);
        }
        Ok((Self { entry, attributes }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Metadata, Mode, Problem};
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).unwrap()
    }

    fn file(text: &str) -> Record {
        let metadata = Metadata { mode: Mode::from_bits(0o644), mtime: Timestamp::new(5, 6).unwrap() };
        let layout = Layout::new(1234, BlockSize::MIN).unwrap();
        Record::File { id: SealedHead::ID, path: path(text), metadata, layout }
    }

    #[test]
    fn a_name_is_where_it_was_put() {
        let name = SealedName([0xab; NAME_BYTES]);
        assert_eq!(SealedName::at(&name.path()), Some(name));
        for other in [
            "sealed",
            "sealed/ab",
            "keys",
            "sealed/zz/00",
            "sealed/AB/ABABABABABABABABABABABABABABABABABABAB",
        ] {
            assert_eq!(SealedName::at(&path(other)), None, "{other}");
        }
        assert_eq!(directories().count(), 257);
    }

    #[test]
    fn a_keeper_takes_nothing_with_a_name_of_its_own() {
        let name = SealedName([7; NAME_BYTES]).path();
        let file = file("plain/name");
        assert!(!admits(&file));
        let Record::File { id, metadata, layout, .. } = file else { unreachable!() };
        assert!(admits(&Record::File { id, path: name, metadata, layout }));
        assert!(admits(&Record::File { id, path: path("keys"), metadata, layout }));
        for directory in directories() {
            assert!(admits(&Record::Directory { id, path: directory, metadata }));
        }
        for other in ["secret", "sealed/secret", "sealed/ab/c", "sealed/aB"] {
            assert!(!admits(&Record::Directory { id, path: path(other), metadata }), "{other}");
        }
        assert!(!admits(&Record::Root(metadata)));
        assert!(!admits(&Record::Problem { shown_path: b"secret".to_vec(), problem: Problem::Changed }));
    }

    #[test]
    fn heads_come_back_and_what_is_none_is_refused() {
        let head = SealedHead { entry: file("a/b"), attributes: None };
        let mut bytes = head.encode();
        assert_eq!(bytes.len() % HEAD_STEP_BYTES, 0);
        let whole = bytes.len();
        bytes.extend_from_slice(b"content");
        assert_eq!(SealedHead::decode(&bytes), Ok((head.clone(), whole)));
        assert_eq!(SealedHead::decode(&bytes[..10]), Err(HeadError::Short(whole)));
        assert_eq!(SealedHead::decode(&[]), Err(HeadError::Short(HEAD_FIXED_BYTES)));
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert_eq!(SealedHead::decode(&newer), Err(HeadError::Version(2)));
        let mut dirty = bytes.clone();
        dirty[whole - 1] = 1;
        assert_eq!(SealedHead::decode(&dirty), Err(HeadError::Kind));
        let mut long = bytes;
        long[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(SealedHead::decode(&long), Err(HeadError::Length));
        let end = SealedHead { entry: Record::End { entries: 3 }, attributes: None };
        assert_eq!(SealedHead::decode(&end.encode()), Err(HeadError::Kind));
    }

    /// Lengths at which blocks become larger.
    fn near(edge: u64) -> std::ops::Range<u64> {
        edge - (edge >> 8)..edge + (edge >> 8)
    }

    proptest! {
        #[test]
        fn blocks_cover_the_plaintext_in_order(
            plain in prop_oneof![0..200_000_u64, 0..(1_u64 << 36), near(1 << 31), near(1 << 32), near(1 << 40)],
        ) {
            let layout = layout(plain).unwrap();
            prop_assert_eq!(plain_bytes(layout), Some(plain));
            // Receivers take no smaller blocks.
            prop_assert!(layout.block_size().log2() >= BlockSize::for_file(layout.size_bytes()).log2());
            let blocks = layout.blocks();
            let ends = |block| plain_range(layout, BlockIndex(block));
            if blocks == 0 {
                prop_assert_eq!(plain, 0);
            } else {
                prop_assert_eq!(ends(0).start, 0);
                prop_assert_eq!(ends(blocks - 1).end, plain);
                prop_assert!(!ends(blocks - 1).is_empty());
                let some = blocks / 2;
                let range = ends(some);
                prop_assert_eq!(
                    range.end - range.start + BLOCK_OVERHEAD_BYTES,
                    layout.run_bytes(BlockIndex(some), 1).unwrap()
                );
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SealedHead::decode(&bytes);
        }

        #[test]
        fn a_layout_that_no_sealed_file_has_is_none(size in 0..(1_u64 << 34)) {
            let of = Layout::new(size, BlockSize::for_file(size)).unwrap();
            if let Some(plain) = plain_bytes(of) {
                prop_assert_eq!(layout(plain), Some(of));
            }
        }
    }
}
