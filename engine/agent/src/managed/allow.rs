//! Which paths jobs may touch on this host: its own list, by which the agent judges whatever the daemon says.
//!
//! Owns the judgement alone. A path is compared as it is on the disk, with symbolic links resolved as far as it exists;
//! without a root nothing is allowed.

use sealift_proto::path::escape;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Bytes in a path: what Linux takes.
const PATH_BYTES_MAX: usize = 4095;

/// What a job wants with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To offer it.
    Read,
    /// To replicate into it.
    Write,
}

impl Access {
    fn option(self) -> &'static str {
        match self {
            Self::Read => "--allow-read",
            Self::Write => "--allow-write",
        }
    }
}

/// The roots beneath which jobs may read, and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllowList {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
}

/// Why a path is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} is refused: it is not an absolute path without . and ..")]
    Form(String),
    #[error("{0} is refused: {1}")]
    Unresolvable(String, io::Error),
    #[error("{0} is refused: this host allows nothing with {1}")]
    NoRoot(String, &'static str),
    #[error("{0} is refused: it is not within what this host allows with {1}")]
    Outside(String, &'static str),
    #[error("{0} is refused: the agent keeps its own state there")]
    OwnState(String),
}

impl AllowList {
    /// The path as it is on the disk, if a job may have it. `state` is the agent's own place, which no job touches.
    pub(crate) fn judge(&self, access: Access, path: &[u8], state: &Path) -> Result<PathBuf, Refusal> {
        let shown = escape(path);
        let path = Path::new(OsStr::from_bytes(path));
        if !is_plain(path) {
            return Err(Refusal::Form(shown));
        }
        let roots = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        if roots.is_empty() {
            return Err(Refusal::NoRoot(shown, access.option()));
        }
        let resolved = match resolve(path) {
            Ok(resolved) => resolved,
            Err(error) => return Err(Refusal::Unresolvable(shown, error)),
        };
        let within = |root: &PathBuf| resolve(root).is_ok_and(|root| resolved.starts_with(root));
        if !roots.iter().any(within) {
            return Err(Refusal::Outside(shown, access.option()));
        }
        let state = resolve(state).unwrap_or_else(|_| state.to_owned());
        if resolved.starts_with(&state) || state.starts_with(&resolved) {
            return Err(Refusal::OwnState(shown));
        }
        Ok(resolved)
    }
}

/// Absolute, of a length that the system takes, and without steps that lead elsewhere than they say.
pub(crate) fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    // `components` leaves inner dots out, so that the bytes are looked at.
    let dots = bytes.split(|&byte| byte == b'/').any(|name| name == b"." || name == b"..");
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute()
        && bytes.len() <= PATH_BYTES_MAX
        && !bytes.contains(&0)
        && !dots
        && path.components().all(plain)
}

/// The path with links resolved as far as it exists. A link that leads nowhere is an error: what it leads to may come to
/// be anywhere.
// These are the operator's paths, not a peer's; what is within them goes through `SafePath`.
#[allow(clippy::disallowed_methods)]
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(error), Some(above), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            match std::fs::symlink_metadata(path) {
                Ok(_) => Err(io::Error::other("a symbolic link on the way leads nowhere")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(resolve(above)?.join(name)),
                Err(error) => Err(error),
            }
        }
        (resolved, ..) => resolved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree {
        dir: tempfile::TempDir,
        list: AllowList,
    }

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for name in ["data/in", "database", "state/agent", "other"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let list = AllowList { read: vec![dir.path().join("data")], write: vec![] };
        Tree { dir, list }
    }

    impl Tree {
        fn read(&self, path: &str) -> Result<PathBuf, Refusal> {
            let path = format!("{}/{path}", self.dir.path().display());
            self.list.judge(Access::Read, path.as_bytes(), &self.dir.path().join("state"))
        }
    }

    #[test]
    fn what_lies_within_a_root_is_allowed_also_before_it_exists() {
        let tree = tree();
        for path in ["data", "data/", "data/in", "data/new/deep"] {
            assert!(tree.read(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_name_that_begins_like_a_root_is_another() {
        assert!(matches!(tree().read("database"), Err(Refusal::Outside(..))));
        assert!(matches!(tree().read("dat"), Err(Refusal::Outside(..))));
    }

    #[test]
    fn steps_up_and_relative_paths_are_refused() {
        let tree = tree();
        for path in ["data/../database", "data/..", "data/./in", "data/in/."] {
            assert!(matches!(tree.read(path), Err(Refusal::Form(_))), "{path}");
        }
        let state = Path::new("/nowhere");
        for path in [&b"data"[..], b"", b"..", b"/data\0x", &[b'/'; 5000]] {
            assert!(matches!(tree.list.judge(Access::Read, path, state), Err(Refusal::Form(_))), "{path:?}");
        }
    }

    #[test]
    fn links_are_judged_by_where_they_lead() {
        let tree = tree();
        let at = |name: &str| tree.dir.path().join(name);
        symlink(at("database"), at("data/out")).unwrap();
        symlink(at("data/in"), at("other/in")).unwrap();
        symlink(at("other/not-yet"), at("data/nowhere")).unwrap();
        assert!(matches!(tree.read("data/out"), Err(Refusal::Outside(..))));
        assert!(matches!(tree.read("data/out/new"), Err(Refusal::Outside(..))));
        assert!(matches!(tree.read("data/nowhere"), Err(Refusal::Unresolvable(..))));
        assert!(matches!(tree.read("data/nowhere/new"), Err(Refusal::Unresolvable(..))));
        assert_eq!(tree.read("other/in").unwrap(), resolve(&at("data/in")).unwrap());
    }

    #[test]
    fn a_root_may_be_a_link_itself() {
        let mut tree = tree();
        symlink(tree.dir.path().join("data"), tree.dir.path().join("link")).unwrap();
        tree.list.read = vec![tree.dir.path().join("link")];
        assert!(tree.read("data/in").is_ok() && tree.read("link/in").is_ok());
    }

    #[test]
    fn without_a_root_nothing_is_allowed() {
        let tree = tree();
        let path = tree.dir.path().join("data");
        let judged = tree.list.judge(Access::Write, path.as_os_str().as_bytes(), Path::new("/nowhere"));
        assert!(matches!(judged, Err(Refusal::NoRoot(..))));
    }

    #[test]
    fn the_agents_own_state_is_out_of_reach() {
        let mut tree = tree();
        tree.list.read = vec![PathBuf::from("/")];
        for path in ["state", "state/agent", ""] {
            assert!(matches!(tree.read(path), Err(Refusal::OwnState(_))), "{path}");
        }
        assert!(tree.read("other").is_ok());
    }
}
