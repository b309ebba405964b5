//! From what a manifest says to what is meant here: names become numbers, and what may not be set is dropped, with
//! the reason (hazard A7). Nothing is touched on the disk.

use super::accounts::{AccountKind, Directory, Ids, NoAnswer, System};
use super::acl::{self, Who};
use super::{AttributeKinds, XattrFilter};
use crate::stat::PERMISSION_BITS;
use sealift_proto::manifest::{AccountName, Acl, AclWho, Attributes, Xattr, XattrName};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub(super) const SET_USER_ID: u32 = 0o4000;
pub(super) const SET_GROUP_ID: u32 = 0o2000;

/// Other names for some accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerMap {
    map: HashMap<(AccountKind, AccountName), String>,
}

/// Why a mapping of owners cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerMapError {
    /// Not `user:FROM=TO` or `group:FROM=TO`.
    #[error("{given:?} is no mapping of owners: it looks like user:FROM=TO or group:FROM=TO")]
    Form {
        /// As it was given.
        given: String,
    },
    /// Two mappings for one name.
    #[error("{given:?}: that name is mapped already")]
    Twice {
        /// As it was given.
        given: String,
    },
    /// The account that is mapped to does not exist here.
    #[error("there is no {} {to:?} here to map an owner to", kind.as_str())]
    Unknown {
        /// A user or a group.
        kind: AccountKind,
        /// The name, as it was given.
        to: String,
    },
    /// Mapping to root.
    #[error("nobody is mapped to {} {to:?}, which is root", kind.as_str())]
    Root {
        /// A user or a group.
        kind: AccountKind,
        /// The name, as it was given.
        to: String,
    },
}

impl OwnerMap {
    /// Mappings as people write them: `user:FROM=TO`, `group:FROM=TO`. TO is a name or, if no account is called
    /// that, a number.
    ///
    /// # Errors
    /// One of them is not to be understood, or FROM comes twice.
    pub fn parse<S: AsRef<str>>(mappings: &[S]) -> Result<Self, OwnerMapError> {
        let mut map = HashMap::new();
        for mapping in mappings {
            let given = mapping.as_ref();
            let form = || OwnerMapError::Form { given: given.to_owned() };
            let (kind, names) = given.split_once(':').ok_or_else(form)?;
            let kind = match kind {
                "user" => AccountKind::User,
                "group" => AccountKind::Group,
                _ => return Err(form()),
            };
            let (from, to) = names.split_once('=').ok_or_else(form)?;
            let from = AccountName::parse(from.as_bytes()).map_err(|_| form())?;
            if AccountName::parse(to.as_bytes()).is_err() {
                return Err(form());
            }
            if map.insert((kind, from), to.to_owned()).is_some() {
                return Err(OwnerMapError::Twice { given: given.to_owned() });
            }
        }
        Ok(Self { map })
    }
}

/// What an [`AttributeMapper`] may set.
#[derive(Clone, Debug, Default)]
pub struct MapperOptions {
    /// Which kinds are set at all. The others are left alone at the destination, in silence.
    pub kinds: AttributeKinds,
    /// Which extended attributes may be set, or removed.
    pub xattrs: XattrFilter,
    /// Other names for some accounts.
    pub owners: OwnerMap,
    /// Whether what belongs to `root` there may belong to root here. Nothing else ever does.
    pub allow_root: bool,
    /// Whether extended attributes (of those allowed) and access control lists that the source does not have are
    /// removed. Only right if the source carries these kinds.
    pub remove_others: bool,
}

/// What of an entry's attributes is not set, and why. Without the entry's path, so that a million of one kind can be
/// counted as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// What.
    pub what: DroppedWhat,
    /// Why.
    pub why: DroppedWhy,
}

/// What is not set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DroppedWhat {
    /// The owning user or group.
    Owner(AccountKind),
    /// The owning user or group of that name.
    OwnerNamed(AccountKind, AccountName),
    /// The entry of an access control list for that user or group.
    AclAccount(AccountKind, AccountName),
    /// The access control list.
    AccessAcl,
    /// A directory's default access control list.
    DefaultAcl,
    /// An extended attribute.
    Xattr(XattrName),
    /// The mode's set-user-id or set-group-id bit.
    SetIdBits,
}

/// Why it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DroppedWhy {
    /// There is no account of that name here.
    UnknownHere,
    /// The system could not say whether there is such an account.
    NoAnswer,
    /// More unknown names came than are asked for.
    TooManyNames,
    /// It would be root.
    WouldBeRoot,
    /// Two names are one account here; what both may do is what it may do.
    SameAccount,
    /// It is not among what may be set.
    NotAllowed,
    /// This process may not set it.
    Denied,
    /// The file system has no such thing.
    NotSupported,
    /// It is too large for the file system, or the disk is full.
    NoRoom,
    /// The file system refuses this one.
    Refused,
    /// The owner that it was meant for was not set.
    OtherOwner,
    /// One that the source does not have could not be removed.
    NotRemoved,
}

impl fmt::Display for DroppedWhat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(kind) => write!(f, "owning {}", kind.as_str()),
            Self::OwnerNamed(kind, name) => write!(f, "owning {} {name}", kind.as_str()),
            Self::AclAccount(kind, name) => {
                write!(f, "entry of an access control list for {} {name}", kind.as_str())
            }
            Self::AccessAcl => f.write_str("access control list"),
            Self::DefaultAcl => f.write_str("default access control list"),
            Self::Xattr(name) => write!(f, "extended attribute {name}"),
            Self::SetIdBits => f.write_str("set-user-id or set-group-id bit"),
        }
    }
}

impl fmt::Display for DroppedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHere => "there is no such account here",
            Self::NoAnswer => "the account could not be looked up",
            Self::TooManyNames => "too many unknown accounts were named",
            Self::WouldBeRoot => "it would be root here",
            Self::SameAccount => "it is the same account here as another one",
            Self::NotAllowed => "not allowed",
            Self::Denied => "permission denied",
            Self::NotSupported => "the file system has no such thing",
            Self::NoRoom => "too large for the file system, or no space is left",
            Self::Refused => "the file system refuses it",
            Self::OtherOwner => "the owner is not the one that it was meant for",
            Self::NotRemoved => "could not be removed",
        })
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not set: {}", self.what, self.why)
    }
}

/// Attributes as they are meant here, ready to be set. Small if it is only an owner; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    /// The bits that a mode may have.
    mode_mask: u32,
    pub(super) more: Option<Arc<More>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct More {
    /// Ordered by name.
    pub(super) xattrs: Vec<Xattr>,
    pub(super) access: Option<Vec<acl::Entry>>,
    pub(super) default: Option<Vec<acl::Entry>>,
}

impl Default for Resolved {
    fn default() -> Self {
        Self { user: None, group: None, mode_mask: PERMISSION_BITS, more: None }
    }
}

impl Resolved {
    /// The mode that the entry is to have, where the manifest says `mode`. Set-id bits are missing if the owner is not
    /// the one they were meant for, and the group gets what the access control list gives it if that is not set.
    #[must_use]
    pub fn mode(&self, mode: u32) -> u32 {
        mode & self.mode_mask
    }

    /// About how much memory it holds beside its own size.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let Some(more) = &self.more else { return 0 };
        let xattr = |xattr: &Xattr| size_of::<Xattr>() + xattr.name.as_bytes().len() + xattr.value.len();
        let list =
            |list: &Option<Vec<acl::Entry>>| list.as_ref().map_or(0, Vec::len) * size_of::<acl::Entry>();
        size_of::<More>()
            + more.xattrs.iter().map(xattr).sum::<usize>()
            + list(&more.access)
            + list(&more.default)
    }

    pub(super) fn xattrs(&self) -> &[Xattr] {
        self.more.as_ref().map_or(&[], |more| &more.xattrs)
    }

    pub(super) fn access(&self) -> Option<&[acl::Entry]> {
        self.more.as_ref().and_then(|more| more.access.as_deref())
    }

    pub(super) fn default_acl(&self) -> Option<&[acl::Entry]> {
        self.more.as_ref().and_then(|more| more.default.as_deref())
    }
}

/// Decides which attributes are set and as what, and sets them. Made once for a run; share it by `Arc` or by
/// reference. Blocks, since the system may have to ask somebody else for accounts.
pub struct AttributeMapper {
    pub(super) kinds: AttributeKinds,
    pub(super) filter: XattrFilter,
    pub(super) remove_others: bool,
    allow_root: bool,
    ids: Ids,
    mapped: HashMap<(AccountKind, AccountName), u32>,
}

impl fmt::Debug for AttributeMapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttributeMapper").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl AttributeMapper {
    /// A mapper with these options.
    ///
    /// # Errors
    /// An owner is mapped to an account that does not exist, or to root.
    pub fn new(options: MapperOptions) -> Result<Self, OwnerMapError> {
        Self::with_accounts(options, Box::new(System))
    }

    pub(super) fn with_accounts(
        options: MapperOptions,
        accounts: Box<dyn Directory>,
    ) -> Result<Self, OwnerMapError> {
        let ids = Ids::new(accounts);
        let mut mapped = HashMap::with_capacity(options.owners.map.len());
        for ((kind, from), to) in options.owners.map {
            let known = AccountName::parse(to.as_bytes()).ok().and_then(|name| ids.of(kind, &name).ok());
            let id = known.or_else(|| to.parse().ok().filter(|&id| id != u32::MAX));
            match id {
                None => return Err(OwnerMapError::Unknown { kind, to }),
                Some(0) => return Err(OwnerMapError::Root { kind, to }),
                Some(id) => mapped.insert((kind, from), id),
            };
        }
        Ok(Self {
            kinds: options.kinds,
            filter: options.xattrs,
            remove_others: options.remove_others,
            allow_root: options.allow_root,
            ids,
            mapped,
        })
    }

    /// What is set.
    #[must_use]
    pub fn kinds(&self) -> AttributeKinds {
        self.kinds
    }

    /// What an entry's attributes are here, and what of them is not to be set.
    #[must_use]
    pub fn resolve(&self, attributes: &Attributes) -> (Resolved, Vec<Dropped>) {
        let mut resolved = Resolved::default();
        let mut dropped = Vec::new();
        if self.kinds.owner {
            let owner = attributes.owner();
            let mut set = |kind, name: &Option<AccountName>, bit: u32| {
                // Who is not named has no name there: what the bit grants is not meant for somebody else here.
                let id = name.as_ref().and_then(|name| {
                    self.id_of(kind, name)
                        .map_err(|why| {
                            let what = DroppedWhat::OwnerNamed(kind, name.clone());
                            dropped.push(Dropped { what, why });
                        })
                        .ok()
                });
                if id.is_none() {
                    resolved.mode_mask &= !bit;
                }
                id
            };
            let user = set(AccountKind::User, &owner.user, SET_USER_ID);
            let group = set(AccountKind::Group, &owner.group, SET_GROUP_ID);
            (resolved.user, resolved.group) = (user, group);
        }
        let mut more = More::default();
        if self.kinds.xattrs {
            for xattr in attributes.xattrs() {
                if may_be_set(&self.filter, xattr.name.as_bytes()) {
                    more.xattrs.push(xattr.clone());
                } else {
                    let what = DroppedWhat::Xattr(xattr.name.clone());
                    dropped.push(Dropped { what, why: DroppedWhy::NotAllowed });
                }
            }
        }
        if self.kinds.acls {
            more.access = attributes.access_acl().map(|acl| self.resolve_acl(acl, &mut dropped));
            more.access = more.access.filter(|list| acl::is_extended(list));
            more.default = attributes.default_acl().map(|acl| self.resolve_acl(acl, &mut dropped));
        } else if let Some(acl) = attributes.access_acl() {
            resolved.mode_mask &= without_list(group_permissions(acl));
        }
        if more != More::default() {
            resolved.more = Some(Arc::new(more));
        }
        (resolved, dropped)
    }

    fn id_of(&self, kind: AccountKind, name: &AccountName) -> Result<u32, DroppedWhy> {
        // An id that the user of this program named; never 0.
        if !self.mapped.is_empty()
            && let Some(&id) = self.mapped.get(&(kind, name.clone()))
        {
            return Ok(id);
        }
        match self.ids.of(kind, name) {
            Ok(0) if !(self.allow_root && name.as_bytes() == b"root") => Err(DroppedWhy::WouldBeRoot),
            Ok(id) => Ok(id),
            Err(NoAnswer::Unknown) => Err(DroppedWhy::UnknownHere),
            Err(NoAnswer::Silent) => Err(DroppedWhy::NoAnswer),
            Err(NoAnswer::TooMany) => Err(DroppedWhy::TooManyNames),
        }
    }

    fn resolve_acl(&self, acl: &Acl, dropped: &mut Vec<Dropped>) -> Vec<acl::Entry> {
        let mut entries: Vec<acl::Entry> = Vec::with_capacity(acl.entries().len());
        for entry in acl.entries() {
            let permissions = entry.permissions();
            let mut account = |kind, name: &AccountName| {
                let id = self.id_of(kind, name);
                let mut drop = |why| {
                    dropped.push(Dropped { what: DroppedWhat::AclAccount(kind, name.clone()), why });
                };
                let id = id.map_err(&mut drop).ok()?;
                let who = match kind {
                    AccountKind::User => Who::User(id),
                    AccountKind::Group => Who::NamedGroup(id),
                };
                if let Some(same) = entries.iter_mut().find(|entry| entry.who == who) {
                    same.permissions &= permissions;
                    drop(DroppedWhy::SameAccount);
                    return None;
                }
                Some(who)
            };
            let who = match entry.who() {
                AclWho::Owner => Some(Who::Owner),
                AclWho::User(name) => account(AccountKind::User, name),
                AclWho::Group => Some(Who::Group),
                AclWho::NamedGroup(name) => account(AccountKind::Group, name),
                AclWho::Mask => Some(Who::Mask),
                AclWho::Other => Some(Who::Other),
            };
            entries.extend(who.map(|who| acl::Entry { who, permissions }));
        }
        entries.sort_unstable();
        entries
    }
}

/// Never a list in the guise of an attribute.
fn may_be_set(filter: &XattrFilter, name: &[u8]) -> bool {
    filter.allows(name) && name != acl::ACCESS && name != acl::DEFAULT
}

/// What the owning group may do by a list that has a mask.
fn group_permissions(acl: &Acl) -> Option<u8> {
    let find = |who: &AclWho| acl.entries().iter().find(|entry| entry.who() == who);
    find(&AclWho::Mask).and_then(|_| find(&AclWho::Group)).map(|entry| entry.permissions())
}

/// The bits that a mode may have if the list beside it is not set: its group's bits are the list's mask, which may be
/// more than the group was given.
pub(super) fn without_list(group: Option<u8>) -> u32 {
    group.map_or(PERMISSION_BITS, |group| PERMISSION_BITS & (!0o070 | u32::from(group) << 3))
}

#[cfg(test)]
mod tests {
    use super::super::accounts::tests::{Made, account};
    use super::*;
    use proptest::prelude::*;
    use sealift_proto::limits;
    use sealift_proto::manifest::{AclEntry, Owner};

    fn made() -> Made {
        Made::new(&[(0, "root"), (0, "toor"), (7, "alice"), (7, "alias"), (8, "bob")])
    }

    const ALL: AttributeKinds = AttributeKinds { owner: true, xattrs: true, acls: true };

    fn mapper(options: MapperOptions) -> AttributeMapper {
        AttributeMapper::with_accounts(options, Box::new(made())).unwrap()
    }

    fn owned(user: &str, group: &str) -> Attributes {
        let name = |name: &str| (!name.is_empty()).then(|| account(name));
        Attributes::new(Owner { user: name(user), group: name(group) }, vec![], None, None).unwrap()
    }

    fn why(dropped: &[Dropped]) -> Vec<DroppedWhy> {
        dropped.iter().map(|dropped| dropped.why).collect()
    }

    fn list(entries: &[(AclWho, u8)]) -> Acl {
        let entries = entries.iter().map(|(who, bits)| AclEntry::new(who.clone(), *bits).unwrap());
        Acl::new(entries.collect()).unwrap()
    }

    #[test]
    fn a7_owners_go_by_name_and_never_become_root() {
        let map = mapper(MapperOptions { kinds: ALL, ..Default::default() });
        let (resolved, dropped) = map.resolve(&owned("alice", "bob"));
        assert_eq!((resolved.user, resolved.group, dropped.len()), (Some(7), Some(8), 0));
        assert_eq!(resolved.mode(0o7777), 0o7777);
        for root in ["root", "toor"] {
            let (resolved, dropped) = map.resolve(&owned(root, root));
            assert_eq!((resolved.user, resolved.group), (None, None));
            assert_eq!(why(&dropped), [DroppedWhy::WouldBeRoot; 2]);
            assert_eq!(resolved.mode(0o7777), 0o1777, "no set-id bits for another owner");
        }
        let allowing = mapper(MapperOptions { kinds: ALL, allow_root: true, ..Default::default() });
        assert_eq!(allowing.resolve(&owned("root", "root")).0.user, Some(0));
        let (resolved, dropped) = allowing.resolve(&owned("toor", "root"));
        assert_eq!((resolved.user, resolved.group), (None, Some(0)), "only root itself is root");
        assert_eq!(dropped[0].to_string(), "owning user toor not set: it would be root here");
    }

    #[test]
    fn a7_unknown_owners_are_dropped_and_told() {
        let map = mapper(MapperOptions { kinds: ALL, allow_root: true, ..Default::default() });
        let (resolved, dropped) = map.resolve(&owned("mallory", "0"));
        assert_eq!((resolved.user, resolved.group), (None, None));
        assert_eq!(why(&dropped), [DroppedWhy::UnknownHere; 2]);
        let (resolved, dropped) = map.resolve(&owned("", "bob"));
        assert_eq!((resolved.user, resolved.group, dropped.len()), (None, Some(8), 0));
        assert_eq!(resolved.mode(0o6755), 0o2755);
        let silent = Made { silent: true, ..made() };
        let options = MapperOptions { kinds: ALL, ..Default::default() };
        let silent = AttributeMapper::with_accounts(options, Box::new(silent)).unwrap();
        assert_eq!(why(&silent.resolve(&owned("alice", "")).1), [DroppedWhy::NoAnswer]);
    }

    #[test]
    fn a7_what_was_not_asked_for_is_left_alone() {
        let map = mapper(MapperOptions::default());
        let (resolved, dropped) = map.resolve(&owned("alice", "bob"));
        assert_eq!((&resolved, dropped.len()), (&Resolved::default(), 0));
        assert_eq!(resolved.mode(0o6755), 0o6755);
    }

    #[test]
    fn accounts_can_be_given_other_names() {
        let owners = OwnerMap::parse(&["user:mallory=alice", "group:mallory=4711", "user:root=bob"]).unwrap();
        let map = mapper(MapperOptions { kinds: ALL, owners, ..Default::default() });
        let (resolved, dropped) = map.resolve(&owned("mallory", "mallory"));
        assert_eq!((resolved.user, resolved.group, dropped.len()), (Some(7), Some(4711), 0));
        assert_eq!(map.resolve(&owned("root", "bob")).0.user, Some(8));
        for bad in ["", "alice=bob", "user:alice", "user:=bob", "user:alice=", "owner:a=b", "user:a=b:c"] {
            assert!(matches!(OwnerMap::parse(&[bad]), Err(OwnerMapError::Form { .. })), "{bad}");
        }
        let twice = OwnerMap::parse(&["user:a=alice", "user:a=bob"]);
        assert!(matches!(twice, Err(OwnerMapError::Twice { .. })));
    }

    #[test]
    fn a7_nobody_is_mapped_to_root() {
        let made = |mapping: &str| {
            let owners = OwnerMap::parse(&[mapping]).unwrap();
            let options = MapperOptions { kinds: ALL, owners, allow_root: true, ..Default::default() };
            AttributeMapper::with_accounts(options, Box::new(made())).unwrap_err()
        };
        for mapping in ["user:alice=root", "group:alice=toor", "user:alice=0", "user:root=00"] {
            assert!(matches!(made(mapping), OwnerMapError::Root { .. }), "{mapping}");
        }
        for mapping in ["user:alice=nobody here", "user:alice=-1", "user:alice=4294967295"] {
            assert!(matches!(made(mapping), OwnerMapError::Unknown { .. }), "{mapping}");
        }
    }

    #[test]
    fn a7_attributes_with_power_over_the_machine_are_dropped() {
        let names = ["security.capability", "system.posix_acl_access", "trusted.x", "user.a"];
        let xattr = |name: &&str| Xattr { name: XattrName::parse(name.as_bytes()).unwrap(), value: vec![1] };
        let attributes =
            Attributes::new(Owner::default(), names.iter().map(xattr).collect(), None, None).unwrap();
        let set = |xattrs: XattrFilter| {
            let map = mapper(MapperOptions { kinds: ALL, xattrs, ..Default::default() });
            let (resolved, dropped) = map.resolve(&attributes);
            assert_eq!(resolved.xattrs().len() + dropped.len(), names.len());
            resolved.xattrs().iter().map(|xattr| xattr.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(set(XattrFilter::default()), ["user.a"]);
        let explicit = XattrFilter::parse(&["security.capability"]).unwrap();
        assert_eq!(set(explicit), ["security.capability"]);
        assert!(!may_be_set(&XattrFilter::default(), acl::DEFAULT));
    }

    #[test]
    fn lists_are_mapped_and_two_names_of_one_account_get_what_both_may() {
        let access = list(&[
            (AclWho::Owner, 7),
            (AclWho::User(account("alice")), 7),
            (AclWho::User(account("alias")), 5),
            (AclWho::User(account("mallory")), 7),
            (AclWho::User(account("root")), 7),
            (AclWho::Group, 0),
            (AclWho::NamedGroup(account("bob")), 4),
            (AclWho::Mask, 7),
            (AclWho::Other, 0),
        ]);
        let plain = list(&[(AclWho::Owner, 7), (AclWho::Group, 5), (AclWho::Other, 0)]);
        let attributes = |access| Attributes::new(Owner::default(), vec![], Some(access), None).unwrap();
        let map = mapper(MapperOptions { kinds: ALL, ..Default::default() });
        let (resolved, dropped) = map.resolve(&attributes(access.clone()));
        let entry = |who, permissions| acl::Entry { who, permissions };
        assert_eq!(
            resolved.access().unwrap(),
            [
                entry(Who::Owner, 7),
                entry(Who::User(7), 5),
                entry(Who::Group, 0),
                entry(Who::NamedGroup(8), 4),
                entry(Who::Mask, 7),
                entry(Who::Other, 0)
            ]
        );
        let expected = [DroppedWhy::SameAccount, DroppedWhy::UnknownHere, DroppedWhy::WouldBeRoot];
        let mut whys = why(&dropped);
        whys.sort_by_key(|why| expected.iter().position(|expected| expected == why));
        assert_eq!(whys, expected);
        // What a mode can say needs no list.
        assert_eq!(map.resolve(&attributes(plain)).0.access(), None);
        // The group had nothing; the mask, which the mode shows in its place, is not what it gets.
        let without = mapper(MapperOptions::default()).resolve(&attributes(access)).0;
        assert_eq!(without.mode(0o4770), 0o4700);
    }

    fn any_name() -> impl Strategy<Value = AccountName> {
        let allowed = |byte: &u8| AccountName::parse(&[*byte]).is_ok();
        let bytes: Vec<u8> = (0..=u8::MAX).filter(allowed).collect();
        let hostile = prop::collection::vec(prop::sample::select(bytes), 1..=limits::NAME_BYTES_MAX);
        let usual = prop::sample::select(vec!["root", "toor", "alice", "alias", "bob"]);
        prop_oneof![hostile.prop_map(|bytes| AccountName::parse(&bytes).unwrap()), usual.prop_map(account),]
    }

    fn any_acl() -> impl Strategy<Value = Acl> {
        let who = prop_oneof![any_name().prop_map(AclWho::User), any_name().prop_map(AclWho::NamedGroup)];
        prop::collection::vec((who, 0u8..8), 0..=limits::ACL_ENTRIES_MAX - 4).prop_filter_map(
            "an account twice",
            |named| {
                let base = [AclWho::Owner, AclWho::Group, AclWho::Mask, AclWho::Other].map(|who| (who, 6));
                let entries = named.into_iter().chain(base);
                let entries = entries.map(|(who, bits)| AclEntry::new(who, bits).unwrap());
                let mut entries: Vec<AclEntry> = entries.collect();
                entries.sort_by(|a, b| a.who().cmp(b.who()));
                entries.dedup_by(|a, b| a.who() == b.who());
                Acl::new(entries).ok()
            },
        )
    }

    fn any_attributes() -> impl Strategy<Value = Attributes> {
        let name = prop_oneof![
            prop::collection::vec(1u8.., 1..=limits::NAME_BYTES_MAX),
            "(user|security|trusted|system)\\.[a-z]{1,4}".prop_map(String::into_bytes),
        ];
        let xattrs = prop::collection::btree_map(
            name,
            prop::collection::vec(any::<u8>(), 0..400),
            0..=limits::XATTRS_MAX,
        );
        let owner = (prop::option::of(any_name()), prop::option::of(any_name()));
        (owner, xattrs, prop::option::of(any_acl()), prop::option::of(any_acl())).prop_filter_map(
            "too large",
            |((user, group), xattrs, access, default)| {
                let xattr = |(name, value): (Vec<u8>, _)| {
                    XattrName::parse(&name).ok().map(|name| Xattr { name, value })
                };
                let xattrs = xattrs.into_iter().filter_map(xattr).collect();
                Attributes::new(Owner { user, group }, xattrs, access, default).ok()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a7_whatever_a_peer_says_nothing_is_root_and_only_allowed_attributes_are_left(
            attributes in any_attributes(),
        ) {
            let map = mapper(MapperOptions { kinds: ALL, ..Default::default() });
            let (resolved, dropped) = map.resolve(&attributes);
            prop_assert!(resolved.user != Some(0) && resolved.group != Some(0));
            prop_assert!(resolved.xattrs().iter().all(|xattr| xattr.name.as_bytes().starts_with(b"user.")));
            for list in [resolved.access(), resolved.default_acl()].into_iter().flatten() {
                let names_root = |entry: &acl::Entry| matches!(entry.who, Who::User(0) | Who::NamedGroup(0));
                prop_assert!(!list.iter().any(names_root));
                prop_assert!(list.is_sorted_by(|a, b| a.who < b.who));
                prop_assert_eq!(acl::parse(&acl::encode(list)), Some(list.to_vec()));
            }
            prop_assert!(resolved.held_bytes() < 2 * limits::ATTRIBUTES_BYTES_MAX);
            for dropped in dropped {
                let text = dropped.to_string();
                prop_assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
}
