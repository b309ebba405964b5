//! Looking at trees, and comparing them exactly, which is not the program's own comparison.

use rustix::fs::{FileType, SeekFrom};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const KIB: u64 = 1 << 10;

/// What becomes of set-user-id, set-group-id and sticky bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialModes {
    /// They are the same.
    Kept,
    /// They are gone, as is the default.
    Dropped,
}

/// Everything beneath a directory, and itself, by path relative to it.
///
/// # Panics
/// If something cannot be looked at.
#[must_use]
pub fn entries(root: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut entries = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let metadata =
            fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
        if path == Path::new(".sealift") {
            continue;
        }
        if metadata.is_dir() {
            let inside = fs::read_dir(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
            waiting.extend(inside.map(|entry| path.join(entry.expect("it can be read").file_name())));
        }
        entries.insert(path, metadata);
    }
    entries
}

/// How many bytes the files of a tree have.
///
/// # Panics
/// If something cannot be looked at.
#[must_use]
pub fn file_bytes(root: &Path) -> u64 {
    entries(root).values().filter(|entry| entry.is_file()).map(fs::Metadata::len).sum()
}

/// What is staged in a destination: names of files on their way.
#[must_use]
pub fn staged(dst: &Path) -> Vec<String> {
    let Ok(inside) = fs::read_dir(dst.join(".sealift/staging")) else { return Vec::new() };
    inside.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
}

/// Checks that of Sealift's own there is nothing in a destination but what is to stay: no staged file.
///
/// # Panics
/// If there is.
pub fn assert_tidy(dst: &Path) {
    let own = dst.join(".sealift");
    let Ok(inside) = fs::read_dir(&own) else { return };
    for entry in inside {
        let name = entry.expect("it can be read").file_name();
        let expected = ["id", "lock", "manifest"].iter().any(|expected| name == *expected);
        assert!(expected, "left behind: .sealift/{}: {:?}", name.display(), staged(dst));
    }
}

/// How two trees differ, a line for each difference: entries, kinds, content, modes, times, targets of links, names
/// of one file, and where the holes are. Empty if they are the same. Owners are not compared.
///
/// # Panics
/// If something cannot be read.
#[must_use]
pub fn differences(src: &Path, dst: &Path, special: SpecialModes) -> Vec<String> {
    let (from, to) = (entries(src), entries(dst));
    let mut told = Vec::new();
    for path in to.keys().filter(|path| !from.contains_key(*path)) {
        told.push(format!("{path:?} is only in the copy"));
    }
    for (path, a) in &from {
        let Some(b) = to.get(path) else {
            told.push(format!("{path:?} is missing"));
            continue;
        };
        for what in entry_differences((&src.join(path), a), (&dst.join(path), b), special) {
            told.push(format!("{path:?}: {what}"));
        }
    }
    if names_of_files(&from) != names_of_files(&to) {
        told.push(format!("names of files: {:?}, not {:?}", names_of_files(&to), names_of_files(&from)));
    }
    told
}

fn entry_differences(
    (src, a): (&Path, &fs::Metadata),
    (dst, b): (&Path, &fs::Metadata),
    special: SpecialModes,
) -> Vec<String> {
    let kind = |of: &fs::Metadata| FileType::from_raw_mode(of.mode());
    if kind(a) != kind(b) {
        return vec![format!("is {:?}, not {:?}", kind(b), kind(a))];
    }
    let mut told = Vec::new();
    let mask = match special {
        SpecialModes::Kept => 0o7777,
        SpecialModes::Dropped => 0o777,
    };
    if b.mode() & 0o7777 != a.mode() & mask {
        told.push(format!("mode {:o}, not {:o}", b.mode() & 0o7777, a.mode() & mask));
    }
    if (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()) {
        let (is, should) = ((b.mtime(), b.mtime_nsec()), (a.mtime(), a.mtime_nsec()));
        told.push(format!("mtime {is:?}, not {should:?}"));
    }
    if a.is_symlink() {
        let (is, should) = (fs::read_link(dst), fs::read_link(src));
        if is.as_ref().ok() != should.as_ref().ok() {
            told.push(format!("target {is:?}, not {should:?}"));
        }
    } else if a.is_file() {
        if !same_content(src, dst) {
            told.push(format!("other content ({} bytes, {} bytes)", a.len(), b.len()));
        }
        // File systems may allocate a little more than was written; a filled hole is more than that.
        if b.blocks() * 512 > a.blocks() * 512 + 64 * KIB {
            told.push(format!("takes {} bytes, not {}", b.blocks() * 512, a.blocks() * 512));
        }
        // Holes in a file of a single block are not carried.
        if a.dev() == b.dev() && a.len() > 32 * KIB && data_ranges(src) != data_ranges(dst) {
            told.push(format!("data at {:?}, not {:?}", data_ranges(dst), data_ranges(src)));
        }
    }
    told
}

/// Whether two files have the same bytes.
///
/// # Panics
/// If one cannot be read.
#[must_use]
pub fn same_content(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = file.metadata().expect("it is open").len();
        (file, bytes)
    };
    let ((mut a, a_bytes), (mut b, b_bytes)) = (open(a), open(b));
    if a_bytes != b_bytes {
        return false;
    }
    let (mut one, mut other) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut left = a_bytes;
    while left > 0 {
        let piece = usize::try_from(left.min(one.len() as u64)).expect("small");
        let (one, other) = (&mut one[..piece], &mut other[..piece]);
        if a.read_exact(one).is_err() || b.read_exact(other).is_err() || one != other {
            return false;
        }
        left -= piece as u64;
    }
    true
}

/// Checks that every entry in place is in the source, and every file whole. How many bytes these files have.
///
/// # Panics
/// If one is not.
pub fn assert_whole(src: &Path, dst: &Path) -> u64 {
    let mut bytes = 0;
    for (path, entry) in entries(dst) {
        assert!(src.join(&path).symlink_metadata().is_ok(), "a stray file: {path:?}");
        if entry.is_file() {
            assert!(same_content(&src.join(&path), &dst.join(&path)), "half a file: {path:?}");
            bytes += entry.len();
        }
    }
    bytes
}

/// Sets of paths that name one file.
fn names_of_files(entries: &BTreeMap<PathBuf, fs::Metadata>) -> BTreeSet<Vec<&Path>> {
    let mut by_inode: HashMap<(u64, u64), Vec<&Path>> = HashMap::new();
    for (path, metadata) in entries.iter().filter(|(_, metadata)| metadata.is_file()) {
        by_inode.entry((metadata.dev(), metadata.ino())).or_default().push(path);
    }
    by_inode.into_values().filter(|names| names.len() > 1).collect()
}

/// Where a file has data; the rest are holes.
///
/// # Panics
/// If it cannot be opened, or the file system does not say.
#[must_use]
pub fn data_ranges(path: &Path) -> Vec<Range<u64>> {
    let file = File::open(path).expect("it can be opened");
    let mut ranges = Vec::new();
    let mut at = 0;
    // At the end of the data: ENXIO.
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(start)).expect("after data there is a hole, or the end");
        ranges.push(start..at);
    }
    ranges
}

/// What `rsync -aHAXnc --itemize-changes --delete src/ dst/` would change, a line each; `None` if there is no rsync.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn rsync_changes(src: &Path, dst: &Path) -> Option<Vec<String>> {
    let directory = |path: &Path| {
        let mut text = path.as_os_str().to_owned();
        text.push("/");
        text
    };
    let mut rsync = Command::new("rsync");
    rsync
        .args(["-aHAXnc", "--itemize-changes", "--delete", "--exclude=/.sealift", "--"])
        .args([directory(src), directory(dst)]);
    let output = match rsync.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no rsync to compare with");
            return None;
        }
        output => output.expect("rsync can be started"),
    };
    assert!(output.status.success(), "rsync: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Checks that two trees are the same, by our own comparison and by rsync's.
///
/// # Panics
/// If they differ.
pub fn assert_same(src: &Path, dst: &Path, special: SpecialModes) {
    let told = differences(src, dst, special);
    assert!(told.is_empty(), "the copy differs:\n{}", told.join("\n"));
    let Some(changes) = rsync_changes(src, dst) else { return };
    // What the metadata contract names: each entry with special bits, and of it nothing but the permissions.
    let expected = match special {
        SpecialModes::Kept => 0,
        SpecialModes::Dropped => entries(src)
            .values()
            .filter(|metadata| !metadata.is_symlink() && metadata.mode() & 0o7000 != 0)
            .count(),
    };
    let only_modes =
        changes.iter().all(|line| line.starts_with(".f...p..... ") || line.starts_with(".d...p..... "));
    assert!(only_modes && changes.len() == expected, "rsync would change:\n{}", changes.join("\n"));
}
