//! A sender that is started again: hashes what changed and nothing else, and goes on with its job.
#![allow(clippy::unwrap_used)]

use crate::home::Home;
use rustix::process::Signal;
use sealift_proto::block::BlockSize;
use sealift_proto::digest::{HashAlgorithm, RootHash};
use sealift_proto::manifest::{SegmentHash, SegmentHeader, SegmentSeq, inspect};
use sealift_proto::path::SafePath;
use sealift_proto::session::hello;
use sealift_proto::ticket::Ticket;
use sealift_proto::wire::{Channel, Credit, FrameKind};
use sealift_store::{CachedFile, HashCache, LocalStat, Source};
use sealift_tests::hostile::HostileReceiver;
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, file};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

impl Home {
    /// A run that is stopped once everything is scanned: what it told of that, and how it ended.
    fn scan_with(&self, args: &[&str]) -> (Value, Outcome) {
        let mut process = self.sending(args).start();
        let scanned = process.wait_for("scanned");
        process.signal(Signal::TERM);
        (scanned, process.finish().expect(0))
    }

    /// What a run told once everything was scanned.
    fn scan(&self, args: &[&str]) -> Value {
        self.scan_with(args).0
    }

    /// A sender that listens where another did before.
    fn send_at(&self, address: SocketAddr, args: &[&str]) -> Sender {
        let run = Run::with(["send", "--json", "--bind"]).arg(address.to_string()).args(args).arg(&self.src);
        Sender::of(run.state_dir(&self.state))
    }

    /// Every cache of hashes.
    fn caches(&self) -> Vec<PathBuf> {
        let sources = fs::read_dir(self.state.join("sources")).unwrap();
        sources.map(|source| source.unwrap().path().join("hashes.redb")).collect()
    }

    /// How far the chain of the job `j` is, as it is kept.
    fn chain(&self) -> String {
        fs::read_to_string(self.state.join("jobs/j/chain")).unwrap()
    }
}

fn hashed_and_reused(scanned: &Value) -> (u64, u64) {
    (scanned["hashed_bytes"].as_u64().unwrap(), scanned["reused_files"].as_u64().unwrap())
}

/// The header and hash of the first segment that a sender gives to whoever asks for this one.
fn segment_for(sender: &Sender, wanted: u64) -> (SegmentHeader, SegmentHash) {
    let key = Ticket::decode(&sender.ticket).unwrap().verify_key;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let segment = runtime.block_on(async {
        let receiver = HostileReceiver::new(&sender.ticket);
        let greeting = hello(Channel::Control { next_segment: SegmentSeq(wanted) });
        let mut talk = receiver.greet(&greeting).await;
        talk.hear_until(FrameKind::Welcome).await.unwrap();
        talk.say(FrameKind::Credit, 0, &Credit { segments: 1 }.encode()).await.unwrap();
        talk.hear_until(FrameKind::Segment).await.unwrap().1
    });
    inspect(&segment, &key).unwrap()
}

fn stopped(mut sender: Sender) -> Outcome {
    sender.process.wait_for("scanned");
    sender.stop().expect(0)
}

#[test]
fn a_second_send_hashes_nothing_and_rehash_hashes_everything() {
    let home = Home::new();
    tree::oddities(&home.src, 7);
    let first = home.scan(&[]);
    let (bytes, _) = hashed_and_reused(&first);
    assert!(bytes >= first["bytes"].as_u64().unwrap() && bytes > 0);

    let sender = home.send();
    let received = home.receive(&sender.ticket, &[]).finish().expect(0);
    // Holes, large files, hard links and all: from what is remembered.
    assert_same(&home.src, &home.dst, SpecialModes::Dropped);
    assert!(received.total("bytes_transferred") > 0);
    let outcome = sender.stop().expect(0);
    let second = outcome.named("scanned").next().unwrap();
    let (hashed, reused) = hashed_and_reused(second);
    assert_eq!(hashed, 0);
    assert!(reused > 0 && reused <= second["entries"].as_u64().unwrap());
    for what in ["entries", "bytes", "problems"] {
        assert_eq!(first[what], second[what], "{what}");
    }

    assert_eq!(hashed_and_reused(&home.scan(&["--rehash"])), (bytes, 0));
    assert_eq!(hashed_and_reused(&home.scan(&["--hash=blake3"])), (bytes, 0), "another hash is not known");
    assert_eq!(hashed_and_reused(&home.scan(&["--hash=blake3"])), (0, reused));
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, reused), "and the first is still");
}

#[test]
fn only_what_was_touched_is_hashed_again() {
    let home = Home::new();
    tree::small_files(&home.src, 300, 8);
    tree::large_file(&home.src.join("large"), 3_000_000, 9);
    file(&home.src.join("gone"), "gone");
    let entries = home.scan(&[])["entries"].as_u64().unwrap();
    let touched = tree::entries(&home.src).into_keys().find(|path| home.src.join(path).is_file()).unwrap();
    let touched = home.src.join(touched);
    let content = fs::read(&touched).unwrap();
    fs::write(&touched, &content).unwrap();
    fs::remove_file(home.src.join("gone")).unwrap();
    file(&home.src.join("a new one"), "123");
    let second = home.scan(&[]);
    // A file that was just written is read once it is at rest, and may have been read before that too.
    let (hashed, reused) = hashed_and_reused(&second);
    assert_eq!(reused, 300);
    assert!(hashed >= content.len() as u64 + 3 && hashed <= 3 * (content.len() as u64 + 3), "{hashed}");
    assert_eq!(second["entries"], entries);
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 302));

    // The same content in another inode is another file; a large one is hashed from its first byte.
    fs::copy(home.src.join("large"), home.src.join("copy")).unwrap();
    fs::rename(home.src.join("copy"), home.src.join("large")).unwrap();
    let (hashed, reused) = hashed_and_reused(&home.scan(&[]));
    assert!(hashed >= 3_000_000 && reused == 301, "{hashed} {reused}");
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 302));
}

#[test]
fn what_is_gone_is_forgotten() {
    let home = Home::new();
    for name in ["a", "d/b", "e"] {
        file(&home.src.join(name), name);
    }
    home.scan(&[]);
    fs::remove_dir_all(home.src.join("d")).unwrap();
    home.scan(&[]);
    let cache = HashCache::open(&home.caches()[0], HashAlgorithm::Sha256).unwrap();
    let known: Vec<_> =
        cache.read().unwrap().after(None).unwrap().into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(known, ["a", "e"]);
}

#[test]
fn hashes_that_cannot_be_kept_are_no_failure() {
    let home = Home::new();
    tree::small_files(&home.src, 50, 10);
    let (bytes, _) = hashed_and_reused(&home.scan(&[]));
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 50));
    let note = |outcome: &Outcome, text: &str| outcome.messages("note").any(|note| note.contains(text));

    // Damaged at the beginning, in the middle, cut off, something else altogether.
    let cache = &home.caches()[0];
    let good = fs::read(cache).unwrap();
    let flipped = |from: usize| {
        let mut bytes = good.clone();
        for byte in &mut bytes[from..] {
            *byte ^= 0x55;
        }
        bytes
    };
    let damages =
        [flipped(0), flipped(good.len() / 2), good[..good.len() / 3].to_vec(), b"no cache".to_vec()];
    for (case, damaged) in damages.into_iter().enumerate() {
        fs::write(cache, damaged).unwrap();
        let (scanned, outcome) = home.scan_with(&[]);
        let (hashed, reused) = hashed_and_reused(&scanned);
        assert!(hashed == bytes || reused > 0, "case {case}: {scanned}");
        assert!(outcome.problems().is_empty() && scanned["entries"].as_u64().unwrap() > 50, "case {case}");
        assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 50), "case {case}: begun anew");
    }

    // In use by another sender.
    let mut first = home.send();
    first.process.wait_for("scanned");
    file(&home.src.join("one more"), "1");
    let (_, second) = home.scan_with(&["--rehash"]);
    drop(first);
    assert!(second.problems().is_empty());

    // No place for it.
    file(&home.dir.path().join("a file"), "");
    let nowhere = home.dir.path().join("a file/state");
    let mut process = Run::send([&home.src]).state_dir(&nowhere).start();
    process.wait_for("scanned");
    process.signal(Signal::TERM);
    let outcome = process.finish().expect(0);
    assert!(note(&outcome, "Hashes are not kept"), "{outcome:#?}");
    let wrapper = ["env", "-u", "HOME", "-u", "SEALIFT_STATE_DIR", "-u", "XDG_STATE_HOME"];
    if !tree::is_root() {
        let mut process = Run::send([&home.src]).wrapped(wrapper).start();
        process.wait_for("scanned");
        process.signal(Signal::TERM);
        assert!(note(&process.finish().expect(0), "--state-dir"));
    }
}

#[test]
fn a_job_keeps_its_ticket_and_goes_on_with_its_numbers() {
    let home = Home::new();
    tree::mixed(&home.src, 30, 11);
    let first = home.send_job("j");
    let ticket = first.ticket.clone();
    let address = first.address();
    let _ = home.receive(&ticket, &[]).finish().expect(0);
    let (header, _) = segment_for(&first, 0);
    assert!(header.snapshot && header.sequence == SegmentSeq(0));
    let _ = stopped(first);
    assert_same(&home.src, &home.dst, SpecialModes::Dropped);
    let kept = home.chain();
    let field = |name: &str| {
        let line = kept.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let next = field("reserved");
    assert!((1..100).contains(&next) && field("last") == next - 1, "{kept}");

    // Again, with the receiver's old ticket.
    file(&home.src.join("new"), "new");
    let second = home.send_at(address, &["--job=j"]);
    assert_eq!(second.ticket, ticket);
    let (header, hash) = segment_for(&second, 0);
    assert!(header.snapshot, "a newcomer begins here");
    assert_eq!(header.sequence, SegmentSeq(next));
    assert_ne!(header.previous, SegmentHash::NONE, "the segment before is known");
    // Whoever knows the old chain, or one that this sender has lost, is told the same.
    for wanted in [next - 1, next, u64::from(u32::MAX)] {
        assert_eq!(segment_for(&second, wanted), (header, hash), "{wanted}");
    }
    let received = home.receive(&ticket, &[]).finish().expect(0);
    assert_eq!(received.total("bytes_transferred"), 3);
    assert_same(&home.src, &home.dst, SpecialModes::Dropped);

    // Killed: all that was reserved is left out, and the ticket is still the same.
    second.process.kill();
    let third = home.send_at(address, &["--job=j", "--hash=blake3"]);
    assert_eq!(third.ticket, ticket);
    let (header, _) = segment_for(&third, 0);
    assert!(header.snapshot && header.sequence.0 >= next + (1 << 20), "{header:?}");
    assert_eq!(header.previous, SegmentHash::NONE);
    let _ = home.receive(&ticket, &[]).finish().expect(0);
    assert_same(&home.src, &home.dst, SpecialModes::Dropped);
    let _ = stopped(third);

    // Another job has other keys; so has every run without one.
    let other = home.send_at(address, &["--job=k"]);
    assert_ne!(other.ticket, ticket);
    let _ = stopped(other);
    assert_ne!(home.send_at(address, &[]).ticket, ticket);
}

#[test]
fn c4_a_job_whose_state_was_restored_is_a_fork_to_its_receivers() {
    let home = Home::new();
    tree::mixed(&home.src, 10, 12);
    let first = home.send_job("j");
    let address = first.address();
    let ticket = first.ticket.clone();
    let _ = home.receive(&ticket, &[]).finish().expect(0);
    let _ = stopped(first);
    let backup = home.chain();
    for content in ["one", "two"] {
        file(&home.src.join("changed"), content);
        let sender = home.send_at(address, &["--job=j"]);
        assert_eq!(sender.ticket, ticket);
        let received = home.receive(&ticket, &[]).finish();
        match content {
            "one" => drop(received.expect(0)),
            _ => {
                let message = received.expect(1).message();
                assert!(message.contains("fork") || message.contains("rollback"), "{message}");
            }
        }
        let _ = stopped(sender);
        fs::write(home.state.join("jobs/j/chain"), &backup).unwrap();
    }
}

#[test]
fn a_job_has_one_sender_at_a_time() {
    let home = Home::new();
    file(&home.src.join("a"), "a");
    let first = home.send_job("j");
    let second = home.sending(&["--job=j"]).finish().expect(1);
    assert!(second.message().contains("another sender works for job j"), "{second:#?}");
    // Others are not hindered, and the first goes on.
    let _ = stopped(home.send_job("k"));
    let _ = home.receive(&first.ticket, &[]).finish().expect(0);
    first.process.kill();
    let _ = stopped(home.send_job("j"));
}

#[test]
fn a_jobs_keys_are_for_their_owner_alone_and_never_shown() {
    let home = Home::new();
    file(&home.src.join("a"), "a");
    let outcome = stopped(home.send_job("j"));
    let seed = fs::read(home.state.join("jobs/j/seed")).unwrap();
    assert_eq!(seed.len(), 32);
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!outcome.stdout.contains(&hex) && !outcome.stderr.contains(&hex));
    for (path, mode) in
        [("", 0o700), ("jobs", 0o700), ("jobs/j", 0o700), ("jobs/j/seed", 0o600), ("sources", 0o700)]
    {
        assert_eq!(
            fs::metadata(home.state.join(path)).unwrap().permissions().mode() & 0o7777,
            mode,
            "{path}"
        );
    }
}

#[test]
fn names_of_jobs_are_checked_and_what_is_broken_is_told() {
    let home = Home::new();
    file(&home.src.join("a"), "a");
    for name in ["", ".", "../x", "a/b", "-x", "a b"] {
        let outcome = home.sending(&[&format!("--job={name}")]).finish().expect(2);
        assert!(outcome.stderr.contains("a job's name is"), "{name}: {outcome:#?}");
    }
    assert!(!home.state.join("jobs").exists());
    let _ = stopped(home.send_job("j"));
    for (broken, said) in [("chain", "its chain is missing"), ("seed", "its seed is missing")] {
        let (path, aside) = (home.state.join("jobs/j").join(broken), home.dir.path().join(broken));
        fs::rename(&path, &aside).unwrap();
        let outcome = home.sending(&["--job=j"]).finish().expect(1);
        assert!(outcome.message().contains(said), "{outcome:#?}");
        fs::rename(&aside, &path).unwrap();
    }
    let _ = stopped(home.send_job("j"));
}

#[test]
fn b15_a_hash_that_is_not_the_files_any_more_is_found_by_whoever_receives_it() {
    let home = Home::new();
    let mut random = tree::Random::new(13);
    for name in ["small", "other"] {
        file(&home.src.join(name), random.bytes(1000));
    }
    file(&home.src.join("large"), random.bytes(300_000));
    home.scan(&[]);
    // What a page that was mapped, or a disk that forgets, can do: the content changes and the times do not.
    let source = Source::open(std::slice::from_ref(&home.src)).unwrap();
    let cache = HashCache::open(&home.caches()[0], HashAlgorithm::Sha256).unwrap();
    for name in ["small", "large"] {
        let path = SafePath::parse(name.as_bytes()).unwrap();
        let stat = LocalStat::from(&source.open_file(&path).unwrap().1);
        let mut known = cache.read().unwrap().get(&path).unwrap().unwrap();
        assert_eq!((known.stat, known.block_size), (stat, BlockSize::MIN));
        match known.hashes.get_mut(3) {
            Some(hash) => hash.0[0] ^= 1,
            None => known.root = RootHash([9; 32]),
        }
        let root = sealift_proto::digest::root(HashAlgorithm::Sha256, &known.hashes);
        let known = CachedFile { root: if known.hashes.is_empty() { known.root } else { root }, ..known };
        cache.write(&[(path, known)]).unwrap();
    }
    cache.flush().unwrap();
    drop(cache);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    assert_same(&home.src, &home.dst, SpecialModes::Dropped);
    let told = sender.stop().expect(0);
    let scans: Vec<_> = told.named("scanned").map(hashed_and_reused).collect();
    assert_eq!(scans[0], (0, 3));
    assert_eq!(scans.last().unwrap().0, 301_000, "read again, and only those: {scans:?}");
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 3), "and remembered");
}

#[test]
fn several_paths_are_remembered_together() {
    let home = Home::new();
    for name in ["one", "tree/x", "tree/y"] {
        file(&home.src.join(name), name);
    }
    let scan = |paths: &[&str]| {
        let paths = paths.iter().map(|path| home.src.join(path));
        let mut process = Run::send(paths).state_dir(&home.state).start();
        let scanned = process.wait_for("scanned");
        process.signal(Signal::TERM);
        let _ = process.finish().expect(0);
        hashed_and_reused(&scanned).1
    };
    assert_eq!(scan(&["one", "tree"]), 0);
    assert_eq!(scan(&["tree", "one"]), 3);
    assert_eq!(scan(&["tree"]), 0, "another source");
    assert_eq!(scan(&["one", "tree"]), 3);
}

#[test]
fn b10_a_scan_that_was_killed_or_stopped_does_not_hinder_the_next() {
    let home = Home::new();
    tree::small_files(&home.src, 5000, 14);
    home.send().process.kill();
    let _ = home.send().stop().expect(0);
    let (hashed, reused) = hashed_and_reused(&home.scan(&[]));
    assert!(reused == 5000 || hashed > 0);
    assert_eq!(hashed_and_reused(&home.scan(&[])), (0, 5000));
}

#[test]
fn attributes_are_carried_of_what_is_read_and_of_what_is_known() {
    let home = Home::new();
    file(&home.src.join("d/file"), "content");
    tree::large_file(&home.src.join("large"), 100_000, 15);
    for path in ["", "d", "d/file", "large"] {
        if !tree::set_xattr(&home.src.join(path), "user.note", b"kept") {
            return println!("skipped: no extended attributes here");
        }
    }
    for known in [false, true] {
        let _ = fs::remove_dir_all(&home.dst);
        let sender = home.send_with(&["--preserve=default,xattrs"]);
        let _ =
            home.receive(&sender.ticket, &["--preserve=default,xattrs", "--new-replica"]).finish().expect(0);
        let outcome = sender.stop().expect(0);
        let (_, reused) = hashed_and_reused(outcome.named("scanned").next().unwrap());
        assert_eq!(reused, if known { 2 } else { 0 });
        assert_same(&home.src, &home.dst, SpecialModes::Dropped);
        for path in ["", "d", "d/file", "large"] {
            let value = tree::xattr(&home.dst.join(path), "user.note");
            assert_eq!(value.as_deref(), Some(&b"kept"[..]), "{path}, known: {known}");
        }
    }
    // Not asked for: not carried.
    let _ = fs::remove_dir_all(&home.dst);
    let sender = home.send();
    let _ = home.receive(&sender.ticket, &["--preserve=all", "--new-replica"]).finish().expect(0);
    assert_eq!(tree::xattr(&home.dst.join("d/file"), "user.note"), None);
    assert_eq!(fs::metadata(home.dst.join("d/file")).unwrap().size(), 7);
}
