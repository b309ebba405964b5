//! What is in a directory: names, sizes, modes and content; and whether another holds the same.

use crate::failure::{Failure, OrFailure as _, Outcome};
use crypto_simd::Digest;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes that one thread hashes at a time: a power of two, as BLAKE3's subtrees need.
const BLOCK_BYTES: u64 = 1 << 20;

/// What is in a directory, in the order of names.
#[derive(Clone, Debug)]
pub struct Tree(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    mode: u32,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File { bytes: u64, hash: Digest },
    Other,
}

/// What two trees are compared by, beside names and content.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// The low nine bits of modes.
    pub modes: bool,
}

impl Tree {
    /// Reads everything below `root`, but for Sealift's own directory at its top.
    pub fn read(root: &Path) -> Outcome<Self> {
        let mut entries = Vec::new();
        walk(root, Path::new(""), &mut entries)?;
        entries.par_iter_mut().try_for_each_init(Vec::new, |buffer, entry| {
            let path = root.join(&entry.path);
            if let Kind::File { bytes, hash } = &mut entry.kind {
                *hash = hash_file(&path, *bytes, buffer)
                    .or_failure(|| format!("cannot read {}", path.display()))?;
            }
            Ok::<_, Failure>(())
        })?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(entries))
    }

    /// How many files it has.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.0.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).count() as u64
    }

    /// How many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.0.iter().map(|entry| match entry.kind {
            Kind::File { bytes, .. } => bytes,
            Kind::Directory | Kind::Other => 0,
        });
        sizes.sum()
    }

    /// Of all of it.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for entry in &self.0 {
            let path = entry.path.as_os_str().as_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path).update(&entry.mode.to_le_bytes());
            match &entry.kind {
                Kind::Directory => hasher.update(b"d"),
                Kind::File { bytes, hash } => hasher.update(b"f").update(&bytes.to_le_bytes()).update(hash),
                Kind::Other => hasher.update(b"?"),
            };
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What is not the same in `copy`, in words; `None` if nothing is.
    #[must_use]
    pub fn difference(&self, copy: &Self, compared: Compared) -> Option<String> {
        let mut differences = Vec::new();
        let (mut ours, mut theirs) = (self.0.iter().peekable(), copy.0.iter().peekable());
        loop {
            let shown = |entry: &Entry| entry.path.display().to_string();
            match (ours.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(one), None) => differences.push(format!("{} is missing", shown(one))),
                (None, Some(other)) => differences.push(format!("{} is too much", shown(other))),
                (Some(one), Some(other)) if one.path < other.path => {
                    differences.push(format!("{} is missing", shown(one)));
                    ours.next();
                    continue;
                }
                (Some(one), Some(other)) if one.path > other.path => {
                    differences.push(format!("{} is too much", shown(other)));
                    theirs.next();
                    continue;
                }
                (Some(one), Some(other)) => {
                    differences
                        .extend(one.differs(other, compared).map(|how| format!("{} {how}", shown(one))));
                }
            }
            ours.next();
            theirs.next();
        }
        let first = differences.first()?;
        Some(match differences.len() {
            1 => first.clone(),
            count => format!("{first}, and {} more differences", count - 1),
        })
    }
}

impl Entry {
    fn differs(&self, other: &Self, compared: Compared) -> Option<String> {
        match (&self.kind, &other.kind) {
            (Kind::File { bytes, .. }, Kind::File { bytes: other, .. }) if bytes != other => {
                Some(format!("has {other} bytes instead of {bytes}"))
            }
            (Kind::File { hash, .. }, Kind::File { hash: other, .. }) if hash != other => {
                Some("has other content".into())
            }
            (Kind::File { .. }, Kind::File { .. }) | (Kind::Directory, Kind::Directory)
                if compared.modes && self.mode != other.mode =>
            {
                Some(format!("has mode {:03o} instead of {:03o}", other.mode, self.mode))
            }
            (Kind::File { .. }, Kind::File { .. }) | (Kind::Directory, Kind::Directory) => None,
            _ => Some("is of another kind".into()),
        }
    }
}

fn walk(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> Outcome<()> {
    let directory = root.join(below);
    let cannot = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(&directory).or_failure(cannot)? {
        let entry = entry.or_failure(cannot)?;
        let path = below.join(entry.file_name());
        if path == Path::new(".sealift") {
            continue;
        }
        let metadata = entry.metadata().or_failure(|| format!("cannot stat {}", entry.path().display()))?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File { bytes: metadata.len(), hash: [0; 32] },
            _ => Kind::Other,
        };
        let is_dir = kind == Kind::Directory;
        entries.push(Entry { path: path.clone(), mode: metadata.permissions().mode() & 0o777, kind });
        if is_dir {
            walk(root, &path, entries)?;
        }
    }
    Ok(())
}

/// The BLAKE3 of a file: of a large one on all threads.
fn hash_file(path: &Path, bytes: u64, buffer: &mut Vec<u8>) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    if bytes <= BLOCK_BYTES {
        buffer.clear();
        file.read_to_end(buffer)?;
        return Ok(crypto_simd::blake3::hash(buffer));
    }
    let blocks: io::Result<Vec<Digest>> = (0..bytes.div_ceil(BLOCK_BYTES))
        .into_par_iter()
        .map_init(Vec::new, |buffer, block| {
            let offset = block * BLOCK_BYTES;
            buffer.resize(usize::try_from((bytes - offset).min(BLOCK_BYTES)).unwrap_or(0), 0);
            file.read_exact_at(buffer, offset)?;
            Ok(crypto_simd::blake3::subtree(buffer, offset))
        })
        .collect();
    crypto_simd::blake3::merge(&blocks?).ok_or_else(|| io::Error::other("a file of one block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path) -> Tree {
        Tree::read(dir).unwrap()
    }

    #[test]
    fn differences_are_found_and_named() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [one.path(), two.path()] {
            fs::create_dir(dir.join("sub")).unwrap();
            fs::write(dir.join("sub/a"), "content").unwrap();
            fs::write(dir.join("b"), vec![7; 3_500_000]).unwrap();
            fs::set_permissions(dir.join("b"), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::create_dir(two.path().join(".sealift")).unwrap();
        let compared = Compared { modes: true };
        let source = tree(one.path());
        assert_eq!((source.files(), source.bytes()), (2, 3_500_007));
        let difference = || source.difference(&tree(two.path()), compared);
        assert_eq!(difference(), None);
        fs::set_permissions(two.path().join("b"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(difference().unwrap(), "b has mode 600 instead of 644");
        assert_eq!(source.difference(&tree(two.path()), Compared { modes: false }), None);
        fs::write(two.path().join("b"), vec![8; 3_500_000]).unwrap();
        assert_eq!(difference().unwrap(), "b has other content");
        fs::write(two.path().join("b"), "short").unwrap();
        assert_eq!(difference().unwrap(), "b has 5 bytes instead of 3500000");
        fs::remove_file(two.path().join("b")).unwrap();
        assert_eq!(difference().unwrap(), "b is missing");
        fs::write(two.path().join("z"), "").unwrap();
        assert_eq!(difference().unwrap(), "b is missing, and 1 more differences");
    }

    #[test]
    fn large_files_have_the_ordinary_hash() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(dir.path().join("f"), &data).unwrap();
        let hash = hash_file(&dir.path().join("f"), data.len() as u64, &mut Vec::new()).unwrap();
        assert_eq!(hash, *blake3::hash(&data).as_bytes());
    }
}
