//! Master keys: where they come from, and what they open.

use super::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

fn same(a: &MasterKey, b: &MasterKey) -> bool {
    a.0 == b.0
}

#[test]
fn what_is_sealed_opens_with_the_same_key_for_the_same_purpose_only() {
    let key = MasterKey::generate().unwrap();
    let sealed = key.seal("job:1", b"secret").unwrap();
    assert_eq!(*key.open("job:1", &sealed).unwrap(), b"secret");
    assert_ne!(sealed, key.seal("job:1", b"secret").unwrap());
    assert!(key.open("job:2", &sealed).is_err());
    assert!(MasterKey::generate().unwrap().open("job:1", &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(key.open("job:1", &changed).is_err(), "byte {at}");
        assert!(key.open("job:1", &sealed[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn never_shows_itself() {
    assert_eq!(format!("{:?}", MasterKey([7; 32])), "MasterKey(..)");
}

#[test]
fn is_kept_in_a_file_that_others_cannot_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("master.key");
    let key = MasterKey::generate().unwrap();
    key.create_file(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(same(&MasterKey::read_file(&path).unwrap(), &key));
    assert!(matches!(key.create_file(&path), Err(DbError::Io(_))));
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(MasterKey::read_file(&path), Err(DbError::Refused(_))), "{mode:o}");
    }
}

#[test]
fn refuses_a_file_that_holds_no_key() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("master.key");
    let good = format!("{FILE_PREFIX}{}", BASE64URL_NOPAD.encode(&[7; 32]));
    for text in
        ["", "\n", "slmk1:", "slmk1:AAAA", &good[1..], &good[..good.len() - 1], &format!("{good}\n\n")]
    {
        std::fs::remove_file(&path).ok();
        write_new(&path, text.as_bytes()).unwrap();
        assert!(matches!(MasterKey::read_file(&path), Err(DbError::Invalid(_))), "{text:?}");
    }
    std::fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(matches!(MasterKey::read_file(&path), Err(DbError::Io(_))));
}

#[test]
fn comes_from_a_credential_of_a_plain_name() {
    let dir = TempDir::new().unwrap();
    let key = MasterKey::generate().unwrap();
    key.create_file(&dir.path().join("key")).unwrap();
    assert!(same(&MasterKey::read_credential_in(dir.path(), "key").unwrap(), &key));
    for name in ["", "..", "../key", "a/key", "/etc/passwd"] {
        let refused = MasterKey::read_credential_in(dir.path(), name);
        assert!(matches!(refused, Err(DbError::Invalid(_))), "{name:?}");
    }
}

#[test]
fn comes_from_a_passphrase_and_its_header() {
    let dir = TempDir::new().unwrap();
    let header = dir.path().join("master.header");
    assert!(matches!(MasterKey::create_with_passphrase(&header, b"too short"), Err(DbError::Invalid(_))));
    let key = MasterKey::create_with_passphrase(&header, b"correct horse battery").unwrap();
    assert!(same(&MasterKey::read_with_passphrase(&header, b"correct horse battery").unwrap(), &key));
    assert!(!same(&MasterKey::read_with_passphrase(&header, b"correct horse batterz").unwrap(), &key));
    let text = std::fs::read_to_string(&header).unwrap();
    for (from, to) in [("65536", "99999999"), ("\"passes\":3", "\"passes\":4000000"), ("argon2id", "argon2i")]
    {
        assert!(text.contains(from));
        std::fs::write(&header, text.replace(from, to)).unwrap();
        let refused = MasterKey::read_with_passphrase(&header, b"correct horse battery");
        assert!(matches!(refused, Err(DbError::Invalid(_))), "{to}");
    }
}

#[test]
fn comes_back_by_the_recovery_key_as_it_is_typed() {
    let dir = TempDir::new().unwrap();
    let sealed = dir.path().join("recovery.sealed");
    let key = MasterKey::generate().unwrap();
    let text = key.create_recovery(&sealed).unwrap().to_string();
    assert_eq!(text.len(), 8 * 7 + 7, "{text}");
    let typed = format!(" {}\n", text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
    for text in [&text, &typed] {
        assert!(same(&MasterKey::recover(&sealed, text).unwrap(), &key));
    }
}

#[test]
fn a_recovery_key_with_a_mistake_and_another_ones_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let key = MasterKey::generate().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    let text = key.create_recovery(&one).unwrap().to_string();
    let other = key.create_recovery(&two).unwrap().to_string();
    assert!(matches!(MasterKey::recover(&one, &other), Err(DbError::Refused(_))));
    for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
        let mut mistaken = text.clone().into_bytes();
        mistaken[at] = if mistaken[at] == b'7' { b'8' } else { b'7' };
        let mistaken = String::from_utf8(mistaken).unwrap();
        assert!(matches!(MasterKey::recover(&one, &mistaken), Err(DbError::Invalid(_))), "symbol {at}");
    }
    for text in ["", &text[..text.len() - 8], &format!("{text}-AAAAAAA")] {
        assert!(matches!(MasterKey::recover(&one, text), Err(DbError::Invalid(_))), "{text:?}");
    }
}
