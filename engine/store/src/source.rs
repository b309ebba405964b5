//! What `send PATH...` offers: one directory's contents, one file, or several of either under their base names.
//!
//! Owns the descriptors of what the user named; everything beneath is resolved from those. Never follows a symbolic
//! link beneath them, and never blocks on a FIFO.

use crate::error::SourceError;
use crate::root::Root;
use crate::stat::{self, FileStat};
use rustix::fs::{FileType, Mode, OFlags};
use sealift_proto::path::SafePath;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is offered, by descriptors. Shareable between threads.
#[derive(Debug)]
pub struct Source {
    pub(crate) offer: Offer,
}

#[derive(Debug)]
pub(crate) enum Offer {
    /// One directory: its contents.
    Tree(Root),
    /// One file, or several of anything: each under its name, sorted by it.
    Named(Vec<Named>),
}

#[derive(Debug)]
pub(crate) struct Named {
    /// A single component.
    pub(crate) name: SafePath,
    pub(crate) what: NamedWhat,
}

#[derive(Debug)]
pub(crate) enum NamedWhat {
    Tree(Root),
    /// A file, by the directory it is in.
    FileIn(Root),
}

impl Source {
    /// Opens what the user named: one directory (whose contents are the tree), one file, or several paths each
    /// under its base name.
    ///
    /// # Errors
    /// A path that cannot be opened, has no base name or an unusable one, or shares it with another.
    pub fn open(paths: &[PathBuf]) -> Result<Self, SourceError> {
        if paths.is_empty() {
            return Err(SourceError::Nothing);
        }
        if let [only] = paths
            && let Some(root) = open_directory(only)?
        {
            return Ok(Self { offer: Offer::Tree(root) });
        }
        let mut named: Vec<(Named, &PathBuf)> = Vec::with_capacity(paths.len());
        for path in paths {
            named.push((open_named(path)?, path));
        }
        named.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        if let Some(pair) = named.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
            return Err(SourceError::Duplicate {
                name: pair[0].0.name.clone(),
                first: pair[0].1.clone(),
                second: pair[1].1.clone(),
            });
        }
        Ok(Self { offer: Offer::Named(named.into_iter().map(|(named, _)| named).collect()) })
    }

    /// Opens an offered regular file for reading.
    ///
    /// # Errors
    /// Those of `openat2` (ELOOP for a symbolic link); `InvalidInput` if it is not a regular file.
    pub fn open_file(&self, path: &SafePath) -> io::Result<(File, FileStat)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match &self.offer {
            Offer::Tree(root) => root.open_beneath(path, flags)?,
            Offer::Named(named) => {
                let first = path.as_bytes().split(|&b| b == b'/').next().unwrap_or_default();
                let index = named
                    .binary_search_by(|item| item.name.as_bytes().cmp(first))
                    .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
                let rest = path.as_bytes().get(first.len() + 1..);
                match (&named[index].what, rest) {
                    (NamedWhat::FileIn(above), None) => above.open_beneath(path, flags)?,
                    (NamedWhat::FileIn(_), Some(_)) => {
                        return Err(rustix::io::Errno::NOTDIR.into());
                    }
                    (NamedWhat::Tree(root), Some(rest)) => {
                        let rest = SafePath::parse(rest)
                            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                        root.open_beneath(&rest, flags)?
                    }
                    (NamedWhat::Tree(_), None) => return Err(not_regular()),
                }
            }
        };
        let stat = rustix::fs::fstat(&fd)?;
        if stat::kind(&stat) != FileType::RegularFile {
            return Err(not_regular());
        }
        Ok((File::from(fd), FileStat::from_stat(&stat)))
    }
}

pub(crate) fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// The directory at a path of the user's, or `None` if something else is there.
fn open_directory(path: &Path) -> Result<Option<Root>, SourceError> {
    match Root::open(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(source) => Err(SourceError::Open { path: path.into(), source }),
    }
}

fn open_named(path: &Path) -> Result<Named, SourceError> {
    let name = path.file_name().ok_or_else(|| SourceError::NoName { path: path.into() })?;
    let name = SafePath::parse(name.as_bytes())
        .map_err(|source| SourceError::BadName { path: path.into(), source })?;
    if let Some(root) = open_directory(path)? {
        return Ok(Named { name, what: NamedWhat::Tree(root) });
    }
    let failed = |source: io::Error| SourceError::Open { path: path.into(), source };
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let above = Root::open(above).map_err(failed)?;
    let fd = rustix::fs::openat(
        above.dir(),
        name.as_bytes(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed(error.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|error| failed(error.into()))?;
    match stat::kind(&stat) {
        FileType::RegularFile => Ok(Named { name, what: NamedWhat::FileIn(above) }),
        FileType::Symlink => Err(SourceError::Symlink { path: path.into() }),
        _ => Err(SourceError::Special { path: path.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> SafePath {
        SafePath::parse(text.as_bytes()).expect("safe")
    }

    fn read(source: &Source, name: &str) -> io::Result<String> {
        let (mut file, stat) = source.open_file(&path(name))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        assert_eq!(stat.size_bytes, text.len() as u64);
        Ok(text)
    }

    #[test]
    fn one_directory_offers_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "hello").unwrap();
        symlink("file", dir.path().join("sub/link")).unwrap();
        let source = Source::open(&[dir.path().into()]).unwrap();
        assert_eq!(read(&source, "sub/file").unwrap(), "hello");
        assert!(read(&source, "sub/link").is_err());
        assert_eq!(read(&source, "sub").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read(&source, "none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_and_several_paths_are_offered_under_their_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::write(dir.path().join("tree/x"), "in tree").unwrap();
        fs::write(dir.path().join("file"), "alone").unwrap();
        let single = Source::open(&[dir.path().join("file")]).unwrap();
        assert_eq!(read(&single, "file").unwrap(), "alone");
        assert!(read(&single, "tree/x").is_err(), "only what was named is offered");
        let both = Source::open(&[dir.path().join("tree/"), dir.path().join("file")]).unwrap();
        assert_eq!(read(&both, "tree/x").unwrap(), "in tree");
        assert_eq!(read(&both, "file").unwrap(), "alone");
        assert!(read(&both, "file/x").is_err());
        assert!(read(&both, "tree").is_err());
    }

    #[test]
    fn duplicate_base_names_are_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["a", "b"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
            fs::write(dir.path().join(sub).join("same"), "").unwrap();
        }
        let error = Source::open(&[dir.path().join("a/same"), dir.path().join("b/same")]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a/same") && text.contains("b/same"), "{text}");
    }

    #[test]
    fn refuses_what_cannot_be_offered() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let open = |name: &str| Source::open(&[dir.path().join(name)]).unwrap_err();
        assert!(matches!(open("link"), SourceError::Symlink { .. }));
        assert!(matches!(open("none"), SourceError::Open { .. }));
        assert!(matches!(Source::open(&[]).unwrap_err(), SourceError::Nothing));
        let several = [PathBuf::from("/"), dir.path().join("file")];
        assert!(matches!(Source::open(&several).unwrap_err(), SourceError::NoName { .. }));
    }

    #[test]
    fn a6_opening_a_fifo_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let source = Source::open(&[dir.path().into()]).unwrap();
        assert_eq!(read(&source, "fifo").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let error = Source::open(&[dir.path().join("fifo")]).unwrap_err();
        assert!(matches!(error, SourceError::Special { .. }));
    }
}
