//! What can be asked of `transfer`.

use crate::data::{Shape, Spec};
use crate::failure::{Outcome, failure};
use crate::output::OutputArgs;
use crate::results::{Axis, Point};
use crate::tools::{NAMES, SealiftOptions};
use crate::units::{exact_bytes, parse_bytes, parse_count};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;

/// The command line of `transfer`.
#[derive(Clone, Debug, Args)]
pub struct TransferArgs {
    /// What is copied: large:SIZE, small:COUNT, small:COUNT:SIZE or mixed:SIZE; may be repeated [default: large:1GiB]
    #[arg(long, value_name = "DATA", conflicts_with = "series")]
    pub data: Vec<Shape>,
    /// A series of data sets, for plots: sizes=1GiB,2GiB,4GiB (one file) or files=1000,10000,100000 (small files)
    #[arg(long, value_name = "SERIES")]
    pub series: Option<Series>,
    /// With --series files: bytes in each file, instead of 1 B to 256 KiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "series")]
    pub bytes_each: Option<u64>,
    /// The data's bytes can be compressed, to about a quarter; otherwise they cannot
    #[arg(long)]
    pub compressible: bool,
    /// What the data are made from: the same seed makes the same bytes
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// The tools, in turn: sealift, rsync-daemon, rsync-ssh, rsync-local, cp, scp, rclone, wdt, wdt-plain, sendme
    /// [default: all; with --second-run: sealift, rsync-local, rsync-ssh]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub tools: Vec<String>,
    /// Rounds that count; one more before them warms up and does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Whether copies must be on the disk when a tool is done: every tool syncs by its own means, or `sync -f` is run
    /// after it and counts
    #[arg(long, value_enum, default_value_t = Durability::Off)]
    pub durability: Durability,
    /// The same as --durability on
    #[arg(long, conflicts_with_all = ["durability", "no_fsync"])]
    pub fsync: bool,
    /// The same as --durability off
    #[arg(long, conflicts_with = "durability")]
    pub no_fsync: bool,
    /// Copy once, then measure runs that find everything there already
    #[arg(long)]
    pub second_run: bool,
    /// Whether the source is in the page cache, or none of it
    #[arg(long, value_enum, default_value_t = Cache::Warm)]
    pub cache: Cache,
    /// Sealift's block hash; several make as many contestants [default: the program's own]
    #[arg(long, value_name = "sha256|blake3", value_enum, value_delimiter = ',')]
    pub hash: Vec<Hash>,
    /// Sealift's cipher; several make as many contestants [default: the program's own]
    #[arg(long, value_name = "aes-256-gcm|aes-128-gcm", value_enum, value_delimiter = ',')]
    pub cipher: Vec<Cipher>,
    /// Sealift once more, with what it copies sealed to a key; what is checked then is what that key restores
    #[arg(long)]
    pub sealed: bool,
    /// Sealift's data connections [default: the program's own]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// The sealift program [default: the one beside this program, else the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub sealift: Option<PathBuf>,
    /// More arguments for both of WDT's ends; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub wdt_args: Vec<String>,
    /// Where data sets, copies and states are; on the file system that is to be measured
    /// [default: $TMPDIR/sealift-bench]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// When copies are deleted, never while a tool runs. auto: those of at most 1000 files after their check, the
    /// others at the end, because creating files is slower for minutes after many were deleted
    #[arg(long, value_enum, default_value_t = Delete::Auto)]
    pub delete: Delete,
    /// How long one program may take, in seconds, until it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub limit_seconds: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Which variants are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// One after the other.
    Both,
    /// Everything is synced.
    On,
    /// Nothing is.
    Off,
}

/// Where the source is when a tool begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cache {
    /// In memory.
    Warm,
    /// On the disk alone.
    Cold,
}

/// When copies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Delete {
    /// By their number of files.
    Auto,
    /// After their check.
    Run,
    /// After each data set.
    Set,
    /// At the very end.
    End,
}

/// Sealift's hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// BLAKE3.
    Blake3,
}

/// Sealift's ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// AES-256-GCM.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// AES-128-GCM.
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
}

/// Data sets that grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    axis: Axis,
    values: Vec<u64>,
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = "a series is sizes=1GiB,2GiB or files=1000,10000";
        let (axis, values) = text.split_once('=').ok_or(what)?;
        let values = values.split(',');
        match axis {
            "sizes" => {
                Ok(Self { axis: Axis::Bytes, values: values.map(parse_bytes).collect::<Result<_, _>>()? })
            }
            "files" => {
                Ok(Self { axis: Axis::Files, values: values.map(parse_count).collect::<Result<_, _>>()? })
            }
            _ => Err(what.into()),
        }
    }
}

/// What is to be done, in order.
#[derive(Debug)]
pub struct Plan {
    /// Data sets.
    pub stages: Vec<Stage>,
    /// Names of tools.
    pub tools: Vec<String>,
    /// Variants of each data set.
    pub durability: Vec<bool>,
    /// Variants of Sealift.
    pub sealift: Vec<SealiftOptions>,
}

/// One data set.
#[derive(Debug)]
pub struct Stage {
    /// What it is.
    pub spec: Spec,
    /// Its place in a series.
    pub point: Option<Point>,
}

impl TransferArgs {
    /// What these arguments ask for.
    pub fn plan(&self) -> Outcome<Plan> {
        let spec = |shape| Spec { shape, seed: self.seed, compressible: self.compressible };
        let stages = match &self.series {
            Some(series) => series.values.iter().map(|value| self.stage(series.axis, *value)).collect(),
            None if self.data.is_empty() => {
                vec![Stage { spec: spec(Shape::Large(1 << 30)), point: None }]
            }
            None => self.data.iter().map(|shape| Stage { spec: spec(*shape), point: None }).collect(),
        };
        let defaults: &[&str] = match self.second_run {
            true => &["sealift", "rsync-local", "rsync-ssh"],
            false => &NAMES,
        };
        let tools: Vec<String> = match self.tools.is_empty() {
            true => defaults.iter().map(|name| (*name).to_owned()).collect(),
            false => self.tools.clone(),
        };
        if let Some(unknown) = tools.iter().find(|name| !NAMES.contains(&name.as_str())) {
            return failure(format!("there is no tool {unknown:?}; there are {}", NAMES.join(", ")));
        }
        let durability = match (self.fsync, self.durability) {
            (true, _) | (false, Durability::On) => vec![true],
            (false, Durability::Off) => vec![false],
            (false, Durability::Both) => vec![false, true],
        };
        Ok(Plan { stages, tools, durability, sealift: self.variants() })
    }

    fn stage(&self, axis: Axis, value: u64) -> Stage {
        let (shape, name) = match axis {
            Axis::Bytes => (Shape::Large(value), "one file".to_owned()),
            Axis::Files => {
                let each = self.bytes_each.map(|bytes| format!(" of {}", exact_bytes(bytes)));
                let shape = Shape::Small { files: value, bytes_each: self.bytes_each };
                (shape, format!("small files{}", each.unwrap_or_default()))
            }
        };
        let spec = Spec { shape, seed: self.seed, compressible: self.compressible };
        Stage { spec, point: Some(Point { series: name, axis, value }) }
    }

    fn variants(&self) -> Vec<SealiftOptions> {
        let hash = |hash: &Hash| match hash {
            Hash::Sha256 => "sha256",
            Hash::Blake3 => "blake3",
        };
        let cipher = |cipher: &Cipher| match cipher {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::Aes128Gcm => "aes-128-gcm",
        };
        let or_none = |names: Vec<&'static str>| match names.is_empty() {
            true => vec![None],
            false => names.into_iter().map(Some).collect(),
        };
        let ciphers = or_none(self.cipher.iter().map(cipher).collect());
        or_none(self.hash.iter().map(hash).collect())
            .into_iter()
            .flat_map(|hash| {
                let variants = ciphers.iter().flat_map(|&cipher| {
                    let variant = |sealed| SealiftOptions {
                        hash,
                        cipher,
                        connections: self.connections,
                        transport: None,
                        sealed,
                    };
                    std::iter::once(variant(false)).chain(self.sealed.then(|| variant(true)))
                });
                variants.collect::<Vec<_>>()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TransferArgs,
    }

    fn args(line: &[&str]) -> Result<TransferArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("transfer").chain(line.iter().copied())).map(|line| line.args)
    }

    fn plan(line: &[&str]) -> Plan {
        args(line).unwrap().plan().unwrap()
    }

    #[test]
    fn defaults_are_sensible() {
        let plan = plan(&[]);
        assert_eq!(plan.tools.len(), NAMES.len());
        assert_eq!(plan.durability, [false]);
        assert_eq!(plan.sealift, [SealiftOptions::default()]);
        assert_eq!(plan.stages.len(), 1);
        assert_eq!(args(&[]).unwrap().rounds, 5);
    }

    #[test]
    fn variants_multiply() {
        let plan =
            plan(&["--hash", "sha256,blake3", "--cipher=aes-128-gcm,aes-256-gcm", "--durability=both"]);
        assert_eq!(plan.sealift.len(), 4);
        assert_eq!(plan.sealift[3].hash, Some("blake3"));
        assert_eq!(plan.sealift[3].cipher, Some("aes-256-gcm"));
        assert_eq!(plan.durability, [false, true]);
    }

    #[test]
    fn series_become_data_sets() {
        let plan = plan(&["--series", "files=10,100", "--bytes-each=100B", "--tools=cp,sealift", "--fsync"]);
        let specs: Vec<String> = plan.stages.iter().map(|stage| stage.spec.to_string()).collect();
        assert_eq!(specs, ["small:10:100B", "small:100:100B"]);
        assert_eq!(plan.stages[1].point.as_ref().unwrap().value, 100);
        assert_eq!(plan.tools, ["cp", "sealift"]);
        assert_eq!(plan.durability, [true]);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            &["--data=tiny:5"][..],
            &["--series=sizes=big"],
            &["--series=rows=5"],
            &["--data=large:1GiB", "--series=files=5"],
            &["--rounds=0"],
            &["--fsync", "--no-fsync"],
            &["--hash=md5"],
        ] {
            assert!(args(line).is_err(), "{line:?}");
        }
        assert!(args(&["--tools=ftp"]).unwrap().plan().is_err());
    }
}
