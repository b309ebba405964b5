//! What a replica has beside content: kinds, links, names, modes and times; and what is not there at all.

use super::{Home, MIB, damage, fill, number, pairs, verified, words};
use crate::replicate::OtherUser;
use sealift_tests::process::Run;
use sealift_tests::tree::{self, Random, SpecialModes, file, flip_unseen, is_root, set_mode, set_mtime};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

#[test]
fn what_is_missing_or_something_else_is_named_and_put_right() {
    let home = Home::new();
    fill(&home.src);
    file(&home.src("dir/in it/deep"), Random::new(1).bytes(100));
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    // Missing: a directory with all in it, files, links.
    fs::remove_dir_all(home.dst("dir")).unwrap();
    for name in ["one block", "larger", "link", "links/z", "empty"] {
        fs::remove_file(home.dst(name)).unwrap();
    }
    fs::remove_dir(home.dst("empty dir")).unwrap();
    // Something else: a link for a file, a directory for a file, a file for a directory and for a link.
    fs::remove_file(home.dst("two blocks")).unwrap();
    symlink("/etc/passwd", home.dst("two blocks")).unwrap();
    fs::remove_file(home.dst("sparse")).unwrap();
    fs::create_dir(home.dst("sparse")).unwrap();
    file(&home.dst("empty dir"), "was a directory");
    file(&home.dst("link"), "was a link");
    // A further name that is a file of its own now.
    fs::remove_file(home.dst("links/c small")).unwrap();
    file(&home.dst("links/c small"), "mine");
    let found = home.verify(&[]).finish().expect(3);
    assert_eq!(
        words(&found),
        pairs(&[
            ("dir", "missing"),
            ("dir/in it", "missing"),
            ("dir/in it/deep", "missing"),
            ("empty", "missing"),
            ("empty dir", "kind"),
            ("larger", "missing"),
            ("link", "kind"),
            ("links/c small", "names"),
            ("links/z", "missing"),
            ("one block", "missing"),
            ("sparse", "kind"),
            ("two blocks", "kind"),
        ])
    );
    let told = damage(&found);
    assert_eq!((told["larger"].bytes, told["dir"].bytes), (9 * MIB, 0));
    let repaired = home.repair(&sender, &[]).expect(0);
    assert_eq!(number(&repaired, "repaired", "left"), 0, "{repaired:#?}");
    let verify = home.verify(&["--extra"]).finish().expect(0);
    let extra: Vec<String> =
        verify.named("extra").map(|event| event["path"].as_str().unwrap().to_owned()).collect();
    // By the conflict rule all that somebody had put there is kept.
    assert_eq!(extra.len(), 3, "{extra:?}");
    for (name, content) in
        [("empty dir", "was a directory"), ("link", "was a link"), ("links/c small", "mine")]
    {
        let aside =
            extra.iter().find(|extra| extra.starts_with(&format!("{name}.sealift-conflict-"))).unwrap();
        assert_eq!(fs::read_to_string(home.dst(aside)).unwrap(), content);
        fs::remove_file(home.dst(aside)).unwrap();
    }
    for name in ["", "links"] {
        let of = fs::metadata(home.src(name)).unwrap();
        set_mtime(&home.dst(name), of.mtime(), of.mtime_nsec());
    }
    home.assert_clean();
    home.assert_same();
    assert_eq!(home.receive(&sender.ticket, &[]).finish().expect(0).total("bytes_transferred"), 0);
}

#[test]
fn links_and_directories_are_repaired_without_a_source() {
    let home = Home::new();
    fill(&home.src);
    let sender = home.send_job("j");
    let ticket = sender.ticket.clone();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let _ = sender.stop().expect(0);
    fs::remove_file(home.dst("link")).unwrap();
    symlink("elsewhere", home.dst("link")).unwrap();
    fs::remove_dir(home.dst("empty dir")).unwrap();
    // A copy in the place of a name, and a name that is gone.
    let content = fs::read(home.dst("links/z")).unwrap();
    fs::remove_file(home.dst("links/z")).unwrap();
    file(&home.dst("links/z"), content);
    fs::remove_file(home.dst("links/b/large")).unwrap();
    let found = home.verify(&[]).finish().expect(3);
    let expected = pairs(&[
        ("empty dir", "missing"),
        ("link", "target"),
        ("links/b/large", "missing"),
        ("links/z", "names"),
    ]);
    assert_eq!(words(&found), expected);
    let repaired = home.verify(&["--repair", "--from", &ticket, "--retry-for=0"]).finish().expect(0);
    assert_eq!((repaired.named("done").count(), number(&repaired, "repaired", "repaired")), (0, 4));
    home.assert_clean();
    home.assert_same();
}

#[test]
fn modes_and_times_that_drift_are_warnings() {
    let home = Home::new();
    fill(&home.src);
    let _ = home.sync(&[]).expect(0);
    set_mode(&home.dst("large"), 0o600);
    set_mtime(&home.dst("one block"), 5, 5);
    set_mode(&home.dst("links/b"), 0o700);
    set_mtime(&home.dst("link"), 6, 6);
    let drifted = home.verify(&[]).finish().expect(0);
    let told = drifted.warnings();
    assert_eq!(drifted.named("warning").count(), 4, "{told}");
    for path in
        ["large: its mode is 600, not 644", "one block: its time", "links/b: its mode", "link: its time"]
    {
        assert!(told.contains(path), "{path}: {told}");
    }
    assert_eq!(verified(&drifted, "damaged"), 0);
    // The next receive sets them.
    assert_eq!(home.sync(&[]).expect(0).total("bytes_transferred"), 0);
    home.assert_clean();
}

#[test]
fn what_was_never_to_be_kept_is_not_missed() {
    let home = Home::new();
    fill(&home.src);
    for (mode, name) in [(0o4755, "set-user-id"), (0o1777, "sticky")] {
        file(&home.src(name), "x");
        set_mode(&home.src(name), mode);
    }
    let _ = home.sync(&["--preserve=none"]).expect(0);
    let outcome = home.verify(&[]).finish().expect(0);
    assert_eq!(verified(&outcome, "damaged"), 0);
    assert!(
        outcome.warnings().contains("symbolic links of the manifest were never put here"),
        "{outcome:#?}"
    );
    // Further names are files of their own; one rots.
    flip_unseen(&home.dst("links/z"), 77);
    let found = home.verify(&[]).finish().expect(3);
    assert_eq!(words(&found), pairs(&[("links/z", "corrupt")]));
    let sender = home.send_job("j");
    let repaired = home.repair(&sender, &["--preserve=none"]).expect(0);
    assert_eq!(number(&repaired, "repaired", "left"), 0);
    assert_eq!(fs::read(home.src("links/z")).unwrap(), fs::read(home.dst("links/z")).unwrap());
    assert_eq!(fs::metadata(home.dst("links/z")).unwrap().nlink(), 1);
    assert_eq!(words(&home.verify(&[]).finish().expect(0)), pairs(&[]));
}

#[test]
fn oddities_are_verified_as_they_are() {
    let home = Home::new();
    tree::oddities(&home.src, 3);
    let received = home.sync(&["--keep-special-modes"]).expect(0);
    let clean = home.assert_clean();
    assert_eq!(verified(&clean, "files"), received.total("files"));
    assert_eq!(verified(&clean, "bytes"), received.total("bytes"));
    let dropped = Home::new();
    tree::oddities(&dropped.src, 3);
    let _ = dropped.sync(&[]).expect(0);
    dropped.assert_clean();
}

#[test]
fn an_empty_tree_is_all_right_and_what_is_no_replica_is_said_to_be_none() {
    let home = Home::new();
    for what in ["missing", "a directory", "received halfway"] {
        if what == "a directory" {
            file(&home.dst("file"), "x");
        }
        if what == "received halfway" {
            fs::create_dir(home.dst(".sealift")).unwrap();
            fs::write(home.dst(".sealift/id"), format!("{}\n", "07".repeat(16))).unwrap();
        }
        for refused in [home.verify(&[]).finish().expect(1), home.rebuild().expect(1)] {
            let expected = if what == "received halfway" { "no manifest" } else { "no replica" };
            assert!(refused.message().contains(expected), "{what}: {refused:#?}");
        }
    }
    assert_eq!(
        fs::read_dir(home.dst(".sealift"))
            .unwrap()
            .filter(|name| name.as_ref().unwrap().file_name() == "manifest")
            .count(),
        0
    );
    fs::remove_dir_all(&home.dst).unwrap();
    fs::remove_dir_all(&home.state).unwrap();
    let _ = home.sync(&[]).expect(0);
    let empty = home.assert_clean();
    assert_eq!((verified(&empty, "files"), verified(&empty, "bytes")), (0, 0));
    assert_eq!(number(&home.rebuild().expect(0), "rebuilt", "entries"), 0);
}

#[test]
fn a_replica_that_is_being_received_into_is_busy() {
    let home = Home::new();
    file(&home.src("f"), "x");
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    // It holds the replica for as long as it looks for its sender.
    let nobody = sealift_tests::process::ticket_via(&sender.ticket, "127.0.0.1:9".parse().unwrap());
    let _ = sender.stop().expect(0);
    let mut waiting = Run::receive(nobody, &home.dst).state_dir(&home.state).start();
    let _ = waiting.wait_for("progress");
    for refused in [home.verify(&[]).finish().expect(1), home.rebuild().expect(1)] {
        assert!(refused.message().contains("busy"), "{refused:#?}");
    }
    waiting.kill();
    home.assert_clean();
}

#[test]
fn people_are_told_in_sentences() {
    let home = Home::new();
    file(&home.src("f"), Random::new(1).bytes(100_000));
    let _ = home.sync(&[]).expect(0);
    let verify = || Run::with(["verify"]).arg(&home.dst).state_dir(&home.state).finish();
    let clean = verify().expect(0);
    assert!(clean.stderr.contains("All right: 1 files") && clean.stdout.is_empty(), "{clean:?}");
    flip_unseen(&home.dst("f"), 300_000);
    let damaged = verify().expect(3);
    assert!(
        damaged.stderr.contains("damaged: f: silently corrupt (nobody edited it): block 1 is not"),
        "{damaged:?}"
    );
    assert!(damaged.stderr.contains("Damaged: 1 entries, 1 blocks, 32.00 KiB"), "{damaged:?}");
    for words in [&["verify"] as &[&str], &["verify", "x", "--repair"], &["index"], &["index", "rebuild"]] {
        let _ = Run::with(words).finish().expect(2);
    }
}

#[test]
fn an_unprivileged_user_verifies_and_repairs_what_is_its_own() {
    if !is_root() {
        println!("skipped: every other test is this one");
        return;
    }
    let home = Home::new();
    fill(&home.src);
    for mode in [0o444, 0o000] {
        file(&home.src(&format!("{mode:o}")), Random::new(2).bytes(50_000));
        set_mode(&home.src(&format!("{mode:o}")), mode);
    }
    file(&home.src("read only/f"), "x");
    set_mode(&home.src("read only"), 0o555);
    let Some(other) = OtherUser::new(&home) else { return };
    OtherUser::own_dir(&home.dst);
    let sender = home.send_job("j");
    let _ = other.run(Run::receive(&sender.ticket, &home.dst)).finish().expect(0);
    let verify =
        |args: &[&str]| other.run(Run::with(["verify", "--json"]).args(args).arg(&home.dst)).finish();
    let found = verify(&[]).expect(3);
    assert_eq!(words(&found), pairs(&[("0", "hidden")]), "what its owner may not read");
    fs::remove_file(home.src("0")).unwrap();
    let _ = sender.stop().expect(0);
    let sender = home.send_job("j");
    let _ = other.run(Run::receive(&sender.ticket, &home.dst).arg("--delete")).finish().expect(0);
    assert_eq!(words(&verify(&[]).expect(0)), pairs(&[]));
    for name in ["444", "read only/f", "large"] {
        flip_unseen(&home.dst(name), 3);
    }
    let repaired = verify(&["--repair", "--from", &sender.ticket]).expect(0);
    assert_eq!(number(&repaired, "repaired", "repaired"), 3);
    assert_eq!(verify(&[]).expect(0).named("warning").count(), 0);
    let told = tree::differences(&home.src, &home.dst, SpecialModes::Dropped);
    assert!(told.is_empty(), "{told:?}");
}
