//! A small disk, to fill up or to take away.

use super::mount::{Caching, FileSystem, LoopDevice, Mount};
use super::tool::{Scratch, Unavailable, run};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// `EXT4_IOC_SHUTDOWN`, which is `XFS_IOC_GOINGDOWN`, without flushing the journal; in a language that may call it.
const SHUT_DOWN: &str = r#"open my $root, "<", $ARGV[0] or die "open: $!";
    ioctl($root, 0x8004587D, my $without_flush = pack("L", 2)) or die "shutdown: $!""#;

/// A file system of its own, in memory. Unmounted and gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    // In this order: the last mounted goes first.
    mount: Option<Mount>,
    device: LoopDevice,
    kind: FileSystem,
    at: PathBuf,
    _scratch: Scratch,
}

impl SmallDisk {
    /// A new, empty one of about that size; more if its kind needs more. `args` go to its `mkfs`: `["-N", "64"]` is an
    /// ext4 with few inodes.
    ///
    /// # Errors
    /// If something that it takes is missing.
    pub fn new(kind: FileSystem, bytes: u64, args: &[&str]) -> Result<Self, Unavailable> {
        let scratch = Scratch::new(2 * bytes.max(kind.bytes_min()))?;
        let image = scratch.path().join("image");
        kind.make(&image, bytes, args)?;
        let device = LoopDevice::attach(&image, Caching::Direct)?;
        let at = scratch.path().join("disk");
        let mount = Mount::new(device.path(), &at, kind.mount_options())?;
        Ok(Self { mount: Some(mount), device, kind, at, _scratch: scratch })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Fills it up until a file of `free_bytes` or a little more would fit.
    ///
    /// # Panics
    /// If it has less room already.
    #[must_use]
    pub fn fill(&self, free_bytes: u64) -> Ballast {
        let state = rustix::fs::statvfs(self.path()).expect("it is mounted");
        let room = state.f_bavail * state.f_frsize;
        let bytes = room.checked_sub(free_bytes).expect("it has more room than that");
        let path = self.path().join("ballast");
        let file = File::create(&path).expect("a file can be made");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("there is room");
        Ballast(path)
    }

    /// Takes it away, as if it were pulled out: from now on everything on it fails with EIO. What was not synced is lost.
    ///
    /// # Errors
    /// If there is neither `perl` nor `xfs_io`, or its kind cannot do this.
    pub fn shut_down(&self) -> Result<(), Unavailable> {
        let by_perl = run("perl", ["-e".as_ref(), SHUT_DOWN.as_ref(), self.path().as_os_str()]);
        by_perl
            .or_else(|_| {
                run("xfs_io", ["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.path().as_os_str()])
            })
            .map(drop)
    }

    /// Unmounts it and mounts it again, by which it recovers.
    ///
    /// # Errors
    /// If one of these fails.
    pub fn mount_again(&mut self) -> Result<(), Unavailable> {
        if let Some(mount) = self.mount.take() {
            mount.unmount()?;
        }
        self.mount = Some(Mount::new(self.device.path(), &self.at, self.kind.mount_options())?);
        Ok(())
    }
}

/// A file that takes room until it is dropped.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tool::or_skip;
    use super::*;
    use std::io::{ErrorKind, Write as _};

    const MIB: u64 = 1 << 20;

    fn synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    #[test]
    fn a_small_disk_is_full_until_the_ballast_is_gone() {
        let Some(disk) = or_skip(SmallDisk::new(FileSystem::Ext4, 32 * MIB, &[])) else { return };
        let ballast = disk.fill(MIB);
        synced(&disk.path().join("fits"), &[1; 500_000]).unwrap();
        let full = synced(&disk.path().join("does not"), &[1; 3 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        drop(ballast);
        synced(&disk.path().join("does not"), &[1; 3 << 20]).unwrap();
    }

    #[test]
    fn inodes_can_run_out() {
        let Some(disk) = or_skip(SmallDisk::new(FileSystem::Ext4, 32 * MIB, &["-N", "64"])) else {
            return;
        };
        let failed = (0..100_000).find_map(|n| File::create(disk.path().join(n.to_string())).err());
        assert_eq!(failed.unwrap().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn a_disk_that_is_taken_away_keeps_what_was_synced() {
        for kind in [FileSystem::Ext4, FileSystem::Xfs] {
            let Some(mut disk) = or_skip(SmallDisk::new(kind, 32 * MIB, &[])) else { return };
            synced(&disk.path().join("synced"), b"yes").unwrap();
            File::open(disk.path()).unwrap().sync_all().unwrap();
            fs::write(disk.path().join("not synced"), b"no").unwrap();
            if let Err(why) = disk.shut_down() {
                return println!("skipped: {why}");
            }
            let gone = synced(&disk.path().join("too late"), b"no").unwrap_err();
            assert_eq!(gone.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
            disk.mount_again().unwrap();
            assert_eq!(fs::read(disk.path().join("synced")).unwrap(), b"yes");
            assert!(!disk.path().join("not synced").exists() && !disk.path().join("too late").exists());
        }
    }
}
