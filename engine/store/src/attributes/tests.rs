//! Reading, mapping and setting on a real file system.

use super::accounts::tests::{Made, account};
use super::map::{AttributeMapper, DroppedWhat, DroppedWhy, MapperOptions, Resolved};
use super::read::{AttributeReader, NotCarried, NotCarriedWhy};
use super::{AttributeKinds, EntryKind, XattrFilter, acl};
use crate::error::FileError;
use crate::replica::{Replica, ReplicaId};
use crate::root::Root;
use crate::source::Source;
use crate::stat::{self, FileStat};
use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;
use sealift_proto::limits;
use sealift_proto::manifest::{Acl, AclEntry, AclWho, Attributes, Owner, Xattr, XattrName};
use sealift_proto::path::SafePath;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const ALL: AttributeKinds = AttributeKinds { owner: true, xattrs: true, acls: true };

fn path(text: &str) -> SafePath {
    SafePath::parse(text.as_bytes()).expect("safe")
}

/// What the source calls 4007 and 4008 has other numbers at the destination.
fn there() -> Made {
    Made::new(&[(0, "root"), (4007, "alice"), (4008, "bob")])
}

fn here() -> Made {
    Made::new(&[(0, "root"), (5007, "alice"), (5008, "bob")])
}

fn reader() -> AttributeReader {
    AttributeReader::with_accounts(ALL, XattrFilter::default(), Box::new(there()))
}

fn mapper() -> AttributeMapper {
    let options =
        MapperOptions { kinds: ALL, allow_root: true, remove_others: true, ..MapperOptions::default() };
    AttributeMapper::with_accounts(options, Box::new(here())).unwrap()
}

fn replica(dir: &Path) -> Replica {
    Replica::open(dir, ReplicaId([7; 16])).unwrap()
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1 << 16];
    let bytes = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(bytes);
    Some(value)
}

fn xattr(name: &[u8], value: &[u8]) -> Xattr {
    Xattr { name: XattrName::parse(name).unwrap(), value: value.to_vec() }
}

fn list(entries: &[(AclWho, u8)]) -> Acl {
    let entries = entries.iter().map(|(who, bits)| AclEntry::new(who.clone(), *bits).unwrap());
    Acl::new(entries.collect()).unwrap()
}

/// A list in which the group may do nothing, and the mode's group bits are 7.
fn closed_to_the_group() -> Acl {
    list(&[
        (AclWho::Owner, 7),
        (AclWho::User(account("bob")), 6),
        (AclWho::Group, 0),
        (AclWho::Mask, 7),
        (AclWho::Other, 0),
    ])
}

/// Whether the tests may use what only root, or only some file systems, can; otherwise says so.
fn able(dir: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: owners can be set by root only");
        return false;
    }
    let file = dir.join("probe");
    fs::write(&file, "").unwrap();
    let able = set(&file, "user.probe", b"x").is_ok()
        && rustix::fs::setxattr(&file, acl::ACCESS, &acl::sample(), XattrFlags::empty()).is_ok();
    fs::remove_file(&file).unwrap();
    if !able {
        eprintln!("skipped: {} has no user attributes or no access control lists", dir.display());
    }
    able
}

#[test]
fn what_a_source_has_is_at_the_destination_under_its_names() {
    let (source, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !able(source.path()) || !able(dest.path()) {
        return;
    }
    for dir in [source.path(), dest.path()] {
        fs::write(dir.join("f"), "").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        symlink("f", dir.join("l")).unwrap();
    }
    let numbers = |bob: u32| {
        let who = [
            (acl::Who::Owner, 7),
            (acl::Who::User(bob), 6),
            (acl::Who::Group, 0),
            (acl::Who::Mask, 7),
            (acl::Who::Other, 0),
        ];
        acl::encode(&who.map(|(who, permissions)| acl::Entry { who, permissions }))
    };
    for name in ["f", "d", "l"] {
        lchown(source.path().join(name), Some(4007), Some(4008)).unwrap();
    }
    for name in ["f", "d"] {
        let path = source.path().join(name);
        set(&path, "user.empty", b"").unwrap();
        set(&path, "user.long", &[7; 2000]).unwrap();
        set(&path, "security.capability_like", b"").ok();
        rustix::fs::setxattr(&path, acl::ACCESS, &numbers(4008), XattrFlags::empty()).unwrap();
        set(&dest.path().join(name), "user.old", b"goes").unwrap();
    }
    rustix::fs::setxattr(source.path().join("d"), acl::DEFAULT, &numbers(4007), XattrFlags::empty()).unwrap();
    let offered = Source::open(&[source.path().into()]).unwrap();
    let replica = replica(dest.path());
    let (reader, mapper) = (reader(), mapper());
    for (name, kind) in [("f", EntryKind::File), ("d", EntryKind::Directory), ("l", EntryKind::Symlink)] {
        let (attributes, missing) = offered.attributes(Some(&path(name)), kind, &reader).unwrap();
        assert_eq!(missing, []);
        let (resolved, dropped) = mapper.resolve(&attributes);
        assert_eq!(dropped, []);
        let apply =
            || replica.set_attributes(&mapper, &path(name), kind, None, &resolved, Some(0o4770)).unwrap();
        let mode = if kind == EntryKind::Symlink { 0 } else { 0o4770 };
        let applied = apply();
        assert_eq!((applied.mode, applied.changed, &applied.dropped), (mode, true, &vec![]), "{name}");
        let stat = fs::symlink_metadata(dest.path().join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (5007, 5008));
        let again = apply();
        assert!(!again.changed, "{name}");
        let after = fs::symlink_metadata(dest.path().join(name)).unwrap();
        assert_eq!((stat.ctime(), stat.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
        if kind == EntryKind::Symlink {
            assert_eq!(attributes.xattrs(), []);
            continue;
        }
        assert_eq!(stat.mode() & 0o7777, 0o4770);
        let dest = dest.path().join(name);
        assert_eq!(get(&dest, "user.empty").unwrap(), b"");
        assert_eq!(get(&dest, "user.long").unwrap(), [7; 2000]);
        assert_eq!(get(&dest, "user.old"), None);
        assert_eq!(get(&dest, "system.posix_acl_access").unwrap(), numbers(5008));
        let default = (kind == EntryKind::Directory).then(|| numbers(5007));
        assert_eq!(get(&dest, "system.posix_acl_default"), default);
        // Through an open descriptor it is the same.
        let open = File::open(&dest).unwrap();
        assert!(!mapper.differs(&open, &resolved, Some(0o4770)).unwrap());
        assert!(mapper.differs(&open, &resolved, Some(0o770)).unwrap());
        assert!(mapper.differs(&open, &Resolved::default(), Some(0o4770)).unwrap());
        assert_eq!(mapper.apply(&open, &Resolved::default(), Some(0o4700)).unwrap().dropped, []);
        assert_eq!((get(&dest, "user.empty"), get(&dest, "system.posix_acl_access")), (None, None));
        assert_eq!(fs::metadata(&dest).unwrap().mode() & 0o7777, 0o4700);
        set(&dest, "user.others", b"stays").unwrap();
        let options = MapperOptions { kinds: ALL, ..MapperOptions::default() };
        let keeping = AttributeMapper::with_accounts(options, Box::new(here())).unwrap();
        assert!(!keeping.apply(&open, &Resolved::default(), Some(0o4700)).unwrap().changed);
        assert!(get(&dest, "user.others").is_some());
    }
}

#[test]
fn a_file_that_may_not_be_opened_is_reached_through_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    if set(&file, "user.a", b"1").is_err() {
        eprintln!("skipped: no user attributes in {}", dir.path().display());
        return;
    }
    let root = Root::open(dir.path()).unwrap();
    let handle = root.open_beneath(&path("f"), OFlags::PATH).unwrap();
    let kinds = AttributeKinds { xattrs: true, ..AttributeKinds::default() };
    let reader = AttributeReader::with_accounts(kinds, XattrFilter::default(), Box::new(there()));
    let (attributes, missing) = reader.read(&handle).unwrap();
    assert_eq!((attributes.xattrs(), missing), (&[xattr(b"user.a", b"1")][..], vec![]));
    let options = MapperOptions { kinds, remove_others: true, ..MapperOptions::default() };
    let mapper = AttributeMapper::with_accounts(options, Box::new(here())).unwrap();
    let wanted = Attributes::new(Owner::default(), vec![xattr(b"user.b", b"2")], None, None).unwrap();
    let (resolved, _) = mapper.resolve(&wanted);
    assert!(mapper.differs(&handle, &resolved, Some(0o600)).unwrap());
    assert_eq!(mapper.apply(&handle, &resolved, Some(0o600)).unwrap().dropped, []);
    assert_eq!((get(&file, "user.a"), get(&file, "user.b").unwrap()), (None, b"2".to_vec()));
    assert!(!mapper.differs(&handle, &resolved, Some(0o600)).unwrap());
}

#[test]
fn accounts_without_a_name_and_too_much_of_anything_are_told_at_the_source() {
    // Where values can be as large as the kernel allows.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    if !able(dir.path()) || set(&file, "user.a", &[1; 40_000]).is_err() {
        eprintln!("skipped: no large attributes here");
        return;
    }
    set(&file, "user.b", &[2; 40_000]).unwrap();
    for number in 0..limits::XATTRS_MAX + 5 {
        set(&file, &format!("user.c{number:03}"), b"").unwrap();
    }
    set(&file, "trusted.x", b"1").unwrap();
    lchown(&file, Some(4999), Some(4008)).unwrap();
    let who = [acl::Who::Owner, acl::Who::User(4999), acl::Who::User(4007), acl::Who::Group];
    let who = who.into_iter().chain([acl::Who::Mask, acl::Who::Other]);
    let entries: Vec<_> = who.map(|who| acl::Entry { who, permissions: 6 }).collect();
    rustix::fs::setxattr(&file, acl::ACCESS, &acl::encode(&entries), XattrFlags::empty()).unwrap();
    let (attributes, missing) = reader().read(File::open(&file).unwrap()).unwrap();
    assert_eq!(*attributes.owner(), Owner { user: None, group: Some(account("bob")) });
    assert_eq!(attributes.xattrs().len(), limits::XATTRS_MAX);
    assert_eq!(attributes.xattrs()[0].value.len(), 40_000);
    assert!(attributes.xattrs().iter().all(|xattr| xattr.name.as_bytes() != b"user.b"));
    assert_eq!(attributes.access_acl().unwrap().entries().len(), 5);
    let count = |wanted: fn(&NotCarried) -> bool| missing.iter().filter(|missing| wanted(missing)).count();
    assert_eq!(count(|m| matches!(m, NotCarried::Owner { id: 4999, silent: false, .. })), 1);
    assert_eq!(count(|m| matches!(m, NotCarried::AclAccount { id: 4999, .. })), 1);
    assert_eq!(count(|m| matches!(m, NotCarried::Xattr { why: NotCarriedWhy::TooLarge, .. })), 7);
    assert_eq!(missing.len(), 9);
    assert_eq!(missing[0].to_string(), "owner not carried: user 4999, who has no name here");
}

#[test]
fn a10_the_most_that_a_peer_can_say_is_set_or_dropped_and_nothing_fails() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    let replica = replica(dir.path());
    let large = |name: &str| xattr(name.as_bytes(), &[1; 21_000]);
    let mut xattrs = vec![large("user.a"), large("user.b"), large("user.c")];
    xattrs.extend((3..limits::XATTRS_MAX).map(|n| xattr(format!("user.\u{1}{n}").as_bytes(), b"x")));
    let named = |n| (AclWho::User(account(&format!("made up {n}"))), 7);
    let base = [AclWho::Owner, AclWho::Group, AclWho::Mask, AclWho::Other].map(|who| (who, 7));
    let entries: Vec<_> = (4..limits::ACL_ENTRIES_MAX).map(named).chain(base).collect();
    let huge = || Attributes::new(Owner::default(), xattrs.clone(), None, None).unwrap();
    let lists =
        || Attributes::new(Owner::default(), vec![], Some(list(&entries)), Some(list(&entries))).unwrap();
    for attributes in [huge(), lists()] {
        let (resolved, mut dropped) = mapper().resolve(&attributes);
        assert!(resolved.held_bytes() < 2 * limits::ATTRIBUTES_BYTES_MAX);
        let file = EntryKind::File;
        let applied =
            replica.set_attributes(&mapper(), &path("f"), file, None, &resolved, Some(0o640)).unwrap();
        dropped.extend(applied.dropped);
        for dropped in dropped {
            let known = matches!(
                dropped.why,
                DroppedWhy::NoRoom | DroppedWhy::UnknownHere | DroppedWhy::NotSupported | DroppedWhy::Refused
            );
            assert!(known, "{dropped}");
            assert!(!dropped.to_string().chars().any(char::is_control));
        }
    }
}

#[test]
fn a7_set_id_bits_go_with_the_owner_that_they_were_meant_for() {
    let dir = tempfile::tempdir().unwrap();
    if !able(dir.path()) {
        return;
    }
    fs::write(dir.path().join("f"), "").unwrap();
    let file = File::open(dir.path().join("f")).unwrap();
    let owned = |user: &str, group: &str| {
        let owner = Owner { user: Some(account(user)), group: Some(account(group)) };
        mapper().resolve(&Attributes::new(owner, vec![], None, None).unwrap())
    };
    let (resolved, dropped) = owned("mallory", "bob");
    assert_eq!((dropped.len(), dropped[0].why), (1, DroppedWhy::UnknownHere));
    let applied = mapper().apply(&file, &resolved, Some(0o6755)).unwrap();
    assert_eq!(applied.mode, 0o2755);
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o7777, 0o2755);
    assert_eq!(applied.dropped.len(), 1);
    assert_eq!(applied.dropped[0].what, DroppedWhat::SetIdBits);
    assert!(!mapper().differs(&file, &resolved, None).unwrap());
    assert_eq!(mapper().apply(&file, &resolved, None).unwrap().mode, 0o2755, "left as it is");
    let (resolved, _) = owned("alice", "bob");
    let applied = mapper().apply(&file, &resolved, Some(0o6755)).unwrap();
    assert_eq!((applied.mode, applied.dropped.len()), (0o6755, 0));
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn a7_capabilities_in_an_attribute_are_dropped_unless_named() {
    let dir = tempfile::tempdir().unwrap();
    if !able(dir.path()) {
        return;
    }
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    // cap_setuid, effective and permitted.
    let value = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owner = Owner { user: Some(account("alice")), group: None };
    let attributes = Attributes::new(owner, vec![xattr(b"security.capability", &value)], None, None).unwrap();
    let (resolved, dropped) = mapper().resolve(&attributes);
    assert_eq!((dropped.len(), dropped[0].why), (1, DroppedWhy::NotAllowed));
    mapper().apply(File::open(&file).unwrap(), &resolved, Some(0o755)).unwrap();
    assert_eq!(get(&file, "security.capability"), None);
    let xattrs = XattrFilter::parse(&["security.capability"]).unwrap();
    let options = MapperOptions { kinds: ALL, xattrs, ..MapperOptions::default() };
    let naming = AttributeMapper::with_accounts(options, Box::new(here())).unwrap();
    let (resolved, dropped) = naming.resolve(&attributes);
    assert_eq!(dropped, []);
    lchown(&file, Some(4007), None).unwrap();
    assert_eq!(naming.apply(File::open(&file).unwrap(), &resolved, Some(0o755)).unwrap().dropped, []);
    assert!(get(&file, "security.capability").is_some(), "set after the owner, whose change removes it");
}

#[test]
fn a_list_that_is_not_set_does_not_open_the_file_to_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let attributes = Attributes::new(Owner::default(), vec![], Some(closed_to_the_group()), None).unwrap();
    let mapper = AttributeMapper::with_accounts(MapperOptions::default(), Box::new(here())).unwrap();
    let (resolved, dropped) = mapper.resolve(&attributes);
    assert_eq!(dropped, [], "not asked for");
    assert_eq!(resolved.mode(0o770), 0o700);
    fs::write(dir.path().join("f"), "").unwrap();
    let applied = mapper.apply(File::open(dir.path().join("f")).unwrap(), &resolved, Some(0o770)).unwrap();
    assert_eq!(applied.mode, 0o700);
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn without_the_rights_of_root_an_owner_is_dropped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may set any owner");
        return;
    }
    fs::write(dir.path().join("f"), "").unwrap();
    let owner = Owner { user: Some(account("alice")), group: Some(account("bob")) };
    let (resolved, _) = mapper().resolve(&Attributes::new(owner, vec![], None, None).unwrap());
    let applied = mapper().apply(File::open(dir.path().join("f")).unwrap(), &resolved, Some(0o4755)).unwrap();
    assert_eq!(applied.mode, 0o755);
    assert!(applied.dropped.iter().any(|dropped| dropped.why == DroppedWhy::Denied));
}

#[test]
fn a4_a_link_in_its_place_is_neither_read_nor_written_through() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "").unwrap();
    fs::set_permissions(outside.path().join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    set(&outside.path().join("f"), "user.secret", b"x").ok();
    let dir = tempfile::tempdir().unwrap();
    symlink(outside.path().join("f"), dir.path().join("f")).unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    let source = Source::open(&[dir.path().into()]).unwrap();
    let read = |name, kind| source.attributes(Some(&path(name)), kind, &reader());
    assert_eq!(read("f", EntryKind::File).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(read("d", EntryKind::Directory).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(read("d/f", EntryKind::File).is_err());
    assert_eq!(read("f", EntryKind::Symlink).unwrap().0.xattrs(), []);
    let replica = replica(dir.path());
    let before = outside.path().join("f").metadata().unwrap();
    for (name, kind) in [("f", EntryKind::File), ("d", EntryKind::Directory), ("d/f", EntryKind::File)] {
        let result =
            replica.set_attributes(&mapper(), &path(name), kind, None, &Resolved::default(), Some(0o777));
        assert!(matches!(result, Err(FileError::Changed { .. })), "{name}");
    }
    if rustix::process::geteuid().is_root() {
        let owner = Owner { user: Some(account("alice")), group: None };
        let (resolved, _) = mapper().resolve(&Attributes::new(owner, vec![], None, None).unwrap());
        let link = EntryKind::Symlink;
        replica.set_attributes(&mapper(), &path("f"), link, None, &resolved, Some(0o777)).unwrap();
        assert_eq!(dir.path().join("f").symlink_metadata().unwrap().uid(), 5007);
    }
    let after = outside.path().join("f").metadata().unwrap();
    assert_eq!((before.mode(), before.uid(), before.ctime()), (after.mode(), after.uid(), after.ctime()));
    assert_eq!(before.ctime_nsec(), after.ctime_nsec());
}

#[test]
fn a4_a_race_with_a_link_changes_nothing_outside() {
    const BUDGET: Duration = Duration::from_millis(400);
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for base in [outside.path().to_owned(), dir.path().join("d")] {
        fs::create_dir_all(&base).unwrap();
        fs::write(base.join("f"), "").unwrap();
        fs::set_permissions(base.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    symlink(outside.path(), dir.path().join("link")).unwrap();
    let replica = replica(dir.path());
    let until = Instant::now() + BUDGET;
    let (d, link, aside) = (dir.path().join("d"), dir.path().join("link"), dir.path().join("aside"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < until {
                fs::rename(&d, &aside).unwrap();
                fs::rename(&link, &d).unwrap();
                fs::rename(&d, &link).unwrap();
                fs::rename(&aside, &d).unwrap();
            }
        });
        let (mut set, mut refused) = (0, 0);
        while Instant::now() < until {
            let mode = 0o601 + set % 2;
            let file = EntryKind::File;
            match replica.set_attributes(
                &mapper(),
                &path("d/f"),
                file,
                None,
                &Resolved::default(),
                Some(mode),
            ) {
                Ok(_) => set += 1,
                Err(_) => refused += 1,
            }
        }
        eprintln!("{set} times set, {refused} times refused");
    });
    assert_eq!(fs::metadata(outside.path().join("f")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn b13_another_file_in_its_place_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    let file = File::open(dir.path().join("f")).unwrap();
    let stat = FileStat::from_stat(&rustix::fs::fstat(&file).unwrap());
    let replica = replica(dir.path());
    let apply = |expected: &FileStat| {
        replica.set_attributes(
            &mapper(),
            &path("f"),
            EntryKind::File,
            Some(expected),
            &Resolved::default(),
            Some(0o640),
        )
    };
    let other = FileStat { inode: stat.inode + 1, ..stat };
    assert!(matches!(apply(&other), Err(FileError::Changed { .. })));
    assert_eq!(apply(&stat).unwrap().mode, 0o640);
}

#[test]
fn each_thing_that_is_offered_can_be_asked_for_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
    fs::write(dir.path().join("tree/sub/x"), "").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let reader = AttributeReader::new(ALL, XattrFilter::default());
    let whole = Source::open(&[dir.path().into()]).unwrap();
    assert!(whole.attributes(None, EntryKind::Directory, &reader).is_ok());
    assert!(whole.attributes(None, EntryKind::File, &reader).is_err());
    let named = Source::open(&[dir.path().join("tree"), dir.path().join("file")]).unwrap();
    let read = |name: &str, kind| named.attributes(Some(&path(name)), kind, &reader).map(|_| ());
    assert!(read("tree", EntryKind::Directory).is_ok());
    assert!(read("tree/sub", EntryKind::Directory).is_ok());
    assert!(read("tree/sub/x", EntryKind::File).is_ok());
    assert!(read("file", EntryKind::File).is_ok());
    assert!(read("other", EntryKind::File).is_err());
    assert!(read("file/x", EntryKind::File).is_err());
    assert!(named.attributes(None, EntryKind::Directory, &reader).is_err());
    // A FIFO is no entry, and looking at it does not wait for a writer.
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(whole.attributes(Some(&path("fifo")), EntryKind::File, &reader).is_err());
    let fd = whole.look_up(Some(&path("fifo"))).unwrap();
    assert_eq!(stat::kind(&rustix::fs::fstat(fd.as_fd()).unwrap()), rustix::fs::FileType::Fifo);
}
