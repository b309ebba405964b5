//! A replica whose disk loses power while an older version of it is replaced by a newer one.

use super::{OF_ALL_CUTS, WITHOUT_HELP, on, receive};
use sealift_tests::blockdev::{FileSystem, Unavailable};
use sealift_tests::powercut::{Checked, Cut, LoggedDisk, Position, PoweredOn, Recording, Share, Survivors};
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree::{self, Random, SpecialModes, file, set_mode, set_mtime};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 256 * MIB;

/// What a path may be, wholly.
#[derive(PartialEq, Eq)]
enum Version {
    Directory,
    Link(PathBuf),
    File { content: Vec<u8>, mode: u32, mtime: (i64, i64) },
}

impl Version {
    fn of(path: &Path, metadata: &fs::Metadata) -> std::io::Result<Self> {
        Ok(if metadata.is_dir() {
            Self::Directory
        } else if metadata.is_symlink() {
            Self::Link(fs::read_link(path)?)
        } else {
            // Special bits are not carried.
            let mode = metadata.mode() & 0o777;
            Self::File { content: fs::read(path)?, mode, mtime: (metadata.mtime(), metadata.mtime_nsec()) }
        })
    }

    /// Whether these differ in nothing but mode and time, which are changed in place.
    fn same_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { content: a, .. }, Self::File { content: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::File { content, .. } => content.len() as u64,
            Self::Directory | Self::Link(_) => 0,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Directory => "a directory".to_owned(),
            Self::Link(target) => format!("a link to {target:?}"),
            Self::File { content, mode, mtime } => {
                let zeros = content.iter().rev().take_while(|byte| **byte == 0).count();
                format!("{} bytes (the last {zeros} zero), mode {mode:o}, mtime {mtime:?}", content.len())
            }
        }
    }
}

/// All of a tree at one time.
type Tree = BTreeMap<PathBuf, Version>;

fn tree_of(root: &Path) -> Tree {
    let entries = tree::entries(root).into_iter();
    entries.map(|(path, entry)| (path.clone(), Version::of(&root.join(path), &entry).unwrap())).collect()
}

/// A few hundred small files, some of 40 KiB to 3 MiB, one of 24 MiB, links of both kinds.
fn make(root: &Path) {
    let mut random = Random::new(91);
    tree::mixed(&root.join("mixed"), 250, 92);
    tree::small_files(&root.join("small"), 100, 93);
    for number in 0..14 {
        let bytes = 40 * KIB + random.below(3 * MIB - 40 * KIB);
        file(&root.join(format!("medium {}/{number}", number % 3)), random.bytes(bytes));
    }
    tree::large_file(&root.join("large"), 24 * MIB, 94);
    for number in 0..10 {
        let path = root.join("links").join(number.to_string());
        file(&path, random.bytes(100 + number * 20 * KIB));
        fs::hard_link(&path, root.join(format!("hard {number}"))).unwrap();
        symlink(format!("../{number}"), root.join(format!("soft {number}"))).unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
}

/// Changes it in every way in which files are changed, in place.
fn change(root: &Path) {
    let mut random = Random::new(95);
    for (path, entry) in tree::entries(root) {
        let full = root.join(&path);
        let what = random.below(10);
        if entry.is_symlink() && what < 5 {
            fs::remove_file(&full).unwrap();
            match what {
                0 => fs::write(&full, random.bytes(3000)).unwrap(),
                _ => symlink(format!("changed {what}"), &full).unwrap(),
            }
        } else if entry.is_file() && entry.len() < MIB && entry.nlink() == 1 {
            match what {
                0..=4 => {
                    let bytes = random.below(2 * entry.len() + 100);
                    fs::write(&full, random.bytes(bytes)).unwrap();
                }
                // As long as before.
                5 => fs::write(&full, random.bytes(entry.len())).unwrap(),
                6 => {
                    set_mode(&full, 0o640);
                    set_mtime(&full, 1_600_000_000, 7);
                }
                7 if random.below(4) == 0 => fs::remove_file(&full).unwrap(),
                8 if random.below(4) == 0 => {
                    fs::remove_file(&full).unwrap();
                    symlink("was a file", &full).unwrap();
                }
                _ => {}
            }
        } else if entry.is_file() && entry.len() < 20 * MIB {
            let file = File::options().write(true).open(&full).unwrap();
            match what {
                0..=2 => file.write_all_at(&random.bytes(entry.len()), 0).unwrap(),
                3..=5 => file.write_all_at(&random.bytes(50 * KIB), entry.len() / 2).unwrap(),
                6..=7 => file.write_all_at(&random.bytes(300 * KIB), entry.len()).unwrap(),
                _ => file.set_len(entry.len() / 3).unwrap(),
            }
        }
    }
    tree::large_file(&root.join("large"), 24 * MIB + 5, 96);
    fs::remove_file(root.join("hard 3")).unwrap();
    fs::hard_link(root.join("links/2"), root.join("hard 3")).unwrap();
    tree::mixed(&root.join("new"), 60, 97);
}

/// What else goes on on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Nothing: all that is on the disk is there because the receiver saw to that.
    None,
    /// Somebody writes and syncs a file again and again. That takes half-done work to the disk at any moment.
    Syncs,
}

/// A run of two receives onto a logged disk, of one version of a tree and then of the next.
struct Replaced {
    recording: Recording,
    _dir: tempfile::TempDir,
    src: PathBuf,
    old: Tree,
    new: Tree,
    /// Of a sender that still runs, and offers the new version.
    ticket: String,
    old_done: Position,
    new_began: Position,
    new_done: Position,
}

impl Replaced {
    /// Receives the old version, and then the new one with these arguments.
    fn new(kind: FileSystem, neighbour: Neighbour, receive: &[&str]) -> Result<(Self, Sender), Unavailable> {
        let options = if kind == FileSystem::Xfs { "" } else { WITHOUT_HELP };
        let disk = LoggedDisk::new(kind, DISK_BYTES, options)?;
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("src");
        fs::create_dir(&src).unwrap();
        make(&src);
        let old = tree_of(&src);
        let (end, ended) = channel::<()>();
        let (old_done, sender, new, new_began, new_done) = std::thread::scope(|scope| {
            // Dropped with the results, or by a panic.
            let _end = end;
            if neighbour == Neighbour::Syncs {
                let path = disk.path().join("neighbour");
                scope.spawn(move || sync_until(&ended, &path));
            }
            let sender = send(&src);
            let old_done = received(&sender, &disk, &[]);
            let _ = sender.stop().expect(0);
            change(&src);
            let new = tree_of(&src);
            let sender = send(&src);
            let new_began = disk.position();
            let new_done = received(&sender, &disk, receive);
            (old_done, sender, new, new_began, new_done)
        });
        // Something else is synced later; then come what cuts there are after all is done.
        sync(&disk.path().join("later"));
        let (recording, ticket) = (disk.finish(), sender.ticket.clone());
        Ok((Self { recording, _dir: dir, src, old, new, ticket, old_done, new_began, new_done }, sender))
    }

    /// Cuts from all over both receives, most of them in the second, and some after it.
    fn cuts(&self, share: Share) -> Vec<Cut> {
        let ranges = [
            (Position(0)..self.old_done, 25),
            (self.old_done..self.new_done, 60),
            (self.new_done..self.recording.end(), 15),
        ];
        let mut cuts = Vec::new();
        for (range, percent) in ranges {
            // The most telling one: when it was just called done.
            cuts.push(Cut { at: range.start, survivors: Survivors::None });
            cuts.extend(self.recording.cuts(range, share.part(percent, 100), 98));
        }
        cuts.dedup();
        cuts
    }

    /// Looks at the replica after each of these cuts, and on one in five receives again.
    fn check_and_resume(&self, cuts: &[Cut]) -> (Checked, usize) {
        let resumed = AtomicUsize::new(0);
        let checked = self.recording.check(cuts, |disk| {
            let Looked { mut found, missing_bytes } = self.look(disk);
            if found.is_empty() && disk.number % RESUMED_EACH == 0 {
                resumed.fetch_add(1, Ordering::Relaxed);
                found = self.resume(disk, missing_bytes);
                found.extend(verify(disk));
            } else if found.is_empty() && disk.cut.at >= self.new_done {
                found = verify(disk);
            }
            found
        });
        (checked, resumed.into_inner())
    }

    fn look(&self, disk: PoweredOn<'_>) -> Looked {
        let at = disk.cut.at;
        let dest = disk.path.join("dest");
        let mut found = Vec::new();
        let mut missing_bytes: u64 = self.new.values().map(Version::bytes).sum();
        let there = match dest.exists() {
            true => tree::entries(&dest),
            false => BTreeMap::new(),
        };
        for (path, entry) in &there {
            if path.starts_with(".sealift") {
                continue;
            }
            let is = match Version::of(&dest.join(path), entry) {
                Ok(is) => is,
                Err(error) => {
                    found.push(format!("{path:?} cannot be read: {error}"));
                    continue;
                }
            };
            let (old, new) = (self.old.get(path), self.new.get(path));
            if let Some(new) = new.filter(|new| is.same_content(new)) {
                missing_bytes -= new.bytes();
            }
            let may_be_old = old.is_some_and(|old| *old == is) && (at < self.new_done || new.is_none());
            let may_be_new = new.is_some_and(|new| *new == is) && at >= self.new_began;
            // Then mode and time are set one by one.
            let only_metadata = at >= self.new_began
                && at < self.new_done
                && old.zip(new).is_some_and(|(old, new)| old.same_content(new) && is.same_content(new));
            if !may_be_old && !may_be_new && !only_metadata {
                let name =
                    |version: Option<&Version>| version.map_or("nothing".to_owned(), Version::describe);
                found.push(format!(
                    "{path:?} is {}, neither the old ({}) nor the new version ({})",
                    is.describe(),
                    name(old),
                    name(new)
                ));
            }
        }
        let done = [(self.old_done, &self.old), (self.new_done, &self.new)];
        for (_, tree) in done.iter().filter(|(done, _)| at >= *done) {
            found.extend(
                tree.keys()
                    .filter(|path| !there.contains_key(*path))
                    .map(|path| format!("{path:?} is missing")),
            );
        }
        if at >= self.new_done && found.is_empty() {
            found.extend(self.differences(&dest));
        }
        Looked { found, missing_bytes }
    }

    /// How the replica differs from the new version, beside what was removed at the source, which stays.
    fn differences(&self, dest: &Path) -> Vec<String> {
        let stays = |told: &String| {
            let removed = self.old.keys().filter(|path| !self.new.contains_key(*path));
            removed.map(|path| format!("{path:?} is only in the copy")).any(|line| line == *told)
        };
        let told = tree::differences(&self.src, dest, SpecialModes::Dropped);
        told.into_iter().filter(|told| !told.starts_with("\".sealift") && !stays(told)).collect()
    }

    /// Receives again, as after the reboot.
    fn resume(&self, disk: PoweredOn<'_>, missing_bytes: u64) -> Vec<String> {
        let outcome = receive(&self.ticket, disk.path).finish();
        if outcome.code != Some(0) || outcome.stderr.contains("panicked") {
            return vec![format!("receiving again failed: {outcome:#?}")];
        }
        let dest = disk.path.join("dest");
        let mut found = self.differences(&dest);
        let staged = fs::read_dir(dest.join(".sealift/staging")).map_or(0, Iterator::count);
        if staged > 0 {
            found.push(format!("{staged} staged files are left"));
        }
        let moved = outcome.total("bytes_transferred");
        if moved > missing_bytes {
            found.push(format!("{moved} bytes were moved, but only {missing_bytes} were missing"));
        }
        let state = disk.path.join("state");
        let memory = if state.exists() { tree::entries(&state) } else { BTreeMap::new() };
        let damaged = memory.into_keys().filter(|path| path.extension().is_some_and(|end| end == "damaged"));
        found.extend(damaged.map(|path| format!("{path:?} was found damaged")));
        found.into_iter().map(|what| format!("received again: {what}")).collect()
    }
}

/// What a look at a replica showed.
struct Looked {
    /// What should not be.
    found: Vec<String>,
    /// What files of the new version have that is not at their places.
    missing_bytes: u64,
}

fn sync(path: &Path) {
    fs::write(path, [1]).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn sync_until(ended: &Receiver<()>, path: &Path) {
    const EVERY: Duration = Duration::from_millis(10);
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        sync(path);
    }
}

/// A sender of one and the same job.
fn send(src: &Path) -> Sender {
    let run = Run::send([src]).arg("--job=powercut").state_dir(src.with_extension("state"));
    Sender::of(run.patience(OF_ALL_CUTS))
}

/// What the program itself finds wrong with a replica that is whole.
fn verify(disk: PoweredOn<'_>) -> Vec<String> {
    let run = Run::with(["verify", "--json"]).arg(disk.path.join("dest"));
    let outcome = run.state_dir(disk.path.join("state")).finish();
    if outcome.code == Some(0) { Vec::new() } else { vec![format!("it is not verified: {outcome:#?}")] }
}

/// Receives, and says how far the log was when it was called done.
fn received(sender: &Sender, disk: &LoggedDisk, args: &[&str]) -> Position {
    let mut process = receive(&sender.ticket, disk.path()).args(args).start();
    let _ = process.wait_for("done");
    let done = disk.position();
    let _ = process.finish().expect(0);
    done
}

/// How many images are looked at in all, unless it is asked for more.
const IMAGES: usize = 60;
/// On one of so many, everything is received again.
const RESUMED_EACH: usize = 5;

fn old_or_new(kind: FileSystem, neighbour: Neighbour, images: usize) -> Result<(), Unavailable> {
    let (replaced, sender) = Replaced::new(kind, neighbour, &[])?;
    let cuts = replaced.cuts(Share::asked_for(IMAGES).part(images, IMAGES));
    let (checked, resumed) = replaced.check_and_resume(&cuts);
    println!("{kind:?}, neighbour: {neighbour:?}, received again on {resumed}:");
    checked.assert_none();
    let _ = sender.stop().expect(0);
    Ok(())
}

#[test]
fn b9_every_file_is_wholly_old_or_new_after_a_power_cut() {
    on(&[FileSystem::Ext4], |kind| {
        old_or_new(kind, Neighbour::None, 20)?;
        old_or_new(kind, Neighbour::Syncs, 25)
    });
}

#[test]
fn b9_on_xfs_every_file_is_wholly_old_or_new_after_a_power_cut() {
    on(&[FileSystem::Xfs], |kind| {
        old_or_new(kind, Neighbour::None, 8)?;
        old_or_new(kind, Neighbour::Syncs, 7)
    });
}

/// The check would find it: without any sync, which `--fsync=no` asks for, there are torn files.
#[test]
fn b9_without_sync_torn_files_are_found() {
    on(&[FileSystem::Ext4], |kind| {
        let (replaced, sender) = Replaced::new(kind, Neighbour::Syncs, &["--fsync=no"])?;
        let range = replaced.new_began..replaced.recording.end();
        let cuts = replaced.recording.cuts(range, Share::Images(12), 99);
        let Checked { images, violations, .. } =
            replaced.recording.check(&cuts, |disk| replaced.look(disk).found);
        println!(
            "{kind:?}, without sync: {images} images checked, {} violations, as should be",
            violations.len()
        );
        assert!(violations.iter().any(|found| found.what.contains("neither")), "{violations:?}");
        let _ = sender.stop().expect(0);
        Ok(())
    });
}
