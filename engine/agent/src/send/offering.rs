//! What a sender offers: files as they are, or sealed.
//!
//! Of a sealed job nobody behind this sees a name or content of the source: files are as long as their sealed form, and what
//! is read of them is ciphertext. All that has no content of its own (directories, links) is sealed as well, and kept in an
//! unlinked file. Which versions of a file there are is told by the inode, as everywhere, and by the head of its sealed form:
//! what is in that can change while the inode does not, as the name of an owner, or what is asked to be preserved.

use super::carried::Carried;
use crate::report::Reporter;
use crate::seal::SourceSeal;
use crypto_simd::blake3;
use sealift_proto::block::{BlockIndex, BlockSize, Layout};
use sealift_proto::manifest::sealed::{self, SealedHead, SealedName};
use sealift_proto::manifest::{Metadata, Mode, Record};
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp;
use sealift_store::{EntryKind, FileStat, PoolBuf, SmallFailure, SmallRead, SmallReadOk, Source, read_small};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
pub struct Offering {
    source: Source,
    sealing: Option<Sealing>,
}

/// How a source is sealed.
struct Sealing {
    seal: Arc<SourceSeal>,
    carried: Arc<Carried>,
    reporter: Arc<Reporter>,
    /// Sealed entries without content, one after the other, and where the next goes.
    spool: Arc<File>,
    spooled: Mutex<u64>,
}

/// An offered file that is open.
#[derive(Clone)]
pub struct OfferedFile {
    file: Arc<File>,
    sealed: Option<Arc<SealedFile>>,
}

/// What a file's sealed form has beside its content.
struct SealedFile {
    seal: Arc<SourceSeal>,
    name: SealedName,
    head: Vec<u8>,
    mark: HeadMark,
    content_bytes: u64,
}

/// What a head makes of a file's version: its length, and a time in the place of the mtime, which is in the head.
#[derive(Clone, Copy)]
struct HeadMark {
    bytes: usize,
    time: sealift_store::Timestamp,
}

impl HeadMark {
    fn of(head: &[u8]) -> Self {
        let hash = blake3::hash(head);
        let [seconds, nanos] = [0, 8].map(|at| {
            let part: [u8; 8] = std::array::from_fn(|byte| hash[at + byte]);
            u64::from_le_bytes(part)
        });
        let nanos = u32::try_from(nanos % 1_000_000_000).expect("below a billion");
        Self { bytes: head.len(), time: sealift_store::Timestamp { seconds: seconds.cast_signed(), nanos } }
    }
}

impl Offering {
    /// A source that is offered as it is.
    pub fn plain(source: Source) -> Self {
        Self { source, sealing: None }
    }

    /// A source that is sealed.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn sealed(
        source: Source,
        seal: Arc<SourceSeal>,
        carried: Arc<Carried>,
        reporter: Arc<Reporter>,
    ) -> io::Result<Self> {
        let spool = Arc::new(tempfile::tempfile()?);
        let sealing = Sealing { seal, carried, reporter, spool, spooled: Mutex::new(0) };
        Ok(Self { source, sealing: Some(sealing) })
    }

    /// What the user named.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How it is sealed, if it is.
    pub fn seal(&self) -> Option<&Arc<SourceSeal>> {
        self.sealing.as_ref().map(|sealing| &sealing.seal)
    }

    /// The name under which an entry is offered.
    pub fn name(&self, path: &SafePath) -> SafePath {
        match &self.sealing {
            None => path.clone(),
            Some(sealing) => sealing.seal.name(path.as_bytes()).path(),
        }
    }

    /// What is said to everybody of what has been found and is not offered.
    pub fn shown(&self, path: Vec<u8>) -> Vec<u8> {
        if self.sealing.is_some() { Vec::new() } else { path }
    }

    /// A file's metadata as everybody may see it, of what it has.
    pub fn metadata(&self, of: impl FnOnce() -> Metadata) -> Metadata {
        match self.sealing {
            None => of(),
            Some(_) => public_metadata(0o600),
        }
    }

    /// A file that the walk found, as it is offered. Blocks.
    ///
    /// # Errors
    /// As [`Self::open_file`], if the file has to be looked at.
    pub fn found(&self, path: &SafePath, stat: FileStat) -> FileStat {
        match &self.sealing {
            None => stat,
            Some(sealing) => {
                let head = sealing.head_of(&self.source, path, &stat, Telling::Yes);
                sealed_stat(HeadMark::of(&head), stat)
            }
        }
    }

    /// Opens an offered file, and tells its version. Blocks.
    ///
    /// # Errors
    /// As [`Source::open_file`].
    pub fn open_file(&self, path: &SafePath) -> io::Result<(OfferedFile, FileStat)> {
        let (file, stat) = self.source.open_file(path)?;
        let file = Arc::new(file);
        let Some(sealing) = &self.sealing else { return Ok((OfferedFile { file, sealed: None }, stat)) };
        let head = sealing.head_of(&self.source, path, &stat, Telling::No);
        let sealed = SealedFile {
            seal: Arc::clone(&sealing.seal),
            name: sealing.seal.name(path.as_bytes()),
            content_bytes: stat.size_bytes,
            mark: HeadMark::of(&head),
            head,
        };
        let stat = sealed_stat(sealed.mark, stat);
        Ok((OfferedFile { file, sealed: Some(Arc::new(sealed)) }, stat))
    }

    /// Reads small files whole, back to back, as they are offered: result `i` is that of `wanted[i]`. Blocks.
    ///
    /// # Errors
    /// For each file: see [`SmallFailure`].
    pub fn read_small(
        &self,
        wanted: &[SmallRead],
        buf: &mut PoolBuf,
    ) -> Vec<Result<SmallReadOk, SmallFailure>> {
        if self.sealing.is_none() {
            return read_small(&self.source, wanted, 0, buf);
        }
        wanted.iter().map(|wanted| self.read_small_sealed(&wanted.path, buf)).collect()
    }

    fn read_small_sealed(&self, path: &SafePath, buf: &mut PoolBuf) -> Result<SmallReadOk, SmallFailure> {
        let (opened, stat) = self.open_file(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SmallFailure::NotRegular,
            _ => SmallFailure::Io(error),
        })?;
        if stat.size_bytes > BlockSize::MIN.bytes() {
            return Err(SmallFailure::TooLarge);
        }
        let bytes = usize::try_from(stat.size_bytes).map_err(|_| SmallFailure::TooLarge)?;
        if buf.spare_bytes() < bytes {
            return Err(SmallFailure::NoRoom);
        }
        let start = buf.len();
        let layout = opened.layout(&stat).ok_or(SmallFailure::TooLarge)?;
        let blocks = buf.spare_mut(bytes);
        opened.read_sealed(layout, BlockIndex(0), blocks).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SmallFailure::Changed,
            _ => SmallFailure::Io(error),
        })?;
        if !opened.stat()?.same_version(&stat) {
            return Err(SmallFailure::Changed);
        }
        buf.advance(bytes);
        Ok(SmallReadOk { content: start..start + bytes, stat })
    }

    /// Seals an entry without content, and keeps it: its name, its bytes, and where they are.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn seal_entry(&self, head: &SealedHead) -> io::Result<SpooledEntry> {
        let sealing = self.sealing.as_ref().ok_or_else(|| io::Error::other("nothing is sealed here"))?;
        let name = match &head.entry {
            Record::Root(_) => sealing.seal.name(b""),
            Record::Directory { path, .. }
            | Record::File { path, .. }
            | Record::Symlink { path, .. }
            | Record::Hardlink { path, .. } => sealing.seal.name(path.as_bytes()),
            _ => return Err(io::Error::other("this is no entry")),
        };
        let plain = head.encode();
        let layout = sealed::layout(plain.len() as u64).ok_or_else(|| io::Error::other("too large"))?;
        let mut bytes = vec![0; usize::try_from(layout.size_bytes()).map_err(io::Error::other)?];
        let copy = |at: u64, into: &mut [u8]| {
            let at = usize::try_from(at).expect("within what is in memory");
            into.copy_from_slice(&plain[at..at + into.len()]);
            Ok(())
        };
        seal_blocks(&sealing.seal, name, layout, BlockIndex(0), &mut bytes, copy)?;
        let place = sealing.keep(&bytes)?;
        Ok(SpooledEntry { path: name.path(), layout, bytes, place })
    }

    /// Keeps the wrapped data key where receivers find it.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn keys_entry(&self) -> io::Result<Option<SpooledEntry>> {
        let Some(sealing) = &self.sealing else { return Ok(None) };
        let bytes = sealing.seal.envelope().to_vec();
        let layout = Layout::new(bytes.len() as u64, BlockSize::MIN).expect("a small file");
        let place = sealing.keep(&bytes)?;
        let path = SafePath::parse(sealed::KEYS_PATH.as_bytes()).expect("a plain name");
        Ok(Some(SpooledEntry { path, layout, bytes, place }))
    }

    /// Where entries without content are kept.
    pub fn spool(&self) -> Option<Arc<File>> {
        self.sealing.as_ref().map(|sealing| Arc::clone(&sealing.spool))
    }
}

/// A sealed entry without content.
pub struct SpooledEntry {
    /// Where it is offered.
    pub path: SafePath,
    /// Its size and blocks.
    pub layout: Layout,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where it is kept.
    pub place: u64,
}

/// Whether what cannot be carried is told: once for each file, however often it is opened.
#[derive(Clone, Copy)]
enum Telling {
    Yes,
    No,
}

impl Sealing {
    fn head_of(&self, source: &Source, path: &SafePath, stat: &FileStat, telling: Telling) -> Vec<u8> {
        let attributes = match telling {
            Telling::Yes => self.carried.read(source, Some(path), EntryKind::File, &self.reporter),
            Telling::No => self.carried.read_again(source, path, EntryKind::File),
        };
        let time = stat.mtime.clamped();
        let metadata = Metadata {
            mode: Mode::from_bits(stat.mode),
            mtime: Timestamp::clamped(time.seconds, time.nanos),
        };
        // Too large a file is found out where its sealed layout is made.
        let size = stat.size_bytes;
        let layout = Layout::new(size, BlockSize::for_file(size))
            .unwrap_or_else(|| Layout::new(0, BlockSize::MIN).expect("nothing is small"));
        let entry = Record::File { id: SealedHead::ID, path: path.clone(), metadata, layout };
        SealedHead { entry, attributes: attributes.map(|attributes| *attributes) }.encode()
    }

    fn keep(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut spooled = self.spooled.lock().unwrap_or_else(PoisonError::into_inner);
        let place = *spooled;
        self.spool.write_all_at(bytes, place)?;
        *spooled += bytes.len() as u64;
        Ok(place)
    }
}

impl OfferedFile {
    /// The file itself, unless it is sealed.
    pub fn plain(&self) -> Option<&Arc<File>> {
        self.sealed.is_none().then_some(&self.file)
    }

    /// The file, to ask where it has holes.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its version now.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn stat(&self) -> io::Result<FileStat> {
        let stat = FileStat::of(&self.file)?;
        Ok(match &self.sealed {
            None => stat,
            Some(sealed) => sealed_stat(sealed.mark, stat),
        })
    }

    /// How a version of it is cut; `None` if it is larger than a file may be.
    pub fn layout(&self, stat: &FileStat) -> Option<Layout> {
        match &self.sealed {
            None => Layout::new(stat.size_bytes, BlockSize::for_file(stat.size_bytes)),
            Some(sealed) => {
                let of = sealed::layout(sealed.content_bytes.checked_add(sealed.head.len() as u64)?)?;
                (of.size_bytes() == stat.size_bytes).then_some(of)
            }
        }
    }

    /// Fills `blocks` with the sealed blocks from `first` on. Blocks.
    ///
    /// # Errors
    /// What reading the file meets.
    pub fn read_sealed(&self, layout: Layout, first: BlockIndex, blocks: &mut [u8]) -> io::Result<()> {
        let sealed = self.sealed.as_ref().ok_or_else(|| io::Error::other("this file is not sealed"))?;
        let head = sealed.head.len() as u64;
        let read = |at: u64, into: &mut [u8]| {
            let of_head = usize::try_from(head.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
            let (from_head, from_file) = into.split_at_mut(of_head);
            if of_head > 0 {
                let at = usize::try_from(at).expect("within the head");
                from_head.copy_from_slice(&sealed.head[at..at + of_head]);
            }
            match from_file.is_empty() {
                true => Ok(()),
                false => self.file.read_exact_at(from_file, (at + of_head as u64) - head),
            }
        };
        seal_blocks(&sealed.seal, sealed.name, layout, first, blocks, read)
    }
}

/// Fills a run's blocks by `read` (which gets a place in the plaintext) and seals each in its place.
fn seal_blocks(
    seal: &SourceSeal,
    name: SealedName,
    layout: Layout,
    first: BlockIndex,
    run: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let block_bytes = usize::try_from(layout.block_size().bytes()).expect("at most 16 MiB");
    for (index, block) in (first.0..).zip(run.chunks_mut(block_bytes)) {
        let plain = sealed::plain_range(layout, BlockIndex(index));
        read(plain.start, SourceSeal::plain_part(block))?;
        seal.seal_block(name, BlockIndex(index), index + 1 == layout.blocks(), block);
    }
    Ok(())
}

/// A version as it is offered: as long as its sealed form. One that is too large for any is of a size that no file has.
fn sealed_stat(head: HeadMark, stat: FileStat) -> FileStat {
    let plain = stat.size_bytes.checked_add(head.bytes as u64);
    let size_bytes = plain.and_then(sealed::layout).map_or(u64::MAX, Layout::size_bytes);
    FileStat { size_bytes, mtime: head.time, ..stat }
}

/// What everybody sees of a sealed entry's metadata: nothing of its own.
pub fn public_metadata(mode: u32) -> Metadata {
    Metadata { mode: Mode::from_bits(mode), mtime: Timestamp::clamped(0, 0) }
}
