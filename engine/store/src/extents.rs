//! Where a file has holes, so that they are neither read, sent nor written.
//!
//! Never trusts a hole for content: a hole reads as zeros, and its blocks are hashed as such.

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sealift_proto::limits;
use std::fs::File;
use std::io;
use std::ops::Range;

/// The smallest hole worth telling, in bytes.
pub const HOLE_BYTES_MIN: u64 = 4096;

/// The holes of a file of `size_bytes`, in order, each of at least [`HOLE_BYTES_MIN`] bytes and at most
/// [`limits::FILE_HOLES_MAX`] of them. None if the file system cannot tell.
///
/// Moves the descriptor's offset, which nothing in this crate relies on.
///
/// # Errors
/// Those of `fstat` and `lseek`.
pub fn holes(file: &File, size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let blocks = u64::try_from(rustix::fs::fstat(file)?.st_blocks).unwrap_or(u64::MAX);
    if size_bytes < HOLE_BYTES_MIN || blocks.saturating_mul(512) >= size_bytes {
        return Ok(Vec::new());
    }
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size_bytes && holes.len() < limits::FILE_HOLES_MAX {
        let start = match rustix::fs::seek(file, SeekFrom::Hole(at)) {
            Ok(start) => start,
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if start >= size_bytes {
            break;
        }
        let end = match rustix::fs::seek(file, SeekFrom::Data(start)) {
            Ok(end) => end.min(size_bytes),
            Err(Errno::NXIO) => size_bytes,
            Err(error) => return Err(error.into()),
        };
        if end - start >= HOLE_BYTES_MIN {
            holes.push(start..end);
        }
        // The file may change as we look: always move on.
        at = end.max(start + 1);
    }
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn finds_holes_where_the_file_system_keeps_them() {
        let file = tempfile::tempfile().unwrap();
        let size = 8 << 20;
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 4 << 20).unwrap();
        let found = holes(&file, size).unwrap();
        for hole in &found {
            assert!(hole.start < hole.end && hole.end <= size && hole.end - hole.start >= HOLE_BYTES_MIN);
            assert!(!hole.contains(&(1 << 20)) && !hole.contains(&((4 << 20) + 4095)));
        }
        assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
        // Every file system that tests run on (ext4, xfs, btrfs, tmpfs) keeps holes of a megabyte.
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[2].end, size);
    }

    #[test]
    fn full_and_empty_files_have_none() {
        let file = tempfile::tempfile().unwrap();
        assert!(holes(&file, 0).unwrap().is_empty());
        file.write_all_at(&[1; 100_000], 0).unwrap();
        assert!(holes(&file, 100_000).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_shrank_meanwhile_ends_the_search() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(holes(&file, 1 << 30).unwrap().len() <= 1);
    }
}
