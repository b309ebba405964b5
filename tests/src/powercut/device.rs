//! A mounted file system on a disk of which everything is logged.

use super::image::Image;
use super::log::{Position, WriteLog};
use super::recording::Recording;
use crate::blockdev::{Export, FileSystem, Mount, Scratch, Unavailable};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How many times the disk all images and the log may take, at most: it is memory.
const ROOM: u64 = 12;

/// A mounted file system; what is written to its disk is logged from the moment on at which it was made.
#[derive(Debug)]
pub struct LoggedDisk {
    // In this order: the last mounted goes first.
    mount: Mount,
    export: Export,
    kind: FileSystem,
    options: String,
    base: PathBuf,
    log: PathBuf,
    scratch: Scratch,
}

impl LoggedDisk {
    /// A new, empty one, mounted with these options beside those of its kind: `noauto_da_alloc`, for example.
    ///
    /// # Errors
    /// If something that it takes is missing.
    ///
    /// # Panics
    /// If a file cannot be made.
    pub fn new(kind: FileSystem, bytes: u64, options: &str) -> Result<Self, Unavailable> {
        let bytes = bytes.max(kind.bytes_min());
        let scratch = Scratch::new(ROOM * bytes)?;
        let [base, disk, log, export, at] =
            ["base", "disk", "log", "export", "mounted"].map(|name| scratch.path().join(name));
        kind.make(&base, bytes, &[])?;
        Image::load(&base).and_then(|image| image.save(&disk)).expect("there is room");
        File::create(&log).expect("a log can be made");
        let export = Export::start(
            &[
                json!({ "driver": "file", "node-name": "disk", "filename": disk, "cache": { "no-flush": true } }),
                json!({ "driver": "file", "node-name": "log", "filename": log, "cache": { "no-flush": true } }),
                // With each entry the count at its start is right, so that positions are.
                json!({
                    "driver": "blklogwrites", "node-name": "top", "file": "disk", "log": "log",
                    "log-sector-size": 512, "log-super-update-interval": 1,
                }),
            ],
            &export,
        )?;
        let options = [kind.mount_options(), options].join(",");
        let options = options.trim_end_matches(',').to_owned();
        let mount = Mount::new(export.device(), &at, &options)?;
        Ok(Self { mount, export, kind, options, base, log, scratch })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// How far the log is now. Cuts from here on happen after everything that was called durable before.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn position(&self) -> Position {
        WriteLog::position(&self.log).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends the run: unmounts, and reads the log.
    ///
    /// # Panics
    /// If something is open on the file system, or the log is not what was written.
    #[must_use]
    pub fn finish(self) -> Recording {
        let Self { mount, export, kind, options, base, log, scratch } = self;
        mount.unmount().unwrap_or_else(|error| panic!("{error}"));
        let disk_bytes = base.metadata().expect("it is there").len();
        let log = File::open(log).expect("it is there");
        let log = WriteLog::read(log, disk_bytes).unwrap_or_else(|error| panic!("{error}"));
        assert_logged(&log, &base, export.device());
        drop(export);
        Recording::new(kind, options, base, log, scratch)
    }
}

/// Checks that the whole log makes what the kernel wrote, as it is on the device or in memory.
fn assert_logged(log: &WriteLog, base: &Path, device: &Path) {
    let mut image = Image::load(base).expect("it can be read");
    image.all_as_it_was();
    for entry in log.entries() {
        image.apply(log, entry);
    }
    let device = File::open(device).expect("it can be opened");
    let mut on_device = Vec::new();
    for (at_bytes, piece) in image.pieces() {
        on_device.resize(piece.len(), 0);
        device.read_exact_at(&mut on_device, at_bytes).expect("it can be read");
        assert!(on_device == piece, "the log is not what was written, at {at_bytes}: this harness is broken");
    }
}
