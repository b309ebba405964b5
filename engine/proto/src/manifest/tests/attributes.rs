//! Owners, extended attributes and access control lists in a manifest.

use super::*;

#[test]
fn attributes_belong_to_the_very_next_entry() {
    let of = |id: Option<u64>, attributes: Attributes| Record::Attributes { id: id.map(FileId), attributes };
    let hardlink = Record::Hardlink { id: FileId(1), path: path("l"), target: path("f") };
    let problem = Record::Problem { shown_path: vec![], problem: Problem::Special };
    let before = "before what has none";
    let other = "before another entry than theirs";
    for (records, why) in [
        (vec![small(0, "f"), of(Some(1), owned()), hardlink], before),
        (vec![of(Some(0), owned()), of(Some(0), owned()), small(0, "f")], before),
        (vec![of(Some(0), owned()), problem, small(0, "f")], before),
        (vec![of(None, owned()), Record::End { entries: 0 }], before),
        (vec![of(Some(1), owned()), small(0, "f")], other),
        (vec![small(0, "f"), of(Some(0), owned()), small(1, "g")], other),
        (vec![of(None, owned()), small(0, "f")], other),
        (vec![of(Some(0), owned()), Record::Root(metadata())], other),
        (vec![of(Some(0), attributes()), small(0, "f")], "of what is no directory"),
        (vec![of(Some(0), attributes()), big(0, "f", 40_000)], "of what is no directory"),
        (vec![of(Some(0), attributes()), symlink(0, "f")], "a symbolic link with"),
    ] {
        assert!(refused(&records).contains(why), "{}", refused(&records));
    }
    let mut writer = writer();
    let mut catalog = catalog();
    for records in [
        // Segments may end in between.
        vec![of(None, attributes())],
        vec![Record::Root(metadata()), of(Some(0), owned())],
        vec![small(0, "a"), of(Some(1), owned()), big(1, "b", 40_000)],
        vec![of(Some(2), owned()), symlink(2, "c"), of(Some(3), attributes()), directory(3, "d")],
    ] {
        assert_eq!(catalog.admit(&sealed(&mut writer, &records)), Ok(records));
    }
}

#[test]
fn attributes_that_cannot_be_are_not_made() {
    let name_of = |len: usize| vec![b'x'; len];
    for bad in [&b""[..], &name_of(256), b"a:b", b"a/b", b"a\0", b"a\n", b"a\x7f", b"\x1b[2J"] {
        assert_eq!(AccountName::parse(bad), Err(AttributesError::AccountName), "{bad:?}");
    }
    for right in [&b"a"[..], &name_of(255), b"DOMAIN\\some one", b"caf\xe9", "né".as_bytes()] {
        assert_eq!(AccountName::parse(right).expect("allowed").as_bytes(), right);
    }
    for bad in [&b""[..], &name_of(256), b"user.\0"] {
        assert_eq!(XattrName::parse(bad), Err(AttributesError::XattrName), "{bad:?}");
    }
    assert_eq!(XattrName::parse(b"user.\n/:").expect("allowed").to_string(), "user.\\x0a/:");

    let user =
        |number: usize| AclWho::User(AccountName::parse(number.to_string().as_bytes()).expect("a name"));
    let acl =
        |who: Vec<AclWho>| Acl::new(who.into_iter().map(|who| AclEntry::new(who, 7).expect("7")).collect());
    let base = || vec![AclWho::Other, AclWho::Group, AclWho::Owner];
    assert_eq!(AclEntry::new(AclWho::Owner, 8), Err(AttributesError::Permissions));
    let ordered = acl(base()).expect("complete");
    let who: Vec<_> = ordered.entries().iter().map(AclEntry::who).collect();
    assert_eq!(who, [&AclWho::Owner, &AclWho::Group, &AclWho::Other]);
    for missing in 0..3 {
        let mut entries = base();
        entries.remove(missing);
        assert_eq!(acl(entries), Err(AttributesError::AclIncomplete));
    }
    let with = |more: Vec<AclWho>| acl([base(), more].concat());
    assert_eq!(with(vec![AclWho::Other]), Err(AttributesError::AclOrder));
    assert_eq!(with(vec![AclWho::Mask, user(1), user(2), user(1)]), Err(AttributesError::AclOrder));
    assert_eq!(with(vec![user(1)]), Err(AttributesError::AclIncomplete));
    let many = |count| with((0..count).map(user).chain([AclWho::Mask]).collect());
    assert_eq!(many(124).expect("complete").entries().len(), 128);
    assert_eq!(many(125), Err(AttributesError::TooManyAclEntries));

    let xattr = |number: usize, bytes: usize| Xattr {
        name: XattrName::parse(format!("user.{number}").as_bytes()).expect("a name"),
        value: vec![7; bytes],
    };
    let with = |xattrs: Vec<Xattr>| Attributes::new(Owner::default(), xattrs, None, None);
    assert!(with(vec![]).expect("nothing").is_empty());
    assert!(with((0..64).map(|number| xattr(number, 9)).collect()).is_ok());
    assert_eq!(with((0..65).map(|number| xattr(number, 9)).collect()), Err(AttributesError::TooManyXattrs));
    assert_eq!(with(vec![xattr(1, 2), xattr(2, 2), xattr(1, 3)]), Err(AttributesError::XattrOrder));
    // Owner 2, number of attributes 1, a name of 6 and its length 1, the value's length 2, two lists 2.
    let largest = crate::limits::ATTRIBUTES_BYTES_MAX - 14;
    assert_eq!(with(vec![xattr(1, largest + 1)]), Err(AttributesError::TooLarge));
    let attributes = with(vec![xattr(1, largest)]).expect("just");
    let records = [Record::Attributes { id: Some(FileId(0)), attributes }, small(0, "f")];
    assert_eq!(catalog().admit(&sealed(&mut writer(), &records)).expect("carried"), records);
}

#[test]
fn attributes_that_cannot_be_are_not_read() {
    use AttributesError as E;
    let decode = |body: &[u8]| {
        let mut reader = crate::codec::Reader::new(body);
        Record::decode(&mut reader).expect_err("refused")
    };
    // Kind 13, the root, no owner.
    let xattrs = |count: u8, list: &[u8]| [&[13, 0, 0, 0, count], list, &[0, 0]].concat();
    let acl = |count: u8, list: &[u8]| [&[13, 0, 0, 0, 0, count], list, &[0]].concat();
    let cases: Vec<(Vec<u8>, RecordError)> = vec![
        (vec![13, 2, 0, 0, 0, 0, 0], RecordError::Range("whose attributes follow")),
        (vec![13, 0, 1, b':', 0, 0, 0, 0], E::AccountName.into()),
        (vec![13, 0, 0, 1, b'\n', 0, 0, 0], E::AccountName.into()),
        (xattrs(65, &b"\x01a\0\0".repeat(65)), E::TooManyXattrs.into()),
        (xattrs(1, b"\0\0\0"), E::XattrName.into()),
        (xattrs(2, b"\x01b\0\0\x01a\0\0"), E::XattrOrder.into()),
        (xattrs(2, b"\x01a\0\0\x01a\0\0"), E::XattrOrder.into()),
        (xattrs(1, b"\x01a\xff\xffx"), RecordError::Truncated),
        (xattrs(2, &[&b"\x01a\xff\xff"[..], &[0; 65_535], b"\x01b\0\0"].concat()), E::TooLarge.into()),
        (acl(129, &[1, 7].repeat(129)), E::TooManyAclEntries.into()),
        (acl(3, &[3, 7, 1, 7, 6, 7]), E::AclOrder.into()),
        (acl(3, &[1, 7, 1, 7, 6, 7]), E::AclOrder.into()),
        (acl(2, &[1, 7, 6, 7]), E::AclIncomplete.into()),
        (acl(4, &[1, 7, 2, 1, b'u', 7, 3, 7, 6, 7]), E::AclIncomplete.into()),
        (acl(3, &[1, 8, 3, 7, 6, 7]), E::Permissions.into()),
        (acl(4, &[1, 7, 2, 0, 7, 3, 7, 6, 7]), E::AccountName.into()),
        (acl(1, &[0, 7]), RecordError::Range("whom an access control list is about")),
        (acl(1, &[7, 7]), RecordError::Range("whom an access control list is about")),
    ];
    for (body, error) in cases {
        assert_eq!(decode(&body), error, "{:?}", &body[..body.len().min(40)]);
    }
}
