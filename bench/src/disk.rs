//! What a disk gives: a large file written and read, by the program's own block I/O and by plain threads; and how fast
//! small files are made.

mod large;
mod small;

use crate::failure::{OrFailure as _, Outcome};
use crate::results::Report;
use crate::turns::TurnsArgs;
use crate::units::parse_bytes;
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};

/// The command line of `disk`.
#[derive(Clone, Debug, Args)]
pub struct DiskArgs {
    /// A directory on the file system that is to be measured. What is made in it is removed
    pub dir: PathBuf,
    /// What is measured
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = [Part::Write, Part::Read, Part::Small])]
    pub parts: Vec<Part>,
    /// Bytes in the large file
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bytes)]
    pub size: u64,
    /// Bytes in one read or write; a multiple of 4 KiB
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_block)]
    pub block: u64,
    /// Reads or writes in flight, with Sealift's block I/O
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub depth: u32,
    /// Threads, where threads do the work [default: as many as cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Take the file's space before it is written
    #[arg(long, value_enum, default_value_t = Preallocate::Yes)]
    pub preallocate: Preallocate,
    /// Small files made in one turn
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub files: u32,
    /// Bytes in a small file
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = parse_bytes)]
    pub file_bytes: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub turns: TurnsArgs,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Writing a large file.
    Write,
    /// Reading one.
    Read,
    /// Making small files.
    Small,
}

/// Whether space is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preallocate {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl DiskArgs {
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or(cores, |threads| threads as usize)
    }
}

fn parse_block(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        bytes if bytes.is_multiple_of(4096) && bytes <= 16 << 20 => Ok(bytes),
        _ => Err("a multiple of 4 KiB, up to 16MiB".into()),
    }
}

/// A directory that goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> Outcome<Self> {
        let path = dir.join(format!(".sealift-bench-{}", std::process::id()));
        fs::create_dir_all(&path).or_failure(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Runs the command. Whether every result counts.
pub fn run(args: &DiskArgs) -> Outcome<bool> {
    let scratch = Scratch::new(&args.dir)?;
    let mut report = Report::begin("disk", Some(&args.dir));
    for part in &args.parts {
        match part {
            Part::Write => large::write(args, &scratch.0, &mut report)?,
            Part::Read => large::read(args, &scratch.0, &mut report)?,
            Part::Small => small::run(args, &scratch.0, &mut report)?,
        }
        args.turns.output.write(&report)?;
    }
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DiskArgs,
    }

    #[test]
    fn everything_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let words = ["disk", path, "--size=1100000", "--block=64KiB", "--files=20", "--rounds=1"];
        assert!(run(&Line::parse_from(words).args).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Line::try_parse_from(["disk", path, "--block=1000"]).is_err());
    }
}
