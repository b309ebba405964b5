//! What an entry has beside content, mode and times: owner, extended attributes, access control lists.
//!
//! Owns both directions: [`AttributeReader`] makes what is on this disk into names and bytes that mean something
//! elsewhere; [`AttributeMapper`] makes those into what is meant here, or says why not, and sets it. Everything is
//! done through descriptors that were resolved beneath a root.
//!
//! Never takes a number from a peer for an account, never makes anybody root who was not, and never widens what a
//! mode allows because something beside it could not be carried.

mod accounts;
mod acl;
mod apply;
mod carried;
mod filter;
mod handle;
mod map;
mod read;
#[cfg(test)]
mod tests;

pub use accounts::AccountKind;
pub(crate) use acl::{ACCESS as ACCESS_ACL, sample as sample_acl};
pub use apply::Applied;
pub use carried::{Attributed, DroppedTally};
pub use filter::{XattrFilter, XattrFilterError};
pub use map::{
    AttributeMapper, Dropped, DroppedWhat, DroppedWhy, MapperOptions, OwnerMap, OwnerMapError, Resolved,
};
pub use read::{AttributeReader, NotCarried, NotCarriedWhy};

/// Which of them are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeKinds {
    /// User and group, by name.
    pub owner: bool,
    /// Extended attributes, of those that an [`XattrFilter`] allows.
    pub xattrs: bool,
    /// POSIX access control lists, with the names of users and groups.
    pub acls: bool,
}

impl AttributeKinds {
    /// Whether any is.
    #[must_use]
    pub fn any(self) -> bool {
        self.owner || self.xattrs || self.acls
    }
}

/// What an entry is taken for. If it turns out to be something else, nothing of it is read or set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, never followed. It has an owner, and nothing else.
    Symlink,
}

impl EntryKind {
    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        match crate::stat::kind(stat) {
            rustix::fs::FileType::RegularFile => Some(Self::File),
            rustix::fs::FileType::Directory => Some(Self::Directory),
            rustix::fs::FileType::Symlink => Some(Self::Symlink),
            _ => None,
        }
    }
}
