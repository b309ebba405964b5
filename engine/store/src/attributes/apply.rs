//! Setting what was resolved, through a descriptor, and only what differs.
//!
//! The order matters. The owner comes first, since changing it takes set-id bits and capabilities away. A new access
//! control list is set before the mode, and an old one removed after it: the mode's bits for the group mean the mask
//! while there is a list, so that the other way round the group would have more than it should for a moment. Times
//! are the caller's, last.

use super::map::{
    AttributeMapper, Dropped, DroppedWhat, DroppedWhy, Resolved, SET_GROUP_ID, SET_USER_ID, without_list,
};
use super::{AccountKind, EntryKind, acl, handle::Handle};
use crate::error::FileError;
use crate::replica::Replica;
use crate::stat::{FileStat, PERMISSION_BITS};
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use sealift_proto::manifest::Xattr;
use sealift_proto::path::SafePath;
use std::io;
use std::os::fd::AsFd;

const SET_ID_BITS: u32 = SET_USER_ID | SET_GROUP_ID;

/// What came of setting attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The permission bits that the entry has now. Whoever sets the mode again sets this one.
    pub mode: u32,
    /// Whether anything was changed.
    pub changed: bool,
    /// What could not be set.
    pub dropped: Vec<Dropped>,
}

/// What is to be done about an access control list.
enum ListChange {
    Set(Vec<u8>),
    Remove,
}

/// What is to be done about an entry.
struct Difference<'r> {
    user: Option<u32>,
    group: Option<u32>,
    access: Option<ListChange>,
    mode: bool,
    default: Option<ListChange>,
    set: Vec<&'r Xattr>,
    remove: Vec<Box<[u8]>>,
}

impl Difference<'_> {
    fn is_none(&self) -> bool {
        self.user.is_none()
            && self.group.is_none()
            && self.access.is_none()
            && !self.mode
            && self.default.is_none()
            && self.set.is_empty()
            && self.remove.is_empty()
    }
}

/// Why one attribute was not set, or the error if it concerns the entry as a whole.
fn dropped_why(error: Errno) -> io::Result<DroppedWhy> {
    match error {
        Errno::PERM | Errno::ACCESS => Ok(DroppedWhy::Denied),
        Errno::OPNOTSUPP | Errno::NOSYS => Ok(DroppedWhy::NotSupported),
        // For extended attributes a full inode and a full disk have one name.
        Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG | Errno::RANGE => Ok(DroppedWhy::NoRoom),
        Errno::INVAL | Errno::OVERFLOW => Ok(DroppedWhy::Refused),
        error => Err(error.into()),
    }
}

impl AttributeMapper {
    /// Sets what differs of an open file, directory or symbolic link (O_PATH will do): owner, mode, access control
    /// lists, extended attributes. `mode` is the manifest's, as far as it is allowed, or `None` to leave it; a
    /// symbolic link has none. To be done before the times are set.
    ///
    /// # Errors
    /// What concerns the whole entry, such as a failing disk. What is not permitted, or not known to the file
    /// system, is told in [`Applied::dropped`].
    pub fn apply(&self, entry: impl AsFd, resolved: &Resolved, mode: Option<u32>) -> io::Result<Applied> {
        let handle = Handle::of(entry.as_fd())?;
        let stat = handle.stat()?;
        let kind = EntryKind::of(&stat).ok_or(Errno::INVAL)?;
        self.apply_as(&handle, &stat, kind, resolved, mode)
    }

    /// Whether [`AttributeMapper::apply`] would change anything.
    ///
    /// # Errors
    /// What the file system says.
    pub fn differs(&self, entry: impl AsFd, resolved: &Resolved, mode: Option<u32>) -> io::Result<bool> {
        let handle = Handle::of(entry.as_fd())?;
        let stat = handle.stat()?;
        let kind = EntryKind::of(&stat).ok_or(Errno::INVAL)?;
        let mode = resolved.mode(mode.unwrap_or(stat.st_mode & PERMISSION_BITS));
        Ok(!self.compare(&handle, &stat, kind, resolved, mode)?.is_none())
    }

    fn compare<'r>(
        &self,
        handle: &Handle<'_>,
        stat: &Stat,
        kind: EntryKind,
        resolved: &'r Resolved,
        mode: u32,
    ) -> io::Result<Difference<'r>> {
        let mut difference = Difference {
            user: resolved.user.filter(|&id| id != stat.st_uid),
            group: resolved.group.filter(|&id| id != stat.st_gid),
            access: None,
            mode: false,
            default: None,
            set: Vec::new(),
            remove: Vec::new(),
        };
        if kind == EntryKind::Symlink {
            return Ok(difference);
        }
        difference.mode = stat.st_mode & PERMISSION_BITS != mode & PERMISSION_BITS;
        if self.kinds.acls {
            let access = resolved.access().map(|list| acl::encode(&acl::with_mode(list, mode)));
            difference.access = self.compare_list(handle, acl::ACCESS, access)?;
            if kind == EntryKind::Directory {
                let default = resolved.default_acl().map(acl::encode);
                difference.default = self.compare_list(handle, acl::DEFAULT, default)?;
            }
        }
        if self.kinds.xattrs {
            let there = handle.xattr_names()?;
            for xattr in resolved.xattrs() {
                let name = xattr.name.as_bytes();
                let same = there.iter().any(|there| **there == *name)
                    && handle.xattr(name).is_ok_and(|value| value.as_ref() == Some(&xattr.value));
                if !same {
                    difference.set.push(xattr);
                }
            }
            if self.remove_others {
                let wanted = |name: &[u8]| {
                    resolved.xattrs().binary_search_by(|xattr| xattr.name.as_bytes().cmp(name)).is_ok()
                };
                difference.remove =
                    there.into_iter().filter(|name| self.filter.allows(name) && !wanted(name)).collect();
            }
        }
        Ok(difference)
    }

    fn compare_list(
        &self,
        handle: &Handle<'_>,
        name: &[u8],
        wanted: Option<Vec<u8>>,
    ) -> io::Result<Option<ListChange>> {
        let there = handle.xattr(name)?;
        Ok(match (wanted, there) {
            (Some(wanted), there) if there.as_ref() != Some(&wanted) => Some(ListChange::Set(wanted)),
            (None, Some(_)) if self.remove_others => Some(ListChange::Remove),
            _ => None,
        })
    }

    fn apply_as(
        &self,
        handle: &Handle<'_>,
        stat: &Stat,
        kind: EntryKind,
        resolved: &Resolved,
        mode: Option<u32>,
    ) -> io::Result<Applied> {
        let asked = mode.unwrap_or(stat.st_mode & PERMISSION_BITS);
        let mut mode = resolved.mode(asked);
        let mut difference = self.compare(handle, stat, kind, resolved, mode)?;
        let mut dropped = Vec::new();
        let mut drop = |what, why| dropped.push(Dropped { what, why });
        let changed = !difference.is_none();
        if difference.user.is_some() || difference.group.is_some() {
            let (user, group) = set_owner(handle, difference.user, difference.group)?;
            for (kind, failed, bit) in
                [(AccountKind::User, user, SET_USER_ID), (AccountKind::Group, group, SET_GROUP_ID)]
            {
                if let Err(why) = failed {
                    drop(DroppedWhat::Owner(kind), why);
                    mode &= !bit;
                }
            }
        }
        if kind == EntryKind::Symlink {
            return Ok(Applied { mode: 0, changed, dropped });
        }
        if asked & !mode & SET_ID_BITS != 0 {
            drop(DroppedWhat::SetIdBits, DroppedWhy::OtherOwner);
        }
        if let Some(ListChange::Set(list)) = &difference.access
            && let Err(error) = handle.set_xattr(acl::ACCESS, list)
        {
            drop(DroppedWhat::AccessAcl, dropped_why(error)?);
            mode &= without_list(resolved.access().and_then(acl::group_beneath_mask));
        }
        if changed {
            // A new owner took bits away, a list brought some; only now is it known what is missing.
            difference.mode = handle.stat()?.st_mode & PERMISSION_BITS != mode & PERMISSION_BITS;
        }
        if difference.mode {
            handle.set_mode(mode)?;
        }
        if matches!(difference.access, Some(ListChange::Remove)) && handle.remove_xattr(acl::ACCESS).is_err()
        {
            drop(DroppedWhat::AccessAcl, DroppedWhy::NotRemoved);
        }
        match &difference.default {
            Some(ListChange::Set(list)) => {
                if let Err(error) = handle.set_xattr(acl::DEFAULT, list) {
                    drop(DroppedWhat::DefaultAcl, dropped_why(error)?);
                }
            }
            Some(ListChange::Remove) if handle.remove_xattr(acl::DEFAULT).is_err() => {
                drop(DroppedWhat::DefaultAcl, DroppedWhy::NotRemoved);
            }
            _ => {}
        }
        // First what goes, so that there is room for what comes.
        for name in &difference.remove {
            if handle.remove_xattr(name).is_err()
                && let Ok(name) = sealift_proto::manifest::XattrName::parse(name)
            {
                drop(DroppedWhat::Xattr(name), DroppedWhy::NotRemoved);
            }
        }
        for xattr in difference.set {
            if let Err(error) = handle.set_xattr(xattr.name.as_bytes(), &xattr.value) {
                drop(DroppedWhat::Xattr(xattr.name.clone()), dropped_why(error)?);
            }
        }
        Ok(Applied { mode, changed, dropped })
    }
}

type Set = Result<(), DroppedWhy>;

/// Both in one call if that is permitted, and otherwise each by itself: a group may be one's own.
fn set_owner(handle: &Handle<'_>, user: Option<u32>, group: Option<u32>) -> io::Result<(Set, Set)> {
    let set = |user, group| match handle.set_owner(user, group) {
        Ok(()) => Ok(Ok(())),
        // Not an attribute too large, but a disk too full.
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(io::Error::from(error)),
        Err(error) => Ok(Err(dropped_why(error)?)),
    };
    let both = set(user, group)?;
    if both.is_ok() {
        return Ok((Ok(()), Ok(())));
    }
    if user.is_none() || group.is_none() {
        return Ok((user.map_or(Ok(()), |_| both), group.map_or(Ok(()), |_| both)));
    }
    Ok((set(user, None)?, set(None, group)?))
}

impl Replica {
    /// [`AttributeMapper::apply`] to an entry that is in its place. `expected` is a file as it was looked at, if it
    /// must be that very one.
    ///
    /// # Errors
    /// [`FileError::Changed`] if something else is there by now; otherwise as [`AttributeMapper::apply`].
    pub fn set_attributes(
        &self,
        mapper: &AttributeMapper,
        path: &SafePath,
        kind: EntryKind,
        expected: Option<&FileStat>,
        resolved: &Resolved,
        mode: Option<u32>,
    ) -> Result<Applied, FileError> {
        let changed = || FileError::Changed { path: path.clone() };
        let failed = |source: io::Error| match Errno::from_io_error(&source) {
            Some(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => changed(),
            _ => FileError::from_io(path, source),
        };
        let entry = self.root().open_beneath(path, OFlags::PATH).map_err(failed)?;
        let failed = |source| FileError::from_io(path, source);
        let handle = Handle::of(entry.as_fd()).map_err(|error| failed(error.into()))?;
        let stat = handle.stat().map_err(|error| failed(error.into()))?;
        let same = expected.is_none_or(|expected| FileStat::from_stat(&stat).same_inode(expected));
        if EntryKind::of(&stat) != Some(kind) || !same {
            return Err(changed());
        }
        mapper.apply_as(&handle, &stat, kind, resolved, mode).map_err(failed)
    }

    /// [`AttributeMapper::apply`] to the root itself.
    ///
    /// # Errors
    /// As [`AttributeMapper::apply`].
    pub fn set_root_attributes(
        &self,
        mapper: &AttributeMapper,
        resolved: &Resolved,
        mode: Option<u32>,
    ) -> io::Result<Applied> {
        mapper.apply(self.root().dir(), resolved, mode)
    }
}
