//! What is wrong with a key or with what a keeper has: each is refused by a message of its own, and nothing half-written is left.

use super::KeyPair;
use crate::home::Home;
use sealift_tests::process::Outcome;
use sealift_tests::tree::{SpecialModes, assert_same};
use std::fs;
use std::path::Path;

/// A keeper's replica and its key.
fn kept() -> (Home, KeyPair) {
    let home = Home::with_secrets();
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    let _ = home.keep(&[&key]).expect(0);
    (home, key)
}

/// Nothing could be restored: that is said, and nothing is there.
fn assert_refused(home: &Home, outcome: Outcome, code: i32, what: &str) {
    let outcome = outcome.expect(code);
    assert!(outcome.message().contains(what), "{}", outcome.message());
    assert!(!home.restored("out").exists(), "nothing was made");
}

/// Some could be restored; what could not is named, and nothing of it is there.
fn assert_partly(home: &Home, outcome: Outcome, what: &str) {
    let outcome = outcome.expect(3);
    let problems: Vec<_> = outcome.named("problem").collect();
    assert!(
        problems.iter().any(|problem| problem["reason"].as_str().unwrap().contains(what)),
        "{problems:?}"
    );
    let whole = |dir: &Path, of: &Path| {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let original = of.join(entry.file_name());
            assert_eq!(fs::read(entry.path()).unwrap(), fs::read(original).unwrap());
        }
    };
    whole(&home.restored("out"), &home.src);
}

#[test]
fn a_wrong_key() {
    let (home, _) = kept();
    let other = KeyPair::new(home.dir.path(), "other", 2048, None);
    let outcome = home.restoring(&other, "out").finish();
    assert_refused(&home, outcome, 1, "is not wrapped to the KEK");
}

#[test]
fn a_wrong_passphrase_and_none() {
    let home = Home::with_secrets();
    let key = KeyPair::new(home.dir.path(), "key", 2048, Some("right"));
    let _ = home.keep(&[&key]).expect(0);
    fs::write(key.passphrase.as_ref().unwrap(), "wrong\n").unwrap();
    let outcome = home.restoring(&key, "out").finish();
    assert_refused(&home, outcome, 2, "the passphrase is not that of the private key");
    let public = KeyPair { private: key.public.clone(), public: key.public.clone(), passphrase: None };
    let outcome = home.restoring(&public, "out").finish();
    assert_refused(&home, outcome, 2, "this is a public key");
}

#[test]
fn an_envelope_that_is_cut_changed_or_another_jobs() {
    let (home, key) = kept();
    let keys = home.dst("keys");
    let whole = fs::read(&keys).unwrap();
    fs::write(&keys, &whole[..whole.len() - 1]).unwrap();
    assert_refused(&home, home.restoring(&key, "out").finish(), 1, "the envelope is cut off");
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&keys, &changed).unwrap();
    assert_refused(&home, home.restoring(&key, "out").finish(), 1, "the wrapped data key was changed");
    let other = Home::with_secrets();
    let _ = other.keep(&[&key]).expect(0);
    fs::copy(other.dst("keys"), &keys).unwrap();
    assert_refused(&home, home.restoring(&key, "out").finish(), 1, "it was swapped");
    fs::remove_file(&keys).unwrap();
    assert_refused(&home, home.restoring(&key, "out").finish(), 1, "of no sealed job");
}

#[test]
fn a_flipped_bit_and_a_missing_end() {
    let (home, key) = kept();
    let largest = home.sealed_files().pop().unwrap();
    home.flip_bit(&largest, 2 << 20);
    // Named as it was before it was sealed, too.
    assert_partly(&home, home.restoring(&key, "out").finish(), "sizes/8388608: block 64 is damaged");
    // Repaired, the same command makes the rest.
    home.flip_bit(&largest, 2 << 20);
    let _ = home.restoring(&key, "out").finish().expect(0);
    assert_same(&home.src, &home.restored("out"), SpecialModes::Dropped);
    assert!(!home.restored("out").join(".sealift").exists());
    let (home, key) = kept();
    let largest = home.sealed_files().pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&largest).unwrap();
    file.set_len(fs::metadata(&largest).unwrap().len() - 1).unwrap();
    assert_partly(&home, home.restoring(&key, "out").finish(), "not as long as its manifest says");
}

#[test]
fn a_destination_with_something_in_it() {
    let (home, key) = kept();
    fs::create_dir(home.restored("out")).unwrap();
    fs::write(home.restored("out").join("mine"), "mine").unwrap();
    let outcome = home.restoring(&key, "out").finish().expect(2);
    assert!(outcome.message().contains("is not empty"), "{}", outcome.message());
    assert_eq!(fs::read_dir(home.restored("out")).unwrap().count(), 1);
}

#[test]
fn a_replica_that_is_of_no_sealed_job() {
    let home = Home::with_secrets();
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    let _ = home.replicate(&[]).expect(0);
    assert_refused(&home, home.restoring(&key, "out").finish(), 1, "of no sealed job");
}
