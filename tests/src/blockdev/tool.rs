//! Running the tools that make disks, and where their files are.

use super::mount::Mount;
use crate::tree::is_root;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// Why something cannot be done on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Runs a tool to its end, and returns what it said.
///
/// # Errors
/// If there is no such tool, or it fails: what it said about that.
pub fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Result<String, Unavailable> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| Unavailable(format!("{program}: {error}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(Unavailable(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// What was made; if it is unavailable, says that the test is skipped, and why.
pub fn or_skip<T>(made: Result<T, Unavailable>) -> Option<T> {
    made.map_err(|why| println!("skipped: {why}")).ok()
}

/// A directory in memory for images of disks, gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    // In this order: it is unmounted before its directory is removed.
    mount: Mount,
    _dir: tempfile::TempDir,
}

impl Scratch {
    /// Room for that many bytes. Memory is taken as it is written.
    ///
    /// # Errors
    /// If this is not root, or nothing can be mounted.
    ///
    /// # Panics
    /// If no directory can be made.
    pub fn new(bytes: u64) -> Result<Self, Unavailable> {
        if !is_root() {
            return Err(Unavailable("only root can mount".to_owned()));
        }
        let dir = tempfile::tempdir().expect("a directory can be made");
        let mount = Mount::tmpfs(dir.path(), &format!("size={bytes}"))?;
        Ok(Self { mount, _dir: dir })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mount.path()
    }
}
