//! A data set on the disk: made if it is not there, or not as its stamp says.

use super::content::Content;
use super::{Planned, Spec};
use crate::failure::{OrFailure as _, Outcome, failure};
use crate::tree::Tree;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Another number when the same spec makes other files.
const GENERATOR: u32 = 1;

/// Bytes made at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A data set that is there.
#[derive(Debug)]
pub struct DataSet {
    /// What it is.
    pub spec: Spec,
    /// The directory that holds it, and nothing else.
    pub path: PathBuf,
    /// What is in it.
    pub tree: Tree,
}

/// What was made, kept beside it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    generator: u32,
    spec: String,
    digest: String,
}

/// Makes the data set below `dir`, unless it is there already. Reads all of it, so that it is in the page cache.
pub fn prepare(spec: Spec, dir: &Path) -> Outcome<DataSet> {
    let dir = dir.join(spec.name());
    let (path, stamp_path) = (dir.join("tree"), dir.join("stamp.json"));
    let kept: Option<Stamp> =
        fs::read(&stamp_path).ok().and_then(|stamp| serde_json::from_slice(&stamp).ok());
    if let Some(stamp) = kept
        && let Ok(tree) = Tree::read(&path)
        && stamp == stamp_of(&spec, &tree)
    {
        return Ok(DataSet { spec, path, tree });
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).or_failure(|| format!("cannot remove {}", dir.display()))?;
    }
    let files = spec.files();
    make(&spec, &files, &path)?;
    let tree = Tree::read(&path)?;
    if tree.files() != files.len() as u64 {
        return failure(format!("{} was changed while it was made", path.display()));
    }
    // Written back now, so that no measurement pays for it.
    File::open(&path)
        .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
        .or_failure(|| format!("cannot sync {}", path.display()))?;
    let stamp = serde_json::to_vec_pretty(&stamp_of(&spec, &tree)).or_failure(|| "no stamp".into())?;
    fs::write(&stamp_path, stamp).or_failure(|| format!("cannot write {}", stamp_path.display()))?;
    Ok(DataSet { spec, path, tree })
}

fn stamp_of(spec: &Spec, tree: &Tree) -> Stamp {
    Stamp { generator: GENERATOR, spec: format!("{spec:?}"), digest: tree.digest() }
}

fn make(spec: &Spec, files: &[Planned], path: &Path) -> Outcome<()> {
    let mut last = None;
    for file in files {
        let parent = path.join(&file.path).parent().map(Path::to_owned);
        if parent != last
            && let Some(parent) = &parent
        {
            fs::create_dir_all(parent).or_failure(|| format!("cannot create {}", parent.display()))?;
        }
        last = parent;
    }
    files.par_iter().try_for_each_init(
        || vec![0; CHUNK_BYTES],
        |buffer, planned| {
            let path = path.join(&planned.path);
            write(planned, spec.compressible, &path, buffer)
                .or_failure(|| format!("cannot write {}", path.display()))
        },
    )
}

fn write(planned: &Planned, compressible: bool, path: &Path, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut content = Content::new(planned.seed, compressible);
    let mut file = File::create(path)?;
    let mut left = planned.bytes;
    while left > 0 {
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        content.fill(&mut buffer[..bytes]);
        file.write_all(&buffer[..bytes])?;
        left -= bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_made_once_and_again_when_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Spec { shape: "small:20:1000B".parse().unwrap(), seed: 3, compressible: false };
        let made = prepare(spec, dir.path()).unwrap();
        assert_eq!((made.tree.files(), made.tree.bytes()), (20, 20_000));
        let file = made.path.join("00/00/07.bin");
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        let again = prepare(spec, dir.path()).unwrap();
        assert_eq!(again.tree.digest(), made.tree.digest());
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first, "it is kept");
        fs::write(&file, "other").unwrap();
        assert_eq!(prepare(spec, dir.path()).unwrap().tree.digest(), made.tree.digest(), "it is made again");
        fs::write(made.path.join("more"), "").unwrap();
        assert_eq!(prepare(spec, dir.path()).unwrap().tree.files(), 20);
    }
}
