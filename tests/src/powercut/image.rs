//! A disk in memory, of which only what was written is kept track of.

use super::cut::{Fate, TEAR_BYTES};
use super::log::{Entry, WriteLog};
use crate::tree::data_ranges;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is written or not.
const PAGE_BYTES: usize = 1 << 12;
/// The most pages that are handed out as one piece.
const PIECE_PAGES: usize = 256;

/// The content of a disk.
#[derive(Debug)]
pub(super) struct Image {
    bytes: Vec<u8>,
    /// For each page.
    written: Vec<bool>,
}

impl Image {
    /// That of a file, which may have holes.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).expect("it fits memory");
        let mut image = Self { bytes: vec![0; bytes], written: vec![false; bytes.div_ceil(PAGE_BYTES)] };
        for range in data_ranges(path) {
            let (start, end) =
                (usize::try_from(range.start).expect("fits"), usize::try_from(range.end).expect("fits"));
            file.read_exact_at(&mut image.bytes[start..end], range.start)?;
            image.note(start, end);
        }
        Ok(image)
    }

    fn note(&mut self, start: usize, end: usize) {
        self.written[start / PAGE_BYTES..end.div_ceil(PAGE_BYTES)].fill(true);
    }

    /// From now on, nothing was written.
    pub(super) fn all_as_it_was(&mut self) {
        self.written.fill(false);
    }

    /// Does what an entry of the log did.
    pub(super) fn apply(&mut self, log: &WriteLog, entry: &Entry) {
        log.for_each_piece(entry, |at_bytes, piece| {
            let start = usize::try_from(at_bytes).expect("it is within the disk");
            self.bytes[start..start + piece.len()].copy_from_slice(piece);
            self.note(start, start + piece.len());
        });
    }

    /// Everything that was written, with where it belongs, in pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let runs = self.written.chunk_by(|a, b| a == b).scan(0, |page, run| {
            let first = *page;
            *page += run.len();
            Some((first, run))
        });
        runs.filter(|(_, run)| run[0]).flat_map(|(first, run)| {
            let start = first * PAGE_BYTES;
            let end = self.bytes.len().min(start + run.len() * PAGE_BYTES);
            let pieces = self.bytes[start..end].chunks(PIECE_PAGES * PAGE_BYTES).enumerate();
            pieces.map(move |(n, piece)| ((start + n * PIECE_PAGES * PAGE_BYTES) as u64, piece))
        })
    }

    /// Writes it into a new file.
    pub(super) fn save(&self, path: &Path) -> io::Result<File> {
        let file = File::create(path)?;
        file.set_len(self.bytes.len() as u64)?;
        for (at_bytes, piece) in self.pieces() {
            file.write_all_at(piece, at_bytes)?;
        }
        Ok(file)
    }
}

/// Does to a file what is left of an entry of the log.
pub(super) fn apply_to_file(file: &File, log: &WriteLog, entry: &Entry, fate: Fate) -> io::Result<()> {
    let mut result = Ok(());
    log.for_each_piece(entry, |mut at_bytes, mut piece| {
        while !piece.is_empty() && result.is_ok() {
            let to_edge = TEAR_BYTES - at_bytes % TEAR_BYTES;
            let bytes = usize::try_from(to_edge).expect("small").min(piece.len());
            if fate.keeps(at_bytes) {
                result = file.write_all_at(&piece[..bytes], at_bytes);
            }
            at_bytes += bytes as u64;
            piece = &piece[bytes..];
        }
    });
    result
}
