//! Scans a source into its manifest: find → read → hash → records → signed segments, all at once.
//!
//! The finder's thread walks the source and knows which files are as an earlier run hashed them ([`super::find`]). The
//! sequencer numbers entries and signs segments as they fill; what has to be read it gives to the feeder
//! ([`super::feed`]), which reads files into pooled buffers and has them hashed, many at a time. A file that changes while
//! it is read is taken back and tried again, later; so is one that a receiver's request finds changed. A file is sealed
//! only if its inode is the same after the last read as before the first, and was left alone for a moment before that
//! (hazard B12). A single write that takes longer than that moment does not show in the inode: such a mixture cannot be
//! told from a version.

use super::carried::Carried;
use super::changed::ChangedFiles;
use super::hashes::Hashes;
use super::log::{ManifestLog, OfferedFiles};
use super::offering::Offering;
use super::recent::Recent;
use super::sequence::Sequencer;
use crate::report::{Event, Reporter};
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::manifest::{Metadata, Mode, SegmentWriter};
use sealift_proto::path::{SafePath, escape};
use sealift_proto::time::Timestamp;
use sealift_store::{Backend, FileStat};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// A write sets a file's times when it begins, not when it ends: only a file that was left alone for so long shows by
/// its times whether it is written to from now on.
pub const AT_REST_AFTER: Duration = Duration::from_millis(100);

/// How long after its end the last runs are kept for receivers.
const RECENT_FOR: Duration = Duration::from_secs(2);

/// What the scan shares with the rest of a sender.
pub struct Scan {
    /// What is offered.
    pub source: Arc<Offering>,
    /// Where segments go.
    pub log: Arc<ManifestLog>,
    /// Where files are listed for serving.
    pub files: Arc<OfferedFiles>,
    /// The hash of the blocks.
    pub algorithm: HashAlgorithm,
    /// Where runs are kept that were just hashed.
    pub recent: Arc<Recent>,
    /// What reads files.
    pub backend: Backend,
    /// What is carried beside names, content, modes and times.
    pub carried: Arc<Carried>,
    /// Who is told.
    pub reporter: Arc<Reporter>,
    /// Files that requests found changed.
    pub changed: Arc<ChangedFiles>,
    /// Told whenever the manifest has an end.
    pub scanned: watch::Sender<Option<Totals>>,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that stand.
    pub entries: u64,
    /// Files among them.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What could not be offered.
    pub problems: u64,
    /// Bytes that were read and hashed.
    pub hashed_bytes: u64,
    /// Files that were not, since they are as an earlier run hashed them.
    pub reused_files: u64,
}

/// A file to be read: found by the walk or to be tried again.
pub struct Wanted {
    /// Which.
    pub path: SafePath,
    /// As it was found, if it was looked at.
    pub stat: Option<FileStat>,
}

/// A scan that runs.
pub struct Scanning {
    /// Why it failed, should it fail.
    pub failed: oneshot::Receiver<io::Error>,
    ended: oneshot::Receiver<()>,
}

impl Scanning {
    /// Stops the scan, and waits until what it hashed is kept.
    pub async fn stop(self) {
        let Self { failed, ended } = self;
        drop(failed);
        // However it ended: it has.
        let _ = ended.await;
    }
}

/// Starts the scan on a thread of its own.
///
/// # Errors
/// If that cannot be started.
pub fn start(scan: Scan, writer: SegmentWriter, hashes: Option<Hashes>) -> io::Result<Scanning> {
    let (mut failed_by, failed) = oneshot::channel();
    let (ended_by, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("sealift-scan".into()).spawn(move || {
        let scan = Arc::new(scan);
        let mut sequencer = Sequencer::new(Arc::clone(&scan), writer, hashes.clone());
        runtime.block_on(async {
            let failure = tokio::select! {
                failure = run(&scan, &mut sequencer, hashes) => failure.err(),
                () = failed_by.closed() => None,
            };
            sequencer.keep_hashes().await;
            if let Some(error) = failure {
                let _ = failed_by.send(error);
            }
        });
        drop(ended_by);
    })?;
    Ok(Scanning { failed, ended })
}

/// Runs the scan to its end, then waits for files that turn out to have changed. Ends only by an error.
async fn run(scan: &Arc<Scan>, sequencer: &mut Sequencer, hashes: Option<Hashes>) -> io::Result<()> {
    sequencer.find(super::find::start(Arc::clone(scan), hashes)?).await?;
    loop {
        if sequencer.read_again().await? {
            continue;
        }
        sequencer.end().await?;
        // Not so if files were found changed in this very moment.
        if sequencer.has_ended() {
            let mut changed = std::pin::pin!(scan.changed.take());
            let changed = tokio::select! {
                changed = &mut changed => changed,
                () = tokio::time::sleep(RECENT_FOR) => {
                    scan.recent.clear();
                    changed.await
                }
            };
            for id in changed {
                sequencer.withdraw_changed(id)?;
            }
        }
    }
}

/// Whether a file's times say by `when` that nobody is writing to it. Times in the future say nothing.
pub fn is_at_rest(stat: &FileStat, when: SystemTime) -> bool {
    let when = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(u64::try_from(stat.ctime.seconds).unwrap_or(0), stat.ctime.nanos);
    changed > when + Duration::from_secs(1) || when >= changed + AT_REST_AFTER
}

impl Scan {
    /// Mode and times as they are carried.
    pub fn metadata(&self, path: &[u8], mode: u32, mtime: sealift_store::Timestamp) -> Metadata {
        Metadata { mode: Mode::from_bits(mode), mtime: self.time(path, mtime) }
    }

    /// A time as it is carried. One that cannot be is brought into range, and that is told.
    pub fn time(&self, path: &[u8], time: sealift_store::Timestamp) -> Timestamp {
        Timestamp::new(time.seconds, time.nanos).unwrap_or_else(|| {
            let message =
                format!("{}: its time is outside the years 1 to 9999 and was changed", escape(path));
            self.reporter.tell(&Event::Warning { message });
            Timestamp::clamped(time.seconds, time.nanos)
        })
    }
}
