//! Records of any content, and bytes that were changed anywhere.

use super::*;
use crate::digest::RootHash;
use proptest::prelude::*;

fn any_record() -> impl Strategy<Value = Record> {
    let path = "[a-z]{1,8}(/[a-z]{1,8}){0,3}".prop_map(|text| path(&text));
    let metadata = (0..0o10000_u32, -1_000_000_000_000_i64..200_000_000_000, 0..1_000_000_000_u32).prop_map(
        |(mode, seconds, nanos)| Metadata {
            mode: Mode::from_bits(mode),
            mtime: Timestamp::clamped(seconds, nanos),
        },
    );
    let id = any::<u64>().prop_map(FileId);
    let hash = any::<[u8; 32]>().prop_map(BlockHash);
    prop_oneof![
        metadata.clone().prop_map(Record::Root),
        (id.clone(), path.clone(), metadata.clone()).prop_map(|(id, path, metadata)| Record::Directory {
            id,
            path,
            metadata
        }),
        (id.clone(), path.clone(), metadata.clone(), 0..1_u64 << 36).prop_map(
            |(id, path, metadata, size)| {
                let layout = Layout::new(size, BlockSize::for_file(size)).expect("in range");
                Record::File { id, path, metadata, layout }
            }
        ),
        (id.clone(), proptest::collection::vec((0..1_u64 << 40, 1..1_u64 << 40), 1..8)).prop_map(
            |(id, holes)| {
                let holes = holes.into_iter().map(|(offset, len)| Hole { offset, len }).collect();
                Record::Holes { id, holes }
            }
        ),
        (id.clone(), any::<u32>(), proptest::collection::vec(hash.clone(), 1..40))
            .prop_map(|(id, first, hashes)| Record::Hashes { id, first: BlockIndex(first), hashes }),
        (id.clone(), any::<[u8; 32]>()).prop_map(|(id, root)| Record::Sealed { id, root: RootHash(root) }),
        (id.clone(), path.clone(), metadata, 0..=32_768_u64, hash).prop_map(
            |(id, path, metadata, size, hash)| {
                let layout = Layout::new(size, BlockSize::MIN).expect("one block");
                Record::SmallFile { id, path, metadata, layout, hash }
            }
        ),
        (id.clone(), path.clone(), "[^\0]{1,40}").prop_map(|(id, path, target)| Record::Symlink {
            id,
            path,
            mtime: Timestamp::clamped(0, 0),
            target: target.into_bytes()
        }),
        (id.clone(), path.clone(), path.clone()).prop_map(|(id, path, target)| Record::Hardlink {
            id,
            path,
            target
        }),
        (id, path).prop_map(|(id, path)| Record::Withdrawn { id, path, reason: WithdrawReason::Vanished }),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|shown_path| Record::Problem { shown_path, problem: Problem::Changed }),
        any::<u64>().prop_map(|entries| Record::End { entries }),
        (proptest::option::of(any::<u64>().prop_map(FileId)), any_attributes())
            .prop_map(|(id, attributes)| Record::Attributes { id, attributes }),
    ]
}

fn any_account() -> impl Strategy<Value = AccountName> {
    proptest::collection::vec(any::<u8>(), 1..12)
        .prop_filter_map("not a name", |bytes| AccountName::parse(&bytes).ok())
}

fn any_acl() -> impl Strategy<Value = Acl> {
    let named = proptest::collection::vec((any::<bool>(), any_account(), 0..8_u8), 0..6);
    (named, proptest::array::uniform4(0..8_u8)).prop_filter_map("somebody twice", |(named, [a, b, c, d])| {
        let base = [(AclWho::Owner, a), (AclWho::Group, b), (AclWho::Mask, c), (AclWho::Other, d)];
        let named = named.into_iter().map(|(user, name, permissions)| {
            (if user { AclWho::User(name) } else { AclWho::NamedGroup(name) }, permissions)
        });
        let entry = |(who, permissions)| AclEntry::new(who, permissions).expect("0 to 7");
        Acl::new(base.into_iter().chain(named).map(entry).collect()).ok()
    })
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    use proptest::collection::vec;
    use proptest::option::of;
    let xattr = (vec(1..=255_u8, 1..20), vec(any::<u8>(), 0..300))
        .prop_map(|(name, value)| Xattr { name: XattrName::parse(&name).expect("no NUL"), value });
    (of(any_account()), of(any_account()), vec(xattr, 0..6), of(any_acl()), of(any_acl())).prop_filter_map(
        "one name twice",
        |(user, group, xattrs, access, default)| {
            Attributes::new(Owner { user, group }, xattrs, access, default).ok()
        },
    )
}

proptest! {
    #[test]
    fn records_round_trip_and_every_cut_is_an_error(record in any_record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut reader = crate::codec::Reader::new(&bytes);
        prop_assert_eq!(Record::decode(&mut reader), Ok(record));
        prop_assert!(reader.is_empty());
        let cut = cut.index(bytes.len());
        prop_assert!(Record::decode(&mut crate::codec::Reader::new(&bytes[..cut])).is_err());
    }

    #[test]
    fn mutated_records_never_panic(record in any_record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Record::decode(&mut crate::codec::Reader::new(&bytes));
    }

    #[test]
    fn arbitrary_records_in_signed_segments_never_panic(records in proptest::collection::vec(any_record(), 0..20)) {
        let mut writer = writer();
        let _ = catalog().admit(&sealed(&mut writer, &records));
    }

    #[test]
    fn an_altered_segment_is_never_admitted(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut segment = sealed(&mut writer(), &everything());
        let at = at.index(segment.len());
        segment[at] ^= 1 << bit;
        prop_assert!(catalog().admit(&segment).is_err());
    }
}
