//! Finds what is offered, in the order of the walk, and says what of it has to be read: a thread of its own ahead of the
//! sequencer, in chunks.

use super::hashes::{Hashes, Known, Lookup};
use super::scan::{Scan, Wanted};
use sealift_proto::manifest::sealed::SealedHead;
use sealift_proto::manifest::{Attributes, Metadata, Problem, Record};
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp;
use sealift_store::{EntryKind, FileStat, Found, ProblemKind, Walk};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Entries that are handed on together.
const CHUNK_STEPS_MAX: usize = 256;
/// Chunks the finder may be ahead of the sequencer.
const CHUNKS_AHEAD_MAX: usize = 8;
/// A chunk with anything in it waits no longer than this, as far as the disk lets the walk go on.
const CHUNK_DELAY: Duration = Duration::from_millis(10);
/// The clock is looked at once in so many entries.
const CLOCK_STEPS: usize = 32;

/// What was found.
pub enum Step {
    /// The offered directory itself.
    Root { metadata: Metadata, attributes: Option<Box<Attributes>> },
    /// A directory.
    Directory { path: SafePath, metadata: Metadata, attributes: Option<Box<Attributes>> },
    /// A symbolic link.
    Symlink { path: SafePath, mtime: Timestamp, target: Vec<u8>, attributes: Option<Box<Attributes>> },
    /// A file whose hashes are known.
    Known { path: SafePath, stat: FileStat, known: Known, attributes: Option<Box<Attributes>> },
    /// A file that has to be read.
    Wanted(Wanted),
    /// Another name of a file that was found before.
    Name { path: SafePath, first: SafePath },
    /// An entry of a sealed source that has no content.
    Sealed(Box<SealedHead>),
    /// Something that cannot be offered.
    Problem { path: Vec<u8>, problem: Problem, reason: String },
    /// What is kept of this file's hashes can be forgotten: it is not there any more.
    Gone(SafePath),
}

/// Starts the thread. The channel ends when everything was found.
///
/// # Errors
/// If it cannot be started.
pub fn start(scan: Arc<Scan>, hashes: Option<Hashes>) -> io::Result<mpsc::Receiver<Vec<Step>>> {
    let (chunks, found) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let finder = Finder {
        scan,
        lookup: hashes.map(Lookup::new),
        first_names: HashMap::new(),
        chunk: Vec::with_capacity(CHUNK_STEPS_MAX),
        begun: None,
        chunks,
    };
    std::thread::Builder::new().name("sealift-walk".into()).spawn(move || finder.run())?;
    Ok(found)
}

struct Finder {
    scan: Arc<Scan>,
    lookup: Option<Lookup>,
    /// Of files with several names.
    first_names: HashMap<(u64, u64), SafePath>,
    chunk: Vec<Step>,
    /// When the chunk was begun, if that was looked at.
    begun: Option<Instant>,
    chunks: mpsc::Sender<Vec<Step>>,
}

/// The sequencer has gone.
struct Unheard;

impl Finder {
    fn run(mut self) {
        // Whoever does not listen any more knows why.
        let _ = self.find();
    }

    fn find(&mut self) -> Result<(), Unheard> {
        let scan = Arc::clone(&self.scan);
        for found in Walk::new(scan.source.source()) {
            let step = self.step(found);
            self.add(step)?;
        }
        for path in self.lookup.take().map(Lookup::finish).into_iter().flatten() {
            self.add(Step::Gone(path))?;
        }
        self.hand_on()
    }

    fn add(&mut self, step: Step) -> Result<(), Unheard> {
        self.chunk.push(step);
        let full = self.chunk.len() >= CHUNK_STEPS_MAX;
        let late = self.chunk.len().is_multiple_of(CLOCK_STEPS)
            && self.begun.get_or_insert_with(Instant::now).elapsed() >= CHUNK_DELAY;
        if full || late { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> Result<(), Unheard> {
        self.begun = None;
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_STEPS_MAX));
        if chunk.is_empty() { Ok(()) } else { self.chunks.blocking_send(chunk).map_err(|_| Unheard) }
    }

    fn step(&mut self, found: Found) -> Step {
        match found {
            Found::File { path, stat } => self.file(path, stat),
            Found::Root { mode, mtime } => {
                let attributes = self.attributes(None, EntryKind::Directory);
                self.sealed_or(Step::Root { metadata: self.scan.metadata(b".", mode, mtime), attributes })
            }
            Found::Directory { path, mode, mtime } => {
                let attributes = self.attributes(Some(&path), EntryKind::Directory);
                let metadata = self.scan.metadata(path.as_bytes(), mode, mtime);
                self.sealed_or(Step::Directory { metadata, path, attributes })
            }
            Found::Symlink { path, target, mtime } => {
                let attributes = self.attributes(Some(&path), EntryKind::Symlink);
                let mtime = self.scan.time(path.as_bytes(), mtime);
                self.sealed_or(Step::Symlink { mtime, path, target, attributes })
            }
            Found::Problem { path, kind } => {
                if let Some(lookup) = &mut self.lookup {
                    lookup.problem(&path, &kind);
                }
                let problem = match kind {
                    ProblemKind::Special => Problem::Special,
                    ProblemKind::Unreadable(_) => Problem::Unreadable,
                    ProblemKind::BadName(_) => Problem::BadName,
                };
                Step::Problem { path, problem, reason: kind.to_string() }
            }
        }
    }

    fn file(&mut self, path: SafePath, stat: FileStat) -> Step {
        if stat.links > 1 {
            match self.first_names.entry((stat.device, stat.inode)) {
                Entry::Occupied(first) => return Step::Name { path, first: first.get().clone() },
                Entry::Vacant(vacant) => {
                    vacant.insert(path.clone());
                }
            }
        }
        let stat = self.scan.source.found(&path, stat);
        match self.lookup.as_mut().and_then(|lookup| lookup.look(&path, &stat)) {
            Some(known) => {
                let attributes = match self.scan.source.seal() {
                    None => self.attributes(Some(&path), EntryKind::File),
                    // They are in its head.
                    Some(_) => None,
                };
                Step::Known { path, stat, known, attributes }
            }
            None => Step::Wanted(Wanted { path, stat: Some(stat) }),
        }
    }

    fn attributes(&self, path: Option<&SafePath>, kind: EntryKind) -> Option<Box<Attributes>> {
        self.scan.carried.read(self.scan.source.source(), path, kind, &self.scan.reporter)
    }

    /// An entry without content, as it is offered.
    fn sealed_or(&self, step: Step) -> Step {
        if self.scan.source.seal().is_none() {
            return step;
        }
        let id = SealedHead::ID;
        let (entry, attributes) = match step {
            Step::Root { metadata, attributes } => (Record::Root(metadata), attributes),
            Step::Directory { path, metadata, attributes } => {
                (Record::Directory { id, path, metadata }, attributes)
            }
            Step::Symlink { path, mtime, target, attributes } => {
                (Record::Symlink { id, path, mtime, target }, attributes)
            }
            step => return step,
        };
        Step::Sealed(Box::new(SealedHead { entry, attributes: attributes.map(|attributes| *attributes) }))
    }
}
