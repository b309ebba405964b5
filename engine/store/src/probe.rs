//! What the destination's file system holds, tried with real files before a byte moves.
//!
//! Works in the staging directory, whose leftovers are cleared anyway, and syncs nothing: some fifty system calls.
//! Never concludes from a file system's name what can be tried. What could not be tried (the disk is full) is taken
//! for held: it then shows when it is needed.

use crate::attributes::{ACCESS_ACL, sample_acl};
use crate::replica::Replica;
use crate::root::openat2;
use crate::stat::{self, PERMISSION_BITS, Timestamp};
use rustix::fs::{AtFlags, FallocateFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sealift_proto::limits;
use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Bytes of the file that is tried for holes, preallocation and sharing.
const TRIED_BYTES: u64 = 256 << 10;
/// Sizes of an extended attribute's value that are tried, largest first. ext4 with blocks of 4 KiB takes about 4000 in
/// all, with blocks of 1 KiB about 950; Btrfs about 16,000 each.
const XATTR_BYTES_TRIED: [usize; 7] = [64 << 10, 32 << 10, 16_000, 8000, 3900, 900, 100];
/// Lengths of a symbolic link's target that are tried below the longest. XFS takes 1023.
const TARGET_BYTES_TRIED: [usize; 2] = [1023, 255];
/// What `statfs` calls FAT. It fills a longer file with zeros, so that its largest size cannot be tried.
const FAT_MAGIC: u64 = 0x4d44;
/// The largest file on FAT.
const FAT_FILE_BYTES_MAX: u64 = u32::MAX as u64;
/// To how many bytes the largest file is found.
const FILE_BYTES_STEP: u64 = 4096;
/// 2100-01-01: times beyond are not missed yet.
const FAR_FUTURE_SECONDS: i64 = 4_102_444_800;
const SECOND_NANOS: u64 = 1_000_000_000;

/// What the file system of a destination holds, for this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// All twelve permission bits, as they were set. FAT keeps none.
    pub modes: bool,
    /// Modification times; `None` if they cannot be set.
    pub mtimes: Option<MtimeRange>,
    /// Symbolic links: bytes in the longest target; `None` if there are no symbolic links.
    pub symlink_bytes_max: Option<usize>,
    /// Several names for one file.
    pub hard_links: bool,
    /// Holes that take no space.
    pub sparse: bool,
    /// Space that is taken before it is written.
    pub preallocation: bool,
    /// Files that share their blocks (`FICLONE`).
    pub reflinks: bool,
    /// Bytes in the largest file, if that is less than a manifest can carry. A limit of this process counts too.
    pub file_bytes_max: Option<u64>,
    /// Which names can be given.
    pub names: NameRules,
    /// Extended attributes in `user.`: about how many bytes a value can have; `None` if there are none.
    pub xattr_bytes_max: Option<usize>,
    /// POSIX access control lists.
    pub acls: bool,
    /// Files can be given to any user and group: the file system keeps owners, and this process may set them.
    pub owners: bool,
}

/// How a file system keeps modification times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtimeRange {
    /// The smallest step, in nanoseconds: 1, or 2 × 10⁹ on FAT.
    pub step_nanos: u64,
    /// The earliest time, in seconds since 1970.
    pub earliest_seconds: i64,
    /// The latest.
    pub latest_seconds: i64,
}

/// Which names a file system takes, beside the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Bytes that are not UTF-8.
    pub any_bytes: bool,
    /// Signs such as `:` and `?`, and dots and spaces at the end.
    pub any_sign: bool,
    /// `a` and `A` are two names.
    pub case_sensitive: bool,
    /// Bytes in the longest name.
    pub bytes_max: usize,
}

/// What a run means to put there, as far as it is known before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Permission bits.
    pub modes: bool,
    /// Modification times.
    pub times: bool,
    /// Symbolic links.
    pub symlinks: bool,
    /// Hard links as such.
    pub hard_links: bool,
    /// Holes as such.
    pub sparse: bool,
    /// Owners.
    pub owner: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Access control lists.
    pub acls: bool,
}

impl MtimeRange {
    /// The time that a file has after it was given `time`.
    #[must_use]
    pub fn held(&self, time: Timestamp) -> Timestamp {
        // At a limit of its own the file system keeps no fraction.
        let limit =
            if time.seconds <= self.earliest_seconds && self.earliest_seconds > limits::MTIME_SECONDS_MIN {
                Some(self.earliest_seconds)
            } else if time.seconds >= self.latest_seconds && self.latest_seconds < limits::MTIME_SECONDS_MAX {
                Some(self.latest_seconds)
            } else {
                None
            };
        if let Some(seconds) = limit {
            return Timestamp { seconds, nanos: 0 };
        }
        if self.step_nanos < SECOND_NANOS {
            let step = u32::try_from(self.step_nanos.max(1)).unwrap_or(1);
            return Timestamp { seconds: time.seconds, nanos: time.nanos - time.nanos % step };
        }
        let step = i64::try_from(self.step_nanos / SECOND_NANOS).unwrap_or(1);
        Timestamp { seconds: time.seconds - time.seconds.rem_euclid(step), nanos: 0 }
    }
}

impl Capabilities {
    /// Tries what the file system of `replica` holds. Takes about a millisecond on a local disk.
    #[must_use]
    pub fn probe(replica: &Replica) -> Self {
        let name = replica.staging().fresh_name("probe");
        Self::probe_in(replica.staging().dir(), name.as_str())
    }

    /// As if everything were held.
    fn all() -> Self {
        Self {
            modes: true,
            mtimes: Some(MtimeRange {
                step_nanos: 1,
                earliest_seconds: limits::MTIME_SECONDS_MIN,
                latest_seconds: limits::MTIME_SECONDS_MAX,
            }),
            symlink_bytes_max: Some(limits::LINK_TARGET_BYTES_MAX),
            hard_links: true,
            sparse: true,
            preallocation: true,
            reflinks: true,
            file_bytes_max: None,
            names: NameRules {
                any_bytes: true,
                any_sign: true,
                case_sensitive: true,
                bytes_max: limits::COMPONENT_BYTES_MAX,
            },
            xattr_bytes_max: Some(XATTR_BYTES_TRIED[0]),
            acls: true,
            owners: true,
        }
    }

    fn probe_in(dir: BorrowedFd<'_>, base: &str) -> Self {
        let mut found = Self::all();
        let probe = Probe { dir, base, made: RefCell::new(Vec::new()) };
        let Ok(file) = probe.file(b"") else { return found };
        found.modes = holds_modes(&file);
        found.mtimes = mtimes(&file);
        found.symlink_bytes_max = probe.symlinks();
        found.hard_links = probe.hard_links();
        found.names = probe.names();
        found.xattr_bytes_max = xattrs(&file);
        found.acls = holds_acls(&file);
        found.sparse = holds_holes(&file);
        found.reflinks = probe.reflinks(&file);
        found.file_bytes_max = largest_file(&file, found.sparse);
        found.preallocation = probe.preallocation();
        // The last, since another's file is not ours to try things with.
        found.owners = holds_owners(&file);
        found
    }

    /// What of `wanted` cannot be held there: a sentence each, for people.
    #[must_use]
    pub fn cannot_hold(&self, wanted: &Wanted) -> Vec<String> {
        let mut told = Vec::new();
        let mut tell = |condition: bool, sentence: &str| {
            if condition {
                told.push(sentence.to_owned());
            }
        };
        tell(wanted.modes && !self.modes, "permissions (modes) are not kept there");
        match self.mtimes {
            None => tell(wanted.times, "modification times cannot be set there"),
            Some(range) if wanted.times => {
                let step = range.step_nanos / SECOND_NANOS;
                let rounded = format!("modification times are kept there in steps of {step} s");
                tell(range.step_nanos >= SECOND_NANOS, &rounded);
                tell(
                    range.latest_seconds < FAR_FUTURE_SECONDS,
                    "modification times near or after 2038 cannot be kept there",
                );
                tell(range.earliest_seconds > 0, "modification times before 1980 cannot be kept there");
            }
            Some(_) => {}
        }
        match self.symlink_bytes_max {
            None => tell(
                wanted.symlinks,
                "there are no symbolic links there: those of the source will be missing",
            ),
            Some(bytes) => {
                let sentence =
                    format!("symbolic links with targets of more than {bytes} bytes cannot be made there");
                tell(wanted.symlinks && bytes < limits::LINK_TARGET_BYTES_MAX, &sentence);
            }
        }
        tell(
            wanted.hard_links && !self.hard_links,
            "there are no hard links there: files with several names will fail",
        );
        tell(wanted.sparse && !self.sparse, "holes in files take up space there");
        tell(!self.names.any_bytes, "names that are not UTF-8 cannot be given there: such entries will fail");
        tell(
            !self.names.any_sign,
            "names with signs such as : and ?, or with a dot or space at the end, cannot be given there",
        );
        tell(
            !self.names.case_sensitive,
            "names that differ only in capital and small letters are one there: one such file will replace the other",
        );
        let sentence = format!("names of more than {} bytes cannot be given there", self.names.bytes_max);
        tell(self.names.bytes_max < limits::COMPONENT_BYTES_MAX, &sentence);
        if let Some(bytes) = self.file_bytes_max {
            // Nobody needs to be told of 16 TiB less a block.
            let sentence = format!("files of more than {bytes} bytes cannot be written there");
            tell(bytes < limits::FILE_BYTES_MAX / 2, &sentence);
        }
        match self.xattr_bytes_max {
            None => tell(wanted.xattrs, "there are no extended attributes there"),
            Some(bytes) => {
                let sentence =
                    format!("extended attributes of more than about {bytes} bytes cannot be kept there");
                tell(wanted.xattrs && bytes < XATTR_BYTES_TRIED[0], &sentence);
            }
        }
        tell(wanted.acls && !self.acls, "there are no access control lists there");
        tell(
            wanted.owner && !self.owners,
            "owners cannot be set there: either the file system keeps none, or this takes the rights of root",
        );
        told
    }
}

/// Whether an error says that the file system, or this process, cannot; others say nothing about it.
fn says_cannot(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM
            | Errno::ACCESS
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::NOTTY
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NAMETOOLONG
            | Errno::MLINK
            | Errno::XDEV
            | Errno::NODEV
            | Errno::OVERFLOW
    )
}

fn can<T>(result: Result<T, Errno>) -> bool {
    result.err().is_none_or(|error| !says_cannot(error))
}

struct Probe<'d> {
    dir: BorrowedFd<'d>,
    base: &'d str,
    /// To be removed.
    made: RefCell<Vec<Vec<u8>>>,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        for name in self.made.borrow().iter() {
            let _ = rustix::fs::unlinkat(self.dir, name.as_slice(), AtFlags::empty());
        }
    }
}

impl Probe<'_> {
    fn name(&self, suffix: &[u8]) -> Vec<u8> {
        [self.base.as_bytes(), suffix].concat()
    }

    fn file(&self, suffix: &[u8]) -> Result<OwnedFd, Errno> {
        self.file_named(self.name(suffix))
    }

    fn file_named(&self, name: Vec<u8>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(self.dir, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.made.borrow_mut().push(name);
        Ok(file)
    }

    fn is_there(&self, name: &[u8]) -> bool {
        rustix::fs::statat(self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn symlinks(&self) -> Option<usize> {
        let make = |bytes: usize| {
            let name = self.name(format!("-{bytes}").as_bytes());
            let made = rustix::fs::symlinkat(vec![b'x'; bytes], self.dir, name.as_slice());
            if made.is_ok() {
                self.made.borrow_mut().push(name);
            }
            made
        };
        if !can(make(1)) {
            return None;
        }
        let tried = std::iter::once(limits::LINK_TARGET_BYTES_MAX).chain(TARGET_BYTES_TRIED);
        Some(tried.into_iter().find(|&bytes| can(make(bytes))).unwrap_or(1))
    }

    fn hard_links(&self) -> bool {
        let (from, to) = (self.name(b""), self.name(b"-hard"));
        let made = rustix::fs::linkat(self.dir, from, self.dir, to.as_slice(), AtFlags::empty());
        if made.is_ok() {
            self.made.borrow_mut().push(to);
        }
        can(made)
    }

    fn names(&self) -> NameRules {
        // A name is held if that very name is there afterwards, and not under another one.
        let holds = |suffix: &[u8], other: &[u8]| {
            can(self.file(suffix)) && !(self.is_there(&self.name(suffix)) && self.is_there(&self.name(other)))
        };
        let longest = |bytes: usize| {
            let mut name = self.name(b"");
            name.resize(bytes, b'n');
            can(self.file_named(name))
        };
        NameRules {
            any_bytes: holds(b"-\xff\xfe", b"-"),
            any_sign: holds(b"-:?*<>|\"\\\x01", b"-")
                && holds(b"-dot.", b"-dot")
                && holds(b"-space ", b"-space"),
            case_sensitive: holds(b"-Case", b"-cASE"),
            bytes_max: if longest(limits::COMPONENT_BYTES_MAX) {
                limits::COMPONENT_BYTES_MAX
            } else {
                let shortest = self.base.len() + 1;
                (shortest..limits::COMPONENT_BYTES_MAX)
                    .rev()
                    .find(|&bytes| longest(bytes))
                    .unwrap_or(shortest)
            },
        }
    }

    /// Of a hole: sharing written data would have to write it to the disk first.
    fn reflinks(&self, from: &OwnedFd) -> bool {
        let Ok(to) = self.file(b"-clone") else { return true };
        can(rustix::fs::ioctl_ficlone(&to, from))
    }

    fn preallocation(&self) -> bool {
        let Ok(file) = self.file(b"-space") else { return true };
        can(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, TRIED_BYTES))
    }
}

fn holds_modes(file: &OwnedFd) -> bool {
    [0o751, 0o640].into_iter().all(|mode| {
        can(rustix::fs::fchmod(file, Mode::from_raw_mode(mode)))
            && rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & PERMISSION_BITS == mode)
    })
}

fn mtimes(file: &OwnedFd) -> Option<MtimeRange> {
    let set = |seconds, nanos| {
        let time = Timestamp { seconds, nanos };
        rustix::fs::futimens(file, &time.as_mtime()).ok()?;
        Some(stat::mtime(&rustix::fs::fstat(file).ok()?))
    };
    // An odd second, and every decimal place of its own.
    let asked = Timestamp { seconds: 1_000_000_001, nanos: 123_456_789 };
    let held = set(asked.seconds, asked.nanos)?;
    let step_nanos = match asked.seconds.abs_diff(held.seconds) {
        0 if held.nanos == asked.nanos => 1,
        0 => {
            let divides = |step: &u64| u64::from(held.nanos).is_multiple_of(*step);
            (1..=9).map(|power| 10u64.pow(power)).take_while(divides).last().unwrap_or(1)
        }
        1..=2 => 2 * SECOND_NANOS,
        _ => return None,
    };
    let earliest_seconds = set(limits::MTIME_SECONDS_MIN, 0).map_or(0, |held| held.seconds);
    let latest_seconds = set(limits::MTIME_SECONDS_MAX, 0).map_or(i64::from(i32::MAX), |held| held.seconds);
    Some(MtimeRange { step_nanos, earliest_seconds, latest_seconds })
}

fn holds_holes(file: &OwnedFd) -> bool {
    let grown = rustix::fs::ftruncate(file, TRIED_BYTES);
    let taken = rustix::fs::fstat(file).map(|stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
    // Attributes may take a block.
    grown.is_err() || taken.is_ok_and(|bytes| bytes < TRIED_BYTES / 2)
}

/// Bytes in the largest file, if a manifest can carry larger ones.
fn largest_file(file: &OwnedFd, sparse: bool) -> Option<u64> {
    // Beyond this process's own limit the kernel would end it.
    let own_limit = getrlimit(Resource::Fsize).current.filter(|&bytes| bytes < limits::FILE_BYTES_MAX);
    let most = own_limit.unwrap_or(limits::FILE_BYTES_MAX);
    if !sparse {
        let is_fat = rustix::fs::fstatfs(file).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(FAT_MAGIC));
        return if is_fat { Some(most.min(FAT_FILE_BYTES_MAX)) } else { own_limit };
    }
    let fits = |bytes| rustix::fs::ftruncate(file, bytes) != Err(Errno::FBIG);
    if fits(most) {
        return own_limit;
    }
    // Most have room for just less.
    let (mut fitting, mut beyond) = (0, most);
    if fits(most - FILE_BYTES_STEP) {
        fitting = most - FILE_BYTES_STEP;
    }
    while beyond - fitting > FILE_BYTES_STEP {
        let middle = fitting + (beyond - fitting) / 2;
        if fits(middle) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    Some(fitting)
}

fn xattrs(file: &OwnedFd) -> Option<usize> {
    let name = c"user.sealift.probe";
    let set = |bytes: usize| rustix::fs::fsetxattr(file, name, &vec![b'x'; bytes], XattrFlags::empty());
    let mut largest = None;
    for bytes in XATTR_BYTES_TRIED {
        match set(bytes) {
            Ok(()) => {
                largest = Some(bytes);
                break;
            }
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => {}
            Err(error) if says_cannot(error) => return None,
            Err(_) => return Some(XATTR_BYTES_TRIED[0]),
        }
    }
    let _ = rustix::fs::fremovexattr(file, name);
    // Not even the smallest: the disk is full.
    Some(largest.unwrap_or(XATTR_BYTES_TRIED[0]))
}

fn holds_acls(file: &OwnedFd) -> bool {
    let set = rustix::fs::fsetxattr(file, ACCESS_ACL, &sample_acl(), XattrFlags::empty());
    let there = || rustix::fs::fgetxattr(file, ACCESS_ACL, &mut [0; 256][..]).is_ok();
    let held = can(set) && (set.is_err() || there());
    let _ = rustix::fs::fremovexattr(file, ACCESS_ACL);
    held
}

fn holds_owners(file: &OwnedFd) -> bool {
    // Somebody else, whoever we are.
    let (user, group) = match rustix::process::geteuid().as_raw() {
        1 => (2, 2),
        _ => (1, 1),
    };
    let set = rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    let held = || rustix::fs::fstat(file).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (user, group));
    can(set) && (set.is_err() || held())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplicaId;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::Instant;

    fn probe(dir: &Path) -> Capabilities {
        let open = File::open(dir).unwrap();
        let began = Instant::now();
        let found = Capabilities::probe_in(open.as_fd(), "probe.1");
        eprintln!("{}: {} µs, {found:?}", dir.display(), began.elapsed().as_micros());
        assert_eq!(std::fs::read_dir(dir).unwrap().filter(is_ours).count(), 0);
        found
    }

    fn is_ours(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("probe"))
    }

    /// What any Linux file system that is made for Linux holds.
    fn assert_usual(found: &Capabilities) {
        let usual = Capabilities::all();
        assert!(found.modes && found.hard_links && found.sparse);
        assert_eq!(found.names, usual.names);
        assert!(found.symlink_bytes_max.is_some_and(|bytes| bytes >= 255));
        assert!(found.mtimes.is_some_and(|range| range.step_nanos <= SECOND_NANOS));
        assert!(found.file_bytes_max.is_none_or(|bytes| bytes > 1 << 40));
        assert_eq!(found.owners, rustix::process::geteuid().is_root());
    }

    #[test]
    fn where_the_tests_run_all_that_matters_is_held_and_nothing_is_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
        let found = Capabilities::probe(&replica);
        assert_usual(&found);
        assert_eq!(std::fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
        let default = Wanted {
            modes: true,
            times: true,
            symlinks: true,
            hard_links: true,
            sparse: true,
            ..Wanted::default()
        };
        let told = found.cannot_hold(&default);
        assert!(told.iter().all(|sentence| sentence.contains("symbolic links with targets")), "{told:?}");
        probe(dir.path());
    }

    #[test]
    fn tmpfs_holds_what_it_holds() {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("skipped: no /dev/shm");
            return;
        };
        let found = probe(dir.path());
        assert_usual(&found);
        assert!(!found.reflinks);
        assert_eq!(found.mtimes.unwrap().step_nanos, 1);
    }

    /// A file system on a loop device, until it is dropped.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// `None`, and the reason said, if it cannot be had here.
        fn new(mkfs: &[&str], mount: &[&str], bytes: u64) -> Option<Self> {
            let skip = |why: &str| {
                eprintln!("skipped: {}: {why}", mkfs[0]);
                None
            };
            if !rustix::process::geteuid().is_root() {
                return skip("only root may mount");
            }
            let dir = tempfile::tempdir().unwrap();
            let (image, point) = (dir.path().join("image"), dir.path().join("mnt"));
            File::create(&image).unwrap().set_len(bytes).unwrap();
            std::fs::create_dir(&point).unwrap();
            let run = |command: &[&str], paths: &[&PathBuf]| {
                let output = Command::new(command[0]).args(&command[1..]).args(paths).output();
                output.map(|output| {
                    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
                })
            };
            match run(mkfs, &[&image]) {
                Err(error) => return skip(&error.to_string()),
                Ok((false, text)) => return skip(text.trim()),
                Ok((true, _)) => {}
            }
            match run(mount, &[&image, &point]) {
                Err(error) => skip(&error.to_string()),
                Ok((false, text)) => skip(text.trim()),
                Ok((true, _)) => Some(Self(dir)),
            }
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("mnt")
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.path()).status();
        }
    }

    const LOOP: &[&str] = &["mount", "-o", "loop"];

    #[test]
    fn ext4_of_an_older_kind_keeps_whole_seconds() {
        let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F", "-I", "128"], LOOP, 8 << 20) else { return };
        let found = probe(&disk.path());
        assert_usual(&found);
        let range = found.mtimes.unwrap();
        assert_eq!((range.step_nanos, range.latest_seconds), (SECOND_NANOS, i32::MAX.into()));
        let told = found.cannot_hold(&Wanted { times: true, ..Wanted::default() });
        assert!(told.iter().any(|sentence| sentence.contains("steps of 1 s")), "{told:?}");
        assert!(told.iter().any(|sentence| sentence.contains("2038")), "{told:?}");
    }

    #[test]
    fn xfs_shares_blocks_and_has_short_links() {
        let Some(disk) = Mounted::new(&["mkfs.xfs", "-q", "-f"], LOOP, 320 << 20) else { return };
        let found = probe(&disk.path());
        assert_usual(&found);
        assert!(found.reflinks && found.acls && found.preallocation);
        assert_eq!(found.symlink_bytes_max, Some(1023));
        assert_eq!(found.xattr_bytes_max, Some(64 << 10));
        let told = found.cannot_hold(&Wanted { symlinks: true, ..Wanted::default() });
        assert_eq!(told, ["symbolic links with targets of more than 1023 bytes cannot be made there"]);
    }

    #[test]
    fn btrfs_shares_blocks() {
        let Some(disk) = Mounted::new(&["mkfs.btrfs", "-q", "-f"], LOOP, 128 << 20) else { return };
        let found = probe(&disk.path());
        assert_usual(&found);
        assert!(found.reflinks && found.acls);
        assert_eq!(found.xattr_bytes_max, Some(16_000));
    }

    #[test]
    fn fat_holds_little_and_says_so() {
        let Some(disk) = Mounted::new(&["mkfs.vfat"], LOOP, 16 << 20) else { return };
        let found = probe(&disk.path());
        assert!(!found.modes && !found.hard_links && !found.sparse && !found.acls && !found.owners);
        assert_eq!((found.symlink_bytes_max, found.xattr_bytes_max), (None, None));
        assert_eq!(found.mtimes.unwrap().step_nanos, 2 * SECOND_NANOS);
        assert_eq!(found.file_bytes_max, Some(FAT_FILE_BYTES_MAX));
        assert!(!found.names.case_sensitive && !found.names.any_sign);
    }

    /// For file systems that the tests cannot make: `SEALIFT_TEST_PROBE=/mnt cargo test -p sealift-store by_hand -- --nocapture`.
    #[test]
    fn what_a_directory_given_by_hand_holds() {
        let Some(dir) = std::env::var_os("SEALIFT_TEST_PROBE") else {
            eprintln!("skipped: SEALIFT_TEST_PROBE names no directory");
            return;
        };
        let all = Wanted {
            modes: true,
            times: true,
            symlinks: true,
            hard_links: true,
            sparse: true,
            owner: true,
            xattrs: true,
            acls: true,
        };
        for sentence in probe(Path::new(&dir)).cannot_hold(&all) {
            eprintln!("- {sentence}");
        }
    }

    #[test]
    fn a_full_disk_is_not_taken_for_a_poor_one() {
        let Some(disk) = Mounted::new(&["mkfs.ext4", "-q", "-F", "-N", "16"], LOOP, 8 << 20) else { return };
        let mut number = 0;
        while File::create(disk.path().join(number.to_string())).is_ok() {
            number += 1;
        }
        assert_eq!(probe(&disk.path()), Capabilities::all(), "not even the first file could be made");
        std::fs::remove_file(disk.path().join("0")).unwrap();
        let found = probe(&disk.path());
        assert_eq!((found.names, found.hard_links), (Capabilities::all().names, true));
    }

    #[test]
    fn times_are_foreseen_as_the_file_system_keeps_them() {
        let time = |seconds, nanos| Timestamp { seconds, nanos };
        let range = |step_nanos| MtimeRange { step_nanos, earliest_seconds: -100, latest_seconds: 1000 };
        assert_eq!(range(1).held(time(7, 123)), time(7, 123));
        assert_eq!(range(100).held(time(-7, 123)), time(-7, 100));
        assert_eq!(range(SECOND_NANOS).held(time(7, 123)), time(7, 0));
        assert_eq!(range(2 * SECOND_NANOS).held(time(-7, 123)), time(-8, 0));
        assert_eq!(range(1).held(time(5000, 5)), time(1000, 0));
        assert_eq!(range(1).held(time(-5000, 5)), time(-100, 0));
        let unlimited = Capabilities::all().mtimes.unwrap();
        assert_eq!(unlimited.held(time(limits::MTIME_SECONDS_MAX, 5)), time(limits::MTIME_SECONDS_MAX, 5));
        // Where the tests run, it is so.
        let dir = tempfile::tempdir().unwrap();
        let range = probe(dir.path()).mtimes.unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let years = [limits::MTIME_SECONDS_MIN, -1, 0, 1 << 31, 1 << 33, 1 << 36, limits::MTIME_SECONDS_MAX];
        for asked in years.map(|seconds| time(seconds, 987_654_321)) {
            rustix::fs::futimens(&file, &asked.as_mtime()).unwrap();
            assert_eq!(stat::mtime(&rustix::fs::fstat(&file).unwrap()), range.held(asked));
        }
    }

    #[test]
    fn everything_that_is_wanted_and_missing_is_told_once() {
        let poor = Capabilities {
            modes: false,
            mtimes: None,
            symlink_bytes_max: None,
            hard_links: false,
            sparse: false,
            preallocation: false,
            reflinks: false,
            file_bytes_max: Some(FAT_FILE_BYTES_MAX),
            names: NameRules { any_bytes: false, any_sign: false, case_sensitive: false, bytes_max: 143 },
            xattr_bytes_max: None,
            acls: false,
            owners: false,
        };
        let all = Wanted {
            modes: true,
            times: true,
            symlinks: true,
            hard_links: true,
            sparse: true,
            owner: true,
            xattrs: true,
            acls: true,
        };
        assert_eq!(poor.cannot_hold(&all).len(), 13);
        // Names and sizes matter whatever is wanted.
        assert_eq!(poor.cannot_hold(&Wanted::default()).len(), 5);
        assert_eq!(Capabilities::all().cannot_hold(&all), [""; 0]);
    }
}
