//! The manifest that a replica is by: `.sealift/manifest`, the signed segments of the last snapshot, one after the other.
//!
//! ```text
//! 0   4   magic "SLMF"
//! 4   4   version, 1
//! 8       for each segment: 4: its length, then so many bytes
//! ```
//!
//! Integers are little-endian. Written as `.sealift/manifest.new` and renamed when it is whole and synced, so that there
//! is the old one or the new one. Never checks a segment: it is signed, and whoever reads it back verifies it again.

use crate::faults::{self, Op, guard};
use crate::limits::MANIFEST_FILE_SEGMENTS_MAX;
use crate::replica::{Replica, is_named, open_own, remove, sync_directory};
use rustix::fs::{AtFlags, OFlags};
use sealift_proto::limits::SEGMENT_BYTES_MAX;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const NAME: &str = "manifest";
const NAME_NEW: &str = "manifest.new";
const MAGIC: [u8; 4] = *b"SLMF";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8;
/// Of a segment's length.
const PREFIX_BYTES: usize = 4;

impl Replica {
    /// Begins a manifest that will take the place of the one that is there. One that was begun before and not
    /// committed loses its place to this one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new_manifest(&self) -> io::Result<ManifestSpool> {
        clear_unfinished(self.own())?;
        let file = open_own(self.own(), NAME_NEW, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let spool = ManifestSpool {
            own: self.own().try_clone_to_owned()?,
            file,
            end: HEADER_BYTES as u64,
            starts: Vec::new(),
            committed: false,
        };
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..].copy_from_slice(&VERSION.to_le_bytes());
        faults::write_all_at(&spool.file, &header, 0)?;
        Ok(spool)
    }

    /// The manifest that was committed last, if there is one.
    ///
    /// # Errors
    /// As [`ManifestReader::open`].
    pub fn manifest(&self) -> io::Result<Option<ManifestReader>> {
        ManifestReader::beneath(self.own())
    }
}

/// Removes what a killed receiver left unfinished.
pub(crate) fn clear_unfinished(own: BorrowedFd<'_>) -> io::Result<()> {
    remove(own, NAME_NEW.as_bytes(), AtFlags::empty())
}

/// A manifest that grows. Removed when dropped, unless it was committed.
#[derive(Debug)]
pub struct ManifestSpool {
    /// `.sealift`.
    own: OwnedFd,
    file: File,
    end: u64,
    /// Where each segment's length stands.
    starts: Vec<u64>,
    committed: bool,
}

impl ManifestSpool {
    /// Appends a segment. Blocks. After an error it is as before.
    ///
    /// # Errors
    /// What the file system says; `InvalidInput` for a segment that is empty or longer than [`SEGMENT_BYTES_MAX`], and
    /// for one more than [`MANIFEST_FILE_SEGMENTS_MAX`].
    pub fn append(&mut self, segment: &[u8]) -> io::Result<()> {
        if segment.is_empty()
            || segment.len() > SEGMENT_BYTES_MAX
            || self.starts.len() >= MANIFEST_FILE_SEGMENTS_MAX
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the manifest cannot hold that segment"));
        }
        let prefix = u32::try_from(segment.len()).expect("at most SEGMENT_BYTES_MAX").to_le_bytes();
        let mut bytes = Vec::with_capacity(prefix.len() + segment.len());
        bytes.extend_from_slice(&prefix);
        bytes.extend_from_slice(segment);
        faults::write_all_at(&self.file, &bytes, self.end)?;
        self.starts.push(self.end);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// The segment that was appended as number `index`, from 0; `None` beyond the last. Blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn segment(&self, index: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(&start) = self.starts.get(index) else { return Ok(None) };
        let next = self.starts.get(index + 1).copied().unwrap_or(self.end);
        let begin = start + PREFIX_BYTES as u64;
        let bytes = usize::try_from(next - begin).expect("as long as a segment");
        let mut segment = vec![0; bytes];
        faults::read_exact_at(&self.file, &mut segment, begin)?;
        Ok(Some(segment))
    }

    /// The number of segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Puts it in the place of the one before, durably. Blocks.
    ///
    /// # Errors
    /// What the file system says. If it is the last step that failed it may be in its place and not durable.
    pub fn commit(mut self) -> io::Result<()> {
        // An append that failed may have left something behind the end.
        guard(Op::Allocate, || self.file.set_len(self.end))?;
        guard(Op::Sync, || self.file.sync_all())?;
        if !is_named(self.own.as_fd(), NAME_NEW.as_bytes(), self.file.as_fd())? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another manifest was begun meanwhile"));
        }
        guard(Op::Rename, || rustix::fs::renameat(&self.own, NAME_NEW, &self.own, NAME))?;
        self.committed = true;
        sync_directory(self.own.as_fd())
    }
}

impl Drop for ManifestSpool {
    fn drop(&mut self) {
        let own = self.own.as_fd();
        if !self.committed && is_named(own, NAME_NEW.as_bytes(), self.file.as_fd()).is_ok_and(|ours| ours) {
            let _ = clear_unfinished(own);
        }
    }
}

/// The segments of a replica's manifest, in order. Nothing about them is verified. Ends after the first error.
#[derive(Debug)]
pub struct ManifestReader {
    file: BufReader<File>,
    done: bool,
}

impl ManifestReader {
    /// Opens the manifest of the replica `dest`, if there is one; for that nobody needs its lock.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` if it is not a manifest file, or of another version.
    pub fn open(dest: &Path) -> io::Result<Option<Self>> {
        match Replica::own_directory(dest)? {
            Some(own) => Self::beneath(own.as_fd()),
            None => Ok(None),
        }
    }

    pub(crate) fn beneath(own: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let file = match open_own(own, NAME, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? || header[..4] != MAGIC {
            return Err(damaged(".sealift/manifest is not a manifest"));
        }
        if header[4..] != VERSION.to_le_bytes() {
            return Err(damaged(".sealift/manifest is of a version that this program does not know"));
        }
        Ok(Some(Self { file, done: false }))
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut prefix = [0; PREFIX_BYTES];
        if !fill(&mut self.file, &mut prefix)? {
            return Ok(None);
        }
        let bytes = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
        // Before anything of that size is allocated.
        if bytes == 0 || bytes > SEGMENT_BYTES_MAX {
            return Err(damaged(".sealift/manifest is damaged"));
        }
        let mut segment = vec![0; bytes];
        if !fill(&mut self.file, &mut segment)? {
            return Err(cut_off());
        }
        Ok(Some(segment))
    }
}

impl Iterator for ManifestReader {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().transpose();
        self.done = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Fills `bytes`; `false` if there is nothing more at all.
fn fill(file: &mut BufReader<File>, bytes: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(cut_off()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn damaged(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn cut_off() -> io::Error {
    damaged(".sealift/manifest is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplicaId;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn open(dir: &Path) -> Replica {
        Replica::open(dir, ReplicaId([7; 16])).unwrap()
    }

    fn segments(dir: &Path) -> Option<Vec<Vec<u8>>> {
        Some(ManifestReader::open(dir).unwrap()?.map(Result::unwrap).collect())
    }

    #[test]
    fn what_is_committed_takes_the_place_of_what_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ManifestReader::open(&dir.path().join("none")).unwrap().is_none());
        assert!(segments(dir.path()).is_none());
        let replica = open(dir.path());
        assert!(replica.manifest().unwrap().is_none());
        let first = [vec![1; 160], vec![2; SEGMENT_BYTES_MAX], vec![3]];
        let mut spool = replica.new_manifest().unwrap();
        assert!(spool.is_empty());
        for (i, segment) in first.iter().enumerate() {
            spool.append(segment).unwrap();
            assert_eq!(spool.len(), i + 1);
        }
        assert!(spool.append(&[]).is_err());
        assert!(spool.append(&vec![0; SEGMENT_BYTES_MAX + 1]).is_err());
        for (i, segment) in first.iter().enumerate() {
            assert_eq!(spool.segment(i).unwrap().as_ref(), Some(segment));
        }
        assert_eq!(spool.segment(3).unwrap(), None);
        assert!(segments(dir.path()).is_none(), "not yet");
        spool.commit().unwrap();
        assert_eq!(segments(dir.path()).unwrap(), first);
        // One that is given up, one that is overtaken, one that is committed.
        let mut given_up = replica.new_manifest().unwrap();
        given_up.append(b"given up").unwrap();
        drop(given_up);
        assert!(!dir.path().join(".sealift/manifest.new").exists());
        let mut overtaken = replica.new_manifest().unwrap();
        overtaken.append(b"overtaken").unwrap();
        let mut second = replica.new_manifest().unwrap();
        second.append(b"second").unwrap();
        assert_eq!(overtaken.segment(0).unwrap().unwrap(), b"overtaken");
        assert!(overtaken.commit().is_err());
        assert_eq!(segments(dir.path()).unwrap(), first);
        second.commit().unwrap();
        replica.close().unwrap();
        assert_eq!(segments(dir.path()).unwrap(), [b"second"]);
        assert_eq!(replica.manifest().unwrap().unwrap().count(), 1);
    }

    #[test]
    fn b11_torn_or_damaged_files_are_refused_and_nothing_of_a_claimed_size_is_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(dir.path());
        let mut spool = replica.new_manifest().unwrap();
        for segment in [&[1; 100][..], &[2; 200]] {
            spool.append(segment).unwrap();
        }
        spool.commit().unwrap();
        let file = dir.path().join(".sealift/manifest");
        let whole = fs::read(&file).unwrap();
        assert_eq!(&whole[..12], b"SLMF\x01\0\0\0\x64\0\0\0");
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).unwrap();
            match ManifestReader::open(dir.path()) {
                Err(error) => {
                    assert!(cut < HEADER_BYTES);
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                }
                Ok(reader) => {
                    let found: Vec<_> = reader.unwrap().collect();
                    let right = found.iter().take_while(|segment| segment.is_ok()).count();
                    // An end between segments is for the manifest's own End to find.
                    let between = cut == HEADER_BYTES || cut == HEADER_BYTES + 104;
                    assert_eq!(right, usize::from(cut >= HEADER_BYTES + 104), "{cut}");
                    assert_eq!(found.len(), right + usize::from(!between), "it ends after an error");
                }
            }
        }
        for length in [0, 1 + u32::try_from(SEGMENT_BYTES_MAX).unwrap(), u32::MAX] {
            let mut bytes = whole.clone();
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            fs::write(&file, &bytes).unwrap();
            let mut reader = ManifestReader::open(dir.path()).unwrap().unwrap();
            assert_eq!(reader.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert!(reader.next().is_none());
        }
        for (at, byte) in [(0, b'X'), (4, 2), (7, 1)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            fs::write(&file, &bytes).unwrap();
            assert!(ManifestReader::open(dir.path()).is_err());
        }
        fs::rename(&file, dir.path().join("elsewhere")).unwrap();
        symlink("../elsewhere", &file).unwrap();
        assert!(ManifestReader::open(dir.path()).is_err(), "links are not followed");
    }
}
