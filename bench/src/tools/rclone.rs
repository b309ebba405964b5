//! rclone over sftp, to the same ssh server as the others.

use super::ssh::SshHost;
use super::{Job, Ran, Tool, sync};
use crate::failure::Outcome;
use crate::machine::version_of;
use crate::measure::Program;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

/// `rclone copy` over sftp, with its defaults.
pub struct Rclone {
    /// The program.
    pub rclone: PathBuf,
    /// The other end.
    pub host: Rc<SshHost>,
}

impl Tool for Rclone {
    fn name(&self) -> String {
        "rclone".into()
    }

    fn version(&self) -> Option<String> {
        version_of(&self.rclone, &["version"])
    }

    fn keeps_modes(&self) -> bool {
        false
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let (server, address) = self.host.start(job)?;
        let mut dest = OsString::from(":sftp:");
        dest.push(job.dest);
        let sender = Program::new("sender", &self.rclone)
            .args(["copy", "--config", "/dev/null", "--sftp-host", "127.0.0.1", "--sftp-port"])
            .arg(address.port.to_string())
            .args(["--sftp-user", &self.host.user, "--sftp-key-file"])
            .arg(self.host.dir.join("client"))
            .arg(job.source)
            .arg(dest)
            .ready(job.scratch, job.limit)?
            .go()?
            .finish();
        let synced = match &sender {
            Ok(_) => sync(job, job.dest),
            Err(_) => Ok(None),
        };
        let server = server.stop()?;
        let mut timed = vec![sender?];
        timed.extend(synced?);
        Ok(Ran::of(job, timed, vec![server]))
    }
}
