//! Hazard B9, a power cut at any write, by real file systems on a disk of which every write is logged.
//!
//! `SEALIFT_POWERCUT_IMAGES` says how many images each test looks at, or `all`. What it takes is root, loop devices, FUSE
//! and the tools that `sealift_tests::blockdev` names; where one is missing a test says `skipped` and why.
#![allow(clippy::unwrap_used)]

mod replica;
mod unfinished;

use sealift_tests::blockdev::{FileSystem, Unavailable};
use sealift_tests::powercut::{Checked, LoggedDisk, Position, PoweredOn, Recording, Share, What};
use sealift_tests::process::Run;
use sealift_tests::tree::Random;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// ext4 without what it does for programs that rename before they sync.
const WITHOUT_HELP: &str = "noauto_da_alloc";

/// How long a sender may be asked for its files, from one image after the other.
const OF_ALL_CUTS: Duration = Duration::from_secs(4 * 3600);

/// Runs a test on what there is here, and says what there is not.
fn on(kinds: &[FileSystem], test: impl Fn(FileSystem) -> Result<(), Unavailable>) {
    for kind in kinds {
        match test(*kind) {
            Ok(()) => {}
            Err(why) => println!("skipped: {kind:?}: {why}"),
        }
    }
}

/// A receiver onto such a disk, to be started.
fn receive(ticket: &str, disk: &Path) -> Run {
    Run::receive(ticket, disk.join("dest")).state_dir(disk.join("state"))
}

/// How versions of one file follow each other, each by a new file that is renamed over the one before.
#[derive(Clone, Copy)]
struct Replacing {
    sync_content: bool,
    sync_directory: bool,
}

/// What was done to a file, and when.
struct Replaced {
    recording: Recording,
    /// For each version, when its writing began and when it was done.
    versions: Vec<(Position, Position)>,
}

const VERSIONS: u64 = 60;

/// A version of the file, which says itself which one it is.
fn version(number: u64) -> Vec<u8> {
    let mut content = number.to_le_bytes().to_vec();
    content.extend(Random::new(number).bytes(1 + 37 * KIB * (number % 5)));
    content
}

impl Replacing {
    fn run(self, kind: FileSystem, options: &str) -> Result<Replaced, Unavailable> {
        let disk = LoggedDisk::new(kind, 32 * MIB, options)?;
        let (dir, unrelated) = (disk.path().join("dir"), disk.path().join("unrelated"));
        fs::create_dir(&dir).unwrap();
        let sync = |path: &Path| File::open(path).unwrap().sync_all().unwrap();
        sync(disk.path());
        let mut versions = Vec::new();
        for number in 0..VERSIONS {
            let began = disk.position();
            let staged = dir.join("staged");
            fs::write(&staged, version(number)).unwrap();
            if self.sync_content {
                sync(&staged);
            }
            fs::rename(&staged, dir.join("file")).unwrap();
            if self.sync_directory {
                sync(&dir);
            }
            versions.push((began, disk.position()));
            if number % 10 == 9 {
                // Whatever else is synced, by anyone, may bring the names to the disk.
                fs::write(&unrelated, [1]).unwrap();
                sync(&unrelated);
            }
        }
        Ok(Replaced { recording: disk.finish().with_fsck(), versions })
    }
}

impl Replaced {
    /// Checks at many cuts that the file is a whole version, and none older than the newest that was done.
    fn check(&self, share: Share) -> Checked {
        let (start, end) = (self.versions[0].0, self.recording.end());
        let cuts = self.recording.cuts(start..end, share, 9);
        self.recording.check(&cuts, |disk| self.look(disk).err().into_iter().collect())
    }

    fn look(&self, disk: PoweredOn<'_>) -> Result<(), String> {
        let done = self.versions.iter().filter(|(_, done)| *done <= disk.cut.at).count();
        let begun = self.versions.iter().filter(|(began, _)| *began <= disk.cut.at).count();
        let content = match fs::read(disk.path.join("dir/file")) {
            Ok(content) => content,
            Err(_) if done == 0 => return Ok(()),
            Err(error) => return Err(format!("the file is gone: {error}")),
        };
        let number = content.first_chunk().map(|number| u64::from_le_bytes(*number));
        match number.filter(|number| *number < VERSIONS && content == version(*number)) {
            None => Err(format!("the file is torn, of {} bytes", content.len())),
            Some(number) if number + 1 < done as u64 => {
                Err(format!("version {number}, but {done} were done"))
            }
            Some(number) if number >= begun as u64 => Err(format!("version {number} of {begun}")),
            Some(_) => Ok(()),
        }
    }
}

#[test]
fn an_fsync_reaches_the_disk_as_a_flush() {
    on(&[FileSystem::Ext4, FileSystem::Xfs], |kind| {
        let disk = LoggedDisk::new(kind, 32 * MIB, "")?;
        let mut file = File::create(disk.path().join("f")).unwrap();
        file.write_all(&[0xA5; 20_000]).unwrap();
        let before = disk.position();
        file.sync_all().unwrap();
        let after = disk.position();
        drop(file);
        let recording = disk.finish();
        let (log, synced) = (recording.log(), &recording.log().entries()[before.0..after.0]);
        let is_content = |data: &[u8]| data.iter().all(|byte| *byte == 0xA5);
        let content = synced.iter().position(|entry| {
            let mut found = false;
            log.for_each_piece(entry, |_, piece| found |= piece.chunks(4096).any(is_content));
            found
        });
        let flush = synced.iter().rposition(|entry| entry.flush && entry.what == What::Nothing);
        assert!(content.is_some() && flush > content, "{kind:?}: {synced:?}");
        assert!(!recording.boundaries(before..after).is_empty());
        Ok(())
    });
}

#[test]
fn what_is_replaced_in_the_right_order_is_whole_at_every_cut() {
    on(&[FileSystem::Ext4, FileSystem::Xfs], |kind| {
        let (options, images) = match kind {
            FileSystem::Xfs => ("", 15),
            FileSystem::Ext4 | FileSystem::Ext4WithoutJournal => (WITHOUT_HELP, 40),
        };
        let replaced = Replacing { sync_content: true, sync_directory: true }.run(kind, options)?;
        let checked = replaced.check(Share::asked_for(images));
        println!("{kind:?}:");
        checked.assert_none();
        Ok(())
    });
}

/// The harness would find it: without one of the syncs, the same is wrong at some cut.
#[test]
fn what_is_not_synced_is_found_torn_or_missing() {
    let found_without_sync = |kind, options, images, of_content, of_directory, symptom| {
        let replaced =
            Replacing { sync_content: of_content, sync_directory: of_directory }.run(kind, options)?;
        let checked = replaced.check(Share::Images(images));
        let (images, violations) = (checked.images, checked.violations.len());
        println!(
            "{kind:?}, content synced: {of_content}, directory synced: {of_directory}: {images} images checked, {violations} violations, as should be"
        );
        assert!(checked.violations.iter().any(|found| found.what.contains(symptom)), "nothing was found");
        let damaged = checked.violations.iter().find(|violation| violation.what.starts_with("it "));
        assert!(damaged.is_none(), "the file system itself is never damaged: {damaged:?}");
        Ok(())
    };
    on(&[FileSystem::Ext4], |kind| {
        found_without_sync(kind, WITHOUT_HELP, 30, false, true, "torn")?;
        found_without_sync(kind, WITHOUT_HELP, 30, true, false, "were done")?;
        found_without_sync(kind, WITHOUT_HELP, 30, false, false, "torn")
    });
    on(&[FileSystem::Xfs], |kind| found_without_sync(kind, "", 10, false, true, "torn"));
}
