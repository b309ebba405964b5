//! Reading at the source: numbers become names, and what cannot be carried is said.

use super::accounts::{AccountKind, Directory, Names, NoAnswer, System};
use super::acl::{self, Who};
use super::handle::Handle;
use super::{AttributeKinds, EntryKind, XattrFilter};
use crate::root::Root;
use crate::source::{NamedWhat, Offer, Source};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sealift_proto::limits::{ACL_ENTRIES_MAX, ATTRIBUTES_BYTES_MAX, XATTRS_MAX};
use sealift_proto::manifest::{Acl, AclEntry, AclWho, Attributes, Owner, Xattr, XattrName};
use sealift_proto::path::SafePath;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Something of an entry that is left out of the manifest. Without the entry's path, so that a million of one kind
/// can be counted as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NotCarried {
    /// The owning user or group.
    Owner {
        /// Which of the two.
        kind: AccountKind,
        /// Its number here.
        id: u32,
        /// Whether the system could not say, rather than that it knows no name.
        silent: bool,
    },
    /// An entry of an access control list.
    AclAccount {
        /// Whom it is about.
        kind: AccountKind,
        /// The number here.
        id: u32,
        /// As in [`NotCarried::Owner`].
        silent: bool,
    },
    /// An access control list as a whole.
    Acl {
        /// Why.
        why: NotCarriedWhy,
    },
    /// An extended attribute.
    Xattr {
        /// Its name.
        name: XattrName,
        /// Why.
        why: NotCarriedWhy,
    },
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotCarriedWhy {
    /// There is more of it than a manifest carries.
    TooLarge,
    /// It may not be read.
    Denied,
    /// It is not what it should be.
    Malformed,
}

impl fmt::Display for NotCarriedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "there is more than a manifest carries",
            Self::Denied => "permission denied",
            Self::Malformed => "it is malformed",
        })
    }
}

impl fmt::Display for NotCarried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nameless = |silent: bool| {
            if silent { "whose name could not be looked up" } else { "who has no name here" }
        };
        match self {
            Self::Owner { kind, id, silent } => {
                write!(f, "owner not carried: {} {id}, {}", kind.as_str(), nameless(*silent))
            }
            Self::AclAccount { kind, id, silent } => {
                let kind = kind.as_str();
                write!(f, "entry of an access control list not carried: {kind} {id}, {}", nameless(*silent))
            }
            Self::Acl { why } => write!(f, "access control list not carried: {why}"),
            Self::Xattr { name, why } => write!(f, "extended attribute {name} not carried: {why}"),
        }
    }
}

/// Reads attributes. Made once for a source; share it by `Arc` or by reference. Blocks, since the system may have to
/// ask somebody else for names.
pub struct AttributeReader {
    kinds: AttributeKinds,
    filter: XattrFilter,
    names: Names,
}

impl fmt::Debug for AttributeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttributeReader").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl AttributeReader {
    /// Reads attributes of these kinds, and the extended ones that are allowed.
    #[must_use]
    pub fn new(kinds: AttributeKinds, filter: XattrFilter) -> Self {
        Self::with_accounts(kinds, filter, Box::new(System))
    }

    pub(super) fn with_accounts(
        kinds: AttributeKinds,
        filter: XattrFilter,
        accounts: Box<dyn Directory>,
    ) -> Self {
        Self { kinds, filter, names: Names::new(accounts) }
    }

    /// What is read.
    #[must_use]
    pub fn kinds(&self) -> AttributeKinds {
        self.kinds
    }

    /// Reads an open entry's attributes, and says what of them is not carried. `entry` may have been opened with
    /// O_PATH. Setting attributes moves the ctime: if it is the same before and after (see
    /// [`crate::FileStat::same_version`]), they belong to that version.
    ///
    /// # Errors
    /// What the file system says, other than that it has no such attributes; `InvalidInput` if it is neither a
    /// file nor a directory nor a symbolic link.
    pub fn read(&self, entry: impl AsFd) -> io::Result<(Attributes, Vec<NotCarried>)> {
        self.read_as(&Handle::of(entry.as_fd())?, None)
    }

    fn read_as(
        &self,
        entry: &Handle<'_>,
        expected: Option<EntryKind>,
    ) -> io::Result<(Attributes, Vec<NotCarried>)> {
        let stat = entry.stat()?;
        let kind = EntryKind::of(&stat)
            .filter(|&kind| expected.is_none_or(|expected| expected == kind))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is another kind of entry"))?;
        let mut missing = Vec::new();
        let mut owner = Owner::default();
        if self.kinds.owner {
            let mut name = |kind, id| {
                let name = self.names.of(kind, id);
                name.map_err(|why| missing.push(NotCarried::Owner { kind, id, silent: is_silent(why) })).ok()
            };
            owner.user = name(AccountKind::User, stat.st_uid);
            owner.group = name(AccountKind::Group, stat.st_gid);
        }
        let (mut access, mut default) = (None, None);
        if self.kinds.acls && kind != EntryKind::Symlink {
            access = self.acl(entry, acl::ACCESS, &mut missing)?;
            if kind == EntryKind::Directory {
                default = self.acl(entry, acl::DEFAULT, &mut missing)?;
            }
        }
        let mut xattrs = Vec::new();
        let room = Room::after(&owner, &mut access, &mut default, &mut missing);
        if self.kinds.xattrs && kind != EntryKind::Symlink {
            xattrs = self.xattrs(entry, room, &mut missing)?;
        }
        let attributes = Attributes::new(owner, xattrs, access, default)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((attributes, missing))
    }

    fn acl(&self, entry: &Handle<'_>, name: &[u8], missing: &mut Vec<NotCarried>) -> io::Result<Option<Acl>> {
        let bytes = match entry.xattr(name) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                missing.push(NotCarried::Acl { why: not_readable(error)? });
                return Ok(None);
            }
        };
        let Some(entries) = acl::parse(&bytes) else {
            missing.push(NotCarried::Acl { why: NotCarriedWhy::Malformed });
            return Ok(None);
        };
        let mut named = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut account = |kind, id| {
                let name = self.names.of(kind, id);
                name.map_err(|why| {
                    missing.push(NotCarried::AclAccount { kind, id, silent: is_silent(why) });
                })
                .ok()
            };
            let who = match entry.who {
                Who::Owner => Some(AclWho::Owner),
                Who::User(id) => account(AccountKind::User, id).map(AclWho::User),
                Who::Group => Some(AclWho::Group),
                Who::NamedGroup(id) => account(AccountKind::Group, id).map(AclWho::NamedGroup),
                Who::Mask => Some(AclWho::Mask),
                Who::Other => Some(AclWho::Other),
            };
            if let Some(who) = who
                && let Ok(entry) = AclEntry::new(who, entry.permissions)
            {
                named.push(entry);
            }
        }
        if named.len() > ACL_ENTRIES_MAX {
            // What is left says no less than the mode alone would, and nothing that was not so.
            named.retain(|entry| entry.who().name().is_none());
            missing.push(NotCarried::Acl { why: NotCarriedWhy::TooLarge });
        }
        match Acl::new(named) {
            Ok(acl) => Ok(Some(acl)),
            Err(_) => {
                missing.push(NotCarried::Acl { why: NotCarriedWhy::Malformed });
                Ok(None)
            }
        }
    }

    /// Those that are allowed, by name, as far as they fit.
    fn xattrs(
        &self,
        entry: &Handle<'_>,
        mut room: Room,
        missing: &mut Vec<NotCarried>,
    ) -> io::Result<Vec<Xattr>> {
        let mut names = entry.xattr_names()?;
        names.sort_unstable();
        names.dedup();
        let mut xattrs: Vec<Xattr> = Vec::new();
        for name in names.iter().filter(|name| self.filter.allows(name)) {
            let Ok(parsed) = XattrName::parse(name) else { continue };
            let why = match entry.xattr(name) {
                // Removed meanwhile.
                Ok(None) => continue,
                Ok(Some(value)) if xattrs.len() < XATTRS_MAX && room.take(name, &value) => {
                    xattrs.push(Xattr { name: parsed, value });
                    continue;
                }
                Ok(Some(_)) => NotCarriedWhy::TooLarge,
                Err(error) => not_readable(error)?,
            };
            missing.push(NotCarried::Xattr { name: parsed, why });
        }
        Ok(xattrs)
    }
}

fn is_silent(why: NoAnswer) -> bool {
    why == NoAnswer::Silent
}

/// What is wrong with one attribute, or with the whole entry.
fn not_readable(error: Errno) -> io::Result<NotCarriedWhy> {
    match error {
        Errno::ACCESS | Errno::PERM => Ok(NotCarriedWhy::Denied),
        Errno::RANGE | Errno::TOOBIG => Ok(NotCarriedWhy::TooLarge),
        error => Err(error.into()),
    }
}

/// Bytes that a record has left, never overestimated.
struct Room(usize);

impl Room {
    /// What owner and lists leave. A list that is too large even alone is left out.
    fn after(
        owner: &Owner,
        access: &mut Option<Acl>,
        default: &mut Option<Acl>,
        missing: &mut Vec<NotCarried>,
    ) -> Self {
        // Lengths and counts of everything that is not in a list.
        const FRAME_BYTES: usize = 16;
        let names = [&owner.user, &owner.group];
        let owner_bytes: usize =
            names.iter().filter_map(|name| name.as_ref()).map(|n| n.as_bytes().len()).sum();
        let mut left = ATTRIBUTES_BYTES_MAX - FRAME_BYTES - owner_bytes;
        for list in [access, default] {
            let bytes = list.as_ref().map_or(0, acl_bytes);
            if bytes > left {
                *list = None;
                missing.push(NotCarried::Acl { why: NotCarriedWhy::TooLarge });
            } else {
                left -= bytes;
            }
        }
        Self(left)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> bool {
        match self.0.checked_sub(4 + name.len() + value.len()) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

fn acl_bytes(acl: &Acl) -> usize {
    acl.entries().iter().map(|entry| 4 + entry.who().name().map_or(0, |name| name.as_bytes().len())).sum()
}

impl Source {
    /// Reads the attributes of an offered entry, `None` being the offered directory itself. No symbolic link is
    /// followed, not even the entry itself.
    ///
    /// # Errors
    /// Those of `openat2`; `InvalidInput` if something else than `kind` is there by now.
    pub fn attributes(
        &self,
        path: Option<&SafePath>,
        kind: EntryKind,
        reader: &AttributeReader,
    ) -> io::Result<(Attributes, Vec<NotCarried>)> {
        let entry = self.look_up(path)?;
        reader.read_as(&Handle::of(entry.as_fd())?, Some(kind))
    }

    /// A descriptor that is good for looking at the entry, whatever it is; devices and FIFOs notice nothing.
    pub(super) fn look_up(&self, path: Option<&SafePath>) -> io::Result<OwnedFd> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let whole = |root: &Root| root.dir().try_clone_to_owned();
        let named = match (&self.offer, path) {
            (Offer::Tree(root), None) => return whole(root),
            (Offer::Tree(root), Some(path)) => return root.open_beneath(path, OFlags::PATH),
            (Offer::Named(_), None) => return Err(absent()),
            (Offer::Named(named), Some(path)) => (named, path),
        };
        let (named, path) = named;
        let bytes = path.as_bytes();
        let first = bytes.split(|&byte| byte == b'/').next().unwrap_or_default();
        let found = named.binary_search_by(|item| item.name.as_bytes().cmp(first)).map_err(|_| absent())?;
        match (&named[found].what, bytes.get(first.len() + 1..)) {
            (NamedWhat::FileIn(above), None) => above.open_beneath(path, OFlags::PATH),
            (NamedWhat::FileIn(_), Some(_)) => Err(Errno::NOTDIR.into()),
            (NamedWhat::Tree(root), None) => whole(root),
            (NamedWhat::Tree(root), Some(rest)) => {
                let rest = SafePath::parse(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                root.open_beneath(&rest, OFlags::PATH)
            }
        }
    }
}
