//! Loop devices, file systems and mounts.

use super::tool::{Unavailable, run};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 as it comes, with a journal.
    Ext4,
    /// ext4 without a journal: after a failed flush it goes on.
    Ext4WithoutJournal,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// The least that it can be made on.
    #[must_use]
    pub fn bytes_min(self) -> u64 {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => 8 * MIB,
            Self::Xfs => 300 * MIB,
        }
    }

    /// Makes one in a new file of that size.
    ///
    /// # Errors
    /// If its tools are missing.
    ///
    /// # Panics
    /// If the file cannot be made.
    pub fn make(self, image: &Path, bytes: u64, args: &[&str]) -> Result<(), Unavailable> {
        let file = File::create(image).expect("an image can be made");
        file.set_len(bytes.max(self.bytes_min())).expect("an image can be sized");
        drop(file);
        // Everything is there from the start: nothing is initialized later, beneath a test.
        let ext4 = ["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let (program, of_kind): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &ext4),
            Self::Ext4WithoutJournal => ("mkfs.ext4", &[&ext4[..], &["-O", "^has_journal"]].concat()),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        };
        let args = of_kind.iter().chain(args).map(OsStr::new);
        run(program, args.chain([image.as_os_str()])).map(drop)
    }

    /// Options without which copies of one file system cannot be mounted at the same time.
    #[must_use]
    pub fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => "noatime",
            Self::Xfs => "noatime,nouuid",
        }
    }

    /// Checks one that is not mounted, by its own tool.
    ///
    /// # Errors
    /// If that finds something, or is missing.
    pub fn fsck(self, image: &Path) -> Result<(), Unavailable> {
        let (program, args): (_, &[&str]) = match self {
            Self::Ext4 | Self::Ext4WithoutJournal => ("e2fsck", &["-fn"]),
            Self::Xfs => ("xfs_repair", &["-n", "-f"]),
        };
        run(program, args.iter().map(OsStr::new).chain([image.as_os_str()])).map(drop)
    }
}

/// Whether a loop device has a cache of its own beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Reads and writes go through the page cache of the file, one at a time.
    Cached,
    /// They go past it where the file can do that, many at a time.
    Direct,
}

/// A loop device on a file, detached when dropped.
#[derive(Debug)]
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Makes the file a block device.
    ///
    /// # Errors
    /// If there are no loop devices.
    pub fn attach(file: &Path, caching: Caching) -> Result<Self, Unavailable> {
        let device = run("losetup", ["-f".as_ref(), "--show".as_ref(), file.as_os_str()])?;
        let device = Self(PathBuf::from(device));
        if caching == Caching::Direct {
            // Only for speed: not every file system beneath can.
            let _ = run("losetup", ["--direct-io=on".as_ref(), device.0.as_os_str()]);
        }
        Ok(device)
    }

    /// The device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run("losetup", ["-d".as_ref(), self.0.as_os_str()]);
    }
}

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts a device.
    ///
    /// # Errors
    /// If that is not allowed, or there is nothing on it that can be mounted.
    pub fn new(device: &Path, at: &Path, options: &str) -> Result<Self, Unavailable> {
        Self::args(at, ["-o".as_ref(), options.as_ref(), device.as_os_str()])
    }

    /// Mounts a new file system in memory.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn tmpfs(at: &Path, options: &str) -> Result<Self, Unavailable> {
        Self::args(at, ["-t", "tmpfs", "-o", options, "sealift-test"])
    }

    /// `mount ARGS AT`.
    ///
    /// # Errors
    /// If it fails.
    ///
    /// # Panics
    /// If there is no place for it.
    pub fn args<A: AsRef<OsStr>>(at: &Path, args: impl IntoIterator<Item = A>) -> Result<Self, Unavailable> {
        fs::create_dir_all(at).expect("a directory can be made");
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        run("mount", args.iter().map(AsRef::as_ref).chain([at.as_os_str()]))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Gives it other options.
    ///
    /// # Errors
    /// If it does not take them.
    pub fn remount(&self, options: &str) -> Result<(), Unavailable> {
        run("mount", ["-o".as_ref(), format!("remount,{options}").as_ref(), self.at.as_os_str()]).map(drop)
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// If something stays open on it, for example.
    pub fn unmount(self) -> Result<(), Unavailable> {
        // What this process had open is still open for a moment in a child that another thread is just starting.
        const ATTEMPTS: usize = 200;
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = run("umount", [&self.at]).map(drop);
            match &result {
                Err(why) if why.0.contains("busy") => {}
                Err(_) => break,
                Ok(()) => {
                    std::mem::forget(self);
                    return Ok(());
                }
            }
        }
        result
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily if need be, as when a test failed with something open.
        if run("umount", [&self.at]).is_err() {
            let _ = run("umount", ["-l".as_ref(), self.at.as_os_str()]);
        }
    }
}
