//! Why a file could not be written here, and what is to be done about it.

use sealift_proto::path::SafePath;
use sealift_store::{FileError, IndexError};
use std::io;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room: it is tried again when there is.
    Full,
    /// It may pass: it is tried again, a few times.
    Passing,
    /// It will not pass by itself.
    Lasting,
    /// The index cannot be written or read: nothing more is called done.
    Index,
}

/// A failure, for people and for the transfer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// Whether the disk failed to take data that had been written: nothing of it is believed any more.
    pub lost_writes: bool,
    /// Whether another file was found where it was to be put.
    pub disputed: bool,
}

impl Failure {
    /// Of a file, by what the system said.
    pub fn of(path: &SafePath, error: io::Error) -> Self {
        Self::from(&FileError::from_io(path, error))
    }

    /// Of a file that the caller names.
    pub fn nameless(error: io::Error) -> Self {
        let path = SafePath::parse(b"file").expect("a safe path");
        let mut failure = Self::of(&path, error);
        if let Some(reason) = failure.reason.strip_prefix("file: ") {
            failure.reason = reason.to_owned();
        }
        failure
    }

    /// One that will not pass.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), trouble: Trouble::Lasting, lost_writes: false, disputed: false }
    }
}

impl From<&FileError> for Failure {
    fn from(error: &FileError) -> Self {
        let lost_writes = matches!(error, FileError::NotSynced { .. });
        let trouble = if error.is_no_space() {
            Trouble::Full
        } else if error.is_io() || lost_writes || matches!(error, FileError::Changed { .. }) {
            Trouble::Passing
        } else {
            Trouble::Lasting
        };
        let disputed = matches!(error, FileError::Changed { .. });
        Self { reason: error.to_string(), trouble, lost_writes, disputed }
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self { reason: error.to_string(), trouble: Trouble::Index, lost_writes: false, disputed: false }
    }
}
