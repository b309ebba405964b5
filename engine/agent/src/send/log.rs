//! The sender's manifest as it grows, kept in an unlinked spool file so that memory does not grow with it.
//!
//! Owns the spool of signed segments, from which every receiver is served from any point on, and the table of offered
//! files, by number, from which their blocks are served. A file costs 4 bytes of memory, a segment 8. No segment comes
//! into it whose number could be used again by a later run of the job.

use crate::state::Chain;
use sealift_proto::block::{BlockSize, FileId, Layout};
use sealift_proto::limits::PATH_BYTES_MAX;
use sealift_proto::manifest::{SegmentHash, SegmentSeq};
use sealift_proto::path::SafePath;
use sealift_store::{FileStat, Timestamp};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Signed segments of this run, in order.
pub struct ManifestLog {
    spool: File,
    /// The job's chain, unless its keys are of this run alone.
    chain: Option<Chain>,
    first: SegmentSeq,
    ends: Mutex<Vec<u64>>,
    next: watch::Sender<SegmentSeq>,
}

impl ManifestLog {
    /// An empty log, of a chain that is gone on with or of one that begins.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn new(chain: Option<Chain>) -> io::Result<Self> {
        let first = chain.as_ref().map_or(SegmentSeq(0), |chain| chain.begins_at().0);
        let spool = tempfile::tempfile()?;
        Ok(Self { spool, chain, first, ends: Mutex::default(), next: watch::Sender::new(first) })
    }

    /// An empty log of another's snapshot that begins there: what is appended is of that one's making.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn of_another(first: SegmentSeq) -> io::Result<Self> {
        let next = watch::Sender::new(first);
        Ok(Self { spool: tempfile::tempfile()?, chain: None, first, ends: Mutex::default(), next })
    }

    /// Where this run's snapshot begins.
    pub fn first(&self) -> SegmentSeq {
        self.first
    }

    /// Appends the next segment and tells those who wait for it.
    ///
    /// # Errors
    /// If the spool cannot be written, or the number not be made sure of.
    pub fn append(&self, sequence: SegmentSeq, hash: SegmentHash, segment: &[u8]) -> io::Result<()> {
        if let Some(chain) = &self.chain {
            chain.take(sequence, hash)?;
        }
        let mut ends = lock(&self.ends);
        let start = ends.last().copied().unwrap_or(0);
        self.spool.write_all_at(segment, start)?;
        ends.push(start + segment.len() as u64);
        self.next.send_replace(SegmentSeq(self.first.0 + ends.len() as u64));
        Ok(())
    }

    /// Reads a segment; `None` if it does not exist (yet).
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn segment(&self, sequence: SegmentSeq) -> io::Result<Option<Vec<u8>>> {
        let (start, end) = {
            let ends = lock(&self.ends);
            let index = sequence.0.checked_sub(self.first.0).and_then(|index| usize::try_from(index).ok());
            let Some(index) = index.filter(|&index| index < ends.len()) else { return Ok(None) };
            (index.checked_sub(1).map_or(0, |before| ends[before]), ends[index])
        };
        let mut segment = vec![0; usize::try_from(end - start).expect("segments are at most 1 MiB")];
        self.spool.read_exact_at(&mut segment, start)?;
        Ok(Some(segment))
    }

    /// Where a receiver that wants this segment is served from: there, or from this run's snapshot if it is not of
    /// this run. The receiver sees by the first segment's flag that it is a snapshot.
    pub fn serve_from(&self, wanted: SegmentSeq) -> SegmentSeq {
        if (self.first..=*self.next.borrow()).contains(&wanted) { wanted } else { self.first }
    }

    /// Tells the number of the segment that comes next, now and whenever it grows.
    pub fn watch(&self) -> watch::Receiver<SegmentSeq> {
        self.next.subscribe()
    }

    /// The end of this run: nothing is appended from now on, and the next run goes on with the very next number.
    ///
    /// # Errors
    /// If that cannot be kept. The next run then leaves numbers out.
    pub fn close(&self) -> io::Result<()> {
        self.chain.as_ref().map_or(Ok(()), Chain::close)
    }
}

/// A file as it was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Where it is in the source.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// The version that was hashed.
    pub stat: FileStat,
    /// Whether it was hashed by an earlier run and not read by this one.
    pub reused: bool,
    /// Where it is kept, if it is not a file of the source but a sealed entry without content.
    pub spooled: Option<u64>,
}

/// Offered files by number.
pub struct OfferedFiles {
    spool: File,
    table: Mutex<Table>,
}

struct Table {
    /// All but the last have [`PAGE_NUMBERS`] numbers.
    pages: Vec<Page>,
    /// What was written to the spool.
    written: u64,
    /// What comes after it.
    unwritten: Vec<u8>,
    files: u64,
    bytes: u64,
}

/// Some numbers that follow each other.
struct Page {
    /// Where the files of these numbers begin.
    begins: u64,
    /// Where each is from there, or [`NOT_A_FILE`].
    places: Vec<u32>,
}

/// Numbers of a page: the files of one take less than 4 GiB, since each takes at most 4096 bytes and some.
const PAGE_NUMBERS: usize = 1 << 14;
const NOT_A_FILE: u32 = u32::MAX;
/// Bytes that are gathered before they are written.
const UNWRITTEN_BYTES_MAX: usize = 256 << 10;

/// Size, seconds and nanoseconds of mtime and ctime, inode, device, mode, links, block size, whether it was reused,
/// where it is kept, bytes in the path.
const FIXED_BYTES: usize = 8 + 2 * (8 + 4) + 8 + 8 + 4 + 8 + 1 + 1 + 8 + 2;
/// Kept nowhere: a file of the source.
const NOT_SPOOLED: u64 = u64::MAX;

const _: () = assert!((FIXED_BYTES + PATH_BYTES_MAX) * PAGE_NUMBERS < NOT_A_FILE as usize);

impl OfferedFiles {
    /// An empty table.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn new() -> io::Result<Self> {
        let unwritten = Vec::with_capacity(UNWRITTEN_BYTES_MAX + FIXED_BYTES + PATH_BYTES_MAX);
        let table = Table { pages: Vec::new(), written: 0, unwritten, files: 0, bytes: 0 };
        Ok(Self { spool: tempfile::tempfile()?, table: Mutex::new(table) })
    }

    /// Adds the next number: an entry without content.
    pub fn push_other(&self) {
        lock(&self.table).number(false);
    }

    /// Adds the next number: a file.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn push(&self, offered: &Offered) -> io::Result<()> {
        let Offered { path, layout, stat, reused, spooled } = offered;
        let mut table = lock(&self.table);
        let table = &mut *table;
        table.number(true);
        let out = &mut table.unwritten;
        out.extend_from_slice(&layout.size_bytes().to_le_bytes());
        for time in [stat.mtime, stat.ctime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanos.to_le_bytes());
        }
        out.extend_from_slice(&stat.inode.to_le_bytes());
        out.extend_from_slice(&stat.device.to_le_bytes());
        out.extend_from_slice(&stat.mode.to_le_bytes());
        out.extend_from_slice(&stat.links.to_le_bytes());
        out.push(layout.block_size().log2());
        out.push((*reused).into());
        out.extend_from_slice(&spooled.unwrap_or(NOT_SPOOLED).to_le_bytes());
        let path = path.as_bytes();
        out.extend_from_slice(&u16::try_from(path.len()).expect("at most 4096").to_le_bytes());
        out.extend_from_slice(path);
        table.files += 1;
        table.bytes += layout.size_bytes();
        if table.unwritten.len() >= UNWRITTEN_BYTES_MAX {
            self.spool.write_all_at(&table.unwritten, table.written)?;
            table.written += table.unwritten.len() as u64;
            table.unwritten.clear();
        }
        Ok(())
    }

    /// The file of a number; `None` if there is none with content.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn get(&self, id: FileId) -> io::Result<Option<Offered>> {
        let mut buffer = [0; FIXED_BYTES + PATH_BYTES_MAX];
        let (place, written) = {
            let table = lock(&self.table);
            let index = usize::try_from(id.0).unwrap_or(usize::MAX);
            let page = table.pages.get(index / PAGE_NUMBERS);
            let place = page.and_then(|page| {
                let place = page.places.get(index % PAGE_NUMBERS).filter(|&&place| place != NOT_A_FILE)?;
                Some(page.begins + u64::from(*place))
            });
            let Some(place) = place else { return Ok(None) };
            if let Some(at) = place.checked_sub(table.written) {
                // A file is in the spool or in what comes after it, never in both.
                let at = usize::try_from(at).map_err(io::Error::other)?;
                return parse(&table.unwritten[at..]).map(Some);
            }
            (place, table.written)
        };
        let bytes = buffer.len().min(usize::try_from(written - place).unwrap_or(buffer.len()));
        self.spool.read_exact_at(&mut buffer[..bytes], place)?;
        parse(&buffer[..bytes]).map(Some)
    }

    /// Files that were ever offered.
    pub fn count(&self) -> u64 {
        lock(&self.table).files
    }

    /// Bytes of all files that were ever offered.
    pub fn total_bytes(&self) -> u64 {
        lock(&self.table).bytes
    }
}

impl Table {
    /// Takes the next number, of a file that is written next or of something else.
    fn number(&mut self, is_file: bool) {
        let end = self.written + self.unwritten.len() as u64;
        if self.pages.last().is_none_or(|page| page.places.len() == PAGE_NUMBERS) {
            self.pages.push(Page { begins: end, places: Vec::with_capacity(PAGE_NUMBERS) });
        }
        let page = self.pages.last_mut().expect("just made sure");
        page.places.push(match is_file {
            true => u32::try_from(end - page.begins).expect("less than 4 GiB a page"),
            false => NOT_A_FILE,
        });
    }
}

/// What [`OfferedFiles::push`] wrote, whatever follows it.
fn parse(bytes: &[u8]) -> io::Result<Offered> {
    let damaged = || io::Error::other("the spool of offered files is damaged");
    let mut rest = bytes;
    let size = u64::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let mut time = || {
        let seconds = i64::from_le_bytes(take(&mut rest)?);
        Some(Timestamp { seconds, nanos: u32::from_le_bytes(take(&mut rest)?) })
    };
    let (mtime, ctime) = time().zip(time()).ok_or_else(damaged)?;
    let inode = u64::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let device = u64::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let mode = u32::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let links = u64::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let [log2, reused] = take(&mut rest).ok_or_else(damaged)?;
    let spooled = u64::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let path_len = u16::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    let path = rest.get(..path_len.into()).and_then(|path| SafePath::parse(path).ok());
    let layout = BlockSize::from_log2(log2).and_then(|block_size| Layout::new(size, block_size));
    Ok(Offered {
        path: path.ok_or_else(damaged)?,
        layout: layout.ok_or_else(damaged)?,
        stat: FileStat { size_bytes: size, mtime, ctime, inode, device, mode, links },
        reused: reused != 0,
        spooled: (spooled != NOT_SPOOLED).then_some(spooled),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left it torn: what others look at is stored last.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    const HASH: SegmentHash = SegmentHash::NONE;

    #[test]
    fn segments_come_back_in_order() {
        let log = ManifestLog::new(None).unwrap();
        log.append(SegmentSeq(0), HASH, b"first").unwrap();
        log.append(SegmentSeq(1), HASH, b"second one").unwrap();
        assert_eq!(log.segment(SegmentSeq(0)).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(log.segment(SegmentSeq(1)).unwrap().as_deref(), Some(&b"second one"[..]));
        assert_eq!(log.segment(SegmentSeq(2)).unwrap(), None);
        assert_eq!(log.segment(SegmentSeq(u64::MAX)).unwrap(), None);
        assert_eq!(*log.watch().borrow(), SegmentSeq(2));
    }

    #[test]
    fn whoever_asks_for_what_is_not_of_this_run_is_served_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().into())).unwrap();
        let open = || ManifestLog::new(Some(state.job(&"j".parse().unwrap()).unwrap().chain)).unwrap();
        let log = open();
        for sequence in 0..5 {
            log.append(SegmentSeq(sequence), HASH, b"x").unwrap();
        }
        log.close().unwrap();
        assert!(log.append(SegmentSeq(5), HASH, b"x").is_err(), "the next run may have that number");
        drop(log);
        let log = open();
        assert_eq!(*log.watch().borrow(), SegmentSeq(5));
        log.append(SegmentSeq(5), HASH, b"five").unwrap();
        log.append(SegmentSeq(6), HASH, b"six").unwrap();
        for (wanted, from) in [(0, 5), (4, 5), (5, 5), (6, 6), (7, 7), (8, 5), (u64::MAX, 5)] {
            assert_eq!(log.serve_from(SegmentSeq(wanted)), SegmentSeq(from), "{wanted}");
        }
        assert_eq!(log.segment(SegmentSeq(4)).unwrap(), None);
        assert_eq!(log.segment(SegmentSeq(6)).unwrap().as_deref(), Some(&b"six"[..]));
    }

    #[test]
    fn offered_files_come_back_whole() {
        let files = OfferedFiles::new().unwrap();
        let offered = |number: u64| Offered {
            path: SafePath::parse(&[b"a/\xff", number.to_string().as_bytes()].concat()).unwrap(),
            layout: Layout::new(100_000 + number, BlockSize::MIN).unwrap(),
            stat: FileStat {
                size_bytes: 100_000 + number,
                mtime: Timestamp { seconds: -5, nanos: 7 },
                ctime: Timestamp { seconds: 9, nanos: 999_999_999 },
                inode: u64::MAX,
                device: 3,
                mode: 0o4755,
                links: 2,
            },
            reused: number.is_multiple_of(2),
            spooled: number.is_multiple_of(5).then_some(number),
        };
        // Past the edges of pages and of what is written at a time; every third is no file.
        let numbers = 2 * PAGE_NUMBERS as u64 + 10;
        for number in 0..numbers {
            if number.is_multiple_of(3) {
                files.push_other();
            } else {
                files.push(&offered(number)).unwrap();
            }
        }
        let edges = [0, PAGE_NUMBERS as u64, numbers].map(|edge| edge.saturating_sub(9)..edge + 9);
        for number in edges.into_iter().flatten().chain((0..numbers).step_by(997)) {
            let is_file = number < numbers && !number.is_multiple_of(3);
            let back = files.get(FileId(number)).unwrap();
            assert_eq!(back, is_file.then(|| offered(number)), "{number}");
        }
        assert!(files.get(FileId(u64::MAX)).unwrap().is_none());
        assert_eq!(files.count(), numbers - numbers.div_ceil(3));
    }
}
