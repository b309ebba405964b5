//! What can be served: the source, as it was hashed, or what a receiver has of it by now.
//!
//! Tells who serves what of a file can be had, opens it, and judges whether what was read is still what was offered. Below
//! this, nobody knows which of the two it is.

use super::changed::ChangedFiles;
use super::log::{Offered, OfferedFiles};
use super::offering::{OfferedFile, Offering};
use super::recent::{Away, Recent};
use crate::swarm::{Held, ReplicaShelf};
use sealift_proto::block::{FileId, Layout};
use sealift_proto::path::SafePath;
use sealift_proto::wire::{BlocksPrefix, RangeProblem};
use sealift_store::{FileStat, PoolBuf};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// See the module.
pub enum Shelf {
    /// All of a source.
    Source(SourceShelf),
    /// What a receiver has.
    Replica(Arc<ReplicaShelf>),
}

/// A source, scanned or being scanned.
pub struct SourceShelf {
    /// Where the files are.
    pub source: Arc<Offering>,
    /// Those that were offered.
    pub files: Arc<OfferedFiles>,
    /// Runs that were just hashed.
    pub recent: Arc<Recent>,
    /// Files that a request found changed go to the scanner.
    pub changed: Arc<ChangedFiles>,
}

/// A file of which something was asked for and can be had.
#[derive(Clone)]
pub struct Item {
    /// Size and blocks.
    pub layout: Layout,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Offered(Box<Offered>),
    Held(Held),
}

/// An open file, and the version that it must be when it has been read.
#[derive(Clone)]
pub struct Opened {
    /// The file.
    pub file: Arc<File>,
    /// Where in it the blocks begin.
    pub begins: u64,
    /// What it has to be: see [`Version`].
    pub version: Version,
}

/// Which version of a file it must be when it has been read.
#[derive(Clone)]
pub enum Version {
    /// Whichever: what was offered of it does not change.
    Any,
    /// This one of a replica's file.
    Held(FileStat),
    /// This one of a source's.
    Offered(OfferedFile, FileStat),
}

/// What came of a failure to read what was offered.
pub struct Unread {
    /// What the peer is told.
    pub problem: RangeProblem,
    /// Where the file is, if the user has to be told.
    pub unreadable: Option<SafePath>,
}

impl Shelf {
    /// The file of a range, if that can be had.
    ///
    /// # Errors
    /// If what is offered cannot be looked up.
    pub fn item(&self, range: BlocksPrefix) -> io::Result<Result<Item, RangeProblem>> {
        Ok(match self {
            Self::Source(source) => match source.files.get(range.file)? {
                Some(offered) => {
                    Ok(Item { layout: offered.layout, content: Content::Offered(Box::new(offered)) })
                }
                None => Err(RangeProblem::UnknownFile),
            },
            Self::Replica(replica) => match replica.held(range)? {
                Some((layout, held)) => Ok(Item { layout, content: Content::Held(held) }),
                None => Err(RangeProblem::NotHere),
            },
        })
    }

    /// Bytes of all that was ever offered.
    pub fn total_bytes(&self) -> u64 {
        match self {
            Self::Source(source) => source.files.total_bytes(),
            Self::Replica(replica) => replica.total_bytes(),
        }
    }

    /// Files that were ever offered.
    pub fn count(&self) -> u64 {
        match self {
            Self::Source(source) => source.files.count(),
            Self::Replica(replica) => replica.files(),
        }
    }

    /// A run that was just hashed and is in a buffer still.
    pub fn take_recent(&self, range: BlocksPrefix) -> Option<(PoolBuf, Away)> {
        match self {
            Self::Source(source) => source.recent.take(range),
            Self::Replica(_) => None,
        }
    }

    /// Opens a file if it is still what was offered. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if it is not; what the file system says.
    pub fn open(&self, item: &Item) -> io::Result<Opened> {
        match (self, &item.content) {
            (Self::Source(source), Content::Offered(offered)) => {
                if let Some(begins) = offered.spooled {
                    let spool = source.source.spool().ok_or_else(|| io::Error::other("nothing is sealed"))?;
                    return Ok(Opened { file: spool, begins, version: Version::Any });
                }
                let (file, now) = source.source.open_file(&offered.path)?;
                if !now.same_version(&offered.stat) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let version = Version::Offered(file.clone(), offered.stat);
                Ok(Opened { file: Arc::clone(file.file()), begins: 0, version })
            }
            (Self::Replica(replica), Content::Held(held)) => {
                let (file, version) = replica.open(held, item.layout)?;
                Ok(Opened { file, begins: 0, version: version.map_or(Version::Any, Version::Held) })
            }
            _ => Err(io::Error::other("a file of another shelf")),
        }
    }

    /// Takes note of a file that could not be read as it was offered.
    pub fn unread(&self, id: FileId, item: &Item, error: &io::Error) -> Unread {
        match (self, &item.content) {
            (Self::Source(source), Content::Offered(offered)) => match problem_of(error) {
                RangeProblem::Changed => {
                    source.changed.add(id);
                    Unread { problem: RangeProblem::Changed, unreadable: None }
                }
                problem => Unread { problem, unreadable: Some(offered.path.clone()) },
            },
            (Self::Replica(replica), _) => {
                replica.withdraw(id);
                Unread { problem: RangeProblem::NotHere, unreadable: None }
            }
            _ => Unread { problem: RangeProblem::UnknownFile, unreadable: None },
        }
    }

    /// A peer says that a block did not match. At a source: whether the file has changed is looked at; one that an
    /// earlier run hashed and this one did not read is hashed anew in any case, since its content may have changed
    /// without its times (a page that was mapped, a disk that forgets). At a replica nothing follows. Blocks.
    ///
    /// # Errors
    /// If what is offered cannot be looked up.
    pub fn rejected(&self, id: FileId) -> io::Result<Option<Unread>> {
        match self {
            Self::Source(source) => {
                let Some(offered) = source.files.get(id)? else { return Ok(None) };
                let reused = offered.reused;
                let item = Item { layout: offered.layout, content: Content::Offered(Box::new(offered)) };
                match self.open(&item) {
                    Err(error) => Ok(Some(self.unread(id, &item, &error))),
                    Ok(_) => {
                        if reused {
                            source.changed.add(id);
                        }
                        Ok(None)
                    }
                }
            }
            // Whoever has the job's key can say so: on its word alone nothing is withheld from others, who check what they
            // get. What is in its place is compared with the index whenever it is opened.
            Self::Replica(_) => Ok(None),
        }
    }
}

impl Opened {
    /// Whether what was read of it is what was offered.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        match &self.version {
            Version::Any => Ok(true),
            Version::Held(version) => Ok(FileStat::of(&self.file)?.same_version(version)),
            Version::Offered(file, version) => Ok(file.stat()?.same_version(version)),
        }
    }

    /// The file, if what is offered of it is its sealed form.
    pub fn sealed(&self) -> Option<&OfferedFile> {
        match &self.version {
            Version::Offered(file, _) => file.plain().is_none().then_some(file),
            _ => None,
        }
    }
}

/// A file that is gone, shorter or another kind of thing has changed; anything else cannot be read.
fn problem_of(error: &io::Error) -> RangeProblem {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, UnexpectedEof};
    match error.kind() {
        NotFound | NotADirectory | UnexpectedEof | InvalidInput => RangeProblem::Changed,
        _ if error.raw_os_error() == Some(40 /* ELOOP */) => RangeProblem::Changed,
        _ => RangeProblem::Unreadable,
    }
}
