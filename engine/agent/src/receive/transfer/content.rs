//! The content of files: looked for here, fetched, put together, published.

use super::{Preparation, Transfer};
use crate::error::RunError;
use crate::receive::OnConflict;
use crate::receive::data::{FetchJob, Fetched};
use crate::receive::entries::Stage;
use crate::receive::failure::Failure;
use crate::receive::local::{Before, Found, IfSame, Large, Look, Prepared, keep};
use crate::receive::memory::Draft;
use crate::receive::place::{Complete, Placed};
use sealift_proto::block::{BlockIndex, FileId};
use sealift_proto::transfer::assembly::Wholeness;
use sealift_proto::transfer::pull::{ConnectionId, Loss, Outcome, Run, Verdict};
use sealift_proto::wire::{RangeProblem, Reject};
use sealift_store::{EntryRow, Expected, FileStat, Ready};
use std::sync::Arc;
use std::time::Instant;

const EDITED: &str = "was edited here, and is kept as it is (--on-conflict)";
pub(super) const WRONG_ROOT: &str = "its blocks do not add up to the root that was signed";

impl Transfer {
    pub(super) fn look(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Local;
        self.looks.push(Look {
            id,
            path: file.path.clone(),
            layout: file.assembly.layout(),
            metadata: file.metadata.clone(),
            root: file.root,
            hashes: file.is_whole().then(|| file.assembly.hashes().into()),
            segment: file.segment,
        });
    }

    pub(super) fn prepare(&mut self, id: FileId, how: fn(Large) -> Preparation) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Local;
        self.preparations.push_back(how(Large {
            id,
            path: file.path.clone(),
            layout: file.assembly.layout(),
            hashes: file.assembly.hashes().into(),
            root: file.root,
            holes: Arc::clone(&file.holes),
            metadata: file.metadata.clone(),
            segment: file.segment,
            same: if file.must_copy { IfSame::IsCopied } else { IfSame::Stays },
        }));
    }

    /// A file that is the same already and has several names: it stays for the first entry that claims it. Another
    /// entry that is no further name of that one gets a copy of its own.
    pub(super) fn claim(&mut self, id: FileId, stat: &FileStat) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        if !self.claimed.insert((stat.device, stat.inode)) {
            file.must_copy = true;
            return self.prepare(id, Preparation::Compare);
        }
        let draft = Draft {
            algorithm: self.catalog.algorithm().expect("files follow the first segment"),
            layout: file.assembly.layout(),
            root: file.root.expect("what is the same is known whole"),
            segment: file.segment,
        };
        let known = self.context.memory.read().and_then(|reader| reader.entry(&file.path));
        let kept = known.map_err(Failure::from).and_then(|known| {
            let kept = keep(&self.context.replica, &file.path, &file.metadata, stat, known.as_ref(), draft);
            kept.map_err(|error| Failure::from(&error))
        });
        match kept {
            Ok(row) => self.stays(id, row),
            Err(failure) => self.trouble(id, failure),
        }
    }

    /// A file is as it should be.
    pub(super) fn stays(&mut self, id: FileId, row: Option<EntryRow>) {
        let is_indexed = row.is_none();
        if let (Some(row), Some(file)) = (row, self.files.get(&id)) {
            self.notes.rows.push((file.path.clone(), row));
        }
        self.in_place(id, is_indexed);
    }

    /// Takes what was found at the destination.
    pub fn looked(&mut self, found: Vec<(FileId, Found)>) {
        self.jobs -= 1;
        for (id, found) in found {
            let Some(file) = self.files.get_mut(&id) else { continue };
            match found {
                Found::Same(_) | Found::Linked(_) if file.must_copy => self.prepare(id, Preparation::Compare),
                Found::Same(row) => self.stays(id, row),
                Found::Linked(stat) => self.claim(id, &stat),
                Found::Failed(failure) => self.trouble(id, failure),
                Found::Nothing(before) if file.is_whole() && file.assembly.layout().blocks() > 0 => {
                    if !self.may_replace(id, before) {
                        continue;
                    }
                    let file = self.files.get_mut(&id).expect("just looked at");
                    file.stage = Stage::FetchingWhole;
                    let layout = file.assembly.layout();
                    for run in Run::cover(id, layout, BlockIndex(0), layout.blocks()) {
                        self.puller.want(run);
                    }
                }
                Found::Nothing(before) => {
                    file.before = before;
                    self.prepare(id, Preparation::Stage);
                }
                Found::Other if file.assembly.is_sealed() => self.prepare(id, Preparation::Compare),
                Found::Other => file.stage = Stage::AwaitingSeal,
            }
        }
    }

    /// Notes what is at a file's place. Whether it may be replaced.
    pub(super) fn may_replace(&mut self, id: FileId, before: Before) -> bool {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let mut before = match &self.rules.repair {
            Some(repair) => repair.before(&file.path, before),
            None => before,
        };
        // Somebody made or edited it while its version came.
        before.edited |= file.disputed && matches!(before.expected, Expected::Version(_));
        file.before = before;
        if before.edited && self.rules.on_conflict == OnConflict::Keep {
            self.fail(id, EDITED);
            return false;
        }
        if before.rewrites && !std::mem::replace(&mut file.counted, true) {
            self.rewritten += 1;
        }
        true
    }

    /// Stops a job that rewrites more than it may.
    ///
    /// # Errors
    /// If it does.
    pub fn check_rewrites(&self) -> Result<(), RunError> {
        match self.rules.max_rewrite {
            Some(max) if self.rewritten > max => Err(RunError::Failed(format!(
                "more than {max} files that were here would be replaced by others, so the job was stopped. \
                 If the source is as it should be, use a higher --max-rewrite"
            ))),
            _ => Ok(()),
        }
    }

    /// Takes what became of a large file.
    pub fn prepared(&mut self, id: FileId, prepared: Prepared) {
        self.jobs -= 1;
        let Some(file) = self.files.get_mut(&id) else { return };
        match prepared {
            Prepared::Same(row) => self.stays(id, row),
            Prepared::Linked(stat) => self.claim(id, &stat),
            Prepared::Failed(failure) => self.trouble(id, failure),
            Prepared::Staged { mut staged, present, before, kept } => {
                if !self.rules.page_cache {
                    staged.open_direct();
                }
                file.stage = Stage::FetchingStaged(staged);
                file.holds_staged = true;
                file.kept = kept;
                self.staged += 1;
                let before = before.unwrap_or(file.before);
                if !self.may_replace(id, before) {
                    return;
                }
                self.mark_blocks(id, present.into_iter());
                self.ask(id);
                self.check_whole(id);
            }
        }
    }

    /// Asks for the blocks of a staged file whose hashes are known and that are not in place.
    pub(super) fn ask(&mut self, id: FileId) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let layout = file.assembly.layout();
        let known = u32::try_from(file.assembly.hashes().len()).expect("at most the layout's blocks");
        let mut at = file.asked;
        while at < known {
            let present = file.assembly.has(BlockIndex(at));
            let same = (at..known).take_while(|&block| file.assembly.has(BlockIndex(block)) == present);
            let count = u32::try_from(same.count()).expect("at most the layout's blocks");
            if !present {
                for run in Run::cover(id, layout, BlockIndex(at), count) {
                    self.puller.want(run);
                }
            }
            at += count;
        }
        file.asked = known;
    }

    pub(super) fn mark_blocks(&mut self, id: FileId, blocks: impl Iterator<Item = BlockIndex>) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        let bytes: u64 = blocks.map(|block| file.assembly.mark(block)).sum();
        file.placed_bytes += bytes;
        file.dirty |= bytes > 0;
        self.placed_bytes += bytes;
        if matches!(file.stage, Stage::FetchingStaged(_)) {
            if self.unsaved.0 == 0 {
                self.unsaved.1 = Instant::now();
            }
            self.unsaved.0 += bytes;
        }
    }

    /// A fetch with all that is needed to verify and place what it brings.
    pub fn next_fetch(&mut self, connection: ConnectionId, now_ms: u64) -> Option<FetchJob> {
        let fetch = self.puller.poll_fetch(connection, now_ms)?;
        let place = |run: &Run| self.files.get(&run.file).and_then(|file| file.place(run));
        let places =
            fetch.runs.iter().map(|run| place(run).expect("runs of lost files are cancelled")).collect();
        Some(FetchJob { fetch, places })
    }

    /// Takes the answer to a fetch.
    pub fn fetched(&mut self, fetched: Fetched, now_ms: u64) {
        self.transferred_bytes += fetched.payload_bytes;
        let Fetched { connection, fetch, runs, outcomes, ready, errors, .. } = fetched;
        // Of a connection that is given up, the runs are asked of another: this answer is not counted.
        let Ok(verdicts) = self.puller.handle_answer(connection, fetch, &outcomes, now_ms) else {
            // But what it wrote may have been waited for.
            for run in runs {
                self.check_whole(run.file);
            }
            return;
        };
        for (run, outcome) in runs.iter().zip(&outcomes) {
            let staged =
                self.files.get(&run.file).is_some_and(|f| matches!(f.stage, Stage::FetchingStaged(_)));
            let wrong = match outcome {
                Outcome::Written => &[][..],
                Outcome::Mismatch(wrong) => wrong,
                Outcome::Refused(_) | Outcome::NotWritten => continue,
            };
            if staged {
                let blocks = (run.first.0..run.first.0 + run.count).map(BlockIndex);
                self.mark_blocks(
                    run.file,
                    blocks.filter(|block| wrong.iter().all(|wrong| wrong.first != *block)),
                );
                self.check_whole(run.file);
            }
        }
        for (id, ready) in ready {
            // What came for a second time is dropped, and its staged file with it.
            if !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Late(run) if run.file == id)) {
                self.whole(id, ready);
            }
        }
        for verdict in verdicts {
            match verdict {
                Verdict::Late(_) => {}
                Verdict::Retry(peer, file, block) => self.rejects.push((peer, Reject { file, block })),
                Verdict::GiveUp(id, Loss::Refused(RangeProblem::Changed)) => self.await_word(id),
                Verdict::GiveUp(id, Loss::Refused(problem)) => {
                    self.fail(id, &format!("the sender cannot give it: {}", refusal_text(problem)));
                }
                Verdict::GiveUp(id, Loss::Corrupt) => {
                    self.fail(id, "what the sender gives is not what was signed");
                }
                Verdict::GiveUp(id, Loss::NotWritten) => {
                    let failure = errors.iter().find(|(of, _)| *of == id).map(|(_, failure)| failure.clone());
                    self.trouble(id, failure.unwrap_or_else(|| Failure::lasting("it could not be written")));
                }
                Verdict::Ban(peer) => self.banned.push(peer),
            }
        }
    }

    /// A file that was staged whole.
    pub(super) fn whole(&mut self, id: FileId, ready: Ready) {
        let Some(file) = self.files.get(&id) else { return };
        let blocks = file.assembly.layout().blocks();
        self.mark_blocks(id, (0..blocks).map(BlockIndex));
        let file = self.files.get_mut(&id).expect("just looked at");
        match file.assembly.wholeness(self.catalog.algorithm().expect("files follow the first segment")) {
            Wholeness::Whole => self.publish(id, ready),
            Wholeness::WrongRoot | Wholeness::Partial => self.fail(id, WRONG_ROOT),
        }
    }

    /// Publishes a staged file if all of it is there.
    pub(super) fn check_whole(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if !matches!(file.stage, Stage::FetchingStaged(_)) {
            return;
        }
        match file.assembly.wholeness(self.catalog.algorithm().expect("files follow the first segment")) {
            Wholeness::Partial => {}
            Wholeness::WrongRoot => self.fail(id, WRONG_ROOT),
            // What is being written there right now, for a second time, is told of when it has been.
            Wholeness::Whole if !file.gate.close() => {}
            Wholeness::Whole => {
                if let Stage::FetchingStaged(staged) = std::mem::replace(&mut file.stage, Stage::Publishing) {
                    let (mode, mtime) = file.metadata.of_new_file();
                    let attributes = file.metadata.attributes.clone();
                    let ready =
                        Ready::new(staged, file.path.clone(), mode, mtime).with_attributes(attributes);
                    self.publish(id, ready);
                }
            }
        }
    }

    pub(super) fn publish(&mut self, id: FileId, ready: Ready) {
        let file = self.files.get_mut(&id).expect("the caller has it");
        file.stage = Stage::Publishing;
        let draft = Draft {
            algorithm: self.catalog.algorithm().expect("files follow the first segment"),
            layout: file.assembly.layout(),
            root: file.root.expect("whole files are sealed"),
            segment: file.segment,
        };
        let (metadata, before, kept) = (file.metadata.clone(), file.before, file.kept);
        self.complete.push(Complete { id, ready, draft, metadata, before, kept });
        self.complete_since.get_or_insert_with(Instant::now);
    }

    /// Takes what became of files that were to be published.
    pub fn placed(&mut self, placed: Vec<Placed>) {
        self.jobs -= 1;
        if let Some(shelving) = &mut self.shelving {
            shelving.noted();
        }
        for Placed { id, result } in placed {
            match result {
                Ok(()) => {
                    self.space.fitted();
                    self.in_place(id, true);
                }
                Err(failure) => self.trouble(id, failure),
            }
        }
    }

    /// A file is in its place, and the index knows it or is told with the next batch.
    pub(super) fn in_place(&mut self, id: FileId, is_indexed: bool) {
        // It may have been withdrawn while it was published: then it stands until its next version.
        if let Some(file) = self.forget(id) {
            self.unplaced.remove(&file.path);
            self.failed -= u64::from(self.lost.remove(&file.path));
            let layout = file.assembly.layout();
            self.done.add(id, layout.size_bytes());
            if let Some(shelving) = &mut self.shelving
                && layout.blocks() > 0
            {
                shelving.placed(id, file.path, layout, is_indexed);
            }
        }
    }
}

fn refusal_text(problem: RangeProblem) -> &'static str {
    match problem {
        RangeProblem::UnknownFile => "it does not know the file",
        RangeProblem::OutOfRange => "the range is not within the file",
        RangeProblem::Changed => "the file has changed",
        RangeProblem::Unreadable => "it cannot read the file",
        RangeProblem::Excessive => "it was asked for too often",
        RangeProblem::NotHere => "it does not have it",
    }
}
