//! Owners, extended attributes and access control lists, over the wire and between two real file systems.

use crate::replicate::{NOBODY, Place};
use sealift_tests::tree::{self, file, is_root, set_xattr, xattr};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// Runs a program that sets or shows attributes; `None`, with a word why, where it is not to be had or refuses.
fn tool(program: &str, args: &[&str], path: &Path) -> Option<String> {
    match Command::new(program).args(args).arg(path).output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            println!("skipped: {program}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: {program}: {error}");
            None
        }
    }
}

#[test]
fn owners_are_kept_by_name_where_both_ends_ask_for_them() {
    if !is_root() {
        return println!("skipped: only root can give files away");
    }
    let place = Place::new();
    for (name, bytes) in [("small", 10), ("large", 3_000_000)] {
        tree::large_file(&place.src.join(name), bytes, bytes);
        chown(place.src.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::create_dir(place.src.join("dir")).unwrap();
    symlink("small", place.src.join("link")).unwrap();
    lchown(place.src.join("link"), Some(NOBODY), Some(NOBODY)).unwrap();
    chown(place.src.join("dir"), Some(NOBODY), Some(NOBODY)).unwrap();
    let owner = |name: &str| {
        let stat = fs::symlink_metadata(place.dst.join(name)).unwrap();
        (stat.uid(), stat.gid())
    };
    let names = ["small", "large", "dir", "link"];
    // Asked for by one end alone, nothing is.
    for (send, receive) in
        [(&["--preserve=default"][..], "--preserve=all"), (&["--preserve=all"], "--preserve=default")]
    {
        let _ = place.replicate(send, &[receive]);
        assert!(names.iter().all(|name| owner(name) == (0, 0)));
    }
    // By both: also of what is there already, and without fetching it again.
    let received = place.replicate(&["--preserve=default,owner"], &["--preserve=default,owner"]).1;
    assert_eq!(received.total("bytes_transferred"), 0);
    for name in names {
        assert_eq!(owner(name), (NOBODY, NOBODY), "{name}");
    }
    // What belongs to root does not, unless that is allowed.
    file(&place.src.join("roots"), "x");
    chown(place.dst.join("small"), Some(1), Some(1)).unwrap();
    let received = place.replicate(&["--preserve=default,owner"], &["--preserve=default,owner"]).1;
    assert!(received.warnings().contains("it would be root"), "{received:?}");
    assert_eq!(owner("small"), (NOBODY, NOBODY), "put right");
    // Mapped to another account.
    let map = ["--preserve=default,owner", "--map-owner=user:nobody=daemon"];
    let _ = place.replicate(&["--preserve=default,owner"], &map);
    let mapped = owner("small").0;
    assert!(mapped != NOBODY && mapped != 0, "{mapped}");
}

#[test]
fn a7_attributes_that_pass_on_privilege_are_dropped_and_users_own_are_kept() {
    let place = Place::new();
    file(&place.src.join("small"), "x");
    tree::large_file(&place.src.join("large"), 2_000_000, 3);
    fs::create_dir(place.src.join("dir")).unwrap();
    for name in ["small", "large", "dir"] {
        if !set_xattr(&place.src.join(name), "user.kept", name.as_bytes()) {
            return println!("skipped: the file system has no extended attributes");
        }
        if is_root() {
            assert!(set_xattr(&place.src.join(name), "trusted.dropped", b"x"));
        }
    }
    let _ = place.replicate(&["--preserve=default,xattrs"], &["--preserve=default,xattrs"]);
    for name in ["small", "large", "dir"] {
        assert_eq!(xattr(&place.dst.join(name), "user.kept").as_deref(), Some(name.as_bytes()));
        assert_eq!(xattr(&place.dst.join(name), "trusted.dropped"), None);
    }
    // Changed values follow, without content.
    assert!(set_xattr(&place.src.join("large"), "user.kept", b"other"));
    let received = place.replicate(&["--preserve=default,xattrs"], &["--preserve=default,xattrs"]).1;
    assert_eq!(xattr(&place.dst.join("large"), "user.kept").as_deref(), Some(&b"other"[..]));
    assert_eq!(received.total("bytes_transferred"), 0);
}

#[test]
fn access_control_lists_are_kept_by_name() {
    let place = Place::new();
    file(&place.src.join("f"), "x");
    fs::create_dir(place.src.join("dir")).unwrap();
    if tool("setfacl", &["-m", "u:nobody:r,g:daemon:rw"], &place.src.join("f")).is_none()
        || tool("setfacl", &["-d", "-m", "u:nobody:rx"], &place.src.join("dir")).is_none()
    {
        return;
    }
    let _ = place.replicate(&["--preserve=default,acls"], &["--preserve=default,acls"]);
    for name in ["f", "dir"] {
        let shown = |root: &Path| tool("getfacl", &["--omit-header", "--absolute-names"], &root.join(name));
        assert_eq!(shown(&place.src), shown(&place.dst), "{name}");
    }
}
