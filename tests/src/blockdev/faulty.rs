//! A disk that fails when told to.

use super::export::Export;
use super::mount::{FileSystem, Mount};
use super::tool::{Scratch, Unavailable};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What fails, with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every read of what is not in memory.
    Reads,
    /// Every write that reaches the disk: `fsync` reports it, once.
    Writes,
    /// The next three flushes of the disk's own cache, by which `fsync` fails.
    Flushes,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Reads, Self::Writes, Self::Flushes];

    fn node(self) -> &'static str {
        match self {
            Self::Reads => "without-reads",
            Self::Writes => "without-writes",
            Self::Flushes => "without-flushes",
        }
    }

    fn rules(self) -> Value {
        const EIO: i32 = 5;
        let rule =
            |kind: &str, once: bool| json!({ "event": "none", "iotype": kind, "errno": EIO, "once": once });
        match self {
            Self::Reads => json!([rule("read", false)]),
            Self::Writes => {
                json!([rule("write", false), rule("write-zeroes", false), rule("discard", false)])
            }
            Self::Flushes => Value::Array(vec![rule("flush", true); 3]),
        }
    }
}

/// A mounted file system whose disk can be told to fail. Unmounted and gone when dropped.
#[derive(Debug)]
pub struct FaultyDisk {
    // In this order: the last mounted goes first.
    mount: Option<Mount>,
    export: Export,
    kind: FileSystem,
    at: PathBuf,
    _scratch: Scratch,
}

impl FaultyDisk {
    /// A new, empty one, whose disk works.
    ///
    /// # Errors
    /// If something that it takes is missing.
    pub fn new(kind: FileSystem, bytes: u64) -> Result<Self, Unavailable> {
        let scratch = Scratch::new(2 * bytes.max(kind.bytes_min()))?;
        let image = scratch.path().join("image");
        kind.make(&image, bytes, &[])?;
        let mut nodes = vec![
            json!({ "driver": "file", "node-name": "sound", "filename": image, "cache": { "no-flush": true } }),
        ];
        for fault in Fault::ALL {
            nodes.push(json!({
                "driver": "blkdebug", "node-name": fault.node(), "image": "sound", "inject-error": fault.rules(),
            }));
        }
        nodes.push(Self::top("sound"));
        let export = Export::start(&nodes, &scratch.path().join("export"))?;
        let mut disk = Self { mount: None, export, kind, at: scratch.path().join("disk"), _scratch: scratch };
        disk.mount_again()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts it and mounts it again. Nothing of it is in memory then.
    ///
    /// # Errors
    /// If one of these fails.
    pub fn mount_again(&mut self) -> Result<(), Unavailable> {
        if let Some(mount) = self.mount.take() {
            mount.unmount()?;
            self.export.attach_again()?;
        }
        self.mount = Some(Mount::new(self.export.device(), &self.at, self.kind.mount_options())?);
        Ok(())
    }

    /// Makes it fail from now on, in this way and no other.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn fail(&mut self, fault: Fault) {
        self.beneath(fault.node());
    }

    /// Makes it work again. (After [`Fault::Flushes`], only once these are used up.)
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn heal(&mut self) {
        self.beneath("sound");
    }

    fn top(beneath: &str) -> Value {
        json!({ "driver": "raw", "node-name": "top", "file": beneath })
    }

    fn beneath(&mut self, node: &str) {
        let reopen = json!({ "execute": "blockdev-reopen", "arguments": { "options": [Self::top(node)] } });
        self.export.command(&reopen).expect("the disk can be switched");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Write as _;

    const MIB: u64 = 1 << 20;

    fn disk(kind: FileSystem) -> Option<FaultyDisk> {
        match FaultyDisk::new(kind, 32 * MIB) {
            Ok(disk) => Some(disk),
            Err(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    fn is_eio<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()))
    }

    #[test]
    fn an_fsync_fails_and_then_succeeds() {
        let Some(mut disk) = disk(FileSystem::Ext4WithoutJournal) else { return };
        let mut file = File::create(disk.path().join("f")).unwrap();
        file.write_all(b"one").unwrap();
        file.sync_all().unwrap();
        disk.fail(Fault::Flushes);
        file.write_all(b"two").unwrap();
        let failed = std::iter::from_fn(|| file.sync_all().err()).count();
        println!("fsync failed {failed} times");
        assert!((1..=3).contains(&failed));
        disk.heal();
        file.write_all(b"three").unwrap();
        file.sync_all().unwrap();
    }

    #[test]
    fn a_lost_write_is_told_once() {
        for kind in [FileSystem::Ext4, FileSystem::Ext4WithoutJournal] {
            let Some(mut disk) = disk(kind) else { return };
            fs::write(disk.path().join("f"), [1; 100_000]).unwrap();
            File::open(disk.path().join("f")).unwrap().sync_all().unwrap();
            let mut file = fs::OpenOptions::new().write(true).open(disk.path().join("f")).unwrap();
            disk.fail(Fault::Writes);
            file.write_all(&[2; 100_000]).unwrap();
            assert!(is_eio(rustix::fs::fdatasync(&file).map_err(Into::into)), "{kind:?}");
            disk.heal();
            // This is the surprise.
            rustix::fs::fdatasync(&file).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            drop(file);
            disk.mount_again().unwrap();
            assert_eq!(fs::read(disk.path().join("f")).unwrap(), vec![1; 100_000], "{kind:?}");
        }
    }

    #[test]
    fn reads_fail_until_it_is_healed() {
        let Some(mut disk) = disk(FileSystem::Ext4) else { return };
        let path = disk.path().join("f");
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        disk.mount_again().unwrap();
        disk.fail(Fault::Reads);
        assert!(is_eio(fs::read(&path)));
        disk.heal();
        assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
    }
}
