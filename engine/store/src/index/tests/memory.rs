//! A disk in memory that fails, forgets and lies, and the history of an index on it.

use super::super::blocks::Disk;
use super::*;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub(super) const SECTOR: usize = 512;

/// A disk in memory: what it holds, what it would hold after a power cut, and how it fails.
#[derive(Default)]
pub(super) struct MemoryDisk(Mutex<Memory>);

#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) now: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Since the last sync: lengths, and for each sector what was written to it.
    pub(super) lens: Vec<usize>,
    pub(super) sectors: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Operations until this error comes, and whether it stays.
    pub(super) fails: Option<(u64, i32, bool)>,
    pub(super) syncs: u64,
    operations: u64,
}

impl MemoryDisk {
    pub(super) fn holding(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Memory { synced: bytes.clone(), now: bytes, ..Memory::default() })))
    }

    pub(super) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    /// One of the states that a power cut now may leave: of each sector any of the versions since the last sync.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let memory = self.memory();
        let lens = &memory.lens;
        let len = match random.index(lens.len() + 1) {
            0 => memory.synced.len(),
            nth => lens[nth - 1],
        };
        let mut bytes = memory.synced.clone();
        // A whole batch of writes in one state is as likely as a mixture.
        let whole = random.below(3);
        for (&sector, versions) in &memory.sectors {
            let version = match whole {
                0 => versions.len(),
                _ => random.index(versions.len() + 1),
            };
            if version > 0 {
                let start = sector * SECTOR;
                bytes.resize(bytes.len().max(start + SECTOR), 0);
                bytes[start..start + SECTOR].copy_from_slice(&versions[version - 1]);
            }
        }
        bytes.resize(len, 0);
        bytes
    }
}

impl Memory {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fails {
            Some((0, errno, stays)) => {
                let error = io::Error::from_raw_os_error(*errno);
                if !*stays {
                    self.fails = None;
                }
                Err(error)
            }
            Some((left, ..)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let start = usize::try_from(offset).unwrap();
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(memory.now.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        assert!(start.is_multiple_of(SECTOR) && data.len().is_multiple_of(SECTOR));
        if memory.now.len() < end {
            memory.now.resize(end, 0);
            memory.lens.push(end);
        }
        memory.now[start..end].copy_from_slice(data);
        for (sector, data) in (start / SECTOR..).zip(data.chunks(SECTOR)) {
            memory.sectors.entry(sector).or_default().push(data.to_vec());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        let len = usize::try_from(len).unwrap();
        memory.now.resize(len, 0);
        memory.lens.push(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.memory().now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut memory = self.memory();
        memory.step()?;
        memory.synced = memory.now.clone();
        memory.lens.clear();
        memory.sectors.clear();
        memory.syncs += 1;
        Ok(())
    }
}

pub(super) fn shown() -> PathBuf {
    "index.redb".into()
}

/// An empty index on a disk in memory.
pub(super) fn new_in_memory() -> (ReplicaIndex, Arc<MemoryDisk>) {
    let disk = MemoryDisk::holding(Vec::new());
    let store = Store::fill(&shown(), PLAN, disk.clone()).unwrap();
    (ReplicaIndex { store }, disk)
}

/// What is on a disk; `None` if it is said to be damaged.
pub(super) fn open_in_memory(disk: Arc<MemoryDisk>) -> Option<ReplicaIndex> {
    Some(ReplicaIndex { store: Store::start(&shown(), PLAN, disk).unwrap().ok()? })
}

/// The `number`-th batch of a history: new rows, changed and removed ones, of all kinds and sizes.
pub(super) fn batch_of_history(number: u64, rows: u64) -> IndexBatch {
    let mut random = Random(number);
    let mut batch = IndexBatch::default();
    for _ in 0..rows {
        let id = random.below(rows * 4);
        let name = path(&format!("some/directory/{:02}/file-{id:05}", id % 17));
        let row = match random.below(8) {
            0 => {
                batch.removed.push(name);
                continue;
            }
            1 => EntryRow { what: EntryWhat::Directory, job: 1, segment: number },
            2 => EntryRow { what: EntryWhat::Symlink { target_hash: id }, job: 1, segment: number },
            3 => EntryRow { what: EntryWhat::Hardlink { stat: stat(id, id) }, job: 1, segment: number },
            4 => file(REUSE_BYTES_MIN + id % 3, id % 7),
            _ => file(id, number),
        };
        batch.placed.push((name, row));
    }
    for id in 0..3 {
        let name = path(&format!("partial-{}", random.below(5)));
        if random.below(3) == 0 {
            batch.partial_gone.push(name);
        } else {
            let magnitude = random.below(18);
            batch.partial.push((name, partial_row(1 + random.below(1 << magnitude), id)));
        }
    }
    batch.job = Some((JobId([random.next().to_le_bytes()[0] % 3; 16]), job_row(1, number)));
    batch
}

pub(super) fn apply(content: &mut Content, batch: &IndexBatch) {
    for path in &batch.removed {
        content.0.remove(path);
    }
    content.0.extend(batch.placed.iter().cloned());
    for path in &batch.partial_gone {
        content.1.remove(path);
    }
    content.1.extend(batch.partial.iter().cloned());
    content.2.extend(batch.job.iter().map(|(id, row)| (id.0, row.clone())));
}
