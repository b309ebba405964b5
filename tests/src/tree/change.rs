//! Changing what is there: its mode, its time, its attributes, a bit of it.

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

/// Sets the permission bits, special ones included.
///
/// # Panics
/// If it cannot.
pub fn set_mode(path: &Path, mode: u32) {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).expect("the mode can be set");
}

/// Sets the time of last modification, also of a symbolic link itself.
///
/// # Panics
/// If it cannot.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("the time can be set");
}

/// Flips a bit of a file in place. Bits are counted from the lowest of the first byte.
///
/// # Panics
/// If the file has no such bit, or may not be changed.
pub fn flip(path: &Path, bit: u64) {
    let file = File::options().read(true).write(true).open(path).expect("it can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).expect("it is that long");
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).expect("a file can be written");
}

/// The same, such that neither size nor mtime shows it.
///
/// # Panics
/// If the file has no such bit, or may not be changed.
pub fn flip_unseen(path: &Path, bit: u64) {
    let shown = || {
        let stat = fs::symlink_metadata(path).expect("it is there");
        (stat.len(), stat.mtime(), stat.mtime_nsec())
    };
    let before = shown();
    flip(path, bit);
    set_mtime(path, before.1, before.2);
    assert_eq!(shown(), before);
}

/// Copies a tree with all that it has, as `cp -a` does.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--").args([from, to]).status().expect("cp can be started");
    assert!(status.success(), "it cannot be copied");
}

/// Makes a FIFO.
///
/// # Panics
/// If it cannot.
pub fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO can be made");
}

/// Sets an extended attribute, also of a symbolic link itself. Whether that is possible.
#[must_use]
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// An extended attribute of up to 256 bytes, also of a symbolic link itself.
#[must_use]
pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}
