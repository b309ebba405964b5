//! What is sent is what is received: trees of every kind, onto nothing and onto what is there already.
#![allow(clippy::unwrap_used)]

mod command;
mod large;
mod limit;
mod ticket;

pub(crate) use command::{NOBODY, OtherUser};
use rustix::process::Signal;
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, differences, file, set_mode, set_mtime};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// A source and a destination that does not exist yet, in a directory of their own.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) src: PathBuf,
    pub(crate) dst: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
        fs::create_dir(&src).unwrap();
        Self { dir, src, dst }
    }

    /// Replicates once; both sides must succeed.
    pub(crate) fn replicate(&self, send: &[&str], receive: &[&str]) -> (Outcome, Outcome) {
        let sender = Sender::start([&self.src], send);
        let received = sender.receive(&self.dst, receive).expect(0);
        (sender.stop().expect(0), received)
    }
}

/// One way to run both ends.
struct Way {
    io: &'static str,
    send: &'static [&'static str],
    receive: &'static [&'static str],
}

fn oddities_survive(way: &Way) {
    let place = Place::new();
    tree::oddities(&place.src, 1);
    let special = match way.receive.contains(&"--keep-special-modes") {
        true => SpecialModes::Kept,
        false => SpecialModes::Dropped,
    };
    let mut process = Run::send([&place.src]).args(way.send).io(way.io).start();
    let first = process.wait_until("a ticket or an error", |event| event["event"] != "note");
    if first["event"] == "error" && way.io == "uring" {
        println!("skipped: io_uring cannot be used here: {first}");
        return;
    }
    let ticket = first["ticket"].as_str().unwrap().to_owned();
    let receive = || Run::receive(&ticket, &place.dst).args(way.receive).io(way.io).finish().expect(0);

    let received = receive();
    assert_same(&place.src, &place.dst, special);
    let sizes = tree::entries(&place.src.join("sizes")).into_values().filter(|entry| entry.is_file());
    assert!(received.total("bytes_transferred") >= sizes.map(|entry| entry.len()).sum());
    assert!(received.problems().is_empty());

    // Again: nothing moves.
    let again = receive();
    assert_eq!(again.total("bytes_transferred"), 0);
    assert_eq!(
        (again.total("files"), again.total("bytes")),
        (received.total("files"), received.total("bytes"))
    );
    assert_same(&place.src, &place.dst, special);
    process.signal(rustix::process::Signal::TERM);
    let sent = process.finish().expect(0);
    assert_eq!(sent.total("bytes_transferred"), received.total("bytes_transferred"));
    assert_eq!(
        (sent.total("files"), sent.total("bytes")),
        (received.total("files"), received.total("bytes"))
    );
}

#[test]
fn oddities_by_uring_sha256_and_one_connection() {
    oddities_survive(&Way {
        io: "uring",
        send: &["--hash=sha256", "--cipher=aes-256-gcm"],
        receive: &["--keep-special-modes", "--fsync=yes", "--connections=1"],
    });
}

#[test]
fn oddities_by_threads_blake3_and_eight_connections() {
    oddities_survive(&Way {
        io: "threads",
        send: &["--hash=blake3", "--cipher=aes-128-gcm"],
        receive: &["--keep-special-modes", "--fsync=no", "--connections=8"],
    });
}

#[test]
fn oddities_by_uring_read_back_without_special_modes() {
    oddities_survive(&Way {
        io: "uring",
        send: &["--hash=blake3", "--cipher=aes-128-gcm"],
        receive: &["--verify=readback", "--fsync=no", "--connections=8"],
    });
}

#[test]
fn oddities_by_threads_read_back_without_special_modes() {
    oddities_survive(&Way {
        io: "threads",
        send: &["--hash=sha256", "--cipher=aes-256-gcm"],
        receive: &["--verify=readback", "--fsync=yes"],
    });
}

#[test]
fn a_real_tree_is_replicated() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        // What others than this host are built of was not downloaded.
        .other_options([
            "--offline".to_owned(),
            "--locked".to_owned(),
            format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .unwrap();
    let mut packages: Vec<PathBuf> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .map(|package| package.manifest_path.parent().unwrap().as_std_path().to_owned())
        .collect();
    packages.sort();
    let mut left = 3000_usize;
    packages.retain(|package| {
        let entries = if left > 0 { tree::entries(package).len() } else { 0 };
        let taken = entries > 0 && entries <= left;
        left -= if taken { entries } else { 0 };
        taken
    });
    assert!(!packages.is_empty(), "this workspace has dependencies");
    let place = Place::new();
    let sender = Sender::start(&packages, &[]);
    let _ = sender.receive(&place.dst, &[]).expect(0);
    for package in &packages {
        assert_same(package, &place.dst.join(package.file_name().unwrap()), SpecialModes::Dropped);
    }
    assert_eq!(sender.receive(&place.dst, &[]).expect(0).total("bytes_transferred"), 0);
    let _ = sender.stop().expect(0);
}

#[test]
fn twenty_thousand_small_files_are_replicated() {
    let place = Place::new();
    tree::small_files(&place.src, 20_000, 2);
    let (_, received) = place.replicate(&[], &[]);
    assert_eq!(received.total("files"), 20_000);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(place.replicate(&[], &[]).1.total("bytes_transferred"), 0);
}

#[test]
fn an_empty_directory_is_replicated() {
    let place = Place::new();
    set_mode(&place.src, 0o751);
    set_mtime(&place.src, 5, 5);
    let (_, received) = place.replicate(&[], &[]);
    assert_eq!((received.total("files"), received.total("bytes")), (0, 0));
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

#[test]
fn what_is_in_dest_beside_is_kept() {
    let place = Place::new();
    tree::mixed(&place.src, 100, 3);
    file(&place.dst.join("extra/deep/file"), "stays");
    symlink("nowhere", place.dst.join("extra link")).unwrap();
    let before = fs::symlink_metadata(place.dst.join("extra/deep/file")).unwrap();
    let _ = place.replicate(&[], &[]);
    let after = fs::symlink_metadata(place.dst.join("extra/deep/file")).unwrap();
    assert_eq!(fs::read(place.dst.join("extra/deep/file")).unwrap(), b"stays");
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()), "not even touched");
    assert_eq!(fs::read_link(place.dst.join("extra link")).unwrap(), Path::new("nowhere"));
    // Nothing else is there, `.sealift` neither.
    let extra = differences(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(extra.len(), 4, "{extra:?}");
    tree::assert_tidy(&place.dst);
}

#[test]
fn a_file_and_several_paths_land_by_name() {
    let place = Place::new();
    file(&place.src.join("one"), "1");
    file(&place.src.join("two/three"), "3");
    symlink("three", place.src.join("two/link")).unwrap();
    let paths = ["one", "two"].map(|name| place.src.join(name));

    let sender = Sender::start(&paths[..1], &[]);
    let _ = sender.receive(place.dst.join("a"), &[]).expect(0);
    assert_eq!(fs::read(place.dst.join("a/one")).unwrap(), b"1");
    assert_eq!(tree::entries(&place.dst.join("a")).len(), 2);

    let sender = Sender::start(&paths, &[]);
    let _ = sender.receive(place.dst.join("b"), &[]).expect(0);
    let told = differences(&place.src, &place.dst.join("b"), SpecialModes::Dropped);
    // The directory that holds them was not sent.
    assert!(told.iter().all(|line| line.starts_with("\"\": ")), "{told:?}");
    assert_eq!(fs::read_link(place.dst.join("b/two/link")).unwrap(), Path::new("three"));

    // What a link stands for is not guessed.
    let link = place.src.join("two/link");
    let refused = Run::send([&link]).finish().expect(2);
    assert!(refused.message().contains("symbolic link"), "{refused:?}");
}

#[test]
fn odd_names_can_be_given_as_arguments() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"-- \xff sp ace\n\"");
    let (src, dst) = (place.dir.path().join(odd), place.dir.path().join("to").join(odd));
    tree::mixed(&src, 30, 4);
    file(&src.join(odd), "odd");
    let sender = Sender::start([&src], &[]);
    let _ = sender.receive(&dst, &[]).expect(0);
    assert_same(&src, &dst, SpecialModes::Dropped);
    // By relative names, which begin with a dash.
    let sender = Sender::of(Run::send([odd]).dir(place.dir.path()));
    let received = Run::receive(&sender.ticket, odd).dir(place.dir.path().join("to")).finish().expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    assert_same(&src, &dst, SpecialModes::Dropped);
}

#[test]
fn what_else_is_in_the_way_is_replaced() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    file(&outside.join("mine"), "untouched");
    file(&outside.join("dir/inner"), "untouched");
    let before: Vec<_> = tree::entries(&outside).into_values().map(|m| (m.mtime_nsec(), m.mode())).collect();

    for (name, content) in
        [("small", "new".to_owned()), ("large", "new".repeat(700_000)), ("empty", String::new())]
    {
        for way in ["over dir", "over link", "over dangling", "over file"] {
            file(&place.src.join(format!("{name} {way}")), &content);
        }
    }
    file(&place.src.join("dir over file/inner"), "new");
    file(&place.src.join("dir over link/inner"), "new");
    file(&place.src.join("dir over dangling/inner"), "new");
    symlink("to", place.src.join("link over file")).unwrap();
    symlink("to", place.src.join("link over link")).unwrap();
    symlink("to", place.src.join("link over dir")).unwrap();

    for name in ["small", "large", "empty"] {
        fs::create_dir_all(place.dst.join(format!("{name} over dir"))).unwrap();
        symlink(outside.join("mine"), place.dst.join(format!("{name} over link"))).unwrap();
        symlink("nowhere", place.dst.join(format!("{name} over dangling"))).unwrap();
        file(&place.dst.join(format!("{name} over file")), "old");
    }
    file(&place.dst.join("dir over file"), "old");
    symlink(outside.join("dir"), place.dst.join("dir over link")).unwrap();
    symlink("nowhere", place.dst.join("dir over dangling")).unwrap();
    file(&place.dst.join("link over file"), "old");
    symlink("other", place.dst.join("link over link")).unwrap();
    fs::create_dir(place.dst.join("link over dir")).unwrap();

    let _ = place.replicate(&[], &[]);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let after: Vec<_> = tree::entries(&outside).into_values().map(|m| (m.mtime_nsec(), m.mode())).collect();
    assert_eq!(before, after, "what links led to is as it was");
    assert_eq!(fs::read(outside.join("mine")).unwrap(), b"untouched");
    assert_eq!(fs::read(outside.join("dir/inner")).unwrap(), b"untouched");
}

#[test]
fn a_directory_with_anything_in_it_is_not_replaced() {
    let place = Place::new();
    file(&place.src.join("blocked small"), "new");
    file(&place.src.join("blocked large"), "new".repeat(1_000_000));
    symlink("to", place.src.join("blocked link")).unwrap();
    file(&place.src.join("fine"), "new");
    for name in ["blocked small", "blocked large", "blocked link"] {
        file(&place.dst.join(name).join("precious"), "kept");
    }
    let sender = Sender::start([&place.src], &["--once"]);
    let received = sender.receive(&place.dst, &[]).expect(3);
    let mut problems = received.problems();
    problems.sort_unstable();
    assert_eq!(problems, ["blocked large", "blocked link", "blocked small"]);
    assert_eq!(received.total("failed"), 3);
    assert_eq!(fs::read(place.dst.join("fine")).unwrap(), b"new");
    for name in ["blocked small", "blocked large", "blocked link"] {
        assert_eq!(fs::read(place.dst.join(name).join("precious")).unwrap(), b"kept");
    }
    tree::assert_tidy(&place.dst);
    let sent = sender.process.finish().expect(3);
    assert_eq!(sent.total("failed"), 3);
}

#[test]
fn files_that_became_one_or_are_one_no_longer_follow() {
    let place = Place::new();
    let make = |name: &str, content: &str, seconds| {
        file(&place.src.join(name), content);
        set_mtime(&place.src.join(name), seconds, 0);
    };
    make("a", "one", 1);
    fs::hard_link(place.src.join("a"), place.src.join("b")).unwrap();
    make("c", "two", 2);
    make("d", "two", 3);
    let _ = place.replicate(&[], &[]);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);

    // The content of both names changes.
    fs::write(place.src.join("a"), "other").unwrap();
    let _ = place.replicate(&[], &[]);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);

    // What was one becomes two with the same content; what was two becomes one.
    fs::remove_file(place.src.join("b")).unwrap();
    make("b", "other", 7);
    set_mode(&place.src.join("b"), 0o600);
    fs::remove_file(place.src.join("d")).unwrap();
    fs::hard_link(place.src.join("c"), place.src.join("d")).unwrap();
    let _ = place.replicate(&[], &[]);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

#[test]
fn metadata_alone_is_mended_without_data() {
    let place = Place::new();
    tree::mixed(&place.src, 60, 5);
    file(&place.src.join("large"), "x".repeat(3_000_000));
    let _ = place.replicate(&[], &[]);
    for (path, entry) in tree::entries(&place.dst) {
        set_mtime(&place.dst.join(&path), 77, 77);
        if !entry.is_symlink() {
            set_mode(&place.dst.join(&path), 0o740);
        }
    }
    let (_, received) = place.replicate(&[], &[]);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    assert_eq!(received.total("bytes_transferred"), 0);
}

#[test]
fn two_and_three_receivers_are_served_at_once() {
    let place = Place::new();
    tree::mixed(&place.src, 500, 6);
    tree::large_file(&place.src.join("large"), 20 << 20, 6);
    for count in [2, 3] {
        let sender = Sender::start([&place.src], &[]);
        let dests: Vec<_> =
            (0..count).map(|number| place.dir.path().join(format!("{count} {number}"))).collect();
        let receivers: Vec<_> =
            dests.iter().map(|dest| Run::receive(&sender.ticket, dest).arg("--no-share").start()).collect();
        let mut transferred = 0;
        for receiver in receivers {
            transferred += receiver.finish().expect(0).total("bytes_transferred");
        }
        for dest in &dests {
            assert_same(&place.src, dest, SpecialModes::Dropped);
        }
        assert_eq!(sender.stop().expect(0).total("bytes_transferred"), transferred);
    }
}

#[test]
fn a_second_receiver_of_one_dest_is_turned_away() {
    let place = Place::new();
    tree::large_file(&place.src.join("large"), 64 << 20, 7);
    let sender = Sender::start([&place.src], &[]);
    let mut first = Run::receive(&sender.ticket, &place.dst).start();
    let _ = first.wait_for("connected");
    // It has not ended before the second begins, however fast it is.
    first.signal(Signal::STOP);
    let second = sender.receive(&place.dst, &[]).expect(1);
    first.signal(Signal::CONT);
    assert!(second.message().contains("another"), "{second:?}");
    let _ = first.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}
