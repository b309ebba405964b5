//! The file beneath redb: blocks with a checksum each, kept apart from them, and a head that says what the file is.
//!
//! redb trusts the pages it reads; a flipped bit in one can make it panic, loop or ask for terabytes. So it never sees
//! one: a block that is not what was last written there is an error of the disk to it. The layout is in `docs/index.md`.
//!
//! Power cuts: redb commits in two phases (`file` asks for that), so that a block which a durable header reaches was
//! synced, and its checksum with it, before that header was written. Others may be torn, and are not read. The head is
//! one sector, which a disk writes as a whole or not at all; the checksums of blocks already durable are rewritten
//! unchanged along with new ones.
//!
//! Never: interprets what redb writes, or repairs.

use crate::faults::{self, Op};
use redb::StorageBackend;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes in a block: a page of redb.
const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
/// Checksums in a block, and so blocks in the group that follows it.
const GROUP: usize = BLOCK / 8;
const GROUP_BLOCKS: u64 = GROUP as u64;
/// Bytes in the part of the head that is used: one sector.
const HEAD_BYTES: usize = 512;
/// Bytes of redb's own header, which the head has room for.
const REDB_HEADER_BYTES: usize = 320;

const MAGIC: [u8; 8] = *b"\x89SLINDX\n";
/// Where the parts of a head are. The first four never move, in no version.
const VERSION_AT: Range<usize> = 8..10;
const KIND_AT: usize = 10;
const ALGORITHM_AT: usize = 11;
const PREFIX_CHECK_AT: Range<usize> = 12..16;
const BYTES_AT: Range<usize> = 16..24;
const DAMAGED_AT: usize = 24;
const REDB_AT: Range<usize> = 32..32 + REDB_HEADER_BYTES;
const CHECK_AT: Range<usize> = HEAD_BYTES - 8..HEAD_BYTES;

/// What a file is for: its version, kind and hash algorithm (0: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purpose {
    pub(super) version: u16,
    pub(super) kind: u8,
    pub(super) algorithm: u8,
}

/// The file, or what stands in for it in tests.
pub(super) trait Disk: Send + Sync {
    /// Fills `out`; [`ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        faults::read_exact_at(self, out, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        faults::write_all_at(self, data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        faults::guard(Op::Allocate, || Self::set_len(self, len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        faults::guard(Op::Sync, || self.sync_data())
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum HeadError {
    /// A later version made it.
    Newer(u16),
    /// It is whole, and for something else.
    Foreign,
    Damaged,
    Io(io::Error),
}

/// What the last failed operation on a file failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A block or a row is not what was written.
    Damaged,
    /// The disk said so.
    Disk { kind: ErrorKind, errno: Option<i32> },
}

/// What redb is told of a damaged block.
#[derive(Debug, thiserror::Error)]
#[error("a block is not what was written")]
struct DamagedBlock;

pub(super) struct BlockFile {
    disk: Arc<dyn Disk>,
    head: Mutex<Head>,
    /// By group; `None` until it is first needed.
    sums: RwLock<Vec<Option<Group>>>,
    fault: Mutex<Option<Fault>>,
    /// Nothing is read or written any more.
    dead: AtomicBool,
}

struct Head {
    purpose: Purpose,
    redb: [u8; REDB_HEADER_BYTES],
    damaged: bool,
    /// Bytes that redb has, its header's page included.
    bytes: u64,
    /// What of that may be written in the head: growth only once the longer file is synced.
    stable: u64,
    /// What the head says on disk, and what it is known to say after a power cut.
    written: u64,
    durable: u64,
}

struct Group {
    sums: Box<[u64; GROUP]>,
    dirty: bool,
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..MAGIC.len()].copy_from_slice(&MAGIC);
        out[VERSION_AT].copy_from_slice(&self.purpose.version.to_le_bytes());
        out[KIND_AT] = self.purpose.kind;
        out[ALGORITHM_AT] = self.purpose.algorithm;
        let check = digest(&out[..PREFIX_CHECK_AT.start]).to_le_bytes();
        out[PREFIX_CHECK_AT].copy_from_slice(&check[..4]);
        out[BYTES_AT].copy_from_slice(&self.stable.to_le_bytes());
        out[DAMAGED_AT] = self.damaged.into();
        out[REDB_AT].copy_from_slice(&self.redb);
        let check = digest(&out[..CHECK_AT.start]).to_le_bytes();
        out[CHECK_AT].copy_from_slice(&check);
        out
    }

    fn decode(bytes: &[u8; HEAD_BYTES], purpose: Purpose) -> Result<Self, HeadError> {
        let prefix_check = digest(&bytes[..PREFIX_CHECK_AT.start]).to_le_bytes();
        if bytes[..MAGIC.len()] != MAGIC || bytes[PREFIX_CHECK_AT] != prefix_check[..4] {
            return Err(HeadError::Damaged);
        }
        let version = u16::from_le_bytes([bytes[VERSION_AT.start], bytes[VERSION_AT.start + 1]]);
        if version > purpose.version {
            return Err(HeadError::Newer(version));
        }
        let found = Purpose { version, kind: bytes[KIND_AT], algorithm: bytes[ALGORITHM_AT] };
        if bytes[CHECK_AT] != digest(&bytes[..CHECK_AT.start]).to_le_bytes() || bytes[DAMAGED_AT] != 0 {
            return Err(HeadError::Damaged);
        }
        if found != purpose {
            return Err(HeadError::Foreign);
        }
        let bytes_of = |at: Range<usize>| bytes[at].try_into().expect("eight bytes");
        let len = u64::from_le_bytes(bytes_of(BYTES_AT));
        let mut redb = [0; REDB_HEADER_BYTES];
        redb.copy_from_slice(&bytes[REDB_AT]);
        Ok(Self { purpose, redb, damaged: false, bytes: len, stable: len, written: len, durable: len })
    }
}

impl BlockFile {
    /// A new file on an empty disk. Nothing is written yet.
    pub(super) fn create(disk: Arc<dyn Disk>, purpose: Purpose) -> Self {
        let redb = [0; REDB_HEADER_BYTES];
        let head = Head { purpose, redb, damaged: false, bytes: 0, stable: 0, written: 0, durable: 0 };
        Self::with(disk, head)
    }

    /// What is on a disk. Writes nothing.
    pub(super) fn open(disk: Arc<dyn Disk>, purpose: Purpose) -> Result<Self, HeadError> {
        let mut bytes = [0; HEAD_BYTES];
        match disk.read_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(HeadError::Damaged),
            Err(error) => return Err(HeadError::Io(error)),
        }
        let head = Head::decode(&bytes, purpose)?;
        if disk.len().map_err(HeadError::Io)? < disk_bytes(head.bytes) {
            return Err(HeadError::Damaged);
        }
        Ok(Self::with(disk, head))
    }

    fn with(disk: Arc<dyn Disk>, head: Head) -> Self {
        Self {
            disk,
            head: Mutex::new(head),
            sums: RwLock::default(),
            fault: Mutex::default(),
            dead: AtomicBool::new(false),
        }
    }

    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// Why the last operation failed, if one did.
    pub(super) fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Nothing is read or written from now on.
    pub(super) fn end(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// The file is damaged: nothing is read or written from now on, and the next opening is told.
    pub(super) fn condemn(&self) {
        self.set_fault(Fault::Damaged);
        if !self.dead.swap(true, Ordering::AcqRel) {
            let mut head = self.head();
            head.damaged = true;
            // If this fails, the damage is still there to be found.
            let _ = self.disk.write_at(&head.encode(), 0);
        }
    }

    fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        // Whole numbers and arrays, each set at once.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sums(&self) -> RwLockReadGuard<'_, Vec<Option<Group>>> {
        self.sums.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sums_mut(&self) -> RwLockWriteGuard<'_, Vec<Option<Group>>> {
        self.sums.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers why an operation failed, and makes it an error that redb passes on.
    fn noted<T>(&self, result: Result<T, HeadError>) -> io::Result<T> {
        let (fault, error) = match result {
            Ok(value) => return Ok(value),
            Err(HeadError::Io(error)) => {
                (Fault::Disk { kind: error.kind(), errno: error.raw_os_error() }, error)
            }
            Err(HeadError::Damaged | HeadError::Newer(_) | HeadError::Foreign) => {
                (Fault::Damaged, io::Error::new(ErrorKind::InvalidData, DamagedBlock))
            }
        };
        self.set_fault(fault);
        Err(error)
    }

    fn alive(&self) -> Result<(), HeadError> {
        if self.is_dead() { Err(HeadError::Io(io::Error::other("the file is closed"))) } else { Ok(()) }
    }

    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> Result<(), HeadError> {
        self.alive()?;
        let end = offset.checked_add(out.len() as u64).ok_or(HeadError::Damaged)?;
        {
            let head = self.head();
            // redb asks for what is not there only if something led it astray.
            if end > head.bytes {
                return Err(HeadError::Damaged);
            }
            if offset < BLOCK_BYTES {
                let range = in_header(offset, out.len()).ok_or_else(misplaced)?;
                out.copy_from_slice(&head.redb[range]);
                return Ok(());
            }
        }
        let mut rest = out;
        for run in runs(offset, rest.len())? {
            let (now, later) = rest.split_at_mut(run.bytes());
            rest = later;
            self.disk.read_at(now, run.place()).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => HeadError::Damaged,
                _ => HeadError::Io(error),
            })?;
            let blocks = now.chunks_exact(BLOCK);
            for (slot, block) in (run.slot..).zip(blocks) {
                let sum = self.with_group(run.group, |group| group.sums[slot])?;
                if sum != sum_of(block) {
                    return Err(HeadError::Damaged);
                }
            }
        }
        Ok(())
    }

    /// Reads from a group's checksums, which are loaded when first needed.
    fn with_group<T>(&self, group: u64, take: impl Fn(&Group) -> T) -> Result<T, HeadError> {
        let index = usize::try_from(group).map_err(|_| HeadError::Damaged)?;
        if let Some(Some(group)) = self.sums().get(index) {
            return Ok(take(group));
        }
        let mut sums = self.sums_mut();
        self.load_group(&mut sums, index).map(|group| take(group))
    }

    fn load_group<'g>(
        &self,
        sums: &'g mut Vec<Option<Group>>,
        index: usize,
    ) -> Result<&'g mut Group, HeadError> {
        if sums.len() <= index {
            sums.resize_with(index + 1, || None);
        }
        let slot = &mut sums[index];
        if slot.is_none() {
            let mut bytes = [0; BLOCK];
            self.disk.read_at(&mut bytes, sums_place(index as u64)).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => HeadError::Damaged,
                _ => HeadError::Io(error),
            })?;
            let mut read = Box::new([0; GROUP]);
            for (sum, bytes) in read.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *sum = u64::from_le_bytes(*bytes);
            }
            *slot = Some(Group { sums: read, dirty: false });
        }
        Ok(slot.as_mut().expect("loaded above"))
    }

    fn write_blocks(&self, offset: u64, data: &[u8]) -> Result<(), HeadError> {
        self.alive()?;
        let end = offset.checked_add(data.len() as u64).ok_or_else(misplaced)?;
        {
            let mut head = self.head();
            if end > head.bytes {
                return Err(misplaced());
            }
            if offset < BLOCK_BYTES {
                let range = in_header(offset, data.len()).ok_or_else(misplaced)?;
                head.redb[range].copy_from_slice(data);
                self.disk.write_at(&head.encode(), 0).map_err(HeadError::Io)?;
                head.written = head.stable;
                return Ok(());
            }
        }
        let mut rest = data;
        for run in runs(offset, rest.len())? {
            let (now, later) = rest.split_at(run.bytes());
            rest = later;
            self.disk.write_at(now, run.place()).map_err(HeadError::Io)?;
            let written: Vec<u64> = now.chunks_exact(BLOCK).map(sum_of).collect();
            let index = usize::try_from(run.group).map_err(|_| misplaced())?;
            let mut sums = self.sums_mut();
            let group = self.load_group(&mut sums, index)?;
            group.sums[run.slot..run.slot + written.len()].copy_from_slice(&written);
            group.dirty = true;
        }
        Ok(())
    }

    fn resize(&self, bytes: u64) -> Result<(), HeadError> {
        self.alive()?;
        if !bytes.is_multiple_of(BLOCK_BYTES) || bytes == 0 {
            return Err(misplaced());
        }
        let mut head = self.head();
        if bytes >= head.bytes {
            let needed = disk_bytes(bytes);
            if self.disk.len().map_err(HeadError::Io)? < needed {
                self.disk.set_len(needed).map_err(HeadError::Io)?;
            }
        } else {
            // The file is cut when it is closed, after the head that says so is durable. What is left over counts as
            // never written.
            self.forget(bytes, head.bytes)?;
            head.stable = head.stable.min(bytes);
        }
        head.bytes = bytes;
        Ok(())
    }

    /// The blocks in this range of bytes count as never written.
    fn forget(&self, from: u64, to: u64) -> Result<(), HeadError> {
        let len = usize::try_from(to - from).map_err(|_| misplaced())?;
        let mut sums = self.sums_mut();
        for run in runs(from, len)? {
            let index = usize::try_from(run.group).map_err(|_| misplaced())?;
            let group = self.load_group(&mut sums, index)?;
            group.sums[run.slot..run.slot + run.blocks].fill(0);
            group.dirty = true;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), HeadError> {
        self.alive()?;
        let bytes = self.head().bytes;
        let dirty: Vec<(u64, Vec<u8>)> = (0..)
            .zip(self.sums_mut().iter_mut())
            .filter_map(|(index, group)| Some((index, group.as_mut().filter(|group| group.dirty)?)))
            .map(|(index, group)| {
                group.dirty = false;
                (index, group.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect())
            })
            .collect();
        for (group, sums) in dirty {
            self.disk.write_at(&sums, sums_place(group)).map_err(HeadError::Io)?;
        }
        self.disk.sync().map_err(HeadError::Io)?;
        let mut head = self.head();
        // Not what grew meanwhile.
        head.stable = bytes.min(head.bytes);
        head.durable = head.written;
        Ok(())
    }

    fn close(&self) {
        if self.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        let head = self.head();
        let needed = disk_bytes(head.durable);
        // Only space is lost if this fails.
        if head.durable == head.bytes && self.disk.len().is_ok_and(|len| len > needed) {
            let _ = self.disk.set_len(needed);
        }
    }
}

fn misplaced() -> HeadError {
    HeadError::Io(io::Error::new(ErrorKind::InvalidInput, "not at the bounds of blocks"))
}

/// The part of redb's header that is meant.
fn in_header(offset: u64, len: usize) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    (end <= REDB_HEADER_BYTES).then_some(start..end)
}

/// Blocks next to each other in one group.
struct Run {
    group: u64,
    slot: usize,
    blocks: usize,
}

impl Run {
    fn place(&self) -> u64 {
        sums_place(self.group) + (1 + self.slot as u64) * BLOCK_BYTES
    }

    fn bytes(&self) -> usize {
        self.blocks * BLOCK
    }
}

/// Where the checksums of a group are.
fn sums_place(group: u64) -> u64 {
    BLOCK_BYTES + group * (GROUP_BLOCKS + 1) * BLOCK_BYTES
}

/// The length of a file in which redb has so many bytes. Its header's page is in the head instead.
fn disk_bytes(bytes: u64) -> u64 {
    let blocks = (bytes / BLOCK_BYTES).saturating_sub(1);
    let groups = blocks.div_ceil(GROUP_BLOCKS);
    (1_u64.saturating_add(groups).saturating_add(blocks)).saturating_mul(BLOCK_BYTES)
}

/// The blocks of `len` bytes from `offset` of what redb sees, its header's page excepted.
fn runs(offset: u64, len: usize) -> Result<impl Iterator<Item = Run>, HeadError> {
    let len = len as u64;
    if offset < BLOCK_BYTES || !offset.is_multiple_of(BLOCK_BYTES) || !len.is_multiple_of(BLOCK_BYTES) {
        return Err(misplaced());
    }
    let mut next = offset / BLOCK_BYTES - 1;
    let end = next + len / BLOCK_BYTES;
    Ok(std::iter::from_fn(move || {
        let (group, slot) = (next / GROUP_BLOCKS, next % GROUP_BLOCKS);
        let blocks = (end - next).min(GROUP_BLOCKS - slot);
        next += blocks;
        let small = |number| usize::try_from(number).expect("at most a group");
        (blocks > 0).then(|| Run { group, slot: small(slot), blocks: small(blocks) })
    }))
}

/// The checksum of a block; never 0, which stands for a block that was never written.
fn sum_of(block: &[u8]) -> u64 {
    digest(block).max(1)
}

fn digest(data: &[u8]) -> u64 {
    let digest = *blake3::hash(data).as_bytes();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// What redb is given.
#[derive(Clone)]
pub(super) struct Backend(pub(super) Arc<BlockFile>);

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.head().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.noted(self.0.read_blocks(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.noted(self.0.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.noted(self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.noted(self.0.write_blocks(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.close();
        Ok(())
    }
}
