//! One page of results that were kept.

use crate::failure::{OrFailure as _, Outcome, failure};
use crate::results::{FORMAT, Report};
use crate::{html, output};
use clap::Args;
use std::path::{Path, PathBuf};

/// The command line of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What --json wrote
    #[arg(value_name = "FILE.json", required = true)]
    pub files: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "OUT")]
    pub html: PathBuf,
}

/// Runs the command. Whether all results could be read.
pub fn run(args: &ReportArgs) -> Outcome<bool> {
    let reports = args.files.iter().map(|path| read(path)).collect::<Outcome<Vec<_>>>()?;
    output::write(&args.html, &html::page(&reports))?;
    Ok(true)
}

fn read(path: &Path) -> Outcome<Report> {
    let cannot = || format!("cannot read {}", path.display());
    let text = std::fs::read(path).or_failure(cannot)?;
    let mut report: Report = serde_json::from_slice(&text).or_failure(cannot)?;
    if report.format != FORMAT {
        return failure(format!("{}: its format is {}, not {FORMAT}", cannot(), report.format));
    }
    // Rounds are what counts: the rest follows from them.
    for race in &mut report.races {
        race.finish();
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn kept_results_become_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, page) = (dir.path().join("kept.json"), dir.path().join("page.html"));
        std::fs::write(&kept, serde_json::to_string(&sample()).unwrap()).unwrap();
        let args = ReportArgs { files: vec![kept.clone(), kept.clone()], html: page.clone() };
        assert!(run(&args).unwrap());
        assert!(std::fs::read_to_string(&page).unwrap().contains("large:4GiB"));
        std::fs::write(&kept, r#"{"format":"other"}"#).unwrap();
        assert!(run(&args).is_err());
    }
}
