//! Where results go: tables for people, JSON for programs, HTML for both.

use crate::failure::{OrFailure as _, Outcome};
use crate::html;
use crate::results::{Clock, NetworkSummary, Race, Report, Summary};
use crate::stats::Spread;
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

/// One table: heads, and rows of as many cells, the first of which is a name.
pub struct Table {
    /// What is in the columns.
    pub heads: Vec<String>,
    /// Contestants, fastest first.
    pub rows: Vec<Vec<String>>,
    /// What the last column means, if it has anything to say.
    pub note: Option<String>,
}

type Column = (&'static str, fn(&Summary) -> Option<String>);

/// What a table shows of contestants. Columns that would be empty are left out.
const COLUMNS: [Column; 18] = [
    ("median", |summary| Some(show_seconds(summary.seconds.median))),
    ("min", |summary| Some(show_seconds(summary.seconds.min))),
    ("max", |summary| Some(show_seconds(summary.seconds.max))),
    ("GB/s", |summary| summary.gigabytes_per_second.map(|rate| format!("{:.3}", rate.median))),
    ("files/s", |summary| summary.files_per_second.map(|rate| format!("{:.0}", rate.median))),
    ("CPU", |summary| summary.cpu_seconds.map(|cpu| show_seconds(cpu.median))),
    ("CPU ns/B", |summary| summary.cpu_nanoseconds_per_byte.map(|cpu| format!("{cpu:.3}"))),
    ("peak memory", memory),
    ("Mb/s", |summary| {
        of_network(summary, |network| network.megabits_per_second).map(|rate| format!("{rate:.1}"))
    }),
    ("of the link", |summary| of_network(summary, |network| network.share).map(percent)),
    ("waste", |summary| of_network(summary, |network| network.waste).map(percent)),
    ("round trip", |summary| of_network(summary, |network| network.round_trip_inflation).map(times)),
    ("least share", |summary| of_network(summary, |network| network.least_share).map(percent)),
    ("beside, Mb/s", |summary| {
        of_network(summary, |network| network.beside_megabits_per_second).map(|rate| format!("{rate:.1}"))
    }),
    ("late", |summary| {
        of_network(summary, |network| network.late_milliseconds_p99).map(|late| format!("{late:.1} ms"))
    }),
    ("cut off", |summary| {
        summary.network.as_ref().filter(|network| network.cut_off).map(|_| "cut off".to_owned())
    }),
    ("left the source", |summary| of_network(summary, |network| network.source_share).map(times)),
    ("between zones", |summary| of_network(summary, |network| network.between_share).map(times)),
];

fn of_network(summary: &Summary, value: fn(&NetworkSummary) -> Option<Spread>) -> Option<f64> {
    value(summary.network.as_ref()?).map(|spread| spread.median)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn times(factor: f64) -> String {
    format!("{factor:.2} ×")
}

fn memory(summary: &Summary) -> Option<String> {
    let ends = summary.peak_resident_bytes.iter().filter(|(end, _)| end.as_str() != "sync");
    let shown: Vec<String> =
        ends.map(|(end, bytes)| format!("{end} {}", show_bytes(*bytes as f64))).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// A race, with each contestant beside the first.
pub fn table(race: &Race) -> Table {
    let mut contestants: Vec<_> =
        race.contestants.iter().filter_map(|one| Some((one, one.summary.as_ref()?))).collect();
    contestants.sort_by(|(_, a), (_, b)| a.seconds.median.total_cmp(&b.seconds.median));
    let mut heads = vec![String::new()];
    let mut rows: Vec<Vec<String>> = contestants.iter().map(|(one, _)| vec![one.name.clone()]).collect();
    for (head, cell) in COLUMNS {
        let cells: Vec<Option<String>> = contestants.iter().map(|(_, summary)| cell(summary)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        heads.push(head.into());
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push(cell.unwrap_or_else(|| "-".into()));
        }
    }
    let first = race.contestants.first().map_or("", |first| first.name.as_str());
    let ratios: Vec<_> = race.ratios.iter().filter(|ratio| ratio.of == first).collect();
    if !ratios.is_empty() {
        heads.push("ratio".into());
        for row in &mut rows {
            let ratio = ratios.iter().find(|ratio| ratio.beside == row[0]);
            row.push(ratio.map_or_else(|| "-".into(), |ratio| format!("{:.2}", ratio.speed.median)));
        }
    }
    let note = format!("ratio: how many times as fast {first} is, the median over pairs of rounds");
    Table { heads, rows, note: (!ratios.is_empty()).then_some(note) }
}

/// A race as a table of text.
pub fn race_as_text(race: &Race) -> String {
    let clock = if race.clock == Clock::Cpu { " (CPU time)" } else { "" };
    let mut text = format!("\n{}{clock}\n", race.title);
    let Table { heads, rows, note } = table(race);
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(&rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for line in &lines {
        text.push_str(&format!("  {:<width$}", line[0], width = widths[0]));
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    }
    text.extend(note.map(|note| format!("  ({note})\n")));
    text
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
