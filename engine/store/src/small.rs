//! Small files by the batch: many of them in one job of a worker and in one buffer, so that each costs its system
//! calls and nothing else.
//!
//! Blocks; meant for [`crate::BlockIo::blocking`]. Never leaves part of a file in the buffer, or a file that changed
//! while it was read (hazard B12).

use crate::attributes::Attributed;
use crate::error::FileError;
use crate::faults::{self, Op, guard};
use crate::limits::READ_SMALL_BYTES_MAX;
use crate::metadata;
use crate::publish::{Durability, Ready};
use crate::replica::Replica;
use crate::ring::pool::PoolBuf;
use crate::source::Source;
use crate::staging::StagedFile;
use crate::stat::{FileStat, Timestamp};
use sealift_proto::block::FileId;
use sealift_proto::path::SafePath;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A small file to be read whole.
#[derive(Clone, Debug)]
pub struct SmallRead {
    /// Which.
    pub path: SafePath,
    /// The version that is wanted; `None`: whichever is there.
    pub expected: Option<FileStat>,
}

/// A small file that was read.
#[derive(Clone, Debug)]
pub struct SmallReadOk {
    /// Its content within the buffer. The headroom lies directly before.
    pub content: Range<usize>,
    /// The version that was read.
    pub stat: FileStat,
}

/// Why a small file was not read. Nothing of it is in the buffer.
#[derive(Debug, thiserror::Error)]
pub enum SmallFailure {
    /// It cannot be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is another version than expected, or was changed while it was read.
    #[error("the file was changed meanwhile")]
    Changed,
    /// It is not a regular file (any more).
    #[error("not a regular file")]
    NotRegular,
    /// It is over [`READ_SMALL_BYTES_MAX`].
    #[error("the file is not small (any more)")]
    TooLarge,
    /// The buffer has no room left for it and its headroom.
    #[error("no room is left in the buffer")]
    NoRoom,
}

/// Reads small files whole, back to back, appending them to `buf`, each after `headroom_bytes` zeros that the caller
/// fills in later. Result `i` is that of `wanted[i]`. A file that fails leaves the others alone.
///
/// # Errors
/// For each file: see [`SmallFailure`].
pub fn read_small(
    source: &Source,
    wanted: &[SmallRead],
    headroom_bytes: usize,
    buf: &mut PoolBuf,
) -> Vec<Result<SmallReadOk, SmallFailure>> {
    wanted
        .iter()
        .map(|wanted| {
            let before = buf.len();
            let result = read_one(source, wanted, headroom_bytes, buf);
            if result.is_err() {
                buf.truncate(before);
            }
            result
        })
        .collect()
}

fn read_one(
    source: &Source,
    wanted: &SmallRead,
    headroom_bytes: usize,
    buf: &mut PoolBuf,
) -> Result<SmallReadOk, SmallFailure> {
    let (file, stat) =
        guard(Op::Open, || source.open_file(&wanted.path)).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SmallFailure::NotRegular,
            _ => SmallFailure::Io(error),
        })?;
    if wanted.expected.is_some_and(|expected| !expected.same_version(&stat)) {
        return Err(SmallFailure::Changed);
    }
    if stat.size_bytes > READ_SMALL_BYTES_MAX {
        return Err(SmallFailure::TooLarge);
    }
    let bytes = usize::try_from(stat.size_bytes).map_err(|_| SmallFailure::TooLarge)?;
    if buf.spare_bytes().checked_sub(headroom_bytes).is_none_or(|room| room < bytes) {
        return Err(SmallFailure::NoRoom);
    }
    buf.put_zeros(headroom_bytes);
    let start = buf.len();
    read_whole(&file, buf, bytes)?;
    if !FileStat::of(&file)?.same_version(&stat) {
        return Err(SmallFailure::Changed);
    }
    Ok(SmallReadOk { content: start..start + bytes, stat })
}

fn read_whole(file: &File, buf: &mut PoolBuf, bytes: usize) -> Result<(), SmallFailure> {
    match faults::read_exact_at(file, buf.spare_mut(bytes), 0) {
        Ok(()) => {
            buf.advance(bytes);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SmallFailure::Changed),
        Err(error) => Err(SmallFailure::Io(error)),
    }
}

/// A small file to be written whole. Its content has been verified.
#[derive(Clone, Debug)]
pub struct SmallWrite {
    /// Its number.
    pub id: FileId,
    /// Where it belongs.
    pub path: SafePath,
    /// Its content within the buffer.
    pub content: Range<usize>,
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time.
    pub mtime: Timestamp,
    /// Owner, extended attributes and access control lists.
    pub attributes: Option<Attributed>,
}

impl Replica {
    /// Stages small files whole, with their metadata, from the filled part of one buffer. Result `i` is that of
    /// `files[i]`, to be handed to [`Replica::publish`] with the same durability; few descriptors are held meanwhile.
    ///
    /// # Errors
    /// For each file: what the file system says.
    ///
    /// # Panics
    /// If a content is not within what is filled.
    pub fn write_small(
        &self,
        files: Vec<SmallWrite>,
        buf: &PoolBuf,
        durability: Durability,
    ) -> Vec<Result<Ready, FileError>> {
        files
            .into_iter()
            .map(|file| {
                let content = &buf.as_slice()[file.content];
                let mut staged = StagedFile::create_small(self.staging(), file.id, &file.path, durability)?;
                faults::write_all_at(staged.file(), content, 0)
                    .and_then(|()| match &file.attributes {
                        Some(attributes) => attributes.apply(staged.file(), file.mode),
                        None => Ok(file.mode),
                    })
                    .and_then(|mode| metadata::apply(staged.file(), mode, file.mtime))
                    .map_err(|error| FileError::from_io(&file.path, error))?;
                staged.close().map_err(|error| FileError::from_io(&file.path, error))?;
                Ok(Ready::complete(staged, file.path))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Expected;
    use crate::replica::ReplicaId;
    use crate::ring::pool::{BufferPool, PoolConfig};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn buffer() -> PoolBuf {
        let config = PoolConfig { slot_bytes: 64 << 10, slots: 1, large_slots: 0 };
        let mut buf = BufferPool::new(config).unwrap().try_acquire(1).unwrap();
        let capacity = buf.capacity();
        buf.spare_mut(capacity).fill(0xC5);
        buf.advance(capacity);
        buf.clear();
        buf
    }

    fn wanted(name: &str) -> SmallRead {
        SmallRead { path: path(name), expected: None }
    }

    #[test]
    fn reads_back_to_back_and_tells_each_failure() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "first").unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        fs::write(dir.path().join("z"), "last").unwrap();
        fs::write(dir.path().join("big"), vec![1; 65 << 10]).unwrap();
        fs::File::create(dir.path().join("huge")).unwrap().set_len(READ_SMALL_BYTES_MAX + 1).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let source = Source::open(&[dir.path().into()]).unwrap();
        let names = ["a", "missing", "empty", "dir", "link", "big", "huge", "z"];
        let mut buf = buffer();
        buf.put_slice(b"frame");
        let results = read_small(&source, &names.map(wanted), 8, &mut buf);
        let contents: Vec<_> =
            results.iter().map(|r| r.as_ref().ok().map(|ok| &buf.as_slice()[ok.content.clone()])).collect();
        assert_eq!(contents[0], Some(&b"first"[..]));
        assert_eq!(contents[2], Some(&b""[..]));
        assert_eq!(contents[7], Some(&b"last"[..]));
        assert!(matches!(results[1], Err(SmallFailure::Io(_))));
        assert!(matches!(results[3], Err(SmallFailure::NotRegular)));
        assert!(matches!(results[4], Err(SmallFailure::Io(_))));
        assert!(matches!(results[5], Err(SmallFailure::NoRoom)));
        assert!(matches!(results[6], Err(SmallFailure::TooLarge)));
        assert_eq!(buf.as_slice(), b"frame\0\0\0\0\0\0\0\0first\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0last");
    }

    #[test]
    fn b12_another_version_than_expected_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "first").unwrap();
        let source = Source::open(&[dir.path().into()]).unwrap();
        let (_, stat) = source.open_file(&path("a")).unwrap();
        let same = SmallRead { path: path("a"), expected: Some(stat) };
        let mut buf = buffer();
        assert!(read_small(&source, std::slice::from_ref(&same), 0, &mut buf)[0].is_ok());
        fs::write(dir.path().join("new"), "other").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("a")).unwrap();
        buf.clear();
        assert!(matches!(read_small(&source, &[same], 4, &mut buf)[0], Err(SmallFailure::Changed)));
        assert!(buf.is_empty());
    }

    /// Small files `d/0`, `d/1`, …, each with its number as content.
    fn numbered(count: u16, buf: &mut PoolBuf) -> Vec<SmallWrite> {
        let file = |i: u16| {
            let start = buf.len();
            buf.put_slice(&i.to_le_bytes());
            SmallWrite {
                id: FileId(i.into()),
                path: path(&format!("d/{i}")),
                content: start..start + 2,
                mode: 0o440,
                mtime: Timestamp { seconds: i64::from(i), nanos: 7 },
                attributes: None,
            }
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn thousands_of_small_files_are_written_and_published() {
        for durability in [Durability::Synced, Durability::Unsynced] {
            let dir = tempfile::tempdir().unwrap();
            let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
            replica.make_directory(&path("d")).unwrap();
            let mut buf = buffer();
            // More than a usual limit on open files.
            let files = numbered(3000, &mut buf);
            let ready: Vec<_> =
                replica.write_small(files, &buf, durability).into_iter().map(Result::unwrap).collect();
            for result in replica.publish(ready, durability) {
                result.unwrap();
            }
            for i in 0..3000_u16 {
                let name = dir.path().join(format!("d/{i}"));
                assert_eq!(fs::read(&name).unwrap(), i.to_le_bytes());
                let stat = fs::metadata(&name).unwrap();
                assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o440, i.into(), 7));
            }
            replica.close().unwrap();
        }
    }

    #[test]
    fn what_is_at_their_place_is_replaced_if_it_is_what_was_expected() {
        for durability in [Durability::Synced, Durability::Unsynced] {
            let dir = tempfile::tempdir().unwrap();
            let replica = Replica::open(dir.path(), ReplicaId([7; 16])).unwrap();
            replica.make_directory(&path("d")).unwrap();
            let at = |name: &str| dir.path().join("d").join(name);
            let old: Vec<_> = ["1", "3", "4", "6"].into_iter().map(|name| (name, at(name))).collect();
            old.iter().for_each(|(name, at)| fs::write(at, format!("old {name}")).unwrap());
            fs::create_dir(at("2")).unwrap();
            let version = |name: &str| {
                let (_, stat) = replica.open_existing(&path(&format!("d/{name}"))).unwrap();
                Expected::Version(stat)
            };
            let expected = [
                Expected::Missing,
                Expected::Anything,
                Expected::Anything,
                version("3"),
                version("3"),
                version("6"),
                Expected::Missing,
            ];
            let mut buf = buffer();
            let files = numbered(7, &mut buf);
            let ready = replica.write_small(files, &buf, durability).into_iter().map(Result::unwrap);
            let ready: Vec<_> = ready.zip(expected).map(|(ready, expected)| ready.expect(expected)).collect();
            for ready in &ready {
                let mut content = [0; 2];
                faults::read_exact_at(&ready.open_from_disk().unwrap(), &mut content, 0).unwrap();
                assert_eq!(path(&format!("d/{}", u16::from_le_bytes(content))), *ready.path());
            }
            let results = replica.publish(ready, durability);
            // Another file, one that is missing, and one that is there.
            assert_eq!(
                results.iter().map(Result::is_ok).collect::<Vec<_>>(),
                [true, true, true, true, false, false, false]
            );
            for (i, result) in results.into_iter().enumerate() {
                match result {
                    Ok(stat) => {
                        assert_eq!(
                            fs::read(at(&i.to_string())).unwrap(),
                            u16::try_from(i).unwrap().to_le_bytes()
                        );
                        assert_eq!(fs::metadata(at(&i.to_string())).unwrap().ino(), stat.inode);
                    }
                    Err(error) => assert!(matches!(error, FileError::Changed { .. }), "{error}"),
                }
            }
            assert_eq!(fs::read(at("4")).unwrap(), b"old 4");
            assert_eq!(fs::read(at("6")).unwrap(), b"old 6");
            assert_eq!(fs::read_dir(dir.path().join(".sealift/staging")).unwrap().count(), 0);
        }
    }
}
