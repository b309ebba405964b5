//! Plots as SVG.

use super::escape;
use crate::results::Race;
use crate::units::show_seconds;
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const ROW_HEIGHT: f64 = 26.0;
/// Where names end and bars begin.
const NAMES_WIDTH: f64 = 270.0;
/// What is left free for the median, behind the longest bar.
const FIGURES_WIDTH: f64 = 90.0;

/// A bar for each contestant and a dot for each of its rounds, fastest first.
pub fn rounds(race: &Race) -> String {
    let mut contestants: Vec<_> =
        race.contestants.iter().filter_map(|one| Some((one, one.summary.as_ref()?))).collect();
    contestants.sort_by(|(_, a), (_, b)| a.seconds.median.total_cmp(&b.seconds.median));
    let longest = contestants.iter().map(|(_, summary)| summary.seconds.max).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let x = |seconds: f64| NAMES_WIDTH + seconds / longest * (WIDTH - NAMES_WIDTH - FIGURES_WIDTH);
    let height = ROW_HEIGHT * contestants.len() as f64 + 4.0;
    let mut svg = open(height, &race.title);
    let first = race.contestants.first().map(|first| first.name.as_str());
    for (row, (contestant, summary)) in contestants.iter().enumerate() {
        let (top, middle) = (ROW_HEIGHT * row as f64 + 5.0, ROW_HEIGHT * (row as f64 + 0.5) + 2.0);
        let color = if first == Some(contestant.name.as_str()) { "var(--mark)" } else { "var(--other)" };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAMES_WIDTH}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\" \
             fill-opacity=\"0.35\"/>",
            NAMES_WIDTH - 8.0,
            middle + 4.5,
            escape(&contestant.name),
            x(summary.seconds.median) - NAMES_WIDTH,
            ROW_HEIGHT - 8.0,
        );
        for round in &contestant.rounds {
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"3\" fill=\"{color}\"/>",
                x(round.seconds)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(summary.seconds.max) + 8.0,
            middle + 4.5,
            escape(&show_seconds(summary.seconds.median)),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// One line of a plot.
pub struct Line {
    /// What it is of.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

const COLORS: [&str; 10] = [
    "#c2410c", "#2563eb", "#15803d", "#9333ea", "#0e7490", "#a16207", "#be185d", "#4d7c0f", "#475569",
    "#b91c1c",
];

/// Lines over a logarithmic axis with these ticks. Upright it begins at 0.
pub fn lines(lines: &[Line], ticks: &[(f64, String)], unit: &str) -> String {
    let (left, right, top, bottom, height) = (60.0, 200.0, 14.0, 34.0, 300.0);
    let all = || lines.iter().flat_map(|line| &line.points);
    let highest = all().map(|(_, y)| *y).fold(0.0, f64::max);
    let least = all().map(|(x, _)| x.ln()).fold(f64::INFINITY, f64::min);
    let most = all().map(|(x, _)| x.ln()).fold(f64::NEG_INFINITY, f64::max);
    if highest <= 0.0 || most <= least {
        return String::new();
    }
    let x = |value: f64| left + (value.ln() - least) / (most - least) * (WIDTH - left - right);
    let y = |value: f64| height - bottom - value / highest * (height - bottom - top);
    let mut svg = open(height, unit);
    for (value, shown) in ticks {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(*value),
            height - 10.0,
            escape(shown)
        );
    }
    for quarter in 0..=4_u8 {
        let value = highest * f64::from(quarter) / 4.0;
        let _ = write!(
            svg,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.3}</text>",
            WIDTH - right,
            y(value),
            y(value),
            left - 6.0,
            y(value) + 4.5
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (at, value) in &line.points {
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{color}\"/>",
                x(*at),
                y(*value)
            );
        }
        let legend = top + 18.0 * index as f64;
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{legend:.1}\" width=\"12\" height=\"12\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - right + 16.0,
            WIDTH - right + 34.0,
            legend + 11.0,
            escape(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\
         <title>{}</title>",
        escape(title)
    )
}
