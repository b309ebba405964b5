//! `--delete`: what an earlier run of the job put here and the source has no more, and nothing else. Above a threshold
//! nothing is removed (hazard C9).

use super::{Home, MIB};
use sealift_tests::blockdev::{Fault, FaultyDisk, FileSystem, or_skip};
use sealift_tests::tree::{self, assert_tidy, file, set_mtime};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

/// A replica of a tree with something of each kind, by job `j`.
fn replica() -> Home {
    let home = Home::new();
    for name in ["keep", "small", "dir/small", "dir/deep/deeper/small", "other/x"] {
        file(&home.src(name), format!("this is {name}"));
    }
    tree::large_file(&home.src("large"), 2 * MIB, 1);
    fs::create_dir_all(home.src("dir/empty/empty too")).unwrap();
    symlink("keep", home.src("link")).unwrap();
    symlink("nowhere", home.src("dir/deep/link")).unwrap();
    fs::hard_link(home.src("keep"), home.src("second name of keep")).unwrap();
    fs::hard_link(home.src("small"), home.src("dir/second name of small")).unwrap();
    let _ = home.sync(&[]).expect(0);
    home.assert_same();
    home
}

/// Removes all but `keep` at the source.
fn remove_most(home: &Home) {
    for name in ["dir", "other"] {
        fs::remove_dir_all(home.src(name)).unwrap();
    }
    for name in ["small", "large", "link", "second name of keep"] {
        fs::remove_file(home.src(name)).unwrap();
    }
}

#[test]
fn without_delete_nothing_goes() {
    let home = replica();
    let before = tree::entries(&home.dst).len();
    remove_most(&home);
    let _ = home.sync(&[]).expect(0);
    assert_eq!(tree::entries(&home.dst).len(), before);
    // Nor is it forgotten that it could.
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
}

#[test]
fn with_delete_everything_goes_that_the_job_put_here() {
    let home = replica();
    remove_most(&home);
    let received = home.sync(&["--delete", "--max-delete=100%"]).expect(0);
    assert_eq!(received.warnings(), "");
    home.assert_same();
    let again = home.sync(&["--delete", "--max-delete=0"]).expect(0);
    assert_eq!((again.total("bytes_transferred"), again.warnings().as_str()), (0, ""));
    home.assert_same();
    // And comes back, and goes again.
    file(&home.src("dir/small"), "again");
    let _ = home.sync(&["--delete"]).expect(0);
    home.assert_same();
    fs::remove_dir_all(home.src("dir")).unwrap();
    let _ = home.sync(&["--delete"]).expect(0);
    home.assert_same();
}

#[test]
fn an_empty_source_takes_everything_if_that_is_asked_for() {
    let home = replica();
    remove_most(&home);
    fs::remove_file(home.src("keep")).unwrap();
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
    assert_eq!(tree::entries(&home.dst).len(), 1);
}

#[test]
fn what_was_here_before_is_not_removed() {
    let home = Home::new();
    for name in ["same", "other", "dir/same", "dir/other"] {
        file(&home.src(name), format!("this is {name}"));
    }
    symlink("same", home.src("link")).unwrap();
    symlink("same", home.src("other link")).unwrap();
    file(&home.src("twin"), "twins");
    fs::hard_link(home.src("twin"), home.src("twin too")).unwrap();
    // Some of it is here already, and something else beside it.
    for name in ["same", "dir/same"] {
        file(&home.dst(name), format!("this is {name}"));
    }
    symlink("same", home.dst("link")).unwrap();
    file(&home.dst("twin"), "twins");
    fs::hard_link(home.dst("twin"), home.dst("twin too")).unwrap();
    file(&home.dst("mine"), "mine");
    let _ = home.sync(&[]).expect(0);
    fs::remove_dir_all(home.src("dir")).unwrap();
    for name in ["same", "other", "link", "other link", "twin", "twin too"] {
        fs::remove_file(home.src(name)).unwrap();
    }
    for _ in 0..2 {
        let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
        let left: Vec<_> =
            tree::entries(&home.dst).into_keys().filter_map(|p| p.to_str().map(str::to_owned)).collect();
        assert_eq!(left, ["", "dir", "dir/same", "link", "mine", "same", "twin", "twin too"]);
    }
}

#[test]
fn what_another_job_put_here_is_not_removed() {
    let home = replica();
    // Another sender without a name is another job, to which all of this is foreign.
    let other = Home::new();
    file(&other.src("of the other"), "x");
    file(&other.src("keep"), "this is keep");
    let sender = other.send();
    let before = tree::entries(&home.dst).len();
    let received = home.receive(&sender.ticket, &["--delete", "--max-delete=100"]).finish().expect(0);
    assert_eq!(received.warnings(), "");
    assert_eq!(tree::entries(&home.dst).len(), before + 1);
    // And ours leaves alone what is the other's.
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    assert_eq!(fs::read(home.dst("of the other")).unwrap(), b"x");
    // A job of another name is one too.
    fs::remove_file(home.src("keep")).unwrap();
    let sender = home.send_job("k");
    let _ = home.receive(&sender.ticket, &["--delete", "--max-delete=100"]).finish().expect(0);
    assert_eq!(fs::read(home.dst("keep")).unwrap(), b"this is keep");
}

#[test]
fn what_was_edited_here_is_not_removed() {
    let home = replica();
    let append = |name: &str| {
        OpenOptions::new().append(true).open(home.dst(name)).unwrap().write_all(b", edited").unwrap();
    };
    append("dir/small");
    append("large");
    // Another target is an edit too, and another thing of that name.
    fs::remove_file(home.dst("link")).unwrap();
    symlink("elsewhere", home.dst("link")).unwrap();
    fs::remove_file(home.dst("dir/deep/link")).unwrap();
    file(&home.dst("dir/deep/link"), "now a file");
    fs::remove_file(home.dst("small")).unwrap();
    fs::create_dir(home.dst("small")).unwrap();
    remove_most(&home);
    let received = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    for name in ["dir/small", "large", "link", "dir/deep/link", "small"] {
        assert!(fs::symlink_metadata(home.dst(name)).is_ok(), "{name} was removed");
        assert!(received.warnings().contains(name), "{name} is named: {received:?}");
    }
    assert!(fs::read(home.dst("dir/small")).unwrap().ends_with(b", edited"));
    // What was not edited has gone, and so have the directories with nothing else in them.
    for name in ["dir/deep/deeper", "dir/empty", "other", "second name of keep"] {
        assert!(!home.dst(name).exists(), "{name} is there");
    }
}

#[test]
fn what_was_edited_here_behind_its_size_and_time_is_not_removed() {
    let home = Home::new();
    file(&home.src("keep"), "x");
    file(&home.src("f"), "content");
    let _ = home.sync(&[]).expect(0);
    let before = fs::metadata(home.dst("f")).unwrap();
    fs::write(home.dst("f"), "CONTENT").unwrap();
    set_mtime(&home.dst("f"), before.mtime(), before.mtime_nsec());
    fs::remove_file(home.src("f")).unwrap();
    let _ = home.sync(&["--delete"]).expect(0);
    assert_eq!(fs::read(home.dst("f")).unwrap(), b"CONTENT");
}

#[test]
fn directories_with_something_else_in_them_stay() {
    let home = replica();
    file(&home.dst("dir/deep/mine"), "mine");
    fs::create_dir(home.dst("other/mine")).unwrap();
    remove_most(&home);
    let received = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    assert_eq!(fs::read(home.dst("dir/deep/mine")).unwrap(), b"mine");
    assert!(home.dst("other/mine").is_dir());
    for name in ["dir", "dir/deep", "other"] {
        assert!(received.warnings().contains(&format!("{name}: ")), "{name} is named: {received:?}");
    }
    for name in ["dir/small", "dir/deep/deeper", "dir/empty", "dir/deep/link", "other/x"] {
        assert!(fs::symlink_metadata(home.dst(name)).is_err(), "{name} is there");
    }
    // Once it is empty it goes.
    fs::remove_file(home.dst("dir/deep/mine")).unwrap();
    fs::remove_dir(home.dst("other/mine")).unwrap();
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
}

#[test]
fn directories_that_forbid_it_are_no_obstacle() {
    let home = replica();
    for name in ["dir", "dir/deep", "other"] {
        tree::set_mode(&home.src(name), 0o555);
    }
    let _ = home.sync(&[]).expect(0);
    home.assert_same();
    for name in ["dir", "dir/deep", "other"] {
        tree::set_mode(&home.src(name), 0o755);
    }
    remove_most(&home);
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
}

#[test]
fn files_that_became_directories_and_back_converge() {
    let home = replica();
    // A file, a link and a further name become directories, directories become files and links.
    let first = home.dir.path().join("first");
    fs::rename(&home.src, &first).unwrap();
    fs::create_dir(&home.src).unwrap();
    file(&home.src("keep"), "this is keep");
    for name in ["small", "link", "second name of keep", "large"] {
        file(&home.src(&format!("{name}/in it")), "x");
    }
    file(&home.src("dir"), "a file now");
    symlink("keep", home.src("other")).unwrap();
    let received = home.sync(&["--delete", "--max-delete=100"]);
    // What was full of files that are going is replaced, at the latest, by the next run.
    assert!(matches!(received.code, Some(0 | 3)), "{received:?}");
    println!("at first: {:?} {:?}", received.code, received.problems());
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
    // And back.
    fs::remove_dir_all(&home.src).unwrap();
    fs::rename(&first, &home.src).unwrap();
    let received = home.sync(&["--delete", "--max-delete=100"]);
    assert!(matches!(received.code, Some(0 | 3)), "{received:?}");
    let _ = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    home.assert_same();
}

#[test]
fn what_goes_together_with_one_of_its_names_stays_under_the_others() {
    let home = replica();
    // The first name goes, the second stays, and the other way round.
    fs::remove_file(home.src("keep")).unwrap();
    fs::remove_file(home.src("dir/second name of small")).unwrap();
    let received = home.sync(&["--delete"]).expect(0);
    assert_eq!(received.warnings(), "");
    home.assert_same();
    let again = home.sync(&["--delete"]).expect(0);
    assert_eq!((again.total("bytes_transferred"), again.warnings().as_str()), (0, ""));
    home.assert_same();
}

#[test]
fn c9_more_deletions_than_allowed_are_withheld() {
    let home = Home::new();
    tree::small_files(&home.src, 300, 1);
    let _ = home.sync(&[]).expect(0);
    let before = tree::entries(&home.dst).len();
    for number in 0..40 {
        fs::remove_file(home.src(&format!("0/{number:06}"))).unwrap();
    }
    file(&home.src("new"), "new");
    // A tenth, by default: 301 entries are here, 30 may go.
    for args in [&["--delete"][..], &["--delete", "--max-delete=39"], &["--delete", "--max-delete=13%"]] {
        let withheld = home.sync(args).expect(3);
        let said = withheld.warnings();
        assert!(said.contains("40 of the") && said.contains("--max-delete"), "{said}");
        assert!(said.contains("nothing was removed"), "{said}");
        assert_eq!(tree::entries(&home.dst).len(), before + 1, "everything else is done");
        assert_eq!(withheld.total("failed"), 0);
    }
    let _ = home.sync(&["--delete", "--max-delete=40"]).expect(0);
    home.assert_same();
}

#[test]
fn c9_what_is_withheld_is_told_before_the_end() {
    let home = Home::new();
    tree::small_files(&home.src, 50, 1);
    let _ = home.sync(&[]).expect(0);
    fs::remove_dir_all(home.src("0")).unwrap();
    let withheld = home.sync(&["--delete", "--max-delete=5"]).expect(3);
    // For programs, `done` is the last line.
    let _ = withheld.done();
}

#[test]
fn c9_ten_may_always_go_and_the_words_of_max_delete_are_checked() {
    let home = Home::new();
    tree::small_files(&home.src, 12, 1);
    let _ = home.sync(&[]).expect(0);
    for number in 0..10 {
        fs::remove_file(home.src(&format!("0/{number:06}"))).unwrap();
    }
    let _ = home.sync(&["--delete"]).expect(0);
    home.assert_same();
    let sender = home.send();
    for bad in [&["--delete", "--max-delete=101%"][..], &["--delete", "--max-delete=-1"], &["--max-delete=5"]]
    {
        let _ = home.receive(&sender.ticket, bad).finish().expect(2);
    }
}

#[test]
fn b3_a_source_that_cannot_read_all_of_itself_takes_nothing_away() {
    // A directory that reads with an error has nothing in it, as far as the sender can see.
    let Some(mut disk) = or_skip(FaultyDisk::new(FileSystem::Ext4WithoutJournal, 32 * MIB)) else {
        return;
    };
    let home = Home::new();
    fs::remove_dir(&home.src).unwrap();
    symlink(disk.path(), &home.src).unwrap();
    fs::remove_dir(home.src("lost+found")).unwrap();
    // So large that it is not read along with what is above it.
    let inside = |number: u32| format!("dir/{number}{}", "n".repeat(200));
    for number in 0..400 {
        file(&home.src(&inside(number)), "x");
    }
    file(&home.src("gone"), "x");
    file(&home.src("stays"), "x");
    let _ = home.sync(&[]).expect(0);
    fs::remove_file(home.src("gone")).unwrap();
    disk.mount_again().unwrap();
    // The top is in memory, what is beneath is not.
    for entry in fs::read_dir(&home.src).unwrap() {
        let _ = entry.unwrap().metadata().unwrap();
    }
    let _ = fs::read(home.src("stays")).unwrap();
    disk.fail(Fault::Reads);
    let received = home.sync(&["--delete", "--max-delete=1000"]);
    disk.heal();
    println!("{:?} {:?}", received.code, received.problems());
    let received = received.expect(3);
    assert!(!received.problems().is_empty());
    assert!(received.warnings().contains("nothing is removed"), "{received:?}");
    assert!(home.dst("gone").exists());
    for number in 0..400 {
        assert!(home.dst(&inside(number)).exists(), "{number} was removed");
    }
    disk.mount_again().unwrap();
    let _ = home.sync(&["--delete"]).expect(0);
    assert!(!home.dst("gone").exists() && home.dst(&inside(3)).exists());
}

#[test]
fn what_the_source_does_not_give_any_more_is_not_taken_for_gone() {
    // Removed from what is sent after it was offered, in the middle of a run.
    let home = Home::new();
    for number in 0..30 {
        file(&home.src(&format!("{number}")), "first");
    }
    let _ = home.sync(&[]).expect(0);
    for number in 0..30 {
        file(&home.src(&format!("{number}")), "second");
    }
    let mut sender = home.send_job("j");
    let _ = sender.process.wait_for("scanned");
    fs::remove_file(home.src("7")).unwrap();
    let received = home.receive(&sender.ticket, &["--delete"]).finish().expect(0);
    // It vanished, so it goes, or stays as it was until the next run.
    assert_eq!(received.total("failed"), 0);
    let _ = sender.stop();
    let _ = home.sync(&["--delete"]).expect(0);
    home.assert_same();
    assert_tidy(&home.dst);
}
