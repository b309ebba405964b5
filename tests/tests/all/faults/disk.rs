//! Hazards B3, B4 and B7: a disk that cannot be read or is full, and io_uring that is refused or short of memory.
//!
//! The faults are real, made by the kernel, and most take root: where that is missing a test says `skipped` and why.

use crate::replicate::{OtherUser, Place};
use sealift_tests::blockdev::{Mount, Unavailable, or_skip, run};
use sealift_tests::process::{Outcome, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, file, is_root, same_content};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A source on a disk whose last part can be made to read with EIO: a loop device over a file that is then cut off.
struct FailingSource {
    image: PathBuf,
    _mounted: Mount,
}

impl FailingSource {
    /// A disk that is whole, or why there is none.
    fn new(place: &Place) -> Result<Self, Unavailable> {
        let image = place.dir.path().join("image");
        File::create(&image).unwrap().set_len(64 * MIB).unwrap();
        let options = ["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal,^resize_inode"];
        run("mkfs.ext4", options.iter().map(OsStr::new).chain([image.as_os_str()]))?;
        let mounted = Mount::new(&image, &place.src, "loop")?;
        tree::mixed(&place.src.join("small"), 50, 70);
        for number in 0..12 {
            tree::large_file(&place.src.join(format!("large {number:02}")), 4 * MIB, number);
        }
        fs::remove_dir(place.src.join("lost+found")).unwrap();
        // Unmounted and mounted again, nothing of it is in memory.
        drop(mounted);
        let mounted = Mount::new(&image, &place.src, "loop,ro")?;
        Ok(Self { image, _mounted: mounted })
    }

    /// Cuts it off. What is in memory already can still be read.
    fn fail(&self) {
        OpenOptions::new().write(true).open(&self.image).unwrap().set_len(40 * MIB).unwrap();
    }
}

#[test]
fn b3_what_reads_with_an_error_is_named_and_others_finish() {
    for io in ["uring", "threads"] {
        let place = Place::new();
        let Some(disk) = or_skip(FailingSource::new(&place)) else { return };
        disk.fail();
        let mut failing: Vec<String> = tree::entries(&place.src)
            .into_iter()
            .filter(|(path, entry)| entry.is_file() && fs::read(place.src.join(path)).is_err())
            .map(|(path, _)| path.to_str().unwrap().to_owned())
            .collect();
        failing.sort();
        assert!(!failing.is_empty() && failing.len() < 12, "some files fail, not all: {failing:?}");

        let sender = Sender::of(Run::send([&place.src]).arg("--once").io(io));
        let received = Run::receive(&sender.ticket, &place.dst).io(io).finish().expect(3);
        let sent = sender.process.finish().expect(3);
        for outcome in [&sent, &received] {
            let mut named = outcome.problems();
            named.sort_unstable();
            assert_eq!(named, failing);
        }
        assert_eq!(received.total("failed"), failing.len() as u64);
        for (path, entry) in tree::entries(&place.src) {
            let failed = failing.iter().any(|name| path == Path::new(name));
            if failed {
                assert!(!place.dst.join(&path).exists(), "nothing is made up: {path:?}");
            } else if entry.is_file() {
                assert!(same_content(&place.src.join(&path), &place.dst.join(&path)), "{path:?}");
            }
        }
        tree::assert_tidy(&place.dst);
    }
}

#[test]
fn b3_what_fails_after_the_scan_is_named_and_others_finish() {
    let place = Place::new();
    let Some(disk) = or_skip(FailingSource::new(&place)) else { return };
    let sender = Sender::start([&place.src], &[]);
    // Whoever is the first gets what the scan has just read.
    drop(sender.receive(place.dir.path().join("first"), &[]).expect(0));
    // Only what is not in memory is read from the disk again.
    for number in 0..12 {
        let large = File::open(place.src.join(format!("large {number:02}"))).unwrap();
        rustix::fs::fadvise(&large, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    disk.fail();
    let received = sender.receive(&place.dst, &[]).expect(3);
    let sent = sender.stop();
    assert!(!received.problems().is_empty() && received.problems().len() < 12, "{received:?}");
    for problem in received.problems() {
        assert!(problem.starts_with("large "), "{problem}");
        assert!(!place.dst.join(problem).exists());
    }
    assert!(!sent.problems().is_empty());
    assert!(same_content(&place.src.join("small/file 1"), &place.dst.join("small/file 1")));
}

fn says_full(outcome: &Outcome) {
    let said = outcome.stdout.to_lowercase();
    assert!(said.contains("no space") || said.contains("full"), "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
}

#[test]
fn b4_a_full_disk_is_said_and_what_fits_is_kept() {
    for (name, large) in [("many", false), ("one", true)] {
        let place = Place::new();
        let Some(mount) = or_skip(Mount::tmpfs(&place.dst, "size=8m")) else { return };
        file(&place.src.join("a small one"), "fits");
        if large {
            tree::large_file(&place.src.join(name), 20 * MIB, 71);
        } else {
            for number in 0..20 {
                tree::large_file(&place.src.join(format!("{name} {number}")), MIB + 100, number);
            }
            tree::small_files(&place.src.join("small"), 500, 72);
        }
        let sender = Sender::start([&place.src], &[]);
        let failed = sender.receive(&place.dst, &["--wait-for-space=0"]);
        assert!(matches!(failed.code, Some(1 | 3)), "{failed:?}");
        says_full(&failed);
        tree::assert_whole(&place.src, &place.dst);
        // With room, it finishes.
        mount.remount("size=64m").unwrap();
        let _ = sender.receive(&place.dst, &[]).expect(0);
        assert_same(&place.src, &place.dst, SpecialModes::Dropped);
        tree::assert_tidy(&place.dst);
        let _ = sender.stop().expect(0);
    }
}

#[test]
fn b4_a_dest_that_cannot_be_written_is_said() {
    let place = Place::new();
    file(&place.src.join("f"), "x");
    let sender = Sender::start([&place.src], &[]);
    let in_the_way = place.dir.path().join("a file");
    file(&in_the_way, "mine");
    for dest in [in_the_way.clone(), in_the_way.join("beneath"), PathBuf::from("/proc/sealift")] {
        let failed = sender.receive(&dest, &[]).expect(1);
        assert!(failed.message().contains(dest.to_str().unwrap()), "{failed:?}");
    }
    assert_eq!(fs::read(&in_the_way).unwrap(), b"mine");
    match Mount::tmpfs(&place.dst, "ro") {
        Ok(_mounted) => {
            let failed = sender.receive(&place.dst, &[]).expect(1);
            assert!(failed.message().to_lowercase().contains("read-only"), "{failed:?}");
        }
        Err(why) => println!("skipped: {why}"),
    }
}

fn notes(outcome: &Outcome) -> String {
    outcome.messages("note").chain(outcome.messages("warning")).collect::<Vec<_>>().join("\n")
}

#[test]
fn b7_threads_are_used_when_asked_for_and_said() {
    let place = Place::new();
    tree::mixed(&place.src, 50, 73);
    let sender = Sender::of(Run::send([&place.src]).arg("--once").io("threads"));
    let received = Run::receive(&sender.ticket, &place.dst).io("threads").finish().expect(0);
    let sent = sender.process.finish().expect(0);
    for outcome in [&sent, &received] {
        assert!(notes(outcome).to_lowercase().contains("threads"), "{outcome:?}");
    }
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

/// Both ends under a limit of memory that may be locked, by a user who is bound by it.
fn with_lockable_bytes(bytes: u64) -> Option<[Outcome; 2]> {
    let limit = format!("--memlock={bytes}:{bytes}");
    if let Err(why) = run("prlimit", [&*limit, "true"]) {
        println!("skipped: {why}");
        return None;
    }
    let place = Place::new();
    tree::mixed(&place.src, 200, 74);
    tree::large_file(&place.src.join("large"), 20 * MIB, 75);
    // Root may lock what it likes.
    let other = if is_root() { Some(OtherUser::new(&place)?) } else { None };
    let limited = |run: Run| match &other {
        Some(other) => other.run_after(run, &["prlimit", &limit]),
        None => run.wrapped(["prlimit", &limit]),
    };
    if other.is_some() {
        OtherUser::own_dir(&place.dst);
    }
    let sender = Sender::of(limited(Run::send([&place.src]).arg("--once")));
    let received = limited(Run::receive(&sender.ticket, &place.dst)).finish().expect(0);
    let sent = sender.process.finish().expect(0);
    let told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
    assert!(told.is_empty(), "{told:?}");
    Some([sent, received])
}

#[test]
fn b7_without_lockable_memory_it_falls_back_and_says_so() {
    for bytes in [0, 1 << 20] {
        for outcome in with_lockable_bytes(bytes).into_iter().flatten() {
            let notes = notes(&outcome).to_lowercase();
            println!("{bytes} bytes: {notes}");
            let said = ["threads", "register", "lock"].iter().any(|word| notes.contains(word));
            assert!(said, "with {bytes} bytes, what it fell back to is said: {outcome:?}");
        }
    }
}

/// Makes io_uring_setup fail with EPERM by a seccomp filter, as containers do, and then becomes its arguments. The
/// numbers are those of x86-64 and arm64: prctl, seccomp, and the architecture as audit names it.
const REFUSE_URING: &str = r#"
    my ($prctl, $seccomp, $arch) = $^X && `uname -m` =~ /^x86_64/ ? (157, 317, 0xC000003E) : (167, 277, 0xC00000B7);
    my @filter = (
        [0x20, 0, 0, 4],                # load the architecture
        [0x15, 0, 3, $arch],            # another one: allow
        [0x20, 0, 0, 0],                # load the number of the call
        [0x15, 0, 1, 425],              # io_uring_setup?
        [0x06, 0, 0, 0x00050001],       # fail with EPERM
        [0x06, 0, 0, 0x7FFF0000],       # allow
    );
    my $code = join "", map { pack "SCCL", @$_ } @filter;
    my $program = pack "Sx![P]P", scalar @filter, $code;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!";
    exec { $ARGV[0] } @ARGV or die "exec: $!";
"#;

#[test]
fn b7_uring_that_is_refused_is_done_without_and_said() {
    if let Err(why) = run("perl", ["-e", REFUSE_URING, "--", "true"]) {
        return println!("skipped: a seccomp filter cannot be set here: {why}");
    }
    let refused = |run: Run| run.wrapped(["perl", "-e", REFUSE_URING, "--"]);
    let place = Place::new();
    tree::mixed(&place.src, 200, 76);
    tree::large_file(&place.src.join("large"), 10 * MIB, 77);
    let sender = Sender::of(refused(Run::send([&place.src]).arg("--once")));
    let received = refused(Run::receive(&sender.ticket, &place.dst)).finish().expect(0);
    let sent = sender.process.finish().expect(0);
    for outcome in [&sent, &received] {
        let notes = notes(outcome).to_lowercase();
        println!("{notes}");
        assert!(notes.contains("threads") && notes.contains("refused"), "{outcome:?}");
    }
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    // Who insists on it is told.
    let failed = refused(Run::send([&place.src]).io("uring")).finish().expect(1);
    assert!(!failed.message().is_empty());
}
