//! Faults on demand, for tests: with the cargo feature `faults`, each step that changes or reads the disk asks here
//! first, and a plan says which of them fail, kill the process, or do something else than they say. Without the feature
//! all of it compiles to nothing.
//!
//! The plan is in the environment variable `SEALIFT_FAULTS`, `key=value` separated by semicolons:
//!
//! | key | meaning |
//! | --- | --- |
//! | `nth=N` | the N-th operation, counted over the process from 1, fails |
//! | `until=M` | and so do those after it, to the M-th |
//! | `error=NAME` | with this error, such as `ENOSPC`; without it, `EIO` |
//! | `kill=N` | at the N-th operation the process kills itself with SIGKILL |
//! | `after=1` | fails or is killed once the operation has happened, not before |
//! | `only=NAME,...` | counts, and fails, these alone: names as in `Op::name`, and those of [`fault_point`]s |
//! | `seed=S` | faults at random, the same for the same seed and the same order of operations |
//! | `rate=PPM` | how many of a million operations |
//! | `kinds=KIND,...` | of these kinds: `eio`, `enospc`, `short`, `torn`, `misdirected`, `slow` |
//! | `count=FILE` | keeps the number of operations so far there |
//! | `log=FILE` | appends a line for each fault: the number, the operation, what was done to it |
//!
//! *Short*: a part is read or written, and said to be. *Torn*: a part is written and said to be all. *Misdirected*: it
//! is written to another place of the file. *Slow*: some milliseconds. A plan that makes no sense ends the process.
//!
//! Owns no descriptor but those of `count` and `log`. Never changes what an operation says it did, other than by a fault.

use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

pub(crate) use turn::Turn;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
    Open,
    Create,
    Allocate,
    Clone,
    Sync,
    SyncAll,
    Rename,
    Unlink,
    Mkdir,
    Link,
    Symlink,
    Chmod,
    Utimens,
    Point(&'static str),
}

/// A step of the caller's own, such as the commit of a database, at which a test may let it fail or end the process.
/// Does nothing without the feature `faults`.
///
/// # Errors
/// What the test's plan says.
#[inline]
pub fn fault_point(name: &'static str) -> io::Result<()> {
    guard(Op::Point(name), || Ok(()))
}

/// Does `f`, which is `op`, unless the plan is against it.
#[inline]
pub(crate) fn guard<T, E: From<Errno>>(op: Op, f: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let turn = Turn::of(op, 0..0);
    if let Some(pause) = turn.pause() {
        wait(pause);
    }
    turn.begin()?;
    let result = f();
    turn.end()?;
    result
}

/// Writes all of `data` at `offset`, completing what is written in parts.
pub(crate) fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let at = offset + done as u64;
        match transfer(Op::Write, at, data.len() - done, |at, part| {
            file.write_at(&data[done + part.start..done + part.end], at)
        }) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills all of `data` from `offset`, completing what is read in parts.
pub(crate) fn read_exact_at(file: &File, data: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let at = offset + done as u64;
        match transfer(Op::Read, at, data.len() - done, |at, part| {
            file.read_at(&mut data[done + part.start..done + part.end], at)
        }) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn transfer(
    op: Op,
    offset: u64,
    bytes: usize,
    f: impl FnOnce(u64, Range<usize>) -> io::Result<usize>,
) -> io::Result<usize> {
    let turn = Turn::of(op, offset..offset + bytes as u64);
    if let Some(pause) = turn.pause() {
        wait(pause);
    }
    turn.begin()?;
    let (offset, part) = turn.aim(offset, 0..bytes);
    let moved = f(offset, part);
    turn.end()?;
    Ok(turn.claim(moved?))
}

/// A slow disk holds up a thread that waits for it.
#[allow(clippy::disallowed_methods)]
fn wait(pause: std::time::Duration) {
    std::thread::sleep(pause);
}

#[cfg(not(feature = "faults"))]
mod turn {
    use super::Op;
    use rustix::io::Errno;
    use std::ops::Range;
    use std::time::Duration;

    /// One operation's turn; nothing, without the feature.
    pub(crate) struct Turn;

    impl Turn {
        #[inline]
        pub(crate) fn of(_op: Op, _bytes: Range<u64>) -> Self {
            Self
        }

        #[inline]
        #[allow(clippy::unused_self)]
        pub(crate) fn pause(&self) -> Option<Duration> {
            None
        }

        #[inline]
        #[allow(clippy::unused_self)]
        pub(crate) fn begin(&self) -> Result<(), Errno> {
            Ok(())
        }

        #[inline]
        #[allow(clippy::unused_self)]
        pub(crate) fn aim(&self, offset: u64, part: Range<usize>) -> (u64, Range<usize>) {
            (offset, part)
        }

        #[inline]
        #[allow(clippy::unused_self)]
        pub(crate) fn claim(&self, moved: usize) -> usize {
            moved
        }

        #[inline]
        #[allow(clippy::unused_self)]
        pub(crate) fn end(&self) -> Result<(), Errno> {
            Ok(())
        }
    }
}

#[cfg(feature = "faults")]
mod turn {
    use super::Op;
    use super::plan::{self, Act, Fault};
    use rustix::io::Errno;
    use std::ops::Range;
    use std::time::Duration;

    /// One operation's turn, and what the plan has for it.
    pub(crate) struct Turn {
        fault: Option<Fault>,
        bytes: usize,
    }

    impl Turn {
        /// `op` is next, on those bytes of its file.
        pub(crate) fn of(op: Op, bytes: Range<u64>) -> Self {
            let moved = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX);
            Self { fault: plan::next(op, bytes), bytes: moved }
        }

        /// How long to wait before.
        pub(crate) fn pause(&self) -> Option<Duration> {
            match self.fault {
                Some(Fault::Slow(pause)) => Some(pause),
                _ => None,
            }
        }

        pub(crate) fn begin(&self) -> Result<(), Errno> {
            match self.fault {
                Some(Fault::Before(act)) => act.happens(),
                _ => Ok(()),
            }
        }

        /// Where it is really done, and with which part.
        pub(crate) fn aim(&self, offset: u64, part: Range<usize>) -> (u64, Range<usize>) {
            match self.fault {
                Some(Fault::Short(bytes) | Fault::Torn(bytes)) => (offset, part.start..part.start + bytes),
                Some(Fault::Misdirected(to)) => (to, part),
                _ => (offset, part),
            }
        }

        /// How much is said to have been moved.
        pub(crate) fn claim(&self, moved: usize) -> usize {
            match self.fault {
                Some(Fault::Torn(_) | Fault::Misdirected(_)) => self.bytes,
                _ => moved,
            }
        }

        /// It has been done.
        pub(crate) fn end(&self) -> Result<(), Errno> {
            match self.fault {
                Some(Fault::After(act)) => act.happens(),
                _ => Ok(()),
            }
        }
    }

    impl Act {
        fn happens(self) -> Result<(), Errno> {
            match self {
                Self::Fail(error) => Err(error),
                Self::Kill => {
                    let _ = rustix::process::kill_process(
                        rustix::process::getpid(),
                        rustix::process::Signal::KILL,
                    );
                    // Until it arrives.
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }
}

#[cfg(feature = "faults")]
pub(crate) mod plan {
    use super::Op;
    use rustix::io::Errno;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    const MILLION: u64 = 1_000_000;
    const SLOW_MS_MAX: u64 = 20;
    /// What a misdirected write is off by a multiple of.
    const SECTOR_BYTES: u64 = 4096;

    /// What a plan has for one operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        Before(Act),
        After(Act),
        /// So many bytes only.
        Short(usize),
        /// So many bytes only, which are said to be all.
        Torn(usize),
        /// To this offset.
        Misdirected(u64),
        Slow(Duration),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Act {
        Fail(Errno),
        Kill,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Eio,
        Enospc,
        Short,
        Torn,
        Misdirected,
        Slow,
    }

    #[derive(Debug, Default)]
    struct Plan {
        nth: Option<u64>,
        until: Option<u64>,
        error: Option<Errno>,
        kill: Option<u64>,
        after: bool,
        only: Option<Vec<String>>,
        seed: u64,
        rate: u64,
        kinds: Vec<Kind>,
        count: Option<File>,
        log: Option<File>,
    }

    /// A plan, and how far it is.
    #[derive(Debug)]
    pub(crate) struct State {
        plan: Plan,
        done: Mutex<u64>,
    }

    impl Op {
        /// As `only` has it.
        fn name(self) -> &'static str {
            match self {
                Self::Read => "read",
                Self::Write => "write",
                Self::Open => "open",
                Self::Create => "create",
                Self::Allocate => "allocate",
                Self::Clone => "clone",
                Self::Sync => "fsync",
                Self::SyncAll => "syncfs",
                Self::Rename => "rename",
                Self::Unlink => "unlink",
                Self::Mkdir => "mkdir",
                Self::Link => "link",
                Self::Symlink => "symlink",
                Self::Chmod => "chmod",
                Self::Utimens => "utimens",
                Self::Point(name) => name,
            }
        }
    }

    impl Kind {
        fn parse(name: &str) -> Option<Self> {
            Some(match name {
                "eio" => Self::Eio,
                "enospc" => Self::Enospc,
                "short" => Self::Short,
                "torn" => Self::Torn,
                "misdirected" => Self::Misdirected,
                "slow" => Self::Slow,
                _ => return None,
            })
        }

        /// What it does to `op`, if it can; `draw` is random.
        fn fault(self, op: Op, bytes: &Range<u64>, draw: u64) -> Option<Fault> {
            let len = bytes.end - bytes.start;
            // At least one byte, and not all.
            let part = || {
                let room = len.checked_sub(1).filter(|&room| room > 0)?;
                usize::try_from(1 + draw % room).ok()
            };
            match self {
                Self::Eio => Some(Fault::Before(Act::Fail(Errno::IO))),
                Self::Enospc => match op {
                    Op::Read | Op::Open | Op::Unlink | Op::Chmod | Op::Utimens => None,
                    _ => Some(Fault::Before(Act::Fail(Errno::NOSPC))),
                },
                Self::Short if matches!(op, Op::Read | Op::Write) => part().map(Fault::Short),
                Self::Torn if op == Op::Write => part().map(Fault::Torn),
                Self::Misdirected if op == Op::Write && len > 0 => {
                    let sectors = bytes.start / SECTOR_BYTES;
                    let to = if sectors > 0 { draw % sectors * SECTOR_BYTES } else { bytes.end };
                    Some(Fault::Misdirected(to))
                }
                Self::Short | Self::Torn | Self::Misdirected => None,
                Self::Slow => Some(Fault::Slow(Duration::from_millis(1 + draw % SLOW_MS_MAX))),
            }
        }
    }

    fn errno(name: &str) -> Option<Errno> {
        Some(match name {
            "EIO" => Errno::IO,
            "ENOSPC" => Errno::NOSPC,
            "EDQUOT" => Errno::DQUOT,
            "EROFS" => Errno::ROFS,
            "EFBIG" => Errno::FBIG,
            "EMFILE" => Errno::MFILE,
            "ENFILE" => Errno::NFILE,
            "ENOMEM" => Errno::NOMEM,
            "EACCES" => Errno::ACCESS,
            "EPERM" => Errno::PERM,
            "EINTR" => Errno::INTR,
            "EAGAIN" => Errno::AGAIN,
            "ENOENT" => Errno::NOENT,
            "EXDEV" => Errno::XDEV,
            "ENAMETOOLONG" => Errno::NAMETOOLONG,
            "EOPNOTSUPP" => Errno::OPNOTSUPP,
            _ => return None,
        })
    }

    impl Plan {
        fn parse(text: &str) -> Result<Self, String> {
            let mut plan = Self::default();
            for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
                let (key, value) =
                    item.split_once('=').ok_or_else(|| format!("{item:?} is not key=value"))?;
                let bad = || format!("{key} cannot be {value:?}");
                let number = || value.parse::<u64>().map_err(|_| bad());
                match key {
                    "nth" => plan.nth = Some(number()?),
                    "until" => plan.until = Some(number()?),
                    "error" => plan.error = Some(errno(value).ok_or_else(bad)?),
                    "kill" => plan.kill = Some(number()?),
                    "after" => plan.after = number()? != 0,
                    "only" => plan.only = Some(value.split(',').map(Into::into).collect()),
                    "seed" => plan.seed = number()?,
                    "rate" => plan.rate = number()?,
                    "kinds" => {
                        plan.kinds = value
                            .split(',')
                            .map(|name| Kind::parse(name).ok_or_else(bad))
                            .collect::<Result<_, _>>()?;
                    }
                    "count" => {
                        plan.count = Some(File::create(value).map_err(|error| format!("{value}: {error}"))?);
                    }
                    "log" => {
                        let file = OpenOptions::new().create(true).append(true).open(value);
                        plan.log = Some(file.map_err(|error| format!("{value}: {error}"))?);
                    }
                    _ => return Err(format!("{key:?} is not known")),
                }
            }
            Ok(plan)
        }

        /// What it has for operation `number`.
        fn fault(&self, number: u64, op: Op, bytes: &Range<u64>) -> Option<Fault> {
            let placed = |act| Some(if self.after { Fault::After(act) } else { Fault::Before(act) });
            if self.kill == Some(number) {
                return placed(Act::Kill);
            }
            if self.nth.is_some_and(|nth| (nth..=self.until.unwrap_or(nth)).contains(&number)) {
                return placed(Act::Fail(self.error.unwrap_or(Errno::IO)));
            }
            let mut draws = Draws(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if draws.next() % MILLION >= self.rate {
                return None;
            }
            let draw = draws.next();
            let can: Vec<_> = self.kinds.iter().filter_map(|kind| kind.fault(op, bytes, draw)).collect();
            let choice = draws.next().checked_rem(can.len() as u64)?;
            can.get(usize::try_from(choice).ok()?).copied()
        }
    }

    /// SplitMix64.
    struct Draws(u64);

    impl Draws {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    impl State {
        pub(crate) fn parse(text: &str) -> Result<Arc<Self>, String> {
            Ok(Arc::new(Self { plan: Plan::parse(text)?, done: Mutex::new(0) }))
        }

        fn next(&self, op: Op, bytes: &Range<u64>) -> Option<Fault> {
            if self.plan.only.as_ref().is_some_and(|only| only.iter().all(|name| name != op.name())) {
                return None;
            }
            // Held while count and log are written, so that they are in order.
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            *done += 1;
            if let Some(count) = &self.plan.count {
                let _ = count.write_all_at(format!("{done}\n").as_bytes(), 0);
            }
            let fault = self.plan.fault(*done, op, bytes)?;
            if let Some(mut log) = self.plan.log.as_ref() {
                let _ = log.write_all(format!("{done} {} {fault:?}\n", op.name()).as_bytes());
            }
            Some(fault)
        }

        #[cfg(test)]
        pub(crate) fn done(&self) -> u64 {
            *self.done.lock().unwrap()
        }
    }

    /// What the plan of this process has for the operation that is next.
    pub(crate) fn next(op: Op, bytes: Range<u64>) -> Option<Fault> {
        #[cfg(test)]
        if let Some(state) = OF_THREAD.with_borrow(Clone::clone) {
            return state.next(op, &bytes);
        }
        static STATE: OnceLock<Option<Arc<State>>> = OnceLock::new();
        let state = STATE.get_or_init(|| {
            let text = std::env::var("SEALIFT_FAULTS").ok()?;
            match State::parse(&text) {
                Ok(state) => Some(state),
                Err(error) => {
                    eprintln!("SEALIFT_FAULTS: {error}");
                    std::process::exit(2);
                }
            }
        });
        state.as_ref()?.next(op, &bytes)
    }

    #[cfg(test)]
    thread_local! {
        static OF_THREAD: std::cell::RefCell<Option<Arc<State>>> = const { std::cell::RefCell::new(None) };
    }

    /// Runs `f` with a plan for this thread's operations alone; how many there were.
    #[cfg(test)]
    pub(crate) fn with<T>(text: &str, f: impl FnOnce() -> T) -> (T, u64) {
        let state = State::parse(text).unwrap();
        OF_THREAD.set(Some(Arc::clone(&state)));
        let value = f();
        OF_THREAD.set(None);
        (value, state.done())
    }
}

#[cfg(test)]
#[cfg(feature = "faults")]
mod tests;
