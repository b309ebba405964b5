//! Trees to replicate, made from a seed, and an exact comparison of two trees that is not the program's own.

mod change;
mod compare;

pub use change::{copy, fifo, flip, flip_unseen, set_mode, set_mtime, set_xattr, xattr};
pub use compare::{
    SpecialModes, assert_same, assert_tidy, assert_whole, data_ranges, differences, entries, file_bytes,
    rsync_changes, same_content, staged,
};

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Numbers that look random and are the same for the same seed (SplitMix64, by Steele, Lea and Flood).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next, less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// That many bytes.
    pub fn bytes(&mut self, count: u64) -> Vec<u8> {
        let count = usize::try_from(count).expect("fits memory");
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Whether this process may do what only root may, as in reading files of mode 000.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Writes a file of that many bytes, a piece at a time, as large as it may be.
///
/// # Panics
/// If it cannot.
pub fn large_file(path: &Path, bytes: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut file = File::create(path).expect("a file can be made");
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(MIB);
        file.write_all(&random.bytes(piece)).expect("there is room");
        left -= piece;
    }
}

/// Writes a file, and the directories above it.
///
/// # Panics
/// If it cannot.
pub fn file(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
    fs::write(path, content).expect("a file can be written");
}

/// Directories, files of many sizes and links, `files` of them or so. The same for the same seed.
///
/// # Panics
/// If it cannot be made.
pub fn mixed(root: &Path, files: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut dirs = vec![root.to_owned()];
    fs::create_dir_all(root).expect("a directory can be made");
    for number in 0..files {
        if random.below(10) == 0 {
            let above = usize::try_from(random.below(dirs.len() as u64)).expect("small");
            let dir = dirs[above].join(format!("dir {number}"));
            fs::create_dir(&dir).expect("a directory can be made");
            dirs.push(dir);
        }
        let dir = usize::try_from(random.below(dirs.len() as u64)).expect("small");
        let path = dirs[dir].join(format!("file {number}"));
        let bytes = match random.below(20) {
            0 => 0,
            1..=2 => random.below(300 * KIB),
            3 => 32 * KIB + random.below(2),
            _ => random.below(8 * KIB),
        };
        fs::write(&path, random.bytes(bytes)).expect("a file can be written");
        if random.below(30) == 0 {
            symlink(&path, path.with_extension("link")).expect("a link can be made");
        }
    }
}

/// `count` small files, in directories of 500.
///
/// # Panics
/// If they cannot be made.
pub fn small_files(root: &Path, count: u64, seed: u64) {
    let mut random = Random::new(seed);
    for number in 0..count {
        let dir = root.join((number / 500).to_string());
        if number % 500 == 0 {
            fs::create_dir_all(&dir).expect("a directory can be made");
        }
        let bytes = random.below(2 * KIB);
        fs::write(dir.join(format!("{number:06}")), random.bytes(bytes)).expect("a file can be written");
    }
}

/// Everything unusual that a tree may hold, beside what cannot be carried.
///
/// # Panics
/// If it cannot be made.
pub fn oddities(root: &Path, seed: u64) {
    let mut random = Random::new(seed);
    fs::create_dir_all(root).expect("a directory can be made");
    names(root, &mut random);
    sizes(root, &mut random);
    holes(root, &mut random);
    links(root, &mut random);
    // Last: some of these take away the right to change anything beneath, or set times.
    modes(root, &mut random);
    times(root, &mut random);
}

fn names(root: &Path, random: &mut Random) {
    let dir = root.join("names");
    let longest = [b'x'; 255];
    let most: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let (first, second) = most.split_at(128);
    let odd: [&[u8]; 14] = [
        b"two\nlines",
        b"\n",
        b" ",
        b" spaces at both ends ",
        b"-rf",
        b"--",
        b"...",
        b"sealift",
        b".sealift.not",
        "h\u{e9}ll\u{f6} \u{202e}txt.exe".as_bytes(),
        b"\xff\xfe not UTF-8 \x80",
        &longest,
        first,
        second,
    ];
    for name in odd {
        file(&dir.join(OsStr::from_bytes(name)), random.bytes(40));
        let of_dir = dir.join("as directories").join(OsStr::from_bytes(name));
        file(&of_dir.join(OsStr::from_bytes(name)), random.bytes(3));
    }
    // One `.sealift` belongs to the program: at the top. Deeper it is a reserved name as well, so there is none here.
    let mut deep = root.join("deep");
    for level in 0..200 {
        deep.push("d");
        fs::create_dir_all(&deep).expect("a directory can be made");
        if level % 50 == 49 {
            file(&deep.join("f"), random.bytes(10));
        }
    }
    fs::create_dir_all(root.join("empty/also empty")).expect("a directory can be made");
    file(&root.join("empty file"), "");
}

fn sizes(root: &Path, random: &mut Random) {
    let (block, run) = (32 * KIB, MIB);
    for bytes in [
        0,
        1,
        block - 1,
        block,
        block + 1,
        2 * block,
        run - 1,
        run,
        run + 1,
        run + block,
        3 * run + 17,
        8 * run,
    ] {
        file(&root.join("sizes").join(bytes.to_string()), random.bytes(bytes));
    }
}

/// A file's name, its bytes, and from where to where there is data.
type Sparse<'s> = (&'s str, u64, &'s [(u64, u64)]);

fn holes(root: &Path, random: &mut Random) {
    let files: [Sparse<'_>; 9] = [
        ("leading", 4 * MIB, &[(3 * MIB, 4 * MIB)]),
        ("trailing", 4 * MIB, &[(0, 64 * KIB)]),
        ("middle", 6 * MIB, &[(0, MIB), (5 * MIB, 6 * MIB)]),
        ("all", 5 * MIB, &[]),
        ("all, unaligned", 5 * MIB + 77, &[]),
        ("unaligned", 3 * MIB + 5, &[(100, 200), (MIB + 1, MIB + 70_000), (3 * MIB, 3 * MIB + 5)]),
        (
            "many",
            2 * MIB,
            &[(0, 1), (64 * KIB, 64 * KIB + 1), (256 * KIB, 300 * KIB), (2 * MIB - 1, 2 * MIB)],
        ),
        ("small", 20 * KIB, &[(12 * KIB, 16 * KIB)]),
        ("small, all", 30 * KIB, &[]),
    ];
    let dir = root.join("holes");
    fs::create_dir(&dir).expect("a directory can be made");
    for (name, bytes, data) in files {
        let file = File::create(dir.join(name)).expect("a file can be made");
        file.set_len(bytes).expect("a file can be sized");
        for &(start, end) in data {
            let content = random.bytes(end - start);
            file.write_all_at(&content, start).expect("a file can be written");
        }
    }
    // Zeros that are no hole.
    file(&dir.join("zeros"), vec![0; 3 << 20]);
}

fn links(root: &Path, random: &mut Random) {
    let dir = root.join("links");
    let twin = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().expect("it is in a directory")).expect("a directory can be made");
        fs::hard_link(from, to).expect("a link can be made");
    };
    // A chain of three across directories, the first name last in order; a large one; an empty one.
    file(&dir.join("z/first"), random.bytes(500));
    twin(&dir.join("z/first"), &dir.join("a/second"));
    twin(&dir.join("a/second"), &dir.join("m/third"));
    file(&dir.join("large"), random.bytes(2 * MIB + 3));
    twin(&dir.join("large"), &dir.join("z/large too"));
    file(&dir.join("nothing"), "");
    twin(&dir.join("nothing"), &dir.join("z/nothing too"));
    // The same content, and yet not the same file.
    let content = random.bytes(100);
    file(&dir.join("alike 1"), &content);
    file(&dir.join("alike 2"), &content);

    let long = "t/".repeat(2000);
    for (name, target) in [
        ("dangling", "nowhere/at all"),
        ("absolute", "/etc/hostname"),
        ("absolute and dangling", "/no/such/thing"),
        ("to itself", "to itself"),
        ("circle 1", "circle 2"),
        ("circle 2", "circle 1"),
        ("to a directory", "z"),
        ("to a file", "z/first"),
        ("out of the tree", "../../../.."),
        ("spaces and lines", " \n "),
        ("long", &long),
    ] {
        symlink(target, dir.join(name)).expect("a link can be made");
    }
    symlink(OsStr::from_bytes(b"\xff\xfe"), dir.join("not UTF-8")).expect("a link can be made");
    symlink(&dir, dir.join("to its own directory")).expect("a link can be made");
}

fn modes(root: &Path, random: &mut Random) {
    let dir = root.join("modes");
    let kinds: &[u32] = &[0o000, 0o001, 0o200, 0o400, 0o444, 0o777, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777];
    for &mode in kinds {
        // What the owner cannot read, only root can send.
        if mode & 0o400 == 0 && !is_root() {
            continue;
        }
        for (size, bytes) in [("small", 50), ("large", MIB + 9), ("empty", 0)] {
            let path = dir.join(format!("file {mode:04o} {size}"));
            file(&path, random.bytes(bytes));
            set_mode(&path, mode);
        }
    }
    let kinds: &[u32] = &[0o000, 0o555, 0o500, 0o700, 0o1777, 0o2755, 0o4755, 0o3711];
    for &mode in kinds {
        if mode & 0o500 != 0o500 && !is_root() {
            continue;
        }
        let path = dir.join(format!("dir {mode:04o}"));
        file(&path.join("in it"), random.bytes(20));
        fs::create_dir(path.join("a directory")).expect("a directory can be made");
        set_mode(&path, mode);
    }
}

fn times(root: &Path, random: &mut Random) {
    let dir = root.join("times");
    // Years 1922, 1969, 1970 and 2400, to the nanosecond.
    let times: &[(i64, i64)] =
        &[(-1_500_000_000, 1), (-1, 999_999_999), (0, 0), (1_234_567_890, 123_456_789), (13_569_465_600, 5)];
    for &(seconds, nanos) in times {
        let path = dir.join(format!("file of {seconds}"));
        file(&path, random.bytes(10));
        set_mtime(&path, seconds, nanos);
        let path = dir.join(format!("large file of {seconds}"));
        file(&path, random.bytes(MIB + 2));
        set_mtime(&path, seconds, nanos);
        let path = dir.join(format!("link of {seconds}"));
        symlink("x", &path).expect("a link can be made");
        set_mtime(&path, seconds, nanos);
        let path = dir.join(format!("dir of {seconds}"));
        file(&path.join("in it"), "x");
        set_mtime(&path, seconds, nanos);
    }
    set_mtime(root, 1_000_000_000, 7);
}
