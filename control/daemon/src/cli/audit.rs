//! The proof of the audit, and what is kept elsewhere for it.

use super::place::Place;
use super::{Done, say};
use crate::db::audit::{self, Checkpoint, Outside};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

/// Of a file of checkpoints: years of them.
const FILE_LEN_MAX: u64 = 256 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Prove that no record was changed or taken away
    Verify {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        kept: KeptElsewhere,
    },
    /// Sign the audit as it is, and show the signature: kept elsewhere, it shows that nothing was cut off since
    Checkpoint {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub(super) struct KeptElsewhere {
    /// A checkpoint that was kept elsewhere, or the file of some; may be repeated
    #[arg(long = "checkpoint", value_name = "FILE|CHECKPOINT")]
    checkpoints: Vec<String>,
}

impl KeptElsewhere {
    pub(super) fn read(&self) -> Result<Outside, Box<dyn std::error::Error>> {
        let mut outside = Outside::default();
        for given in &self.checkpoints {
            if given.starts_with("slaudit1 ") {
                outside.checkpoints.push(given.parse()?);
            } else {
                let fault = |error| format!("{given}: {error}");
                let file = File::open(given).map_err(fault)?.take(FILE_LEN_MAX);
                let before = outside.checkpoints.len();
                for (at, line) in BufReader::new(file).lines().enumerate() {
                    let line = line.map_err(fault)?;
                    // The daemon's log says more before it.
                    let Some(begins) = line.find("slaudit1 ") else { continue };
                    let words: Vec<_> = line[begins..].split_whitespace().take(4).collect();
                    let checkpoint: Checkpoint =
                        words.join(" ").parse().map_err(|error| format!("{given}:{}: {error}", at + 1))?;
                    outside.checkpoints.push(checkpoint);
                }
                if outside.checkpoints.len() == before {
                    return Err(format!("{given} has no checkpoint in it").into());
                }
            }
        }
        Ok(outside)
    }
}

pub(super) fn audit(command: AuditCommand) -> Done {
    match command {
        AuditCommand::Verify { place, kept } => {
            let outside = kept.read()?;
            let report = audit::verify_against(&place.open()?, &outside)?;
            if let Some(bad) = &report.bad {
                let what = format!("the audit log is not whole: record {}: {}", bad.number, bad.what);
                return Err(what.into());
            }
            let mut text =
                format!("whole: {} records, of which {} are signed", report.records, report.signed);
            if let Some(furthest) = outside.checkpoints.iter().map(|checkpoint| checkpoint.number).max() {
                text.push_str(&format!("; as it was when record {furthest} was kept elsewhere"));
            }
            say(&text)
        }
        AuditCommand::Checkpoint { place } => say(&audit::checkpoint(&place.open()?)?.to_string()),
    }
}
