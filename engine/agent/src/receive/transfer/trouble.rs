//! What cannot be written here: tried again when that may help, when there is room, or given up.

use super::{Preparation, Transfer};
use crate::receive::entries::{FileEntry, Hold, Stage};
use crate::receive::failure::{Failure, Trouble};
use crate::report::Event;
use sealift_proto::block::FileId;
use sealift_proto::manifest::Record;
use sealift_proto::path::SafePath;
use sealift_store::{FileError, StagedFile};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

/// Between tries while the disk is full: doubled until something fits.
const FULL_DELAY: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(10);
/// Room that must be there beside a file's own bytes.
const SPARE_BYTES: u64 = 1 << 20;
/// Before what may pass is tried again, and how often.
const PASSING_DELAY: Duration = Duration::from_secs(1);
const PASSING_MAX: u32 = 3;

/// Whether there is room on the disk.
pub struct Space {
    /// Nothing is fetched or staged until there is.
    pub full: bool,
    /// Since when something waits for room and nothing has come into place.
    since: Option<Instant>,
    next_try: Instant,
    delay: Duration,
    /// How long room is waited for at most.
    wait_max: Option<Duration>,
}

impl Space {
    /// There is.
    pub fn new(wait_max: Option<Duration>) -> Self {
        Self { full: false, since: None, next_try: Instant::now(), delay: FULL_DELAY.start, wait_max }
    }

    fn may_wait(&self) -> bool {
        self.wait_max != Some(Duration::ZERO)
    }

    /// Something fitted.
    pub(super) fn fitted(&mut self) {
        self.delay = FULL_DELAY.start;
        if let Some(since) = &mut self.since {
            *since = Instant::now();
        }
    }
}

/// When the first of the waiting records is tried again, and how often it was.
#[derive(Clone, Copy, Debug)]
pub struct RecordRetry {
    until: Instant,
    tries: u32,
}

impl Transfer {
    /// A file could not be written here: tried again if that may help.
    pub(super) fn trouble(&mut self, id: FileId, failure: Failure) {
        if !self.files.contains_key(&id) {
            return;
        }
        if failure.lost_writes && !self.files.get(&id).is_some_and(|file| file.kept) {
            // Nothing that was written is believed any more; of a file that the index knows, what was synced before is.
            self.discard_staged(id);
        }
        let file = self.files.get_mut(&id).expect("just looked at");
        file.failures += 1;
        file.disputed |= failure.disputed;
        let delay = match failure.trouble {
            Trouble::Full if self.space.may_wait() => Duration::ZERO,
            Trouble::Passing if file.failures <= PASSING_MAX => PASSING_DELAY * file.failures,
            _ => return self.fail(id, &failure.reason),
        };
        let path = file.path.clone();
        self.hold(id, Hold { until: Instant::now() + delay, trouble: failure.trouble });
        if failure.trouble == Trouble::Full {
            self.pause(&path, &failure.reason);
        } else {
            self.tell_tried_again(&path, &failure.reason);
        }
    }

    /// Takes a file out of work until it is tried again. What is staged of it is let go.
    pub(super) fn hold(&mut self, id: FileId, hold: Hold) {
        let Some(mut file) = self.take_out(id) else { return };
        self.puller.cancel(id);
        file.staged_bytes = match &file.stage {
            Stage::FetchingStaged(staged) if file.kept => allocated_bytes(staged),
            _ => 0,
        };
        file.start_over();
        file.stage = Stage::Held(hold);
        self.held_hashes += file.assembly.hashes().len();
        self.held += 1;
        self.files.insert(id, file);
    }

    /// A directory or link could not be made: tried again when that may help, and lost otherwise.
    pub(super) fn not_made(&mut self, record: Record, error: &FileError) -> Result<(), Record> {
        let (Record::Directory { path, .. } | Record::Symlink { path, .. }) = &record else {
            unreachable!("only these are made at once");
        };
        let (path, failure) = (path.clone(), Failure::from(error));
        let tries = self.record_retry.take().map_or(1, |retry| retry.tries + 1);
        match failure.trouble {
            Trouble::Full if self.space.may_wait() => self.pause(&path, &failure.reason),
            Trouble::Passing if tries <= PASSING_MAX => {
                self.record_retry =
                    Some(RecordRetry { until: Instant::now() + PASSING_DELAY * tries, tries });
                self.tell_tried_again(&path, &failure.reason);
            }
            _ => {
                self.lost(&path, &failure.reason);
                return Ok(());
            }
        }
        Err(record)
    }

    fn tell_tried_again(&self, path: &SafePath, reason: &str) {
        let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
        let message = format!("{path}: {reason}; it is tried again");
        self.reporter.tell(&Event::Warning { message });
    }

    /// Nothing more is fetched or staged until there is room.
    fn pause(&mut self, path: &SafePath, reason: &str) {
        let (space, now) = (&mut self.space, Instant::now());
        space.since.get_or_insert(now);
        if !std::mem::replace(&mut space.full, true) {
            space.next_try = now + space.delay;
            space.delay = (space.delay * 2).min(FULL_DELAY.end);
            let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
            self.reporter.tell(&Event::Paused { reason: format!("{path}: {reason}") });
        }
    }

    /// Tries again what is held and whose time has come.
    pub fn release(&mut self) {
        let now = Instant::now();
        if let (Some(since), Some(max)) = (self.space.since, self.space.wait_max)
            && now.duration_since(since) >= max
        {
            return self.give_up_space();
        }
        if self.space.since.is_some() && now >= self.space.next_try {
            self.try_space(now);
        }
        if self.record_retry.is_some_and(|retry| retry.until <= now) {
            self.take_records();
        }
        if self.held == 0 {
            return;
        }
        let due = |hold: &Hold| hold.trouble != Trouble::Full && hold.until <= now;
        for id in self.held(due) {
            self.let_go(id);
        }
    }

    /// The files held with such trouble of which nothing is in flight any more.
    fn held(&self, wanted: impl Fn(&Hold) -> bool) -> Vec<FileId> {
        let files = self.files.iter().filter(|(id, file)| {
            matches!(&file.stage, Stage::Held(hold) if wanted(hold)) && !self.puller.is_cancelled(**id)
        });
        files.map(|(id, _)| *id).collect()
    }

    /// Goes on with what fits by now, the smallest first.
    fn try_space(&mut self, now: Instant) {
        let free = self.context.replica.free_bytes().unwrap_or(0);
        let mut held: Vec<(u64, FileId)> = self
            .held(|hold| hold.trouble == Trouble::Full)
            .into_iter()
            .map(|id| (self.files[&id].bytes_needed(), id))
            .collect();
        held.sort();
        let mut needed = SPARE_BYTES;
        let fits = |(bytes, _): &&(u64, FileId)| {
            needed = needed.saturating_add(*bytes);
            needed <= free
        };
        let fitting = held.iter().take_while(fits).count();
        let waiting = held.split_off(fitting);
        let retries_record = !self.records.is_empty() && free >= SPARE_BYTES;
        self.space.next_try = now + FULL_DELAY.start;
        let nothing_waits = waiting.is_empty() && self.records.is_empty();
        if fitting == 0 && !retries_record && !nothing_waits && !self.others_fit(free) {
            return;
        }
        let was_full = std::mem::take(&mut self.space.full);
        for (_, id) in held {
            self.let_go(id);
        }
        self.take_records();
        if !self.space.full {
            if was_full {
                self.reporter.tell(&Event::Resumed);
            }
            if waiting.is_empty() {
                self.space.since = None;
            }
        }
    }

    /// Whether something may go on beside what is held: staged files have their room already, and others may be small. What
    /// does not fit after all is held, too, each once, so that this comes to an end.
    fn others_fit(&self, free: u64) -> bool {
        let mut files = self.files.values();
        let waits = !self.puller.is_idle() || !self.preparations.is_empty();
        waits && (free >= SPARE_BYTES || files.any(|file| matches!(file.stage, Stage::FetchingStaged(_))))
    }

    /// Space was waited for long enough.
    fn give_up_space(&mut self) {
        self.space = Space::new(Some(Duration::ZERO));
        let full =
            |file: &FileEntry| matches!(&file.stage, Stage::Held(hold) if hold.trouble == Trouble::Full);
        let ids: Vec<FileId> = self.files.iter().filter(|(_, file)| full(file)).map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, "there is no room for it on the disk");
        }
        self.take_records();
    }

    /// A held file is looked at as if it came now.
    pub(super) fn let_go(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller found it");
        self.held -= 1;
        match file.assembly.is_sealed() {
            true if file.is_whole() => self.look(id),
            true => self.prepare(id, Preparation::Compare),
            false => file.stage = Stage::AwaitingSeal,
        }
    }

    pub(super) fn fail(&mut self, id: FileId, reason: &str) {
        if let Some(file) = self.forget(id) {
            self.puller.cancel(id);
            self.known_bytes -= file.assembly.layout().size_bytes();
            self.lost(&file.path, reason);
        }
    }

    /// An entry cannot be had.
    pub fn lost(&mut self, path: &SafePath, reason: &str) {
        self.failed += u64::from(self.lost.insert(path.clone()));
        self.unplaced.insert(path.clone());
        // The store's errors begin with the path, which stands for itself here.
        let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
        self.reporter.problem(path.as_bytes(), reason);
    }
}

/// What the disk holds of a staged file already.
fn allocated_bytes(staged: &StagedFile) -> u64 {
    /// What the system counts blocks of files in.
    const STAT_BLOCK_BYTES: u64 = 512;
    staged.file().metadata().map_or(0, |stat| stat.blocks() * STAT_BLOCK_BYTES)
}
