//! What went wrong, in words for people.

use std::fmt::Display;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// A result whose error is for people.
pub type Outcome<T> = Result<T, Failure>;

/// Says what was tried when it failed.
pub trait OrFailure<T> {
    /// Puts `what`, as in "cannot read FILE", before the error.
    ///
    /// # Errors
    /// Whenever there was one.
    fn or_failure(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Display> OrFailure<T> for Result<T, E> {
    fn or_failure(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

/// A failure of these words.
///
/// # Errors
/// Always.
pub fn failure<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure(what.into()))
}
