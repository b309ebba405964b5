//! Names of agents, groups, jobs, users and tokens.

use super::limits::NAME_CHARS_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// A name of the form of a DNS name: 1 to 63 characters, lower-case letters, digits, and, between them, `-` and `.`.
/// So it is safe to print, to put into a path, and to tell from an id. Two dots do not follow each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(
    value_type = String,
    min_length = 1,
    max_length = 63,
    pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
    examples("db1.dc2")
)]
pub struct Name(String);

/// The text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a name has 1 to 63 characters: lower-case letters and digits, and '-' and '.' between them",
        )
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let label = |label: &str| {
            let bytes = label.as_bytes();
            let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
            ends && bytes.iter().all(|b| plain(*b) || *b == b'-')
        };
        let whole = text.len() <= NAME_CHARS_MAX && text.split('.').all(label);
        whole.then_some(Self(text)).ok_or(NameError)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_form_of_dns() {
        let longest = "a".repeat(63);
        for name in ["a", "0", "web-1", "db1.dc2.example", "a--b", &longest] {
            assert_eq!(name.parse::<Name>().map(String::from), Ok(name.to_owned()));
        }
        let too_long = "a".repeat(64);
        let wrong =
            ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a.", "a/b", "a b", "ä", "a\n", "a.-b", &too_long];
        for name in wrong {
            assert_eq!(name.parse::<Name>(), Err(NameError), "{name:?}");
        }
    }
}
