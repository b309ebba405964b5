//! `scp -r`.

use super::ssh::SshHost;
use super::{Job, Ran, Tool, sync};
use crate::failure::Outcome;
use crate::measure::Program;
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

/// `scp -r`.
pub struct Scp {
    /// The program.
    pub scp: PathBuf,
    /// The other end.
    pub host: Rc<SshHost>,
}

impl Tool for Scp {
    fn name(&self) -> String {
        "scp".into()
    }

    fn version(&self) -> Option<String> {
        self.host.version()
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let (server, address) = self.host.start(job)?;
        let mut dest = OsString::from(format!("{}:", address.host));
        dest.push(job.dest);
        // DEST does not exist, so it becomes a copy of the directory.
        let sender = Program::new("sender", &self.scp)
            .args(["-r", "-p", "-q", "-F"])
            .arg(&address.config)
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
