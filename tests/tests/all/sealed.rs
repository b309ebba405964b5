//! Sealed jobs: whoever receives can keep, verify, repair and serve, and cannot read; whoever has the private key makes the tree
//! anew, or is told what is wrong. The keys are made by `openssl` alone.
#![allow(clippy::unwrap_used)]

mod refused;

use crate::home::Home;
use sealift_tests::process::{Outcome, Run};
use sealift_tests::tree::{self, Random, SpecialModes, assert_same};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const CANARY: &str = "canary-73c5e1";

/// A key pair of `openssl`'s.
pub(crate) struct KeyPair {
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
    pub(crate) passphrase: Option<PathBuf>,
}

fn openssl(args: &[&str]) {
    let done = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

impl KeyPair {
    pub(crate) fn new(dir: &Path, name: &str, bits: u32, passphrase: Option<&str>) -> Self {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let (private, public) = (file("private.pem"), file("public.pem"));
        let (from, to) = (private.to_str().unwrap(), public.to_str().unwrap());
        let bits = format!("rsa_keygen_bits:{bits}");
        let pass = passphrase.map(|text| format!("pass:{text}"));
        let mut make = vec!["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits, "-out", from];
        let mut export = vec!["pkey", "-in", from, "-pubout", "-out", to];
        if let Some(pass) = &pass {
            make.extend(["-aes256", "-pass", pass]);
            export.extend(["-passin", pass]);
        }
        openssl(&make);
        openssl(&export);
        let passphrase = passphrase.map(|text| {
            fs::write(file("passphrase"), format!("{text}\n")).unwrap();
            file("passphrase")
        });
        Self { private, public, passphrase }
    }
}

impl Home {
    /// A source with a bit of everything, and the canary in names, content and a link's target.
    fn with_secrets() -> Self {
        let home = Self::new();
        tree::mixed(&home.src, 60, 11);
        tree::oddities(&home.src, 12);
        // Zeros that take room come back as a hole.
        fs::remove_file(home.src("holes/zeros")).unwrap();
        tree::large_file(&home.src(&format!("{CANARY}-large")), 3 << 20, 13);
        fs::write(home.src("note"), format!("{CANARY} in the content")).unwrap();
        fs::create_dir(home.src(&format!("{CANARY}-directory"))).unwrap();
        std::os::unix::fs::symlink(format!("{CANARY}-target"), home.src("pointer")).unwrap();
        fs::hard_link(home.src("note"), home.src("further")).unwrap();
        home
    }

    /// One run of the sealed job `j` from start to end.
    fn keep(&self, keys: &[&KeyPair]) -> Outcome {
        let mut args = vec!["--job", "j"];
        for key in keys {
            args.extend(["--seal-to", key.public.to_str().unwrap()]);
        }
        let sender = self.send_with(&args);
        self.receive(&sender.ticket, &["--must-seal"]).finish()
    }

    /// A restore of the destination, to be started.
    fn restoring(&self, key: &KeyPair, into: &str) -> Run {
        let run = Run::with(["restore", "--json"]).arg(&self.dst).arg(self.dir.path().join(into));
        let run = run.args(["--key"]).arg(&key.private).state_dir(&self.state);
        match &key.passphrase {
            Some(file) => run.arg("--passphrase-file").arg(file),
            None => run,
        }
    }

    fn restored(&self, into: &str) -> PathBuf {
        self.dir.path().join(into)
    }

    fn flip_bit(&self, path: &Path, offset: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }

    /// The sealed files of the destination, the smallest first.
    fn sealed_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for shard in fs::read_dir(self.dst("sealed")).unwrap() {
            files.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files.sort_by_key(|file| (fs::metadata(file).unwrap().size(), file.clone()));
        files
    }
}

/// Whether the bytes are anywhere beneath a directory: in content or in names.
pub(crate) fn is_beneath(dir: &Path, bytes: &[u8]) -> bool {
    let found = |haystack: &[u8]| haystack.windows(bytes.len()).any(|window| window == bytes);
    fs::read_dir(dir).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        found(entry.file_name().as_encoded_bytes())
            || (kind.is_dir() && is_beneath(&entry.path(), bytes))
            || (kind.is_file() && found(&fs::read(entry.path()).unwrap()))
    })
}

#[test]
fn a_keeper_has_nothing_to_read_and_each_key_restores_all() {
    let home = Home::with_secrets();
    let keys = home.dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let open = KeyPair::new(&keys, "open", 2048, None);
    let locked = KeyPair::new(&keys, "locked", 4096, Some("a long passphrase"));
    let _ = home.keep(&[&open, &locked]).expect(0);
    assert!(is_beneath(&home.src, CANARY.as_bytes()), "it can be found where it is");
    assert!(!is_beneath(&home.dst, CANARY.as_bytes()));
    // The receiver's own state has no names either; the sender's is in the same directory, so not in all of it.
    assert!(!is_beneath(&home.state.join("replicas"), CANARY.as_bytes()));
    for (key, into) in [(&open, "one"), (&locked, "other")] {
        let _ = home.restoring(key, into).finish().expect(0);
        assert_same(&home.src, &home.restored(into), SpecialModes::Dropped);
        let restored = home.restored(into);
        assert!(!restored.join(".sealift").exists(), "nothing of ours is left in it");
        let inode = |name: &str| fs::metadata(restored.join(name)).unwrap().ino();
        assert_eq!(inode("note"), inode("further"));
    }
}

#[test]
fn what_did_not_change_is_not_moved_again() {
    let home = Home::with_secrets();
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    let _ = home.keep(&[&key]).expect(0);
    let again = home.keep(&[&key]).expect(0);
    assert_eq!(again.total("bytes_transferred"), 0, "the same keys seal the same content to the same bytes");
    home.flip_bit(&home.src(&format!("{CANARY}-large")), 2 << 20);
    let changed = home.keep(&[&key]).expect(0);
    // The block that changed, and the first, which has the file's time.
    assert_eq!(changed.total("bytes_transferred"), 2 * (32 << 10));
    let _ = home.restoring(&key, "out").finish().expect(0);
    assert_same(&home.src, &home.restored("out"), SpecialModes::Dropped);
}

#[test]
fn another_key_wraps_anew_and_moves_no_data() {
    let home = Home::with_secrets();
    let [old, new] = ["old", "new"].map(|name| KeyPair::new(home.dir.path(), name, 2048, None));
    let _ = home.keep(&[&old]).expect(0);
    let rewrapped = home.keep(&[&new]).expect(0);
    assert_eq!(rewrapped.total("bytes_transferred"), fs::metadata(home.dst("keys")).unwrap().size());
    let _ = home.restoring(&new, "out").finish().expect(0);
    assert_same(&home.src, &home.restored("out"), SpecialModes::Dropped);
    // Where the source is gone: back to the old key.
    let keys = home.dir.path().join("rewrapped");
    let rewrap = Run::with(["rewrap"]).arg(&home.dst).arg("--key").arg(&new.private);
    let _ = rewrap.arg("--seal-to").arg(&old.public).arg("--out").arg(&keys).finish().expect(0);
    let rewrap = Run::with(["rewrap"]).arg(&home.dst).arg("--key").arg(&new.private);
    let again = rewrap.arg("--seal-to").arg(&old.public).arg("--out").arg(&keys).finish().expect(2);
    assert!(again.stderr.contains("is there already"), "{again:?}");
    let _ = home.restoring(&old, "by-old").arg("--keys").arg(&keys).finish().expect(0);
    assert_same(&home.src, &home.restored("by-old"), SpecialModes::Dropped);
    let refused = home.restoring(&old, "none").finish().expect(1);
    assert!(refused.message().contains("is not wrapped to the KEK"), "{}", refused.message());
    assert!(!home.restored("none").exists());
}

#[test]
fn a_keeper_verifies_repairs_and_serves_what_it_cannot_read() {
    let home = Home::with_secrets();
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    let sender = home.send_with(&["--job", "j", "--seal-to", key.public.to_str().unwrap()]);
    let _ = home.receive(&sender.ticket, &["--must-seal"]).finish().expect(0);
    let largest = home.sealed_files().pop().unwrap();
    home.flip_bit(&largest, 1 << 20);
    let verify =
        |args: &[&str]| Run::with(["verify", "--json"]).args(args).arg(&home.dst).state_dir(&home.state);
    let _ = verify(&[]).finish().expect(3);
    let _ = verify(&["--repair", "--from", &sender.ticket]).finish().expect(0);
    let _ = verify(&[]).finish().expect(0);
    let _ = home.restoring(&key, "out").finish().expect(0);
    assert_same(&home.src, &home.restored("out"), SpecialModes::Dropped);
}

#[test]
fn who_must_have_sealed_data_takes_no_other() {
    let home = Home::with_secrets();
    let sender = home.send();
    let refused = home.receive(&sender.ticket, &["--must-seal"]).finish().expect(2);
    assert!(refused.message().contains("not of a sealed job"), "{}", refused.message());
    assert!(!home.dst("note").exists());
}

#[test]
fn files_of_every_length_around_a_block_come_back() {
    let home = Home::new();
    let mut random = Random::new(5);
    for length in (32_500..32_900).step_by(9).chain(65_200..65_600).step_by(3).chain(0..4) {
        fs::create_dir_all(home.src(&format!("{}", length / 1000))).unwrap();
        fs::write(home.src(&format!("{}/{length}", length / 1000)), random.bytes(length)).unwrap();
    }
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    let _ = home.keep(&[&key]).expect(0);
    let _ = home.restoring(&key, "out").finish().expect(0);
    assert_same(&home.src, &home.restored("out"), SpecialModes::Dropped);
}

#[test]
fn what_is_preserved_anew_comes_to_replicas_that_are_there() {
    let home = Home::new();
    for number in 0..40 {
        // Heads of many lengths, most of which have room for a little more.
        let file = home.src(&"n".repeat(number + 1));
        fs::write(&file, "content").unwrap();
        if !tree::set_xattr(&file, "user.note", b"1") {
            eprintln!("skipped: no extended attributes here");
            return;
        }
    }
    let key = KeyPair::new(home.dir.path(), "key", 2048, None);
    // By the second time all are at rest, and remembered.
    let _ = home.keep(&[&key]).expect(0);
    let _ = home.keep(&[&key]).expect(0);
    let again = home.keep(&[&key]).expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    let sender =
        home.send_with(&["--job", "j", "--seal-to", key.public.to_str().unwrap(), "--preserve", "all"]);
    let _ = home.receive(&sender.ticket, &["--must-seal"]).finish().expect(0);
    let _ = home.restoring(&key, "restored").args(["--preserve", "all"]).finish().expect(0);
    for number in 0..40 {
        let file = home.restored("restored").join("n".repeat(number + 1));
        assert_eq!(tree::xattr(&file, "user.note").as_deref(), Some(&b"1"[..]), "{number}");
    }
    // A source whose attributes are longer than a block.
    let long = home.src("long");
    fs::write(&long, "content").unwrap();
    if tree::set_xattr(&long, "user.long", &[7; 60_000]) {
        drop(sender);
        let sender =
            home.send_with(&["--job", "j", "--seal-to", key.public.to_str().unwrap(), "--preserve", "all"]);
        let _ = home.receive(&sender.ticket, &["--must-seal"]).finish().expect(0);
        let _ = home.restoring(&key, "longer").args(["--preserve", "all"]).finish().expect(0);
        assert_eq!(
            tree::xattr(&home.restored("longer").join("long"), "user.long").as_deref(),
            Some(&[7; 60_000][..])
        );
    }
}
