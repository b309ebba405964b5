//! Sealed files on their way back to what they were: checked, opened, written, put in their places.

use crate::error::RunError;
use crate::receive::Owners;
use crate::report::{Event, Reporter};
use crate::seal::ReplicaSeal;
use crossbeam::channel::Receiver;
use sealift_proto::block::{BlockIndex, FileId, Layout};
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use sealift_proto::manifest::sealed::{self, HEAD_BYTES_MAX, HeadError, SealedHead, SealedName};
use sealift_proto::manifest::{Attributes, Metadata, Record};
use sealift_proto::path::SafePath;
use sealift_store::{
    Allocation, Attributed, Durability, EntryKind, Existing, Ready, Replica, ReplicaView, StagedFile,
    Timestamp,
};
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files that are put in their places together, and their bytes.
const BATCH_FILES_MAX: usize = 256;
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Zeros that become a hole: whole pieces of this size, from the file's beginning.
const HOLE_BYTES: u64 = 4 << 10;

/// A sealed file, by its manifest.
pub struct SealedFile {
    /// Its name.
    pub name: SealedName,
    /// Its size and blocks.
    pub layout: Layout,
    /// The hashes of its blocks.
    pub hashes: Vec<BlockHash>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links and further names.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Entries that could not be restored.
    pub failed: u64,
}

/// Restores entries, on several threads.
pub struct Restorer {
    view: Arc<ReplicaView>,
    seal: ReplicaSeal,
    algorithm: HashAlgorithm,
    replica: Arc<Replica>,
    owners: Owners,
    keep_special_modes: bool,
    reporter: Arc<Reporter>,
    last: Mutex<Last>,
}

/// What is known by now, and done at the end.
#[derive(Default)]
struct Last {
    tally: Tally,
    made: HashSet<SafePath>,
    directories: Vec<DirectoryMetadata>,
    names: Vec<(SafePath, SafePath)>,
    /// Entries whose set-id or sticky bits were dropped.
    special: u64,
}

/// Files of a thread that are whole and not yet in their places.
#[derive(Default)]
struct Batch {
    ready: Vec<Ready>,
    bytes: u64,
}

/// What was wrong with an entry.
type Wrong = String;

/// A directory, the root being `None`, and what it is to have.
type DirectoryMetadata = (Option<SafePath>, Metadata, Option<Attributes>);

impl Restorer {
    /// Nothing was restored yet.
    pub fn new(
        view: Arc<ReplicaView>,
        seal: ReplicaSeal,
        algorithm: HashAlgorithm,
        replica: Arc<Replica>,
        owners: Owners,
        keep_special_modes: bool,
        reporter: Arc<Reporter>,
    ) -> Self {
        let last = Mutex::default();
        Self { view, seal, algorithm, replica, owners, keep_special_modes, reporter, last }
    }

    /// Restores what comes until no more does. Blocks.
    pub fn work(&self, wanted: &Receiver<SealedFile>) {
        let mut batch = Batch::default();
        for file in wanted {
            if let Err(wrong) = self.entry(&file, &mut batch) {
                self.failed(&file.name.path().to_string(), &wrong);
            }
        }
        self.publish(&mut batch);
    }

    /// Does what has to be done last. Blocks.
    ///
    /// # Errors
    /// If the destination cannot be brought to its end.
    pub fn finish(&self) -> Result<Tally, RunError> {
        let (names, mut directories) = {
            let mut last = self.last();
            (std::mem::take(&mut last.names), std::mem::take(&mut last.directories))
        };
        for (path, first) in names {
            let made = self
                .parents(&path)
                .and_then(|()| self.replica.make_hardlink(&path, &first).map_err(|error| error.to_string()));
            match made {
                Ok(_) => self.last().tally.links += 1,
                Err(wrong) => self.failed(&path.to_string(), &wrong),
            }
        }
        let failed =
            |error: &dyn std::fmt::Display| RunError::Failed(format!("the end of the restore: {error}"));
        // The deepest first, and the root last: whatever is set in a directory moves its time.
        directories.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        let root = directories.pop_if(|(path, ..)| path.is_none());
        self.directories(directories);
        self.replica.sync().map_err(|error| failed(&error))?;
        // As long as anything is missing, the same may be asked for again.
        if self.last().tally.failed == 0 {
            self.replica.dissolve().map_err(|error| failed(&error))?;
        } else {
            let message = "the same command restores what is missing once that is mended (a damaged replica by `sealift verify \
                --repair`, a disk by room); .sealift is left for that";
            self.reporter.tell(&Event::Warning { message: message.into() });
        }
        self.directories(root);
        self.replica.sync().map_err(|error| failed(&error))?;
        let special = self.last().special;
        if special > 0 {
            let message = format!(
                "set-user-id, set-group-id and sticky bits of {special} entries were dropped (--keep-special-modes keeps them)"
            );
            self.reporter.tell(&Event::Warning { message });
        }
        for told in self.owners.told() {
            self.reporter.tell(&Event::Warning { message: told });
        }
        Ok(self.last().tally)
    }

    fn directories(&self, of: impl IntoIterator<Item = DirectoryMetadata>) {
        for (path, metadata, attributes) in of {
            if let Err(error) = self.directory_metadata(path.as_ref(), metadata, attributes) {
                let shown = path.map_or_else(|| ".".to_owned(), |path| path.to_string());
                self.failed(&shown, &error);
            }
        }
    }

    fn directory_metadata(
        &self,
        path: Option<&SafePath>,
        metadata: Metadata,
        attributes: Option<Attributes>,
    ) -> Result<(), Wrong> {
        let mut mode = self.mode(metadata);
        if let Some(attributed) = self.attributed(attributes) {
            let applied = match path {
                Some(path) => attributed
                    .update(&self.replica, path, EntryKind::Directory, None, Some(mode))
                    .map_err(|error| error.to_string())?,
                None => {
                    attributed.update_root(&self.replica, Some(mode)).map_err(|error| error.to_string())?
                }
            };
            mode = applied.mode;
        }
        let set = self.replica.set_directory_metadata(path, mode, time(metadata));
        set.map_err(|error| error.to_string())
    }

    fn entry(&self, file: &SealedFile, batch: &mut Batch) -> Result<(), Wrong> {
        let mut blocks = Blocks::open(self, file)?;
        let (head, head_bytes) = blocks.head()?;
        let SealedHead { entry, attributes } = head;
        let path = match &entry {
            Record::Directory { path, .. }
            | Record::File { path, .. }
            | Record::Symlink { path, .. }
            | Record::Hardlink { path, .. } => path.as_bytes(),
            _ => b"",
        };
        if self.seal.name(path) != file.name {
            return Err("it stands at another's place: it was swapped".into());
        }
        let content = sealed::plain_bytes(file.layout)
            .and_then(|plain| plain.checked_sub(head_bytes as u64))
            .ok_or("its size is none that a sealed file has")?;
        match entry {
            Record::File { path, metadata, layout, .. } => {
                if layout.size_bytes() != content {
                    return Err("it is not as long as it was sealed: it was cut off".into());
                }
                // Who can open it knows it by this name.
                let shown = path.to_string();
                let restored = self.file(blocks, path, metadata, attributes, head_bytes, content, batch);
                restored.map_err(|wrong| format!("{shown}: {wrong}"))
            }
            _ if content > 0 => Err("there is content where there should be none".into()),
            Record::Root(metadata) => {
                self.last().directories.push((None, metadata, attributes));
                Ok(())
            }
            Record::Directory { path, metadata, .. } => {
                self.parents(&path)?;
                self.directory(&path)?;
                let mut last = self.last();
                last.tally.directories += 1;
                last.directories.push((Some(path), metadata, attributes));
                Ok(())
            }
            Record::Symlink { path, mtime, target, .. } => {
                self.parents(&path)?;
                let mtime = Timestamp { seconds: mtime.seconds(), nanos: mtime.nanos() };
                self.replica.make_symlink(&path, &target, Some(mtime)).map_err(|error| error.to_string())?;
                if let Some(attributed) = self.attributed(attributes) {
                    attributed
                        .update(&self.replica, &path, EntryKind::Symlink, None, None)
                        .map_err(|error| error.to_string())?;
                }
                self.last().tally.links += 1;
                Ok(())
            }
            Record::Hardlink { path, target, .. } => {
                self.last().names.push((path, target));
                Ok(())
            }
            _ => Err("it is nothing that a tree has".into()),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn file(
        &self,
        mut blocks: Blocks<'_>,
        path: SafePath,
        metadata: Metadata,
        attributes: Option<Attributes>,
        head_bytes: usize,
        content: u64,
        batch: &mut Batch,
    ) -> Result<(), Wrong> {
        self.parents(&path)?;
        let (mode, time) = (self.mode(metadata), time(metadata));
        // An earlier restore put it there, whole.
        if let Ok(Existing::File(stat)) = self.replica.existing(&path)
            && stat.size_bytes == content
            && stat.mtime == time
        {
            self.count(content);
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let staged = self
            .replica
            .create_staged(FileId(0), &path, content, Allocation::Sparse)
            .map_err(|error| failed(&error))?;
        match write_content(&mut blocks, &staged, head_bytes as u64) {
            Ok(()) => {}
            Err(wrong) => {
                staged.discard();
                return Err(wrong);
            }
        }
        let attributed = self.attributed(attributes);
        batch.ready.push(Ready::new(staged, path, mode, time).with_attributes(attributed));
        batch.bytes += content;
        if batch.ready.len() >= BATCH_FILES_MAX || batch.bytes >= BATCH_BYTES_MAX {
            self.publish(batch);
        }
        Ok(())
    }

    fn publish(&self, batch: &mut Batch) {
        let Batch { mut ready, .. } = std::mem::take(batch);
        ready.sort_by(|a, b| a.path().cmp(b.path()));
        let paths: Vec<_> = ready.iter().map(|ready| ready.path().clone()).collect();
        for (path, published) in paths.iter().zip(self.replica.publish(ready, Durability::Synced)) {
            match published {
                Ok(stat) => self.count(stat.size_bytes),
                Err(error) => self.failed(&path.to_string(), &error.to_string()),
            }
        }
    }

    fn count(&self, bytes: u64) {
        let mut last = self.last();
        last.tally.files += 1;
        last.tally.bytes += bytes;
    }

    /// Makes the directories above an entry that are not there yet.
    fn parents(&self, path: &SafePath) -> Result<(), Wrong> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.last().made.contains(&parent) {
            return Ok(());
        }
        self.parents(&parent)?;
        self.directory(&parent)
    }

    fn directory(&self, path: &SafePath) -> Result<(), Wrong> {
        self.replica.make_directory(path).map_err(|error| error.to_string())?;
        self.last().made.insert(path.clone());
        Ok(())
    }

    fn mode(&self, metadata: Metadata) -> u32 {
        match metadata.mode.without_special() {
            Some(without) if !self.keep_special_modes => {
                self.last().special += 1;
                without.bits()
            }
            _ => metadata.mode.bits(),
        }
    }

    fn attributed(&self, attributes: Option<Attributes>) -> Option<Attributed> {
        attributes.and_then(|attributes| self.owners.attributed(&attributes))
    }

    fn failed(&self, shown: &str, wrong: &str) {
        self.last().tally.failed += 1;
        self.reporter.problem(shown.as_bytes(), wrong);
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(metadata: Metadata) -> Timestamp {
    Timestamp { seconds: metadata.mtime.seconds(), nanos: metadata.mtime.nanos() }
}

/// Writes what comes after the head. Pieces of zeros become holes: where the source had some is not said in what is sealed.
fn write_content(blocks: &mut Blocks<'_>, staged: &StagedFile, head_bytes: u64) -> Result<(), Wrong> {
    while let Some((at, plain)) = blocks.next()? {
        let skipped = usize::try_from(head_bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(plain.len());
        let offset = (at + skipped as u64).saturating_sub(head_bytes);
        for range in not_zero(offset, &plain[skipped..]) {
            let written =
                staged.file().write_all_at(&plain[skipped..][range.clone()], offset + range.start as u64);
            written.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// What of some content is to be written: all but whole pieces of [`HOLE_BYTES`] that are zeros. `offset` is where it begins in
/// its file.
fn not_zero(offset: u64, content: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < content.len() {
        let piece = HOLE_BYTES - (offset + at as u64) % HOLE_BYTES;
        let end = content.len().min(at + usize::try_from(piece).expect("a piece is small"));
        if content[at..end].iter().any(|byte| *byte != 0) {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => ranges.push(at..end),
            }
        }
        at = end;
    }
    ranges
}

/// The plaintext of a sealed file, block by block, each checked.
struct Blocks<'r> {
    restorer: &'r Restorer,
    of: &'r SealedFile,
    file: File,
    next: u32,
    buf: Vec<u8>,
    /// What was read to find the head, and where it goes on.
    ahead: Vec<u8>,
}

impl<'r> Blocks<'r> {
    fn open(restorer: &'r Restorer, of: &'r SealedFile) -> Result<Self, Wrong> {
        let opened = restorer.view.source().open_file(&of.name.path());
        let (file, stat) = opened.map_err(|error| format!("cannot be read: {error}"))?;
        if stat.size_bytes != of.layout.size_bytes() || of.hashes.len() != of.layout.blocks() as usize {
            return Err("it is not as long as its manifest says".into());
        }
        Ok(Self { restorer, of, file, next: 0, buf: Vec::new(), ahead: Vec::new() })
    }

    /// The next block's plaintext, in the buffer.
    fn read(&mut self) -> Result<Option<Range<usize>>, Wrong> {
        let layout = self.of.layout;
        let block = BlockIndex(self.next);
        let Some(bytes) = layout.run_bytes(block, 1) else { return Ok(None) };
        self.buf.resize(usize::try_from(bytes).expect("at most 16 MiB"), 0);
        let read = self.file.read_exact_at(&mut self.buf, layout.offset(block));
        read.map_err(|error| format!("block {} cannot be read: {error}", block.0))?;
        let mut hash = [BlockHash([0; 32])];
        let input = BlockInput { data: &self.buf, offset: layout.offset(block), only: layout.blocks() == 1 };
        hash_blocks(self.restorer.algorithm, &[input], &mut hash);
        if hash[0] != self.of.hashes[self.next as usize] {
            return Err(format!("block {} is damaged: `sealift verify --repair` mends it", block.0));
        }
        let last = block.0 + 1 == layout.blocks();
        let opened = self.restorer.seal.open_block(self.of.name, block, last, &mut self.buf);
        let range =
            opened.ok_or_else(|| format!("block {} was not sealed there by this job's key", block.0))?;
        self.next += 1;
        Ok(Some(range))
    }

    /// The head; its blocks are given again by [`Self::next`].
    fn head(&mut self) -> Result<(SealedHead, usize), Wrong> {
        loop {
            let wanted = match SealedHead::decode(&self.ahead) {
                Ok(head) => return Ok(head),
                Err(HeadError::Short(wanted)) if wanted <= HEAD_BYTES_MAX => wanted,
                Err(error) => return Err(format!("what it is cannot be read: {error}")),
            };
            while self.ahead.len() < wanted {
                let Some(range) = self.read()? else {
                    return Err("what it is cannot be read: it is cut off".into());
                };
                self.ahead.extend_from_slice(&self.buf[range]);
            }
        }
    }

    /// Some plaintext, and where it is.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>, Wrong> {
        if !self.ahead.is_empty() {
            self.buf = std::mem::take(&mut self.ahead);
            return Ok(Some((0, &self.buf)));
        }
        let at = sealed::plain_range(self.of.layout, BlockIndex(self.next)).start;
        Ok(self.read()?.map(|range| (at, &self.buf[range])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn whole_pieces_of_zeros_are_left_out() {
        let piece = usize::try_from(HOLE_BYTES).unwrap();
        let mut content = vec![0; 4 * piece];
        assert_eq!(not_zero(0, &content), []);
        content[piece] = 1;
        content[2 * piece + 7] = 1;
        assert_eq!(not_zero(0, &content), [piece..3 * piece]);
        // Pieces are the file's, and not those of what was read.
        assert_eq!(not_zero(100, &content), [piece - 100..3 * piece - 100]);
        assert_eq!(not_zero(0, &content[piece..piece + 5]), [0..5]);
        assert_eq!(not_zero(5, &[]), []);
    }
}
