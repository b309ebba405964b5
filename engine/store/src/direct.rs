//! Writing staged files past the page cache (O_DIRECT), where the file system is known to do that well.
//!
//! A fresh page of the page cache costs more than all the rest that is done with its bytes, and what was received is
//! seldom read soon. Owns the second descriptor of a staged file and the rule which part of a write goes through it:
//! whole units of [`UNIT_BYTES`] do, what is left at either end goes through the page cache. The kernel keeps the two
//! coherent.

use crate::shard::BlockIo;
use crate::{PoolBuf, StagedFile};
use rustix::fs::{FsWord, OFlags};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Offset, length and memory of a direct write are multiples of this. A disk that wants more refuses, and is heard.
const UNIT_BYTES: usize = 4096;

/// File systems that write directly without copying (`statfs`): ext2 to ext4, XFS, F2FS. Others may take the flag and
/// copy all the same, or be slower with it.
const DIRECT_FILE_SYSTEMS: [FsWord; 3] = [0xEF53, 0x5846_5342, 0xF2F5_2010];

/// A staged file to write to.
#[derive(Clone, Debug)]
pub struct WriteTarget {
    file: Arc<File>,
    direct: Option<Arc<Direct>>,
}

/// The descriptor past the page cache.
#[derive(Debug)]
pub(crate) struct Direct {
    file: Arc<File>,
    /// Whether the disk refused such a write.
    refused: AtomicBool,
}

impl Direct {
    /// Opens it by `open`, if the file system is one of those that this serves.
    pub(crate) fn open(
        file: &File,
        open: impl FnOnce(OFlags) -> io::Result<std::os::fd::OwnedFd>,
    ) -> Option<Arc<Self>> {
        let is_known = rustix::fs::fstatfs(file).is_ok_and(|stat| DIRECT_FILE_SYSTEMS.contains(&stat.f_type));
        if !is_known {
            return None;
        }
        let file = open(OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC).ok()?;
        Some(Arc::new(Self { file: Arc::new(File::from(file)), refused: AtomicBool::new(false) }))
    }
}

impl WriteTarget {
    pub(crate) fn new(staged: &StagedFile, direct: Option<Arc<Direct>>) -> Self {
        Self { file: Arc::clone(staged.file()), direct }
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn direct(&self) -> Option<&Direct> {
        self.direct.as_deref().filter(|direct| !direct.refused.load(Ordering::Relaxed))
    }
}

/// The part of a write of `len` bytes at `offset`, from `start` of an aligned buffer, that can go directly.
fn direct_part(offset: u64, start: usize, len: usize) -> Range<usize> {
    let unit = UNIT_BYTES as u64;
    let before = usize::try_from(offset.next_multiple_of(unit) - offset).expect("less than a unit");
    if before >= len || !(start + before).is_multiple_of(UNIT_BYTES) {
        return 0..0;
    }
    before..before + (len - before) / UNIT_BYTES * UNIT_BYTES
}

impl BlockIo {
    /// Writes the bytes `range` of what is filled in `buf` at `offset` of a staged file: [`BlockIo::write_all_at`],
    /// past the page cache as far as that goes.
    ///
    /// # Errors
    /// Those of `pwrite`, and EMFILE. Some of the bytes may then have been written.
    ///
    /// # Panics
    /// If `range` is not within the filled part.
    pub async fn write_staged(
        &self,
        target: &WriteTarget,
        offset: u64,
        mut buf: PoolBuf,
        range: Range<usize>,
    ) -> (io::Result<()>, PoolBuf) {
        let part = match target.direct() {
            Some(_) => direct_part(offset, range.start, range.len()),
            None => 0..0,
        };
        let mut rest = [0..part.start, part.end..range.len()];
        if let (Some(direct), false) = (target.direct(), part.is_empty()) {
            let within = range.start + part.start..range.start + part.end;
            let written;
            (written, buf) = self.write_part(&direct.file, offset + part.start as u64, buf, within).await;
            match written {
                Ok(()) => {}
                // The disk wants larger units, or the file system cannot after all.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    direct.refused.store(true, Ordering::Relaxed);
                    rest = [0..range.len(), 0..0];
                }
                Err(error) => return (Err(error), buf),
            }
        } else {
            rest = [0..range.len(), 0..0];
        }
        for part in rest.into_iter().filter(|part| !part.is_empty()) {
            let within = range.start + part.start..range.start + part.end;
            let written;
            (written, buf) = self.write_part(&target.file, offset + part.start as u64, buf, within).await;
            if written.is_err() {
                return (written, buf);
            }
        }
        (Ok(()), buf)
    }

    /// The descriptor that the ring has of its own goes with this: one that outlived it would keep the room of a file
    /// that is given up.
    async fn write_part(
        &self,
        file: &Arc<File>,
        offset: u64,
        buf: PoolBuf,
        range: Range<usize>,
    ) -> (io::Result<()>, PoolBuf) {
        match self.attach(Arc::clone(file)) {
            Ok(file) => self.write_all_at(&file, offset, buf, range).await,
            Err(error) => (Err(error), buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_units_go_directly() {
        assert_eq!(direct_part(0, 0, 1 << 20), 0..1 << 20);
        assert_eq!(direct_part(1 << 20, 4096, 10_000), 0..8192);
        assert_eq!(direct_part(100, 100, 10_000), 3996..3996 + 4096);
        // Memory and offset do not agree.
        assert_eq!(direct_part(100, 0, 10_000), 0..0);
        assert_eq!(direct_part(0, 0, 4095), 0..0);
        assert_eq!(direct_part(1, 1, 10), 0..0);
    }

    proptest! {
        #[test]
        fn what_goes_directly_is_aligned_and_within(offset in 0_u64..100_000, start in 0_usize..20_000, len in 0_usize..50_000) {
            let part = direct_part(offset, start, len);
            prop_assert!(part.start <= part.end && part.end <= len);
            if !part.is_empty() {
                prop_assert!((offset + part.start as u64).is_multiple_of(4096));
                prop_assert!((start + part.start).is_multiple_of(4096) && part.len().is_multiple_of(4096));
                prop_assert!(len - part.len() < 8192);
            }
        }
    }
}
