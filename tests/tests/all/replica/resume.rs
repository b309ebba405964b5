//! A receiver that was interrupted goes on where it was: what was written and synced is not fetched again, and what was
//! staged is believed only as far as the index vouches for it.

use super::{Home, MIB};
use crate::home::let_live;
use crate::relay::{Fate, Relay};
use rustix::process::Signal;
use sealift_proto::digest::HashAlgorithm;
use sealift_tests::hostile::{DataSet, Forger, HostileSender, Job, Talk};
use sealift_tests::process::{Process, Sender};
use sealift_tests::tree::{self, Random, assert_tidy, flip, same_content};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::PathBuf;

const LARGE: u64 = 60 * MIB;

/// A transfer of one large file that stands still in the middle, some time after the last block came.
struct Middle {
    home: Home,
    sender: Sender,
    relay: Relay,
    receiver: Process,
}

impl Middle {
    fn new(args: &[&str]) -> Self {
        let home = Home::new();
        tree::large_file(&home.src("large"), LARGE, 1);
        Self::of(home, args)
    }

    fn of(home: Home, args: &[&str]) -> Self {
        let mut sender = home.send();
        // Its root is known from the start.
        let _ = sender.process.wait_for("scanned");
        let relay = Relay::start(sender.address(), |piece| {
            if piece.total_down > LARGE / 2 { Fate::FreezeAll } else { Fate::Pass }
        });
        let mut receiver = home.receive(&sender.ticket_via(relay.address()), args).start();
        assert_eq!(relay.next_fate().1, Fate::FreezeAll);
        until_told(&home, &mut receiver);
        Self { home, sender, relay, receiver }
    }

    /// Bytes that had come when it last said so.
    fn came(&self) -> u64 {
        let last = self.receiver.events().iter().rev().find(|event| event["event"] == "progress").unwrap();
        let came = last["bytes_transferred"].as_u64().unwrap();
        assert!(came > LARGE / 8, "{last}");
        came
    }

    /// Kills the receiver. The sender goes on.
    fn killed(self) -> (Home, Sender, u64) {
        let came = self.came();
        self.receiver.kill();
        (self.home, self.sender, came)
    }
}

/// Waits until the index was told, and is told no more, of what a receiver has that stands still. (It is told once a
/// second, however long that takes.)
fn until_told(home: &Home, receiver: &mut Process) {
    let (mut told, mut quiet) = (None, 0);
    while quiet < 8 {
        let_live(receiver, 1);
        let modified = |path: &std::path::Path| fs::metadata(path).unwrap().modified().unwrap();
        let now = modified(&home.index());
        // Syncing what was written may take long, and comes before the index is told.
        let names = tree::staged(&home.dst);
        let is_told = !names.is_empty()
            && names.iter().all(|name| modified(&home.dst.join(".sealift/staging").join(name)) <= now);
        quiet = if is_told && told == Some(now) { quiet + 1 } else { 0 };
        told = Some(now);
    }
}

fn staged(home: &Home) -> PathBuf {
    let names = tree::staged(&home.dst);
    assert_eq!(names.len(), 1, "{names:?}");
    home.dst.join(".sealift/staging").join(&names[0])
}

#[test]
fn b10_a_receiver_that_is_told_to_stop_goes_on_where_it_was() {
    goes_on_after("INT");
}

#[test]
fn b10_a_killed_receiver_goes_on_where_it_was() {
    goes_on_after("KILL");
}

#[test]
fn c2_a_receiver_that_gave_up_goes_on_where_it_was() {
    goes_on_after("cut");
}

fn goes_on_after(how: &str) {
    let middle = Middle::new(&["--retry-for=1"]);
    let came = middle.came();
    let Middle { home, sender, relay, receiver } = middle;
    match how {
        "INT" => {
            receiver.signal(Signal::INT);
            assert!(receiver.finish().expect(1).message().contains("interrupted"));
        }
        "KILL" => receiver.kill(),
        _ => {
            relay.refuse();
            relay.cut_all();
            let _ = receiver.finish().expect(5);
        }
    }
    assert!(!home.dst("large").exists());
    let received = home.receive(&sender.ticket, &["--transport=tcp"]).finish().expect(0);
    home.assert_same();
    let again = received.total("bytes_transferred");
    assert!(again <= LARGE - came, "{how}: {came} came before and {again} again");
    assert_eq!(received.total("bytes"), LARGE);
}

#[test]
fn b10_what_another_directory_or_a_further_interruption_leaves_is_kept_too() {
    let (home, sender, came) = Middle::new(&[]).killed();
    // Once more, interrupted at once: nothing of what was there is lost.
    let mut second = home.receive(&sender.ticket_via("127.0.0.1:1".parse().unwrap()), &[]).start();
    let_live(&mut second, 1);
    second.signal(Signal::TERM);
    let _ = second.finish().expect(1);
    // Into another directory: all of it is fetched.
    let other = home.dir.path().join("other");
    let all = home.receive_into(&sender.ticket, &other, &["--transport=tcp"]).finish().expect(0);
    assert_eq!(all.total("bytes_transferred"), LARGE);
    let rest = home.receive(&sender.ticket, &["--transport=tcp"]).finish().expect(0);
    assert!(rest.total("bytes_transferred") <= LARGE - came, "{rest:?}");
    home.assert_same();
}

#[test]
fn of_a_file_that_changed_meanwhile_only_what_is_missing_or_other_is_fetched() {
    let (home, sender, came) = Middle::new(&[]).killed();
    let _ = sender.stop();
    let source = OpenOptions::new().write(true).open(home.src("large")).unwrap();
    for at in [0, 5 * MIB, LARGE - 10] {
        source.write_all_at(b"changed", at).unwrap();
    }
    drop(source);
    let received = home.replicate(&[]).expect(0);
    home.assert_same();
    let again = received.total("bytes_transferred");
    assert!(again <= LARGE - came + 3 * 256 * 1024, "{came} came before and {again} again");
}

#[test]
fn a_staged_file_that_is_not_the_one_is_not_taken_up() {
    // What is covered: a staged file of another inode or size, or that is no file, is not believed. What is not: a bit
    // that flipped in a staged block while the index vouches for it, in the same inode. It was verified when it was
    // written and synced, and `--verify=readback` finds it (below), as `verify` would later.
    for damage in ["truncated", "replaced", "a link", "a directory"] {
        let (home, sender, _) = Middle::new(&[]).killed();
        let path = staged(&home);
        match damage {
            "truncated" => OpenOptions::new().write(true).open(&path).unwrap().set_len(LARGE / 3).unwrap(),
            "replaced" => {
                let other = home.dir.path().join("other");
                tree::large_file(&other, LARGE, 99);
                fs::rename(other, &path).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
        let outside = home.dir.path().join("outside");
        tree::large_file(&outside, LARGE, 98);
        match damage {
            "a link" => symlink(&outside, &path).unwrap(),
            "a directory" => fs::create_dir(&path).unwrap(),
            _ => {}
        }
        let received = home.receive(&sender.ticket, &["--transport=tcp"]).finish().expect(0);
        assert_eq!(received.total("bytes_transferred"), LARGE, "{damage}");
        home.assert_same();
        let mut content = vec![0; 100];
        fs::File::open(&outside).unwrap().read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content, Random::new(98).bytes(100), "{damage}");
    }
}

#[test]
fn b15_reading_back_finds_what_flipped_in_staging() {
    let (home, sender, _) = Middle::new(&[]).killed();
    for at in [0, MIB, 20 * MIB + 5] {
        flip(&staged(&home), 8 * at);
    }
    let received = home.receive(&sender.ticket, &["--verify=readback"]).finish().expect(0);
    assert!(received.warnings().contains("read back"), "{received:?}");
    home.assert_same();
}

/// A sender whose first session gives the hashes of a file without its root, and later ones all of it.
fn sealed_later(job: &Job, set: &DataSet, open: Vec<Vec<u8>>, all: Vec<Vec<u8>>) -> HostileSender {
    let served = set.clone();
    let control = async move |talk: &mut Talk| {
        talk.welcome().await?;
        if talk.nth == 0 {
            talk.send_segments(&open).await?;
            return talk.stare().await;
        }
        talk.send_segments(&all).await?;
        talk.until_finished().await
    };
    HostileSender::start(job, control, async move |talk: &mut Talk| talk.serve_honestly(&served).await)
}

#[test]
fn what_was_staged_before_its_root_was_known_is_hashed() {
    let home = Home::new();
    let job = Job::random();
    let mut forger = Forger::new(&job, HashAlgorithm::Sha256);
    let content = Random::new(5).bytes(8 * MIB);
    let mut set = DataSet::default();
    set.file("f", content.clone());
    let records = set.records();
    // All but the seal and the end.
    let mut segments = vec![forger.segment(&records[..records.len() - 2])];
    let open = segments.clone();
    segments.push(forger.segment(&records[records.len() - 2..]));
    let sender = sealed_later(&job, &set, open, segments);

    let mut receiver = home.receive(sender.ticket(), &[]).start();
    let _ = receiver.wait_until("all blocks", |event| event["bytes_transferred"] == 8 * MIB);
    until_told(&home, &mut receiver);
    receiver.kill();
    for at in [7, 3 * MIB] {
        flip(&staged(&home), 8 * at);
    }
    let received = home.receive(sender.ticket(), &[]).finish().expect(0);
    assert_eq!(fs::read(home.dst("f")).unwrap(), content);
    // Two blocks of 32 KiB were wrong, and nothing else was fetched.
    assert_eq!(received.total("bytes_transferred"), 2 * 32 * 1024);
    assert_tidy(&home.dst);
}

#[test]
fn b10_what_is_staged_of_a_file_that_has_another_size_now_is_used_or_cleared() {
    let (home, sender, _) = Middle::new(&[]).killed();
    let _ = sender.stop();
    OpenOptions::new().write(true).open(home.src("large")).unwrap().set_len(LARGE / 2 + 100_000).unwrap();
    let received = home.replicate(&[]).expect(0);
    println!("{} bytes were fetched", received.total("bytes_transferred"));
    home.assert_same();
}

#[test]
fn b10_what_is_staged_of_a_file_that_the_source_has_no_more_is_cleared() {
    let (home, sender, _) = Middle::new(&[]).killed();
    let _ = sender.stop();
    fs::remove_file(home.src("large")).unwrap();
    tree::file(&home.src("small"), "small");
    let _ = home.replicate(&[]).expect(0);
    assert!(same_content(&home.src("small"), &home.dst("small")));
    let _ = home.replicate(&[]).expect(0);
    assert_tidy(&home.dst);
}

#[test]
fn what_cannot_be_published_leaves_nothing_staged() {
    // It is known to the index, all of it comes, and then there is a directory in the way.
    let home = Home::new();
    tree::large_file(&home.src("large"), LARGE, 1);
    tree::file(&home.dst("large/precious"), "kept");
    let Middle { home, sender: _sender, relay, receiver } = Middle::of(home, &[]);
    relay.thaw();
    let received = receiver.finish().expect(3);
    assert_eq!(received.problems(), ["large"]);
    assert_eq!(fs::read(home.dst("large/precious")).unwrap(), b"kept");
    assert_tidy(&home.dst);
}
