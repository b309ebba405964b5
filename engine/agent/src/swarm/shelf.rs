//! What a receiver has of a snapshot by now, for others: files in their places, and blocks of files that are still being
//! written.
//!
//! Only what the index was told of comes in here. A file in its place is looked up in the index again when it is
//! opened, so that what somebody edited since is not given away for what it was. Of a file in its place four bytes are
//! remembered; its path is in an unlinked file.

use crate::receive::memory::Memory;
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::limits::{HAVE_RANGES_MAX, HAVE_SPANS_MAX, PATH_BYTES_MAX};
use sealift_proto::path::SafePath;
use sealift_proto::wire::{BlocksPrefix, FileSpan, Have};
use sealift_store::{EntryRow, EntryWhat, FileStat, Replica};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Places in the spool are multiples of this, so that four bytes name them.
const PLACE_BYTES: usize = 32;
/// In the table of places: nothing is here.
const NOWHERE: u32 = u32::MAX;
/// What is announced of unfinished files, at most: what is beyond is announced when the file is whole.
const NEWS_MAX: usize = 1 << 20;

/// See the module.
pub struct ReplicaShelf {
    replica: Arc<Replica>,
    memory: Arc<Memory>,
    spool: File,
    state: Mutex<State>,
    /// How much there is to tell.
    told: watch::Sender<usize>,
}

struct State {
    /// Where in the spool the path of a file in its place is, by number.
    places: Vec<u32>,
    spool_end: u64,
    files: u64,
    unfinished: HashMap<FileId, Unfinished>,
    /// What was put here, in order.
    news: Vec<News>,
    total_bytes: u64,
}

#[derive(Clone, Copy)]
enum News {
    Files(FileSpan),
    Blocks(BlocksPrefix),
}

struct Unfinished {
    layout: Layout,
    file: Arc<File>,
    /// A bit for each block that is here.
    present: Vec<u64>,
}

/// A file that is here.
#[derive(Clone)]
pub enum Held {
    /// In its place.
    Placed(SafePath),
    /// Still being written.
    Unfinished(Arc<File>),
}

impl ReplicaShelf {
    /// An empty one.
    ///
    /// # Errors
    /// If no temporary file can be made.
    pub fn new(replica: Arc<Replica>, memory: Arc<Memory>) -> io::Result<Self> {
        let state = State {
            places: Vec::new(),
            spool_end: 0,
            files: 0,
            unfinished: HashMap::new(),
            news: Vec::new(),
            total_bytes: 0,
        };
        let spool = tempfile::tempfile()?;
        Ok(Self { replica, memory, spool, state: Mutex::new(state), told: watch::Sender::new(0) })
    }

    /// Files are in their places, and the index knows it.
    ///
    /// # Errors
    /// If the spool cannot be written: then nobody is told of them.
    pub fn add_files(&self, files: &mut Vec<(FileId, SafePath, Layout)>) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        files.sort_unstable_by_key(|(id, ..)| *id);
        let mut state = self.lock();
        let state = &mut *state;
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(files.len());
        for (id, path, layout) in files.iter() {
            places.push((*id, state.spool_end + bytes.len() as u64));
            bytes.extend_from_slice(&layout.size_bytes().to_le_bytes());
            bytes.push(layout.block_size().log2());
            let path = path.as_bytes();
            bytes.extend_from_slice(&u16::try_from(path.len()).expect("at most 4096").to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.resize(bytes.len().next_multiple_of(PLACE_BYTES), 0);
        }
        self.spool.write_all_at(&bytes, state.spool_end)?;
        state.spool_end += bytes.len() as u64;
        let mut spans: Vec<FileSpan> = Vec::new();
        for (id, place) in places {
            let (Ok(index), Ok(place)) = (usize::try_from(id.0), u32::try_from(place / PLACE_BYTES as u64))
            else {
                continue;
            };
            if state.places.len() <= index {
                state.places.resize(index + 1, NOWHERE);
            }
            state.files += u64::from(std::mem::replace(&mut state.places[index], place) == NOWHERE);
            state.unfinished.remove(&id);
            match spans.last_mut() {
                Some(span) if span.first.0 + u64::from(span.count) == id.0 => span.count += 1,
                _ => spans.push(FileSpan { first: id, count: 1 }),
            }
        }
        files.clear();
        state.news.extend(spans.into_iter().map(News::Files));
        self.told.send_replace(state.news.len());
        Ok(())
    }

    /// Blocks of a file are synced, and the index knows it.
    pub fn add_blocks(&self, id: FileId, layout: Layout, file: &Arc<File>, present: &[u64]) {
        let mut state = self.lock();
        let state = &mut *state;
        let known = state.unfinished.entry(id).or_insert_with(|| Unfinished {
            layout,
            file: Arc::clone(file),
            present: Vec::new(),
        });
        if !Arc::ptr_eq(&known.file, file) {
            // It was begun anew.
            *known = Unfinished { layout, file: Arc::clone(file), present: Vec::new() };
        }
        let mut new: Option<BlocksPrefix> = None;
        for block in 0..layout.blocks() {
            let is_new = has(present, block) && !has(&known.present, block);
            match &mut new {
                Some(range) if is_new => range.count += 1,
                Some(_) => state.news.extend(new.take().map(News::Blocks)),
                None if is_new && state.news.len() < NEWS_MAX => {
                    new = Some(BlocksPrefix { file: id, first: BlockIndex(block), count: 1 });
                }
                None => {}
            }
        }
        state.news.extend(new.map(News::Blocks));
        known.present = present.to_vec();
        self.told.send_replace(state.news.len());
    }

    /// How large the data set is, as far as that is known.
    pub fn set_total_bytes(&self, bytes: u64) {
        self.lock().total_bytes = bytes;
    }

    /// See [`ReplicaShelf::set_total_bytes`].
    pub fn total_bytes(&self) -> u64 {
        self.lock().total_bytes
    }

    /// Files in their places.
    pub fn files(&self) -> u64 {
        self.lock().files
    }

    /// A file is not given any more: it is not what it was, or it is replaced.
    pub fn withdraw(&self, id: FileId) {
        let mut state = self.lock();
        state.unfinished.remove(&id);
        let place = usize::try_from(id.0).ok().and_then(|index| state.places.get_mut(index));
        if place.is_some_and(|place| std::mem::replace(place, NOWHERE) != NOWHERE) {
            state.files -= 1;
        }
    }

    /// Where the blocks of a range are, if they are here.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn held(&self, range: BlocksPrefix) -> io::Result<Option<(Layout, Held)>> {
        let (place, end) = {
            let state = self.lock();
            if let Some(unfinished) = state.unfinished.get(&range.file) {
                let end = range.first.0.saturating_add(range.count).min(unfinished.layout.blocks());
                let is_here = (range.first.0..end).all(|block| has(&unfinished.present, block));
                let held = (unfinished.layout, Held::Unfinished(Arc::clone(&unfinished.file)));
                return Ok(is_here.then_some(held));
            }
            let place = usize::try_from(range.file.0).ok().and_then(|index| state.places.get(index));
            let Some(&place) = place.filter(|&&place| place != NOWHERE) else { return Ok(None) };
            (u64::from(place) * PLACE_BYTES as u64, state.spool_end)
        };
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let count = bytes.len().min(usize::try_from(end - place).unwrap_or(bytes.len()));
        self.spool.read_exact_at(&mut bytes[..count], place)?;
        let damaged = || io::Error::other("the list of what is here is damaged");
        let (layout, path) = parse(&bytes[..count]).ok_or_else(damaged)?;
        Ok(Some((layout, Held::Placed(path))))
    }

    /// Opens a file to be read, and says which version it must be afterwards. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if what is in its place is not what the index says.
    pub fn open(&self, held: &Held, layout: Layout) -> io::Result<(Arc<File>, Option<FileStat>)> {
        match held {
            Held::Unfinished(file) => Ok((Arc::clone(file), None)),
            Held::Placed(path) => {
                let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
                let (file, now) = self.replica.open_existing(path).map_err(|error| other(&error))?;
                let row = self.memory.read().and_then(|index| index.entry(path));
                match row.map_err(|error| other(&error))? {
                    Some(EntryRow { what: EntryWhat::File { stat, .. }, .. })
                        if stat.matches(&now) && now.size_bytes == layout.size_bytes() =>
                    {
                        Ok((Arc::new(file), Some(now)))
                    }
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }

    /// What was put here since `told`, as much as one frame says, and up to where it says it.
    pub fn news_since(&self, told: usize) -> (Have, usize) {
        let state = self.lock();
        let mut have = Have::default();
        let mut at = told;
        while let Some(news) = state.news.get(at) {
            match news {
                News::Files(span) if have.files.len() < HAVE_SPANS_MAX => have.files.push(*span),
                News::Blocks(range) if have.blocks.len() < HAVE_RANGES_MAX => have.blocks.push(*range),
                _ => break,
            }
            at += 1;
        }
        (have, at)
    }

    /// Tells how much there is to tell, now and whenever it grows.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.told.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot have left it torn: what others look at is stored last.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest entry of the spool.
const ENTRY_BYTES_MAX: usize = 8 + 1 + 2 + PATH_BYTES_MAX;

fn parse(bytes: &[u8]) -> Option<(Layout, SafePath)> {
    let (size, rest) = bytes.split_first_chunk::<8>()?;
    let (&log2, rest) = rest.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let path = SafePath::parse(rest.get(..usize::from(u16::from_le_bytes(*length)))?).ok()?;
    Some((Layout::new(u64::from_le_bytes(*size), BlockSize::from_log2(log2)?)?, path))
}

fn has(bits: &[u64], block: u32) -> bool {
    bits.get((block / 64) as usize).is_some_and(|word| word & (1 << (block % 64)) != 0)
}
