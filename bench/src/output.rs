//! Where results go: tables for people, JSON for programs, HTML for both.

use crate::failure::{OrFailure as _, Outcome};
use crate::html;
use crate::results::{Clock, Race, Report, Summary};
use crate::units::{show_bytes, show_seconds};
use clap::Args;
use std::path::{Path, PathBuf};

/// Files that results are written to.
#[derive(Clone, Debug, Default, Args)]
pub struct OutputArgs {
    /// Write everything that was measured to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a report with plots to FILE, as HTML
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl OutputArgs {
    /// Writes what was asked for.
    pub fn write(&self, report: &Report) -> Outcome<()> {
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(report).or_failure(|| "no JSON".into())?;
            write(path, &(text + "\n"))?;
        }
        if let Some(path) = &self.html {
            write(path, &html::page(std::slice::from_ref(report)))?;
        }
        Ok(())
    }
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Outcome<()> {
    std::fs::write(path, text).or_failure(|| format!("cannot write {}", path.display()))
}

/// A race as a table, fastest first, each beside the first of its contestants.
pub fn race_as_text(race: &Race) -> String {
    let clock = if race.clock == Clock::Cpu { " (CPU time)" } else { "" };
    let mut rows = vec![header(race)];
    let mut contestants: Vec<_> =
        race.contestants.iter().filter_map(|one| Some((one, one.summary.as_ref()?))).collect();
    contestants.sort_by(|(_, a), (_, b)| a.seconds.median.total_cmp(&b.seconds.median));
    let first = race.contestants.first().map_or("", |first| first.name.as_str());
    for (one, summary) in contestants {
        let ratio = race.ratios.iter().find(|ratio| ratio.of == first && ratio.beside == one.name);
        let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{:.2}", ratio.speed.median));
        rows.push([vec![one.name.clone()], row(summary), vec![ratio]].concat());
    }
    let mut text = format!("\n{}{clock}\n", race.title);
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        text.push_str(&format!("  {:<width$}", row[0], width = widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    }
    text
}

/// The heads of the columns that [`row`] fills, between the name and the ratio.
fn header(race: &Race) -> Vec<String> {
    let first = race.contestants.first().map_or("", |first| first.name.as_str());
    let names = ["", "median", "min", "max", "GB/s", "files/s", "CPU s", "peak memory"];
    let mut names: Vec<String> = names.map(str::to_owned).to_vec();
    names.push(format!("{first} is × as fast"));
    names
}

/// What a contestant came to, in words.
fn row(summary: &Summary) -> Vec<String> {
    let seconds = summary.seconds;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let memory: Vec<String> = summary
        .peak_resident_bytes
        .iter()
        .filter(|(end, _)| end.as_str() != "sync")
        .map(|(end, bytes)| format!("{end} {}", show_bytes(*bytes as f64)))
        .collect();
    vec![
        show_seconds(seconds.median),
        show_seconds(seconds.min),
        show_seconds(seconds.max),
        or_dash(summary.gigabytes_per_second.map(|rate| format!("{:.3}", rate.median))),
        or_dash(summary.files_per_second.map(|rate| format!("{:.0}", rate.median))),
        or_dash(summary.cpu_seconds.map(|cpu| format!("{:.3}", cpu.median))),
        or_dash((!memory.is_empty()).then(|| memory.join(", "))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn a_table_names_the_fastest_first() {
        let text = race_as_text(&sample().races[0]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "large:4GiB");
        assert!(lines[3].trim_start().starts_with("sealift"), "{text}");
        assert!(lines[4].contains("cp") && lines[4].trim_end().ends_with("2.00"), "{text}");
    }
}
