//! Copies without a network: what the disk and the kernel alone take.

use super::{Job, Ran, Tool, sync};
use crate::failure::Outcome;
use crate::machine::version_of;
use crate::measure::Program;
use std::path::PathBuf;

/// `cp -r`.
pub struct Cp(pub PathBuf);

impl Tool for Cp {
    fn name(&self) -> String {
        "cp".into()
    }

    fn version(&self) -> Option<String> {
        version_of(&self.0, &["--version"])
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let program = Program::new("copier", &self.0).arg("-r").arg(job.source).arg(job.dest);
        let mut timed = vec![program.ready(job.scratch, job.limit)?.go()?.finish()?];
        timed.extend(sync(job, job.dest)?);
        Ok(Ran::of(job, timed, Vec::new()))
    }
}

/// `rsync -a` from a directory to a directory.
pub struct Rsync(pub PathBuf);

impl Tool for Rsync {
    fn name(&self) -> String {
        "rsync-local".into()
    }

    fn version(&self) -> Option<String> {
        version_of(&self.0, &["--version"])
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn run(&self, job: &Job<'_>) -> Outcome<Ran> {
        let mut program = Program::new("copier", &self.0).arg("-a");
        if job.durable {
            program = program.arg("--fsync");
        }
        let program = program.arg(slash(job.source)).arg(slash(job.dest));
        let finished = program.ready(job.scratch, job.limit)?.go()?.finish()?;
        Ok(Ran::of(job, vec![finished], Vec::new()))
    }
}

/// With a slash at its end, by which rsync knows that the contents are meant.
pub fn slash(path: &std::path::Path) -> PathBuf {
    path.join("")
}
