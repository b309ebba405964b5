//! A small tree of everything, destinations that have an older version of a part of it, and runs between them that fail
//! by a plan.

use sealift_tests::process::{Outcome, Run, Sender, faulty_program};
use sealift_tests::tree::{self, Random, SpecialModes, assert_same, assert_tidy, file};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A sender serves all cases of a test.
const PATIENCE_OF_SENDER: Duration = Duration::from_secs(6 * 3600);
/// A run that takes longer than this hangs: what fails is tried again for some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cases at a time. They wait for the disk and for their pauses more than they compute.
const CASES_AT_A_TIME: usize = 6;
/// Some case of so many begins with an older version that the program itself put there, and so remembers.
const REMEMBERED: u64 = 3;

/// Larger files of which the older version has nothing.
const NEW: [(&str, u64); 3] = [("new/a", 40 * KIB), ("new/b", 300 * KIB), ("new/two runs", 2 * MIB)];

/// Operations that are few and matter most, and the steps that are named in the program.
pub const RARE: &str = "only=fsync,syncfs,index,checkpoint,rename,unlink";

/// How disks are read and written, in turn.
pub const ENGINES: [&str; 2] = ["uring", "threads"];

/// Two versions of a tree, and who offers them.
pub struct Scene {
    dir: TempDir,
    /// The newer version.
    pub src: PathBuf,
    /// Tickets of the newer and the older version.
    ticket: String,
    old_ticket: String,
    versions: Versions,
    /// Killed when this goes. Behind a lock, since cases share this.
    _senders: Mutex<[Sender; 2]>,
}

/// What is at each path, but for directories.
struct Versions {
    old: BTreeMap<PathBuf, Content>,
    new: BTreeMap<PathBuf, Content>,
}

#[derive(PartialEq, Eq)]
enum Content {
    File(Vec<u8>),
    Link(PathBuf),
}

fn contents(root: &Path) -> BTreeMap<PathBuf, Content> {
    let mut contents = BTreeMap::new();
    for (path, entry) in tree::entries(root) {
        let full = root.join(&path);
        if entry.is_symlink() {
            contents.insert(path, Content::Link(fs::read_link(full).unwrap()));
        } else if entry.is_file() {
            contents.insert(path, Content::File(fs::read(full).unwrap()));
        }
    }
    contents
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

/// Some forty entries. The older version lacks some of them, and has other content in others. What it has and the newer
/// one lacks is made by [`make_gone`].
fn make(root: &Path, version: Version) {
    let is_new = version == Version::New;
    let of_version = u64::from(is_new);
    for number in 0..24_u64 {
        // A third is the same in both, a third differs, a third is new.
        let seed = match number % 3 {
            0 => number,
            1 => 1000 * (1 + of_version) + number,
            _ if is_new => number,
            _ => continue,
        };
        let mut random = Random::new(seed);
        let bytes = random.below(9 * KIB);
        file(&root.join(format!("dir {}/in it/{number}", number % 4)), random.bytes(bytes));
    }
    let mut large = Random::new(100).bytes(3 * MIB + 5);
    if !is_new {
        large[1 << 20..][..70_000].fill(7);
    }
    file(&root.join("large"), large);
    file(&root.join("medium"), Random::new(101 + of_version).bytes(200 * KIB));
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 * MIB).unwrap();
    sparse.write_all_at(&Random::new(103 + of_version).bytes(300 * KIB), MIB).unwrap();
    symlink(if is_new { "large" } else { "medium" }, root.join("link")).unwrap();
    if is_new {
        for (seed, (path, bytes)) in (105..).zip(NEW) {
            file(&root.join(path), Random::new(seed).bytes(bytes));
        }
        file(&root.join("new/empty"), "");
        symlink("nowhere", root.join("new/link")).unwrap();
        fs::hard_link(root.join("dir 1/in it/1"), root.join("new/twin of a small one")).unwrap();
        fs::hard_link(root.join("large"), root.join("twin of the large one")).unwrap();
    }
}

/// What goes at the source.
fn make_gone(root: &Path) {
    for number in 0..3 {
        file(&root.join(format!("gone/in it/{number}")), Random::new(number).bytes(100));
    }
    file(&root.join("gone/large"), Random::new(110).bytes(100 * KIB));
    symlink("large", root.join("gone/link")).unwrap();
    fs::hard_link(root.join("gone/large"), root.join("dir 1/gone twin")).unwrap();
}

fn sender(of: &Path, state: &Path) -> Sender {
    let run = Run::send([of]).args(["--job", "scene"]).state_dir(state);
    let mut sender = Sender::of(run.patience(PATIENCE_OF_SENDER));
    // From here on the manifest comes all at once.
    let _ = sender.process.wait_for("scanned");
    sender
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (src, old_src) = (dir.path().join("new"), dir.path().join("old"));
        fs::create_dir(&src).unwrap();
        fs::create_dir(&old_src).unwrap();
        make(&old_src, Version::Old);
        make(&src, Version::New);
        make_gone(&old_src);
        let versions = Versions { old: contents(&old_src), new: contents(&src) };
        // The newer version is the next snapshot of the same job, though the sender of the older one stays: it has what
        // the job's state was before.
        let [state, old_state] = ["state of new", "state of old"].map(|name| dir.path().join(name));
        let old_sender = sender(&old_src, &old_state);
        tree::copy(&old_state, &state);
        let sender = sender(&src, &state);
        let (ticket, old_ticket) = (sender.ticket.clone(), old_sender.ticket.clone());
        Self { dir, src, ticket, old_ticket, versions, _senders: Mutex::new([sender, old_sender]) }
    }

    /// Entries of the newer version, the root not counted.
    pub fn entries(&self) -> usize {
        tree::entries(&self.src).len() - 1
    }

    /// A destination with the older version in it, put there by hand or, in some cases, by the program.
    pub fn case(&self, number: u64) -> Case<'_> {
        if number.is_multiple_of(REMEMBERED) { self.remembered(number) } else { self.by_hand(number) }
    }

    /// A destination with the older version in it, put there by hand.
    pub fn by_hand(&self, number: u64) -> Case<'_> {
        let case = Case { had_old: true, ..self.empty(number) };
        fs::create_dir(&case.dst).unwrap();
        make(&case.dst, Version::Old);
        case
    }

    /// A destination with the older version in it, put there by the program.
    pub fn remembered(&self, number: u64) -> Case<'_> {
        let case = Case { had_old: true, ..self.empty(number) };
        let _ = case.receive(&self.old_ticket).finish().expect(0);
        case
    }

    /// A destination that is not there yet.
    pub fn empty(&self, number: u64) -> Case<'_> {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let engine = ENGINES[usize::try_from(number % 2).unwrap()];
        let [dst, state, log] = ["dst", "state", "log"].map(|name| dir.path().join(name));
        Case { scene: self, _dir: dir, dst, state, engine, log, had_old: false }
    }
}

/// A destination, with a state directory of its own.
pub struct Case<'s> {
    pub scene: &'s Scene,
    _dir: TempDir,
    pub dst: PathBuf,
    state: PathBuf,
    engine: &'static str,
    log: PathBuf,
    /// Whether the older version was in it.
    had_old: bool,
}

impl Case<'_> {
    fn receive(&self, ticket: &str) -> Run {
        Run::receive(ticket, &self.dst)
            .args(["--delete", "--max-delete=100%", "--transport=tcp"])
            .io(self.engine)
            .state_dir(&self.state)
            .patience(PATIENCE)
    }

    /// A run of the newer version whose disk does what the plan says.
    pub fn faulty(&self, plan: &str) -> Run {
        self.faulty_from(&self.scene.ticket, plan)
    }

    /// The same, with another ticket.
    pub fn faulty_from(&self, ticket: &str, plan: &str) -> Run {
        let plan = format!("log={};{plan}", self.log.display());
        self.receive(ticket).program(faulty_program()).env("SEALIFT_FAULTS", plan)
    }

    /// How many operations a run takes, of those that `plan` looks at, and how it ended.
    pub fn operations(&self, plan: &str) -> (u64, Outcome) {
        let count = self.log.with_file_name("count");
        let outcome = self.faulty(&format!("count={};{plan}", count.display())).finish().expect(0);
        (fs::read_to_string(count).unwrap().trim().parse().unwrap(), outcome)
    }

    /// What was done to operations: the name of each, in order.
    pub fn faults(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    }

    /// Checks that everything in place is wholly the older or the newer version, and that there is nothing else.
    pub fn check_whole(&self) {
        let Versions { old, new } = &self.scene.versions;
        // No more is there than has been made.
        let mut there = if self.dst.exists() { contents(&self.dst) } else { BTreeMap::new() };
        for (path, wanted) in new {
            match (there.remove(path), old.get(path)) {
                (Some(is), was) => {
                    assert!(is == *wanted || was == Some(&is), "neither old nor new: {path:?}");
                }
                (None, Some(_)) => assert!(!self.had_old, "it was there, and is gone: {path:?}"),
                (None, None) => {}
            }
        }
        // What is to go may be there or not.
        there.retain(|path, is| old.get(path) != Some(is));
        assert!(there.is_empty(), "strays: {:?}", there.keys());
    }

    /// Files and links that are not as the newer version has them.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        let there = if self.dst.exists() { contents(&self.dst) } else { BTreeMap::new() };
        let new = self.scene.versions.new.iter();
        new.filter(|(path, wanted)| there.get(*path) != Some(wanted)).map(|(path, _)| path.clone()).collect()
    }

    /// Bytes of files that are as the newer version has them, of those with which the older one is no help.
    pub fn new_bytes_in_place(&self) -> u64 {
        let unfinished = self.unfinished();
        NEW.iter()
            .filter(|(path, _)| unfinished.iter().all(|other| other != Path::new(path)))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// Checks that what a run said is what it did: at the end of one that failed, or not.
    pub fn check_end(&self, outcome: &Outcome) {
        assert!(!outcome.stderr.contains("panicked"), "it panicked: {outcome:#?}");
        self.check_whole();
        let unfinished = self.unfinished();
        match outcome.code {
            Some(0) => {
                assert_eq!(unfinished, [""; 0].map(PathBuf::from), "{outcome:#?}");
                let told = tree::differences(&self.scene.src, &self.dst, SpecialModes::Dropped);
                assert!(told.is_empty(), "it ended well, and the copy differs: {told:?} {outcome:#?}");
                assert_tidy(&self.dst);
                assert_eq!(outcome.total("failed"), 0, "{outcome:#?}");
            }
            Some(1) => assert!(!outcome.message().is_empty(), "{outcome:#?}"),
            Some(3) => {
                let named = outcome.problems();
                assert!(!named.is_empty(), "{outcome:#?}");
                for path in &unfinished {
                    assert!(named.iter().any(|name| path == Path::new(name)), "{path:?}: {outcome:#?}");
                }
            }
            _ => panic!("another end: {outcome:#?}"),
        }
    }

    /// A run on a disk that works: it makes all of it. (Of the source alone: from each other cases may get something twice.)
    pub fn converge(&self) -> Outcome {
        let outcome = self.receive(&self.scene.ticket).arg("--no-share").finish().expect(0);
        assert_same(&self.scene.src, &self.dst, SpecialModes::Dropped);
        assert_tidy(&self.dst);
        outcome
    }
}

/// How many points a test tries.
pub fn share(otherwise: u64) -> u64 {
    match std::env::var("SEALIFT_TEST_FAULTS").as_deref() {
        Ok("all") => u64::MAX,
        Ok(number) => number.parse().expect("SEALIFT_TEST_FAULTS is a number or `all`"),
        Err(_) => otherwise,
    }
}

/// All numbers from 1 to `last`, or a share of them from all over.
pub fn points(last: u64, share: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    if share >= last {
        return (1..=last).collect();
    }
    let start = |part: u64| 1 + part * last / share;
    (0..share).map(|part| start(part) + random.below(start(part + 1) - start(part))).collect()
}

/// Does it for each of them, several at a time.
pub fn each<T: Send>(cases: impl IntoIterator<Item = T, IntoIter: Send>, f: impl Fn(T) + Sync) {
    let cases = Mutex::new(cases.into_iter());
    let next = || cases.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..CASES_AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = next() {
                    f(case);
                }
            });
        }
    });
}

/// Counts things by name, to be shown at the end of a test.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub fn add(&self, what: impl Into<String>) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub fn count(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.0.lock().unwrap();
        let shown: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&shown.join(", "))
    }
}
