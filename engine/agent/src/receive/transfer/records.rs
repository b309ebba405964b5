//! What the manifest says, record by record.

use super::content::WRONG_ROOT;
use super::{Preparation, Transfer};
use crate::preserve::Aspect;
use crate::receive::entries::{DirectoryEntry, FileEntry, Metadata, Special, Stage, metadata, time};
use crate::receive::place::make_way;
use crate::report::Event;
use sealift_proto::block::{FileId, Layout};
use sealift_proto::digest::{BlockHash, RootHash};
use sealift_proto::manifest::{Problem, Record, WithdrawReason};
use sealift_proto::path::SafePath;
use sealift_proto::transfer::assembly::Assembly;
use sealift_proto::{digest, manifest};
use sealift_store::{Attributed, EntryKind, EntryRow, EntryWhat, Linked, MadeDirectory, link_target_hash};
use std::time::{Duration, Instant};

/// A file that the source found changed is given up when the manifest says nothing more of it for so long.
const AWAITING_MAX: Duration = Duration::from_secs(60);

impl Transfer {
    /// Takes up the records that wait, up to one that must be tried again later.
    pub(super) fn take_records(&mut self) {
        while let Some(record) = self.records.pop_front() {
            if let Err(record) = self.record(record) {
                self.records.push_front(record);
                return;
            }
            self.record_retry = None;
        }
    }

    /// Takes up a record; gives it back if there is no room for what it says.
    pub(super) fn record(&mut self, record: Record) -> Result<(), Record> {
        match record {
            Record::Root(of_root) => {
                if self.rules.repair.is_none() {
                    let metadata = self.metadata(None, &of_root);
                    self.root = Some(self.directory_attributes(None, metadata));
                }
            }
            Record::Attributes { ref attributes, .. } => self.attributes = self.resolve(attributes),
            Record::Directory { ref path, metadata, .. } => {
                if self.rules.repair.is_some() {
                    return Ok(());
                }
                if !self.make_way(path) {
                    return Ok(());
                }
                match self.context.replica.make_directory(path) {
                    Ok(made) => {
                        if made == MadeDirectory::Created {
                            self.note(path, EntryWhat::Directory);
                        }
                        let metadata = self.metadata(Some(path), &metadata);
                        let mut metadata = self.directory_attributes(Some(path), metadata);
                        if let MadeDirectory::Existed { mode } = made {
                            metadata.mode.get_or_insert(mode);
                        }
                        self.directories.push(DirectoryEntry { path: path.clone(), metadata });
                    }
                    Err(error) => return self.not_made(record, &error),
                }
            }
            Record::Symlink { ref path, mtime, ref target, .. } => {
                let attributes = self.attributes.take();
                if self.rules.repair.is_some() {
                    return Ok(());
                }
                if !self.rules.preserve.has(Aspect::Links) {
                    self.skipped_symlinks += 1;
                    return Ok(());
                }
                if !self.make_way(path) {
                    return Ok(());
                }
                let mtime = self.rules.preserve.has(Aspect::Times).then(|| time(mtime));
                match self.context.replica.make_symlink(path, target, mtime) {
                    Ok(Linked::Created) => {
                        self.note(path, EntryWhat::Symlink { target_hash: link_target_hash(target) });
                    }
                    Ok(Linked::Unchanged) => {}
                    Err(error) => {
                        self.attributes = attributes;
                        return self.not_made(record, &error);
                    }
                }
                if let Some(attributes) = attributes
                    && let Err(error) =
                        attributes.update(&self.context.replica, path, EntryKind::Symlink, None, None)
                {
                    let message = format!("{error}; its owner was not set");
                    self.reporter.tell(&Event::Warning { message });
                }
            }
            Record::Hardlink { id, path, target } => {
                if self.rules.repair.is_none() {
                    self.hardlinks.insert(id, (path, target));
                }
            }
            Record::SmallFile { id, path, metadata, layout, hash } => {
                if self.announce(id, path, &metadata, layout, Some(RootHash(hash.0))) {
                    if layout.blocks() > 0 {
                        self.hashes(id, &[hash]);
                    }
                    self.sealed(id, RootHash(hash.0));
                }
            }
            Record::File { id, path, metadata, layout } => {
                self.announce(id, path, &metadata, layout, None);
            }
            Record::Holes { id, holes } => {
                if let Some(file) = self.files.get_mut(&id)
                    && self.rules.preserve.has(Aspect::Sparse)
                {
                    file.add_holes(&holes);
                }
            }
            Record::Hashes { id, hashes, .. } => self.hashes(id, &hashes),
            Record::Sealed { id, root } => self.sealed(id, root),
            Record::Withdrawn { id, path, reason } => self.withdrawn(id, &path, reason),
            Record::Problem { shown_path, problem } => {
                self.source_incomplete = true;
                if self.rules.repair.is_none() {
                    self.failed += 1;
                    self.reporter.problem(&shown_path, problem_text(problem));
                }
            }
            Record::End { .. } => self.tell_skipped(),
        }
        Ok(())
    }

    /// Sees to it that what stands at the place of a directory or link may go: what somebody edited here is set aside,
    /// if that is the rule. Whether it may.
    pub(super) fn make_way(&mut self, path: &SafePath) -> bool {
        let (replica, memory) = (&self.context.replica, &self.context.memory);
        match make_way(replica, memory, self.rules.on_conflict, path) {
            Ok(None) => true,
            Ok(Some(message)) => {
                self.reporter.tell(&Event::Warning { message });
                true
            }
            Err(reason) => {
                self.lost(path, &reason);
                false
            }
        }
    }

    /// Sets a directory's owner and lists at once, so that they need not be kept; its mode and time come last.
    pub(super) fn directory_attributes(&self, path: Option<&SafePath>, mut metadata: Metadata) -> Metadata {
        let Some(attributes) = metadata.attributes.take() else { return metadata };
        metadata.mode = metadata.mode.map(|mode| attributes.mode(mode));
        // Its owner writes to it until everything is in place.
        let for_now = metadata.mode.map(|mode| mode | 0o700);
        let (replica, kind) = (&self.context.replica, EntryKind::Directory);
        let set = match path {
            Some(path) => {
                attributes.update(replica, path, kind, None, for_now).map_err(|error| error.to_string())
            }
            None => {
                attributes.update_root(replica, for_now).map_err(|error| format!("the destination: {error}"))
            }
        };
        if let Err(error) = set {
            let message = format!("{error}; its owner and attributes were not set");
            self.reporter.tell(&Event::Warning { message });
        }
        metadata
    }

    pub(super) fn tell_skipped(&mut self) {
        let count = std::mem::take(&mut self.skipped_symlinks);
        if count > 0 {
            let message = format!("{count} symbolic links were left out (--preserve without links)");
            self.reporter.tell(&Event::Warning { message });
        }
    }

    pub(super) fn note(&mut self, path: &SafePath, what: EntryWhat) {
        let row = EntryRow { what, job: self.context.memory.number(), segment: self.segment };
        self.notes.rows.push((path.clone(), row));
    }

    pub(super) fn resolve(&self, attributes: &manifest::Attributes) -> Option<Attributed> {
        self.owners.attributed(attributes)
    }

    pub(super) fn metadata(&mut self, path: Option<&SafePath>, of: &manifest::Metadata) -> Metadata {
        let (mut metadata, special) = metadata(of, self.rules.preserve, self.rules.keep_special_modes);
        metadata.attributes = self.attributes.take();
        metadata.mtime = metadata.mtime.map(|mtime| self.context.mtime_held(mtime));
        if let Special::Dropped = special {
            let path = path.map_or_else(|| "the destination".to_owned(), ToString::to_string);
            let message = format!(
                "{path}: set-user-id, set-group-id and sticky bits were dropped (--keep-special-modes keeps them)"
            );
            self.reporter.tell(&Event::Warning { message });
        }
        metadata
    }

    /// A file begins. Whether it is of any interest.
    pub(super) fn announce(
        &mut self,
        id: FileId,
        path: SafePath,
        of: &manifest::Metadata,
        layout: Layout,
        root: Option<RootHash>,
    ) -> bool {
        let metadata = self.metadata(Some(&path), of);
        if let Some(repair) = &self.rules.repair
            && !repair.wants(&path, layout, root.as_ref())
        {
            return false;
        }
        self.known_bytes += layout.size_bytes();
        let mut file = Box::new(FileEntry::new(path, metadata, self.segment, layout));
        file.must_copy = self.settling.contains(&file.path);
        self.files.insert(id, file);
        true
    }

    pub(super) fn hashes(&mut self, id: FileId, hashes: &[BlockHash]) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.assembly.add_hashes(hashes);
        self.held_hashes += hashes.len();
        match file.stage {
            // The first blocks can be fetched while the source still hashes the last ones.
            Stage::Announced if !file.is_whole() && file.holes.is_empty() => self.look(id),
            Stage::FetchingStaged(_) => self.ask(id),
            _ => {}
        }
    }

    pub(super) fn sealed(&mut self, id: FileId, root: RootHash) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if digest::root(self.catalog.algorithm().expect("a segment was admitted"), file.assembly.hashes())
            != root
        {
            return self.fail(id, WRONG_ROOT);
        }
        if let Some(repair) = &self.rules.repair
            && !repair.wants(&file.path, file.assembly.layout(), Some(&root))
        {
            self.forget(id);
            return;
        }
        file.assembly.seal(root);
        file.root = Some(root);
        match file.stage {
            Stage::Announced if file.is_whole() => self.look(id),
            Stage::Announced | Stage::AwaitingSeal => self.prepare(id, Preparation::Compare),
            Stage::FetchingStaged(_) => self.check_whole(id),
            _ => {}
        }
    }

    pub(super) fn await_word(&mut self, id: FileId) {
        // Nothing of it is of use any more but its name.
        if let Some(mut file) = self.forget(id) {
            self.puller.cancel(id);
            file.assembly = Assembly::new(file.assembly.layout());
            file.placed_bytes = 0;
            file.holds_staged = false;
            file.stage = Stage::Awaiting(Instant::now());
            self.awaiting += 1;
            self.files.insert(id, file);
        }
    }

    pub(super) fn withdrawn(&mut self, id: FileId, path: &SafePath, reason: WithdrawReason) {
        let pending = self.forget(id).map(|file| {
            self.puller.cancel(id);
            if matches!(file.stage, Stage::Publishing) {
                self.settling.insert(file.path.clone());
            }
            file.assembly.layout().size_bytes()
        });
        // One that is in place stands as it was: whole, and older than the source. It counts no more.
        let bytes = pending.or_else(|| self.done.remove(id));
        self.known_bytes -= bytes.unwrap_or(0);
        self.hardlinks.remove(&id);
        self.unplaced.insert(path.clone());
        // What the source could not read is not gone there.
        self.source_incomplete |= matches!(reason, WithdrawReason::Changed | WithdrawReason::Unreadable);
        match reason {
            WithdrawReason::Superseded => {}
            WithdrawReason::Vanished => {
                let message = format!("{path}: was removed at the source meanwhile");
                self.reporter.tell(&Event::Warning { message });
            }
            WithdrawReason::Changed => self.lost(path, problem_text(Problem::Changed)),
            WithdrawReason::Unreadable => self.lost(path, problem_text(Problem::Unreadable)),
        }
    }

    /// Gives up files of which the sender promised word and gave none.
    pub fn give_up_waiting(&mut self) {
        // While the manifest goes on, or has no end, word may yet come.
        if !self.catalog.ended() || self.last_segment.elapsed() <= AWAITING_MAX {
            return;
        }
        let overdue =
            |file: &FileEntry| matches!(file.stage, Stage::Awaiting(since) if since.elapsed() > AWAITING_MAX);
        let ids: Vec<FileId> =
            self.files.iter().filter(|(_, file)| overdue(file)).map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, "it changed at the source, which then said no more of it");
        }
    }
}

fn problem_text(problem: Problem) -> &'static str {
    match problem {
        Problem::Unreadable => "the source cannot read it",
        Problem::Changed => "it kept changing at the source while it was read",
        Problem::Special => "it is a device, FIFO or socket",
        Problem::BadName => "its name or path cannot be carried",
        Problem::TooLarge => "it is larger than a file may be",
    }
}
