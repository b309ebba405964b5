//! What can go wrong with an index, by what its owner can do about it.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why an index or a cache of hashes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// ENOSPC, EDQUOT. Nothing of what was being written took effect. The same write may be tried again when there is
    /// room: the index is then opened anew by itself.
    #[error("{path:?}: no space is left on the disk, or the quota is used up")]
    Full {
        /// The index's file.
        path: PathBuf,
    },
    /// A later program wrote it. It was not touched.
    #[error(
        "{path:?} was written by a newer sealift (format {version}; this one knows {}); use that one, or remove the \
         file to begin without it",
        super::SCHEMA_VERSION
    )]
    Newer {
        /// The index's file.
        path: PathBuf,
        /// The version of the format that it has.
        version: u16,
    },
    /// Bits were flipped, or parts are missing. Every further use of this handle says so too; the next opening moves
    /// the file aside and begins an empty one.
    #[error("{path:?} is damaged")]
    Damaged {
        /// The index's file.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has it open.
    #[error("{path:?} is in use by another sealift; wait for it")]
    Locked {
        /// The index's file.
        path: PathBuf,
    },
    /// Anything else, a failed sync among it. Nothing of what was being written counts as durable, and every further
    /// use of this handle fails: drop it and open the index again, which finds what was last written durably.
    #[error("{path:?}: {source}")]
    Io {
        /// The index's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl IndexError {
    /// The error for an operation on the file at `path` that failed with `source`.
    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { path },
            _ => Self::Io { path, source },
        }
    }
}
