//! Reports as HTML: one file with plots in it, nothing from elsewhere, no scripts.

mod plot;

use crate::output::table;
use crate::results::{Axis, Clock, Race, Ratio, Report};
use crate::units::{show_bytes, show_count};
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --mark: #c2410c; --other: #2563eb; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; } h3 { margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child, th:first-child { text-align: left; } th { font-weight: 600; }
.wide { overflow-x: auto; } .first td { background: var(--soft); } .note { color: #777; font-size: 13px; }
.problem { border-left: 4px solid #dc2626; padding-left: .8rem; }
code { font-size: 13px; overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: currentColor; }
";

/// Text as it may stand in HTML, between tags or in quotes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A page of these reports.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Sealift: measurements</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Sealift: measurements</h1>\n\
         <p>Contestants took turns in the same run. A dot is a round, a bar reaches to the median; ratios are \
         medians over pairs of rounds. 1 GB is 10<sup>9</sup> bytes.</p>\n"
    );
    for report in reports {
        html.push_str(&one(report));
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn one(report: &Report) -> String {
    let mut html = format!("<h2>sealift-bench {}</h2>\n", escape(&report.command));
    html.push_str(&facts(report));
    for problem in &report.problems {
        let _ = writeln!(html, "<p class=\"problem\">{}</p>", escape(problem));
    }
    for series in series_of(report) {
        html.push_str(&growth(&series, report));
    }
    for race in &report.races {
        html.push_str(&race_as_html(race));
    }
    html
}

fn facts(report: &Report) -> String {
    let machine = &report.machine;
    let mut rows = vec![
        ("CPU", format!("{} × {} ({})", machine.cores, machine.cpu, machine.cpu_features.join(" "))),
        ("Memory", show_bytes(machine.memory_bytes as f64)),
        ("System", format!("{}, Linux {}", machine.system, machine.kernel)),
        ("TCP congestion control", machine.tcp_congestion_control.clone()),
        ("Load before", machine.load_average.clone()),
        ("Begun", format!("{} (seconds since 1970)", report.started_unix_seconds)),
        ("Command", report.arguments.join(" ")),
    ];
    rows.extend(machine.file_system.iter().map(|name| ("File system", name.clone())));
    rows.extend(machine.tools.iter().map(|(name, version)| (name.as_str(), version.clone())));
    rows.extend(
        report.missing.iter().map(|missing| (missing.tool.as_str(), format!("missing: {}", missing.reason))),
    );
    let mut html = String::from("<details><summary>Where and how</summary>\n<table>\n");
    for (name, value) in rows {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td style=\"text-align:left\">{}</td></tr>",
            escape(name),
            escape(&value)
        );
    }
    html.push_str("</table>\n</details>\n");
    html
}

fn race_as_html(race: &Race) -> String {
    let clock = if race.clock == Clock::Cpu { " (CPU time)" } else { "" };
    let mut html = format!("<h3>{}{clock}</h3>\n", escape(&race.title));
    html.push_str(&plot::rounds(race));
    let shown = table(race);
    let first = race.contestants.first().map(|first| first.name.as_str());
    html.push_str("<div class=\"wide\"><table>\n<tr>");
    for head in &shown.heads {
        let _ = write!(html, "<th>{}</th>", escape(head));
    }
    html.push_str("</tr>\n");
    for row in &shown.rows {
        let is_first = row.first().map(String::as_str) == first;
        html.push_str(if is_first { "<tr class=\"first\">" } else { "<tr>" });
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
    if let Some(note) = &shown.note {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html.push_str(&ratios(race));
    html.push_str(&commands(race));
    html
}

fn ratios(race: &Race) -> String {
    let mut html = String::from(
        "<details><summary>Every pair</summary>\n<table>\n<tr><th></th><th>beside</th><th>× as fast</th>\
         <th>min</th><th>max</th><th>× the CPU time</th></tr>\n",
    );
    for Ratio { of, beside, speed, cpu, .. } in &race.ratios {
        let cpu = cpu.map_or_else(|| "-".into(), |cpu| format!("{:.2}", cpu.median));
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{cpu}</td></tr>",
            escape(of),
            escape(beside),
            speed.median,
            speed.min,
            speed.max
        );
    }
    html.push_str("</table>\n</details>\n");
    if race.ratios.is_empty() { String::new() } else { html }
}

fn commands(race: &Race) -> String {
    let mut html = String::from("<details><summary>Command lines</summary>\n<ul>\n");
    for command in race.contestants.iter().flat_map(|contestant| &contestant.commands) {
        let _ = writeln!(html, "<li><code>{}</code></li>", escape(command));
    }
    html.push_str("</ul>\n</details>\n");
    if race.contestants.iter().all(|contestant| contestant.commands.is_empty()) {
        String::new()
    } else {
        html
    }
}

/// The names of the series that have two points or more.
fn series_of(report: &Report) -> Vec<String> {
    let mut names: Vec<String> =
        report.races.iter().filter_map(|race| Some(race.point.as_ref()?.series.clone())).collect();
    names.sort();
    let mut several: Vec<String> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    several.dedup();
    several
}

/// How time grows along a series.
fn growth(series: &str, report: &Report) -> String {
    let in_series = |race: &&Race| race.point.as_ref().is_some_and(|point| point.series == series);
    let races: Vec<&Race> = report.races.iter().filter(in_series).collect();
    let axis = races.first().and_then(|race| race.point.as_ref()).map_or(Axis::Bytes, |point| point.axis);
    let (unit, per, shown): (_, f64, fn(u64) -> String) = match axis {
        Axis::Bytes => ("seconds per GB", 1e9, |bytes| show_bytes(bytes as f64)),
        Axis::Files => ("seconds per 1,000 files", 1e3, show_count),
    };
    let mut lines: Vec<plot::Line> = Vec::new();
    for race in &races {
        let Some(point) = &race.point else { continue };
        for contestant in &race.contestants {
            let Some(summary) = &contestant.summary else { continue };
            let at = (point.value as f64, summary.seconds.median * per / point.value as f64);
            match lines.iter_mut().find(|line| line.name == contestant.name) {
                Some(line) => line.points.push(at),
                None => lines.push(plot::Line { name: contestant.name.clone(), points: vec![at] }),
            }
        }
    }
    let ticks: Vec<(f64, String)> = races
        .iter()
        .filter_map(|race| race.point.as_ref())
        .map(|point| (point.value as f64, shown(point.value)))
        .collect();
    format!("<h3>{}: {unit}</h3>\n{}", escape(series), plot::lines(&lines, &ticks, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn nothing_from_outside_becomes_a_tag() {
        assert_eq!(escape("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
        assert_eq!(escape("plain µ\n"), "plain µ\n");
        let mut report = sample();
        report.races[0].title = "<script>".into();
        report.races[0].contestants[0].name = "<b>".into();
        report.problems.push("</p><i>".into());
        report.races[0].finish();
        let html = page(&[report]);
        for tag in ["<script", "<b>", "<i>"] {
            assert!(!html.contains(tag), "{tag}");
        }
    }

    #[test]
    fn a_page_is_whole_and_needs_nothing_else() {
        let mut report = sample();
        let mut larger = report.races[0].clone();
        larger.point.as_mut().unwrap().value *= 2;
        report.races.push(larger);
        let html = page(&[report]);
        assert!(html.contains("seconds per GB") && html.contains("<svg") && html.ends_with("</html>\n"));
        for tag in ["table", "details", "svg", "div", "h3", "ul"] {
            let (open, close) =
                (html.matches(&format!("<{tag}")).count(), html.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
        assert!(!html.contains("src=") && !html.contains("http"), "nothing from elsewhere");
    }
}
