//! Small files as a receiver makes them: opened under another name, written, closed, renamed.

use super::DiskArgs;
use crate::failure::{OrFailure as _, Outcome, failure};
use crate::results::{Clock, Report};
use crate::turns::{Turns, Watch};
use crate::units::{exact_bytes, several};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// When files are put on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Synced {
    Never,
    /// By `fsync`, before it is renamed.
    Each,
    /// By one `syncfs` after all.
    Together,
}

/// Adds the race.
pub fn run(args: &DiskArgs, dir: &Path, report: &mut Report) -> Outcome<()> {
    let title = format!("create {} of {}", several(args.files.into(), "file"), exact_bytes(args.file_bytes));
    let bytes = u64::from(args.files) * args.file_bytes;
    let mut data = vec![0; usize::try_from(args.file_bytes).or_failure(|| "too large a file".into())?];
    crate::data::fill_with_noise(&mut data);
    let (data, next) = (&data[..], &AtomicU32::new(0));
    let mut turns = Turns::new(title, Clock::Wall, bytes, Duration::ZERO).with_files(u64::from(args.files));
    let mut thread_counts = vec![1, args.threads()];
    thread_counts.dedup();
    for synced in [Synced::Never, Synced::Together, Synced::Each] {
        for &threads in &thread_counts {
            let how = match synced {
                Synced::Never => "not synced",
                Synced::Each => "fsync of each",
                Synced::Together => "one syncfs",
            };
            turns.add_watched(&format!("{how}, {}", several(threads as u64, "thread")), move |watch| {
                // Always in a new directory; all go at the end.
                let dir = dir.join(format!("small-{}", next.fetch_add(1, Ordering::Relaxed)));
                create(&dir, args.files, data, threads, synced, watch)
            });
        }
    }
    turns.run(args.turns.rounds, report);
    Ok(())
}

fn create(
    dir: &Path,
    files: u32,
    data: &[u8],
    threads: usize,
    synced: Synced,
    watch: &mut Watch,
) -> Outcome<()> {
    let cannot = || format!("cannot write in {}", dir.display());
    fs::create_dir_all(dir).or_failure(cannot)?;
    let handle = File::open(dir).or_failure(cannot)?;
    // What was written before is not to be paid for now.
    rustix::fs::syncfs(&handle).or_failure(cannot)?;
    let next = AtomicU32::new(0);
    watch.time(|| {
        std::thread::scope(|scope| {
            let work = || -> io::Result<()> {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= files {
                        return Ok(());
                    }
                    let staged = dir.join(format!("{index}.part"));
                    let mut file = File::create_new(&staged)?;
                    file.write_all(data)?;
                    if synced == Synced::Each {
                        file.sync_all()?;
                    }
                    drop(file);
                    fs::rename(&staged, dir.join(index.to_string()))?;
                }
            };
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            work().or_failure(cannot)?;
            for other in others {
                match other.join() {
                    Ok(result) => result.or_failure(cannot)?,
                    Err(_) => return failure("a thread died"),
                }
            }
            match synced {
                Synced::Never => Ok(()),
                Synced::Each => handle.sync_all().or_failure(cannot),
                Synced::Together => rustix::fs::syncfs(&handle).or_failure(cannot),
            }
        })
    })
}
