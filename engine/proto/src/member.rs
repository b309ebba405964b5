//! Who takes part in a job's swarm, as members name themselves to each other. Nothing here is proof of anything: who
//! speaks has the job's key, and what it gives is verified block by block.

use crate::limits::{LABEL_BYTES_MAX, LABEL_PARTS_MAX};
use std::fmt;

/// Names one run of one program that takes part in a job: random, so that a member that is found under several
/// addresses is known to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

/// Where a member stands in the network, `zone/rack`: what two labels share from the left is near, and the links between
/// zones are dear. An empty one says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Label(String);

/// A text that is no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a label has 1 to {LABEL_PARTS_MAX} parts of letters, digits, '-', '_' and '.', with '/' between them, and at most \
     {LABEL_BYTES_MAX} bytes"
)]
pub struct LabelError;

impl Label {
    /// Reads a label.
    ///
    /// # Errors
    /// If it is none. The empty one is one.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let parts = text.split('/').count();
        if text.len() > LABEL_BYTES_MAX || parts > LABEL_PARTS_MAX || !text.split('/').all(is_part) {
            return Err(LabelError);
        }
        Ok(Self(text.to_owned()))
    }

    /// The label as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_parts_of_plain_characters() {
        for good in ["", "a", "eu/dc1/rack-7_b.2", &"x".repeat(LABEL_BYTES_MAX)] {
            assert_eq!(Label::parse(good).unwrap().as_str(), good);
        }
        let deep = ["a"; LABEL_PARTS_MAX + 1].join("/");
        for bad in ["/", "a/", "/a", "a//b", "a b", "a\n", "ä", &deep, &"x".repeat(LABEL_BYTES_MAX + 1)] {
            assert_eq!(Label::parse(bad), Err(LabelError), "{bad:?}");
        }
    }
}
