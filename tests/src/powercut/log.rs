//! The log of a block device, in the format of the kernel's `dm-log-writes`, which QEMU's `blklogwrites` writes too.
//!
//! ```text
//!  sector 0      u64 magic, u64 version, u64 number of entries, u32 bytes of a sector           little-endian
//!  each entry    u64 sector, u64 sectors, u64 flags, u64 bytes of a mark's name; the name       one sector
//!                the data, unless it is a discard                                               so many sectors
//! ```

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Of the start of an entry, and of the log.
const HEADER_BYTES: usize = 32;

const MAGIC: u64 = 0x006A_7366_7773_6872;
const VERSION: u64 = 1;
const SECTOR_BYTES_MIN: u64 = 512;
const SECTOR_BYTES_MAX: u64 = 4096;

const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
/// Only says what a write is for.
const METADATA: u64 = 1 << 4;

/// A moment of a run: how many entries the log had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub usize);

/// What the device was asked for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Everything before this is durable, once it is done.
    pub flush: bool,
    /// This is durable, once it is done.
    pub durable: bool,
    /// What it does beside that.
    pub what: What,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A write.
    Write {
        /// Where on the disk.
        at_bytes: u64,
        /// How much.
        bytes: u64,
        /// Where in the log the data is.
        data_at_bytes: u64,
    },
    /// These bytes are not needed any more: zeros from now on.
    Discard {
        /// Where on the disk.
        at_bytes: u64,
        /// How much.
        bytes: u64,
    },
    /// This moment has a name.
    Mark,
    /// Nothing, as of a flush.
    Nothing,
}

/// Why a log cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// It does not begin as one.
    NotALog,
    /// It is of another version.
    Version(u64),
    /// Its sectors have a size that none has.
    SectorBytes(u64),
    /// The file ends within this entry.
    Ends(usize),
    /// This entry is not within the disk.
    OffTheDisk(usize),
    /// This entry has flags that are not known.
    Flags(usize),
}

impl fmt::Display for LogError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALog => out.write_str("this is no log of writes"),
            Self::Version(version) => write!(out, "the log is of version {version}"),
            Self::SectorBytes(bytes) => write!(out, "the log has sectors of {bytes} bytes"),
            Self::Ends(entry) => write!(out, "the log ends within entry {entry}"),
            Self::OffTheDisk(entry) => write!(out, "entry {entry} is not within the disk"),
            Self::Flags(entry) => write!(out, "entry {entry} has unknown flags"),
        }
    }
}

/// A log that was read. The data stay in its file.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the log of a disk of that size.
    ///
    /// # Errors
    /// If it is damaged, or none.
    ///
    /// # Panics
    /// If the file's size cannot be had.
    pub fn read(file: File, disk_bytes: u64) -> Result<Self, LogError> {
        let file_bytes = file.metadata().expect("it is open").len();
        let Superblock { entries: count, sector_bytes } = Superblock::read(&file)?;
        let mut entries = Vec::new();
        let mut at_bytes = sector_bytes;
        for _ in 0..count {
            let number = entries.len();
            let mut header = [0; HEADER_BYTES];
            file.read_exact_at(&mut header, at_bytes).map_err(|_| LogError::Ends(number))?;
            let entry = Entry::parse(&header, sector_bytes, at_bytes).ok_or(LogError::Flags(number))?;
            at_bytes += sector_bytes;
            match entry.what {
                What::Write { at_bytes: on_disk, bytes, .. } | What::Discard { at_bytes: on_disk, bytes }
                    if on_disk.checked_add(bytes).is_none_or(|end| end > disk_bytes) =>
                {
                    return Err(LogError::OffTheDisk(number));
                }
                // No overflow: this is less than the disk.
                What::Write { bytes, .. } => at_bytes += bytes,
                What::Discard { .. } | What::Mark | What::Nothing => {}
            }
            if at_bytes > file_bytes {
                return Err(LogError::Ends(number));
            }
            entries.push(entry);
        }
        Ok(Self { file, entries })
    }

    /// How many entries the log in this file has so far, while it is being written.
    ///
    /// # Errors
    /// If it is damaged, or none.
    pub fn position(file: &Path) -> Result<Position, LogError> {
        let file = File::open(file).map_err(|_| LogError::NotALog)?;
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            return Ok(Position(0));
        }
        let count = Superblock::read(&file)?.entries;
        usize::try_from(count).map(Position).map_err(|_| LogError::NotALog)
    }

    /// What the device was asked for, in this order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Hands the data of an entry over piece by piece, with where each belongs on the disk.
    ///
    /// # Panics
    /// If the log was cut off since it was read.
    pub fn for_each_piece(&self, entry: &Entry, mut take: impl FnMut(u64, &[u8])) {
        const PIECE_BYTES: u64 = 1 << 18;
        let (at_bytes, bytes, data) = match entry.what {
            What::Write { at_bytes, bytes, data_at_bytes } => (at_bytes, bytes, Some(data_at_bytes)),
            What::Discard { at_bytes, bytes } => (at_bytes, bytes, None),
            What::Mark | What::Nothing => return,
        };
        let mut piece = vec![0; usize::try_from(bytes.min(PIECE_BYTES)).expect("small")];
        let mut done = 0;
        while done < bytes {
            let now = usize::try_from((bytes - done).min(PIECE_BYTES)).expect("small");
            if let Some(data) = data {
                self.file
                    .read_exact_at(&mut piece[..now], data + done)
                    .expect("the log is as long as it was");
            }
            take(at_bytes + done, &piece[..now]);
            done += now as u64;
        }
    }
}

impl Entry {
    /// What such a header says, which stands there in the log; `None` if it has flags that are not known.
    fn parse(header: &[u8; HEADER_BYTES], sector_bytes: u64, header_at_bytes: u64) -> Option<Self> {
        // The fourth is the length of a mark's name, which nobody here asks for.
        let [sector, sectors, flags, _] = words(header);
        if flags & !(FLUSH | FUA | DISCARD | MARK | METADATA) != 0 {
            return None;
        }
        // What is too large for this is off any disk.
        let (at_bytes, bytes) = (sector.saturating_mul(sector_bytes), sectors.saturating_mul(sector_bytes));
        let what = match flags {
            _ if flags & MARK != 0 => What::Mark,
            _ if bytes == 0 => What::Nothing,
            _ if flags & DISCARD != 0 => What::Discard { at_bytes, bytes },
            _ => What::Write { at_bytes, bytes, data_at_bytes: header_at_bytes + sector_bytes },
        };
        Some(Self { flush: flags & FLUSH != 0, durable: flags & FUA != 0, what })
    }
}

struct Superblock {
    entries: u64,
    sector_bytes: u64,
}

impl Superblock {
    fn read(file: &File) -> Result<Self, LogError> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|_| LogError::NotALog)?;
        let [magic, version, entries, sector_bytes] = words(&bytes);
        let sector_bytes = sector_bytes & u64::from(u32::MAX);
        if (magic, version) == (0, 0) {
            // Not written yet.
            return Ok(Self { entries: 0, sector_bytes: SECTOR_BYTES_MIN });
        }
        if magic != MAGIC {
            return Err(LogError::NotALog);
        }
        if version != VERSION {
            return Err(LogError::Version(version));
        }
        if !sector_bytes.is_power_of_two() || !(SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&sector_bytes) {
            return Err(LogError::SectorBytes(sector_bytes));
        }
        Ok(Self { entries, sector_bytes })
    }
}

fn words(bytes: &[u8; HEADER_BYTES]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight"));
    }
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tree::Random;
    use std::io::Write as _;

    /// A log, written by the description above.
    pub(in crate::powercut) fn written(sector_bytes: u64, entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let sector = usize::try_from(sector_bytes).unwrap();
        let mut log = Vec::new();
        let mut put = |words: [u64; 4], name: &[u8], data: &[u8]| {
            let start = log.len();
            log.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            log.extend_from_slice(name);
            log.resize(start + sector, 0);
            log.extend_from_slice(data);
        };
        put([MAGIC, VERSION, entries.len() as u64, sector_bytes], b"", b"");
        for &(sector, flags, data) in entries {
            if flags & MARK != 0 {
                put([0, 0, flags, data.len() as u64], data, b"");
            } else {
                let stored = if flags & DISCARD != 0 { b"" } else { data };
                put([sector, data.len() as u64 / sector_bytes, flags, 0], b"", stored);
            }
        }
        log
    }

    pub(in crate::powercut) fn read(bytes: &[u8], disk_bytes: u64) -> Result<WriteLog, LogError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        WriteLog::read(file, disk_bytes)
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for sector_bytes in [512, 4096] {
            let size = usize::try_from(sector_bytes).unwrap();
            let (one, two) = (vec![1; size], vec![2; 3 * size]);
            let log = written(
                sector_bytes,
                &[
                    (3, 0, &one),
                    (0, FLUSH, b""),
                    (7, FLUSH | FUA, &two),
                    (0, MARK, b"here"),
                    (3, DISCARD, &one),
                ],
            );
            let log = read(&log, 10 * sector_bytes).unwrap();
            let data = |entry: &Entry| {
                let mut data = Vec::new();
                log.for_each_piece(entry, |_, piece| data.extend_from_slice(piece));
                data
            };
            let [write, flush, both, mark, discard] = log.entries() else { panic!("{log:?}") };
            assert!(!write.flush && !write.durable && data(write) == one);
            assert!(flush.flush && !flush.durable && flush.what == What::Nothing && data(flush).is_empty());
            assert!(both.flush && both.durable && data(both) == two);
            assert!(
                matches!(both.what, What::Write { at_bytes, bytes, .. } if (at_bytes, bytes) == (7 * sector_bytes, 3 * sector_bytes))
            );
            assert_eq!(mark.what, What::Mark);
            assert_eq!(discard.what, What::Discard { at_bytes: 3 * sector_bytes, bytes: sector_bytes });
            assert_eq!(data(discard), vec![0; size]);
        }
    }

    #[test]
    fn a_log_that_ends_early_is_refused_wherever_it_ends() {
        let log = written(512, &[(0, 0, &[1; 1024]), (0, MARK, b"x"), (1, FUA, &[2; 512])]);
        assert!(read(&log, 1024).is_ok());
        for end in 1..log.len() {
            let error = read(&log[..end], 1024).unwrap_err();
            assert!(matches!(error, LogError::NotALog | LogError::Ends(_)), "{end}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let log = written(512, &[(0, 0, &[1; 1024])]);
        assert_eq!(read(&log, 1023).unwrap_err(), LogError::OffTheDisk(0));
        let with = |at: usize, value: u64| {
            let mut log = log.clone();
            log[at..at + 8].copy_from_slice(&value.to_le_bytes());
            read(&log, 1024).unwrap_err()
        };
        assert_eq!(with(0, 1), LogError::NotALog);
        assert_eq!(with(8, 2), LogError::Version(2));
        assert_eq!(with(16, u64::MAX), LogError::Ends(1));
        assert_eq!(with(24, 513), LogError::SectorBytes(513));
        assert_eq!(with(512, u64::MAX), LogError::OffTheDisk(0));
        assert_eq!(with(520, u64::MAX), LogError::OffTheDisk(0));
        assert_eq!(with(528, 1 << 40), LogError::Flags(0));
    }

    #[test]
    fn damage_never_panics() {
        let log = written(512, &[(0, 0, &[1; 1024]), (0, MARK, b"x"), (0, FLUSH, b""), (1, FUA, &[2; 512])]);
        let mut random = Random::new(5);
        for _ in 0..2000 {
            let mut log = log.clone();
            for _ in 0..=random.below(4) {
                let at = usize::try_from(random.below(log.len() as u64)).unwrap();
                log[at] ^= 1 << random.below(8);
            }
            let _ = read(&log, 1024);
        }
    }
}
