//! The sender's manifest as it grows, kept in an unlinked spool file so that memory does not grow with it.
//!
//! Owns the spool of signed segments, from which every receiver is served from any point on, and the table of offered
//! files, by number, from which their blocks are served. A file costs 8 bytes of memory, a segment 8.

use sealift_proto::block::{BlockSize, FileId, Layout};
use sealift_proto::manifest::SegmentSeq;
use sealift_proto::path::SafePath;
use sealift_store::{FileStat, Timestamp};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Signed segments, in order.
pub struct ManifestLog {
    spool: File,
    ends: Mutex<Vec<u64>>,
    count: watch::Sender<u64>,
}

impl ManifestLog {
    /// An empty log.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self { spool: tempfile::tempfile()?, ends: Mutex::default(), count: watch::Sender::new(0) })
    }

    /// Appends a segment and tells those who wait for it.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn append(&self, segment: &[u8]) -> io::Result<()> {
        let mut ends = lock(&self.ends);
        let start = ends.last().copied().unwrap_or(0);
        self.spool.write_all_at(segment, start)?;
        ends.push(start + segment.len() as u64);
        self.count.send_replace(ends.len() as u64);
        Ok(())
    }

    /// Reads a segment; `None` if it does not exist (yet).
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn segment(&self, sequence: SegmentSeq) -> io::Result<Option<Vec<u8>>> {
        let (start, end) = {
            let ends = lock(&self.ends);
            let Some(index) = usize::try_from(sequence.0).ok().filter(|&index| index < ends.len()) else {
                return Ok(None);
            };
            (index.checked_sub(1).map_or(0, |before| ends[before]), ends[index])
        };
        let mut segment = vec![0; usize::try_from(end - start).expect("segments are at most 1 MiB")];
        self.spool.read_exact_at(&mut segment, start)?;
        Ok(Some(segment))
    }

    /// Tells the number of segments, now and whenever it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// A file as it was offered.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Where it is in the source.
    pub path: SafePath,
    /// Size and blocks.
    pub layout: Layout,
    /// The version that was hashed.
    pub stat: FileStat,
}

/// Offered files by number.
pub struct OfferedFiles {
    spool: File,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Where in the spool a number's file is, or [`NOT_A_FILE`].
    places: Vec<u64>,
    end: u64,
    files: u64,
    bytes: u64,
}

const NOT_A_FILE: u64 = u64::MAX;
/// Path length, size, block size, mtime, ctime, inode, device, mode, links: all 8 bytes wide.
const FIXED_FIELDS: usize = 11;
const FIXED_BYTES: usize = 8 * FIXED_FIELDS;

impl OfferedFiles {
    /// An empty table.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self { spool: tempfile::tempfile()?, table: Mutex::default() })
    }

    /// Adds the next number: a file, or an entry without content.
    ///
    /// # Errors
    /// If the spool cannot be written.
    pub fn push(&self, file: Option<&Offered>) -> io::Result<()> {
        let mut table = lock(&self.table);
        let Some(Offered { path, layout, stat }) = file else {
            table.places.push(NOT_A_FILE);
            return Ok(());
        };
        let fields: [u64; FIXED_FIELDS] = [
            path.as_bytes().len() as u64,
            layout.size_bytes(),
            layout.block_size().log2().into(),
            stat.mtime.seconds.cast_unsigned(),
            stat.mtime.nanos.into(),
            stat.ctime.seconds.cast_unsigned(),
            stat.ctime.nanos.into(),
            stat.inode,
            stat.device,
            stat.mode.into(),
            stat.links,
        ];
        let mut bytes: Vec<u8> = fields.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend_from_slice(path.as_bytes());
        let place = table.end;
        self.spool.write_all_at(&bytes, place)?;
        table.places.push(place);
        table.end += bytes.len() as u64;
        table.files += 1;
        table.bytes += layout.size_bytes();
        Ok(())
    }

    /// The file of a number; `None` if there is none with content.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn get(&self, id: FileId) -> io::Result<Option<Offered>> {
        let place = {
            let table = lock(&self.table);
            usize::try_from(id.0).ok().and_then(|index| table.places.get(index).copied())
        };
        let Some(place) = place.filter(|&place| place != NOT_A_FILE) else { return Ok(None) };
        let mut fixed = [0; FIXED_BYTES];
        self.spool.read_exact_at(&mut fixed, place)?;
        let mut fields = [0; FIXED_FIELDS];
        for (field, bytes) in fields.iter_mut().zip(fixed.as_chunks::<8>().0) {
            *field = u64::from_le_bytes(*bytes);
        }
        let [path_len, size, log2, mtime, mtime_nanos, ctime, ctime_nanos, inode, device, mode, links] =
            fields;
        let mut path = vec![0; usize::try_from(path_len).map_err(io::Error::other)?];
        self.spool.read_exact_at(&mut path, place + FIXED_BYTES as u64)?;
        let damaged = || io::Error::other("the spool of offered files is damaged");
        let narrow = |value: u64| u32::try_from(value).map_err(|_| damaged());
        let block_size = u8::try_from(log2).ok().and_then(BlockSize::from_log2).ok_or_else(damaged)?;
        let time = |seconds: u64, nanos| {
            Ok::<_, io::Error>(Timestamp { seconds: seconds.cast_signed(), nanos: narrow(nanos)? })
        };
        Ok(Some(Offered {
            path: SafePath::parse(&path).map_err(|_| damaged())?,
            layout: Layout::new(size, block_size).ok_or_else(damaged)?,
            stat: FileStat {
                size_bytes: size,
                mtime: time(mtime, mtime_nanos)?,
                ctime: time(ctime, ctime_nanos)?,
                inode,
                device,
                mode: narrow(mode)?,
                links,
            },
        }))
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left it torn: every change is one push or one store at the end.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_back_in_order() {
        let log = ManifestLog::new().unwrap();
        log.append(b"first").unwrap();
        log.append(b"second one").unwrap();
        assert_eq!(log.segment(SegmentSeq(0)).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(log.segment(SegmentSeq(1)).unwrap().as_deref(), Some(&b"second one"[..]));
        assert_eq!(log.segment(SegmentSeq(2)).unwrap(), None);
        assert_eq!(log.segment(SegmentSeq(u64::MAX)).unwrap(), None);
        assert_eq!(*log.watch().borrow(), 2);
    }

    #[test]
    fn offered_files_come_back_whole() {
        let files = OfferedFiles::new().unwrap();
        let offered = Offered {
            path: SafePath::parse(b"a/\xff").unwrap(),
            layout: Layout::new(100_000, BlockSize::MIN).unwrap(),
            stat: FileStat {
                size_bytes: 100_000,
                mtime: Timestamp { seconds: -5, nanos: 7 },
                ctime: Timestamp { seconds: 9, nanos: 999_999_999 },
                inode: u64::MAX,
                device: 3,
                mode: 0o4755,
                links: 2,
            },
        };
        files.push(None).unwrap();
        files.push(Some(&offered)).unwrap();
        assert!(files.get(FileId(0)).unwrap().is_none());
        let back = files.get(FileId(1)).unwrap().expect("offered");
        assert_eq!((back.path, back.layout, back.stat), (offered.path, offered.layout, offered.stat));
        assert!(files.get(FileId(2)).unwrap().is_none());
        assert_eq!(files.total_bytes(), 100_000);
    }
}
