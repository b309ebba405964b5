//! A throw-away ssh server and what a client needs to reach it: keys, port and configurations of its own.
//!
//! Nothing of the user's is read or written: the client gets its whole configuration from a file here, and the server
//! too. The cipher is `aes128-gcm@openssh.com`, the fastest that OpenSSH has on most CPUs.

use super::{Job, free_port, on_path};
use crate::failure::{OrFailure as _, Outcome};
use crate::machine::version_of;
use crate::measure::{Program, Running};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The cipher of all connections.
const CIPHER: &str = "aes128-gcm@openssh.com";
/// What root's server needs, and a package may only make when a service starts.
const PRIVILEGE_SEPARATION_DIR: &str = "/run/sshd";
/// The server's name for clients.
const ALIAS: &str = "sealift-bench";

/// The programs and keys of a server.
#[derive(Debug)]
pub struct SshHost {
    sshd: PathBuf,
    ssh: PathBuf,
    /// Where its keys are.
    pub dir: PathBuf,
    /// Who logs in.
    pub user: String,
}

/// How a client reaches a server that runs.
#[derive(Debug)]
pub struct Address {
    /// What to write before the colon.
    pub host: &'static str,
    /// Its port.
    pub port: u16,
    /// What to give with `-F`.
    pub config: PathBuf,
    ssh: PathBuf,
}

impl Address {
    /// The command that a tool runs to get a connection. Paths must not hold quotes.
    pub fn shell_command(&self) -> String {
        format!("'{}' -F '{}'", self.ssh.display(), self.config.display())
    }
}

impl SshHost {
    /// Makes keys in `dir`.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let (sshd, ssh, keygen) = (on_path("sshd")?, on_path("ssh")?, on_path("ssh-keygen")?);
        let user = user().ok_or("this user has no name")?;
        make_keys(dir, &keygen)
            .map_err(|error| format!("no keys can be made in {}: {error}", dir.display()))?;
        Ok(Self { sshd, ssh, dir: dir.to_owned(), user })
    }

    /// The version of both ends.
    pub fn version(&self) -> Option<String> {
        version_of(&self.ssh, &["-V"])
    }

    /// Starts a server, which takes connections when this returns.
    pub fn start(&self, job: &Job<'_>) -> Outcome<(Running, Address)> {
        let port = free_port().or_failure(|| "no port is free".into())?;
        let (server_config, client_config) =
            (job.scratch.join("sshd_config"), job.scratch.join("ssh_config"));
        let cannot = || "cannot configure sshd".to_owned();
        if rustix::process::getuid().is_root() {
            fs::create_dir_all(PRIVILEGE_SEPARATION_DIR).or_failure(cannot)?;
        }
        fs::write(&server_config, self.server_config(port)).or_failure(cannot)?;
        fs::write(&client_config, self.client_config(port)).or_failure(cannot)?;
        // Its name must be a whole path: it starts itself again for each connection.
        let mut server = Program::new("receiver", &self.sshd)
            .args(["-D", "-e", "-f"])
            .arg(&server_config)
            .listened()
            .ready(job.scratch, job.limit)?
            .go()?;
        server.wait_for_line("listened", |line| line.contains("Server listening").then_some(()))?;
        Ok((server, Address { host: ALIAS, port, config: client_config, ssh: self.ssh.clone() }))
    }

    /// `SHLVL`: bash reads the user's `.bashrc` for a command over ssh, which would be timed, unless it is within
    /// another shell.
    fn server_config(&self, port: u16) -> String {
        let file = |name: &str| self.dir.join(name).display().to_string();
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPubkeyAuthentication yes\nUsePAM no\nUseDNS no\nPrintMotd no\n\
             PidFile none\nLogLevel INFO\nCiphers {CIPHER}\nCompression no\nSetEnv SHLVL=2\nSubsystem sftp internal-sftp\n",
            file("host"),
            file("client.pub"),
        )
    }

    fn client_config(&self, port: u16) -> String {
        let file = |name: &str| self.dir.join(name).display().to_string();
        format!(
            "Host {ALIAS}\nHostName 127.0.0.1\nPort {port}\nUser {}\nHostKeyAlias {ALIAS}\nIdentityFile \"{}\"\n\
             IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile \"{}\"\nGlobalKnownHostsFile /dev/null\n\
             StrictHostKeyChecking yes\nBatchMode yes\nCiphers {CIPHER}\nCompression no\nLogLevel ERROR\n\
             ControlMaster no\nControlPath none\n",
            self.user,
            file("client"),
            file("known_hosts"),
        )
    }
}

fn make_keys(dir: &Path, keygen: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for name in ["host", "client"] {
        let made = Command::new(keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", ALIAS, "-f"])
            .arg(dir.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(std::io::Error::other("ssh-keygen failed"));
        }
    }
    let host_key = fs::read_to_string(dir.join("host.pub"))?;
    fs::write(dir.join("known_hosts"), format!("{ALIAS} {host_key}"))
}

fn user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.name)
}
