//! What an entry may carry beside mode and time: its owner by name, extended attributes, access control lists.
//!
//! None of these types can hold what a record may not say. Lists are kept in one order, so that equal values have
//! equal bytes.

use super::record::RecordError;
use crate::codec::{Put as _, Reader};
use crate::limits;
use crate::path::escape;
use std::fmt;

/// Why a value is no attribute that can be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// An account's name that breaks the rules of [`AccountName`].
    #[error("an account name is out of range")]
    AccountName,
    /// A name that breaks the rules of [`XattrName`].
    #[error("the name of an extended attribute is out of range")]
    XattrName,
    /// Over [`limits::XATTRS_MAX`].
    #[error("more than {} extended attributes", limits::XATTRS_MAX)]
    TooManyXattrs,
    /// Two extended attributes of one name, or names out of order.
    #[error("extended attributes are out of order, or one comes twice")]
    XattrOrder,
    /// Over [`limits::ACL_ENTRIES_MAX`].
    #[error("an access control list of more than {} entries", limits::ACL_ENTRIES_MAX)]
    TooManyAclEntries,
    /// Two entries of an access control list for one account, or entries out of order.
    #[error("the entries of an access control list are out of order, or one comes twice")]
    AclOrder,
    /// An access control list without owner, group or others, or with named entries and no mask.
    #[error("an access control list is not complete")]
    AclIncomplete,
    /// Permissions above 7.
    #[error("the permissions of an access control list are out of range")]
    Permissions,
    /// Over [`limits::ATTRIBUTES_BYTES_MAX`].
    #[error("the attributes of an entry take more than {} bytes", limits::ATTRIBUTES_BYTES_MAX)]
    TooLarge,
}

/// The name of a user or group: 1 to 255 bytes, none of them NUL, another control character, `/` or `:`.
/// Bytes, not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Box<[u8]>);

impl AccountName {
    /// Checks bytes from outside.
    ///
    /// # Errors
    /// They break a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttributesError> {
        let allowed = |byte: &u8| !byte.is_ascii_control() && !matches!(byte, b'/' | b':');
        let right = (1..=limits::NAME_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(allowed);
        right.then(|| Self(bytes.into())).ok_or(AttributesError::AccountName)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Escaped; see [`escape`].
impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an extended attribute, with its namespace (`user.comment`): 1 to 255 bytes without NUL. Bytes, not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    /// Checks bytes from outside.
    ///
    /// # Errors
    /// They break a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttributesError> {
        let right = (1..=limits::NAME_BYTES_MAX).contains(&bytes.len()) && !bytes.contains(&0);
        right.then(|| Self(bytes.into())).ok_or(AttributesError::XattrName)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Escaped; see [`escape`].
impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who owns an entry, by name: numbers mean nothing on another machine. `None` where it is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Option<AccountName>,
    /// The group.
    pub group: Option<AccountName>,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its name.
    pub name: XattrName,
    /// Its value, which may be empty.
    pub value: Vec<u8>,
}

/// Whom an entry of an access control list is about. The order is that of the entries in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclWho {
    /// The file's owner.
    Owner,
    /// Another user.
    User(AccountName),
    /// The file's group.
    Group,
    /// Another group.
    NamedGroup(AccountName),
    /// The most that [`AclWho::User`], [`AclWho::Group`] and [`AclWho::NamedGroup`] get.
    Mask,
    /// Everybody else.
    Other,
}

/// An entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    who: AclWho,
    permissions: u8,
}

impl AclEntry {
    /// Gives `permissions`: 4 to read, 2 to write, 1 to execute, or a sum of them.
    ///
    /// # Errors
    /// Permissions above 7.
    pub fn new(who: AclWho, permissions: u8) -> Result<Self, AttributesError> {
        if permissions > 7 {
            return Err(AttributesError::Permissions);
        }
        Ok(Self { who, permissions })
    }

    /// Whom it is about.
    #[must_use]
    pub fn who(&self) -> &AclWho {
        &self.who
    }

    /// What they may do: 0 to 7.
    #[must_use]
    pub fn permissions(&self) -> u8 {
        self.permissions
    }
}

/// A POSIX access control list that a kernel would take: owner, group and others once each, nobody twice, and a mask
/// where users or groups are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

impl Acl {
    /// A list of these entries, in any order.
    ///
    /// # Errors
    /// There are too many, one is twice, or one is missing.
    pub fn new(mut entries: Vec<AclEntry>) -> Result<Self, AttributesError> {
        entries.sort_by(|a, b| a.who.cmp(&b.who));
        Self::ordered(entries)
    }

    fn ordered(entries: Vec<AclEntry>) -> Result<Self, AttributesError> {
        if entries.len() > limits::ACL_ENTRIES_MAX {
            return Err(AttributesError::TooManyAclEntries);
        }
        if !entries.is_sorted_by(|a, b| a.who < b.who) {
            return Err(AttributesError::AclOrder);
        }
        let has = |who: &AclWho| entries.iter().any(|entry| entry.who == *who);
        let named = entries.iter().any(|entry| matches!(entry.who, AclWho::User(_) | AclWho::NamedGroup(_)));
        let base = [AclWho::Owner, AclWho::Group, AclWho::Other];
        if !base.iter().all(has) || (named && !has(&AclWho::Mask)) {
            return Err(AttributesError::AclIncomplete);
        }
        Ok(Self(entries))
    }

    /// The entries, ordered by whom they are about.
    #[must_use]
    pub fn entries(&self) -> &[AclEntry] {
        &self.0
    }
}

/// What is kept of an entry beside its content, mode and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    owner: Owner,
    xattrs: Vec<Xattr>,
    access_acl: Option<Acl>,
    default_acl: Option<Acl>,
}

impl Attributes {
    /// Puts them together; extended attributes in any order.
    ///
    /// # Errors
    /// They are too many, too large together, or one is twice.
    pub fn new(
        owner: Owner,
        mut xattrs: Vec<Xattr>,
        access_acl: Option<Acl>,
        default_acl: Option<Acl>,
    ) -> Result<Self, AttributesError> {
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        Self::ordered(owner, xattrs, access_acl, default_acl)
    }

    fn ordered(
        owner: Owner,
        xattrs: Vec<Xattr>,
        access_acl: Option<Acl>,
        default_acl: Option<Acl>,
    ) -> Result<Self, AttributesError> {
        if xattrs.len() > limits::XATTRS_MAX {
            return Err(AttributesError::TooManyXattrs);
        }
        if !xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(AttributesError::XattrOrder);
        }
        let attributes = Self { owner, xattrs, access_acl, default_acl };
        if attributes.encoded_bytes() > limits::ATTRIBUTES_BYTES_MAX {
            return Err(AttributesError::TooLarge);
        }
        Ok(attributes)
    }

    /// Who owns the entry.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Its extended attributes, ordered by name.
    #[must_use]
    pub fn xattrs(&self) -> &[Xattr] {
        &self.xattrs
    }

    /// Who may use it, beyond its mode.
    #[must_use]
    pub fn access_acl(&self) -> Option<&Acl> {
        self.access_acl.as_ref()
    }

    /// What entries made in this directory begin with.
    #[must_use]
    pub fn default_acl(&self) -> Option<&Acl> {
        self.default_acl.as_ref()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn encoded_bytes(&self) -> usize {
        let name = |name: Option<&AccountName>| 1 + name.map_or(0, |name| name.0.len());
        let acl = |acl: Option<&Acl>| {
            let entries = acl.map_or(&[][..], Acl::entries);
            1 + entries.iter().map(|entry| 2 + entry.who.name().map_or(0, |of| name(Some(of)))).sum::<usize>()
        };
        let xattrs: usize =
            self.xattrs.iter().map(|xattr| 1 + xattr.name.0.len() + 2 + xattr.value.len()).sum();
        name(self.owner.user.as_ref())
            + name(self.owner.group.as_ref())
            + 1
            + xattrs
            + acl(self.access_acl.as_ref())
            + acl(self.default_acl.as_ref())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, self.owner.user.as_ref().map_or(&[], AccountName::as_bytes));
        put_name(out, self.owner.group.as_ref().map_or(&[], AccountName::as_bytes));
        out.put_u8(u8::try_from(self.xattrs.len()).expect("within XATTRS_MAX"));
        for xattr in &self.xattrs {
            put_name(out, xattr.name.as_bytes());
            out.put_u16(u16::try_from(xattr.value.len()).expect("within ATTRIBUTES_BYTES_MAX"));
            out.put(&xattr.value);
        }
        for acl in [&self.access_acl, &self.default_acl] {
            let entries = acl.as_ref().map_or(&[][..], Acl::entries);
            out.put_u8(u8::try_from(entries.len()).expect("within ACL_ENTRIES_MAX"));
            for entry in entries {
                out.put_u8(entry.who.code());
                if let Some(name) = entry.who.name() {
                    put_name(out, name.as_bytes());
                }
                out.put_u8(entry.permissions);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let owner = Owner { user: account(reader)?, group: account(reader)? };
        let count = usize::from(reader.u8().ok_or(RecordError::Truncated)?);
        if count > limits::XATTRS_MAX {
            return Err(AttributesError::TooManyXattrs.into());
        }
        let xattrs = (0..count).map(|_| xattr(reader)).collect::<Result<_, _>>()?;
        let (access, default) = (acl(reader)?, acl(reader)?);
        Ok(Self::ordered(owner, xattrs, access, default)?)
    }
}

impl AclWho {
    fn code(&self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::User(_) => 2,
            Self::Group => 3,
            Self::NamedGroup(_) => 4,
            Self::Mask => 5,
            Self::Other => 6,
        }
    }

    /// The account, where one is named.
    #[must_use]
    pub fn name(&self) -> Option<&AccountName> {
        match self {
            Self::User(name) | Self::NamedGroup(name) => Some(name),
            _ => None,
        }
    }
}

fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.put_u8(u8::try_from(name.len()).expect("within NAME_BYTES_MAX"));
    out.put(name);
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], RecordError> {
    let len = usize::from(reader.u8().ok_or(RecordError::Truncated)?);
    reader.take(len).ok_or(RecordError::Truncated)
}

/// No bytes are no name.
fn account(reader: &mut Reader<'_>) -> Result<Option<AccountName>, RecordError> {
    match name(reader)? {
        [] => Ok(None),
        bytes => Ok(Some(AccountName::parse(bytes)?)),
    }
}

fn xattr(reader: &mut Reader<'_>) -> Result<Xattr, RecordError> {
    let name = XattrName::parse(name(reader)?)?;
    let len = usize::from(reader.u16().ok_or(RecordError::Truncated)?);
    Ok(Xattr { name, value: reader.take(len).ok_or(RecordError::Truncated)?.to_vec() })
}

/// No entries are no list.
fn acl(reader: &mut Reader<'_>) -> Result<Option<Acl>, RecordError> {
    let count = usize::from(reader.u8().ok_or(RecordError::Truncated)?);
    if count == 0 {
        return Ok(None);
    }
    if count > limits::ACL_ENTRIES_MAX {
        return Err(AttributesError::TooManyAclEntries.into());
    }
    let entries = (0..count).map(|_| acl_entry(reader)).collect::<Result<_, _>>()?;
    Ok(Some(Acl::ordered(entries)?))
}

fn acl_entry(reader: &mut Reader<'_>) -> Result<AclEntry, RecordError> {
    let who = match reader.u8().ok_or(RecordError::Truncated)? {
        1 => AclWho::Owner,
        2 => AclWho::User(AccountName::parse(name(reader)?)?),
        3 => AclWho::Group,
        4 => AclWho::NamedGroup(AccountName::parse(name(reader)?)?),
        5 => AclWho::Mask,
        6 => AclWho::Other,
        _ => return Err(RecordError::Range("whom an access control list is about")),
    };
    let permissions = reader.u8().ok_or(RecordError::Truncated)?;
    Ok(AclEntry::new(who, permissions)?)
}
