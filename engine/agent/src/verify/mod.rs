//! `sealift verify`: hashes a replica and compares it with the signed manifest in it; `--repair` fetches what is wrong. And
//! `sealift index rebuild`: makes the index anew from both.
//!
//! Whose word the manifest is decides [`standing`]; [`survey`] reads it; the [`check`] has [`work`] done on all cores and
//! says what is right and what is wrong ([`finding`]); [`repair`] and [`rebuild`] make use of that. A check takes no lock
//! of the replica and changes nothing; it holds the index, so that no receiver of this host begins meanwhile.

mod check;
mod finding;
mod rebuild;
mod repair;
mod standing;
mod survey;
mod work;

use crate::error::{Finish, RunError};
use crate::receive::ReceiveOptions;
use crate::receive::entries::time;
use crate::report::{Event, Reporter};
use crate::shards::Shards;
use crate::state::StateDir;
use check::{Check, Checked, Right, RightWhat, Sink};
use finding::{Finding, Wanted, Wrong};
pub(crate) use rebuild::restore;
pub use rebuild::{RebuildOptions, rebuild};
use sealift_proto::manifest::Metadata;
use sealift_proto::path::SafePath;
use sealift_proto::ticket::Ticket;
use sealift_store::{
    Backend, EntryRow, EntryWhat, FileStat, Found, IndexError, IndexFound, IndexReader, IoWorkers,
    ReplicaIndex, ReplicaView, Timestamp, Walk,
};
pub(crate) use standing::PutLast;
use standing::Standing;
use std::collections::HashSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use survey::survey;
pub(crate) use survey::{Part, Survey, read_again};

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The replica.
    pub dest: PathBuf,
    /// Where this host remembers what was received.
    pub state: StateDir,
    /// The job that the manifest must be of.
    pub ticket: Option<Ticket>,
    /// Where what is wrong is fetched from, and how.
    pub repair: Option<ReceiveOptions>,
    /// Whether entries are named that are not in the manifest.
    pub extra: bool,
}

/// Drifts of modes and times that are named, each; the rest is counted.
const DRIFTS_TOLD_MAX: u64 = 100;

/// Verifies a replica, and repairs it if that is wanted.
///
/// # Errors
/// If it cannot be verified.
pub async fn verify(options: VerifyOptions, reporter: Arc<Reporter>) -> Result<Finish, RunError> {
    let mut place = Place::open(&options.dest, &options.state, options.ticket.as_ref(), &reporter)?;
    let survey = interruptible(place.survey()).await?;
    place.standing.warn(&survey.key, &reporter);
    if place.heard_since(&survey)? {
        let message = "More was heard of the source than the manifest here says: a receive has not ended, or a file was \
            repaired. Files that are newer are compared with what the index says of them."
            .to_owned();
        reporter.tell(&Event::Note { message });
    }
    let known = Known::of(place.index.as_ref(), &reporter)?;
    let mut verifier = Verifier::new(&reporter, known, options.repair.is_some());
    let started = Instant::now();
    let check = check_on(&place.view, "sealift-verify", Some(&reporter)).await?;
    let (checked, catalog) = interruptible(check.run(&survey, None, &mut verifier)).await?;
    if options.extra {
        let (view, reporter) = (Arc::clone(&place.view), Arc::clone(&reporter));
        check.workers.run(move || tell_extra(&view, &catalog, &reporter)).await;
    }
    // Its threads and buffers make room for the receiver's.
    drop(check);
    let Verifier { findings, totals, .. } = verifier.end(checked, started);
    drop(place.index.take());
    match options.repair {
        Some(how) if totals.damaged > 0 => repair::repair(place, survey, findings, how, &reporter).await,
        _ if totals.damaged > 0 => Ok(Finish::Partial),
        _ => Ok(Finish::Complete),
    }
}

/// A replica and its manifest, if that is to be believed.
///
/// # Errors
/// If there is none, or it is not.
pub(crate) async fn believed(
    dest: &Path,
    state: &StateDir,
    ticket: Option<&Ticket>,
    reporter: &Reporter,
) -> Result<(Arc<ReplicaView>, Survey), RunError> {
    let place = Place::open(dest, state, ticket, reporter)?;
    let survey = interruptible(place.survey()).await?;
    place.standing.warn(&survey.key, reporter);
    Ok((place.view, survey))
}

/// A replica with what is known of it.
struct Place {
    dest: PathBuf,
    view: Arc<ReplicaView>,
    standing: Standing,
    index: Option<ReplicaIndex>,
}

impl Place {
    fn open(
        dest: &Path,
        state: &StateDir,
        ticket: Option<&Ticket>,
        reporter: &Reporter,
    ) -> Result<Self, RunError> {
        let view = view(dest)?;
        let index = load_index(state, &view, dest, reporter)?;
        let standing = standing(state, &view, index.as_ref(), ticket)?;
        Ok(Self { dest: dest.to_owned(), view, standing, index })
    }

    async fn survey(&self) -> Result<Survey, RunError> {
        take_survey(&self.view, &self.standing).await
    }

    fn heard_since(&self, survey: &Survey) -> Result<bool, RunError> {
        Ok(self.standing.accepted(&survey.key)?.what.heard_since(&survey.newest))
    }
}

/// Opens a replica to be looked at.
fn view(dest: &Path) -> Result<Arc<ReplicaView>, RunError> {
    let unusable =
        |error: std::io::Error| RunError::Failed(format!("cannot look at {}: {error}", dest.display()));
    let view = ReplicaView::open(dest).map_err(unusable)?.ok_or_else(|| {
        RunError::Failed(format!(
            "{} is no replica: nothing was received there, or .sealift/id is gone",
            dest.display()
        ))
    })?;
    if view.is_busy().map_err(unusable)? {
        return Err(busy(dest));
    }
    Ok(Arc::new(view))
}

fn busy(dest: &Path) -> RunError {
    RunError::Failed(format!(
        "{} is busy: another sealift works there, and what is found now would not hold. Wait for it",
        dest.display()
    ))
}

/// Opens the index of a replica, if this host has one.
fn load_index(
    state: &StateDir,
    view: &ReplicaView,
    dest: &Path,
    reporter: &Reporter,
) -> Result<Option<ReplicaIndex>, RunError> {
    let warn = |message: String| reporter.tell(&Event::Warning { message });
    let file = match state.replica_index(&view.id().0) {
        Ok(file) => file,
        Err(error) => {
            warn(format!("what this host remembers cannot be had from {}: {error}", state.path().display()));
            return Ok(None);
        }
    };
    // To open it would make it.
    if !file.exists() {
        return Ok(None);
    }
    match ReplicaIndex::open(&file) {
        Ok((index, IndexFound::Sound)) => Ok(Some(index)),
        Ok((_, IndexFound::Created | IndexFound::Damaged)) | Err(IndexError::Damaged { .. }) => {
            warn(DAMAGED_INDEX.to_owned());
            Ok(None)
        }
        Err(IndexError::Locked { .. }) => Err(busy(dest)),
        Err(error) => Err(RunError::Failed(error.to_string())),
    }
}

const DAMAGED_INDEX: &str = "the index of this replica is damaged, and nothing in it counts: the next receive makes it anew, or \
    `sealift index rebuild` does";

/// What this host knows of a replica's jobs.
fn standing(
    state: &StateDir,
    view: &ReplicaView,
    index: Option<&ReplicaIndex>,
    ticket: Option<&Ticket>,
) -> Result<Standing, RunError> {
    let jobs = match index.map(|index| index.read().and_then(|reader| reader.jobs())) {
        None | Some(Err(IndexError::Damaged { .. })) => None,
        Some(jobs) => Some(jobs.map_err(|error| RunError::Failed(error.to_string()))?),
    };
    let put_last = state.replica_index(&view.id().0).ok().and_then(|file| PutLast::read(&file));
    Ok(Standing {
        jobs: jobs.filter(|jobs| !jobs.is_empty()),
        put_last,
        ticket: ticket.map(|ticket| ticket.verify_key.clone()),
    })
}

async fn take_survey(view: &Arc<ReplicaView>, standing: &Standing) -> Result<Survey, RunError> {
    let workers = IoWorkers::global().map_err(cannot_start)?;
    let (view, standing) = (Arc::clone(view), standing.clone());
    workers.run(move || survey(&view, &standing)).await
}

/// Shards for a check.
async fn check_on(
    view: &Arc<ReplicaView>,
    name: &str,
    reporter: Option<&Reporter>,
) -> Result<Check, RunError> {
    let backend = Backend::choose().map_err(|error| RunError::Usage(error.to_string()))?;
    let workers = IoWorkers::global().map_err(cannot_start)?;
    let shards = Shards::start(name, backend.backend).map_err(cannot_start)?;
    if let Some(reporter) = reporter {
        shards.describe(&backend, reporter).await.map_err(cannot_start)?;
    }
    Ok(Check { view: Arc::clone(view), shards: Arc::new(shards), workers })
}

fn cannot_start(error: std::io::Error) -> RunError {
    RunError::Failed(format!("cannot start threads: {error}"))
}

/// Does something that changes nothing, until it is done or somebody wants it to end.
async fn interruptible<T>(work: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    tokio::select! {
        done = work => done,
        () = crate::send::interruption() => Err(RunError::Interrupted),
    }
}

/// Names what is in a replica and not in its manifest. Blocks.
fn tell_extra(view: &ReplicaView, catalog: &sealift_proto::manifest::Catalog, reporter: &Reporter) {
    for found in Walk::new(view.source()) {
        match found {
            Found::Directory { path, .. } | Found::File { path, .. } | Found::Symlink { path, .. } => {
                if !catalog.stands(&path) {
                    reporter.tell(&Event::Extra { path: path.to_string() });
                }
            }
            Found::Problem { path, .. } => {
                reporter.tell(&Event::Extra { path: sealift_proto::path::escape(&path) });
            }
            Found::Root { .. } => {}
        }
    }
}

/// The rows of an index, for as long as it can be read.
struct Known {
    reader: Option<IndexReader>,
    reporter: Arc<Reporter>,
}

impl Known {
    fn of(index: Option<&ReplicaIndex>, reporter: &Arc<Reporter>) -> Result<Self, RunError> {
        let reader = index.map(ReplicaIndex::read).transpose();
        let reader = reader.map_err(|error| RunError::Failed(error.to_string()))?;
        Ok(Self { reader, reporter: Arc::clone(reporter) })
    }

    fn row(&mut self, path: &SafePath) -> Option<EntryRow> {
        match self.reader.as_ref()?.entry(path) {
            Ok(row) => row,
            Err(_) => {
                self.reader = None;
                self.reporter.tell(&Event::Warning { message: DAMAGED_INDEX.to_owned() });
                None
            }
        }
    }
}

/// What was found, in numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Entries that are wrong.
    damaged: u64,
    /// Blocks that are, as far as they are known.
    blocks: u64,
    /// Bytes to be put right.
    bytes: u64,
}

/// Tells what is wrong.
struct Verifier {
    reporter: Arc<Reporter>,
    known: Known,
    keep: bool,
    findings: Vec<Finding>,
    totals: Totals,
    drifts: u64,
    other_versions: u64,
    left_out: u64,
}

impl Verifier {
    fn new(reporter: &Arc<Reporter>, known: Known, keep: bool) -> Self {
        Self {
            reporter: Arc::clone(reporter),
            known,
            keep,
            findings: Vec::new(),
            totals: Totals::default(),
            drifts: 0,
            other_versions: 0,
            left_out: 0,
        }
    }

    /// Tells what it comes to.
    fn end(self, checked: Checked, started: Instant) -> Self {
        let warn = |message: String| self.reporter.tell(&Event::Warning { message });
        if self.drifts > DRIFTS_TOLD_MAX {
            let more = self.drifts - DRIFTS_TOLD_MAX;
            warn(format!("{more} more entries have another mode or time than they should"));
        }
        if self.left_out > 0 {
            let count = self.left_out;
            warn(format!(
                "{count} symbolic links of the manifest were never put here (--preserve without links)"
            ));
        }
        if self.other_versions > 0 {
            let count = self.other_versions;
            let message =
                format!("{count} files are not of the manifest's version, but as they were put here last.");
            self.reporter.tell(&Event::Note { message });
        }
        let Totals { damaged, blocks, bytes } = self.totals;
        self.reporter.tell(&Event::Verified {
            files: checked.files,
            bytes: checked.bytes,
            damaged,
            blocks_damaged: blocks,
            bytes_damaged: bytes,
            seconds: started.elapsed().as_secs_f64(),
        });
        self
    }

    fn drift(&mut self, path: Option<&SafePath>, mode: (u32, u32), mtime: (Timestamp, Timestamp)) {
        self.drifts += 1;
        if self.drifts > DRIFTS_TOLD_MAX {
            return;
        }
        let path = path.map_or_else(|| "the replica itself".to_owned(), ToString::to_string);
        let mut what = Vec::new();
        if mode.0 != mode.1 {
            what.push(format!("its mode is {:03o}, not {:03o}", mode.0, mode.1));
        }
        if mtime.0 != mtime.1 {
            what.push("its time of modification is another".to_owned());
        }
        let message = format!("{path}: {}", what.join("; "));
        self.reporter.tell(&Event::Warning { message });
    }

    fn check_file(
        &mut self,
        path: Option<&SafePath>,
        stat: &FileStat,
        metadata: &Metadata,
        other_version: bool,
    ) {
        let mode = signed_mode(metadata, stat.mode);
        let mtime = time(metadata.mtime);
        if !other_version && (mode, mtime) == (stat.mode, stat.mtime) {
            return;
        }
        // As it was asked for when it was put here, and as the disk could hold that.
        let row = path.and_then(|path| self.known.row(path));
        let (mode, mtime) = match row.map(|row| row.what) {
            Some(EntryWhat::File { mode, mtime, stat: was, .. }) => (
                if stat.mode == was.mode { was.mode } else { mode },
                if stat.mtime == was.mtime { was.mtime } else { mtime },
            ),
            _ if other_version => return,
            _ => (mode, mtime),
        };
        if (mode, mtime) != (stat.mode, stat.mtime) {
            self.drift(path, (stat.mode, mode), (stat.mtime, mtime));
        }
    }
}

/// The mode that an entry should have: special bits may have been dropped.
fn signed_mode(metadata: &Metadata, now: u32) -> u32 {
    match metadata.mode.without_special() {
        Some(plain) if now == plain.bits() => now,
        _ => metadata.mode.bits(),
    }
}

impl Sink for Verifier {
    fn right(&mut self, right: Right<'_>) -> Result<(), RunError> {
        match right.what {
            RightWhat::File { stat, metadata, other_version, .. } => {
                self.other_versions += u64::from(other_version);
                self.check_file(right.path, &stat, metadata, other_version);
            }
            RightWhat::Directory { found: (mode, mtime), metadata } => {
                let wanted = (signed_mode(metadata, mode), time(metadata.mtime));
                if wanted != (mode, mtime) {
                    self.drift(right.path, (mode, wanted.0), (mtime, wanted.1));
                }
            }
            RightWhat::Symlink { found, mtime, .. } if found != mtime => {
                self.drift(right.path, (0, 0), (found, mtime));
            }
            RightWhat::Symlink { .. } | RightWhat::Hardlink { .. } => {}
        }
        Ok(())
    }

    fn wrong(&mut self, finding: Finding) -> Result<(), RunError> {
        let link_is_missing =
            matches!((&finding.wanted, &finding.wrong), (Wanted::Symlink { .. }, Wrong::Missing));
        if link_is_missing && self.known.reader.is_some() && self.known.row(&finding.path).is_none() {
            self.left_out += 1;
            return Ok(());
        }
        self.totals.damaged += 1;
        self.totals.blocks += finding.blocks() as u64;
        self.totals.bytes += finding.bytes();
        finding.tell(|event| self.reporter.tell(event));
        if self.keep {
            self.findings.push(finding);
        }
        Ok(())
    }

    fn known(&mut self, path: &SafePath) -> Option<EntryRow> {
        self.known.row(path)
    }

    fn progress(&mut self, files: u64, bytes: u64, bytes_known: u64) {
        self.reporter.tell(&Event::Progress { files, bytes, bytes_known, bytes_transferred: 0 });
    }
}

/// Paths of findings.
fn paths_of(findings: &[Finding]) -> HashSet<SafePath> {
    findings.iter().map(|finding| finding.path.clone()).collect()
}
