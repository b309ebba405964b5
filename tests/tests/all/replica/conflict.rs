//! Hazard B13: what was edited here since it was put here is not overwritten blindly. By default it is kept beside the
//! new one, and it is kept or overwritten where that is asked for.

use super::{Home, MIB, problem_of, version};
use crate::relay::{Fate, Relay};
use sealift_tests::tree::{self, assert_tidy, file, set_mode};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names and sizes: in one block, in one piece, and staged.
const FILES: [(&str, u64); 3] = [("tiny", 100), ("medium", 500_000), ("large", 5 * MIB)];

/// A replica whose files were all edited here; for half of them the source has another version too.
struct Edited {
    home: Home,
    /// Every path that was edited, and what it holds.
    edits: Vec<(String, Vec<u8>)>,
}

impl Edited {
    fn new() -> Self {
        let home = Home::new();
        let mut paths = Vec::new();
        for at in ["same", "changed"] {
            fs::create_dir(home.src(at)).unwrap();
            for (name, bytes) in FILES {
                tree::large_file(&home.src(&format!("{at}/{name}")), bytes, bytes);
                paths.push(format!("{at}/{name}"));
            }
            tree::file(&home.src(&format!("{at}/untouched")), "untouched");
        }
        let _ = home.replicate(&[]).expect(0);
        for path in paths.iter().filter(|path| path.starts_with("changed")) {
            append(&home.src(path), b"by the source");
        }
        file(&home.src("changed/untouched"), "changed");
        let mut edits = Vec::new();
        for path in paths {
            append(&home.dst(&path), b"edited here");
            let content = fs::read(home.dst(&path)).unwrap();
            edits.push((path, content));
        }
        Self { home, edits }
    }
}

fn append(path: &Path, what: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(what).unwrap();
}

#[test]
fn b13_by_default_both_versions_are_kept() {
    let Edited { home, edits } = Edited::new();
    let received = home.replicate(&[]).expect(0);
    for (path, edit) in &edits {
        assert!(tree::same_content(&home.src(path), &home.dst(path)), "{path}");
        let conflicts = home.conflicts(path);
        assert_eq!(conflicts.len(), 1, "{path}: {conflicts:?}");
        assert_eq!(fs::read(&conflicts[0]).unwrap(), *edit, "{path}");
        let name = conflicts[0].file_name().unwrap().to_str().unwrap();
        assert!(received.warnings().contains(name), "{name} is named: {received:?}");
    }
    assert!(home.conflicts("changed/untouched").is_empty());
    // Once, and not again.
    let again = home.replicate(&[]).expect(0);
    assert_eq!((again.total("bytes_transferred"), again.warnings().as_str()), (0, ""));
    assert!(edits.iter().all(|(path, _)| home.conflicts(path).len() == 1));
    assert_tidy(&home.dst);
}

#[test]
fn b13_what_was_edited_can_be_kept() {
    let Edited { home, edits } = Edited::new();
    let before: Vec<_> = edits.iter().map(|(path, _)| version(&home.dst(path))).collect();
    for _ in 0..2 {
        let received = home.replicate(&["--on-conflict=keep"]).expect(3);
        assert_eq!(received.total("failed"), edits.len() as u64);
        for ((path, edit), before) in edits.iter().zip(&before) {
            assert!(problem_of(&received, path).contains("edited here"), "{received:?}");
            assert_eq!(fs::read(home.dst(path)).unwrap(), *edit, "{path}");
            assert_eq!(version(&home.dst(path)), *before, "{path} is not even touched");
        }
        // What else changed has come.
        assert_eq!(fs::read(home.dst("changed/untouched")).unwrap(), b"changed");
        assert_eq!(received.total("files"), 2);
    }
    assert_tidy(&home.dst);
}

#[test]
fn b13_what_was_edited_can_be_overwritten() {
    let Edited { home, .. } = Edited::new();
    let received = home.replicate(&["--on-conflict=overwrite"]).expect(0);
    home.assert_same();
    // Appended to at the source or here: the rest is taken from what is there.
    assert!(received.total("bytes_transferred") < 3 * MIB, "{received:?}");
}

#[test]
fn b13_the_same_edit_on_both_sides_is_no_conflict() {
    let home = Home::new();
    for (name, bytes) in FILES {
        tree::large_file(&home.src(name), bytes, bytes);
    }
    let _ = home.replicate(&[]).expect(0);
    for (name, _) in FILES {
        append(&home.src(name), b"the same");
        append(&home.dst(name), b"the same");
    }
    let again = home.replicate(&["--on-conflict=keep"]).expect(0);
    assert_eq!(again.total("bytes_transferred"), 0);
    home.assert_same();
}

#[test]
fn b13_only_a_mode_or_time_that_was_changed_here_is_no_edit() {
    let home = Home::new();
    for (name, bytes) in FILES {
        tree::large_file(&home.src(name), bytes, bytes);
    }
    let _ = home.replicate(&[]).expect(0);
    for (name, _) in FILES {
        set_mode(&home.dst(name), 0o600);
        tree::set_mtime(&home.dst(name), 5, 5);
        append(&home.src(name), b"new");
    }
    let again = home.replicate(&["--on-conflict=keep"]).expect(0);
    assert_eq!(again.warnings(), "");
    home.assert_same();
}

#[test]
fn b13_what_was_removed_or_emptied_here_comes_back() {
    let home = Home::new();
    fs::create_dir_all(home.src("dir/deep/deeper")).unwrap();
    for (name, bytes) in FILES {
        tree::large_file(&home.src(&format!("dir/{name}")), bytes, bytes);
    }
    symlink("x", home.src("dir/deep/link")).unwrap();
    let _ = home.replicate(&[]).expect(0);
    fs::remove_dir_all(home.dst("dir")).unwrap();
    let _ = home.replicate(&["--on-conflict=keep"]).expect(0);
    home.assert_same();
    for (name, _) in FILES {
        fs::write(home.dst("dir").join(name), "").unwrap();
    }
    let received = home.replicate(&["--on-conflict=keep"]).expect(3);
    assert_eq!(received.total("failed"), 3);
    let _ = home.replicate(&[]).expect(0);
    assert!(FILES.iter().all(|(name, _)| home.conflicts(&format!("dir/{name}")).len() == 1));
}

/// Whether some file beneath has this content.
fn somewhere(dir: &Path, content: &[u8]) -> bool {
    let files = tree::entries(dir).into_iter().filter(|(_, entry)| entry.is_file());
    files.map(|(path, _)| dir.join(path)).any(|path| fs::read(path).unwrap() == content)
}

/// Makes a transfer stand still once this much came, does something, and lets it go on.
fn meanwhile(home: &Home, bytes: u64, args: &[&str], act: impl FnOnce()) -> sealift_tests::process::Outcome {
    let mut sender = home.send();
    let _ = sender.process.wait_for("scanned");
    let relay =
        Relay::start(
            sender.address(),
            move |piece| {
                if piece.total_down > bytes { Fate::FreezeAll } else { Fate::Pass }
            },
        );
    let receiver = home.receive(&sender.ticket_via(relay.address()), args).start();
    assert_eq!(relay.next_fate().1, Fate::FreezeAll);
    act();
    relay.thaw();
    receiver.finish()
}

#[test]
fn b13_what_is_edited_while_its_new_version_comes_is_not_overwritten() {
    for (name, bytes) in [("medium", 900_000), ("large", 20 * MIB)] {
        for how in ["written to", "replaced"] {
            let home = Home::new();
            tree::large_file(&home.src(name), bytes, 1);
            let _ = home.replicate(&[]).expect(0);
            tree::large_file(&home.src(name), bytes, 2);
            let received = meanwhile(&home, bytes / 2, &[], || match how {
                "written to" => append(&home.dst(name), b"edited here"),
                _ => {
                    fs::write(home.dst("new"), "edited here").unwrap();
                    fs::rename(home.dst("new"), home.dst(name)).unwrap();
                }
            });
            let received = received.expect(0);
            assert!(tree::same_content(&home.src(name), &home.dst(name)), "{name} {how}");
            let conflicts = home.conflicts(name);
            assert_eq!(conflicts.len(), 1, "{name} {how}: {received:?}");
            assert!(fs::read(&conflicts[0]).unwrap().ends_with(b"edited here"), "{name} {how}");
            assert_tidy(&home.dst);
        }
    }
}

#[test]
fn b13_what_is_edited_while_its_new_version_comes_can_be_kept() {
    let home = Home::new();
    tree::large_file(&home.src("large"), 20 * MIB, 1);
    let _ = home.replicate(&[]).expect(0);
    tree::large_file(&home.src("large"), 20 * MIB, 2);
    let received = meanwhile(&home, 10 * MIB, &["--on-conflict=keep", "--max-rewrite=1"], || {
        append(&home.dst("large"), b"edited here");
    });
    let received = received.expect(3);
    assert!(problem_of(&received, "large").contains("edited here"));
    assert!(fs::read(home.dst("large")).unwrap().ends_with(b"edited here"));
    assert_tidy(&home.dst);
}

#[test]
fn c9_a_file_that_has_to_be_tried_again_counts_once() {
    let home = Home::new();
    tree::large_file(&home.src("large"), 20 * MIB, 1);
    let _ = home.replicate(&[]).expect(0);
    tree::large_file(&home.src("large"), 20 * MIB, 2);
    let received =
        meanwhile(&home, 10 * MIB, &["--max-rewrite=1"], || append(&home.dst("large"), b"edited here"));
    let _ = received.expect(0);
    assert_eq!(home.conflicts("large").len(), 1);
}

#[test]
fn b13_what_is_made_here_while_a_file_of_that_name_comes_is_not_overwritten() {
    for (name, bytes) in [("medium", 900_000), ("large", 20 * MIB)] {
        let home = Home::new();
        tree::large_file(&home.src(name), bytes, 1);
        let received = meanwhile(&home, bytes / 2, &[], || file(&home.dst(name), "mine"));
        assert!(somewhere(&home.dst, b"mine"), "{name}: {received:?}");
    }
}

#[test]
fn b13_what_was_there_before_and_is_edited_while_its_new_version_comes_is_not_overwritten() {
    for (name, bytes) in [("medium", 900_000), ("large", 20 * MIB)] {
        let home = Home::new();
        tree::large_file(&home.src(name), bytes, 1);
        file(&home.dst(name), "was here before");
        let received = meanwhile(&home, bytes / 2, &[], || append(&home.dst(name), b", edited"));
        assert!(somewhere(&home.dst, b"was here before, edited"), "{name}: {received:?}");
    }
}

/// A name that is a file here, edited, and that the source makes something else.
fn becomes(what: &str, make: impl FnOnce(PathBuf)) {
    let home = Home::new();
    file(&home.src("a name"), "first");
    file(&home.src("beside"), "beside");
    let _ = home.replicate(&[]).expect(0);
    append(&home.dst("a name"), b", edited here");
    fs::remove_file(home.src("a name")).unwrap();
    make(home.src("a name"));
    let received = home.replicate(&[]);
    assert!(somewhere(&home.dst, b"first, edited here"), "it became {what}: {received:?}");
    let received = home.replicate(&["--on-conflict=keep"]);
    assert!(somewhere(&home.dst, b"first, edited here"), "it became {what}: {received:?}");
}

#[test]
fn b13_an_edited_file_survives_that_the_source_makes_a_directory_of_it() {
    becomes("a directory", |path| file(&path.join("in it"), "x"));
}

#[test]
fn b13_an_edited_file_survives_that_the_source_makes_a_symbolic_link_of_it() {
    becomes("a symbolic link", |path| symlink("beside", path).unwrap());
}

#[test]
fn b13_an_edited_file_survives_that_the_source_makes_a_hard_link_of_it() {
    // Of two names the first in order is the file.
    becomes("a hard link", |path| {
        fs::hard_link(path.with_file_name("beside"), path.with_file_name("zz")).unwrap()
    });
    let home = Home::new();
    file(&home.src("beside"), "beside");
    file(&home.src("zz"), "first");
    let _ = home.replicate(&[]).expect(0);
    append(&home.dst("zz"), b", edited here");
    fs::remove_file(home.src("zz")).unwrap();
    fs::hard_link(home.src("beside"), home.src("zz")).unwrap();
    let received = home.replicate(&[]);
    assert!(somewhere(&home.dst, b"first, edited here"), "{received:?}");
}

#[test]
fn b13_an_edited_further_name_of_a_file_is_not_overwritten() {
    for then in ["stays", "changes", "becomes its own"] {
        let home = Home::new();
        file(&home.src("a"), "one file");
        fs::hard_link(home.src("a"), home.src("b")).unwrap();
        let _ = home.replicate(&[]).expect(0);
        // As editors do it: a new file under the old name.
        fs::write(home.dst("b.new"), "edited here").unwrap();
        fs::rename(home.dst("b.new"), home.dst("b")).unwrap();
        match then {
            "changes" => file(&home.src("a"), "another content"),
            "becomes its own" => {
                fs::remove_file(home.src("b")).unwrap();
                file(&home.src("b"), "its own");
            }
            _ => {}
        }
        let received = home.replicate(&[]);
        assert!(somewhere(&home.dst, b"edited here"), "the source's {then}: {received:?}");
    }
}

#[test]
fn b13_edits_through_any_name_of_a_file_with_several_are_seen() {
    for changed in [false, true] {
        let home = Home::new();
        file(&home.src("a"), "one file");
        fs::hard_link(home.src("a"), home.src("b")).unwrap();
        let _ = home.replicate(&[]).expect(0);
        append(&home.dst("b"), b", edited here");
        if changed {
            append(&home.src("a"), b", changed there");
        }
        let received = home.replicate(&[]).expect(0);
        assert!(somewhere(&home.dst, b"one file, edited here"), "{received:?}");
        assert!(tree::same_content(&home.src("a"), &home.dst("a")));
        assert!(tree::same_content(&home.src("b"), &home.dst("b")));
    }
}

#[test]
fn b13_a_file_that_stands_where_a_link_was_put_is_not_overwritten() {
    for changed in [false, true] {
        let home = Home::new();
        symlink("nowhere", home.src("link")).unwrap();
        let _ = home.replicate(&[]).expect(0);
        fs::remove_file(home.dst("link")).unwrap();
        file(&home.dst("link"), "mine instead");
        if changed {
            fs::remove_file(home.src("link")).unwrap();
            symlink("elsewhere", home.src("link")).unwrap();
        }
        let received = home.replicate(&[]);
        assert!(somewhere(&home.dst, b"mine instead"), "{received:?}");
    }
}

#[test]
fn b13_names_that_are_as_long_as_may_be_are_set_aside_too() {
    let home = Home::new();
    let name = "n".repeat(255);
    file(&home.src(&name), "first");
    let _ = home.replicate(&[]).expect(0);
    append(&home.dst(&name), b", edited here");
    let _ = home.replicate(&[]).expect(0);
    assert!(somewhere(&home.dst, b"first, edited here"));
    assert!(somewhere(&home.dst, b"first"));
}

#[test]
fn what_was_there_before_any_run_is_replaced_as_ever() {
    let home = Home::new();
    for (name, bytes) in FILES {
        tree::large_file(&home.src(name), bytes, bytes);
        file(&home.dst(name), "was here before");
    }
    let received = home.replicate(&["--on-conflict=keep", "--max-rewrite=0"]).expect(0);
    assert_eq!(received.warnings(), "");
    home.assert_same();
}

#[test]
fn c9_more_rewrites_than_allowed_stop_the_job() {
    let home = Home::new();
    for number in 0..20 {
        tree::large_file(&home.src(&format!("file {number}")), 1000 + 100_000 * number, number);
    }
    file(&home.src("untouched"), "x");
    let _ = home.replicate(&[]).expect(0);
    for number in 0..20 {
        append(&home.src(&format!("file {number}")), b"encrypted");
    }
    file(&home.src("new"), "new files are no rewrites");
    let stopped = home.replicate(&["--max-rewrite=19"]).expect(1);
    assert!(stopped.message().contains("--max-rewrite"), "{stopped:?}");
    let replaced = || {
        let is =
            |number: &u64| fs::read(home.dst(&format!("file {number}"))).unwrap().ends_with(b"encrypted");
        (0..20).filter(is).count()
    };
    // It says how many may be replaced, and no more are.
    let before = replaced();
    assert!(before <= 19, "{before}");
    let next = home.replicate(&["--max-rewrite=5"]);
    assert_eq!(next.code, Some(if 20 - before > 5 { 1 } else { 0 }), "{before}: {next:?}");
    assert!(replaced() <= before + 5, "{before}: {next:?}");
    assert_tidy_but_kept(&home);
    let _ = home.replicate(&["--max-rewrite=20"]).expect(0);
    home.assert_same();
    // Nothing is left to be rewritten.
    let _ = home.replicate(&["--max-rewrite=0"]).expect(0);
}

#[test]
fn c9_no_more_files_are_replaced_than_may_be() {
    let home = Home::new();
    for number in 0..300 {
        file(&home.src(&format!("file {number}")), "first");
    }
    let _ = home.replicate(&[]).expect(0);
    for number in 0..300 {
        file(&home.src(&format!("file {number}")), "encrypted");
    }
    let _ = home.replicate(&["--max-rewrite=10"]).expect(1);
    let replaced =
        (0..300).filter(|number| fs::read(home.dst(&format!("file {number}"))).unwrap() != b"first").count();
    assert!(replaced <= 10, "{replaced} were replaced");
}

/// What the index knows of may stay staged after a job that was stopped.
fn assert_tidy_but_kept(home: &Home) {
    for name in tree::staged(&home.dst) {
        assert!(name.split('.').count() == 3, "{name}");
    }
}
