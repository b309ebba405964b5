//! What can go wrong with the database, by whose fault it is. The API alone turns it into an answer.

use rusqlite::ErrorCode;
use std::io;
use std::path::Path;

/// Why something was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// What was asked for is not there. Names its kind: "user", "job".
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Something is there already that leaves no room for it.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It was changed by somebody else since the caller looked: its version is another by now.
    #[error("it has been changed meanwhile: look again")]
    Stale,
    /// It makes sense, and is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The file is not what was written.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A later version of this program wrote the file.
    #[error("the database is of version {found}, and this program knows up to {known}")]
    TooNew {
        /// The file's version.
        found: i64,
        /// The latest that is known here.
        known: i64,
    },
    /// The master key is not the one that the database was made with.
    #[error("the master key is not the one of this database")]
    WrongMasterKey,
    /// What SQLite says.
    #[error("the database: {0}")]
    Sql(#[source] rusqlite::Error),
    /// What the file system says.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A secret could not be sealed, or what was sealed is not what was asked for, or there is no randomness.
    #[error("a sealed secret cannot be opened or made")]
    Crypto,
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

impl DbError {
    /// For the result of an insert or an update: that a unique value is taken becomes a [`DbError::Conflict`] with this
    /// text, and everything else what it is.
    pub fn taken(text: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| {
            let unique = error.sqlite_error().is_some_and(|error| {
                matches!(
                    error.extended_code,
                    rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                )
            });
            if unique { Self::Conflict(text.into()) } else { error.into() }
        }
    }
}

/// What the file system says, and of which file.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> DbError {
    move |error| DbError::Io(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
