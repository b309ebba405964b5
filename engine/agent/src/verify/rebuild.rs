//! Makes an index anew: hashes what is in a replica, and gives each entry that is as its signed manifest says a row.
//!
//! By the command `sealift index rebuild`, into a file beside the old one, which is kept; or by a receive that found its
//! index lost (hazard B11). Either way the jobs are written last: an index without any was never finished.

use super::check::{Check, Checked, Right, RightWhat, Sink};
use super::finding::Finding;
use super::standing::{PutLast, Standing};
use super::survey::{Survey, survey};
use super::{busy, check_on, interruptible, load_index, standing, take_survey, view};
use crate::error::{Finish, RunError};
use crate::report::{Event, Reporter};
use crate::state::StateDir;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::JobId;
use sealift_proto::manifest::Mark;
use sealift_proto::path::SafePath;
use sealift_proto::ticket::Ticket;
use sealift_store::{
    EntryRow, EntryWhat, IndexBatch, IndexError, JobRow, LocalStat, PartialRow, Replica, ReplicaError,
    ReplicaIndex, ReplicaView, link_target_hash,
};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Which index to make anew.
#[derive(Clone, Debug)]
pub struct RebuildOptions {
    /// The replica.
    pub dest: PathBuf,
    /// Where this host remembers what was received.
    pub state: StateDir,
    /// The job that the manifest must be of.
    pub ticket: Option<Ticket>,
}

/// Rows that are written at a time.
const ROWS_AT_ONCE: usize = 16_384;
/// The number of the first job of an index.
const FIRST_JOB: u32 = 1;

/// Makes an index anew and puts it in the place of the old one.
///
/// # Errors
/// If the manifest cannot be believed, or the index cannot be written.
pub async fn rebuild(options: RebuildOptions, reporter: Arc<Reporter>) -> Result<Finish, RunError> {
    let RebuildOptions { dest, state, ticket } = options;
    let started = Instant::now();
    let view = view(&dest)?;
    // What is hashed must stay as it is until its row is written.
    let replica = Replica::open(&dest, view.id()).map_err(|error| match error {
        ReplicaError::Locked { .. } => busy(&dest),
        error => RunError::Failed(error.to_string()),
    })?;
    let cannot_keep = |error: io::Error| {
        RunError::Failed(format!(
            "cannot keep state in {}: {error} (another place: --state-dir)",
            state.path().display()
        ))
    };
    state.remember_replica(&dest, &view.id().0).map_err(cannot_keep)?;
    let file = state.replica_index(&view.id().0).map_err(cannot_keep)?;
    let old = load_index(&state, &view, &dest, &reporter)?;
    let standing = standing(&state, &view, old.as_ref(), ticket.as_ref())?;
    let survey = interruptible(take_survey(&view, &standing)).await?;
    standing.warn(&survey.key, &reporter);
    let partials = old.as_ref().and_then(|old| old.read().and_then(|reader| reader.partials()).ok());

    let unfinished = file.with_file_name("index.redb.rebuilt");
    remove(&unfinished).map_err(cannot_keep)?;
    let (new, _) = ReplicaIndex::open(&unfinished).map_err(failed)?;
    let number = standing.row(&survey.key).map_or_else(|| next_number(&standing), |row| row.number);
    let check = check_on(&view, "sealift-verify", Some(&reporter)).await?;
    let mut sink = Rows::new(&new, number, survey.algorithm, Some(&reporter));
    let filled = interruptible(sink.fill(&check, &survey)).await;
    let left_out = sink.left_out;
    let checked = match filled {
        Ok(checked) => checked,
        Err(error) => {
            drop(new);
            let _ = remove(&unfinished);
            return Err(error);
        }
    };
    finish(&new, &standing, &survey, number, partials.unwrap_or_default()).map_err(failed)?;
    let put_last = PutLast { job: survey.key.job_id(), mark: survey.newest };
    put_last.write(&file).map_err(cannot_keep)?;
    drop((new, old));
    put_in_place(&unfinished, &file, standing.jobs.is_some()).map_err(cannot_keep)?;
    replica.close().map_err(|error| RunError::Failed(error.to_string()))?;
    reporter.tell(&Event::Rebuilt {
        entries: checked.entries - left_out,
        files: checked.files,
        bytes: checked.bytes,
        left_out,
        seconds: started.elapsed().as_secs_f64(),
    });
    Ok(if left_out == 0 { Finish::Complete } else { Finish::Partial })
}

/// Gives an index that knows of no job the rows of what is in the replica, if that has a manifest. What goes wrong with
/// that is told and no more: files without a row are hashed by the receive itself.
///
/// # Errors
/// If the index cannot be written.
pub async fn restore(
    dest: &Path,
    index: &ReplicaIndex,
    file: &Path,
    reporter: &Reporter,
) -> Result<(), RunError> {
    let Ok(Some(view)) = ReplicaView::open(dest) else { return Ok(()) };
    let without = |why: String| {
        let message = format!("the index is begun anew without the manifest: {why}. Every file is hashed");
        reporter.tell(&Event::Warning { message });
        Ok(())
    };
    match view.manifest() {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => {}
        Err(error) => return without(error.to_string()),
    }
    let message = "What this host remembers of the replica was lost, and is made anew from the manifest and the files there.";
    reporter.tell(&Event::Note { message: message.to_owned() });
    let view = Arc::new(view);
    let standing = Standing { put_last: PutLast::read(file), ..Standing::default() };
    let check = check_on(&view, "sealift-verify", None).await?;
    let workers = check.workers.clone();
    let (of, by) = (Arc::clone(&view), standing.clone());
    let survey = match workers.run(move || survey(&of, &by)).await {
        Ok(survey) => survey,
        Err(error) => return without(error.to_string()),
    };
    let mut sink = Rows::new(index, FIRST_JOB, survey.algorithm, None);
    let filled = sink.fill(&check, &survey).await;
    if let Some(error) = sink.failure.take() {
        return Err(failed(error));
    }
    if let Err(error) = filled {
        return without(error.to_string());
    }
    finish(index, &standing, &survey, FIRST_JOB, Vec::new()).map_err(failed)
}

fn failed(error: IndexError) -> RunError {
    RunError::Failed(error.to_string())
}

fn next_number(standing: &Standing) -> u32 {
    standing.jobs.iter().flatten().map(|(_, row)| row.number + 1).max().unwrap_or(FIRST_JOB)
}

/// Writes what is not about entries: files in staging, and the jobs, that of the manifest last.
fn finish(
    index: &ReplicaIndex,
    standing: &Standing,
    survey: &Survey,
    number: u32,
    partial: Vec<(SafePath, PartialRow)>,
) -> Result<(), IndexError> {
    let job = survey.key.job_id();
    for (id, row) in standing.jobs.iter().flatten().filter(|(id, _)| *id != job) {
        index.write(&IndexBatch { job: Some((*id, row.clone())), ..IndexBatch::default() })?;
    }
    let heard = standing.row(&survey.key).and_then(|row| row.mark);
    let order = |mark: &Mark| (mark.epoch, mark.sequence);
    let mark = heard.into_iter().chain([survey.newest]).max_by_key(order);
    let row: (JobId, JobRow) = (job, JobRow { number, verify_key: *survey.key.as_bytes(), mark });
    index.write(&IndexBatch { partial, job: Some(row), ..IndexBatch::default() })
}

fn put_in_place(new: &Path, file: &Path, keep_old: bool) -> io::Result<()> {
    if keep_old {
        std::fs::rename(file, file.with_file_name("index.redb.old"))?;
    }
    std::fs::rename(new, file)?;
    File::open(file.parent().expect("a file is in a directory"))?.sync_all()
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes a row for each entry that is right.
struct Rows<'i> {
    index: &'i ReplicaIndex,
    number: u32,
    algorithm: HashAlgorithm,
    batch: IndexBatch,
    left_out: u64,
    /// What the index said, if it ended the check.
    failure: Option<IndexError>,
    /// Who hears of entries that get no row.
    reporter: Option<&'i Reporter>,
}

impl<'i> Rows<'i> {
    fn new(
        index: &'i ReplicaIndex,
        number: u32,
        algorithm: HashAlgorithm,
        reporter: Option<&'i Reporter>,
    ) -> Self {
        Self { index, number, algorithm, batch: IndexBatch::default(), left_out: 0, failure: None, reporter }
    }

    async fn fill(&mut self, check: &Check, survey: &Survey) -> Result<Checked, RunError> {
        let (checked, _) = check.run(survey, None, self).await?;
        self.write()?;
        Ok(checked)
    }

    fn write(&mut self) -> Result<(), RunError> {
        let batch = std::mem::take(&mut self.batch);
        self.index.write(&batch).map_err(|error| {
            let told = RunError::Failed(error.to_string());
            self.failure = Some(error);
            told
        })
    }

    fn write_if_many(&mut self) -> Result<(), RunError> {
        let rows = self.batch.placed.len() + self.batch.removed.len();
        if rows >= ROWS_AT_ONCE { self.write() } else { Ok(()) }
    }
}

impl Sink for Rows<'_> {
    fn right(&mut self, right: Right<'_>) -> Result<(), RunError> {
        let Some(path) = right.path else { return Ok(()) };
        let what = match right.what {
            RightWhat::File { layout, root, stat, .. } => EntryWhat::File {
                layout,
                algorithm: self.algorithm,
                root,
                mode: stat.mode,
                mtime: stat.mtime,
                stat: LocalStat::from(&stat),
            },
            RightWhat::Hardlink { stat } => EntryWhat::Hardlink { stat: LocalStat::from(&stat) },
            RightWhat::Directory { .. } => EntryWhat::Directory,
            RightWhat::Symlink { target, .. } => EntryWhat::Symlink { target_hash: link_target_hash(target) },
        };
        let row = EntryRow { what, job: self.number, segment: right.segment };
        self.batch.placed.push((path.clone(), row));
        self.write_if_many()
    }

    fn wrong(&mut self, finding: Finding) -> Result<(), RunError> {
        self.left_out += 1;
        if let Some(reporter) = self.reporter {
            finding.tell(|event| reporter.tell(event));
        }
        // An earlier try, which did not end, may have had it.
        self.batch.removed.push(finding.path);
        self.write_if_many()
    }

    fn known(&mut self, _path: &SafePath) -> Option<EntryRow> {
        None
    }

    fn progress(&mut self, files: u64, bytes: u64, bytes_known: u64) {
        if let Some(reporter) = self.reporter {
            reporter.tell(&Event::Progress { files, bytes, bytes_known, bytes_transferred: 0 });
        }
    }
}
