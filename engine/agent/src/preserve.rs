//! What is kept of an entry beside its name and content: the words of `--preserve`.

use std::fmt;
use std::str::FromStr;

/// Something that an entry has beside its name and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Permissions.
    Mode,
    /// Modification times.
    Times,
    /// Symbolic links.
    Links,
    /// That several names are one file.
    Hardlinks,
    /// Holes.
    Sparse,
    /// User and group, by name.
    Owner,
    /// Extended attributes.
    Xattrs,
    /// POSIX access control lists.
    Acls,
}

impl Aspect {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Mode,
        Self::Times,
        Self::Links,
        Self::Hardlinks,
        Self::Sparse,
        Self::Owner,
        Self::Xattrs,
        Self::Acls,
    ];

    /// The word that stands for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Times => "times",
            Self::Links => "links",
            Self::Hardlinks => "hardlinks",
            Self::Sparse => "sparse",
            Self::Owner => "owner",
            Self::Xattrs => "xattrs",
            Self::Acls => "acls",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of aspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preserve(u16);

/// A word that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of default, all, none, mode, times, links, hardlinks, sparse, owner, xattrs, acls")]
pub struct PreserveError(String);

impl Preserve {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Everything there is.
    #[must_use]
    pub fn all() -> Self {
        Aspect::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// The set and one more.
    #[must_use]
    pub fn with(self, aspect: Aspect) -> Self {
        Self(self.0 | aspect.bit())
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn has(self, aspect: Aspect) -> bool {
        self.0 & aspect.bit() != 0
    }
}

/// What is kept unless the user says otherwise.
impl Default for Preserve {
    fn default() -> Self {
        use Aspect::{Hardlinks, Links, Mode, Sparse, Times};
        [Mode, Times, Links, Hardlinks, Sparse].into_iter().fold(Self::NONE, Self::with)
    }
}

/// Words joined by commas: aspects, `default`, `all`, `none`.
impl FromStr for Preserve {
    type Err = PreserveError;

    fn from_str(text: &str) -> Result<Self, PreserveError> {
        text.split(',').try_fold(Self::NONE, |set, word| match word {
            "default" => Ok(Self(set.0 | Self::default().0)),
            "all" => Ok(Self::all()),
            "none" => Ok(set),
            _ => Aspect::ALL
                .into_iter()
                .find(|aspect| aspect.word() == word)
                .map(|aspect| set.with(aspect))
                .ok_or_else(|| PreserveError(word.to_owned())),
        })
    }
}

impl fmt::Display for Preserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Aspect::ALL.into_iter().filter(|&aspect| self.has(aspect)).map(Aspect::word);
        let joined = words.collect::<Vec<_>>().join(",");
        f.write_str(if joined.is_empty() { "none" } else { &joined })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aspects_and_sets_of_them() {
        let parse = |text: &str| text.parse::<Preserve>();
        assert_eq!(parse("default"), Ok(Preserve::default()));
        assert_eq!(parse("mode,times,links,hardlinks,sparse"), Ok(Preserve::default()));
        assert_eq!(parse("acls,default,owner,xattrs"), parse("all"));
        assert_eq!(parse("owner,mode").unwrap().to_string(), "mode,owner");
        assert_eq!(parse("none").unwrap(), Preserve::NONE);
        assert_eq!(parse("none").unwrap().to_string(), "none");
        assert!(!Preserve::default().has(Aspect::Owner) && Preserve::all().has(Aspect::Owner));
        for wrong in ["", "mode,", "Mode", "mode owner", "times,uid"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("uid").unwrap_err().to_string().contains("'uid' is none of default, all, none"));
    }
}
