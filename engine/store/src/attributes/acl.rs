//! Access control lists in the kernel's binary form: the value of `system.posix_acl_access` and `…_default`.
//!
//! Never knows names: numbers only. Version 2: a header of four bytes, then eight for each entry, little-endian.

use crate::limits::XATTR_VALUE_BYTES_MAX;

pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of entries that name nobody.
const NOBODY: u32 = u32::MAX;

/// Whom an entry is about, in the order that the kernel demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Owner,
    User(u32),
    Group,
    NamedGroup(u32),
    Mask,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) who: Who,
    /// 0 to 7.
    pub(super) permissions: u8,
}

impl Who {
    fn tag_and_id(self) -> (u16, u32) {
        match self {
            Self::Owner => (0x01, NOBODY),
            Self::User(id) => (0x02, id),
            Self::Group => (0x04, NOBODY),
            Self::NamedGroup(id) => (0x08, id),
            Self::Mask => (0x10, NOBODY),
            Self::Other => (0x20, NOBODY),
        }
    }

    fn from_tag(tag: u16, id: u32) -> Option<Self> {
        Some(match tag {
            0x01 => Self::Owner,
            0x02 => Self::User(id),
            0x04 => Self::Group,
            0x08 => Self::NamedGroup(id),
            0x10 => Self::Mask,
            0x20 => Self::Other,
            _ => return None,
        })
    }
}

/// `None` if it is nothing that we understand.
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (header, entries) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    if u32::from_le_bytes(*header) != VERSION
        || bytes.len() > XATTR_VALUE_BYTES_MAX
        || !entries.len().is_multiple_of(ENTRY_BYTES)
    {
        return None;
    }
    entries.chunks_exact(ENTRY_BYTES).map(entry).collect()
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let &[t0, t1, p0, p1, i0, i1, i2, i3] = bytes else { return None };
    let who = Who::from_tag(u16::from_le_bytes([t0, t1]), u32::from_le_bytes([i0, i1, i2, i3]))?;
    let permissions = u8::try_from(u16::from_le_bytes([p0, p1])).ok().filter(|&bits| bits <= 7)?;
    Some(Entry { who, permissions })
}

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * entries.len());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    for entry in entries {
        let (tag, id) = entry.who.tag_and_id();
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&u16::from(entry.permissions).to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A list that no mode can say, to see whether a file system keeps it.
pub(crate) fn sample() -> Vec<u8> {
    let who = [Who::Owner, Who::User(1), Who::Group, Who::Mask, Who::Other];
    encode(&who.map(|who| Entry { who, permissions: 4 }))
}

/// Whether the list says more than a mode can. One that does not is none: the kernel keeps only the mode.
pub(super) fn is_extended(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| matches!(entry.who, Who::Mask | Who::User(_) | Who::NamedGroup(_)))
}

/// The list as it is beside a mode: what both say, the mode says.
pub(super) fn with_mode(entries: &[Entry], mode: u32) -> Vec<Entry> {
    let bits = |shift: u32| u8::try_from((mode >> shift) & 7).unwrap_or(0);
    let masked = entries.iter().any(|entry| entry.who == Who::Mask);
    let said = |entry: &Entry| match entry.who {
        Who::Owner => bits(6),
        Who::Mask => bits(3),
        Who::Group if !masked => bits(3),
        Who::Other => bits(0),
        _ => entry.permissions,
    };
    entries.iter().map(|entry| Entry { who: entry.who, permissions: said(entry) }).collect()
}

/// What the owning group may do by the list, if the mode's bits for it mean the mask instead.
pub(super) fn group_beneath_mask(entries: &[Entry]) -> Option<u8> {
    is_extended(entries)
        .then(|| entries.iter().find(|entry| entry.who == Who::Group).map(|entry| entry.permissions))
        .flatten()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn any_entry() -> impl Strategy<Value = Entry> {
        let who = prop_oneof![
            Just(Who::Owner),
            any::<u32>().prop_map(Who::User),
            Just(Who::Group),
            any::<u32>().prop_map(Who::NamedGroup),
            Just(Who::Mask),
            Just(Who::Other),
        ];
        (who, 0u8..8).prop_map(|(who, permissions)| Entry {
            // What names nobody has no id that would come back.
            who,
            permissions,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(entries in prop::collection::vec(any_entry(), 0..200)) {
            prop_assert_eq!(parse(&encode(&entries)), Some(entries));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
            let mut versioned = VERSION.to_le_bytes().to_vec();
            versioned.extend_from_slice(&bytes);
            if let Some(entries) = parse(&versioned) {
                prop_assert_eq!(entries.len() * ENTRY_BYTES, bytes.len());
                prop_assert_eq!(parse(&encode(&entries)), Some(entries));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_kernel() {
        let entries = [
            Entry { who: Who::Owner, permissions: 7 },
            Entry { who: Who::User(0x0102), permissions: 5 },
            Entry { who: Who::Other, permissions: 0 },
        ];
        let bytes = encode(&entries);
        assert_eq!(bytes[..4], [2, 0, 0, 0]);
        assert_eq!(bytes[4..12], [1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[12..20], [2, 0, 5, 0, 2, 1, 0, 0]);
        assert_eq!(bytes[20..], [0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        for bad in [&bytes[..3], &bytes[..5], &[1, 0, 0, 0], &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(&[2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0]), None, "permissions above 7");
        let huge = encode(&vec![entries[1]; XATTR_VALUE_BYTES_MAX / ENTRY_BYTES + 1]);
        assert_eq!(parse(&huge), None);
    }

    #[test]
    fn the_mode_has_the_last_word_on_what_both_say() {
        let list = |group, mask| {
            let mut list = vec![
                Entry { who: Who::Owner, permissions: 0 },
                Entry { who: Who::Group, permissions: group },
                Entry { who: Who::Other, permissions: 7 },
            ];
            if let Some(permissions) = mask {
                list.insert(2, Entry { who: Who::Mask, permissions });
            }
            list
        };
        let bits = |list: &[Entry]| list.iter().map(|entry| entry.permissions).collect::<Vec<_>>();
        assert_eq!(bits(&with_mode(&list(1, None), 0o4640)), [6, 4, 0]);
        assert_eq!(bits(&with_mode(&list(1, Some(7)), 0o4640)), [6, 1, 4, 0]);
        assert!(!is_extended(&list(1, None)) && is_extended(&list(1, Some(7))));
        assert_eq!(group_beneath_mask(&list(1, Some(7))), Some(1));
        assert_eq!(group_beneath_mask(&list(1, None)), None);
    }
}
