//! Puts right what a check found: what has content is fetched by a receive that looks at nothing else, block by block;
//! directories and links are made from the manifest. Then all of it is checked once more.
//!
//! What somebody edited here is replaced by the conflict rule alone; what is silently corrupt, at once. The index forgets
//! what is corrupt first, so that it does not vouch for it whatever happens.

use super::check::{Right, Sink};
use super::finding::{Cause, Finding, Wanted, Wrong};
use super::survey::{Part, Survey, read_again};
use super::{Known, Place, check_on, interruptible, load_index, paths_of, view};
use crate::error::{Finish, RunError};
use crate::receive::entries::{DirectoryEntry, Metadata, metadata, time};
use crate::receive::memory::{self, Memory};
use crate::receive::place::{Closing, Notes, Publisher, close, conflict_name};
use crate::receive::{Damaged, OnConflict, ReceiveOptions, Repair, receive};
use crate::report::{Event, Reporter};
use sealift_proto::keys::VerifyKey;
use sealift_proto::manifest::{self, Record};
use sealift_proto::path::SafePath;
use sealift_store::{EntryRow, Existing, IoWorkers, Replica, ReplicaView};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Instant;

/// What is to be done.
#[derive(Default)]
struct Plan {
    /// Content to be fetched.
    files: HashMap<SafePath, Damaged>,
    /// Paths that the index is to forget.
    corrupt: Vec<SafePath>,
    /// Directories to be made, parents first; and whether a file is in the way.
    directories: BTreeMap<SafePath, (manifest::Metadata, bool)>,
    /// Symbolic links to be made, and whether a file is in the way.
    symlinks: Vec<(SafePath, sealift_proto::time::Timestamp, Vec<u8>, bool)>,
    /// Further names to be made; copies apart.
    names: BTreeSet<SafePath>,
    copies: Vec<(SafePath, SafePath)>,
    /// Directories in which something changes, as they were; none is the root.
    above: BTreeMap<Option<SafePath>, Metadata>,
}

impl Plan {
    fn of(findings: &[Finding], rule: OnConflict) -> Self {
        let mut plan = Self::default();
        for Finding { path, wanted, wrong } in findings {
            let in_the_way = matches!(wrong, Wrong::Kind(what) if *what == "a file");
            if (in_the_way && rule == OnConflict::Keep) || matches!(wrong, Wrong::Hidden(_)) {
                continue;
            }
            match (wanted, wrong) {
                (Wanted::File { layout, root }, Wrong::Content(content)) => {
                    let is_corrupt = content.cause == Cause::Corrupt;
                    if !is_corrupt && rule == OnConflict::Keep {
                        continue;
                    }
                    if is_corrupt {
                        plan.corrupt.push(path.clone());
                    }
                    let untouched = content.seen.filter(|_| is_corrupt);
                    let damaged = Damaged { bytes: layout.size_bytes(), root: *root, untouched };
                    plan.files.insert(path.clone(), damaged);
                }
                (Wanted::File { layout, root }, _) => {
                    let damaged = Damaged { bytes: layout.size_bytes(), root: *root, untouched: None };
                    plan.files.insert(path.clone(), damaged);
                }
                (Wanted::Hardlink { target, copied: true }, _) => {
                    plan.corrupt.push(path.clone());
                    plan.copies.push((path.clone(), target.clone()));
                }
                (Wanted::Hardlink { copied: false, .. }, _) => {
                    plan.names.insert(path.clone());
                }
                (Wanted::Directory(metadata), _) => {
                    plan.directories.insert(path.clone(), (*metadata, in_the_way));
                }
                (Wanted::Symlink { mtime, target }, _) => {
                    plan.symlinks.push((path.clone(), *mtime, target.clone(), in_the_way));
                }
            }
        }
        plan
    }

    /// Remembers the directories in which something will change, as they are.
    fn look_above(&mut self, view: &ReplicaView, paths: impl IntoIterator<Item = SafePath>) {
        for path in paths {
            let above = path.parent();
            if self.above.contains_key(&above) {
                continue;
            }
            let found = match &above {
                Some(above) => match view.existing(above) {
                    Ok(Existing::Directory { mode, mtime }) => Some((mode, mtime)),
                    _ => None,
                },
                None => view.root_metadata().ok(),
            };
            if let Some((mode, mtime)) = found {
                self.above.insert(above, Metadata { mode: Some(mode), mtime: Some(mtime), attributes: None });
            }
        }
    }
}

impl Plan {
    /// Finds out what those directories should be by the manifest.
    async fn learn_above(
        &mut self,
        view: &Arc<ReplicaView>,
        survey: &Survey,
        how: &ReceiveOptions,
    ) -> Result<(), RunError> {
        let above = &mut self.above;
        for_each_record(view, survey, |record| {
            let (path, of) = match record {
                Record::Root(of) => (None, of),
                Record::Directory { path, metadata, .. } => (Some(path), metadata),
                _ => return,
            };
            if let Some(known) = above.get_mut(&path) {
                let Metadata { mode, mtime, .. } = metadata(&of, how.preserve, how.keep_special_modes).0;
                known.mode = mode.or(known.mode);
                known.mtime = mtime.or(known.mtime);
            }
        })
        .await
    }
}

/// Goes through the manifest.
async fn for_each_record(
    view: &Arc<ReplicaView>,
    survey: &Survey,
    mut take: impl FnMut(Record),
) -> Result<(), RunError> {
    let mut parts = read_again(Arc::clone(view), survey).map_err(super::cannot_start)?;
    while let Some(part) = parts.recv().await {
        match part {
            Part::Segment { records, .. } => records.into_iter().for_each(&mut take),
            Part::End(_) => break,
            Part::Broken(error) => return Err(error),
        }
    }
    Ok(())
}

/// Repairs what was found, and checks it again.
///
/// # Errors
/// Those of a receive; if the replica cannot be written.
pub async fn repair(
    place: Place,
    survey: Survey,
    findings: Vec<Finding>,
    mut how: ReceiveOptions,
    reporter: &Arc<Reporter>,
) -> Result<Finish, RunError> {
    let started = Instant::now();
    let Place { dest, view: before, standing, .. } = place;
    let workers = IoWorkers::global().map_err(super::cannot_start)?;
    let mut plan = Plan::of(&findings, how.on_conflict);
    let damaged: HashSet<SafePath> = plan.files.keys().cloned().collect();
    let names = interruptible(names_to_make(&before, &survey, &damaged, &plan.names)).await?;
    plan.look_above(
        &before,
        paths_of(&findings).into_iter().chain(names.iter().map(|(path, _)| path.clone())),
    );
    interruptible(plan.learn_above(&before, &survey, &how)).await?;
    let key = match standing.row(&survey.key) {
        Some(_) => survey.key.clone(),
        None => how.ticket.verify_key.clone(),
    };
    let state = how.state.clone();
    let scene = Scene { key, how: how.clone(), reporter: Arc::clone(reporter), workers };

    let mut plan = scene.first(plan).await?;
    let repair = Arc::new(Repair::new(std::mem::take(&mut plan.files)));
    let received = if damaged.is_empty() {
        Ok(Finish::Complete)
    } else {
        how.repair = Some(Arc::clone(&repair));
        receive(how, Arc::clone(reporter)).await
    };
    // Also after a receive that failed: what it replaced has other names.
    let last = scene.last(plan, names.clone()).await;
    received?;
    last?;

    let view = view(&dest)?;
    let index = load_index(&state, &view, &dest, reporter)?;
    let mut only = paths_of(&findings);
    only.extend(names.into_iter().map(|(path, _)| path));
    let mut again = Again { known: Known::of(index.as_ref(), reporter)?, still: Vec::new() };
    let check = check_on(&view, "sealift-verify", None).await?;
    interruptible(check.run(&survey, Some(&only), &mut again)).await?;
    again.still.sort_by(|a, b| a.path.cmp(&b.path));
    let others = repair.others();
    for finding in &again.still {
        let reason = match others.contains(&finding.path) {
            true => "could not be repaired: the source has another version of it".to_owned(),
            false => finding.reason(),
        };
        reporter.problem(finding.path.as_bytes(), reason);
    }
    let left = again.still.len() as u64;
    let repaired =
        findings.iter().filter(|finding| !again.still.iter().any(|still| still.path == finding.path)).count();
    reporter.tell(&Event::Repaired {
        repaired: repaired as u64,
        left,
        seconds: started.elapsed().as_secs_f64(),
    });
    Ok(if left == 0 { Finish::Complete } else { Finish::Partial })
}

/// Further names by the manifest that are to be made: those that are wrong, and all of a file that is replaced.
async fn names_to_make(
    view: &Arc<ReplicaView>,
    survey: &Survey,
    files: &HashSet<SafePath>,
    names: &BTreeSet<SafePath>,
) -> Result<Vec<(SafePath, SafePath)>, RunError> {
    let mut found = Vec::new();
    for_each_record(view, survey, |record| {
        if let Record::Hardlink { id, path, target } = record
            && !survey.withdrawn.contains(&id)
            && (files.contains(&target) || names.contains(&path))
        {
            found.push((path, target));
        }
    })
    .await?;
    Ok(found)
}

/// What both ends of a repair work with.
struct Scene {
    key: VerifyKey,
    how: ReceiveOptions,
    reporter: Arc<Reporter>,
    workers: IoWorkers,
}

impl Scene {
    async fn open(&self) -> Result<(Arc<Replica>, Memory), RunError> {
        let opened =
            memory::open(&self.how.state, &self.how.dest, &self.key, self.how.new_replica, &self.reporter)
                .await?;
        if opened.1.in_doubt() {
            return Err(RunError::Failed(
                "the last receive did not sync, and the machine was started anew since: use sealift receive, which looks \
                 at all files and fetches what is wrong"
                    .into(),
            ));
        }
        Ok(opened)
    }

    /// Forgets what is corrupt, and makes directories and symbolic links. Directories that something is put into can be
    /// written to from here on, until they get their modes at the end.
    async fn first(&self, plan: Plan) -> Result<Plan, RunError> {
        let (replica, memory) = self.open().await?;
        let (how, reporter) = (self.how.clone(), Arc::clone(&self.reporter));
        self.workers
            .run(move || {
                memory.forget(plan.corrupt.clone()).map_err(|error| RunError::Failed(error.to_string()))?;
                // Those that are to be written in must allow it for the time being.
                for path in plan.above.keys().flatten() {
                    tell(replica.make_directory(path).map_err(|error| error.to_string()), path, &reporter);
                }
                for (path, (_, in_the_way)) in &plan.directories {
                    let made = clear_the_way(&replica, path, *in_the_way, &how, &reporter)
                        .and_then(|()| replica.make_directory(path).map_err(|error| error.to_string()));
                    tell(made, path, &reporter);
                }
                for (path, mtime, target, in_the_way) in &plan.symlinks {
                    let made = clear_the_way(&replica, path, *in_the_way, &how, &reporter).and_then(|()| {
                        replica
                            .make_symlink(path, target, Some(time(*mtime)))
                            .map_err(|error| error.to_string())
                    });
                    tell(made, path, &reporter);
                }
                replica.close().map_err(|error| RunError::Failed(error.to_string()))?;
                Ok(plan)
            })
            .await
    }

    /// Makes further names, and gives directories their mode and time.
    async fn last(&self, plan: Plan, names: Vec<(SafePath, SafePath)>) -> Result<(), RunError> {
        if !plan.copies.is_empty() {
            let (replica, memory) = self.open().await?;
            let copies = Closing { hardlinks: plan.copies.clone(), links_names: false, ..nothing() };
            self.close(replica, memory, move |_| copies).await?;
        }
        let (replica, memory) = self.open().await?;
        let (how, reporter) = (self.how.clone(), Arc::clone(&self.reporter));
        self.close(replica, memory, move |replica| last_things(replica, &plan, names, &how, &reporter)).await
    }

    /// Does what is done last, and tells what of it failed.
    async fn close(
        &self,
        replica: Arc<Replica>,
        memory: Memory,
        closing: impl FnOnce(&Replica) -> Closing + Send + 'static,
    ) -> Result<(), RunError> {
        let publisher = Publisher {
            replica,
            memory: Arc::new(memory),
            durability: self.how.durability,
            verify: self.how.verify,
            on_conflict: self.how.on_conflict,
        };
        let closed = self.workers.run(move || close(&publisher, closing(&publisher.replica))).await;
        for (path, reason) in closed.map_err(RunError::Failed)?.failures {
            tell::<()>(Err(reason), &path, &self.reporter);
        }
        Ok(())
    }
}

fn nothing() -> Closing {
    Closing {
        hardlinks: Vec::new(),
        links_names: true,
        unplaced: HashSet::new(),
        deletions: None,
        directories: Vec::new(),
        root: None,
        is_repair: true,
        segment: 0,
        notes: Notes::default(),
    }
}

fn last_things(
    replica: &Replica,
    plan: &Plan,
    names: Vec<(SafePath, SafePath)>,
    how: &ReceiveOptions,
    reporter: &Reporter,
) -> Closing {
    let mut directories: BTreeMap<SafePath, Metadata> = BTreeMap::new();
    let mut root = None;
    for (path, metadata) in &plan.above {
        match path {
            Some(path) => {
                directories.insert(path.clone(), metadata.clone());
            }
            None => root = Some(metadata.clone()),
        }
    }
    for (path, (of, _)) in &plan.directories {
        directories.insert(path.clone(), metadata(of, how.preserve, how.keep_special_modes).0);
    }
    let mut hardlinks = Vec::new();
    for (path, target) in names {
        // The other names of a file that was replaced still have what it had: nobody edited that.
        let may_be_made = match plan.names.contains(&path) {
            true => name_may_be_made(replica, &path, &target, how, reporter),
            false => Ok(true),
        };
        match may_be_made {
            Ok(true) => hardlinks.push((path, target)),
            Ok(false) => {}
            Err(reason) => tell::<()>(Err(reason), &path, reporter),
        }
    }
    let directories =
        directories.into_iter().map(|(path, metadata)| DirectoryEntry { path, metadata }).collect();
    Closing { hardlinks, directories, root, ..nothing() }
}

/// Whether a further name may be made: a file of its own there has the same content, or is set aside by the rule.
fn name_may_be_made(
    replica: &Replica,
    path: &SafePath,
    target: &SafePath,
    how: &ReceiveOptions,
    reporter: &Reporter,
) -> Result<bool, String> {
    let (Ok(Existing::File(own)), Ok(Existing::File(first))) =
        (replica.existing(path), replica.existing(target))
    else {
        return Ok(true);
    };
    let same = own.same_inode(&first) || same_content(replica, path, target).unwrap_or(false);
    if same || how.on_conflict == OnConflict::Overwrite {
        return Ok(true);
    }
    if how.on_conflict == OnConflict::Keep {
        return Ok(false);
    }
    set_aside(replica, path, reporter)?;
    Ok(true)
}

fn same_content(replica: &Replica, one: &SafePath, other: &SafePath) -> io::Result<bool> {
    let ((mut one, of_one), (mut other, of_other)) =
        (replica.open_existing(one)?, replica.open_existing(other)?);
    if of_one.size_bytes != of_other.size_bytes {
        return Ok(false);
    }
    let mut buffers = [vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]];
    let mut left = of_one.size_bytes;
    while left > 0 {
        let bytes = usize::try_from(left.min(COMPARED_BYTES as u64)).expect("at most a buffer");
        let [a, b] = &mut buffers;
        one.read_exact(&mut a[..bytes])?;
        other.read_exact(&mut b[..bytes])?;
        if a[..bytes] != b[..bytes] {
            return Ok(false);
        }
        left -= bytes as u64;
    }
    Ok(true)
}

/// Bytes that are compared at a time.
const COMPARED_BYTES: usize = 256 << 10;

/// Sets a file aside that stands where none should be.
fn clear_the_way(
    replica: &Replica,
    path: &SafePath,
    in_the_way: bool,
    how: &ReceiveOptions,
    reporter: &Reporter,
) -> Result<(), String> {
    if in_the_way && how.on_conflict == OnConflict::Rename {
        set_aside(replica, path, reporter)
    } else {
        Ok(())
    }
}

fn set_aside(replica: &Replica, path: &SafePath, reporter: &Reporter) -> Result<(), String> {
    let aside = replica.set_aside(path, &conflict_name(path)).map_err(|error| error.to_string())?;
    let message = format!("{path}: was edited here; what was there is now {aside}");
    reporter.tell(&Event::Warning { message });
    Ok(())
}

fn tell<T>(made: Result<T, String>, path: &SafePath, reporter: &Reporter) {
    if let Err(reason) = made {
        let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason).to_owned();
        reporter.problem(path.as_bytes(), reason);
    }
}

/// Hears what is still wrong.
struct Again {
    known: Known,
    still: Vec<Finding>,
}

impl Sink for Again {
    fn right(&mut self, _right: Right<'_>) -> Result<(), RunError> {
        Ok(())
    }

    fn wrong(&mut self, finding: Finding) -> Result<(), RunError> {
        self.still.push(finding);
        Ok(())
    }

    fn known(&mut self, path: &SafePath) -> Option<EntryRow> {
        self.known.row(path)
    }

    fn progress(&mut self, _files: u64, _bytes: u64, _bytes_known: u64) {}
}
