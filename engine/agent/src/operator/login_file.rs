//! What a login leaves: the daemon's address and authority, and a token of its API, in a file for its owner alone.
//!
//! `$XDG_CONFIG_HOME/sealift/login.json`, or `~/.config/sealift/login.json`. Scripts may bring a token of their own in the
//! environment.

use crate::error::RunError;
use crate::managed::{Pin, with_port};
use crate::operator::{API_PORT, Trust};
use crate::state::make_directory;
use data_encoding::BASE64;
use sealift_api::rest::Role;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use zeroize::{Zeroize as _, Zeroizing};

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Characters in a token of the API.
const TOKEN_CHARS_MAX: usize = 256;

/// What is kept of a login.
#[derive(Deserialize, Serialize)]
pub(super) struct Login {
    version: u32,
    /// `HOST:PORT` of the API.
    pub(super) daemon: String,
    /// The certificate of the daemon's authority: DER in base64.
    authority: String,
    /// Who has logged in.
    pub(super) user: String,
    /// What the token allows.
    pub(super) role: Role,
    /// By which the token is revoked.
    pub(super) token_id: Uuid,
    token: String,
    /// When it ceases to hold.
    pub(super) expires_ms: i64,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// Where to ask, whom to believe, and what to show.
pub(super) struct Access {
    pub(super) daemon: String,
    pub(super) trust: Trust,
    pub(super) token: Zeroizing<String>,
}

impl Login {
    pub(super) fn new(
        daemon: &str,
        authority: &[u8],
        user: &str,
        token: &sealift_api::rest::NewApiTokenSecret,
    ) -> Self {
        Self {
            version: VERSION,
            daemon: daemon.to_owned(),
            authority: BASE64.encode(authority),
            user: user.to_owned(),
            role: token.token.role,
            token_id: token.token.id,
            token: token.secret.clone(),
            expires_ms: token.token.expires_ms,
        }
    }

    pub(super) fn token(&self) -> Zeroizing<String> {
        Zeroizing::new(self.token.clone())
    }

    pub(super) fn authority(&self) -> Result<Vec<u8>, RunError> {
        BASE64.decode(self.authority.as_bytes()).map_err(|_| damaged(&"its authority is none"))
    }

    /// What is kept, if somebody has logged in.
    pub(super) fn load() -> Result<Option<Self>, RunError> {
        let path = path()?;
        let shown = path.display();
        let unreadable = |error: io::Error| RunError::Failed(format!("cannot read {shown}: {error}"));
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(RunError::Failed(format!(
                "others can read {shown}, which has a token in it: `chmod 600` it if that is so by mistake, else log \
                out and log in again"
            )));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(RunError::Failed(format!("{shown} belongs to somebody else: it is not used")));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        let login: Self = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        if login.version != VERSION {
            return Err(damaged(&"another version of sealift has written it"));
        }
        Ok(Some(login))
    }

    /// Keeps it in the place of what was there.
    pub(super) fn store(&self) -> Result<PathBuf, RunError> {
        let path = path()?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| RunError::Failed(error.to_string()))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        make_directory(dir)
            .and_then(|()| write_secret(&path, &Zeroizing::new(text)))
            .map_err(|error| RunError::Failed(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }

    /// Forgets it.
    pub(super) fn remove() -> Result<(), RunError> {
        let path = path()?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RunError::Failed(format!("cannot remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }
}

impl Access {
    /// By the environment, and where that says nothing, by the login.
    pub(super) fn find() -> Result<Self, RunError> {
        Self::choose(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), Login::load)
    }

    fn choose(
        variable: impl Fn(&str) -> Option<String>,
        login: impl FnOnce() -> Result<Option<Login>, RunError>,
    ) -> Result<Self, RunError> {
        let token = variable("SEALIFT_API_TOKEN").map(Zeroizing::new);
        let daemon = variable("SEALIFT_CONTROL");
        let pin = variable("SEALIFT_CONTROL_PIN");
        // Nothing of the file is needed, or even looked at, if the environment has all.
        let login = if token.is_some() && daemon.is_some() && pin.is_some() { None } else { login()? };
        let missing = |what: &str| {
            RunError::Usage(format!(
                "{what}: use `sealift login`, or set SEALIFT_API_TOKEN, SEALIFT_CONTROL (HOST[:{API_PORT}]) and \
                SEALIFT_CONTROL_PIN (the fingerprint of its authority)"
            ))
        };
        let trust = match (pin, &login) {
            (Some(pin), _) => Trust::Pin(
                pin.parse::<Pin>()
                    .map_err(|error| RunError::Usage(format!("SEALIFT_CONTROL_PIN is none: {error}")))?,
            ),
            (None, Some(login)) => Trust::Authority(login.authority()?),
            (None, None) => return Err(missing("nobody has logged in to a control daemon here")),
        };
        let daemon = match (daemon, &login) {
            (Some(daemon), _) => with_port(&daemon, API_PORT)?,
            (None, Some(login)) => login.daemon.clone(),
            (None, None) => return Err(missing("it is not said which control daemon")),
        };
        let token = match (token, &login) {
            (Some(token), _) => token,
            (None, Some(login)) => Zeroizing::new(login.token.clone()),
            (None, None) => return Err(missing("there is no token for the control daemon")),
        };
        let token = Zeroizing::new(token.trim().to_owned());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if token.is_empty() || token.len() > TOKEN_CHARS_MAX || !token.bytes().all(plain) {
            return Err(RunError::Usage("this is no token of the API: one begins with 'slapi1'".into()));
        }
        Ok(Self { daemon, trust, token })
    }
}

fn damaged(what: &dyn std::fmt::Display) -> RunError {
    let shown =
        path().map_or_else(|_| "what was kept of the login".into(), |path| path.display().to_string());
    RunError::Failed(format!("{shown} is damaged ({what}): log in again with `sealift login`"))
}

fn path() -> Result<PathBuf, RunError> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let dir = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    dir.map(|dir| dir.join("sealift/login.json")).ok_or_else(|| {
        RunError::Usage(
            "there is no place to keep a login in: neither XDG_CONFIG_HOME nor HOME is set".into(),
        )
    })
}

/// Puts a secret where only its owner can read it: the file is there whole, or as it was before.
pub(super) fn write_secret(file: &Path, content: &[u8]) -> io::Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // 0600 from its beginning.
    let mut staged = tempfile::NamedTempFile::new_in(dir)?;
    staged.write_all(content)?;
    staged.as_file().sync_all()?;
    staged.persist(file)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            version: VERSION,
            daemon: "control:8443".into(),
            authority: BASE64.encode(b"authority"),
            user: "ann".into(),
            role: Role::Operator,
            token_id: Uuid::nil(),
            token: "slapi1kept".into(),
            expires_ms: 0,
        }
    }

    fn choose(set: &[(&str, &str)], login: Option<Login>) -> Result<Access, RunError> {
        let variable =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Access::choose(variable, || Ok(login))
    }

    #[test]
    fn the_environment_goes_before_the_login() {
        let kept = choose(&[], Some(login())).unwrap();
        assert_eq!((kept.daemon.as_str(), kept.token.as_str()), ("control:8443", "slapi1kept"));
        let set = [("SEALIFT_API_TOKEN", "slapi1other\n"), ("SEALIFT_CONTROL", "other")];
        let mixed = choose(&set, Some(login())).unwrap();
        assert_eq!((mixed.daemon.as_str(), mixed.token.as_str()), ("other:8443", "slapi1other"));
        assert!(matches!(mixed.trust, Trust::Authority(_)));
        let pin = Pin::of(b"x").to_string();
        let all = [set[0], set[1], ("SEALIFT_CONTROL_PIN", pin.as_str())];
        assert!(matches!(choose(&all, None).unwrap().trust, Trust::Pin(_)));
    }

    #[test]
    fn what_is_missing_is_said_and_secrets_are_not() {
        for (set, login) in [
            (&[][..], None),
            (&[("SEALIFT_API_TOKEN", "slapi1x"), ("SEALIFT_CONTROL", "host")], None),
            (&[("SEALIFT_API_TOKEN", "slapi1 se\x1bcret")], Some(login())),
        ] {
            let error = choose(set, login).err().unwrap();
            assert!(error.code() == 2 && !error.to_string().contains("cret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_secret(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
