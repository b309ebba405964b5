//! A large file, written and read: through the page cache or past it, by Sealift's block I/O or by plain threads.

mod engine;

use super::{DiskArgs, Preallocate};
use crate::failure::{OrFailure as _, Outcome};
use crate::results::{Clock, Missing, Report};
use crate::turns::{Turns, Watch};
use crate::units::exact_bytes;
use engine::{Direction, Engine};
use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, syncfs};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Whether the page cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Buffered,
    Direct,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Direct => "O_DIRECT",
        }
    }

    fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        if self == Self::Direct {
            options.custom_flags(i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0));
        }
        options
    }
}

/// The size that is written: whole blocks, which O_DIRECT needs.
fn size(args: &DiskArgs) -> u64 {
    args.size.next_multiple_of(args.block)
}

/// The ways that this file system knows.
fn ways(dir: &Path, report: &mut Report) -> Vec<Way> {
    let tried = Way::Direct.options().write(true).create(true).truncate(true).open(dir.join("tried"));
    match tried {
        Ok(_) => vec![Way::Buffered, Way::Direct],
        Err(error) => {
            if report.missing.is_empty() {
                report.missing.push(Missing { tool: "O_DIRECT".into(), reason: error.to_string() });
                eprintln!("missing: O_DIRECT ({error})");
            }
            vec![Way::Buffered]
        }
    }
}

/// Adds the races of writing.
pub fn write(args: &DiskArgs, dir: &Path, report: &mut Report) -> Outcome<()> {
    let engines = Engine::all(args)?;
    for synced in [false, true] {
        let then = if synced { "and fdatasync" } else { "without a sync" };
        let title =
            format!("write {} in blocks of {} {then}", exact_bytes(size(args)), exact_bytes(args.block));
        let mut turns = Turns::new(title, Clock::Wall, size(args), Duration::ZERO);
        for way in ways(dir, report) {
            for engine in &engines {
                turns.add_watched(&format!("{}, {}", way.name(), engine.name()), move |watch| {
                    write_once(args, dir, way, engine, synced, watch)
                });
            }
        }
        turns.run(args.turns.rounds, report);
    }
    Ok(())
}

fn write_once(
    args: &DiskArgs,
    dir: &Path,
    way: Way,
    engine: &Engine,
    synced: bool,
    watch: &mut Watch,
) -> Outcome<()> {
    let path = dir.join("written");
    let cannot = || format!("cannot write {}", path.display());
    let file = way.options().write(true).create_new(true).open(&path).or_failure(cannot)?;
    syncfs(&file).or_failure(cannot)?;
    let result = watch.time(|| {
        if args.preallocate == Preallocate::Yes {
            // Not every file system can: then it is not.
            let _ = fallocate(&file, FallocateFlags::empty(), 0, size(args));
        }
        let file = file.try_clone().or_failure(cannot)?;
        engine.run(Direction::Write, &file, size(args)).or_failure(cannot)?;
        if synced { file.sync_data().or_failure(cannot) } else { Ok(()) }
    });
    fs::remove_file(&path).or_failure(cannot)?;
    result
}

/// Adds the races of reading.
pub fn read(args: &DiskArgs, dir: &Path, report: &mut Report) -> Outcome<()> {
    let engines = Engine::all(args)?;
    let path = dir.join("read");
    let cannot = || format!("cannot write {}", path.display());
    let file = File::create_new(&path).or_failure(cannot)?;
    Engine::threads(args).run(Direction::Write, &file, size(args)).or_failure(cannot)?;
    file.sync_all().or_failure(cannot)?;
    for cached in [true, false] {
        let from = if cached { "the page cache" } else { "the disk" };
        let title =
            format!("read {} in blocks of {} from {from}", exact_bytes(size(args)), exact_bytes(args.block));
        let mut turns = Turns::new(title, Clock::Wall, size(args), Duration::ZERO);
        for way in ways(dir, report).into_iter().filter(|way| !cached || *way == Way::Buffered) {
            for engine in &engines {
                let path = &path;
                turns.add_watched(&format!("{}, {}", way.name(), engine.name()), move |watch| {
                    read_once(args, path, way, engine, cached, watch)
                });
            }
        }
        turns.run(args.turns.rounds, report);
    }
    fs::remove_file(&path).or_failure(cannot)
}

fn read_once(
    args: &DiskArgs,
    path: &Path,
    way: Way,
    engine: &Engine,
    cached: bool,
    watch: &mut Watch,
) -> Outcome<()> {
    let cannot = || format!("cannot read {}", path.display());
    let file = way.options().read(true).open(path).or_failure(cannot)?;
    match cached {
        // The round before may have been the first to read it.
        true => Engine::threads(args).run(Direction::Read, &file, size(args)).or_failure(cannot)?,
        false => fadvise(&file, 0, None, Advice::DontNeed).or_failure(cannot)?,
    }
    watch.time(|| engine.run(Direction::Read, &file, size(args)).or_failure(cannot))
}
